//! Checksums: when they are computed, and how they are found again.

use std::cell::Cell;
use std::fs;
use std::time::Duration;

use sepia::store::SessionOptions;
use sepia::store::checksums::Summing;
use sepia::store::verify::{Harm, Verify};
use sepia::{Generation, Precondition};

use crate::damage;
use crate::rig::{self, Rig, key, numbers};

#[test]
fn a_session_that_goes_on_gets_a_checksum_for_each_state_that_is_left() {
    let rig = Rig::file();
    rig.put("n", b"first");
    let name = key("n");
    let mut session = rig.store.open_session(&name, &SessionOptions::default()).unwrap();
    for text in [b"one", b"two", b"six"] {
        session.write_at(text, 0).unwrap();
        session.publish(&name, false).unwrap();
        rig.sum();
        let verified = rig.verify();
        assert!(!verified.is_damaged(), "{verified:?}");
    }
    session.close(&name);
    assert_eq!((rig.sum(), rig.verify().is_damaged()), (0, false));
}

#[test]
fn checksums_are_computed_of_what_was_saved_when_it_is_quiet() {
    let rig = Rig::file();
    rig.put("n", b"one");
    assert_eq!(rig.sum_after(Duration::from_secs(3600)), 0, "not yet");
    assert_eq!(rig.sum(), 1);
    assert_eq!(rig.sum(), 0);
    rig.put("n", b"two");
    rig.put("m", b"two");
    assert_eq!(rig.sum(), 2);
    // What another process has saved is found when the store is opened anew.
    rig.again().put(&key("o"), &mut &b"three"[..], Precondition::Any).unwrap();
    assert_eq!(rig.sum(), 0);
    let other = rig.again();
    assert_eq!(rig::sum(&other, Duration::ZERO), 1);
    assert_eq!(rig.verify().counts.new, 0);
    fs::write(rig.path(".sepia/config.toml"), "[checksums]\nbackground = false\n").unwrap();
    let off = rig.again();
    off.put(&key("p"), &mut &b"four"[..], Precondition::Any).unwrap();
    assert_eq!(rig::sum(&off, Duration::ZERO), 0);
}

#[test]
fn a_large_file_that_is_saved_all_the_time_is_not_read_all_the_time() {
    let rig = Rig::file();
    assert_eq!(rig.sum(), 0);
    fs::write(rig.path(".sepia/config.toml"), "[checksums]\nrate = 400\n").unwrap();
    let store = rig.again();
    rig::sum(&store, Duration::ZERO);
    for _ in 0..2 {
        store.put(&key("n"), &mut &[7; 800][..], Precondition::Any).unwrap();
        // Reading it takes two seconds, so it is to rest for twenty.
        assert_eq!(rig::sum(&store, Duration::ZERO), 0);
    }
    // Who looks through the whole store reads it all the same.
    assert!(rig::sum(&rig.again(), Duration::ZERO) > 0);
}

#[test]
fn a_damaged_byte_gets_no_new_checksum() {
    let rig = Rig::file();
    rig.put("n", b"one");
    rig.sum();
    rig.flip("n", 0);
    // Neither by a look through the whole store, nor since it is asked for again.
    assert_eq!(rig::sum(&rig.again(), Duration::ZERO), 0);
    rig.store.by(sepia::store::Actor::current());
    rig.store.rename(&key("n"), &key("m"), Precondition::Absent).unwrap();
    assert_eq!(rig.sum(), 0);
    assert!(rig.verify().is_damaged());
}

#[test]
fn the_checksums_of_what_is_gone_go() {
    let rig = Rig::file();
    for number in 0..10 {
        rig.put("n", format!("{number}").as_bytes());
    }
    rig.put("stays", b"bytes");
    rig.sum();
    assert_eq!(rig.lines(), 11);
    for number in 1..10 {
        rig.store.backend().drop_generation(&key("n"), Generation::new(number).unwrap()).unwrap();
    }
    rig::sum(&rig.again(), Duration::ZERO);
    assert_eq!(rig.lines(), 2);
    assert_eq!((rig.verify().counts.new, rig.lines()), (0, 2));
    // Where no mount does it, a verification does.
    for number in 0..10 {
        rig.put("n", format!("{number}").as_bytes());
    }
    rig.verify();
    assert_eq!(rig.lines(), 12);
    for number in 10..20 {
        rig.store.backend().drop_generation(&key("n"), Generation::new(number).unwrap()).unwrap();
    }
    assert_eq!((rig.verify().counts.new, rig.lines()), (0, 2));
    assert_eq!(rig.verify().counts.new, 0);
}

