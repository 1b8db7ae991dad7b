//! Writes to a medium that is full: older history is asked to make room, once.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

use super::super::{Error, Result, Store};
use super::Session;
use crate::backend;

impl Session {
    /// Stages bytes, a second time if the first failed for want of space and there is some now. `done`: how many were
    /// written, also if not all could be.
    pub(super) fn stage_with_room(&mut self, data: &[u8], offset: u64, done: &mut usize) -> Result<()> {
        match self.stage_bytes(data, offset, done) {
            Err(Error::Backend(error)) if self.store.makes_room(&error, data.len() as u64) => {
                self.stage_bytes(data, offset, done)
            }
            other => other,
        }
    }

    fn stage_bytes(&mut self, data: &[u8], offset: u64, done: &mut usize) -> Result<()> {
        self.stage_from(offset)?;
        let file = self.staged_file()?;
        while *done < data.len() {
            match file.write_at(&data[*done..], offset + *done as u64) {
                Ok(0) => return Err(self.io("write", Errno::IO)),
                Ok(n) => *done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.io("write", error)),
            }
        }
        Ok(())
    }

    /// As [`Session::stage_with_room`], from another file. `most`: how many bytes that can be.
    pub(super) fn copy_with_room(
        &mut self,
        from: &File,
        at: u64,
        offset: u64,
        length: usize,
        most: u64,
    ) -> Result<usize> {
        match self.copy_bytes(from, at, offset, length) {
            Err(Error::Backend(error)) if self.store.makes_room(&error, most) => {
                self.copy_bytes(from, at, offset, length)
            }
            other => other,
        }
    }

    fn copy_bytes(&mut self, from: &File, mut at: u64, mut offset: u64, length: usize) -> Result<usize> {
        self.stage_from(offset)?;
        rustix::fs::copy_file_range(from, Some(&mut at), self.staged_file()?, Some(&mut offset), length)
            .map_err(|e| self.io("copy", e))
    }
}

impl Store {
    /// Whether what failed may be tried again: it was space that was missing, and now there is some.
    pub(super) fn makes_room(&self, error: &backend::Error, bytes: u64) -> bool {
        match error {
            backend::Error::Io { source, .. }
                if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                self.make_room_for_write(bytes)
            }
            _ => false,
        }
    }
}
