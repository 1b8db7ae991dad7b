//! Verifying a store: whether what it refers to is there, and has the bytes that were saved.
//!
//! [`object`] looks at one object, [`references`] at what refers to generations, [`repair`] does something about it, and
//! [`state`] remembers how far a run is, so that one that was cut short is gone on with. Nothing is changed but the
//! records of checksums, unless a repair is asked for. Whatever changes meanwhile is looked at again: only what is found
//! twice in the same state is damaged.
//!
//! A file that can't be read is damage, and the run goes on. A directory that can't be listed ends it: what can't be
//! seen must not be taken for intact.

mod object;
mod part;
mod references;
mod repair;
mod report;
mod state;

use super::locks::Lock;
use std::time::{Duration, Instant};

pub use part::{PartError, Parts};
pub use report::{Counts, Damage, Damaged, Fault, Harm, Intact, Level, Mended, Verified};
pub use state::{LastRun, Status};

use self::references::References;
use self::state::{FoundDamage, Run, State, What};
use super::checksums::record::Sums;
use super::walk::Walk;
use super::{Error, Result, Store};
use crate::backend::{self, Exclusive};
use crate::types::{Key, Timestamp};

/// Who only asks whether somebody verifies has the lock for no longer than this.
const ASKED_FOR: Duration = Duration::from_millis(100);
/// So many checksums are held in memory: some 200 MB. Beyond that, they are read more often than once.
const MOST_LINES: u64 = 1 << 20;
/// How often it is written down how far a run is: so much is done again after a kill.
const NOTED_EVERY: Duration = Duration::from_secs(5);

/// How to verify.
#[derive(Clone)]
pub struct Verify<'a> {
    /// The object, or the directory below which everything is verified.
    pub dir: Key,
    /// How thoroughly.
    pub level: Level,
    /// Only one of so many parts: the one whose turn it is.
    pub parts: Option<Parts>,
    /// Begin anew, though a run was cut short.
    pub restart: bool,
    /// Repair records: what was changed outside Sepia becomes a generation, and lines of records that can't be read go.
    pub repair: bool,
    /// Where the current generation is damaged, make the bytes of the newest intact one a new generation.
    /// Only of the level [`Level::Content`], which tells what is intact.
    pub bring_back: bool,
    /// Asked often: whether to stop, and go on another time.
    pub stop: &'a dyn Fn() -> bool,
    /// Told often how far it is: the object, and how much was looked at so far.
    pub progress: &'a dyn Fn(&Key, &Counts),
}

impl std::fmt::Debug for Verify<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verify").field("dir", &self.dir).field("level", &self.level).finish_non_exhaustive()
    }
}

impl Verify<'_> {
    /// Verifies all of a store, to the last byte, and repairs nothing.
    pub fn all() -> Self {
        Verify {
            dir: Key::root(),
            level: Level::Content,
            parts: None,
            restart: false,
            repair: false,
            bring_back: false,
            stop: &|| false,
            progress: &|_, _| {},
        }
    }
}

impl Store {
    /// Verifies a store or a part of it. Mounts and other users may go on meanwhile. On a medium that can only be read,
    /// no checksums are written down, and a run that is cut short begins anew.
    ///
    /// # Errors
    /// [`Error::Verifying`] while somebody else does; [`backend::Error::NotFound`] when there neither is nor was anything;
    /// and [`Error::VerificationEnded`] with the first listing that failed, and what was found until then.
    ///
    /// ```
    /// use sepia::store::verify::Verify;
    /// use sepia::{Key, Precondition, Store};
    /// let store = Store::open("memory:")?;
    /// store.put(&Key::parse("Note/n")?, &mut &b"bytes"[..], Precondition::Any)?;
    /// let verified = store.verify(&Verify::all())?;
    /// assert!(!verified.is_damaged());
    /// // Nobody had computed a checksum yet.
    /// assert_eq!(verified.counts.new, 1);
    /// # Ok::<(), sepia::Error>(())
    /// ```
    pub fn verify(&self, how: &Verify<'_>) -> Result<Verified> {
        let _alone = match self.verify_alone() {
            // Nobody has verified it before, and nobody can lock anything.
            Err(Error::Backend(error)) if error.is_not_found() || is_read_only(&error) => None,
            other => Some(other?),
        };
        self.must_be_something(&how.dir)?;
        let mut state = State::read(self)?;
        let read_only = match state.write(self) {
            Err(Error::Backend(error)) if is_read_only(&error) => true,
            other => other.map(|()| false)?,
        };
        let part = how.parts.map(|parts| (state.next_part(&how.dir, how.level, parts), parts.count()));
        let what = What { dir: how.dir.escaped(), level: how.level, part };
        let run = state.begin(&what, how.restart, self.now());
        let resumed = (run.after.is_some() || run.walked).then_some(Timestamp::from_nanos(run.began));
        if how.repair && !read_only {
            // What a process left half done is no damage.
            self.recover()?;
        }
        let mut verifier = Verifier {
            store: self,
            how,
            state,
            run,
            sums: Sums::new(self, MOST_LINES),
            new: Vec::new(),
            faults: Vec::new(),
            read_only,
            stopped: false,
            noted: Instant::now(),
        };
        let result = verifier.verify();
        let result = result.and(verifier.write_new());
        let Verifier { mut state, run, faults, stopped, .. } = verifier;
        let counts = run.counts;
        let mut damaged: Vec<Damaged> = run.found.iter().cloned().filter_map(FoundDamage::read).collect();
        damaged.sort_by(|a, b| a.key.cmp(&b.key));
        if stopped || result.is_err() {
            state.note(&run);
        }
        if !stopped {
            state.end(&run, &damaged, &faults, self.now(), result.as_ref().err());
        }
        let written = if read_only { Ok(()) } else { state.write(self) };
        let part = part.map(|(part, of)| (part + 1, of));
        let verified = Verified { counts, damaged, faults, resumed, part, stopped };
        match result.and(written) {
            Ok(()) => Ok(verified),
            Err(source) => Err(Error::VerificationEnded { source: source.into(), found: verified.into() }),
        }
    }
}

