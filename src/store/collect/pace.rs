//! How fast the collector goes, and when it stops.

use std::time::{Duration, Instant};

use super::super::policy::Percent;
use super::super::{Result, Store};

/// Sleeps are cut into pieces of this length, so that whoever waits for the end of a mount doesn't wait longer.
const NAP: Duration = Duration::from_millis(50);
/// The longest rest after a batch: on a medium that stood still for a while.
const REST_MAX: Duration = Duration::from_secs(5);

/// Takes breaks between batches, and looks before each whether to go on.
pub struct Pace<'a> {
    store: &'a Store,
    load: Percent,
    stop: &'a dyn Fn() -> bool,
    batch_began: Instant,
    stopped: bool,
}

impl<'a> Pace<'a> {
    /// For a run that begins now.
    pub(super) fn new(store: &'a Store, load: Percent, stop: &'a dyn Fn() -> bool) -> Self {
        Pace { store, load, stop, batch_began: Instant::now(), stopped: false }
    }

    /// Between two batches: rests, and says whether to go on.
    ///
    /// # Errors
    /// [`super::super::Error::DeletionDisabled`], [`super::super::Error::Paused`].
    pub(super) fn next(&mut self) -> Result<bool> {
        let load = u32::from(self.load.get().clamp(1, 100));
        let rest = (self.batch_began.elapsed() * (100 - load) / load).min(REST_MAX);
        let until = Instant::now() + rest;
        loop {
            if (self.stop)() {
                self.stopped = true;
                return Ok(false);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(NAP));
        }
        self.store.check_switch()?;
        self.batch_began = Instant::now();
        Ok(true)
    }

    /// Whether it was asked to stop.
    pub(super) fn has_stopped(&self) -> bool {
        self.stopped
    }
}
