//! A backend that fails as a test wants it: from some operation on, as if the process had died there; or at one
//! operation; and whose clock can be put forward. It counts what is asked of it, too.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use sepia::backend::{Backend, Result};
use sepia::{Key, Timestamp};

use crate::common::over::{Hook, Over, refused};

pub type Faulty = Over<Faults>;

/// What is counted, and can be the last that is done.
const STEPS: [&str; 16] = [
    "stat",
    "list",
    "remove",
    "open",
    "open_generation",
    "forget_history",
    "put_record",
    "open_record",
    "remove_record",
    "generations",
    "generation",
    "history_members",
    "list_records",
    "drop_generations",
    "try_exclusive",
    "take_abandoned",
];
const LISTINGS: [&str; 3] = ["generations", "history_members", "list_records"];

pub struct Faults {
    /// Operations until it dies; negative: never.
    left: AtomicI64,
    /// Nanoseconds that its clock is ahead.
    ahead: AtomicI64,
    /// Operations so far.
    pub count: AtomicU64,
    /// The listing of this key fails.
    pub unlistable: Mutex<Option<Key>>,
    /// Nothing of this key can be deleted.
    pub undeletable: Mutex<Option<Key>>,
}

pub fn over(below: Arc<dyn Backend>) -> Arc<Faulty> {
    let (ahead, count, unlistable, undeletable) = Default::default();
    Arc::new(Over::new(below, Faults { left: AtomicI64::new(-1), ahead, count, unlistable, undeletable }))
}

impl Faults {
    pub fn dies_after(&self, operations: i64) {
        self.left.store(operations, Ordering::SeqCst);
    }

    pub fn lives(&self) {
        self.left.store(-1, Ordering::SeqCst);
    }

    pub fn is_dead(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    /// Puts the clock so many seconds ahead.
    pub fn ahead(&self, seconds: i64) {
        self.ahead.store(seconds * 1_000_000_000, Ordering::SeqCst);
    }
}

impl Hook for Faults {
    fn before(&self, operation: &'static str, key: &Key) -> Result<()> {
        if !STEPS.contains(&operation) {
            return Ok(());
        }
        self.count.fetch_add(1, Ordering::SeqCst);
        let left = self.left.load(Ordering::SeqCst);
        if left > 0 {
            self.left.store(left - 1, Ordering::SeqCst);
        }
        let unlistable = LISTINGS.contains(&operation) && self.unlistable.lock().unwrap().as_ref() == Some(key);
        if left == 0 || unlistable { Err(refused(key, Errno::IO)) } else { Ok(()) }
    }

    fn keeps(&self, key: &Key) -> bool {
        self.undeletable.lock().unwrap().as_ref() == Some(key)
    }

    fn drops_one_by_one(&self) -> bool {
        self.left.load(Ordering::SeqCst) >= 0
    }

    fn time(&self, below: Timestamp) -> Timestamp {
        Timestamp::from_nanos(below.nanos() + self.ahead.load(Ordering::SeqCst))
    }
}
