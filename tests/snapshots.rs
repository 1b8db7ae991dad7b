//! Snapshots: a point in time while others write, all that an object is, what happens to objects afterwards, restoration,
//! and death in between. On both backends, where both can do it.

mod common;

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::library::{ANY, key, on_both, put, read};
use sepia::backend::{Creator, FileKind, Rename, SetAttr, SetTime};
use sepia::store::snapshots::diff::{Aspect, Change};
use sepia::store::{Error, SessionOptions, Snapshot};
use sepia::{Generation, Key, Store, Timestamp};

fn now(store: &Store, path: &str) -> String {
    read(&store.get(&key(path)).unwrap())
}

fn then(store: &Store, snapshot: &Snapshot, path: &str) -> String {
    read(&snapshot.open(store, &key(path)).unwrap())
}

fn rename(store: &Store, from: &str, to: &str) {
    let how = Rename { expect_from: ANY, expect_to: ANY, exchange: false };
    store.backend().rename(&key(from), &key(to), &how).unwrap();
}

fn restore(store: &Store, name: &str, path: &str, delete: bool) {
    let snapshot = store.snapshot(name).unwrap();
    let plan = store.plan_restoration(&snapshot, &key(path), delete).unwrap();
    let restored = plan.apply(store, &mut |_| {});
    assert!(restored.failed.is_empty(), "{:?}", restored.failed);
    let left = store.plan_restoration(&snapshot, &key(path), delete).unwrap();
    assert_eq!(left.changes(), [], "a second restoration finds something to do");
}

/// Names that take time to be looked at, so that others can do something meanwhile.
fn fill(store: &Store) {
    for dir in 0..10 {
        store.create_dirs(&key(&format!("fill{dir}"))).unwrap();
        for file in 0..60 {
            let name = key(&format!("fill{dir}/{file}"));
            store.backend().reserve(&name, 0o644, &Creator::current()).unwrap();
        }
    }
}

// A point in time

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Each writer saves `a`, then `b`, both with the same number. No snapshot may have a `b` that is newer than its `a`.
#[test]
fn no_object_is_newer_than_one_that_is_older() {
    on_both(|store| {
        const WRITERS: usize = 3;
        fill(store);
        for writer in 0..WRITERS {
            for name in ["a", "b", "c"] {
                put(store, &format!("{name}{writer}/x"), "0");
            }
        }
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (store, stop) = (store.clone(), &stop);
                scope.spawn(move || {
                    for number in 1.. {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let name = |name: &str| format!("{name}{writer}/x");
                        // By sessions, by a rename, and by a new name: each a way to become visible.
                        for object in ["a", "b"] {
                            let options = SessionOptions { truncate: true, ..Default::default() };
                            let mut session = store.open_session(&key(&name(object)), &options).unwrap();
                            session.write_at(number.to_string().as_bytes(), 0).unwrap();
                            session.publish(&key(&name(object)), false).unwrap();
                            session.close(&key(&name(object)));
                        }
                        put(&store, &name("new"), &number.to_string());
                        rename(&store, &name("new"), &name("c"));
                    }
                });
            }
            // Also when an assertion fails: the scope waits for the writers.
            let _stop = StopAtEnd(&stop);
            let mut different = std::collections::BTreeSet::new();
            for round in 0..20 {
                let made = store.create_snapshot(Some(&format!("s{round}"))).unwrap();
                let snapshot = store.snapshot(&made.name).unwrap();
                for writer in 0..WRITERS {
                    let number =
                        |name: &str| -> u64 { then(store, &snapshot, &format!("{name}{writer}/x")).parse().unwrap() };
                    let (a, b, c) = (number("a"), number("b"), number("c"));
                    assert!(a >= b && b >= c && a <= c + 1, "snapshot {round}: a {a}, b {b}, c {c}");
                    different.insert((writer, a));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(different.len() > 2 * WRITERS, "the writers stood still: {different:?}");
        });
        // And later the bytes are still the same.
        for round in 0..20 {
            let snapshot = store.snapshot(&format!("s{round}")).unwrap();
            for writer in 0..WRITERS {
                let number =
                    |name: &str| -> u64 { then(store, &snapshot, &format!("{name}{writer}/x")).parse().unwrap() };
                assert!(number("a") >= number("b") && number("b") >= number("c"));
            }
        }
    });
}

