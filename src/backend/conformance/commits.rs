//! Commits under every precondition.

use super::*;
use crate::backend::FileKind;
use crate::types::{ObjectId, Timestamp};

pub fn a_commit_makes_a_generation(b: &dyn Backend) {
    let first = good(commit(b, &key("f"), b"one", &when(Precondition::Absent)));
    assert_eq!((first.kind, first.generation, first.size), (FileKind::File, Some(Generation::FIRST), 3));
    assert!(first.committed.is_some() && first.recorded);
    assert_eq!((read(b, "f"), numbers(b, "f")), ("one".to_owned(), vec![]));
    let second = put(b, "f", "two!");
    assert_eq!((second.generation, second.id, second.size), (Some(generation(2)), first.id, 4));
    assert!(second.committed >= first.committed && !second.same_bytes(&first));
    assert_eq!(good(b.stat(&key("f"))), second);
    let [old] = &kept(b, "f")[..] else { panic!("one generation is kept") };
    assert_eq!((old.generation, old.size, old.deleted, &old.kept), (Generation::FIRST, 3, false, &Kept::Whole));
    assert_eq!((Some(old.committed), old.superseded, old.mtime), (first.committed, second.committed, first.mtime));
    assert_eq!((read_generation(b, "f", 1), read_generation(b, "f", 2)), ("one".to_owned(), "two!".to_owned()));
    // The same bytes once more are a generation too: it is the layer above that knows whether something changed.
    assert_eq!(put(b, "f", "two!").generation, Some(generation(3)));
    // An empty one, and a large one.
    assert_eq!((put(b, "f", "").size, read(b, "f")), (0, String::new()));
    let large = "0123456789abcdef".repeat(1 << 16);
    put(b, "f", &large);
    assert!(read(b, "f") == large);
}

pub fn a_fresh_precondition_holds(b: &dyn Backend) {
    let first = good(commit(b, &key("f"), b"1", &when(Precondition::Absent)));
    let second = good(commit(b, &key("f"), b"2", &when(Precondition::Generation(Generation::FIRST))));
    assert_eq!(second.id, first.id);
    let third = good(commit(b, &key("f"), b"3", &when(second.precondition())));
    let fourth = good(commit(b, &key("f"), b"4", &when(ANY)));
    assert_eq!([second.generation, third.generation, fourth.generation], [2, 3, 4].map(Generation::new));
    let reserved = good(b.reserve(&key("r"), 0o644, &Creator::current()));
    let first = good(commit(b, &key("r"), b"1", &when(Precondition::Reserved(reserved.id))));
    assert_eq!((first.generation, first.id), (Some(Generation::FIRST), reserved.id));
}

pub fn a_stale_commit_changes_nothing(b: &dyn Backend) {
    let first = put(b, "f", "1");
    let second = put(b, "f", "2");
    let other = put(b, "other", "x");
    let Precondition::Version(two, id, committed) = second.precondition() else { panic!("not a version: {second:?}") };
    let before = Timestamp::from_nanos(committed.nanos() - 1);
    let now = good(b.stat(&key("f")));
    for expect in [
        Precondition::Absent,
        Precondition::Generation(Generation::FIRST),
        Precondition::Generation(generation(3)),
        first.precondition(),
        Precondition::Version(two, other.id, committed),
        Precondition::Version(two, id, before),
        Precondition::Reserved(first.id),
    ] {
        for durable in [false, true] {
            let how = Commit { durable, ..when(expect) };
            stale(commit(b, &key("f"), b"lost", &how), expect, Generation::new(2));
            let amend = Commit { amend: true, ..how };
            stale(commit(b, &key("f"), b"lost", &amend), expect, Generation::new(2));
        }
        assert_eq!((read(b, "f"), read_generation(b, "f", 1)), ("2".to_owned(), "1".to_owned()));
        // Reading it may have counted as an access.
        let after = Stat { atime: now.atime, ..good(b.stat(&key("f"))) };
        assert_eq!((after, numbers(b, "f")), (now.clone(), vec![1]));
    }
}

