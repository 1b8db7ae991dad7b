//! The segments of the log, and how they are written.
//!
//! A segment is a record `events/YYYYMMDD-NNNN.jsonl` that only ever grows: each UTC day begins a new one, and so does
//! one that has become large. Any number of processes append to it, each event by one append, so none of them needs to
//! know of the others; they need not even agree on when a segment is full.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Event, record};
use crate::backend;
use crate::store::{Error, Result, Store};
use crate::types::{Key, Timestamp};

const DAY: i64 = 24 * 3600;

/// Where a record can't be appended to, each event writes its segment anew.
const LARGE_WITHOUT_APPEND: u64 = 64 << 10;

/// No segment is worth less.
const SMALLEST: u64 = 1 << 10;

/// How many causes are told apart.
const CAUSES: usize = 16;

/// A segment, by the day (since 1970) and its number in that day. They sort by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    day: i64,
    number: u32,
}

impl Segment {
    /// The first of the day of `time`.
    pub fn first(time: Timestamp) -> Self {
        Segment { day: time.seconds().div_euclid(DAY), number: 0 }
    }

    /// All segments, oldest first.
    pub fn all(store: &Store) -> Result<Vec<Self>> {
        let records = store.backend.list_records(&dir()?)?;
        let mut segments: Vec<_> = records.iter().filter_map(|path| Self::parse(path.name()?)).collect();
        segments.sort_unstable();
        Ok(segments)
    }

    fn parse(name: &OsStr) -> Option<Self> {
        let (date, number) = name.to_str()?.strip_suffix(".jsonl")?.split_once('-')?;
        let day: Timestamp = format!("{date}T000000.000000000Z").parse().ok()?;
        let segment = Segment { day: day.seconds().div_euclid(DAY), number: number.parse().ok()? };
        // One segment has one name.
        (segment.name() == name.to_str()?).then_some(segment)
    }

    fn name(self) -> String {
        let date = Timestamp::from_parts(self.day.saturating_mul(DAY), 0).to_string();
        format!("{}-{:04}.jsonl", date.split('T').next().unwrap_or_default(), self.number)
    }

    /// Its record.
    pub fn path(self) -> Result<Key> {
        Ok(dir()?.child(OsStr::new(&self.name()))?)
    }

    /// Whether nothing is written to it any more, when `newest` is.
    pub fn is_done(self, newest: Segment) -> bool {
        // A clock may be wrong by some hours, or be set back.
        self.day + 1 < newest.day
    }

    /// When the last event may have been written to it.
    fn end(self) -> Timestamp {
        Timestamp::from_parts((self.day + 1).saturating_mul(DAY), 0)
    }
}

fn dir() -> Result<Key> {
    Ok(Key::parse("events")?)
}

/// Writes to the newest segment.
#[derive(Debug, Default)]
pub struct Writer {
    current: Mutex<Option<Arc<Current>>>,
}

#[derive(Debug)]
struct Current {
    segment: Segment,
    path: Key,
    /// It may end in the middle of a line.
    torn: AtomicBool,
}

impl Writer {
    /// Writes an event, by one append.
    pub fn write(&self, store: &Store, event: &Event) -> Result<()> {
        let mut line = Vec::with_capacity(256);
        // So that a newline can go before it without another copy.
        line.push(b'\n');
        record::write(event, &mut line).map_err(|error| Error::Records { what: "an event", source: error.into() })?;
        if line.len() > record::MOST {
            return Err(Error::LongEvent { most: record::MOST });
        }
        let large = large(store);
        let today = Segment::first(event.time);
        let known = self.current.lock().clone().filter(|current| current.segment.day == today.day);
        let current = match known {
            Some(current) => current,
            None => {
                let current = Arc::new(choose(store, today, large)?);
                *self.current.lock() = Some(current.clone());
                current
            }
        };
        let from = usize::from(!current.torn.swap(false, Ordering::Relaxed));
        match store.backend.append_record(&current.path, &line[from..]) {
            Ok(size) => {
                if size >= large {
                    self.leave(&current);
                }
                Ok(())
            }
            Err(error) => {
                // On a full disk a part of it may be there.
                current.torn.store(true, Ordering::Relaxed);
                Err(error.into())
            }
        }
    }

    /// The next event begins another segment, or goes to one that another process has begun.
    fn leave(&self, full: &Arc<Current>) {
        self.current.lock().take_if(|current| Arc::ptr_eq(current, full));
    }
}

