//! Many at once: what each precondition is for.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const THREADS: usize = 8;

/// Runs `act` on all threads at the same moment, and returns the sum of what they return.
fn at_once(act: &(dyn Fn(usize) -> usize + Sync)) -> usize {
    let (start, sum) = (Barrier::new(THREADS), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (start, sum) = (&start, &sum);
            scope.spawn(move || {
                start.wait();
                sum.fetch_add(act(thread), Ordering::Relaxed);
            });
        }
    });
    sum.into_inner()
}

pub fn one_reserves(b: &dyn Backend) {
    for round in 0..20 {
        let path = key(&format!("f{round}"));
        let won = at_once(&|_| match b.reserve(&path, 0o644, &Creator::current()) {
            Ok(stat) => {
                let first = good(commit(b, &path, b"mine", &when(stat.precondition())));
                assert_eq!(first.generation, Some(Generation::FIRST));
                1
            }
            Err(Error::Exists(_)) => 0,
            Err(other) => panic!("the wrong error: {other:?}"),
        });
        assert_eq!(won, 1);
    }
}

pub fn one_commits(b: &dyn Backend) {
    for round in 0..10 {
        let path = format!("f{round}");
        // A new object, then one that exists.
        for number in 1..=3 {
            let expect = b.stat(&key(&path)).map_or(Precondition::Absent, |stat| stat.precondition());
            let won = at_once(&|thread| match commit(b, &key(&path), thread.to_string().as_bytes(), &when(expect)) {
                Ok(stat) => {
                    assert_eq!(stat.generation, Some(generation(number)));
                    1
                }
                lost => {
                    stale(lost, expect, Some(generation(number)));
                    0
                }
            });
            assert_eq!((won, current(b, &path)), (1, number));
        }
        assert_eq!(numbers(b, &path), [1, 2], "those who lost leave nothing");
    }
}

/// Which are one file that is replaced in place.
pub fn names_of_one_object_take_turns(b: &dyn Backend) {
    const EACH: usize = 20;
    put(b, "a", "0");
    if !b.capabilities().hard_links {
        refused!(b.link(&key("a"), &key("b"), &Precondition::Any), Error::Unsupported(..));
        return;
    }
    good(b.link(&key("a"), &key("b"), &Precondition::Any));
    let length = |thread: usize, round: usize| 20_000 + 1000 * thread + round;
    at_once(&|thread| {
        let path = key(if thread % 2 == 0 { "a" } else { "b" });
        for round in 0..EACH {
            let bytes = vec![b'A' + thread as u8; length(thread, round)];
            good(commit(b, &path, &bytes, &when(Precondition::Any)));
        }
        0
    });
    let is_whole = |bytes: &[u8]| {
        let thread = usize::from(bytes[0].wrapping_sub(b'A'));
        let rounds = length(thread, 0)..length(thread, EACH);
        bytes == b"0" || (rounds.contains(&bytes.len()) && bytes.iter().all(|byte| *byte == bytes[0]))
    };
    let mut seen = 0;
    for path in ["a", "b"] {
        for info in kept(b, path) {
            let bytes = read_all(&good(b.open_generation(&key(path), info.generation)).file);
            assert!(is_whole(&bytes[..info.size as usize]), "generation {} of {path} is torn", info.generation);
            seen += 1;
        }
        assert!(is_whole(&read_all(&good(b.open(&key(path))).file)));
    }
    assert!(seen >= EACH * THREADS, "{seen} generations: each save is one, under the name that it was saved by");
}

pub fn increments_add_up(b: &dyn Backend) {
    const EACH: usize = 50;
    put(b, "n", "0");
    let retries = at_once(&|_| {
        let mut retries = 0;
        for _ in 0..EACH {
            loop {
                let opened = good(b.open(&key("n")));
                let bytes = read_all(&opened.file);
                let n: u64 = text(bytes).parse().unwrap_or_else(|e| panic!("a torn number: {e}"));
                match commit(b, &key("n"), (n + 1).to_string().as_bytes(), &when(opened.stat.precondition())) {
                    Ok(_) => break,
                    Err(Error::Stale { .. }) => retries += 1,
                    Err(other) => panic!("the wrong error: {other:?}"),
                }
            }
        }
        retries
    });
    let total = (THREADS * EACH) as u64;
    assert_eq!(read(b, "n"), total.to_string(), "after {retries} retries");
    assert_eq!((current(b, "n"), numbers(b, "n")), (total + 1, (1..=total).collect()));
    for number in [1, 2, total / 2, total] {
        assert_eq!(read_generation(b, "n", number), (number - 1).to_string());
    }
}

