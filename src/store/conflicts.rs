//! Bytes that lost: saves that came too late or that a rule refused, and sessions that a crash interrupted.
//!
//! Each is two records below `conflicts/`: the bytes, whole, and what is known of them. They go by
//! [`Store::resolve_conflict`], and by the collector when they are older than the policy's `conflicts_keep`.

use super::locks::Lock;
use std::fmt;
use std::fs::File;
use std::io::Read;

use serde::{Deserialize, Serialize};

use super::{Access, Actor, Breach, Error, Event, EventKind, Result, Session, Store, Who};
use crate::backend::{self, FileKind, Kept, Staged, Stat};
use crate::types::{Generation, Key, ObjectId, Precondition, Timestamp};

/// The name of a conflict: when it arose, and something random.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConflictId(String);

impl fmt::Display for ConflictId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why bytes were set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// Somebody else's generation became current first.
    Stale,
    /// The process died before the bytes were saved; they may not be all that was to be written.
    Interrupted,
    /// The save failed for another reason than a conflict, such as a full disk.
    Failed,
    /// It had been saved, but not synced, when the power failed: parts are missing, or zeros.
    Torn,
    /// A rule of the class had something against it.
    Rejected,
    /// What was known of it can't be read any more; the bytes are there, and the key is given as the root.
    Damaged,
}

impl Reason {
    /// Its name in records.
    fn name(self) -> &'static str {
        match self {
            Reason::Stale => "stale",
            Reason::Interrupted => "interrupted",
            Reason::Failed => "failed",
            Reason::Torn => "torn",
            Reason::Rejected => "rejected",
            Reason::Damaged => "damaged",
        }
    }
}

/// Bytes that were set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Its name.
    pub id: ConflictId,
    /// The object that they were to become.
    pub key: Key,
    /// Why they did not.
    pub reason: Reason,
    /// What a rule had against them, if that was why.
    pub breach: Option<Breach>,
    /// The generation that they were based on; `None` for a new object.
    pub base: Option<Generation>,
    /// If that is kept nowhere: so many bytes at the beginning, as far as they were not written, are not its.
    pub base_lost: Option<u64>,
    /// The generation that was current when they were set aside.
    pub current: Option<Generation>,
    /// When that was.
    pub time: Timestamp,
    /// Bytes.
    pub size: u64,
    /// Who could do what with what was at the key when they were set aside, if an object was.
    pub access: Option<Access>,
}

/// How to end a conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// The bytes that lost become the next generation.
    Take,
    /// The current generation stays; the bytes that lost are dropped.
    Keep,
    /// The bytes that lost become a new object with this key.
    As(Key),
}

/// Why bytes are set aside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Aside<'a> {
    pub(super) reason: Reason,
    /// What a rule had against them.
    pub(super) breach: Option<&'a Breach>,
    pub(super) base: Option<Generation>,
    pub(super) base_lost: Option<u64>,
    pub(super) actor: Option<Actor>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    key: String,
    reason: Reason,
    #[serde(flatten)]
    breach: Option<Breach>,
    base: Option<Generation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base_lost: Option<u64>,
    current: Option<Generation>,
    time: i64,
    #[serde(flatten)]
    access: Option<Access>,
}

