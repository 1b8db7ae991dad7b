//! A BLAKE3 for each generation, computed when it has been quiet for a while, and never on the path of a save.
//!
//! [`record`] keeps the checksums and finds them again, [`hash`] reads, [`generations`] knows which file holds which
//! generations, and [`super::verify`] compares. A checksum is computed only of bytes that the store's own record calls
//! untouched, before and after they were read, and only where there is none: another one would hide damage.
//!
//! What was saved through this [`Store`] is remembered until somebody computes it ([`Pending`]). What that misses, since
//! it was too much, or saved by another process, is found by going through the whole store ([`scan`]).

pub(super) mod generations;
pub(super) mod hash;
mod names;
mod policy;
mod prune;
pub(super) mod record;
mod scan;

use super::locks::Lock;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use hash::Sum;
pub use policy::Policy;

use self::generations::{Body, generations_of};
use self::hash::{Ended, Source};
use self::names::Names;
use self::record::{Found, Identity, Sums};
use self::scan::Seen;
use super::{Error, Result, Store};
use crate::backend::{self, Stat};
use crate::types::{Key, Timestamp};

/// So many names are remembered; when there are more, the whole store is looked through instead.
const MOST_PENDING: usize = 4096;
/// So many checksums are held in memory by who computes new ones.
const MOST_LINES: u64 = 1 << 16;
/// A file is left alone for so many times what reading it takes since it was saved last: who appends to a large one all
/// the time must not have it read all the time.
const REST: u32 = 10;
/// So many checksums are written down at once.
const MOST_NEW: usize = 256;
/// Sleeps are cut into pieces of this length, so that whoever waits for the end of a mount doesn't wait longer.
const NAP: Duration = Duration::from_millis(50);
/// A rewritten object with several names keeps its file, so its bytes must be older than a file's times are exact.
const SETTLED: Duration = Duration::from_secs(2);

/// How to compute checksums.
#[derive(Clone, Copy)]
pub struct Summing<'a> {
    /// How long after a save.
    pub quiet: Duration,
    /// Asked often: whether to stop, and go on another time.
    pub stop: &'a dyn Fn() -> bool,
}

impl std::fmt::Debug for Summing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Summing").field("quiet", &self.quiet).finish_non_exhaustive()
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summed {
    /// Generations that have a checksum now and had none.
    pub generations: u64,
    /// Bytes that were read.
    pub bytes: u64,
}

/// What was saved and may have no checksum yet, shared by the clones of a store.
#[derive(Debug, Default)]
pub(super) struct Pending(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    /// When each was saved last.
    keys: HashMap<Key, Instant>,
    /// There were more than it holds.
    overflowed: bool,
    /// Somebody has gone through the whole store and then takes from here.
    followed: bool,
}

impl Pending {
    /// Something was saved.
    pub(super) fn add(&self, key: &Key) {
        let mut queue = self.0.lock();
        if queue.keys.len() < MOST_PENDING || queue.keys.contains_key(key) {
            queue.keys.insert(key.clone(), Instant::now());
        } else {
            queue.overflowed = true;
        }
    }

    /// Takes what has been quiet for so long.
    fn take(&self, quiet: Duration) -> Vec<Key> {
        let mut queue = self.0.lock();
        queue.keys.extract_if(|_, at| at.elapsed() >= quiet).map(|(key, _)| key).collect()
    }
}

impl Store {
    /// Computes the checksums of what was saved through this store, as far as it has been quiet for long enough, at the
    /// rate that the policy gives; and of all that has none, if nobody has looked for that for a day. Does nothing while
    /// another process does it.
    ///
    /// # Errors
    /// When the policy or a record can't be read or written. A file that can't be read is left to [`Store::verify`].
    pub fn sum_in_background(&self, how: &Summing<'_>) -> Result<Summed> {
        let policy = self.config()?.checksums;
        let summed = Summed::default();
        if !policy.background {
            return Ok(summed);
        }
        let Some(_alone) = self.try_exclusive(Lock::Summing)? else { return Ok(summed) };
        let mut run = Run::new(self, policy.rate, how);
        if self.scan_is_due()? {
            run.sum_all()?;
        }
        let mut due = self.checksums.take(how.quiet).into_iter();
        while let Some(key) = due.next() {
            if (how.stop)() {
                self.checksums.add(&key);
                due.by_ref().for_each(|key| self.checksums.add(&key));
                break;
            }
            if run.sum_key(&key, None)? {
                self.checksums.add(&key);
            }
        }
        run.flush()?;
        Ok(run.summed)
    }
}

impl Store {
    /// Drops the checksums of what is gone, if they are more than those of the `alive` generations. Returns whether all was
    /// looked through for that, and not only until it was asked to stop.
    ///
    /// # Errors
    /// What the medium says.
    pub(super) fn drop_dead_checksums(&self, alive: u64, stop: &dyn Fn() -> bool) -> Result<bool> {
        let known = Names::known(self)?;
        if !scan::are_mostly_dead(&known, alive) {
            return Ok(true);
        }
        let mut run = Run::new(self, u64::MAX, &Summing { quiet: Duration::ZERO, stop });
        run.rests = 0;
        run.drop_dead(&known)
    }
}

