//! Files that another program moves or copies below the store's directory, to names that have histories: every generation
//! that was kept stays what it was, and none shows the bytes of what came.

mod common;

use std::fs;

use common::library::{ANY, key, put, read};
use common::place::{Place, copy};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sepia::backend::Rename;
use sepia::store::{Actor, SessionOptions};

/// The beginnings of what is gone are lost, and not those of what came, whatever number it brings.
#[test]
fn nobody_inherits_beginnings() {
    for generations in 1..=9 {
        let place = Place::new();
        let store = &place.store;
        place.grow("f", 5);
        for number in 1..=generations {
            put(store, "g", &format!("other {number}"));
        }
        let came = store.stat(&key("g")).unwrap().generation.unwrap();
        place.mv("g", "f");
        let check = |when: &str| {
            for number in 1..=4 {
                assert_eq!(place.then("f", number), None, "{when}: {number} of f, where {came} came");
            }
            let numbers = place.numbers("f");
            assert!(
                numbers.is_sorted_by(|a, b| a < b) && numbers.contains(&4),
                "{when}: {numbers:?}, where {came} came"
            );
            assert!(*numbers.last().unwrap() > 5, "{when}: {numbers:?}: 5 was in use, and {came} came");
        };
        check("at once");
        put(store, "f", "new");
        check("after a save");
        let number = *place.numbers("f").iter().rev().nth(1).unwrap();
        assert_eq!(place.then("f", number), Some(format!("other {generations}")), "what came is kept");
    }
}

#[test]
fn nobody_inherits_beginnings_through_the_rename_of_a_directory() {
    for with_history in [false, true] {
        let place = Place::new();
        let store = &place.store;
        place.two_dirs();
        place.grow("to/f", 3);
        fs::remove_file(place.path.join("to/f")).unwrap();
        put(store, "from/f", "other");
        if with_history {
            put(store, "from/f", "another");
        }
        place.rename("from", "to");
        let expected = if with_history { "another" } else { "other" };
        assert_eq!(read(&store.get(&key("to/f")).unwrap()), expected);
        for _ in 0..2 {
            assert_eq!((place.then("to/f", 1), place.then("to/f", 2)), (None, None));
            put(store, "to/f", "new");
        }
    }
}

/// What another program has written doesn't become Sepia's own by a rename of its directory.
#[test]
fn what_was_written_outside_is_recorded_before_it_counts_on() {
    for whole in [false, true] {
        let place = Place::new();
        place.two_dirs();
        put(&place.store, "to/f", "gone");
        place.store.remove(&key("to/f"), ANY).unwrap();
        if whole {
            for text in ["1", "12", "123"] {
                put(&place.store, "from/f", text);
            }
        } else {
            place.grow("from/f", 3);
        }
        fs::write(place.path.join("from/f"), "EVIL").unwrap();
        place.rename("from", "to");
        let expected = if whole { &["gone", "1", "12", "EVIL"][..] } else { &["gone", "EVIL"] };
        assert_eq!(place.shown("to/f"), expected);
    }
}

/// The number of what is current may be that of an entry of another object.
#[test]
fn nobody_inherits_a_beginning_with_the_same_number() {
    let place = Place::new();
    let store = &place.store;
    place.two_dirs();
    for text in ["1", "2"] {
        put(store, "to/f", text);
    }
    place.append("to/f", "x");
    fs::remove_file(place.path.join("to/f")).unwrap();
    for text in ["other", "another"] {
        put(store, "from/f", text);
    }
    place.rename("from", "to");
    assert_eq!(place.shown("to/f"), ["1", "other", "another"]);
}

