//! Appends, and generations that are the beginning of others.

use super::*;

/// For an append to `base`, or to what has grown from it.
pub fn merge(base: &Stat) -> Commit {
    Commit { merge: Some(base.incarnation), ..when(base.precondition()) }
}

pub fn an_append_makes_a_generation(b: &dyn Backend) {
    let first = put(b, "log", "one ");
    let second = good(append(b, "log", 4, "two ", &when(first.precondition())));
    assert_eq!((second.generation, second.size, second.id), (Some(generation(2)), 8, first.id));
    let third = good(append(b, "log", 8, "three", &when(Precondition::Generation(generation(2)))));
    assert_eq!((third.generation, read(b, "log")), (Some(generation(3)), "one two three".to_owned()));
    // Reading it may count as an access.
    let now = good(b.stat(&key("log")));
    assert_eq!(Stat { atime: third.atime, ..now }, third);
    assert_eq!(
        (read_generation(b, "log", 1), read_generation(b, "log", 2)),
        ("one ".to_owned(), "one two ".to_owned())
    );
    let sizes: Vec<_> = kept(b, "log").iter().map(|info| (info.generation.get(), info.size)).collect();
    assert_eq!(sizes, [(1, 4), (2, 8)]);
    assert!(!third.same_bytes(&second));
}

pub fn an_append_at_a_stale_base_fails(b: &dyn Backend) {
    let first = put(b, "log", "one");
    let second = good(append(b, "log", 3, "two", &when(first.precondition())));
    refused!(append(b, "log", 3, "lost", &when(first.precondition())), Error::Stale { current, .. } if current == second.generation);
    assert_eq!((read(b, "log"), numbers(b, "log")), ("onetwo".to_owned(), vec![1]));
    good(b.remove(&key("log"), &ANY));
    refused!(
        append(b, "log", 6, "lost", &when(second.precondition())),
        Error::Stale { current: None, .. } | Error::NotFound(_)
    );
    refused!(append(b, "log", 6, "lost", &merge(&second)), Error::Stale { current: None, .. } | Error::NotFound(_));
    assert_eq!((names(b, ""), read_generation(b, "log", 2)), (vec![], "onetwo".to_owned()));
}

pub fn appends_merge(b: &dyn Backend) {
    let base = put(b, "log", "base ");
    good(append(b, "log", 5, "a ", &merge(&base)));
    let third = good(append(b, "log", 5, "b ", &merge(&base)));
    let fourth = good(append(b, "log", 5, "c", &merge(&base)));
    assert_eq!([third.generation, fourth.generation], [3, 4].map(Generation::new));
    assert_eq!(read(b, "log"), "base a b c");
    assert_eq!(
        (read_generation(b, "log", 1), read_generation(b, "log", 3)),
        ("base ".to_owned(), "base a b ".to_owned())
    );
    // Somebody who had published their part, and goes on.
    let how = Commit { amend: true, ..merge(&third) };
    assert_eq!(
        (good(append(b, "log", 9, "d", &how)).generation, read(b, "log")),
        (Some(generation(5)), "base a b cd".to_owned())
    );
    assert_eq!(read_generation(b, "log", 4), "base a b c");
}

/// Also with what others have appended.
pub fn an_append_grows_no_further_than_it_may(b: &dyn Backend) {
    let base = put(b, "log", "base");
    let most = |max_size: u64| Commit { max_size: Some(max_size), ..merge(&base) };
    let too_large = |result: Result<Stat>| {
        let source = match result {
            Err(Error::Io { source, .. }) => source,
            other => panic!("{other:?}"),
        };
        assert_eq!(source.kind(), std::io::ErrorKind::FileTooLarge);
    };
    too_large(append(b, "log", 4, "12", &most(5)));
    assert_eq!((read(b, "log"), numbers(b, "log")), ("base".to_owned(), vec![]));
    good(append(b, "log", 4, "12", &most(6)));
    too_large(append(b, "log", 4, "34", &most(7)));
    good(append(b, "log", 4, "34", &most(8)));
    assert_eq!((read(b, "log"), numbers(b, "log")), ("base1234".to_owned(), vec![1, 2]));
}

pub fn an_append_does_not_merge_with_a_rewrite(b: &dyn Backend) {
    let base = put(b, "log", "base");
    put(b, "log", "other");
    refused!(append(b, "log", 4, "lost", &merge(&base)), Error::Stale { current, .. } if current == Generation::new(2));
    let third = good(append(b, "log", 5, "more", &when(ANY)));
    refused!(append(b, "log", 4, "lost", &merge(&base)), Error::Stale { current, .. } if current == third.generation);
    assert_eq!(read(b, "log"), "othermore");
    // Another object under the same name.
    put(b, "new", "base");
    let old = good(append(b, "new", 4, "!", &when(ANY)));
    good(b.remove(&key("new"), &ANY));
    let new = put(b, "new", "base!");
    refused!(append(b, "new", 5, "lost", &merge(&old)), Error::Stale { current, .. } if current == new.generation);
    assert_eq!(read(b, "new"), "base!");
}

