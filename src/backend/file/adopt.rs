//! Changes from outside: what differs from what Sepia recorded becomes a generation of its own.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};

use lru::LruCache;
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};

use super::entry::{Found, Place, write_record, write_rewritten};
use super::in_place::{Own, Undo, has_begun};
use super::open::open_place;
use super::record::{Record, Unsettled};
use super::repair::is_part;
use super::*;
use crate::backend::{GenerationName, Intent, sum_of};

/// How many objects without a history a process remembers.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(16 << 10).expect("not zero");

/// How many changes are remembered for somebody who never asks.
const UNASKED: usize = 4096;

/// Objects that this process has seen in their first generation. When such a one is replaced from outside by a file
/// without a record, nothing in the store tells that its number was in use.
#[derive(Debug)]
pub struct Firsts(Mutex<LruCache<Key, ()>>);

impl Firsts {
    pub fn new() -> Self {
        Firsts(Mutex::new(LruCache::new(REMEMBERED)))
    }

    pub fn saw(&self, key: &Key, stat: &Stat) {
        if stat.generation == Some(Generation::FIRST) && self.0.lock().get(key).is_none() {
            self.0.lock().put(key.clone(), ());
        }
    }

    fn know(&self, key: &Key) -> bool {
        self.0.lock().contains(key)
    }
}

/// Changes from outside that were recorded, until somebody asks for them.
#[derive(Debug, Default)]
pub struct Adopted {
    /// Whether there are any, which is told without the lock.
    some: AtomicBool,
    changes: Mutex<Vec<(Key, Stat)>>,
}

impl Adopted {
    fn add(&self, key: &Key, stat: &Stat) {
        let mut changes = self.changes.lock();
        if changes.len() < UNASKED {
            changes.push((key.clone(), stat.clone()));
        }
        self.some.store(true, Ordering::Release);
    }

    /// Takes them all.
    pub fn take(&self) -> Vec<(Key, Stat)> {
        if !self.some.load(Ordering::Relaxed) || !self.some.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut *self.changes.lock())
    }
}