/// What a dead commit leaves is told from what was kept.
#[test]
fn nothing_that_was_kept_is_taken_for_what_a_crash_left() {
    let place = Place::new();
    let store = &place.store;
    place.two_dirs();
    place.grow("to/f", 4);
    put(store, "to/f", "new");
    store.remove(&key("to/f"), ANY).unwrap();
    let kept = place.shown("to/f");
    assert_eq!(kept, ["1", "12", "123", "1234", "new"]);
    put(store, "from/f", "other");
    store.backend().link(&key("from/f"), &key("link"), &ANY).unwrap();
    place.rename("from", "to");
    assert_eq!(place.shown("to/f")[..5], kept);

    // The same by ln(1) outside.
    place.grow("f", 4);
    put(store, "f", "new");
    let kept = place.shown("f");
    fs::remove_file(place.path.join("f")).unwrap();
    fs::hard_link(place.path.join("link"), place.path.join("f")).unwrap();
    place.append("f", "!");
    assert_eq!(place.shown("f")[..4], kept[..4]);

    // And where the number jumps.
    for text in ["1", "2", "3", "4", "5"] {
        put(store, "g", text);
    }
    store.remove(&key("g"), ANY).unwrap();
    let all = store.backend().generations(&key("g")).unwrap();
    for result in store.backend().drop_generations(&key("g"), &all, false).unwrap() {
        result.unwrap();
    }
    place.grow("k", 2);
    put(store, "k", "new");
    store.backend().link(&key("k"), &key("link of k"), &ANY).unwrap();
    place.rename("k", "g");
    assert_eq!(place.shown("g"), ["1", "12", "new"]);
}

#[test]
fn what_comes_with_a_lower_number_takes_none_of_what_was_kept() {
    let place = Place::new();
    let store = &place.store;
    for text in ["1", "2", "3", "4"] {
        put(store, "f", text);
    }
    for text in ["a", "b"] {
        put(store, "g", text);
    }
    fs::write(place.path.join("g"), "changed").unwrap();
    place.mv("g", "f");
    assert_eq!(place.shown("f"), ["1", "2", "3", "changed"]);
    assert!(*place.numbers("f").last().unwrap() > 4, "4 was in use");
}

/// cp -a takes the record along, with another's number.
#[test]
fn a_copy_of_another_object_inherits_nothing() {
    let place = Place::new();
    place.grow("a", 3);
    for number in 1..=7 {
        put(&place.store, "b", &format!("other {number}"));
    }
    fs::remove_file(place.path.join("a")).unwrap();
    copy(&place.path.join("b"), &place.path.join("a"));
    for _ in 0..2 {
        assert_eq!((place.then("a", 1), place.then("a", 2)), (None, None));
        put(&place.store, "a", "new");
    }
}

/// A store that was restored from a copy goes on with its histories.
#[test]
fn a_copy_of_the_object_itself_keeps_its_beginnings() {
    let place = Place::new();
    place.grow("f", 3);
    copy(&place.path.join("f"), &place.path.join("copy"));
    place.mv("copy", "f");
    for _ in 0..2 {
        assert_eq!((place.then("f", 1).as_deref(), place.then("f", 2).as_deref()), (Some("1"), Some("12")));
        assert_eq!(place.numbers("f").len(), 3);
        drop(place.store.get(&key("f")).unwrap());
    }
    place.append("f", "4");
    put(&place.store, "f", "new");
    let all: Vec<_> = (1..=5).map(|number| place.then("f", number).unwrap()).collect();
    assert_eq!(all, ["1", "12", "123", "1234", "new"]);
}

/// ln(1) outside makes two names of an object that has beginnings under the first.
#[test]
fn what_is_done_under_a_second_name_changes_no_beginning() {
    let linked = |act: &dyn Fn(&Place)| {
        let place = Place::new();
        place.grow("f", 3);
        fs::hard_link(place.path.join("f"), place.path.join("h")).unwrap();
        act(&place);
        place
    };
    let saved = linked(&|place| put(&place.store, "h", "entirely other"));
    assert_eq!(saved.shown("f"), ["entirely other"], "the others are lost");
    put(&saved.store, "f", "new");
    assert_eq!(saved.shown("f"), ["entirely other", "new"], "and stay so");
    let removed = linked(&|place| {
        place.store.remove(&key("f"), ANY).unwrap();
        put(&place.store, "f", "new");
    });
    assert_eq!(removed.shown("f"), ["1", "12", "new"]);
    let replaced = linked(&|place| {
        put(&place.store, "g", "new");
        place.rename("g", "f");
    });
    assert_eq!(replaced.shown("f"), ["1", "12", "new"]);
}

