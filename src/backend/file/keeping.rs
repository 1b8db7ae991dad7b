//! What is put into a history, and taken back: by a further link, or by a copy where the file goes on.
//!
//! Each is there whole or not at all: copies are made under a name that readers pass over.

use std::os::unix::fs::MetadataExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::entry::{Found, Place};
use super::generations::{kept_name, name_of};
use super::notes::{Beginning, is_passed_over, read_note};
use super::open::open_place;
use super::record::{Record, Unsettled};
use super::*;
use crate::backend::{GenerationName, Kept, copy_range};
use crate::types::Timestamp;

impl FileBackend {
    /// Keeps what is at a place as a superseded generation, by a further link to it.
    pub(super) fn keep_by_link(&self, key: &Key, place: &Place, found: &Found, now: Timestamp) -> Result<()> {
        let Some(name) = kept_name(found, now, false) else { return Ok(()) };
        self.put_in_history(key, "keep the generation before", |room| {
            rustix::fs::linkat(&place.dir, &place.name, &room.dir, room.path(name.to_string()), AtFlags::empty())
        })
    }

    /// Removes the link that a commit made to keep the current generation and died before it replaced it.
    /// Returns whether there was one.
    pub(super) fn unkeep(&self, key: &Key, found: &Found) -> Result<bool> {
        let Some(generation) = found.stat.generation else { return Ok(false) };
        let (names, _) = self.history_entries(key)?;
        let mut found_one = false;
        let own =
            |name: &GenerationName| name.number == generation.get() && Some(name.committed) == found.stat.committed;
        for name in names.iter().filter(|name| name.number >= generation.get()) {
            let Some(dir) = self.history_dir(key)? else { break };
            let text = name.to_string();
            let stat = rustix::fs::statat(&dir, &text, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| Error::from_io(key, "look at its history", e))?;
            let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
            let is_prefix = is_link && Beginning::parse(&read_note(key, &dir, &text)?).is_some();
            if stat.st_ino == found.stat.incarnation || (is_prefix && own(name)) {
                rustix::fs::unlinkat(&dir, &text, AtFlags::empty())
                    .map_err(|e| Error::from_io(key, "mend its history", e))?;
                found_one = true;
            }
        }
        Ok(found_one)
    }

    /// Takes back what was just kept, for what was to supersede it failed.
    pub(super) fn unkeep_entry(&self, key: &Key, name: &GenerationName) -> Result<()> {
        let Some(dir) = self.history_dir(key)? else { return Ok(()) };
        match rustix::fs::unlinkat(&dir, name.to_string(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(Error::from_io(key, "mend its history", error)),
        }
    }

    /// If the last kept generation is the beginning of the current one, at `place`: gives it bytes of its own.
    pub(super) fn make_prefix_whole(&self, key: &Key, place: &Place) -> Result<()> {
        let found = self.find(key, place)?;
        // What another program has put there has another beginning.
        let Some(record) = found.record.filter(|record| record.is_of_bytes(&found.stat)) else { return Ok(()) };
        let (names, _) = self.history_entries(key)?;
        let Some(dir) = self.history_dir(key)? else { return Ok(()) };
        // As a rule only the last one is looked at: this is done at each fsync of a session, however long the history is.
        let own = |name: &&GenerationName| name.number == record.generation.get() && name.committed == record.committed;
        for name in names.iter().rev().filter(|name| !own(name)) {
            let Some(generation) = Generation::new(name.number) else { break };
            match self.look_at_kept(key, &dir, generation, name)? {
                Some(info) if is_passed_over(&info) => {}
                Some(info) if matches!(info.kept, Kept::Prefix(_)) => {
                    let beginning = Beginning::parse(&read_note(key, &dir, &name.to_string())?);
                    let last = names.last().and_then(|last| Generation::new(last.number));
                    if beginning.is_none_or(|beginning| !beginning.is_of(&record, last))
                        || self.is_rewritten(key, place, name.committed)?
                    {
                        break;
                    }
                    return self.copy_prefix(key, &info, &open_place(key, place)?, info.size);
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// Gives a generation that is the beginning of what is open a file of its own in the history of `key`.
    pub(super) fn copy_prefix(&self, key: &Key, info: &GenerationInfo, from: &Opened, size: u64) -> Result<()> {
        let old = Stat { mtime: info.mtime, ..from.stat.clone() };
        self.put_copy(key, &name_of(info), (&from.file, size), &old, Some((info.generation, info.committed)))
    }

    /// As [`FileBackend::keep_by_link`], by a copy.
    pub(super) fn keep_by_copy(&self, key: &Key, place: &Place, name: &str) -> Result<()> {
        let old = open_place(key, place)?;
        self.put_copy(key, name, (&old.file, u64::MAX), &old.stat, old.stat.generation.zip(old.stat.committed))
    }

    /// Copies so many bytes of a file into a history, with the metadata of `old`.
    fn put_copy(
        &self,
        key: &Key,
        name: &str,
        (from, size): (&File, u64),
        old: &Stat,
        version: Option<(Generation, Timestamp)>,
    ) -> Result<()> {
        let failed = |error: std::io::Error| Error::from_io(key, "keep the generation before", error);
        let dir = self.make_history_dir(key)?;
        let partial = format!(".{name}");
        let copy = create_in_history(key, &dir, &partial)?;
        let fill = || {
            copy_range(from, &copy, 0, size)?;
            if let Some((generation, committed)) = version {
                sign_copy(&copy, old, generation, committed)?;
            }
            super::metadata::copy_to_history(old, &copy)?;
            copy.sync_all()?;
            Ok(rustix::fs::renameat(&dir, &partial, &dir, name)?)
        };
        fill().map_err(|error| {
            // Others need the space.
            let _ = rustix::fs::unlinkat(&dir, &partial, AtFlags::empty());
            failed(error)
        })
    }
}

/// Gives a copy in the history a record, for it has another inode than the object, from which its id would be derived.
pub fn sign_copy(copy: &File, old: &Stat, generation: Generation, committed: Timestamp) -> std::io::Result<()> {
    let meta = copy.metadata()?;
    let record = Record {
        generation,
        id: old.id,
        committed,
        size: meta.len(),
        mtime: old.mtime,
        inode: meta.ino(),
        unsettled: Unsettled::nothing(meta.len()),
    };
    Ok(rustix::fs::fsetxattr(copy, super::record::NAME, &record.pack(), XattrFlags::empty())?)
}

/// Removes what a process has left under a name of this kind that died over it. The key is locked.
pub fn remove_partial(key: &Key, dir: &Dir, name: &str) -> Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(Error::from_io(key, "tidy its history", error)),
    }
}

/// Makes an empty private file in a key's history directory, to be filled and renamed.
pub fn create_in_history(key: &Key, dir: &Dir, name: &str) -> Result<File> {
    remove_partial(key, dir, name)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)
        .map(File::from)
        .map_err(|e| Error::from_io(key, "keep the generation before", e))
}
