//! IDs, the number of objects, renames, links and attributes, through the library.

use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Stdio};

use sepia::backend::{Creator, FileKind};
use sepia::store::{Actor, Limit, SessionOptions};
use sepia::{Error, Key, Precondition, Store};

use crate::{Place, everywhere, key, refused};

const ID: &str = "[[rule]]\nclass = 'Note'\nid = 'note-[0-9]+'\n";

fn rename(place: &Place, from: &str, to: &str) -> sepia::Result<()> {
    place.store.rename(&key(from), &key(to), Precondition::Any).map(drop)
}

fn make_dir(store: &Store, dir: &str) -> sepia::Result<()> {
    store.create_dirs(&key(dir).parent().unwrap())?;
    store.by(Actor::current()).create_dir(&key(dir), 0o755, &Creator::current()).map(drop)
}

#[test]
fn ids_are_checked_where_names_are_made() {
    everywhere(ID, |place| {
        place.put("Note/note-1", "x").unwrap();
        let said = refused(place.put("Note/other", "x"), Limit::Id);
        assert_eq!(said, "\"other\" is no ID of this class: they match note-[0-9]+");
        assert_eq!(place.last_rejected().1, b"x");
        refused(place.store.open_session(&key("Note/x"), &SessionOptions::default()), Limit::Id);
        refused(make_dir(&place.store, "Note/x"), Limit::Id);
        let by = place.store.by(Actor::current());
        refused(by.create_symlink(&key("Note/x"), b"note-1", &Creator::current()), Limit::Id);
        refused(by.create_empty(&key("Note/x"), 0o644, &Creator::current()), Limit::Id);
        refused(rename(place, "Note/note-1", "Note/x"), Limit::Id);
        place.put("Inbox/x", "y").unwrap();
        refused(rename(place, "Inbox/x", "Note/x"), Limit::Id);
        rename(place, "Inbox/x", "Note/note-2").unwrap();
        // What is in a container is no object of its own, and editors may write what they like.
        make_dir(&place.store, "Note/note-3").unwrap();
        place.put("Note/note-3/data.json", "{}").unwrap();
        place.put("Note/.note-1.swp", "\0").unwrap();
        refused(
            place.store.untrash(&key("Note/note-1"), None, &key("Note/note-1")).map(drop).or_else(|_| {
                place.store.remove(&key("Note/note-1"), Precondition::Any).unwrap();
                place.store.untrash(&key("Note/note-1"), None, &key("Note/back")).map(drop)
            }),
            Limit::Id,
        );
        place.store.untrash(&key("Note/note-1"), None, &key("Note/note-1")).unwrap();
        // All that a directory brings along.
        place.put("Work/note-7", "x").unwrap();
        place.put("Work/what", "x").unwrap();
        for name in ["note-1", "note-2"] {
            place.store.remove(&key(&format!("Note/{name}")), Precondition::Any).unwrap();
        }
        place.store.remove(&key("Note/note-3/data.json"), Precondition::Any).unwrap();
        place.store.remove(&key("Note/.note-1.swp"), Precondition::Any).unwrap();
        place.store.remove_dir(&key("Note/note-3")).unwrap();
        refused(rename(place, "Work", "Note"), Limit::Id);
        place.store.remove(&key("Work/what"), Precondition::Any).unwrap();
        rename(place, "Work", "Note").unwrap();
        assert_eq!(place.read("Note/note-7"), b"x");
    });
}

#[test]
fn what_has_a_name_already_can_be_saved() {
    everywhere("", |place| {
        place.put("Note/odd", "1").unwrap();
        place.store.backend().put_record(&key("config.toml"), ID.as_bytes()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2100));
        place.put("Note/odd", "2").unwrap();
        place.write("Note/odd", "3", false).unwrap();
        refused(place.put("Note/odder", "1"), Limit::Id);
    });
}

const THREE: &str = "[[rule]]\nclass = 'Note'\nmax_objects = 3\nexcept = ['README']\n";

