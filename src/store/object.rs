//! Whole objects: read, save, list, restore.

use std::fs::File;
use std::io::Read;

use super::{Access, Actor, Error, Result, Session, SessionOptions, Store};
use crate::backend::{self, Creator, DirEntry, GenerationInfo, Kept, Opened, Stat};
use crate::types::{Generation, Key, Precondition, Timestamp};

/// How often a save makes directories that others remove again.
const ATTEMPTS: u32 = 16;

/// Bytes that may have holes.
pub trait Sparse: Read {
    /// Passes over a hole, if the next bytes are one: how many zeros these would have been.
    ///
    /// # Errors
    /// As [`Read::read`].
    fn skip_hole(&mut self) -> std::io::Result<u64>;
}

/// Bytes of which nobody can say where they have holes.
struct WithoutHoles<'a>(&'a mut dyn Read);

impl Read for WithoutHoles<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Sparse for WithoutHoles<'_> {
    fn skip_hole(&mut self) -> std::io::Result<u64> {
        Ok(0)
    }
}

impl Store {
    /// The state of what is at `key`; links are not followed.
    ///
    /// # Errors
    /// [`backend::Error::NotFound`].
    pub fn stat(&self, key: &Key) -> Result<Stat> {
        Ok(self.backend.stat(key)?)
    }

