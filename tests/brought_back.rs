//! Histories in which a power loss has left notes on what was torn: what is before these keeps its bytes, and never shows
//! those of what came later.

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, symlink};

use common::library::{ANY, key, put, read};
use common::place::Place;
use rustix::fs::{Mode, OFlags, XattrFlags};
use sepia::backend::{Intent, Kept};
use sepia::{Store, Timestamp};

const BACK: &str = "torn by a power loss; brought back: 1";
const TORN: &str = "torn by a power loss";

/// Where the first generation of an object is the beginning of the second, puts these notes behind it, as if a power
/// loss had torn so many.
fn torn(place: &Place, name: &str, notes: &[&str]) {
    place.grow(name, 2);
    let history = place.path.join(".sepia/generations").join(name);
    for (number, note) in (2..).zip(notes) {
        let entry = format!("{number}@20261123T100000.000000000Z-20261123T110000.000000000Z");
        symlink(note, history.join(entry)).unwrap();
    }
    let file = rustix::fs::open(place.path.join(name), OFlags::RDONLY, Mode::empty()).unwrap();
    let mut record = [0; 64];
    let length = rustix::fs::fgetxattr(&file, "user.sepia", &mut record[..]).unwrap();
    record[1] += notes.len() as u8;
    rustix::fs::fsetxattr(&file, "user.sepia", &record[..length], XattrFlags::empty()).unwrap();
}

/// Both ways in which a power loss leaves notes: the last is torn, or the one before it as well.
const NOTES: [&[&str]; 2] = [&[BACK], &[TORN, BACK]];

#[test]
fn a_beginning_survives_its_object() {
    for notes in NOTES {
        let place = Place::new();
        torn(&place, "f", notes);
        put(&place.store, "f", "new");
        assert_eq!(place.shown("f"), ["1", "12", "new"], "{notes:?}");
    }
}

#[test]
fn nobody_inherits_a_beginning() {
    for notes in NOTES {
        let place = Place::new();
        torn(&place, "f", notes);
        for number in 1..=7 {
            put(&place.store, "g", &format!("other {number}"));
        }
        place.mv("g", "f");
        assert_eq!(place.then("f", 1), None, "{notes:?}");
        put(&place.store, "f", "new");
        assert_eq!(place.then("f", 1), None, "after a save, {notes:?}");
        // The note that says so stays as long as it is needed.
        let backend = place.store.backend();
        let all = backend.generations(&key("f")).unwrap();
        let _ = backend.drop_generations(&key("f"), &all[1 + notes.len()..][..1], false).unwrap();
        assert_eq!(place.then("f", 1), None, "after a drop, {notes:?}");
    }
}

/// A name that was left for another one.
#[test]
fn a_beginning_is_kept_for_the_name_that_it_had() {
    for notes in NOTES {
        let place = Place::new();
        torn(&place, "f", notes);
        place.rename("f", "g");
        put(&place.store, "f", "new");
        put(&place.store, "f", "newer");
        assert_eq!(place.then("f", 1).as_deref(), Some("1"), "{notes:?}");
        assert_eq!(place.shown("g"), ["1", "12"], "{notes:?}");
    }
}

