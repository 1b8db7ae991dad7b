//! What is done to the bytes of open files. [`super::files`] says whose they are and when they are saved.

use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::io::Errno;

use super::errno::from_io;
use super::open_node::{open_of, read_at};
use super::types::{Caller, Fh, Ino};
use super::views::is_view;
use super::{Fs, Result, errno, from_backend};
use crate::backend::{SetAttr, Stat};

impl Fs {
    /// Reads into `buffer` and returns how many bytes; fewer than asked for only at the end.
    ///
    /// # Errors
    /// What the medium says.
    pub fn read(&self, fh: Fh, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        if is_view(fh) {
            return self.view_read(fh, offset, buffer);
        }
        let handle = self.handle(fh)?;
        let mut state = handle.node.state.lock();
        // Its access time may be another one now.
        state.saved = None;
        if state.session.is_none()
            && let Some(file) = state.file().cloned()
        {
            drop(state);
            return read_at(&file, buffer, offset).map_err(|e| from_io(&e));
        }
        state.read(buffer, offset).map_err(|e| from_io(&e))
    }

    /// Writes. `kill_priv`: the writer may not keep suid and sgid. `cached`: pages of a mapping, whose place is fixed
    /// even on an O_APPEND handle.
    ///
    /// # Errors
    /// ENOSPC and the like; ESTALE when the session has lost to somebody else's generation.
    pub fn write(
        &self,
        caller: &Caller,
        fh: Fh,
        offset: u64,
        data: &[u8],
        kill_priv: bool,
        cached: bool,
    ) -> Result<usize> {
        let handle = self.handle(fh)?;
        handle.writers.wrote(caller.thread, cached);
        let mut state = handle.node.state.lock();
        let session = state.session(&handle)?;
        if handle.append && !cached {
            let at = session.append(data).map_err(errno)?;
            state.told = false;
            drop(state);
            if at != offset {
                // The kernel put it elsewhere: it didn't know that somebody else had appended.
                self.watching.invalidate(handle.ino, true);
            }
        } else {
            let written = session.write_at(data, offset);
            state.told &= cached;
            drop(state);
            if written.is_err() && cached {
                // Who stored it in a mapping hears of it from fsync or close, and it would be read until then and after.
                self.drop_pages(handle.ino);
            }
            written.map_err(errno)?;
        }
        if kill_priv {
            self.clear_suid(handle.ino)?;
        }
        Ok(data.len())
    }

    /// Clears suid, and sgid where it has that meaning, as a write or truncation by an ordinary user must.
    pub(super) fn clear_suid(&self, ino: Ino) -> Result<()> {
        let Ok(key) = self.key(ino) else { return Ok(()) };
        let mode = match self.store.backend().stat(&key) {
            Ok(stat) if stat.id.get() == ino => stat.mode,
            Err(error) if !error.is_gone() => return Err(from_backend(error)),
            // Somebody else has taken it away, and who has it open only goes on with it.
            _ => return Ok(()),
        };
        let mut cleared = mode & !0o4000;
        if mode & 0o010 != 0 {
            cleared &= !0o2000;
        }
        if cleared != mode {
            let attr = SetAttr { mode: Some(cleared), ..SetAttr::default() };
            self.store.backend().set_attr(&key, &attr).map_err(from_backend)?;
            self.note_changed(ino);
            self.watching.invalidate_attributes(ino);
        }
        Ok(())
    }

    /// Allocates or punches holes, as fallocate(2).
    ///
    /// # Errors
    /// ENOSPC, EOPNOTSUPP for what the filesystem below can't do.
    pub fn fallocate(&self, caller: &Caller, fh: Fh, mode: FallocateFlags, offset: u64, length: u64) -> Result<()> {
        let handle = self.handle(fh)?;
        handle.writers.wrote(caller.thread, false);
        handle.node.state.lock().session(&handle)?.allocate(mode, offset, length).map_err(errno)?;
        // The kernel leaves that to us (HANDLE_KILLPRIV_V2), and root may keep them.
        if caller.uid == 0 { Ok(()) } else { self.clear_suid(handle.ino) }
    }