pub fn appends_add_up(b: &dyn Backend) {
    const EACH: usize = 10;
    let base = put(b, "log", "base\n");
    at_once(&|thread| {
        for n in 0..EACH {
            let how = super::appends::merge(&base);
            good(append(b, "log", base.size, &format!("{thread}.{n}\n"), &how));
        }
        0
    });
    let text = read(b, "log");
    let mut lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.remove(0), "base");
    for thread in 0..THREADS {
        let own: Vec<_> = lines.iter().filter(|line| line.starts_with(&format!("{thread}."))).collect();
        assert_eq!(own.len(), EACH);
        assert!(own.iter().enumerate().all(|(n, line)| **line == format!("{thread}.{n}")), "in order");
    }
    assert_eq!(current(b, "log"), (THREADS * EACH) as u64 + 1);
    assert_eq!(read_generation(b, "log", 1), "base\n");
}

pub fn one_name_one_kind(b: &dyn Backend) {
    for round in 0..20 {
        let path = key(&format!("n{round}"));
        let creator = Creator::current();
        let won = at_once(&|thread| {
            let result = match thread % 4 {
                0 => b.create_dir(&path, 0o755, &creator),
                1 => b.create_symlink(&path, b"t", &creator),
                2 => b.reserve(&path, 0o644, &creator),
                _ => match commit(b, &path, b"x", &when(Precondition::Absent)) {
                    Err(Error::Stale { .. } | Error::IsDirectory(_) | Error::Invalid(..)) => {
                        Err(Error::Exists(path.clone()))
                    }
                    other => other,
                },
            };
            match result {
                Ok(_) => 1,
                Err(Error::Exists(_)) => 0,
                Err(other) => panic!("the wrong error: {other:?}"),
            }
        });
        assert_eq!(won, 1, "{path}");
    }
    assert_eq!(names(b, "").len(), 20);
}

pub fn removal_of_a_directory_against_creation(b: &dyn Backend) {
    for round in 0..20 {
        let dir = format!("d{round}");
        mkdir(b, &dir);
        at_once(&|thread| {
            if thread % 2 == 0 {
                match b.remove_dir(&key(&dir)) {
                    Ok(()) | Err(Error::NotEmpty(_) | Error::NotFound(_)) => {}
                    Err(other) => panic!("the wrong error: {other:?}"),
                }
                return 0;
            }
            match commit(b, &key(&format!("{dir}/{thread}")), b"x", &when(Precondition::Absent)) {
                // What was acknowledged is there.
                Ok(_) => assert_eq!(read(b, &format!("{dir}/{thread}")), "x"),
                Err(Error::NotFound(_) | Error::Stale { current: None, .. }) => {}
                Err(other) => panic!("the wrong error: {other:?}"),
            }
            0
        });
        match b.list(&key(&dir)) {
            Ok(entries) => assert!(!entries.is_empty(), "somebody tried to remove it when all was over"),
            Err(Error::NotFound(_)) => {}
            Err(other) => panic!("the wrong error: {other:?}"),
        }
    }
}

pub fn held_still_nothing_changes(b: &dyn Backend) {
    put(b, "f", "1");
    put(b, "g", "1");
    let still = good(b.hold_still());
    std::thread::scope(|scope| {
        let save = || {
            put(b, "f", "2");
        };
        let waiting = [scope.spawn(save), scope.spawn(|| good(b.remove(&key("g"), &ANY)))];
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(waiting.iter().all(|thread| !thread.is_finished()));
        // Looking is allowed meanwhile.
        assert_eq!(good(b.stat(&key("f"))).generation, Some(Generation::FIRST));
        assert_eq!(good(b.list(&Key::root())).len(), 2);
        drop(still);
    });
    assert_eq!(good(b.stat(&key("f"))).generation, Some(generation(2)));
    assert!(b.stat(&key("g")).is_err_and(|error| error.is_not_found()));
}
