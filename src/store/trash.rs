//! What was removed and can be brought back: names at which nothing is, and whose history ends with a removal. A name that
//! is only reserved is nothing yet: who was to fill it may have died over it.

use std::ffi::OsString;

use rustix::fs::XattrFlags;

use super::access::ACL;
use super::collect::{Collected, Histories};
use super::pins::Protected;
use super::retention::{Cause, Keep, Policy, Verdict, judge};
use super::{Actor, By, Error, Result, Session, Store};
use crate::backend::{self, Creator, FileKind, GenerationInfo, Kept, SetTime, Stat};
use crate::types::{Age, Generation, Key, Precondition, Timestamp};

/// An object that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trashed {
    /// Where it was.
    pub key: Key,
    /// Its last generation.
    pub generation: Generation,
    /// When it was removed.
    pub deleted: Timestamp,
    /// Bytes.
    pub size: u64,
    /// Last change of its bytes.
    pub mtime: Timestamp,
    /// Until when it can be brought back, by the policy.
    pub until: Timestamp,
}

impl Store {
    /// What was removed at or below `dir`, by key.
    ///
    /// # Errors
    /// The first listing that fails.
    pub fn trash(&self, dir: &Key) -> Result<Vec<Trashed>> {
        let mut trash = Vec::new();
        let mut histories = Histories::below(self, dir);
        while let Some((key, generations)) = histories.next()? {
            if let Some(trashed) = self.trashed(&key, &generations)? {
                trash.push(trashed);
            }
        }
        trash.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(trash)
    }

    /// What was removed at a key, if nothing is there now.
    ///
    /// # Errors
    /// What the medium says.
    pub fn trashed_at(&self, key: &Key) -> Result<Option<Trashed>> {
        self.trashed(key, &self.backend.generations(key)?)
    }

