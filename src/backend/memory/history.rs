//! Superseded generations: `.sepia/generations/<key>/<name>`, where the name is a [`GenerationName`].
//!
//! A generation is put there *before* what supersedes it is put in its place, so that it is never missing; if the
//! put is refused the copy is taken back. What a crash leaves in between is no fault: a copy of what is still
//! current is passed over, and of two copies of one generation a whole one counts.
//!
//! A generation that was only appended to is an empty object that says how many bytes of the next one it is.
//! Generation 0 is a marker: the highest number that the key ever had, if no object and no copy says so any more.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::MemoryBackend;
use super::flat::{Condition, Etag, Refused};
use super::local::materialize;
use super::names::Entry;
use super::record::Record;
use crate::backend::{Error, FileKind, GenerationInfo, GenerationName, Kept, Opened, Result};
use crate::types::{Generation, Key, ObjectId, Timestamp};

const ROOT: &[u8] = b".sepia/generations/";

/// A copy in a history.
#[derive(Debug, Clone)]
pub struct Copy {
    /// The name of its object in the flat space.
    pub name: Vec<u8>,
    etag: Etag,
}

/// A generation in a history.
#[derive(Debug)]
pub struct Superseded {
    pub copy: Copy,
    pub name: GenerationName,
    pub size: u64,
    pub record: Record,
}

/// What a marker says.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    /// The highest generation.
    last: u64,
    /// Of which object.
    id: u64,
    /// The key that it has now, escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<String>,
}

/// The history of one key.
#[derive(Debug, Default)]
pub struct History {
    /// By number, each once.
    pub kept: BTreeMap<u64, Superseded>,
    /// Copies of the same generation once more.
    pub spare: Vec<(u64, Copy)>,
    markers: Vec<(Copy, Marker)>,
}

impl History {
    /// The highest number that the key ever had, as far as it isn't the current one's; 0 if it had none.
    pub fn last(&self) -> u64 {
        let kept = self.kept.last_key_value().map_or(0, |(&number, _)| number);
        self.markers.iter().map(|(_, marker)| marker.last).fold(kept, u64::max)
    }

    /// Whether there is nothing of it, not even a number.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.markers.is_empty()
    }

    /// Whether nothing happened at this key but that the object `id` was here before, not beyond `generation`.
    pub fn is_of(&self, id: ObjectId, generation: Option<Generation>) -> bool {
        let upto = generation.map_or(0, Generation::get);
        self.kept.is_empty() && self.markers.iter().all(|(_, m)| m.id == id.get() && m.last <= upto)
    }
}

pub fn prefix(key: &Key) -> Vec<u8> {
    if key.is_root() { ROOT.to_vec() } else { [ROOT, key.as_bytes(), b"/"].concat() }
}

fn name_of(key: &Key, name: GenerationName) -> Vec<u8> {
    [&prefix(key)[..], name.to_string().as_bytes()].concat()
}

impl MemoryBackend {
    /// The history of a key, as it is stored.
    pub(super) fn history(&self, key: &Key) -> Result<History> {
        let prefix = prefix(key);
        let mut history = History::default();
        for object in self.flat.list_level(&prefix).objects {
            let Some(name) = GenerationName::parse(OsStr::from_bytes(&object[prefix.len()..])) else { continue };
            // Dropped or taken back since the listing.
            let Some(head) = self.flat.head(&object) else { continue };
            let copy = Copy { name: object, etag: head.etag };
            if name.number == 0 {
                if let Some(marker) = self.flat.get(&copy.name).and_then(|o| serde_json::from_slice(&o.bytes).ok()) {
                    history.markers.push((copy, marker));
                }
                continue;
            }
            let Some(record) = Record::read(key, &head.metadata)? else { continue };
            let size = record.prefix.unwrap_or(head.size);
            let new = Superseded { copy, name, size, record };
            let spare = match history.kept.remove(&name.number) {
                Some(old) if old.record.prefix.is_none() && new.record.prefix.is_some() => {
                    history.kept.insert(name.number, old);
                    Some(new)
                }
                old => {
                    history.kept.insert(name.number, new);
                    old
                }
            };
            history.spare.extend(spare.map(|spare| (name.number, spare.copy)));
        }
        Ok(history)
    }

    /// The number after all that the key ever had. Right only while nobody else can make a generation there: with
    /// a claim on the name, or over an object in a known state.
    pub(super) fn next_generation(&self, key: &Key, current: Option<Generation>) -> Result<Generation> {
        let last = match current {
            Some(current) => current.get(),
            None => self.history(key)?.last(),
        };
        Ok(Generation::new(last).map_or(Generation::FIRST, Generation::next))
    }

