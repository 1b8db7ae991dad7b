//! Dropping what is kept, a few at a time and under conditions; what is not kept at all; locks by name.

use super::appends::grow;
use super::*;

fn infos(b: &dyn Backend, path: &str, numbers: &[u64]) -> Vec<GenerationInfo> {
    let all = good(b.generations(&key(path)));
    let find = |number: &u64| all.iter().find(|info| info.generation.get() == *number).cloned();
    numbers.iter().map(|number| find(number).unwrap_or_else(|| panic!("{path} has no generation {number}"))).collect()
}

pub fn several_are_dropped_at_once(b: &dyn Backend) {
    for number in 1..=9 {
        put(b, "f", &number.to_string());
    }
    let results = good(b.drop_generations(&key("f"), &infos(b, "f", &[8, 2, 3, 5]), false));
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 4);
    assert_eq!((numbers(b, "f"), read(b, "f")), (vec![1, 4, 6, 7], "9".to_owned()));
    let gone = GenerationInfo { generation: generation(2), ..infos(b, "f", &[1])[0].clone() };
    let results = good(b.drop_generations(&key("f"), &[gone, infos(b, "f", &[4])[0].clone()], false));
    refused!(&results[0], Error::NoGeneration(..));
    assert!(results[1].is_ok());
    assert_eq!((numbers(b, "f"), read_generation(b, "f", 6)), (vec![1, 6, 7], "6".to_owned()));
}

pub fn only_the_very_generation_is_dropped(b: &dyn Backend) {
    for text in ["1", "2", "3"] {
        put(b, "f", text);
    }
    // As if another object had come to the key, with a history whose numbers are the same.
    let other = |info: GenerationInfo| GenerationInfo { committed: info.mtime, superseded: Some(info.mtime), ..info };
    let others: Vec<_> = infos(b, "f", &[1, 2]).into_iter().map(other).collect();
    for result in good(b.drop_generations(&key("f"), &others, false)) {
        refused!(result, Error::NoGeneration(..));
    }
    assert_eq!(numbers(b, "f"), [1, 2]);
}

/// Of what was only appended to, a generation may go while an older one stays, whose bytes are still those of a newer one.
pub fn a_beginning_outlives_the_drop_of_a_longer_one(b: &dyn Backend) {
    let to = |name: &str, change: &dyn Fn(&Key)| {
        let mut stat = put(b, name, "one");
        for more in ["+two", "+three"] {
            stat = good(append(b, name, stat.size, more, &when(stat.precondition())));
        }
        good(b.drop_generation(&key(name), generation(2)));
        change(&key(name));
        let kept = kept(b, name);
        let firsts = kept.iter().filter(|info| info.generation == generation(1) && !matches!(info.kept, Kept::Lost(_)));
        for first in firsts {
            assert_eq!(read_generation(b, name, first.generation.get()), "one", "{name}: {kept:?}");
        }
    };
    to("replaced", &|f| {
        put(b, &f.to_string(), "other");
    });
    to("removed", &|f| good(b.remove(f, &ANY)));
    to("made anew", &|f| {
        good(b.remove(f, &ANY));
        put(b, &f.to_string(), "other");
    });
    to("moved away", &|f| {
        good(b.rename(f, &key("elsewhere"), &RENAME));
        put(b, &f.to_string(), "other");
    });
    to("renamed over", &|f| {
        put(b, "new", "other");
        good(b.rename(&key("new"), f, &RENAME));
    });
    to("moved over", &|f| {
        put(b, "target", "other");
        good(b.rename(f, &key("target"), &RENAME));
        put(b, &f.to_string(), "other");
    });
    to("linked", &|f| {
        if can(b).hard_links {
            good(b.link(f, &key("link"), &ANY));
            put(b, "link", "other");
        }
    });
    assert_eq!(read_generation(b, "replaced", 1), "one");
    assert_eq!(read_generation(b, "elsewhere", 1), "one");
}

pub fn what_came_back_is_left_alone(b: &dyn Backend) {
    put(b, "f", "1");
    put(b, "f", "2");
    good(b.remove(&key("f"), &ANY));
    let all = infos(b, "f", &[1, 2]);
    put(b, "f", "3");
    refused!(b.drop_generations(&key("f"), &all, true), Error::Exists(_));
    assert_eq!(numbers(b, "f"), [1, 2]);
    good(b.remove(&key("f"), &ANY));
    for result in good(b.drop_generations(&key("f"), &infos(b, "f", &[1, 2, 3]), true)) {
        good(result);
    }
    assert_eq!((numbers(b, "f"), put(b, "f", "4").generation), (vec![], Some(generation(4))));
}

