//! Verification, against real damage: bytes that are others on the medium than those that were saved.

#![allow(missing_docs, reason = "a test")]

mod busy;
#[path = "../common/mod.rs"]
mod common;
mod faulty;
mod repair;
mod rig;
mod sums;

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::symlink;

use rig::{Rig, key, numbers};
use sepia::backend::Creator;
use sepia::store::verify::{Damage, Harm, Level, Mended, Verified, Verify};
use sepia::{Error, Generation, Precondition};

fn damage(verified: &Verified) -> &[Damage] {
    assert_eq!(verified.damaged.len(), 1, "{verified:?}");
    &verified.damaged[0].generations
}

fn intact(verified: &Verified) -> Option<u64> {
    verified.damaged[0].intact.map(|intact| intact.generation.get())
}

#[test]
fn an_intact_store_has_no_damage_and_gets_its_checksums() {
    for rig in [Rig::file(), Rig::memory()] {
        for text in ["one", "two", "three"] {
            rig.put("Note/n", text.as_bytes());
        }
        rig.put("Board/b1/data.json", b"{}");
        rig.store.remove(&key("Board/b1/data.json"), Precondition::Any).unwrap();
        let first = rig.verify();
        assert!(!first.is_damaged(), "{first:?}");
        assert_eq!((first.counts.objects, first.counts.generations, first.counts.new), (2, 4, 4));
        assert_eq!(first.counts.bytes, 3 + 3 + 5 + 2);
        let second = rig.verify();
        assert!(!second.is_damaged());
        assert_eq!((second.counts.generations, second.counts.new), (4, 0));
    }
}

#[test]
fn a_changed_byte_is_found_in_the_current_generation_and_in_an_old_one() {
    let rig = Rig::file();
    for text in ["one", "two", "three"] {
        rig.put("Note/n", text.as_bytes());
    }
    rig.put("Note/other", b"untouched");
    rig.sum();
    rig.flip("Note/n", 0);
    let verified = rig.verify();
    assert_eq!(verified.damaged[0].key, key("Note/n"));
    let [found] = damage(&verified) else { panic!("{verified:?}") };
    assert!(found.current && matches!(found.harm, Harm::Content { .. }), "{found:?}");
    assert_eq!((found.generation, intact(&verified)), (Generation::new(3), Some(2)));
    // Lesser levels don't read it.
    assert!(!rig.verify_at(Level::Existence).is_damaged());
    rig.flip_kept("Note/n", 2, 1);
    let verified = rig.verify();
    assert_eq!(numbers(damage(&verified)), [2, 3]);
    assert_eq!(intact(&verified), Some(1));
    // What is damaged gets no checksum that fits it.
    assert!(rig.verify().is_damaged());
    assert_eq!(rig.store.verification_status().unwrap().damaged, 1);
    rig.flip("Note/n", 0);
    rig.flip_kept("Note/n", 2, 1);
    assert!(!rig.verify().is_damaged());
    assert_eq!(rig.store.verification_status().unwrap().damaged, 0);
}

#[test]
fn a_lost_end_is_found_by_the_record_and_by_the_checksum() {
    let rig = Rig::file();
    rig.put("n", b"first one");
    rig.put("n", b"the second");
    rig.sum();
    rig.truncate("n", 4);
    rig.truncate_kept("n", 1, 5);
    for level in [Level::Existence, Level::Content] {
        let verified = rig.verify_at(level);
        let [old, current] = damage(&verified) else { panic!("{verified:?}") };
        assert_eq!(old.harm, Harm::Size { expected: 9, found: 5 });
        assert_eq!(current.harm, Harm::Size { expected: 10, found: 4 });
        assert_eq!((old.current, current.current, intact(&verified)), (false, true, None));
    }
    // The record alone tells of the current one.
    assert_eq!(numbers(damage(&rig.verify_at(Level::References))), [2]);
    // Nothing was recorded by looking.
    assert!(!rig.store.stat(&key("n")).unwrap().recorded);
}

