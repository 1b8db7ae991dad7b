//! The published state: the tree that both mounts and the store directory must show.

use std::collections::BTreeMap;

use sepia::Precondition;

/// An object, a directory or a link of the model. 0 is the root.
pub type Id = usize;

/// Bytes on the medium, which an open file goes on reading whatever becomes of the name.
pub type Phys = usize;

pub const ROOT: Id = 0;

#[derive(Debug, Clone)]
pub struct Node {
    pub kind: Kind,
    pub mode: u32,
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, Clone)]
pub enum Kind {
    Dir(BTreeMap<String, Id>),
    Link(String),
    File(File),
}

/// The current state of a regular file.
#[derive(Debug, Clone)]
pub struct File {
    pub phys: Phys,
    /// Differs whenever a session that was based on the state before is stale.
    pub version: u64,
    /// Differs whenever the bytes or their time may be others than those that were opened.
    pub stamp: u64,
    /// Which generation it is; `None` for a name that is only reserved.
    pub generation: Option<u64>,
    /// The versions whose bytes are the beginning of these: to them, others may append.
    pub beginnings: Vec<u64>,
    /// The number of the generation, as it was last seen.
    pub number: Option<u64>,
    /// What the store said a session on it is based on, and of which version.
    pub seen: Option<(u64, Precondition)>,
}

#[derive(Debug, Default)]
pub struct Tree {
    pub nodes: Vec<Node>,
    pub bytes: Vec<Vec<u8>>,
    counter: u64,
}

impl Tree {
    pub fn new() -> Self {
        let root = Node { kind: Kind::Dir(BTreeMap::new()), mode: 0o755, xattrs: BTreeMap::new() };
        Tree { nodes: vec![root], bytes: Vec::new(), counter: 0 }
    }

    /// A number that was never used: for versions, stamps and generations.
    pub fn fresh(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    pub fn store(&mut self, bytes: Vec<u8>) -> Phys {
        self.bytes.push(bytes);
        self.bytes.len() - 1
    }

    pub fn add(&mut self, kind: Kind, mode: u32) -> Id {
        self.nodes.push(Node { kind, mode, xattrs: BTreeMap::new() });
        self.nodes.len() - 1
    }

    /// A new file; a reserved one has no generation.
    pub fn add_file(&mut self, bytes: Vec<u8>, mode: u32, reserved: bool) -> Id {
        let (phys, version) = (self.store(bytes), self.fresh());
        let generation = (!reserved).then_some(version);
        let beginnings = vec![version];
        let file = File { phys, version, stamp: version, generation, beginnings, number: None, seen: None };
        self.add(Kind::File(file), mode)
    }

    pub fn children(&self, dir: Id) -> Option<&BTreeMap<String, Id>> {
        match &self.nodes[dir].kind {
            Kind::Dir(children) => Some(children),
            _ => None,
        }
    }

    pub fn children_mut(&mut self, dir: Id) -> &mut BTreeMap<String, Id> {
        match &mut self.nodes[dir].kind {
            Kind::Dir(children) => children,
            other => panic!("{other:?} is no directory"),
        }
    }

    pub fn file(&self, id: Id) -> Option<&File> {
        match &self.nodes[id].kind {
            Kind::File(file) => Some(file),
            _ => None,
        }
    }

    pub fn file_mut(&mut self, id: Id) -> &mut File {
        match &mut self.nodes[id].kind {
            Kind::File(file) => file,
            other => panic!("{other:?} is no file"),
        }
    }

    pub fn is_dir(&self, id: Id) -> bool {
        matches!(self.nodes[id].kind, Kind::Dir(_))
    }

    /// What is current of a file.
    pub fn current(&self, id: Id) -> &Vec<u8> {
        &self.bytes[self.file(id).expect("a file").phys]
    }

    /// Every entry but the root: its path, its directory, and what it is; by path.
    pub fn entries(&self) -> Vec<(String, Id, Id)> {
        let mut all = Vec::new();
        let mut pending = vec![(String::new(), ROOT)];
        while let Some((path, dir)) = pending.pop() {
            for (name, &id) in self.children(dir).into_iter().flatten() {
                let path = join(&path, name);
                if self.is_dir(id) {
                    pending.push((path.clone(), id));
                }
                all.push((path, dir, id));
            }
        }
        all.sort();
        all
    }

    /// The directories, the root first.
    pub fn dirs(&self) -> Vec<(String, Id)> {
        let below = self.entries().into_iter().filter(|(_, _, id)| self.is_dir(*id)).map(|(path, _, id)| (path, id));
        std::iter::once((String::new(), ROOT)).chain(below).collect()
    }

    /// The names of regular files.
    pub fn files(&self) -> Vec<(String, Id, Id)> {
        self.entries().into_iter().filter(|(_, _, id)| self.file(*id).is_some()).collect()
    }

    /// The names of an object.
    pub fn names(&self, id: Id) -> Vec<String> {
        self.entries().into_iter().filter(|(_, _, other)| *other == id).map(|(path, ..)| path).collect()
    }

    pub fn path(&self, dir: Id) -> Option<String> {
        if dir == ROOT { Some(String::new()) } else { self.names(dir).pop() }
    }

    pub fn find(&self, path: &str) -> Option<Id> {
        path.split('/').try_fold(ROOT, |dir, name| self.children(dir)?.get(name).copied())
    }
}

pub fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// The last component of a path.
pub fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
