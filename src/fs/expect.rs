//! `user.sepia.expect`: the generation that the next change of a name must find there.
//!
//! An expectation belongs to the name: it is compared with whatever has the name by then, so that it also notices
//! an object that another mount has put there. An object with several names gets one that holds for all of them,
//! for a request of the kernel says which inode is meant, not which of its names.
//!
//! It ends when the change has happened, or a write session has begun that carries it on. A change that is refused
//! leaves it: the kernel asks again when the answer is ESTALE (`retry_estale`).

use std::collections::HashMap;

use parking_lot::Mutex;
use rustix::io::Errno;

use super::types::Ino;
use super::{Fs, Result};
use crate::backend::{FileKind, Stat};
use crate::types::{Generation, Key, Precondition};

/// What is expected, by name.
#[derive(Debug, Default)]
pub struct Expectations(Mutex<HashMap<Key, Expectation>>);

#[derive(Debug, Clone, Copy)]
struct Expectation {
    generation: Generation,
    /// Of which object it was said: what holds for one of its names holds for all.
    ino: Ino,
}

impl Expectations {
    pub fn get(&self, key: &Key) -> Option<Generation> {
        self.0.lock().get(key).map(|expectation| expectation.generation)
    }

    fn set(&self, names: Vec<Key>, ino: Ino, generation: Generation) {
        let mut expectations = self.0.lock();
        expectations.retain(|_, other| other.ino != ino);
        expectations.extend(names.into_iter().map(|key| (key, Expectation { generation, ino })));
    }

    /// What was expected at `key` has been met, or is taken back.
    pub fn end(&self, key: &Key) {
        let mut expectations = self.0.lock();
        if let Some(Expectation { ino, .. }) = expectations.remove(key) {
            expectations.retain(|_, other| other.ino != ino);
        }
    }

    /// A directory has another name.
    pub fn moved(&self, from: &Key, to: &Key) {
        self.rebase(|key| key.rebase(from, to));
    }

    /// Two names have changed places.
    pub fn exchanged(&self, a: &Key, b: &Key) {
        self.rebase(|key| key.rebase(a, b).or_else(|| key.rebase(b, a)));
    }

    fn rebase(&self, new: impl Fn(&Key) -> Option<Key>) {
        let mut expectations = self.0.lock();
        let moved: Vec<_> = expectations.keys().filter_map(|key| Some((key.clone(), new(key)?))).collect();
        let moved: Vec<_> =
            moved.into_iter().filter_map(|(old, new)| Some((new, expectations.remove(&old)?))).collect();
        expectations.extend(moved);
    }
}

impl Fs {
    /// Sets what is expected of a file, under each of its names.
    ///
    /// # Errors
    /// EINVAL for what has no generations; ESTALE when none of its names leads to it any more.
    pub(super) fn expect(&self, ino: Ino, generation: Generation) -> Result<()> {
        if self.nodes.lock().get(ino).ok_or(Errno::STALE)?.kind != FileKind::File {
            return Err(Errno::INVAL);
        }
        let names = self.names(ino);
        if names.is_empty() {
            return Err(Errno::STALE);
        }
        self.expects.set(names, ino, generation);
        Ok(())
    }

    /// Takes back what is expected at the names of an inode.
    pub(super) fn expect_nothing(&self, ino: Ino) {
        self.names(ino).iter().for_each(|key| self.expects.end(key));
    }

    /// The names at which an inode is; those that others have taken away are known for a while longer.
    fn names(&self, ino: Ino) -> Vec<Key> {
        let known = self.nodes.lock().keys(ino);
        known.into_iter().filter(|key| self.is_at(ino, key)).collect()
    }

    pub(super) fn is_at(&self, ino: Ino, key: &Key) -> bool {
        self.store.backend().stat(key).is_ok_and(|stat| stat.id.get() == ino)
    }

    /// The precondition of a change of the name `key`, where `found` is.
    ///
    /// # Errors
    /// ESTALE when it doesn't hold.
    pub(super) fn expected(&self, key: &Key, found: Option<&Stat>) -> Result<Precondition> {
        let Some(generation) = self.expects.get(key) else { return Ok(Precondition::Any) };
        let current = match found {
            Some(stat) => self.recorded(key, stat.clone())?.generation,
            None => None,
        };
        if current == Some(generation) { Ok(Precondition::Generation(generation)) } else { Err(Errno::STALE) }
    }
}

/// The precondition that what was looked at is still there. Of what has no generations, none can be said.
pub fn as_seen(stat: &Stat) -> Precondition {
    if stat.kind == FileKind::File { stat.precondition() } else { Precondition::Any }
}
