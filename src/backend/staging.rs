//! The staging area: where the bytes of write sessions are before they are committed, and how they outlive a crash.
//!
//! ```text
//! staging/<instance>/lock        flocked as long as its owner lives
//!                    owner.json  who that is, for people
//!                    journal     one JSON line per staged file, the last one of a slot counts
//!                    <slot>      a staged file
//! ```
//!
//! An instance whose lock can be taken is dead: [`StagingArea::take_abandoned`] then moves its files, with what the
//! journal says about them, into the caller's own instance. The journal is written before the bytes, so a file
//! without a line holds nothing. An instance that is being made has a name with a dot, and no lock yet: after a while it
//! is litter. Knows nothing of what a commit is.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::arrivals::Arrivals;
use super::journal::{self, Line};
use super::ownership::give_path;
use super::staged::{Instance, Intent, Slot, Staged};
use super::stat::{SetTime, timestamps};
use crate::types::{Key, Precondition};

/// A staged file whose owner died, now in the hands of the caller.
#[derive(Debug)]
pub struct Abandoned {
    /// What it was for.
    pub intent: Intent,
    /// Its bytes.
    pub staged: Staged,
}

/// How old an instance must be that is still being made, for its process to be dead: that takes a moment.
const UNFINISHED: Duration = Duration::from_secs(60 * 60);

/// A process that uses a store.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Owner {
    /// Its process id.
    pub pid: u32,
    /// What it is doing, for people: `mount /mnt`.
    pub activity: String,
    /// Whether it is a mount, which lasts, and not a passing command.
    pub mount: bool,
    /// It knows that there are other mounts: nobody looks at the store through it without asking the medium.
    #[serde(default)]
    pub shares: bool,
}

/// The staged files of one process in one store. Made on first use, so that reading a store leaves no trace.
#[derive(Debug)]
pub struct StagingArea {
    root: PathBuf,
    owner: Mutex<Owner>,
    instance: OnceLock<Arc<Instance>>,
    opening: Mutex<()>,
}

