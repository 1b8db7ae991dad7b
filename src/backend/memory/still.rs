//! Holding everything still. A medium without locks would need leases for it; this one has a lock after all.

use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::backend::{Result, Still};
use crate::types::Timestamp;

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
    quiet: &'a Quiet,
    _guard: RwLockWriteGuard<'a, ()>,
}

impl Quiet {
    /// For a change.
    pub fn share(&self) -> RwLockReadGuard<'_, ()> {
        self.lock.read()
    }

    /// Until this is dropped nothing changes.
    pub fn own(&self) -> Box<dyn Still + '_> {
        Box::new(Owned { quiet: self, _guard: self.lock.write() })
    }

    /// Whether what was committed then must not be amended.
    pub fn is_kept_through(&self, committed: Option<Timestamp>) -> bool {
        committed.is_some_and(|time| time.nanos() <= self.kept_through.load(Ordering::Relaxed))
    }
}

impl Still for Owned<'_> {
    fn keep_through(&self, time: Timestamp) -> Result<()> {
        self.quiet.kept_through.fetch_max(time.nanos(), Ordering::Relaxed);
        Ok(())
    }
}