fn large(store: &Store) -> u64 {
    let wanted = store.events_policy().segment_size.max(SMALLEST);
    if store.backend.capabilities().appends { wanted } else { wanted.min(LARGE_WITHOUT_APPEND) }
}

/// The segment of a day that is to be written to.
fn choose(store: &Store, today: Segment, large: u64) -> Result<Current> {
    let segments = Segment::all(store)?;
    let Some(last) = segments.into_iter().rfind(|segment| segment.day == today.day) else {
        return Ok(Current { segment: today, path: today.path()?, torn: AtomicBool::new(false) });
    };
    let failed = |source| Error::Records { what: "the newest events", source };
    let path = last.path()?;
    let (size, torn) = match store.backend.open_record(&path) {
        Err(error) if error.is_not_found() => (0, false),
        opened => {
            let file = opened?;
            let size = file.metadata().map_err(failed)?.len();
            let mut end = [b'\n'];
            if size > 0 {
                file.read_exact_at(&mut end, size - 1).map_err(failed)?;
            }
            (size, end != [b'\n'])
        }
    };
    if size < large {
        return Ok(Current { segment: last, path, torn: AtomicBool::new(torn) });
    }
    let segment = Segment { number: last.number.saturating_add(1), ..last };
    Ok(Current { segment, path: segment.path()?, torn: AtomicBool::new(false) })
}

/// What was removed from the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Segments.
    pub segments: usize,
    /// Bytes in them.
    pub bytes: u64,
}

/// Removes the segments that end before `before`.
pub fn prune(store: &Store, before: Timestamp) -> Result<Pruned> {
    let mut pruned = Pruned::default();
    for segment in Segment::all(store)?.into_iter().take_while(|segment| segment.end() <= before) {
        let path = segment.path()?;
        let size = match store.backend.open_record(&path) {
            Err(error) if error.is_not_found() => continue,
            opened => opened?.metadata().map_or(0, |meta| meta.len()),
        };
        store.backend.remove_record(&path)?;
        pruned.segments += 1;
        pruned.bytes += size;
    }
    Ok(pruned)
}

/// The events that could not be written.
#[derive(Debug, Default)]
pub struct Missing {
    count: AtomicU64,
    causes: Mutex<HashSet<String>>,
}

impl Missing {
    /// Counts one more, and says why, if that is new.
    pub fn add(&self, error: &Error) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let cause = match error {
            Error::Backend(backend::Error::Io { source, .. }) => source.to_string(),
            other => other.to_string(),
        };
        let mut causes = self.causes.lock();
        if causes.len() < CAUSES && causes.insert(cause) {
            log::warn!("an event could not be written down, and others may follow: {error}");
        }
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::EventKind;
    use crate::types::Age;

    /// A store in a directory, with this policy.
    fn store(policy: &str) -> (Store, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::init(dir.path().to_str().unwrap()).unwrap();
        fs::write(dir.path().join(".sepia/config.toml"), format!("[events]\n{policy}\n")).unwrap();
        (store, dir)
    }

    fn event(number: u64) -> Event {
        Event::new(EventKind::Activity, &Key::parse("Note/n").unwrap()).with("number", number)
    }

    fn numbers(store: &Store) -> Vec<u64> {
        let mut numbers = Vec::new();
        store.events(None).read(&mut |event| numbers.push(event.meta["number"].as_u64().unwrap())).unwrap();
        numbers
    }

