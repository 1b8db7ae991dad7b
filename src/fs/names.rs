//! Names: looking up, making, linking, removing, renaming.

use std::ffi::OsStr;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::RenameFlags;
use rustix::io::Errno;

use super::expect::as_seen;
use super::node::Remains;
use super::types::{Caller, Entry, Ino};
use super::views::is_view;
use super::{Fs, Result, errno, from_backend};
use crate::backend::{self, FileKind, Rename, Stat};
use crate::store;
use crate::types::{Key, Precondition, RESERVED_NAME};

/// How often a change is tried again that was based on what somebody else has changed meanwhile.
const TRIES: usize = 16;

/// What a rename is based on.
struct Ends {
    moved: Stat,
    replaced: Option<Stat>,
    how: Rename,
    /// Keeps what is replaced, if it is open.
    hold: Option<Remains>,
}

/// Makes a change that looks first, and looks again when it finds that somebody has changed the object meanwhile:
/// the inner error says which. Else a session of this mount would take another's generation for its own base.
///
/// # Errors
/// ESTALE when that doesn't end.
fn unless_changed<T>(mut change: impl FnMut() -> Result<std::result::Result<T, Key>>) -> Result<T> {
    for _ in 0..TRIES {
        match change()? {
            Ok(done) => return Ok(done),
            Err(key) => log::debug!("{key}: was changed by somebody else while its name was being changed"),
        }
    }
    Err(Errno::STALE)
}

impl Fs {
    /// What is at `name` in a directory.
    ///
    /// # Errors
    /// ENOENT.
    pub fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Entry> {
        if is_view(parent) {
            return self.view_lookup(parent, name);
        }
        if parent == super::nodes::ROOT && name.as_encoded_bytes() == RESERVED_NAME {
            return self.view_top();
        }
        let _names = self.namespace.read();
        let key = self.child(parent, name)?;
        let found = self.meet(&key, parent, name);
        if matches!(found, Err(Errno::NOENT)) {
            // The kernel drops what it has there.
            self.nodes.lock().former.end(parent, name);
        }
        found
    }

    /// Looks at what is at a path and tells the kernel of it.
    pub(super) fn meet(&self, key: &Key, parent: Ino, name: &OsStr) -> Result<Entry> {
        let look = || {
            let stat = self.store.backend().stat(key).map_err(from_backend)?;
            Ok(self.introduce(key, parent, name, stat))
        };
        self.look(look, |entry| self.forget(entry.attr.ino, 1))
    }

    /// Tells the kernel of an inode; a directory is watched from now on.
    pub(super) fn introduce(&self, key: &Key, parent: Ino, name: &OsStr, stat: Stat) -> Entry {
        let watched = stat.kind == FileKind::Directory && self.watch_dir(key, stat.id.get());
        let entry = self.entry(parent, name, stat);
        if watched && let Some(node) = self.nodes.lock().get_mut(entry.attr.ino) {
            node.set_watched();
        }
        entry
    }

    /// Returns whether changes in the directory are reported from now on.
    fn watch_dir(&self, key: &Key, ino: Ino) -> bool {
        let watched = self.nodes.lock().get(ino).is_some_and(|node| node.is_watched());
        watched || self.watching.add(key, ino)
    }

    /// The kernel forgets `count` lookups of an inode.
    pub fn forget(&self, ino: Ino, count: u64) {
        if is_view(ino) {
            return self.view_forget(ino, count);
        }
        let gone = self.nodes.lock().forget(ino, count);
        for (ino, _) in gone.iter().filter(|(_, node)| node.is_watched()) {
            self.watching.remove(*ino);
        }
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// EINVAL when it is none.
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        if is_view(ino) {
            return self.view_readlink(ino);
        }
        let _names = self.namespace.read();
        self.store.backend().read_link(&self.sure_key(ino)?).map_err(from_backend)
    }

