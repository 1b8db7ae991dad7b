//! What differs between two snapshots, or a snapshot and the present.

use std::collections::HashMap;

use serde::Serialize;

use super::locate::same_bytes;
use super::{Result, Snapshot, SnapshotEntry, Store};
use crate::backend::FileKind;
use crate::types::{Key, ObjectId};

/// In what two entries with the same key differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aspect {
    /// One is a file, the other a directory, say; or they are different devices.
    Kind,
    /// The bytes of a file.
    Bytes,
    /// Where a link leads.
    Target,
    /// Which other names are the same object.
    Links,
    /// Permissions.
    Mode,
    /// User or group.
    Owner,
    /// When it was last changed; not looked at for directories, which change with every name in them.
    Time,
    /// Extended attributes.
    Attributes,
}

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Only in the new one.
    Added(SnapshotEntry),
    /// Only in the old one.
    Removed(SnapshotEntry),
    /// In both, but not the same.
    Changed {
        /// As it is in the old one.
        old: Box<SnapshotEntry>,
        /// As it is in the new one.
        new: Box<SnapshotEntry>,
        /// In what they differ.
        what: Vec<Aspect>,
    },
}

impl Change {
    /// What it is about, as it is in the new one if it is there.
    pub fn entry(&self) -> &SnapshotEntry {
        match self {
            Change::Added(entry) | Change::Removed(entry) => entry,
            Change::Changed { new, .. } => new,
        }
    }

    /// Where that is.
    pub fn key(&self) -> &Key {
        &self.entry().key
    }
}

impl Store {
    /// What is different in `new`, at and below `dir`, by key. Bytes are compared only where they are not the same
    /// generation.
    ///
    /// # Errors
    /// [`super::Error::SnapshotBytesLost`] when bytes that must be compared are not kept any more.
    pub fn compare_snapshots(&self, old: &Snapshot, new: &Snapshot, dir: &Key) -> Result<Vec<Change>> {
        let (mut olds, mut news) = (within(old, dir).peekable(), within(new, dir).peekable());
        let (old_links, new_links) = (linked(old, dir), linked(new, dir));
        let mut changes = Vec::new();
        loop {
            let order = match (olds.peek(), news.peek()) {
                (None, None) => return Ok(changes),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(a), Some(b)) => a.key.cmp(&b.key),
            };
            let a = if order.is_le() { olds.next() } else { None };
            let b = if order.is_ge() { news.next() } else { None };
            match (a, b) {
                (Some(a), None) => changes.push(Change::Removed(a.clone())),
                (None, Some(b)) => changes.push(Change::Added(b.clone())),
                (Some(a), Some(b)) => {
                    let mut what = self.differences((old, a), (new, b))?;
                    if old_links.get(&a.stat.id) != new_links.get(&b.stat.id) {
                        what.push(Aspect::Links);
                    }
                    if !what.is_empty() {
                        changes.push(Change::Changed { old: a.clone().into(), new: b.clone().into(), what });
                    }
                }
                (None, None) => {}
            }
        }
    }

    fn differences(&self, old: (&Snapshot, &SnapshotEntry), new: (&Snapshot, &SnapshotEntry)) -> Result<Vec<Aspect>> {
        let (a, b) = (&old.1.stat, &new.1.stat);
        let device = matches!(a.kind, FileKind::CharDevice | FileKind::BlockDevice) && a.rdev != b.rdev;
        if a.kind != b.kind || device {
            return Ok(vec![Aspect::Kind]);
        }
        let is_file = a.kind == FileKind::File;
        let same_generation = (a.id, a.generation, a.committed) == (b.id, b.generation, b.committed);
        let bytes = is_file && !same_generation && {
            let key = &old.1.key;
            a.size != b.size || !same_bytes(key, &old.0.open(self, key)?, &new.0.open(self, key)?)?
        };
        let is_link = a.kind == FileKind::Symlink;
        Ok([
            (Aspect::Bytes, bytes),
            (Aspect::Target, old.1.target != new.1.target),
            (Aspect::Mode, !is_link && a.mode != b.mode),
            (Aspect::Owner, (a.uid, a.gid) != (b.uid, b.gid)),
            (Aspect::Time, a.kind != FileKind::Directory && a.mtime != b.mtime),
            (Aspect::Attributes, old.1.xattrs != new.1.xattrs),
        ]
        .into_iter()
        .filter_map(|(aspect, differs)| differs.then_some(aspect))
        .collect())
    }
}

/// The first name, at and below a directory, of each object that has several there. (A second link may also be one that
/// a commit left in the history when its process died.)
pub(super) fn linked(snapshot: &Snapshot, dir: &Key) -> HashMap<ObjectId, Key> {
    let mut names: HashMap<ObjectId, Vec<&Key>> = HashMap::new();
    for entry in within(snapshot, dir).filter(|entry| entry.stat.kind == FileKind::File && entry.stat.nlink > 1) {
        names.entry(entry.stat.id).or_default().push(&entry.key);
    }
    names.into_iter().filter(|(_, names)| names.len() > 1).map(|(id, names)| (id, names[0].clone())).collect()
}

pub(super) fn within<'a>(snapshot: &'a Snapshot, dir: &'a Key) -> impl Iterator<Item = &'a SnapshotEntry> {
    snapshot.entries().filter(|entry| entry.key.is_within(dir))
}
