//! What the collector has written down: how far it is, how the last run ended, and the switch.

use super::super::locks::Lock;
use std::io::Read;

use serde::{Deserialize, Serialize};

use super::super::{Error, Result, Store};
use super::Collected;
use crate::types::{Age, Key, Timestamp};

const STATE: &str = "gc/state.json";
const DISABLED: &str = "gc/disabled";
const PAUSED: &str = "gc/paused";

/// How far the collector is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nothing is marked.
    #[default]
    Idle,
    /// It goes through the histories; a run that died there begins anew.
    Marking,
    /// What is to go is marked, and waits for the grace period.
    Marked,
    /// It deletes what was marked; a run that died there is gone on with.
    Sweeping,
}

/// `.sepia/gc/state.json`. Times are nanoseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    pub phase: Phase,
    /// The moment as of which it was judged.
    pub cutoff: i64,
    /// When all was marked.
    pub marked_at: Option<i64>,
    /// How much.
    pub marked: u64,
    pub marked_bytes: u64,
    pub last: Option<LastRun>,
}

/// How the last run ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastRun {
    /// Nanoseconds since 1970.
    pub began: i64,
    /// Nanoseconds since 1970.
    pub ended: i64,
    /// Generations that were deleted.
    pub dropped: u64,
    /// Bytes that were freed.
    pub freed: u64,
    /// Conflicts that were deleted.
    pub conflicts: u64,
    /// Deletions that failed.
    pub errors: u64,
    /// Why it ended early, if it did.
    pub error: Option<String>,
}

/// What people want to know of the collector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Somebody is collecting at this moment.
    pub running: bool,
    /// How far it is.
    pub phase: Phase,
    /// Generations that are marked, and bytes that they take up.
    pub marked: u64,
    /// Bytes that the marked ones take up.
    pub marked_bytes: u64,
    /// Why all deletion is switched off, if it is; may be empty.
    pub disabled: Option<String>,
    /// Until when it is paused, if it is (nanoseconds since 1970).
    pub paused_until: Option<i64>,
    /// How the last run ended.
    pub last: Option<LastRun>,
}

impl State {
    /// What was written last. What can't be understood counts as nothing: marking begins anew then.
    pub(super) fn read(store: &Store) -> Result<Self> {
        let text = store.read_record(STATE)?;
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default())
    }

    pub(super) fn write(&self, store: &Store) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|error| Error::Records { what: STATE, source: error.into() })?;
        Ok(store.backend.put_record(&Key::parse(STATE)?, &text)?)
    }

    /// Whether what is marked has been so for as long as `grace`. Not, if the clock was set back since.
    pub(super) fn marked_before(&self, grace: Age, now: Timestamp) -> bool {
        self.marked_at.is_some_and(|at| at <= grace.before(now).nanos())
    }

    /// Whether the last run ended longer ago than `every`, or never; also when the clock was set back since.
    pub(super) fn ended_before(&self, every: Age, now: Timestamp) -> bool {
        let recent = |last: &LastRun| last.ended > every.before(now).nanos() && last.ended <= now.nanos();
        !self.last.as_ref().is_some_and(recent)
    }

    pub(super) fn ended(&mut self, began: Timestamp, ended: Timestamp, done: &Collected, error: Option<&Error>) {
        self.last = Some(LastRun {
            began: began.nanos(),
            ended: ended.nanos(),
            dropped: done.dropped,
            freed: done.freed,
            conflicts: done.conflicts,
            errors: done.errors,
            error: error.map(ToString::to_string),
        });
    }
}

impl Store {
    /// The state of the collector, and of the switch.
    ///
    /// # Errors
    /// What the medium says.
    pub fn collector_status(&self) -> Result<Status> {
        let state = State::read(self)?;
        let running = self.is_held(Lock::Collector)?;
        Ok(Status {
            running,
            phase: state.phase,
            marked: state.marked,
            marked_bytes: state.marked_bytes,
            disabled: self.read_record(DISABLED)?.map(|why| String::from_utf8_lossy(&why).trim().to_owned()),
            paused_until: self.paused_until()?.map(Timestamp::nanos),
            last: state.last,
        })
    }

    /// Stops all deletion of history in this store, by whomever, until [`Store::enable_deletion`].
    ///
    /// # Errors
    /// What the medium says.
    pub fn disable_deletion(&self, why: &str) -> Result<()> {
        self.backend.put_record(&Key::parse(DISABLED)?, why.as_bytes())?;
        // Who is deleting a batch holds this; the next one doesn't begin.
        drop(self.hold_history()?);
        Ok(())
    }

    /// Lets the collector delete again.
    ///
    /// # Errors
    /// What the medium says.
    pub fn enable_deletion(&self) -> Result<()> {
        Ok(self.backend.remove_record(&Key::parse(DISABLED)?)?)
    }

    /// Stops collection until then; `None`: no longer.
    ///
    /// # Errors
    /// What the medium says.
    pub fn pause_collection(&self, until: Option<Timestamp>) -> Result<()> {
        let path = Key::parse(PAUSED)?;
        match until {
            Some(until) => self.backend.put_record(&path, until.to_string().as_bytes())?,
            None => self.backend.remove_record(&path)?,
        }
        Ok(())
    }

    fn paused_until(&self) -> Result<Option<Timestamp>> {
        let text = self.read_record(PAUSED)?;
        let until = text.and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse::<Timestamp>().ok());
        Ok(until.filter(|until| *until > self.now()))
    }

    /// Whether history may be deleted. Asked before each batch, also by who frees space.
    ///
    /// # Errors
    /// [`Error::DeletionDisabled`], [`Error::Paused`].
    pub(super) fn check_switch(&self) -> Result<()> {
        self.check_disabled()?;
        match self.paused_until()? {
            Some(until) => Err(Error::Paused(until)),
            None => Ok(()),
        }
    }

    /// As [`Store::check_switch`], without the pause, which is for the collector and not for people.
    pub(in crate::store) fn check_disabled(&self) -> Result<()> {
        match self.read_record(DISABLED)? {
            Some(why) if why.trim_ascii().is_empty() => Err(Error::DeletionDisabled(String::new())),
            Some(why) => Err(Error::DeletionDisabled(format!(": {}", String::from_utf8_lossy(why.trim_ascii())))),
            None => Ok(()),
        }
    }

    /// A small record, if there is one.
    pub(in crate::store) fn read_record(&self, path: &'static str) -> Result<Option<Vec<u8>>> {
        let mut file = match self.backend.open_record(&Key::parse(path)?) {
            Err(error) if error.is_not_found() => return Ok(None),
            other => other?,
        };
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(|source| Error::Records { what: path, source })?;
        Ok(Some(text))
    }
}
