//! After any sequence of changes, restorations and collections, what the policy promises to keep is there, byte for byte:
//! as a generation, in a snapshot, and in the tree as it was at any moment.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use sepia::Timestamp;
use sepia::backend::{GenerationInfo, Rename};
use sepia::store::Past;
use sepia::store::retention::{Reason, Verdict};

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Append(u8, u8),
    Remove(u8),
    Rename(u8, u8),
    Pin(u8, u8),
    Unpin,
    RenameDir(u8, u8),
    Untrash(u8),
    Snapshot,
    DropSnapshot(u8),
    RestoreSnapshot(u8),
    Moment,
    Wait(i64),
    Collect(bool),
    Room,
    Crash(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = prop_oneof![
        6 => (0u8..4, 0u8..200).prop_map(|(name, size)| Step::Put(name, size)),
        5 => (0u8..4, 1u8..50).prop_map(|(name, size)| Step::Append(name, size)),
        2 => (0u8..4).prop_map(Step::Remove),
        2 => (0u8..4, 0u8..4).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => (0u8..4, 1u8..9).prop_map(|(name, number)| Step::Pin(name, number)),
        1 => Just(Step::Unpin),
        1 => (0u8..3, 0u8..3).prop_map(|(from, to)| Step::RenameDir(from, to)),
        1 => (0u8..4).prop_map(Step::Untrash),
        2 => Just(Step::Snapshot),
        1 => (0u8..4).prop_map(Step::DropSnapshot),
        1 => (0u8..4).prop_map(Step::RestoreSnapshot),
        2 => Just(Step::Moment),
        2 => (1i64..20).prop_map(Step::Wait),
        3 => any::<bool>().prop_map(Step::Collect),
        1 => Just(Step::Room),
        2 => (0u8..60).prop_map(Step::Crash),
    ];
    prop::collection::vec(one, 1..60)
}

fn name(number: u8) -> Key {
    key(["Note/a", "Note/b", "Board/x/c", "d"][usize::from(number)])
}

fn dir(number: u8) -> Key {
    key(["Note", "Board", "Board/x"][usize::from(number)])
}

type Files = BTreeMap<Key, Vec<u8>>;

fn now(rig: &Rig) -> Files {
    let read = |key: Key| {
        let opened = rig.store.get(&key).unwrap();
        (key, read_opened(&opened))
    };
    rig.files(&Key::root()).into_iter().map(read).collect()
}

/// What the store must remember.
#[derive(Default)]
struct Remembered {
    snapshots: BTreeMap<String, Files>,
    /// Without what has been deleted since, and no rule promised to keep.
    moments: Vec<(Timestamp, Files)>,
}

impl Remembered {
    fn snapshot(&self, number: u8) -> Option<String> {
        self.snapshots.keys().nth(usize::from(number)).cloned()
    }

    /// What was at a key at a moment: number and bytes.
    fn past(rig: &Rig, key: &Key, then: Timestamp) -> Option<(Generation, Vec<u8>)> {
        match rig.store.past(key, then).unwrap() {
            Some(Past::Object(generation, ..)) => Some((generation, read(&rig.store, key, generation))),
            _ => None,
        }
    }

    /// The history of what is renamed goes along: earlier moments show it under its new name.
    fn has_left(&mut self, from: &Key) {
        for (_, files) in &mut self.moments {
            files.retain(|key, _| !key.is_within(from));
        }
    }

    fn forget_what_may_go(&mut self, rig: &Rig, promised: &BTreeMap<(Key, Generation), Vec<u8>>) {
        for (then, files) in &mut self.moments {
            files.retain(|key, _| {
                let past = Self::past(rig, key, *then);
                past.is_some_and(|(generation, _)| promised.contains_key(&(key.clone(), generation)))
            });
        }
    }

    fn check(&self, rig: &Rig, when: &str) {
        for (name, files) in &self.snapshots {
            let snapshot = rig.store.snapshot(name).unwrap();
            for (key, bytes) in files {
                let found = snapshot.open(&rig.store, key).map(|opened| read_opened(&opened));
                assert!(
                    found.as_ref().is_ok_and(|found| found == bytes),
                    "{key} in snapshot {name} after {when}: {found:?} instead of {bytes:?}"
                );
            }
        }
        for (number, (then, files)) in self.moments.iter().enumerate() {
            for (key, bytes) in files {
                let found = Self::past(rig, key, *then);
                assert!(
                    found.as_ref().is_some_and(|(_, found)| found == bytes),
                    "{key} at moment {number} after {when}: {found:?} instead of {bytes:?}"
                );
            }
        }
    }
}

/// What is promised now: what the judgement keeps, and by a rule of thumb of its own, the last two, what is current
/// and what is pinned.
fn promised(rig: &Rig) -> BTreeMap<(Key, Generation), Vec<u8>> {
    let all = rig.everything();
    let mut promised = BTreeMap::new();
    let mut promise = |key: &Key, generation: Generation| {
        if let Some(bytes) = all.get(&(key.clone(), generation)) {
            promised.insert((key.clone(), generation), bytes.clone());
        }
    };
    rig.store
        .judge_history(&Key::root(), &mut |judged| {
            for (info, verdict) in &judged.generations {
                if matches!(verdict, Verdict::Keep(reasons) if !reasons.iter().all(is_about_notes)) {
                    promise(&judged.key, info.generation);
                }
            }
            let has_bytes = |info: &GenerationInfo| !matches!(info.kept, Kept::Lost(_)) || info.moved_to().is_some();
            let bytes: Vec<_> = judged.generations.iter().filter(|(info, _)| has_bytes(info)).collect();
            let removed = !judged.current && judged.generations.last().is_some_and(|(info, _)| info.deleted);
            for (info, _) in bytes.iter().rev().take(if removed { 0 } else { 2 }) {
                promise(&judged.key, info.generation);
            }
            Ok(())
        })
        .unwrap();
    for pin in rig.store.pins().unwrap() {
        promise(&pin.key, pin.generation);
    }
    for key in rig.files(&Key::root()) {
        if let Some(current) = rig.store.stat(&key).unwrap().generation {
            promise(&key, current);
        }
    }
    promised
}

