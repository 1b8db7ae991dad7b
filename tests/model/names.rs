//! What happens to names in the model: made, linked, removed, renamed.

use rustix::io::Errno;

use super::history::{Histories, is_within};
use super::ops::RenameHow;
use super::sessions::{Expect, Mount, OpenId, Session, Shared};
use super::tree::{Id, Kind, Tree};

/// The model: what is published, and what two mounts have open.
#[derive(Debug)]
pub struct Model {
    pub shared: Shared,
    pub mounts: [Mount; 2],
    /// The medium is a flat space of keys.
    pub is_flat: bool,
}

type Result<T = ()> = std::result::Result<T, Errno>;

impl Model {
    pub fn new(is_flat: bool) -> Self {
        let shared = Shared {
            tree: Tree::new(),
            histories: Default::default(),
            alternatives: Vec::new(),
            conflicts: Vec::new(),
            torn: Vec::new(),
        };
        Model { shared, mounts: Default::default(), is_flat }
    }

    fn insert(&mut self, dir: Id, name: &str, id: Id) -> Id {
        self.shared.tree.children_mut(dir).insert(name.to_owned(), id);
        id
    }

    pub fn child(&self, dir: Id, name: &str) -> Option<Id> {
        self.shared.tree.children(dir)?.get(name).copied()
    }

    fn check_free(&self, dir: Id, name: &str) -> Result {
        if self.child(dir, name).is_some() { Err(Errno::EXIST) } else { Ok(()) }
    }

    pub fn make_dir(&mut self, dir: Id, name: &str, mode: u32) -> Result<Id> {
        self.check_free(dir, name)?;
        let id = self.shared.tree.add(Kind::Dir(Default::default()), mode);
        Ok(self.insert(dir, name, id))
    }

    pub fn make_link(&mut self, dir: Id, name: &str, target: &str) -> Result<Id> {
        self.check_free(dir, name)?;
        let id = self.shared.tree.add(Kind::Link(target.to_owned()), 0o777);
        Ok(self.insert(dir, name, id))
    }

    /// A file that was never written to.
    pub fn make_file(&mut self, dir: Id, name: &str, mode: u32) -> Result<Id> {
        self.check_free(dir, name)?;
        let id = self.shared.tree.add_file(Vec::new(), mode, true);
        Ok(self.insert(dir, name, id))
    }

    /// Makes and opens a file. Returns the number of its session.
    pub fn create(&mut self, side: usize, dir: Id, name: &str, mode: u32) -> Result<(Id, (OpenId, u64))> {
        let id = self.make_file(dir, name, mode)?;
        let path = self.path(dir, name);
        let mount = &mut self.mounts[side];
        let expect = mount.expected(&path).map_or(Expect::Reserved, Expect::Number);
        mount.end_expected(&path);
        let at = mount.add(id);
        let open = mount.newest_mut(id).expect("just added");
        open.session = Some(Session::new(id, None, expect));
        (open.handles, open.writers, open.number) = (1, 1, 1);
        Ok((id, (at, 1)))
    }

    pub fn link(&mut self, side: usize, id: Id, dir: Id, name: &str) -> Result {
        self.mounts[side].settle(&mut self.shared, id)?;
        self.check_free(dir, name)?;
        self.insert(dir, name, id);
        self.mounts[side].follow(&self.shared, id);
        Ok(())
    }

    pub fn unlink(&mut self, side: usize, dir: Id, name: &str) -> Result {
        let id = self.child(dir, name).ok_or(Errno::NOENT)?;
        let path = self.path(dir, name);
        self.mounts[side].settle_secured(&mut self.shared, id);
        self.meets_expectation(side, &path)?;
        if self.shared.tree.is_dir(id) {
            return Err(Errno::ISDIR);
        }
        self.shared.keep_removed(id, &path);
        self.shared.tree.children_mut(dir).remove(name);
        self.mounts[side].end_expected(&path);
        self.note_orphan(side, id);
        Ok(())
    }

    pub fn rmdir(&mut self, dir: Id, name: &str) -> Result {
        let id = self.child(dir, name).ok_or(Errno::NOENT)?;
        match self.shared.tree.children(id) {
            None => return Err(Errno::NOTDIR),
            Some(children) if !children.is_empty() => return Err(Errno::NOTEMPTY),
            Some(_) => {}
        }
        self.shared.tree.children_mut(dir).remove(name);
        Ok(())
    }

    fn path(&self, dir: Id, name: &str) -> String {
        super::tree::join(&self.shared.tree.path(dir).expect("a directory in the tree"), name)
    }

    /// What `user.sepia.expect` demands of whatever has a name.
    fn meets_expectation(&self, side: usize, path: &str) -> Result {
        let expect = self.mounts[side].expected(path);
        let number = self.shared.tree.find(path).and_then(|id| self.shared.tree.file(id)?.number);
        if expect.is_some() && expect != number { Err(Errno::STALE) } else { Ok(()) }
    }

    /// One that is open in the mount that removed its last name has none there; others find out by the name.
    fn note_orphan(&mut self, side: usize, id: Id) {
        if self.shared.tree.names(id).is_empty() {
            self.mounts[side].of(id).for_each(|open| open.orphan = true);
        }
    }

    pub fn rename(&mut self, side: usize, from: (Id, &str), to: (Id, &str), how: RenameHow) -> Result {
        let (old, new) = (self.path(from.0, from.1), self.path(to.0, to.1));
        let ends = [self.child(from.0, from.1), self.child(to.0, to.1)];
        let same = ends[0] == ends[1];
        self.try_rename(side, from, to, how)?;
        let mount = &mut self.mounts[side];
        ends.into_iter().flatten().filter(|_| !same).for_each(|id| mount.follow(&self.shared, id));
        mount.end_expected(&old);
        mount.end_expected(&new);
        match how {
            _ if same => {}
            RenameHow::Exchange => mount.move_expected(&[(&old, &new), (&new, &old)]),
            _ => mount.move_expected(&[(&old, &new)]),
        }
        Ok(())
    }

