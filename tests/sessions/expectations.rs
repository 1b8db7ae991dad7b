//! What `user.sepia.expect` says about the saves that follow.

use super::*;

#[test]
fn an_expectation_is_not_forgotten_by_joining_a_session() {
    let (a, b, _dir) = pair();
    a.save("f", "one");
    a.rewrite("f", "two");
    let writer = a.open("f", OFlags::RDWR);
    a.write(writer, 0, "TWO");
    a.expect("f", 1);
    assert_eq!(a.try_open("f", OFlags::RDWR), Err(Errno::STALE));
    assert_eq!(a.expected("f").as_deref(), Some("1"), "what was not met stays");
    a.expect("f", 2);
    let joined = a.open("f", OFlags::RDWR);
    assert_eq!(a.expected("f"), None);
    a.write(joined, 3, "!");
    assert_eq!((a.close(joined), a.close(writer)), (Ok(()), Ok(())));
    assert_eq!((b.text("f"), b.conflicts()), ("TWO!".to_owned(), 0));
}

#[test]
fn an_expectation_survives_an_open_that_fails() {
    let (a, b, _dir) = pair();
    a.save("f", "one");
    let ino = a.ino("f");
    a.expect("f", 1);
    b.save("g", "other");
    b.rename("g", "f").unwrap();
    assert_eq!(a.fs.open(&caller(), ino, OFlags::RDWR.bits() as i32).map(drop), Err(Errno::STALE));
    // As the kernel does, which looks again.
    let fh = a.open("f", OFlags::RDWR);
    a.write(fh, 0, "lost");
    assert_eq!(a.close(fh), Err(Errno::STALE));
    assert_eq!((b.text("f"), b.conflicts()), ("other".to_owned(), 1));
}

#[test]
fn an_expectation_holds_for_all_names_and_for_what_another_mount_removes() {
    let (a, b, _dir) = pair();
    a.save("f", "one");
    a.fs.link(&caller(), a.ino("f"), ROOT, OsStr::new("g")).unwrap();
    let (f, _) = (a.ino("f"), a.ino("g"));
    // By whichever name the kernel knows it.
    a.fs.setxattr(&caller(), f, OsStr::new("user.sepia.expect"), b"7", 0).unwrap();
    for name in ["f", "g"] {
        assert_eq!(a.fs.unlink(&caller(), ROOT, OsStr::new(name)), Err(Errno::STALE));
        assert_eq!(a.rename(name, "h"), Err(Errno::STALE));
    }
    a.expect("f", 1);
    a.fs.unlink(&caller(), ROOT, OsStr::new("g")).unwrap();
    assert_eq!(a.expected("f"), None, "it was for one change");

    a.expect("f", 1);
    b.fs.unlink(&caller(), ROOT, OsStr::new("f")).unwrap();
    let fh = a.create("f");
    a.write(fh, 0, "lost");
    assert_eq!(a.close(fh), Err(Errno::STALE), "it was expected to be there");
    assert_eq!((a.text("f"), a.conflicts()), (String::new(), 1));
}

#[test]
fn an_expectation_moves_with_its_directory() {
    let (a, _b, _dir) = pair();
    let dir = a.fs.mkdir(&caller(), ROOT, OsStr::new("d"), 0o755).unwrap().attr.ino;
    let fh = a.fs.create(&caller(), dir, OsStr::new("f"), 0o644, OFlags::RDWR.bits() as i32).unwrap();
    a.write(fh.1.fh, 0, "one");
    a.close(fh.1.fh).unwrap();
    a.fs.setxattr(&caller(), fh.0.attr.ino, OsStr::new("user.sepia.expect"), b"7", 0).unwrap();
    a.rename("d", "e").unwrap();
    assert_eq!(a.fs.unlink(&caller(), a.ino("e"), OsStr::new("f")), Err(Errno::STALE));
    assert_eq!(
        a.fs.setxattr(&caller(), dir, OsStr::new("user.sepia.expect"), b"1", 0),
        Err(Errno::INVAL),
        "of a directory"
    );
}

#[test]
fn an_expectation_does_not_merge() {
    for (a, b) in [
        {
            let (a, b, dir) = pair();
            std::mem::forget(dir);
            (a, b)
        },
        {
            let store = Store::open("memory:").unwrap();
            (side(store.clone()), side(store))
        },
    ] {
        a.save("f", "base");
        a.expect("f", 1);
        let fh = a.open("f", APPEND);
        a.write(fh, 0, "+a");
        let other = b.open("f", APPEND);
        b.write(other, 0, "+b");
        b.close(other).unwrap();
        assert_eq!(a.close(fh), Err(Errno::STALE));
        assert_eq!((a.text("f"), a.conflicts()), ("base+b".to_owned(), 1));
        assert!(a.store.put(&key("f"), &mut &b""[..], Precondition::Absent).is_err());
    }
}
