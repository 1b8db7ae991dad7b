//! A backend over another one, which fails as a test wants it: from some operation on, as if the process had died
//! there; or at one operation; and whose clock can be put forward. It counts what is asked of it, too.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sepia::backend::*;
use sepia::{Generation, Key, Precondition, Timestamp};

pub struct Faulty {
    inner: Arc<dyn Backend>,
    /// Operations until it dies; negative: never.
    left: AtomicI64,
    /// Nanoseconds that its clock is ahead.
    ahead: AtomicI64,
    /// Operations so far.
    pub count: AtomicU64,
    /// The listing of this key fails.
    pub unlistable: Mutex<Option<Key>>,
    /// Nothing of this key can be deleted.
    pub undeletable: Mutex<Option<Key>>,
}

impl Faulty {
    pub fn over(inner: Arc<dyn Backend>) -> Arc<Self> {
        Arc::new(Faulty {
            inner,
            left: AtomicI64::new(-1),
            ahead: AtomicI64::new(0),
            count: AtomicU64::new(0),
            unlistable: Mutex::new(None),
            undeletable: Mutex::new(None),
        })
    }

    pub fn dies_after(&self, operations: i64) {
        self.left.store(operations, Ordering::SeqCst);
    }

    pub fn lives(&self) {
        self.left.store(-1, Ordering::SeqCst);
    }

    pub fn is_dead(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    /// Puts the clock so many seconds ahead.
    pub fn ahead(&self, seconds: i64) {
        self.ahead.store(seconds * 1_000_000_000, Ordering::SeqCst);
    }

    fn step(&self, key: &Key) -> Result<()> {
        self.count.fetch_add(1, Ordering::SeqCst);
        let left = self.left.load(Ordering::SeqCst);
        if left == 0 {
            return Err(broken(key));
        }
        if left > 0 {
            self.left.store(left - 1, Ordering::SeqCst);
        }
        Ok(())
    }

    fn list_step(&self, key: &Key) -> Result<()> {
        self.step(key)?;
        if self.unlistable.lock().unwrap().as_ref() == Some(key) { Err(broken(key)) } else { Ok(()) }
    }
}

fn broken(key: &Key) -> Error {
    Error::Io { key: key.clone(), operation: "go on", source: rustix::io::Errno::IO.into() }
}

macro_rules! steps {
    ($(fn $name:ident($key:ident: &Key $(, $argument:ident: $type:ty)*) -> $result:ty;)+) => {
        $(fn $name(&self, $key: &Key $(, $argument: $type)*) -> Result<$result> {
            self.step($key)?;
            self.inner.$name($key $(, $argument)*)
        })+
    };
}

macro_rules! as_below {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)+) => {
        $(fn $name(&self, $($argument: $type),*) -> $result { self.inner.$name($($argument),*) })+
    };
}

impl Backend for Faulty {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.inner.now().nanos() + self.ahead.load(Ordering::SeqCst))
    }

    fn generations(&self, key: &Key) -> Result<Vec<GenerationInfo>> {
        self.list_step(key)?;
        self.inner.generations(key)
    }

    fn history_members(&self, dir: &Key) -> Result<Vec<OsString>> {
        self.list_step(dir)?;
        self.inner.history_members(dir)
    }

    fn list_records(&self, dir: &Key) -> Result<Vec<Key>> {
        self.list_step(dir)?;
        self.inner.list_records(dir)
    }

    fn drop_generations(&self, key: &Key, which: &[GenerationInfo], gone: bool) -> Result<Vec<Result<u64>>> {
        if self.undeletable.lock().unwrap().as_ref() == Some(key) {
            return Ok(which.iter().map(|_| Err(broken(key))).collect());
        }
        if self.left.load(Ordering::SeqCst) < 0 {
            self.step(key)?;
            return self.inner.drop_generations(key, which, gone);
        }
        // One at a time, so that the process can die between any two.
        let mut which: Vec<_> = which.iter().collect();
        which.sort_by_key(|info| info.generation);
        let mut results = Vec::new();
        for info in which {
            self.step(key)?;
            results.extend(self.inner.drop_generations(key, std::slice::from_ref(info), gone)?);
        }
        Ok(results)
    }

    fn try_exclusive(&self, name: &str) -> Result<Option<Exclusive>> {
        self.step(&Key::root())?;
        self.inner.try_exclusive(name)
    }

    fn take_abandoned(&self) -> Result<Vec<Abandoned>> {
        self.step(&Key::root())?;
        self.inner.take_abandoned()
    }

    steps! {
        fn stat(key: &Key) -> Stat;
        fn list(key: &Key) -> Vec<DirEntry>;
        fn remove(key: &Key, expect: &Precondition) -> ();
        fn open(key: &Key) -> Opened;
        fn open_generation(key: &Key, generation: Generation) -> Opened;
        fn forget_history(key: &Key, which: &[GenerationInfo]) -> ();
        fn put_record(key: &Key, bytes: &[u8]) -> ();
        fn open_record(key: &Key) -> File;
        fn remove_record(key: &Key) -> ();
    }

    as_below! {
        fn capabilities() -> Capabilities;
        fn store_id() -> &str;
        fn staging() -> &StagingArea;
        fn read_link(key: &Key) -> Result<Vec<u8>>;
        fn create_dir(key: &Key, mode: u32, creator: &Creator) -> Result<Stat>;
        fn create_symlink(key: &Key, target: &[u8], creator: &Creator) -> Result<Stat>;
        fn create_special(key: &Key, kind: FileKind, mode: u32, rdev: u64, creator: &Creator) -> Result<Stat>;
        fn reserve(key: &Key, mode: u32, creator: &Creator) -> Result<Stat>;
        fn link(from: &Key, to: &Key, expect: &Precondition) -> Result<Stat>;
        fn rename(from: &Key, to: &Key, how: &Rename) -> Result<Stat>;
        fn remove_unkept(key: &Key, expect: &Precondition) -> Result<()>;
        fn remove_dir(key: &Key) -> Result<()>;
        fn sync_dir(dir: &Key) -> Result<()>;
        fn set_attr(key: &Key, attr: &SetAttr) -> Result<Stat>;
        fn get_xattr(key: &Key, name: &OsStr) -> Result<Vec<u8>>;
        fn list_xattrs(key: &Key) -> Result<Vec<OsString>>;
        fn set_xattr(key: &Key, name: &OsStr, value: &[u8], flags: i32) -> Result<()>;
        fn remove_xattr(key: &Key, name: &OsStr) -> Result<()>;
        fn commit(key: &Key, staged: Staged, how: &Commit, creator: &Creator) -> std::result::Result<Stat, (Error, Staged)>;
        fn append(key: &Key, staged: &Staged, from: u64, how: &Commit) -> Result<Stat>;
        fn histories(dir: &Key) -> Result<Vec<Key>>;
        fn generation_xattrs(key: &Key, generation: Generation) -> Result<Vec<(OsString, Vec<u8>)>>;
        fn keep_staged(path: &Key, staged: Staged) -> std::result::Result<(), (Error, Staged)>;
        fn append_record(path: &Key, bytes: &[u8]) -> Result<u64>;
        fn hold_still() -> Result<Box<dyn Still + '_>>;
        fn stat_fs() -> Result<FsStat>;
        fn repair(abandoned: &Abandoned) -> Result<bool>;
        fn watch(sink: ChangeSink) -> Result<Option<Box<dyn Watch>>>;
    }
}
