//! What must be true of a store after a crash and a recovery, given the accounts of those who wrote to it.
//!
//! For every object: it is in the last acknowledged state or in one that was asked for later; its history holds every
//! acknowledged generation, whole, under numbers that only grow and that are never given twice.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use sepia::backend::{Kept, Opened};
use sepia::store::{Outcome, Reason, Recovered, Resolution};
use sepia::{Generation, Key, Store};

use super::load::{Account, Ack, State, Writer};
use super::record::{describe, read_lines, read_object, read_pages};

/// What ended the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The daemon died: what close acknowledged must be there.
    Kill,
    /// The power went: what fsync acknowledged must be there.
    Power,
}

impl Crash {
    fn level(self) -> Ack {
        match self {
            Crash::Kill => Ack::Close,
            Crash::Power => Ack::Fsync,
        }
    }
}

/// How often recovery met what: a run in which it met nothing has shown nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Met {
    pub finished: u64,
    pub set_aside: u64,
    pub saved_already: u64,
    pub empty: u64,
    pub torn: u64,
    pub generations: u64,
}

impl Met {
    pub fn count(&mut self, recovered: &[Recovered]) {
        for one in recovered {
            match &one.outcome {
                Outcome::AlreadySaved => self.saved_already += 1,
                Outcome::Finished(_) => self.finished += 1,
                Outcome::SetAside(_) => self.set_aside += 1,
                Outcome::Empty | Outcome::Copied => self.empty += 1,
                Outcome::Torn { .. } => self.torn += 1,
                Outcome::Waits(why) => panic!("{}: {why}", one.key),
            }
        }
    }
}

impl Met {
    /// From what `sepia recover --json` says.
    pub fn count_json(&mut self, recovered: &[serde_json::Value]) {
        for one in recovered {
            match one["outcome"].as_str() {
                Some("already-saved") => self.saved_already += 1,
                Some("finished") => self.finished += 1,
                Some("set-aside") => self.set_aside += 1,
                Some("empty") => self.empty += 1,
                Some("torn") => self.torn += 1,
                _ => panic!("no outcome: {one}"),
            }
        }
    }
}

/// The generations that were seen so far: they must stay what they were.
#[derive(Default)]
pub struct Seen(HashMap<Key, BTreeMap<u64, u64>>);

/// Everything about one writer's directory. Afterwards the accounts start from what was found.
pub fn check(writer: &mut Writer, store: &Store, crash: Crash, seen: &mut Seen, met: &mut Met) {
    let dir = writer.dir();
    let number = writer.number;
    for (name, account) in &mut writer.files {
        let key = Key::parse(format!("{dir}/{name}")).unwrap();
        let found = check_file(&key, number, account, store, crash);
        let new = read_history(store, &key, crash, seen, met, |bytes| Ok(read_object(bytes)?.seq));
        for (state, ack) in &account.events {
            if let (State::Record(seq), true) = (state, *ack >= crash.level()) {
                assert!(new.contains(seq), "{key}: record {seq}, acknowledged by {ack:?}, is in no generation");
            }
        }
        account.events = vec![(found, Ack::Fsync)];
    }
    check_temporaries(writer, store);
    check_log(writer, store, crash, seen, met);
    check_base(writer, store, crash, seen, met);
}

fn bytes_of(opened: &Opened) -> Vec<u8> {
    let mut bytes = Vec::new();
    let size = opened.stat.size;
    let mut file = &*opened.file;
    std::io::Seek::rewind(&mut file).unwrap();
    file.take(size).read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, size, "a generation is shorter than its record says");
    bytes
}

/// The current bytes; `None` when there is no object, or a name that was only taken.
fn current(store: &Store, key: &Key) -> Option<Vec<u8>> {
    match store.get(key) {
        Ok(opened) if opened.stat.generation.is_none() => {
            assert_eq!(opened.stat.size, 0, "{key}: has bytes but no generation");
            None
        }
        Ok(opened) => Some(bytes_of(&opened)),
        Err(sepia::Error::Backend(error)) if error.is_not_found() => None,
        Err(error) => panic!("{key}: {error}"),
    }
}

fn check_file(key: &Key, number: u64, account: &Account, store: &Store, crash: Crash) -> State {
    let safe = account.events.iter().rposition(|(_, ack)| *ack >= crash.level()).unwrap();
    let possible = &account.events[safe..];
    let bytes = current(store, key);
    let found = match &bytes {
        None => State::Absent,
        Some(bytes) => {
            let tag = read_object(bytes).unwrap_or_else(|e| panic!("{key}: torn: {e}; possible: {possible:?}"));
            assert_eq!(tag.writer, number, "{key}: another writer's bytes");
            State::Record(tag.seq)
        }
    };
    assert!(
        possible.iter().any(|(state, _)| *state == found),
        "{key}: found {found:?}, possible: {possible:?}, history: {:#?}",
        store.history(key)
    );
    found
}