fn is_about_notes(reason: &Reason) -> bool {
    matches!(reason, Reason::Note | Reason::Number)
}

fn run(rig: &Rig, steps: &[Step]) {
    let (mut days, mut remembered) = (0, Remembered::default());
    let any = Rename { expect_from: Precondition::Any, expect_to: Precondition::Any, exchange: false };
    for (at, step) in steps.iter().enumerate() {
        let deletes = matches!(step, Step::Collect(_) | Step::Crash(_));
        let before = deletes.then(|| promised(rig));
        if let Some(promised) = &before {
            remembered.forget_what_may_go(rig, promised);
        }
        // Those may end with an error: the object isn't there, or the name is taken.
        match step {
            Step::Put(number, size) => {
                let bytes = vec![at as u8; usize::from(*size)];
                let _ = rig.store.put(&name(*number), &mut &bytes[..], Precondition::Any);
            }
            Step::Append(number, size) => {
                if let Ok(mut session) = rig.store.open_session(&name(*number), &Default::default()) {
                    session.append(&vec![at as u8; usize::from(*size)]).unwrap();
                    session.publish(&name(*number), false).unwrap();
                    session.close(&name(*number));
                }
            }
            Step::Remove(number) => drop(rig.store.remove(&name(*number), Precondition::Any)),
            Step::Rename(from, to) => {
                if let Some(parent) = name(*to).parent() {
                    rig.store.create_dirs(&parent).unwrap();
                }
                if rig.store.backend().rename(&name(*from), &name(*to), &any).is_ok() {
                    remembered.has_left(&name(*from));
                }
            }
            Step::RenameDir(from, to) => {
                if rig.store.backend().rename(&dir(*from), &dir(*to), &any).is_ok() {
                    remembered.has_left(&dir(*from));
                }
            }
            Step::Pin(number, which) => drop(rig.store.pin(&name(*number), generation(u64::from(*which)))),
            Step::Unpin => {
                if let Some(pin) = rig.store.pins().unwrap().first() {
                    rig.store.unpin(&pin.key, pin.generation).unwrap();
                }
            }
            Step::Untrash(number) => {
                let removed = rig.store.trashed_at(&name(*number)).unwrap();
                if let Some(removed) = removed.filter(|_| rig.store.stat(&name(*number)).is_err()) {
                    let bytes = read(&rig.store, &removed.key, removed.generation);
                    rig.store.untrash(&removed.key, None, &removed.key).unwrap();
                    assert_eq!(now(rig)[&removed.key], bytes);
                }
            }
            Step::Snapshot => {
                let taken = rig.store.create_snapshot(None).unwrap();
                remembered.snapshots.insert(taken.name, now(rig));
            }
            Step::DropSnapshot(number) => {
                if let Some(name) = remembered.snapshot(*number) {
                    rig.store.delete_snapshot(&name).unwrap();
                    remembered.snapshots.remove(&name);
                }
            }
            Step::RestoreSnapshot(number) => {
                if let Some(name) = remembered.snapshot(*number) {
                    let snapshot = rig.store.snapshot(&name).unwrap();
                    // Twice where a file is to become a directory, say: what was in the way is gone then.
                    for _ in 0..2 {
                        let plan = rig.store.plan_restoration(&snapshot, &Key::root(), true).unwrap();
                        plan.apply(&rig.store, &mut |_| {});
                    }
                    assert_eq!(now(rig), remembered.snapshots[&name], "restored from {name} at step {at}");
                }
            }
            Step::Moment => {
                std::thread::sleep(std::time::Duration::from_micros(20));
                // The clock that commits go by is not the one that is put forward.
                remembered.moments.push((Timestamp::now(), now(rig)));
                std::thread::sleep(std::time::Duration::from_micros(20));
            }
            Step::Wait(more) => {
                days += more;
                rig.faulty.ahead(days * DAY);
            }
            Step::Collect(now) => drop(collect(&rig.store, *now).unwrap()),
            Step::Room => {
                rig.store.make_room(1, &|| false).unwrap();
                // Whatever the rules say, but not what snapshots hold.
                remembered.moments.clear();
            }
            Step::Crash(after) => {
                rig.faulty.dies_after(i64::from(*after));
                let _ = rig.collect();
                rig.faulty.lives();
            }
        }
        for ((key, generation), bytes) in before.unwrap_or_default() {
            assert_eq!(read(&rig.store, &key, generation), bytes, "{key}@{generation} after step {at}, {step:?}");
        }
        remembered.check(rig, &format!("step {at}, {step:?}"));
    }
}

const POLICY: &str = "[retention]\nkeep_last = 2\nkeep_within = '3d'\nkeep_weekly = 2\ntrash_keep = '10d'";

/// As that of the model: the same cases on every machine. `PROPTEST_CASES` says how many, `PROPTEST_RNG_SEED=N` tries others.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    let explores = std::env::var_os("PROPTEST_RNG_SEED").is_some();
    ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(96),
        rng_seed: if explores { default.rng_seed } else { RngSeed::Fixed(20_261_123) },
        ..default
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_the_policy_promises_is_readable_in_memory(steps in steps()) {
        run(&Rig::in_memory(POLICY), &steps);
    }

    #[test]
    fn what_the_policy_promises_is_readable_on_disk(steps in steps()) {
        run(&Rig::on_disk(POLICY), &steps);
    }
}