impl StagingArea {
    /// The staging area in the directory `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        StagingArea {
            root: root.into(),
            owner: Mutex::new(Owner { pid: std::process::id(), ..Owner::default() }),
            instance: OnceLock::new(),
            opening: Mutex::new(()),
        }
    }

    /// Tells the other users of the store what this process is doing.
    ///
    /// # Errors
    /// When the staging area can't be written.
    pub fn announce(&self, activity: &str, mount: bool) -> io::Result<()> {
        self.describe(|owner| (owner.activity, owner.mount) = (activity.to_owned(), mount))
    }

    /// Tells the other users of the store that this process knows of them, or no longer does: [`Owner::shares`].
    ///
    /// # Errors
    /// When the staging area can't be written.
    pub fn share(&self, shares: bool) -> io::Result<()> {
        self.describe(|owner| owner.shares = shares)
    }

    fn describe(&self, change: impl FnOnce(&mut Owner)) -> io::Result<()> {
        let mut owner = self.owner.lock();
        change(&mut owner);
        match self.instance.get() {
            Some(instance) => {
                write_owner(&instance.path, &owner)?;
                // For those who watch the directory ([`Arrivals`]); the others look.
                let now = timestamps(Some(SetTime::Now), Some(SetTime::Now));
                let _ = rustix::fs::utimensat(rustix::fs::CWD, &self.root, &now, AtFlags::empty());
                Ok(())
            }
            None => {
                drop(owner);
                self.instance().map(drop)
            }
        }
    }

    /// The other living users of the store that have announced themselves or write to it.
    ///
    /// # Errors
    /// When the staging area can't be read.
    pub fn others(&self) -> io::Result<Vec<Owner>> {
        let mut others = Vec::new();
        for path in self.instances()? {
            if self.is_own(&path) {
                continue;
            }
            let alive = match open_lock(&path) {
                Ok(lock) => rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared).is_err(),
                Err(_) => false,
            };
            if alive && let Ok(text) = std::fs::read_to_string(path.join("owner.json")) {
                others.extend(serde_json::from_str::<Owner>(&text));
            }
        }
        Ok(others)
    }

    /// Watches for users that come and go. `None` where that is not possible, and they must be looked for.
    pub fn watch_users(&self) -> Option<Arrivals> {
        Arrivals::watch(&self.root)
    }

    /// A new empty staged file, for what `intent` says.
    ///
    /// # Errors
    /// When the staging area can't be written, or is full.
    pub fn stage(&self, intent: &Intent) -> io::Result<Staged> {
        let instance = self.instance()?;
        // Only for tails, whose bytes are copied out again and whose times are nobody's: ext4 writes out at the close what
        // was ever truncated to nothing (auto_da_alloc), which takes longer than to make a new file.
        let pooled = intent.append_from.and_then(|_| instance.pool.lock().pop());
        let slot = match pooled {
            Some(slot) => slot,
            None => {
                let number = instance.journal.lock().new_slot();
                let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::LARGEFILE;
                let file = rustix::fs::openat(&instance.dir, number.to_string(), flags, Mode::RUSR | Mode::WUSR)?;
                Slot::new(number, File::from(file))?
            }
        };
        let staged = Staged::new(slot, instance, intent, false);
        if let Err(error) = staged.note(intent) {
            staged.discard();
            return Err(error);
        }
        Ok(staged)
    }

    /// Takes over the staged files of all instances whose owner has died, and removes those instances. What can't be taken over
    /// stays where it is, and doesn't keep the caller from the rest.
    ///
    /// # Errors
    /// When the staging area can't be read.
    pub fn take_abandoned(&self) -> io::Result<Vec<Abandoned>> {
        let mut taken = Vec::new();
        self.remove_unfinished()?;
        for path in self.instances()? {
            if self.is_own(&path) {
                continue;
            }
            let Ok(lock) = open_lock(&path) else {
                // Died between making the directory and the lock: nothing can be in it.
                let _ = std::fs::remove_dir(&path);
                continue;
            };
            if !take_over(&lock) {
                continue;
            }
            match self.take_from(&path, &mut taken).and_then(|()| std::fs::remove_dir_all(&path)) {
                Ok(()) => {}
                // Of somebody else who may use the store, and who alone can go on with it.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    log::warn!("{}: sessions of the dead there wait for their owner: {error}", path.display());
                }
                Err(error) => {
                    log::error!("{}: sessions of the dead there wait for the next recovery: {error}", path.display());
                }
            }
        }
        Ok(taken)
    }

    /// What the staged files of all users are for that hold something, those of this process included.
    ///
    /// # Errors
    /// When the staging area can't be read.
    pub fn intents(&self) -> io::Result<Vec<Intent>> {
        let mut intents = Vec::new();
        for path in self.instances()? {
            intents.extend(intents_in(&path)?.into_iter().map(|(intent, _)| intent));
        }
        Ok(intents)
    }

    /// The same of those that nobody is at work with, with the paths of the staged files: of those that have died; and of all
    /// others for `key`, or whatever object, of which the caller holds the locks. What can't be read says nothing.
    pub fn abandoned_intents(&self, key: &Key, all: bool) -> Vec<(Intent, PathBuf)> {
        let look = |intents: &mut Vec<_>| {
            let mut any_others = false;
            for path in self.instances().unwrap_or_default() {
                let alive = !self.is_own(&path)
                    && open_lock(&path)
                        .is_ok_and(|lock| rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared).is_err());
                let dead = !alive && !self.is_own(&path);
                any_others |= !self.is_own(&path);
                let here = intents_in(&path).unwrap_or_default().into_iter();
                intents.extend(here.filter(|(intent, _)| dead || all || intent.key == *key));
            }
            any_others
        };
        let mut intents = Vec::new();
        if look(&mut intents) {
            // Who recovers the store may have been taking them over, into a directory that was read before: meanwhile the dead
            // look alive, for the lock is theirs who do that.
            look(&mut intents);
        }
        intents
    }

    /// Removes what processes have left that died while they made their instance: nothing was staged in it.
    fn remove_unfinished(&self) -> io::Result<()> {
        for path in self.directories(true)? {
            let is_old = |meta: std::fs::Metadata| meta.modified()?.elapsed().map_err(io::Error::other);
            if path.symlink_metadata().and_then(is_old).is_ok_and(|age| age > UNFINISHED) {
                // Of somebody else, perhaps, who does it then.
                let _ = std::fs::remove_dir_all(&path);
            }
        }
        Ok(())
    }

    fn take_from(&self, path: &Path, taken: &mut Vec<Abandoned>) -> io::Result<()> {
        let mut noted = Vec::new();
        let all = self.note_from(path, &mut noted);
        if !noted.is_empty() {
            // Before anything moves, and the other journal goes: a power loss must find what was acknowledged in one of them.
            self.instance()?.journal.lock().sync()?;
        }
        for (path, abandoned) in noted {
            rustix::fs::rename(path, abandoned.staged.path())?;
            taken.push(abandoned);
        }
        all
    }

    /// Notes the staged files of one that has died as one's own, with the paths where they are still.
    fn note_from(&self, path: &Path, noted: &mut Vec<(PathBuf, Abandoned)>) -> io::Result<()> {
        let journal = journal::read(path)?;
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let Some(slot) = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()) else { continue };
            let stat = rustix::fs::lstat(entry.path())?;
            // The name is used again after a commit has renamed the file away: then it is another inode.
            let line = journal.get(&slot).filter(|line| stat.st_ino == line.inode).and_then(Line::intent);
            let intent = match line {
                // Shorter than where its bytes begin: given back to the pool, and the line is of its last session.
                Some(intent) if intent.append_from.is_some_and(|start| stat.st_size.unsigned_abs() < start) => continue,
                Some(intent) => intent,
                None if stat.st_size == 0 => continue,
                // What a commit has put here in exchange for its bytes, and kept in the history.
                None if stat.st_nlink > 1 => continue,
                // The journal is damaged. The bytes are kept all the same, under a name that says where they were.
                None => self.unknown(slot)?,
            };
            let instance = self.instance()?;
            let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::LARGEFILE;
            let file = File::from(rustix::fs::open(entry.path(), flags, Mode::empty())?);
            let slot = Slot::new(instance.journal.lock().new_slot(), file)?;
            let staged = Staged::new(slot, instance, &intent, true);
            staged.note(&intent)?;
            noted.push((entry.path(), Abandoned { intent, staged }));
        }
        Ok(())
    }

    fn unknown(&self, slot: u64) -> io::Result<Intent> {
        let key = Key::object("lost+found", &slot.to_string()).map_err(io::Error::other)?;
        let expect = Precondition::Any;
        Ok(Intent {
            key,
            expect,
            append_from: None,
            base: None,
            acknowledged: false,
            in_place: false,
            sum: None,
            copied: false,
        })
    }

    fn instances(&self) -> io::Result<Vec<PathBuf>> {
        self.directories(false)
    }

    /// The instances, or what is to become one.
    fn directories(&self, unfinished: bool) -> io::Result<Vec<PathBuf>> {
        let entries = match std::fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") == unfinished {
                paths.push(entry.path());
            }
        }
        Ok(paths)
    }

    fn is_own(&self, path: &Path) -> bool {
        self.instance.get().is_some_and(|own| own.path == path)
    }

    fn instance(&self) -> io::Result<Arc<Instance>> {
        if let Some(instance) = self.instance.get() {
            return Ok(instance.clone());
        }
        let _one_at_a_time = self.opening.lock();
        if let Some(instance) = self.instance.get() {
            return Ok(instance.clone());
        }
        let instance = Arc::new(Instance::create(&self.root, &self.owner.lock())?);
        Ok(self.instance.get_or_init(|| instance).clone())
    }
}