pub fn any_beginning_can_be_dropped(b: &dyn Backend) {
    for drop_first in 1..=3 {
        let path = format!("f{drop_first}");
        let last = grow(b, &path);
        good(b.drop_generation(&key(&path), generation(drop_first)));
        put(b, &path, "rewritten");
        for number in (1..=4).filter(|number| *number != drop_first) {
            assert_eq!(read_generation(b, &path, number), &"1234"[..number as usize], "without {drop_first}");
        }
        refused!(b.drop_generation(&key(&path), generation(4)), Error::Invalid(..));
        assert_eq!(last.generation, Some(generation(4)));
    }
}

pub fn what_is_not_kept_leaves_nothing(b: &dyn Backend) {
    let unkept = |expect| Commit { keep: false, ..when(expect) };
    let first = good(commit(b, &key("f"), b"1", &unkept(Precondition::Absent)));
    let second = good(commit(b, &key("f"), b"2", &unkept(first.precondition())));
    let third = good(append(b, "f", 1, "3", &unkept(second.precondition())));
    assert_eq!((third.generation, read(b, "f")), (Some(generation(3)), "23".to_owned()));
    assert_eq!((numbers(b, "f"), histories(b, "")), (vec![], vec![]));
    good(b.remove_unkept(&key("f"), &third.precondition()));
    assert_eq!((numbers(b, "f"), good(b.histories(&Key::root()))), (vec![], vec![]));
    refused!(b.remove_unkept(&key("f"), &ANY), Error::NotFound(_));
    // What is kept already stays readable, and goes on to be kept.
    grow(b, "g");
    good(commit(b, &key("g"), b"x", &unkept(ANY)));
    for number in 1..=3 {
        assert_eq!(read_generation(b, "g", number), &"123"[..number as usize]);
    }
    refused!(b.open_generation(&key("g"), generation(4)), Error::NoGeneration(..));
    good(b.remove_unkept(&key("g"), &ANY));
    assert_eq!((numbers(b, "g"), read_generation(b, "g", 5)), (vec![1, 2, 3, 5], "x".to_owned()));
}

pub fn a_key_is_forgotten(b: &dyn Backend) {
    put(b, "d", "1");
    put(b, "d", "2");
    refused!(b.forget_history(&key("d"), &good(b.generations(&key("d")))), Error::Exists(_));
    good(b.remove(&key("d"), &ANY));
    refused!(b.forget_history(&key("d"), &infos(b, "d", &[1, 2])), Error::Invalid(..));
    for result in good(b.drop_generations(&key("d"), &infos(b, "d", &[1, 2]), true)) {
        good(result);
    }
    good(b.forget_history(&key("d"), &good(b.generations(&key("d")))));
    assert_eq!((good(b.generations(&key("d"))), good(b.histories(&Key::root()))), (vec![], vec![]));
    assert_eq!(put(b, "d", "new").generation, Some(generation(1)));
    put(b, "d", "newer");
    assert_eq!(read_generation(b, "d", 1), "new");
}

pub fn attributes_of_older_generations(b: &dyn Backend) {
    put(b, "f", "1");
    good(b.set_xattr(&key("f"), "user.x".as_ref(), b"old", 0));
    put(b, "f", "2");
    good(b.set_xattr(&key("f"), "user.x".as_ref(), b"new", 0));
    let attributes = |number| good(b.generation_xattrs(&key("f"), generation(number)));
    assert_eq!(attributes(2), [("user.x".into(), b"new".to_vec())]);
    // The two generations may be one object with one set of attributes, on media where it is so.
    assert_eq!(attributes(1).len(), 1);
    refused!(b.generation_xattrs(&key("f"), generation(3)), Error::NoGeneration(..));
}

pub fn a_name_is_locked_once(b: &dyn Backend) {
    let held = good(b.try_exclusive("test"));
    assert!(held.is_some());
    assert!(good(b.try_exclusive("test")).is_none());
    assert!(good(b.try_exclusive("other")).is_some());
    drop(held);
    assert!(good(b.try_exclusive("test")).is_some());
}
