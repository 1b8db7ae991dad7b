//! Objects that were made where they are, by this process: nobody else needs what they were.
//!
//! An editor puts a file aside under a name that makes no history, and writes it anew: then the history of the file's
//! own name is read from there. So what came to such a name by a rename, or may have, is kept like anything else.

use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;

use super::entry::Found;
use super::*;

/// Temporary files don't live long.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4 << 10).expect("not zero");

/// The objects that this process has made, by the key at which each still is.
#[derive(Debug)]
pub struct Births(Mutex<LruCache<Key, ObjectId>>);

impl Births {
    pub fn new() -> Self {
        Births(Mutex::new(LruCache::new(REMEMBERED)))
    }

    pub fn born(&self, key: &Key, id: ObjectId) {
        self.0.lock().put(key.clone(), id);
    }

    pub fn left(&self, key: &Key) {
        self.0.lock().pop(key);
    }

    pub fn clear(&self) {
        self.0.lock().clear();
    }
}

impl FileBackend {
    /// Whether what is at a key may be replaced or removed without being kept: no other name's history needs it, and
    /// no snapshot holds it. For files that are to make no history.
    pub(super) fn may_vanish(&self, key: &Key, found: Option<&Found>) -> Result<bool> {
        let Some(found) = found else { return Ok(true) };
        let made_here = self.births.0.lock().peek(key) == Some(&found.stat.id);
        Ok((made_here || found.is_reserved()) && !self.is_in_snapshot(Some(found))?)
    }
}