    /// Copies what is current into the history of `key`, if it is still as it was found.
    pub(super) fn keep(
        &self,
        key: &Key,
        entry: &Entry,
        superseded: Timestamp,
        deleted: bool,
    ) -> std::result::Result<Copy, Refused> {
        let name = name_of(key, self.generation_name(&entry.record, superseded, deleted));
        let etag = self.flat.copy(&entry.name, entry.etag, &name, None, Condition::Any)?;
        Ok(Copy { name, etag })
    }

    /// Records that what is current is the beginning of the generation that comes next.
    pub(super) fn keep_as_prefix(&self, key: &Key, entry: &Entry, superseded: Timestamp) -> Option<Copy> {
        let name = name_of(key, self.generation_name(&entry.record, superseded, false));
        let record = Record { prefix: Some(entry.size), ..entry.record.clone() };
        let etag = self.flat.put(&name, Arc::default(), record.metadata(), Condition::Any).ok()?;
        Some(Copy { name, etag })
    }

    fn generation_name(&self, record: &Record, superseded: Timestamp, deleted: bool) -> GenerationName {
        let committed = record.committed.unwrap_or(record.mtime);
        GenerationName { number: record.generation.map_or(0, Generation::get), committed, superseded, deleted }
    }

    /// Removes copies that were made for a change that then didn't happen.
    pub(super) fn take_back(&self, copies: impl IntoIterator<Item = Copy>) {
        for copy in copies {
            let _ = self.flat.delete(&copy.name, Condition::Match(copy.etag));
        }
    }