#[test]
fn a_beginning_outlives_another_power_loss() {
    for notes in NOTES {
        let place = Place::new();
        torn(&place, "f", notes);
        put(&place.store, "f", "new");
        let number = 2 + notes.len();
        let history = fs::read_dir(place.path.join(".sepia/generations/f")).unwrap().map(Result::unwrap);
        let mut kept = history.filter(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{number}@")));
        let kept = fs::OpenOptions::new().write(true).open(kept.next().unwrap().path()).unwrap();
        kept.write_all_at(b"\0", 1).unwrap();
        let place = after_a_power_loss(place);
        assert_eq!(place.shown("f"), ["1", "new"], "{notes:?}");
    }
}

#[test]
fn a_beginning_goes_along() {
    for notes in NOTES {
        let place = Place::new();
        torn(&place, "f", notes);
        place.rename("f", "g");
        assert_eq!(place.shown("g"), ["1", "12"], "{notes:?}");
        place.store.remove(&key("g"), ANY).unwrap();
        assert_eq!(place.shown("g"), ["1", "12"], "{notes:?}");
    }
}

/// Of an object that another program has moved, other names may have beginnings, too.
#[test]
fn what_was_moved_outside_and_torn_shows_nothing_else() {
    let place = Place::new();
    place.grow("f", 3);
    place.mv("f", "g");
    place.append("g", "4");
    place.append("g", "5");
    let file = fs::OpenOptions::new().write(true).open(place.path.join("g")).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(b"\0", 4).unwrap();
    file.set_modified(modified).unwrap();
    let place = after_a_power_loss(place);
    assert_eq!(place.shown("g"), ["123", "1234", "1234"]);
    put(&place.store, "g", "new");
    assert_eq!(place.shown("g"), ["123", "1234", "1234", "new"]);
    place.mv("g", "f");
    assert_eq!((place.then("f", 1), place.then("f", 2)), (None, None));
}

/// What Sepia finds when the machine is on again, and something was torn.
fn after_a_power_loss(place: Place) -> Place {
    let Place { _dir, path, store } = place;
    drop(store);
    fs::write(path.join(".sepia/settled"), r#"{"mounting":"another","through":0,"clean":false}"#).unwrap();
    let place = Place { store: Store::open(path.to_str().unwrap()).unwrap(), _dir, path };
    assert_eq!(place.store.recover().unwrap().len(), 1);
    place
}

/// Of an append that was under way nothing may have reached the medium but the time: on xfs the size follows the bytes.
#[test]
fn what_was_about_to_be_appended_to_is_as_it_was() {
    let place = Place::new();
    place.grow("log", 2);
    let stat = place.store.stat(&key("log")).unwrap();
    let later = Timestamp::from_nanos(stat.committed.unwrap().nanos() + 1000);
    let name = format!("2@{}-{later}", stat.committed.unwrap());
    let note = format!("first {} bytes of 3 of {}", stat.size, stat.id);
    symlink(note, place.path.join(".sepia/generations/log").join(name)).unwrap();
    let file = fs::OpenOptions::new().write(true).open(place.path.join("log")).unwrap();
    file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(1)).unwrap();
    let Place { _dir, path, store } = place;
    drop(store);
    fs::write(path.join(".sepia/settled"), r#"{"mounting":"another","through":0,"clean":false}"#).unwrap();
    let place = Place { store: Store::open(path.to_str().unwrap()).unwrap(), _dir, path };
    assert!(place.store.recover().unwrap().is_empty());
    assert_eq!((place.shown("log"), place.numbers("log")), (vec!["1".to_owned(), "12".to_owned()], vec![1, 2]));
    place.append("log", "3");
    assert_eq!(place.shown("log"), ["1", "12", "123"]);
}

/// Or something of it, while what was appended before never did: then nothing of both is shown.
#[test]
fn what_was_torn_is_so_though_another_append_was_under_way() {
    for found in ["1\0\0", "1\0", "1"] {
        let place = Place::new();
        place.grow("log", 2);
        let stat = place.store.stat(&key("log")).unwrap();
        let name = format!("2@{}-{}", stat.committed.unwrap(), Timestamp::now());
        let note = format!("first {} bytes of 3 of {}", stat.size, stat.id);
        symlink(note, place.path.join(".sepia/generations/log").join(name)).unwrap();
        let file = fs::OpenOptions::new().write(true).open(place.path.join("log")).unwrap();
        file.set_len(found.len() as u64).unwrap();
        file.write_all_at(found.as_bytes(), 0).unwrap();
        file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(1)).unwrap();
        let place = after_a_power_loss(place);
        assert_eq!(place.shown("log"), ["1", "1"], "{found:?}");
        place.append("log", "3");
        assert_eq!(place.shown("log"), ["1", "1", "13"], "{found:?}");
    }
}

/// An amendment makes no note in the history; the journal tells.
#[test]
fn what_was_torn_is_so_though_an_amendment_was_under_way() {
    let place = Place::new();
    place.grow("log", 2);
    let stat = place.store.stat(&key("log")).unwrap();
    let dead = place.other();
    let intent = Intent {
        key: key("log"),
        expect: stat.precondition(),
        append_from: Some(stat.size),
        base: Some(stat.incarnation),
        acknowledged: false,
        in_place: true,
        sum: Some(12345),
        copied: false,
    };
    let staged = dead.backend().staging().stage(&intent).unwrap();
    staged.file().write_all_at(b"3", stat.size).unwrap();
    let file = fs::OpenOptions::new().write(true).open(place.path.join("log")).unwrap();
    file.write_all_at(b"1\0\0", 0).unwrap();
    file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(1)).unwrap();
    let Place { _dir, path, store } = place;
    drop((staged, dead, store));
    fs::write(path.join(".sepia/settled"), r#"{"mounting":"another","through":0,"clean":false}"#).unwrap();
    let place = Place { store: Store::open(path.to_str().unwrap()).unwrap(), _dir, path };
    place.store.recover().unwrap();
    assert_eq!(place.shown("log"), ["1", "1"]);
}

/// It has several names, and so is brought back in its own file.
#[test]
fn what_is_said_of_a_torn_object_with_two_names_stays() {
    let place = Place::new();
    place.grow("log", 2);
    fs::hard_link(place.path.join("log"), place.path.join("other")).unwrap();
    place.append("log", "3");
    let modified = fs::metadata(place.path.join("log")).unwrap().modified().unwrap();
    let file = fs::OpenOptions::new().write(true).open(place.path.join("log")).unwrap();
    file.write_all_at(b"\0", 2).unwrap();
    file.set_modified(modified).unwrap();
    let place = after_a_power_loss(place);
    let history = place.store.history(&key("log")).unwrap();
    let said: Vec<_> = history.iter().map(|info| (info.generation.get(), info.kept.clone())).collect();
    let torn = said.iter().find(|(number, _)| *number == 3).map(|(_, kept)| kept.clone());
    assert!(matches!(&torn, Some(Kept::Lost(note)) if note.starts_with(TORN)), "{said:?}");
    assert_eq!(place.shown("log"), ["1", "12", "12"]);
}

/// Somebody has cleared away all history under a living process, which mustn't look for it for ever.
#[test]
fn without_any_history_a_save_ends() {
    let place = Place::new();
    put(&place.store, "f", "1");
    put(&place.store, "f", "2");
    fs::remove_dir_all(place.path.join(".sepia/generations")).unwrap();
    let _ = place.store.put(&key("f"), &mut &b"3"[..], ANY);
    let again = Store::open(place.path.to_str().unwrap()).unwrap();
    put(&again, "f", "4");
    assert_eq!(read(&again.get(&key("f")).unwrap()), "4");
}
