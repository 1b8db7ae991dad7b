//! Write sessions of `fs::Fs`, without a kernel: two mounts of one store that change the same file.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{OFlags, RenameFlags};
use rustix::io::Errno;
use sepia::backend::file::FileBackend;
use sepia::backend::{
    self, Abandoned, Backend, Capabilities, ChangeSink, Commit, Creator, DirEntry, FileKind, FsStat, GenerationInfo,
    Opened, Rename, SetAttr, SetTime, Staged, StagingArea, Stat, Still, Watch,
};
use sepia::fs::{Caller, Changes, Fh, Fs, FsOptions, Ino};
use sepia::store::{Actor, Reason};
use sepia::{Generation, Key, Precondition, Store, Timestamp};

const ROOT: Ino = 1;

struct Side {
    fs: Fs,
    store: Store,
}

fn side(store: Store) -> Side {
    let options = FsOptions { ttl: Duration::ZERO, watched_ttl: Duration::ZERO, ..FsOptions::default() };
    Side { fs: Fs::new(store.clone(), options), store }
}

/// Two mounts of a store in a directory.
fn pair() -> (Side, Side, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let url = dir.path().to_str().unwrap();
    (side(Store::init(url).unwrap()), side(Store::open(url).unwrap()), dir)
}

fn caller() -> Caller {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Caller { uid, gid, umask: 0o022, thread: std::process::id() }
}

fn key(path: &str) -> Key {
    Key::parse(path).unwrap()
}

impl Side {
    fn ino(&self, name: &str) -> Ino {
        self.fs.lookup(ROOT, OsStr::new(name)).unwrap().attr.ino
    }

    fn try_open(&self, name: &str, flags: OFlags) -> Result<Fh, Errno> {
        self.fs.open(&caller(), self.ino(name), flags.bits() as i32).map(|reply| reply.fh)
    }

    fn open(&self, name: &str, flags: OFlags) -> Fh {
        self.try_open(name, flags).unwrap()
    }

    fn create(&self, name: &str) -> Fh {
        let flags = (OFlags::RDWR | OFlags::CREATE).bits() as i32;
        self.fs.create(&caller(), ROOT, OsStr::new(name), 0o644, flags).unwrap().1.fh
    }

    fn write(&self, fh: Fh, at: u64, bytes: &str) {
        assert_eq!(self.fs.write(&caller(), fh, at, bytes.as_bytes(), false, false), Ok(bytes.len()));
    }

    fn close(&self, fh: Fh) -> Result<(), Errno> {
        let flushed = self.fs.flush(&caller(), fh);
        self.fs.release(fh);
        flushed
    }

    /// The bytes that were set aside last.
    fn last_conflict(&self) -> String {
        let conflicts = self.store.conflicts().unwrap();
        let last = conflicts.iter().max_by_key(|conflict| conflict.id.to_string()).unwrap();
        let mut bytes = String::new();
        std::io::Read::read_to_string(&mut self.store.open_conflict(&last.id).unwrap(), &mut bytes).unwrap();
        bytes
    }

    fn save(&self, name: &str, bytes: &str) {
        let fh = self.create(name);
        self.write(fh, 0, bytes);
        self.close(fh).unwrap();
    }

    /// Saves by `> name`.
    fn rewrite(&self, name: &str, bytes: &str) {
        let fh = self.open(name, OFlags::WRONLY | OFlags::TRUNC);
        self.write(fh, 0, bytes);
        self.close(fh).unwrap();
    }

    fn expect(&self, name: &str, generation: u64) {
        let value = generation.to_string();
        self.fs.setxattr(&caller(), self.ino(name), OsStr::new("user.sepia.expect"), value.as_bytes(), 0).unwrap();
    }

    fn expected(&self, name: &str) -> Option<String> {
        let value = self.fs.getxattr(self.ino(name), OsStr::new("user.sepia.expect")).ok()?;
        Some(String::from_utf8(value).unwrap())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        self.fs.rename(&caller(), ROOT, OsStr::new(from), ROOT, OsStr::new(to), RenameFlags::empty())
    }

