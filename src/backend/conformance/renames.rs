//! Renames, and where the histories are afterwards.

use super::*;
use crate::backend::FileKind;
use crate::types::ObjectId;

pub fn a_rename_takes_the_history_along(b: &dyn Backend) {
    mkdir(b, "d");
    put(b, "a", "1");
    let second = put(b, "a", "2");
    let moved = good(b.rename(&key("a"), &key("d/b"), &RENAME));
    assert_eq!((moved.generation, moved.id, moved.committed), (second.generation, second.id, second.committed));
    assert!(moved.same_bytes(&second), "a rename is no change of bytes");
    assert_eq!(good(b.stat(&key("d/b"))), moved);
    refused!(b.stat(&key("a")), Error::NotFound(_));
    assert_eq!((numbers(b, "a"), numbers(b, "d/b")), (vec![], vec![1]));
    assert_eq!((read_generation(b, "d/b", 1), read(b, "d/b")), ("1".to_owned(), "2".to_owned()));
    good(commit(b, &key("d/b"), b"3", &when(second.precondition())));
    assert_eq!(histories(b, ""), [key("d/b")]);
}

pub fn a_rename_over_is_a_commit(b: &dyn Backend) {
    let replaced = put(b, "f", "old");
    let temporary = put(b, "f.tmp", "new");
    let moved = good(b.rename(&key("f.tmp"), &key("f"), &RENAME));
    assert_eq!((moved.generation, moved.id), (Some(generation(2)), temporary.id));
    assert!(moved.committed >= temporary.committed);
    assert_eq!((read(b, "f"), read_generation(b, "f", 1)), ("new".to_owned(), "old".to_owned()));
    let [info] = &kept(b, "f")[..] else { panic!("one generation is kept") };
    assert_eq!((info.deleted, Some(info.committed)), (false, replaced.committed));
    assert_eq!(good(b.open_generation(&key("f"), Generation::FIRST)).stat.id, replaced.id);
    assert_eq!(names(b, ""), ["f"]);
    // Whoever had the old one open is told.
    refused!(commit(b, &key("f"), b"x", &when(replaced.precondition())), Error::Stale { current, .. } if current == moved.generation);
}

pub fn an_older_history_stays(b: &dyn Backend) {
    put(b, "to", "t1");
    put(b, "to", "t2");
    good(b.remove(&key("to"), &ANY));
    put(b, "from", "f1");
    put(b, "from", "f2");
    put(b, "from", "f3");
    good(b.rename(&key("from"), &key("to"), &RENAME));
    assert_eq!((numbers(b, "to"), current(b, "to")), (vec![1, 2], 3));
    let (one, two, three) = (read_generation(b, "to", 1), read_generation(b, "to", 2), read_generation(b, "to", 3));
    assert_eq!([one, two, three], ["t1", "t2", "f3"]);
    // The other's is still to be found where it was.
    assert_eq!((read_generation(b, "from", 1), read_generation(b, "from", 2)), ("f1".to_owned(), "f2".to_owned()));
}

pub fn renames_under_preconditions(b: &dyn Backend) {
    let (from, to) = (put(b, "from", "f"), put(b, "to", "t"));
    let rename = |expect_from, expect_to| {
        b.rename(&key("from"), &key("to"), &Rename { expect_from, expect_to, exchange: false })
    };
    let other = Precondition::Version(Generation::FIRST, ObjectId::random(), b.now());
    refused!(rename(ANY, Precondition::Absent), Error::Exists(_));
    refused!(rename(ANY, other), Error::Stale { current, .. } if current == Some(Generation::FIRST));
    refused!(rename(other, ANY), Error::Stale { current, .. } if current == Some(Generation::FIRST));
    refused!(rename(Precondition::Generation(generation(2)), ANY), Error::Stale { .. });
    let absent = Rename { expect_to: to.precondition(), ..RENAME };
    refused!(b.rename(&key("from"), &key("new"), &absent), Error::Stale { current: None, .. });
    assert_eq!((read(b, "from"), read(b, "to"), names(b, "").len()), ("f".to_owned(), "t".to_owned(), 2));
    assert_eq!((numbers(b, "from"), numbers(b, "to")), (vec![], vec![]), "a refused rename leaves no trace");
    good(rename(from.precondition(), to.precondition()));
    assert_eq!(read(b, "to"), "f");
    let free = Rename { expect_to: Precondition::Absent, ..RENAME };
    good(b.rename(&key("to"), &key("new"), &free));
    mkdir(b, "d");
    refused!(b.rename(&key("new"), &key("d"), &free), Error::Exists(_));
    good(b.rename(&key("d"), &key("e"), &free));
}