fn check_temporaries(writer: &Writer, store: &Store) {
    let Ok(entries) = store.list(&Key::parse(writer.dir()).unwrap()) else { return };
    for entry in entries.iter().filter(|entry| entry.name.as_encoded_bytes().starts_with(b".f")) {
        let key = Key::parse(writer.dir()).unwrap().child(&entry.name).unwrap();
        if let Some(bytes) = current(store, &key) {
            read_object(&bytes).unwrap_or_else(|e| panic!("{key}: torn: {e}"));
        }
    }
}

/// Reads the history, each generation of which `read` finds whole and gives a number that grows. Returns all those
/// numbers.
fn read_history(
    store: &Store,
    key: &Key,
    crash: Crash,
    seen: &mut Seen,
    met: &mut Met,
    read: impl Fn(&[u8]) -> Result<u64, String>,
) -> Vec<u64> {
    let history = match store.history(key) {
        Ok(history) => history,
        Err(sepia::Error::Backend(error)) if error.is_not_found() => Vec::new(),
        Err(error) => panic!("{key}: its history: {error}"),
    };
    let known = seen.0.entry(key.clone()).or_default();
    let newest_known = known.keys().next_back().copied().unwrap_or(0);
    let numbers: Vec<u64> = history.iter().map(|info| info.generation.get()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{key}: the numbers don't grow: {numbers:?}");
    for old in known.keys() {
        assert!(numbers.contains(old), "{key}: generation {old} has vanished, there are {numbers:?}");
    }
    let mut lost = false;
    for info in &history {
        let number = info.generation.get();
        if let Kept::Lost(why) = &info.kept {
            // What no fsync acknowledged may be missing after a power cut, if the history says so.
            assert!(crash == Crash::Power && !known.contains_key(&number), "{key}: generation {number} is lost: {why}");
            lost = true;
            continue;
        }
        // What a power cut has torn gives way to the one before, brought back as a new generation.
        let brought_back = std::mem::take(&mut lost);
        if known.contains_key(&number) {
            continue;
        }
        assert!(number > newest_known, "{key}: generation {number} is new, but {newest_known} was there before");
        let seq = read_generation(store, key, info.generation, &read);
        if let Some((before, last)) = known.last_key_value() {
            let grows = *last < seq || (brought_back && *last == seq);
            assert!(grows, "{key}: generation {number} holds turn {seq}, but {before} held {last}: {history:#?}");
        }
        known.insert(number, seq);
        met.generations += 1;
    }
    known.values().copied().collect()
}

fn read_generation(
    store: &Store,
    key: &Key,
    generation: Generation,
    read: impl Fn(&[u8]) -> Result<u64, String>,
) -> u64 {
    let opened = store.get_generation(key, generation).unwrap_or_else(|e| panic!("{key}: {generation}: {e}"));
    read(&bytes_of(&opened)).unwrap_or_else(|e| panic!("{key}: generation {generation} is torn: {e}"))
}

fn check_log(writer: &mut Writer, store: &Store, crash: Crash, seen: &mut Seen, met: &mut Met) {
    let key = Key::parse(format!("{}/{}", writer.dir(), writer.log.name)).unwrap();
    let log = &mut writer.log;
    let bytes = current(store, &key).unwrap_or_default();
    let found = read_lines(&bytes).unwrap_or_else(|e| panic!("{key}: {e}"));
    let found: Vec<u64> = found.into_iter().map(|tag| tag.seq).collect();
    let safe = if crash == Crash::Kill { log.closed } else { log.synced };
    assert!(
        log.lines.starts_with(&found),
        "{key}: the lines aren't those that were written: {found:?}, written {:?}",
        log.lines
    );
    assert!(found.len() >= safe, "{key}: {} lines of {safe} that were acknowledged", found.len());
    let last_lines = read_history(store, &key, crash, seen, met, |generation| {
        if !bytes.starts_with(generation) {
            return Err(format!("is not what the log began with: {}", describe(generation)));
        }
        Ok(read_lines(generation)?.last().ok_or("no line")?.seq)
    });
    if crash == Crash::Kill {
        for last in &log.sessions {
            assert!(last_lines.contains(last), "{key}: the session that ended with line {last} is no generation");
        }
    }
    log.sessions.retain(|last| last_lines.contains(last));
    log.closed = found.len();
    log.synced = found.len();
    log.lines = found;
}

fn check_base(writer: &mut Writer, store: &Store, crash: Crash, seen: &mut Seen, met: &mut Met) {
    let key = Key::parse(format!("{}/base", writer.dir())).unwrap();
    let Some(base) = &mut writer.base else { return };
    let safe = |page: &[(u64, Ack)]| page.iter().rposition(|(_, ack)| *ack >= crash.level());
    let Some(bytes) = current(store, &key) else {
        assert!(base.pages.iter().all(|page| safe(page).is_none()), "{key}: acknowledged, but gone");
        writer.base = None;
        return;
    };
    let found = read_pages(&bytes).unwrap_or_else(|e| panic!("{key}: {e}"));
    assert_eq!(found.len(), base.pages.len(), "{key}: pages");
    let newest = found.iter().map(|tag| tag.seq).max().unwrap();
    for (number, (tag, page)) in found.iter().zip(&mut base.pages).enumerate() {
        let possible = &page[safe(page).unwrap_or(0)..];
        assert!(
            possible.iter().any(|(seq, _)| *seq == tag.seq),
            "{key}: page {number} is of turn {}, possible: {possible:?}",
            tag.seq
        );
        if crash == Crash::Kill {
            let expected = page.iter().rev().map(|(seq, _)| *seq).find(|seq| *seq <= newest);
            assert_eq!(Some(tag.seq), expected, "{key}: page {number} is older than others (turn {newest})");
        }
        *page = vec![(tag.seq, Ack::Fsync)];
    }
    read_history(store, &key, crash, seen, met, |bytes| {
        Ok(read_pages(bytes)?.iter().map(|tag| tag.seq).max().unwrap_or(0))
    });
}

/// What was left open is as it was before, and the bytes that were written into it are set aside, whole. Then all
/// that was set aside is dropped, as a user would who has looked at it.
pub fn check_set_aside(writers: &mut [Writer], store: &Store, crash: Crash, reported: &[Recovered]) {
    let conflicts = store.conflicts().unwrap();
    for one in reported {
        if let Outcome::SetAside(id) = &one.outcome {
            assert!(conflicts.iter().any(|conflict| conflict.id == *id), "{one}: but it is not there");
        }
    }
    for writer in writers {
        for (name, left) in std::mem::take(&mut writer.left_open) {
            let key = Key::parse(format!("{}/{name}", writer.dir())).unwrap();
            let bytes = current(store, &key).unwrap_or_else(|| panic!("{key} is gone"));
            let tag = read_object(&bytes).unwrap_or_else(|e| panic!("{key}: torn: {e}"));
            assert_eq!(State::Record(tag.seq), left.state, "{key}");
            if crash == Crash::Kill && !left.written.is_empty() {
                let kept = conflicts.iter().find(|conflict| conflict.key == key);
                let kept = kept.unwrap_or_else(|| panic!("{key}: what was written and not closed was not set aside"));
                let mut bytes = Vec::new();
                store.open_conflict(&kept.id).unwrap().read_to_end(&mut bytes).unwrap();
                assert!(bytes == left.written, "{key}: set aside was {}", describe(&bytes));
            }
        }
        writer.held.clear();
    }
    for conflict in conflicts {
        if crash == Crash::Kill {
            assert_eq!(conflict.reason, Reason::Interrupted, "{}: nobody else wrote to it", conflict.key);
        }
        let size = store.open_conflict(&conflict.id).unwrap().metadata().unwrap().len();
        assert_eq!(size, conflict.size, "{}", conflict.key);
        store.resolve_conflict(&conflict.id, &Resolution::Keep).unwrap();
    }
    assert!(store.conflicts().unwrap().is_empty());
}

/// All that was ever seen, read once more.
pub fn check_all_again(store: &Store, seen: &Seen) {
    for (key, known) in &seen.0 {
        for (number, seq) in known {
            let read = |bytes: &[u8]| match (read_object(bytes), read_lines(bytes), read_pages(bytes)) {
                (Ok(tag), ..) => Ok(tag.seq),
                (_, Ok(lines), _) if !lines.is_empty() => Ok(lines[lines.len() - 1].seq),
                (.., Ok(pages)) if !pages.is_empty() => Ok(pages.iter().map(|tag| tag.seq).max().unwrap()),
                (object, lines, pages) => Err(format!("{object:?} {lines:?} {pages:?}")),
            };
            let found = read_generation(store, key, Generation::new(*number).unwrap(), read);
            assert_eq!(found, *seq, "{key}: generation {number} is another one than it was");
        }
    }
}
