//! The inodes that the kernel knows, and the names by which it knows them.
//!
//! An inode is here from its first lookup until the kernel has forgotten it as often as it was told of it. It knows
//! its names, not its path: paths are put together when needed, so that the rename of a directory is one change.
//! A directory also stays as long as something in it is here, or what is open there would have no path to be saved at:
//! the kernel keeps the directory in which it found a file, which isn't the one to which another mount has moved it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;

use super::former::FormerNames;
use super::node::{Node, Remains, Seen};
use super::types::Ino;
use crate::backend::{FileKind, Stat};
use crate::types::Key;

/// The root directory's inode number.
pub const ROOT: Ino = 1;

/// Of how many files that were saved last the attributes are held.
const SAVED: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// All inodes that the kernel knows.
#[derive(Debug)]
pub struct Nodes {
    /// Boxed, or a table that grows would hold every inode twice.
    map: HashMap<Ino, Box<Node>>,
    /// What was last found at a name, by the hash of directory and name.
    at: HashMap<u64, Ino>,
    hasher: RandomState,
    /// Gone without a call of forget, which says so next time.
    gone: Vec<(Ino, Node)>,
    pub former: FormerNames,
    /// What was saved and closed, and not looked at since: programs ask for the attributes right after that.
    saved: LruCache<Ino, Stat>,
}

impl Nodes {
    /// `ttl`: how long the kernel may know a name after it was told of it.
    pub fn new(ttl: Duration) -> Self {
        let mut root = Node::new(FileKind::Directory, ROOT);
        root.lookups = 1;
        Nodes {
            map: HashMap::from([(ROOT, Box::new(root))]),
            at: HashMap::new(),
            hasher: RandomState::new(),
            gone: Vec::new(),
            former: FormerNames::new(ttl),
            saved: LruCache::new(SAVED),
        }
    }

    pub fn get(&self, ino: Ino) -> Option<&Node> {
        self.map.get(&ino).map(|node| &**node)
    }

    pub fn get_mut(&mut self, ino: Ino) -> Option<&mut Node> {
        self.map.get_mut(&ino).map(|node| &mut **node)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Ino, &Node)> {
        self.map.iter().map(|(ino, node)| (*ino, &**node))
    }

    /// The path of an inode; `None` for one that has no name any more, or that the kernel doesn't know.
    pub fn key(&self, ino: Ino) -> Option<Key> {
        if ino == ROOT {
            return Some(Key::root());
        }
        let node = self.map.get(&ino)?;
        // A name below a directory that the kernel has forgotten leads nowhere; another one may.
        node.names().find_map(|(parent, name)| self.key(parent)?.child(name).ok())
    }

    /// All paths by which an inode is known. Other mounts may have taken some of them away.
    pub fn keys(&self, ino: Ino) -> Vec<Key> {
        let names = self.map.get(&ino).into_iter().flat_map(|node| node.names());
        names.filter_map(|(parent, name)| self.key(parent)?.child(name).ok()).collect()
    }

    /// Whether changes of the entry by which an inode is known are reported.
    pub fn is_overseen(&self, ino: Ino) -> bool {
        let dir = self.map.get(&ino).filter(|_| ino != ROOT).and_then(|node| self.map.get(&node.parent));
        dir.is_some_and(|dir| dir.is_watched())
    }

    /// The directory that an inode is in; the root is in itself.
    pub fn parent(&self, ino: Ino) -> Ino {
        self.map.get(&ino).map_or(ROOT, |node| node.parent)
    }

    /// What the kernel may believe to be at a name.
    pub fn at(&self, parent: Ino, name: &OsStr) -> Option<Ino> {
        let ino = *self.at.get(&self.hasher.hash_one((parent, name)))?;
        self.map.get(&ino).is_some_and(|node| node.has_name(parent, name)).then_some(ino)
    }

    fn note_name(&mut self, ino: Ino, parent: Ino, name: &OsStr) {
        self.at.insert(self.hasher.hash_one((parent, name)), ino);
    }

