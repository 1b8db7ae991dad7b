//! Pins, and all else that keeps generations from the collector whatever the policy says.
//!
//! A pin is a record of its own below `pins/`. It names the generation by its key and number, and by the time of its
//! commit too, which goes along when the object is renamed; either is enough to hold it.

use super::locks::Lock;
use std::collections::{BTreeSet, HashMap};
use std::io::Read;

use serde::{Deserialize, Serialize};

use super::collect::Histories;
use super::retention::{Held, HeldBy, Reason, Verdict, judge};
use super::{Error, Result, Store};
use crate::backend::{self, Exclusive, GenerationInfo};
use crate::types::{Generation, Key, Precondition, Timestamp};

/// How many renames are followed to where a generation is.
const MOVES: usize = 8;

/// A generation that stays until it is unpinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The key that it had when it was pinned.
    pub key: Key,
    /// Its number there.
    pub generation: Generation,
    /// When it was committed.
    pub committed: Timestamp,
    /// When it was pinned.
    pub pinned: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Record {
    key: String,
    generation: Generation,
    committed: i64,
    pinned: i64,
}

/// What holds generations.
#[derive(Debug, Default)]
pub struct Protected {
    /// What snapshots and other names' histories hold. This costs a look at all histories, but what is superseded
    /// already is held by no snapshot that is made later, and by no name that is taken later.
    lasting: Holders,
    /// What pins and sessions hold.
    passing: Holders,
}

#[derive(Debug, Default)]
struct Holders {
    numbers: HashMap<Key, BTreeSet<(Generation, HeldBy)>>,
    commits: HashMap<Timestamp, BTreeSet<HeldBy>>,
}

impl Holders {
    fn hold(&mut self, key: &Key, generation: Generation, committed: Option<Timestamp>, by: HeldBy) {
        self.numbers.entry(key.clone()).or_default().insert((generation, by));
        if let Some(committed) = committed {
            self.commits.entry(committed).or_default().insert(by);
        }
    }

    fn add_to(&self, held: &mut Held, key: &Key, generations: &[GenerationInfo]) {
        for (generation, by) in self.numbers.get(key).into_iter().flatten() {
            held.hold(*generation, *by);
        }
        if self.commits.is_empty() {
            return;
        }
        for info in generations {
            for by in self.commits.get(&info.committed).into_iter().flatten() {
                held.hold(info.generation, *by);
            }
        }
    }
}

impl Protected {
    /// Everything that holds generations now.
    ///
    /// # Errors
    /// What the medium says, and when a snapshot or a pin can't be read: then nothing may be deleted.
    pub fn read(store: &Store) -> Result<Self> {
        let mut protected = Protected::default();
        for committed in store.protected_by_snapshots()?.iter() {
            protected.lasting.commits.entry(*committed).or_default().insert(HeldBy::Snapshot);
        }
        protected.add_other_names(store)?;
        protected.refresh(store)?;
        Ok(protected)
    }

    /// Reads the pins and the sessions again. To be called under [`Store::hold_history`] by who then deletes.
    ///
    /// # Errors
    /// As [`Protected::read`].
    pub fn refresh(&mut self, store: &Store) -> Result<()> {
        let mut passing = Holders::default();
        for pin in store.pins()? {
            passing.hold(&pin.key, pin.generation, Some(pin.committed), HeldBy::Pin);
        }
        // What sessions under way are based on: recovery may have to finish them.
        let intents = store.backend.staging().intents();
        for intent in intents.map_err(|source| Error::Records { what: "the sessions under way", source })? {
            match intent.expect {
                Precondition::Version(generation, _, committed) => {
                    passing.hold(&intent.key, generation, Some(committed), HeldBy::Session);
                }
                Precondition::Generation(generation) => {
                    passing.hold(&intent.key, generation, None, HeldBy::Session);
                }
                _ => {}
            }
        }
        self.passing = passing;
        Ok(())
    }

    /// Editors put a file aside, write it anew, and remove what they have put aside. The history of the file's name
    /// then consists of notes on where its generations went. What its rules keep of these is held there.
    fn add_other_names(&mut self, store: &Store) -> Result<()> {
        let (config, now) = (store.config()?, store.now());
        let mut histories = Histories::below(store, &Key::root());
        while let Some((key, generations)) = histories.next()? {
            // A file that was to make no history, and was then renamed to one that is, needs none under its old name.
            let has_moved = generations.iter().any(|info| info.moved_to().is_some());
            if !has_moved || config.retention.is_ephemeral(&key) {
                continue;
            }
            let policy = config.retention.policy(&key);
            let verdicts = judge(&generations, store.is_there(&key)?, &policy, &Held::default(), now);
            for (info, verdict) in generations.iter().zip(&verdicts) {
                let by_rule = matches!(verdict, Verdict::Keep(reasons) if reasons.iter().any(is_rule));
                let mut at = info.moved_to().filter(|_| by_rule);
                for _ in 0..MOVES {
                    let Some((key, generation)) = at else { break };
                    self.lasting.hold(&key, generation, None, HeldBy::Name);
                    let there = store.backend.generations(&key)?;
                    at = there.iter().find(|info| info.generation == generation).and_then(GenerationInfo::moved_to);
                }
            }
        }
        Ok(())
    }

