//! Renames whose process died between the file and its history, and what others did before the store was recovered.

mod common;

use std::fs;

use common::library::{key, put, read};
use common::place::Place;

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
