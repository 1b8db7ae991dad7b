//! What is set aside of a save that came too late.

use super::between::Between;
use super::*;

/// What a session reads where it hasn't written is replaced in the object's own file, if that has several names.
#[test]
fn what_is_set_aside_of_an_object_with_several_names_is_no_mix() {
    for late in [false, true] {
        let (a, b, _dir) = pair();
        a.save("f", "some base");
        a.fs.link(&caller(), a.ino("f"), ROOT, OsStr::new("g")).unwrap();
        let loser = b.open("f", if late { OFlags::RDWR } else { APPEND });
        if !late {
            b.write(loser, 0, "+mine");
        }
        a.rewrite("f", "theirs");
        if late {
            b.write(loser, 5, "B");
        }
        assert_eq!(b.close(loser), Err(Errno::STALE));
        assert_eq!(a.last_conflict(), if late { "some Base" } else { "some base+mine" });
        assert_eq!((a.text("f"), a.text("g")), ("theirs".to_owned(), "theirs".to_owned()));
    }
}

/// It may be saved under any of its names, and only the history of that one has what was there before.
#[test]
fn what_is_set_aside_is_no_mix_whatever_the_name_of_the_save() {
    for appends in [true, false] {
        for removed in [false, true] {
            let (a, b, _dir) = pair();
            a.save("f", "some base");
            a.fs.link(&caller(), a.ino("f"), ROOT, OsStr::new("g")).unwrap();
            let loser = b.open("f", if appends { APPEND } else { OFlags::RDWR });
            if appends {
                b.write(loser, 0, "+mine");
            }
            a.rewrite("g", "theirs");
            if removed {
                a.fs.unlink(&caller(), ROOT, OsStr::new("g")).unwrap();
            }
            if !appends {
                b.write(loser, 5, "B");
            }
            assert_eq!(b.close(loser), Err(Errno::STALE));
            assert_eq!(a.last_conflict(), if appends { "some base+mine" } else { "some Base" }, "{removed}");
            assert_eq!(a.text("f"), "theirs");
            assert_eq!(a.store.conflicts().unwrap()[0].base_lost, None);
        }
    }
}

/// Where nobody has it any more, that is said, and what is set aside is not taken for more than it is.
#[test]
fn what_is_set_aside_says_that_its_base_is_lost() {
    let (a, b, _dir) = pair();
    a.save("f", "some base");
    a.fs.link(&caller(), a.ino("f"), ROOT, OsStr::new("g")).unwrap();
    b.expect("f", 1);
    let loser = b.open("f", OFlags::RDWR);
    a.rewrite("g", "theirs");
    a.store.backend().drop_generation(&key("g"), Generation::FIRST).unwrap();
    b.write(loser, 9, "+mine");
    assert_eq!(b.close(loser), Err(Errno::STALE));
    assert_eq!(&a.last_conflict()[9..], "+mine");
    assert_eq!(a.store.conflicts().unwrap()[0].base_lost, Some(9));
}

/// Somebody replaces the bytes while they are being copied.
#[test]
fn what_is_copied_while_it_is_replaced_is_no_mix() {
    let dir = tempfile::tempdir().unwrap();
    let b = side(Store::init(dir.path().to_str().unwrap()).unwrap());
    let inner = FileBackend::open(dir.path()).unwrap();
    let between = Arc::new(Between { inner, act: Mutex::new(None) });
    let a = side(Store::with_backend(between.clone(), b.store.location().clone()));
    b.save("f", "some base");
    b.fs.link(&caller(), b.ino("f"), ROOT, OsStr::new("g")).unwrap();
    let loser = a.open("f", OFlags::RDWR);
    let others = b.store.clone();
    *between.act.lock().unwrap() = Some(Box::new(move || {
        others.put(&key("f"), &mut &b"theirs"[..], Precondition::Any).unwrap();
    }));
    a.write(loser, 5, "B");
    assert!(between.act.lock().unwrap().is_none(), "nothing happened in between");
    assert_eq!(a.close(loser), Err(Errno::STALE));
    assert_eq!(a.last_conflict(), "some Base");
}