    fn drop_name(&mut self, ino: Ino, parent: Ino, name: &OsStr) {
        let hash = self.hasher.hash_one((parent, name));
        if self.at.get(&hash) == Some(&ino) {
            self.at.remove(&hash);
        }
    }

    /// The kernel is told that `name` in `parent` is this: counts one lookup.
    pub fn remember(&mut self, parent: Ino, name: &OsStr, stat: &Stat) -> &mut Node {
        let ino = stat.id.get();
        self.former.end(parent, name);
        let node = self.map.entry(ino).or_insert_with(|| Box::new(Node::new(stat.kind, parent)));
        node.lookups += 1;
        node.seen = Some(stat.into());
        if let Some(rare) = &mut node.rare {
            rare.orphan = None;
        }
        // Where it has one name, the others that are known were taken away by somebody else.
        let several = stat.nlink > 1 && stat.kind != FileKind::Directory;
        let (known, more) = (node.has_name(parent, name), node.names().nth(1).is_some());
        if !known || (more && !several) {
            self.enter(parent);
            let node = self.map.get_mut(&ino).unwrap_or_else(|| unreachable!("made above"));
            let mut left: Vec<(Ino, OsString)> = Vec::new();
            if known || !several {
                left = node.names().map(|(parent, name)| (parent, name.to_owned())).collect();
                node.name = OsString::new().into();
                if let Some(rare) = &mut node.rare {
                    rare.names.clear();
                }
            }
            node.push_name(parent, name);
            let now = Instant::now();
            for (dir, old) in left {
                // The kernel itself moves a directory that it finds elsewhere.
                if stat.kind != FileKind::Directory && (dir, &*old) != (parent, name) {
                    self.former.note(ino, dir, &old, now);
                }
                self.drop_name(ino, dir, &old);
                self.leave(dir);
            }
        }
        self.note_name(ino, parent, name);
        let node = self.map.get_mut(&ino).unwrap_or_else(|| unreachable!("it has a lookup"));
        node.prefer(parent, name);
        node
    }

    /// The kernel forgets `count` lookups. Returns the inodes that are gone with that.
    pub fn forget(&mut self, ino: Ino, count: u64) -> Vec<(Ino, Node)> {
        let Some(node) = self.map.get_mut(&ino) else { return Vec::new() };
        node.lookups = node.lookups.saturating_sub(count);
        let mut gone = std::mem::take(&mut self.gone);
        gone.extend(self.drop_unused(ino));
        gone
    }

    fn drop_unused(&mut self, mut ino: Ino) -> Vec<(Ino, Node)> {
        let mut gone = Vec::new();
        let mut pending = Vec::new();
        loop {
            let unused = self.map.get(&ino).is_some_and(|node| node.lookups == 0 && node.members == 0);
            if unused
                && ino != ROOT
                && let Some(node) = self.map.remove(&ino)
            {
                self.former.end_all(ino);
                for (parent, name) in node.names() {
                    let hash = self.hasher.hash_one((parent, name));
                    if self.at.get(&hash) == Some(&ino) {
                        self.at.remove(&hash);
                    }
                    if let Some(above) = self.map.get_mut(&parent) {
                        above.members = above.members.saturating_sub(1);
                        pending.push(parent);
                    }
                }
                gone.push((ino, *node));
            }
            match pending.pop() {
                Some(next) => ino = next,
                None => return gone,
            }
        }
    }

    fn enter(&mut self, dir: Ino) {
        if let Some(node) = self.map.get_mut(&dir) {
            node.members += 1;
        }
    }

    fn leave(&mut self, dir: Ino) {
        if let Some(node) = self.map.get_mut(&dir) {
            node.members = node.members.saturating_sub(1);
        }
        let gone = self.drop_unused(dir);
        self.gone.extend(gone);
    }

    /// An inode has a further name.
    pub fn add_name(&mut self, ino: Ino, parent: Ino, name: &OsStr) {
        self.former.end(parent, name);
        if let Some(node) = self.map.get_mut(&ino)
            && !node.has_name(parent, name)
        {
            node.push_name(parent, name);
            node.rare().orphan = None;
            self.enter(parent);
            self.note_name(ino, parent, name);
        }
    }

