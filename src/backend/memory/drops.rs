//! Dropping generations, and forgetting keys.
//!
//! As everywhere here without a lock: what is dropped is told by its name, which no other generation ever has. That
//! nothing is at the key is looked at before; who makes an object there at that moment finds its older history gone.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::MemoryBackend;
use super::history::{Superseded, prefix};
use super::names::Entry;
use super::record::born_at;
use crate::backend::{Error, FileKind, GenerationInfo, Result};
use crate::types::{Generation, Key};

impl MemoryBackend {
    pub(super) fn drop_from_history(
        &self,
        key: &Key,
        which: &[GenerationInfo],
        gone: bool,
    ) -> Result<Vec<Result<u64>>> {
        let current = self.current_number(key)?;
        if gone && current.is_some() {
            return Err(Error::Exists(key.clone()));
        }
        let current = current.flatten();
        let mut history = self.history(key)?;
        let mut order: Vec<usize> = (0..which.len()).collect();
        order.sort_unstable_by_key(|at| which[*at].generation);
        let mut results: Vec<Result<u64>> =
            which.iter().map(|info| Err(Error::NoGeneration(key.clone(), info.generation))).collect();
        for at in order {
            let info = &which[at];
            let number = info.generation.get();
            let is_meant = |kept: &&Superseded| {
                (kept.name.committed, Some(kept.name.superseded)) == (info.committed, info.superseded)
                    && current.is_none_or(|current| info.generation < current)
            };
            let Some(wanted) = history.kept.get(&number).filter(is_meant) else { continue };
            let before = history.kept.range(..number).next_back();
            if wanted.record.prefix.is_none() && before.is_some_and(|(_, kept)| kept.record.prefix.is_some()) {
                let why = "an older generation is stored as the beginning of this one";
                results[at] = Err(Error::Invalid(key.clone(), why));
                continue;
            }
            if history.last() == number {
                // Nothing else would tell that the number was used, were the object removed.
                self.mark(key, wanted.record.id, number, None)?;
            }
            let freed = wanted.record.prefix.map_or(wanted.size, |_| 0);
            self.take_back(history.spare.iter().filter(|(n, _)| *n == number).map(|(_, copy)| copy.clone()));
            self.take_back(history.kept.remove(&number).map(|kept| kept.copy));
            results[at] = Ok(freed);
        }
        Ok(results)
    }

    /// Whether what is at a key may be replaced or removed without being kept: it was made there, so no other name's
    /// history needs it, and no snapshot holds it.
    pub(super) fn may_vanish(&self, key: &Key, entry: &Entry) -> bool {
        entry.record.born == Some(born_at(key)) && !self.still.is_kept_through(entry.record.committed)
    }

    /// Whether there is a file, and its generation.
    fn current_number(&self, key: &Key) -> Result<Option<Option<Generation>>> {
        match self.find(key) {
            Ok(entry) => Ok((entry.record.kind == FileKind::File).then_some(entry.record.generation)),
            Err(Error::NotFound(_) | Error::NotDirectory(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn forget_key(&self, key: &Key, which: &[GenerationInfo]) -> Result<()> {
        if self.current_number(key)?.is_some() {
            return Err(Error::Exists(key.clone()));
        }
        let (history, listed) = (self.history(key)?, self.list_generations(key)?);
        let same = listed.len() == which.len() && listed.iter().zip(which).all(|(a, b)| a.is_same_as(b));
        if !history.kept.is_empty() || !same {
            return Err(Error::Invalid(key.clone(), "its history is another one by now"));
        }
        self.unmark(&history, u64::MAX);
        Ok(())
    }

    /// The names in `dir` at or below which something is kept.
    pub(super) fn members_with_history(&self, dir: &Key) -> Result<Vec<OsString>> {
        let prefix = prefix(dir);
        let level = self.flat.list_level(&prefix);
        let names = level.prefixes.into_iter().map(|name| name[prefix.len()..name.len() - 1].to_vec());
        Ok(names.map(OsString::from_vec).collect())
    }

    pub(super) fn xattrs_of(&self, key: &Key, generation: Generation) -> Result<Vec<(OsString, Vec<u8>)>> {
        let current = match self.find(key) {
            Ok(entry) => Some(entry.record),
            Err(Error::NotFound(_) | Error::NotDirectory(_)) => None,
            Err(error) => return Err(error),
        };
        let record = match current.filter(|record| record.generation == Some(generation)) {
            Some(record) => record,
            None => {
                let kept = self.history(key)?.kept.remove(&generation.get());
                kept.ok_or_else(|| Error::NoGeneration(key.clone(), generation))?.record
            }
        };
        Ok(record.xattrs.into_iter().collect())
    }
}
