//! Reading the log, also while it grows.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Seek, SeekFrom};

use super::segments::Segment;
use super::{Event, EventKind, record};
use crate::store::{Error, Result, Store};
use crate::types::{Key, ObjectId, Timestamp};

/// Reads events, in the order in which they were written: what there is, and at each further [`EventReader::read`]
/// what has been written since.
#[derive(Debug)]
pub struct EventReader {
    store: Store,
    since: Option<Timestamp>,
    kind: Option<EventKind>,
    subject: Option<Subject>,
    /// How far each segment was read.
    read: BTreeMap<Segment, u64>,
}

#[derive(Debug)]
struct Subject {
    key: Key,
    id: Option<ObjectId>,
    /// What every line about it has in it, so that others need not be understood.
    marks: Vec<String>,
}

impl EventReader {
    pub(super) fn new(store: Store, since: Option<Timestamp>) -> Self {
        EventReader { store, since, kind: None, subject: None, read: BTreeMap::new() }
    }

    /// Only what is about `key`, and what is below it; of an object that is there, also under its earlier names.
    pub fn about(mut self, key: &Key) -> Self {
        if !key.is_root() {
            let id = self.store.stat(key).ok().map(|stat| stat.id);
            let marks = [Some(key.escaped()), id.map(|id| id.to_string())].into_iter().flatten().collect();
            self.subject = Some(Subject { key: key.clone(), id, marks });
        }
        self
    }

    /// Only of a kind.
    pub fn of_kind(self, kind: EventKind) -> Self {
        EventReader { kind: Some(kind), ..self }
    }

    /// Gives each event that was not read before to `each`. Lines that are damaged, and events of types that this
    /// version doesn't know, are passed over; one that isn't whole yet is left for the next time.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn read(&mut self, each: &mut dyn FnMut(Event)) -> Result<()> {
        let segments = Segment::all(&self.store)?;
        let first = self.since.map(Segment::first);
        let newest = segments.last().copied();
        for segment in segments {
            let known = self.read.contains_key(&segment);
            if first.is_some_and(|first| segment < first) || (known && newest.is_some_and(|n| segment.is_done(n))) {
                continue;
            }
            self.read_segment(segment, each)?;
        }
        Ok(())
    }

    fn read_segment(&mut self, segment: Segment, each: &mut dyn FnMut(Event)) -> Result<()> {
        let failed = |source| Error::Records { what: "the events", source };
        let file = match self.store.backend.open_record(&segment.path()?) {
            // Pruned since the listing.
            Err(error) if error.is_not_found() => return Ok(()),
            opened => opened?,
        };
        let mut at = self.read.get(&segment).copied().unwrap_or(0);
        if file.metadata().map_err(failed)?.len() > at {
            let mut file = BufReader::with_capacity(64 << 10, file);
            file.seek(SeekFrom::Start(at)).map_err(failed)?;
            let mut line = Vec::new();
            while file.read_until(b'\n', &mut line).map_err(failed)? > 0 && line.ends_with(b"\n") {
                at += line.len() as u64;
                if let Some(event) = self.understand(&line) {
                    each(event);
                }
                line.clear();
            }
        }
        self.read.insert(segment, at);
        Ok(())
    }

    fn understand(&self, line: &[u8]) -> Option<Event> {
        let text = String::from_utf8_lossy(line);
        let wanted = |subject: &Subject| subject.marks.iter().any(|mark| text.contains(mark));
        // What can't be meant need not be understood.
        if !self.subject.as_ref().is_none_or(wanted) || self.kind.is_some_and(|kind| !text.contains(kind.name())) {
            return None;
        }
        let event = record::read(text.trim_end())?;
        let about = self.subject.as_ref().is_none_or(|subject| event.is_about(&subject.key, subject.id));
        let of_kind = self.kind.is_none_or(|kind| kind == event.kind);
        (about && of_kind && self.since.is_none_or(|since| event.time >= since)).then_some(event)
    }
}
