//! Snapshots through long histories: whatever becomes of the objects afterwards, a snapshot's bytes are found, or said to be
//! lost; never others.

mod common;
mod rig;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use common::library::{ANY, key, on_both, put, read};
use rig::Dice;
use sepia::backend::{self, Creator, FileKind, Rename, SetAttr, SetTime};
use sepia::store::{Error, SessionOptions, Snapshot};
use sepia::{Key, Store, Timestamp};

fn then(store: &Store, snapshot: &Snapshot, path: &str) -> String {
    read(&snapshot.open(store, &key(path)).unwrap())
}

/// A rename gives the object another number, and touch(1) another time: nothing is left but the time of its commit.
#[test]
fn what_was_touched_and_then_renamed_over_another_is_found() {
    on_both(|store| {
        put(store, "a", "AAAA");
        put(store, "b", "BBBB");
        put(store, "b", "CCCC");
        store.create_snapshot(Some("s")).unwrap();
        let time = Some(SetTime::At(Timestamp::from_parts(1_000_000, 7)));
        store.backend().set_attr(&key("a"), &SetAttr { mtime: time, ..SetAttr::default() }).unwrap();
        store.rename(&key("a"), &key("b"), ANY).unwrap();
        for text in ["AAAA", "DDDD"] {
            let snapshot = store.snapshot("s").unwrap();
            assert_eq!((then(store, &snapshot, "a"), then(store, &snapshot, "b")), ("AAAA".into(), "CCCC".into()));
            put(store, "b", text);
        }
        let held = store.protected_by_snapshots().unwrap();
        let kept = store.backend().generations(&key("b")).unwrap();
        assert_eq!(kept.iter().filter(|info| held.contains(&info.committed)).count(), 2, "{kept:?}");
    });
}

/// What another program has put into the store was committed when it was last changed, by its own account. So two
/// files may be of one time, and one size, and generation 1 each.
#[test]
fn another_file_of_the_same_time_is_not_taken_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::init(dir.path().to_str().unwrap()).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for name in ["a", "b"] {
        std::fs::write(dir.path().join(name), name.repeat(4)).unwrap();
        std::fs::File::options().write(true).open(dir.path().join(name)).unwrap().set_modified(time).unwrap();
    }
    store.create_snapshot(Some("s")).unwrap();
    std::fs::remove_file(dir.path().join("a")).unwrap();
    let snapshot = store.snapshot("s").unwrap();
    let error = snapshot.open(&store, &key("a")).unwrap_err();
    assert!(matches!(error, Error::SnapshotBytesLost { .. }), "{error}");
    store.rename(&key("b"), &key("c"), ANY).unwrap();
    assert_eq!(then(&store, &snapshot, "b"), "bbbb");
}

#[test]
fn a_time_that_is_yet_to_come_moves_no_snapshot_into_the_future() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::init(dir.path().to_str().unwrap()).unwrap();
    std::fs::write(dir.path().join("f"), "text").unwrap();
    let later = SystemTime::now() + Duration::from_secs(86400 * 365);
    std::fs::File::options().write(true).open(dir.path().join("f")).unwrap().set_modified(later).unwrap();
    let made = store.create_snapshot(None).unwrap();
    assert!(made.created <= store.now(), "{made:?}");
    let again = [store.create_snapshot(None).unwrap().name, store.create_snapshot(None).unwrap().name];
    assert!(!again.contains(&made.name) && again[0] != again[1], "{again:?}");
    let mut session = store.open_session(&key("g"), &SessionOptions::default()).unwrap();
    for text in ["one", "two"] {
        session.write_at(text.as_bytes(), 0).unwrap();
        session.publish(&key("g"), false).unwrap();
    }
    session.close(&key("g"));
    assert_eq!(store.history(&key("g")).unwrap().len(), 1, "a session that no snapshot is in is one generation");
}

/// A program that goes on writing in the store's directory keeps nobody from taking a snapshot of the rest, nor from
/// opening what it writes, and becomes no more generations than somebody looks at.
#[test]
fn what_changes_all_the_time_outside_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::init(dir.path().to_str().unwrap()).unwrap();
    put(&store, "f", "text");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Several, so that hardly a moment passes without a change.
        for file in (0..3).map(|_| std::fs::File::create(dir.path().join("log")).unwrap()) {
            let stop = &stop;
            scope.spawn(move || {
                for number in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    file.write_all_at(b"line\n", number * 5).unwrap();
                }
            });
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // An empty file that nobody has written to yet has no generation.
            while std::fs::metadata(dir.path().join("log")).unwrap().len() == 0 {
                std::thread::yield_now();
            }
            for _ in 0..5 {
                let made = store.create_snapshot(None).unwrap();
                let snapshot = store.snapshot(&made.name).unwrap();
                assert_eq!(then(&store, &snapshot, "f"), "text");
                let opened = store.get(&key("log")).unwrap();
                assert!(opened.stat.recorded && opened.stat.generation.is_some(), "{:?}", opened.stat);
            }
            let kept = store.backend().generations(&key("log")).unwrap().len();
            assert!(kept <= 15, "{kept} generations after ten looks and five snapshots");
        }));
        stop.store(true, Ordering::Relaxed);
        result.unwrap();
    });
}