    fn text(&self, name: &str) -> String {
        let opened = self.store.get(&key(name)).unwrap();
        let mut bytes = vec![0; opened.stat.size as usize];
        std::os::unix::fs::FileExt::read_exact_at(&*opened.file, &mut bytes, 0).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn conflicts(&self) -> usize {
        self.store.conflicts().unwrap().len()
    }
}

// Expectations

#[test]
fn an_expectation_is_not_forgotten_by_joining_a_session() {
    let (a, b, _dir) = pair();
    a.save("f", "one");
    a.rewrite("f", "two");
    let writer = a.open("f", OFlags::RDWR);
    a.write(writer, 0, "TWO");
    a.expect("f", 1);
    assert_eq!(a.try_open("f", OFlags::RDWR), Err(Errno::STALE));
    assert_eq!(a.expected("f").as_deref(), Some("1"), "what was not met stays");
    a.expect("f", 2);
    let joined = a.open("f", OFlags::RDWR);
    assert_eq!(a.expected("f"), None);
    a.write(joined, 3, "!");
    assert_eq!((a.close(joined), a.close(writer)), (Ok(()), Ok(())));
    assert_eq!((b.text("f"), b.conflicts()), ("TWO!".to_owned(), 0));
}

#[test]
fn an_expectation_survives_an_open_that_fails() {
    let (a, b, _dir) = pair();
    a.save("f", "one");
    let ino = a.ino("f");
    a.expect("f", 1);
    b.save("g", "other");
    b.rename("g", "f").unwrap();
    assert_eq!(a.fs.open(&caller(), ino, OFlags::RDWR.bits() as i32).map(drop), Err(Errno::STALE));
    // As the kernel does, which looks again.
    let fh = a.open("f", OFlags::RDWR);
    a.write(fh, 0, "lost");
    assert_eq!(a.close(fh), Err(Errno::STALE));
    assert_eq!((b.text("f"), b.conflicts()), ("other".to_owned(), 1));
}

#[test]
fn an_expectation_holds_for_all_names_and_for_what_another_mount_removes() {
    let (a, b, _dir) = pair();
    a.save("f", "one");
    a.fs.link(&caller(), a.ino("f"), ROOT, OsStr::new("g")).unwrap();
    let (f, _) = (a.ino("f"), a.ino("g"));
    // By whichever name the kernel knows it.
    a.fs.setxattr(&caller(), f, OsStr::new("user.sepia.expect"), b"7", 0).unwrap();
    for name in ["f", "g"] {
        assert_eq!(a.fs.unlink(&caller(), ROOT, OsStr::new(name)), Err(Errno::STALE));
        assert_eq!(a.rename(name, "h"), Err(Errno::STALE));
    }
    a.expect("f", 1);
    a.fs.unlink(&caller(), ROOT, OsStr::new("g")).unwrap();
    assert_eq!(a.expected("f"), None, "it was for one change");

    a.expect("f", 1);
    b.fs.unlink(&caller(), ROOT, OsStr::new("f")).unwrap();
    let fh = a.create("f");
    a.write(fh, 0, "lost");
    assert_eq!(a.close(fh), Err(Errno::STALE), "it was expected to be there");
    assert_eq!((a.text("f"), a.conflicts()), (String::new(), 1));
}

#[test]
fn an_expectation_moves_with_its_directory() {
    let (a, _b, _dir) = pair();
    let dir = a.fs.mkdir(&caller(), ROOT, OsStr::new("d"), 0o755).unwrap().attr.ino;
    let fh = a.fs.create(&caller(), dir, OsStr::new("f"), 0o644, OFlags::RDWR.bits() as i32).unwrap();
    a.write(fh.1.fh, 0, "one");
    a.close(fh.1.fh).unwrap();
    a.fs.setxattr(&caller(), fh.0.attr.ino, OsStr::new("user.sepia.expect"), b"7", 0).unwrap();
    a.rename("d", "e").unwrap();
    assert_eq!(a.fs.unlink(&caller(), a.ino("e"), OsStr::new("f")), Err(Errno::STALE));
    assert_eq!(
        a.fs.setxattr(&caller(), dir, OsStr::new("user.sepia.expect"), b"1", 0),
        Err(Errno::INVAL),
        "of a directory"
    );
}

// Writes that fail

/// No filesystem has files of such a size.
const FAR: u64 = i64::MAX as u64 - 1;

impl Side {
    fn fails_to_write(&self, fh: Fh) {
        assert!(self.fs.write(&caller(), fh, FAR, b"far", false, false).is_err());
    }
}

/// It changes nothing, and what was acknowledged is not bound to it.
#[test]
fn a_failed_write_takes_nothing_with_it_of_what_fsync_has_acknowledged() {
    let (a, _b, _dir) = pair();
    let fh = a.create("f");
    a.write(fh, 0, "AAAA");
    a.fs.fsync(fh).unwrap();
    a.write(fh, 0, "BB");
    a.fs.fsync(fh).unwrap();
    a.write(fh, 3, "C");
    a.fails_to_write(fh);
    assert_eq!(a.fs.getattr(a.ino("f"), Some(fh)).unwrap().stat.size, 4);
    assert_eq!((a.fs.fsync(fh), a.close(fh)), (Ok(()), Ok(())));
    assert_eq!((a.text("f"), a.conflicts()), ("BBAC".to_owned(), 0));
}

/// The same where it was a close that published first.
#[test]
fn a_failed_write_after_a_close_and_an_fsync_costs_nothing() {
    let (a, _b, _dir) = pair();
    let (fh, other) = (a.create("f"), a.open("f", OFlags::RDWR));
    a.write(other, 0, "AAAA");
    a.close(other).unwrap();
    a.write(fh, 0, "BB");
    a.fs.fsync(fh).unwrap();
    a.fails_to_write(fh);
    a.close(fh).unwrap();
    assert_eq!((a.text("f"), a.conflicts()), ("BBAA".to_owned(), 0));
}

/// Half of what was meant is not saved, and not lost either.
#[test]
fn a_session_with_a_failed_write_is_set_aside() {
    let (a, _b, _dir) = pair();
    a.save("f", "old");
    let fh = a.open("f", OFlags::RDWR | OFlags::TRUNC);
    a.write(fh, 0, "half");
    a.fails_to_write(fh);
    assert!(a.fs.fsync(fh).is_err() && a.close(fh).is_err());
    assert_eq!(a.text("f"), "old");
    let conflicts = a.store.conflicts().unwrap();
    assert_eq!(conflicts.iter().map(|c| (c.reason, c.size)).collect::<Vec<_>>(), [(Reason::Failed, 4)]);
}

/// Where nothing was changed by it, nothing is kept from being saved later.
#[test]
fn a_failed_write_that_was_the_only_one_is_forgotten_with_the_next_fsync() {
    let (a, _b, _dir) = pair();
    a.save("f", "old");
    let fh = a.open("f", OFlags::RDWR);
    a.fails_to_write(fh);
    a.fs.fsync(fh).unwrap();
    a.write(fh, 0, "new");
    a.close(fh).unwrap();
    assert_eq!((a.text("f"), a.conflicts()), ("new".to_owned(), 0));
}

// Names that change while others save

/// Another mount saves between the look and the change: the session must not take that save for its own base.
#[test]
fn a_rename_or_link_takes_no_others_save_for_its_own() {
    for links in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let url = dir.path().to_str().unwrap();
        let b = side(Store::init(url).unwrap());
        let inner = FileBackend::open(dir.path()).unwrap();
        let between = Arc::new(Between { inner, act: Mutex::new(None) });
        let a = side(Store::with_backend(between.clone(), b.store.location().clone()));
        a.save("from", "base");
        let (ino, fh) = (a.ino("from"), a.open("from", OFlags::RDWR));
        let others = b.store.clone();
        *between.act.lock().unwrap() = Some(Box::new(move || {
            others.put(&key("from"), &mut &b"theirs"[..], Precondition::Any).unwrap();
        }));
        if links {
            a.fs.link(&caller(), ino, ROOT, OsStr::new("to")).unwrap();
        } else {
            a.rename("from", "to").unwrap();
        }
        assert!(between.act.lock().unwrap().is_none(), "nothing happened in between");
        a.write(fh, 0, "mine");
        assert_eq!(a.close(fh), Err(Errno::STALE));
        assert_eq!((a.text("to"), a.conflicts()), ("theirs".to_owned(), 1));
    }
}