#[test]
fn a_copied_store_is_the_same_store() {
    for whole in [false, true] {
        let place = Place::new();
        place.two_dirs();
        put(&place.store, "to/f", "gone");
        place.store.remove(&key("to/f"), ANY).unwrap();
        let make = |name: &str| match whole {
            true => ["1", "12", "123"].into_iter().for_each(|text| put(&place.store, name, text)),
            false => place.grow(name, 3),
        };
        ["from/f", "k", "moved"].into_iter().for_each(make);
        place.rename("moved", "away");
        let place = place.copied();
        let store = &place.store;
        let before = store.backend().stat(&key("k")).unwrap();
        assert_eq!(store.get(&key("k")).unwrap().stat.id, before.id, "an id doesn't change by looking");
        assert_eq!(place.shown("k"), ["1", "12", "123"]);
        place.rename("from", "to");
        assert_eq!(place.shown("to/f"), ["gone", "1", "12", "123"], "whole: {whole}");
        put(store, "moved", "new");
        let shown = place.shown("moved");
        assert_eq!(shown.last().unwrap(), "new");
        assert!(shown.iter().all(|text| "123".starts_with(text.as_str()) || text == "new"), "{shown:?}");
    }
}

#[test]
fn a_backup_of_what_was_removed_hides_nothing() {
    let place = Place::new();
    place.grow("f", 3);
    copy(&place.path.join("f"), &place.path.join("backup"));
    place.store.remove(&key("f"), ANY).unwrap();
    place.mv("backup", "f");
    assert_eq!(place.shown("f"), ["1", "12", "123", "123"]);
}

/// A process that has seen the file there before looks again, when the history has gone on without it.
#[test]
fn what_comes_back_counts_on_from_what_happened_meanwhile() {
    let place = Place::new();
    for text in ["1", "2", "3"] {
        put(&place.store, "c", text);
    }
    place.mv("c", "away");
    for text in ["put 1", "put 2"] {
        put(&place.other(), "c", text);
    }
    let before: Vec<_> = place.numbers("c").into_iter().map(|number| (number, place.then("c", number))).collect();
    place.mv("away", "c");
    put(&place.store, "c", "new");
    let after = place.numbers("c");
    for (number, text) in before.iter().filter(|(_, text)| text.as_deref() != Some("put 2")) {
        assert_eq!(place.then("c", *number), *text, "generation {number} of {before:?}, {after:?}");
    }
    assert!(after.is_sorted_by(|a, b| a < b), "{after:?}");
    let last: Vec<_> = after.iter().rev().take(2).map(|number| place.then("c", *number).unwrap()).collect();
    assert_eq!(last, ["new", "3"]);
}

/// Who looks at the history makes no conflict of somebody's save.
#[test]
fn whoever_opened_it_before_it_counted_on_saves_all_the_same() {
    for append in [false, true] {
        let place = Place::new();
        for text in ["1", "2", "3"] {
            put(&place.store, "d", text);
        }
        place.store.remove(&key("d"), ANY).unwrap();
        put(&place.store, "new", "new");
        place.mv("new", "d");
        let mut session = place.store.open_session(&key("d"), &SessionOptions::default()).unwrap();
        if append {
            session.append(b"er").unwrap();
        } else {
            session.write_at(b"N", 0).unwrap();
        }
        assert_eq!(place.other().history(&key("d")).unwrap().len(), 4);
        session.publish(&key("d"), false).unwrap();
        session.close(&key("d"));
        let all: Vec<_> = (1..=5).map(|number| place.then("d", number).unwrap()).collect();
        assert_eq!(all, ["1", "2", "3", "new", if append { "newer" } else { "New" }]);
    }
}