#[test]
fn a_class_has_only_so_many_objects() {
    everywhere(THREE, |place| {
        make_dir(&place.store, "Note/1").unwrap();
        place.put("Note/1/member", "x").unwrap();
        place.put("Note/1/other", "x").unwrap();
        place.put("Note/2", "x").unwrap();
        place.put("Inbox/a", "x").unwrap();
        rename(place, "Inbox/a", "Note/3").unwrap();
        for name in ["Note/.2.swp", "Note/README", "Inbox/b"] {
            place.put(name, "not counted").unwrap();
        }
        let full = |place: &Place| {
            assert_eq!(refused(place.put("Note/new", "x"), Limit::MaxObjects), "Note has 3 objects, and may have 3");
            refused(place.store.open_session(&key("Note/new"), &SessionOptions::default()), Limit::MaxObjects);
            refused(make_dir(&place.store, "Note/new"), Limit::MaxObjects);
            refused(rename(place, "Inbox/b", "Note/new"), Limit::MaxObjects);
            refused(rename(place, "Note/README", "Note/new"), Limit::MaxObjects);
        };
        full(place);
        // What is there can be saved, replaced, and given another name.
        place.put("Note/2", "y").unwrap();
        rename(place, "Note/2", "Note/two").unwrap();
        rename(place, "Inbox/b", "Note/two").unwrap();
        place.put("Inbox/b", "x").unwrap();
        full(place);
        // What goes makes room, once.
        place.store.remove(&key("Note/two"), Precondition::Any).unwrap();
        place.put("Note/4", "x").unwrap();
        place.put("Note/4", "x").unwrap();
        place.store.remove(&key("Note/4"), Precondition::Any).unwrap();
        assert!(matches!(make_dir(&place.store, "Note/1"), Err(Error::Backend(_))), "it exists");
        place.put("Note/4", "x").unwrap();
        full(place);
        rename(place, "Note/3", "Note/4").unwrap();
        place.put("Note/3", "x").unwrap();
        full(place);
        rename(place, "Note/3", "Note/README").unwrap();
        place.put("Note/3", "x").unwrap();
        full(place);
        rename(place, "Note/1", "Inbox/1").unwrap();
        rename(place, "Inbox/1", "Note/1").unwrap();
        full(place);
        assert_eq!(place.rejected().len(), 6, "each time the bytes of one `put`");
    });
}

#[test]
fn a_directory_that_becomes_a_class_is_counted() {
    everywhere(THREE, |place| {
        for number in 0..4 {
            place.put(&format!("Work/{number}"), "x").unwrap();
        }
        refused(rename(place, "Work", "Note"), Limit::MaxObjects);
        place.store.remove(&key("Work/3"), Precondition::Any).unwrap();
        rename(place, "Work", "Note").unwrap();
        refused(place.put("Note/4", "x"), Limit::MaxObjects);
        rename(place, "Note", "Work").unwrap();
        for number in 0..3 {
            place.put(&format!("Note/{number}"), "x").unwrap();
        }
        refused(place.put("Note/4", "x"), Limit::MaxObjects);
    });
}

/// What doesn't go through Sepia changes the number, too.
#[test]
fn nobody_is_refused_for_what_is_long_gone() {
    let place = Place::on_disk(THREE);
    for number in 0..3 {
        place.put(&format!("Note/{number}"), "x").unwrap();
    }
    for number in 0..3 {
        fs::remove_file(place.path().join(format!("Note/{number}"))).unwrap();
    }
    for number in 0..3 {
        place.put(&format!("Note/{number}"), "x").unwrap();
    }
    refused(place.put("Note/4", "x"), Limit::MaxObjects);
    // As after a loss of power, which may have taken the record, or its end.
    let record = place.path().join(".sepia/counts/Note");
    for damage in ["", "{", "{\"count\":0,\"time\":0,\"boot\":\"\",\"names\":0}\n"] {
        fs::write(&record, damage).unwrap();
        refused(place.put("Note/4", "x"), Limit::MaxObjects);
    }
    fs::remove_file(&record).unwrap();
    refused(place.put("Note/4", "x"), Limit::MaxObjects);
}