    /// Gives the generation before the current one bytes of its own, for the current one's are about to be replaced.
    pub(super) fn detach(&self, key: &Key, entry: &Entry) -> Result<()> {
        let number = entry.record.generation.map_or(0, Generation::get);
        let history = self.history(key)?;
        let Some((_, before)) = history.kept.range(..number).next_back() else { return Ok(()) };
        let Some(size) = before.record.prefix else { return Ok(()) };
        let Some(current) = self.flat.get(&entry.name).filter(|current| current.etag == entry.etag) else {
            return Ok(()); // It has changed, so the caller's put will be refused.
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(current.bytes.len());
        let record = Record { prefix: None, ..before.record.clone() };
        let condition = Condition::Match(before.copy.etag);
        // Refused: somebody else has just done the same.
        let _ = self.flat.put(&before.copy.name, current.bytes[..size].into(), record.metadata(), condition);
        Ok(())
    }

    /// Leaves a marker: generations up to `last` were used here, by an object that now is at `to`.
    pub(super) fn mark(&self, key: &Key, id: ObjectId, last: u64, to: Option<&Key>) -> Result<Vec<Copy>> {
        let marker = Marker { last, id: id.get(), to: to.map(Key::escaped) };
        let text = serde_json::to_vec(&marker).map_err(|e| Error::from_io(key, "leave a marker", e))?;
        let now = self.tick();
        let name = name_of(key, GenerationName { number: 0, committed: now, superseded: now, deleted: false });
        match self.flat.put(&name, text.into(), Default::default(), Condition::Any) {
            Ok(etag) => Ok(vec![Copy { name, etag }]),
            Err(Refused) => Ok(Vec::new()), // Never without a condition.
        }
    }

    /// Removes the markers of `history` that say no more than what is at the key now: it goes on from `number`.
    pub(super) fn unmark(&self, history: &History, number: u64) {
        self.take_back(history.markers.iter().filter(|(_, m)| m.last <= number).map(|(copy, _)| copy.clone()));
    }

    /// Moves a history to another key, where its numbers count on from `count_from`: each copy is there before it is
    /// gone here.
    pub(super) fn move_history(&self, history: History, to: &Key, count_from: u64) -> Result<()> {
        let kept = history.kept.into_values().map(|kept| kept.copy);
        for copy in kept.chain(history.spare.into_iter().map(|(_, copy)| copy)) {
            let start = copy.name.iter().rposition(|&b| b == b'/').map_or(0, |at| at + 1);
            let Some(old) = GenerationName::parse(OsStr::from_bytes(&copy.name[start..])) else { continue };
            let new = GenerationName { number: old.number + count_from, ..old };
            let Some(head) = self.flat.head(&copy.name) else { continue };
            let record = Record::read(to, &head.metadata)?;
            let metadata = record.map(|record| Record { generation: Generation::new(new.number), ..record }.metadata());
            if self.flat.copy(&copy.name, copy.etag, &name_of(to, new), metadata, Condition::Any).is_ok() {
                self.take_back([copy]);
            }
        }
        Ok(())
    }

    /// The keys at or below `dir` of which something is kept.
    pub(super) fn keys_with_history(&self, dir: &Key) -> Result<Vec<Key>> {
        let mut keys = Vec::new();
        for object in self.flat.list(&prefix(dir)) {
            let path = &object[ROOT.len()..];
            let Some(slash) = path.iter().rposition(|&b| b == b'/') else { continue };
            let Some(name) = GenerationName::parse(OsStr::from_bytes(&path[slash + 1..])) else { continue };
            if name.number > 0 {
                keys.push(Key::parse(OsStr::from_bytes(&path[..slash]))?);
            }
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }

    /// The generations of a key that are kept.
    pub(super) fn list_generations(&self, key: &Key) -> Result<Vec<GenerationInfo>> {
        // The history first: what becomes superseded after it was read is in neither, rather than in both.
        let history = self.history(key)?;
        let current = match self.find(key) {
            Ok(entry) => entry.record.generation,
            Err(Error::NotFound(_) | Error::NotDirectory(_)) => None,
            Err(error) => return Err(error),
        };
        let kept = history.kept.into_values().filter_map(|kept| {
            let generation = Generation::new(kept.name.number)?;
            current.is_none_or(|current| generation < current).then(|| GenerationInfo {
                generation,
                committed: kept.name.committed,
                superseded: Some(kept.name.superseded),
                deleted: kept.name.deleted,
                size: kept.size,
                mtime: kept.record.mtime,
                kept: kept.record.prefix.map_or(Kept::Whole, Kept::Prefix),
            })
        });
        let mut kept: Vec<GenerationInfo> = kept.collect();
        // What was dropped last has left a marker. With an object there, that says as much.
        let dropped = history.markers.iter().filter(|(_, marker)| marker.to.is_none() && current.is_none());
        let dropped = dropped.max_by_key(|(_, marker)| marker.last).and_then(|(copy, marker)| {
            let generation = Generation::new(marker.last)?;
            let at = copy.name.iter().rposition(|&b| b == b'/').map_or(0, |at| at + 1);
            let time = GenerationName::parse(OsStr::from_bytes(&copy.name[at..]))?.committed;
            let size = 0;
            let (committed, superseded, mtime, deleted) = (time, Some(time), time, true);
            let kept = Kept::Lost("dropped".to_owned());
            Some(GenerationInfo { generation, committed, superseded, deleted, size, mtime, kept })
        });
        if let Some(dropped) = dropped
            && kept.last().is_none_or(|last| last.generation < dropped.generation)
        {
            kept.push(dropped);
        }
        Ok(kept)
    }

    /// Opens a generation by its number.
    pub(super) fn open_numbered(&self, key: &Key, generation: Generation) -> Result<Opened> {
        let none = || Error::NoGeneration(key.clone(), generation);
        loop {
            let current = match self.find(key) {
                Ok(entry) if entry.record.kind == FileKind::File => Some(entry),
                Ok(_) | Err(Error::NotFound(_) | Error::NotDirectory(_)) => None,
                Err(error) => return Err(error),
            };
            if let Some(entry) = &current
                && entry.record.generation == Some(generation)
            {
                let Some(object) = self.flat.get(&entry.name).filter(|o| o.etag == entry.etag) else { continue };
                return self.opened(key, &object.bytes, &entry.record);
            }
            let history = self.history(key)?;
            let Some(wanted) = history.kept.get(&generation.get()) else {
                // Superseded or moved here since we looked at the object?
                match self.look_version(key)? {
                    now if now == current.as_ref().map(|entry| entry.etag) => return Err(none()),
                    _ => continue,
                }
            };
            // From a generation that is a beginning to the one that has the bytes.
            let has_bytes = history.kept.range(generation.get()..).find(|(_, kept)| kept.record.prefix.is_none());
            let object = match (has_bytes, &current) {
                (Some((_, kept)), _) => self.flat.get(&kept.copy.name),
                (None, Some(entry)) => self.flat.get(&entry.name).filter(|object| object.etag == entry.etag),
                (None, None) => None,
            };
            let Some(object) = object else {
                if self.look_version(key)? == current.as_ref().map(|entry| entry.etag) && current.is_none() {
                    return Err(none());
                }
                continue;
            };
            let size = usize::try_from(wanted.size).unwrap_or(usize::MAX).min(object.bytes.len());
            return self.opened(key, &object.bytes[..size], &wanted.record);
        }
    }

    fn look_version(&self, key: &Key) -> Result<Option<Etag>> {
        match self.find(key) {
            Ok(entry) => Ok((entry.record.kind == FileKind::File).then_some(entry.etag)),
            Err(Error::NotFound(_) | Error::NotDirectory(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn opened(&self, key: &Key, bytes: &[u8], record: &Record) -> Result<Opened> {
        let file = materialize(bytes).map_err(|e| Error::from_io(key, "open in memory", e))?;
        Ok(Opened { file: Arc::new(file), stat: record.stat(bytes.len() as u64, 1) })
    }
}
