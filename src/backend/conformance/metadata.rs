//! Mode, owner, times and extended attributes.

use std::ffi::OsStr;

use super::*;
use crate::backend::{SetAttr, SetTime};
use crate::types::Timestamp;

const CREATE: i32 = 1;
const REPLACE: i32 = 2;
const NONE: SetAttr = SetAttr { mode: None, uid: None, gid: None, atime: None, mtime: None };

fn name(name: &str) -> &OsStr {
    OsStr::new(name)
}

pub fn attributes_are_set(b: &dyn Backend) {
    put(b, "f", "x");
    mkdir(b, "d");
    for path in ["f", "d", ""] {
        let path = key(path);
        let before = good(b.stat(&path));
        let (atime, mtime) = (Timestamp::from_nanos(1_234_567_890_123), Timestamp::from_nanos(987_654_321_987));
        let times = SetAttr { atime: Some(SetTime::At(atime)), mtime: Some(SetTime::At(mtime)), ..NONE };
        let after = good(b.set_attr(&path, &times));
        assert_eq!((after.atime, after.mtime, after.mode), (atime, mtime, before.mode));
        assert!(after.ctime >= before.ctime);
        assert_eq!(good(b.stat(&path)), after);
        let after = good(b.set_attr(&path, &SetAttr { mtime: Some(SetTime::Now), ..NONE }));
        assert!(after.mtime > mtime && after.atime == atime);
        let after = good(b.set_attr(&path, &SetAttr { mode: Some(0o1751), ..NONE }));
        assert_eq!((after.mode, after.id, after.generation), (0o1751, before.id, before.generation));
    }
    refused!(b.set_attr(&key("none"), &NONE), Error::NotFound(_));
}

pub fn ownership_clears_suid(b: &dyn Backend) {
    let stat = put(b, "f", "x");
    mkdir(b, "d");
    let (suid, own) = (SetAttr { mode: Some(0o6755), ..NONE }, SetAttr { gid: Some(stat.gid), ..NONE });
    assert_eq!(good(b.set_attr(&key("f"), &suid)).mode, 0o6755);
    assert_eq!(good(b.set_attr(&key("f"), &own)).mode, 0o755);
    good(b.set_attr(&key("d"), &suid));
    assert_eq!(good(b.set_attr(&key("d"), &own)).mode, 0o6755, "a directory keeps them");
}

pub fn extended_attributes(b: &dyn Backend) {
    mkdir(b, "d");
    put(b, "f", "x");
    for path in ["d", "f"] {
        let path = key(path);
        assert_eq!(good(b.list_xattrs(&path)), [""; 0]);
        refused!(b.get_xattr(&path, name("user.a")), Error::NoAttribute(_));
        refused!(b.remove_xattr(&path, name("user.a")), Error::NoAttribute(_));
        refused!(b.set_xattr(&path, name("user.a"), b"1", REPLACE), Error::NoAttribute(_));
        good(b.set_xattr(&path, name("user.a"), b"1", CREATE));
        refused!(b.set_xattr(&path, name("user.a"), b"2", CREATE), Error::Exists(_));
        assert_eq!(good(b.get_xattr(&path, name("user.a"))), b"1");
        good(b.set_xattr(&path, name("user.a"), b"\0\xff", REPLACE));
        good(b.set_xattr(&path, name("user.odd/ =\n"), b"", 0));
        assert_eq!(good(b.get_xattr(&path, name("user.a"))), b"\0\xff");
        let mut names = good(b.list_xattrs(&path));
        names.sort_unstable();
        assert_eq!(names, ["user.a", "user.odd/ =\n"]);
        good(b.remove_xattr(&path, name("user.a")));
        assert_eq!(good(b.list_xattrs(&path)), ["user.odd/ =\n"]);
        assert_eq!(good(b.get_xattr(&path, name("user.odd/ =\n"))), b"");
    }
    refused!(b.get_xattr(&key("none"), name("user.a")), Error::NotFound(_));
}

pub fn attribute_name_spaces(b: &dyn Backend) {
    let before = put(b, "f", "x");
    let path = key("f");
    // Sepia's own record is neither seen nor harmed by its name.
    refused!(b.get_xattr(&path, name("user.sepia")), Error::NoAttribute(_));
    let _ = b.set_xattr(&path, name("user.sepia"), b"mischief", 0);
    let _ = b.remove_xattr(&path, name("user.sepia"));
    assert_eq!(good(b.list_xattrs(&path)), [""; 0]);
    let after = good(b.stat(&path));
    assert_eq!((after.generation, after.id, after.recorded), (before.generation, before.id, true));
    refused!(b.get_xattr(&path, name("user.sepia")), Error::NoAttribute(_));
    if !can(b).system_xattrs {
        unsupported(b.set_xattr(&path, name("trusted.a"), b"1", 0));
        unsupported(b.set_xattr(&path, name("system.posix_acl_access"), b"1", 0));
        unsupported(b.get_xattr(&path, name("security.selinux")));
        unsupported(b.remove_xattr(&path, name("security.selinux")));
    }
    assert!(b.set_xattr(&path, name("nonsense"), b"1", 0).is_err(), "a name without a name space");
}

pub fn metadata_makes_no_generation(b: &dyn Backend) {
    let before = put(b, "f", "x");
    good(b.set_attr(&key("f"), &SetAttr { mode: Some(0o600), ..NONE }));
    good(b.set_xattr(&key("f"), name("user.a"), b"1", 0));
    good(b.remove_xattr(&key("f"), name("user.a")));
    let after = good(b.stat(&key("f")));
    assert_eq!((after.generation, after.id, after.committed), (before.generation, before.id, before.committed));
    assert!(after.recorded && after.same_bytes(&before), "metadata is no change of bytes");
    good(b.set_attr(&key("f"), &SetAttr { mtime: Some(SetTime::At(Timestamp::from_nanos(5))), ..NONE }));
    assert_eq!(read(b, "f"), "x");
    let after = good(b.stat(&key("f")));
    assert!(after.recorded && after.generation == before.generation, "a time that was set is no change from outside");
    assert_eq!(numbers(b, "f"), [0; 0]);
    // A precondition doesn't see it either.
    good(commit(b, &key("f"), b"y", &when(before.precondition())));
}

pub fn metadata_survives_a_commit(b: &dyn Backend) {
    put(b, "f", "x");
    let attr = SetAttr { mode: Some(0o640), atime: Some(SetTime::At(Timestamp::from_nanos(7_000_000_000))), ..NONE };
    let before = good(b.set_attr(&key("f"), &attr));
    good(b.set_xattr(&key("f"), name("user.a"), b"1", 0));
    let after = put(b, "f", "yy");
    assert_eq!((after.mode, after.uid, after.gid, after.id), (0o640, before.uid, before.gid, before.id));
    assert_eq!(good(b.get_xattr(&key("f"), name("user.a"))), b"1");
    good(append(b, "f", 2, "z", &when(after.precondition())));
    assert_eq!(good(b.get_xattr(&key("f"), name("user.a"))), b"1");
    good(b.rename(&key("f"), &key("g"), &RENAME));
    let moved = good(b.stat(&key("g")));
    assert_eq!((moved.mode, good(b.get_xattr(&key("g"), name("user.a")))), (0o640, b"1".to_vec()));
}
