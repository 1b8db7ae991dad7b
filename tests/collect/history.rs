//! What goes and what stays.

use sepia::Error;
use sepia::store::collect::Phase;

use super::*;

#[test]
fn what_no_rule_keeps_goes() {
    for rig in [Rig::in_memory("[retention]\nkeep_last = 2"), Rig::on_disk("[retention]\nkeep_last = 2")] {
        for text in ["1", "2", "3", "4", "5"] {
            rig.put("Note/a", text);
        }
        rig.put("Note/young", "1");
        let done = rig.collect().unwrap();
        assert_eq!((done.dropped, done.errors, done.stopped), (2, 0, false));
        assert!(done.freed > 0);
        assert_eq!(rig.kept("Note/a"), [3, 4]);
        assert_eq!(read(&rig.store, &key("Note/a"), generation(5)), b"5");
        assert_eq!(rig.collect().unwrap().dropped, 0);
        let status = rig.store.collector_status().unwrap();
        assert_eq!((status.phase, status.running, status.last.unwrap().error), (Phase::Idle, false, None));
    }
}

#[test]
fn what_is_marked_waits_for_the_grace_period_and_is_judged_again() {
    let rig = Rig::on_disk("[retention]\nkeep_last = 1\n[gc]\ngrace = '1h'");
    for text in ["1", "2", "3", "4"] {
        rig.put("a", text);
    }
    let marked = collect(&rig.store, false).unwrap();
    assert_eq!((marked.marked, marked.dropped), (2, 0));
    assert_eq!(collect(&rig.store, false).unwrap().dropped, 0);
    // Pinned meanwhile; and what was superseded since was not marked.
    rig.store.pin(&key("a"), generation(1)).unwrap();
    rig.put("a", "5");
    rig.put("a", "6");
    rig.faulty.ahead(3_601);
    let swept = collect(&rig.store, false).unwrap();
    assert_eq!((swept.dropped, swept.marked), (1, 2));
    assert_eq!(rig.kept("a"), [1, 3, 4, 5]);
    rig.faulty.ahead(7_300);
    assert_eq!(collect(&rig.store, false).unwrap().dropped, 2);
    assert_eq!(rig.kept("a"), [1, 5]);
    rig.store.unpin(&key("a"), generation(1)).unwrap();
    assert_eq!(rig.collect().unwrap().dropped, 1);
}

#[test]
fn a_better_policy_saves_what_was_marked() {
    let rig = Rig::on_disk("[retention]\nkeep_last = 1");
    for text in ["1", "2", "3", "4"] {
        rig.put("a", text);
    }
    collect(&rig.store, false).unwrap();
    rig.store.backend().put_record(&key("config.toml"), b"[retention]\nkeep_all = true").unwrap();
    rig.faulty.ahead(2 * DAY);
    let other = Store::with_backend(rig.faulty.clone(), rig.store.location().clone());
    assert_eq!(collect(&other, false).unwrap().dropped, 0);
    assert_eq!(rig.kept("a"), [1, 2, 3]);
    // And one that keeps nothing is refused, rather than obeyed.
    rig.store.backend().put_record(&key("config.toml"), b"[retention]\nkeep_last = 0").unwrap();
    let other = Store::with_backend(rig.faulty.clone(), rig.store.location().clone());
    assert!(matches!(collect(&other, true), Err(Error::Config(_))));
    assert_eq!(rig.kept("a"), [1, 2, 3]);
}

#[test]
fn the_switch_and_the_pause_stop_everything_that_deletes() {
    let rig = Rig::on_disk("[retention]\nkeep_last = 1");
    for text in ["1", "2", "3"] {
        rig.put("a", text);
    }
    rig.remove("a");
    rig.store.disable_deletion("moving house").unwrap();
    let error = rig.collect().unwrap_err();
    assert!(matches!(&error, Error::DeletionDisabled(_)) && error.to_string().contains("moving house"), "{error}");
    assert!(rig.store.make_room(1, &|| false).is_err());
    assert!(rig.store.empty_trash(&Key::root(), "0s".parse().unwrap()).is_err());
    assert!(rig.store.collect_if_due(&|| false).unwrap().is_none());
    rig.store.enable_deletion().unwrap();
    rig.store.pause_collection(Some(rig.store.now().after("2h".parse::<sepia::Age>().unwrap()))).unwrap();
    assert!(matches!(rig.collect(), Err(Error::Paused(_))));
    assert_eq!(rig.kept("a"), [1, 2, 3]);
    rig.faulty.ahead(7_201);
    assert_eq!(rig.collect().unwrap().dropped, 2);
    assert_eq!(rig.kept("a"), [3]);
}