    /// The entries of a directory, by name.
    ///
    /// # Errors
    /// [`backend::Error::NotFound`], [`backend::Error::NotDirectory`].
    pub fn list(&self, dir: &Key) -> Result<Vec<DirEntry>> {
        let mut entries = self.backend.list(dir)?;
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Opens the current generation.
    ///
    /// # Errors
    /// [`backend::Error::NotFound`]; [`backend::Error::Invalid`] when it is no file.
    pub fn get(&self, key: &Key) -> Result<Opened> {
        let opened = self.backend.open(key)?;
        self.note_adopted();
        self.judge_adopted();
        Ok(opened)
    }

    /// The bytes that the object with this id had at `key` when another took its place there; `None` if they were
    /// not kept, or that is long ago.
    ///
    /// # Errors
    /// What the medium says.
    pub fn replaced(&self, key: &Key, id: u64) -> Result<Option<Opened>> {
        const RECENT: usize = 128;
        let kept = self.backend.generations(key)?;
        for info in kept.iter().rev().filter(|info| info.kept == Kept::Whole).take(RECENT) {
            match self.backend.open_generation(key, info.generation) {
                Ok(opened) if opened.stat.id.get() == id => return Ok(Some(opened)),
                Ok(_) | Err(backend::Error::NoGeneration(..)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Opens a generation by its number, kept or current.
    ///
    /// # Errors
    /// [`backend::Error::NoGeneration`].
    pub fn get_generation(&self, key: &Key, generation: Generation) -> Result<Opened> {
        Ok(self.backend.open_generation(key, generation)?)
    }

    /// Saves all of `bytes` as the next generation of `key`, and makes the directories above it. When it returns,
    /// the save would survive a power loss.
    ///
    /// # Errors
    /// [`backend::Error::Stale`] or [`backend::Error::Exists`] when the precondition doesn't hold (the caller still
    /// has the bytes); [`Error::Rejected`] when a rule has something against them: they are kept as a conflict;
    /// [`Error::Source`] when `bytes` fails.
    pub fn put(&self, key: &Key, bytes: &mut dyn Read, expect: Precondition) -> Result<Stat> {
        self.put_sparse(key, &mut WithoutHoles(bytes), expect)
    }

    /// As [`Store::put`], of bytes whose holes stay holes.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn put_sparse(&self, key: &Key, bytes: &mut dyn Sparse, expect: Precondition) -> Result<Stat> {
        let mut session = Session::replace(self, key, expect)?.keeping_what_is_rejected();
        match fill(&mut session, bytes) {
            Ok(()) => self.save_made(key, session, None),
            Err(error) => Err(session.give_up(error)),
        }
    }

    /// Saves bytes that are kept elsewhere, the first `size` ones of a file: no second copy of them is kept when a rule has
    /// something against them. Holes stay holes. Where there is no object, it is made with this access.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub(super) fn put_kept(
        &self,
        key: &Key,
        mut session: Session,
        (from, size): (&File, u64),
        access: Access,
    ) -> Result<Stat> {
        match session.fill_from(from, size, None) {
            Ok(()) => self.save_made(key, session, Some(access)),
            Err(error) => Err(session.give_up(error)),
        }
    }

    /// Makes the directories above it, and saves. Where there is no object, it is made with this access, if one is given.
    fn save_made(&self, key: &Key, mut session: Session, access: Option<Access>) -> Result<Stat> {
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            let saved = self.create_dirs_above(key).and_then(|()| {
                if let Some(access) = access {
                    let (creator, mode) = self.maker(key, access)?;
                    session.is_made_by(creator, mode);
                }
                session.try_save(key, true)
            });
            match saved {
                Ok(stat) => {
                    session.end_saved();
                    return Ok(stat);
                }
                // Somebody has removed a directory above it since.
                Err(Error::Backend(error)) if error.is_not_found() && left > 0 => {}
                Err(error) => return Err(session.give_up(error)),
            }
        }
    }

    fn create_dirs_above(&self, key: &Key) -> Result<()> {
        key.parent().map_or(Ok(()), |parent| self.create_dirs(&parent))
    }

    /// Makes a directory and those above it; what exists stays.
    ///
    /// # Errors
    /// [`backend::Error::NotDirectory`] when something else is in the way.
    pub fn create_dirs(&self, dir: &Key) -> Result<()> {
        match self.backend.stat(dir) {
            Ok(stat) if stat.kind == backend::FileKind::Directory => return Ok(()),
            Ok(_) => return Err(backend::Error::NotDirectory(dir.clone()).into()),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(parent) = dir.parent() {
            self.create_dirs(&parent)?;
        }
        match self.by(Actor::current()).create_dir(dir, 0o777, &Creator::current()) {
            Ok(_) | Err(Error::Backend(backend::Error::Exists(_))) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What is known of one generation of `key`, the current one or one that is kept.
    ///
    /// # Errors
    /// What the medium says. That there is none is no error.
    pub fn generation(&self, key: &Key, generation: Generation) -> Result<Option<GenerationInfo>> {
        // Opening records what was changed from outside, which belongs into the history too.
        match self.get(key) {
            Ok(opened) if opened.stat.generation == Some(generation) => {
                // What was moved here by another program may have the number of one that is kept.
                let kept = self.backend.generation(key, generation)?;
                Ok(Some(kept.unwrap_or_else(|| as_current(&opened.stat, generation))))
            }
            Err(Error::Backend(error)) if !error.is_gone() => Err(error.into()),
            _ => Ok(self.backend.generation(key, generation)?),
        }
    }

    /// All generations of `key`, oldest first; the current one, if there is one, is the last.
    ///
    /// # Errors
    /// [`backend::Error::NotFound`] when there is neither an object nor a history.
    pub fn history(&self, key: &Key) -> Result<Vec<GenerationInfo>> {
        // Opening records what was changed from outside, which belongs into the history too.
        let current = || match self.get(key) {
            Ok(opened) => Ok(Some(opened.stat)),
            Err(Error::Backend(error)) if error.is_not_found() => Ok(None),
            // A link, or a directory, that took an object's name.
            Err(Error::Backend(backend::Error::Invalid(..))) => Ok(None),
            Err(error) => Err(error),
        };
        let mut now = current()?;
        let mut history = self.backend.generations(key)?;
        let last = history.last().map(|info| info.generation);
        if now.as_ref().is_some_and(|stat| stat.generation <= last) {
            // It has another number by now: somebody has saved, or it was moved here by another program.
            now = current()?;
            history = self.backend.generations(key)?;
        }
        if let Some((stat, generation)) = now.and_then(|stat| stat.generation.map(|g| (stat, g))) {
            history.retain(|info| info.generation < generation);
            history.push(as_current(&stat, generation));
        } else if history.is_empty() {
            // Not even that is there, or it was never an object.
            self.get(key)?;
        }
        Ok(history)
    }

    /// Saves an older generation's bytes as a new generation, which becomes current. An object that is no more gets the mode
    /// and the owner of that generation again, before its bytes are there; where this process can't give it those, nobody
    /// else gets more.
    ///
    /// # Errors
    /// [`backend::Error::NoGeneration`]; [`backend::Error::Stale`] when the precondition doesn't hold;
    /// [`Error::Rejected`] when a rule that came later has something against it.
    pub fn restore(&self, key: &Key, generation: Generation, expect: Precondition) -> Result<Stat> {
        let old = self.backend.open_generation(key, generation)?;
        let session = Session::replace(self, key, expect)?.restoring(generation);
        let access = self.kept_access(key, generation, &old.stat)?;
        self.put_kept(key, session, (&old.file, old.stat.size), access)
    }

    /// Opens a write session on an object, made when it doesn't exist and `options` say so.
    ///
    /// # Errors
    /// [`backend::Error::NotFound`], [`backend::Error::Exists`] (exclusive creation), [`backend::Error::Invalid`].
    pub fn open_session(&self, key: &Key, options: &SessionOptions) -> Result<Session> {
        Session::open(self, key, options)
    }

    /// Makes an empty file for a session to write to ([`Session::reserved`]), as [`backend::Backend::reserve`] does.
    ///
    /// # Errors
    /// [`backend::Error::Exists`]; [`Error::Rejected`].
    pub fn reserve(&self, key: &Key, mode: u32, creator: &Creator) -> Result<Stat> {
        self.make_name(key, || self.backend.reserve(key, mode, creator))
    }

    /// The time by which generations are stamped.
    pub fn now(&self) -> Timestamp {
        self.backend.now()
    }
}

/// The current generation of an object, as an entry of its history.
fn as_current(stat: &Stat, generation: Generation) -> GenerationInfo {
    GenerationInfo {
        generation,
        committed: stat.committed.unwrap_or(stat.mtime),
        superseded: None,
        deleted: false,
        size: stat.size,
        mtime: stat.mtime,
        kept: Kept::Whole,
    }
}

fn fill(session: &mut Session, bytes: &mut dyn Sparse) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let (mut at, mut end) = (0, 0);
    loop {
        at += bytes.skip_hole().map_err(Error::Source)?;
        match bytes.read(&mut buffer) {
            Ok(0) if at > end => {
                // Written rather than made longer, for what is too large is kept then.
                session.write_at(&[0], at - 1)?;
                end = at;
            }
            Ok(0) => return Ok(()),
            Ok(n) => {
                session.write_at(&buffer[..n], at)?;
                at += n as u64;
                end = at;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::Source(error)),
        }
    }
}