#[test]
fn what_was_changed_outside_is_no_damage() {
    let rig = Rig::file();
    rig.put("n", b"saved");
    rig.sum();
    fs::write(rig.path("n"), "edited").unwrap();
    fs::write(rig.path("new"), "came from outside").unwrap();
    let verified = rig.verify();
    assert!(!verified.is_damaged(), "{verified:?}");
    assert_eq!(verified.counts.unrecorded, 2);
    assert!(!rig.store.stat(&key("n")).unwrap().recorded, "nothing was changed by that");
    let repaired = rig.store.verify(&Verify { repair: true, ..Verify::all() }).unwrap();
    assert_eq!((repaired.counts.repaired, repaired.counts.new), (2, 2));
    assert!(rig.store.stat(&key("n")).unwrap().recorded);
    let verified = rig.verify();
    assert_eq!((verified.counts.unrecorded, verified.counts.new), (0, 0));
}

#[test]
fn a_record_that_was_cut_off_is_found_and_repaired() {
    let rig = Rig::file();
    rig.put("n", b"first");
    rig.put("n", b"second");
    rustix::fs::setxattr(rig.path("n"), "user.sepia", b"\x01cut", rustix::fs::XattrFlags::REPLACE).unwrap();
    let verified = rig.verify_at(Level::References);
    assert_eq!(damage(&verified)[0].harm, Harm::Record);
    let repaired = rig.store.verify(&Verify { repair: true, ..Verify::all() }).unwrap();
    assert!(matches!(repaired.damaged[0].mended, Some(Mended::Recorded(_))), "{repaired:?}");
    assert!(!repaired.is_damaged());
    assert!(!rig.verify().is_damaged());
    assert_eq!(rig.read("n"), b"second");
}

#[test]
fn beginnings_of_later_generations_are_verified_each() {
    for rig in [Rig::file(), Rig::memory()] {
        for text in ["one\n", "two\n", "three\n"] {
            rig.append("log", text.as_bytes());
        }
        assert_eq!(rig.sum(), 3);
        assert!(!rig.verify().is_damaged());
        if rig.is_memory() {
            continue;
        }
        // In what only the last two have.
        rig.flip("log", 5);
        let verified = rig.verify();
        assert_eq!((numbers(damage(&verified)), intact(&verified)), (vec![2, 3], Some(1)));
        let brought_back = rig.bring_back();
        assert_eq!(brought_back.counts.brought_back, 1, "{brought_back:?}");
        assert_eq!(rig.read("log"), b"one\n");
    }
}

#[test]
fn a_file_is_read_once_for_all_that_it_holds() {
    let rig = Rig::file();
    for number in 0..50 {
        rig.append("log", format!("{number:04}\n").as_bytes());
    }
    let verified = rig.verify();
    assert_eq!((verified.counts.generations, verified.counts.bytes), (50, 250));
}

#[test]
fn a_generation_that_vanished_is_missed_by_who_refers_to_it() {
    let rig = Rig::file();
    for text in ["one", "two", "three"] {
        rig.put("n", text.as_bytes());
    }
    rig.put("gone", b"in the snapshot only");
    rig.store.create_snapshot(Some("before")).unwrap();
    rig.store.remove(&key("gone"), Precondition::Any).unwrap();
    rig.store.pin(&key("n"), Generation::new(2).unwrap()).unwrap();
    assert!(!rig.verify_at(Level::References).is_damaged());
    // What is current in a copy is another file, and the same generation.
    let copied = rig.copy().verify_at(Level::References);
    assert!(!copied.is_damaged(), "{:?}", copied.faults);
    fs::remove_file(rig.kept("n", 2)).unwrap();
    fs::remove_file(rig.kept("gone", 1)).unwrap();
    let verified = rig.verify_at(Level::References);
    assert!(verified.is_damaged() && verified.damaged.is_empty());
    let faults: Vec<String> = verified.faults.iter().map(|fault| format!("{}: {}", fault.record, fault.why)).collect();
    let expected = [
        "pin n@2: the generation that it keeps is gone",
        "snapshot before: gone: the bytes of generation 1 are not kept any more",
    ];
    assert_eq!(faults, expected);
    // Only what is asked for.
    let other = Verify { dir: key("n"), level: Level::References, ..Verify::all() };
    assert_eq!(rig.store.verify(&other).unwrap().faults.len(), 1);
}

