//! Snapshots and restorations that are cut short: at each step in turn, and by kill -9 under load; and through two mounts.

mod common;
mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::library::{ANY, key, put, read};
use common::over::{Hook, Over, refused};
use rig::Dice;
use rustix::io::Errno;
use sepia::backend::file::FileBackend;
use sepia::backend::{self, Creator, FileKind, SetAttr};
use sepia::store::{Error, Location};
use sepia::{Key, ObjectId, Store};

// A backend whose process dies

/// A backend that does so many changes, and then none any more.
struct Dying {
    left: AtomicU64,
    /// The last change is done, but nobody hears of it.
    unheard: bool,
    /// That change is being done.
    last: AtomicBool,
}

/// What only looks.
const LOOKS: [&str; 17] = [
    "stat",
    "list",
    "read_link",
    "hold",
    "sync_dir",
    "get_xattr",
    "list_xattrs",
    "open",
    "generations",
    "generation",
    "histories",
    "history_members",
    "open_generation",
    "generation_xattrs",
    "open_record",
    "list_records",
    "stat_fs",
];

impl Hook for Dying {
    fn before(&self, operation: &'static str, key: &Key) -> backend::Result<()> {
        if LOOKS.contains(&operation) {
            return Ok(());
        }
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
            Ok(1) if self.unheard => self.last.store(true, Ordering::Relaxed),
            Ok(left) if left > 1 => {}
            _ => return Err(refused(key, Errno::IO)),
        }
        Ok(())
    }

    fn after(&self, operation: &'static str, key: &Key) -> backend::Result<()> {
        match !LOOKS.contains(&operation) && self.last.swap(false, Ordering::Relaxed) {
            true => Err(refused(key, Errno::IO)),
            false => Ok(()),
        }
    }
}

/// Does something with a process that dies at its first change, then at its second, and so on, until it is done; both
/// before and after that change.
fn dying_at_each_change(prepare: impl Fn(&Store), act: impl Fn(&Store) -> bool, check: impl Fn(&Store)) -> u64 {
    let mut deaths = 0;
    for unheard in [false, true] {
        for left in 1.. {
            let dir = tempfile::tempdir().unwrap();
            let url = dir.path().to_str().unwrap();
            let store = Store::init(url).unwrap();
            prepare(&store);
            let inner = FileBackend::open(dir.path()).unwrap();
            let dying = Dying { left: AtomicU64::new(left), unheard, last: AtomicBool::new(false) };
            let backend = Arc::new(Over::new(Arc::new(inner), dying));
            let dying = Store::with_backend(backend, Location::File(dir.path().to_owned()));
            let done = act(&dying);
            drop(dying);
            let store = Store::open(url).unwrap();
            store.recover().unwrap();
            check(&store);
            if done {
                break;
            }
            deaths += 1;
        }
    }
    deaths
}

/// Everything that can be seen of a store, but times.
fn visible(store: &Store) -> BTreeMap<Key, String> {
    let present = store.present(&Key::root()).unwrap();
    let mut ids: BTreeMap<ObjectId, Key> = BTreeMap::new();
    let mut all = BTreeMap::new();
    for entry in present.entries() {
        let stat = &entry.stat;
        // What is one object, by its first name.
        let first = ids.entry(stat.id).or_insert_with(|| entry.key.clone()).clone();
        let bytes = (stat.kind == FileKind::File).then(|| read(&store.get(&entry.key).unwrap()));
        let what = (stat.kind, stat.mode, stat.uid, stat.gid, &entry.target, &entry.xattrs);
        all.insert(entry.key.clone(), format!("{what:?} {bytes:?} {first}"));
    }
    all
}

