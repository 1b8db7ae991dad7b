//! The records of the checksums, `checksums/XX.jsonl`: a line for each generation, by the last byte of the object's id.
//!
//! So all lines of an object are in one record, and none is touched by a rename. A generation is known by the object's
//! id and the time of its commit. Where a rename gave it another time, because the new name had been used before, its
//! line is found by id, size and modification time; and in a copy of a store, where the objects have other ids, by name,
//! number, time and size.
//!
//! Lines are only ever appended, under the lock `checksums`, and dropped by writing a record anew.

use crate::store::locks::Lock;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};

use serde::{Deserialize, Serialize};

use super::hash::Sum;
use super::names::place_of;
use crate::backend::Exclusive;
use crate::store::{Error, Result, Store};
use crate::types::{Generation, Key, ObjectId, Timestamp};

/// Where the records are.
const DIR: &str = "checksums";
/// How their names end.
const SUFFIX: &str = ".jsonl";

/// By what a generation is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub id: ObjectId,
    pub committed: Timestamp,
    /// Bytes.
    pub size: u64,
    /// Last change of the bytes.
    pub mtime: Timestamp,
    /// The name that it has, and its number there.
    pub key: Key,
    pub generation: Generation,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Line {
    committed: i64,
    id: String,
    size: u64,
    mtime: i64,
    key: String,
    #[serde(rename = "gen")]
    generation: Generation,
    blake3: String,
}

/// What is known of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub sum: Sum,
    /// Bytes that it had.
    pub size: u64,
}

/// Whose line was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Its own.
    Own(Entry),
    /// That of another commit, of which it has the bytes.
    Other(Entry),
    /// One that is its own if it has these bytes.
    Perhaps(Entry),
    /// None.
    Nothing,
}

/// One record, as far as it was read.
#[derive(Debug, Default)]
struct Shard {
    /// The file's inode number.
    file: u64,
    /// Bytes that were read: whole lines.
    read: u64,
    lines: u64,
    unreadable: u64,
    contradictions: u64,
    own: HashMap<(ObjectId, Timestamp), Entry>,
    moved: HashMap<(ObjectId, Timestamp, u64), Vec<(Timestamp, Sum)>>,
    used: u64,
}

/// What is wrong with the records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Lines that can't be read. They count as missing.
    pub unreadable: u64,
    /// Lines that contradict an older one, which is believed.
    pub contradictions: u64,
}

/// The records, read as they are asked for. When more lines than it may are in memory, those that were not asked for
/// for the longest time are forgotten, and read again if need be.
pub struct Sums<'a> {
    store: &'a Store,
    shards: HashMap<u8, Shard>,
    /// By name, number, time and size, over all records; read when first needed.
    places: Option<HashMap<u64, Sum>>,
    copies: bool,
    most: u64,
    clock: u64,
}

impl<'a> Sums<'a> {
    /// Holds `most` lines or one record in memory.
    pub fn new(store: &'a Store, most: u64) -> Self {
        Sums { store, shards: HashMap::new(), places: None, copies: true, most, clock: 0 }
    }

    /// Without looking for what a store was copied from, which costs a look at all records.
    pub fn without_copies(self) -> Self {
        Sums { copies: false, ..self }
    }

    /// The checksum of a generation; `commits` are those of its key that are kept.
    ///
    /// # Errors
    /// When a record can't be read.
    pub fn find(&mut self, wanted: &Identity, commits: &HashSet<Timestamp>) -> Result<Found> {
        let shard = self.shard(shard_of(wanted.id))?;
        if let Some(entry) = shard.own.get(&(wanted.id, wanted.committed)) {
            return Ok(Found::Own(*entry));
        }
        let size = wanted.size;
        let moved = shard.moved.get(&(wanted.id, wanted.mtime, size)).map_or(&[][..], Vec::as_slice);
        let mut moved = moved.iter().filter(|(committed, _)| !commits.contains(committed)).map(|(_, sum)| *sum);
        if let Some(sum) = moved.next() {
            let told = moved.all(|other| other == sum);
            return Ok(if told { Found::Other(Entry { sum, size }) } else { Found::Nothing });
        }
        if !self.copies {
            return Ok(Found::Nothing);
        }
        if self.places.is_none() {
            self.places = Some(read_places(self.store)?);
        }
        let place = self.places.as_ref().and_then(|places| places.get(&place_of(wanted)));
        Ok(match place {
            // What was adopted under a new name has its modification time for that of its commit. Any program can give
            // that to another file, too.
            Some(&sum) if wanted.committed == wanted.mtime => Found::Perhaps(Entry { sum, size }),
            Some(&sum) => Found::Other(Entry { sum, size }),
            None => Found::Nothing,
        })
    }

