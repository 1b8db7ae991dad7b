//! Putting a store in order after its users died: every session that was under way is finished or set aside.

use std::fmt;

use super::bases::Version;
use super::conflicts::Aside;
use super::{Actor, Breach, ConflictId, Error, Event, EventKind, Reason, Result, Store};
use crate::backend::{self, Abandoned, Commit, Creator, Intent, Staged, Stat, Torn, copy_range, sum_of};
use crate::types::{Generation, Key, Precondition};

/// What became of a session whose process died, or why nothing, and its bytes.
type Tried = std::result::Result<Outcome, Box<(Error, Staged)>>;

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
    /// That failed, for this reason. Its bytes wait for the next recovery.
    Waits(String),
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
            Outcome::Waits(_) => "waits",
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
            Outcome::Waits(why) => {
                write!(f, "{key}: {size} bytes whose save had not ended wait for the next recovery: {why}")
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
    /// Finishes or sets aside the sessions of all processes that died; those of the living are left alone. One that fails
    /// ([`Outcome::Waits`]) doesn't keep the others from it: it waits for the next call, or for another process if this one ends.
    ///
    /// # Errors
    /// When what a power loss has torn can't be mended, or the staging area can't be read or written. What was not recovered waits
    /// for the next call.
    pub fn recover(&self) -> Result<Vec<Recovered>> {
        let mut done = self.mend_torn()?;
        let taken = self.backend.take_abandoned()?;
        let before = std::mem::take(&mut *self.waiting.lock());
        for Abandoned { intent, staged } in before.into_iter().chain(taken) {
            let key = intent.key.clone();
            let size = staged.file().metadata().map_or(0, |meta| meta.len());
            let size = size - intent.append_from.unwrap_or(0).min(size);
            let outcome = match self.recover_one(&intent, staged, size) {
                Ok(outcome) => outcome,
                Err(failure) => {
                    let (error, staged) = *failure;
                    log::error!("{key}: what a dead process was saving waits for the next recovery: {error}");
                    self.waiting.lock().push(Abandoned { intent, staged });
                    Outcome::Waits(error.to_string())
                }
            };
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
                    let (breach, base_lost, actor) = (None, None, None);
                    let why = Aside { reason: Reason::Torn, breach, base: restored, base_lost, actor };
                    let kept = self.set_aside(staged, &key, &why);
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
            Outcome::Empty | Outcome::Copied | Outcome::Waits(_) => return recovered,
        };
        let mut event = Event::new(EventKind::Recovered, key).with("outcome", outcome.name());
        if let Some(id) = kept {
            event = event.with("conflict", id.to_string());
        }
        self.record_event(&Event { generation, size: Some(*size), who: self.who(Actor::current()), ..event });
        recovered
    }

    /// On failure the bytes are given back.
    fn recover_one(&self, intent: &Intent, staged: Staged, size: u64) -> Tried {
        let abandoned = Abandoned { intent: intent.clone(), staged };
        let fate = self.judge(&abandoned, size);
        let staged = abandoned.staged;
        match fate {
            Err(error) => Err(Box::new((error, staged))),
            Ok(Fate::Drop(outcome)) => {
                staged.discard();
                Ok(outcome)
            }
            Ok(Fate::SetAside(reason, breach)) => self.put_aside(staged, intent, reason, breach.as_ref()),
            Ok(Fate::Save(commit)) => self.finish(intent, staged, &commit),
        }
    }

    /// What is to become of an abandoned save.
    fn judge(&self, abandoned: &Abandoned, size: u64) -> Result<Fate> {
        let Abandoned { intent, staged } = abandoned;
        if self.backend.repair(abandoned)? {
            return Ok(Fate::Drop(Outcome::AlreadySaved));
        }
        let must_be_saved = intent.acknowledged || intent.in_place;
        if size == 0 && !must_be_saved {
            return Ok(Fate::Drop(Outcome::Empty));
        }
        if intent.copied && !must_be_saved {
            return Ok(Fate::Drop(Outcome::Copied));
        }
        if let Some(sum) = intent.sum.filter(|_| !intent.acknowledged) {
            let (from, file) = (intent.append_from.unwrap_or(0), staged.file());
            let end = file.metadata().map_or(0, |meta| meta.len());
            if !sum_of(file, from, end).is_ok_and(|found| found == sum) {
                return Ok(Fate::SetAside(Reason::Torn, None));
            }
        }
        if !must_be_saved {
            return Ok(Fate::SetAside(Reason::Interrupted, None));
        }
        if let Some(breach) = self.breach_of_abandoned(intent, staged)? {
            return Ok(Fate::SetAside(Reason::Rejected, Some(breach)));
        }
        let mut expect = intent.expect;
        if let Precondition::Version(base, ..) = expect
            && intent.append_from.is_none()
            && let Some(stat) = self.backend.in_stead_of_torn(&intent.key, base)?
        {
            expect = stat.precondition();
        }
        Ok(Fate::Save(Commit {
            expect,
            durable: true,
            amend: false,
            merge: intent.base,
            sum: None,
            keep: true,
            max_size: None,
            mode: 0o666,
        }))
    }

    fn finish(&self, intent: &Intent, staged: Staged, commit: &Commit) -> Tried {
        let finished = |stat: Stat| Outcome::Finished(stat.generation.unwrap_or(Generation::FIRST));
        let (error, staged) = match intent.append_from {
            Some(from) => match self.backend.append(&intent.key, &staged, from, commit) {
                Ok(stat) => {
                    staged.discard();
                    return Ok(finished(stat));
                }
                Err(error) => (error, staged),
            },
            None => match self.backend.commit(&intent.key, staged, commit, &Creator::current()) {
                Ok(stat) => return Ok(finished(stat)),
                Err(failure) => failure,
            },
        };
        match error {
            backend::Error::Stale { .. } | backend::Error::NotFound(_) | backend::Error::NotDirectory(_) => {
                self.put_aside(staged, intent, Reason::Stale, None)
            }
            error => Err(Box::new((error.into(), staged))),
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

    /// Copies what an append was based on to before it. Returns how many bytes are missing there, if it is kept nowhere.
    fn complete(&self, staged: &Staged, intent: &Intent) -> Result<Option<u64>> {
        let Intent { key, append_from: Some(from), expect, .. } = intent else { return Ok(None) };
        let failed = |source| Error::Records { what: "an interrupted save", source };
        let found = match *expect {
            Precondition::Version(generation, id, committed) => {
                self.copy_version(key, Version { generation, id, committed }, staged.file(), *from).map_err(failed)?
            }
            Precondition::Generation(generation) => match self.backend.open_generation(key, generation) {
                Ok(opened) => copy_range(&opened.file, staged.file(), 0, *from).map(|()| true).map_err(failed)?,
                Err(_) => false,
            },
            _ => false,
        };
        if !found && *from > 0 {
            log::warn!("{key}: the beginning of an interrupted append is missing");
        }
        Ok((!found && *from > 0).then_some(*from))
    }

    fn put_aside(&self, staged: Staged, intent: &Intent, reason: Reason, breach: Option<&Breach>) -> Tried {
        let base = match intent.expect {
            Precondition::Version(generation, ..) | Precondition::Generation(generation) => Some(generation),
            _ => None,
        };
        let base_lost = match self.complete(&staged, intent) {
            Ok(base_lost) => base_lost,
            Err(error) => return Err(Box::new((error, staged))),
        };
        let why = Aside { reason, breach, base, base_lost, actor: None };
        let kept = self.set_aside(staged, &intent.key, &why);
        kept.map(Outcome::SetAside).map_err(|(error, staged)| Box::new((error.into(), staged)))
    }
}

/// What is to become of an abandoned save.
enum Fate {
    /// Nothing is lost with its bytes.
    Drop(Outcome),
    /// It is kept as a conflict; what a rule has against it.
    SetAside(Reason, Option<Breach>),
    /// It has to become current.
    Save(Commit),
}
