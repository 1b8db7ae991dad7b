//! Snapshots: all names, metadata and generations of a store at one point in time.
//!
//! A snapshot is one record, `snapshots/NAME.jsonl`; it copies no bytes, for superseded generations are kept. [`take`]
//! finds the point in time, [`record`] reads and writes the record, [`locate`] finds the bytes wherever the histories
//! have gone, [`diff`] compares, and [`restore`] puts things back. What a snapshot refers to is not to be dropped:
//! [`Store::protected_by_snapshots`].

pub mod diff;
pub(super) mod locate;
mod record;
pub mod restore;
mod take;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Actor, Error, Event, EventKind, Result, Store};
use crate::backend::{FileKind, Stat};
use crate::types::{Generation, Key, ObjectId, Timestamp};

/// Where the records are.
const DIR: &str = "snapshots";
/// How their names end.
const SUFFIX: &str = ".jsonl";
/// Bytes of a name: with what a record is called while it is written, it stays below 255.
const NAME_MAX: usize = 200;

/// What is known of a snapshot without reading all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its name.
    pub name: String,
    /// The point in time; the epoch if the record is damaged.
    pub created: Timestamp,
    /// How many names there were: files, directories, links and the rest, with the root.
    pub entries: u64,
    /// Bytes of all files together; those with several names count once for each.
    pub bytes: u64,
    /// Its record can't be understood.
    pub damaged: bool,
}

/// What was at a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotEntry {
    /// The key.
    pub key: Key,
    /// Its state then.
    pub stat: Stat,
    /// Where a symbolic link led.
    pub target: Option<Vec<u8>>,
    /// Extended attributes, without Sepia's own.
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
}

/// A snapshot, whole in memory. Lookups and listings cost nothing of the store.
///
/// ```
/// use sepia::{Key, Precondition, Store};
/// let store = Store::open("memory:")?;
/// let key = Key::object("Note", "note-1")?;
/// store.put(&key, &mut &b"hello"[..], Precondition::Any)?;
/// store.create_snapshot(Some("before"))?;
/// store.remove(&key, Precondition::Any)?;
/// let snapshot = store.snapshot("before")?;
/// assert_eq!(snapshot.children(&Key::root()).count(), 1);
/// assert_eq!(snapshot.open(&store, &key)?.stat.size, 5);
/// # Ok::<(), sepia::Error>(())
/// ```
#[derive(Debug)]
pub struct Snapshot {
    info: SnapshotInfo,
    /// By key.
    entries: Vec<SnapshotEntry>,
    /// For each directory where its members are in `entries`.
    members: HashMap<Key, Vec<u32>>,
    /// Where bytes are that are no longer under the key and number of the snapshot.
    located: Mutex<locate::Located>,
}

impl Snapshot {
    fn new(info: SnapshotInfo, mut entries: Vec<SnapshotEntry>) -> Self {
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        let mut members: HashMap<Key, Vec<u32>> = HashMap::new();
        for (at, entry) in (0..).zip(&entries) {
            if let Some(parent) = entry.key.parent() {
                members.entry(parent).or_default().push(at);
            }
        }
        Snapshot { info, entries, members, located: Mutex::default() }
    }

    /// Its name, time and size.
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    /// What was at a key; the root is there, too.
    pub fn entry(&self, key: &Key) -> Option<&SnapshotEntry> {
        self.entries.binary_search_by(|entry| entry.key.cmp(key)).ok().map(|at| &self.entries[at])
    }

    /// What was in a directory, by name. Nothing if it was none.
    pub fn children(&self, dir: &Key) -> impl Iterator<Item = &SnapshotEntry> {
        self.members.get(dir).into_iter().flatten().map(|&at| &self.entries[at as usize])
    }

    /// Everything, by key.
    pub fn entries(&self) -> impl Iterator<Item = &SnapshotEntry> {
        self.entries.iter()
    }

    /// The generations that it refers to, under the keys and numbers of that time, and when each was committed, which
    /// stays with it: see [`Store::protected_by_snapshots`].
    pub fn protects(&self) -> impl Iterator<Item = (&Key, Generation, Option<Timestamp>)> {
        self.files().filter_map(|entry| Some((&entry.key, entry.stat.generation?, entry.stat.committed)))
    }

    fn files(&self) -> impl Iterator<Item = &SnapshotEntry> {
        self.entries.iter().filter(|entry| entry.stat.kind == FileKind::File)
    }
}

impl Store {
    /// Makes a snapshot of everything that is current at one point in time. Without a name it is called after its
    /// time, as `2026-11-23T10-00-00Z`.
    ///
    /// Changes by anybody wait while the store is looked through, which is some microseconds for each object. No bytes
    /// are copied. When it returns, the snapshot and its bytes would survive a power loss.
    ///
    /// # Errors
    /// [`Error::SnapshotName`], [`Error::SnapshotExists`]; what the medium says. Nothing was made then.
    pub fn create_snapshot(&self, name: Option<&str>) -> Result<SnapshotInfo> {
        if let Some(name) = name {
            record_path(name)?;
        }
        let made = take::take(self, name)?;
        self.note_snapshot(&made.name, "created");
        Ok(made)
    }