pub fn refused_renames(b: &dyn Backend) {
    put(b, "file", "x");
    mkdir(b, "empty");
    mkdir(b, "full");
    mkdir(b, "full/sub");
    put(b, "full/file", "y");
    let rename = |from: &str, to: &str| b.rename(&key(from), &key(to), &RENAME);
    refused!(rename("none", "new"), Error::NotFound(_));
    refused!(rename("file", "none/new"), Error::NotFound(_));
    refused!(rename("file", "full/file/new"), Error::NotDirectory(_));
    refused!(rename("file", "empty"), Error::IsDirectory(_));
    refused!(rename("empty", "file"), Error::NotDirectory(_));
    refused!(rename("empty", "full"), Error::NotEmpty(_));
    refused!(rename("full", "full/sub/new"), Error::Invalid(..));
    refused!(rename("full", "full/new"), Error::Invalid(..));
    refused!(rename("full/sub", "full"), Error::NotEmpty(_));
    assert!(rename("", "new").is_err() && rename("empty", "").is_err());
    assert_eq!(
        (names(b, ""), names(b, "full")),
        (vec!["empty".into(), "file".into(), "full".into()], vec!["file".into(), "sub".into()])
    );
    assert_eq!((read(b, "file"), read(b, "full/file")), ("x".to_owned(), "y".to_owned()));
    // Onto an empty directory it works.
    let full = good(b.stat(&key("full")));
    let moved = good(rename("full", "empty"));
    assert_eq!((moved.id, moved.kind), (full.id, FileKind::Directory));
    assert_eq!(
        (names(b, ""), names(b, "empty")),
        (vec!["empty".into(), "file".into()], vec!["file".into(), "sub".into()])
    );
}

pub fn a_directory_moves_with_its_members(b: &dyn Backend) {
    for dir in ["a", "a/b", "a/b/c", "a2", "x"] {
        mkdir(b, dir);
    }
    put(b, "a/b/f", "1");
    let file = put(b, "a/b/f", "2");
    put(b, "a/b/c/g", "1");
    put(b, "a/gone", "1");
    good(b.remove(&key("a/gone"), &ANY));
    put(b, "a2/h", "stays");
    good(b.create_symlink(&key("a/link"), b"b/f", &Creator::current()));
    let sub = good(b.stat(&key("a/b")));
    let moved = good(b.rename(&key("a"), &key("x/y"), &RENAME));
    assert_eq!((moved.kind, moved.nlink), (FileKind::Directory, 3));
    assert_eq!((names(b, ""), names(b, "x/y")), (vec!["a2".into(), "x".into()], vec!["b".into(), "link".into()]));
    assert_eq!((names(b, "x/y/b"), read(b, "x/y/b/c/g")), (vec!["c".into(), "f".into()], "1".to_owned()));
    assert_eq!((good(b.stat(&key("x/y/b"))).id, good(b.read_link(&key("x/y/link")))), (sub.id, b"b/f".to_vec()));
    let there = good(b.stat(&key("x/y/b/f")));
    assert_eq!((there.id, there.generation), (file.id, file.generation));
    assert_eq!(read_generation(b, "x/y/b/f", 1), "1");
    assert_eq!(read_generation(b, "x/y/gone", 1), "1", "the history of what was removed moves too");
    assert_eq!((numbers(b, "a/b/f"), numbers(b, "a/gone"), read(b, "a2/h")), (vec![], vec![], "stays".to_owned()));
    good(commit(b, &key("x/y/b/f"), b"3", &when(file.precondition())));
    // And back.
    good(b.rename(&key("x/y"), &key("a"), &RENAME));
    assert_eq!((read(b, "a/b/f"), numbers(b, "a/b/f"), current(b, "a/b/f")), ("3".to_owned(), vec![1, 2], 3));
}

