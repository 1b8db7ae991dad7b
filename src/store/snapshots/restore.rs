//! Putting a path, or everything, back as it was in a snapshot.
//!
//! First a plan, which changes nothing and can be shown; then its steps, each of which is a change like any other: bytes
//! become new generations, and what is replaced or removed stays in its history. What somebody has changed since the
//! plan was made is left alone, and reported. Dying in between leaves a part undone, and the next restoration does it.

use std::collections::{BTreeSet, HashMap};

use super::diff::{Aspect, Change, linked};
use super::{Error, Result, Snapshot, SnapshotEntry, Store};
use crate::backend::{self, Creator, FileKind, SetAttr, SetTime};
use crate::store::object::Positioned;
use crate::types::{Key, ObjectId, Precondition};

/// What is to be done to put things back.
#[derive(Debug)]
pub struct Restoration<'a> {
    snapshot: &'a Snapshot,
    dir: Key,
    changes: Vec<Change>,
    /// What was made since and stays, since nobody asked for its removal.
    stays: u64,
}

/// How much it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Files, directories, links that are missing.
    pub brought_back: u64,
    /// Those whose bytes, kind or target are others now.
    pub changed_back: u64,
    /// Those of which only mode, owner, times or attributes are others now.
    pub metadata_only: u64,
    /// Those that were made since, and are to be removed.
    pub removed: u64,
    /// Those that were made since, and stay.
    pub stays: u64,
    /// Bytes that become new generations.
    pub bytes: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Restored {
    /// What was put back or removed.
    pub done: Vec<Key>,
    /// What could not be, and why; the rest was done all the same.
    pub failed: Vec<(Key, Error)>,
}

impl Store {
    /// Finds out what it takes to make everything at and below `dir` as it was. With `delete` that includes the
    /// removal of what was made since.
    ///
    /// # Errors
    /// [`Error::NotInSnapshot`]; [`Error::SnapshotBytesLost`].
    pub fn plan_restoration<'a>(&self, snapshot: &'a Snapshot, dir: &Key, delete: bool) -> Result<Restoration<'a>> {
        if snapshot.entry(dir).is_none() {
            return Err(Error::NotInSnapshot { name: snapshot.info.name.clone(), key: dir.clone() });
        }
        let mut changes = Vec::new();
        let mut above = dir.parent();
        while let Some(key) = above {
            if self.backend.stat(&key).is_err_and(|error| error.is_not_found()) {
                changes.extend(snapshot.entry(&key).cloned().map(Change::Added));
            }
            above = key.parent();
        }
        changes.reverse();
        changes.extend(self.compare_snapshots(&self.present(dir)?, snapshot, dir)?);
        let all = changes.len();
        changes.retain(|change| delete || !matches!(change, Change::Removed(_)));
        let stays = (all - changes.len()) as u64;
        Ok(Restoration { snapshot, dir: dir.clone(), changes, stays })
    }
}

impl Restoration<'_> {
    /// What is to be done, by key: [`Change::Removed`] is what is to be removed.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// How much it is.
    pub fn summary(&self) -> Summary {
        let mut sum = Summary { stays: self.stays, ..Summary::default() };
        for change in &self.changes {
            let saves = match change {
                Change::Removed(_) => {
                    sum.removed += 1;
                    continue;
                }
                Change::Added(_) => {
                    sum.brought_back += 1;
                    true
                }
                Change::Changed { what, .. } => {
                    let content = [Aspect::Kind, Aspect::Bytes, Aspect::Target, Aspect::Links];
                    let contents = what.iter().any(|aspect| content.contains(aspect));
                    *(if contents { &mut sum.changed_back } else { &mut sum.metadata_only }) += 1;
                    what.contains(&Aspect::Kind) || what.contains(&Aspect::Bytes)
                }
            };
            let stat = &change.entry().stat;
            if saves && stat.kind == FileKind::File {
                sum.bytes += stat.size;
            }
        }
        sum
    }

    /// Does it. `progress` is told of each name before it is changed.
    ///
    /// # Errors
    /// None: what fails is in the result.
    pub fn apply(&self, store: &Store, progress: &mut dyn FnMut(&Change)) -> Restored {
        let mut run = Run { store, plan: self, links: linked(self.snapshot, &self.dir), restored: Restored::default() };
        // What is in a directory goes before it, and all of it before something else takes its place.
        for change in self.changes.iter().rev() {
            if let Change::Removed(entry) = change {
                progress(change);
                let removed = run.remove(entry);
                run.note(&entry.key, removed);
            }
        }
        for change in &self.changes {
            let (old, new, what) = match change {
                Change::Removed(_) => continue,
                Change::Added(new) => (None, new, &[][..]),
                Change::Changed { old, new, what } => (Some(&**old), &**new, &what[..]),
            };
            progress(change);
            let done = run.put_back(old, new, what);
            run.note(&new.key, done);
        }
        run.settle_directories();
        run.restored
    }
}

