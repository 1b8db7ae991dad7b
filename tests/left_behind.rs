//! Processes that died in the middle of a rename or an append, and what others did before the store was recovered. Nothing
//! here starts a process: until it runs its program, a child would hold the locks of the dead.

mod common;

use std::fs;
use std::os::unix::fs::FileExt;

use common::library::{ANY, key, put, read};
use common::place::Place;
use rustix::fs::XattrFlags;
use sepia::Timestamp;
use sepia::backend::{Intent, Stat};
use sepia::store::{Actor, SessionOptions};

/// A process that dies in the middle of a rename leaves the history to the next recovery. Others go on meanwhile.
#[test]
fn a_history_that_was_left_behind_comes_before_what_was_saved_since() {
    type Act = fn(&Place);
    let saves: [(Act, &[&str]); 4] = [
        (|_| (), &["1", "12"]),
        (|place| put(&place.other(), "to/f", "other"), &["1", "12", "123"]),
        (
            |place| ["other", "another"].iter().for_each(|text| put(&place.store, "to/f", text)),
            &["1", "12", "123", "other"],
        ),
        (|place| place.append("to/f", "4"), &["1", "12", "123"]),
    ];
    for whole in [false, true] {
        for directory in [false, true] {
            for (save, expected) in saves {
                let place = Place::new();
                place.store.create_dirs(&key("from")).unwrap();
                match whole {
                    true => ["1", "12", "123"].into_iter().for_each(|text| put(&place.store, "from/f", text)),
                    false => place.grow("from/f", 3),
                }
                let (from, to) = if directory { ("from", "to") } else { ("from/f", "to/f") };
                fs::create_dir_all(place.path.join(".sepia/renames")).unwrap();
                fs::write(place.path.join(".sepia/renames/0123"), format!("{from}\n{to}\n")).unwrap();
                if !directory {
                    place.store.create_dirs(&key("to")).unwrap();
                }
                place.mv(from, to);
                save(&place);
                let current = read(&place.store.get(&key("to/f")).unwrap());
                place.store.recover().unwrap();
                put(&place.store, "to/f", "new");
                let expected: Vec<_> = expected.iter().copied().chain([current.as_str(), "new"]).collect();
                assert_eq!(place.shown("to/f"), expected, "whole {whole}, directory {directory}");
            }
        }
    }
}

/// Where the numbers overlap it counts on, and nothing shows other bytes.
#[test]
fn a_history_that_was_left_behind_counts_on() {
    let place = Place::new();
    for text in ["a", "b"] {
        put(&place.store, "f", text);
    }
    place.rename("f", "g");
    place.grow("h", 3);
    fs::create_dir_all(place.path.join(".sepia/renames")).unwrap();
    fs::write(place.path.join(".sepia/renames/0123"), "h\nf\n").unwrap();
    place.mv("h", "f");
    put(&place.other(), "f", "other");
    place.store.recover().unwrap();
    put(&place.store, "f", "new");
    let shown = place.shown("f");
    assert!(shown.ends_with(&["other".to_owned(), "new".to_owned()]), "{shown:?}");
    assert!(
        shown.iter().all(|text| ["a", "b", "1", "12", "123", "other", "new"].contains(&text.as_str())),
        "{shown:?}"
    );
    assert!(place.numbers("f").is_sorted_by(|a, b| a < b));
}

/// A process that dies between the end of an append and the end of its notes, and others that save before anybody cleans up.
#[test]
fn an_append_is_recognized_behind_what_others_have_saved() {
    type Act = fn(&Place);
    let others: [(&str, Act, &str); 3] = [
        ("nobody", |_| {}, "line 0\nours\n"),
        ("an append", |place| place.append("log", "theirs\n"), "line 0\nours\ntheirs\n"),
        ("another file", |place| put(&place.store, "log", "theirs\n"), "theirs\n"),
    ];
    // What was never being appended isn't taken for what others have saved, though they have saved the same line.
    let place = Place::new();
    put(&place.store, "log", "line 0\n");
    let dead = place.other();
    let mut session = dead.open_session(&key("log"), &SessionOptions::default()).unwrap();
    session.append(b"tick\n").unwrap();
    put(&place.store, "log", "other text\ntick\n");
    put(&place.store, "log", "third\n");
    drop((session, dead));
    place.store.recover().unwrap();
    assert_eq!(place.store.conflicts().unwrap().len(), 1, "the line is kept");

    for done in [true, false] {
        for (who, act, expected) in others {
            let place = Place::new();
            put(&place.store, "log", "line 0\n");
            let stat = place.store.stat(&key("log")).unwrap();
            let dead = place.other();
            let intent = Intent {
                key: key("log"),
                expect: stat.precondition(),
                append_from: Some(stat.size),
                base: Some(stat.incarnation),
                acknowledged: false,
                in_place: true,
                sum: None,
                copied: false,
            };
            let staged = dead.backend().staging().stage(&intent).unwrap();
            staged.file().write_all_at(b"ours\n", stat.size).unwrap();
            if done {
                place.append("log", "ours\n");
            }
            act(&place);
            drop((staged, dead));
            place.store.recover().unwrap();
            let found = read(&place.store.get(&key("log")).unwrap());
            let kept = place.store.conflicts().unwrap().len();
            match (done, who) {
                (true, _) => assert_eq!((found.as_str(), kept), (expected, 0), "{who}"),
                (false, "another file") => assert_eq!((found.as_str(), kept), (expected, 1), "{who}"),
                (false, _) => {
                    let theirs = if who == "nobody" { "" } else { "theirs\n" };
                    assert_eq!((found, kept), (format!("line 0\n{theirs}ours\n"), 0), "{who}");
                }
            }
        }
    }
}