#[test]
fn the_record_does_not_grow_without_end() {
    let place = Place::on_disk(THREE);
    make_dir(&place.store, "Note").unwrap();
    for _ in 0..9000 {
        place.store.reserve(&key("Note/a"), 0o600, &Creator::current()).unwrap();
        place.store.remove(&key("Note/a"), Precondition::Any).unwrap();
    }
    assert!(fs::metadata(place.path().join(".sepia/counts/Note")).unwrap().len() < 17 << 10);
    for number in 0..3 {
        place.put(&format!("Note/{number}"), "x").unwrap();
    }
    refused(place.put("Note/4", "x"), Limit::MaxObjects);
}

#[test]
fn processes_together_make_no_more_than_that() {
    let place = Place::on_disk("[[rule]]\nclass = 'Note'\nmax_objects = 50\n");
    make_dir(&place.store, "Note").unwrap();
    let mut children: Vec<_> = (0..4)
        .map(|number| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "names::helper_that_makes_objects", "--ignored", "--nocapture"])
                .env("SEPIA_TEST_STORE", place.path())
                .env("SEPIA_TEST_NUMBER", number.to_string())
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    // One dies in the middle of it.
    crate::common::wait_for("some objects", || {
        let made = fs::read_dir(place.path().join("Note")).map_or(0, Iterator::count);
        (made > 5).then_some(())
    });
    children[0].kill().unwrap();
    for child in &mut children {
        child.wait().unwrap();
    }
    assert_eq!(place.store.list(&key("Note")).unwrap().len(), 50);
    refused(place.put("Note/one-more", "x"), Limit::MaxObjects);
}

#[test]
#[ignore = "no test: `processes_together_make_no_more_than_that` runs it as a process of its own"]
fn helper_that_makes_objects() {
    let store = Store::open(&std::env::var("SEPIA_TEST_STORE").unwrap()).unwrap();
    let number = std::env::var("SEPIA_TEST_NUMBER").unwrap();
    let mut refusals = 0;
    for at in 0.. {
        let key = key(&format!("Note/{number}-{at}"));
        match store.reserve(&key, 0o600, &Creator::current()) {
            Ok(_) if at % 3 == 0 => store.remove(&key, Precondition::Any).unwrap(),
            Ok(_) => {}
            Err(Error::Rejected { .. }) => refusals += 1,
            Err(error) => panic!("{error}"),
        }
        if refusals > 20 {
            return;
        }
    }
}

const JSON: &str = "[[rule]]\nclass = 'Note'\njson = true\n[[rule]]\nclass = 'Note'\npath = '*.txt'\nmax_size = 5\n";

#[test]
fn what_is_renamed_into_a_class_obeys_its_rules() {
    everywhere(JSON, |place| {
        place.put("Note/a", "{}").unwrap();
        place.put("Inbox/words", "words").unwrap();
        place.put("Inbox/json", "[1, 2, 3]").unwrap();
        refused(rename(place, "Inbox/words", "Note/a"), Limit::Json);
        assert_eq!((place.read("Note/a"), place.read("Inbox/words")), (b"{}".to_vec(), b"words".to_vec()));
        refused(rename(place, "Inbox/json", "Note/a.txt"), Limit::MaxSize);
        rename(place, "Inbox/json", "Note/a").unwrap();
        assert_eq!(place.read("Note/a"), b"[1, 2, 3]");
        refused(rename(place, "Note/a", "Note/a.txt"), Limit::MaxSize);
        // An editor's own file has no rules, until it takes the place of the object.
        place.put("Note/a.tmp", "wor").unwrap();
        refused(rename(place, "Note/a.tmp", "Note/a"), Limit::Json);
        place.put("Note/a.tmp", "[4]").unwrap();
        rename(place, "Note/a.tmp", "Note/a").unwrap();
        // What was made and never saved takes no good object's place.
        place.store.reserve(&key("Inbox/empty"), 0o600, &Creator::current()).unwrap();
        refused(rename(place, "Inbox/empty", "Note/a"), Limit::Json);
        // All that is in a directory.
        place.put("Work/b1/good", "{}").unwrap();
        place.put("Work/b1/deep/bad", "{").unwrap();
        refused(rename(place, "Work/b1", "Note/b1"), Limit::Json);
        place.put("Work/b1/deep/bad", "0").unwrap();
        rename(place, "Work/b1", "Note/b1").unwrap();
        assert_eq!(place.read("Note/b1/deep/bad"), b"0");
        assert!(place.rejected().is_empty(), "what was refused is where it was");
    });
}

