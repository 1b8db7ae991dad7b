//! What is known of an object without opening it.

use std::ffi::OsString;

use rustix::fs::{Timespec, Timestamps};

use crate::types::{Generation, ObjectId, Precondition, Timestamp};

/// What kind of thing is at a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the POSIX file types")]
pub enum FileKind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// The state of an object, a directory or a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Who it is, through renames.
    pub id: ObjectId,
    /// The kind of thing.
    pub kind: FileKind,
    /// Permission bits with suid, sgid and sticky (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Allocated space in units of 512 bytes.
    pub blocks: u64,
    /// Names that it has.
    pub nlink: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Last read.
    pub atime: Timestamp,
    /// Last change of the bytes.
    pub mtime: Timestamp,
    /// Last change of bytes or metadata.
    pub ctime: Timestamp,
    /// When the generation became current; `None` for what has no generations.
    pub committed: Option<Timestamp>,
    /// The current generation of a regular file: recorded, or 1 for a file that Sepia has not recorded yet.
    /// `None` for a name that is only reserved, and for what isn't a regular file.
    pub generation: Option<Generation>,
    /// Whether the bytes are those that Sepia recorded. If not, somebody changed them from outside, and the next
    /// [`super::Backend::open`] records them.
    pub recorded: bool,
    /// The medium's own number for the bytes (the inode number): differs when the bytes are another file's, and
    /// stays when they are appended to.
    pub incarnation: u64,
}

impl Stat {
    /// Whether both describe the same bytes of the same object.
    pub fn same_bytes(&self, other: &Stat) -> bool {
        self.version() == other.version()
    }

    /// What must still hold for a change that is based on this state.
    pub fn precondition(&self) -> Precondition {
        match (self.generation, self.committed) {
            (Some(generation), Some(committed)) => Precondition::Version(generation, self.id, committed),
            (Some(generation), None) => Precondition::Generation(generation),
            (None, _) => Precondition::Reserved(self.id),
        }
    }

    /// What changes whenever the bytes do: for comparing, not for keeping.
    pub fn version(&self) -> (u64, Timestamp, u64) {
        (self.incarnation, self.mtime, self.size)
    }
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name in the directory.
    pub name: OsString,
    /// The kind of thing.
    pub kind: FileKind,
}

/// On whose behalf something is made: what POSIX needs to set mode and owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Creator {
    /// The owner to be.
    pub uid: u32,
    /// The group to be, where the directory above does not decide.
    pub gid: u32,
    /// The umask; an inherited default ACL takes its place.
    pub umask: u32,
}

impl Creator {
    /// This process.
    pub fn current() -> Self {
        let umask = rustix::process::umask(rustix::fs::Mode::empty());
        rustix::process::umask(umask);
        Creator {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            umask: umask.as_raw_mode(),
        }
    }
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// The medium's present.
    Now,
    /// This time.
    At(Timestamp),
}

/// Both times in the form that utimensat(2) takes; `None` leaves a time as it is.
pub(crate) fn timestamps(atime: Option<SetTime>, mtime: Option<SetTime>) -> Timestamps {
    let timespec = |time| match time {
        None => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        Some(SetTime::Now) => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        Some(SetTime::At(time)) => Timespec { tv_sec: time.seconds(), tv_nsec: i64::from(time.subsec_nanos()) },
    };
    Timestamps { last_access: timespec(atime), last_modification: timespec(mtime) }
}

/// What reading does not mark as accessed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeepAccessTimes {
    /// Files.
    pub files: bool,
    /// Directories.
    pub directories: bool,
}

/// Metadata to change; `None` leaves a value as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits (07777).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last read.
    pub atime: Option<SetTime>,
    /// Last change of the bytes.
    pub mtime: Option<SetTime>,
}

/// Size and free space of a medium, as statvfs gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsStat {
    /// Unit of the block counts, in bytes.
    pub block_size: u32,
    /// Size in blocks.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// Free blocks for ordinary users.
    pub blocks_available: u64,
    /// Objects that fit in all; 0 where there is no limit.
    pub files: u64,
    /// Objects that still fit.
    pub files_free: u64,
    /// Longest name in bytes.
    pub name_max: u32,
}