    fn segment_files(dir: &tempfile::TempDir) -> Vec<std::path::PathBuf> {
        let entries = fs::read_dir(dir.path().join(".sepia/events")).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    #[test]
    fn names_say_the_day_and_sort() {
        let time: Timestamp = "20261123T235959.999999999Z".parse().unwrap();
        let segment = Segment::first(time);
        assert_eq!(segment.name(), "20261123-0000.jsonl");
        assert_eq!(Segment::parse(OsStr::new("20261123-0012.jsonl")), Some(Segment { number: 12, ..segment }));
        assert_eq!(segment.end().to_string(), "20261124T000000.000000000Z");
        for wrong in ["20261123.jsonl", "20261123-12.jsonl", "20261323-0000.jsonl", "20261123-0000.jsonl.gz", "x"] {
            assert_eq!(Segment::parse(OsStr::new(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn what_was_cut_short_costs_one_line() {
        let (store, dir) = store("");
        (0..3).for_each(|number| store.record_event(&event(number)));
        let file = segment_files(&dir).pop().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let mut reader = store.events(None);
        let mut seen = 0;
        fs::write(&file, &text[..text.len() - 5]).unwrap();
        reader.read(&mut |_| seen += 1).unwrap();
        assert_eq!(seen, 2, "what is not whole is left for later");
        fs::write(&file, &text).unwrap();
        reader.read(&mut |_| seen += 1).unwrap();
        assert_eq!(seen, 3);
        fs::write(&file, &text[..text.len() - 5]).unwrap();
        // A process that finds it so begins a line of its own; one that wrote before can't know.
        Store::open(dir.path().to_str().unwrap()).unwrap().record_event(&event(3));
        assert_eq!(numbers(&store), [0, 1, 3]);
        fs::write(&file, &text[..text.len() - 5]).unwrap();
        store.record_event(&event(4));
        assert_eq!(numbers(&store), [0, 1, 4]);
        assert_eq!(store.events_missing(), 0);
    }

    #[test]
    fn several_writers_lose_nothing_though_segments_change() {
        const EACH: u64 = 200;
        let (store, dir) = store("segment_size = 4096");
        let url = dir.path().to_str().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                scope.spawn(move || {
                    let store = Store::open(url).unwrap();
                    (0..EACH).for_each(|number| store.record_event(&event(writer * EACH + number)));
                });
            }
        });
        let mut found = numbers(&store);
        found.sort_unstable();
        assert_eq!(found, (0..4 * EACH).collect::<Vec<_>>());
        let files = segment_files(&dir);
        assert!(files.len() > 10, "{files:?}");
        for file in files {
            // Each writer can put one event more into a segment than fits.
            assert!(file.metadata().unwrap().len() < 4096 + 5 * 256, "{file:?}");
        }
    }

    #[test]
    fn the_memory_store_has_events_too() {
        let store = Store::open("memory:").unwrap();
        (0..2000).for_each(|number| store.record_event(&event(number)));
        assert_eq!(numbers(&store), (0..2000).collect::<Vec<_>>());
        assert!(Segment::all(&store).unwrap().len() > 1);
    }

    #[test]
    fn a_day_begins_a_segment_and_the_old_ones_are_pruned() {
        let (store, dir) = store("keep = \"2d\"");
        let now: Timestamp = "20261123T100000.000000000Z".parse().unwrap();
        for days in [4, 3, 2, 1, 0] {
            let at = Event { time: Age::days(days).before(now), ..event(days.into()) };
            store.record_event(&at);
        }
        assert_eq!(segment_files(&dir).len(), 5);
        // The newest event in a segment may be from the end of its day.
        let pruned = store.prune_events(now).unwrap();
        assert_eq!((pruned.segments, numbers(&store)), (2, vec![2, 1, 0]));
        assert!(pruned.bytes > 100);
        assert_eq!(store.prune_events(now).unwrap(), Pruned::default());
        // Who still has a removed segment open doesn't write to it.
        assert_eq!(store.prune_events(Timestamp::from_nanos(i64::MAX)).unwrap().segments, 3);
        store.record_event(&Event { time: now, ..event(7) });
        assert_eq!(numbers(&store), [7]);
    }

    #[test]
    fn what_cannot_be_written_fails_nothing_and_is_counted() {
        let (store, dir) = store("");
        fs::write(dir.path().join(".sepia/events"), "in the way").unwrap();
        let key = Key::parse("n").unwrap();
        store.put(&key, &mut &b"bytes"[..], crate::types::Precondition::Any).unwrap();
        store.record_event(&event(0));
        assert_eq!(store.events_missing(), 2);
        let error = store.log_activity(&key, "seen", serde_json::Map::new(), crate::store::Actor::current());
        assert!(error.is_err(), "who asks for it by name is told");
        fs::remove_file(dir.path().join(".sepia/events")).unwrap();
        let long = "x".repeat(record::MOST);
        let error = store.log_activity(&key, &long, serde_json::Map::new(), crate::store::Actor::current());
        assert!(matches!(error, Err(Error::LongEvent { .. })));
        assert!(!dir.path().join(".sepia/events").exists());
    }

    #[test]
    fn the_policy_can_switch_them_off() {
        let (store, dir) = store("enabled = false");
        store.record_event(&event(0));
        let error = store.log_activity(&Key::root(), "seen", serde_json::Map::new(), crate::store::Actor::current());
        assert!(matches!(error, Err(Error::NoEvents)));
        assert!(!dir.path().join(".sepia/events").exists());
    }
}
