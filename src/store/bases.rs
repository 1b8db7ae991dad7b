//! The bytes that a save was based on, for what is set aside to be whole.
//!
//! An object with several names is saved in its own file, so that who has it open loses what was there before. The history has
//! it, but that of the name under which it was saved, which may be any. So all are looked through: it is seldom needed.

use std::fs::File;
use std::io;

use rustix::fs::FallocateFlags;

use super::{Result, Store};
use crate::backend::{Kept, Opened, copy_range};
use crate::types::{Generation, Key, ObjectId, Timestamp};

/// One generation as it was committed then: [`crate::types::Precondition::Version`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Version {
    pub(super) generation: Generation,
    pub(super) id: ObjectId,
    pub(super) committed: Timestamp,
}

impl Store {
    /// Copies the first `size` bytes of what was opened at `key` to the beginning of `to`, which is a hole. Returns whether they
    /// are kept anywhere; if not, it stays one.
    ///
    /// # Errors
    /// When they can't be copied; it is a hole again, as far as the medium can make one.
    pub(super) fn copy_base(&self, key: &Key, base: &Opened, to: &File, size: u64) -> io::Result<bool> {
        if !self.backend.was_rewritten(base) {
            copy(&base.file, to, size)?;
            // Somebody may have begun with that in between.
            if !self.backend.was_rewritten(base) {
                return Ok(true);
            }
            make_hole(to, size);
        }
        let (Some(generation), Some(committed)) = (base.stat.generation, base.stat.committed) else { return Ok(false) };
        self.copy_version(key, Version { generation, id: base.stat.id, committed }, to, size)
    }

    /// As [`Store::copy_base`], of a version that was current at `key` once.
    ///
    /// # Errors
    /// As [`Store::copy_base`].
    pub(super) fn copy_version(&self, key: &Key, version: Version, to: &File, size: u64) -> io::Result<bool> {
        // It may be current still, or again: what was begun and failed is undone.
        let is_current = |opened: &Opened| opened.stat.committed == Some(version.committed) && opened.stat.size >= size;
        if let Some(opened) = self.backend.open(key).ok().filter(is_current) {
            copy(&opened.file, to, size)?;
            let now = self.backend.stat(key);
            if now.is_ok_and(|now| now.recorded && now.precondition() == opened.stat.precondition()) {
                return Ok(true);
            }
            make_hole(to, size);
        }
        let kept = match self.kept_version(key, version, size) {
            Ok(kept) => kept,
            Err(error) => {
                log::warn!("{key}: can't look for generation {}: {error}", version.generation);
                None
            }
        };
        // What a history has never changes in place.
        kept.map_or(Ok(false), |kept| copy(&kept.file, to, size).map(|()| true))
    }

    /// What the history of this name, or any other one, has of a version.
    fn kept_version(&self, key: &Key, version: Version, size: u64) -> Result<Option<Opened>> {
        if let Some(kept) = self.kept_version_at(key, version, size, true)? {
            return Ok(Some(kept));
        }
        for other in self.backend.histories(&Key::root())?.into_iter().filter(|other| other != key) {
            if let Some(kept) = self.kept_version_at(&other, version, size, false)? {
                return Ok(Some(kept));
            }
        }
        Ok(None)
    }

    /// Two files that another program has put there may bear the same time: under another name the object's id counts, too.
    fn kept_version_at(&self, key: &Key, version: Version, size: u64, own: bool) -> Result<Option<Opened>> {
        for info in self.backend.generations(key)?.iter().rev() {
            let is_meant = info.committed == version.committed && info.size >= size;
            if is_meant
                && !matches!(info.kept, Kept::Lost(_))
                && let Ok(kept) = self.backend.open_kept(key, info)
                && (own || kept.stat.id == version.id)
            {
                return Ok(Some(kept));
            }
        }
        Ok(None)
    }
}

fn copy(from: &File, to: &File, size: u64) -> io::Result<()> {
    // Nobody needs the half of it, and others need the space.
    copy_range(from, to, 0, size).inspect_err(|_| make_hole(to, size))
}

/// Where that can't be, the space goes when the session ends.
fn make_hole(file: &File, size: u64) {
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let _ = rustix::fs::fallocate(file, hole, 0, size);
}
