//! Where the bytes of a snapshot are now.
//!
//! As a rule under the key and number that the snapshot names. But histories move with renames, and numbers with them
//! where a name has an older history. The time of the commit stays with a generation, the object's id with an object,
//! and whoever raises a number leaves the file (its inode) and its modification time as they are.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::{Error, Result, Snapshot, SnapshotEntry, Store};
use crate::backend::{self, FileKind, Kept, Opened, Stat};
use crate::types::{Generation, Key, Timestamp};

/// Every generation that is kept anywhere, and those that are current.
#[derive(Debug, Default)]
pub struct Index {
    by_commit: HashMap<(Timestamp, u64), Vec<(Key, Generation)>>,
    by_change: HashMap<(Timestamp, u64), Vec<(Key, Generation)>>,
}

impl Index {
    fn new(store: &Store) -> Result<Self> {
        let mut index = Index::default();
        for key in store.backend.histories(&Key::root())? {
            for info in store.backend.generations(&key)? {
                if !matches!(info.kept, Kept::Lost(_)) {
                    index.add(&key, info.generation, info.committed, info.mtime, info.size);
                }
            }
        }
        for entry in store.present(&Key::root())?.files() {
            if let Some(generation) = entry.stat.generation {
                let committed = entry.stat.committed.unwrap_or(entry.stat.mtime);
                index.add(&entry.key, generation, committed, entry.stat.mtime, entry.stat.size);
            }
        }
        Ok(index)
    }

    fn add(&mut self, key: &Key, generation: Generation, committed: Timestamp, mtime: Timestamp, size: u64) {
        self.by_commit.entry((committed, size)).or_default().push((key.clone(), generation));
        self.by_change.entry((mtime, size)).or_default().push((key.clone(), generation));
    }

    /// What may be the bytes of an entry, the most likely first.
    fn candidates(&self, entry: &SnapshotEntry) -> impl Iterator<Item = &(Key, Generation)> {
        let stat = &entry.stat;
        let committed = stat.committed.and_then(|time| self.by_commit.get(&(time, stat.size)));
        let changed = self.by_change.get(&(stat.mtime, stat.size));
        committed.into_iter().chain(changed).flatten()
    }
}

/// How sure it is that bytes are those of a snapshot.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Match {
    /// The same number, size and time of the commit, but in a file of its own, which has no record: a copy that was
    /// made when one of several names of an object was saved under.
    Copy,
    /// The same object and commit, or the same file, unchanged.
    Exact,
}

fn matches(entry: &Stat, found: &Stat) -> Option<Match> {
    let same_commit = entry.committed.is_some() && entry.committed == found.committed;
    if entry.size != found.size {
        None
    } else if entry.id == found.id
        && (same_commit || (entry.incarnation, entry.mtime) == (found.incarnation, found.mtime))
    {
        Some(Match::Exact)
    } else {
        (same_commit && entry.generation == found.generation).then_some(Match::Copy)
    }
}

impl Snapshot {
    /// Opens a file as it was. Its state is that of the snapshot.
    ///
    /// # Errors
    /// [`Error::NotInSnapshot`]; [`Error::SnapshotBytesLost`] when the bytes are kept nowhere;
    /// [`backend::Error::Invalid`] when it was no regular file.
    pub fn open(&self, store: &Store, key: &Key) -> Result<Opened> {
        let entry =
            self.entry(key).ok_or_else(|| Error::NotInSnapshot { name: self.info.name.clone(), key: key.clone() })?;
        if entry.stat.kind != FileKind::File {
            return Err(backend::Error::Invalid(key.clone(), "was no regular file in the snapshot").into());
        }
        let Some(generation) = entry.stat.generation else {
            return Ok(Opened { file: empty(key)?, stat: entry.stat.clone() });
        };
        let mut copy = match open_one(store, entry, key, generation)? {
            Some((Match::Exact, opened)) => return Ok(as_it_was(entry, opened)),
            Some((Match::Copy, opened)) => Some(opened),
            None => None,
        };
        let index = self.index(store, false)?;
        let mut found = search(store, entry, &index)?;
        if found.is_none() && copy.is_none() {
            // Perhaps it was renamed since.
            let index = self.index(store, true)?;
            found = search(store, entry, &index)?;
        }
        if let Some((_, opened)) = found.filter(|(how, _)| *how == Match::Exact || copy.is_none()) {
            copy = Some(opened);
        }
        match copy {
            Some(opened) => Ok(as_it_was(entry, opened)),
            None => Err(Error::SnapshotBytesLost { name: self.info.name.clone(), key: key.clone(), generation }),
        }
    }

