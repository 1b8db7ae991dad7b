//! One process's own part of the staging area: its directory, its journal, and the files that it is writing.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};

use super::journal::Journal;
use super::ownership::{give_path, make_dirs};
use super::staging::{Owner, write_owner};
use crate::types::{Key, ObjectId, Precondition};

/// Emptied staged files that are kept for the next tails, since an open is cheaper than a creation.
const POOL_MAX: usize = 8;

/// What a staged file is for, as recovery must know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The object that it is to become.
    pub key: Key,
    /// What the session was based on.
    pub expect: Precondition,
    /// If set, only the bytes from this offset on are there; those before are the base's.
    pub append_from: Option<u64>,
    /// With `append_from`: the [`super::Stat::incarnation`] of the base.
    pub base: Option<u64>,
    /// An fsync was acknowledged for these bytes, so they must become visible.
    pub acknowledged: bool,
    /// The staged bytes were being copied into the object itself (it has several names): that must be finished.
    pub in_place: bool,
    /// The CRC-32 of the staged bytes, from `append_from` on, if they were not synced when this was noted: after a
    /// power loss they may be others.
    pub sum: Option<u32>,
    /// The bytes are a copy of what is kept elsewhere: if they are not saved, nothing is lost with them.
    pub copied: bool,
}

#[derive(Debug)]
pub(super) struct Instance {
    pub(super) path: PathBuf,
    pub(super) dir: OwnedFd,
    pub(super) journal: Mutex<Journal>,
    /// Emptied staged files, still open.
    pub(super) pool: Mutex<Vec<Slot>>,
    // Held, not used: closing it tells the others that this process is dead.
    _lock: OwnedFd,
}

/// A file in an instance's directory, by number.
#[derive(Debug)]
pub(super) struct Slot {
    number: u64,
    file: Arc<File>,
    inode: u64,
}

/// A staged file. Dropping it keeps the bytes for recovery; [`Staged::discard`] gives them up.
#[derive(Debug)]
#[must_use = "a staged file is committed, set aside or discarded; dropped, it waits for recovery"]
pub struct Staged {
    slot: Slot,
    instance: Arc<Instance>,
    /// What its owner noted last.
    intent: Mutex<Box<Intent>>,
    /// What [`Staged::begin`] noted, until it is done or undone.
    begun: Mutex<Option<Box<Intent>>>,
    /// It has metadata of an object, so it can't serve another session.
    tainted: AtomicBool,
}

impl Instance {
    pub(super) fn create(root: &Path, owner: &Owner) -> io::Result<Self> {
        make_dirs(root)?;
        let name = format!("{}-{:016x}", owner.pid, ObjectId::random().get());
        // Under a name that recovery passes over until the lock is held.
        let hidden = root.join(format!(".{name}"));
        let path = root.join(name);
        rustix::fs::mkdir(&hidden, Mode::RWXU)?;
        give_path(&hidden);
        let lock = rustix::fs::open(
            hidden.join("lock"),
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC,
            Mode::RUSR | Mode::WUSR,
        )?;
        give_path(&hidden.join("lock"));
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        write_owner(&hidden, owner)?;
        let journal = Mutex::new(Journal::create(&hidden)?);
        let dir = rustix::fs::open(&hidden, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::fs::rename(&hidden, &path)?;
        Ok(Instance { path, dir, journal, pool: Mutex::default(), _lock: lock })
    }

    fn forget(&self, slot: u64) {
        self.journal.lock().forget(slot);
    }
}

impl Slot {
    pub(super) fn new(number: u64, file: File) -> io::Result<Self> {
        let inode = rustix::fs::fstat(&file)?.st_ino;
        Ok(Slot { number, file: Arc::new(file), inode })
    }
}

impl Staged {
    /// A staged file, of which its owner has noted, or is about to note, this. `tainted`: it can't serve another session.
    pub(super) fn new(slot: Slot, instance: Arc<Instance>, intent: &Intent, tainted: bool) -> Self {
        let intent = Mutex::new(Box::new(intent.clone()));
        Staged { slot, instance, intent, begun: Mutex::default(), tainted: AtomicBool::new(tainted) }
    }

    /// The staged bytes, open for reading and writing.
    pub fn file(&self) -> &Arc<File> {
        &self.slot.file
    }

