//! Renames that were cut short.

use std::fs;

use crate::common::library::{key, put, read};
use crate::common::place::Place;

/// A store in which somebody died who was renaming `from/f`, or the directory alone, to `to`: the note is there, and the file
/// has moved, but not its history of three generations. `whole`: they were not appended to one another.
fn cut_short(whole: bool, directory: bool) -> Place {
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
    place
}

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
                let place = cut_short(whole, directory);
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

/// Somebody has taken the old name by then: what was kept of the object goes along all the same, and nothing else.
#[test]
fn a_history_that_was_left_behind_comes_though_its_name_was_taken_again() {
    for whole in [false, true] {
        for directory in [false, true] {
            for saves in 0..3 {
                let place = cut_short(whole, directory);
                let other = place.other();
                other.create_dirs(&key("from")).unwrap();
                fs::write(place.path.join("from/f"), "").unwrap();
                let new = ["new", "newer"];
                new.iter().take(saves).for_each(|text| put(&other, "from/f", text));
                place.store.recover().unwrap();
                let case = format!("whole {whole}, directory {directory}, {saves} saves");
                assert_eq!(place.shown("to/f"), ["1", "12", "123"], "{case}");
                put(&place.store, "from/f", "newest");
                let numbers = place.numbers("from/f");
                assert!(numbers.is_sorted_by(|a, b| a < b) && *numbers.last().unwrap() > 3, "{case}: {numbers:?}");
                let shown = place.shown("from/f");
                let expected: Vec<_> = new.into_iter().take(saves).chain(["newest"]).map(str::to_owned).collect();
                assert!(shown.ends_with(&expected), "{case}: {shown:?}");
                assert!(fs::read_dir(place.path.join(".sepia/renames")).unwrap().next().is_none(), "{case}");
            }
        }
    }
}

/// What was noted, and never done, moves nothing.
#[test]
fn a_rename_that_never_was_is_not_finished() {
    let place = Place::new();
    place.grow("f", 3);
    fs::create_dir_all(place.path.join(".sepia/renames")).unwrap();
    fs::write(place.path.join(".sepia/renames/0123"), "f\ng\n").unwrap();
    put(&place.other(), "g", "other");
    place.store.recover().unwrap();
    assert_eq!(
        (place.shown("f"), place.shown("g")),
        (vec!["1".into(), "12".into(), "123".into()], vec!["other".into()])
    );
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
