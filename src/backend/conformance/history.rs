//! Kept generations: listed, opened, dropped.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use super::*;
use crate::backend::SetAttr;

pub fn generations_are_listed_in_order(b: &dyn Backend) {
    assert_eq!(numbers(b, "none"), [0; 0]);
    for number in 1..=12 {
        put(b, "f", &number.to_string());
    }
    let infos = kept(b, "f");
    assert_eq!(infos.iter().map(|info| info.generation.get()).collect::<Vec<_>>(), (1..=11).collect::<Vec<_>>());
    for (older, newer) in infos.iter().zip(&infos[1..]) {
        assert!(older.committed <= newer.committed);
        assert_eq!(older.superseded, Some(newer.committed));
    }
    for info in &infos {
        let text = info.generation.to_string();
        assert_eq!((info.size, info.deleted), (text.len() as u64, false));
        assert_eq!(read_generation(b, "f", info.generation.get()), text);
        let opened = good(b.open_kept(&key("f"), info));
        assert_eq!((opened.stat.generation, opened.stat.committed), (Some(info.generation), Some(info.committed)));
        assert_eq!((opened.stat.size, opened.stat.id), (info.size, good(b.stat(&key("f"))).id));
    }
    assert_eq!(good(b.check_record(&key("f"))), None);
    good(b.drop_generation(&key("f"), generation(3)));
    assert!(matches!(b.open_kept(&key("f"), &infos[2]), Err(Error::NoGeneration(..))));
    assert!(matches!(b.check_record(&key("none")), Err(Error::NotFound(_))));
}

pub fn deleted_generations_stay(b: &dyn Backend) {
    let first = put(b, "f", "1");
    put(b, "f", "2");
    good(b.remove(&key("f"), &ANY));
    let infos = kept(b, "f");
    assert_eq!(infos.iter().map(|i| (i.generation.get(), i.deleted)).collect::<Vec<_>>(), [(1, false), (2, true)]);
    assert!(infos[1].superseded.is_some());
    assert_eq!((read_generation(b, "f", 1), read_generation(b, "f", 2)), ("1".to_owned(), "2".to_owned()));
    assert_eq!(good(b.open_generation(&key("f"), generation(2))).stat.id, first.id);
    put(b, "f", "3");
    assert!(kept(b, "f")[1].deleted, "it was deleted, also when something is there again");
    assert_eq!(read_generation(b, "f", 2), "2");
}

pub fn histories_are_found_level_by_level(b: &dyn Backend) {
    mkdir(b, "a");
    mkdir(b, "a/b");
    for name in ["a/b/f", "a/g", "h"] {
        put(b, name, "1");
        put(b, name, "2");
    }
    let members = |dir: &str| {
        let mut names = good(b.history_members(&if dir.is_empty() { Key::root() } else { key(dir) }));
        names.sort();
        names
    };
    assert_eq!(members(""), ["a", "h"]);
    assert_eq!(members("a"), ["b", "g"]);
    assert_eq!(members("a/b"), ["f"]);
    assert!(members("a/b/f").is_empty());
    good(b.remove(&key("a/g"), &ANY));
    assert_eq!(members("a"), ["b", "g"], "also of what was removed");
}

pub fn missing_generations(b: &dyn Backend) {
    refused!(b.open_generation(&key("none"), Generation::FIRST), Error::NoGeneration(..));
    refused!(b.drop_generation(&key("none"), Generation::FIRST), Error::NoGeneration(..));
    put(b, "f", "1");
    refused!(b.open_generation(&key("f"), generation(2)), Error::NoGeneration(..));
    refused!(b.drop_generation(&key("f"), generation(2)), Error::NoGeneration(..));
    good(b.reserve(&key("r"), 0o644, &Creator::current()));
    refused!(b.open_generation(&key("r"), Generation::FIRST), Error::NoGeneration(..));
}

pub fn generations_are_dropped(b: &dyn Backend) {
    for text in ["1", "2", "3"] {
        put(b, "f", text);
    }
    refused!(b.drop_generation(&key("f"), generation(3)), Error::Invalid(..) | Error::NoGeneration(..));
    good(b.drop_generation(&key("f"), generation(2)));
    assert_eq!(numbers(b, "f"), [1]);
    refused!(b.open_generation(&key("f"), generation(2)), Error::NoGeneration(..));
    // A backend may go on listing it as lost; then there is a note to drop.
    assert!(matches!(b.drop_generation(&key("f"), generation(2)), Ok(()) | Err(Error::NoGeneration(..))));
    assert_eq!((read_generation(b, "f", 1), read(b, "f")), ("1".to_owned(), "3".to_owned()));
    good(b.drop_generation(&key("f"), Generation::FIRST));
    assert_eq!((numbers(b, "f"), histories(b, "")), (vec![], vec![]));
}

pub fn histories_are_found(b: &dyn Backend) {
    mkdir(b, "d");
    mkdir(b, "d/e");
    for path in ["a", "d/b", "d/e/c", "dd"] {
        put(b, path, "1");
        put(b, path, "2");
    }
    put(b, "d/young", "1");
    good(b.remove(&key("d/e/c"), &ANY));
    good(b.remove_dir(&key("d/e")));
    let histories = |dir: &str| histories(b, dir).into_iter().collect::<BTreeSet<_>>();
    let keys = |paths: &[&str]| paths.iter().map(|path| key(path)).collect::<BTreeSet<_>>();
    assert_eq!(histories(""), keys(&["a", "d/b", "d/e/c", "dd"]));
    assert_eq!(histories("d"), keys(&["d/b", "d/e/c"]), "not what only begins with the same letters");
    assert_eq!(histories("d/e/c"), keys(&["d/e/c"]), "at the key itself");
    assert_eq!(histories("d/young"), keys(&[]));
    // What was an object may be a directory now.
    good(b.remove(&key("a"), &ANY));
    mkdir(b, "a");
    put(b, "a/x", "1");
    put(b, "a/x", "2");
    assert_eq!(histories("a"), keys(&["a", "a/x"]));
    assert_eq!((read_generation(b, "a", 2), read_generation(b, "a/x", 1)), ("2".to_owned(), "1".to_owned()));
}

pub fn generations_keep_their_metadata(b: &dyn Backend) {
    put(b, "f", "1");
    let old = good(b.set_attr(&key("f"), &SetAttr { mode: Some(0o604), ..SetAttr::default() }));
    put(b, "f", "22");
    good(b.set_attr(&key("f"), &SetAttr { mode: Some(0o600), ..SetAttr::default() }));
    good(b.set_xattr(&key("f"), OsStr::new("user.a"), b"1", 0));
    let opened = good(b.open_generation(&key("f"), Generation::FIRST)).stat;
    assert_eq!((opened.mode, opened.uid, opened.gid, opened.size), (0o604, old.uid, old.gid, 1));
    assert_eq!((opened.id, opened.mtime, opened.committed), (old.id, old.mtime, old.committed));
}
