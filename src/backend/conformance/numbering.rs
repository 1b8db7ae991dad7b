//! A number that was once a generation of a key is never another generation of it.

use super::*;

pub fn numbers_go_on_after_a_removal(b: &dyn Backend) {
    put(b, "f", "1");
    put(b, "f", "2");
    good(b.remove(&key("f"), &ANY));
    assert_eq!(put(b, "f", "3").generation, Some(generation(3)));
    good(b.remove(&key("f"), &ANY));
    let reserved = good(b.reserve(&key("f"), 0o644, &Creator::current()));
    assert_eq!(
        good(commit(b, &key("f"), b"", &when(Precondition::Reserved(reserved.id)))).generation,
        Some(generation(4))
    );
    good(b.remove(&key("f"), &ANY));
    let reserved = good(b.reserve(&key("f"), 0o644, &Creator::current()));
    let fifth = good(commit(b, &key("f"), b"5", &when(Precondition::Reserved(reserved.id))));
    assert_eq!((fifth.generation, numbers(b, "f")), (Some(generation(5)), vec![1, 2, 3, 4]));
    assert_eq!(read_generation(b, "f", 3), "3");
}

pub fn numbers_go_on_after_a_rename_over(b: &dyn Backend) {
    for text in ["1", "2", "3"] {
        put(b, "f", text);
    }
    put(b, "tmp", "new");
    let moved = good(b.rename(&key("tmp"), &key("f"), &RENAME));
    assert_eq!((moved.generation, numbers(b, "f")), (Some(generation(4)), vec![1, 2, 3]));
    assert_eq!(put(b, "f", "5").generation, Some(generation(5)));
    // Also when what comes has the higher number.
    for text in ["1", "2", "3"] {
        put(b, "g", text);
    }
    put(b, "h", "old");
    let moved = good(b.rename(&key("g"), &key("h"), &RENAME));
    assert!(moved.generation > Generation::new(1));
    assert_eq!((read_generation(b, "h", 1), read(b, "h")), ("old".to_owned(), "3".to_owned()));
}

pub fn numbers_go_on_after_there_and_back(b: &dyn Backend) {
    put(b, "a", "1");
    put(b, "a", "2");
    good(b.rename(&key("a"), &key("b"), &RENAME));
    put(b, "b", "3");
    let back = good(b.rename(&key("b"), &key("a"), &RENAME));
    assert_eq!((back.generation, read(b, "a")), (Some(generation(3)), "3".to_owned()));
    assert_eq!((numbers(b, "a"), numbers(b, "b")), (vec![1, 2], vec![]));
    assert_eq!(put(b, "a", "4").generation, Some(generation(4)));
    assert_eq!((read_generation(b, "a", 1), read_generation(b, "a", 3)), ("1".to_owned(), "3".to_owned()));
}

pub fn numbers_go_on_where_something_left(b: &dyn Backend) {
    put(b, "a", "1");
    let second = put(b, "a", "2");
    good(b.rename(&key("a"), &key("b"), &RENAME));
    // Else a stale precondition on generation 2 would hold for other bytes one day.
    let new = put(b, "a", "new");
    assert!(new.generation > second.generation, "{:?} was another generation of this key", new.generation);
    refused!(
        commit(b, &key("a"), b"lost", &when(Precondition::Generation(generation(2)))),
        Error::Stale { current, .. } if current == new.generation
    );
}

pub fn numbers_go_on_where_something_young_left(b: &dyn Backend) {
    // Nothing was kept of these, or they left with the directory above them: a medium need not remember their
    // numbers, for every temporary file would leave a trace then. But what a session was based on is told apart.
    let old = put(b, "a", "1");
    good(b.rename(&key("a"), &key("b"), &RENAME));
    put(b, "a", "new");
    refused!(commit(b, &key("a"), b"lost", &when(old.precondition())), Error::Stale { .. });
    mkdir(b, "d");
    put(b, "d/f", "1");
    let old = put(b, "d/f", "2");
    good(b.rename(&key("d"), &key("e"), &RENAME));
    mkdir(b, "d");
    put(b, "d/f", "new 1");
    put(b, "d/f", "new 2");
    refused!(commit(b, &key("d/f"), b"lost", &when(old.precondition())), Error::Stale { .. });
}

pub fn numbers_go_on_when_all_is_dropped(b: &dyn Backend) {
    put(b, "f", "1");
    put(b, "f", "2");
    good(b.remove(&key("f"), &ANY));
    good(b.drop_generation(&key("f"), generation(1)));
    good(b.drop_generation(&key("f"), generation(2)));
    assert_eq!(numbers(b, "f"), [0; 0]);
    assert_eq!(put(b, "f", "3").generation, Some(generation(3)));
    assert_eq!(put(b, "f", "4").generation, Some(generation(4)));
}

pub fn numbers_go_on_at_an_older_name(b: &dyn Backend) {
    for text in ["1", "2", "3"] {
        put(b, "old", text);
    }
    good(b.remove(&key("old"), &ANY));
    put(b, "new", "a");
    put(b, "new", "b");
    let moved = good(b.rename(&key("new"), &key("old"), &RENAME));
    assert_eq!((moved.generation, current(b, "old")), (Some(generation(4)), 4));
    assert_eq!(numbers(b, "old"), [1, 2, 3]);
    assert_eq!((read_generation(b, "old", 2), read(b, "old")), ("2".to_owned(), "b".to_owned()));
    assert_eq!(put(b, "old", "5").generation, Some(generation(5)));
    assert_eq!(read_generation(b, "old", 4), "b");
}