/// Making names and changing attributes takes no lock, and is of one point in time all the same.
#[test]
fn names_and_attributes_are_of_the_point_in_time_too() {
    on_both(|store| {
        let me = Creator::current();
        for dir in ["links", "middle", "dirs", "x", "y"] {
            store.create_dirs(&key(dir)).unwrap();
        }
        for number in 0..200 {
            store.backend().reserve(&key(&format!("middle/{number}")), 0o644, &me).unwrap();
        }
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let store = &store;
            let stop = &stop;
            scope.spawn(move || {
                let backend = store.backend();
                for number in 1_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // Alternately in this order and in the other, since the listing has one, too.
                    let names = [format!("links/{number}"), format!("dirs/{number}")];
                    backend.create_symlink(&key(&names[0]), b"to", &me).unwrap();
                    backend.create_dir(&key(&names[1]), 0o755, &me).unwrap();
                    for dir in ["x", "y"] {
                        backend.set_xattr(&key(dir), OsStr::new("user.n"), number.to_string().as_bytes(), 0).unwrap();
                    }
                    if number > 20 {
                        store.remove(&key(&format!("links/{}", number - 20)), ANY).unwrap();
                        store.remove_dir(&key(&format!("dirs/{}", number - 20))).unwrap();
                    }
                }
            });
            let mut seen = Vec::new();
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for round in 0..30 {
                    let name = format!("s{round}");
                    store.create_snapshot(Some(&name)).unwrap();
                    let snapshot = store.snapshot(&name).unwrap();
                    let last = |dir: &str| -> u64 {
                        let dir = key(dir);
                        let names = snapshot.children(&dir);
                        names.map(|e| e.key.name().unwrap().to_str().unwrap().parse().unwrap()).max().unwrap_or(0)
                    };
                    let attribute = |dir: &str| -> u64 {
                        let value = snapshot.entry(&key(dir)).unwrap().xattrs.get(OsStr::new("user.n"));
                        value.map_or(0, |value| std::str::from_utf8(value).unwrap().parse().unwrap())
                    };
                    let order = [last("links"), last("dirs"), attribute("x"), attribute("y")];
                    assert!(order.is_sorted_by(|a, b| a >= b) && order[0] <= order[3] + 1, "{name}: {order:?}");
                    seen.push(order[0]);
                    store.delete_snapshot(&name).unwrap();
                }
            }));
            stop.store(true, Ordering::Relaxed);
            result.unwrap();
            assert!(seen[29] > seen[0] + 10, "the writer stood still: {seen:?}");
        });
    });
}

// At random

const FILES: [&str; 7] = ["a", "b", "c", "d/x", "d/y", "e/x", "d/z/w"];
const DIRS: [&str; 4] = ["d", "e", "f", "d/z"];

/// All files that there are, with their bytes.
fn everything(store: &Store) -> BTreeMap<Key, String> {
    let mut all = BTreeMap::new();
    let mut pending = vec![Key::root()];
    while let Some(dir) = pending.pop() {
        for entry in store.list(&dir).unwrap() {
            let key = dir.child(&entry.name).unwrap();
            match entry.kind {
                FileKind::Directory => pending.push(key),
                _ => drop(all.insert(key.clone(), read(&store.get(&key).unwrap()))),
            }
        }
    }
    all
}

struct Run {
    store: Store,
    dice: Dice,
    number: u64,
    taken: BTreeMap<String, BTreeMap<Key, String>>,
}

impl Run {
    fn text(&mut self) -> String {
        self.number += 1;
        // Often of one length, so that only what they are tells them apart.
        format!("{:04}{}", self.number, "x".repeat(self.dice.below(2) as usize * 3))
    }

    fn file(&mut self) -> Key {
        key(FILES[self.dice.below(FILES.len() as u64) as usize])
    }

    fn dir(&mut self) -> Key {
        key(DIRS[self.dice.below(DIRS.len() as u64) as usize])
    }

    /// One change. What is refused, for there is no such thing or there is one already, is no change.
    fn step(&mut self) {
        let (store, text) = (self.store.clone(), self.text());
        let (a, b) = (self.file(), self.file());
        let exchange = store.backend().capabilities().exchange && self.dice.one_in(3);
        let how = Rename { expect_from: ANY, expect_to: ANY, exchange };
        match self.dice.below(16) {
            0..=2 => drop(store.put(&a, &mut text.as_bytes(), ANY)),
            3 | 4 => self.session(&a, &text, false),
            5 => self.session(&a, &text, true),
            6 | 7 => drop(store.backend().rename(&a, &b, &how)),
            8 => {
                let (from, to) = (self.dir(), self.dir());
                drop(store.backend().rename(&from, &to, &how));
            }
            9 => drop(store.remove(&a, ANY)),
            10 => drop(store.backend().link(&a, &b, &ANY)),
            11 => {
                let time = Some(SetTime::At(Timestamp::from_parts(self.number as i64, 0)));
                drop(store.backend().set_attr(&a, &SetAttr { mtime: time, ..SetAttr::default() }));
            }
            12 | 13 => self.take(),
            14 => self.collect(),
            _ => self.restore(),
        }
    }

