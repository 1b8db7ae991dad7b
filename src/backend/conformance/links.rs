//! Symbolic links, hard links and special files, as far as the medium has them.

use super::*;
use crate::backend::FileKind;

pub fn symlinks(b: &dyn Backend) {
    let creator = Creator::current();
    mkdir(b, "tasks");
    let target: &[u8] = b"../../Task/\xff t1";
    let made = good(b.create_symlink(&key("tasks/t1"), target, &creator));
    assert_eq!((made.kind, made.generation, made.size), (FileKind::Symlink, None, target.len() as u64));
    assert_eq!(made.mode, 0o777);
    assert_eq!(good(b.read_link(&key("tasks/t1"))), target);
    // Nothing follows it.
    assert_eq!(good(b.stat(&key("tasks/t1"))).id, made.id);
    put(b, "file", "x");
    good(b.create_symlink(&key("alias"), b"file", &creator));
    refused!(b.open(&key("alias")), Error::Invalid(..));
    refused!(b.read_link(&key("file")), Error::Invalid(..));
    assert!(commit(b, &key("alias"), b"y", &when(ANY)).is_err());
    assert_eq!(read(b, "file"), "x");
    good(b.create_symlink(&key("way"), b"tasks", &creator));
    refused!(b.stat(&key("way/t1")), Error::NotDirectory(_));

    let moved = good(b.rename(&key("tasks/t1"), &key("t1"), &RENAME));
    assert_eq!((moved.kind, moved.id), (FileKind::Symlink, made.id));
    assert_eq!(good(b.read_link(&key("t1"))), target);
    good(b.rename(&key("t1"), &key("alias"), &RENAME));
    assert_eq!(good(b.read_link(&key("alias"))), target);
    refused!(b.remove(&key("alias"), &Precondition::Generation(generation(1))), Error::Stale { current: None, .. });
    good(b.remove(&key("alias"), &ANY));
    refused!(b.read_link(&key("alias")), Error::NotFound(_));
    assert_eq!(numbers(b, "alias"), [0; 0], "a link has no generations");
}

pub fn hard_links(b: &dyn Backend) {
    let first = put(b, "a", "1");
    if !can(b).hard_links {
        unsupported(b.link(&key("a"), &key("b"), &ANY));
        refused!(b.stat(&key("b")), Error::NotFound(_));
        return;
    }
    let other = good(commit(b, &key("a"), b"1", &when(first.precondition())));
    stale(b.link(&key("a"), &key("b"), &first.precondition()), first.precondition(), other.generation);
    refused!(b.stat(&key("b")), Error::NotFound(_));
    let linked = good(b.link(&key("a"), &key("b"), &other.precondition()));
    assert_eq!((linked.id, linked.nlink), (first.id, 2));
    refused!(b.link(&key("a"), &key("b"), &ANY), Error::Exists(_));
    refused!(b.link(&key("none"), &key("c"), &ANY), Error::NotFound(_));
    mkdir(b, "d");
    assert!(b.link(&key("d"), &key("e"), &ANY).is_err());
    // A commit through one name is seen through the other, and both stay.
    let second = good(commit(b, &key("a"), b"22", &when(linked.precondition())));
    assert_eq!((read(b, "a"), read(b, "b")), ("22".to_owned(), "22".to_owned()));
    assert_eq!((second.nlink, second.id, good(b.stat(&key("b"))).generation), (2, first.id, second.generation));
    assert_eq!(read_generation(b, "a", 2), "1");
    good(b.remove(&key("a"), &ANY));
    let left = good(b.stat(&key("b")));
    assert_eq!((left.nlink, left.id, read(b, "b")), (1, first.id, "22".to_owned()));
}

pub fn special_files(b: &dyn Backend) {
    let creator = Creator { umask: 0o022, ..Creator::current() };
    if !can(b).special_files {
        for kind in [FileKind::Fifo, FileKind::Socket, FileKind::CharDevice, FileKind::BlockDevice] {
            unsupported(b.create_special(&key("special"), kind, 0o666, 0, &creator));
        }
        assert_eq!(names(b, ""), [""; 0]);
        return;
    }
    // Devices need a privilege that the test may not have.
    for (path, kind) in [("fifo", FileKind::Fifo), ("socket", FileKind::Socket)] {
        let made = good(b.create_special(&key(path), kind, 0o666, 0, &creator));
        assert_eq!((made.kind, made.mode, made.generation), (kind, 0o644, None));
        refused!(b.create_special(&key(path), kind, 0o666, 0, &creator), Error::Exists(_));
        refused!(b.open(&key(path)), Error::Invalid(..));
        assert_eq!(good(b.rename(&key(path), &key("moved"), &RENAME)).id, made.id);
        good(b.remove(&key("moved"), &ANY));
    }
    assert_eq!(names(b, ""), [""; 0]);
}
