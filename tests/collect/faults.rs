//! Everything around the collector fails.

use std::sync::atomic::Ordering;

use super::*;

/// A store with something of everything that the collector meets; whether what it holds is to stay.
fn filled(rig: &Rig) {
    for number in 1..=6 {
        rig.put("Note/saved", &format!("saved {number}"));
    }
    rig.put("Log/grown", "0");
    (0..5).for_each(|_| rig.append("Log/grown", "+"));
    rig.put("Log/rotated", "0");
    (0..3).for_each(|_| rig.append("Log/rotated", "+"));
    rig.store.pin(&key("Log/rotated"), generation(1)).unwrap();
    (0..3).for_each(|number| rig.put("Log/rotated", &format!("new {number}")));
    for number in 1..=4 {
        rig.put("Note/removed", &format!("removed {number}"));
    }
    rig.remove("Note/removed");
    rig.put("Note/young", "young");
}

/// What the policy of these tests keeps: the last two of each, and what is pinned or current.
fn promised(everything: &BTreeMap<(Key, Generation), Vec<u8>>) -> BTreeMap<(Key, Generation), Vec<u8>> {
    let numbers = |path: &str, numbers: &[u64]| -> Vec<(Key, Generation)> {
        numbers.iter().map(|number| (key(path), generation(*number))).collect()
    };
    let keys = [
        numbers("Note/saved", &[4, 5, 6]),
        numbers("Log/grown", &[4, 5, 6]),
        numbers("Log/rotated", &[1, 5, 6, 7]),
        numbers("Note/removed", &[3, 4]),
        numbers("Note/young", &[1]),
    ];
    keys.concat().into_iter().map(|key| (key.clone(), everything[&key].clone())).collect()
}

fn holds(rig: &Rig, promised: &BTreeMap<(Key, Generation), Vec<u8>>, when: &str) {
    for ((key, generation), bytes) in promised {
        assert_eq!(read(&rig.store, key, *generation), *bytes, "{key}@{generation} after {when}");
    }
}

#[test]
fn a_crash_after_any_step_loses_nothing_and_the_next_run_completes() {
    for on_disk in [false, true] {
        let make = || {
            let policy = "[retention]\nkeep_last = 2";
            if on_disk { Rig::on_disk(policy) } else { Rig::in_memory(policy) }
        };
        let rig = make();
        filled(&rig);
        rig.collect().unwrap();
        let at_the_end: Vec<_> = rig.everything().into_keys().collect();
        let mut steps = 0;
        loop {
            let rig = make();
            filled(&rig);
            let promised = promised(&rig.everything());
            rig.faulty.dies_after(steps);
            let died = rig.collect().is_err() || rig.faulty.is_dead();
            rig.faulty.lives();
            let what = format!("a crash after {steps} steps");
            holds(&rig, &promised, &what);
            // As another process does it, which goes on with what was marked; then all is judged once more.
            rig.faulty.ahead(2 * 3_600);
            collect(&rig.store, false).unwrap();
            holds(&rig, &promised, &what);
            rig.collect().unwrap();
            holds(&rig, &promised, &what);
            assert_eq!(rig.everything().into_keys().collect::<Vec<_>>(), at_the_end, "{what}");
            if !died {
                break;
            }
            steps += 1;
        }
        println!("{steps} steps");
        assert!(steps > 50);
    }
}

#[test]
fn a_listing_that_fails_ends_the_run_before_anything_more_is_deleted() {
    for unlistable in ["", "Note", "Note/removed", "Note/saved", "pins", "snapshots"] {
        let rig = Rig::on_disk("[retention]\nkeep_last = 2");
        filled(&rig);
        let before = rig.everything();
        *rig.faulty.unlistable.lock().unwrap() = Some(key(unlistable));
        let error = rig.collect().unwrap_err();
        assert!(error.to_string().contains("can't go on"), "{error}");
        *rig.faulty.unlistable.lock().unwrap() = None;
        assert_eq!(rig.everything(), before, "{unlistable}");
        let status = rig.store.collector_status().unwrap();
        assert!(status.last.unwrap().error.is_some());
        assert!(rig.collect().unwrap().dropped > 0);
    }
}

#[test]
fn a_listing_that_fails_later_ends_the_sweep() {
    let rig = Rig::on_disk("[retention]\nkeep_last = 2");
    filled(&rig);
    collect(&rig.store, false).unwrap();
    // In the order of keys, so all but the logs come behind it.
    *rig.faulty.unlistable.lock().unwrap() = Some(key("Note/removed"));
    rig.faulty.ahead(2 * 3_600);
    assert!(collect(&rig.store, false).is_err());
    *rig.faulty.unlistable.lock().unwrap() = None;
    assert_eq!((rig.kept("Note/saved").len(), rig.kept("Note/removed").len()), (5, 4));
    assert!(collect(&rig.store, false).unwrap().dropped > 0);
    assert_eq!((rig.kept("Note/saved").len(), rig.kept("Note/removed").len()), (2, 2));
}

#[test]
fn a_deletion_that_fails_is_counted_and_the_others_go_on() {
    let rig = Rig::on_disk("[retention]\nkeep_last = 2");
    filled(&rig);
    *rig.faulty.undeletable.lock().unwrap() = Some(key("Note/removed"));
    let done = rig.collect().unwrap();
    assert_eq!((done.errors, rig.kept("Note/removed").len(), rig.kept("Note/saved").len()), (2, 4, 2));
    assert_eq!(rig.store.collector_status().unwrap().last.unwrap().errors, 2);
    *rig.faulty.undeletable.lock().unwrap() = None;
    assert_eq!((rig.collect().unwrap().dropped, rig.kept("Note/removed").len()), (2, 2));
}

#[test]
fn an_object_that_cannot_be_looked_at_is_not_taken_for_removed() {
    let rig = Rig::on_disk("");
    rig.put("a", "1");
    rig.put("a", "2");
    rig.faulty.ahead(400 * DAY);
    // Counts the operations of a run, to find the one that looks.
    for steps in 0..60 {
        rig.faulty.dies_after(steps);
        let ended = rig.collect();
        rig.faulty.lives();
        assert!(ended.is_err() || !rig.faulty.is_dead());
        assert_eq!(rig.kept("a"), [1]);
    }
    assert!(rig.faulty.count.load(Ordering::SeqCst) > 60);
}