    fn note_snapshot(&self, name: &str, action: &str) {
        let said = |event: Event| event.with("snapshot", name).with("action", action);
        self.note(Actor::current(), EventKind::Snapshot, &Key::root(), said);
    }

    /// All snapshots, the oldest first. Those with a damaged record are among them, and say so.
    ///
    /// # Errors
    /// When the records can't be read.
    pub fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        let mut all = Vec::new();
        for name in self.snapshot_names()? {
            match self.snapshot_info(&name) {
                Ok(info) => all.push(info),
                // Deleted meanwhile.
                Err(Error::NoSnapshot(_)) => {}
                Err(error) => return Err(error),
            }
        }
        all.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        Ok(all)
    }

    /// The time and size of one.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`].
    pub fn snapshot_info(&self, name: &str) -> Result<SnapshotInfo> {
        let mut line = Vec::new();
        let mut file = BufReader::new(self.open_snapshot_record(name)?);
        file.read_until(b'\n', &mut line).map_err(unreadable)?;
        Ok(record::read_header(name, &line).unwrap_or_else(|_| SnapshotInfo {
            name: name.to_owned(),
            created: Timestamp::from_nanos(0),
            entries: 0,
            bytes: 0,
            damaged: true,
        }))
    }

    /// Reads a snapshot. It is a good idea to keep the result: a snapshot never changes.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`], [`Error::SnapshotDamaged`].
    pub fn snapshot(&self, name: &str) -> Result<Arc<Snapshot>> {
        let mut text = Vec::new();
        self.open_snapshot_record(name)?.read_to_end(&mut text).map_err(unreadable)?;
        let (info, entries) = record::read(name, &text)?;
        Ok(Arc::new(Snapshot::new(info, entries)))
    }

    /// Deletes a snapshot. The generations that it refers to stay in the histories.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`].
    pub fn delete_snapshot(&self, name: &str) -> Result<()> {
        drop(self.open_snapshot_record(name)?);
        self.backend.remove_record(&record_path(name)?)?;
        self.note_snapshot(name, "deleted");
        Ok(())
    }

    fn snapshot_names(&self) -> Result<Vec<String>> {
        let records = self.backend.list_records(&dir())?;
        let name = |path: &Key| Some(path.name()?.to_str()?.strip_suffix(SUFFIX)?.to_owned());
        Ok(records.iter().filter_map(name).filter(|name| record_path(name).is_ok()).collect())
    }

    fn open_snapshot_record(&self, name: &str) -> Result<std::fs::File> {
        // What can't be the name of any is the name of none.
        let path = record_path(name).map_err(|_| Error::NoSnapshot(name.to_owned()))?;
        match self.backend.open_record(&path) {
            Err(error) if error.is_not_found() => Err(Error::NoSnapshot(name.to_owned())),
            other => Ok(other?),
        }
    }
}

fn unreadable(source: std::io::Error) -> Error {
    Error::Records { what: "a snapshot's record", source }
}

fn dir() -> Key {
    // A plain name is always a key.
    Key::parse(DIR).unwrap_or_else(|_| Key::root())
}

/// Checks a name.
fn record_path(name: &str) -> Result<Key> {
    let refused = |why| Error::SnapshotName { name: name.to_owned(), why };
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(refused("a name has 1 to 200 bytes"));
    }
    if name.starts_with('.') {
        return Err(refused("a name doesn't begin with a dot"));
    }
    if name.contains(['/', '\0']) {
        return Err(refused("a name holds neither a slash nor NUL"));
    }
    Ok(dir().child(format!("{name}{SUFFIX}").as_ref())?)
}

/// A state as the record holds it: the rest of a [`Stat`] follows from that.
fn stat_of_record(fields: record::Fields) -> Stat {
    Stat {
        id: fields.id,
        kind: fields.kind,
        mode: fields.mode,
        uid: fields.uid,
        gid: fields.gid,
        size: fields.size,
        blocks: fields.size.div_ceil(512),
        nlink: fields.nlink,
        rdev: fields.rdev,
        atime: fields.atime,
        mtime: fields.mtime,
        ctime: fields.ctime,
        committed: fields.committed,
        generation: fields.generation,
        recorded: true,
        incarnation: fields.incarnation,
    }
}

/// The id of a file, a directory or the root by its number.
fn id_of(raw: u64) -> Option<ObjectId> {
    if raw == ObjectId::ROOT.get() { Some(ObjectId::ROOT) } else { ObjectId::from_raw(raw) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for name in ["", ".hidden", "a/b", "a\0b", &"x".repeat(201)] {
            assert!(record_path(name).is_err(), "{name:?}");
        }
        for name in ["a", "latest", "before the move", "ü", &"x".repeat(200)] {
            assert!(record_path(name).is_ok(), "{name:?}");
        }
    }
}
