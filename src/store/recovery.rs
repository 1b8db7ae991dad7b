//! Putting a store in order after its users died: every session that was under way is finished or set aside.

use std::fmt;

use super::{Actor, Breach, ConflictId, Error, Event, EventKind, Reason, Result, Store};
use crate::backend::{self, Abandoned, Commit, Creator, Intent, Staged, Torn, copy_range, sum_of};
use crate::types::{Generation, Key, Precondition};

/// What became of a session whose process died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It had been saved already; only its traces were removed.
    AlreadySaved,
    /// An fsync had been acknowledged: its bytes are now this generation.
    Finished(Generation),
    /// Its bytes are kept as this conflict.
    SetAside(ConflictId),
    /// It had not written anything.
    Empty,
    /// It was copying what is kept elsewhere; the copy was dropped.
    Copied,
    /// It had been saved without fsync, and a power loss tore it.
    Torn {
        /// The number of the torn generation, which is not given again.
        generation: Generation,
        /// Whether it was current, so that the one before, if any, had to take its place.
        current: bool,
        /// The generation whose bytes are current now.
        restored: Option<Generation>,
        /// What was left of it.
        kept: Option<ConflictId>,
    },
}

impl Outcome {
    /// Its name, for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::AlreadySaved => "already-saved",
            Outcome::Finished(_) => "finished",
            Outcome::SetAside(_) => "set-aside",
            Outcome::Empty => "empty",
            Outcome::Copied => "copied",
            Outcome::Torn { .. } => "torn",
        }
    }
}