#[test]
fn a_checksum_goes_along_with_a_rename() {
    for rig in [Rig::file(), Rig::memory()] {
        for text in ["one", "two"] {
            rig.put("Note/a", text.as_bytes());
            rig.put("Note/older", text.as_bytes());
        }
        rig.put("Note/alone", b"has no history");
        rig.store.remove(&key("Note/older"), Precondition::Any).unwrap();
        rig.sum();
        for (from, to) in [("Note/a", "Note/b"), ("Note/alone", "Note/older"), ("Note", "Moved")] {
            rig.store.rename(&key(from), &key(to), Precondition::Absent).unwrap();
        }
        let verified = rig.verify();
        assert_eq!((verified.counts.new, verified.is_damaged()), (0, false), "{verified:?}");
        if !rig.is_memory() {
            rig.flip("Moved/older", 0);
            rig.flip_kept("Moved/b", 1, 0);
            let verified = rig.verify();
            let found: Vec<_> =
                verified.damaged.iter().map(|one| (one.key.to_string(), numbers(&one.generations))).collect();
            let number = rig.store.stat(&key("Moved/older")).unwrap().generation.unwrap().get();
            assert_eq!(found, [("Moved/b".to_owned(), vec![1]), ("Moved/older".to_owned(), vec![number])]);
        }
    }
}

#[test]
fn a_rename_after_the_checksum_hides_no_damage() {
    let rig = Rig::file();
    rig.put("older", b"was here before");
    rig.store.remove(&key("older"), Precondition::Any).unwrap();
    rig.put("n", b"bytes");
    rig.sum();
    rig.flip("n", 2);
    // It gets another number and another time there.
    rig.store.rename(&key("n"), &key("older"), Precondition::Absent).unwrap();
    rig.sum();
    assert!(matches!(damage(&rig.verify())[0].harm, Harm::Content { .. }));
}

#[test]
fn a_copy_of_a_store_is_verified_by_the_checksums_of_the_original() {
    let rig = Rig::file();
    for text in ["one", "two"] {
        rig.put("n", text.as_bytes());
    }
    rig.sum();
    let copy = rig.copy();
    copy.flip_kept("n", 1, 0);
    let verified = copy.verify();
    assert_eq!(numbers(damage(&verified)), [1], "{verified:?}");
    copy.flip_kept("n", 1, 0);
    // What is current has another inode, so it must be recorded first.
    assert_eq!(copy.verify().counts.unrecorded, 1);
    copy.flip("n", 0);
    let repaired = copy.store.verify(&Verify { repair: true, ..Verify::all() }).unwrap();
    assert_eq!((numbers(damage(&repaired)), repaired.counts.repaired), (vec![2], 1));
}

#[test]
fn reading_for_a_checksum_is_no_access() {
    let rig = Rig::file();
    for text in ["one", "two"] {
        rig.put("n", text.as_bytes());
    }
    let accessed = || {
        let files = [rig.path("n"), rig.kept("n", 1)];
        files.map(|path| fs::metadata(path).unwrap().accessed().unwrap())
    };
    let before = accessed();
    assert_eq!(rig.sum(), 2);
    rig.verify();
    assert_eq!(accessed(), before);
}

#[test]
fn what_is_rewritten_while_it_is_read_gets_no_checksum() {
    let rig = Rig::file();
    let large = |byte: u8| vec![byte; 1 << 20];
    rig.put("n", &large(1));
    rig.store.by(sepia::store::Actor::current()).link(&key("n"), &key("m"), &Precondition::Any).unwrap();
    let (asked, store) = (Cell::new(0), rig.again());
    // Asked between the pieces: the same file gets other bytes, under its other name.
    let stop = || {
        asked.set(asked.get() + 1);
        store.put(&key("m"), &mut &large(asked.get())[..], Precondition::Any).unwrap();
        false
    };
    rig.store.sum_in_background(&Summing { quiet: Duration::ZERO, stop: &stop }).unwrap();
    assert!(asked.get() > 4);
    assert!(!rig.verify().is_damaged());
    rig.sum();
    assert!(!rig.verify().is_damaged());
}