/// As where there was no directory yet.
#[test]
fn a_put_makes_the_directory_that_somebody_removes_meanwhile() {
    for restores in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let others = Store::init(dir.path().to_str().unwrap()).unwrap();
        let inner = FileBackend::open(dir.path()).unwrap();
        let between = Arc::new(Between { inner, act: Mutex::new(None) });
        let store = Store::with_backend(between.clone(), others.location().clone());
        let file = key("Note/deep/file");
        others.put(&file, &mut &b"before"[..], Precondition::Any).unwrap();
        let remove = move || {
            let by = others.by(Actor::current());
            match by.remove(&key("Note/deep/file"), &Precondition::Any, None) {
                Ok(()) | Err(sepia::Error::Backend(backend::Error::NotFound(_))) => {}
                other => other.unwrap(),
            }
            by.remove_dir(&key("Note/deep"), None).unwrap();
            by.remove_dir(&key("Note"), None).unwrap();
        };
        if restores {
            store.by(Actor::current()).remove(&file, &Precondition::Any, None).unwrap();
        }
        *between.act.lock().unwrap() = Some(Box::new(remove));
        let saved = if restores {
            store.restore(&file, Generation::FIRST, Precondition::Absent)
        } else {
            store.put(&file, &mut &b"after"[..], Precondition::Any)
        };
        assert_eq!(saved.unwrap().generation, Generation::new(2));
        assert!(between.act.lock().unwrap().is_none(), "nothing happened in between");
        assert_eq!(std::fs::read(dir.path().join("Note/deep/file")).unwrap().len(), if restores { 6 } else { 5 });
    }
}

