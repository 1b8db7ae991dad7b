//! Sessions that take over the bytes of another file.

use std::fs::File;

use super::super::Error;
use super::{Result, Session};
use crate::backend::{Creator, SetTime, copy_range};
use crate::types::Timestamp;

impl Session {
    /// If it makes the object, on whose behalf.
    pub(in crate::store) fn made_by(mut self, creator: Creator) -> Self {
        self.creator = creator;
        self
    }

    /// If it makes the object, on whose behalf, and with which mode; without the bits that it doesn't get.
    pub(in crate::store) fn is_made_by(&mut self, creator: Creator, mode: u32) {
        (self.creator, self.mode) = (creator, mode);
    }

    /// Makes the first `size` bytes of a file, and a modification time if one is given, this session's own, which replaces
    /// everything. They are kept elsewhere: if this process dies, recovery drops the copy. Holes stay holes. On a full medium older history makes room.
    ///
    /// # Errors
    /// As [`Session::write_at`].
    pub(in crate::store) fn fill_from(&mut self, from: &File, size: u64, mtime: Option<Timestamp>) -> Result<()> {
        self.copied = true;
        self.stage_from(0)?;
        self.sum.lose();
        match self.copy_from_start(from, size) {
            Err(Error::Backend(error)) if self.store.makes_room(&error, size) => self.copy_from_start(from, size)?,
            other => other?,
        }
        if let Some(mtime) = mtime {
            self.set_times(None, Some(SetTime::At(mtime))).map_err(|e| self.io("set its time", e))?;
        }
        Ok(())
    }

    fn copy_from_start(&self, from: &File, size: u64) -> Result<()> {
        let staged = self.staged_file()?;
        copy_range(from, staged, 0, size).map_err(|e| self.io("copy", e))?;
        staged.set_len(size).map_err(|e| self.io("copy", e))
    }
}