/// A session that was recovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The object that it wrote to.
    pub key: Key,
    /// What became of it.
    pub outcome: Outcome,
    /// Bytes that it had staged.
    pub size: u64,
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Recovered { key, size, .. } = self;
        match &self.outcome {
            Outcome::AlreadySaved => write!(f, "{key}: had been saved before the crash, nothing was lost"),
            Outcome::Finished(generation) => {
                write!(f, "{key}: finished the save that was under way, it is generation {generation} ({size} bytes)")
            }
            Outcome::SetAside(id) => {
                write!(f, "{key}: set aside {size} bytes whose save had not ended, see: sepia conflicts show {id}")
            }
            Outcome::Empty => write!(f, "{key}: had been opened but not written"),
            Outcome::Copied => {
                write!(f, "{key}: was being restored; what it was restored from is there, so do it again")
            }
            Outcome::Torn { generation, current, restored, kept } => {
                write!(f, "{key}: a power loss has torn generation {generation}, which had not been synced")?;
                match (current, restored) {
                    (true, Some(restored)) if restored == generation => {
                        write!(f, "; what had been synced of it is current")?;
                    }
                    (true, Some(restored)) => write!(f, "; the bytes of generation {restored} are current again")?,
                    (true, None) => write!(f, "; there was none before it, so the object is gone")?,
                    (false, _) => {}
                }
                match kept {
                    Some(id) => write!(f, "; {size} bytes are left of it, see: sepia conflicts show {id}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl Store {
    /// Finishes or sets aside the sessions of all processes that died; those of the living are left alone.
    ///
    /// # Errors
    /// When the staging area can't be read or written. What was not recovered waits for the next call.
    pub fn recover(&self) -> Result<Vec<Recovered>> {
        let mut done = self.mend_torn()?;
        for abandoned in self.backend.take_abandoned()? {
            let key = abandoned.intent.key.clone();
            let size = abandoned.staged.file().metadata().map_or(0, |meta| meta.len());
            let size = size - abandoned.intent.append_from.unwrap_or(0).min(size);
            let outcome = self.recover_one(abandoned, size)?;
            done.push(self.noted(Recovered { key, outcome, size }));
        }
        Ok(done)
    }

    /// Puts in order what a power loss has torn. What was found is reported once: here, or by the next call.
    ///
    /// # Errors
    /// When the store can't be read or written. What was not mended waits for the next call.
    pub(super) fn mend_torn(&self) -> Result<Vec<Recovered>> {
        let mut done = std::mem::take(&mut *self.mended.lock());
        for Torn { key, generation, current, restored, remains } in self.backend.mend_torn()? {
            let size = remains.as_ref().and_then(|staged| staged.file().metadata().ok()).map_or(0, |meta| meta.len());
            let kept = match remains {
                Some(staged) => {
                    let kept = self.set_aside(staged, &key, Reason::Torn, None, restored, None);
                    Some(kept.map_err(|(error, _waits_for_the_next_recovery)| error)?)
                }
                None => None,
            };
            let outcome = Outcome::Torn { generation, current, restored, kept };
            done.push(self.noted(Recovered { key, outcome, size }));
        }
        Ok(done)
    }

    /// Writes down what was recovered.
    fn noted(&self, recovered: Recovered) -> Recovered {
        let Recovered { key, outcome, size } = &recovered;
        let (generation, kept) = match outcome {
            Outcome::Finished(generation) => (Some(*generation), None),
            Outcome::SetAside(id) => (None, Some(id)),
            Outcome::Torn { generation, kept, .. } => (Some(*generation), kept.as_ref()),
            Outcome::AlreadySaved => (None, None),
            Outcome::Empty | Outcome::Copied => return recovered,
        };
        let mut event = Event::new(EventKind::Recovered, key).with("outcome", outcome.name());
        if let Some(id) = kept {
            event = event.with("conflict", id.to_string());
        }
        self.record_event(&Event { generation, size: Some(*size), who: self.who(Actor::current()), ..event });
        recovered
    }

    fn recover_one(&self, abandoned: Abandoned, size: u64) -> Result<Outcome> {
        if self.backend.repair(&abandoned)? {
            abandoned.staged.discard();
            return Ok(Outcome::AlreadySaved);
        }
        let Abandoned { intent, staged } = abandoned;
        if size == 0 && !intent.acknowledged && !intent.in_place {
            staged.discard();
            return Ok(Outcome::Empty);
        }
        if intent.copied && !(intent.acknowledged || intent.in_place) {
            staged.discard();
            return Ok(Outcome::Copied);
        }
        let mut expect = intent.expect;
        if let Precondition::Version(base, ..) = expect
            && intent.append_from.is_none()
            && let Some(stat) = self.backend.in_stead_of_torn(&intent.key, base)?
        {
            expect = stat.precondition();
        }
        let commit = Commit {
            expect,
            durable: true,
            amend: false,
            merge: intent.base,
            sum: None,
            keep: true,
            max_size: None,
            mode: 0o666,
        };
        let whole = match intent.sum {
            Some(sum) if !intent.acknowledged => {
                let (from, file) = (intent.append_from.unwrap_or(0), staged.file());
                let end = file.metadata().map_or(0, |meta| meta.len());
                sum_of(file, from, end).is_ok_and(|found| found == sum)
            }
            _ => true,
        };
        let (error, staged) = if !whole {
            return self.put_aside(staged, &intent, Reason::Torn, None);
        } else if !(intent.acknowledged || intent.in_place) {
            return self.put_aside(staged, &intent, Reason::Interrupted, None);
        } else if let Some(breach) = self.breach_of_abandoned(&intent, &staged)? {
            return self.put_aside(staged, &intent, Reason::Rejected, Some(&breach));
        } else if let Some(from) = intent.append_from {
            match self.backend.append(&intent.key, &staged, from, &commit) {
                Ok(stat) => {
                    staged.discard();
                    return Ok(finished(stat.generation));
                }
                Err(error) => (error, staged),
            }
        } else {
            match self.backend.commit(&intent.key, staged, &commit, &Creator::current()) {
                Ok(stat) => return Ok(finished(stat.generation)),
                Err(failure) => failure,
            }
        };
        match error {
            backend::Error::Stale { .. } | backend::Error::NotFound(_) | backend::Error::NotDirectory(_) => {
                self.put_aside(staged, &intent, Reason::Stale, None)
            }
            error => Err(error.into()),
        }
    }

    /// What was written after the fsync that was acknowledged may break a rule.
    fn breach_of_abandoned(&self, intent: &Intent, staged: &Staged) -> Result<Option<Breach>> {
        let rules = self.rules_for(&intent.key);
        // What is half done in place must be completed.
        if rules.is_empty() || intent.in_place {
            return Ok(None);
        }
        self.complete(staged, intent)?;
        let checked = self.check_bytes(&intent.key, &rules, &**staged.file());
        checked.map_err(|source| Error::Records { what: "an interrupted save", source })
    }

    /// Copies what an append was based on to before it.
    fn complete(&self, staged: &Staged, intent: &Intent) -> Result<()> {
        let Intent { key, append_from: Some(from), expect, .. } = intent else { return Ok(()) };
        let (Precondition::Version(generation, ..) | Precondition::Generation(generation)) = *expect else {
            return Ok(());
        };
        match self.backend.open_generation(key, generation) {
            Ok(opened) => copy_range(&opened.file, staged.file(), 0, *from)
                .map_err(|source| Error::Records { what: "an interrupted save", source }),
            Err(error) => {
                log::warn!("{key}: the beginning of an interrupted append is missing: {error}");
                Ok(())
            }
        }
    }

    fn put_aside(&self, staged: Staged, intent: &Intent, reason: Reason, breach: Option<&Breach>) -> Result<Outcome> {
        let base = match intent.expect {
            Precondition::Version(generation, ..) | Precondition::Generation(generation) => Some(generation),
            _ => None,
        };
        self.complete(&staged, intent)?;
        match self.set_aside(staged, &intent.key, reason, breach, base, None) {
            Ok(id) => Ok(Outcome::SetAside(id)),
            Err((error, _waits_for_the_next_recovery)) => Err(error.into()),
        }
    }
}

fn finished(generation: Option<Generation>) -> Outcome {
    Outcome::Finished(generation.unwrap_or(Generation::FIRST))
}
