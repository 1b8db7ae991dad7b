//! What a session's reader sees: the base, and what was written over it.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::SeekFrom;

use super::Session;
use crate::types::Timestamp;

impl Session {
    /// Bytes, as this session's reader sees them.
    pub fn size(&self) -> io::Result<u64> {
        match &self.staged {
            Some(staged) => Ok(staged.file().metadata()?.len()),
            None => Ok(self.base_size()),
        }
    }

    /// Size, allocated 512-byte blocks, and modification and status change times, if this session's bytes differ
    /// from the object's.
    pub fn overlay(&self) -> io::Result<Option<(u64, u64, Timestamp, Timestamp)>> {
        let Some(staged) = &self.staged else {
            return Ok(None);
        };
        let meta = staged.file().metadata()?;
        let below = if self.tail_from.is_some() { self.base.as_ref().map_or(0, |base| base.stat.blocks) } else { 0 };
        let mtime = Timestamp::from_parts(meta.mtime(), meta.mtime_nsec() as u32);
        let ctime = Timestamp::from_parts(meta.ctime(), meta.ctime_nsec() as u32);
        Ok(Some((meta.len(), meta.blocks() + below, mtime, ctime)))
    }

    /// Reads at an offset; returns fewer bytes than asked for only at the end.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        let base_end = match (&self.staged, self.tail_from) {
            (Some(_), None) => 0,
            (Some(_), Some(from)) => from,
            (None, _) => self.base_size(),
        };
        if let Some(base) = &self.base
            && offset < base_end
        {
            let most = usize::try_from(base_end - offset).unwrap_or(usize::MAX).min(buffer.len());
            done = read_full(&base.file, &mut buffer[..most], offset)?;
            if done < most {
                return Ok(done);
            }
        }
        if let Some(staged) = &self.staged
            && done < buffer.len()
        {
            done += read_full(staged.file(), &mut buffer[done..], offset + done as u64)?;
        }
        Ok(done)
    }

    /// lseek(2) with SEEK_DATA or SEEK_HOLE.
    ///
    /// # Errors
    /// ENXIO behind the end, or when there is no more data.
    pub fn seek(&self, whence: SeekFrom) -> io::Result<u64> {
        let (SeekFrom::Data(offset) | SeekFrom::Hole(offset)) = whence else {
            return Err(rustix::io::Errno::INVAL.into());
        };
        let again = |at| if matches!(whence, SeekFrom::Data(_)) { SeekFrom::Data(at) } else { SeekFrom::Hole(at) };
        let below = match (&self.staged, self.tail_from) {
            (Some(_), None) => 0,
            (Some(_), Some(from)) => from,
            (None, _) => u64::MAX,
        };
        if let Some(base) = &self.base
            && offset < below
        {
            match rustix::fs::seek(&base.file, whence) {
                Ok(at) if at < below => return Ok(at),
                Ok(_) | Err(rustix::io::Errno::NXIO) if self.staged.is_some() => {}
                other => return Ok(other?),
            }
        }
        match &self.staged {
            Some(staged) => Ok(rustix::fs::seek(&**staged.file(), again(offset.max(below)))?),
            None => Err(rustix::io::Errno::NXIO.into()),
        }
    }
}

pub(super) fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
