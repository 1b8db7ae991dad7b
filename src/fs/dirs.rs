//! Listing directories.

use parking_lot::Mutex;
use rustix::io::Errno;

use super::types::{DirItem, Fh, Ino};
use super::views::is_view;
use super::{Fs, Result, from_backend};
use crate::backend::{DirEntry, FileKind};

/// An open directory. The listing is taken at the first read and again after rewinddir(3), so that what is removed
/// or made meanwhile neither hides nor repeats other entries.
#[derive(Debug)]
pub struct DirHandle {
    ino: Ino,
    entries: Mutex<Option<Vec<DirEntry>>>,
}

/// Offsets 1 and 2 follow `.` and `..`; the entries come after them.
const DOTS: u64 = 2;

impl Fs {
    /// Opens a directory.
    ///
    /// # Errors
    /// ESTALE for one that the kernel doesn't know.
    pub fn opendir(&self, ino: Ino) -> Result<Fh> {
        if is_view(ino) {
            return self.view_opendir(ino);
        }
        if self.nodes.lock().get(ino).is_none() {
            return Err(Errno::STALE);
        }
        let fh = self.new_handle();
        let handle = DirHandle { ino, entries: Mutex::default() };
        self.dir_handles.lock().insert(fh, std::sync::Arc::new(handle));
        Ok(fh)
    }

    /// Calls `add` for each entry from `offset` on until it returns false (the buffer is full; that entry doesn't
    /// count as looked up). `plus`: with attributes.
    ///
    /// # Errors
    /// What the medium says; nothing was added then.
    pub fn readdir(&self, fh: Fh, offset: u64, plus: bool, add: &mut dyn FnMut(&DirItem) -> bool) -> Result<()> {
        if is_view(fh) {
            return self.view_readdir(fh, offset, plus, add);
        }
        let handle = self.dir_handles.lock().get(&fh).cloned().ok_or(Errno::BADF)?;
        let _names = self.namespace.read();
        let (dir, parent) = {
            let nodes = self.nodes.lock();
            (nodes.key(handle.ino), nodes.parent(handle.ino))
        };
        let mut entries = handle.entries.lock();
        // A directory that was removed while it was open is empty (POSIX, readdir).
        let Some(dir) = dir else { return Ok(()) };
        if offset == 0 || entries.is_none() {
            *entries = Some(self.store.backend().list(&dir).map_err(from_backend)?);
        }
        for (at, (name, ino)) in [(".", handle.ino), ("..", parent)].into_iter().enumerate() {
            let next_offset = at as u64 + 1;
            let kind = FileKind::Directory;
            if offset < next_offset && !add(&DirItem { next_offset, name: name.into(), ino, kind, entry: None }) {
                return Ok(());
            }
        }
        let start = usize::try_from(offset.saturating_sub(DOTS)).unwrap_or(usize::MAX);
        let entries = entries.as_deref().unwrap_or_default();
        for (at, entry) in entries.iter().enumerate().skip(start) {
            let Ok(key) = dir.child(&entry.name) else { continue };
            let name = entry.name.clone();
            let met = if plus {
                self.meet(&key, handle.ino, &name).map(|entry| (entry.attr.ino, entry.attr.stat.kind, Some(entry)))
            } else {
                self.store.backend().stat(&key).map(|stat| (stat.id.get(), stat.kind, None)).map_err(from_backend)
            };
            let (ino, kind, entry) = match met {
                Ok(met) => met,
                // Removed since the listing was taken.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            };
            if !add(&DirItem { next_offset: at as u64 + DOTS + 1, name, ino, kind, entry }) {
                if plus {
                    self.forget(ino, 1);
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// Closes a directory.
    pub fn releasedir(&self, fh: Fh) {
        if is_view(fh) {
            return self.view_release(fh);
        }
        self.dir_handles.lock().remove(&fh);
    }

    /// Returns when the directory's entries would survive a power loss.
    ///
    /// # Errors
    /// EIO and the like.
    pub fn fsyncdir(&self, fh: Fh) -> Result<()> {
        if is_view(fh) {
            return Ok(());
        }
        let handle = self.dir_handles.lock().get(&fh).cloned().ok_or(Errno::BADF)?;
        let _names = self.namespace.read();
        let Some(dir) = self.nodes.lock().key(handle.ino) else { return Ok(()) };
        self.store.backend().sync_dir(&dir).map_err(from_backend)
    }
}
