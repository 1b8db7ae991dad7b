//! What was removed and can be brought back: names at which nothing is, and whose history ends with a removal.

use rustix::fs::XattrFlags;

use super::collect::{Collected, Histories};
use super::pins::Protected;
use super::retention::{Cause, Keep, Policy, Verdict, judge};
use super::{Error, Result, Session, SessionOptions, Store};
use crate::backend::{self, Creator, FileKind, GenerationInfo, Kept, SetAttr, SetTime, Stat};
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

    fn trashed(&self, key: &Key, generations: &[GenerationInfo]) -> Result<Option<Trashed>> {
        let last = generations.last().filter(|last| last.deleted && !matches!(last.kept, Kept::Lost(_)));
        let Some(last) = last else { return Ok(None) };
        if self.is_there(key)? {
            return Ok(None);
        }
        let deleted = last.superseded.unwrap_or(last.committed);
        let until = deleted.after(self.config()?.retention.policy(key).trash);
        let (generation, size, mtime) = (last.generation, last.size, last.mtime);
        Ok(Some(Trashed { key: key.clone(), generation, deleted, size, mtime, until }))
    }

    /// Brings back what was removed at `key`, or one of its older generations, there or as `to`: with its mode, owner,
    /// times and attributes. The history stays at its key, and is gone on with there.
    ///
    /// # Errors
    /// [`Error::NotInTrash`]; [`backend::Error::NoGeneration`]; [`backend::Error::Exists`] when something is at the
    /// new name; [`Error::Rejected`] when a rule has something against it.
    pub fn untrash(&self, key: &Key, generation: Option<Generation>, to: &Key) -> Result<Stat> {
        let generations = self.backend.generations(key)?;
        let trashed = self.trashed(key, &generations)?.ok_or_else(|| Error::NotInTrash(key.clone()))?;
        let generation = generation.unwrap_or(trashed.generation);
        let old = self.backend.open_generation(key, generation)?;
        let attributes = self.backend.generation_xattrs(key, generation)?;
        if let Some(parent) = to.parent() {
            self.create_dirs(&parent)?;
        }
        // With its mode before it has any bytes, so that nobody reads them who couldn't before.
        let creator = Creator { uid: old.stat.uid, gid: old.stat.gid, umask: 0 };
        let stat = self.make_name(to, || self.backend.reserve(to, old.stat.mode, &creator))?;
        let restored = self.refill(to, &stat, &old, &attributes, creator);
        if restored.is_err() {
            // Nothing was committed to it, so nothing is lost with it.
            let _ = self.take_name(to, || self.backend.remove(to, &Precondition::Reserved(stat.id)));
        }
        restored
    }

    fn refill(
        &self,
        to: &Key,
        reserved: &Stat,
        old: &backend::Opened,
        attributes: &[(std::ffi::OsString, Vec<u8>)],
        creator: Creator,
    ) -> Result<Stat> {
        for (name, value) in attributes {
            match self.backend.set_xattr(to, name, value, XattrFlags::empty().bits() as i32) {
                // Of the system's own, which an ordinary user may see but not set.
                Ok(()) | Err(backend::Error::Unsupported(..)) => {}
                Err(backend::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {}
                Err(error) => return Err(error.into()),
            }
        }
        let options = SessionOptions { creator, ..SessionOptions::default() };
        let mut session = Session::reserved(self, to, reserved, &options);
        let (mtime, atime) = (SetTime::At(old.stat.mtime), SetTime::At(old.stat.atime));
        let filled = fill(&mut session, old).and_then(|()| {
            let set = session.set_times(Some(atime), Some(mtime));
            set.map_err(|source| Error::Records { what: "the times of what is brought back", source })
        });
        if let Err(error) = filled {
            session.discard();
            return Err(error);
        }
        let saved = session.publish(to, true);
        match &saved {
            Ok(_) => session.close(to),
            Err(_) => session.discard(),
        }
        if let Some(stat) = saved? {
            return Ok(stat);
        }
        // Without bytes there is nothing to save; its times are its own all the same.
        let times = SetAttr { atime: Some(atime), mtime: Some(mtime), ..SetAttr::default() };
        Ok(self.backend.set_attr(to, &times)?)
    }

    /// Deletes for good what was removed at or below `dir`, as far as it was longer ago than `older_than`, and is
    /// neither pinned nor in a snapshot.
    ///
    /// # Errors
    /// [`Error::DeletionDisabled`], and the first listing that failed.
    pub fn empty_trash(&self, dir: &Key, older_than: Age) -> Result<Collected> {
        let mut done = Collected::default();
        let policy = Policy { keep: Keep::default(), trash: older_than };
        let mut protected = Protected::read(self)?;
        for trashed in self.trash(dir)? {
            let _no_pins = self.hold_history()?;
            self.check_disabled()?;
            let generations = self.backend.generations(&trashed.key)?;
            if self.trashed(&trashed.key, &generations)?.is_none() {
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

fn fill(session: &mut Session, old: &backend::Opened) -> Result<()> {
    debug_assert_eq!(old.stat.kind, FileKind::File);
    let mut at = 0;
    while at < old.stat.size {
        let most = usize::try_from(old.stat.size - at).unwrap_or(usize::MAX).min(1 << 30);
        match session.copy_from(&old.file, at, at, most) {
            Ok(0) => return Err(Error::Source(std::io::ErrorKind::UnexpectedEof.into())),
            Ok(n) => at += n as u64,
            // The medium and the staging area are on two filesystems, between which the kernel doesn't copy.
            Err(Error::Backend(backend::Error::Io { source, .. }))
                if source.kind() == std::io::ErrorKind::CrossesDevices =>
            {
                return fill_by_hand(session, old, at);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn fill_by_hand(session: &mut Session, old: &backend::Opened, mut at: u64) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; 256 << 10];
    while at < old.stat.size {
        let most = usize::try_from(old.stat.size - at).unwrap_or(usize::MAX).min(buffer.len());
        old.file.read_exact_at(&mut buffer[..most], at).map_err(Error::Source)?;
        session.write_at(&buffer[..most], at)?;
        at += most as u64;
    }
    Ok(())
}