    /// What of it is about these generations of a key.
    pub fn of(&self, key: &Key, generations: &[GenerationInfo]) -> Held {
        let mut held = Held::default();
        self.lasting.add_to(&mut held, key, generations);
        self.passing.add_to(&mut held, key, generations);
        held
    }
}

fn is_rule(reason: &Reason) -> bool {
    !matches!(reason, Reason::Note | Reason::Number)
}

impl Store {
    /// Keeps all history from being deleted as long as the result lives: held by who deletes, for a batch at a time,
    /// and by who writes what is to keep something from that.
    ///
    /// # Errors
    /// [`backend::Error::Locked`] after 30 seconds.
    pub fn hold_history(&self) -> Result<Exclusive> {
        self.wait_exclusive(Lock::History)
    }

    /// Keeps a generation from the collector until [`Store::unpin`]. Pinning twice is no error.
    ///
    /// # Errors
    /// [`backend::Error::NoGeneration`].
    pub fn pin(&self, key: &Key, generation: Generation) -> Result<Pin> {
        let _no_deletion = self.hold_history()?;
        let known = self.history(key)?.into_iter().find(|info| info.generation == generation);
        let known = known.filter(|info| !matches!(info.kept, backend::Kept::Lost(_)));
        let info = known.ok_or_else(|| backend::Error::NoGeneration(key.clone(), generation))?;
        let pin = Pin { key: key.clone(), generation, committed: info.committed, pinned: self.now() };
        let record =
            Record { key: key.escaped(), generation, committed: pin.committed.nanos(), pinned: pin.pinned.nanos() };
        let text = serde_json::to_vec(&record).map_err(|error| bad(error.into()))?;
        self.backend.put_record(&path(&pin)?, &text)?;
        Ok(pin)
    }

    /// Takes the pins of a generation away. Returns how many there were: more than one after renames, perhaps.
    ///
    /// # Errors
    /// What the medium says.
    pub fn unpin(&self, key: &Key, generation: Generation) -> Result<usize> {
        let committed = self.history(key).ok().and_then(|history| {
            history.into_iter().find(|info| info.generation == generation).map(|info| info.committed)
        });
        let mut removed = 0;
        for pin in self.pins()? {
            if (&pin.key, pin.generation) == (key, generation) || Some(pin.committed) == committed {
                self.backend.remove_record(&path(&pin)?)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// All pins, by key and number.
    ///
    /// # Errors
    /// When one can't be read: what it holds isn't known then.
    pub fn pins(&self) -> Result<Vec<Pin>> {
        let mut pins = Vec::new();
        for path in self.backend.list_records(&dir()?)? {
            // What is being written has another ending.
            if !path.as_bytes().ends_with(b".json") {
                continue;
            }
            let mut file = match self.backend.open_record(&path) {
                // Unpinned meanwhile.
                Err(error) if error.is_not_found() => continue,
                other => other?,
            };
            let mut text = Vec::new();
            file.read_to_end(&mut text).map_err(bad)?;
            let record: Record = serde_json::from_slice(&text).map_err(|error| bad(error.into()))?;
            pins.push(Pin {
                key: Key::unescape(&record.key)?,
                generation: record.generation,
                committed: Timestamp::from_nanos(record.committed),
                pinned: Timestamp::from_nanos(record.pinned),
            });
        }
        pins.sort_by(|a, b| (&a.key, a.generation).cmp(&(&b.key, b.generation)));
        Ok(pins)
    }
}

fn bad(source: std::io::Error) -> Error {
    Error::Records { what: "a pin", source }
}

fn dir() -> Result<Key> {
    Ok(Key::parse("pins")?)
}

/// The record of a pin. The sum of the key's bytes only tells apart what was committed in the same nanosecond.
fn path(pin: &Pin) -> Result<Key> {
    let sum = crc32fast::hash(pin.key.as_bytes());
    let name = format!("{}-{}-{sum:08x}.json", pin.committed, pin.generation);
    Ok(dir()?.child(std::ffi::OsStr::new(&name))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_goes_along_with_a_rename() {
        let store = Store::open("memory:").unwrap();
        let (a, b) = (Key::parse("a").unwrap(), Key::parse("b").unwrap());
        for bytes in [b"1", b"2", b"3"] {
            store.put(&a, &mut &bytes[..], Precondition::Any).unwrap();
        }
        let second = Generation::new(2).unwrap();
        assert!(store.pin(&a, Generation::new(9).unwrap()).is_err());
        store.pin(&a, second).unwrap();
        store.pin(&a, second).unwrap();
        assert_eq!(store.pins().unwrap().len(), 1);
        store.rename(&a, &b, Precondition::Absent).unwrap();
        let kept = store.backend().generations(&b).unwrap();
        let held = Protected::read(&store).unwrap().of(&b, &kept);
        assert_eq!(held.0.keys().copied().collect::<Vec<_>>(), [second]);
        assert_eq!(store.unpin(&b, second).unwrap(), 1);
        assert!(store.pins().unwrap().is_empty());
    }
}
