//! Commits into an object's own file, since it has several names that must all go on being the same file.
//!
//! The bytes are replaced in place. What fails half way is undone with what the history has kept, or, at the first save, by
//! making the file empty again; a crash meanwhile is finished by recovery, from the staged file. That a save has begun is told
//! by the attribute [`super::record::REWRITTEN`], and whose it was by the journals.

use std::os::unix::fs::MetadataExt;

use rustix::fs::{FileType, Mode, OFlags};

use super::entry::{Found, Place, read_rewritten, statx, write_record, write_rewritten};
use super::generations::kept_name;
use super::record::{Record, Unsettled};
use super::repair::is_part;
use super::*;
use crate::backend::{GenerationName, Intent, copy_range};

/// An object's own file, and what was found there.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    pub key: &'a Key,
    pub place: &'a Place,
    pub found: &'a Found,
}

/// What became of a save that was to be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undo {
    /// No byte had been touched, or another program has written to it since.
    NotBegun,
    /// What was there before is there again.
    Done,
    /// Nobody has what was there before.
    Impossible,
}

impl FileBackend {
    /// Replaces the bytes of an object by those that are staged. An amendment keeps its copy only until it is done.
    pub(super) fn copy_into(
        &self,
        own: Own<'_>,
        staged: &Staged,
        generation: Generation,
        amend: bool,
        now: Timestamp,
    ) -> Result<Record> {
        let Own { key, place, found } = own;
        let failed = |error: std::io::Error| Error::from_io(key, "save into an object with several names", error);
        let intent = Intent {
            key: key.clone(),
            expect: found.stat.precondition(),
            append_from: None,
            base: None,
            acknowledged: true,
            in_place: true,
            sum: None,
            copied: false,
        };
        let kept = kept_name(found, now, false);
        if let Some(name) = &kept {
            match self.kept_copy(key, found)? {
                // By a commit that died, and was undone.
                Some((dir, before)) => rustix::fs::renameat(&dir, before.to_string(), &dir, name.to_string())
                    .map_err(|e| failed(e.into()))?,
                // Also of what isn't to stay: it can't be put back otherwise.
                None => self.keep_by_copy(key, place, &name.to_string())?,
            }
            // Under its name, too, before the only other one of these bytes is gone: not every filesystem keeps the order of both.
            if let Some(dir) = self.history_dir(key)? {
                dir.sync().map_err(|e| failed(e.into()))?;
            }
        }
        let begun = staged.begin(&intent, true).map_err(failed);
        let (written, settled) = match begun {
            Ok(()) => {
                let written = self.write_into(own, staged, generation, now).inspect(|_| staged.done());
                let settled = written.is_ok() || self.take_back(own, staged);
                (written, settled)
            }
            Err(error) => (Err(error), true),
        };
        if amend && settled {
            self.drop_copy(key, kept.as_ref());
        }
        written
    }

    /// As if nothing had happened: a disk that is full must not leave half a save. Returns whether that is so; else recovery needs
    /// what was noted and kept.
    fn take_back(&self, own: Own<'_>, staged: &Staged) -> bool {
        let why = match self.undo_copy(own, None) {
            Ok(Undo::NotBegun | Undo::Done) => {
                staged.give_back();
                return true;
            }
            Ok(Undo::Impossible) => "nobody has what was there before".to_owned(),
            Err(error) => error.to_string(),
        };
        log::error!("{}: half a save can't be undone, the next recovery finishes it: {why}", own.key);
        false
    }

    /// The copy of what was amended is not needed any more.
    fn drop_copy(&self, key: &Key, name: Option<&GenerationName>) {
        if let Some(name) = name
            && let Err(error) = self.unkeep_entry(key, name)
        {
            log::warn!("{key}: the copy {name} of what was amended stays in its history: {error}");
        }
    }