/// A session that begins with an append and goes on to write the whole file anew.
fn append_and_rewrite(place: &Place, name: &str) {
    let mut session = place.store.open_session(&key(name), &SessionOptions::default()).unwrap();
    session.append(b"4").unwrap();
    session.publish(&key(name), false).unwrap();
    session.write_at(b"anew", 0).unwrap();
    session.publish(&key(name), false).unwrap();
    session.close(&key(name));
}

/// What is saved under another name, where another program has moved the object meanwhile.
#[test]
fn what_is_saved_elsewhere_changes_no_beginning() {
    type Act = fn(&Place);
    let to_a_new_name: Act = |place| place.mv("f", "g");
    let to_one_that_counts_alike: Act = |place| {
        ["a", "b", "c"].into_iter().for_each(|text| put(&place.store, "g", text));
        place.mv("f", "g");
    };
    let to_one_that_counts_further: Act = |place| {
        ["a", "b", "c", "d", "e", "f"].into_iter().for_each(|text| put(&place.store, "g", text));
        place.mv("f", "g");
    };
    let saved: Act = |place| put(&place.other(), "g", "other");
    let saved_twice: Act = |place| ["other", "another"].into_iter().for_each(|text| put(&place.store, "g", text));
    let appended_and_saved: Act = |place| {
        place.append("g", "4");
        put(&place.other(), "g", "other");
    };
    let appended_and_written_anew: Act = |place| append_and_rewrite(place, "g");
    let linked_and_saved: Act = |place| {
        place.append("g", "4");
        place.store.backend().link(&key("g"), &key("h"), &ANY).unwrap();
        place.store.remove(&key("h"), ANY).unwrap();
        put(&place.other(), "g", "other");
    };
    let renamed_and_saved: Act = |place| {
        place.append("g", "4");
        place.rename("g", "h");
        put(&place.other(), "h", "other");
        place.mv("h", "g");
    };
    let renamed_over_and_saved: Act = |place| {
        put(&place.store, "h", "h");
        place.rename("g", "h");
        put(&place.other(), "h", "other");
        place.mv("h", "g");
    };
    let saved_and_appended: Act = |place| {
        put(&place.store, "g", "other");
        place.append("g", "s");
    };
    let moves = [to_a_new_name, to_one_that_counts_alike, to_one_that_counts_further];
    let saves = [
        saved,
        saved_twice,
        appended_and_saved,
        appended_and_written_anew,
        linked_and_saved,
        renamed_and_saved,
        renamed_over_and_saved,
        saved_and_appended,
    ];
    for (at, away) in moves.iter().enumerate() {
        for (with, save) in saves.iter().enumerate() {
            let place = Place::new();
            place.grow("f", 3);
            away(&place);
            save(&place);
            let current = read(&place.store.get(&key("g")).unwrap());
            place.mv("g", "f");
            for when in ["at once", "after a save"] {
                assert_eq!((place.then("f", 1), place.then("f", 2)), (None, None), "{when}, move {at}, save {with}");
                put(&place.store, "f", "new");
            }
            assert_eq!(place.shown("f"), [current.as_str(), "new"], "move {at}, save {with}");
        }
    }
}