#[test]
fn a_file_that_held_beginnings_and_vanished_is_missed() {
    let rig = Rig::file();
    rig.append("log", b"one\n");
    rig.append("log", b"two\n");
    rig.put("log", b"all is new in this one");
    rig.sum();
    fs::remove_file(rig.kept("log", 2)).unwrap();
    // The first four bytes are now taken from the third.
    let verified = rig.verify();
    assert_eq!((numbers(damage(&verified)), intact(&verified)), (vec![1], Some(3)));
}

#[test]
fn records_that_are_damaged_are_named() {
    let rig = Rig::file();
    rig.put("n", b"bytes");
    rig.store.create_snapshot(Some("s")).unwrap();
    rig.store.pin(&key("n"), Generation::FIRST).unwrap();
    rig.sum();
    let records = rig.store.backend().list_records(&key("checksums")).unwrap();
    let lines = records.iter().find(|path| path.as_bytes().ends_with(b".jsonl")).unwrap();
    rig.store.backend().append_record(lines, b"{\"comm").unwrap();
    rig.store.backend().append_record(lines, b"\n").unwrap();
    let snapshot = rig.path(".sepia/snapshots/s.jsonl");
    fs::write(&snapshot, &fs::read(&snapshot).unwrap()[..100]).unwrap();
    for pin in rig.store.backend().list_records(&key("pins")).unwrap() {
        fs::write(rig.path(".sepia").join(pin.as_path()), "{").unwrap();
    }
    let verified = rig.verify();
    let named: Vec<&str> = verified.faults.iter().map(|fault| fault.record.as_str()).collect();
    assert_eq!(named, ["checksums", "pins", "snapshot s"]);
    let repaired = rig.store.verify(&Verify { repair: true, ..Verify::all() }).unwrap();
    let remaining: Vec<&str> =
        repaired.faults.iter().filter(|fault| !fault.repaired).map(|fault| fault.record.as_str()).collect();
    assert_eq!(remaining, ["pins", "snapshot s"]);
    let again = rig.verify();
    assert_eq!((again.faults.len(), again.counts.new), (2, 0), "the whole lines are still there");
}