/// Under the old name of the directory nobody would look for them.
pub fn histories_of_members_are_joined(b: &dyn Backend) {
    for path in ["to/f", "to/gone", "from/f", "from/gone"] {
        let dir = path.split_once('/').map_or("", |(dir, _)| dir);
        if b.stat(&key(dir)).is_err() {
            mkdir(b, dir);
        }
        let first = put(b, path, &format!("{path} 1"));
        good(append(b, path, first.size, "+", &when(first.precondition())));
        put(b, path, &format!("{path} 3"));
    }
    for path in ["to/f", "to/gone", "from/gone"] {
        good(b.remove(&key(path), &ANY));
    }
    let before = good(b.stat(&key("from/f")));
    let moved = good(b.rename(&key("from"), &key("to"), &RENAME));
    assert_eq!((moved.kind, names(b, "to")), (FileKind::Directory, vec!["f".to_owned()]));
    assert_eq!(histories(b, ""), [key("to/f"), key("to/gone")]);
    let all =
        |path: &str| kept(b, path).iter().map(|i| read_generation(b, path, i.generation.get())).collect::<Vec<_>>();
    assert_eq!(all("to/f"), ["to/f 1", "to/f 1+", "to/f 3", "from/f 1", "from/f 1+"]);
    assert_eq!(all("to/gone"), ["to/gone 1", "to/gone 1+", "to/gone 3", "from/gone 1", "from/gone 1+", "from/gone 3"]);
    let now = good(b.stat(&key("to/f")));
    assert!(now.id == before.id && now.generation > Generation::new(5), "above all: {now:?}");
    assert_eq!(read(b, "to/f"), "from/f 3");
    stale(commit(b, &key("to/f"), b"x", &when(before.precondition())), before.precondition(), now.generation);
}

/// A member that has no history of its own counts on from what its new name has seen, as one that has does.
pub fn a_member_without_history_counts_on(b: &dyn Backend) {
    mkdir(b, "to");
    for text in ["1", "2", "3"] {
        put(b, "to/f", text);
    }
    good(b.remove(&key("to/f"), &ANY));
    mkdir(b, "from");
    put(b, "from/f", "new");
    good(b.rename(&key("from"), &key("to"), &RENAME));
    assert_eq!((read(b, "to/f"), current(b, "to/f"), numbers(b, "to/f")), ("new".to_owned(), 4, vec![1, 2, 3]));
    put(b, "to/f", "newer");
    let all: Vec<_> = (1..=5).map(|number| read_generation(b, "to/f", number)).collect();
    assert_eq!(all, ["1", "2", "3", "new", "newer"]);
}

pub fn histories_of_members_stay_where_a_directory_was(b: &dyn Backend) {
    mkdir(b, "name");
    put(b, "name/member", "1");
    good(b.remove(&key("name/member"), &ANY));
    good(b.remove_dir(&key("name")));
    put(b, "name", "1");
    put(b, "name", "2");
    good(b.rename(&key("name"), &key("other"), &RENAME));
    assert_eq!((read(b, "other"), read_generation(b, "other", 1)), ("2".to_owned(), "1".to_owned()));
    assert_eq!(histories(b, ""), [key("name/member"), key("other")], "the object's own history came along");
    good(b.rename(&key("other"), &key("name"), &RENAME));
    assert_eq!((read_generation(b, "name", 1), histories(b, "").len()), ("1".to_owned(), 2));
}

