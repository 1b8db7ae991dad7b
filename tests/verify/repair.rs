//! Repairs, by which nothing is lost.

use std::cell::Cell;
use std::fs;

use sepia::store::EventKind;
use sepia::store::verify::{Mended, Verify};
use sepia::{Generation, Precondition};

use crate::damage;
use crate::rig::{Rig, key, numbers};

#[test]
fn an_intact_generation_is_brought_back_and_nothing_is_lost() {
    let rig = Rig::file();
    for text in ["one", "two", "three"] {
        rig.put("n", text.as_bytes());
    }
    rig.put("alone", b"no history");
    rig.sum();
    rig.flip("n", 0);
    rig.flip("alone", 0);
    let damaged = fs::read(rig.path("n")).unwrap();
    let verified = rig.bring_back();
    let mended: Vec<_> = verified.damaged.iter().map(|one| one.mended.clone()).collect();
    assert_eq!(mended, [None, Some(Mended::BroughtBack(Generation::new(4).unwrap()))]);
    assert!(verified.is_damaged(), "of the other there is nothing to bring back");
    assert_eq!(rig.read("n"), b"two");
    assert_eq!(rig.read_generation("n", 3), damaged);
    let events = rig.store.events_of(&key("n")).unwrap();
    let last = events.last().unwrap();
    assert_eq!((last.kind, last.meta["restored"].as_u64()), (EventKind::Restored, Some(2)));
    rig.store.remove(&key("alone"), Precondition::Any).unwrap();
    // It stays known that the third is damaged; nobody is told again.
    let verified = rig.store.verify(&Verify { dir: key("n"), ..Verify::all() }).unwrap();
    assert_eq!((verified.is_damaged(), verified.counts.replaced), (false, 1), "{verified:?}");
    rig.store.rename(&key("n"), &key("m"), Precondition::Absent).unwrap();
    let verified = rig.store.verify(&Verify { dir: key("m"), ..Verify::all() }).unwrap();
    assert_eq!((verified.is_damaged(), verified.counts.replaced), (false, 1), "{verified:?}");
    rig.store.rename(&key("m"), &key("n"), Precondition::Absent).unwrap();
    // Not so, if the one that was brought back is damaged.
    rig.sum();
    rig.flip("n", 0);
    assert_eq!(numbers(damage(&rig.store.verify(&Verify { dir: key("n"), ..Verify::all() }).unwrap())), [4]);
}

#[test]
fn what_lost_its_end_is_brought_back() {
    let rig = Rig::file();
    rig.put("n", b"the first");
    rig.put("n", b"the second");
    rig.sum();
    rig.truncate("n", 4);
    let verified = rig.bring_back();
    assert!(!verified.is_damaged(), "{verified:?}");
    assert_eq!(rig.read("n"), b"the first");
    let kept: Vec<u64> = rig.store.history(&key("n")).unwrap().iter().map(|info| info.generation.get()).collect();
    assert!(
        kept.iter().any(|&number| rig
            .store
            .get_generation(&key("n"), Generation::new(number).unwrap())
            .is_ok_and(|opened| opened.stat.size == 4)),
        "what was left is kept"
    );
    assert!(!rig.verify().is_damaged());
}

#[test]
fn what_was_saved_meanwhile_is_not_replaced() {
    let rig = Rig::file();
    rig.put("n", b"one");
    rig.put("n", b"two");
    rig.sum();
    rig.flip("n", 0);
    // Between the second look and the repair nothing calls out, so somebody saves between the two looks.
    let looks = Cell::new(0);
    let saves = |_: &sepia::Key, _: &sepia::store::verify::Counts| {
        looks.set(looks.get() + 1);
        if looks.get() == 4 {
            rig.put("n", b"saved since");
        }
    };
    let how = Verify { bring_back: true, dir: key("n"), progress: &saves, ..Verify::all() };
    let verified = rig.store.verify(&how).unwrap();
    assert_eq!(rig.read("n"), b"saved since", "{verified:?}");
}
