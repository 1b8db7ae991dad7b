//! Locks that hold across processes: flocked files below `.sepia/lock/`.
//!
//! A key's lock is one of 64 shards, taken by everything that changes the key's generation. The tree lock is shared
//! by the same operations and exclusive for renames of directories, which change many keys at once. Order: the tree,
//! then shards by number. The kernel drops them all when the process dies.
//!
//! Beside the tree lock is a counter, mapped into every process, that each rename of a directory moves on: that is
//! how the others learn, without a system call, that the directories which they hold open may have other names now.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use super::super::{Error, Result};
use crate::types::Key;

const SHARDS: usize = 64;
/// Commits take microseconds. Who holds a lock longer than this is stopped, or hangs on a dead medium.
const PATIENCE: Duration = Duration::from_secs(30);

/// The locks of one store.
#[derive(Debug)]
pub struct Locks {
    dir: OwnedFd,
    shards: Vec<Mutex<OnceLock<OwnedFd>>>,
    tree: RwLock<()>,
    tree_file: OwnedFd,
    /// Threads of this process that share the tree lock: the first takes it, the last drops it.
    sharers: Mutex<usize>,
    moves: Counter,
}

/// The lock of one key or two.
#[must_use]
pub struct KeyLock<'a> {
    _first: Shard<'a>,
    _second: Option<Shard<'a>>,
}

struct Shard<'a>(MutexGuard<'a, OnceLock<OwnedFd>>);

/// A lock by its name.
#[derive(Debug)]
#[must_use]
pub struct NamedLock(OwnedFd);

impl Drop for NamedLock {
    fn drop(&mut self) {
        // Closing alone doesn't do while a child has a copy of the descriptor, between its fork and its execve.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

/// The shared tree lock: no directory is renamed meanwhile.
#[must_use]
pub struct TreeShared<'a> {
    locks: &'a Locks,
    _guard: RwLockReadGuard<'a, ()>,
}

/// The exclusive tree lock: nothing else changes meanwhile.
#[must_use]
pub struct TreeExclusive<'a> {
    locks: &'a Locks,
    _guard: RwLockWriteGuard<'a, ()>,
}

impl Locks {
    /// The locks in the directory `dir`.
    pub fn open(dir: OwnedFd) -> io::Result<Self> {
        let tree_file = open_lock(&dir, "tree")?;
        if rustix::fs::fstat(&tree_file)?.st_size < 8 {
            rustix::fs::ftruncate(&tree_file, 8)?;
        }
        Ok(Locks {
            moves: Counter::map(&tree_file)?,
            dir,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            tree: RwLock::new(()),
            tree_file,
            sharers: Mutex::new(0),
        })
    }

    /// How often directories were renamed by anybody, modulo 2^64.
    pub fn moves(&self) -> u64 {
        self.moves.get()
    }

    /// Tells everybody that directories have other names now: those below `.sepia/generations`, which move under
    /// the lock of their key, too.
    pub fn moved(&self) {
        self.moves.increase();
    }

    /// Locks a key.
    ///
    /// # Errors
    /// [`Error::Locked`] after 30 seconds.
    pub fn key(&self, key: &Key) -> Result<KeyLock<'_>> {
        Ok(KeyLock { _first: self.shard(shard_of(key), key)?, _second: None })
    }

    /// Locks two keys.
    ///
    /// # Errors
    /// As [`Locks::key`].
    pub fn keys(&self, a: &Key, b: &Key) -> Result<KeyLock<'_>> {
        let (low, high) = (shard_of(a).min(shard_of(b)), shard_of(a).max(shard_of(b)));
        let first = self.shard(low, a)?;
        let second = if high == low { None } else { Some(self.shard(high, b)?) };
        Ok(KeyLock { _first: first, _second: second })
    }

    fn shard(&self, number: usize, key: &Key) -> Result<Shard<'_>> {
        let slot = self.shards[number].try_lock_for(PATIENCE).ok_or_else(|| Error::Locked(key.clone()))?;
        let file = match slot.get() {
            Some(file) => file,
            None => {
                let file = open_lock(&self.dir, &format!("{number:02}"))
                    .map_err(|e| Error::from_io(key, "open its lock", e))?;
                slot.get_or_init(|| file)
            }
        };
        wait(file, FlockOperation::NonBlockingLockExclusive, key)?;
        Ok(Shard(slot))
    }

    /// A lock by its name, for one holder among all processes and threads; `None` while somebody else has it.
    ///
    /// # Errors
    /// The system's answer.
    pub fn try_exclusive(&self, name: &str) -> rustix::io::Result<Option<NamedLock>> {
        // A description of its own, so that it excludes the other threads of this process, too.
        let file = open_lock(&self.dir, name)?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(NamedLock(file))),
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Keeps directories from being renamed.
    ///
    /// # Errors
    /// As [`Locks::key`].
    pub fn share_tree(&self, key: &Key) -> Result<TreeShared<'_>> {
        let guard = self.tree.try_read_for(PATIENCE).ok_or_else(|| Error::Locked(key.clone()))?;
        let mut sharers = self.sharers.lock();
        if *sharers == 0 {
            wait(&self.tree_file, FlockOperation::NonBlockingLockShared, key)?;
        }
        *sharers += 1;
        drop(sharers);
        Ok(TreeShared { locks: self, _guard: guard })
    }

    /// Keeps everything from being changed by anybody else.
    ///
    /// # Errors
    /// As [`Locks::key`].
    pub fn own_tree(&self, key: &Key) -> Result<TreeExclusive<'_>> {
        let guard = self.tree.try_write_for(PATIENCE).ok_or_else(|| Error::Locked(key.clone()))?;
        wait(&self.tree_file, FlockOperation::NonBlockingLockExclusive, key)?;
        Ok(TreeExclusive { locks: self, _guard: guard })
    }
}

