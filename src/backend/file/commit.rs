//! Commits: a staged file becomes the current generation.

use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;

use super::entry::{Found, Place, convert, note_elsewhere, read_rewritten, statx, write_record};
use super::generations::kept_name;
use super::in_place::{Own, has_begun};
use super::notes::Beginning;
use super::record::{Record, Unsettled};
use super::*;
use crate::backend::checksum::{joined, sum_of};
use crate::backend::{GenerationName, Intent, copy_range};
use crate::types::Timestamp;

impl FileBackend {
    pub(super) fn commit_staged(
        &self,
        key: &Key,
        staged: Staged,
        how: &Commit,
        creator: &Creator,
    ) -> std::result::Result<Stat, (Error, Staged)> {
        match self.try_commit(key, &staged, how, creator) {
            Ok((stat, in_place)) => {
                self.firsts.saw(key, &stat);
                if in_place {
                    staged.discard()
                } else {
                    drop(staged.committed())
                }
                Ok(stat)
            }
            Err(error) => Err((error, staged)),
        }
    }

    /// Returns the new state, and whether the bytes were copied rather than the file renamed.
    fn try_commit(&self, key: &Key, staged: &Staged, how: &Commit, creator: &Creator) -> Result<(Stat, bool)> {
        let failed = |error: Errno| Error::from_io(key, "save", error);
        if how.durable {
            staged.file().sync_all().map_err(|e| Error::from_io(key, "sync", e))?;
        } else {
            self.unsettle(key)?;
        }
        let size = staged.file().metadata().map_err(|e| Error::from_io(key, "stat", e))?.len();
        let unsettled = if how.durable { Unsettled::nothing(size) } else { summed(key, staged, 0, size, how.sum)? };
        let _tree = self.locks.share_tree(key)?;
        let _lock = self.lock(key)?;
        let place = self.place(key)?;
        let found = self.check(key, &place, &how.expect)?;
        if found.as_ref().is_some_and(|found| found.stat.kind != FileKind::File) {
            return Err(Error::Invalid(key.clone(), "is no regular file"));
        }
        let amend = how.amend && !self.is_in_snapshot(found.as_ref())?;
        let first = found.as_ref().is_none_or(Found::is_reserved) && !self.taken_again(key, None)?;
        let generation = match found.as_ref().and_then(|found| found.stat.generation) {
            Some(own) if amend => own,
            _ if first => Generation::FIRST,
            _ => self.next_generation(key, found.as_ref())?,
        };
        let keep = how.keep || !self.may_vanish(key, found.as_ref())?;
        if (amend || !keep) && found.is_some() {
            // What is about to be replaced and not kept may be what an older generation's bytes are read from.
            self.make_prefix_whole(key, &place)?;
        }
        let now = self.now();
        let (found, made) = match found {
            Some(found) => (found, false),
            // Made like any new file, so that owner, mode and inherited ACLs are right; then replaced.
            None => {
                self.make_file(key, how.mode, creator)?;
                (self.find(key, &place)?, true)
            }
        };
        let replaced = self.replace(key, &place, &found, staged, generation, amend || !keep, now, unsettled);
        let record = match replaced {
            Err(error) if made => {
                let _ = rustix::fs::unlinkat(&place.dir, &place.name, AtFlags::empty());
                return Err(error);
            }
            other => other?,
        };
        if how.durable {
            place.dir.sync().map_err(failed)?;
        } else {
            self.power.saved();
        }
        self.saw_counted(key, &record, false);
        Ok((just_recorded(key, &place, &record)?, record.inode == found.stat.incarnation))
    }

    /// Returns what was recorded of the file that is current now.
    #[allow(clippy::too_many_arguments, reason = "the steps of one commit; each is used once")]
    pub(super) fn replace(
        &self,
        key: &Key,
        place: &Place,
        found: &Found,
        staged: &Staged,
        generation: Generation,
        amend: bool,
        now: Timestamp,
        unsettled: Unsettled,
    ) -> Result<Record> {
        let mut found = found.clone();
        if is_shared(&found) && self.unkeep(key, &found)? {
            found = self.find(key, place)?;
        }
        if is_shared(&found) {
            return self.copy_into(Own { key, place, found: &found }, staged, generation, amend, now);
        }
        let fresh = found.is_reserved();
        let elsewhere = !fresh && self.may_begin_elsewhere(key, place, &found)?;
        staged.taint();
        super::metadata::copy(key, place, &found.stat, staged, fresh)?;
        if elsewhere {
            super::metadata::set_rewritten(key, staged, now)?;
        }
        let meta = staged.file().metadata().map_err(|e| Error::from_io(key, "stat", e))?;
        let record = Record {
            generation,
            id: found.stat.id,
            committed: now,
            size: meta.len(),
            mtime: Timestamp::from_parts(meta.mtime(), meta.mtime_nsec() as u32),
            inode: meta.ino(),
            unsettled,
        };
        super::metadata::seal(key, staged, &meta, &found.stat, &record)?;
        if !amend {
            self.keep_by_link(key, place, &found, now)?;
        }
        let (dir, name) = staged.location();
        // ext4 writes a file's blocks out before a rename replaces another one by it (auto_da_alloc), which is most of
        // what such a commit would cost. What a power loss tears is known by its sum. So the two change places, and
        // what was replaced, whose bytes the history has by now, goes from there; a session's own is just replaced.
        let exchange = |name| rustix::fs::renameat_with(dir, name, &place.dir, &place.name, RenameFlags::EXCHANGE);
        if !amend && exchange(&name).is_ok() {
            let _ = rustix::fs::unlinkat(dir, &name, AtFlags::empty());
            return Ok(record);
        }
        rustix::fs::renameat(dir, name, &place.dir, &place.name).map_err(|e| Error::from_io(key, "save", e))?;
        Ok(record)
    }

