//! The locks of the whole store, and waiting for one.

use std::time::{Duration, Instant};

use super::{Result, Store};
use crate::backend::{self, Exclusive};
use crate::types::Key;

/// A lock of the whole store, for something that one process does at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Deleting generations, and writing down what holds them.
    History,
    /// Ending a conflict.
    Resolution,
    /// Collecting what retention gives up.
    Collector,
    /// Making room on a full medium.
    Room,
    /// Changing names in a class with a limit.
    Names,
    /// Comparing the bytes with their checksums.
    Verify,
    /// Changing the records of checksums.
    Checksums,
    /// Computing checksums in the background.
    Summing,
}

impl Lock {
    const ALL: [Lock; 8] = [
        Lock::History,
        Lock::Resolution,
        Lock::Collector,
        Lock::Room,
        Lock::Names,
        Lock::Verify,
        Lock::Checksums,
        Lock::Summing,
    ];

    /// By which the medium knows it: all processes agree on that.
    fn name(self) -> &'static str {
        match self {
            Lock::History => "history",
            Lock::Resolution => "resolution",
            Lock::Collector => "collector",
            Lock::Room => "room",
            Lock::Names => "names",
            Lock::Verify => "verify",
            Lock::Checksums => "checksums",
            Lock::Summing => "summing",
        }
    }
}

/// What is done under such a lock takes milliseconds. Who has one for longer is stopped, or hangs on a dead medium.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The longest pause between two tries.
const PAUSE: Duration = Duration::from_millis(1);

impl Store {
    /// Takes each lock once: a medium that is full could not make one when it is needed, as it is to remove something.
    ///
    /// # Errors
    /// What the medium says.
    pub(super) fn make_locks(&self) -> Result<()> {
        Lock::ALL.into_iter().try_for_each(|lock| self.try_exclusive(lock).map(drop))
    }

    /// Takes a lock of the store if nobody has it.
    ///
    /// # Errors
    /// What the medium says.
    pub(super) fn try_exclusive(&self, lock: Lock) -> Result<Option<Exclusive>> {
        Ok(self.backend.try_exclusive(lock.name())?)
    }

    /// Whether somebody has a lock of the store now.
    ///
    /// # Errors
    /// What the medium says.
    pub(super) fn is_held(&self, lock: Lock) -> Result<bool> {
        match self.backend.try_exclusive(lock.name()) {
            // Nobody has ever had it, on a medium that can only be read.
            Err(error) if error.is_not_found() => Ok(false),
            other => Ok(other?.is_none()),
        }
    }

    /// Takes a lock of the store, when all others have let go of it.
    ///
    /// # Errors
    /// [`backend::Error::Locked`] after 30 seconds.
    pub(super) fn wait_exclusive(&self, lock: Lock) -> Result<Exclusive> {
        let started = Instant::now();
        let mut pause = Duration::from_micros(20);
        loop {
            if let Some(held) = self.try_exclusive(lock)? {
                return Ok(held);
            }
            if started.elapsed() > PATIENCE {
                return Err(backend::Error::Locked(Key::root()).into());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_store_has_them_all() {
        let dir = tempfile::tempdir().unwrap();
        Store::init(dir.path().to_str().unwrap()).unwrap();
        for lock in Lock::ALL {
            assert!(dir.path().join(".sepia/lock").join(lock.name()).exists(), "{lock:?}");
        }
    }
}