pub fn a_rename_to_itself(b: &dyn Backend) {
    put(b, "f", "1");
    mkdir(b, "d");
    let before = good(b.stat(&key("f")));
    assert_eq!(good(b.rename(&key("f"), &key("f"), &RENAME)).generation, before.generation);
    good(b.rename(&key("d"), &key("d"), &RENAME));
    let only_new = Rename { expect_to: Precondition::Absent, ..RENAME };
    refused!(b.rename(&key("f"), &key("f"), &only_new), Error::Exists(_));
    assert_eq!((read(b, "f"), numbers(b, "f")), ("1".to_owned(), vec![]));
}

pub fn an_exchange(b: &dyn Backend) {
    put(b, "x", "old x");
    put(b, "y", "old y");
    let (x, y) = (put(b, "x", "1"), put(b, "y", "2"));
    let exchange = Rename { exchange: true, ..RENAME };
    if !can(b).exchange {
        unsupported(b.rename(&key("x"), &key("y"), &exchange));
        assert_eq!((read(b, "x"), read(b, "y")), ("1".to_owned(), "2".to_owned()));
        return;
    }
    refused!(b.rename(&key("x"), &key("none"), &exchange), Error::NotFound(_));
    good(b.rename(&key("x"), &key("y"), &exchange));
    assert_eq!((read(b, "x"), read(b, "y")), ("2".to_owned(), "1".to_owned()));
    assert_eq!((good(b.stat(&key("x"))).id, good(b.stat(&key("y"))).id), (y.id, x.id));
    // Each name has other bytes than before, so each has another generation. The histories may go along or stay.
    assert!(current(b, "x") > 2 && current(b, "y") > 2);
    assert_ne!(good(b.stat(&key("x"))).committed, good(b.stat(&key("y"))).committed, "no two objects have one commit");
    let mut olds = [read_generation(b, "x", 1), read_generation(b, "y", 1)];
    olds.sort_unstable();
    assert_eq!(olds, ["old x", "old y"]);
    mkdir(b, "d");
    good(b.rename(&key("d"), &key("x"), &exchange));
    assert_eq!((good(b.stat(&key("x"))).kind, read(b, "d")), (FileKind::Directory, "2".to_owned()));
}

pub fn prefixes_survive_a_rename_over(b: &dyn Backend) {
    // What the source's history is stored in terms of leaves; what the target's is stored in terms of is replaced.
    for path in ["from", "to"] {
        let first = put(b, path, path);
        good(append(b, path, first.size, "+", &when(first.precondition())));
    }
    good(b.rename(&key("from"), &key("to"), &RENAME));
    assert_eq!(
        (read(b, "to"), read_generation(b, "to", 1), read_generation(b, "to", 2)),
        ("from+".into(), "to".into(), "to+".into())
    );
    assert_eq!(read_generation(b, "from", 1), "from");
    put(b, "to", "rewritten");
    assert_eq!((read_generation(b, "from", 1), read_generation(b, "to", 3)), ("from".to_owned(), "from+".to_owned()));
}

pub fn prefixes_survive_where_something_left(b: &dyn Backend) {
    let first = put(b, "name", "12345");
    good(append(b, "name", 5, "6", &when(first.precondition())));
    good(b.rename(&key("name"), &key("away"), &RENAME));
    good(b.remove(&key("away"), &ANY));
    put(b, "away", "another");
    put(b, "name", "1");
    assert_eq!(
        (read_generation(b, "away", 1), read_generation(b, "away", 2)),
        ("12345".to_owned(), "123456".to_owned())
    );
    // Where the history of the name goes on, it must be readable there.
    for info in kept(b, "name") {
        assert_eq!(read_generation(b, "name", info.generation.get()), "12345");
    }
}
