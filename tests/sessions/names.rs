//! Names that change while others save, and files that have none.

use super::between::Between;
use super::*;

/// Another mount saves between the look and the change: the session must not take that save for its own base.
#[test]
fn a_rename_or_link_takes_no_others_save_for_its_own() {
    for links in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let url = dir.path().to_str().unwrap();
        let b = side(Store::init(url).unwrap());
        let inner = FileBackend::open(dir.path()).unwrap();
        let between = Arc::new(Between { inner, act: Mutex::new(None) });
        let a = side(Store::with_backend(between.clone(), b.store.location().clone()));
        a.save("from", "base");
        let (ino, fh) = (a.ino("from"), a.open("from", OFlags::RDWR));
        let others = b.store.clone();
        *between.act.lock().unwrap() = Some(Box::new(move || {
            others.put(&key("from"), &mut &b"theirs"[..], Precondition::Any).unwrap();
        }));
        if links {
            a.fs.link(&caller(), ino, ROOT, OsStr::new("to")).unwrap();
        } else {
            a.rename("from", "to").unwrap();
        }
        assert!(between.act.lock().unwrap().is_none(), "nothing happened in between");
        a.write(fh, 0, "mine");
        assert_eq!(a.close(fh), Err(Errno::STALE));
        assert_eq!((a.text("to"), a.conflicts()), ("theirs".to_owned(), 1));
    }
}

/// As where there was no directory yet.
#[test]
fn a_put_makes_the_directory_that_somebody_removes_meanwhile() {
    for restores in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let others = Store::init(dir.path().to_str().unwrap()).unwrap();
        let inner = FileBackend::open(dir.path()).unwrap();
        let between = Arc::new(Between { inner, act: Mutex::new(None) });
        let store = Store::with_backend(between.clone(), others.location().clone());
        let file = key("Note/deep/file");
        others.put(&file, &mut &b"before"[..], Precondition::Any).unwrap();
        let remove = move || {
            let by = others.by(Actor::current());
            match by.remove(&key("Note/deep/file"), &Precondition::Any, None) {
                Ok(()) | Err(sepia::Error::Backend(backend::Error::NotFound(_))) => {}
                other => other.unwrap(),
            }
            by.remove_dir(&key("Note/deep"), None).unwrap();
            by.remove_dir(&key("Note"), None).unwrap();
        };
        if restores {
            store.by(Actor::current()).remove(&file, &Precondition::Any, None).unwrap();
        }
        *between.act.lock().unwrap() = Some(Box::new(remove));
        let saved = if restores {
            store.restore(&file, Generation::FIRST, Precondition::Absent)
        } else {
            store.put(&file, &mut &b"after"[..], Precondition::Any)
        };
        assert_eq!(saved.unwrap().generation, Generation::new(2));
        assert!(between.act.lock().unwrap().is_none(), "nothing happened in between");
        assert_eq!(std::fs::read(dir.path().join("Note/deep/file")).unwrap().len(), if restores { 6 } else { 5 });
    }
}

#[test]
fn a_save_goes_to_the_name_that_is_left() {
    let (a, b, _dir) = pair();
    a.save("f", "one");
    a.fs.link(&caller(), a.ino("f"), ROOT, OsStr::new("g")).unwrap();
    let fh = a.open("f", OFlags::RDWR);
    a.ino("g");
    a.write(fh, 0, "two");
    b.save("other", "other");
    b.rename("other", "g").unwrap();
    assert_eq!(a.close(fh), Ok(()));
    assert_eq!((a.text("f"), a.text("g"), a.conflicts()), ("two".to_owned(), "other".to_owned(), 0));
}

/// A session to which nothing was written makes way for who opens what is current, even if only the number changed.
#[test]
fn who_opens_what_another_mount_has_renumbered_is_not_lost() {
    let (a, b, _dir) = pair();
    a.save("old", "one");
    a.rewrite("old", "two");
    a.save("f", "text");
    let idle = a.open("f", OFlags::RDWR);
    b.rename("f", "old").unwrap();
    let fh = a.open("old", OFlags::RDWR);
    a.write(fh, 0, "TEXT");
    assert_eq!(a.close(fh), Ok(()));
    a.fs.release(idle);
    assert_eq!((b.text("old"), b.conflicts()), ("TEXT".to_owned(), 0));
}

#[test]
fn fsync_of_what_somebody_else_removed_or_replaced_succeeds() {
    let (a, b, _dir) = pair();
    for name in ["removed", "replaced", "a directory now"] {
        a.save(name, "one");
        let fh = a.open(name, OFlags::RDWR);
        b.fs.unlink(&caller(), ROOT, OsStr::new(name)).unwrap();
        match name {
            "replaced" => b.save(name, "two"),
            "a directory now" => drop(b.fs.mkdir(&caller(), ROOT, OsStr::new(name), 0o755).unwrap()),
            _ => {}
        }
        assert_eq!(a.fs.fsync(fh), Ok(()), "{name}");
        a.fs.release(fh);
    }
}

