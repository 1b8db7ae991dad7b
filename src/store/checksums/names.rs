//! The names of very many generations, in little memory.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::record::{Identity, Line, all, read_lines};
use crate::store::{Result, Store};

/// Hashes of what generations are known by: for who must know of very many whether they have a checksum. That two have
/// the same hash is as good as impossible, and would cost one its checksum.
#[derive(Debug, Default)]
pub struct Names {
    names: HashSet<u64>,
    lines: u64,
}

impl Names {
    /// Of all that have a checksum.
    ///
    /// # Errors
    /// When a record can't be read.
    pub fn known(store: &Store) -> Result<Self> {
        let mut names = Names::default();
        for number in all(store)? {
            read_lines(store, number)?.iter().filter_map(|line| Line::read(line)).for_each(|(one, _)| names.add(&one));
        }
        Ok(names)
    }

    /// Whether a generation has a checksum, under this name or an earlier one.
    pub fn know(&self, identity: &Identity) -> bool {
        [own_of(identity), moved_of(identity), place_of(identity)].iter().any(|name| self.names.contains(name))
    }

    /// How many were added.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Adds one.
    pub fn add(&mut self, identity: &Identity) {
        self.lines += 1;
        self.names.extend([own_of(identity), moved_of(identity), place_of(identity)]);
    }
}

fn hash(what: impl Hash) -> u64 {
    // Without a key: for comparing within this process.
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

fn own_of(identity: &Identity) -> u64 {
    hash((0u8, identity.id, identity.committed))
}

fn moved_of(identity: &Identity) -> u64 {
    hash((1u8, identity.id, identity.mtime, identity.size))
}

pub fn place_of(identity: &Identity) -> u64 {
    hash((2u8, &identity.key, identity.generation, identity.committed, identity.size))
}
