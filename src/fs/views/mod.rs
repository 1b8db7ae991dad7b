//! The views below `/.sepia`: older generations, conflicts and events as files that any tool can read.
//!
//! The directory isn't listed at the root, but can be entered. What is in it is found out anew for each request
//! (`tree`); kept are only the inode numbers that the kernel knows, and what is open. Nothing in it can be changed, but
//! snapshots are made and dropped as directories, and what was removed is moved out of the trash.

mod members;
mod shade;
mod tree;

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use rustix::fs::{OFlags, SeekFrom};
use rustix::io::Errno;

use super::open_node::read_at;
use super::types::{Attr, Caller, DirItem, Entry, Fh, Ino, OpenReply};
use super::{Fs, Result, errno};
use crate::backend::FileKind;
use crate::store::Renames;
use crate::store::snapshots::Snapshot;
use crate::types::Key;
use members::Member;
use tree::{Item, Source, Tree, View, What};

/// Set in the numbers of the views' inodes and handles, and in no object id.
const MARK: u64 = 1 << 63;

/// `/.sepia` itself.
const TOP: Ino = MARK | 1;

/// Whether an inode or a handle is one of the views.
pub fn is_view(number: u64) -> bool {
    number & MARK != 0
}

/// What the kernel knows of the views.
#[derive(Debug)]
pub struct Views {
    inodes: Mutex<Inodes>,
    open: Mutex<HashMap<Fh, Arc<Handle>>>,
    snapshots: Mutex<LruCache<String, Arc<Snapshot>>>,
    renames: Mutex<Renames>,
}

impl Default for Views {
    fn default() -> Self {
        let snapshots = Mutex::new(LruCache::new(tree::SNAPSHOTS));
        Views { inodes: Mutex::default(), open: Mutex::default(), snapshots, renames: Mutex::default() }
    }
}

#[derive(Debug, Default)]
struct Inodes {
    paths: HashMap<Ino, Known>,
    numbers: HashMap<Key, Ino>,
}

#[derive(Debug)]
struct Known {
    path: Key,
    /// What its number is made of.
    known_as: Key,
    lookups: u64,
}

#[derive(Debug)]
enum Handle {
    File(Source),
    Dir { path: Key, members: Vec<Member> },
}

impl Inodes {
    fn path(&self, ino: Ino) -> Result<Key> {
        if ino == TOP {
            return Ok(Key::root());
        }
        self.paths.get(&ino).map(|known| known.path.clone()).ok_or(Errno::STALE)
    }

    /// The number of a path: the same each time, as far as no other path has it.
    fn number(&self, path: &Key) -> Ino {
        if path.is_root() {
            return TOP;
        }
        if let Some(ino) = self.numbers.get(path) {
            return *ino;
        }
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        let mut ino = MARK | hasher.finish();
        while ino == TOP || self.paths.get(&ino).is_some_and(|other| other.known_as != *path) {
            ino = MARK | ino.wrapping_add(1);
        }
        ino
    }

    /// The kernel is told of a path, whose number is that of `known_as`: counts one lookup.
    fn count(&mut self, path: &Key, known_as: &Key) -> Ino {
        let ino = self.number(known_as);
        if ino != TOP {
            self.numbers.insert(known_as.clone(), ino);
            let known = || Known { path: path.clone(), known_as: known_as.clone(), lookups: 0 };
            self.paths.entry(ino).or_insert_with(known).lookups += 1;
        }
        ino
    }

    fn forget(&mut self, ino: Ino, count: u64) {
        let Some(known) = self.paths.get_mut(&ino) else { return };
        known.lookups = known.lookups.saturating_sub(count);
        if known.lookups == 0 {
            self.numbers.remove(&known.known_as);
            self.paths.remove(&ino);
        }
    }
}

