//! Pins, and all else that keeps generations from the collector whatever the policy says.
//!
//! A pin is a record of its own below `pins/`. It names the generation by its key and number, and by the time of its
//! commit too, which goes along when the object is renamed; either is enough to hold it.

use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::retention::{Held, HeldBy};
use super::{Error, Result, Store};
use crate::backend::{self, Exclusive, GenerationInfo};
use crate::types::{Generation, Key, Precondition, Timestamp};

/// The lock under which generations are deleted, and under which what holds them is written.
const LOCK: &str = "history";
/// Batches of deletions take milliseconds. Who has the lock for longer is stopped, or hangs on a dead medium.
const PATIENCE: Duration = Duration::from_secs(30);

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

/// What holds generations, as of one moment.
#[derive(Debug, Default)]
pub struct Protected {
    numbers: HashMap<Key, BTreeSet<(Generation, HeldBy)>>,
    commits: HashMap<Timestamp, BTreeSet<HeldBy>>,
}

impl Protected {
    /// Everything that holds generations now. To be read under [`Store::hold_history`] by who then deletes.
    ///
    /// # Errors
    /// What the medium says: then nothing may be deleted.
    pub fn read(store: &Store) -> Result<Self> {
        let mut protected = Protected::default();
        for pin in store.pins()? {
            protected.hold(&pin.key, pin.generation, Some(pin.committed), HeldBy::Pin);
        }
        protected.add_snapshots(store)?;
        protected.add_sessions(store)?;
        Ok(protected)
    }

    /// Holds a generation, by its number at a key and by the time of its commit.
    pub fn hold(&mut self, key: &Key, generation: Generation, committed: Option<Timestamp>, by: HeldBy) {
        self.numbers.entry(key.clone()).or_default().insert((generation, by));
        if let Some(committed) = committed {
            self.commits.entry(committed).or_default().insert(by);
        }
    }

    /// The generations that snapshots hold. Whoever makes a snapshot holds [`Store::hold_history`] from before it
    /// looks at the first object until its record is written.
    fn add_snapshots(&mut self, store: &Store) -> Result<()> {
        match store.backend.list_records(&Key::parse("snapshots")?)?.first() {
            None => Ok(()),
            // This version makes none. What another one has made must not lose its bytes to this one.
            Some(_) => Err(Error::Records {
                what: "the snapshots, which hold generations",
                source: std::io::ErrorKind::Unsupported.into(),
            }),
        }
    }

    /// What sessions under way are based on: recovery may have to finish them.
    fn add_sessions(&mut self, store: &Store) -> Result<()> {
        let intents = store.backend.staging().intents();
        for intent in intents.map_err(|source| Error::Records { what: "the sessions under way", source })? {
            match intent.expect {
                Precondition::Version(generation, _, committed) => {
                    self.hold(&intent.key, generation, Some(committed), HeldBy::Session);
                }
                Precondition::Generation(generation) => self.hold(&intent.key, generation, None, HeldBy::Session),
                _ => {}
            }
        }
        Ok(())
    }

    /// What of it is about these generations of a key.
    pub fn of(&self, key: &Key, generations: &[GenerationInfo]) -> Held {
        let mut held = Held::default();
        for (generation, by) in self.numbers.get(key).into_iter().flatten() {
            held.hold(*generation, *by);
        }
        if !self.commits.is_empty() {
            for info in generations {
                for by in self.commits.get(&info.committed).into_iter().flatten() {
                    held.hold(info.generation, *by);
                }
            }
        }
        held
    }
}

impl Store {
    /// Keeps all history from being deleted as long as the result lives: held by who deletes, for a batch at a time,
    /// and by who writes what is to keep something from that.
    ///
    /// # Errors
    /// [`backend::Error::Locked`] after 30 seconds.
    pub fn hold_history(&self) -> Result<Exclusive> {
        let started = Instant::now();
        loop {
            if let Some(lock) = self.backend.try_exclusive(LOCK)? {
                return Ok(lock);
            }
            if started.elapsed() > PATIENCE {
                return Err(backend::Error::Locked(Key::root()).into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
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