pub fn commits_where_no_file_is(b: &dyn Backend) {
    let id = ObjectId::random();
    for expect in [
        Precondition::Generation(Generation::FIRST),
        Precondition::Version(Generation::FIRST, id, b.now()),
        Precondition::Reserved(id),
    ] {
        refused!(commit(b, &key("none"), b"x", &when(expect)), Error::Stale { current: None, .. } | Error::NotFound(_));
    }
    assert_eq!(names(b, ""), [""; 0], "a refused commit leaves no name");
    assert_eq!(numbers(b, "none"), [0; 0]);
    mkdir(b, "d");
    for expect in [ANY, Precondition::Absent, Precondition::Generation(Generation::FIRST)] {
        assert!(commit(b, &key("d"), b"x", &when(expect)).is_err());
        assert_eq!(good(b.stat(&key("d"))).kind, FileKind::Directory);
    }
    // Removed and made again, it is another object under a number that never was.
    let first = put(b, "f", "1");
    good(b.remove(&key("f"), &ANY));
    refused!(
        commit(b, &key("f"), b"x", &when(first.precondition())),
        Error::Stale { current: None, .. } | Error::NotFound(_)
    );
    let again = good(commit(b, &key("f"), b"2", &when(Precondition::Absent)));
    assert!(again.id != first.id && again.generation > first.generation);
    refused!(commit(b, &key("f"), b"x", &when(first.precondition())), Error::Stale { current, .. } if current == again.generation);
}

pub fn a_commit_takes_the_staged_modification_time(b: &dyn Backend) {
    use rustix::fs::{Timespec, Timestamps};
    let staged = stage_at(b, &key("f"), 0, b"x");
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let times = Timestamps { last_access: time(5, 0), last_modification: time(1_000_000, 123_456_000) };
    rustix::fs::futimens(&**staged.file(), &times).unwrap_or_else(|e| panic!("can't set the time: {e}"));
    let stat = good(b.commit(&key("f"), staged, &when(ANY), &Creator::current()).map_err(|(error, _)| error));
    assert_eq!(stat.mtime, crate::types::Timestamp::from_parts(1_000_000, 123_456_000));
    assert!(stat.ctime > stat.mtime && stat.committed.is_some_and(|time| time > stat.mtime));
    put(b, "f", "y");
    assert_eq!(kept(b, "f")[0].mtime, stat.mtime);
}

pub fn reservations(b: &dyn Backend) {
    let creator = Creator { umask: 0o077, ..Creator::current() };
    let reserved = good(b.reserve(&key("f"), 0o666, &creator));
    assert_eq!((reserved.generation, reserved.size, reserved.mode), (None, 0, 0o600));
    let opened = good(b.open(&key("f")));
    assert_eq!((opened.stat.generation, opened.stat.id, read_all(&opened.file)), (None, reserved.id, vec![]));
    for expect in [
        Precondition::Absent,
        Precondition::Generation(Generation::FIRST),
        Precondition::Version(Generation::FIRST, reserved.id, b.now()),
        Precondition::Reserved(ObjectId::random()),
    ] {
        stale(commit(b, &key("f"), b"x", &when(expect)), expect, None);
    }
    let first = good(commit(b, &key("f"), b"1", &when(Precondition::Reserved(reserved.id))));
    assert_eq!((first.mode, read(b, "f")), (0o600, "1".to_owned()));
    // The reservation is used up, and was never a generation.
    refused!(
        commit(b, &key("f"), b"2", &when(Precondition::Reserved(reserved.id))),
        Error::Stale { current, .. } if current == first.generation
    );
    assert_eq!(numbers(b, "f"), [0; 0]);

    let reserved = good(b.reserve(&key("g"), 0o666, &creator));
    refused!(b.remove(&key("g"), &Precondition::Generation(Generation::FIRST)), Error::Stale { current: None, .. });
    let moved = good(b.rename(&key("g"), &key("h"), &RENAME));
    assert_eq!((moved.generation, moved.id), (None, reserved.id));
    good(b.remove(&key("h"), &Precondition::Reserved(reserved.id)));
    assert_eq!((numbers(b, "g"), numbers(b, "h")), (vec![], vec![]));
}