impl Fs {
    fn tree(&self) -> Tree<'_> {
        Tree { store: &self.store, usage: self.usage(), snapshots: &self.views.snapshots, renames: &self.views.renames }
    }

    fn view_attr(&self, ino: Ino, path: &Key, item: &Item) -> Attr {
        // Nobody tells the kernel what changes here, but what is kept doesn't.
        let lasting = match &item.what {
            What::InSnapshot(..) => true,
            What::Generation(_, number) => path.name().is_some_and(|name| *name == *number.to_string()),
            _ => false,
        };
        Attr { ino, stat: item.stat.clone(), ttl: if lasting { self.options.ttl } else { Duration::ZERO } }
    }

    fn view_entry(&self, path: &Key) -> Result<Entry> {
        Ok(self.view_entry_of(path, &self.tree().at(path)?))
    }

    fn view_entry_of(&self, path: &Key, item: &Item) -> Entry {
        // Two names of one file have one number: that of a name that no path has.
        let one = item.alias().and_then(|(name, id)| Key::parse(format!("one file/{name}/{id}")).ok());
        let ino = self.views.inodes.lock().count(path, one.as_ref().unwrap_or(path));
        let attr = self.view_attr(ino, path, item);
        Entry { ttl: attr.ttl, attr }
    }

    /// `/.sepia` itself.
    pub(super) fn view_top(&self) -> Result<Entry> {
        self.view_entry(&Key::root())
    }

    pub(super) fn view_lookup(&self, parent: Ino, name: &OsStr) -> Result<Entry> {
        let path = self.views.inodes.lock().path(parent)?;
        self.view_entry(&path.child(name).map_err(|_| Errno::NOENT)?)
    }

    pub(super) fn view_forget(&self, ino: Ino, count: u64) {
        self.views.inodes.lock().forget(ino, count);
    }

    pub(super) fn view_getattr(&self, ino: Ino) -> Result<Attr> {
        let path = self.views.inodes.lock().path(ino)?;
        match self.tree().at(&path) {
            Ok(item) => Ok(self.view_attr(ino, &path, &item)),
            // It was there when the kernel looked it up.
            Err(Errno::NOENT) => Err(Errno::STALE),
            Err(error) => Err(error),
        }
    }

    pub(super) fn view_readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        let path = self.views.inodes.lock().path(ino)?;
        let tree = self.tree();
        tree.link_target(&tree.at(&path)?.what)
    }

    pub(super) fn view_open(&self, caller: &Caller, ino: Ino, flags: OFlags) -> Result<OpenReply> {
        if !(flags & OFlags::ACCMODE).is_empty() || flags.contains(OFlags::TRUNC) {
            return Err(Errno::ROFS);
        }
        let path = self.views.inodes.lock().path(ino)?;
        let item = self.tree().at(&path)?;
        // What is put together now may be of another size than the kernel was told.
        let direct = matches!(item.what, What::Text(_) | What::Events(_));
        let source = self.tree().open(caller, item.what)?;
        // Of whatever is read here, the access time changes.
        self.nodes.lock().forget_all_saved();
        let fh = self.add_view_handle(Handle::File(source));
        Ok(OpenReply { fh, keep_cache: false, direct, no_flush: true })
    }

    pub(super) fn view_read(&self, fh: Fh, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let handle = self.view_handle(fh)?;
        let Handle::File(source) = &*handle else { return Err(Errno::ISDIR) };
        let (file, end) = match source {
            Source::Bytes(bytes) => {
                let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
                let count = rest.len().min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                return Ok(count);
            }
            Source::File(file) => (file, u64::MAX),
            Source::Beginning(file, end) => (file, *end),
        };
        let most = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        read_at(file, &mut buffer[..most], offset).map_err(|error| super::errno::from_io(&error))
    }

    pub(super) fn view_lseek(&self, fh: Fh, whence: SeekFrom) -> Result<u64> {
        let handle = self.view_handle(fh)?;
        let Handle::File(source) = &*handle else { return Err(Errno::ISDIR) };
        let end = match source {
            Source::File(file) => return rustix::fs::seek(&**file, whence),
            Source::Bytes(bytes) => bytes.len() as u64,
            Source::Beginning(_, end) => *end,
        };
        match whence {
            SeekFrom::Data(offset) if offset < end => Ok(offset),
            SeekFrom::Hole(offset) if offset < end => Ok(end),
            _ => Err(Errno::NXIO),
        }
    }

    /// Makes a snapshot, by its name in the directory of snapshots.
    pub(super) fn view_mkdir(&self, parent: Ino, name: &OsStr) -> Result<Entry> {
        self.change_snapshots(parent, name, |name| self.store.create_snapshot(Some(name)).map(drop))?;
        self.view_lookup(parent, name)
    }

    /// Drops a snapshot.
    pub(super) fn view_rmdir(&self, parent: Ino, name: &OsStr) -> Result<()> {
        self.change_snapshots(parent, name, |name| self.store.delete_snapshot(name))
    }

    fn change_snapshots(
        &self,
        parent: Ino,
        name: &OsStr,
        change: impl FnOnce(&str) -> crate::store::Result<()>,
    ) -> Result<()> {
        let path = self.views.inodes.lock().path(parent)?;
        match self.tree().at(&path)?.what {
            What::Snapshots => change(name.to_str().ok_or(Errno::INVAL)?).map_err(errno),
            _ => Err(Errno::ROFS),
        }
    }

    /// Brings something back from the trash: an object, or a directory with all that was removed below it. The kernel has
    /// found the caller entitled to take it out of its directory and to make the new name.
    ///
    /// # Errors
    /// EROFS for what isn't in the trash; EEXIST when something is at the new name. EPERM for somebody else's file that
    /// runs with the rights of its owner or group, which may have been removed for that, and for a directory unless the
    /// caller may see all that was in it: of directories that are gone nobody knows who might.
    pub(super) fn view_rename(&self, caller: &Caller, parent: Ino, name: &OsStr, to: &Key) -> Result<()> {
        let path = self.views.inodes.lock().path(parent)?.child(name).map_err(|_| Errno::NOENT)?;
        let item = self.tree().at(&path)?;
        let by = self.store.by(caller.actor());
        match item.what {
            What::Trashed(key, generation) => {
                let (stat, shared) = (item.stat, rustix::fs::Mode::SUID | rustix::fs::Mode::SGID);
                if stat.mode & shared.as_raw_mode() != 0 && caller.uid != 0 && caller.uid != stat.uid {
                    return Err(Errno::PERM);
                }
                // Nor one that is still empty: whoever made it may have it open.
                if self.store.stat(to).is_ok() {
                    return Err(Errno::EXIST);
                }
                by.untrash(&key, Some(generation), to).map(drop).map_err(errno)
            }
            What::Dir(View::Trash, key) if !key.is_root() => {
                if caller.uid != 0 && caller.uid != rustix::process::geteuid().as_raw() {
                    return Err(Errno::PERM);
                }
                by.untrash_tree(&key, to, &caller.creator()).map_err(errno)
            }
            _ => Err(Errno::ROFS),
        }
    }

    pub(super) fn view_getxattr(&self, ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        self.view_xattrs(ino)?.remove(name).ok_or(Errno::NODATA)
    }

    pub(super) fn view_listxattr(&self, ino: Ino) -> Result<Vec<OsString>> {
        Ok(self.view_xattrs(ino)?.into_keys().collect())
    }

    fn view_xattrs(&self, ino: Ino) -> Result<BTreeMap<OsString, Vec<u8>>> {
        let path = self.views.inodes.lock().path(ino)?;
        let tree = self.tree();
        tree.xattrs(&tree.at(&path)?.what)
    }

    pub(super) fn view_opendir(&self, ino: Ino) -> Result<Fh> {
        let path = self.views.inodes.lock().path(ino)?;
        let members = self.tree().members(&self.tree().at(&path)?.what)?;
        Ok(self.add_view_handle(Handle::Dir { path, members }))
    }

    pub(super) fn view_readdir(
        &self,
        fh: Fh,
        offset: u64,
        plus: bool,
        add: &mut dyn FnMut(&DirItem) -> bool,
    ) -> Result<()> {
        let handle = self.view_handle(fh)?;
        let Handle::Dir { path, members } = &*handle else { return Err(Errno::NOTDIR) };
        let (own, above) = {
            let inodes = self.views.inodes.lock();
            let above = path.parent().map_or(super::nodes::ROOT, |parent| inodes.number(&parent));
            (inodes.number(path), above)
        };
        let dots = [(OsStr::new("."), own), (OsStr::new(".."), above)];
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, (name, ino)) in dots.into_iter().enumerate().skip(start) {
            let kind = FileKind::Directory;
            if !add(&DirItem { next_offset: at as u64 + 1, name: name.to_owned(), ino, kind, entry: None }) {
                return Ok(());
            }
        }
        for (at, Member { name, kind, item }) in members.iter().enumerate().skip(start.saturating_sub(dots.len())) {
            let Ok(member) = path.child(name) else { continue };
            let look = || match item {
                Some(item) => Ok(self.view_entry_of(&member, item)),
                None => self.view_entry(&member),
            };
            let entry = match plus.then(look).transpose() {
                Ok(entry) => entry,
                // It has gone since the directory was opened.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            };
            let ino = entry.as_ref().map_or_else(|| self.views.inodes.lock().number(&member), |entry| entry.attr.ino);
            let next_offset = (at + dots.len()) as u64 + 1;
            if !add(&DirItem { next_offset, name: name.clone(), ino, kind: *kind, entry }) {
                if plus {
                    self.view_forget(ino, 1);
                }
                return Ok(());
            }
        }
        Ok(())
    }

    pub(super) fn view_release(&self, fh: Fh) {
        self.views.open.lock().remove(&fh);
    }

    fn add_view_handle(&self, handle: Handle) -> Fh {
        let fh = MARK | self.new_handle();
        self.views.open.lock().insert(fh, Arc::new(handle));
        fh
    }

    fn view_handle(&self, fh: Fh) -> Result<Arc<Handle>> {
        self.views.open.lock().get(&fh).cloned().ok_or(Errno::BADF)
    }

    /// What is in a view can't be changed.
    pub(super) fn check_no_view(&self, ino: Ino) -> Result<()> {
        if is_view(ino) { Err(Errno::ROFS) } else { Ok(()) }
    }
}