#[test]
fn a_key_that_was_removed_and_made_again_ten_times_keeps_counting() {
    for rig in [Rig::in_memory("[retention]\nkeep_last = 2"), Rig::on_disk("[retention]\nkeep_last = 2")] {
        for round in 0..10 {
            rig.put("a", &format!("{round} first"));
            rig.put("a", &format!("{round} second"));
            rig.remove("a");
            rig.collect().unwrap();
            assert_eq!(rig.kept("a"), [2 * round + 1, 2 * round + 2]);
        }
        let trash = rig.store.trash(&Key::root()).unwrap();
        assert_eq!(trash.iter().map(|one| one.generation.get()).collect::<Vec<_>>(), [20]);
        rig.faulty.ahead(31 * DAY);
        assert_eq!(rig.collect().unwrap().dropped, 2);
        assert!(rig.kept("a").is_empty() && rig.store.trash(&Key::root()).unwrap().is_empty());
        rig.put("a", "again");
        assert_eq!(rig.store.stat(&key("a")).unwrap().generation, Some(generation(21)));
    }
}

#[test]
fn a_key_is_forgotten_a_year_after_its_last_bytes() {
    let rig = Rig::on_disk("");
    rig.put("d/a", "1");
    rig.remove("d/a");
    rig.faulty.ahead(31 * DAY);
    assert_eq!(rig.collect().unwrap().dropped, 1);
    rig.faulty.ahead(300 * DAY);
    assert_eq!(rig.collect().unwrap().forgotten, 0);
    rig.faulty.ahead(400 * DAY);
    assert_eq!(rig.collect().unwrap().forgotten, 1);
    assert_eq!(rig.store.backend().histories(&Key::root()).unwrap(), []);
    assert!(!rig.dir.as_ref().unwrap().path().join(".sepia/generations/d/a").exists());
}

#[test]
fn conflicts_go_when_they_are_old() {
    let rig = Rig::on_disk("[retention]\nconflicts_keep = '10d'");
    rig.put("a", "1");
    let mut late = rig.store.open_session(&key("a"), &Default::default()).unwrap();
    late.write_at(b"late", 0).unwrap();
    rig.put("a", "2");
    late.publish(&key("a"), false).unwrap_err();
    late.close(&key("a"));
    rig.faulty.ahead(9 * DAY);
    assert_eq!(rig.collect().unwrap().conflicts, 0);
    rig.faulty.ahead(11 * DAY);
    assert_eq!((rig.collect().unwrap().conflicts, rig.store.conflicts().unwrap().len()), (1, 0));
}

#[test]
fn what_a_session_is_based_on_stays() {
    let rig = Rig::on_disk("[retention]\nkeep_last = 1");
    rig.put("a", "base");
    let mut session = rig.store.open_session(&key("a"), &Default::default()).unwrap();
    session.append(b"+more").unwrap();
    for text in ["2", "3", "4"] {
        rig.put("a", text);
    }
    rig.collect().unwrap();
    assert_eq!(rig.kept("a"), [1, 3], "recovery may need the bytes before those that were appended");
    session.discard();
    rig.collect().unwrap();
    assert_eq!(rig.kept("a"), [3]);
}

