//! Sessions that take over the bytes of another file.

use std::fs::File;

use super::{Result, Session};
use crate::backend::{Creator, SetTime, copy_range};
use crate::types::Timestamp;

impl Session {
    /// If it makes the object, on whose behalf, and with which bits it doesn't get.
    pub(in crate::store) fn made_by(mut self, creator: Creator) -> Self {
        self.creator = creator;
        self
    }

    /// Makes the first `size` bytes of a file, and a modification time, this session's own, which replaces everything.
    /// Holes stay holes.
    ///
    /// # Errors
    /// As [`Session::write_at`].
    pub(in crate::store) fn fill_from(&mut self, from: &File, size: u64, mtime: Timestamp) -> Result<()> {
        self.stage_from(0)?;
        self.sum.lose();
        let staged = self.staged_file()?;
        copy_range(from, staged, 0, size).map_err(|e| self.io("copy", e))?;
        staged.set_len(size).map_err(|e| self.io("copy", e))?;
        self.set_times(None, Some(SetTime::At(mtime))).map_err(|e| self.io("set its time", e))?;
        Ok(())
    }
}