/// What is noted before the bytes of an object with several names are replaced in its own file.
fn replacing(name: &str, stat: &Stat) -> Intent {
    Intent {
        key: key(name),
        expect: stat.precondition(),
        append_from: None,
        base: None,
        acknowledged: true,
        in_place: true,
        sum: None,
        copied: false,
    }
}

/// A process that dies while it replaces the bytes of an object that has two names, in the object's own file.
#[test]
fn half_a_save_into_an_object_with_two_names_is_finished() {
    let later = |stat: &Stat| Timestamp::from_nanos(stat.committed.unwrap().nanos() + 1000);
    for kept in [true, false] {
        for half in ["", "new by", "longer than the old bytes"] {
            for looks in [None, Some("f"), Some("g")] {
                let place = Place::new();
                put(&place.store, "f", "old bytes");
                fs::hard_link(place.path.join("f"), place.path.join("g")).unwrap();
                let stat = place.store.stat(&key("f")).unwrap();
                let dead = place.other();
                let intent = replacing("f", &stat);
                let staged = dead.backend().staging().stage(&intent).unwrap();
                staged.file().write_all_at(b"new bytes, all of them", 0).unwrap();
                if kept {
                    let history = place.path.join(".sepia/generations/f");
                    fs::create_dir_all(&history).unwrap();
                    let name = format!("1@{}-{}", stat.committed.unwrap(), later(&stat));
                    fs::write(history.join(name), "old bytes").unwrap();
                }
                let file = place.path.join("g");
                let rewritten = later(&stat).nanos().to_le_bytes();
                rustix::fs::setxattr(&file, "user.sepia.rewritten", &rewritten, XattrFlags::empty()).unwrap();
                fs::write(&file, half).unwrap();
                drop((staged, dead));

                let case = format!("kept {kept}, half {half:?}, looked at by {looks:?}");
                if let Some(name) = looks.filter(|_| kept) {
                    assert_eq!(read(&place.store.get(&key(name)).unwrap()), "old bytes", "{case}");
                }
                place.store.recover().unwrap();
                for name in ["f", "g"] {
                    let opened = place.store.get(&key(name)).unwrap();
                    assert_eq!(read(&opened), "new bytes, all of them", "{case}, {name}");
                    let number = if kept { 2 } else { 1 };
                    assert_eq!(opened.stat.generation.unwrap().get(), number, "{case}, {name}");
                }
                let shown: &[&str] =
                    if kept { &["old bytes", "new bytes, all of them"] } else { &["new bytes, all of them"] };
                assert_eq!(place.shown("f"), shown, "{case}");
                assert!(place.store.conflicts().unwrap().is_empty(), "{case}");
            }
        }
    }
}

/// What another program has written since it is not undone.
#[test]
fn what_was_not_begun_is_not_undone() {
    let place = Place::new();
    put(&place.store, "f", "old bytes");
    fs::hard_link(place.path.join("f"), place.path.join("g")).unwrap();
    let stat = place.store.stat(&key("f")).unwrap();
    let dead = place.other();
    let intent = replacing("f", &stat);
    let staged = dead.backend().staging().stage(&intent).unwrap();
    staged.file().write_all_at(b"new bytes", 0).unwrap();
    fs::write(place.path.join("g"), "by another program").unwrap();
    drop((staged, dead));
    place.store.recover().unwrap();
    assert_eq!(read(&place.store.get(&key("f")).unwrap()), "by another program");
    assert_eq!(place.store.conflicts().unwrap().len(), 1);
}

/// What a process was about to put into a history when it died is litter, and nothing that looks like a generation.
#[test]
fn what_was_half_kept_goes_and_takes_no_generations_place() {
    let place = Place::new();
    let (file, dir) = (key("d/f"), place.path.join(".sepia/generations/d/f"));
    for text in ["1", "2", "3"] {
        put(&place.store, "d/f", text);
        put(&place.store, "d/.f", text);
    }
    place.store.by(Actor::current()).remove(&file, &ANY, None).unwrap();
    let names = || -> Vec<_> {
        let names = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    };
    for name in names() {
        fs::write(dir.join(format!(".{name}")), "half").unwrap();
    }
    assert_eq!(names().len(), 6);
    assert_eq!(place.shown("d/f"), ["1", "2", "3"]);
    let backend = place.store.backend();
    let dropped = backend.drop_generations(&file, &backend.generations(&file).unwrap(), true).unwrap();
    assert!(dropped.iter().all(Result::is_ok), "{dropped:?}");
    assert!(place.shown("d/f").is_empty(), "{:?}", place.shown("d/f"));
    assert!(names().iter().all(|name| !name.starts_with('.')), "{:?}", names());
    assert_eq!(place.shown("d/.f"), ["1", "2", "3"]);
}