    /// Makes a file, FIFO, socket or device node.
    ///
    /// # Errors
    /// EEXIST, ENOENT, EROFS; EOPNOTSUPP for what the store can't hold.
    pub fn mknod(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &OsStr,
        kind: FileKind,
        mode: u32,
        rdev: u64,
    ) -> Result<Entry> {
        self.make(parent, name, |key| {
            let store = self.store.by(caller.actor());
            if kind == FileKind::File {
                store.create_empty(key, mode, &caller.creator())
            } else {
                store.create_special(key, kind, mode, rdev, &caller.creator())
            }
        })
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// As [`Fs::mknod`].
    pub fn mkdir(&self, caller: &Caller, parent: Ino, name: &OsStr, mode: u32) -> Result<Entry> {
        if is_view(parent) {
            self.check_writable()?;
            return self.view_mkdir(parent, name);
        }
        self.make(parent, name, |key| self.store.by(caller.actor()).create_dir(key, mode, &caller.creator()))
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// As [`Fs::mknod`].
    pub fn symlink(&self, caller: &Caller, parent: Ino, name: &OsStr, target: &[u8]) -> Result<Entry> {
        self.make(parent, name, |key| self.store.by(caller.actor()).create_symlink(key, target, &caller.creator()))
    }

    fn make(&self, parent: Ino, name: &OsStr, make: impl FnOnce(&Key) -> store::Result<Stat>) -> Result<Entry> {
        self.check_writable()?;
        self.check_no_view(parent)?;
        let _names = self.namespace.read();
        let key = self.child(parent, name)?;
        let stat = make(&key).map_err(errno)?;
        Ok(self.introduce(&key, parent, name, stat))
    }

    /// Gives an inode a further name.
    ///
    /// # Errors
    /// EEXIST, EROFS; EOPNOTSUPP for a store without hard links.
    pub fn link(&self, caller: &Caller, ino: Ino, parent: Ino, name: &OsStr) -> Result<Entry> {
        self.check_no_view(parent)?;
        self.check_no_view(ino)?;
        self.check_writable()?;
        let _names = self.namespace.read();
        let (from, to) = (self.key(ino)?, self.child(parent, name)?);
        let (before, stat) = unless_changed(|| {
            self.settle(ino, &from)?;
            let before = self.store.backend().stat(&from).map_err(from_backend)?;
            if before.id.get() != ino {
                return Err(Errno::STALE);
            }
            Ok(match self.store.by(caller.actor()).link(&from, &to, &as_seen(&before)) {
                Err(store::Error::Backend(backend::Error::Stale { key, .. })) => Err(key),
                other => Ok((before, other.map_err(errno)?)),
            })
        })?;
        self.note_changed(ino);
        self.nodes.lock().add_name(ino, parent, name);
        self.follow(&before, &from, &stat);
        Ok(self.introduce(&to, parent, name, stat))
    }

    /// Removes a name that is no directory. What is still open stays usable.
    ///
    /// # Errors
    /// ENOENT, EISDIR, EROFS; ESTALE when `user.sepia.expect` says so.
    pub fn unlink(&self, caller: &Caller, parent: Ino, name: &OsStr) -> Result<()> {
        self.check_writable()?;
        self.check_no_view(parent)?;
        let _names = self.namespace.read();
        let key = self.child(parent, name)?;
        let stat = self.settled_if_secured(self.store.backend().stat(&key).map_err(from_backend)?, &key)?;
        let ino = stat.id.get();
        let expect = self.expected(&key, Some(&stat))?;
        let hold = self.hold_if_open(&key, &stat);
        self.store.by(caller.actor()).remove(&key, &expect, Some(&stat)).map_err(errno)?;
        self.expects.end(&key);
        self.note_changed(ino);
        self.nodes.lock().remove_name(ino, parent, name, hold);
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// ENOENT, ENOTEMPTY, ENOTDIR, EROFS.
    pub fn rmdir(&self, caller: &Caller, parent: Ino, name: &OsStr) -> Result<()> {
        if is_view(parent) {
            self.check_writable()?;
            return self.view_rmdir(parent, name);
        }
        self.check_writable()?;
        self.check_no_view(parent)?;
        let _names = self.namespace.read();
        let key = self.child(parent, name)?;
        let stat = self.store.backend().stat(&key).map_err(from_backend)?;
        let hold = self.hold(&key, &stat);
        self.store.by(caller.actor()).remove_dir(&key, Some(&stat)).map_err(errno)?;
        self.nodes.lock().remove_name(stat.id.get(), parent, name, hold);
        Ok(())
    }

    /// Holds what is about to go, if it is open: its handles may still ask for its attributes. Of what
    /// isn't open, nobody does.
    fn hold_if_open(&self, key: &Key, stat: &Stat) -> Option<Remains> {
        let open = self.nodes.lock().get(stat.id.get()).is_some_and(|node| node.may_be_open());
        if open { self.hold(key, stat) } else { None }
    }

    /// Holds what is about to go. A directory needs that even if it isn't open: processes may be in it.
    fn hold(&self, key: &Key, stat: &Stat) -> Option<Remains> {
        Some(match self.store.backend().hold(key) {
            // Another mount may have put something else there meanwhile.
            Ok(Some(fd)) if !rustix::fs::fstat(&fd).is_ok_and(|held| held.st_ino == stat.incarnation) => return None,
            Ok(Some(fd)) => Remains::Held(Arc::new(fd)),
            Ok(None) => Remains::Known(Arc::new(Mutex::new(stat.clone()))),
            Err(_) => return None,
        })
    }

    /// Renames an entry. `flags` as in renameat2(2).
    ///
    /// # Errors
    /// As rename(2), and ESTALE when `user.sepia.expect` of either name says so.
    pub fn rename(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &OsStr,
        new_parent: Ino,
        new_name: &OsStr,
        flags: RenameFlags,
    ) -> Result<()> {
        self.check_no_view(new_parent)?;
        self.check_writable()?;
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        if !(flags - RenameFlags::EXCHANGE - RenameFlags::NOREPLACE).is_empty() {
            return Err(Errno::INVAL);
        }
        if is_view(parent) {
            if exchange {
                return Err(Errno::ROFS);
            }
            let _names = self.namespace.read();
            return self.view_rename(caller, parent, name, &self.child(new_parent, new_name)?);
        }
        let names = self.namespace.read();
        let moved = self.store.backend().stat(&self.child(parent, name)?).map_err(from_backend)?;
        drop(names);
        // A directory takes the paths of all below it along: nobody may be on one of them meanwhile.
        let moves_dir = moved.kind == FileKind::Directory || exchange;
        let (_shared, _alone) =
            if moves_dir { (None, Some(self.namespace.write())) } else { (Some(self.namespace.read()), None) };
        let (from, to) = (self.child(parent, name)?, self.child(new_parent, new_name)?);
        let (Ends { moved, replaced, hold, .. }, stat) = unless_changed(|| {
            let ends = self.ends(&from, &to, flags)?;
            let renamed = self.store.by(caller.actor()).rename(&from, &to, &ends.how, ends.replaced.as_ref());
            Ok(match renamed {
                Err(store::Error::Backend(backend::Error::Stale { key, .. })) if key == from || exchange => Err(key),
                other => Ok((ends, other.map_err(errno)?)),
            })
        })?;

        let (ino, other) = (stat.id.get(), replaced.as_ref().map(|stat| stat.id.get()));
        self.expects.end(&from);
        self.expects.end(&to);
        if other == Some(moved.id.get()) {
            // Two names of one file: rename(2) leaves both.
            return Ok(());
        }
        [Some(ino), other].into_iter().flatten().for_each(|ino| self.note_changed(ino));
        {
            let mut nodes = self.nodes.lock();
            nodes.add_name(ino, new_parent, new_name);
            nodes.remove_name(ino, parent, name, None);
            if let Some(other) = other {
                if exchange {
                    nodes.add_name(other, parent, name);
                }
                nodes.remove_name(other, new_parent, new_name, hold);
            }
        }
        self.follow(&moved, &to, &stat);
        if exchange
            && let Some(other) = &replaced
            && let Ok(stat) = self.store.backend().stat(&from)
        {
            self.follow(other, &from, &stat);
        }
        if moves_dir {
            self.nodes.lock().forget_all_saved();
            self.moved_below(&to);
            if exchange {
                self.moved_below(&from);
                self.expects.exchanged(&from, &to);
            } else {
                self.expects.moved(&from, &to);
            }
        }
        Ok(())
    }

    /// Looks at both ends of a rename, which saves what was written to them, and says what must still hold then.
    ///
    /// # Errors
    /// ESTALE when `user.sepia.expect` says so; what the medium says.
    fn ends(&self, from: &Key, to: &Key, flags: RenameFlags) -> Result<Ends> {
        let backend = self.store.backend();
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let moved = backend.stat(from).map_err(from_backend)?;
        let replaced = match backend.stat(to) {
            Ok(stat) => Some(stat),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(from_backend(error)),
        };
        let moved = self.settled(moved, from)?;
        let replaced = match replaced {
            Some(other) if exchange => Some(self.settled(other, to)?),
            Some(other) if other.id != moved.id && !flags.contains(RenameFlags::NOREPLACE) => {
                Some(self.settled_if_secured(other, to)?)
            }
            other => other,
        };
        self.expected(from, Some(&moved))?;
        let expect_to = match &replaced {
            _ if flags.contains(RenameFlags::NOREPLACE) => Precondition::Absent,
            other => match (self.expected(to, other.as_ref())?, other) {
                (_, Some(other)) if exchange => as_seen(other),
                (expected, _) => expected,
            },
        };
        let hold = match &replaced {
            Some(other) if exchange || other.id == moved.id => None,
            Some(other) if other.kind == FileKind::Directory => self.hold(to, other),
            // Also for who has just found it there and is about to open it.
            Some(other) if other.kind == FileKind::File => self.hold(to, other),
            Some(other) => self.hold_if_open(to, other),
            None => None,
        };
        let how = Rename { expect_from: as_seen(&moved), expect_to, exchange };
        Ok(Ends { moved, replaced, how, hold })
    }

    fn settle(&self, ino: Ino, key: &Key) -> Result<()> {
        let open = super::open_node::open_of(self.nodes.lock().get(ino));
        if let Some(open) = open {
            self.note_saved(ino, open.settle(key))?;
        }
        Ok(())
    }

    /// As [`Fs::settle`]; returns what is there then.
    fn settled(&self, stat: Stat, key: &Key) -> Result<Stat> {
        let open = super::open_node::open_of(self.nodes.lock().get(stat.id.get()));
        if open.is_none() {
            return Ok(stat);
        }
        self.settle(stat.id.get(), key)?;
        self.store.backend().stat(key).map_err(from_backend)
    }

    /// Saves what an fsync has acknowledged of what is about to lose a name, if that can be: on a full disk something must
    /// be removable. Returns what is there then.
    fn settled_if_secured(&self, stat: Stat, key: &Key) -> Result<Stat> {
        let ino = stat.id.get();
        let Some(open) = super::open_node::open_of(self.nodes.lock().get(ino)) else { return Ok(stat) };
        match open.settle_secured(key).transpose() {
            None => Ok(stat),
            Some(saved) => {
                if let Err(error) = self.note_saved(ino, saved) {
                    log::warn!("{key}: what was synced last can't be saved before the file goes: {error}");
                }
                self.store.backend().stat(key).map_err(from_backend)
            }
        }
    }

    fn follow(&self, before: &Stat, key: &Key, stat: &Stat) {
        let open = super::open_node::open_of(self.nodes.lock().get(before.id.get()));
        if let Some(open) = open {
            open.follow(before, key, stat);
        }
    }

    /// Sessions below a directory that was renamed have other keys now.
    fn moved_below(&self, dir: &Key) {
        let open: Vec<_> = {
            let nodes = self.nodes.lock();
            let opened = nodes.iter().filter_map(|(ino, node)| Some((node.open.clone()?, nodes.key(ino)?)));
            opened.filter(|(_, key)| key.is_within(dir)).collect()
        };
        for (node, key) in open {
            node.moved(&key, self.store.backend().stat(&key).ok().as_ref());
        }
    }

    /// Records what was changed from outside, and returns the state.
    pub(super) fn recorded(&self, key: &Key, stat: Stat) -> Result<Stat> {
        if stat.recorded || stat.generation.is_none() {
            return Ok(stat);
        }
        Ok(self.store.get(key).map_err(errno)?.stat)
    }
}