#[test]
fn names_of_one_file_have_the_same_rules() {
    let place = Place::on_disk(JSON);
    place.put("Note/a", "{}").unwrap();
    place.put("Inbox/a", "{}").unwrap();
    let by = place.store.by(Actor::current());
    let link = |from: &str, to: &str| by.link(&key(from), &key(to), &Precondition::Any).map(drop);
    refused(link("Inbox/a", "Note/b"), Limit::Links);
    refused(link("Note/a", "Inbox/b"), Limit::Links);
    link("Note/a", "Note/b").unwrap();
    refused(rename(&place, "Note/b", "Inbox/b"), Limit::Links);
    refused(rename(&place, "Note", "Work"), Limit::Links);
    rename(&place, "Note/b", "Note/c").unwrap();
    rename(&place, "Note/a", "Note/c").unwrap();
    assert_eq!(place.store.stat(&key("Note/a")).unwrap().kind, FileKind::File, "two names of one file stay");
}

#[test]
fn attributes_are_limited() {
    let policy = "[[rule]]\nclass = 'Note'\nmax_xattrs = 2\nmax_xattr_size = 8\nmax_xattrs_size = 24\n";
    everywhere(policy, |place| {
        place.put("Note/a", "x").unwrap();
        place.put("Other/a", "x").unwrap();
        let set = |path: &str, name: &str, value: &str| {
            place.store.set_xattr(&key(path), OsStr::new(name), value.as_bytes(), 0)
        };
        let said = refused(set("Note/a", "user.a", "123456789"), Limit::MaxXattrSize);
        assert_eq!(said, "user.a: a value of 9 bytes, at most 8 are allowed");
        set("Note/a", "user.a", "12345678").unwrap();
        refused(set("Note/a", "user.b", "12345"), Limit::MaxXattrsSize);
        set("Note/a", "user.b", "1234").unwrap();
        refused(set("Note/a", "user.c", ""), Limit::MaxXattrs);
        set("Note/a", "user.a", "1").unwrap();
        place.store.backend().remove_xattr(&key("Note/a"), OsStr::new("user.b")).unwrap();
        set("Note/a", "user.c", "").unwrap();
        set("Other/a", "user.a", "123456789").unwrap();
    });
}

/// The whole directory is exempt; what comes out of it is not.
#[test]
fn what_leaves_an_ephemeral_directory_is_judged() {
    let policy = "[retention]\nephemeral = ['Note/tmp/**']\n[[rule]]\nclass = 'Note'\njson = true\n";
    everywhere(policy, |place| {
        place.put("Note/tmp/d/x", "words").unwrap();
        refused(rename(place, "Note/tmp/d", "Note/d"), Limit::Json);
        refused(rename(place, "Note/tmp/d/x", "Note/x"), Limit::Json);
        place.put("Note/tmp/d/x", "1").unwrap();
        rename(place, "Note/tmp/d", "Note/d").unwrap();
        refused(place.put("Note/d/x", "words"), Limit::Json);
    });
}

/// Keys at the root belong to no class.
#[test]
fn the_root_has_no_rules() {
    everywhere("[[rule]]\nclass = 'Note'\njson = true\nid = 'x'\nmax_objects = 1\n", |place| {
        place.put("Note", "words").unwrap();
        rename(place, "Note", "Other").unwrap();
        assert!(Key::parse("Note").is_ok());
    });
}
