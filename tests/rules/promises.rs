//! After any sequence of changes no object breaks a rule of its class, and what was refused is listed.

use proptest::prelude::*;
use sepia::backend::{self, FileKind};
use sepia::store::{Actor, Limit};
use sepia::{Error, Precondition, Store};

use crate::{Place, key, read, read_conflict};

const POLICY: &str = "[[rule]]\nclass = 'J'\njson = true\nmax_size = 6\n\
                      [[rule]]\nclass = 'J'\nid = '[ab]|x[.]tmp'\nmax_objects = 2\n\
                      [[rule]]\nclass = 'S'\nmax_size = 4\nmax_objects = 3\n";

const NAMES: [&str; 11] = ["J/a", "J/b", "J/c", "J/x.tmp", "S/a", "S/b", "S/c", "S/d", "Free/a", "Free/b", "Free/d/e"];
const BYTES: [&str; 6] = ["", "1", "[1]", "[", "\"long\"", "\"longer\""];

#[derive(Debug, Clone)]
enum Step {
    Put(usize, usize),
    Write(usize, usize),
    Append(usize, usize),
    Rename(usize, usize),
    Exchange(usize, usize),
    Link(usize, usize),
    Remove(usize),
    Untrash(usize, usize),
    Restore(usize),
    MoveDir(usize, usize),
}

const DIRS: [&str; 5] = ["J", "S", "Free", "Free/d", "S/d"];

fn step() -> impl Strategy<Value = Step> {
    let (name, bytes) = (0..NAMES.len(), 0..BYTES.len());
    let (two, save) = ((name.clone(), name.clone()), (name.clone(), bytes));
    prop_oneof![
        3 => save.clone().prop_map(|(at, what)| Step::Put(at, what)),
        3 => save.clone().prop_map(|(at, what)| Step::Write(at, what)),
        3 => save.prop_map(|(at, what)| Step::Append(at, what)),
        4 => two.clone().prop_map(|(from, to)| Step::Rename(from, to)),
        1 => two.clone().prop_map(|(from, to)| Step::Exchange(from, to)),
        2 => two.clone().prop_map(|(from, to)| Step::Link(from, to)),
        2 => name.clone().prop_map(Step::Remove),
        1 => two.prop_map(|(from, to)| Step::Untrash(from, to)),
        1 => name.prop_map(Step::Restore),
        1 => (0..DIRS.len(), 0..DIRS.len()).prop_map(|(from, to)| Step::MoveDir(from, to)),
    ]
}

/// Nobody is told that a class is full that isn't.
fn honest<T>(store: &Store, result: sepia::Result<T>) -> sepia::Result<T> {
    if let Err(Error::Rejected { key: refused, breach, .. }) = &result
        && breach.rule == Limit::MaxObjects
    {
        let (class, most) = if refused.is_within(&key("J")) { ("J", 2) } else { ("S", 3) };
        let entries = store.list(&key(class)).unwrap();
        let count = entries.iter().filter(|entry| !entry.name.to_str().unwrap().ends_with(".tmp")).count();
        assert_eq!(count, most, "{refused}: {breach}");
    }
    result
}

/// The bytes that a step was refused to save, if it was.
fn take(place: &Place, step: &Step) -> Option<String> {
    let store = &place.store;
    let by = store.by(Actor::current());
    let any = Precondition::Any;
    let save = |at: usize, result: sepia::Result<()>, bytes: String| match result {
        Err(Error::Rejected { .. }) if store.stat(&key(NAMES[at])).is_ok() => Some(bytes),
        _ => None,
    };
    match *step {
        Step::Put(at, what) => {
            if let Err(Error::Rejected { kept, .. }) = honest(store, place.put(NAMES[at], BYTES[what])) {
                assert!(kept.is_some(), "{step:?}");
                return Some(BYTES[what].to_owned());
            }
        }
        Step::Write(at, what) => {
            let result = honest(store, place.write(NAMES[at], BYTES[what], false));
            // A file that is empty already is not written to by no bytes.
            return save(at, result, BYTES[what].to_owned());
        }
        Step::Append(at, what) => {
            let before = store.get(&key(NAMES[at])).map(|_| read(store, NAMES[at])).unwrap_or_default();
            let result = place.write(NAMES[at], BYTES[what], true);
            return save(at, result, String::from_utf8(before).unwrap() + BYTES[what]);
        }
        Step::Rename(from, to) => drop(honest(store, store.rename(&key(NAMES[from]), &key(NAMES[to]), any))),
        Step::Exchange(from, to) => {
            let how = backend::Rename { expect_from: any, expect_to: any, exchange: true };
            drop(by.rename(&key(NAMES[from]), &key(NAMES[to]), &how, None));
        }
        Step::Link(from, to) => drop(honest(store, by.link(&key(NAMES[from]), &key(NAMES[to]), &any))),
        Step::Remove(at) => drop(store.remove(&key(NAMES[at]), any)),
        Step::Untrash(from, to) => drop(store.untrash(&key(NAMES[from]), None, &key(NAMES[to]))),
        Step::Restore(at) => {
            drop(store.restore(&key(NAMES[at]), sepia::Generation::FIRST, any));
        }
        Step::MoveDir(from, to) => drop(store.rename(&key(DIRS[from]), &key(DIRS[to]), any)),
    }
    None
}

fn check(store: &Store) {
    for (class, most_bytes, most, ids) in [("J", 6, 2, &["a", "b", "x.tmp"][..]), ("S", 4, 3, &["a", "b", "c", "d"])] {
        let entries = match store.list(&key(class)) {
            Ok(entries) => entries,
            Err(Error::Backend(error)) if error.is_gone() => continue,
            Err(error) => panic!("{error}"),
        };
        let names: Vec<_> = entries.iter().map(|entry| entry.name.to_str().unwrap()).collect();
        assert!(names.iter().filter(|name| !name.ends_with(".tmp")).count() <= most, "{class}: {names:?}");
        for name in names {
            // A directory that became one of another class brings its members along.
            assert!(class != "J" || ids.contains(&name), "{class}/{name}");
            let path = format!("{class}/{name}");
            let stat = store.stat(&key(&path)).unwrap();
            if stat.kind != FileKind::File || stat.generation.is_none() || name.ends_with(".tmp") {
                continue;
            }
            let bytes = read(store, &path);
            assert!(bytes.len() <= most_bytes, "{path}: {bytes:?}");
            if class == "J" {
                serde_json::from_slice::<serde_json::Value>(&bytes).unwrap_or_else(|error| panic!("{path}: {error}"));
            }
        }
    }
}

fn run(place: &Place, steps: &[Step]) {
    let mut refused = Vec::new();
    for step in steps {
        refused.extend(take(place, step));
        check(&place.store);
    }
    let mut listed: Vec<_> =
        place.rejected().iter().map(|one| String::from_utf8(read_conflict(&place.store, one)).unwrap()).collect();
    listed.sort();
    refused.sort();
    assert_eq!(listed, refused, "{steps:?}");
    // Another process sees the same.
    check(&place.other());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_object_breaks_a_rule_on_disk(steps in prop::collection::vec(step(), 1..40)) {
        run(&Place::on_disk(POLICY), &steps);
    }

    #[test]
    fn no_object_breaks_a_rule_in_memory(steps in prop::collection::vec(step(), 1..40)) {
        run(&Place::in_memory(POLICY), &steps);
    }
}