    fn session(&mut self, key: &Key, text: &str, append: bool) {
        if store_dirs(&self.store, key).is_err() {
            return;
        }
        let options = SessionOptions { truncate: !append, ..SessionOptions::default() };
        let Ok(mut session) = self.store.open_session(key, &options) else { return };
        for part in [text, "+"] {
            session.append(part.as_bytes()).unwrap();
            session.publish(key, self.dice.one_in(2)).unwrap();
            if self.dice.one_in(3) {
                self.take();
            }
        }
        if !append {
            session.write_at(b"#", 0).unwrap();
            session.publish(key, false).unwrap();
        }
        session.close(key);
    }

    fn take(&mut self) {
        if self.taken.len() > 4
            && let Some(name) = self.taken.keys().nth(self.dice.below(5) as usize).cloned()
        {
            self.store.delete_snapshot(&name).unwrap();
            self.taken.remove(&name);
        }
        let name = self.store.create_snapshot(None).unwrap().name;
        self.taken.insert(name, everything(&self.store));
    }

    /// Drops what no snapshot refers to, some of it.
    fn collect(&mut self) {
        let backend = self.store.backend();
        for key in backend.histories(&Key::root()).unwrap() {
            let generations = backend.generations(&key).unwrap();
            let held = self.store.protected_by_snapshots().unwrap();
            for info in generations.iter().filter(|info| !held.contains(&info.committed)) {
                match self.dice.one_in(2).then(|| backend.drop_generation(&key, info.generation)) {
                    None | Some(Ok(()) | Err(backend::Error::NoGeneration(..) | backend::Error::Invalid(..))) => {}
                    Some(Err(error)) => panic!("{error}"),
                }
            }
        }
    }

    fn restore(&mut self) {
        let Some((name, was)) = self.taken.iter().nth(self.dice.below(4) as usize) else { return };
        let snapshot = self.store.snapshot(name).unwrap();
        // Twice where one name's file is to become another's directory, say: what was in the way is gone then.
        for _ in 0..2 {
            let plan = self.store.plan_restoration(&snapshot, &Key::root(), true).unwrap();
            if plan.apply(&self.store, &mut |_| {}).failed.is_empty() {
                break;
            }
        }
        let plan = self.store.plan_restoration(&snapshot, &Key::root(), true).unwrap();
        assert_eq!(plan.changes(), [], "{name} is not restored");
        assert_eq!(&everything(&self.store), was, "{name} is restored otherwise");
    }

    fn check(&self) {
        for (name, was) in &self.taken {
            let snapshot = self.store.snapshot(name).unwrap();
            let files = snapshot.entries().filter(|entry| entry.stat.kind == FileKind::File);
            assert_eq!(files.count(), was.len(), "{name}");
            for (key, text) in was {
                let found = snapshot.open(&self.store, key).map(|opened| read(&opened));
                assert_eq!(found.as_ref().ok(), Some(text), "{name}: {key}: {found:?}");
            }
        }
    }
}

fn store_dirs(store: &Store, key: &Key) -> sepia::Result<()> {
    key.parent().map_or(Ok(()), |dir| store.create_dirs(&dir))
}

/// `SEPIA_HISTORIES` says how many (30 on each backend). The same on every machine, so that a change is judged by what it
/// does; `SEPIA_SEED=N` tries others.
#[test]
fn no_history_of_changes_takes_a_snapshots_bytes_away() {
    let runs = rig::number_from_env("SEPIA_HISTORIES").unwrap_or(30);
    let mut dice = Dice::new(rig::number_from_env("SEPIA_SEED").unwrap_or(20_261_123));
    for round in 0..runs * 2 {
        let dir = tempfile::tempdir().unwrap();
        let url = dir.path().to_str().unwrap();
        let on_disk = round % 2 == 0;
        let store = if on_disk { Store::init(url).unwrap() } else { Store::open("memory:").unwrap() };
        let seed = dice.roll();
        println!("round {round}, seed {seed}");
        let mut run = Run { store, dice: Dice::new(seed), number: 0, taken: BTreeMap::new() };
        for step in 0..80 {
            run.step();
            // A process remembers renames that another one doesn't know of.
            if on_disk && run.dice.one_in(12) {
                run.store = Store::open(url).unwrap();
            }
            if step % 8 == 7 {
                run.check();
            }
        }
        run.check();
    }
}
