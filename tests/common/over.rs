//! A backend over another one, of which a test can refuse, count or change what is done.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use sepia::backend::*;
use sepia::{Generation, Key, Precondition, Timestamp};

/// What a test does to the operations of the backend below.
pub trait Hook: Send + Sync + 'static {
    /// Before an operation, by its name in the trait. An error is the operation's, which is not done then.
    fn before(&self, _operation: &'static str, _key: &Key) -> Result<()> {
        Ok(())
    }

    /// After an operation that has succeeded. An error is what the caller hears of it.
    fn after(&self, _operation: &'static str, _key: &Key) -> Result<()> {
        Ok(())
    }

    /// The time, by the time of the backend below.
    fn time(&self, below: Timestamp) -> Timestamp {
        below
    }

    /// Whether generations are dropped one by one, so that something can come between.
    fn drops_one_by_one(&self) -> bool {
        false
    }

    /// Whether none of a key's generations can be dropped, though its history can be looked at.
    fn keeps(&self, _key: &Key) -> bool {
        false
    }

    /// An older generation is read.
    fn opened(&self, _key: &Key, _generation: Generation, opened: Opened) -> Opened {
        opened
    }
}

/// The backend. Its hook can be used like a part of it.
pub struct Over<H> {
    below: Arc<dyn Backend>,
    hook: H,
}

impl<H> Over<H> {
    pub fn new(below: Arc<dyn Backend>, hook: H) -> Self {
        Over { below, hook }
    }
}

impl<H> Deref for Over<H> {
    type Target = H;

    fn deref(&self) -> &H {
        &self.hook
    }
}

/// An error of an operation that was refused.
pub fn refused(key: &Key, errno: rustix::io::Errno) -> Error {
    Error::Io { key: key.clone(), operation: "go on", source: errno.into() }
}

impl<H: Hook> Over<H> {
    fn call<T>(&self, operation: &'static str, key: &Key, act: impl FnOnce() -> Result<T>) -> Result<T> {
        self.hook.before(operation, key)?;
        let result = act()?;
        self.hook.after(operation, key)?;
        Ok(result)
    }
}

struct OverStill<'a, H> {
    over: &'a Over<H>,
    below: Box<dyn Still + 'a>,
}

impl<H: Hook> Still for OverStill<'_, H> {
    fn adopt(&self, key: &Key) -> Result<Stat> {
        self.over.call("adopt", key, || self.below.adopt(key))
    }

    fn keep_through(&self, time: Timestamp) -> Result<()> {
        self.over.call("keep_through", &Key::root(), || self.below.keep_through(time))
    }
}

macro_rules! of_a_key {
    ($(fn $name:ident($key:ident $(, $argument:ident: $type:ty)*) -> $result:ty;)+) => {
        $(fn $name(&self, $key: &Key $(, $argument: $type)*) -> Result<$result> {
            self.call(stringify!($name), $key, || self.below.$name($key $(, $argument)*))
        })+
    };
}

macro_rules! of_the_store {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)+) => {
        $(fn $name(&self $(, $argument: $type)*) -> Result<$result> {
            self.call(stringify!($name), &Key::root(), || self.below.$name($($argument),*))
        })+
    };
}

impl<H: Hook> Backend for Over<H> {
    of_a_key! {
        fn stat(key) -> Stat;
        fn list(key) -> Vec<DirEntry>;
        fn read_link(key) -> Vec<u8>;
        fn create_dir(key, mode: u32, creator: &Creator) -> Stat;
        fn create_symlink(key, target: &[u8], creator: &Creator) -> Stat;
        fn create_special(key, kind: FileKind, mode: u32, rdev: u64, creator: &Creator) -> Stat;
        fn reserve(key, mode: u32, creator: &Creator) -> Stat;
        fn link(key, to: &Key, expect: &Precondition) -> Stat;
        fn rename(key, to: &Key, how: &Rename) -> Stat;
        fn remove(key, expect: &Precondition) -> ();
        fn remove_unkept(key, expect: &Precondition) -> ();
        fn remove_dir(key) -> ();
        fn hold(key) -> Option<OwnedFd>;
        fn sync_dir(key) -> ();
        fn set_attr(key, attr: &SetAttr) -> Stat;
        fn get_xattr(key, name: &OsStr) -> Vec<u8>;
        fn list_xattrs(key) -> Vec<OsString>;
        fn set_xattr(key, name: &OsStr, value: &[u8], flags: i32) -> ();
        fn remove_xattr(key, name: &OsStr) -> ();
        fn open(key) -> Opened;
        fn check_record(key) -> Option<Flaw>;
        fn in_stead_of_torn(key, torn: Generation) -> Option<Stat>;
        fn append(key, staged: &Staged, from: u64, how: &Commit) -> Stat;
        fn generations(key) -> Vec<GenerationInfo>;
        fn generation(key, generation: Generation) -> Option<GenerationInfo>;
        fn histories(key) -> Vec<Key>;
        fn history_members(key) -> Vec<OsString>;
        fn generation_xattrs(key, generation: Generation) -> Vec<(OsString, Vec<u8>)>;
        fn forget_history(key, which: &[GenerationInfo]) -> ();
        fn put_record(key, bytes: &[u8]) -> ();
        fn append_record(key, bytes: &[u8]) -> u64;
        fn open_record(key) -> File;
        fn list_records(key) -> Vec<Key>;
        fn remove_record(key) -> ();
    }