/// Something of each kind, and then all of it otherwise.
fn prepare(store: &Store) {
    let (backend, me) = (store.backend(), Creator::current());
    for path in ["d/changed", "d/removed", "gone/deep/f", "becomes a directory", "chmod"] {
        put(store, path, &format!("{path} then"));
    }
    backend.link(&key("d/changed"), &key("d/second"), &ANY).unwrap();
    backend.create_symlink(&key("d/link"), b"then", &me).unwrap();
    backend.create_dir(&key("becomes a file"), 0o755, &me).unwrap();
    backend.create_special(&key("fifo"), FileKind::Fifo, 0o600, 0, &me).unwrap();
    backend.set_xattr(&key("chmod"), OsStr::new("user.a"), b"then", 0).unwrap();
    store.create_snapshot(Some("s")).unwrap();
    put(store, "d/changed", "now");
    store.remove(&key("d/second"), ANY).unwrap();
    put(store, "d/second", "now by itself");
    for path in ["d/removed", "gone/deep/f", "becomes a directory", "d/link", "fifo"] {
        store.remove(&key(path), ANY).unwrap();
    }
    for path in ["gone/deep", "gone", "becomes a file"] {
        store.remove_dir(&key(path)).unwrap();
    }
    put(store, "becomes a file", "now");
    put(store, "becomes a directory/f", "now");
    put(store, "new/f", "now");
    backend.create_symlink(&key("d/link"), b"now", &me).unwrap();
    backend.set_attr(&key("chmod"), &SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap();
    backend.set_xattr(&key("chmod"), OsStr::new("user.a"), b"now", 0).unwrap();
    backend.set_xattr(&key("chmod"), OsStr::new("user.b"), b"now", 0).unwrap();
}

fn restore(store: &Store, name: &str) -> bool {
    let snapshot = store.snapshot(name).unwrap();
    let plan = store.plan_restoration(&snapshot, &Key::root(), true).unwrap();
    let failed = plan.apply(store, &mut |_| {}).failed;
    // Shown only if the test fails.
    failed.iter().for_each(|(key, error)| println!("{key}: {error}"));
    failed.is_empty()
}

/// What was saved before is kept somewhere.
fn texts(store: &Store) -> BTreeSet<String> {
    let mut texts = BTreeSet::new();
    for key in store.backend().histories(&Key::root()).unwrap() {
        for info in store.backend().generations(&key).unwrap() {
            texts.extend(store.get_generation(&key, info.generation).map(|opened| read(&opened)).ok());
        }
    }
    for entry in store.present(&Key::root()).unwrap().entries().filter(|entry| entry.stat.kind == FileKind::File) {
        texts.insert(read(&store.get(&entry.key).unwrap()));
    }
    texts
}

#[test]
fn a_restoration_that_dies_at_any_step_is_finished_by_the_next_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let whole = Store::init(dir.path().to_str().unwrap()).unwrap();
    prepare(&whole);
    let before = texts(&whole);
    assert!(restore(&whole, "s"));
    let wanted = visible(&whole);
    let deaths = dying_at_each_change(
        prepare,
        |store| restore(store, "s"),
        |store| {
            assert!(restore(store, "s"), "the next restoration failed");
            assert!(texts(store).is_superset(&before), "something was lost");
            let snapshot = store.snapshot("s").unwrap();
            assert_eq!(store.plan_restoration(&snapshot, &Key::root(), true).unwrap().changes(), []);
            assert_eq!(visible(store), wanted);
            assert_eq!(store.conflicts().unwrap(), []);
        },
    );
    println!("{deaths} deaths");
    assert!(deaths > 60, "{deaths}");
}

#[test]
fn a_snapshot_that_dies_at_any_step_is_whole_or_not_there() {
    let prepare = |store: &Store| put(store, "d/f", "text");
    let deaths = dying_at_each_change(
        prepare,
        |store| store.create_snapshot(Some("s")).is_ok(),
        |store| {
            match store.snapshot("s") {
                Ok(snapshot) => assert_eq!(read(&snapshot.open(store, &key("d/f")).unwrap()), "text"),
                Err(Error::NoSnapshot(_)) => drop(store.create_snapshot(Some("s")).unwrap()),
                Err(error) => panic!("{error}"),
            }
            // Nobody waits for the dead.
            put(store, "d/f", "later");
            store.create_dirs(&key("e")).unwrap();
            assert_eq!(read(&store.snapshot("s").unwrap().open(store, &key("d/f")).unwrap()), "text");
        },
    );
    assert!(deaths >= 6, "{deaths}");
}

// kill -9 under load

/// Saves that were acknowledged, by several writers with a store of their own each.
fn write_until(store: &Store, writer: u64, stop: &AtomicBool) -> BTreeSet<String> {
    let mut saved = BTreeSet::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let text = format!("{writer}:{number:06}");
        let path = format!("load{writer}/{}", ["a", "b", "c"][number % 3]);
        match store.put(&key(&path), &mut text.as_bytes(), ANY) {
            Ok(_) => drop(saved.insert(text)),
            // A restoration has just removed its directory, which it puts back for the next.
            Err(Error::Backend(error)) if error.is_gone() => {}
            Err(error) => panic!("{error}"),
        }
    }
    saved
}

