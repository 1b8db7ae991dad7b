//! Saves and appends that were cut short.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use crate::common::library::{ANY, key, put, read};
use crate::common::place::Place;
use rustix::fs::{IFlags, XattrFlags};
use sepia::Timestamp;
use sepia::backend::{Intent, Stat};
use sepia::store::{Actor, Outcome, Reason, Recovered, Session, SessionOptions};

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

/// What a process has done before it dies while it replaces the bytes of an object with several names.
trait Half {
    /// Keeps a copy of what is current.
    fn keep_copy(&self, name: &str, stat: &Stat);
    /// Notes on the file that its bytes are being replaced.
    fn begin(&self, name: &str);
}

impl Half for Place {
    fn keep_copy(&self, name: &str, stat: &Stat) {
        let history = self.path.join(".sepia/generations").join(name);
        fs::create_dir_all(&history).unwrap();
        let (number, committed) = (stat.generation.unwrap(), stat.committed.unwrap());
        let kept = history.join(format!("{number}@{committed}-{}", Timestamp::now()));
        fs::copy(self.path.join(name), kept).unwrap();
    }

    fn begin(&self, name: &str) {
        let now = Timestamp::now().nanos().to_le_bytes();
        rustix::fs::setxattr(self.path.join(name), "user.sepia.rewritten", &now, XattrFlags::empty()).unwrap();
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
    for kept in [true, false] {
        for half in ["", "new by", "new bytes, all"] {
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
                    place.keep_copy("f", &stat);
                }
                place.begin("g");
                fs::write(place.path.join("g"), half).unwrap();
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

/// The first save of an empty file that has two names: nothing is recorded that the half could differ from.
#[test]
fn half_of_the_first_save_into_an_object_with_two_names_is_finished() {
    for half in ["", "new by", "new bytes, all of them"] {
        for looks in [None, Some("f"), Some("g")] {
            let place = Place::new();
            fs::write(place.path.join("f"), "").unwrap();
            fs::hard_link(place.path.join("f"), place.path.join("g")).unwrap();
            let dead = place.other();
            let staged =
                dead.backend().staging().stage(&replacing("f", &place.store.stat(&key("f")).unwrap())).unwrap();
            staged.file().write_all_at(b"new bytes, all of them", 0).unwrap();
            place.begin("g");
            fs::write(place.path.join("g"), half).unwrap();
            drop((staged, dead));

            let case = format!("half {half:?}, looked at by {looks:?}");
            if let Some(name) = looks {
                let opened = place.store.get(&key(name)).unwrap();
                assert_eq!((opened.stat.generation, read(&opened)), (None, String::new()), "{case}");
            }
            place.store.recover().unwrap();
            for name in ["f", "g"] {
                let opened = place.store.get(&key(name)).unwrap();
                assert_eq!(read(&opened), "new bytes, all of them", "{case}, {name}");
                assert_eq!(opened.stat.generation.unwrap().get(), 1, "{case}, {name}");
            }
            assert!(place.store.conflicts().unwrap().is_empty(), "{case}");
        }
    }
}

/// A save that fails before it touches anything, of a process that dies then: nobody was told that it would be there.
#[test]
fn as_root_what_failed_is_not_finished_by_recovery() {
    type Write = fn(&mut Session);
    let whole: Write = |session| session.write_at(b"new bytes", 0).unwrap();
    let more: Write = |session| session.write_at(b", and more", 9).unwrap();
    for (what, write, names) in [("a copy", whole, 2), ("the first copy", whole, 2), ("an append", more, 1)] {
        let place = Place::new();
        let file = place.path.join("f");
        match what {
            "the first copy" => fs::write(&file, "").unwrap(),
            _ => put(&place.store, "f", "old bytes"),
        }
        if names > 1 {
            fs::hard_link(&file, place.path.join("g")).unwrap();
        }
        let before = fs::read(&file).unwrap();
        let dead = place.other();
        let mut session = dead.open_session(&key("f"), &SessionOptions::default()).unwrap();
        write(&mut session);
        let opened = File::open(&file).unwrap();
        rustix::fs::ioctl_setflags(&opened, IFlags::IMMUTABLE).unwrap();
        session.publish(&key("f"), true).expect_err("nobody can write to that file");
        rustix::fs::ioctl_setflags(&opened, IFlags::empty()).unwrap();
        let noted = dead.backend().staging().intents().unwrap();
        assert!(noted.iter().all(|intent| !intent.in_place && !intent.acknowledged), "{what}: {noted:?}");
        drop((session, dead));
        place.store.recover().unwrap();
        assert_eq!(fs::read(&file).unwrap(), before, "{what}");
        let reasons: Vec<_> = place.store.conflicts().unwrap().into_iter().map(|kept| kept.reason).collect();
        assert_eq!(reasons, [Reason::Interrupted], "{what}");
    }
}

/// One save that can't be finished keeps no other from being finished, and waits.
#[test]
fn as_root_what_cannot_be_recovered_keeps_nothing_else_from_it() {
    let place = Place::new();
    let names = ["a", "b", "c", "d", "e"];
    let dead = place.other();
    let mut sessions = Vec::new();
    for name in names {
        put(&place.store, name, "old bytes");
        let mut session = dead.open_session(&key(name), &SessionOptions::default()).unwrap();
        for text in ["new bytes", "newer bytes"] {
            session.write_at(text.as_bytes(), 0).unwrap();
            session.sync(&key(name)).unwrap();
        }
        sessions.push(session);
    }
    drop((sessions, dead));
    let opened = File::open(place.path.join("c")).unwrap();
    let found = |name: &str| fs::read_to_string(place.path.join(name)).unwrap();
    rustix::fs::ioctl_setflags(&opened, IFlags::IMMUTABLE).unwrap();
    // By one process that ends, and by another one.
    let (first, second) = (place.other(), place.other());
    let done = first.recover();
    let others: Vec<_> = names.into_iter().filter(|name| *name != "c").map(found).collect();
    drop(first);
    let again = second.recover();
    rustix::fs::ioctl_setflags(&opened, IFlags::empty()).unwrap();
    assert_eq!(others, ["newer bytes"; 4], "{done:?}");
    let waits = |done: &[Recovered]| done.iter().filter(|one| matches!(one.outcome, Outcome::Waits(_))).count();
    let (done, again) = (done.unwrap(), again.unwrap());
    assert_eq!((done.len(), waits(&done), again.len(), waits(&again)), (5, 1, 1, 1), "{done:?}, {again:?}");
    assert_eq!(found("c"), "new bytes");
    assert_eq!(second.recover().unwrap().len(), 1);
    assert_eq!(found("c"), "newer bytes");
    assert!(place.store.conflicts().unwrap().is_empty());
}

/// What fsync has acknowledged stays so, whatever fails afterwards.
#[test]
fn as_root_what_was_acknowledged_is_finished_though_a_later_save_failed() {
    let place = Place::new();
    let file = place.path.join("f");
    put(&place.store, "f", "old bytes");
    fs::hard_link(&file, place.path.join("g")).unwrap();
    let dead = place.other();
    let mut session = dead.open_session(&key("f"), &SessionOptions::default()).unwrap();
    for text in ["new bytes", "newer bytes"] {
        session.write_at(text.as_bytes(), 0).unwrap();
        session.sync(&key("f")).unwrap();
    }
    let opened = File::open(&file).unwrap();
    rustix::fs::ioctl_setflags(&opened, IFlags::IMMUTABLE).unwrap();
    session.publish(&key("f"), true).expect_err("nobody can write to that file");
    rustix::fs::ioctl_setflags(&opened, IFlags::empty()).unwrap();
    drop((session, dead));
    place.store.recover().unwrap();
    assert_eq!(read(&place.store.get(&key("g")).unwrap()), "newer bytes");
    assert!(place.store.conflicts().unwrap().is_empty());
}

/// What another program has written into a half is its own: it stays, and so does everything else.
#[test]
fn what_others_have_written_into_a_half_is_not_undone() {
    let half = |place: &Place, what: &str| {
        let stat = place.store.stat(&key("f")).unwrap();
        let dead = place.other();
        let append_from = (what == "an append").then_some(stat.size);
        let base = append_from.map(|_| stat.incarnation);
        let staged = dead.backend().staging().stage(&Intent { append_from, base, ..replacing("f", &stat) }).unwrap();
        staged.file().write_all_at(b"new bytes", append_from.unwrap_or(0)).unwrap();
        if what != "an append" {
            place.begin("g");
        }
        let written = if what == "an append" { "old bytesnew by" } else { "new by" };
        fs::write(place.path.join("f"), written.to_owned() + "stander").unwrap();
        drop((staged, dead));
        written.to_owned() + "stander"
    };
    for what in ["a copy", "the first copy", "an append"] {
        for looks in [false, true] {
            let place = Place::new();
            match what {
                "the first copy" => fs::write(place.path.join("f"), "").unwrap(),
                _ => put(&place.store, "f", "old bytes"),
            }
            if what != "an append" {
                fs::hard_link(place.path.join("f"), place.path.join("g")).unwrap();
            }
            if what == "a copy" {
                place.keep_copy("f", &place.store.stat(&key("f")).unwrap());
            }
            let written = half(&place, what);
            if looks {
                assert_eq!(read(&place.store.get(&key("f")).unwrap()), written, "{what}");
            }
            place.store.recover().unwrap();
            assert_eq!(read(&place.store.get(&key("f")).unwrap()), written, "{what}, {looks}");
            assert_eq!(place.store.conflicts().unwrap().len(), 1, "{what}, {looks}");
            let before: &[&str] = if what == "a copy" { &["old bytes"] } else { &[] };
            let shown: Vec<&str> = before.iter().copied().chain([written.as_str()]).collect();
            assert_eq!(place.shown("f"), shown, "{what}, {looks}");
        }
    }
}

/// After a power loss, what was staged may be torn as well: then it says nothing of what is behind the recorded end.
#[test]
fn half_an_append_is_undone_though_what_was_staged_is_torn() {
    let place = Place::new();
    put(&place.store, "f", "old bytes");
    let stat = place.store.stat(&key("f")).unwrap();
    let dead = place.other();
    let (append_from, sum) = (Some(stat.size), Some(12345));
    let intent = Intent { append_from, sum, acknowledged: false, ..replacing("f", &stat) };
    let staged = dead.backend().staging().stage(&intent).unwrap();
    staged.file().set_len(stat.size).unwrap();
    fs::write(place.path.join("f"), "old bytes\0\0\0").unwrap();
    drop((staged, dead));
    assert_eq!(read(&place.store.get(&key("f")).unwrap()), "old bytes");
    place.store.recover().unwrap();
    assert_eq!(place.shown("f"), ["old bytes"]);
}

/// Others look at it while who recovers the store has taken it over, and not come to it yet.
#[test]
fn half_a_save_that_is_being_recovered_is_no_change_from_outside() {
    for what in ["a copy", "the first copy", "an append"] {
        let place = Place::new();
        match what {
            "the first copy" => fs::write(place.path.join("f"), "").unwrap(),
            _ => put(&place.store, "f", "old bytes"),
        }
        let before = fs::read_to_string(place.path.join("f")).unwrap();
        let other = match what {
            "an append" => "f",
            _ => {
                fs::hard_link(place.path.join("f"), place.path.join("g")).unwrap();
                "g"
            }
        };
        let stat = place.store.stat(&key("f")).unwrap();
        if what == "a copy" {
            place.keep_copy("f", &stat);
        }
        let dead = place.other();
        let append_from = (what == "an append").then_some(stat.size);
        let staged = dead.backend().staging().stage(&Intent { append_from, ..replacing("f", &stat) }).unwrap();
        staged.file().write_all_at(b"new bytes", append_from.unwrap_or(0)).unwrap();
        if what != "an append" {
            place.begin(other);
        }
        fs::write(place.path.join("f"), append_from.map_or(String::new(), |_| before.clone()) + "new by").unwrap();
        drop((staged, dead));

        let recovering = place.other();
        let taken = recovering.backend().take_abandoned().unwrap();
        assert_eq!(taken.len(), 1, "{what}");
        assert_eq!(read(&place.store.get(&key(other)).unwrap()), before, "{what}");
        drop((taken, recovering));
        place.store.recover().unwrap();
        let after = append_from.map_or(String::new(), |_| before.clone()) + "new bytes";
        assert_eq!(read(&place.store.get(&key(other)).unwrap()), after, "{what}");
        assert!(place.store.conflicts().unwrap().is_empty(), "{what}");
    }
}

/// What a dead process has appended to an object with two names, of which the other one was saved under meanwhile.
#[test]
fn what_is_set_aside_by_recovery_is_no_mix() {
    let place = Place::new();
    put(&place.store, "f", "old bytes");
    fs::hard_link(place.path.join("f"), place.path.join("g")).unwrap();
    let dead = place.other();
    let mut session = dead.open_session(&key("f"), &SessionOptions::default()).unwrap();
    session.append(b", and more").unwrap();
    put(&place.store, "g", "theirs");
    drop((session, dead));
    place.store.recover().unwrap();
    let kept = place.store.conflicts().unwrap();
    let bytes = std::io::read_to_string(place.store.open_conflict(&kept[0].id).unwrap()).unwrap();
    assert_eq!((bytes.as_str(), kept[0].base_lost), ("old bytes, and more", None));
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