/// A run of who computes checksums.
struct Run<'a> {
    store: &'a Store,
    quiet: Duration,
    throttle: Throttle<'a>,
    sums: Sums<'a>,
    /// Of the time that looking at names takes, so many times as much is rested.
    rests: u32,
    /// What was computed and isn't written down yet.
    new: Vec<(Identity, Sum)>,
    summed: Summed,
}

impl<'a> Run<'a> {
    fn new(store: &'a Store, rate: u64, how: &Summing<'a>) -> Self {
        let (throttle, sums) = (Throttle::new(rate, how.stop), Sums::new(store, MOST_LINES).without_copies());
        Run { store, quiet: how.quiet, throttle, sums, rests: scan::RESTS, new: Vec::new(), summed: Summed::default() }
    }

    /// Computes the checksums of all generations of a key that have none: by `known`, or else by the records. Returns
    /// whether some are left for later.
    fn sum_key(&mut self, key: &Key, known: Option<&mut Seen>) -> Result<bool> {
        let found = match generations_of(self.store, key) {
            Err(error) if error.is_gone() => return Ok(false),
            other => other?,
        };
        let (mut later, mut known) = (false, known);
        for body in &found.bodies {
            // Who is saved all the time has its turn in a look through the whole store.
            let rest = if known.is_some() { Duration::ZERO } else { self.throttle.time(body.whole.size) * REST };
            if body.is_current() && !is_quiet(self.store, found.current.as_ref(), self.quiet.max(rest)) {
                later = true;
                continue;
            }
            match self.sum_body(key, body, &found.commits, known.as_deref_mut()) {
                Ok(done) => later |= !done,
                Err(Error::Backend(backend::Error::NoGeneration(..))) => later = true,
                Err(Error::Backend(error @ backend::Error::Io { .. })) => self.leave(key, body, &error),
                Err(error) => return Err(error),
            }
        }
        Ok(later)
    }

    /// Returns whether all of its generations have one.
    fn sum_body(
        &mut self,
        key: &Key,
        body: &Body,
        commits: &HashSet<Timestamp>,
        mut known: Option<&mut Seen>,
    ) -> Result<bool> {
        let opened = body.open(self.store, key)?;
        let identities = body.identities(key, &opened);
        let mut without = Vec::new();
        for (at, identity) in identities.iter().enumerate() {
            let has_one = match &mut known {
                Some(seen) => seen.has_one(identity),
                None => self.sums.find(identity, commits)? != Found::Nothing,
            };
            if !has_one {
                without.push(at);
            }
        }
        let Some(last) = without.last() else { return Ok(true) };
        let Run { throttle, summed, .. } = self;
        let read = body.sum(&opened, last + 1, Source::Any, &mut |bytes| {
            summed.bytes += bytes;
            throttle.read(bytes)
        });
        if let Ended::Failed(error) = &read.ended {
            self.leave(key, body, error);
        }
        if !body.is_unchanged(self.store, key)? {
            return Ok(false);
        }
        let new = without.iter().filter_map(|&at| Some((identities[at].clone(), *read.sums.get(at)?)));
        self.new.extend(new);
        if self.new.len() >= MOST_NEW {
            self.flush()?;
        }
        Ok(!matches!(read.ended, Ended::Stopped))
    }

    /// Who verifies the store is told; others are not to be bothered.
    fn leave(&self, key: &Key, body: &Body, error: &dyn std::fmt::Display) {
        log::warn!("{key}: generation {} has no checksum, for it can't be read: {error}", body.whole.generation);
    }

    fn flush(&mut self) -> Result<()> {
        self.summed.generations += self.sums.add(&self.new)?;
        self.new.clear();
        Ok(())
    }
}

/// Whether the current generation has been as it is for long enough that its bytes may be told by its times.
pub(super) fn is_settled(store: &Store, current: Option<&Stat>) -> bool {
    current.is_none_or(|stat| stat.nlink < 2) || is_quiet(store, current, SETTLED)
}

/// Whether it was saved longer ago than that. Not, if the clock was set back since.
fn is_quiet(store: &Store, current: Option<&Stat>, quiet: Duration) -> bool {
    let since = store.now().before(quiet);
    current.and_then(|stat| stat.committed).is_some_and(|committed| committed <= since)
}

/// Reads so many bytes a second.
struct Throttle<'a> {
    rate: u64,
    stop: &'a dyn Fn() -> bool,
    /// When what was read so far would be due.
    due: Instant,
    /// How long it has rested.
    rested: Duration,
}

impl<'a> Throttle<'a> {
    fn new(rate: u64, stop: &'a dyn Fn() -> bool) -> Self {
        Throttle { rate: rate.max(1), stop, due: Instant::now(), rested: Duration::ZERO }
    }

    /// How long reading so many bytes takes.
    fn time(&self, bytes: u64) -> Duration {
        Duration::from_nanos(
            u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(self.rate)).unwrap_or(u64::MAX),
        )
    }

    /// So many bytes were read: rests, and says whether to go on.
    fn read(&mut self, bytes: u64) -> bool {
        self.rest(self.time(bytes))
    }

    /// Rests for so long behind the last rest.
    fn rest(&mut self, time: Duration) -> bool {
        // What was not used is not saved up.
        self.due = self.due.max(Instant::now()).checked_add(time).unwrap_or(self.due);
        loop {
            if (self.stop)() {
                return false;
            }
            let left = self.due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(NAP));
            self.rested += left.min(NAP);
        }
    }
}