#[test]
fn an_open_file_keeps_its_attributes_without_a_name() {
    let (a, _b, _dir) = pair();
    for side in [a, side(Store::open("memory:").unwrap())] {
        side.save("f", "one");
        let (ino, fh) = (side.ino("f"), side.open("f", OFlags::RDWR));
        let fresh = side.create("g");
        let other = side.ino("g");
        let before = side.fs.getattr(ino, None).unwrap().stat;
        side.fs.unlink(&caller(), ROOT, OsStr::new("f")).unwrap();
        side.fs.unlink(&caller(), ROOT, OsStr::new("g")).unwrap();
        let after = side.fs.getattr(ino, Some(fh)).unwrap().stat;
        assert_eq!(
            (after.nlink, after.size, after.mode, after.mtime, after.uid),
            (0, 3, before.mode, before.mtime, before.uid)
        );
        side.write(fh, 3, "+two");
        side.write(fresh, 0, "12");
        assert_eq!(side.fs.getattr(ino, Some(fh)).unwrap().stat.size, 7);
        let mode = Changes { mode: Some(0o600), ..Default::default() };
        assert_eq!(side.fs.setattr(&caller(), other, Some(fresh), &mode).unwrap().stat.mode, 0o600);
        let stat = side.fs.getattr(other, Some(fresh)).unwrap().stat;
        assert_eq!((stat.nlink, stat.size, stat.mode), (0, 2, 0o600));
        side.fs.release(fh);
        side.fs.release(fresh);
    }
}

/// Also when it was somebody else who took it away, and put another there. Where it is now its mode and times are not those of
/// who has it open, but of an object, or of a generation.
#[test]
fn an_open_file_that_another_mount_removes_or_replaces_can_be_truncated() {
    for replaced in [false, true] {
        let (a, b, _dir) = pair();
        a.save("f", "one");
        let (ino, fh) = (a.ino("f"), a.open("f", OFlags::RDWR));
        b.fs.unlink(&caller(), ROOT, OsStr::new("f")).unwrap();
        if replaced {
            b.save("f", "other");
        }
        let set = |changes| a.fs.setattr(&caller(), ino, Some(fh), &changes).map(|attr| attr.stat);
        let time = SetTime::At(Timestamp::from_parts(1, 0));
        let mode = Changes { mode: Some(0o600), ..Default::default() };
        assert_eq!(set(mode).map(drop), Err(Errno::STALE));
        assert_eq!(set(Changes { mtime: Some(time), ..Default::default() }).map(drop), Err(Errno::STALE));
        assert_eq!(set(Changes { size: Some(2), ..Default::default() }).unwrap().size, 2);
        set(Changes { mtime: Some(time), ..Default::default() }).unwrap();
        assert_eq!(a.fs.getattr(ino, Some(fh)).unwrap().stat.size, 2);
        a.fs.release(fh);
        if replaced {
            let stat = b.store.stat(&key("f")).unwrap();
            assert_eq!((stat.mode, stat.size), (0o644, 5));
        }
        let kept = b.store.backend().open_generation(&key("f"), Generation::new(1).unwrap()).unwrap();
        assert_eq!(kept.stat.mode, 0o644, "what is in the history doesn't change");
    }
}

/// So does one that was opened before another mount saved, when nobody has the newer generation open.
#[test]
fn an_older_handle_keeps_its_attributes_without_a_name() {
    let (a, b, _dir) = pair();
    a.save("f", "one");
    let (ino, older) = (a.ino("f"), a.open("f", OFlags::RDONLY));
    b.rewrite("f", "two");
    let newer = a.open("f", OFlags::RDONLY);
    a.fs.release(newer);
    a.fs.unlink(&caller(), ROOT, OsStr::new("f")).unwrap();
    assert_eq!(a.fs.getattr(ino, Some(older)).map(|attr| attr.stat.nlink), Ok(0));
}

/// The kernel looks up a name, and opens what it has found there. In between it may be replaced.
#[test]
fn what_was_found_at_a_name_can_be_read_when_it_is_replaced_before_the_open() {
    let (a, _b, _dir) = pair();
    a.save("f", "found");
    let ino = a.ino("f");
    a.save("new", "other");
    a.fs.rename(&caller(), ROOT, OsStr::new("new"), ROOT, OsStr::new("f"), RenameFlags::empty()).unwrap();
    let open = |flags: OFlags| a.fs.open(&caller(), ino, flags.bits() as i32);
    assert_eq!(open(OFlags::WRONLY).map(drop), Err(Errno::STALE));
    let reply = open(OFlags::RDONLY).unwrap();
    let mut bytes = [0; 9];
    assert_eq!(a.fs.read(reply.fh, 0, &mut bytes), Ok(5));
    assert_eq!(&bytes[..5], b"found");
    a.fs.release(reply.fh);
    assert_eq!(a.text("f"), "other");
}
