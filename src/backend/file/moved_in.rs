//! What another program has moved to a name that has a history: it brings its number along, which may have been used
//! there, and is not what the last entries of the history may be the beginnings of. Before anything of it is kept or
//! shown, it counts on, and the history is closed.
//!
//! It may come back, to beginnings of it that were left behind. So who replaces its bytes where the history doesn't lead
//! up to it says so on the new file (`user.sepia.rewritten`).

use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;
use rustix::fs::FileType;
use rustix::io::Errno;

use super::entry::{Found, Place, is_noted_elsewhere, statx, write_record};
use super::record::Record;
use super::*;
use crate::types::Timestamp;

/// How many objects a process remembers.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(16 << 10).expect("not zero");

/// The directory of a history, and when its entries were last changed.
type State = Option<(u64, Timestamp)>;

/// A file, by its inode number and commit, that belongs to the history of its name as that was then.
#[derive(Debug)]
struct Seen {
    inode: u64,
    committed: Timestamp,
    state: State,
    /// Whether other names may have beginnings of it, if this process has committed it.
    elsewhere: Option<bool>,
}

impl Seen {
    fn is(&self, inode: u64, record: &Record) -> bool {
        (self.inode, self.committed) == (inode, record.committed)
    }
}

/// What was seen last at each of the keys that were seen last.
#[derive(Debug)]
pub struct Counted(Mutex<LruCache<Key, Seen>>);

