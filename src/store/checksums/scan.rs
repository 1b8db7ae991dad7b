//! Going through the whole store for what has no checksum, and for checksums of what is gone.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Run;
use super::generations::generations_of;
use super::names::Names;
use super::record::Identity;
use crate::store::walk::Walk;
use crate::store::{Error, Result, Store};
use crate::types::{Age, Key, ObjectId};

/// When the whole store was last looked through.
const STATE: &str = "checksums/state.json";
/// How long after that it is again.
const EVERY: Age = Age::days(1);
/// So many names are looked at between two rests.
const BATCH: usize = 64;
/// Of the time that looking takes, so many times as much is rested in the background.
pub const RESTS: u32 = 4;

#[derive(Debug, Serialize, Deserialize)]
struct State {
    /// When the last look began that came to the end, in nanoseconds.
    scanned: i64,
}

impl Store {
    /// Whether the store is to be looked through: nobody has for a day, or this process has saved more than it remembers,
    /// or it has just begun, since the one before took what it remembered along.
    pub(super) fn scan_is_due(&self) -> Result<bool> {
        {
            let queue = self.checksums.0.lock();
            if queue.overflowed || !queue.followed {
                return Ok(true);
            }
        }
        let state = self.read_record(STATE)?.and_then(|text| serde_json::from_slice::<State>(&text).ok());
        let now = self.now();
        Ok(!state.is_some_and(|state| state.scanned > EVERY.before(now).nanos() && state.scanned <= now.nanos()))
    }
}

/// The generations that a look through the store comes across.
pub struct Seen {
    known: Names,
    count: u64,
}

impl Seen {
    /// Counts it, and says whether it has a checksum.
    pub fn has_one(&mut self, identity: &Identity) -> bool {
        self.count += 1;
        self.known.know(identity)
    }
}

/// Whether there are more lines of what is gone than of what is `alive`.
pub fn are_mostly_dead(known: &Names, alive: u64) -> bool {
    known.lines() > alive.saturating_mul(2)
}

impl Run<'_> {
    /// Computes all checksums that are missing, and drops those of what is gone when these are more than the others.
    pub fn sum_all(&mut self) -> Result<()> {
        let (store, began) = (self.store, self.store.now());
        {
            let mut queue = store.checksums.0.lock();
            (queue.overflowed, queue.followed) = (false, true);
        }
        let ended = self.sum_missing();
        if !matches!(ended, Ok(true)) {
            store.checksums.0.lock().followed = false;
            return ended.map(drop);
        }
        let text = serde_json::to_vec(&State { scanned: began.nanos() });
        let text = text.map_err(|error| Error::Records { what: STATE, source: error.into() })?;
        Ok(store.backend.put_record(&Key::parse(STATE)?, &text)?)
    }

    /// Returns whether it came to the end.
    fn sum_missing(&mut self) -> Result<bool> {
        let mut seen = Seen { known: Names::known(self.store)?, count: 0 };
        let whole = self.pass(&mut |run, key| {
            if run.sum_key(key, Some(&mut seen))? {
                run.store.checksums.add(key);
            }
            Ok(())
        })?;
        self.flush()?;
        if whole && are_mostly_dead(&seen.known, seen.count) {
            return self.drop_dead(&seen.known);
        }
        Ok(whole)
    }

    /// Two looks through the store, for an object that is renamed during one of them may be missed by it.
    pub fn drop_dead(&mut self, known: &Names) -> Result<bool> {
        let (mut alive, began) = (Names::default(), self.store.now());
        for _ in 0..2 {
            if !self.pass(&mut |run, key| run.add_alive(key, known, &mut alive))? {
                return Ok(false);
            }
        }
        let gone = self.store.drop_checksums(Some((&alive, began)), false)?;
        log::info!("dropped {gone} checksums of generations that are gone");
        Ok(true)
    }

    fn add_alive(&self, key: &Key, known: &Names, alive: &mut Names) -> Result<()> {
        let found = match generations_of(self.store, key) {
            Err(error) if error.is_gone() => return Ok(()),
            other => other?,
        };
        for body in &found.bodies {
            // What can't be opened is kept by its name.
            let id = body.open(self.store, key).map_or(ObjectId::ROOT, |opened| opened.stat.id);
            for info in body.generations() {
                let (committed, size, mtime, generation) = (info.committed, info.size, info.mtime, info.generation);
                let identity = Identity { id, committed, size, mtime, key: key.clone(), generation };
                if known.know(&identity) {
                    alive.add(&identity);
                }
            }
        }
        Ok(())
    }

    /// Goes through all names, and rests in between. Returns whether it came to the end.
    fn pass(&mut self, visit: &mut dyn FnMut(&mut Self, &Key) -> Result<()>) -> Result<bool> {
        let mut walk = Walk::new(self.store, &Key::root(), None);
        let (mut looked_at, mut began, mut rested) = (0, Instant::now(), self.throttle.rested);
        while let Some(key) = walk.next()? {
            if (self.throttle.stop)() {
                return Ok(false);
            }
            visit(self, &key)?;
            looked_at += 1;
            if looked_at % BATCH == 0 {
                let busy = began.elapsed().saturating_sub(self.throttle.rested - rested);
                if !self.throttle.rest(busy * self.rests) {
                    return Ok(false);
                }
                (began, rested) = (Instant::now(), self.throttle.rested);
            }
        }
        Ok(true)
    }
}
