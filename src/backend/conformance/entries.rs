//! Directories and the names in them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::*;
use crate::backend::{DirEntry, FileKind, SetAttr};
use crate::types::ObjectId;

pub fn the_root_always_exists(b: &dyn Backend) {
    let root = good(b.stat(&Key::root()));
    assert_eq!((root.kind, root.generation), (FileKind::Directory, None));
    assert_eq!(root.id, ObjectId::ROOT);
    assert_eq!(names(b, ""), [""; 0]);
    assert!(b.create_dir(&Key::root(), 0o755, &Creator::current()).is_err());
    assert!(b.remove_dir(&Key::root()).is_err());
    refused!(b.open(&Key::root()), Error::Invalid(..));
    refused!(b.remove(&Key::root(), &ANY), Error::IsDirectory(_) | Error::Invalid(..));
}

pub fn directories_are_made_listed_and_removed(b: &dyn Backend) {
    let made = mkdir(b, "Board");
    assert_eq!((made.kind, made.generation, made.committed), (FileKind::Directory, None, None));
    mkdir(b, "Board/b1");
    put(b, "Board/data.json", "{}");
    let mut entries = good(b.list(&key("Board")));
    entries.sort_by(|x, y| x.name.cmp(&y.name));
    let entry = |name: &str, kind| DirEntry { name: name.into(), kind };
    assert_eq!(entries, [entry("b1", FileKind::Directory), entry("data.json", FileKind::File)]);
    assert_eq!(good(b.stat(&key("Board"))).id, made.id);

    refused!(b.remove_dir(&key("Board")), Error::NotEmpty(_));
    refused!(b.remove_dir(&key("Board/data.json")), Error::NotDirectory(_));
    refused!(b.remove_dir(&key("Board/none")), Error::NotFound(_));
    refused!(b.remove(&key("Board/b1"), &ANY), Error::IsDirectory(_));
    good(b.remove_dir(&key("Board/b1")));
    refused!(b.stat(&key("Board/b1")), Error::NotFound(_));
    good(b.remove(&key("Board/data.json"), &ANY));
    good(b.remove_dir(&key("Board")));
    // The history below a directory outlives it, and can still be read.
    assert_eq!(read_generation(b, "Board/data.json", 1), "{}");
    assert_ne!(mkdir(b, "Board").id, made.id, "another directory is another object");
    assert_eq!(names(b, "Board"), [""; 0]);
}

pub fn missing_and_not_directory(b: &dyn Backend) {
    put(b, "file", "x");
    mkdir(b, "dir");
    let (creator, staged) = (Creator::current(), |path: &Key| commit(b, path, b"y", &when(ANY)));
    for (path, not_directory) in
        [("none", false), ("dir/none", false), ("none/x", false), ("file/x", true), ("file/x/y", true)]
    {
        let path = key(path);
        let missing = |result: Result<()>, what: &str| match result {
            Err(Error::NotFound(_)) if !not_directory => {}
            Err(Error::NotDirectory(_)) if not_directory => {}
            other => panic!("{what} {path}: {other:?}"),
        };
        missing(b.stat(&path).map(drop), "stat");
        missing(b.open(&path).map(drop), "open");
        missing(b.list(&path).map(drop), "list");
        missing(b.read_link(&path).map(drop), "read_link");
        missing(b.set_attr(&path, &SetAttr::default()).map(drop), "set_attr");
        missing(b.list_xattrs(&path).map(drop), "list_xattrs");
        missing(b.remove(&path, &ANY), "remove");
        missing(b.remove_dir(&path), "remove_dir");
        missing(b.sync_dir(&path), "sync_dir");
        missing(b.rename(&path, &key("dir/new"), &RENAME).map(drop), "rename");
        if path.parent().is_some_and(|parent| parent != Key::root() && parent != key("dir")) {
            missing(b.create_dir(&path, 0o755, &creator).map(drop), "create_dir");
            missing(b.create_symlink(&path, b"t", &creator).map(drop), "create_symlink");
            missing(b.reserve(&path, 0o644, &creator).map(drop), "reserve");
            missing(b.rename(&key("file"), &path, &RENAME).map(drop), "rename to");
            missing(staged(&path).map(drop), "commit");
        }
    }
    refused!(b.list(&key("file")), Error::NotDirectory(_));
    assert_eq!(names(b, ""), ["dir", "file"]);
    assert_eq!((names(b, "dir"), read(b, "file")), (vec![], "x".to_owned()));
}