#[test]
fn objects_with_several_names_are_verified() {
    let rig = Rig::file();
    rig.put("a", b"first");
    rig.store.by(sepia::store::Actor::current()).link(&key("a"), &key("b"), &Precondition::Any).unwrap();
    rig.put("a", b"second");
    rig.sum();
    assert!(!rig.verify().is_damaged());
    rig.flip("b", 0);
    let verified = rig.verify();
    let names: Vec<String> = verified.damaged.iter().map(|one| one.key.to_string()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn a_run_goes_on_where_it_was_cut_short() {
    for rig in [Rig::file(), Rig::memory()] {
        let names: Vec<String> = (0..20).map(|number| format!("Note/{number:02}")).collect();
        names.iter().for_each(|name| rig.put(name, name.as_bytes()));
        rig.sum();
        if !rig.is_memory() {
            rig.flip("Note/03", 0);
            rig.flip("Note/15", 0);
        }
        let seen = Cell::new(0);
        let stop = || seen.get() >= 10;
        let count = |_: &sepia::Key, _: &sepia::store::verify::Counts| seen.set(seen.get() + 1);
        let first = rig.store.verify(&Verify { stop: &stop, progress: &count, ..Verify::all() }).unwrap();
        assert!(first.stopped && first.counts.objects < 10, "{first:?}");
        // Somebody who asks for something else doesn't interfere.
        rig.store.verify(&Verify { dir: key("Note/19"), ..Verify::all() }).unwrap();
        let second = rig.verify();
        assert!(second.resumed.is_some() && !second.stopped);
        assert_eq!(second.counts.objects, 20);
        let expected = if rig.is_memory() { 0 } else { 2 };
        assert_eq!(second.damaged.len(), expected, "that of the first half is not forgotten");
        let third = rig.verify();
        assert!(third.resumed.is_none());
        rig.store.verify(&Verify { stop: &stop, ..Verify::all() }).unwrap();
        let anew = rig.store.verify(&Verify { restart: true, ..Verify::all() }).unwrap();
        assert_eq!((anew.resumed, anew.counts.objects), (None, 20));
    }
}

#[test]
fn parts_cover_all() {
    let rig = Rig::file();
    let names: Vec<String> = (0..60).map(|number| format!("Note/{number:02}")).collect();
    names.iter().for_each(|name| rig.put(name, name.as_bytes()));
    rig.sum();
    names.iter().for_each(|name| rig.flip(name, 0));
    let (mut found, mut most) = (Vec::new(), 0);
    for part in 1..=4 {
        let verified = rig.store.verify(&Verify { parts: Some("25%".parse().unwrap()), ..Verify::all() }).unwrap();
        assert_eq!(verified.part, Some((part, 4)));
        most = most.max(verified.damaged.len());
        found.extend(verified.damaged.into_iter().map(|one| one.key.to_string()));
        assert_eq!(rig.store.verification_status().unwrap().damaged, found.len() as u64);
    }
    found.sort();
    assert_eq!(found, names);
    assert!(most < 40);
    let again = Verify { parts: Some("25%".parse().unwrap()), ..Verify::all() };
    assert_eq!(rig.store.verify(&again).unwrap().part, Some((1, 4)));
    // What is below another directory has its own turn.
    let note = Verify { dir: key("Note"), ..again.clone() };
    let parts = [rig.store.verify(&note).unwrap().part, rig.store.verify(&again).unwrap().part];
    assert_eq!(parts, [Some((1, 4)), Some((2, 4))]);
}

#[test]
fn a_listing_that_fails_ends_the_run() {
    let rig = Rig::faulty();
    rig.put("Note/n", b"bytes");
    rig.put("Task/t", b"bytes");
    rig.sum();
    let faulty = rig.faulty.as_ref().unwrap();
    *faulty.flipped.lock().unwrap() = Some((key("Note/n"), Generation::FIRST));
    *faulty.unlistable.lock().unwrap() = Some(key("Task"));
    for _ in 0..2 {
        match rig.store.verify(&Verify::all()) {
            Err(Error::VerificationEnded { source, found }) => {
                assert!(matches!(*source, Error::Backend(sepia::backend::Error::Io { .. })), "{source}");
                assert_eq!(found.damaged[0].key, key("Note/n"), "what was found until then is told");
            }
            other => panic!("{other:?}"),
        }
    }
    let status = rig.store.verification_status().unwrap();
    assert!(status.last.unwrap().error.is_some());
    *faulty.unlistable.lock().unwrap() = None;
    let verified = rig.verify();
    assert!(verified.resumed.is_some());
    assert_eq!((verified.counts.objects, verified.damaged.len()), (2, 1));
}

#[test]
fn a_state_that_cannot_be_understood_counts_as_none() {
    let rig = Rig::file();
    rig.put("n", b"bytes");
    let what = r#"{"dir":"","level":"content","part":null}"#;
    let run = format!(r#"{{"what":{what},"began":1,"after":"../..//x","walked":false,"counts":{{}},"found":[]}}"#);
    let parts = r#"{"dir":"","level":"content","part":[9,4]}"#;
    for state in ["", "{", "[]", &format!(r#"{{"runs":[{run}],"parts":[{parts}]}}"#)] {
        rig.store.backend().put_record(&key("verify/state.json"), state.as_bytes()).unwrap();
        assert_eq!(rig.verify().counts.objects, 1, "{state}");
        let part = Verify { parts: Some("25%".parse().unwrap()), ..Verify::all() };
        assert!(rig.store.verify(&part).unwrap().part.is_some_and(|(part, of)| part <= of && of == 4));
    }
}

#[test]
fn a_file_that_cannot_be_read_is_damage_and_the_run_goes_on() {
    let rig = Rig::faulty();
    for name in ["a", "b", "c"] {
        rig.put(name, name.as_bytes());
    }
    *rig.faulty.as_ref().unwrap().unreadable.lock().unwrap() = Some(key("b"));
    let verified = rig.verify();
    assert_eq!((verified.counts.objects, verified.damaged[0].key.clone()), (3, key("b")));
    assert!(matches!(damage(&verified)[0].harm, Harm::Unreadable(_)));
}

#[test]
fn what_may_not_be_read_is_not_known() {
    let rig = Rig::faulty();
    rig.put("a", b"one");
    rig.put("b", b"two");
    *rig.faulty.as_ref().unwrap().denied.lock().unwrap() = Some(key("b"));
    let verified = rig.verify();
    assert_eq!((verified.is_damaged(), verified.is_partial(), verified.counts.denied), (false, true, 1));
}

#[test]
fn damage_on_any_medium_is_found() {
    let rig = Rig::faulty();
    rig.put("n", b"one");
    rig.put("n", b"two");
    rig.sum();
    *rig.faulty.as_ref().unwrap().flipped.lock().unwrap() = Some((key("n"), Generation::new(2).unwrap()));
    let verified = rig.verify();
    assert_eq!((numbers(damage(&verified)), intact(&verified)), (vec![2], Some(1)));
}

#[test]
fn what_is_not_there_is_not_verified() {
    let rig = Rig::file();
    let error = rig.store.verify(&Verify { dir: key("Note/none"), ..Verify::all() }).unwrap_err();
    assert!(matches!(error, Error::Backend(sepia::backend::Error::NotFound(_))));
    // A name with a history only, a link, a directory.
    rig.put("Note/n", b"bytes");
    rig.store.remove(&key("Note/n"), Precondition::Any).unwrap();
    symlink("nowhere", rig.path("link")).unwrap();
    for (name, objects) in [("Note/n", 1), ("link", 0), ("Note", 1)] {
        let verified = rig.store.verify(&Verify { dir: key(name), ..Verify::all() }).unwrap();
        assert_eq!((verified.counts.objects, verified.is_damaged()), (objects, false), "{name}");
    }
}

#[test]
fn one_verifies_at_a_time() {
    let rig = Rig::file();
    rig.put("n", b"bytes");
    let (other, refused) = (rig.again(), Cell::new(false));
    let progress = |_: &sepia::Key, _: &sepia::store::verify::Counts| {
        refused.set(matches!(other.verify(&Verify::all()), Err(Error::Verifying)));
        assert!(other.verification_status().unwrap().running);
    };
    rig.store.verify(&Verify { progress: &progress, ..Verify::all() }).unwrap();
    assert!(refused.get());
}

#[test]
fn an_empty_object_is_verified_and_a_reserved_name_is_none() {
    let rig = Rig::file();
    rig.put("empty", b"");
    rig.store.backend().reserve(&key("reserved"), 0o644, &Creator::current()).unwrap();
    let verified = rig.verify();
    assert!(!verified.is_damaged());
    assert_eq!(verified.counts.unrecorded, 0);
    rig.truncate("empty", 3);
    assert_eq!(damage(&rig.verify())[0].harm, Harm::Size { expected: 0, found: 3 });
}