type Act = Box<dyn FnOnce() + Send>;

/// A backend at which something happens right before the next rename, link or commit, or right after somebody has asked
/// whether bytes were replaced.
struct Between {
    inner: FileBackend,
    act: Mutex<Option<Act>>,
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

#[test]
fn a_save_goes_to_the_name_that_is_left() {
    let (a, b, _dir) = pair();
    a.save("f", "one");
    a.fs.link(&caller(), a.ino("f"), ROOT, OsStr::new("g")).unwrap();
    let fh = a.open("f", OFlags::RDWR);
    a.ino("g");
    a.write(fh, 0, "two");
    b.save("other", "other");
    b.rename("other", "g").unwrap();
    assert_eq!(a.close(fh), Ok(()));
    assert_eq!((a.text("f"), a.text("g"), a.conflicts()), ("two".to_owned(), "other".to_owned(), 0));
}

/// A session to which nothing was written makes way for who opens what is current, even if only the number changed.
#[test]
fn who_opens_what_another_mount_has_renumbered_is_not_lost() {
    let (a, b, _dir) = pair();
    a.save("old", "one");
    a.rewrite("old", "two");
    a.save("f", "text");
    let idle = a.open("f", OFlags::RDWR);
    b.rename("f", "old").unwrap();
    let fh = a.open("old", OFlags::RDWR);
    a.write(fh, 0, "TEXT");
    assert_eq!(a.close(fh), Ok(()));
    a.fs.release(idle);
    assert_eq!((b.text("old"), b.conflicts()), ("TEXT".to_owned(), 0));
}

// fsync

#[test]
fn fsync_of_what_somebody_else_removed_or_replaced_succeeds() {
    let (a, b, _dir) = pair();
    for name in ["removed", "replaced", "a directory now"] {
        a.save(name, "one");
        let fh = a.open(name, OFlags::RDWR);
        b.fs.unlink(&caller(), ROOT, OsStr::new(name)).unwrap();
        match name {
            "replaced" => b.save(name, "two"),
            "a directory now" => drop(b.fs.mkdir(&caller(), ROOT, OsStr::new(name), 0o755).unwrap()),
            _ => {}
        }
        assert_eq!(a.fs.fsync(fh), Ok(()), "{name}");
        a.fs.release(fh);
    }
}

// Files without a name

#[test]
fn an_open_file_keeps_its_attributes_without_a_name() {
    let (a, _b, _dir) = pair();
    for side in [a, side(Store::open("memory:").unwrap())] {
        side.save("f", "one");
        let (ino, fh) = (side.ino("f"), side.open("f", OFlags::RDWR));
        let fresh = side.create("g");
        let other = side.ino("g");
        let before = side.fs.getattr(ino, None).unwrap().stat;
        side.fs.unlink(&caller(), ROOT, OsStr::new("f")).unwrap();
        side.fs.unlink(&caller(), ROOT, OsStr::new("g")).unwrap();
        let after = side.fs.getattr(ino, Some(fh)).unwrap().stat;
        assert_eq!(
            (after.nlink, after.size, after.mode, after.mtime, after.uid),
            (0, 3, before.mode, before.mtime, before.uid)
        );
        side.write(fh, 3, "+two");
        side.write(fresh, 0, "12");
        assert_eq!(side.fs.getattr(ino, Some(fh)).unwrap().stat.size, 7);
        let mode = Changes { mode: Some(0o600), ..Default::default() };
        assert_eq!(side.fs.setattr(&caller(), other, Some(fresh), &mode).unwrap().stat.mode, 0o600);
        let stat = side.fs.getattr(other, Some(fresh)).unwrap().stat;
        assert_eq!((stat.nlink, stat.size, stat.mode), (0, 2, 0o600));
        side.fs.release(fh);
        side.fs.release(fresh);
    }
}

/// Also when it was somebody else who took it away, and put another there. Where it is now its mode and times are not those of
/// who has it open, but of an object, or of a generation.
#[test]
fn an_open_file_that_another_mount_removes_or_replaces_can_be_truncated() {
    for replaced in [false, true] {
        let (a, b, _dir) = pair();
        a.save("f", "one");
        let (ino, fh) = (a.ino("f"), a.open("f", OFlags::RDWR));
        b.fs.unlink(&caller(), ROOT, OsStr::new("f")).unwrap();
        if replaced {
            b.save("f", "other");
        }
        let set = |changes| a.fs.setattr(&caller(), ino, Some(fh), &changes).map(|attr| attr.stat);
        let time = SetTime::At(Timestamp::from_parts(1, 0));
        let mode = Changes { mode: Some(0o600), ..Default::default() };
        assert_eq!(set(mode).map(drop), Err(Errno::STALE));
        assert_eq!(set(Changes { mtime: Some(time), ..Default::default() }).map(drop), Err(Errno::STALE));
        assert_eq!(set(Changes { size: Some(2), ..Default::default() }).unwrap().size, 2);
        set(Changes { mtime: Some(time), ..Default::default() }).unwrap();
        assert_eq!(a.fs.getattr(ino, Some(fh)).unwrap().stat.size, 2);
        a.fs.release(fh);
        if replaced {
            let stat = b.store.stat(&key("f")).unwrap();
            assert_eq!((stat.mode, stat.size), (0o644, 5));
        }
        let kept = b.store.backend().open_generation(&key("f"), Generation::new(1).unwrap()).unwrap();
        assert_eq!(kept.stat.mode, 0o644, "what is in the history doesn't change");
    }
}

/// So does one that was opened before another mount saved, when nobody has the newer generation open.
#[test]
fn an_older_handle_keeps_its_attributes_without_a_name() {
    let (a, b, _dir) = pair();
    a.save("f", "one");
    let (ino, older) = (a.ino("f"), a.open("f", OFlags::RDONLY));
    b.rewrite("f", "two");
    let newer = a.open("f", OFlags::RDONLY);
    a.fs.release(newer);
    a.fs.unlink(&caller(), ROOT, OsStr::new("f")).unwrap();
    assert_eq!(a.fs.getattr(ino, Some(older)).map(|attr| attr.stat.nlink), Ok(0));
}

// Appends

const APPEND: OFlags = OFlags::WRONLY.union(OFlags::APPEND);

/// An amendment replaces the bytes under their number: who saw those before must not append to the others.
#[test]
fn an_append_does_not_merge_with_an_amendment() {
    for later in ["", "appended"] {
        let (a, b, _dir) = pair();
        let amends = a.create("f");
        a.write(amends, 0, "first");
        a.fs.flush(&caller(), amends).unwrap();
        let appends = b.open("f", APPEND);
        b.write(appends, 0, "+b");
        a.write(amends, 0, "other");
        a.close(amends).unwrap();
        if !later.is_empty() {
            let fh = a.open("f", APPEND);
            a.write(fh, 0, later);
            a.close(fh).unwrap();
        }
        assert_eq!(b.close(appends), Err(Errno::STALE));
        assert_eq!((a.text("f"), a.conflicts()), (format!("other{later}"), 1));
    }
}

#[test]
fn appends_merge_with_an_amendment_that_appended() {
    let (a, b, _dir) = pair();
    a.save("f", "base");
    let first = a.open("f", APPEND);
    a.write(first, 0, "+a1");
    a.fs.flush(&caller(), first).unwrap();
    let second = b.open("f", APPEND);
    b.write(second, 0, "+b");
    a.write(first, 0, "+a2");
    a.close(first).unwrap();
    assert_eq!(b.close(second), Ok(()));
    assert_eq!((a.text("f"), a.conflicts()), ("base+a1+a2+b".to_owned(), 0));
}

#[test]
fn appends_to_an_object_with_several_names_merge() {
    let (a, b, _dir) = pair();
    a.save("f", "base");
    a.fs.link(&caller(), a.ino("f"), ROOT, OsStr::new("g")).unwrap();
    let (first, second, third) = (a.open("f", APPEND), b.open("f", APPEND), b.open("g", OFlags::WRONLY));
    a.write(first, 0, "+a");
    b.write(second, 0, "+b");
    assert_eq!((a.close(first), b.close(second)), (Ok(()), Ok(())));
    assert_eq!((a.text("g"), a.conflicts()), ("base+a+b".to_owned(), 0));
    // But not with a rewrite, which an object with several names gets in place.
    b.fs.release(third);
    let (rewrites, appends) = (a.open("f", OFlags::RDWR), b.open("g", APPEND));
    a.write(rewrites, 0, "BASE");
    b.write(appends, 0, "+lost");
    assert_eq!((a.close(rewrites), b.close(appends)), (Ok(()), Err(Errno::STALE)));
    assert_eq!((b.text("f"), b.conflicts()), ("BASE+a+b".to_owned(), 1));
}

/// What a session reads where it hasn't written is replaced in the object's own file, if that has several names.
#[test]
fn what_is_set_aside_of_an_object_with_several_names_is_no_mix() {
    for late in [false, true] {
        let (a, b, _dir) = pair();
        a.save("f", "some base");
        a.fs.link(&caller(), a.ino("f"), ROOT, OsStr::new("g")).unwrap();
        let loser = b.open("f", if late { OFlags::RDWR } else { APPEND });
        if !late {
            b.write(loser, 0, "+mine");
        }
        a.rewrite("f", "theirs");
        if late {
            b.write(loser, 5, "B");
        }
        assert_eq!(b.close(loser), Err(Errno::STALE));
        assert_eq!(a.last_conflict(), if late { "some Base" } else { "some base+mine" });
        assert_eq!((a.text("f"), a.text("g")), ("theirs".to_owned(), "theirs".to_owned()));
    }
}

/// It may be saved under any of its names, and only the history of that one has what was there before.
#[test]
fn what_is_set_aside_is_no_mix_whatever_the_name_of_the_save() {
    for appends in [true, false] {
        for removed in [false, true] {
            let (a, b, _dir) = pair();
            a.save("f", "some base");
            a.fs.link(&caller(), a.ino("f"), ROOT, OsStr::new("g")).unwrap();
            let loser = b.open("f", if appends { APPEND } else { OFlags::RDWR });
            if appends {
                b.write(loser, 0, "+mine");
            }
            a.rewrite("g", "theirs");
            if removed {
                a.fs.unlink(&caller(), ROOT, OsStr::new("g")).unwrap();
            }
            if !appends {
                b.write(loser, 5, "B");
            }
            assert_eq!(b.close(loser), Err(Errno::STALE));
            assert_eq!(a.last_conflict(), if appends { "some base+mine" } else { "some Base" }, "{removed}");
            assert_eq!(a.text("f"), "theirs");
            assert_eq!(a.store.conflicts().unwrap()[0].base_lost, None);
        }
    }
}

/// Where nobody has it any more, that is said, and what is set aside is not taken for more than it is.
#[test]
fn what_is_set_aside_says_that_its_base_is_lost() {
    let (a, b, _dir) = pair();
    a.save("f", "some base");
    a.fs.link(&caller(), a.ino("f"), ROOT, OsStr::new("g")).unwrap();
    b.expect("f", 1);
    let loser = b.open("f", OFlags::RDWR);
    a.rewrite("g", "theirs");
    a.store.backend().drop_generation(&key("g"), Generation::FIRST).unwrap();
    b.write(loser, 9, "+mine");
    assert_eq!(b.close(loser), Err(Errno::STALE));
    assert_eq!(&a.last_conflict()[9..], "+mine");
    assert_eq!(a.store.conflicts().unwrap()[0].base_lost, Some(9));
}

/// Somebody replaces the bytes while they are being copied.
#[test]
fn what_is_copied_while_it_is_replaced_is_no_mix() {
    let dir = tempfile::tempdir().unwrap();
    let b = side(Store::init(dir.path().to_str().unwrap()).unwrap());
    let inner = FileBackend::open(dir.path()).unwrap();
    let between = Arc::new(Between { inner, act: Mutex::new(None) });
    let a = side(Store::with_backend(between.clone(), b.store.location().clone()));
    b.save("f", "some base");
    b.fs.link(&caller(), b.ino("f"), ROOT, OsStr::new("g")).unwrap();
    let loser = a.open("f", OFlags::RDWR);
    let others = b.store.clone();
    *between.act.lock().unwrap() = Some(Box::new(move || {
        others.put(&key("f"), &mut &b"theirs"[..], Precondition::Any).unwrap();
    }));
    a.write(loser, 5, "B");
    assert!(between.act.lock().unwrap().is_none(), "nothing happened in between");
    assert_eq!(a.close(loser), Err(Errno::STALE));
    assert_eq!(a.last_conflict(), "some Base");
}

/// The kernel looks up a name, and opens what it has found there. In between it may be replaced.
#[test]
fn what_was_found_at_a_name_can_be_read_when_it_is_replaced_before_the_open() {
    let (a, _b, _dir) = pair();
    a.save("f", "found");
    let ino = a.ino("f");
    a.save("new", "other");
    a.fs.rename(&caller(), ROOT, OsStr::new("new"), ROOT, OsStr::new("f"), RenameFlags::empty()).unwrap();
    let open = |flags: OFlags| a.fs.open(&caller(), ino, flags.bits() as i32);
    assert_eq!(open(OFlags::WRONLY).map(drop), Err(Errno::STALE));
    let reply = open(OFlags::RDONLY).unwrap();
    let mut bytes = [0; 9];
    assert_eq!(a.fs.read(reply.fh, 0, &mut bytes), Ok(5));
    assert_eq!(&bytes[..5], b"found");
    a.fs.release(reply.fh);
    assert_eq!(a.text("f"), "other");
}

#[test]
fn an_expectation_does_not_merge() {
    for (a, b) in [
        {
            let (a, b, dir) = pair();
            std::mem::forget(dir);
            (a, b)
        },
        {
            let store = Store::open("memory:").unwrap();
            (side(store.clone()), side(store))
        },
    ] {
        a.save("f", "base");
        a.expect("f", 1);
        let fh = a.open("f", APPEND);
        a.write(fh, 0, "+a");
        let other = b.open("f", APPEND);
        b.write(other, 0, "+b");
        b.close(other).unwrap();
        assert_eq!(a.close(fh), Err(Errno::STALE));
        assert_eq!((a.text("f"), a.conflicts()), ("base+b".to_owned(), 1));
        assert!(a.store.put(&key("f"), &mut &b""[..], Precondition::Absent).is_err());
    }
}
