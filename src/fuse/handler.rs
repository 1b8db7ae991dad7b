//! The translation of `fuser::Filesystem` to [`Fs`], request by request.
//!
//! Every call of `Fs` goes through [`Handler::call`], where a panic becomes EIO and a line in the log: a panic that
//! reached fuser would silently end one of its threads.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner,
    OpenFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{FallocateFlags, RenameFlags, SeekFrom};
use rustix::io::Errno;

use super::calls::{Asks, Handler, by_path};
use super::capabilities::negotiate;
use super::convert::{
    XATTR_MAX, bare_attr, caller, file_attr, file_type, kind_of_node, name_list, open_flags, set_time, user_dev,
};
use super::reply::{NO_GENERATION, empty, entry, written, xattr};
use crate::backend::FileKind;
use crate::fs::Changes;

/// Answers carry 32 bits, and whole pages keep the next request aligned.
const MAX_COPY: u64 = 1 << 30;

thread_local! {
    /// Where reads go; each thread of fuser has one, which grows to the largest request it has seen.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Filesystem for Handler {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.direct = config.capabilities().contains(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP);
        negotiate(config);
        Ok(())
    }

    fn destroy(&mut self) {
        let _ = self.call("shutdown", |fs| {
            fs.shutdown();
            Ok(())
        });
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _answer = self.fs.answer_begins();
        let looked_up = self.call("lookup", |fs| {
            let found = fs.lookup(parent.0, name);
            match &found {
                Ok(found) => fs.looked_up(request.pid(), Some((found.attr.ino, found.attr.stat.kind))),
                Err(Errno::NOENT) => fs.looked_up(request.pid(), None),
                Err(_) => {}
            }
            match found {
                Ok(found) => Ok(Ok(found)),
                Err(Errno::NOENT) if !fs.negative_ttl().is_zero() => Ok(Err(fs.negative_ttl())),
                Err(error) => Err(error),
            }
        });
        match looked_up {
            // An error is never remembered; an entry with inode 0 is (`fuse_lookup_name`).
            Ok(Err(ttl)) => reply.entry(&ttl, &bare_attr(0, FileKind::File), NO_GENERATION),
            Ok(Ok(found)) => entry(reply, Ok(found)),
            Err(error) => reply.error(error),
        }
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        let _ = self.call("forget", |fs| {
            fs.forget(ino.0, count);
            Ok(())
        });
    }

    fn getattr(&self, request: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let _answer = self.fs.answer_begins();
        let asked = self.call("getattr", |fs| {
            by_path(fs, request, ino, Asks::ForAttributes, || fs.getattr(ino.0, fh.map(|fh| fh.0)))
        });
        match asked {
            Ok(attr) => reply.attr(&attr.ttl, &file_attr(&attr)),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        // Only sent with the writeback cache; the rest only by macOS.
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let _answer = self.fs.answer_begins();
        let changes = Changes {
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
        };
        let fh = fh.map(|fh| fh.0);
        let set = self.call("setattr", |fs| {
            by_path(fs, request, ino, Asks::ForMore, || fs.setattr(&caller(request, 0), ino.0, fh, &changes))
        });
        match set {
            Ok(attr) => reply.attr(&attr.ttl, &file_attr(&attr)),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        match self.call("readlink", |fs| by_path(fs, request, ino, Asks::ForMore, || fs.readlink(ino.0))) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(error),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let _answer = self.fs.answer_begins();
        let made = self.call("mknod", |fs| {
            let kind = kind_of_node(mode)?;
            fs.mknod(&caller(request, umask), parent.0, name, kind, mode & 0o7777, user_dev(rdev))
        });
        entry(reply, made);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let _answer = self.fs.answer_begins();
        entry(reply, self.call("mkdir", |fs| fs.mkdir(&caller(request, umask), parent.0, name, mode & 0o7777)));
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.call("unlink", |fs| fs.unlink(&caller(request, 0), parent.0, name)));
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.call("rmdir", |fs| fs.rmdir(&caller(request, 0), parent.0, name)));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let _answer = self.fs.answer_begins();
        let target = target.as_os_str().as_bytes();
        entry(reply, self.call("symlink", |fs| fs.symlink(&caller(request, 0), parent.0, name, target)));
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: fuser::RenameFlags,
        reply: ReplyEmpty,
    ) {
        let flags = RenameFlags::from_bits_retain(flags.bits());
        empty(
            reply,
            self.call("rename", |fs| fs.rename(&caller(request, 0), parent.0, name, new_parent.0, new_name, flags)),
        );
    }

    fn link(&self, request: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _answer = self.fs.answer_begins();
        let linked = self.call("link", |fs| {
            by_path(fs, request, ino, Asks::ForMore, || fs.link(&caller(request, 0), ino.0, parent.0, name))
        });
        entry(reply, linked);
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let opened = self.call("open", |fs| {
            by_path(fs, request, ino, Asks::ForMore, || fs.open(&caller(request, 0), ino.0, flags.0))
        });
        match opened {
            Ok(opened) => reply.opened(FileHandle(opened.fh), open_flags(&opened, self.direct)),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let _answer = self.fs.answer_begins();
        match self.call("create", |fs| fs.create(&caller(request, umask), parent.0, name, mode & 0o7777, flags)) {
            Ok((made, opened)) => {
                // This reply has but one lifetime for name and attributes: the shorter one is true for both.
                let ttl = made.ttl.min(made.attr.ttl);
                let fh = FileHandle(opened.fh);
                reply.created(&ttl, &file_attr(&made.attr), NO_GENERATION, fh, open_flags(&opened, self.direct));
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        BUFFER.with_borrow_mut(|buffer| {
            let size = size as usize;
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            match self.call("read", |fs| fs.read(fh.0, offset, &mut buffer[..size])) {
                Ok(count) => reply.data(&buffer[..count.min(size)]),
                Err(error) => reply.error(error),
            }
        });
    }

    fn write(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        how: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let kill_priv = how.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let cached = how.contains(WriteFlags::FUSE_WRITE_CACHE);
        written(reply, self.call("write", |fs| fs.write(&caller(request, 0), fh.0, offset, data, kill_priv, cached)));
    }

    fn flush(&self, request: &Request, _ino: INodeNo, fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        empty(reply, self.call("flush", |fs| fs.flush(&caller(request, 0), fh.0)));
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let released = self.call("release", |fs| {
            fs.release(fh.0);
            Ok(())
        });
        empty(reply, released);
    }

    fn fsync(&self, _request: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        empty(reply, self.call("fsync", |fs| fs.fsync(fh.0)));
    }

    fn opendir(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.call("opendir", |fs| fs.opendir(ino.0)) {
            Ok(fh) => reply.opened(FileHandle(fh), fuser::FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _request: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let filled = self.call("readdir", |fs| {
            fs.readdir(fh.0, offset, false, &mut |item| {
                !reply.add(INodeNo(item.ino), item.next_offset, file_type(item.kind), &item.name)
            })
        });
        match filled {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let _answer = self.fs.answer_begins();
        let filled = self.call("readdirplus", |fs| {
            fs.readdir(fh.0, offset, true, &mut |item| {
                let (attr, ttl) = match &item.entry {
                    Some(entry) => (file_attr(&entry.attr), entry.ttl.min(entry.attr.ttl)),
                    // The kernel makes no inode of these two whatever the attributes say (`fuse_direntplus_link`).
                    None if item.name == "." || item.name == ".." => {
                        (bare_attr(item.ino, item.kind), Default::default())
                    }
                    // It vanished after the listing was made. fuser can't name an entry without counting a lookup.
                    None => return true,
                };
                !reply.add(attr.ino, item.next_offset, &item.name, &ttl, &attr, NO_GENERATION)
            })
        });
        match filled {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn releasedir(&self, _request: &Request, _ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        let released = self.call("releasedir", |fs| {
            fs.releasedir(fh.0);
            Ok(())
        });
        empty(reply, released);
    }

    fn fsyncdir(&self, _request: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        empty(reply, self.call("fsyncdir", |fs| fs.fsyncdir(fh.0)));
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.call("statfs", |fs| fs.statfs()) {
            Ok(stat) => reply.statfs(
                stat.blocks,
                stat.blocks_free,
                stat.blocks_available,
                stat.files,
                stat.files_free,
                stat.block_size,
                stat.name_max,
                stat.block_size,
            ),
            Err(error) => reply.error(error),
        }
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let value = match self.mount_attribute(ino, name) {
            Some(value) => Ok(value),
            None => self.call("getxattr", |fs| by_path(fs, request, ino, Asks::ForMore, || fs.getxattr(ino.0, name))),
        };
        xattr(reply, size, value);
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.call("listxattr", |fs| by_path(fs, request, ino, Asks::ForMore, || fs.listxattr(ino.0)));
        xattr(reply, size, names.map(|names| name_list(&names)));
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let set = self.call("setxattr", |fs| match value.len() {
            0..=XATTR_MAX => {
                by_path(fs, request, ino, Asks::ForMore, || fs.setxattr(&caller(request, 0), ino.0, name, value, flags))
            }
            _ => Err(Errno::TOOBIG),
        });
        empty(reply, set);
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed =
            self.call("removexattr", |fs| by_path(fs, request, ino, Asks::ForMore, || fs.removexattr(ino.0, name)));
        empty(reply, removed);
    }

    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(fuser::Errno::ENOTTY);
    }

    fn fallocate(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mode = FallocateFlags::from_bits_retain(mode as u32);
        empty(reply, self.call("fallocate", |fs| fs.fallocate(&caller(request, 0), fh.0, mode, offset, length)));
    }

    fn lseek(&self, _request: &Request, _ino: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let found = self.call("lseek", |fs| {
            let offset = u64::try_from(offset).map_err(|_| Errno::NXIO)?;
            // The kernel does the other three itself.
            let whence = match whence {
                3 => SeekFrom::Data(offset),
                4 => SeekFrom::Hole(offset),
                _ => return Err(Errno::INVAL),
            };
            fs.lseek(fh.0, whence)
        });
        match found {
            Ok(offset) => reply.offset(i64::try_from(offset).unwrap_or(i64::MAX)),
            Err(error) => reply.error(error),
        }
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _ino_in: INodeNo,
        from: FileHandle,
        from_offset: u64,
        _ino_out: INodeNo,
        to: FileHandle,
        to_offset: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let length = length.min(MAX_COPY);
        let copied = self.call("copy_file_range", |fs| {
            fs.copy_file_range(&caller(request, 0), (from.0, from_offset), (to.0, to_offset), length)
        });
        written(reply, copied);
    }
}
