//! What another program has moved to a name that has a history: it brings its number along, which may have been used
//! there. Before anything is kept of it, it counts on.

use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;
use rustix::io::Errno;

use super::entry::{Found, Place};
use super::*;

/// How many objects a process remembers.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(16 << 10).expect("not zero");

/// Files, by their inode numbers, that this process has seen under a name with a number that nothing else had there.
#[derive(Debug)]
pub struct Counted(Mutex<LruCache<Key, u64>>);

impl Counted {
    pub fn new() -> Self {
        Counted(Mutex::new(LruCache::new(REMEMBERED)))
    }

    /// What is at `key` has a number above those of its history.
    pub fn saw(&self, key: &Key, stat: &Stat) {
        self.0.lock().put(key.clone(), stat.incarnation);
    }

    fn knows(&self, key: &Key, stat: &Stat) -> bool {
        self.0.lock().get(key) == Some(&stat.incarnation)
    }
}

impl FileBackend {
    /// What is at `key`, with a number that nothing else had there. To be called under the key's lock.
    pub(super) fn counted(&self, key: &Key, place: &Place, found: Found) -> Result<Found> {
        if found.record.is_none() || self.counted.knows(key, &found.stat) {
            return Ok(found);
        }
        let counted = match self.highest_if_used(key, &found)? {
            Some(_) => {
                self.close_history(key)?;
                let highest = self.highest(key)?.map_or(Generation::FIRST, Generation::next);
                log::warn!("{key}: was moved here outside Sepia; that is generation {highest} now");
                self.renumber(key, place, &found, highest, self.now())?
            }
            None => found,
        };
        self.counted.saw(key, &counted.stat);
        Ok(counted)
    }

    /// Sees to it that nothing that is kept of `key` has the current one's number. Returns whether that was so.
    pub(super) fn count_on_if_moved_in(&self, key: &Key) -> Result<bool> {
        let Ok(place) = self.place(key) else { return Ok(false) };
        let Some(found) = self.find_optional(key, &place)? else { return Ok(false) };
        if self.counted.knows(key, &found.stat) || self.highest_if_used(key, &found)?.is_none() {
            return Ok(false);
        }
        match self.count_on_locked(key) {
            // On a medium that can only be read nobody saves, either.
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

    /// The highest number of the history, if it isn't below the recorded one of what is there.
    fn highest_if_used(&self, key: &Key, found: &Found) -> Result<Option<Generation>> {
        let Some(record) = found.record.filter(|_| !found.is_changed()) else { return Ok(None) };
        let (names, _) = self.history_entries(key)?;
        let Some(last) = names.last() else { return Ok(None) };
        let own = record.generation.get();
        // A commit that is under way, or died, has kept the current one already.
        let used = last.number > own || (last.number == own && last.committed != record.committed);
        Ok(Generation::new(last.number).filter(|_| used))
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