    /// Appends the checksums of those that have none of their own. Returns how many these were.
    ///
    /// # Errors
    /// [`backend::Error::Locked`] after 30 seconds; what the medium says.
    pub fn add(&mut self, sums: &[(Identity, Sum)]) -> Result<u64> {
        if sums.is_empty() {
            return Ok(0);
        }
        let _alone = self.store.hold_checksums()?;
        let mut by_shard: HashMap<u8, Vec<&(Identity, Sum)>> = HashMap::new();
        for one in sums {
            by_shard.entry(shard_of(one.0.id)).or_default().push(one);
        }
        let mut added = 0;
        for (number, sums) in by_shard {
            let path = path_of(number)?;
            let (shard, torn) = self.refresh(number)?;
            let mut text = if torn { vec![b'\n'] } else { Vec::new() };
            let mut known = HashSet::new();
            for (identity, sum) in sums {
                let name = (identity.id, identity.committed);
                if shard.own.contains_key(&name) || !known.insert(name) {
                    continue;
                }
                serde_json::to_writer(&mut text, &Line::new(identity, *sum)).map_err(|error| bad(error.into()))?;
                text.push(b'\n');
                added += 1;
            }
            if !known.is_empty() {
                self.store.backend.append_record(&path, &text)?;
            }
            self.make_room(number);
        }
        Ok(added)
    }

    /// What is wrong with all records.
    ///
    /// # Errors
    /// When one can't be read.
    pub fn faults(&mut self) -> Result<Faults> {
        let mut faults = Faults::default();
        for number in all(self.store)? {
            let shard = self.shard(number)?;
            faults.unreadable += shard.unreadable;
            faults.contradictions += shard.contradictions;
        }
        Ok(faults)
    }

    /// A record as it was when it was read first.
    fn shard(&mut self, number: u8) -> Result<&Shard> {
        if !self.shards.contains_key(&number) {
            self.refresh(number)?;
            self.make_room(number);
        }
        self.clock += 1;
        let clock = self.clock;
        let shard = self.shards.entry(number).or_default();
        shard.used = clock;
        Ok(shard)
    }

    fn make_room(&mut self, but: u8) {
        while self.shards.len() > 1 && self.shards.values().map(|shard| shard.lines).sum::<u64>() > self.most {
            let others = self.shards.iter().filter(|(number, _)| **number != but);
            let Some(oldest) = others.min_by_key(|(_, shard)| shard.used).map(|(number, _)| *number) else { return };
            self.shards.remove(&oldest);
        }
    }

    /// A record with what was appended since it was read, and whether it ends in the middle of a line.
    fn refresh(&mut self, number: u8) -> Result<(&Shard, bool)> {
        let shard = self.shards.entry(number).or_default();
        let torn = match self.store.backend.open_record(&path_of(number)?) {
            Err(error) if error.is_not_found() => {
                *shard = Shard::default();
                false
            }
            opened => {
                let file = opened?;
                let meta = file.metadata().map_err(bad)?;
                if meta.ino() != shard.file || meta.len() < shard.read {
                    *shard = Shard { file: meta.ino(), ..Shard::default() };
                }
                let mut text = vec![0; usize::try_from(meta.len() - shard.read).unwrap_or(usize::MAX)];
                file.read_exact_at(&mut text, shard.read).map_err(bad)?;
                // What isn't ended is being written, or was cut short.
                let end = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
                shard.read += end as u64;
                text[..end].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).for_each(|line| {
                    shard.take(line);
                });
                end < text.len()
            }
        };
        Ok((shard, torn))
    }
}