impl Counted {
    pub fn new() -> Self {
        Counted(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl FileBackend {
    /// What has this record has just become current at `key`, by a commit. `elsewhere`: other names may have beginnings of
    /// it.
    pub(super) fn saw_counted(&self, key: &Key, record: &Record, elsewhere: bool) {
        self.saw(key, record, Some(elsewhere));
    }

    fn saw(&self, key: &Key, &Record { inode, committed, .. }: &Record, elsewhere: Option<bool>) {
        match self.history_state(key) {
            Ok(state) => drop(self.counted.0.lock().put(key.clone(), Seen { inode, committed, state, elsewhere })),
            // Then it is looked at again.
            Err(_) => drop(self.counted.0.lock().pop(key)),
        }
    }

    /// Looked at from the directory above, for most histories are of few entries and not worth to be held open.
    fn history_state(&self, key: &Key) -> Result<State> {
        let (Some(parent), Some(name)) = (key.parent(), key.name()) else { return Ok(None) };
        let failed = |error: Errno| Error::from_io(key, "look at its history", error);
        for attempt in 0..2 {
            let Some(above) = self.history_dir(&parent)? else { return Ok(None) };
            return match statx(&above, name) {
                Ok(found) => {
                    let is_dir = FileType::from_raw_mode(found.stx_mode.into()) == FileType::Directory;
                    let changed = Timestamp::from_parts(found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec);
                    Ok(is_dir.then_some((found.stx_ino, changed)))
                }
                // Somebody has cleared the histories away, and the directory that is held open is no more.
                Err(Errno::NOENT) if attempt == 0 && rustix::fs::fstat(&above).map_err(failed)?.st_nlink == 0 => {
                    self.history.clear();
                    continue;
                }
                Err(Errno::NOENT) => Ok(None),
                Err(error) => Err(failed(error)),
            };
        }
        Ok(None)
    }

    /// What is at `key`, belonging to the history there. To be called under the key's lock.
    pub(super) fn counted(&self, key: &Key, place: &Place, mut found: Found) -> Result<Found> {
        let Some(record) = found.record else { return Ok(found) };
        let state = self.history_state(key)?;
        let is_known = |seen: &Seen| seen.is(found.stat.incarnation, &record) && seen.state == state;
        if self.counted.0.lock().get(key).is_some_and(is_known) {
            return Ok(found);
        }
        if found.stat.nlink > 1 && self.unkeep(key, &found)? {
            found = self.find(key, place)?;
        }
        if let Some(record) = self.arrived(key, place, &found)? {
            self.close_history(key)?;
            if let Some(highest) = self.highest(key)?.filter(|highest| record.generation <= *highest) {
                let generation = highest.next();
                log::warn!("{key}: was moved here outside Sepia; that is generation {generation} now");
                // It is the commit that it was: who has looked at it goes on from it.
                write_record(key, place, &Record { generation, ..record })?;
                found = self.find(key, place)?;
            }
        }
        if let Some(record) = &found.record {
            self.saw(key, record, None);
        }
        Ok(found)
    }

    /// Whether the histories of other names may have beginnings of the file at a place: it has got where it is by another
    /// program's doing, or may have. To be called under the key's lock.
    pub(super) fn may_begin_elsewhere(&self, key: &Key, place: &Place, found: &Found) -> Result<bool> {
        // The first generation was never appended to.
        let Some(record) = found.record.filter(|record| record.generation > Generation::FIRST) else {
            return Ok(false);
        };
        let seen = |seen: &Seen| seen.elsewhere.filter(|_| seen.is(found.stat.incarnation, &record));
        if let Some(elsewhere) = self.counted.0.lock().get(key).and_then(seen) {
            return Ok(elsewhere);
        }
        if is_noted_elsewhere(key, place)? {
            return Ok(true);
        }
        let own = record.generation.get();
        let (names, _) = self.history_entries(key)?;
        let Some(dir) = self.history_dir(key)? else { return Ok(true) };
        // A commit that died has kept the current one already.
        let last = names.iter().rfind(|name| (name.number, name.committed) != (own, record.committed));
        let Some(last) = last.filter(|last| last.number + 1 == own) else { return Ok(true) };
        // The moment when the one gave way to the other: by a rename over it, which brings another object.
        Ok(last.superseded != record.committed && self.object_of(key, &dir, last)? != Some(found.stat.id))
    }

    /// Sees to it that nothing that is kept of `key` has the current one's number, or is taken for its beginning.
    /// Returns whether that was so.
    pub(super) fn count_on_if_moved_in(&self, key: &Key) -> Result<bool> {
        let Ok(place) = self.place(key) else { return Ok(false) };
        let Some(found) = self.find_optional(key, &place)? else { return Ok(false) };
        match self.arrived(key, &place, &found) {
            // Somebody has taken it away meanwhile: nothing is locked.
            Ok(None) | Err(Error::NotFound(_)) => return Ok(false),
            other => drop(other?),
        }
        match self.count_on_locked(key) {
            // On a medium that can only be read nobody saves, either; its lock may not even be there.
            Err(Error::NotFound(_)) => Ok(false),
            Err(Error::Io { source, .. }) if [Errno::ROFS, Errno::ACCESS, Errno::PERM].contains(&errno_of(&source)) => {
                Ok(false)
            }
            other => other.map(|()| true),
        }
    }

    fn count_on_locked(&self, key: &Key) -> Result<()> {
        let _tree = self.locks.share_tree(key)?;
        let _lock = self.lock(key)?;
        let place = self.place(key)?;
        match self.find_optional(key, &place)? {
            Some(found) if !found.is_changed() => self.counted(key, &place, found).map(drop),
            _ => Ok(()),
        }
    }

    /// The record of what is at `key`, if it doesn't belong to the history there.
    fn arrived(&self, key: &Key, place: &Place, found: &Found) -> Result<Option<Record>> {
        let Some(record) = found.record.filter(|_| !found.is_changed()) else { return Ok(None) };
        let (names, _) = self.history_entries(key)?;
        let Some(last) = names.last() else { return Ok(None) };
        let own = record.generation.get();
        // A commit that is under way, or died, has kept the current one already.
        if last.number > own || (last.number == own && last.committed != record.committed) {
            return Ok(Some(record));
        }
        let Some(dir) = self.history_dir(key)? else { return Ok(None) };
        let beginning = self.last_beginning(key, &dir, &names, Some(&record))?;
        let Some((beginning, committed)) = beginning else { return Ok(None) };
        let is_foreign = !beginning.is_of(&record, Generation::new(last.number));
        Ok((is_foreign || self.is_rewritten(key, place, committed)?).then_some(record))
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
