//! What the filesystem and the layer that speaks to the kernel exchange.

use std::ffi::OsString;
use std::time::Duration;

use crate::backend::{FileKind, SetTime, Stat};

/// An inode number, and at the same time the kernel's name for the inode. The root is 1.
pub type Ino = u64;

/// A handle of an open file or directory.
pub type Fh = u64;

/// The process on whose behalf the kernel asks.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// Effective (filesystem) user.
    pub uid: u32,
    /// Effective (filesystem) group.
    pub gid: u32,
    /// The umask, where the request has one; otherwise 0.
    pub umask: u32,
    /// The thread that asks, in the daemon's PID namespace; 0 if that is unknown.
    pub thread: u32,
}

/// An inode's attributes as the kernel wants them.
#[derive(Debug, Clone)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// All else; `size`, `blocks` and times include what open sessions have written.
    pub stat: Stat,
    /// How long the kernel may use this without asking.
    pub ttl: Duration,
}

/// The answer to a lookup or a creation.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The attributes. Every entry that is handed to the kernel counts as one lookup, to be undone by forget.
    pub attr: Attr,
    /// How long the kernel may use the name without asking.
    pub ttl: Duration,
}

/// The answer to an open.
#[derive(Debug, Clone, Copy)]
pub struct OpenReply {
    /// The handle.
    pub fh: Fh,
    /// The kernel's cached pages of this inode are still good (FOPEN_KEEP_CACHE).
    pub keep_cache: bool,
    /// The page cache may not be used (FOPEN_DIRECT_IO): it is the inode's, and other handles may read another
    /// generation.
    pub direct: bool,
    /// Closing has nothing to say: no FLUSH is needed (FOPEN_NOFLUSH).
    pub no_flush: bool,
}

/// Changes that setattr asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Changes {
    /// New permission bits.
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New size in bytes.
    pub size: Option<u64>,
    /// New access time.
    pub atime: Option<SetTime>,
    /// New modification time.
    pub mtime: Option<SetTime>,
}

/// An entry of a directory listing.
#[derive(Debug, Clone)]
pub struct DirItem {
    /// Where the listing goes on after this entry.
    pub next_offset: u64,
    /// The name.
    pub name: OsString,
    /// Inode number.
    pub ino: Ino,
    /// Kind of thing.
    pub kind: FileKind,
    /// For readdirplus; `None` for `.`, `..`, and what vanished meanwhile: then no lookup is counted.
    pub entry: Option<Entry>,
}

/// What the kernel has cached.
pub trait KernelCache: Send + Sync {
    /// Tells that the attributes of an inode, and with `data` its pages too, are no longer true. Names can't be taken back,
    /// but whose attributes are unknown is asked for before it is used.
    fn invalidate(&self, ino: Ino, data: bool);

    /// Puts there the first bytes of a file that nobody has open, or can have before this returns.
    fn fill(&self, ino: Ino, bytes: &[u8]);
}

/// How a mount behaves.
#[derive(Debug, Clone)]
pub struct FsOptions {
    /// Refuse every change with EROFS.
    pub read_only: bool,
    /// How long the kernel may use names and attributes without asking, while this is the only mount of the store and
    /// a change by somebody else would not be noticed.
    pub ttl: Duration,
    /// How often to look whether history is to be collected.
    pub collect_every: Duration,
    /// How often to compute the checksums of what was saved.
    pub checksums_every: Duration,
    /// How long after the save that is.
    pub checksums_after: Duration,
    /// The same where it would be noticed at once, and the kernel be told. Bounds what escapes notice all the same, like
    /// stores to a mapped file.
    pub watched_ttl: Duration,
}

impl Default for FsOptions {
    fn default() -> Self {
        FsOptions {
            read_only: false,
            ttl: Duration::from_secs(1),
            watched_ttl: Duration::from_secs(60),
            collect_every: Duration::from_secs(60),
            checksums_every: Duration::from_secs(5),
            checksums_after: Duration::from_secs(10),
        }
    }
}