#[test]
fn killed_under_load_nothing_that_was_saved_is_lost() {
    let kills = rig::number_from_env("SEPIA_KILLS").unwrap_or(40);
    let mut dice = Dice::from_env();
    let store = common::Store::new();
    let open = || Store::open(store.path().to_str().unwrap()).unwrap();
    let library = open();
    for number in 0..150 {
        put(&library, &format!("still{}/f{number}", number % 5), &format!("still {number}"));
    }
    for writer in 0..3 {
        put(&library, &format!("load{writer}/a"), &format!("{writer}:begin"));
    }
    library.create_snapshot(Some("base")).unwrap();
    let stop = AtomicBool::new(false);
    let (mut cut_short, mut done) = (0, 0);
    let saved: Vec<BTreeSet<String>> = std::thread::scope(|scope| {
        let stop = &stop;
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let store = open();
                scope.spawn(move || write_until(&store, writer, stop))
            })
            .collect();
        for round in 0..kills {
            let name = format!("s{round}");
            let arguments: &[&str] = match round % 2 {
                0 => &["snapshot", "create", &name],
                _ => &["snapshot", "restore", "base", "--yes"],
            };
            let mut command = store.command(arguments);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_micros(dice.below(120_000)));
            child.kill().unwrap();
            match child.wait().unwrap().success() {
                true => done += 1,
                false => cut_short += 1,
            }
        }
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    library.recover().unwrap();
    let kept = texts(&library);
    for text in saved.iter().flatten() {
        assert!(kept.contains(text), "{text} was saved and is lost");
    }
    for info in library.snapshots().unwrap() {
        assert!(!info.damaged, "{info:?}");
        let snapshot = library.snapshot(&info.name).unwrap();
        for entry in snapshot.entries().filter(|entry| entry.stat.kind == FileKind::File) {
            let text = read(&snapshot.open(&library, &entry.key).unwrap());
            let (dir, name) = (entry.key.parent().unwrap(), entry.key.name().unwrap().to_str().unwrap());
            match dir.to_string().strip_prefix("load") {
                Some(writer) => assert!(text.starts_with(&format!("{writer}:")), "{}: {text}", entry.key),
                None => assert_eq!(text, format!("still {}", &name[1..])),
            }
        }
    }
    println!("{cut_short} cut short, {done} done, {} saves", saved.iter().map(BTreeSet::len).sum::<usize>());
    assert!(cut_short > 0 && saved.iter().all(|saved| saved.len() > 10));
}

// Two mounts

/// Each writer saves `a` through one mount, and then `b` through the other.
#[test]
fn a_snapshot_is_of_one_point_in_time_through_two_mounts() {
    let store = common::Store::new();
    let mounts = [store.mount(), store.mount()];
    let library = Store::open(store.path().to_str().unwrap()).unwrap();
    mounts[0].sh("mkdir x y");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (first, second) = (mounts[writer].path(), mounts[1 - writer].path());
            let stop = &stop;
            scope.spawn(move || {
                for number in 1..400 {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    std::fs::write(first.join(format!("x/a{writer}")), number.to_string()).unwrap();
                    std::fs::write(second.join(format!("y/b{writer}")), number.to_string()).unwrap();
                }
            });
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..12 {
                let name = format!("s{round}");
                // By a command, and by each of the mounts.
                match round % 3 {
                    0 => drop(library.create_snapshot(Some(&name)).unwrap()),
                    mount => std::fs::create_dir(mounts[mount - 1].join(".sepia/snapshots").join(&name)).unwrap(),
                }
                for view in &mounts {
                    let view = view.join(".sepia/snapshots").join(&name);
                    for writer in 0..2 {
                        let number = |path: String| -> u64 {
                            let text = std::fs::read_to_string(view.join(path)).unwrap_or_default();
                            text.parse().unwrap_or(0)
                        };
                        let (a, b) = (number(format!("x/a{writer}")), number(format!("y/b{writer}")));
                        // A file that was just truncated is not saved yet; one that was just made has no bytes.
                        assert!(a == b || a == b + 1, "{name}: a {a}, b {b}");
                    }
                }
            }
        }));
        stop.store(true, Ordering::Relaxed);
        result.unwrap();
    });
    for mount in mounts {
        mount.unmount();
    }
}