impl Drop for StagingArea {
    fn drop(&mut self) {
        let Some(instance) = self.instance.take().and_then(Arc::into_inner) else { return };
        // A clean end leaves nothing behind; what is still journaled waits for recovery.
        if instance.journal.lock().is_empty() {
            let _ = std::fs::remove_dir_all(&instance.path);
        }
    }
}

/// What the staged files of one user are for that hold something, and where they are.
fn intents_in(path: &Path) -> io::Result<Vec<(Intent, PathBuf)>> {
    let mut intents = Vec::new();
    let journal = match journal::read(path) {
        // It has ended since.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(intents),
        other => other?,
    };
    // The journal remembers many more slots than are in use.
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(intents),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let slot = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
        let Some(line) = slot.and_then(|slot| journal.get(&slot)) else { continue };
        let Ok(stat) = rustix::fs::lstat(entry.path()) else { continue };
        let held = stat.st_ino == line.inode && stat.st_size > 0;
        let from = |intent: &Intent| intent.append_from.unwrap_or(0);
        let intent = line.intent().filter(|intent| held && stat.st_size.unsigned_abs() >= from(intent));
        intents.extend(intent.map(|intent| (intent, entry.path())));
    }
    Ok(intents)
}

fn open_lock(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path.join("lock"), OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
}

