//! The second phase: what was marked, and is still to go, is deleted.

use super::super::pins::Protected;
use super::super::{Actor, Event, EventKind, Resolution, Result, Store};
use super::mark::{Mark, is_forgotten};
use super::state::{Phase, State};
use super::{Collected, Pace};
use crate::backend::{self, GenerationInfo};
use crate::types::{Key, Timestamp};

/// So many generations are deleted at once, while pins and snapshots wait: some 50 ms. Each batch lists the history that
/// it thins, so that less would make a long one expensive.
const BATCH: usize = 2048;
/// So many keys are looked at in a batch. For each batch pins and sessions are read again.
const KEYS: usize = 64;

impl Store {
    pub(super) fn sweep(&self, state: &mut State, pace: &mut Pace<'_>, done: &mut Collected) -> Result<()> {
        let now = self.now();
        if state.phase != Phase::Sweeping {
            state.phase = Phase::Sweeping;
            state.write(self)?;
        }
        // What the dead have left becomes saves or conflicts, which age like others.
        if let Err(error) = self.recover() {
            log::warn!("what was interrupted waits for the next recovery: {error}");
        }
        let mut protected = Protected::read(self)?;
        for record in self.marks()? {
            let mut batch: Vec<Mark> = Vec::new();
            for mark in self.read_marks(&record)? {
                batch.push(mark);
                if (batch.len() >= KEYS || batch.iter().map(|mark| mark.generations.len()).sum::<usize>() >= BATCH)
                    && !self.sweep_batch(&mut batch, &mut protected, pace, now, done)?
                {
                    return Ok(());
                }
            }
            if !self.sweep_batch(&mut batch, &mut protected, pace, now, done)? {
                return Ok(());
            }
            self.backend.remove_record(&record)?;
        }
        self.sweep_conflicts(pace, done)?;
        let pruned = self.prune_events(now)?;
        done.freed += pruned.bytes;
        self.clear_marks()?;
        *state = State { last: state.last.take(), ..State::default() };
        state.write(self)
    }

    /// Empties `batch`. Returns whether to go on.
    fn sweep_batch(
        &self,
        batch: &mut Vec<Mark>,
        protected: &mut Protected,
        pace: &mut Pace<'_>,
        now: Timestamp,
        done: &mut Collected,
    ) -> Result<bool> {
        while !batch.is_empty() {
            if !pace.next()? {
                return Ok(false);
            }
            // From here on nobody pins anything until the batch is done.
            let _no_pins = self.hold_history()?;
            protected.refresh(self)?;
            let mut most = BATCH;
            let mut more = Vec::new();
            for mark in batch.drain(..) {
                if most == 0 || self.sweep_key(&mark, protected, now, &mut most, done)? {
                    more.push(mark);
                }
            }
            *batch = more;
        }
        Ok(true)
    }

    /// Deletes of a key's generations what is marked, but no more than `most`. Returns whether there is more.
    fn sweep_key(
        &self,
        mark: &Mark,
        protected: &Protected,
        now: Timestamp,
        most: &mut usize,
        done: &mut Collected,
    ) -> Result<bool> {
        let Ok(key) = Key::unescape(&mark.key) else { return Ok(false) };
        self.check_switch()?;
        let config = self.config()?;
        let generations = self.backend.generations(&key)?;
        let (verdicts, current) = self.judge_key(&key, &generations, &config.retention, protected, now)?;
        if mark.forget && !current && is_forgotten(&generations, now) {
            match self.backend.forget_history(&key, &generations) {
                Ok(()) => done.forgotten += 1,
                Err(error) => failed(&key, &error, done),
            }
            return Ok(false);
        }
        let doomed: Vec<GenerationInfo> = generations
            .iter()
            .zip(&verdicts)
            .filter(|(info, verdict)| verdict.drops() && mark.holds(info))
            .map(|(info, _)| info.clone())
            .collect();
        let some = &doomed[..doomed.len().min(*most)];
        if some.is_empty() {
            return Ok(false);
        }
        *most -= some.len();
        let dropped = self.drop_some(&key, some, !current, done)?;
        // Where nothing could be dropped, trying again would be for ever.
        Ok(dropped > 0 && doomed.len() > some.len())
    }

    /// Deletes generations of a key, and counts. Returns how many are gone.
    pub(in crate::store) fn drop_some(
        &self,
        key: &Key,
        which: &[GenerationInfo],
        gone: bool,
        done: &mut Collected,
    ) -> Result<u64> {
        let results = match self.backend.drop_generations(key, which, gone) {
            Ok(results) => results,
            // Made again since, or locked by somebody who is stopped: it is judged anew at the next run.
            Err(error @ (backend::Error::Exists(_) | backend::Error::Locked(_))) => {
                log::info!("{key}: its history is left as it is: {error}");
                return Ok(0);
            }
            Err(error) => return Err(error.into()),
        };
        let mut dropped = 0;
        for (info, result) in which.iter().zip(results) {
            match result {
                Ok(freed) => {
                    dropped += 1;
                    done.freed += freed;
                    self.note(Actor::current(), EventKind::Collected, key, |event| Event {
                        generation: Some(info.generation),
                        size: Some(info.size),
                        ..event
                    });
                }
                // Somebody else has dropped it, or it went along with a rename.
                Err(backend::Error::NoGeneration(..)) => {}
                Err(error) => failed(key, &error, done),
            }
        }
        done.dropped += dropped;
        Ok(dropped)
    }

    fn sweep_conflicts(&self, pace: &mut Pace<'_>, done: &mut Collected) -> Result<()> {
        for conflict in self.outdated_conflicts()? {
            if !pace.next()? {
                return Ok(());
            }
            match self.resolve_conflict(&conflict.id, &Resolution::Keep) {
                Ok(_) => {
                    done.conflicts += 1;
                    done.freed += conflict.size;
                }
                Err(error) => {
                    log::warn!("the conflict {} could not be deleted: {error}", conflict.id);
                    done.errors += 1;
                }
            }
        }
        Ok(())
    }
}

fn failed(key: &Key, error: &backend::Error, done: &mut Collected) {
    log::warn!("{key}: a generation could not be deleted: {error}");
    done.errors += 1;
}
