//! One inode that the kernel knows: its names, what the kernel was told of it, and what is open.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;

use super::open_node::OpenNode;
use super::types::Ino;
use crate::backend::{FileKind, Stat};
use crate::types::Timestamp;

/// What tells two states of a file apart, its metadata included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    version: (u64, Timestamp, u64),
    ctime: Timestamp,
}

impl Seen {
    /// Whether the bytes are the same.
    pub fn same_bytes(&self, other: &Seen) -> bool {
        self.version == other.version
    }

    /// Whether it was the same file of the medium, whoever it belongs to.
    pub fn is_of_file(&self, stat: &Stat) -> bool {
        self.version.0 == stat.incarnation
    }
}

impl From<&Stat> for Seen {
    fn from(stat: &Stat) -> Self {
        Seen { version: stat.version(), ctime: stat.ctime }
    }
}

/// What the kernel's page cache has of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// Nothing: nobody has opened it since the kernel knows the inode.
    None,
    /// Bytes of this version ([`Stat::version`]), if any.
    Of((u64, Timestamp, u64)),
    /// Perhaps others than those that are current.
    Mixed,
}

/// An inode.
#[derive(Debug)]
pub struct Node {
    pub kind: FileKind,
    pub(super) lookups: u64,
    /// Names in it by which other inodes here are known.
    pub(super) members: u32,
    pub(super) parent: Ino,
    pub(super) name: Box<OsStr>,
    /// What the kernel was last told.
    pub seen: Option<Seen>,
    pub pages: Pages,
    pub open: Option<Arc<OpenNode>>,
    pub(super) rare: Option<Box<Rare>>,
}

/// What the kernel may still ask about an inode that has lost its last name.
#[derive(Debug, Clone)]
pub enum Remains {
    /// What was removed knows its attributes itself, as long as it is held.
    Held(Arc<OwnedFd>),
    /// Of what the medium can't hold, these are the attributes.
    Known(Arc<Mutex<Stat>>),
}

/// What few inodes have.
#[derive(Debug, Default)]
pub(super) struct Rare {
    /// Further names (hard links).
    pub(super) names: BTreeMap<Ino, BTreeSet<Box<OsStr>>>,
    /// It has lost its last name.
    pub(super) orphan: Option<Option<Remains>>,
    watched: bool,
    /// Handles were opened while others were open on an older generation, and some of them may still be.
    split: bool,
    /// What those share that are open on older generations.
    older: Vec<Arc<OpenNode>>,
}

impl Rare {
    pub(super) fn take_name(&mut self) -> Option<(Ino, Box<OsStr>)> {
        loop {
            let mut first = self.names.first_entry()?;
            let parent = *first.key();
            match first.get_mut().pop_first() {
                Some(name) => return Some((parent, name)),
                None => drop(first.remove()),
            }
        }
    }
}

impl Node {
    /// One that has no name yet, in a directory.
    pub(super) fn new(kind: FileKind, parent: Ino) -> Self {
        let name = OsString::new().into();
        Node { kind, lookups: 0, members: 0, parent, name, seen: None, pages: Pages::None, open: None, rare: None }
    }

    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Whether it has lost its last name.
    pub fn is_orphan(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.orphan.is_some())
    }

    /// What is left of one that has lost its last name.
    pub fn orphan(&self) -> Option<Remains> {
        self.rare.as_ref().and_then(|rare| rare.orphan.clone().flatten())
    }

    /// Notes that the directory is watched.
    pub fn set_watched(&mut self) {
        self.rare().watched = true;
    }

    /// What those share that open it from now on, since there is another generation than that of `older`: as a rule
    /// `newer`, where nobody else was faster.
    pub fn renew(&mut self, older: &Arc<OpenNode>, newer: Arc<OpenNode>) -> Arc<OpenNode> {
        match &self.open {
            Some(open) if !Arc::ptr_eq(open, older) => return open.clone(),
            _ => self.open = Some(newer.clone()),
        }
        if older.is_used() {
            let rare = self.rare();
            rare.split = true;
            rare.older.push(older.clone());
            self.pages = Pages::Mixed;
        }
        newer
    }

    /// The last of those who shared it has left. It is split as long as anything is open: the kernel's cache, which
    /// has pages of several generations, is emptied by an open that comes after that.
    pub fn end_open(&mut self, unused: &Arc<OpenNode>) {
        if self.open.as_ref().is_some_and(|open| Arc::ptr_eq(open, unused)) {
            self.open = None;
        }
        if let Some(rare) = &mut self.rare {
            rare.older.retain(|older| !Arc::ptr_eq(older, unused));
            rare.split &= self.open.is_some() || !rare.older.is_empty();
        }
    }

    /// Whether handles of different generations may be open, whose bytes the kernel has in one cache.
    pub fn is_split(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.split)
    }

    /// Whether a handle is open, or may be.
    pub fn may_be_open(&self) -> bool {
        self.open.is_some() || self.is_split()
    }

    pub fn is_watched(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.watched)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = (Ino, &OsStr)> {
        let more = self.rare.iter().flat_map(|rare| &rare.names);
        let more = more.flat_map(|(parent, names)| names.iter().map(|name| (*parent, &**name)));
        let named = !self.name.is_empty();
        named.then_some((self.parent, &*self.name)).into_iter().chain(more)
    }

    /// Makes this the name that its path is made of: it was just found there, and another mount may have taken away
    /// the others.
    pub(super) fn prefer(&mut self, parent: Ino, name: &OsStr) {
        if let Some(rare) = &mut self.rare
            && let Some(names) = rare.names.get_mut(&parent)
            && let Some(name) = names.take(name)
        {
            let before = (std::mem::replace(&mut self.parent, parent), std::mem::replace(&mut self.name, name));
            rare.names.entry(before.0).or_default().insert(before.1);
        }
    }

    pub(super) fn push_name(&mut self, parent: Ino, name: &OsStr) {
        if self.name.is_empty() {
            (self.parent, self.name) = (parent, name.into());
        } else {
            self.rare().names.entry(parent).or_default().insert(name.into());
        }
    }

    pub fn has_name(&self, parent: Ino, name: &OsStr) -> bool {
        let further = |rare: &Rare| rare.names.get(&parent).is_some_and(|names| names.contains(name));
        (self.parent == parent && &*self.name == name) || self.rare.as_deref().is_some_and(further)
    }
}
