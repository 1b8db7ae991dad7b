//! What has happened in a store: an append-only log of JSON lines, below `events/`.
//!
//! Every change that goes through a [`Store`] is written down when it has happened and before its caller learns of it,
//! so a process that is killed loses no event of what it has acknowledged. Events are for people and for programs that
//! follow them; nothing that Sepia decides rests on them. So an event that can't be written fails nothing: the cause is
//! logged once, and the events that are missing are counted.
//!
//! `record` has the form of a line, `segments` writes the log, `reader` reads them, also while they grow, and
//! `people` finds out who it was.

mod people;
mod policy;
mod reader;
mod record;
mod segments;

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use people::process_of;
pub use people::{Actor, Who};
pub use policy::Policy;
pub use reader::EventReader;
pub use segments::Pruned;

use super::{Error, Result, Store};
use crate::backend::{FileKind, Stat};
use crate::types::{Generation, Key, ObjectId, Timestamp};

/// How long a policy is used without another look at it.
const POLICY_FOR: Duration = Duration::from_secs(1);

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// An object got its first generation, or was made and closed without any; a directory or a link was made.
    Created,
    /// An object got another generation.
    Updated,
    /// A name was removed. The generation is the last one that was there.
    Deleted,
    /// A name was changed; where that replaced an object, it is a save of that one.
    Renamed,
    /// An older generation's bytes became current again.
    Restored,
    /// Bytes were set aside, for they could not be saved.
    Conflict,
    /// What a process left behind that died was finished or set aside.
    Recovered,
    /// What another program had changed in the store became a generation.
    Adopted,
    /// A generation was dropped by the collector.
    Collected,
    /// A snapshot was made or dropped.
    Snapshot,
    /// Something that a program has told of the object.
    Activity,
    /// An object was opened for reading through a mount; only where the policy asks for it.
    Read,
}

impl EventKind {
    /// Its name in the log.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::Created => "created",
            EventKind::Updated => "updated",
            EventKind::Deleted => "deleted",
            EventKind::Renamed => "renamed",
            EventKind::Restored => "restored",
            EventKind::Conflict => "conflict",
            EventKind::Recovered => "recovered",
            EventKind::Adopted => "adopted",
            EventKind::Collected => "collected",
            EventKind::Snapshot => "snapshot",
            EventKind::Activity => "activity",
            EventKind::Read => "read",
        }
    }
}

/// Something that has happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When it was written down.
    pub time: Timestamp,
    /// What it was.
    pub kind: EventKind,
    /// What it happened to; of a rename the old name, of what concerns the whole store the root.
    pub key: Key,
    /// The new name, of a rename.
    pub to: Option<Key>,
    /// The name that was there before, of a further name (a hard link).
    pub from: Option<Key>,
    /// The kind of thing, if it is no regular file.
    pub file_kind: Option<FileKind>,
    /// The generation that the event made, or that it happened to.
    pub generation: Option<Generation>,
    /// Bytes of that generation.
    pub size: Option<u64>,
    /// The object.
    pub id: Option<ObjectId>,
    /// Who did it, as far as that is known.
    pub who: Who,
    /// What else there is to say.
    pub meta: Map<String, Value>,
}

impl Event {
    /// Something that has happened just now.
    pub fn new(kind: EventKind, key: &Key) -> Self {
        Event {
            time: Timestamp::now(),
            kind,
            key: key.clone(),
            to: None,
            from: None,
            file_kind: None,
            generation: None,
            size: None,
            id: None,
            who: Who::default(),
            meta: Map::new(),
        }
    }

    /// With the state that the event made, or that it happened to.
    pub fn of(mut self, stat: &Stat) -> Self {
        self.id = Some(stat.id);
        self.generation = stat.generation;
        if stat.kind == FileKind::File {
            self.size = Some(stat.size);
        } else {
            self.file_kind = Some(stat.kind);
        }
        self
    }

    /// With something else there is to say.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.meta.insert(name.to_owned(), value.into());
        self
    }

    /// Whether it is about `key` or something below it, under whatever name, or about the object with this id.
    pub fn is_about(&self, key: &Key, id: Option<ObjectId>) -> bool {
        let names = [Some(&self.key), self.to.as_ref(), self.from.as_ref()];
        names.into_iter().flatten().any(|name| name.is_within(key)) || (id.is_some() && self.id == id)
    }

    /// The line of this event in the format of the original Sepia library's event files.
    pub fn original(&self) -> String {
        record::original(self)
    }
}

