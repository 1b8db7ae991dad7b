//! Appends from both sides, and what they merge with.

use super::*;

/// An amendment replaces the bytes under their number: who saw those before must not append to the others.
#[test]
fn an_append_does_not_merge_with_an_amendment() {
    for later in ["", "appended"] {
        let (a, b, _dir) = pair();
        let amends = a.create("f");
        a.write(amends, 0, "first");
        a.fs.flush(&caller(), amends).unwrap();
        let appends = b.open("f", APPEND);
        b.write(appends, 0, "+b");
        a.write(amends, 0, "other");
        a.close(amends).unwrap();
        if !later.is_empty() {
            let fh = a.open("f", APPEND);
            a.write(fh, 0, later);
            a.close(fh).unwrap();
        }
        assert_eq!(b.close(appends), Err(Errno::STALE));
        assert_eq!((a.text("f"), a.conflicts()), (format!("other{later}"), 1));
    }
}

#[test]
fn appends_merge_with_an_amendment_that_appended() {
    let (a, b, _dir) = pair();
    a.save("f", "base");
    let first = a.open("f", APPEND);
    a.write(first, 0, "+a1");
    a.fs.flush(&caller(), first).unwrap();
    let second = b.open("f", APPEND);
    b.write(second, 0, "+b");
    a.write(first, 0, "+a2");
    a.close(first).unwrap();
    assert_eq!(b.close(second), Ok(()));
    assert_eq!((a.text("f"), a.conflicts()), ("base+a1+a2+b".to_owned(), 0));
}

#[test]
fn appends_to_an_object_with_several_names_merge() {
    let (a, b, _dir) = pair();
    a.save("f", "base");
    a.fs.link(&caller(), a.ino("f"), ROOT, OsStr::new("g")).unwrap();
    let (first, second, third) = (a.open("f", APPEND), b.open("f", APPEND), b.open("g", OFlags::WRONLY));
    a.write(first, 0, "+a");
    b.write(second, 0, "+b");
    assert_eq!((a.close(first), b.close(second)), (Ok(()), Ok(())));
    assert_eq!((a.text("g"), a.conflicts()), ("base+a+b".to_owned(), 0));
    // But not with a rewrite, which an object with several names gets in place.
    b.fs.release(third);
    let (rewrites, appends) = (a.open("f", OFlags::RDWR), b.open("g", APPEND));
    a.write(rewrites, 0, "BASE");
    b.write(appends, 0, "+lost");
    assert_eq!((a.close(rewrites), b.close(appends)), (Ok(()), Err(Errno::STALE)));
    assert_eq!((b.text("f"), b.conflicts()), ("BASE+a+b".to_owned(), 1));
}
