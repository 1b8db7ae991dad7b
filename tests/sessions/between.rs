//! Another mount that does something in between.

use super::*;

type Act = Box<dyn FnOnce() + Send>;

/// A backend at which something happens right before the next rename, link or commit, or right after somebody has asked
/// whether bytes were replaced.
pub struct Between {
    pub inner: FileBackend,
    pub act: Mutex<Option<Act>>,
}

impl Between {
    fn act(&self) {
        let act = self.act.lock().unwrap().take();
        if let Some(act) = act {
            act();
        }
    }
}

macro_rules! as_below {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)+) => {
        $(fn $name(&self, $($argument: $type),*) -> $result { self.inner.$name($($argument),*) })+
    };
}

impl Backend for Between {
    fn rename(&self, from: &Key, to: &Key, how: &Rename) -> backend::Result<Stat> {
        self.act();
        self.inner.rename(from, to, how)
    }

    fn link(&self, from: &Key, to: &Key, expect: &Precondition) -> backend::Result<Stat> {
        self.act();
        self.inner.link(from, to, expect)
    }

    fn was_rewritten(&self, opened: &Opened) -> bool {
        let rewritten = self.inner.was_rewritten(opened);
        self.act();
        rewritten
    }

    fn commit(
        &self,
        key: &Key,
        staged: Staged,
        how: &Commit,
        creator: &Creator,
    ) -> Result<Stat, (backend::Error, Staged)> {
        self.act();
        self.inner.commit(key, staged, how, creator)
    }

    as_below! {
        fn capabilities() -> Capabilities;
        fn store_id() -> &str;
        fn staging() -> &StagingArea;
        fn stat(key: &Key) -> backend::Result<Stat>;
        fn list(dir: &Key) -> backend::Result<Vec<DirEntry>>;
        fn read_link(key: &Key) -> backend::Result<Vec<u8>>;
        fn create_dir(key: &Key, mode: u32, creator: &Creator) -> backend::Result<Stat>;
        fn create_symlink(key: &Key, target: &[u8], creator: &Creator) -> backend::Result<Stat>;
        fn create_special(key: &Key, kind: FileKind, mode: u32, rdev: u64, creator: &Creator) -> backend::Result<Stat>;
        fn reserve(key: &Key, mode: u32, creator: &Creator) -> backend::Result<Stat>;
        fn remove(key: &Key, expect: &Precondition) -> backend::Result<()>;
        fn remove_unkept(key: &Key, expect: &Precondition) -> backend::Result<()>;
        fn remove_dir(key: &Key) -> backend::Result<()>;
        fn hold(key: &Key) -> backend::Result<Option<OwnedFd>>;
        fn sync_dir(dir: &Key) -> backend::Result<()>;
        fn set_attr(key: &Key, attr: &SetAttr) -> backend::Result<Stat>;
        fn get_xattr(key: &Key, name: &OsStr) -> backend::Result<Vec<u8>>;
        fn list_xattrs(key: &Key) -> backend::Result<Vec<OsString>>;
        fn set_xattr(key: &Key, name: &OsStr, value: &[u8], flags: i32) -> backend::Result<()>;
        fn remove_xattr(key: &Key, name: &OsStr) -> backend::Result<()>;
        fn open(key: &Key) -> backend::Result<Opened>;
        fn append(key: &Key, staged: &Staged, from: u64, how: &Commit) -> backend::Result<Stat>;
        fn generations(key: &Key) -> backend::Result<Vec<GenerationInfo>>;
        fn histories(dir: &Key) -> backend::Result<Vec<Key>>;
        fn open_generation(key: &Key, generation: Generation) -> backend::Result<Opened>;
        fn history_members(dir: &Key) -> backend::Result<Vec<OsString>>;
        fn generation_xattrs(key: &Key, generation: Generation) -> backend::Result<Vec<(OsString, Vec<u8>)>>;
        fn drop_generations(key: &Key, which: &[GenerationInfo], gone: bool) -> backend::Result<Vec<backend::Result<u64>>>;
        fn forget_history(key: &Key, which: &[GenerationInfo]) -> backend::Result<()>;
        fn try_exclusive(name: &str) -> backend::Result<Option<backend::Exclusive>>;
        fn hold_still() -> backend::Result<Box<dyn Still + '_>>;
        fn put_record(path: &Key, bytes: &[u8]) -> backend::Result<()>;
        fn append_record(path: &Key, bytes: &[u8]) -> backend::Result<u64>;
        fn keep_staged(path: &Key, staged: Staged) -> Result<(), (backend::Error, Staged)>;
        fn open_record(path: &Key) -> backend::Result<File>;
        fn list_records(dir: &Key) -> backend::Result<Vec<Key>>;
        fn remove_record(path: &Key) -> backend::Result<()>;
        fn stat_fs() -> backend::Result<FsStat>;
        fn take_abandoned() -> backend::Result<Vec<Abandoned>>;
        fn repair(abandoned: &Abandoned) -> backend::Result<bool>;
        fn take_adopted() -> Vec<(Key, Stat)>;
        fn watch(sink: ChangeSink) -> backend::Result<Option<Box<dyn Watch>>>;
    }
}