    /// An inode has lost a name. Returns whether it was the last one that is known; `hold` then keeps it.
    pub fn remove_name(&mut self, ino: Ino, parent: Ino, name: &OsStr, hold: Option<Remains>) -> bool {
        // A LOOKUP that ran beside this may have missed it already. The kernel drops it, or moves it, itself.
        self.former.end(parent, name);
        let Some(node) = self.map.get_mut(&ino) else { return false };
        let known = node.has_name(parent, name);
        if node.parent == parent && &*node.name == name {
            match node.rare.as_mut().and_then(|rare| rare.take_name()) {
                Some((parent, name)) => (node.parent, node.name) = (parent, name),
                None => node.name = OsString::new().into(),
            }
        } else if let Some(names) = node.rare.as_mut().and_then(|rare| rare.names.get_mut(&parent)) {
            names.remove(name);
        }
        let last = node.name.is_empty();
        if last {
            node.rare().orphan = Some(hold);
        }
        if known {
            self.drop_name(ino, parent, name);
            self.leave(parent);
        }
        last
    }

    /// The last handle of what was saved is closed.
    pub fn note_saved(&mut self, ino: Ino, stat: Stat) {
        if self.is_as_saved(ino, &stat) {
            self.saved.put(ino, stat);
        }
    }

    /// The attributes of what was saved last and not touched since; asked once, for the kernel knows them then.
    pub fn take_saved(&mut self, ino: Ino) -> Option<Stat> {
        let stat = self.saved.pop(&ino)?;
        self.is_as_saved(ino, &stat).then_some(stat)
    }

    /// Something may be done to its attributes.
    pub fn forget_saved(&mut self, ino: Ino) {
        self.saved.pop(&ino);
    }

    /// Something may be done to the attributes of many.
    pub fn forget_all_saved(&mut self) {
        self.saved.clear();
    }

    /// Whether the kernel has heard of nothing else since it was saved, and nobody has it open.
    fn is_as_saved(&self, ino: Ino, stat: &Stat) -> bool {
        let node = self.map.get(&ino).filter(|node| !node.may_be_open());
        stat.nlink == 1 && node.is_some_and(|node| node.seen == Some(Seen::from(stat)))
    }