    /// Finds data or holes, as lseek(2) with SEEK_DATA and SEEK_HOLE.
    ///
    /// # Errors
    /// ENXIO.
    pub fn lseek(&self, fh: Fh, whence: SeekFrom) -> Result<u64> {
        if is_view(fh) {
            return self.view_lseek(fh, whence);
        }
        let handle = self.handle(fh)?;
        let state = handle.node.state.lock();
        match (&state.session, state.file()) {
            (Some(session), _) => session.seek(whence).map_err(|e| from_io(&e)),
            (None, Some(file)) => rustix::fs::seek(&**file, whence),
            (None, None) => Err(Errno::NXIO),
        }
    }

    /// Copies a range from one open file to another in the kernel, as copy_file_range(2).
    ///
    /// # Errors
    /// As [`Fs::write`].
    pub fn copy_file_range(
        &self,
        caller: &Caller,
        (from, from_offset): (Fh, u64),
        (to, to_offset): (Fh, u64),
        length: u64,
    ) -> Result<usize> {
        if is_view(from) {
            // The kernel then copies by reading and writing.
            return Err(Errno::XDEV);
        }
        let (source, target) = (self.handle(from)?, self.handle(to)?);
        target.writers.wrote(caller.thread, false);
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(1 << 30);
        let unwritten = {
            let mut state = source.node.state.lock();
            state.saved = None;
            match (&state.session, state.file()) {
                (None, Some(file)) => Some(file.clone()),
                _ => None,
            }
        };
        if let Some(file) = unwritten {
            let mut state = target.node.state.lock();
            return state.session(&target)?.copy_from(&file, from_offset, to_offset, length).map_err(errno);
        }
        // The source is being written too, perhaps in the same session: piece by piece, so that no two locks are held.
        let mut buffer = vec![0; length.min(1 << 20)];
        let n = source.node.state.lock().read(&mut buffer, from_offset).map_err(|e| from_io(&e))?;
        let mut state = target.node.state.lock();
        state.session(&target)?.write_at(&buffer[..n], to_offset).map_err(errno)?;
        Ok(n)
    }

    /// Changes the size of a file, through a handle or without one. Returns whether it had another size.
    /// And, if it was looked at anyway, the state of the object.
    pub(super) fn truncate(
        &self,
        caller: &Caller,
        ino: Ino,
        fh: Option<Fh>,
        size: u64,
    ) -> Result<(bool, Option<Stat>)> {
        if let Some(fh) = fh
            && let Ok(handle) = self.handle(fh)
            && handle.write
        {
            let mut state = handle.node.state.lock();
            return Ok((state.session(&handle)?.truncate(size).map_err(errno)?, None));
        }
        if fh.is_none()
            && let Some((changed, stat)) = self.truncate_opened(ino, size)?
        {
            return Ok((changed, Some(stat)));
        }
        let reply = self.open(caller, ino, OFlags::WRONLY.bits() as i32)?;
        let result = self.handle(reply.fh).and_then(|handle| {
            let mut state = handle.node.state.lock();
            let alone = state.writers == 1;
            let session = state.session(&handle)?;
            let changed = session.truncate(size).map_err(errno)?;
            // A truncation by itself is a save by itself, and its caller wants to know whether it succeeded.
            if alone && session.is_dirty() {
                session.set_actor(caller.actor());
                let key = self.key(ino)?;
                let saved = handle.node.publish(&mut state, &key, false);
                drop(state);
                self.note_saved(ino, saved)?;
            }
            Ok((changed, None))
        });
        self.release(reply.fh);
        result
    }

    /// open(2) with O_TRUNC: the kernel truncates what it has just opened, and doesn't say by which handle. Returns
    /// `None` where there is no session that could still be saved with it.
    fn truncate_opened(&self, ino: Ino, size: u64) -> Result<Option<(bool, Stat)>> {
        let _names = self.namespace.read();
        let (open, key) = {
            let nodes = self.nodes.lock();
            (open_of(nodes.get(ino)), nodes.key(ino))
        };
        let (Some(open), Some(key)) = (open, key) else { return Ok(None) };
        // What was asked of the next session is not to be asked of this one.
        if self.expects.get(&key).is_some() {
            return Ok(None);
        }
        let mut state = open.state.lock();
        match &mut state.session {
            Some(session) if !session.is_published() && !session.is_lost() => {
                let stat = self.store.backend().stat(&key).map_err(from_backend)?;
                if !session.is_based_on(&stat) {
                    return Ok(None);
                }
                Ok(Some((session.truncate(size).map_err(errno)?, stat)))
            }
            _ => Ok(None),
        }
    }
}
