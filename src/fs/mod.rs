//! The filesystem: inodes, handles and write sessions over a store. Runs, and is tested, without a kernel.

mod types;

use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, RenameFlags, SeekFrom};
use rustix::io::Errno;

pub use types::{Attr, Caller, Changes, DirItem, Entry, Fh, FsOptions, Ino, Invalidate, OpenReply};

use crate::backend::{FileKind, FsStat};
use crate::store::Store;

/// A mounted filesystem. Every method may be called from any thread, and answers with an errno.
pub struct Fs {
    _store: Store,
}

#[allow(missing_docs, unused_variables)]
impl Fs {
    pub fn new(store: Store, options: FsOptions) -> Self {
        todo!()
    }
    /// Starts the watcher; to be called once when the kernel can be told of changes.
    pub fn start(&self, invalidate: Arc<dyn Invalidate>) {
        todo!()
    }
    /// Publishes or sets aside what sessions are still open: the mount ends.
    pub fn shutdown(&self) {
        todo!()
    }
    pub fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Entry, Errno> {
        todo!()
    }
    /// How long the kernel may remember that a name is not there.
    pub fn negative_ttl(&self) -> std::time::Duration {
        todo!()
    }
    pub fn forget(&self, ino: Ino, count: u64) {
        todo!()
    }
    pub fn getattr(&self, ino: Ino, fh: Option<Fh>) -> Result<Attr, Errno> {
        todo!()
    }
    pub fn setattr(&self, caller: &Caller, ino: Ino, fh: Option<Fh>, changes: &Changes) -> Result<Attr, Errno> {
        todo!()
    }
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>, Errno> {
        todo!()
    }
    pub fn mknod(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &OsStr,
        kind: FileKind,
        mode: u32,
        rdev: u64,
    ) -> Result<Entry, Errno> {
        todo!()
    }
    pub fn mkdir(&self, caller: &Caller, parent: Ino, name: &OsStr, mode: u32) -> Result<Entry, Errno> {
        todo!()
    }
    pub fn symlink(&self, caller: &Caller, parent: Ino, name: &OsStr, target: &[u8]) -> Result<Entry, Errno> {
        todo!()
    }
    pub fn link(&self, ino: Ino, parent: Ino, name: &OsStr) -> Result<Entry, Errno> {
        todo!()
    }
    pub fn unlink(&self, parent: Ino, name: &OsStr) -> Result<(), Errno> {
        todo!()
    }
    pub fn rmdir(&self, parent: Ino, name: &OsStr) -> Result<(), Errno> {
        todo!()
    }
    pub fn rename(
        &self,
        parent: Ino,
        name: &OsStr,
        new_parent: Ino,
        new_name: &OsStr,
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        todo!()
    }
    /// `flags` as in open(2).
    pub fn open(&self, caller: &Caller, ino: Ino, flags: i32) -> Result<OpenReply, Errno> {
        todo!()
    }
    pub fn create(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        flags: i32,
    ) -> Result<(Entry, OpenReply), Errno> {
        todo!()
    }
    /// Reads into `buffer` and returns how many bytes; fewer than asked for only at the end.
    pub fn read(&self, fh: Fh, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        todo!()
    }
    /// `kill_priv`: clear suid and sgid (FUSE_WRITE_KILL_SUIDGID). `cached`: pages written back by the kernel (FUSE_WRITE_CACHE).
    pub fn write(&self, fh: Fh, offset: u64, data: &[u8], kill_priv: bool, cached: bool) -> Result<usize, Errno> {
        todo!()
    }
    pub fn flush(&self, fh: Fh) -> Result<(), Errno> {
        todo!()
    }
    pub fn fsync(&self, fh: Fh) -> Result<(), Errno> {
        todo!()
    }
    pub fn release(&self, fh: Fh) {
        todo!()
    }
    pub fn fallocate(&self, fh: Fh, mode: FallocateFlags, offset: u64, length: u64) -> Result<(), Errno> {
        todo!()
    }
    /// Only SEEK_DATA and SEEK_HOLE.
    pub fn lseek(&self, fh: Fh, whence: SeekFrom) -> Result<u64, Errno> {
        todo!()
    }
    pub fn copy_file_range(
        &self,
        from: Fh,
        from_offset: u64,
        to: Fh,
        to_offset: u64,
        length: u64,
    ) -> Result<usize, Errno> {
        todo!()
    }
    pub fn opendir(&self, ino: Ino) -> Result<Fh, Errno> {
        todo!()
    }
    /// Calls `add` for each entry from `offset` on until it returns false (the buffer is full; that entry is not
    /// counted as looked up). `plus`: with attributes.
    pub fn readdir(&self, fh: Fh, offset: u64, plus: bool, add: &mut dyn FnMut(&DirItem) -> bool) -> Result<(), Errno> {
        todo!()
    }
    pub fn releasedir(&self, fh: Fh) {
        todo!()
    }
    pub fn fsyncdir(&self, fh: Fh) -> Result<(), Errno> {
        todo!()
    }
    pub fn statfs(&self) -> Result<FsStat, Errno> {
        todo!()
    }
    pub fn getxattr(&self, ino: Ino, name: &OsStr) -> Result<Vec<u8>, Errno> {
        todo!()
    }
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<OsString>, Errno> {
        todo!()
    }
    /// `flags` as in setxattr(2).
    pub fn setxattr(&self, ino: Ino, name: &OsStr, value: &[u8], flags: i32) -> Result<(), Errno> {
        todo!()
    }
    pub fn removexattr(&self, ino: Ino, name: &OsStr) -> Result<(), Errno> {
        todo!()
    }
}
