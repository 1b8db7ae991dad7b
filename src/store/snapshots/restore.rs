//! Putting a path, or everything, back as it was in a snapshot.
//!
//! First a plan, which changes nothing and can be shown; then its steps, each of which is a change like any other: bytes
//! become new generations, and what is replaced or removed stays in its history. What somebody has changed since the
//! plan was made is left alone, and reported. Dying in between leaves a part undone, and the next restoration does it.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::diff::{Aspect, Change, linked};
use super::take::is_kept;
use super::{Error, Result, Snapshot, SnapshotEntry, Store};
use crate::backend::{self, Creator, FileKind, SetAttr, SetTime};
use crate::store::acting::By;
use crate::store::{Actor, Session};
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
        if !is_root() {
            // Which only root can put right.
            for change in &mut changes {
                if let Change::Changed { what, .. } = change {
                    what.retain(|aspect| *aspect != Aspect::Owner);
                }
            }
            changes.retain(|change| !matches!(change, Change::Changed { what, .. } if what.is_empty()));
        }
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
        let (by, links) = (store.by(Actor::current()), linked(self.snapshot, &self.dir));
        let mut names: HashMap<ObjectId, Vec<&Key>> = HashMap::new();
        for entry in self.snapshot.files().filter(|entry| entry.stat.nlink > 1) {
            names.entry(entry.stat.id).or_default().push(&entry.key);
        }
        let mut run = Run { store, by, plan: self, links, names, restored: Restored::default() };
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
        if let Err(error) = store.backend.sync_all() {
            run.restored.failed.push((self.dir.clone(), error.into()));
        }
        run.restored
    }
}

