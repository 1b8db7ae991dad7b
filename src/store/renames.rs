//! The names that things had at a moment, as far as the events tell.
//!
//! Histories go along with renames, so that by them alone an object would always have had the name that it has today.

use std::collections::BTreeSet;
use std::ffi::OsString;

use super::events::EventReader;
use super::{EventKind, Past, Result, Store};
use crate::backend::FileKind;
use crate::types::{Key, ObjectId, Timestamp};

/// The renames since some moment, which are read once, and then as they come. To be kept by who asks often.
#[derive(Debug, Default)]
pub struct Renames(Option<Known>);

#[derive(Debug)]
struct Known {
    since: Timestamp,
    reader: EventReader,
    /// By time.
    moves: Vec<Move>,
}

#[derive(Debug)]
struct Move {
    at: Timestamp,
    from: Key,
    to: Key,
    id: Option<ObjectId>,
    is_dir: bool,
    /// One of two that happened at once, in opposite directions.
    exchange: bool,
}

impl Move {
    fn is_exchanged_with(&self, other: &Move) -> bool {
        self.exchange && other.exchange && (&self.from, &self.to) == (&other.to, &other.from)
    }
}

impl Renames {
    fn read(&mut self, store: &Store, then: Timestamp) -> Result<&[Move]> {
        if self.0.as_ref().is_some_and(|known| known.since > then) {
            self.0 = None;
        }
        let known = self.0.get_or_insert_with(|| Known {
            since: then,
            reader: store.events(Some(then)).of_kind(EventKind::Renamed),
            moves: Vec::new(),
        });
        let (before, moves) = (known.moves.len(), &mut known.moves);
        known.reader.read(&mut |event| {
            if let Some(to) = event.to {
                let (exchange, is_dir) =
                    (event.meta.contains_key("exchange"), event.file_kind == Some(FileKind::Directory));
                moves.push(Move { at: event.time, from: event.key, to, id: event.id, is_dir, exchange });
            }
        })?;
        if moves.len() > before {
            moves.sort_by_key(|one| one.at);
        }
        let first = moves.partition_point(|one| one.at <= then);
        Ok(&moves[first..])
    }
}

/// The name that what was at `key` has after these renames.
fn now_called(moves: &[Move], key: &Key) -> Key {
    let mut name = key.clone();
    let mut moves = moves.iter().peekable();
    while let Some(one) = moves.next() {
        let Some(next) = name.rebase(&one.from, &one.to) else { continue };
        name = next;
        // What came here by that is another thing.
        moves.next_if(|other| one.is_exchanged_with(other));
    }
    name
}

/// The name that the object with this id, or a directory, had before these renames.
fn then_called(moves: &[Move], key: &Key, id: Option<ObjectId>) -> Key {
    let mut name = key.clone();
    let mut moves = moves.iter().rev().peekable();
    while let Some(one) = moves.next() {
        let Some(before) = name.rebase(&one.to, &one.from).filter(|_| one.is_dir || one.id == id) else { continue };
        name = before;
        moves.next_if(|other| one.is_exchanged_with(other));
    }
    name
}

impl Store {
    /// As [`Store::past`], under the name that it had at that moment, and with the name that it has now.
    ///
    /// # Errors
    /// When the store or its events can't be read.
    pub fn past_by_name(&self, renames: &mut Renames, key: &Key, then: Timestamp) -> Result<Option<(Key, Past)>> {
        let moves = renames.read(self, then)?;
        let now = now_called(moves, key);
        for place in [&now, key].into_iter().take(if now == *key { 1 } else { 2 }) {
            let Some(past) = self.past(place, then)? else { continue };
            // A history may have come here by a rename, and be what another name had then.
            let came = moves.iter().any(|one| place.is_within(&one.to));
            let id = match past {
                Past::Object(generation, ..) if came => Some(self.get_generation(place, generation)?.stat.id),
                _ => None,
            };
            if !came && place == key || then_called(moves, place, id) == *key {
                return Ok(Some((place.clone(), past)));
            }
        }
        Ok(None)
    }

