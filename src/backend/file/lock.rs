//! Locks that hold across processes: flocked files below `.sepia/lock/`.
//!
//! A key's lock is one of 64 shards, taken by everything that changes the key's generation. The tree lock is shared
//! by the same operations and exclusive for renames of directories, which change many keys at once. Order: the tree,
//! then shards by number, then the one
//! lock of all objects with several names. The kernel drops them all when the process dies.
//!
//! The file of the tree lock is mapped into every process ([`words`](super::words)), so that without a system call the
//! others learn what concerns all: that directories have other names now, that somebody waits for the exclusive lock,
//! and that everything is held still, also for what needs no lock otherwise.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::super::{Error, Result};
use super::words::Words;
use crate::backend::ownership::give_entry;
use crate::types::Key;

const SHARDS: usize = 64;
/// The lock after all of them: of the objects that have several names, each of which may have another shard.
const LINKED: usize = SHARDS;
/// Commits take microseconds. Who holds a lock longer than this is stopped, or hangs on a dead medium.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long those who share the tree lock let one go first who wants it for itself. Commits by several processes leave
/// hardly a moment in which none of them has it.
const COURTESY: Duration = Duration::from_millis(20);

/// The locks of one store.
#[derive(Debug)]
pub struct Locks {
    dir: OwnedFd,
    shards: Vec<Mutex<OnceLock<OwnedFd>>>,
    tree: RwLock<()>,
    tree_file: OwnedFd,
    /// Threads of this process that share the tree lock: the first takes it, the last drops it.
    sharers: Mutex<usize>,
    words: Words,
}

/// The lock of one key or two.
#[must_use]
pub struct KeyLock<'a> {
    _first: Shard<'a>,
    _second: Option<Shard<'a>>,
    _linked: Option<Shard<'a>>,
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
    still: bool,
    _guard: RwLockWriteGuard<'a, ()>,
}

impl Locks {
    /// The locks in the directory `dir`.
    pub fn open(dir: OwnedFd) -> io::Result<Self> {
        let tree_file = open_lock(&dir, "tree")?;
        Ok(Locks {
            words: Words::map(&tree_file)?,
            dir,
            shards: (0..=LINKED).map(|_| Mutex::default()).collect(),
            tree: RwLock::new(()),
            tree_file,
            sharers: Mutex::new(0),
        })
    }

    /// Makes the backend's own locks of a new store: on a medium that is full none could be made when it is needed, as
    /// it is to remove something.
    ///
    /// # Errors
    /// The system's answer.
    pub fn make_all(&self) -> io::Result<()> {
        let shards = (0..=LINKED).map(shard_name);
        for name in shards.chain(["settled", "writing"].map(str::to_owned)) {
            open_lock(&self.dir, &name)?;
        }
        Ok(())
    }

    /// How often directories were renamed by anybody, modulo 2^64.
    pub fn moves(&self) -> u64 {
        self.words.moves()
    }

    /// Tells everybody that directories have other names now: those below `.sepia/generations`, which move under
    /// the lock of their key, too.
    pub fn moved(&self) {
        self.words.moved();
    }

