//! After any sequence of changes and collections, what the policy promises to keep is there, byte for byte.

use proptest::prelude::*;
use sepia::backend::{GenerationInfo, Rename};
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
    Restore(u8),
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
        1 => (0u8..4).prop_map(Step::Restore),
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
    let mut days = 0;
    for (at, step) in steps.iter().enumerate() {
        let before = matches!(step, Step::Collect(_) | Step::Crash(_)).then(|| promised(rig));
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
                let how = Rename { expect_from: Precondition::Any, expect_to: Precondition::Any, exchange: false };
                if let Some(parent) = name(*to).parent() {
                    rig.store.create_dirs(&parent).unwrap();
                }
                let _ = rig.store.backend().rename(&name(*from), &name(*to), &how);
            }
            Step::Pin(number, which) => drop(rig.store.pin(&name(*number), generation(u64::from(*which)))),
            Step::Unpin => {
                if let Some(pin) = rig.store.pins().unwrap().first() {
                    rig.store.unpin(&pin.key, pin.generation).unwrap();
                }
            }
            Step::Restore(number) => drop(rig.store.untrash(&name(*number), None, &name(*number))),
            Step::Wait(more) => {
                days += more;
                rig.faulty.ahead(days * DAY);
            }
            Step::Collect(now) => drop(collect(&rig.store, *now).unwrap()),
            Step::Room => drop(rig.store.make_room(1, &|| false).unwrap()),
            Step::Crash(after) => {
                rig.faulty.dies_after(i64::from(*after));
                let _ = rig.collect();
                rig.faulty.lives();
            }
        }
        for ((key, generation), bytes) in before.unwrap_or_default() {
            assert_eq!(read(&rig.store, &key, generation), bytes, "{key}@{generation} after step {at}, {step:?}");
        }
    }
}

const POLICY: &str = "[retention]\nkeep_last = 2\nkeep_within = '3d'\nkeep_weekly = 2\ntrash_keep = '10d'";

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn what_the_policy_promises_is_readable_in_memory(steps in steps()) {
        run(&Rig::in_memory(POLICY), &steps);
    }

    #[test]
    fn what_the_policy_promises_is_readable_on_disk(steps in steps()) {
        run(&Rig::on_disk(POLICY), &steps);
    }
}