impl Store {
    /// What was set aside, oldest first.
    ///
    /// # Errors
    /// When the records can't be read.
    pub fn conflicts(&self) -> Result<Vec<Conflict>> {
        let mut conflicts = Vec::new();
        for id in self.conflict_ids()? {
            match self.read_conflict(&id) {
                Ok(conflict) => conflicts.push(conflict),
                // Resolved by somebody else while we were looking.
                Err(Error::NoConflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        conflicts.sort_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
        Ok(conflicts)
    }

    /// Those that the collector drops: older than the policy's `conflicts_keep`. When a damaged one arose is
    /// not known, so it stays.
    ///
    /// # Errors
    /// As [`Store::conflicts`]; [`Error::Config`].
    pub fn outdated_conflicts(&self) -> Result<Vec<Conflict>> {
        let since = self.config()?.retention.conflicts_keep.before(self.now());
        let mut conflicts = self.conflicts()?;
        conflicts.retain(|conflict| conflict.time < since && conflict.reason != Reason::Damaged);
        Ok(conflicts)
    }

    /// One of them by its name, or by as much of its name as is unique.
    ///
    /// # Errors
    /// [`Error::NoConflict`]; [`Error::AmbiguousConflict`] when several names begin like that.
    pub fn conflict(&self, id: &str) -> Result<Conflict> {
        match self.read_conflict(id) {
            Err(Error::NoConflict(_)) if !id.is_empty() => {}
            other => return other,
        }
        let mut matching = self.conflict_ids()?.into_iter().filter(|known| known.starts_with(id));
        match (matching.next(), matching.next()) {
            (None, _) => Err(Error::NoConflict(id.to_owned())),
            (Some(only), None) => self.read_conflict(&only),
            (Some(_), Some(_)) => Err(Error::AmbiguousConflict(id.to_owned())),
        }
    }

    fn conflict_ids(&self) -> Result<Vec<String>> {
        let records = self.backend.list_records(&dir())?;
        let id = |path: &Key| Some(path.name()?.to_str()?.strip_suffix(".json")?.to_owned());
        Ok(records.iter().filter_map(id).collect())
    }

    fn read_conflict(&self, id: &str) -> Result<Conflict> {
        let missing = || Error::NoConflict(id.to_owned());
        let (record_path, bytes_path) = paths(id).map_err(|_| missing())?;
        let read = |path: &Key| match self.backend.open_record(path) {
            Err(error) if error.is_not_found() => Err(missing()),
            other => Ok(other?),
        };
        let access = |what, source| Error::Records { what, source };
        let mut text = Vec::new();
        read(&record_path)?.read_to_end(&mut text).map_err(|source| access("a conflict's record", source))?;
        let size = read(&bytes_path)?.metadata().map_err(|source| access("a conflict's bytes", source))?.len();
        let id = ConflictId(id.to_owned());
        let record = serde_json::from_slice::<Record>(&text).ok();
        let Some((record, key)) = record.and_then(|record| Key::unescape(&record.key).ok().map(|key| (record, key)))
        else {
            let (key, reason, time) = (Key::root(), Reason::Damaged, Timestamp::from_nanos(0));
            let (base, base_lost, current, access) = (None, None, None, None);
            return Ok(Conflict { id, key, reason, breach: None, base, base_lost, current, time, size, access });
        };
        Ok(Conflict {
            id,
            key,
            reason: record.reason,
            breach: record.breach,
            base: record.base,
            base_lost: record.base_lost,
            current: record.current,
            time: Timestamp::from_nanos(record.time),
            size,
            access: record.access,
        })
    }

    /// The bytes of a conflict.
    ///
    /// # Errors
    /// [`Error::NoConflict`].
    pub fn open_conflict(&self, id: &ConflictId) -> Result<File> {
        match self.backend.open_record(&paths(&id.0)?.1) {
            Err(error) if error.is_not_found() => Err(Error::NoConflict(id.0.clone())),
            other => Ok(other?),
        }
    }

    /// Ends a conflict. Returns the state of the object that was saved, if one was. Where that makes the object, it gets
    /// mode and owner of the one that the bytes were for, as far as they are known; else it is for this user alone.
    ///
    /// # Errors
    /// [`backend::Error::Exists`] when the new name is taken, [`Error::Rejected`] when a rule has something against the
    /// bytes or the name; the conflict then stays. [`Error::NoConflict`] when somebody else has ended it;
    /// [`backend::Error::Locked`] when they take more than 30 seconds for that.
    pub fn resolve_conflict(&self, id: &ConflictId, how: &Resolution) -> Result<Option<Stat>> {
        // Of two who end the same conflict, one must not drop the bytes that the other is saving, and say so.
        let _alone = self.wait_exclusive(Lock::Resolution)?;
        let conflict = self.read_conflict(&id.0)?;
        let saved = match how {
            Resolution::Keep => None,
            Resolution::Take => Some(self.save_conflict(&conflict, &conflict.key, Precondition::Any)?),
            Resolution::As(key) => Some(self.save_conflict(&conflict, key, Precondition::Absent)?),
        };
        // The record last: without it the bytes could no longer be found.
        let (record, bytes) = paths(&id.0)?;
        self.backend.remove_record(&bytes)?;
        self.backend.remove_record(&record)?;
        Ok(saved)
    }

    fn save_conflict(&self, conflict: &Conflict, key: &Key, expect: Precondition) -> Result<Stat> {
        let access = match conflict.access {
            Some(access) => access,
            None => self.former_access(&conflict.key)?.unwrap_or_else(Access::private),
        };
        let bytes = self.open_conflict(&conflict.id)?;
        self.put_kept(key, Session::replace(self, key, expect)?, (&bytes, conflict.size), access)
    }

    /// Who could do what with what was last kept of `key`.
    fn former_access(&self, key: &Key) -> Result<Option<Access>> {
        let kept = self.backend.generations(key)?;
        for info in kept.iter().rev().filter(|info| !matches!(info.kept, Kept::Lost(_))) {
            match self.backend.open_kept(key, info) {
                Ok(opened) => return self.kept_access(key, info.generation, &opened.stat).map(Some),
                // It went meanwhile.
                Err(backend::Error::NoGeneration(..)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Keeps staged bytes that could not be saved.
    pub(super) fn set_aside(
        &self,
        staged: Staged,
        key: &Key,
        why: &Aside<'_>,
    ) -> std::result::Result<ConflictId, (backend::Error, Staged)> {
        let time = self.now();
        let id = format!("{time}-{:08x}", ObjectId::random().get() as u32);
        let found = self.backend.stat(key).ok().filter(|stat| stat.kind == FileKind::File);
        let current = found.as_ref().and_then(|stat| stat.generation);
        let access = found.as_ref().map(|stat| self.access(key, stat));
        let Aside { reason, base, base_lost, actor, .. } = *why;
        let breach = why.breach.cloned();
        let (key_text, time) = (key.escaped(), time.nanos());
        let record = Record { key: key_text, reason, breach, base, base_lost, current, time, access };
        // Key::parse refuses none of these names.
        let (record_path, bytes_path) = match paths(&id) {
            Ok(paths) => paths,
            Err(error) => return Err((error.into(), staged)),
        };
        let text = match serde_json::to_vec(&record) {
            Ok(text) => text,
            Err(error) => return Err((backend::Error::from_io(key, "describe a conflict", error), staged)),
        };
        if let Err(error) = self.backend.put_record(&record_path, &text) {
            return Err((error, staged));
        }
        let size = staged.file().metadata().ok().map(|meta| meta.len());
        self.backend.keep_staged(&bytes_path, staged)?;
        let mut event =
            Event::new(EventKind::Conflict, key).with("conflict", id.as_str()).with("reason", reason.name());
        match &record.breach {
            Some(breach) => {
                log::warn!("{key}: a save was set aside as conflict {id}: {breach}");
                event = event.with("rule", breach.rule.name()).with("message", breach.message.as_str());
            }
            None => log::warn!("{key}: a save was set aside as conflict {id}"),
        }
        let who = actor.map_or_else(Who::default, |actor| self.who(actor));
        self.record_event(&Event { generation: base, size, who, ..event });
        Ok(ConflictId(id))
    }
}

fn dir() -> Key {
    Key::parse("conflicts").unwrap_or_else(|_| Key::root())
}

fn paths(id: &str) -> std::result::Result<(Key, Key), crate::types::KeyError> {
    let child = |name: String| dir().child(std::ffi::OsStr::new(&name));
    Ok((child(format!("{id}.json"))?, child(format!("{id}.bytes"))?))
}