/// An amendment has the number of what it replaces, and other bytes.
pub fn an_append_does_not_merge_with_an_amendment(b: &dyn Backend) {
    let base = put(b, "log", "base");
    let amended = good(commit(b, &key("log"), b"other", &Commit { amend: true, ..when(base.precondition()) }));
    assert_eq!(amended.generation, base.generation);
    stale(append(b, "log", 4, "lost", &merge(&base)), base.precondition(), amended.generation);
    let second = good(append(b, "log", 5, "+", &when(amended.precondition())));
    stale(append(b, "log", 4, "lost", &merge(&base)), base.precondition(), second.generation);
    // One that appended did not touch what was there.
    let third = good(append(b, "log", 6, "+", &Commit { amend: true, ..when(second.precondition()) }));
    good(append(b, "log", 6, "more", &merge(&second)));
    assert_eq!((third.generation, read(b, "log")), (second.generation, "other++more".to_owned()));
}

pub fn appends_merge_under_several_names(b: &dyn Backend) {
    let base = put(b, "log", "base");
    if !can(b).hard_links {
        return unsupported(b.link(&key("log"), &key("link"), &ANY));
    }
    good(b.link(&key("log"), &key("link"), &ANY));
    good(append(b, "link", 4, "+a", &merge(&base)));
    let third = good(append(b, "log", 4, "+b", &merge(&base)));
    assert_eq!(read(b, "link"), "base+a+b");
    // It is rewritten in place, under the same number or another.
    let amended = good(commit(b, &key("log"), b"other+a+b", &Commit { amend: true, ..when(third.precondition()) }));
    refused!(append(b, "log", 8, "lost", &merge(&third)), Error::Stale { .. });
    good(commit(b, &key("log"), b"an other", &when(amended.precondition())));
    good(b.remove(&key("link"), &ANY));
    refused!(append(b, "log", 9, "lost", &merge(&amended)), Error::Stale { .. });
    assert_eq!(read(b, "log"), "an other");
}

/// Four generations of which each is the beginning of the next.
pub fn grow(b: &dyn Backend, path: &str) -> Stat {
    let mut stat = put(b, path, "1");
    for bytes in ["2", "3", "4"] {
        stat = good(append(b, path, stat.size, bytes, &when(stat.precondition())));
    }
    stat
}

#[track_caller]
fn all_there(b: &dyn Backend, path: &str) {
    for (number, bytes) in [(1, "1"), (2, "12"), (3, "123"), (4, "1234")] {
        assert_eq!(read_generation(b, path, number), bytes, "{path}: generation {number}");
    }
}

pub fn prefixes_stay_readable(b: &dyn Backend) {
    grow(b, "f");
    all_there(b, "f");
    put(b, "f", "rewritten");
    all_there(b, "f");
    put(b, "f", "");
    good(b.remove(&key("f"), &ANY));
    all_there(b, "f");
    assert_eq!(numbers(b, "f"), [1, 2, 3, 4, 5, 6]);

    grow(b, "g");
    good(b.remove(&key("g"), &ANY));
    all_there(b, "g");

    mkdir(b, "d");
    grow(b, "d/h");
    good(b.rename(&key("d/h"), &key("d/i"), &RENAME));
    all_there(b, "d/i");
    good(b.rename(&key("d"), &key("e"), &RENAME));
    all_there(b, "e/i");
    put(b, "e/i", "rewritten");
    all_there(b, "e/i");
}

pub fn an_amended_append(b: &dyn Backend) {
    let first = put(b, "log", "1");
    let second = good(append(b, "log", 1, "2", &when(first.precondition())));
    let how = Commit { amend: true, ..merge(&second) };
    let amended = good(append(b, "log", 2, "3", &how));
    assert_eq!((amended.generation, read(b, "log")), (Some(generation(2)), "123".to_owned()));
    assert_eq!((numbers(b, "log"), read_generation(b, "log", 1)), (vec![1], "1".to_owned()));
}

pub fn an_amendment_leaves_the_prefix_alone(b: &dyn Backend) {
    let first = put(b, "f", "first");
    let second = good(append(b, "f", 5, "+more", &when(first.precondition())));
    let how = Commit { amend: true, ..when(second.precondition()) };
    good(commit(b, &key("f"), b"XX", &how));
    assert_eq!((read(b, "f"), read_generation(b, "f", 1)), ("XX".to_owned(), "first".to_owned()));
    assert_eq!(kept(b, "f")[0].size, 5);
    // What was appended to is gone, so nothing can be merged into it.
    refused!(append(b, "f", 5, "lost", &merge(&first)), Error::Stale { current, .. } if current == second.generation);
    put(b, "f", "YY");
    assert_eq!((read_generation(b, "f", 1), read_generation(b, "f", 2)), ("first".to_owned(), "XX".to_owned()));
}

pub fn what_a_prefix_needs_is_not_dropped(b: &dyn Backend) {
    grow(b, "f");
    put(b, "f", "rewritten");
    let kept = kept(b, "f");
    for (older, newer) in kept.iter().zip(&kept[1..]) {
        if matches!(older.kept, Kept::Prefix(_)) && newer.kept == Kept::Whole {
            refused!(b.drop_generation(&key("f"), newer.generation), Error::Invalid(..));
        }
    }
    all_there(b, "f");
    // From the oldest on, each can go.
    for number in 1..=4 {
        for left in number..=4 {
            assert_eq!(read_generation(b, "f", left).len() as u64, left);
        }
        good(b.drop_generation(&key("f"), generation(number)));
    }
    assert_eq!((numbers(b, "f"), read(b, "f")), (vec![], "rewritten".to_owned()));
}