impl Shard {
    fn take(&mut self, line: &[u8]) {
        self.lines += 1;
        let Some((identity, sum)) = Line::read(line) else {
            self.unreadable += 1;
            return;
        };
        let entry = Entry { sum, size: identity.size };
        let known = self.own.entry((identity.id, identity.committed)).or_insert(entry);
        if *known != entry {
            self.contradictions += 1;
            return;
        }
        let moved = self.moved.entry((identity.id, identity.mtime, identity.size)).or_default();
        if !moved.contains(&(identity.committed, sum)) {
            moved.push((identity.committed, sum));
        }
    }
}

impl Line {
    fn new(identity: &Identity, sum: Sum) -> Self {
        Line {
            committed: identity.committed.nanos(),
            id: identity.id.to_string(),
            size: identity.size,
            mtime: identity.mtime.nanos(),
            key: identity.key.escaped(),
            generation: identity.generation,
            blake3: sum.to_string(),
        }
    }

    /// `None` for what can't be understood.
    pub fn read(line: &[u8]) -> Option<(Identity, Sum)> {
        let line: Line = serde_json::from_slice(line).ok()?;
        let identity = Identity {
            id: ObjectId::from_raw(u64::from_str_radix(&line.id, 16).ok()?)?,
            committed: Timestamp::from_nanos(line.committed),
            size: line.size,
            mtime: Timestamp::from_nanos(line.mtime),
            key: Key::unescape(&line.key).ok()?,
            generation: line.generation,
        };
        Some((identity, line.blake3.parse().ok()?))
    }
}

fn read_places(store: &Store) -> Result<HashMap<u64, Sum>> {
    let mut places = HashMap::new();
    for number in all(store)? {
        for (identity, sum) in read_lines(store, number)?.iter().filter_map(|line| Line::read(line)) {
            places.entry(place_of(&identity)).or_insert(sum);
        }
    }
    Ok(places)
}

impl Store {
    /// Keeps all others from changing the records of checksums.
    pub(super) fn hold_checksums(&self) -> Result<Exclusive> {
        self.wait_exclusive(Lock::Checksums)
    }
}

/// The lines of a record; none if there is no such record.
pub fn read_lines(store: &Store, number: u8) -> Result<Vec<Vec<u8>>> {
    let mut file = match store.backend.open_record(&path_of(number)?) {
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        other => other?,
    };
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(bad)?;
    Ok(text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect())
}