pub fn names_are_exclusive(b: &dyn Backend) {
    let creator = Creator::current();
    mkdir(b, "dir");
    put(b, "file", "x");
    good(b.create_symlink(&key("link"), b"nowhere", &creator));
    good(b.reserve(&key("reserved"), 0o644, &creator));
    for path in ["dir", "file", "link", "reserved"] {
        let before = good(b.stat(&key(path)));
        refused!(b.create_dir(&key(path), 0o755, &creator), Error::Exists(_));
        refused!(b.create_symlink(&key(path), b"t", &creator), Error::Exists(_));
        refused!(b.reserve(&key(path), 0o644, &creator), Error::Exists(_));
        assert_eq!(good(b.stat(&key(path))), before);
    }
    assert_eq!(names(b, ""), ["dir", "file", "link", "reserved"]);
}

pub fn creators_and_setgid_directories(b: &dyn Backend) {
    let creator = Creator { umask: 0o027, ..Creator::current() };
    let dir = good(b.create_dir(&key("d"), 0o777, &creator));
    assert_eq!((dir.mode, dir.uid, dir.gid), (0o750, creator.uid, creator.gid));
    let file = good(b.reserve(&key("d/f"), 0o666, &creator));
    assert_eq!((file.mode, file.uid, file.gid), (0o640, creator.uid, creator.gid));
    let staged = stage_at(b, &key("d/g"), 0, b"x");
    let file = good(b.commit(&key("d/g"), staged, &when(Precondition::Absent), &creator).map_err(|(e, _)| e));
    assert_eq!((file.mode, file.uid, file.gid), (0o640, creator.uid, creator.gid));
    good(commit(b, &key("d/f"), b"x", &when(good(b.stat(&key("d/f"))).precondition())));
    assert_eq!(good(b.stat(&key("d/f"))).mode, 0o640, "a commit keeps the mode of what was reserved");

    // Only root may give a directory to a group that it isn't in.
    let gid = if creator.uid == 0 { creator.gid + 4242 } else { creator.gid };
    let attr = SetAttr { gid: Some(gid), mode: Some(0o2777), ..SetAttr::default() };
    assert_eq!(good(b.set_attr(&key("d"), &attr)).mode, 0o2777);
    let dir = good(b.create_dir(&key("d/sub"), 0o755, &creator));
    assert_eq!((dir.mode, dir.gid), (0o2750, gid));
    let file = good(b.reserve(&key("d/new"), 0o644, &creator));
    assert_eq!((file.mode, file.gid), (0o640, gid));
    assert_eq!(good(b.create_symlink(&key("d/link"), b"t", &creator)).gid, gid);
    assert_eq!(put(b, "d/committed", "x").gid, gid);
}