/// The same with other processes, which share no lock in memory.
#[test]
fn the_point_in_time_holds_across_processes() {
    let store = common::Store::new();
    fill(&Store::open(store.path().to_str().unwrap()).unwrap());
    let script = "mkdir x y; for n in $(seq 1 60); do echo $n | sepia put x/a; echo $n | sepia put y/b; done";
    let mut command = common::script(store.path(), script);
    let mut writer = command.stdout(Stdio::null()).spawn().unwrap();
    let library = Store::open(store.path().to_str().unwrap()).unwrap();
    let mut round = 0;
    while writer.try_wait().unwrap().is_none() {
        let name = format!("s{round}");
        library.create_snapshot(Some(&name)).unwrap();
        let snapshot = library.snapshot(&name).unwrap();
        let number = |path: &str| -> u64 {
            snapshot.entry(&key(path)).map_or(0, |_| then(&library, &snapshot, path).trim().parse().unwrap_or(0))
        };
        let (a, b) = (number("x/a"), number("y/b"));
        assert!(a == b || a == b + 1, "{name}: a {a}, b {b}");
        round += 1;
    }
    assert!(writer.wait().unwrap().success());
    assert!(round > 2);
}

// What happens afterwards

#[test]
fn what_happens_afterwards_does_not_change_a_snapshot() {
    on_both(|store| {
        let names = ["saved", "removed", "renamed", "over", "anew", "appended", "dir/moved", "dir/deep/er"];
        for name in names {
            put(store, name, &format!("{name} before"));
            put(store, name, name);
        }
        put(store, "other", "other");
        put(store, "aside/with", "an older history");
        put(store, "aside/with", "of this name");
        store.remove(&key("aside/with"), ANY).unwrap();
        store.create_snapshot(Some("s")).unwrap();
        put(store, "saved", "later");
        for name in ["removed", "anew"] {
            store.remove(&key(name), ANY).unwrap();
        }
        put(store, "anew", "another object");
        rename(store, "renamed", "elsewhere");
        put(store, "elsewhere", "later");
        rename(store, "other", "over");
        let mut session = store.open_session(&key("appended"), &SessionOptions::default()).unwrap();
        session.append(b" and more").unwrap();
        session.publish(&key("appended"), false).unwrap();
        session.close(&key("appended"));
        rename(store, "dir/deep/er", "aside/with");
        rename(store, "dir", "newdir");
        put(store, "newdir/moved", "later");
        put(store, "renamed", "its old name is taken");
        let snapshot = store.snapshot("s").unwrap();
        for name in names {
            assert_eq!(then(store, &snapshot, name), name);
        }
        assert_eq!(then(store, &snapshot, "other"), "other");
        let children: Vec<_> = snapshot.children(&key("dir")).map(|entry| entry.key.to_string()).collect();
        assert_eq!(children, ["dir/deep", "dir/moved"]);
        let protected = store.protected_by_snapshots().unwrap();
        let saved = &store.history(&key("saved")).unwrap()[1];
        assert!(protected.contains(&saved.committed), "{saved:?}");
        // Where they are now: everything that is not protected can go, and all is still there.
        for key in store.backend().histories(&Key::root()).unwrap() {
            for info in store.backend().generations(&key).unwrap() {
                if !protected.contains(&info.committed) {
                    let _ = store.backend().drop_generation(&key, info.generation);
                }
            }
        }
        for name in names {
            assert_eq!(then(store, &store.snapshot("s").unwrap(), name), name, "after unprotected ones were dropped");
        }
    });
}

/// A session that goes on after a snapshot replaces its own generation no more, or its number would mean other bytes.
#[test]
fn a_session_does_not_amend_what_is_in_a_snapshot() {
    on_both(|store| {
        for (path, from) in [("replaced", 0), ("appended", 3)] {
            let key = key(path);
            store.backend().reserve(&key, 0o644, &Creator::current()).unwrap();
            let mut session = store.open_session(&key, &SessionOptions::default()).unwrap();
            session.append(b"one").unwrap();
            session.publish(&key, true).unwrap();
            let name = format!("before {path}");
            store.create_snapshot(Some(&name)).unwrap();
            for text in ["two", "six"] {
                if from == 0 {
                    session.write_at(text.as_bytes(), 0)
                } else {
                    session.append(text.as_bytes()).map(drop)
                }
                .unwrap();
                session.publish(&key, false).unwrap();
            }
            session.close(&key);
            assert_eq!(then(store, &store.snapshot(&name).unwrap(), path), "one");
            assert_eq!(now(store, path), if from == 0 { "six" } else { "onetwosix" });
            // Afterwards it amends again.
            assert_eq!(store.get(&key).unwrap().stat.generation, Generation::new(2));
        }
    });
}

