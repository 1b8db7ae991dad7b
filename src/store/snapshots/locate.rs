//! Where the bytes of a snapshot are now.
//!
//! As a rule under the key and number that the snapshot names. But histories move with renames, and numbers with them
//! where a name has an older history. The time of the commit stays with what is in a snapshot
//! ([`crate::backend::Still::keep_through`]), and the object's id with the object.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::{Error, Result, Snapshot, SnapshotEntry, SnapshotInfo, Store};
use crate::backend::{self, FileKind, Kept, Opened, Stat};
use crate::types::{Generation, Key, Timestamp};

/// Every generation that is kept anywhere, and those that are current, by the time of the commit and the size.
type Index = HashMap<(Timestamp, u64), Vec<(Key, Generation)>>;

/// What is known of the bytes that are no longer where the snapshot names them.
#[derive(Debug, Default)]
pub(super) struct Located {
    index: Option<Arc<Index>>,
    /// What the index before this one knew nothing of, either. One may miss what is renamed while it is made.
    missing: HashSet<Key>,
}

/// The commits of all generations that snapshots refer to, and the snapshots of which that was read.
#[derive(Debug, Default)]
pub(in crate::store) struct Held {
    snapshots: Vec<SnapshotInfo>,
    commits: Arc<HashSet<Timestamp>>,
}

impl Snapshot {
    /// Opens a file as it was. Its state is that of the snapshot.
    ///
    /// # Errors
    /// [`Error::NotInSnapshot`]; [`Error::SnapshotBytesLost`] when the bytes are kept nowhere;
    /// [`backend::Error::Invalid`] when it was no regular file.
    pub fn open(&self, store: &Store, key: &Key) -> Result<Opened> {
        /// How often it is looked for anew, as it may be renamed at that moment.
        const ATTEMPTS: u32 = 4;
        let entry =
            self.entry(key).ok_or_else(|| Error::NotInSnapshot { name: self.info.name.clone(), key: key.clone() })?;
        if entry.stat.kind != FileKind::File {
            return Err(backend::Error::Invalid(key.clone(), "was no regular file in the snapshot").into());
        }
        let Some(generation) = entry.stat.generation else {
            return Ok(Opened { file: empty(key)?, stat: entry.stat.clone() });
        };
        // In its own place the commit tells enough: a store that was copied has other ids.
        if let Some(opened) = open_one(store, entry, key, generation)? {
            return Ok(as_it_was(entry, opened));
        }
        let mut index = self.index(store, None)?;
        for _ in 0..ATTEMPTS {
            let candidates = index.get(&commit_of(entry)).map_or(&[][..], Vec::as_slice);
            for (key, generation) in candidates {
                // Elsewhere, two files that another program has put there may bear the same time.
                if let Some(opened) = open_one(store, entry, key, *generation)?.filter(|o| o.stat.id == entry.stat.id) {
                    return Ok(as_it_was(entry, opened));
                }
            }
            if candidates.is_empty() && self.located.lock().missing.contains(key) {
                break;
            }
            // Perhaps it was renamed since.
            index = self.index(store, Some(&index))?;
        }
        Err(Error::SnapshotBytesLost { name: self.info.name.clone(), key: key.clone(), generation })
    }

    /// The index; another one than `old`.
    fn index(&self, store: &Store, old: Option<&Arc<Index>>) -> Result<Arc<Index>> {
        let mut located = self.located.lock();
        if let Some(index) = &located.index {
            if old.is_none_or(|old| !Arc::ptr_eq(old, index)) {
                return Ok(index.clone());
            }
            let missing = self.files().filter(|entry| !index.contains_key(&commit_of(entry)));
            let missing = missing.map(|entry| entry.key.clone()).collect();
            located.missing = missing;
        }
        let made = Arc::new(make_index(store)?);
        located.index = Some(made.clone());
        Ok(made)
    }
}

impl Store {
    /// The times of all commits that snapshots refer to: generations that were committed then are not to be dropped,
    /// whatever key and number they have now. Also not to be dropped is what these are stored in terms of, which
    /// [`backend::Backend::drop_generation`] sees to. Snapshots are read once; asking again costs a look at the first
    /// line of each.
    ///
    /// A snapshot that is made later refers to nothing that is superseded already. So what is to be dropped must have
    /// been found superseded *before* this was asked.
    ///
    /// # Errors
    /// [`Error::SnapshotDamaged`]: then it isn't known, and nothing may be dropped.
    pub fn protected_by_snapshots(&self) -> Result<Arc<HashSet<Timestamp>>> {
        let snapshots = self.snapshots()?;
        let mut held = self.held.lock();
        if held.snapshots != snapshots {
            let mut commits = HashSet::new();
            for info in &snapshots {
                match self.snapshot(&info.name) {
                    // Deleted meanwhile.
                    Err(Error::NoSnapshot(_)) => {}
                    other => commits.extend(other?.protects().filter_map(|(_, _, committed)| committed)),
                }
            }
            *held = Held { snapshots, commits: Arc::new(commits) };
        }
        Ok(held.commits.clone())
    }
}

fn make_index(store: &Store) -> Result<Index> {
    let mut index = Index::new();
    let backend = &store.backend;
    for key in backend.histories(&Key::root())? {
        for info in backend.generations(&key)? {
            if !matches!(info.kept, Kept::Lost(_)) {
                index.entry((info.committed, info.size)).or_default().push((key.clone(), info.generation));
            }
        }
    }
    let mut pending = vec![Key::root()];
    while let Some(dir) = pending.pop() {
        let entries = match backend.list(&dir) {
            Err(error) if error.is_gone() => continue,
            other => other?,
        };
        for entry in entries {
            let key = dir.child(&entry.name)?;
            match entry.kind {
                FileKind::Directory => pending.push(key),
                FileKind::File => match backend.stat(&key) {
                    Err(error) if error.is_gone() => {}
                    other => {
                        let stat = other?;
                        if let (Some(generation), Some(committed)) = (stat.generation, stat.committed) {
                            index.entry((committed, stat.size)).or_default().push((key, generation));
                        }
                    }
                },
                _ => {}
            }
        }
    }
    Ok(index)
}

fn commit_of(entry: &SnapshotEntry) -> (Timestamp, u64) {
    (entry.stat.committed.unwrap_or(entry.stat.mtime), entry.stat.size)
}

/// Opens a generation if it is of the entry's commit.
fn open_one(store: &Store, entry: &SnapshotEntry, key: &Key, at: Generation) -> Result<Option<Opened>> {
    match store.backend.open_generation(key, at) {
        Ok(opened) => {
            let same = (opened.stat.committed, opened.stat.size) == (entry.stat.committed, entry.stat.size);
            Ok(same.then_some(opened))
        }
        Err(backend::Error::NoGeneration(..) | backend::Error::Invalid(..)) => Ok(None),
        Err(error) if error.is_gone() => Ok(None),
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
