//! A backend over another one, which can't read what a test wants it not to, or reads other bytes.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use sepia::backend::*;
use sepia::{Generation, Key, Precondition, Timestamp};

pub struct Faulty {
    inner: Arc<dyn Backend>,
    /// The listing of this key fails.
    pub unlistable: Mutex<Option<Key>>,
    /// This key can't be looked at.
    pub unreadable: Mutex<Option<Key>>,
    /// This key may not be opened.
    pub denied: Mutex<Option<Key>>,
    /// The first byte of this generation is another one than was saved.
    pub flipped: Mutex<Option<(Key, Generation)>>,
}

impl Faulty {
    pub fn over(inner: Arc<dyn Backend>) -> Arc<Self> {
        let (unlistable, unreadable, denied, flipped) = Default::default();
        Arc::new(Faulty { inner, unlistable, unreadable, denied, flipped })
    }

    fn fails(&self, which: &Mutex<Option<Key>>, key: &Key, errno: Errno) -> Result<()> {
        if which.lock().unwrap().as_ref() != Some(key) {
            return Ok(());
        }
        Err(Error::Io { key: key.clone(), operation: "look", source: errno.into() })
    }
}

macro_rules! as_below {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)+) => {
        $(fn $name(&self, $($argument: $type),*) -> $result { self.inner.$name($($argument),*) })+
    };
}

impl Backend for Faulty {
    fn stat(&self, key: &Key) -> Result<Stat> {
        self.fails(&self.unreadable, key, Errno::IO)?;
        self.inner.stat(key)
    }

    fn list(&self, dir: &Key) -> Result<Vec<DirEntry>> {
        self.fails(&self.unlistable, dir, Errno::IO)?;
        self.inner.list(dir)
    }

    fn open_generation(&self, key: &Key, generation: Generation) -> Result<Opened> {
        self.fails(&self.denied, key, Errno::ACCESS)?;
        let mut opened = self.inner.open_generation(key, generation)?;
        if self.flipped.lock().unwrap().as_ref() == Some(&(key.clone(), generation)) {
            let mut bytes = Vec::new();
            let mut from = opened.file.try_clone().unwrap();
            from.seek(SeekFrom::Start(0)).unwrap();
            from.read_to_end(&mut bytes).unwrap();
            bytes[0] ^= 1;
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            opened.file = Arc::new(file);
        }
        Ok(opened)
    }

    as_below! {
        fn now() -> Timestamp;
        fn generations(key: &Key) -> Result<Vec<GenerationInfo>>;
        fn history_members(dir: &Key) -> Result<Vec<OsString>>;
        fn list_records(dir: &Key) -> Result<Vec<Key>>;
        fn drop_generations(key: &Key, which: &[GenerationInfo], gone: bool) -> Result<Vec<Result<u64>>>;
        fn try_exclusive(name: &str) -> Result<Option<Exclusive>>;
        fn take_abandoned() -> Result<Vec<Abandoned>>;
        fn remove(key: &Key, expect: &Precondition) -> Result<()>;
        fn open(key: &Key) -> Result<Opened>;
        fn forget_history(key: &Key, which: &[GenerationInfo]) -> Result<()>;
        fn put_record(key: &Key, bytes: &[u8]) -> Result<()>;
        fn open_record(key: &Key) -> Result<File>;
        fn remove_record(key: &Key) -> Result<()>;
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