    /// Where the staged file is, to be renamed or linked.
    pub fn path(&self) -> PathBuf {
        self.instance.path.join(self.slot.number.to_string())
    }

    /// The directory and the name of the staged file.
    pub fn location(&self) -> (rustix::fd::BorrowedFd<'_>, String) {
        (self.instance.dir.as_fd(), self.slot.number.to_string())
    }

    /// Writes into the journal what the staged file is for from now on.
    ///
    /// # Errors
    /// When the journal can't be written; the former intent then stands.
    pub fn note(&self, intent: &Intent) -> io::Result<()> {
        self.write(intent)?;
        **self.intent.lock() = intent.clone();
        Ok(())
    }

    /// As [`Staged::note`], and makes the bytes and the journal survive a power loss: in this order, or recovery could
    /// find acknowledged what isn't there.
    ///
    /// # Errors
    /// When the medium fails; nothing may be acknowledged then.
    pub fn secure(&self, intent: &Intent) -> io::Result<()> {
        self.write_through(intent)?;
        **self.intent.lock() = intent.clone();
        Ok(())
    }

    /// For who changes an object by these bytes in more than one step: writes into the journal what recovery must know if that
    /// is cut short, until [`Staged::done`]. If it fails, and is undone, [`Staged::give_back`] ends it. `durable`: as
    /// [`Staged::secure`].
    ///
    /// # Errors
    /// As these two; nothing has begun then.
    pub fn begin(&self, intent: &Intent, durable: bool) -> io::Result<()> {
        *self.begun.lock() = Some(Box::new(intent.clone()));
        if durable { self.write_through(intent) } else { self.write(intent) }.inspect_err(|_| self.give_back())
    }

    /// What had begun is whole.
    pub fn done(&self) {
        *self.begun.lock() = None;
    }

    /// What had begun and is neither done nor undone. Who is to undo it must find these bytes where they are.
    pub fn begun(&self) -> Option<Intent> {
        self.begun.lock().as_deref().cloned()
    }

    /// What had begun is undone, or never was: what the owner noted last holds again. What failed was acknowledged by nobody,
    /// and recovery must not finish it, nor undo what others do from now on.
    pub fn give_back(&self) {
        let intent = self.intent.lock().clone();
        if let Err(error) = self.write(&intent).and_then(|()| self.instance.journal.lock().sync()) {
            log::error!("{}: recovery may finish a save that failed: {error}", intent.key);
        }
        self.done();
    }

    fn write(&self, intent: &Intent) -> io::Result<()> {
        if intent.acknowledged {
            // Recovery finishes what the journal calls acknowledged, so this slot must never hold other bytes.
            self.tainted.store(true, Ordering::Relaxed);
        }
        self.instance.journal.lock().note(&self.instance.path, self.slot.number, self.slot.inode, intent)
    }

    fn write_through(&self, intent: &Intent) -> io::Result<()> {
        self.slot.file.sync_all()?;
        self.write(intent)?;
        // The journal last: of an xfs that was shut down, files say so, and directories don't.
        rustix::fs::fsync(&self.instance.dir)?;
        self.instance.journal.lock().sync()
    }

    /// The staged file gets the owner, mode and attributes of an object: if it is not committed after all, it must
    /// not serve another session.
    pub fn taint(&self) {
        self.tainted.store(true, Ordering::Relaxed);
    }

    /// The staged file is no longer in the staging area: it was renamed to where it belongs.
    pub fn committed(self) -> Arc<File> {
        self.instance.forget(self.slot.number);
        self.slot.file
    }

    /// Gives the bytes up, unless they are needed to undo what had begun.
    pub fn discard(self) {
        if let Some(begun) = self.begun() {
            log::error!("{}: half a save waits for recovery, which finishes it", begun.key);
            return;
        }
        self.instance.forget(self.slot.number);
        let mut pool = self.instance.pool.lock();
        // Nobody else has ever had the file open, or others would see another session's bytes in it.
        let private = Arc::strong_count(&self.slot.file) == 1 && !self.tainted.load(Ordering::Relaxed);
        if private && pool.len() < POOL_MAX && self.slot.file.set_len(0).is_ok() {
            pool.push(self.slot);
        } else {
            let _ = rustix::fs::unlinkat(&self.instance.dir, self.slot.number.to_string(), AtFlags::empty());
        }
    }
}
