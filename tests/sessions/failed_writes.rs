//! Writes that fail, and what is saved all the same.

use super::*;

/// No filesystem has files of such a size.
const FAR: u64 = i64::MAX as u64 - 1;

impl Side {
    fn fails_to_write(&self, fh: Fh) {
        assert!(self.fs.write(&caller(), fh, FAR, b"far", false, false).is_err());
    }
}

/// It changes nothing, and what was acknowledged is not bound to it.
#[test]
fn a_failed_write_takes_nothing_with_it_of_what_fsync_has_acknowledged() {
    let (a, _b, _dir) = pair();
    let fh = a.create("f");
    a.write(fh, 0, "AAAA");
    a.fs.fsync(fh).unwrap();
    a.write(fh, 0, "BB");
    a.fs.fsync(fh).unwrap();
    a.write(fh, 3, "C");
    a.fails_to_write(fh);
    assert_eq!(a.fs.getattr(a.ino("f"), Some(fh)).unwrap().stat.size, 4);
    assert_eq!((a.fs.fsync(fh), a.close(fh)), (Ok(()), Ok(())));
    assert_eq!((a.text("f"), a.conflicts()), ("BBAC".to_owned(), 0));
}

/// The same where it was a close that published first.
#[test]
fn a_failed_write_after_a_close_and_an_fsync_costs_nothing() {
    let (a, _b, _dir) = pair();
    let (fh, other) = (a.create("f"), a.open("f", OFlags::RDWR));
    a.write(other, 0, "AAAA");
    a.close(other).unwrap();
    a.write(fh, 0, "BB");
    a.fs.fsync(fh).unwrap();
    a.fails_to_write(fh);
    a.close(fh).unwrap();
    assert_eq!((a.text("f"), a.conflicts()), ("BBAA".to_owned(), 0));
}

/// Half of what was meant is not saved, and not lost either.
#[test]
fn a_session_with_a_failed_write_is_set_aside() {
    let (a, _b, _dir) = pair();
    a.save("f", "old");
    let fh = a.open("f", OFlags::RDWR | OFlags::TRUNC);
    a.write(fh, 0, "half");
    a.fails_to_write(fh);
    assert!(a.fs.fsync(fh).is_err() && a.close(fh).is_err());
    assert_eq!(a.text("f"), "old");
    let conflicts = a.store.conflicts().unwrap();
    assert_eq!(conflicts.iter().map(|c| (c.reason, c.size)).collect::<Vec<_>>(), [(Reason::Failed, 4)]);
}

/// Where nothing was changed by it, nothing is kept from being saved later.
#[test]
fn a_failed_write_that_was_the_only_one_is_forgotten_with_the_next_fsync() {
    let (a, _b, _dir) = pair();
    a.save("f", "old");
    let fh = a.open("f", OFlags::RDWR);
    a.fails_to_write(fh);
    a.fs.fsync(fh).unwrap();
    a.write(fh, 0, "new");
    a.close(fh).unwrap();
    assert_eq!((a.text("f"), a.conflicts()), ("new".to_owned(), 0));
}
