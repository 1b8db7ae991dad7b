//! Saves of the bytes that are there already, which make no generation.
//!
//! Programs write their settings anew at every start, build tools copy what has not changed, and people save to be on
//! the safe side. The history would be full of that. What costs more to compare than to keep is not compared.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use super::super::Result;
use super::Session;
use super::read::read_full;
use crate::backend::{Opened, SetAttr, SetTime, Stat};
use crate::types::{Key, Precondition, Timestamp};

/// Bytes up to which saves are compared with what they would replace: reading both costs some 0.2 ms.
const COMPARED: u64 = 1 << 20;

impl Session {
    /// What is current, if the session expects just that and has the same bytes.
    pub(super) fn same_as_current(&self, key: &Key, size: u64) -> Result<Option<Opened>> {
        let Some(staged) = self.staged.as_ref().filter(|_| !self.published && self.failed.is_empty()) else {
            return Ok(None);
        };
        // What was appended and then cut off again is not even compared.
        let untouched = self.tail_from == Some(size);
        if !untouched && (self.tail_from.is_some() || size > COMPARED) {
            return Ok(None);
        }
        // What is wrong there, the commit will say.
        let Ok(found) = self.store.backend.stat(key) else { return Ok(None) };
        if found.size != size || found.generation.is_none() || !found.recorded || !self.expects_just(&found) {
            return Ok(None);
        }
        let is_found = |opened: &Opened| {
            let same_file = opened.stat.incarnation == found.incarnation;
            same_file && opened.stat.precondition() == found.precondition() && opened.stat.size == size
        };
        let opened = self.base.as_ref().or(self.emptied.as_ref()).filter(|opened| is_found(opened));
        let current = match opened {
            Some(opened) => Opened { file: opened.file.clone(), stat: found },
            None => match self.store.backend.open(key) {
                Ok(current) if is_found(&current) => current,
                _ => return Ok(None),
            },
        };
        let same = untouched
            || are_same(&current.file, staged.file(), size)
                .map_err(|error| self.io("compare with what is there", error))?;
        Ok(same.then_some(current))
    }

    fn expects_just(&self, stat: &Stat) -> bool {
        match self.expect {
            Precondition::Any => true,
            Precondition::Generation(generation) => stat.generation == Some(generation),
            expect => stat.precondition() == expect,
        }
    }

    /// Nothing was changed but the modification time. The session goes on from what is current.
    pub(super) fn publish_same(&mut self, key: &Key, current: Opened, durable: bool) -> Result<Stat> {
        let stat = self.touch(key)?;
        if durable {
            self.publish_clean(key, true)?;
        }
        if let Some(staged) = self.staged.take() {
            staged.discard();
        }
        self.base = Some(Opened { file: current.file, stat: stat.clone() });
        self.times = (None, None);
        self.follow(key, &stat);
        Ok(stat)
    }

    /// As [`Session::publish_same`], so that it survives a power loss, for a session that ends; `None`: not the same.
    pub(super) fn save_same(&self, key: &Key, size: u64) -> Result<Option<Stat>> {
        if self.same_as_current(key, size)?.is_none() {
            return Ok(None);
        }
        let stat = self.touch(key)?;
        self.publish_clean(key, true)?;
        Ok(Some(stat))
    }

    /// Gives the object the modification time of what is staged, as POSIX wants of a write.
    fn touch(&self, key: &Key) -> Result<Stat> {
        let meta = self.staged_file()?.metadata().map_err(|error| self.io("find the time", error))?;
        let mtime = Timestamp::from_parts(meta.mtime(), meta.mtime_nsec() as u32);
        let attr = SetAttr { atime: self.times.0, mtime: Some(SetTime::At(mtime)), ..SetAttr::default() };
        Ok(self.store.backend.set_attr(key, &attr)?)
    }
}

fn are_same(a: &File, b: &File, size: u64) -> io::Result<bool> {
    let most = usize::try_from(size).unwrap_or(usize::MAX).min(64 << 10);
    let (mut ours, mut theirs) = (vec![0; most], vec![0; most]);
    let mut at = 0;
    while at < size {
        let most = usize::try_from(size - at).unwrap_or(usize::MAX).min(ours.len());
        let n = read_full(a, &mut ours[..most], at)?;
        if n < most || read_full(b, &mut theirs[..most], at)? < most || ours[..most] != theirs[..most] {
            return Ok(false);
        }
        at += most as u64;
    }
    Ok(true)
}
