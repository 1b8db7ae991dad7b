//! Verification while others work: nobody's change may look like damage, whenever it is looked at.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sepia::store::policy::Percent;
use sepia::store::verify::{Counts, Verified, Verify};
use sepia::store::{Actor, Collect, SessionOptions};
use sepia::{Generation, Precondition, Store};

use crate::rig::{Rig, key, sum};

/// Changes that each worker makes.
const CHANGES: u64 = 400;

/// A generator of numbers that look random, and are the same in each run (Marsaglia's xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// Saves, appends, goes on saving, renames and removes names of its own, and of all; and objects with several names, which
/// nobody else saves to.
fn work(store: &Store, worker: u64) {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (worker + 1));
    for change in 0..CHANGES {
        let name = |number: u64| match number {
            0..3 => key(&format!("Shared/{number}")),
            _ => key(&format!("Own/{worker}/{number}")),
        };
        let (one, other) = (name(dice.below(6)), name(dice.below(6)));
        // Of the same length again and again, so that no size tells one from the other.
        let text = format!("{worker:02} {change:04} {:04}\n", dice.below(10_000));
        let (first, second) = (key(&format!("Own/{worker}/several")), key(&format!("Own/{worker}/names")));
        let any = if dice.below(2) == 0 { &first } else { &second };
        // What loses against somebody else is no matter here.
        let _ = match dice.below(12) {
            0..3 => store.put(&one, &mut text.as_bytes(), Precondition::Any).map(drop),
            3 => append(store, &one, &text),
            4 => amend(store, &one, &text),
            5..7 => store.rename(&one, &other, Precondition::Any).map(drop),
            7 => store.remove(&one, Precondition::Any),
            8 => store.put(any, &mut text.as_bytes(), Precondition::Any).map(drop),
            9 => amend(store, any, &text),
            10 => store.remove(any, Precondition::Any),
            _ => store.by(Actor::current()).link(&first, &second, &Precondition::Any).map(drop),
        };
    }
}

fn append(store: &Store, name: &sepia::Key, text: &str) -> sepia::Result<()> {
    let mut session = store.open_session(name, &SessionOptions { create: Some(0o666), ..Default::default() })?;
    session.append(text.as_bytes())?;
    let saved = session.publish(name, false);
    session.close(name);
    saved.map(drop)
}

/// One generation that is saved three times.
fn amend(store: &Store, name: &sepia::Key, text: &str) -> sepia::Result<()> {
    let mut session = store.open_session(name, &SessionOptions { create: Some(0o666), ..Default::default() })?;
    let mut saved = Ok(());
    for at in 0..3 {
        session.write_at(text.as_bytes(), at)?;
        saved = saved.and(session.publish(name, false).map(drop));
    }
    session.close(name);
    saved
}

#[test]
fn nothing_is_called_damaged_while_others_work() {
    for rig in [Rig::file(), Rig::memory()] {
        for dir in ["Shared", "Own/0", "Own/1", "Own/2"] {
            rig.store.create_dirs(&key(dir)).unwrap();
        }
        if !rig.is_memory() {
            let policy = "[retention]\nkeep_last = 2\ntrash_keep = \"0s\"\n[checksums]\nrate = 1073741824\n";
            std::fs::write(rig.path(".sepia/config.toml"), policy).unwrap();
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..3)
                .map(|worker| {
                    // Through stores of their own, as processes are.
                    let store = if rig.is_memory() { rig.store.clone() } else { rig.again() };
                    scope.spawn(move || work(&store, worker))
                })
                .collect();
            let background = scope.spawn(|| {
                let store = if rig.is_memory() { rig.store.clone() } else { rig.again() };
                while !done.load(Ordering::SeqCst) {
                    // Sooner than a mount would, but not before a file's times tell of its bytes.
                    sum(&store, Duration::from_millis(20));
                    let how = Collect { now: true, load: Percent::ALL, stop: &|| false };
                    store.collect(&how).unwrap();
                }
            });
            let verifier = scope.spawn(|| {
                let mut runs = 0;
                while !done.load(Ordering::SeqCst) || runs == 0 {
                    let verified = rig.store.verify(&Verify::all()).unwrap();
                    assert!(!verified.is_damaged(), "{verified:#?}");
                    runs += 1;
                }
            });
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            done.store(true, Ordering::SeqCst);
            background.join().unwrap();
            verifier.join().unwrap();
        });
        let verified = rig.store.verify(&Verify::all()).unwrap();
        assert_eq!((verified.is_damaged(), verified.counts.busy), (false, 0), "{verified:#?}");
        assert!(verified.counts.generations > 0);
    }
}

/// Verifies, and does something when the first piece of a generation has been read.
fn verify_and(rig: &Rig, change: impl Fn(u64)) -> Verified {
    let pieces = Cell::new(0);
    let progress = |name: &sepia::Key, counts: &Counts| {
        if *name == key("n") && counts.bytes > 0 {
            pieces.set(pieces.get() + 1);
            change(pieces.get());
        }
    };
    rig.store.verify(&Verify { dir: key("n"), progress: &progress, ..Verify::all() }).unwrap()
}

#[test]
fn what_is_rewritten_while_it_is_read_is_no_damage() {
    let rig = Rig::file();
    let large = |byte: u8| vec![byte; 1 << 20];
    rig.put("n", &large(1));
    rig.store.by(Actor::current()).link(&key("n"), &key("m"), &Precondition::Any).unwrap();
    rig.sum();
    // Under its other name, and into the same file, since the names must stay one object.
    let verified = verify_and(&rig, |piece| {
        if piece == 1 {
            rig.put("m", &large(2));
        }
    });
    assert!(!verified.is_damaged() && verified.counts.busy == 0, "{verified:?}");
    // It doesn't rest: nothing is known of it, and that is said.
    let verified = verify_and(&rig, |piece| rig.put("m", &large(piece as u8)));
    assert_eq!((verified.is_damaged(), verified.counts.busy), (false, 1), "{verified:?}");
    rig.sum();
    assert!(!rig.verify().is_damaged());
}

#[test]
fn what_is_collected_or_renamed_while_it_is_verified_is_no_damage() {
    let rig = Rig::file();
    for text in ["one", "two", "three"] {
        rig.put("n", text.as_bytes());
    }
    rig.sum();
    let verified = verify_and(&rig, |piece| match piece {
        1 => drop(rig.store.backend().drop_generation(&key("n"), Generation::new(2).unwrap())),
        2 => drop(rig.store.rename(&key("n"), &key("m"), Precondition::Absent).unwrap()),
        _ => {}
    });
    assert!(!verified.is_damaged(), "{verified:?}");
    assert!(!rig.verify().is_damaged());
}