#[test]
fn a_session_of_another_process_does_not_amend_it_either() {
    let dir = tempfile::tempdir().unwrap();
    let url = dir.path().to_str().unwrap();
    let (writer, other) = (Store::init(url).unwrap(), Store::open(url).unwrap());
    put(&writer, "f", "zero");
    let mut session = writer.open_session(&key("f"), &SessionOptions::default()).unwrap();
    session.write_at(b"one!", 0).unwrap();
    session.publish(&key("f"), false).unwrap();
    other.create_snapshot(Some("s")).unwrap();
    session.write_at(b"two!", 0).unwrap();
    session.publish(&key("f"), false).unwrap();
    session.close(&key("f"));
    assert_eq!(then(&other, &other.snapshot("s").unwrap(), "f"), "one!");
    assert_eq!(now(&other, "f"), "two!");
}

#[test]
fn bytes_that_are_lost_are_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::init(dir.path().to_str().unwrap()).unwrap();
    put(&store, "f", "one");
    store.create_snapshot(Some("s")).unwrap();
    std::fs::write(dir.path().join("f"), "two").unwrap();
    store.get(&key("f")).unwrap();
    let snapshot = store.snapshot("s").unwrap();
    let error = snapshot.open(&store, &key("f")).unwrap_err();
    assert!(matches!(error, Error::SnapshotBytesLost { .. }), "{error}");
    assert!(matches!(snapshot.open(&store, &key("g")).unwrap_err(), Error::NotInSnapshot { .. }));
}

// Everything that an object is

fn set(store: &Store, path: &str, mode: u32, seconds: i64) {
    let time = Some(SetTime::At(Timestamp::from_parts(seconds, 5)));
    let attr = SetAttr { mode: Some(mode), atime: time, mtime: time, ..SetAttr::default() };
    store.backend().set_attr(&key(path), &attr).unwrap();
}

#[test]
fn modes_times_attributes_and_links_come_back() {
    on_both(|store| {
        let (backend, me) = (store.backend(), Creator::current());
        put(store, "dir/file", "text");
        put(store, "dir/same", "same");
        put(store, "gone/far/file", "text");
        backend.reserve(&key("dir/reserved"), 0o604, &me).unwrap();
        backend.create_symlink(&key("dir/link"), b"../\xff", &me).unwrap();
        backend.create_symlink(&key("gone/link"), b"nowhere", &me).unwrap();
        backend.set_xattr(&key("dir/file"), OsStr::new("user.a"), b"\0\xff", 0).unwrap();
        backend.set_xattr(&key("dir"), OsStr::new("user.d"), b"d", 0).unwrap();
        set(store, "dir/file", 0o640, 1_000_000_000);
        set(store, "gone/far", 0o500, 900_000_000);
        set(store, "gone", 0o750, 800_000_000);
        set(store, "dir", 0o711, 700_000_000);
        store.create_snapshot(Some("s")).unwrap();
        put(store, "dir/file", "other");
        put(store, "dir/new", "new");
        put(store, "new/below", "new");
        set(store, "dir/file", 0o600, 1);
        set(store, "dir/same", 0o600, 1);
        backend.set_xattr(&key("dir/file"), OsStr::new("user.a"), b"b", 0).unwrap();
        backend.set_xattr(&key("dir/file"), OsStr::new("user.more"), b"b", 0).unwrap();
        backend.remove_xattr(&key("dir"), OsStr::new("user.d")).unwrap();
        set(store, "gone/far", 0o700, 1);
        for path in ["dir/link", "dir/reserved", "gone/link", "gone/far/file"] {
            store.remove(&key(path), ANY).unwrap();
        }
        backend.create_symlink(&key("dir/link"), b"elsewhere", &me).unwrap();
        backend.create_dir(&key("dir/reserved"), 0o755, &me).unwrap();
        backend.remove_dir(&key("gone/far")).unwrap();
        backend.remove_dir(&key("gone")).unwrap();
        let generations = store.history(&key("dir/same")).unwrap().len();
        restore(store, "s", "", false);
        assert_eq!((now(store, "dir/file"), now(store, "gone/far/file")), ("text".to_owned(), "text".to_owned()));
        assert_eq!(now(store, "dir/new"), "new", "what was made since stays");
        assert_eq!(store.history(&key("dir/same")).unwrap().len(), generations, "the same bytes are not saved again");
        assert_eq!(backend.read_link(&key("dir/link")).unwrap(), b"../\xff");
        assert_eq!(backend.get_xattr(&key("dir/file"), OsStr::new("user.a")).unwrap(), b"\0\xff");
        assert!(backend.get_xattr(&key("dir/file"), OsStr::new("user.more")).is_err());
        assert_eq!(backend.get_xattr(&key("dir"), OsStr::new("user.d")).unwrap(), b"d");
        for (path, mode, seconds) in [
            ("dir/file", 0o640, 1_000_000_000),
            ("gone/far", 0o500, 900_000_000),
            ("gone", 0o750, 800_000_000),
            ("dir", 0o711, 700_000_000),
        ] {
            let stat = store.stat(&key(path)).unwrap();
            assert_eq!((stat.mode, stat.mtime), (mode, Timestamp::from_parts(seconds, 5)), "{path}");
        }
        assert_eq!(store.stat(&key("dir/reserved")).unwrap().generation, None);
        restore(store, "s", "", true);
        assert!(store.stat(&key("dir/new")).is_err() && store.stat(&key("new")).is_err());
        let snapshot = store.snapshot("s").unwrap();
        let changes = store.compare_snapshots(&snapshot, &store.present(&Key::root()).unwrap(), &Key::root()).unwrap();
        assert_eq!(changes, []);
    });
}