    /// Locks a key.
    ///
    /// # Errors
    /// [`Error::Locked`] after 30 seconds.
    pub fn key(&self, key: &Key) -> Result<KeyLock<'_>> {
        Ok(KeyLock { _first: self.shard(shard_of(key), key)?, _second: None, _linked: None })
    }

    /// Locks two keys.
    ///
    /// # Errors
    /// As [`Locks::key`].
    pub fn keys(&self, a: &Key, b: &Key) -> Result<KeyLock<'_>> {
        let (low, high) = (shard_of(a).min(shard_of(b)), shard_of(a).max(shard_of(b)));
        let first = self.shard(low, a)?;
        let second = if high == low { None } else { Some(self.shard(high, b)?) };
        Ok(KeyLock { _first: first, _second: second, _linked: None })
    }

    /// Locks all objects with several names as well, since what holds these is one file.
    ///
    /// # Errors
    /// As [`Locks::key`].
    pub fn and_linked<'a>(&'a self, lock: KeyLock<'a>, key: &Key) -> Result<KeyLock<'a>> {
        Ok(KeyLock { _linked: Some(self.shard(LINKED, key)?), ..lock })
    }

    fn shard(&self, number: usize, key: &Key) -> Result<Shard<'_>> {
        let slot = self.shards[number].try_lock_for(PATIENCE).ok_or_else(|| Error::Locked(key.clone()))?;
        let file = match slot.get() {
            Some(file) => file,
            None => {
                let file =
                    open_lock(&self.dir, &shard_name(number)).map_err(|e| Error::from_io(key, "open its lock", e))?;
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
        self.let_go_first();
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
        let how = FlockOperation::NonBlockingLockExclusive;
        let got = wait_saying(&self.tree_file, how, key, || self.words.want(true));
        self.words.want(false);
        got?;
        Ok(TreeExclusive { locks: self, still: false, _guard: guard })
    }

    /// As [`Locks::own_tree`], and what takes no lock waits too: see [`Locks::pass`].
    ///
    /// # Errors
    /// As [`Locks::key`].
    pub fn hold_still(&self, key: &Key) -> Result<TreeExclusive<'_>> {
        let mut tree = self.own_tree(key)?;
        self.words.hold_still(true);
        tree.still = true;
        Ok(tree)
    }

    /// To be called before a change that needs no lock: waits while everything is held still. A change that was begun
    /// before may still happen meanwhile; one that its maker begins after that waits.
    ///
    /// # Errors
    /// As [`Locks::key`].
    pub fn pass(&self, key: &Key) -> Result<()> {
        if self.words.is_still() {
            let _shared = self.share_tree(key)?;
            // Nobody owns the tree now, so whoever said so has died.
            self.words.hold_still(false);
        }
        Ok(())
    }

    /// Lets somebody go first who wants the tree lock for itself.
    fn let_go_first(&self) {
        if !self.words.is_wanted() {
            return;
        }
        let started = Instant::now();
        while self.words.is_wanted() {
            if started.elapsed() > COURTESY {
                // Perhaps it has died; otherwise it says so again.
                self.words.want(false);
                return;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
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
        if self.still {
            self.locks.words.hold_still(false);
        }
        let _ = rustix::fs::flock(&self.locks.tree_file, FlockOperation::Unlock);
    }
}

fn open_lock(dir: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::openat(dir, name, flags | OFlags::RDWR | OFlags::CREATE, Mode::RUSR | Mode::WUSR) {
        Ok(file) => {
            give_entry(dir, name);
            Ok(file)
        }
        // On a medium that can only be read, what is there can be locked all the same.
        Err(Errno::ROFS) => rustix::fs::openat(dir, name, flags | OFlags::RDONLY, Mode::empty()),
        other => other,
    }
}

fn wait(file: &OwnedFd, how: FlockOperation, key: &Key) -> Result<()> {
    wait_saying(file, how, key, || {})
}

/// Waits for a lock; `say` is called each time that somebody else has it.
fn wait_saying(file: &OwnedFd, how: FlockOperation, key: &Key, say: impl Fn()) -> Result<()> {
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
                say();
                // Most holders are done within microseconds.
                let pause = if started.elapsed() < Duration::from_millis(1) { 20 } else { 500 };
                std::thread::sleep(Duration::from_micros(pause));
            }
            Err(error) => return Err(Error::from_io(key, "lock it", error)),
        }
    }
}

fn shard_name(number: usize) -> String {
    if number == LINKED { "linked".to_owned() } else { format!("{number:02}") }
}

fn shard_of(key: &Key) -> usize {
    // FNV-1a, 64 bits (RFC 9923): every process, of whatever version, must come to the same shard.
    let hash = key
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash % SHARDS as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

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

    #[test]
    fn what_needs_no_lock_waits_while_all_is_still_but_not_for_the_dead() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (locks(dir.path()), locks(dir.path()));
        let key = Key::parse("Note/1").unwrap();
        let still = a.hold_still(&Key::root()).unwrap();
        let passed = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                b.pass(&key).unwrap();
                passed.store(true, Ordering::Relaxed);
            });
            std::thread::sleep(Duration::from_millis(60));
            assert!(!passed.load(Ordering::Relaxed));
            drop(still);
        });
        // Killed while it held everything still: the kernel drops the lock, but the word stays.
        a.words.hold_still(true);
        b.pass(&key).unwrap();
        assert!(!a.words.is_still());
    }

    /// The others never leave a moment in which nobody shares the lock, unless they let the one go first.
    #[test]
    fn who_wants_the_tree_for_itself_is_not_starved() {
        let dir = tempfile::tempdir().unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                let (locks, stop) = (locks(dir.path()), &stop);
                scope.spawn(move || {
                    let key = Key::parse("Note/1").unwrap();
                    while !stop.load(Ordering::Relaxed) {
                        let _tree = locks.share_tree(&key).unwrap();
                        std::thread::sleep(Duration::from_millis(3));
                    }
                });
            }
            let own = locks(dir.path());
            let started = Instant::now();
            for _ in 0..10 {
                drop(own.own_tree(&Key::root()));
                std::thread::sleep(Duration::from_millis(5));
            }
            stop.store(true, Ordering::Relaxed);
            assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        });
    }
}