pub fn directory_times_and_links(b: &dyn Backend) {
    mkdir(b, "d");
    mkdir(b, "e");
    let links = |path: &str| good(b.stat(&key(path))).nlink;
    assert_eq!(links("d"), 2);
    let old = crate::types::Timestamp::from_nanos(1_000_000_000);
    let changed = |paths: &[&str], what: &str, act: &dyn Fn()| {
        let attr = SetAttr { mtime: Some(crate::backend::SetTime::At(old)), ..SetAttr::default() };
        let before: Vec<_> = paths.iter().map(|path| good(b.set_attr(&key(path), &attr))).collect();
        act();
        for (path, before) in paths.iter().zip(before) {
            let after = good(b.stat(&key(path)));
            assert!(after.mtime > old, "{what}: mtime of {path}");
            assert!(after.ctime >= before.ctime, "{what}: ctime of {path}");
        }
    };
    let creator = Creator::current();
    changed(&["d"], "mkdir", &|| {
        mkdir(b, "d/sub");
    });
    assert_eq!(links("d"), 3);
    changed(&["d"], "reserve", &|| {
        good(b.reserve(&key("d/r"), 0o644, &creator));
    });
    changed(&["d"], "commit", &|| {
        put(b, "d/f", "x");
    });
    changed(&["d"], "symlink", &|| {
        good(b.create_symlink(&key("d/l"), b"t", &creator));
    });
    assert_eq!(links("d"), 3);
    changed(&["d", "e"], "rename", &|| {
        good(b.rename(&key("d/f"), &key("e/f"), &RENAME));
    });
    changed(&["d", "e"], "rename of a directory", &|| {
        good(b.rename(&key("d/sub"), &key("e/sub"), &RENAME));
    });
    assert_eq!((links("d"), links("e")), (2, 3));
    changed(&["e"], "remove", &|| good(b.remove(&key("e/f"), &ANY)));
    changed(&["e"], "rmdir", &|| good(b.remove_dir(&key("e/sub"))));
    assert_eq!(links("e"), 2);
}

pub fn odd_names(b: &dyn Backend) {
    let long = [b'x'; 255];
    let odd: [&[u8]; 9] =
        [b"new\nline", b"\xff\xfe", &long, b" ", b"a%2Fb", b"\\", b".sepia", b"3@x-y", b"*?[\x01\x7f"];
    mkdir(b, "d");
    for name in odd {
        let path = good(key("d").child(OsStr::from_bytes(name)).map_err(Error::from));
        let first = good(commit(b, &path, b"1", &when(Precondition::Absent)));
        good(commit(b, &path, b"2", &when(first.precondition())));
        assert_eq!(good(b.generations(&path)).len(), 1);
        assert_eq!(read_all(&good(b.open_generation(&path, Generation::FIRST)).file), b"1");
        assert!(good(b.histories(&key("d"))).contains(&path));
    }
    let mut listed: Vec<_> = good(b.list(&key("d"))).into_iter().map(|e| e.name.as_bytes().to_vec()).collect();
    let mut all: Vec<_> = odd.iter().map(|name| name.to_vec()).collect();
    listed.sort_unstable();
    all.sort_unstable();
    assert_eq!(listed, all);
    // A directory and its members, too.
    let dir = good(key("d").child(OsStr::from_bytes(b"\xfd\n")).map_err(Error::from));
    good(b.create_dir(&dir, 0o755, &Creator::current()));
    let member = good(dir.child(OsStr::from_bytes(&long)).map_err(Error::from));
    good(commit(b, &member, b"x", &when(ANY)));
    good(b.remove(&member, &ANY));
    good(b.remove_dir(&dir));
    assert_eq!(good(b.histories(&dir)), [member]);
}

pub fn the_reserved_name_is_not_listed(b: &dyn Backend) {
    put(b, "a", "1");
    put(b, "a", "2");
    good(b.put_record(&key("conflicts/x.json"), b"{}"));
    assert_eq!(names(b, ""), ["a"]);
}

pub fn the_rest_of_the_house(b: &dyn Backend) {
    assert!(!b.store_id().is_empty());
    let size = good(b.stat_fs());
    assert!(size.block_size > 0 && size.blocks_available <= size.blocks_free && size.blocks_free <= size.blocks);
    assert!(size.name_max >= 255);
    good(b.sync_dir(&Key::root()));
    drop(good(b.hold(&Key::root())));
    assert!(good(b.take_abandoned()).is_empty(), "this process is alive");
    let before = b.now();
    let stat = put(b, "a", "1");
    assert!(stat.committed.is_some_and(|time| before <= time && time <= b.now()), "stamped by another clock");
    if can(b).changes_from_outside {
        // Whoever can be changed behind its back tells, or says that it can't; either is right.
        drop(good(b.watch(Box::new(|_| {}))));
    }
}