    /// Replaces the bytes of the object's own file by those that are staged, and records them.
    pub(super) fn write_into(
        &self,
        Own { key, place, found }: Own<'_>,
        staged: &Staged,
        generation: Generation,
        now: Timestamp,
    ) -> Result<Record> {
        let failed = |error: std::io::Error| Error::from_io(key, "save into an object with several names", error);
        let into = open_to_write(place).map_err(failed)?;
        let times = staged.file().metadata().map_err(failed)?;
        // Who has the old bytes as a base must not take the new ones for them.
        write_rewritten(key, place, now)?;
        into.set_len(0).map_err(failed)?;
        copy_range(staged.file(), &into, 0, u64::MAX).map_err(failed)?;
        into.set_len(times.len()).map_err(failed)?;
        let mtime = Timestamp::from_parts(times.mtime(), times.mtime_nsec() as u32);
        super::metadata::set_mtime(&into, mtime).map_err(|e| failed(e.into()))?;
        // Before it is recorded: what was kept could be dropped then.
        into.sync_all().map_err(failed)?;
        let record = Record {
            generation,
            id: found.stat.id,
            committed: now,
            size: times.len(),
            mtime,
            inode: found.stat.incarnation,
            unsettled: Unsettled::nothing(times.len()),
        };
        write_record(key, place, &record)?;
        into.sync_all().map_err(failed)?;
        Ok(record)
    }

    /// The copy in the history of what is recorded as current, which a commit into the object's own file makes first.
    fn kept_copy(&self, key: &Key, found: &Found) -> Result<Option<(Arc<Dir>, GenerationName)>> {
        let Some(record) = &found.record else { return Ok(None) };
        let Some(dir) = self.history_dir(key)? else { return Ok(None) };
        let (names, _) = self.history_entries(key)?;
        let own = |name: &&GenerationName| (name.number, name.committed) == (record.generation.get(), record.committed);
        let Some(name) = names.into_iter().rev().find(|name| own(&name)) else { return Ok(None) };
        let stat = statx(&dir, name.to_string().as_ref()).map_err(|e| Error::from_io(key, "look at its history", e))?;
        let is_copy = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile
            && stat.stx_ino != found.stat.incarnation
            && stat.stx_size == record.size;
        Ok(is_copy.then_some((dir, name)))
    }

    /// If a save has begun to replace the bytes of an object: puts back what was there before, by what is recorded of the file,
    /// from the history of the key. If it was somebody else's, `staged` is what they were copying: what another program has
    /// written since is its own.
    pub(super) fn undo_copy(&self, Own { key, place, found }: Own<'_>, staged: Option<&File>) -> Result<Undo> {
        let failed = |error: std::io::Error| Error::from_io(key, "undo a save that was cut short", error);
        if !has_begun(key, place, found.record.as_ref())? {
            return Ok(Undo::NotBegun);
        }
        let into = open_to_write(place).map_err(failed)?;
        let is_half = match staged {
            Some(staged) => is_part(&into, 0, staged, 0).map_err(failed)?,
            None => true,
        };
        let Some(record) = &found.record else {
            if !is_half {
                return Ok(Undo::NotBegun);
            }
            // It was the first save, and the file empty before.
            into.set_len(0).and_then(|()| into.sync_all()).map_err(failed)?;
            // Nothing is half done from here on.
            rustix::fs::fremovexattr(&into, super::record::REWRITTEN).map_err(|e| failed(e.into()))?;
            log::warn!("{key}: undid its first save, which was cut short");
            return Ok(Undo::Done);
        };
        let Some((dir, name)) = self.kept_copy(key, found)? else {
            return Ok(if is_half { Undo::Impossible } else { Undo::NotBegun });
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let kept = rustix::fs::openat(&dir, name.to_string(), flags, Mode::empty()).map_err(|e| failed(e.into()))?;
        let kept = File::from(kept);
        // Or it was being undone when that was cut short.
        if !is_half && !is_part(&into, 0, &kept, 0).map_err(failed)? {
            return Ok(Undo::NotBegun);
        }
        into.set_len(0).map_err(failed)?;
        copy_range(&kept, &into, 0, u64::MAX).map_err(failed)?;
        into.set_len(record.size).map_err(failed)?;
        super::metadata::set_mtime(&into, record.mtime).map_err(|e| failed(e.into()))?;
        into.sync_all().map_err(failed)?;
        log::warn!("{key}: undid a save that was cut short");
        Ok(Undo::Done)
    }
}

/// Whether the bytes of the object at `place` may have been replaced in its own file since this was recorded.
pub fn has_begun(key: &Key, place: &Place, record: Option<&Record>) -> Result<bool> {
    let rewritten = read_rewritten(key, place)?;
    Ok(rewritten.is_some_and(|rewritten| record.is_none_or(|record| rewritten > record.committed)))
}

fn open_to_write(place: &Place) -> std::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(&place.dir, &place.name, flags, Mode::empty()) {
        Err(rustix::io::Errno::ACCESS) => Ok(super::metadata::open_read_only(place)?.into()),
        other => Ok(other?.into()),
    }
}