    of_the_store! {
        fn try_exclusive(name: &str) -> Option<Exclusive>;
        fn stat_fs() -> FsStat;
        fn take_abandoned() -> Vec<Abandoned>;
        fn repair(abandoned: &Abandoned) -> bool;
        fn mend_torn() -> Vec<Torn>;
        fn settle(end: bool) -> ();
        fn sync_all() -> ();
        fn watch(sink: ChangeSink) -> Option<Box<dyn Watch>>;
    }

    fn now(&self) -> Timestamp {
        self.hook.time(self.below.now())
    }

    fn capabilities(&self) -> Capabilities {
        self.below.capabilities()
    }

    fn store_id(&self) -> &str {
        self.below.store_id()
    }

    fn staging(&self) -> &StagingArea {
        self.below.staging()
    }

    fn keep_access_times(&self, which: KeepAccessTimes) {
        self.below.keep_access_times(which);
    }

    fn mark_read(&self, opened: &Opened) -> bool {
        self.below.mark_read(opened)
    }
    fn was_rewritten(&self, opened: &Opened) -> bool {
        self.below.was_rewritten(opened)
    }

    fn take_adopted(&self) -> Vec<(Key, Stat)> {
        self.below.take_adopted()
    }

    fn commit(
        &self,
        key: &Key,
        staged: Staged,
        how: &Commit,
        by: &Creator,
    ) -> std::result::Result<Stat, (Error, Staged)> {
        if let Err(error) = self.hook.before("commit", key) {
            return Err((error, staged));
        }
        let stat = self.below.commit(key, staged, how, by)?;
        // The staged file is the object now, so there is another one for who must have it back.
        let other = || {
            let (append_from, base, sum) = Default::default();
            let intent = Intent {
                key: key.clone(),
                expect: how.expect,
                append_from,
                base,
                acknowledged: false,
                in_place: false,
                sum,
                copied: false,
            };
            self.below.staging().stage(&intent).unwrap()
        };
        self.hook.after("commit", key).map_err(|error| (error, other()))?;
        Ok(stat)
    }

    fn keep_staged(&self, path: &Key, staged: Staged) -> std::result::Result<(), (Error, Staged)> {
        match self.hook.before("keep_staged", path) {
            Err(error) => Err((error, staged)),
            Ok(()) => self.below.keep_staged(path, staged),
        }
    }

    fn open_generation(&self, key: &Key, generation: Generation) -> Result<Opened> {
        let opened = self.call("open_generation", key, || self.below.open_generation(key, generation))?;
        Ok(self.hook.opened(key, generation, opened))
    }

    fn open_kept(&self, key: &Key, info: &GenerationInfo) -> Result<Opened> {
        let opened = self.call("open_generation", key, || self.below.open_kept(key, info))?;
        Ok(self.hook.opened(key, info.generation, opened))
    }

    fn drop_generations(&self, key: &Key, which: &[GenerationInfo], gone: bool) -> Result<Vec<Result<u64>>> {
        let drop = |which: &[GenerationInfo]| {
            self.call("drop_generations", key, || self.below.drop_generations(key, which, gone))
        };
        if self.hook.keeps(key) {
            return Ok(which.iter().map(|_| Err(refused(key, rustix::io::Errno::IO))).collect());
        }
        if !self.hook.drops_one_by_one() {
            return drop(which);
        }
        let mut which: Vec<_> = which.iter().collect();
        which.sort_by_key(|info| info.generation);
        let mut results = Vec::new();
        for info in which {
            results.extend(drop(std::slice::from_ref(info))?);
        }
        Ok(results)
    }

    fn hold_still(&self) -> Result<Box<dyn Still + '_>> {
        Ok(Box::new(OverStill { over: self, below: self.below.hold_still()? }))
    }
}