#[test]
fn beginnings_of_a_log_are_thinned() {
    for rig in [Rig::in_memory("[retention]\nkeep_last = 3"), Rig::on_disk("[retention]\nkeep_last = 3")] {
        rig.put("log", "0");
        (1..20).for_each(|_| rig.append("log", "+"));
        rig.store.pin(&key("log"), generation(5)).unwrap();
        assert_eq!(rig.collect().unwrap().dropped, 15);
        rig.put("log", "rotated");
        (0..3).for_each(|number| rig.put("log", &number.to_string()));
        rig.collect().unwrap();
        // 20 holds the bytes of 5.
        assert_eq!(rig.kept("log"), [5, 20, 21, 22, 23]);
        assert_eq!(read(&rig.store, &key("log"), generation(5)), b"0++++");
        rig.store.unpin(&key("log"), generation(5)).unwrap();
        rig.collect().unwrap();
        assert_eq!(rig.kept("log"), [21, 22, 23]);
    }
}

#[test]
fn a_snapshot_that_cannot_be_read_keeps_everything() {
    let rig = Rig::on_disk("[retention]\nkeep_last = 1");
    ["1", "2", "3"].iter().for_each(|text| rig.put("a", text));
    rig.store.backend().put_record(&key("snapshots/x.jsonl"), b"{}\n").unwrap();
    assert!(rig.collect().is_err());
    assert_eq!(rig.kept("a"), [1, 2]);
}

#[test]
fn what_a_snapshot_holds_stays_wherever_it_goes() {
    for rig in [Rig::in_memory("[retention]\nkeep_last = 1"), Rig::on_disk("[retention]\nkeep_last = 1")] {
        for path in ["a", "b.tmp", "d/c"] {
            rig.put(path, "old");
            rig.put(path, &format!("in the snapshot: {path}"));
        }
        rig.store.create_snapshot(Some("s")).unwrap();
        for text in ["1", "2", "3"] {
            ["a", "b.tmp", "d/c"].iter().for_each(|path| rig.put(path, text));
        }
        rig.store.rename(&key("d"), &key("e"), Precondition::Absent).unwrap();
        rig.remove("b.tmp");
        rig.faulty.ahead(400 * DAY);
        assert!(rig.collect().unwrap().dropped > 0);
        rig.store.make_room(1 << 40, &|| false).unwrap();
        let snapshot = rig.store.snapshot("s").unwrap();
        for path in ["a", "b.tmp", "d/c"] {
            let bytes = read_opened(&snapshot.open(&rig.store, &key(path)).unwrap());
            assert_eq!(bytes, format!("in the snapshot: {path}").as_bytes());
        }
        rig.store.delete_snapshot("s").unwrap();
        rig.collect().unwrap();
        assert_eq!(rig.kept("b.tmp").len(), 0, "{:?}", rig.store.backend().generations(&key("b.tmp")));
    }
}

#[test]
fn old_events_go() {
    let rig = Rig::on_disk("");
    rig.put("a", "1");
    assert_eq!(rig.store.events_of(&key("a")).unwrap().len(), 1);
    rig.faulty.ahead(80 * DAY);
    rig.collect().unwrap();
    assert_eq!(rig.store.events_of(&key("a")).unwrap().len(), 1);
    rig.faulty.ahead(92 * DAY);
    rig.collect().unwrap();
    assert!(rig.store.events_of(&key("a")).unwrap().is_empty());
}

#[test]
fn room_is_made_from_the_oldest_on() {
    let rig = Rig::on_disk("[retention]\nkeep_all = true");
    for name in ["a", "b"] {
        ["1", "2", "3"].iter().for_each(|text| rig.put(name, &text.repeat(20_000)));
    }
    rig.remove("b");
    rig.store.pin(&key("a"), generation(1)).unwrap();
    // All of it is too young.
    assert_eq!(rig.store.make_room(1 << 20, &|| false).unwrap(), 0);
    rig.faulty.ahead(2 * 3_600);
    assert!(rig.store.make_room(1, &|| false).unwrap() >= 20_000);
    assert_eq!((rig.kept("a"), rig.kept("b")), (vec![1], vec![1, 2, 3]), "history before what is the only copy");
    rig.store.make_room(1 << 30, &|| false).unwrap();
    assert_eq!((rig.kept("a"), rig.kept("b")), (vec![1], vec![]));
    assert_eq!(read(&rig.store, &key("a"), generation(3)).len(), 20_000);
}

