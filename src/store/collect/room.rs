//! Making room on a medium that is full: the oldest history goes first, whatever the rules say.
//!
//! Never what is current, pinned, in a snapshot, or the base of a session, and nothing that was current within the
//! last hour. What the rules don't keep goes first, then the history of objects that are there, and what was removed
//! last of all, for that is the only copy. Writes down nothing, for there may be no room for that.

use super::super::locks::Lock;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::super::pins::Protected;
use super::super::policy::Percent;
use super::super::{Error, Result, Store};
use super::scan::Histories;
use super::{Collected, Pace};
use crate::backend::{GenerationInfo, Kept};
use crate::types::{Key, Timestamp};

/// What was current within this time stays.
const YOUNG: Duration = Duration::from_secs(3_600);
/// So many generations are looked at as candidates; if that is not enough, it is done again.
const CANDIDATES: usize = 16 << 10;
/// So many are deleted before the free space is looked at again.
const BATCH: usize = 32;
/// How long somebody whose write fails waits for another one who makes room.
const PATIENCE: Duration = Duration::from_secs(10);
/// After it was in vain, so long nobody tries again: a program that writes to a full disk tries often.
const IN_VAIN: Duration = Duration::from_secs(10);

/// How much a generation is worth: those with the smallest go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// No rule keeps it.
    Nothing,
    /// History of an object that is there.
    History,
    /// Of an object that is not.
    Removed,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    worth: Worth,
    superseded: Timestamp,
    key: Key,
    number: u64,
    committed: Timestamp,
    gone: bool,
}

/// When making room was in vain last.
#[derive(Debug, Default)]
pub struct Vain(parking_lot::Mutex<Option<Instant>>);

impl Store {
    /// Whether less of the medium is free than the policy wants, by how many bytes.
    ///
    /// # Errors
    /// What the medium says.
    pub fn lacks_room(&self) -> Result<u64> {
        let wanted = self.config()?.gc.min_free;
        let space = self.backend.stat_fs()?;
        let size = space.blocks.saturating_mul(space.block_size.into());
        let free = space.blocks_available.saturating_mul(space.block_size.into());
        Ok((size / 100).saturating_mul(wanted.get().into()).saturating_sub(free))
    }

    /// A write has failed for want of space: frees some, if there is something that may go. Returns whether the write
    /// may be tried again.
    pub fn make_room_for_write(&self, bytes: u64) -> bool {
        if self.vain.0.lock().is_some_and(|since| since.elapsed() < IN_VAIN) {
            return false;
        }
        // Some more than what is needed, so that the next write doesn't ask again at once.
        let wanted = bytes.saturating_mul(2).max(16 << 20).max(self.lacks_room().unwrap_or(0));
        match self.make_room(wanted, &|| false) {
            Ok(freed) if freed > 0 => return true,
            Ok(_) => {}
            Err(error) => log::warn!("no room can be made: {error}"),
        }
        *self.vain.0.lock() = Some(Instant::now());
        false
    }

    /// Deletes the oldest history until so many bytes are freed. Returns how many were.
    ///
    /// # Errors
    /// [`Error::DeletionDisabled`], [`Error::Paused`], and the first listing that failed.
    pub fn make_room(&self, wanted: u64, stop: &dyn Fn() -> bool) -> Result<u64> {
        self.check_switch()?;
        let started = Instant::now();
        let _alone = loop {
            if let Some(lock) = self.try_exclusive(Lock::Room)? {
                break lock;
            }
            if started.elapsed() > PATIENCE || stop() {
                return Err(Error::Collecting);
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        // Somebody else has made room while we waited.
        if started.elapsed() > Duration::from_millis(20) && self.lacks_room()? == 0 {
            return Ok(wanted);
        }
        let mut pace = Pace::new(self, Percent::ALL, stop);
        let mut done = Collected::default();
        let mut protected = Protected::read(self)?;
        loop {
            let before = done.freed;
            let candidates = self.candidates(&protected, &mut pace)?;
            let all = candidates.len() < CANDIDATES;
            self.drop_candidates(candidates, wanted, &mut protected, &mut pace, &mut done)?;
            if all || done.freed >= wanted || done.freed == before || pace.has_stopped() {
                break;
            }
        }
        if done.dropped > 0 {
            log::warn!(
                "space was short: {} of the oldest generations were deleted, {} bytes",
                done.dropped,
                done.freed
            );
        }
        Ok(done.freed)
    }

    /// What may go, the least worth first.
    fn candidates(&self, protected: &Protected, pace: &mut Pace<'_>) -> Result<Vec<Candidate>> {
        let now = self.now();
        let young = now.before(YOUNG);
        let config = self.config()?;
        // The greatest on top, to be replaced by a smaller one.
        let mut least: BinaryHeap<Candidate> = BinaryHeap::new();
        let mut histories = Histories::below(self, &Key::root());
        let mut looked_at = 0;
        while let Some((key, generations)) = histories.next()? {
            looked_at += 1;
            if looked_at % 64 == 0 && !pace.next()? {
                break;
            }
            if generations.is_empty() {
                continue;
            }
            let (verdicts, current) = self.judge_key(&key, &generations, &config.retention, protected, now)?;
            let held = protected.of(&key, &generations);
            for (info, verdict) in generations.iter().zip(&verdicts) {
                let superseded = info.superseded.unwrap_or(info.committed);
                let frees = info.kept == Kept::Whole || verdict.drops();
                if superseded >= young || held.is_strict(info.generation) || !frees {
                    continue;
                }
                let worth = match (verdict.drops(), current) {
                    (true, _) => Worth::Nothing,
                    (false, true) => Worth::History,
                    (false, false) => Worth::Removed,
                };
                let (number, committed) = (info.generation.get(), info.committed);
                least.push(Candidate { worth, superseded, key: key.clone(), number, committed, gone: !current });
                if least.len() > CANDIDATES {
                    least.pop();
                }
            }
        }
        Ok(least.into_sorted_vec())
    }

    fn drop_candidates(
        &self,
        candidates: Vec<Candidate>,
        wanted: u64,
        protected: &mut Protected,
        pace: &mut Pace<'_>,
        done: &mut Collected,
    ) -> Result<()> {
        for batch in candidates.chunks(BATCH) {
            if done.freed >= wanted || !pace.next()? {
                return Ok(());
            }
            let _no_pins = self.hold_history()?;
            self.check_switch()?;
            protected.refresh(self)?;
            for Candidate { key, number, committed, superseded, gone, .. } in batch {
                let generations = self.backend.generations(key)?;
                let is_meant = |info: &GenerationInfo| {
                    (info.generation.get(), info.committed, info.superseded.unwrap_or(info.committed))
                        == (*number, *committed, *superseded)
                };
                let Some(at) = generations.iter().position(is_meant) else { continue };
                let held = protected.of(key, &generations);
                // Beginnings whose bytes it holds go before it, unless one of them must stay.
                let from =
                    generations[..at].iter().rposition(|info| info.kept == Kept::Whole).map_or(0, |whole| whole + 1);
                let group = &generations[from..=at];
                let needed = |info: &GenerationInfo| held.is_strict(info.generation);
                if group.iter().any(needed) || (*gone && self.is_there(key)?) {
                    continue;
                }
                self.drop_some(key, group, *gone, done)?;
                if done.freed >= wanted {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