#[test]
fn as_root_owners_devices_and_hard_links_come_back() {
    common::need_root();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::init(dir.path().to_str().unwrap()).unwrap();
    let (backend, me) = (store.backend(), Creator::current());
    put(&store, "one", "linked");
    put(&store, "apart", "apart");
    backend.link(&key("one"), &key("two"), &ANY).unwrap();
    backend.link(&key("one"), &key("three"), &ANY).unwrap();
    backend.create_special(&key("fifo"), FileKind::Fifo, 0o640, 0, &me).unwrap();
    backend.create_special(&key("null"), FileKind::CharDevice, 0o600, rustix::fs::makedev(1, 3), &me).unwrap();
    let owner = SetAttr { uid: Some(12), gid: Some(34), mode: Some(0o6755), ..SetAttr::default() };
    backend.set_attr(&key("apart"), &owner).unwrap();
    store.create_snapshot(Some("s")).unwrap();
    // In place, for it has several names: the bytes before are kept under the one that was written.
    put(&store, "two", "changed");
    store.remove(&key("three"), ANY).unwrap();
    put(&store, "three", "by itself");
    for path in ["fifo", "null", "apart"] {
        store.remove(&key(path), ANY).unwrap();
    }
    backend.link(&key("one"), &key("apart"), &ANY).unwrap();
    let snapshot = store.snapshot("s").unwrap();
    for (path, text) in [("one", "linked"), ("two", "linked"), ("three", "linked"), ("apart", "apart")] {
        assert_eq!(then(&store, &snapshot, path), text, "{path}");
    }
    restore(&store, "s", "", true);
    for (path, text) in [("one", "linked"), ("two", "linked"), ("three", "linked"), ("apart", "apart")] {
        assert_eq!(now(&store, path), text, "{path}");
    }
    let stat = |path| store.stat(&key(path)).unwrap();
    assert_eq!((stat("one").id, stat("one").id), (stat("two").id, stat("three").id));
    assert_eq!((stat("apart").uid, stat("apart").gid, stat("apart").mode), (12, 34, 0o6755));
    assert_eq!((stat("fifo").kind, stat("fifo").mode), (FileKind::Fifo, 0o640));
    assert_eq!((stat("null").kind, stat("null").rdev), (FileKind::CharDevice, rustix::fs::makedev(1, 3)));
}

#[test]
fn one_path_is_put_back_and_nothing_else() {
    on_both(|store| {
        for path in ["a/x", "a/y", "b/x"] {
            put(store, path, "old");
        }
        store.create_snapshot(Some("s")).unwrap();
        for path in ["a/x", "a/y", "b/x"] {
            put(store, path, "new");
        }
        restore(store, "s", "a/x", false);
        assert_eq!((now(store, "a/x"), now(store, "a/y")), ("old".into(), "new".into()));
        for path in ["a/x", "a/y"] {
            store.remove(&key(path), ANY).unwrap();
        }
        store.backend().remove_dir(&key("a")).unwrap();
        restore(store, "s", "a/y", false);
        assert_eq!((now(store, "a/y"), now(store, "b/x")), ("old".into(), "new".into()));
        assert!(store.stat(&key("a/x")).is_err());
    });
}

#[test]
fn a_save_that_comes_between_plan_and_restoration_stays() {
    on_both(|store| {
        put(store, "f", "old");
        store.create_snapshot(Some("s")).unwrap();
        put(store, "f", "new");
        let snapshot = store.snapshot("s").unwrap();
        let plan = store.plan_restoration(&snapshot, &Key::root(), false).unwrap();
        put(store, "f", "newest");
        let restored = plan.apply(store, &mut |_| {});
        assert_eq!((restored.failed.len(), now(store, "f")), (1, "newest".to_owned()));
    });
}