/// The log of one store, shared by the clones of a [`Store`].
#[derive(Debug, Default)]
pub(super) struct Log {
    writer: segments::Writer,
    people: people::People,
    policy: Mutex<Option<(Policy, Instant)>>,
    missing: segments::Missing,
}

impl Store {
    /// Writes down what has happened. If that is impossible, the cause is logged once, and the event is counted
    /// ([`Store::events_missing`]).
    pub fn record_event(&self, event: &Event) {
        self.note_adopted();
        if self.events_policy().enabled {
            self.write_or_count(event);
        }
    }

    /// Records an activity: what a program wants to be remembered of an object. `meta` may say more about it.
    ///
    /// # Errors
    /// [`crate::backend::Error::NotFound`]; [`Error::NoEvents`] where the policy wants none; what the medium says.
    pub fn log_activity(&self, key: &Key, activity: &str, meta: Map<String, Value>, actor: Actor) -> Result<Event> {
        let stat = self.get_stat(key)?;
        if !self.events_policy().enabled {
            return Err(Error::NoEvents);
        }
        let mut event = Event::new(EventKind::Activity, key).of(&stat).with("action", activity);
        // As in the original library, where `action` could be given among the rest.
        event.meta.extend(meta);
        event.who = self.who(actor);
        self.events.writer.write(self, &event)?;
        Ok(event)
    }

    /// Reads the events since `since`, or all, and goes on with what is written later.
    pub fn events(&self, since: Option<Timestamp>) -> EventReader {
        EventReader::new(self.clone(), since)
    }

    /// What is known of an object, oldest first: also under earlier names, if it is there still. [`Event::original`]
    /// gives the lines of the original library.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn events_of(&self, key: &Key) -> Result<Vec<Event>> {
        let mut found = Vec::new();
        self.events(None).about(key).read(&mut |event| found.push(event))?;
        Ok(found)
    }

    /// Removes the segments of which all is older than the policy keeps.
    ///
    /// # Errors
    /// When the policy or the log can't be read, or a segment can't be removed.
    pub fn prune_events(&self, now: Timestamp) -> Result<Pruned> {
        segments::prune(self, self.config()?.events.keep.before(now))
    }

    /// How many events this process could not write down.
    pub fn events_missing(&self) -> u64 {
        self.events.missing.count()
    }

    /// Who a request comes from: the process, and its program.
    pub fn who(&self, actor: Actor) -> Who {
        self.events.people.who(actor)
    }

    /// Whether reads are to be written down.
    pub fn audits_reads(&self) -> bool {
        let policy = self.events_policy();
        policy.enabled && policy.audit_reads
    }

    /// Writes down what an actor did, if events are wanted: `fill` adds to what is known anyway.
    pub(super) fn note(&self, actor: Actor, kind: EventKind, key: &Key, fill: impl FnOnce(Event) -> Event) {
        self.note_adopted();
        if self.events_policy().enabled {
            let mut event = fill(Event::new(kind, key));
            event.who = self.who(actor);
            self.write_or_count(&event);
        }
    }

    /// Writes down which changes from outside the backend has come across.
    pub(super) fn note_adopted(&self) {
        for (key, stat) in self.backend.take_adopted() {
            self.checksums.add(&key);
            self.adopted(&key);
            if self.events_policy().enabled {
                self.write_or_count(&Event::new(EventKind::Adopted, &key).of(&stat));
            }
        }
    }

    fn write_or_count(&self, event: &Event) {
        if let Err(error) = self.events.writer.write(self, event) {
            self.events.missing.add(&error);
        }
    }

    fn events_policy(&self) -> Policy {
        let known = *self.events.policy.lock();
        if let Some((policy, at)) = known
            && at.elapsed() < POLICY_FOR
        {
            return policy;
        }
        let policy = match self.config() {
            Ok(config) => config.events,
            // Who misspells a rule is told by the commands; nobody's work is held up by it.
            Err(_) => known.map(|(policy, _)| policy).unwrap_or_default(),
        };
        *self.events.policy.lock() = Some((policy, Instant::now()));
        policy
    }

    fn get_stat(&self, key: &Key) -> Result<Stat> {
        let stat = self.stat(key)?;
        // What was changed from outside becomes a generation first.
        if stat.kind == FileKind::File && !stat.recorded { Ok(self.get(key)?.stat) } else { Ok(stat) }
    }
}