    /// What was in a directory at a moment, by name: also what has another one since.
    ///
    /// # Errors
    /// As [`Store::past_by_name`].
    pub fn past_members(&self, renames: &mut Renames, dir: &Key, then: Timestamp) -> Result<Vec<(OsString, FileKind)>> {
        let moves = renames.read(self, then)?;
        let depth = dir.components().count();
        let mut names: BTreeSet<OsString> = BTreeSet::new();
        for (at, one) in moves.iter().enumerate() {
            let from = then_called(&moves[..at], &one.from, None);
            if from != *dir && from.is_within(dir) {
                names.extend(from.components().nth(depth).map(OsString::from));
            }
        }
        for place in [dir, &now_called(moves, dir)] {
            match self.backend.list(place) {
                Ok(entries) => names.extend(entries.into_iter().map(|entry| entry.name)),
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error.into()),
            }
            names.extend(self.backend.history_members(place)?);
        }
        let mut members = Vec::new();
        for name in names {
            let Ok(key) = dir.child(&name) else { continue };
            if let Some((_, past)) = self.past_by_name(renames, &key, then)? {
                members.push((name, past.kind()));
            }
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Precondition;

    const ANY: Precondition = Precondition::Any;

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    #[test]
    fn what_changes_places_is_followed_once() {
        let one = |from: &str, to: &str, exchange| {
            let (at, id, is_dir) = (Timestamp::from_nanos(1), Some(ObjectId::random()), false);
            Move { at, from: key(from), to: key(to), id, is_dir, exchange }
        };
        let moves = [one("a", "b", true), one("b", "a", true), one("a", "c", false)];
        let now = |name: &str| now_called(&moves, &key(name));
        assert_eq!((now("a"), now("b"), now("c")), (key("b"), key("c"), key("c")));
        let then = |name: &str, one: &Move| then_called(&moves, &key(name), one.id);
        assert_eq!((then("b", &moves[0]), then("c", &moves[1])), (key("a"), key("c")), "each is known by its id");
    }

    /// Everything that there was at a moment.
    fn tree(store: &Store, renames: &mut Renames, dir: &Key, then: Timestamp) -> Vec<String> {
        let mut all = Vec::new();
        for (name, kind) in store.past_members(renames, dir, then).unwrap() {
            let key = dir.child(&name).unwrap();
            if kind == FileKind::Directory {
                all.extend(tree(store, renames, &key, then));
            } else if let Some((now, Past::Object(generation, ..))) = store.past_by_name(renames, &key, then).unwrap() {
                let opened = store.get_generation(&now, generation).unwrap();
                let bytes = std::io::read_to_string(&*opened.file).unwrap();
                all.push(format!("{key}={}", &bytes[..opened.stat.size as usize]));
            }
        }
        all
    }

    #[test]
    fn names_are_those_of_the_moment() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::init(dir.path().to_str().unwrap()).unwrap();
        let put = |name: &str, text: &str| {
            store.put(&key(name), &mut text.as_bytes(), ANY).unwrap();
        };
        let rename = |from: &str, to: &str| {
            store.rename(&key(from), &key(to), ANY).unwrap();
        };
        let steps: [&dyn Fn(); 9] = [
            &|| {
                put("b", "saved once more below");
                ["a", "b", "d/x", "d/y", "e/z"].iter().for_each(|name| put(name, name));
            },
            &|| rename("a", "c"),
            &|| put("c", "second of a"),
            // Where it came from, another one takes its place, and goes on.
            &|| rename("b", "a"),
            &|| put("a", "second of b"),
            &|| rename("d", "f"),
            &|| rename("f/x", "f/w"),
            &|| rename("a", "e/z"),
            &|| rename("f", "e/f"),
        ];
        let mut moments: Vec<(Timestamp, Vec<String>)> = Vec::new();
        for step in steps {
            step();
            std::thread::sleep(std::time::Duration::from_millis(2));
            let now = store.now();
            moments.push((now, tree(&store, &mut Renames::default(), &Key::root(), now)));
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        assert_eq!(moments[0].1, ["a=a", "b=b", "d/x=d/x", "d/y=d/y", "e/z=e/z"]);
        assert_eq!(moments[8].1, ["c=second of a", "e/f/w=d/x", "e/f/y=d/y", "e/z=second of b"]);
        let mut renames = Renames::default();
        for (number, (then, was)) in moments.iter().enumerate().rev() {
            assert_eq!(tree(&store, &mut renames, &Key::root(), *then), *was, "moment {number}");
        }
    }
}
