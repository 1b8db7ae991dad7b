//! Writes to a medium that is full: older history is asked to make room, once.

use std::os::unix::fs::FileExt;

use rustix::io::Errno;

use super::super::{Error, Result, Store};
use super::Session;
use crate::backend;

impl Session {
    /// Stages bytes, a second time if the first failed for want of space and there is some now.
    pub(super) fn stage_with_room(&mut self, data: &[u8], offset: u64) -> Result<()> {
        match self.stage_bytes(data, offset) {
            Err(Error::Backend(error)) if self.store.makes_room(&error, data.len() as u64) => {
                self.stage_bytes(data, offset)
            }
            other => other,
        }
    }

    fn stage_bytes(&mut self, data: &[u8], offset: u64) -> Result<()> {
        self.stage_from(offset)?;
        self.staged_file()?.write_all_at(data, offset).map_err(|e| self.io("write", e))
    }
}

impl Store {
    /// Whether what failed may be tried again: it was space that was missing, and now there is some.
    pub(super) fn makes_room(&self, error: &backend::Error, bytes: u64) -> bool {
        match error {
            backend::Error::Io { source, .. } if Errno::from_io_error(source) == Some(Errno::NOSPC) => {
                self.make_room_for_write(bytes)
            }
            _ => false,
        }
    }
}