// Names, lists, damage

#[test]
fn snapshots_are_listed_and_deleted_and_have_names() {
    on_both(|store| {
        put(store, "f", "one");
        let unnamed = store.create_snapshot(None).unwrap();
        assert_eq!(unnamed.name.len(), "2026-11-23T10-00-00Z".len());
        store.create_snapshot(Some("latest")).unwrap();
        assert!(matches!(store.create_snapshot(Some("latest")), Err(Error::SnapshotExists(_))));
        assert!(matches!(store.create_snapshot(Some("a/b")), Err(Error::SnapshotName { .. })));
        let names: Vec<_> = store.snapshots().unwrap().into_iter().map(|info| info.name).collect();
        assert_eq!(names, [unnamed.name.as_str(), "latest"]);
        store.delete_snapshot("latest").unwrap();
        assert!(matches!(store.delete_snapshot("latest"), Err(Error::NoSnapshot(_))));
        assert!(matches!(store.snapshot("../latest"), Err(Error::NoSnapshot(_))));
        put(store, "f", "two");
        put(store, "g", "two");
        let (old, new) = (store.snapshot(&unnamed.name).unwrap(), store.present(&Key::root()).unwrap());
        match &store.compare_snapshots(&old, &new, &Key::root()).unwrap()[..] {
            [Change::Changed { what, .. }, Change::Added(_)] => assert!(what.contains(&Aspect::Bytes), "{what:?}"),
            other => panic!("{other:?}"),
        }
        // Nothing may be dropped as long as it isn't known what a snapshot refers to.
        store.backend().put_record(&key("snapshots/bad.jsonl"), b"{\"snap").unwrap();
        assert!(store.snapshots().unwrap()[0].damaged);
        assert!(matches!(store.protected_by_snapshots(), Err(Error::SnapshotDamaged { .. })));
        store.delete_snapshot("bad").unwrap();
        store.protected_by_snapshots().unwrap();
    });
}

// Death in between

/// Runs a command and kills it after a while; again with more patience until it ends by itself.
fn kill_at_every_moment(store: &common::Store, arguments: &[&str], mut check: impl FnMut(bool)) {
    let mut patience = Duration::ZERO;
    loop {
        let mut command: Command = store.command(arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(patience);
        child.kill().unwrap();
        let done = child.wait().unwrap().success();
        check(done);
        if done {
            return;
        }
        patience += patience / 8 + Duration::from_millis(1);
    }
}

#[test]
fn killed_while_it_is_made_a_snapshot_is_whole_or_not_there() {
    let store = common::Store::new();
    let library = Store::open(store.path().to_str().unwrap()).unwrap();
    for number in 0..300 {
        put(&library, &format!("d{}/f{number}", number % 7), "text");
    }
    kill_at_every_moment(&store, &["snapshot", "create", "s"], |_| {
        match library.snapshot("s") {
            Ok(snapshot) => assert_eq!(snapshot.entries().count(), 308),
            Err(error) => assert!(matches!(error, Error::NoSnapshot(_)), "{error}"),
        }
        if library.snapshot("s").is_ok() {
            library.delete_snapshot("s").unwrap();
        }
        put(&library, "d0/f0", "saving goes on");
    });
    library.create_snapshot(Some("t")).unwrap();
    let records = library.backend().list_records(&key("snapshots")).unwrap();
    assert_eq!(records, [key("snapshots/latest"), key("snapshots/t.jsonl")], "what was begun is cleared away");
}

#[test]
fn killed_restorations_are_finished_by_the_next() {
    let store = common::Store::new();
    let library = Store::open(store.path().to_str().unwrap()).unwrap();
    for number in 0..40 {
        put(&library, &format!("d{}/f{number}", number % 3), &format!("old {number}"));
    }
    library.create_snapshot(Some("s")).unwrap();
    for number in 0..40 {
        put(&library, &format!("d{}/f{number}", number % 3), &format!("new {number}"));
    }
    put(&library, "since/f", "since");
    kill_at_every_moment(&store, &["snapshot", "restore", "s", "--delete", "--yes"], |_| {
        library.recover().unwrap();
        for number in 0..40 {
            let text = now(&library, &format!("d{}/f{number}", number % 3));
            assert!(text == format!("old {number}") || text == format!("new {number}"), "{text}");
        }
    });
    for number in 0..40 {
        assert_eq!(now(&library, &format!("d{}/f{number}", number % 3)), format!("old {number}"));
    }
    assert!(library.stat(&key("since")).is_err());
}