pub fn an_amendment_is_the_same_generation(b: &dyn Backend) {
    put(b, "f", "old");
    let second = put(b, "f", "2");
    let amend = |expect| Commit { amend: true, ..when(expect) };
    let amended = good(commit(b, &key("f"), b"2, longer", &amend(second.precondition())));
    assert_eq!((amended.generation, amended.id), (second.generation, second.id));
    assert_eq!((read(b, "f"), read_generation(b, "f", 1)), ("2, longer".to_owned(), "old".to_owned()));
    assert_eq!(numbers(b, "f"), [1]);
    good(commit(b, &key("f"), b"3", &when(amended.precondition())));
    assert_eq!((read_generation(b, "f", 2), numbers(b, "f")), ("2, longer".to_owned(), vec![1, 2]));
    refused!(commit(b, &key("f"), b"x", &amend(amended.precondition())), Error::Stale { current, .. } if current == Generation::new(3));
    assert_eq!(read_generation(b, "f", 2), "2, longer");
}

pub fn durable_commits(b: &dyn Backend) {
    let how = |expect| Commit { durable: true, ..when(expect) };
    mkdir(b, "d");
    let first = good(commit(b, &key("d/f"), b"1", &how(Precondition::Absent)));
    let second = good(commit(b, &key("d/f"), b"2", &how(first.precondition())));
    let amend = Commit { amend: true, ..how(second.precondition()) };
    let second = good(commit(b, &key("d/f"), b"2!", &amend));
    let third = good(append(b, "d/f", 2, "3", &how(second.precondition())));
    assert_eq!((third.generation, read(b, "d/f")), (Some(generation(3)), "2!3".to_owned()));
    assert_eq!((read_generation(b, "d/f", 1), read_generation(b, "d/f", 2)), ("1".to_owned(), "2!".to_owned()));
    good(b.open(&key("d/f"))).file.sync_all().unwrap_or_else(|e| panic!("an open generation can be synced: {e}"));
    good(b.sync_dir(&key("d")));
}

pub fn what_a_commit_makes_has_the_mode(b: &dyn Backend) {
    let how = |mode| Commit { mode, ..when(Precondition::Absent) };
    assert_eq!(good(commit(b, &key("f"), b"1", &how(0o600))).mode, 0o600);
    // What is there keeps its own.
    let again = Commit { mode: 0o644, ..when(ANY) };
    assert_eq!(good(commit(b, &key("f"), b"2", &again)).mode, 0o600);
    assert_eq!(good(b.stat(&key("f"))).mode, 0o600);
}

pub fn open_files_keep_their_bytes(b: &dyn Backend) {
    put(b, "f", "1");
    let first = good(b.open(&key("f")));
    put(b, "f", "22");
    let second = good(b.open(&key("f")));
    good(b.remove(&key("f"), &ANY));
    put(b, "f", "333");
    assert_eq!((read_all(&first.file), read_all(&second.file)), (b"1".to_vec(), b"22".to_vec()));
    assert_ne!(first.stat.incarnation, second.stat.incarnation);
}

pub fn removal_under_a_precondition(b: &dyn Backend) {
    let first = put(b, "f", "1");
    let second = put(b, "f", "2");
    for expect in [
        Precondition::Absent,
        Precondition::Generation(Generation::FIRST),
        Precondition::Version(generation(2), ObjectId::random(), b.now()),
        Precondition::Reserved(first.id),
    ] {
        stale(b.remove(&key("f"), &expect), expect, second.generation);
    }
    assert_eq!((read(b, "f"), numbers(b, "f")), ("2".to_owned(), vec![1]), "a refused removal leaves no trace");
    good(b.remove(&key("f"), &second.precondition()));
    refused!(b.stat(&key("f")), Error::NotFound(_));
    refused!(b.remove(&key("f"), &ANY), Error::NotFound(_));
    put(b, "g", "1");
    good(b.remove(&key("g"), &Precondition::Generation(Generation::FIRST)));
    assert_eq!(names(b, ""), [""; 0]);
}