/// Takes the lock of an instance if its owner has died. Others who look whether it has hold the lock for a moment, too, and
/// mustn't be taken for it: but they share it, which neither the owner does nor who has taken it over.
fn take_over(lock: &OwnedFd) -> bool {
    const ATTEMPTS: u32 = 1000;
    for _ in 0..ATTEMPTS {
        if rustix::fs::flock(lock, FlockOperation::NonBlockingLockShared).is_err() {
            return false;
        }
        if rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    false
}

/// Whole or not at all, for others read it at any time.
pub(super) fn write_owner(dir: &Path, owner: &Owner) -> io::Result<()> {
    let new = dir.join("owner.new");
    std::fs::write(&new, serde_json::to_string(owner)? + "\n")?;
    give_path(&new);
    std::fs::rename(new, dir.join("owner.json"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::types::{Generation, ObjectId, Timestamp};

    fn intent(key: &str) -> Intent {
        Intent {
            key: Key::parse(key).unwrap(),
            expect: Precondition::Version(Generation::FIRST, ObjectId::random(), Timestamp::now()),
            append_from: Some(7),
            base: Some(8),
            acknowledged: true,
            in_place: false,
            sum: None,
            copied: false,
        }
    }

    #[test]
    fn the_living_are_left_alone_and_the_dead_are_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (StagingArea::new(dir.path()), StagingArea::new(dir.path()));
        let staged = a.stage(&intent("Note/1")).unwrap();
        staged.file().write_all_at(b"bytes", 7).unwrap();
        assert!(b.take_abandoned().unwrap().is_empty());
        drop((staged, a));
        let taken = b.take_abandoned().unwrap();
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].intent.key, Key::parse("Note/1").unwrap());
        assert_eq!((taken[0].intent.append_from, taken[0].intent.base), (Some(7), Some(8)));
        assert_eq!(std::fs::read(taken[0].staged.path()).unwrap(), b"\0\0\0\0\0\0\0bytes");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// Others look who is alive while the dead are taken over: that mustn't be taken for the dead being alive.
    #[test]
    fn who_looks_at_the_users_keeps_nobody_from_recovery() {
        let dir = tempfile::tempdir().unwrap();
        let (looking, stop) = (StagingArea::new(dir.path()), std::sync::atomic::AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        looking.others().unwrap();
                    }
                });
            }
            let missed = (0..60)
                .filter(|_| {
                    for _ in 0..4 {
                        let dead = StagingArea::new(dir.path());
                        dead.stage(&intent("Note/1")).unwrap().file().write_all_at(b"bytes", 7).unwrap();
                    }
                    let b = StagingArea::new(dir.path());
                    let taken = b.take_abandoned().unwrap();
                    let all = taken.len() == 4;
                    taken.into_iter().for_each(|one| one.staged.discard());
                    drop(b);
                    let rest = StagingArea::new(dir.path());
                    rest.take_abandoned().unwrap().into_iter().for_each(|one| one.staged.discard());
                    !all
                })
                .count();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(missed, 0);
        });
    }

    /// What is being taken over is found where it was, or where it is.
    #[test]
    fn what_is_taken_over_is_always_somewhere() {
        let dir = tempfile::tempdir().unwrap();
        let key = Key::parse("Note/1").unwrap();
        let looking = StagingArea::new(dir.path());
        for round in 0..100 {
            let dead = StagingArea::new(dir.path());
            for _ in 0..3 {
                dead.stage(&intent("Note/1")).unwrap().file().write_all_at(b"bytes", 7).unwrap();
            }
            drop(dead);
            let recovering = StagingArea::new(dir.path());
            let done = std::sync::atomic::AtomicBool::new(false);
            std::thread::scope(|scope| {
                let found = scope.spawn(|| {
                    let mut least = usize::MAX;
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        least = least.min(looking.abandoned_intents(&key, true).len());
                    }
                    least
                });
                let taken = recovering.take_abandoned().unwrap();
                done.store(true, std::sync::atomic::Ordering::Relaxed);
                assert!(found.join().unwrap() >= 3, "round {round}");
                taken.into_iter().for_each(|one| one.staged.discard());
            });
        }
    }

    #[test]
    fn what_died_while_it_was_made_goes_after_a_while() {
        let dir = tempfile::tempdir().unwrap();
        for (name, age) in [(".1-old", 2 * UNFINISHED), (".1-new", UNFINISHED / 2)] {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("lock"), "").unwrap();
            let old = std::time::SystemTime::now() - age;
            std::fs::File::open(&path).unwrap().set_modified(old).unwrap();
        }
        StagingArea::new(dir.path()).take_abandoned().unwrap();
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [".1-new"]);
    }

    #[test]
    fn a_clean_end_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let a = StagingArea::new(dir.path());
        a.stage(&intent("Note/1")).unwrap().discard();
        drop(a);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