    /// How many inodes the kernel knows.
    pub fn len(&self) -> usize {
        self.map.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fs::open_node::OpenNode;
    use crate::types::{ObjectId, Timestamp};

    fn stat(id: u64, kind: FileKind, nlink: u32) -> Stat {
        let time = Timestamp::from_nanos(0);
        Stat {
            id: ObjectId::from_raw(id).unwrap(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            blocks: 0,
            nlink,
            rdev: 0,
            atime: time,
            mtime: time,
            ctime: time,
            committed: None,
            generation: None,
            recorded: true,
            incarnation: id,
        }
    }

    fn nodes() -> Nodes {
        Nodes::new(Duration::from_secs(60))
    }

    #[test]
    fn paths_follow_their_directories() {
        let mut nodes = nodes();
        let name = OsStr::new;
        nodes.remember(ROOT, name("d"), &stat(10, FileKind::Directory, 2));
        nodes.remember(10, name("f"), &stat(11, FileKind::File, 1));
        assert_eq!(nodes.key(11).unwrap().to_string(), "d/f");
        nodes.add_name(10, ROOT, name("e"));
        nodes.remove_name(10, ROOT, name("d"), None);
        assert_eq!(nodes.key(11).unwrap().to_string(), "e/f");
    }

    #[test]
    fn a_file_lives_as_long_as_one_of_its_names() {
        let mut nodes = nodes();
        let name = OsStr::new;
        nodes.remember(ROOT, name("a"), &stat(10, FileKind::File, 2));
        nodes.remember(ROOT, name("b"), &stat(10, FileKind::File, 2));
        assert!(!nodes.remove_name(10, ROOT, name("a"), None));
        assert_eq!(nodes.key(10).unwrap().to_string(), "b");
        assert!(nodes.remove_name(10, ROOT, name("b"), None));
        assert!(nodes.get(10).unwrap().is_orphan());
        assert_eq!(nodes.key(10), None);
        assert!(nodes.forget(10, 1).is_empty());
        assert_eq!(nodes.forget(10, 1).len(), 1);
        assert_eq!(nodes.len(), 1);
    }

    #[test]
    fn a_directory_lives_as_long_as_what_is_in_it() {
        let mut nodes = nodes();
        nodes.remember(ROOT, OsStr::new("d"), &stat(10, FileKind::Directory, 2));
        nodes.remember(10, OsStr::new("f"), &stat(11, FileKind::File, 1));
        assert!(nodes.forget(10, 1).is_empty());
        assert_eq!(nodes.key(11).unwrap().to_string(), "d/f");
        assert_eq!(nodes.forget(11, 1).len(), 2);
        assert_eq!(nodes.len(), 1);
    }

    #[test]
    fn names_that_others_removed_are_dropped() {
        let mut nodes = nodes();
        nodes.remember(ROOT, OsStr::new("a"), &stat(10, FileKind::File, 2));
        nodes.remember(ROOT, OsStr::new("b"), &stat(10, FileKind::File, 2));
        nodes.remember(ROOT, OsStr::new("b"), &stat(10, FileKind::File, 1));
        assert_eq!(nodes.key(10).unwrap().to_string(), "b");
    }

    #[test]
    fn a_name_moved_by_somebody_else_is_replaced() {
        let mut nodes = nodes();
        nodes.remember(ROOT, OsStr::new("a"), &stat(10, FileKind::File, 1));
        nodes.remember(ROOT, OsStr::new("b"), &stat(10, FileKind::File, 1));
        assert_eq!(nodes.key(10).unwrap().to_string(), "b");
        let leads = |nodes: &mut Nodes| nodes.former.lead_to(10, Instant::now());
        assert!(leads(&mut nodes), "the kernel may still have it at a");
        nodes.remember(ROOT, OsStr::new("a"), &stat(11, FileKind::File, 1));
        assert!(!leads(&mut nodes), "it has heard what is at a now");
        // A LOOKUP that ran beside a rename by this mount, and came in first.
        nodes.remember(ROOT, OsStr::new("c"), &stat(10, FileKind::File, 1));
        assert!(leads(&mut nodes));
        nodes.add_name(10, ROOT, OsStr::new("c"));
        nodes.remove_name(10, ROOT, OsStr::new("b"), None);
        assert!(!leads(&mut nodes), "the kernel moves it itself");
        nodes.remember(ROOT, OsStr::new("d"), &stat(10, FileKind::File, 1));
        assert!(leads(&mut nodes));
        nodes.forget(10, 4);
        assert!(!leads(&mut nodes), "nothing leads to what it has forgotten");
    }

    #[test]
    fn a_directory_that_was_moved_is_moved_by_the_kernel() {
        let mut nodes = nodes();
        nodes.remember(ROOT, OsStr::new("a"), &stat(10, FileKind::Directory, 2));
        nodes.remember(ROOT, OsStr::new("b"), &stat(10, FileKind::Directory, 2));
        assert!(!nodes.former.lead_to(10, Instant::now()));
    }

    #[test]
    fn an_inode_is_split_until_its_last_handle_is_closed() {
        let mut nodes = nodes();
        let node = nodes.remember(ROOT, OsStr::new("a"), &stat(10, FileKind::File, 1));
        let new = || OpenNode::new(Arc::default());
        let older = node.open.insert(new()).join();
        let newer = node.renew(&older, new()).join();
        assert!(node.is_split());
        assert!(Arc::ptr_eq(&node.renew(&older, new()), &newer), "another open that found the same");
        assert!(older.leave());
        node.end_open(&older);
        assert!(node.is_split());
        assert!(newer.leave());
        node.end_open(&newer);
        assert!(!node.may_be_open());
        let older = node.open.insert(new()).join();
        older.leave();
        node.renew(&older, new());
        assert!(!node.is_split(), "nobody has the older one open any more");
    }
}