impl FileBackend {
    /// Records what is at `key` as a generation, if it isn't the recorded one, and opens it. Once: the other program may
    /// go on, and then this is the state that was recorded.
    pub(super) fn open_adopted(&self, key: &Key) -> Result<Opened> {
        /// Between the two it may be replaced by another file.
        const ATTEMPTS: u32 = 3;
        let _tree = self.locks.share_tree(key)?;
        let _lock = self.lock(key)?;
        let place = self.place(key)?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let found = self.adopt_locked(key, &place, self.find(key, &place)?)?;
            let opened = open_place(key, &place)?;
            if found.stat.incarnation == opened.stat.incarnation {
                return Ok(Opened { stat: Found { stat: opened.stat, ..found }.as_recorded(), ..opened });
            }
            if attempts == ATTEMPTS {
                return Ok(opened);
            }
        }
    }

    /// Records what was found at `key` as a generation, if it isn't the recorded one; to be called under the key's lock.
    /// Returns what is there afterwards.
    pub(super) fn adopt_locked(&self, key: &Key, place: &Place, found: Found) -> Result<Found> {
        if !found.is_changed() {
            return Ok(found);
        }
        if self.undo_half(Own { key, place, found: &found })? {
            return self.find(key, place);
        }
        let stat = &found.stat;
        // The bytes that were recorded, in another file: the store, or this file, was copied with its attributes.
        let same = found.record.filter(|record| record.is_of_bytes(stat));
        if same.is_some() {
            // If it is another object's copy.
            self.close_history(key)?;
        }
        let highest = self.highest(key)?;
        let (generation, committed) = match (&found.record, highest) {
            (Some(record), highest) if same.is_some() && highest.is_none_or(|highest| highest < record.generation) => {
                (record.generation, record.committed)
            }
            (Some(_), Some(highest)) if same.is_some() => (highest.next(), self.now()),
            // It has come from elsewhere, and what was here is gone, too.
            (Some(record), Some(highest)) if highest >= record.generation => (highest.next().next(), self.now()),
            (Some(record), _) => (record.generation.next(), self.now()),
            // Replaced by a file without a record: the one that was current is gone, and its number with it.
            (None, Some(highest)) => (highest.next().next(), self.now()),
            (None, None) if self.firsts.know(key) => (Generation::FIRST.next(), self.now()),
            // Any program can set a time that is yet to come; a commit has been.
            (None, None) => (Generation::FIRST, stat.mtime.min(self.now())),
        };
        if same.is_none() && generation > Generation::FIRST {
            let lost = GenerationName {
                number: generation.get() - 1,
                committed: found.record.map_or(stat.mtime, |record| record.committed),
                superseded: self.now(),
                deleted: false,
            };
            self.keep_as_note(key, &lost, super::notes::CHANGED_OUTSIDE, stat.mtime)?;
            log::warn!("{key}: was changed outside Sepia; that is generation {generation} now");
        }
        let kept_number = found.record.is_some_and(|record| record.generation == generation);
        if !kept_number && found.record.is_some_and(|record| record.inode == stat.incarnation) {
            write_rewritten(key, place, committed)?;
        }
        if let Some(record) = same.filter(|record| record.id != stat.id) {
            self.readdress(key, &record, stat.id)?;
        }
        let record = Record {
            generation,
            id: stat.id,
            committed,
            size: stat.size,
            mtime: stat.mtime,
            inode: stat.incarnation,
            unsettled: Unsettled::nothing(stat.size),
        };
        write_record(key, place, &record)?;
        let found = self.find(key, place)?;
        if !kept_number {
            self.adopted.add(key, &found.stat);
        }
        Ok(found)
    }

    /// Undoes what somebody was doing to the file of this object, under whatever name, and didn't end: one that has died, or
    /// that has taken that over and waits for the lock, or could not undo it. Returns whether there was something.
    fn undo_half(&self, own: Own<'_>) -> Result<bool> {
        let Own { key, place, found } = own;
        // Who may not even read that can't undo anything, either. The journals are long.
        let may_be_half = match &found.record {
            Some(record) => {
                record.inode == found.stat.incarnation
                    && (found.stat.size > record.size || has_begun(key, place, Some(record))?)
            }
            None => has_begun(key, place, None).unwrap_or(false),
        };
        if !may_be_half {
            return Ok(false);
        }
        // Who is at work with an object that has several names holds a lock that is ours now, whatever the name.
        let linked = found.stat.nlink > 1;
        let intents = self.staging.abandoned_intents(key, linked);
        for (intent, path) in intents.iter().filter(|(intent, _)| intent.in_place && replaces(intent, found)) {
            // Just taken over: then it is there once more.
            let Ok(staged) = File::open(path) else { continue };
            if intent.append_from.is_some() {
                if self.undo_half_append(own, intent, &staged)? {
                    return Ok(true);
                }
            } else {
                // A directory above it may have another name now, and its history with it.
                let noted = Own { key: &intent.key, ..own };
                let undo = |own| Ok::<_, Error>(self.undo_copy(own, Some(&staged))? == Undo::Done);
                if undo(noted)? || undo(own)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Undoes what had begun with these bytes, failed and could not be undone then, before they leave the staging area: nobody
    /// could tell the half from a change from outside without them.
    ///
    /// # Errors
    /// When it can't be undone now, either.
    pub(super) fn end_half(&self, staged: &Staged) -> Result<()> {
        let Some(begun) = staged.begun() else { return Ok(()) };
        let key = &begun.key;
        let _tree = self.locks.share_tree(key)?;
        let _lock = self.lock(key)?;
        let place = self.place(key)?;
        let found = self.find(key, &place)?;
        if replaces(&begun, &found) {
            self.adopt_locked(key, &place, found)?;
        }
        staged.give_back();
        Ok(())
    }

    /// If what is behind the recorded end is some of what was to be appended, as `staged`: cuts it off. What another program has
    /// appended is its own, as far as that can be told: a power loss may have torn what was staged, too.
    pub(super) fn undo_half_append(&self, own: Own<'_>, intent: &Intent, staged: &File) -> Result<bool> {
        let Own { key, place, found } = own;
        let Some(record) = found.record.filter(|record| found.stat.size > record.size) else { return Ok(false) };
        let from = intent.append_from.unwrap_or(0);
        let failed = |error: std::io::Error| Error::from_io(key, "compare an append", error);
        let torn = match intent.sum.filter(|_| !intent.acknowledged) {
            Some(sum) => sum_of(staged, from, staged.metadata().map_err(failed)?.len()).map_err(failed)? != sum,
            None => false,
        };
        let ours = torn || is_part(&open_place(key, place)?.file, record.size, staged, from).map_err(failed)?;
        if ours {
            self.undo_append(key, place, &record)?;
        }
        Ok(ours)
    }

    /// Cuts off what a process appended before it died, so that the recorded generation is whole again.
    pub(super) fn undo_append(&self, key: &Key, place: &Place, record: &Record) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let failed = |error: rustix::io::Errno| Error::from_io(key, "undo an append that was cut short", error);
        let fd = match rustix::fs::openat(&place.dir, &place.name, flags, Mode::empty()) {
            Err(rustix::io::Errno::ACCESS) => super::metadata::open_read_only(place).map_err(failed)?,
            other => other.map_err(failed)?,
        };
        rustix::fs::ftruncate(&fd, record.size).map_err(failed)?;
        super::metadata::set_mtime(&fd, record.mtime).map_err(failed)?;
        log::warn!("{key}: undid an append that was cut short by a crash");
        Ok(())
    }
}

/// Whether what was found was to be replaced by this, by what is recorded of it.
pub(super) fn replaces(intent: &Intent, found: &Found) -> bool {
    match (intent.expect, &found.record) {
        (Precondition::Version(generation, id, committed), Some(record)) => {
            (generation, id, committed) == (record.generation, record.id, record.committed)
        }
        (Precondition::Reserved(id), None) => id == found.stat.id,
        _ => false,
    }
}