impl Store {
    fn verify_alone(&self) -> Result<Exclusive> {
        let started = Instant::now();
        loop {
            match self.try_exclusive(Lock::Verify)? {
                Some(lock) => return Ok(lock),
                None if started.elapsed() > ASKED_FOR => return Err(Error::Verifying),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn must_be_something(&self, dir: &Key) -> Result<()> {
        match self.backend.stat(dir) {
            Err(error)
                if error.is_gone()
                    && self.backend.generations(dir)?.is_empty()
                    && self.backend.history_members(dir)?.is_empty() =>
            {
                Err(error.into())
            }
            _ => Ok(()),
        }
    }
}

fn is_read_only(error: &backend::Error) -> bool {
    matches!(error, backend::Error::Io { source, .. } if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem)
}

/// A run under way.
struct Verifier<'a> {
    store: &'a Store,
    how: &'a Verify<'a>,
    state: State,
    run: Run,
    sums: Sums<'a>,
    /// Checksums that were computed and aren't written down yet.
    new: Vec<object::New>,
    faults: Vec<Fault>,
    /// Nothing can be written down.
    read_only: bool,
    stopped: bool,
    noted: Instant,
}

impl Verifier<'_> {
    fn verify(&mut self) -> Result<()> {
        if !self.run.walked {
            // What can't be understood is as if it had not begun.
            let after = self.run.after.as_deref().and_then(|after| Key::unescape(after).ok());
            let mut walk = Walk::new(self.store, &self.how.dir, after);
            while let Some(key) = walk.next()? {
                if self.must_stop() {
                    break;
                }
                if self.run.what.includes(&key) && !self.verify_object(&key)? {
                    break;
                }
                self.run.after = Some(key.escaped());
                (self.how.progress)(&key, &self.run.counts);
                if self.noted.elapsed() >= NOTED_EVERY {
                    self.note()?;
                }
            }
            self.write_new()?;
            if self.stopped {
                return Ok(());
            }
            self.run.walked = true;
        }
        if self.how.dir.is_root() {
            self.verify_checksums()?;
        }
        References::new(self.store, self.how, &self.run.what).verify(&mut self.run.counts, &mut self.faults)?;
        self.stopped |= (self.how.stop)();
        Ok(())
    }

    fn must_stop(&mut self) -> bool {
        self.stopped |= (self.how.stop)();
        self.stopped
    }

    /// Writes down how far it is.
    fn note(&mut self) -> Result<()> {
        // A checksum that isn't written down must be computed again.
        self.write_new()?;
        self.state.note(&self.run);
        if !self.read_only {
            self.state.write(self.store)?;
        }
        self.noted = Instant::now();
        Ok(())
    }

    /// Returns whether to go on; else nothing is told of the object.
    fn verify_object(&mut self, key: &Key) -> Result<bool> {
        let Some(object) = self.look_at(key)? else {
            self.stopped = true;
            return Ok(false);
        };
        self.run.counts.unrecorded += u64::from(object.unrecorded);
        let object = match object.unrecorded && self.how.repair && !self.read_only && self.record(key) {
            // Now it is known what it is to be: the store was copied or restored, perhaps.
            true => match self.look_at(key)? {
                Some(object) => object,
                None => {
                    self.stopped = true;
                    return Ok(false);
                }
            },
            false => object,
        };
        let Some(object) = object.counted(&mut self.run.counts) else { return Ok(true) };
        if let Some(damaged) = self.damaged(key, object)? {
            self.run.found.push(FoundDamage::from(&damaged));
        }
        Ok(true)
    }

    fn verify_checksums(&mut self) -> Result<()> {
        let faults = self.sums.faults()?;
        let repaired = self.how.repair && !self.read_only && (faults.unreadable > 0 || faults.contradictions > 0);
        if repaired {
            self.run.counts.repaired += self.store.drop_checksums(None, true)?;
        }
        let told = [
            (faults.unreadable, "lines that can't be read, so their generations are taken for such without a checksum"),
            (faults.contradictions, "lines that contradict older ones, which are believed"),
        ];
        for (count, why) in told.into_iter().filter(|(count, _)| *count > 0) {
            self.faults.push(Fault { record: "checksums".to_owned(), why: format!("{count} {why}"), repaired });
        }
        if self.run.what.part.is_none() && !self.read_only {
            // Told to stop, somebody else does it.
            self.store.drop_dead_checksums(self.run.counts.generations, self.how.stop)?;
        }
        Ok(())
    }
}