impl TreeExclusive<'_> {
    /// Tells everybody that directories have other names now.
    pub fn moved(&self) {
        self.locks.moved();
    }
}

impl Drop for Shard<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.0.get() {
            let _ = rustix::fs::flock(file, FlockOperation::Unlock);
        }
    }
}

impl Drop for TreeShared<'_> {
    fn drop(&mut self) {
        let mut sharers = self.locks.sharers.lock();
        *sharers -= 1;
        if *sharers == 0 {
            let _ = rustix::fs::flock(&self.locks.tree_file, FlockOperation::Unlock);
        }
    }
}

impl Drop for TreeExclusive<'_> {
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.locks.tree_file, FlockOperation::Unlock);
    }
}

fn open_lock(dir: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::openat(dir, name, flags | OFlags::RDWR | OFlags::CREATE, Mode::RUSR | Mode::WUSR) {
        // On a medium that can only be read, what is there can be locked all the same.
        Err(Errno::ROFS) => rustix::fs::openat(dir, name, flags | OFlags::RDONLY, Mode::empty()),
        other => other,
    }
}

fn wait(file: &OwnedFd, how: FlockOperation, key: &Key) -> Result<()> {
    let mut started = None;
    loop {
        match rustix::fs::flock(file, how) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => {
                let started = *started.get_or_insert_with(Instant::now);
                if started.elapsed() > PATIENCE {
                    return Err(Error::Locked(key.clone()));
                }
                // Most holders are done within microseconds.
                let pause = if started.elapsed() < Duration::from_millis(1) { 20 } else { 500 };
                std::thread::sleep(Duration::from_micros(pause));
            }
            Err(error) => return Err(Error::from_io(key, "lock it", error)),
        }
    }
}

fn shard_of(key: &Key) -> usize {
    // FNV-1a, 64 bits (RFC 9923): every process, of whatever version, must come to the same shard.
    let hash = key
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash % SHARDS as u64) as usize
}

/// A number in a file that all processes have mapped.
#[derive(Debug)]
struct Counter {
    number: &'static AtomicU64,
    /// The medium can be written; otherwise nobody here renames anything.
    writable: bool,
}

impl Counter {
    fn map(file: &OwnedFd) -> io::Result<Self> {
        let writable = rustix::fs::fcntl_getfl(file)?.contains(OFlags::RDWR);
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a fresh shared mapping of 8 bytes at an address that the kernel chooses (so page-aligned); the
        // file is at least that long and never shortened, and the mapping is only taken away by drop below. Without
        // write access it is only ever loaded from.
        let number = unsafe {
            let at = rustix::mm::mmap(std::ptr::null_mut(), 8, protection, MapFlags::SHARED, file, 0)?;
            AtomicU64::from_ptr(at.cast())
        };
        Ok(Counter { number, writable })
    }

    fn get(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    fn increase(&self) {
        if self.writable {
            self.number.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // SAFETY: the mapping that map() made; nothing else refers to it, for the reference never leaves self.
        let _ = unsafe { rustix::mm::munmap(self.number.as_ptr().cast(), 8) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locks(dir: &std::path::Path) -> Locks {
        Locks::open(rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()).unwrap()
    }

    #[test]
    fn two_stores_of_one_directory_exclude_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (locks(dir.path()), locks(dir.path()));
        let key = Key::parse("Note/1").unwrap();
        let (sum, rounds) = (AtomicU64::new(0), 200);
        std::thread::scope(|scope| {
            for locks in [&a, &b, &a, &b] {
                scope.spawn(|| {
                    for _ in 0..rounds {
                        let _tree = locks.share_tree(&key).unwrap();
                        let _lock = locks.key(&key).unwrap();
                        // Two steps: an increment is lost unless the lock excludes the others.
                        let seen = sum.load(Ordering::Relaxed);
                        std::thread::yield_now();
                        sum.store(seen + 1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 4 * rounds);
    }

    #[test]
    fn moves_are_seen_by_all() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (locks(dir.path()), locks(dir.path()));
        let before = b.moves();
        a.own_tree(&Key::root()).unwrap().moved();
        assert_eq!(b.moves(), before + 1);
    }
}
