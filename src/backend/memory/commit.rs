//! How bytes become the current generation: by one put under the condition that the object is as it was found.
//!
//! A put that is refused is no conflict yet. What was found may have had its mode changed, or may have been amended;
//! so the precondition is looked at again, and only that decides.

use std::sync::Arc;

use super::MemoryBackend;
use super::flat::Condition;
use super::local::{read_all, read_from};
use super::names::Entry;
use super::record::{Record, check, new_incarnation};
use crate::backend::{Commit, Creator, Error, FileKind, Opened, Result, Staged, Stat};
use crate::types::{Key, Precondition, Timestamp};

impl MemoryBackend {
    /// Takes a name with an empty file that is no generation.
    pub(super) fn reserve_name(&self, key: &Key, mode: u32, creator: &Creator) -> Result<Stat> {
        self.make(key, (FileKind::File, mode), &Arc::default(), creator, &|_| Ok(()))
    }

    /// The current generation as a local file.
    pub(super) fn open_current(&self, key: &Key) -> Result<Opened> {
        loop {
            let entry = self.file(key)?;
            if let Some(object) = self.flat.get(&entry.name).filter(|object| object.etag == entry.etag) {
                return self.opened(key, &object.bytes, &entry.record);
            }
        }
    }

    fn file(&self, key: &Key) -> Result<Entry> {
        let entry = self.find(key)?;
        match entry.record.kind {
            FileKind::File => Ok(entry),
            _ => Err(Error::Invalid(key.clone(), "not a regular file")),
        }
    }

    /// Replaces all bytes.
    pub(super) fn commit_staged(&self, key: &Key, staged: &Staged, how: &Commit, creator: &Creator) -> Result<Stat> {
        let io = |error| Error::from_io(key, "read the staged bytes", error);
        let bytes = read_all(staged.file()).map_err(io)?;
        let mtime = mtime(staged).map_err(io)?;
        loop {
            let Some(entry) = self.look(key)? else {
                // ENOENT and ENOTDIR of the directory go before the precondition: it can't hold there for anyone.
                self.parent_of(key)?;
                check(key, &how.expect, None)?;
                match self.make_generation(key, how.mode, &bytes, mtime, creator) {
                    Err(Error::Exists(_)) => continue,
                    other => return other,
                }
            };
            if entry.is_dir() {
                return Err(Error::IsDirectory(key.clone()));
            }
            check(key, &how.expect, Some(&entry.record))?;
            if entry.record.kind != FileKind::File {
                return Err(Error::Invalid(key.clone(), "not a regular file"));
            }
            let amend = how.amend && !self.still.is_kept_through(entry.record.committed);
            let keep = how.keep || !self.may_vanish(key, &entry);
            if (amend || !keep) && entry.record.generation.is_some() {
                self.detach(key, &entry)?;
            }
            let put = Put { bytes: bytes.clone(), mtime, amend, keep, as_prefix: false };
            if let Some(stat) = self.put_over(key, &entry, put)? {
                return Ok(stat);
            }
        }
    }

    fn make_generation(
        &self,
        key: &Key,
        mode: u32,
        bytes: &Arc<[u8]>,
        mtime: Timestamp,
        creator: &Creator,
    ) -> Result<Stat> {
        self.make(key, (FileKind::File, mode), bytes, creator, &|record| {
            record.generation = Some(self.next_generation(key, None)?);
            record.committed = Some(record.ctime);
            record.mtime = mtime;
            Ok(())
        })
    }

    /// Puts bytes in the place of what was found; `None` if that has changed, which then was not touched.
    fn put_over(&self, key: &Key, entry: &Entry, put: Put) -> Result<Option<Stat>> {
        let now = self.tick();
        // What is appended to goes on being the same bytes.
        let incarnation = if put.as_prefix { entry.record.incarnation } else { new_incarnation() };
        let mut record = Record { mtime: put.mtime, ctime: now, incarnation, ..entry.record.clone() };
        let mut kept = None;
        if !(put.amend && record.generation.is_some()) {
            if record.generation.is_some() && put.keep {
                kept = match put.as_prefix {
                    true => self.keep_as_prefix(key, entry, now),
                    false => self.keep(key, entry, now, false).ok(),
                };
                if kept.is_none() {
                    return Ok(None);
                }
            }
            record.generation = Some(self.next_generation(key, record.generation)?);
        }
        // Of an amendment too: who read what it replaces must not take it for the same.
        record.committed = Some(now);
        let size = put.bytes.len() as u64;
        match self.flat.put(&entry.name, put.bytes, record.metadata(), Condition::Match(entry.etag)) {
            Ok(_) => Ok(Some(record.stat(size, 1))),
            Err(_) => {
                self.take_back(kept);
                Ok(None)
            }
        }
    }

    /// Appends. On this medium that is a put of everything: an object in a flat space can't grow.
    pub(super) fn append_staged(&self, key: &Key, staged: &Staged, from: u64, how: &Commit) -> Result<Stat> {
        let io = |error| Error::from_io(key, "read the staged bytes", error);
        let tail = read_from(staged.file(), from).map_err(io)?;
        let mtime = mtime(staged).map_err(io)?;
        loop {
            let Some(entry) = self.look(key)? else {
                self.parent_of(key)?;
                check(key, &how.expect, None)?;
                return Err(Error::NotFound(key.clone()));
            };
            let entry = match entry.record.kind {
                FileKind::File => entry,
                FileKind::Directory => return Err(Error::IsDirectory(key.clone())),
                _ => return Err(Error::Invalid(key.clone(), "not a regular file")),
            };
            let Some(object) = self.flat.get(&entry.name).filter(|object| object.etag == entry.etag) else { continue };
            let expected = check(key, &how.expect, Some(&entry.record)).is_ok() && entry.size == from;
            let grown = !expected && entry.size >= from && grew_from(&entry.record, how);
            if !expected && !grown {
                return Err(Error::Stale { key: key.clone(), current: entry.record.generation });
            }
            how.check_size(key, entry.size, tail.len() as u64)?;
            let bytes = [&object.bytes, &tail[..]].concat().into();
            let amend = how.amend && expected && !self.still.is_kept_through(entry.record.committed);
            let keep = how.keep || !self.may_vanish(key, &entry);
            let put = Put { bytes, mtime, amend, keep, as_prefix: true };
            if let Some(stat) = self.put_over(key, &entry, put)? {
                return Ok(stat);
            }
        }
    }
}

/// Whether the current bytes have the expected version's as their beginning: appends leave the incarnation as it is.
fn grew_from(current: &Record, how: &Commit) -> bool {
    matches!(how.expect, Precondition::Version(_, id, _) if id == current.id) && how.merge == Some(current.incarnation)
}

/// What is put in the place of the current bytes.
struct Put {
    bytes: Arc<[u8]>,
    mtime: Timestamp,
    /// As the same generation.
    amend: bool,
    /// What is there goes to the history.
    keep: bool,
    /// The current bytes are its beginning.
    as_prefix: bool,
}

fn mtime(staged: &Staged) -> std::io::Result<Timestamp> {
    use std::os::unix::fs::MetadataExt;
    let meta = staged.file().metadata()?;
    Ok(Timestamp::from_parts(meta.mtime(), meta.mtime_nsec() as u32))
}