/// What says so costs an attribute, which ext4 has no room for in the inode. Without another program's doing there is none.
#[test]
fn ordinary_saves_leave_no_mark() {
    let place = Place::new();
    let check = |name: &str, when: &str| {
        let file = rustix::fs::open(place.path.join(name), OFlags::RDONLY, Mode::empty()).unwrap();
        for mark in ["user.sepia.rewritten", "user.sepia.elsewhere"] {
            assert_eq!(rustix::fs::fgetxattr(&file, mark, &mut [0u8; 8][..]), Err(Errno::NODATA), "{mark} {when}");
        }
    };
    place.grow("f", 4);
    check("f", "after appends");
    put(&place.store, "f", "new");
    check("f", "after a save");
    append_and_rewrite(&place, "f");
    check("f", "after a session");
    put(&place.other(), "f", "by another process");
    check("f", "after another process's save");
    put(&place.store, "tmp", "new");
    place.rename("tmp", "f");
    check("f", "after a rename over it");
    put(&place.store, "f", "newer");
    check("f", "after a save of what was renamed");
    place.append("f", "!");
    place.rename("f", "g");
    place.append("g", "!");
    put(&place.store, "g", "newest");
    check("g", "after a rename");
    place.two_dirs();
    place.grow("from/f", 2);
    put(&place.store, "to/f", "gone");
    place.store.remove(&key("to/f"), ANY).unwrap();
    place.rename("from", "to");
    place.append("to/f", "!");
    put(&place.store, "to/f", "new");
    check("to/f", "after the rename of a directory into another's histories");
}

/// Nor does what is only appended, and its beginnings stay.
#[test]
fn what_is_appended_elsewhere_goes_on() {
    for saved in [false, true] {
        let place = Place::new();
        place.grow("f", 3);
        place.mv("f", "g");
        place.append("g", "4");
        place.mv("g", "f");
        assert_eq!(place.shown("f"), ["1", "12", "1234"]);
        if saved {
            put(&place.store, "f", "new");
        } else {
            place.append("f", "5");
        }
        assert_eq!(place.shown("f"), ["1", "12", "1234", if saved { "new" } else { "12345" }]);
        place.mv("f", "g");
        assert_eq!(place.then("g", 3).as_deref(), if saved { None } else { Some("123") });
    }
}

/// An exchange gives numbers that leave a gap.
#[test]
fn beginnings_go_along_with_an_exchange() {
    let place = Place::new();
    place.grow("f", 3);
    place.grow("g", 5);
    let how = sepia::backend::Rename { expect_from: ANY, expect_to: ANY, exchange: true };
    place.store.backend().rename(&key("f"), &key("g"), &how).unwrap();
    for name in ["f", "g"] {
        place.append(name, "x");
        put(&place.store, name, "new");
    }
    assert_eq!(place.shown("g"), ["1", "12", "123", "123x", "new"]);
    assert_eq!(place.shown("f"), ["1", "12", "123", "1234", "12345", "12345x", "new"]);
}

/// A process remembers what it has renamed away, in case that the name is taken again. Others may have renamed the directory.
#[test]
fn what_a_process_remembers_of_a_name_hides_no_generation_of_another_one() {
    let place = Place::new();
    let other = place.other();
    for text in ["1", "2"] {
        put(&other, "e/x", text);
    }
    put(&place.store, "d/x", "moves");
    place.rename("d/x", "d/y");
    let exchange = Rename { expect_from: ANY, expect_to: ANY, exchange: true };
    other.by(Actor::current()).rename(&key("d"), &key("e"), &exchange, None).unwrap();
    other.remove(&key("d/x"), ANY).unwrap();
    put(&place.store, "d/x", "new");
    assert_eq!(place.then("d/x", 1).as_deref(), Some("1"));
    assert_eq!(place.then("d/x", 2).as_deref(), Some("2"));
    assert_eq!(read(&place.store.get(&key("d/x")).unwrap()), "new");
    assert_eq!(read(&place.store.get(&key("e/y")).unwrap()), "moves");
    // In a store where that has happened, too.
    let history = place.path.join(".sepia/generations/d/x");
    let note = format!("moved to e/y@1 of {}", place.store.stat(&key("e/y")).unwrap().id);
    let later = "1@20991231T000000.000000000Z-20991231T000001.000000000Z";
    std::os::unix::fs::symlink(note, history.join(later)).unwrap();
    assert_eq!(place.then("d/x", 1).as_deref(), Some("1"));
}
