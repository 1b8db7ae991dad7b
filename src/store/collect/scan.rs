//! Going through all histories, a directory at a time.

use super::super::pins::Protected;
use super::super::policy::Retention;
use super::super::retention::{Verdict, judge};
use super::super::{Result, Store};
use crate::backend::{FileKind, GenerationInfo};
use crate::types::{Key, Timestamp};

/// The keys at or below a directory that have a history. Objects without one cost nothing.
pub struct Histories<'a> {
    store: &'a Store,
    pending: Vec<Key>,
}

impl<'a> Histories<'a> {
    pub fn below(store: &'a Store, dir: &Key) -> Self {
        Histories { store, pending: vec![dir.clone()] }
    }

    /// The next key, and the generations that are kept of it, oldest first; there may be none.
    ///
    /// # Errors
    /// The first listing that fails: nothing is known of what is below it.
    pub fn next(&mut self) -> Result<Option<(Key, Vec<GenerationInfo>)>> {
        let Some(key) = self.pending.pop() else { return Ok(None) };
        let mut members = self.store.backend.history_members(&key)?;
        members.sort_unstable();
        for member in members.iter().rev() {
            self.pending.push(key.child(member)?);
        }
        let generations = self.store.backend.generations(&key)?;
        Ok(Some((key, generations)))
    }
}

impl Store {
    /// Whether there is a file at a key. What can't be looked at is an error, and not absent.
    pub(in crate::store) fn is_there(&self, key: &Key) -> Result<bool> {
        use crate::backend::Error::{NotDirectory, NotFound};
        match self.backend.stat(key) {
            Ok(stat) => Ok(stat.kind == FileKind::File),
            Err(NotFound(_) | NotDirectory(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What is to become of the generations of a key, and whether there is a file at it.
    pub(super) fn judge_key(
        &self,
        key: &Key,
        generations: &[GenerationInfo],
        retention: &Retention,
        protected: &Protected,
        now: Timestamp,
    ) -> Result<(Vec<Verdict>, bool)> {
        let current = self.is_there(key)?;
        let held = protected.of(key, generations);
        Ok((judge(generations, current, &retention.policy(key), &held, now), current))
    }
}