    /// Whether something was removed below `dir`, at whatever depth. Looks at histories until one is found.
    ///
    /// # Errors
    /// The first listing that fails.
    pub fn has_trash_below(&self, dir: &Key) -> Result<bool> {
        let mut histories = Histories::below(self, dir);
        while let Some((key, generations)) = histories.next()? {
            if key != *dir && self.trashed(&key, &generations)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn trashed(&self, key: &Key, generations: &[GenerationInfo]) -> Result<Option<Trashed>> {
        let last = generations.last().filter(|last| last.deleted && !matches!(last.kept, Kept::Lost(_)));
        let Some(last) = last else { return Ok(None) };
        if self.is_there(key)? && self.reserved(key)?.is_none() {
            return Ok(None);
        }
        let deleted = last.superseded.unwrap_or(last.committed);
        let until = deleted.after(self.config()?.retention.policy(key).trash);
        let (generation, size, mtime) = (last.generation, last.size, last.mtime);
        Ok(Some(Trashed { key: key.clone(), generation, deleted, size, mtime, until }))
    }

    /// What is at a key, if it is a file without any bytes yet.
    fn reserved(&self, key: &Key) -> Result<Option<Stat>> {
        match self.backend.stat(key) {
            Ok(stat) => Ok(Some(stat).filter(|stat| stat.kind == FileKind::File && stat.generation.is_none())),
            Err(error) if error.is_gone() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Brings back what was removed at `key`, or one of its older generations, there or as `to`: with its mode, owner,
    /// times and attributes, as far as this process can give it those; what it can't give to whom it was meant for it
    /// gives to nobody. The history stays at its key, and is gone on with there. A file at `key` that has no bytes yet
    /// gives way.
    ///
    /// # Errors
    /// [`Error::NotInTrash`]; [`backend::Error::NoGeneration`]; [`backend::Error::Exists`] when something is at the
    /// new name; [`backend::Error::Stale`] when a file without bytes was written to meanwhile; [`Error::Rejected`] when a rule has something against it.
    pub fn untrash(&self, key: &Key, generation: Option<Generation>, to: &Key) -> Result<Stat> {
        if let Some(parent) = to.parent() {
            self.create_dirs(&parent)?;
        }
        self.by(Actor::current()).untrash(key, generation, to)
    }

    /// Deletes for good what was removed at or below `dir`, as far as it was longer ago than `older_than`, and is
    /// neither pinned nor in a snapshot.
    ///
    /// # Errors
    /// [`Error::DeletionDisabled`], and the first listing that failed.
    pub fn empty_trash(&self, dir: &Key, older_than: Age) -> Result<Collected> {
        let mut done = Collected::default();
        let policy = Policy { keep: Keep::default(), trash: older_than };
        let found = self.trash(dir)?;
        // Not before: what is removed later may be in a snapshot that is made in between.
        let mut protected = Protected::read(self)?;
        for trashed in found {
            let _no_pins = self.hold_history()?;
            self.check_disabled()?;
            let generations = self.backend.generations(&trashed.key)?;
            let same = |now: &Trashed| (now.generation, now.deleted) == (trashed.generation, trashed.deleted);
            if !self.trashed(&trashed.key, &generations)?.as_ref().is_some_and(same) {
                continue;
            }
            protected.refresh(self)?;
            let held = protected.of(&trashed.key, &generations);
            let verdicts = judge(&generations, false, &policy, &held, self.now());
            // What is not that old keeps its whole history.
            let expired = Verdict::Drop(Cause::TrashExpired);
            let doomed = generations.iter().zip(&verdicts).filter(|(_, verdict)| **verdict == expired);
            let doomed: Vec<_> = doomed.map(|(info, _)| info.clone()).collect();
            self.drop_some(&trashed.key, &doomed, true, &mut done)?;
        }
        Ok(done)
    }
}

impl By<'_> {
    /// As [`Store::untrash`], into a directory that is there.
    ///
    /// # Errors
    /// As [`Store::untrash`], and [`backend::Error::NotFound`] without that directory.
    pub fn untrash(&self, key: &Key, generation: Option<Generation>, to: &Key) -> Result<Stat> {
        let (store, backend) = (self.store, &self.store.backend);
        let trashed = store.trashed_at(key)?.ok_or_else(|| Error::NotInTrash(key.clone()))?;
        let generation = generation.unwrap_or(trashed.generation);
        let old = backend.open_generation(key, generation)?;
        let mut attributes = backend.generation_xattrs(key, generation)?;
        let access = store.kept_access(key, generation, &old.stat)?;
        let given_up = if to == key { store.reserved(key)? } else { None };
        if given_up.is_none() && backend.stat(to).is_ok() {
            return Err(backend::Error::Exists(to.clone()).into());
        }
        // What takes long comes first, so that who dies over it leaves the name free.
        let mut session = Session::replace(store, to, Precondition::Absent)?.restoring(generation);
        session.set_actor(self.actor);
        let filled = session.fill_from(&old.file, old.stat.size, Some(old.stat.mtime)).and_then(|()| {
            let set = session.set_times(Some(SetTime::At(old.stat.atime)), None);
            set.map(drop).map_err(|source| Error::Records { what: "the times of what is brought back", source })
        });
        // With its mode before it has any bytes, so that nobody reads them who couldn't before.
        let reserved = filled.and_then(|()| {
            let (creator, mode) = store.maker(to, access)?;
            if (creator.uid, creator.gid) != (access.uid, access.gid) {
                // It speaks of that owner and that group.
                attributes.retain(|(name, _)| name != ACL);
            }
            if let Some(stat) = &given_up {
                store.take_name(to, || backend.remove(to, &Precondition::Reserved(stat.id)))?;
            }
            store.make_name(to, || backend.reserve(to, mode, &creator))
        });
        let stat = match reserved {
            Ok(stat) => stat,
            Err(error) => {
                session.discard();
                return Err(error);
            }
        };
        session.follow(to, &stat);
        let restored = self.save_with(to, session, &attributes);
        if restored.is_err() {
            // Nothing was committed to it, so nothing is lost with it.
            let _ = store.take_name(to, || backend.remove(to, &Precondition::Reserved(stat.id)));
        }
        restored
    }

    /// Brings back all that was removed below the directory `dir`, into a new directory `to`. Directories that are made
    /// for it are as `creator` makes them.
    ///
    /// # Errors
    /// As [`By::untrash`]: what was brought back until then stays so.
    pub fn untrash_tree(&self, dir: &Key, to: &Key, creator: &Creator) -> Result<()> {
        self.create_dir(to, 0o755, creator)?;
        let depth = dir.components().count();
        for trashed in self.store.trash(dir)?.iter().filter(|trashed| trashed.key != *dir) {
            let mut at = to.clone();
            let mut names = trashed.key.components().skip(depth).peekable();
            while let Some(name) = names.next() {
                at = at.child(name)?;
                if names.peek().is_some() {
                    match self.create_dir(&at, 0o755, creator) {
                        Ok(_) | Err(Error::Backend(backend::Error::Exists(_))) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            self.untrash(&trashed.key, None, &at)?;
        }
        Ok(())
    }

    fn save_with(&self, to: &Key, session: Session, attributes: &[(OsString, Vec<u8>)]) -> Result<Stat> {
        let backend = &self.store.backend;
        for (name, value) in attributes {
            match backend.set_xattr(to, name, value, XattrFlags::empty().bits() as i32) {
                // Of the system's own, which an ordinary user may see but not set.
                Ok(()) | Err(backend::Error::Unsupported(..)) => {}
                Err(backend::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {}
                Err(error) => {
                    session.discard();
                    return Err(error.into());
                }
            }
        }
        session.save(to, true)
    }
}
