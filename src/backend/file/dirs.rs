//! Directories, held open: every path is walked once, by the kernel, and can't leave the store.
//!
//! A descriptor follows its directory through renames, so the cache is emptied whenever anybody renames one
//! ([`super::lock::Locks::moves`]), and an entry is dropped when its name turns out to belong to another directory.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lru::LruCache;
use parking_lot::Mutex;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::super::{Error, Result};
use crate::backend::ownership::{give_entry, is_foreign};
use crate::types::Key;

/// The kernel takes no longer path in one call (PATH_MAX is 4,096 with the final NUL).
const PATH_MAX: usize = 4000;

/// The directories below one root.
#[derive(Debug)]
pub struct Dirs {
    root: Arc<Dir>,
    cache: Mutex<LruCache<Key, Arc<Dir>>>,
    /// The count of moves up to which the cache is true.
    moves: AtomicU64,
    /// They belong to somebody else than the one who makes them.
    foreign: bool,
}

/// An open directory (O_PATH: good for names in it, not for reading or syncing it).
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    pub inode: u64,
}

/// Where entries of a directory are made: in it, or by a path from the one above.
#[derive(Debug)]
pub struct Room {
    pub dir: Arc<Dir>,
    below: OsString,
}

impl Room {
    /// The path of an entry, from `dir`.
    pub fn path(&self, name: impl AsRef<OsStr>) -> OsString {
        let mut path = self.below.clone();
        path.push(name);
        path
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dirs {
    /// The tree below an open directory, of which so many directories are held open at most.
    pub fn new(root: OwnedFd, cached: NonZeroUsize) -> rustix::io::Result<Self> {
        let foreign = is_foreign(&root);
        let cache = Mutex::new(LruCache::new(cached));
        Ok(Dirs { root: Arc::new(Dir::new(root)?), cache, moves: AtomicU64::new(0), foreign })
    }

    /// The root itself.
    pub fn root(&self) -> &Arc<Dir> {
        &self.root
    }

    /// Opens a directory. `moves` is how often directories were renamed so far.
    pub fn open(&self, dir: &Key, moves: u64) -> Result<Arc<Dir>> {
        if dir.is_root() {
            return Ok(self.root.clone());
        }
        if let Some(found) = self.cached(dir, moves) {
            return Ok(found);
        }
        let opened = Arc::new(self.walk(dir).map_err(|error| from_walk(dir, error))?);
        self.cache.lock().put(dir.clone(), opened.clone());
        Ok(opened)
    }

    fn cached(&self, dir: &Key, moves: u64) -> Option<Arc<Dir>> {
        let mut cache = self.cache.lock();
        if self.moves.swap(moves, Ordering::AcqRel) != moves {
            cache.clear();
        }
        cache.get(dir).cloned()
    }

    fn walk(&self, dir: &Key) -> rustix::io::Result<Dir> {
        let path = dir.as_bytes();
        if path.len() <= PATH_MAX {
            return Dir::new(open_beneath(&self.root, path)?);
        }
        // Too long for one call: as far as one call goes, then on from there.
        let mut at: Option<OwnedFd> = None;
        let mut rest = path;
        while !rest.is_empty() {
            let end = if rest.len() <= PATH_MAX {
                rest.len()
            } else {
                rest[..PATH_MAX].iter().rposition(|&b| b == b'/').unwrap_or(rest.len())
            };
            at = Some(match &at {
                None => open_beneath(&self.root, &rest[..end])?,
                Some(fd) => open_beneath(fd, &rest[..end])?,
            });
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        at.map_or(Err(Errno::NOENT), Dir::new)
    }

    /// Opens a directory for history, making it and those above it where they are missing.
    pub fn open_or_create(&self, dir: &Key, moves: u64) -> Result<Arc<Dir>> {
        match self.room(dir, moves)? {
            Room { dir: opened, below } if below.is_empty() => Ok(opened),
            _ => self.open(dir, moves),
        }
    }

    /// A directory for history into which something is about to be put, made like those above it where it is missing.
    /// One that was made just now isn't opened: most histories are of one entry, and what was made is no link.
    pub fn room(&self, dir: &Key, moves: u64) -> Result<Room> {
        let (Some(parent), Some(name)) = (dir.parent(), dir.name()) else {
            return Ok(Room { dir: self.root.clone(), below: OsString::new() });
        };
        if let Some(found) = self.cached(dir, moves) {
            return Ok(Room { dir: found, below: OsString::new() });
        }
        let above = self.open_or_create(&parent, moves)?;
        match rustix::fs::mkdirat(&above, name, Mode::RWXU) {
            Ok(()) => {
                if self.foreign {
                    give_entry(&above, name);
                }
                let mut below = name.to_owned();
                below.push("/");
                Ok(Room { dir: above, below })
            }
            Err(Errno::EXIST) => Ok(Room { dir: self.open(dir, moves)?, below: OsString::new() }),
            Err(error) => Err(Error::from_io(dir, "make a directory for its history", error)),
        }
    }

    /// `dir` turned out to be the directory with this inode number: drops what the cache says otherwise.
    pub fn confirm(&self, dir: &Key, inode: Option<u64>) {
        let mut cache = self.cache.lock();
        if cache.peek(dir).is_some_and(|cached| Some(cached.inode) != inode) {
            cache.clear();
        }
    }

    /// `dir` was removed, and nothing can be below it any more.
    pub fn removed(&self, dir: &Key) {
        let mut cache = self.cache.lock();
        let gone: Vec<Key> = cache.iter().map(|(key, _)| key).filter(|key| key.is_within(dir)).cloned().collect();
        for key in gone {
            cache.pop(&key);
        }
    }

    /// Drops everything, for directories were renamed or removed.
    pub fn clear(&self) {
        self.cache.lock().clear();
    }
}

impl Dir {
    fn new(fd: OwnedFd) -> rustix::io::Result<Self> {
        let inode = rustix::fs::fstat(&fd)?.st_ino;
        Ok(Dir { fd, inode })
    }

    /// Makes its names survive a power loss.
    pub fn sync(&self) -> rustix::io::Result<()> {
        let fd = self.reopen()?;
        rustix::fs::fsync(&fd)?;
        // An xfs that was shut down after an error answers 0 to the former (xfs_dir_fsync looks whether there is
        // something to wait for, and there no longer is), and EIO only to this.
        rustix::fs::fstat(&fd).map(drop)
    }

    /// Opens it again, for reading.
    pub fn reopen(&self) -> rustix::io::Result<OwnedFd> {
        rustix::fs::openat(&self.fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    }
}

/// Opens a directory by its path from the current one; links are followed, for a user named it.
pub fn open_root(path: &std::path::Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn open_beneath(at: &impl AsFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let confine =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    loop {
        // EAGAIN: the walk raced with a rename elsewhere (openat2(2)).
        match rustix::fs::openat2(at, path, flags, Mode::empty(), confine) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            other => return other,
        }
    }
}

fn from_walk(dir: &Key, error: Errno) -> Error {
    match error {
        // A symbolic link in the middle: to Sepia that is no directory.
        Errno::LOOP => Error::NotDirectory(dir.clone()),
        error => Error::from_io(dir, "open the directory", error),
    }
}
