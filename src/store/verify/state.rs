//! How far verifications are, and how the last one ended: the record `verify/state.json`.

use crate::store::locks::Lock;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::part::Parts;
use super::report::{Counts, Damage, Damaged, Fault, Intact, Level, Mended};
use crate::store::{Error, Result, Store};
use crate::types::{Key, Timestamp};

const STATE: &str = "verify/state.json";
/// So many runs that were cut short are remembered, and so many of which the next part has its turn. Beyond that, what was
/// begun first begins anew when it is asked for again.
const MOST_RUNS: usize = 16;

/// The record. Times are nanoseconds since 1970, keys are escaped.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Runs that were cut short.
    pub runs: Vec<Run>,
    /// Whose turn it is where only a part is looked at.
    pub parts: Vec<What>,
    /// How the last run ended.
    pub last: Option<LastRun>,
    /// The objects that were found damaged, and when.
    pub damaged: BTreeMap<String, i64>,
    /// Damaged generations in whose place an intact one was brought back: the object's id, and the time of the commit.
    pub replaced: BTreeSet<(String, i64)>,
}

/// By what a generation is found in [`State::replaced`].
pub fn replaced_name(damage: &Damage) -> Option<(String, i64)> {
    Some((damage.id?.to_string(), damage.committed?))
}

/// A run that has begun.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Run {
    pub what: What,
    pub began: i64,
    /// The name that it has come to.
    pub after: Option<String>,
    /// It has come to the last one.
    pub walked: bool,
    pub counts: Counts,
    pub found: Vec<FoundDamage>,
}

/// What a run looks at. One that was cut short is gone on with by who asks for the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct What {
    pub dir: String,
    pub level: Level,
    /// Number of the part, and how many there are.
    pub part: Option<(u32, u32)>,
}

impl Default for What {
    fn default() -> Self {
        What { dir: String::new(), level: Level::Content, part: None }
    }
}

/// [`Damaged`], as it is written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FoundDamage {
    key: String,
    generations: Vec<Damage>,
    intact: Option<Intact>,
    mended: Option<Mended>,
}

/// How the last verification ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastRun {
    /// Nanoseconds since 1970.
    pub began: i64,
    /// Nanoseconds since 1970.
    pub ended: i64,
    /// Number of the part from 0, and how many there are.
    pub part: Option<(u32, u32)>,
    /// How much was looked at.
    pub counts: Counts,
    /// Damaged objects and records that it found.
    pub damaged: u64,
    /// Why it ended early, if it did.
    pub error: Option<String>,
}

/// What people want to know of verifications.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Somebody is verifying at this moment.
    pub running: bool,
    /// How the last run ended.
    pub last: Option<LastRun>,
    /// Objects that are known to be damaged.
    pub damaged: u64,
}

impl From<&Damaged> for FoundDamage {
    fn from(damaged: &Damaged) -> Self {
        let Damaged { key, generations, intact, mended } = damaged.clone();
        FoundDamage { key: key.escaped(), generations, intact, mended }
    }
}

impl FoundDamage {
    pub fn read(self) -> Option<Damaged> {
        let FoundDamage { key, generations, intact, mended } = self;
        Some(Damaged { key: Key::unescape(&key).ok()?, generations, intact, mended })
    }
}

impl State {
    /// What was written last. What can't be understood counts as nothing: runs begin anew then.
    pub fn read(store: &Store) -> Result<Self> {
        let text = store.read_record(STATE)?;
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default())
    }

    pub fn write(&self, store: &Store) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|error| Error::Records { what: STATE, source: error.into() })?;
        Ok(store.backend.put_record(&Key::parse(STATE)?, &text)?)
    }

    /// The part whose turn it is.
    pub fn next_part(&self, dir: &Key, level: Level, parts: Parts) -> u32 {
        let dir = dir.escaped();
        let same = |what: &&What| what.dir == dir && what.level == level;
        let mut next = self.parts.iter().filter(same).filter_map(|what| what.part);
        next.find(|(_, of)| *of == parts.count()).map_or(0, |(part, of)| part % of)
    }

    /// Begins a run, or goes on with it.
    pub fn begin(&mut self, what: &What, restart: bool, now: Timestamp) -> Run {
        let at = self.runs.iter().position(|run| run.what == *what);
        if let Some(run) = at.map(|at| self.runs.remove(at)).filter(|_| !restart) {
            return run;
        }
        Run { what: what.clone(), began: now.nanos(), ..Run::default() }
    }

    /// Remembers how far a run is.
    pub fn note(&mut self, run: &Run) {
        self.runs.retain(|other| other.what != run.what);
        self.runs.push(run.clone());
        self.runs.sort_by_key(|run| run.began);
        let most = self.runs.len().saturating_sub(MOST_RUNS);
        self.runs.drain(..most);
    }

    /// A run has ended with these faults, or early with an error.
    pub fn end(&mut self, run: &Run, damaged: &[Damaged], faults: &[Fault], ended: Timestamp, error: Option<&Error>) {
        let remaining = damaged.iter().filter(|one| one.remains());
        let keys: BTreeSet<String> = remaining.map(|one| one.key.escaped()).collect();
        let faults = faults.iter().filter(|fault| !fault.repaired).count();
        self.last = Some(LastRun {
            began: run.began,
            ended: ended.nanos(),
            part: run.what.part,
            counts: run.counts,
            damaged: (keys.len() + faults) as u64,
            error: error.map(ToString::to_string),
        });
        if error.is_none() {
            self.runs.retain(|other| other.what != run.what);
            if let Some((part, of)) = run.what.part {
                self.parts.retain(|what| !what.is_part_of_the_same(&run.what));
                self.parts.push(What { part: Some(((part + 1) % of, of)), ..run.what.clone() });
                let most = self.parts.len().saturating_sub(MOST_RUNS);
                self.parts.drain(..most);
            }
            // What this run has looked at, and not found damaged, isn't any more. A lesser level tells nothing.
            if run.what.level == Level::Content {
                self.damaged.retain(|key, _| !run.what.holds(key));
            }
        }
        self.damaged.extend(keys.into_iter().map(|key| (key, ended.nanos())));
    }
}

impl What {
    fn is_part_of_the_same(&self, other: &What) -> bool {
        let parts = |what: &What| what.part.map(|(_, of)| of);
        self.dir == other.dir && self.level == other.level && parts(self) == parts(other)
    }

    fn holds(&self, key: &str) -> bool {
        let (Ok(dir), Ok(key)) = (Key::unescape(&self.dir), Key::unescape(key)) else { return true };
        key.is_within(&dir) && self.includes(&key)
    }

    /// Whether a name is in its part.
    pub fn includes(&self, key: &Key) -> bool {
        self.part.is_none_or(|(part, of)| Parts::new(of).of(key) == part)
    }
}

impl Store {
    /// When the store was verified, and what was found.
    ///
    /// # Errors
    /// What the medium says.
    pub fn verification_status(&self) -> Result<Status> {
        let State { last, damaged, .. } = State::read(self)?;
        let running = self.is_held(Lock::Verify)?;
        Ok(Status { running, last, damaged: damaged.len() as u64 })
    }
}