    pub(super) fn append_staged(&self, key: &Key, staged: &Staged, from: u64, how: &Commit) -> Result<Stat> {
        let failed = |error: std::io::Error| Error::from_io(key, "append", error);
        // An append that is to be durable isn't before its end.
        self.unsettle(key)?;
        let end = staged.file().metadata().map_err(failed)?.len();
        let tail = summed(key, staged, from, end, how.sum)?;
        let _tree = self.locks.share_tree(key)?;
        let _lock = self.lock(key)?;
        let place = self.place(key)?;
        let (found, merged) = match self.check(key, &place, &how.expect) {
            Err(Error::Stale { current: Some(_), .. }) if how.merge.is_some() => {
                (self.mergeable(key, &place, from, how)?, true)
            }
            other => (other?.ok_or_else(|| Error::NotFound(key.clone()))?, false),
        };
        let (Some(old), Some(record)) = (found.stat.generation, found.record) else {
            return Err(Error::Stale { key: key.clone(), current: found.stat.generation });
        };
        if how.merge.is_none() && found.stat.size != from {
            return Err(Error::Stale { key: key.clone(), current: Some(old) });
        }
        how.check_size(key, found.stat.size, end.saturating_sub(from))?;
        let amend = how.amend && !merged && !self.is_in_snapshot(Some(&found))?;
        let generation = if amend { old } else { old.next() };
        let now = self.now();
        if is_shared(&found) {
            self.unkeep(key, &found)?;
        }
        let elsewhere = self.may_begin_elsewhere(key, &place, &found)?;
        if elsewhere {
            // From here on the history leads up to what is current.
            note_elsewhere(key, &place)?;
        }
        let intent = Intent {
            key: key.clone(),
            expect: found.stat.precondition(),
            append_from: Some(from),
            base: Some(found.stat.incarnation),
            acknowledged: how.durable,
            in_place: true,
            sum: Some(tail.sum),
            copied: false,
        };
        // Before the object is touched: if we die meanwhile, recovery must know how much of it was whole.
        staged.begin(&intent, how.durable).map_err(failed)?;
        let prepared = || -> Result<(Option<GenerationName>, File)> {
            let mut kept = None;
            if !amend
                && (how.keep || !self.may_vanish(key, Some(&found))?)
                && let Some(name) = kept_name(&found, now, false)
            {
                if is_shared(&found) || has_begun(key, &place, Some(&record))? {
                    // Under another name its bytes may be replaced in place, of which this history would not know; or that was
                    // begun, and undone, since when it isn't known either.
                    self.keep_by_copy(key, &place, &name.to_string())?;
                } else {
                    let size = found.stat.size;
                    let beginning = Beginning { size, id: Some(record.id), unsettled: record.unsettled };
                    self.keep_as_note(key, &name, &beginning.note(generation), found.stat.mtime)?;
                }
                kept = Some(name);
            }
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(&place.dir, &place.name, flags, Mode::empty());
            let into = File::from(match fd {
                Err(Errno::ACCESS) => super::metadata::open_read_only(&place).map_err(|e| failed(e.into()))?,
                other => other.map_err(|e| failed(e.into()))?,
            });
            Ok((kept, into))
        };
        let (kept, into) = match prepared() {
            Ok(prepared) => prepared,
            Err(error) => {
                // Nothing was touched, and what others write there is not ours.
                staged.give_back();
                return Err(error);
            }
        };
        let written = append_bytes(staged.file(), from, &into, found.stat.size);
        let stat = written.and_then(|()| into.metadata());
        let meta = match stat {
            Ok(meta) => meta,
            Err(error) => {
                // As if nothing had happened: a disk that is full must not leave half an append.
                self.undo_append(key, &place, &record)?;
                staged.give_back();
                if let Some(name) = kept {
                    self.unkeep_entry(key, &name)?;
                }
                return Err(failed(error));
            }
        };
        let record = Record {
            generation,
            id: found.stat.id,
            committed: now,
            size: meta.len(),
            mtime: Timestamp::from_parts(meta.mtime(), meta.mtime_nsec() as u32),
            inode: found.stat.incarnation,
            unsettled: Unsettled {
                from: record.unsettled.from,
                sum: joined(record.unsettled.sum, tail.sum, end.saturating_sub(from)),
            },
        };
        match rustix::fs::fsetxattr(&into, super::record::NAME, &record.pack(), XattrFlags::empty()) {
            Err(Errno::ACCESS) => write_record(key, &place, &record)?,
            other => other.map_err(|e| failed(e.into()))?,
        }
        staged.done();
        self.power.saved();
        if how.durable {
            into.sync_all().map_err(failed)?;
            place.dir.sync().map_err(|e| failed(e.into()))?;
            // From here on only what the session appends further can be torn.
            write_record(key, &place, &Record { unsettled: Unsettled::nothing(record.size), ..record })?;
        }
        self.saw_counted(key, &record, elsewhere);
        just_recorded(key, &place, &record)
    }