/// Whether owners and attributes of the system can be set.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A restoration under way.
struct Run<'a> {
    store: &'a Store,
    by: By<'a>,
    plan: &'a Restoration<'a>,
    /// The first name of each object with several.
    links: HashMap<ObjectId, Key>,
    /// All names of each object that had several, also those that are not asked for.
    names: HashMap<ObjectId, Vec<&'a Key>>,
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
        let (key, was) = (&found.key, Some(&found.stat));
        let removed = match found.stat.kind {
            FileKind::Directory => self.by.remove_dir(key, was),
            FileKind::File => self.by.remove(key, &found.stat.precondition(), was),
            _ => match self.store.backend.stat(key) {
                // No precondition speaks of it.
                Ok(now) if now.id != found.stat.id => Err(backend::Error::Exists(key.clone()).into()),
                _ => self.by.remove(key, &Precondition::Any, was),
            },
        };
        match removed {
            Err(Error::Backend(error)) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    fn put_back(&self, old: Option<&SnapshotEntry>, new: &SnapshotEntry, what: &[Aspect]) -> Result<()> {
        let mut there = old.filter(|_| !what.contains(&Aspect::Kind) && !what.contains(&Aspect::Target));
        if let Some(old) = old.filter(|_| there.is_none()) {
            self.remove(old)?;
        }
        if new.stat.kind == FileKind::File {
            if let Some(first) = self.other_name(new)? {
                return self.put_link_back(there, new, &first);
            }
            if let Some(old) = there
                && old.stat.nlink > 1
                && (what.contains(&Aspect::Links) || !self.is_its_own(old, new)?)
            {
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
            _ => self.set_metadata(new, there.is_none()),
        }
    }

    fn make(&self, new: &SnapshotEntry) -> Result<()> {
        let (by, creator, mode) = (&self.by, Creator::current(), new.stat.mode);
        match new.stat.kind {
            // Until everything is in it, it can be written to; and it is nobody else's business.
            FileKind::Directory => by.create_dir(&new.key, mode & 0o700 | 0o700, &creator)?,
            FileKind::Symlink => by.create_symlink(&new.key, new.target.as_deref().unwrap_or_default(), &creator)?,
            kind => by.create_special(&new.key, kind, mode & 0o600, new.stat.rdev, &creator)?,
        };
        Ok(())
    }

    fn put_bytes_back(&self, there: Option<&SnapshotEntry>, new: &SnapshotEntry) -> Result<()> {
        // Until it has its mode and owner back, a new file is its maker's alone.
        let creator = Creator { umask: 0o177, ..Creator::current() };
        let key = &new.key;
        if new.stat.generation.is_none() && there.is_none() {
            self.by.create_empty(key, 0o600, &creator)?;
            return Ok(());
        }
        if there.is_some_and(|old| old.stat.mode & !new.stat.mode != 0) {
            // Nor may who can read what is there now read what was there then.
            let mode = Some(new.stat.mode & there.map_or(0, |old| old.stat.mode));
            self.store.backend.set_attr(key, &SetAttr { mode, ..SetAttr::default() })?;
        }
        let was = self.plan.snapshot.open(self.store, key)?;
        let expect = there.map_or(Precondition::Absent, |old| old.stat.precondition());
        let mut session = Session::replace(self.store, key, expect)?.made_by(creator);
        if let Some(generation) = new.stat.generation {
            session = session.restoring(generation);
        }
        match session.fill_from(&was.file, new.stat.size, Some(new.stat.mtime)) {
            // All of it is synced at once, at the end.
            Ok(()) => session.save(key, false).map(drop),
            Err(error) => {
                session.discard();
                Err(error)
            }
        }
    }

    /// A name that the object had in the snapshot, and under which it is as it was.
    fn other_name(&self, new: &SnapshotEntry) -> Result<Option<Key>> {
        if let Some(first) = self.links.get(&new.stat.id) {
            return Ok((*first != new.key).then(|| first.clone()));
        }
        for other in self.other_names(new) {
            match self.store.backend.stat(other) {
                Ok(stat) if (stat.id, stat.committed, stat.recorded) == (new.stat.id, new.stat.committed, true) => {
                    return Ok(Some(other.clone()));
                }
                Err(error) if !error.is_gone() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(None)
    }

    /// The other names that the object of an entry had in the snapshot.
    fn other_names(&self, new: &SnapshotEntry) -> impl Iterator<Item = &Key> {
        let all = self.names.get(&new.stat.id).into_iter().flatten();
        all.copied().filter(|name| **name != new.key)
    }

    /// Whether all names that the file has now are those that it had in the snapshot.
    fn is_its_own(&self, old: &SnapshotEntry, new: &SnapshotEntry) -> Result<bool> {
        let mut names = 1;
        for other in self.other_names(new) {
            match self.store.backend.stat(other) {
                Ok(stat) => names += u32::from(stat.id == old.stat.id),
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(names == old.stat.nlink)
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
        match self.by.link(first, &new.key, &target.precondition()) {
            // A medium that can't: then at least the bytes.
            Err(Error::Backend(backend::Error::Unsupported(..))) => {
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

    /// Sets what differs of owner, attributes, mode and times: in this order, for a change of owner takes suid, sgid and
    /// capabilities away, and an ACL comes with a mode.
    fn set_metadata(&self, new: &SnapshotEntry, made: bool) -> Result<()> {
        let (backend, key, was) = (&self.store.backend, &new.key, &new.stat);
        let now = backend.stat(key)?;
        if is_root() && (now.uid, now.gid) != (was.uid, was.gid) {
            let attr = SetAttr { uid: Some(was.uid), gid: Some(was.gid), ..SetAttr::default() };
            backend.set_attr(key, &attr)?;
        }
        self.set_attributes(new)?;
        let (now, is_link) = (backend.stat(key)?, was.kind == FileKind::Symlink);
        let attr = SetAttr {
            mode: (!is_link && now.mode != was.mode).then_some(was.mode),
            atime: made.then_some(SetTime::At(was.atime)),
            mtime: (now.mtime != was.mtime).then_some(SetTime::At(was.mtime)),
            ..SetAttr::default()
        };
        if attr != SetAttr::default() {
            backend.set_attr(key, &attr)?;
        }
        Ok(())
    }

    fn set_attributes(&self, new: &SnapshotEntry) -> Result<()> {
        let (backend, key) = (&self.store.backend, &new.key);
        let names = match backend.list_xattrs(key) {
            Err(backend::Error::Unsupported(..)) => Vec::new(),
            other => other?,
        };
        let everybodys = [&b"user."[..], b"system.posix_acl_"];
        let can = |name: &OsStr| {
            let name = name.as_bytes();
            is_root() || everybodys.iter().any(|prefix| name.starts_with(prefix))
        };
        for name in names.iter().filter(|name| is_kept(name) && can(name) && !new.xattrs.contains_key(*name)) {
            backend.remove_xattr(key, name)?;
        }
        for (name, value) in new.xattrs.iter().filter(|(name, _)| can(name)) {
            if backend.get_xattr(key, name).ok().as_ref() != Some(value) {
                backend.set_xattr(key, name, value, 0)?;
            }
        }
        Ok(())
    }
}