    fn try_rename(&mut self, side: usize, from: (Id, &str), to: (Id, &str), how: RenameHow) -> Result {
        let moved = self.child(from.0, from.1).ok_or(Errno::NOENT)?;
        let replaced = self.child(to.0, to.1);
        let exchange = how == RenameHow::Exchange;
        self.mounts[side].settle(&mut self.shared, moved)?;
        if let Some(other) = replaced.filter(|_| exchange) {
            self.mounts[side].settle(&mut self.shared, other)?;
        } else if let Some(other) = replaced.filter(|other| *other != moved && how != RenameHow::NoReplace) {
            self.mounts[side].settle_secured(&mut self.shared, other);
        }
        let (old, new) = (self.path(from.0, from.1), self.path(to.0, to.1));
        self.meets_expectation(side, &old)?;
        if how != RenameHow::NoReplace {
            self.meets_expectation(side, &new)?;
        }
        let is_dir = |id: Id| self.shared.tree.is_dir(id);
        let into_itself = is_dir(moved) && is_within(&new, &old) && new != old;
        if into_itself || (exchange && replaced.is_some_and(is_dir) && is_within(&old, &new) && old != new) {
            return Err(Errno::INVAL);
        }
        if how == RenameHow::NoReplace {
            self.check_free(to.0, to.1)?;
        }
        let Some(other) = replaced else {
            if exchange {
                return Err(Errno::NOENT);
            }
            if !is_dir(moved) && self.shared.histories.keeps_bytes(&new) {
                self.may_leave_bytes(moved, &old);
            }
            // What nothing was saved to has no history of its own; that of its name may stay there. On a medium
            // without renames, the history may stay where the new name was used before; where an object has left the
            // new name, what that one takes along goes on there.
            let none = self.shared.tree.file(moved).is_none_or(|file| file.generation.is_none());
            let passed = self.ways().iter_mut().any(|way| way.of(&new).passed);
            let mut ways = Vec::new();
            if (none || self.is_flat || passed) && !self.shared.tree.is_dir(moved) {
                ways = self.ways();
                if let Some(generation) = self.shared.tree.file(moved).and_then(|file| file.generation) {
                    let with_copies = ways.clone().into_iter().map(|mut way| {
                        way.of(&old).keep(generation, self.shared.tree.current(moved));
                        way
                    });
                    ways.extend(with_copies.collect::<Vec<_>>());
                }
            }
            self.move_histories(&old, &new, self.shared.tree.is_dir(moved));
            self.shared.alternatives.extend(ways);
            self.put(from, to, moved);
            return Ok(());
        };
        if exchange {
            if moved != other {
                self.insert(from.0, from.1, other);
                self.insert(to.0, to.1, moved);
                self.shared.each_history(|histories| histories.exchange(&old, &new));
            }
            return Ok(());
        }
        if is_dir(moved) && !is_dir(other) {
            return Err(Errno::NOTDIR);
        }
        // Two names of one file: both stay.
        if moved == other {
            return Ok(());
        }
        match (is_dir(moved), self.shared.tree.children(other)) {
            (true, Some(children)) if !children.is_empty() => return Err(Errno::NOTEMPTY),
            (true, _) => self.move_histories(&old, &new, true),
            (false, Some(_)) => return Err(Errno::ISDIR),
            (false, None) => {
                self.may_leave_bytes(moved, &old);
                // A name to which nothing was ever saved may count as free, or not.
                if self.shared.tree.file(other).is_none_or(|file| file.generation.is_none()) {
                    let ways = self.ways();
                    self.move_histories(&old, &new, false);
                    self.shared.alternatives.extend(ways);
                }
                self.shared.keep_removed(other, &new);
            }
        }
        self.put(from, to, moved);
        self.note_orphan(side, other);
        Ok(())
    }

    fn put(&mut self, from: (Id, &str), to: (Id, &str), moved: Id) {
        let old = self.path(from.0, from.1);
        self.shared.each_history(|histories| {
            // Where nothing is kept, the store need not remember the numbers of what has left.
            if histories.of(&old).kept.is_empty() {
                histories.of(&old).used.clear();
            }
        });
        self.shared.tree.children_mut(from.0).remove(from.1);
        self.insert(to.0, to.1, moved);
    }

    fn ways(&self) -> Vec<Histories> {
        std::iter::once(&self.shared.histories).chain(&self.shared.alternatives).cloned().collect()
    }

    /// Where a history stays behind, a medium may also keep a copy of what has left.
    fn may_leave_bytes(&mut self, moved: Id, path: &str) {
        let Some(generation) = self.shared.tree.file(moved).and_then(|file| file.generation) else { return };
        let bytes = self.shared.tree.current(moved).clone();
        let mut ways = self.ways();
        ways.iter_mut().for_each(|way| way.of(path).keep(generation, &bytes));
        self.shared.alternatives.extend(ways);
    }

    /// A history comes along with its object, unless bytes are kept under the new name already.
    fn move_histories(&mut self, from: &str, to: &str, all_below: bool) {
        let mut left = if all_below { self.ways() } else { Vec::new() };
        for way in &mut left {
            // That of a file that once had the directory's name may stay there.
            let own = std::mem::take(way.of(from));
            way.move_below(from, to);
            *way.of(from) = own;
        }
        self.shared.each_history(|histories| {
            if all_below {
                histories.move_below(from, to);
            } else if !histories.keeps_bytes(to) {
                histories.move_one(from, to);
            }
        });
        self.shared.alternatives.extend(left);
    }
}
