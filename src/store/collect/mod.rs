//! The collector: deletes what the policy no longer keeps.
//!
//! In two phases. **Marking** ([`mark`]) goes through all histories, judges them ([`super::retention`]) as of a moment
//! taken before it began, and writes down what would go. **Sweeping** ([`sweep`]), a grace period later, judges each
//! of these again, and deletes only what is still to go. So a mistake in the policy can be mended, and a clock that
//! was wrong put right, before anything is lost. Both stop at the first listing that fails: what can't be seen must
//! not be taken for gone. A deletion that fails is counted, and the rest goes on.
//!
//! One collector at a time works on a store, however many mounts there are; a crash between any two steps leaves
//! marks that the next run goes on with. The switch and the pause ([`state`]) are looked at before each batch.
//! [`room`] is for a medium that is full.

mod mark;
mod pace;
mod room;
mod scan;
mod state;
mod sweep;

use super::locks::Lock;
use std::fmt;

pub use mark::Judged;
use pace::Pace;
pub(super) use room::Vain;
pub(super) use scan::Histories;
pub use state::{LastRun, Phase, Status};

use super::policy::Percent;
use super::{Error, Result, Store};
use crate::backend::Exclusive;
use crate::types::Timestamp;
use state::State;

/// How to collect.
#[derive(Clone, Copy)]
pub struct Collect<'a> {
    /// Delete at once what is to go, without a grace period.
    pub now: bool,
    /// How much of the time to be busy.
    pub load: Percent,
    /// Asked before each batch: whether to stop, and go on at the next run.
    pub stop: &'a dyn Fn() -> bool,
}

/// What a run has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Collected {
    /// Generations that are marked, and go at a later run if they are still to go then.
    pub marked: u64,
    /// Bytes that they take up.
    pub marked_bytes: u64,
    /// When that may be.
    #[serde(serialize_with = "rfc3339")]
    pub due: Option<Timestamp>,
    /// Generations that were deleted.
    pub dropped: u64,
    /// Bytes that were freed by that.
    pub freed: u64,
    /// Conflicts that were deleted.
    pub conflicts: u64,
    /// Keys that were forgotten.
    pub forgotten: u64,
    /// Deletions that failed.
    pub errors: u64,
    /// It was asked to stop before the end.
    pub stopped: bool,
}

fn rfc3339<S: serde::Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.serialize_str(&time.rfc3339()),
        None => serializer.serialize_none(),
    }
}

impl fmt::Debug for Collect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collect").field("now", &self.now).field("load", &self.load).finish_non_exhaustive()
    }
}

impl Store {
    /// Deletes what was marked longer ago than the grace period and is still to go, and marks what is to go next.
    ///
    /// # Errors
    /// [`Error::Collecting`] while somebody else does; [`Error::DeletionDisabled`], [`Error::Paused`];
    /// [`Error::Config`]; and the first listing that failed: nothing more was deleted after it.
    pub fn collect(&self, how: &Collect<'_>) -> Result<Collected> {
        let _alone = self.collect_alone()?;
        self.run(how)
    }

    /// As [`Store::collect`], for who asks every minute or so: does what is due by the policy, if anything is.
    ///
    /// # Errors
    /// As [`Store::collect`].
    pub fn collect_if_due(&self, stop: &dyn Fn() -> bool) -> Result<Option<Collected>> {
        let config = self.config()?;
        if !config.gc.background || self.check_switch().is_err() {
            return Ok(None);
        }
        let state = State::read(self)?;
        let due = match state.phase {
            Phase::Marked => state.marked_before(config.gc.grace, self.now()),
            // A run that was cut short is gone on with at once.
            Phase::Marking | Phase::Sweeping => true,
            Phase::Idle => state.ended_before(config.gc.every, self.now()),
        };
        if !due {
            return Ok(None);
        }
        match self.collect(&Collect { now: false, load: config.gc.load, stop }) {
            Err(Error::Collecting) => Ok(None),
            other => other.map(Some),
        }
    }

    fn run(&self, how: &Collect<'_>) -> Result<Collected> {
        self.check_switch()?;
        let config = self.config()?;
        let mut state = State::read(self)?;
        let started = self.now();
        let mut done = Collected::default();
        let mut pace = Pace::new(self, how.load, how.stop);
        let result = self.run_phases(how, &mut state, &mut pace, &mut done);
        done.stopped = pace.has_stopped();
        // How the run ended is told even if it can't be written down.
        if result.is_ok() && state.phase == Phase::Marked {
            done.due = state.marked_at.map(|at| Timestamp::from_nanos(at).after(config.gc.grace));
            (done.marked, done.marked_bytes) = (state.marked, state.marked_bytes);
        }
        state.ended(started, self.now(), &done, result.as_ref().err());
        let noted = state.write(self);
        result?;
        noted?;
        Ok(done)
    }

    fn run_phases(
        &self,
        how: &Collect<'_>,
        state: &mut State,
        pace: &mut Pace<'_>,
        done: &mut Collected,
    ) -> Result<()> {
        let grace = self.config()?.gc.grace;
        let ripe = match state.phase {
            Phase::Marked => state.marked_before(grace, self.now()),
            Phase::Sweeping => true,
            Phase::Idle | Phase::Marking => false,
        };
        if ripe && !how.now {
            self.sweep(state, pace, done)?;
        }
        if how.now || matches!(state.phase, Phase::Idle | Phase::Marking) {
            if pace.has_stopped() {
                return Ok(());
            }
            self.mark(state, pace)?;
        }
        if how.now && state.phase == Phase::Marked {
            self.sweep(state, pace, done)?;
        }
        Ok(())
    }

    fn collect_alone(&self) -> Result<Exclusive> {
        self.try_exclusive(Lock::Collector)?.ok_or(Error::Collecting)
    }
}