    /// Whether the current version may be part of a snapshot, so that its number must go on meaning it.
    pub(super) fn is_in_snapshot(&self, found: Option<&Found>) -> Result<bool> {
        match found.and_then(|found| found.record.as_ref()) {
            Some(record) => self.is_kept_through(record.committed),
            None => Ok(false),
        }
    }

    /// What is current, if it has the expected version's bytes, `size` of them, as its beginning: the same file, which
    /// was only appended to.
    fn mergeable(&self, key: &Key, place: &Place, size: u64, how: &Commit) -> Result<Found> {
        let found = self.find(key, place)?;
        let stale = Error::Stale { key: key.clone(), current: found.stat.generation };
        let (Precondition::Version(generation, id, committed), Some(base)) = (how.expect, how.merge) else {
            return Err(stale);
        };
        let Some(current) = found.stat.generation.filter(|_| found.stat.id == id && found.stat.size >= size) else {
            return Err(stale);
        };
        let untouched = found.stat.incarnation == base
            && read_rewritten(key, place)?.is_none_or(|rewritten| rewritten <= committed);
        // After a power loss another file begins with the same bytes, if they were brought back.
        if untouched || self.only_appended_since(key, (generation, committed), current)? {
            self.counted(key, place, found)
        } else {
            Err(stale)
        }
    }

    /// What is at a place, if it is what is expected there. What was changed from outside is recorded first.
    pub(super) fn check(&self, key: &Key, place: &Place, expect: &Precondition) -> Result<Option<Found>> {
        let mut found = self.find_optional(key, place)?;
        if let Some(changed) = found.take_if(|found| found.is_changed()) {
            found = Some(self.adopt_locked(key, place, changed)?);
        }
        let stat = found.as_ref().map(|found| &found.stat);
        let holds = match *expect {
            Precondition::Any => true,
            Precondition::Absent if stat.is_some() => return Err(Error::Exists(key.clone())),
            Precondition::Absent => true,
            Precondition::Generation(generation) => stat.is_some_and(|stat| stat.generation == Some(generation)),
            // The same commit: what was moved here by another program has another number since it was looked at.
            Precondition::Version(_, id, committed) => {
                stat.is_some_and(|stat| (stat.id, stat.committed) == (id, Some(committed)))
            }
            Precondition::Reserved(id) => {
                stat.is_some_and(|stat| stat.id == id) && found.as_ref().is_some_and(Found::is_reserved)
            }
        };
        if let Some(Found { stat, .. }) = &found
            && stat.kind != FileKind::File
            && !matches!(expect, Precondition::Any)
        {
            return Err(Error::Stale { key: key.clone(), current: None });
        }
        if !holds {
            return Err(Error::Stale { key: key.clone(), current: stat.and_then(|stat| stat.generation) });
        }
        found.map(|found| self.counted(key, place, found)).transpose()
    }
}

/// What will be recorded of staged bytes that are not synced.
fn summed(key: &Key, staged: &Staged, from: u64, end: u64, known: Option<u32>) -> Result<Unsettled> {
    let sum = match known {
        Some(sum) => sum,
        None => sum_of(staged.file(), from, end).map_err(|e| Error::from_io(key, "sum up", e))?,
    };
    Ok(Unsettled { from, sum })
}

/// The state of a file of which this was just recorded, under the key's lock.
fn just_recorded(key: &Key, place: &Place, record: &Record) -> Result<Stat> {
    let statx = statx(&place.dir, &place.name).map_err(|e| Error::from_io(key, "stat", e))?;
    Ok(convert(&statx, Some(record)))
}

/// Whether the file has further names.
fn is_shared(found: &Found) -> bool {
    found.stat.nlink > 1
}

/// Copies the bytes of `staged` from offset `from` to the end of `into`, which is `end` bytes long.
fn append_bytes(staged: &File, from: u64, into: &File, end: u64) -> std::io::Result<()> {
    let length = staged.metadata()?.len().saturating_sub(from);
    if length <= 64 << 10 {
        let mut bytes = vec![0; length as usize];
        staged.read_exact_at(&mut bytes, from)?;
        return into.write_all_at(&bytes, end);
    }
    if from == end {
        return copy_range(staged, into, from, u64::MAX);
    }
    let (mut read, mut write) = (from, end);
    let mut left = length;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 30);
        let n = rustix::fs::copy_file_range(staged.as_fd(), Some(&mut read), into, Some(&mut write), most)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        left -= n as u64;
    }
    Ok(())
}