/// A restoration under way.
struct Run<'a> {
    store: &'a Store,
    plan: &'a Restoration<'a>,
    /// The first name of each object with several.
    links: HashMap<ObjectId, Key>,
    restored: Restored,
}

impl Run<'_> {
    fn note(&mut self, key: &Key, result: Result<()>) {
        match result {
            Ok(()) => self.restored.done.push(key.clone()),
            Err(error) => self.restored.failed.push((key.clone(), error)),
        }
    }

    /// Removes what was found, if it still is that.
    fn remove(&self, found: &SnapshotEntry) -> Result<()> {
        let backend = &self.store.backend;
        let removed = match found.stat.kind {
            FileKind::Directory => backend.remove_dir(&found.key),
            FileKind::File => backend.remove(&found.key, &found.stat.precondition()),
            _ => backend.remove(&found.key, &Precondition::Any),
        };
        match removed {
            Err(error) if error.is_not_found() => Ok(()),
            other => Ok(other?),
        }
    }

    fn put_back(&self, old: Option<&SnapshotEntry>, new: &SnapshotEntry, what: &[Aspect]) -> Result<()> {
        let mut there = old.filter(|_| !what.contains(&Aspect::Kind) && !what.contains(&Aspect::Target));
        if let Some(old) = old.filter(|_| there.is_none()) {
            self.remove(old)?;
        }
        if new.stat.kind == FileKind::File {
            if let Some(first) = self.links.get(&new.stat.id).filter(|first| **first != new.key) {
                return self.put_link_back(there, new, first);
            }
            if let Some(old) = there.filter(|old| what.contains(&Aspect::Links) && old.stat.nlink > 1) {
                // It has become another name of something that is none of its business.
                self.remove(old)?;
                there = None;
            }
            if there.is_none() || what.contains(&Aspect::Bytes) {
                self.put_bytes_back(there, new)?;
            }
        } else if there.is_none() {
            self.make(new)?;
        }
        match new.stat.kind {
            FileKind::Directory => Ok(()),
            _ => self.set_metadata(new, old.is_none()),
        }
    }

    fn make(&self, new: &SnapshotEntry) -> Result<()> {
        let (backend, creator, mode) = (&self.store.backend, Creator::current(), new.stat.mode);
        match new.stat.kind {
            // Until everything is in it, it can be written to.
            FileKind::Directory => backend.create_dir(&new.key, mode | 0o700, &creator)?,
            FileKind::Symlink => {
                backend.create_symlink(&new.key, new.target.as_deref().unwrap_or_default(), &creator)?
            }
            kind => backend.create_special(&new.key, kind, mode, new.stat.rdev, &creator)?,
        };
        Ok(())
    }

    fn put_bytes_back(&self, there: Option<&SnapshotEntry>, new: &SnapshotEntry) -> Result<()> {
        let expect = there.map_or(Precondition::Absent, |old| old.stat.precondition());
        if new.stat.generation.is_none() && there.is_none() {
            self.store.backend.reserve(&new.key, new.stat.mode, &Creator::current())?;
            return Ok(());
        }
        let was = self.plan.snapshot.open(self.store, &new.key)?;
        let mut bytes = Positioned { file: &was.file, at: 0, end: was.stat.size };
        self.store.put(&new.key, &mut bytes, expect)?;
        Ok(())
    }

    /// Makes a key another name of `first` again.
    fn put_link_back(&self, there: Option<&SnapshotEntry>, new: &SnapshotEntry, first: &Key) -> Result<()> {
        let target = self.store.backend.stat(first)?;
        let now = match self.store.backend.stat(&new.key) {
            Ok(stat) if stat.id == target.id => return Ok(()),
            Ok(stat) => Some(stat),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        match (there, now) {
            (Some(old), _) => self.remove(old)?,
            (None, Some(_)) => return Err(backend::Error::Exists(new.key.clone()).into()),
            (None, None) => {}
        }
        match self.store.backend.link(first, &new.key, &target.precondition()) {
            // A medium that can't: then at least the bytes.
            Err(backend::Error::Unsupported(..)) => {
                self.put_bytes_back(None, new)?;
                self.set_metadata(new, true)
            }
            other => {
                other?;
                Ok(())
            }
        }
    }

    /// Directories last, the deepest first: what is done in a directory changes its time, and one that can't be written
    /// to must be so for long enough.
    fn settle_directories(&mut self) {
        let touched: BTreeSet<Key> = self.plan.changes.iter().filter_map(|change| change.key().parent()).collect();
        let changed: BTreeSet<&Key> = self.plan.changes.iter().map(Change::key).collect();
        let snapshot = self.plan.snapshot;
        let directories = snapshot.entries().filter(|entry| entry.stat.kind == FileKind::Directory);
        let mine = directories.filter(|entry| touched.contains(&entry.key) || changed.contains(&entry.key));
        // Not those above what was asked for, unless they were made now.
        let mine = mine.filter(|entry| entry.key.is_within(&self.plan.dir) || changed.contains(&entry.key));
        for entry in mine.collect::<Vec<_>>().into_iter().rev() {
            match self.set_metadata(entry, false) {
                Ok(()) => {}
                Err(Error::Backend(error)) if error.is_not_found() => {}
                Err(error) => self.restored.failed.push((entry.key.clone(), error)),
            }
        }
    }

    /// Sets what differs of attributes, owner, mode and times.
    fn set_metadata(&self, new: &SnapshotEntry, made: bool) -> Result<()> {
        let (backend, key) = (&self.store.backend, &new.key);
        let names = match backend.list_xattrs(key) {
            Err(backend::Error::Unsupported(..)) => Vec::new(),
            other => other?,
        };
        for name in names.iter().filter(|name| !new.xattrs.contains_key(*name)) {
            backend.remove_xattr(key, name)?;
        }
        for (name, value) in &new.xattrs {
            let same = match backend.get_xattr(key, name) {
                Ok(found) => found == *value,
                Err(_) => false,
            };
            if !same {
                backend.set_xattr(key, name, value, 0)?;
            }
        }
        let (now, was) = (backend.stat(key)?, &new.stat);
        let is_link = was.kind == FileKind::Symlink;
        let owner = (now.uid, now.gid) != (was.uid, was.gid);
        let attr = SetAttr {
            uid: (now.uid != was.uid).then_some(was.uid),
            gid: (now.gid != was.gid).then_some(was.gid),
            // A change of owner may clear suid and sgid.
            mode: (!is_link && (owner || now.mode != was.mode)).then_some(was.mode),
            atime: made.then_some(SetTime::At(was.atime)),
            mtime: (now.mtime != was.mtime).then_some(SetTime::At(was.mtime)),
        };
        if attr != SetAttr::default() {
            backend.set_attr(key, &attr)?;
        }
        Ok(())
    }
}
