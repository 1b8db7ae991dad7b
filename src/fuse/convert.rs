//! The same things in the words of `fuser` and in those of [`crate::fs`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, FopenFlags, INodeNo, Request, TimeOrNow};
use rustix::io::Errno;

use crate::backend::{FileKind, SetTime};
use crate::fs::{Attr, Caller, OpenReply};
use crate::types::Timestamp;

/// What `st_blksize` says: the unit in which programs read and write best.
const BLOCK_SIZE: u32 = 4096;

/// The largest value or list of names that the kernel hands to a program (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
pub(super) const XATTR_MAX: usize = 64 << 10;

pub(super) fn errno(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.raw_os_error())
}

pub(super) fn caller(request: &Request, umask: u32) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), umask, thread: request.pid() }
}

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    let stat = &attr.stat;
    FileAttr {
        ino: INodeNo(attr.ino),
        size: stat.size,
        blocks: stat.blocks,
        atime: system_time(stat.atime),
        mtime: system_time(stat.mtime),
        ctime: system_time(stat.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(stat.kind),
        perm: (stat.mode & 0o7777) as u16,
        nlink: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
        rdev: kernel_dev(stat.rdev),
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// The attributes of an entry of which only number and kind are known, or none at all: `ino` 0 in the answer to a
/// lookup says that there is no such name, and that the kernel may remember it.
pub(super) fn bare_attr(ino: u64, kind: FileKind) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: file_type(kind),
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// The kind in the mode of mknod(2), where none means a regular file. Directories and links have calls of their own.
pub(super) fn kind_of_node(mode: u32) -> Result<FileKind, Errno> {
    use rustix::fs::FileType as Type;
    match Type::from_raw_mode(mode) {
        Type::RegularFile => Ok(FileKind::File),
        Type::Fifo => Ok(FileKind::Fifo),
        Type::Socket => Ok(FileKind::Socket),
        Type::CharacterDevice => Ok(FileKind::CharDevice),
        Type::BlockDevice => Ok(FileKind::BlockDevice),
        _ if mode & 0o170000 == 0 => Ok(FileKind::File),
        _ => Err(Errno::INVAL),
    }
}

/// A device number as the kernel packs it into 32 bits (`new_encode_dev`).
fn kernel_dev(dev: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The opposite of [`kernel_dev`].
pub(super) fn user_dev(dev: u32) -> u64 {
    rustix::fs::makedev((dev & 0xf_ff00) >> 8, (dev & 0xff) | ((dev >> 12) & 0xf_ff00))
}

fn system_time(time: Timestamp) -> SystemTime {
    let nanos = Duration::from_nanos(time.nanos().unsigned_abs());
    if time.nanos() < 0 { UNIX_EPOCH - nanos } else { UNIX_EPOCH + nanos }
}

/// The seconds and nanoseconds that the kernel sent.
///
/// fuser 0.18 reads a time before 1970 as the epoch less the seconds *less* the nanoseconds, although the kernel
/// means them to be added. Nothing is lost by it, so it is turned round here.
fn timestamp(time: SystemTime) -> Timestamp {
    let parts = |d: Duration| (i64::try_from(d.as_secs()).unwrap_or(i64::MAX), d.subsec_nanos());
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => {
            let (seconds, nanos) = parts(after);
            Timestamp::from_parts(seconds, nanos)
        }
        Err(before) => {
            let (seconds, nanos) = parts(before.duration());
            Timestamp::from_parts(-seconds, nanos)
        }
    }
}

pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(timestamp(time)),
    }
}

/// `direct`: whether the kernel can map what is opened past the page cache.
pub(super) fn open_flags(reply: &OpenReply, direct: bool) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, reply.keep_cache);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, reply.direct && direct);
    flags.set(FopenFlags::FOPEN_NOFLUSH, reply.no_flush);
    flags
}

/// The form in which listxattr(2) returns names.
pub(super) fn name_list(names: &[std::ffi::OsString]) -> Vec<u8> {
    let mut list = Vec::new();
    for name in names {
        list.extend_from_slice(name.as_encoded_bytes());
        list.push(0);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_both_ways() {
        // As fuser reads what the kernel sent.
        let from_kernel = |seconds: i64, nanos: u32| {
            if seconds >= 0 {
                UNIX_EPOCH + Duration::new(seconds as u64, nanos)
            } else {
                UNIX_EPOCH - Duration::new(-seconds as u64, nanos)
            }
        };
        for (seconds, nanos) in [(0, 0), (0, 1), (1_700_000_000, 999_999_999), (-1, 0), (-1, 999_999_999), (-2, 5)] {
            assert_eq!(timestamp(from_kernel(seconds, nanos)), Timestamp::from_parts(seconds, nanos));
        }
        assert_eq!(system_time(Timestamp::from_nanos(-1)), UNIX_EPOCH - Duration::from_nanos(1));
        assert!(system_time(Timestamp::from_nanos(i64::MIN)) < UNIX_EPOCH);
        // Beyond what a timestamp holds: the nearest that it does.
        assert_eq!(timestamp(from_kernel(i64::MAX, 0)).nanos(), i64::MAX);
        assert_eq!(timestamp(from_kernel(i64::MIN + 1, 0)).nanos(), i64::MIN);
    }

    #[test]
    fn device_numbers_survive_both_ways() {
        for (major, minor) in [(1, 3), (8, 0), (254, 255), (4095, 0xf_ffff), (10, 256)] {
            let dev = rustix::fs::makedev(major, minor);
            assert_eq!(user_dev(kernel_dev(dev)), dev, "{major}:{minor}");
        }
    }

    #[test]
    fn nodes() {
        assert_eq!(kind_of_node(0o644), Ok(FileKind::File));
        assert_eq!(kind_of_node(0o100644), Ok(FileKind::File));
        assert_eq!(kind_of_node(0o010644), Ok(FileKind::Fifo));
        assert_eq!(kind_of_node(0o040755), Err(Errno::INVAL));
    }

    #[test]
    fn names_end_with_nul() {
        assert_eq!(name_list(&["user.a".into(), "user.b".into()]), b"user.a\0user.b\0");
    }
}