/// The numbers of the records that there are.
pub fn all(store: &Store) -> Result<Vec<u8>> {
    let number = |path: &Key| {
        let name = path.name()?.to_str()?.strip_suffix(SUFFIX)?;
        u8::from_str_radix(name, 16).ok().filter(|number| format!("{number:02x}") == name)
    };
    let mut numbers: Vec<u8> = store.backend.list_records(&Key::parse(DIR)?)?.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn shard_of(id: ObjectId) -> u8 {
    id.get().to_le_bytes()[0]
}

pub fn path_of(number: u8) -> Result<Key> {
    Ok(Key::parse(DIR)?.child(OsStr::new(&format!("{number:02x}{SUFFIX}")))?)
}

fn bad(source: std::io::Error) -> Error {
    Error::Records { what: "the checksums", source }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::store::checksums::names::Names;

    pub fn identity(committed: i64) -> Identity {
        Identity {
            id: ObjectId::from_raw(0x12345).unwrap(),
            committed: Timestamp::from_nanos(committed),
            size: 5,
            mtime: Timestamp::from_nanos(committed - 1),
            key: Key::parse("Note/a b").unwrap(),
            generation: Generation::FIRST,
        }
    }

    pub fn sum(byte: u8) -> Sum {
        Sum([byte; 32])
    }

    fn own(found: Found) -> Option<Sum> {
        matches!(found, Found::Own(_)).then(|| match found {
            Found::Own(entry) | Found::Other(entry) | Found::Perhaps(entry) => entry.sum,
            Found::Nothing => unreachable!(),
        })
    }

    pub fn text(store: &Store) -> String {
        let mut text = String::new();
        store.backend.open_record(&path_of(0x45).unwrap()).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn the_first_line_counts_whoever_writes() {
        let store = Store::open("memory:").unwrap();
        let (mut one, mut two) = (Sums::new(&store, 10), Sums::new(&store, 10));
        let others = HashSet::new();
        assert_eq!(one.find(&identity(7), &others).unwrap(), Found::Nothing);
        assert_eq!(two.add(&[(identity(7), sum(1)), (identity(8), sum(2)), (identity(8), sum(2))]).unwrap(), 2);
        assert_eq!(one.add(&[(identity(7), sum(9))]).unwrap(), 0);
        assert_eq!(own(one.find(&identity(7), &others).unwrap()), Some(sum(1)));
        assert_eq!(
            text(&store).lines().next().unwrap(),
            format!(
                r#"{{"committed":7,"id":"0000000000012345","size":5,"mtime":6,"key":"Note/a b","gen":1,"blake3":"{}"}}"#,
                sum(1)
            )
        );
        // Two processes that did not know of each other, and a line that was cut short.
        let line = text(&store).lines().next().unwrap().to_owned();
        let contradiction = line.replace("0101", "0202");
        store
            .backend
            .append_record(&path_of(0x45).unwrap(), format!("{line}\n{contradiction}\n{{\"comm").as_bytes())
            .unwrap();
        let mut anew = Sums::new(&store, 10);
        assert_eq!(anew.faults().unwrap(), Faults { unreadable: 0, contradictions: 1 });
        assert_eq!(own(anew.find(&identity(7), &others).unwrap()), Some(sum(1)));
        assert_eq!(anew.add(&[(identity(9), sum(3))]).unwrap(), 1);
        let mut anew = Sums::new(&store, 10);
        assert_eq!(anew.faults().unwrap(), Faults { unreadable: 1, contradictions: 1 });
        assert_eq!(own(anew.find(&identity(9), &others).unwrap()), Some(sum(3)));
        assert_eq!(store.drop_checksums(None, true).unwrap(), 2);
        let mut anew = Sums::new(&store, 10);
        assert_eq!(anew.faults().unwrap(), Faults::default());
        assert_eq!(own(anew.find(&identity(7), &others).unwrap()), Some(sum(1)));
    }

    #[test]
    fn a_generation_is_known_after_a_rename_and_in_a_copy() {
        let store = Store::open("memory:").unwrap();
        Sums::new(&store, 10).add(&[(identity(7), sum(1))]).unwrap();
        let mut sums = Sums::new(&store, 10);
        let renamed = Identity { committed: Timestamp::from_nanos(70), key: Key::parse("x").unwrap(), ..identity(7) };
        let copied = Identity { id: ObjectId::from_raw(3).unwrap(), ..identity(7) };
        let found = Found::Other(Entry { sum: sum(1), size: 5 });
        assert_eq!(sums.find(&renamed, &HashSet::new()).unwrap(), found);
        assert_eq!(sums.find(&copied, &HashSet::new()).unwrap(), found);
        let mtime = Timestamp::from_nanos(9);
        Sums::new(&store, 10).add(&[(Identity { mtime, ..identity(9) }, sum(4))]).unwrap();
        let mut anew = Sums::new(&store, 10);
        let adopted = Identity { mtime, committed: mtime, ..copied.clone() };
        assert_eq!(anew.find(&adopted, &HashSet::new()).unwrap(), Found::Perhaps(Entry { sum: sum(4), size: 5 }));
        // Saved again with the same modification time.
        let beside = HashSet::from([Timestamp::from_nanos(7)]);
        assert_eq!(sums.find(&renamed, &beside).unwrap(), Found::Nothing);
        let names = Names::known(&store).unwrap();
        assert!([&identity(7), &renamed, &copied].iter().all(|identity| names.know(identity)));
        assert!(!names.know(&identity(99)));
    }

    #[test]
    fn little_is_held_in_memory() {
        let store = Store::open("memory:").unwrap();
        let at = |n: u64| Identity { id: ObjectId::from_raw(n).unwrap(), ..identity(7) };
        let lines: Vec<_> = (2..200).map(|n| (at(n), sum(n as u8))).collect();
        Sums::new(&store, 10).add(&lines).unwrap();
        let mut sums = Sums::new(&store, 10);
        for n in 2..200 {
            assert_eq!(own(sums.find(&at(n), &HashSet::new()).unwrap()), Some(sum(n as u8)));
            assert!(sums.shards.len() <= 10);
        }
        let more: Vec<_> =
            (2..200).map(|n| (Identity { committed: Timestamp::from_nanos(8), ..at(n) }, sum(1))).collect();
        assert_eq!(sums.add(&more).unwrap(), 198);
        assert!(sums.shards.len() <= 10);
    }
}