#[test]
fn what_was_removed_comes_back_as_it_was() {
    use sepia::backend::{SetAttr, SetTime};
    for rig in [Rig::in_memory(""), Rig::on_disk("")] {
        rig.put("d/a", "old");
        rig.put("d/a", "new");
        let backend = rig.store.backend();
        backend.set_xattr(&key("d/a"), "user.mark".as_ref(), b"x", 0).unwrap();
        let mtime = sepia::Timestamp::from_nanos(1_000_000_007);
        let attr = SetAttr { mode: Some(0o640), mtime: Some(SetTime::At(mtime)), ..SetAttr::default() };
        let before = backend.set_attr(&key("d/a"), &attr).unwrap();
        rig.remove("d/a");
        backend.remove_dir(&key("d")).unwrap();
        let trash = rig.store.trash(&key("d")).unwrap();
        assert_eq!((trash.len(), trash[0].size, trash[0].mtime), (1, 3, mtime));
        let stat = rig.store.untrash(&key("d/a"), None, &key("d/a")).unwrap();
        assert_eq!((stat.mode, stat.mtime, stat.uid, stat.gid), (0o640, mtime, before.uid, before.gid));
        assert_eq!(stat.generation, Some(generation(3)));
        assert_eq!(backend.get_xattr(&key("d/a"), "user.mark".as_ref()).unwrap(), b"x");
        assert_eq!(read(&rig.store, &key("d/a"), generation(3)), b"new");
        assert_eq!(rig.kept("d/a"), [1, 2]);
        assert!(matches!(rig.store.untrash(&key("d/a"), None, &key("x")), Err(Error::NotInTrash(_))));
        rig.remove("d/a");
        rig.store.untrash(&key("d/a"), Some(generation(1)), &key("elsewhere")).unwrap();
        assert_eq!(read(&rig.store, &key("elsewhere"), generation(1)), b"old");
        assert_eq!(rig.store.trash(&Key::root()).unwrap().len(), 1);
        rig.store.pin(&key("d/a"), generation(2)).unwrap();
        rig.store.empty_trash(&Key::root(), "0s".parse().unwrap()).unwrap();
        assert_eq!(rig.kept("d/a"), [2]);
    }
}

/// The bounds are on what is asked of the medium, not on time.
#[test]
fn the_work_is_in_proportion_to_what_is_shown_or_removed() {
    use std::sync::atomic::Ordering::SeqCst;
    let rig = Rig::on_disk("[retention]\nkeep_last = 100");
    let root = rig.dir.as_ref().unwrap().path();
    let (class, history) = (root.join("Many"), root.join(".sepia/generations/Log/long"));
    std::fs::create_dir(&class).unwrap();
    for number in 0..100_000 {
        std::fs::File::create(class.join(number.to_string())).unwrap();
    }
    rig.put("Log/long", "1");
    std::fs::create_dir_all(&history).unwrap();
    let start = rig.store.now().nanos() - 20_000_000_000;
    let time = |number: i64| sepia::Timestamp::from_nanos(start + number * 1_000_000);
    for number in 1..=10_000 {
        let name = format!("{number}@{}-{}", time(number), time(number + 1));
        std::fs::write(history.join(name), number.to_string()).unwrap();
    }
    // The object was made before its history: it gets a number above that.
    rig.remove("Log/long");
    rig.put("Log/long", "now");
    rig.faulty.count.store(0, SeqCst);
    let began = std::time::Instant::now();
    let done = rig.collect().unwrap();
    let (asked, took) = (rig.faulty.count.load(SeqCst), began.elapsed());
    println!("{} dropped in {took:?}, {asked} operations", done.dropped);
    assert_eq!(done.errors, 0);
    assert!(done.dropped >= 9_900 && done.dropped < 9_910);
    // A handful for each batch.
    assert!(asked < 500, "{asked} operations");
    rig.faulty.count.store(0, SeqCst);
    rig.collect().unwrap();
    assert!(rig.faulty.count.load(SeqCst) < 100);
}