    fn index(&self, store: &Store, anew: bool) -> Result<Arc<Index>> {
        let mut index = self.index.lock();
        if let Some(index) = index.as_ref().filter(|_| !anew) {
            return Ok(index.clone());
        }
        let made = Arc::new(Index::new(store)?);
        *index = Some(made.clone());
        Ok(made)
    }
}

impl Store {
    /// The generations, where they are now, that snapshots refer to: these are not to be dropped. More may be among
    /// them, where it can't be told by the time of the commit; never fewer. Also not to be dropped is what
    /// these are stored in terms of, which [`backend::Backend::drop_generation`] sees to.
    ///
    /// A snapshot that is made later refers to nothing that is superseded already.
    ///
    /// # Errors
    /// [`Error::SnapshotDamaged`]: then it isn't known, and nothing may be dropped.
    pub fn protected_by_snapshots(&self) -> Result<BTreeSet<(Key, Generation)>> {
        let mut protected = BTreeSet::new();
        let mut index = None;
        for name in self.snapshot_names()? {
            let snapshot = match self.snapshot(&name) {
                // Deleted meanwhile.
                Err(Error::NoSnapshot(_)) => continue,
                other => other?,
            };
            protected.extend(snapshot.protects().map(|(key, generation)| (key.clone(), generation)));
            let index: &Index = match &index {
                Some(index) => index,
                None => index.insert(Index::new(self)?),
            };
            protected.extend(snapshot.files().flat_map(|entry| index.candidates(entry)).cloned());
        }
        Ok(protected)
    }
}

fn search(store: &Store, entry: &SnapshotEntry, index: &Index) -> Result<Option<(Match, Opened)>> {
    let mut copy = None;
    for (key, generation) in index.candidates(entry) {
        match open_one(store, entry, key, *generation)? {
            Some((Match::Exact, opened)) => return Ok(Some((Match::Exact, opened))),
            Some(found) => copy = Some(found),
            None => {}
        }
    }
    Ok(copy)
}

/// Opens a generation if it is the entry's.
fn open_one(store: &Store, entry: &SnapshotEntry, key: &Key, at: Generation) -> Result<Option<(Match, Opened)>> {
    match store.backend.open_generation(key, at) {
        Ok(opened) => Ok(matches(&entry.stat, &opened.stat).map(|how| (how, opened))),
        Err(backend::Error::NoGeneration(..) | backend::Error::Invalid(..)) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn as_it_was(entry: &SnapshotEntry, opened: Opened) -> Opened {
    let (blocks, incarnation) = (opened.stat.blocks, opened.stat.incarnation);
    Opened { stat: Stat { blocks, incarnation, ..entry.stat.clone() }, file: opened.file }
}

/// A file without bytes, for a name that was only taken then.
fn empty(key: &Key) -> Result<Arc<std::fs::File>> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let made = rustix::fs::memfd_create("sepia", flags);
    Ok(Arc::new(made.map_err(|error| backend::Error::from_io(key, "open", error))?.into()))
}

/// Whether two files hold the same bytes.
///
/// # Errors
/// What the medium says.
pub fn same_bytes(key: &Key, a: &Opened, b: &Opened) -> Result<bool> {
    const CHUNK: u64 = 256 << 10;
    if a.stat.size != b.stat.size {
        return Ok(false);
    }
    let failed = |error: std::io::Error| backend::Error::from_io(key, "compare", error);
    let (mut left, mut right) = (vec![0; CHUNK as usize], vec![0; CHUNK as usize]);
    let mut at = 0;
    while at < a.stat.size {
        let length = (a.stat.size - at).min(CHUNK) as usize;
        a.file.read_exact_at(&mut left[..length], at).map_err(failed)?;
        b.file.read_exact_at(&mut right[..length], at).map_err(failed)?;
        if left[..length] != right[..length] {
            return Ok(false);
        }
        at += length as u64;
    }
    Ok(true)
}
