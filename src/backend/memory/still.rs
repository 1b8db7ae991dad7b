//! Holding everything still. A medium without locks would need leases for it; this one has a lock after all.

use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::MemoryBackend;
use crate::backend::{Backend, Result, Stat, Still};
use crate::types::{Key, Timestamp};

/// Who changes something shares it; a snapshot owns it. Taken by the methods of the trait only, never twice.
#[derive(Debug)]
pub struct Quiet {
    lock: RwLock<()>,
    /// Up to when no generation is amended, in nanoseconds.
    kept_through: AtomicI64,
}

impl Default for Quiet {
    fn default() -> Self {
        Quiet { lock: RwLock::default(), kept_through: AtomicI64::new(i64::MIN) }
    }
}

struct Owned<'a> {
    backend: &'a MemoryBackend,
    _guard: RwLockWriteGuard<'a, ()>,
}

impl Quiet {
    /// For a change.
    pub fn share(&self) -> RwLockReadGuard<'_, ()> {
        self.lock.read()
    }

    /// Whether what was committed then must keep its bytes and that time.
    pub fn is_kept_through(&self, committed: Option<Timestamp>) -> bool {
        committed.is_some_and(|time| time.nanos() <= self.kept_through.load(Ordering::Relaxed))
    }
}

impl MemoryBackend {
    /// Until the result is dropped nothing changes.
    pub(super) fn own_still(&self) -> Box<dyn Still + '_> {
        Box::new(Owned { backend: self, _guard: self.still.lock.write() })
    }
}

impl Still for Owned<'_> {
    fn adopt(&self, key: &Key) -> Result<Stat> {
        // Nobody changes anything from outside.
        self.backend.stat(key)
    }

    fn keep_through(&self, time: Timestamp) -> Result<()> {
        self.backend.still.kept_through.fetch_max(time.nanos(), Ordering::Relaxed);
        Ok(())
    }
}
