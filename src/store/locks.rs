//! Waiting for the locks of the whole store, which have names.

use std::time::{Duration, Instant};

use super::{Result, Store};
use crate::backend::{self, Exclusive};
use crate::types::Key;

/// What is done under such a lock takes milliseconds. Who has one for longer is stopped, or hangs on a dead medium.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The longest pause between two tries.
const PAUSE: Duration = Duration::from_millis(1);

impl Store {
    /// Takes a lock of the store by its name, when all others have let go of it.
    ///
    /// # Errors
    /// [`backend::Error::Locked`] after 30 seconds.
    pub(super) fn wait_exclusive(&self, name: &str) -> Result<Exclusive> {
        let started = Instant::now();
        let mut pause = Duration::from_micros(20);
        loop {
            if let Some(lock) = self.backend.try_exclusive(name)? {
                return Ok(lock);
            }
            if started.elapsed() > PATIENCE {
                return Err(backend::Error::Locked(Key::root()).into());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE);
        }
    }
}
