//! The end of what was written: published, set aside, or given up.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::super::conflicts::Aside;
use super::super::rules::Applying;
use super::super::{Breach, ConflictId, Error, Reason, Result};
use super::Session;
use super::failed::FailedWrite;
use crate::backend::{self, Commit, Intent, Opened, SetAttr, Stat};
use crate::types::{Key, Precondition};

impl Session {
    /// Makes what was written the current generation of `key`, where the object is now. Returns the new state, or
    /// `None` when there was nothing to publish. The session goes on: what is written later replaces this
    /// generation, until [`Session::seal`].
    ///
    /// With `durable` it also survives a power loss when this returns.
    ///
    /// # Errors
    /// [`Error::Conflict`] when somebody else's generation is current: the bytes are set aside, and the session is
    /// lost. Otherwise the session is as before, and publishing can be tried again; so also when a write has failed and
    /// was not repeated, and after [`Error::Rejected`], when a rule has something against the bytes: they are set aside by
    /// [`Session::close`], unless they were changed.
    pub fn publish(&mut self, key: &Key, durable: bool) -> Result<Option<Stat>> {
        self.check_lost()?;
        if let Some(breach) = &self.overrun {
            return Err(breach.clone().at(key));
        }
        if !self.dirty {
            self.forget_failed();
            return self.publish_clean(key, durable);
        }
        if let Some(FailedWrite { start, errno, .. }) = self.failed.first() {
            log::warn!("{key}: not saved, since a write at {start} failed; the generation before it stays");
            return Err(self.io("save after a failed write", io::Error::from_raw_os_error(errno)));
        }
        // What was synced must not be replaced by what isn't.
        let durable = durable || (self.published && (self.synced || self.secured) && self.tail_from.is_none());
        let size = self.end()?;
        let rules = self.store.rules_for(key);
        self.check_rules(key, &rules)?;
        if self.base_lost.is_some() {
            // Who named a generation may have named the one that was put in the place of that: no mix of them is to be saved.
            let current = self.store.backend.stat(key).ok().and_then(|stat| stat.generation);
            return Err(self.not_committed(key, &rules, backend::Error::Stale { key: key.clone(), current }));
        }
        if let Some(current) = self.same_as_current(key, size)? {
            return self.publish_same(key, current, durable).map(Some);
        }
        let commit = Commit {
            expect: self.expect,
            durable,
            amend: self.published,
            merge: self.mergeable_base().filter(|_| rules.merges()),
            sum: self.sum.up_to(size),
            keep: self.keeps(key),
            max_size: rules.max_size(),
            mode: self.mode,
        };
        let is_append = self.tail_from.is_some();
        let stat = match self.tail_from {
            Some(from) => {
                let staged = self.staged.as_ref().ok_or_else(|| self.broken())?;
                let append = || self.store.backend.append(key, staged, from, &commit);
                let appended = match append() {
                    Err(error) if self.store.makes_room(&error, size.saturating_sub(from)) => append(),
                    other => other,
                };
                match appended {
                    Ok(stat) => {
                        self.merged = stat.size != size;
                        stat
                    }
                    Err(error) => return Err(self.not_committed(key, &rules, error)),
                }
            }
            None => {
                if self.staged.is_none() {
                    self.stage_whole()?;
                }
                let staged = self.staged.take().ok_or_else(|| self.broken())?;
                let file = staged.file().clone();
                let committed = match self.store.backend.commit(key, staged, &commit, &self.creator) {
                    Err((error, staged)) if self.store.makes_room(&error, size) => {
                        self.store.backend.commit(key, staged, &commit, &self.creator)
                    }
                    other => other,
                };
                match committed {
                    Ok(stat) => {
                        self.base = Some(Opened { file, stat: stat.clone() });
                        stat
                    }
                    Err((error, staged)) => {
                        self.staged = Some(staged);
                        match self.append_to_new(key, &rules, &error, durable)? {
                            Some(stat) => stat,
                            None => return Err(self.not_committed(key, &rules, error)),
                        }
                    }
                }
            }
        };
        if let Some(staged) = self.staged.take() {
            staged.discard();
            // The bytes are in the object now, or in another file than the base if somebody else appended too, or if
            // the base was copied into an object with several names.
            match &mut self.base {
                Some(base) if base.stat.incarnation == stat.incarnation && holds(&base.file, stat.size) => {
                    base.stat = stat.clone();
                }
                _ => self.base = Some(self.store.backend.open(key)?),
            }
        }
        let (stat, timed) = self.with_times(key, stat, is_append);
        self.announce(key, &stat);
        self.follow(key, &stat);
        self.published = true;
        self.emptied = None;
        self.synced |= durable;
        if timed && durable {
            self.publish_clean(key, true)?;
        }
        Ok(Some(stat))
    }

    /// Gives what was just saved the times that were set on what was staged, as far as it doesn't have them by that: what is
    /// appended to has its own, and what replaces an object gets its access time.
    fn with_times(&mut self, key: &Key, stat: Stat, is_append: bool) -> (Stat, bool) {
        let (atime, mtime) = std::mem::take(&mut self.times);
        let set = SetAttr { atime, mtime: mtime.filter(|_| is_append), ..SetAttr::default() };
        // Somebody else may have saved since.
        let is_ours = |now: &Stat| now.precondition() == stat.precondition();
        if set == SetAttr::default() || !self.store.backend.stat(key).is_ok_and(|now| is_ours(&now)) {
            return (stat, false);
        }
        match self.store.backend.set_attr(key, &set) {
            Ok(now) if is_ours(&now) => {
                if let Some(base) = &mut self.base {
                    base.stat = now.clone();
                }
                (now, true)
            }
            Ok(_) => (stat, false),
            Err(error) => {
                log::warn!("{key}: was saved, but not with the times that were set: {error}");
                (stat, false)
            }
        }
    }

    /// Somebody else was the first to commit to an empty file to which this session only appended: then both
    /// appends end up in it.
    fn append_to_new(
        &mut self,
        key: &Key,
        rules: &Applying,
        error: &backend::Error,
        durable: bool,
    ) -> Result<Option<Stat>> {
        let Precondition::Reserved(id) = self.expect else { return Ok(None) };
        if !self.append_only || !rules.merges() || !matches!(error, backend::Error::Stale { current: Some(_), .. }) {
            return Ok(None);
        }
        let opened = self.store.backend.open(key)?;
        let Some(staged) = self.staged.as_ref().filter(|_| opened.stat.id == id) else { return Ok(None) };
        let merge = Some(opened.stat.incarnation);
        let commit = Commit {
            expect: opened.stat.precondition(),
            durable,
            amend: false,
            merge,
            sum: None,
            keep: self.keeps(key),
            max_size: rules.max_size(),
            mode: self.mode,
        };
        let stat = match self.store.backend.append(key, staged, 0, &commit) {
            Err(error) => return Err(self.grown_too_large(key, rules, error)),
            Ok(stat) => stat,
        };
        self.base = Some(opened);
        self.merged = true;
        Ok(Some(stat))
    }

    /// Nothing was written. A file that was made and never written to has no generation: nothing was saved.
    pub(super) fn publish_clean(&self, key: &Key, durable: bool) -> Result<Option<Stat>> {
        if durable {
            match self.store.backend.open(key) {
                Ok(opened) => {
                    opened.file.sync_all().map_err(|e| self.io("sync", e))?;
                    match self.store.backend.sync_dir(&key.parent().unwrap_or_else(Key::root)) {
                        Err(error) if !is_gone(&error) => return Err(error.into()),
                        _ => {}
                    }
                }
                // Somebody else has removed it, or put something else there: that is no fault of what was synced.
                Err(error) if is_gone(&error) => {
                    if let Some(base) = &self.base {
                        base.file.sync_all().map_err(|e| self.io("sync", e))?;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// fsync: what was written so far will survive a power loss. The first time that publishes it; later in the
    /// same session the staged bytes are secured where they are, for a copy of the whole object at every fsync of
    /// a database would cost too much, and recovery publishes them if need be.
    ///
    /// # Errors
    /// As [`Session::publish`].
    pub fn sync(&mut self, key: &Key) -> Result<Option<Stat>> {
        if !(self.dirty && self.published && self.tail_from.is_none() && self.failed.is_empty()) {
            return self.publish(key, true);
        }
        self.check_lost()?;
        let rules = self.store.rules_for(key);
        self.check_rules(key, &rules)?;
        if let Some(error) = self.stale(key)? {
            return Err(self.not_committed(key, &rules, error));
        }
        self.stage_whole()?;
        let staged = self.staged.as_ref().ok_or_else(|| self.broken())?;
        let intent = Intent { acknowledged: true, ..self.intent(None) };
        staged.secure(&intent).map_err(|e| self.io("sync", e))?;
        self.secured = true;
        Ok(None)
    }

    /// Ends the generation that was published: what is written after this makes another one.
    pub fn seal(&mut self) {
        if !self.dirty {
            self.published = false;
            self.synced = false;
            self.append_only = true;
        }
    }

    /// Whether this state is what the session would replace.
    pub fn is_based_on(&self, stat: &Stat) -> bool {
        // What somebody changed from outside still bears the record of the generation before.
        self.expect == stat.precondition() && (stat.recorded || stat.generation.is_none())
    }

    /// The object was renamed, or changed by its own mount: the session is now based on `stat` at `key`.
    pub fn follow(&mut self, key: &Key, stat: &Stat) {
        self.expect = stat.precondition();
        if self.published {
            self.announced.is_now(stat.generation);
        }
        let staged_is_published = self.staged.is_none();
        if staged_is_published {
            self.dirty = false;
            self.secured = false;
            self.wrote = false;
            self.tail_from = None;
        }
        self.moved(key);
    }

    /// The object, or a directory above it, has a new name.
    pub fn moved(&mut self, key: &Key) {
        if self.key == *key {
            return;
        }
        self.key = key.clone();
        if let Some(staged) = &self.staged
            && let intent = (Intent { acknowledged: self.is_secured(), ..self.intent(self.tail_from) })
            && let Err(error) = staged.note(&intent)
        {
            log::error!("{key}: the journal doesn't know of its new name: {error}");
        }
    }

    /// Publishes and ends the session. With `durable` it survives a power loss when this returns.
    ///
    /// # Errors
    /// When the precondition doesn't hold or the medium fails; the bytes are then dropped, for the caller has them.
    /// [`Error::Rejected`], with the bytes kept unless they are elsewhere.
    pub(in crate::store) fn save(mut self, key: &Key, durable: bool) -> Result<Stat> {
        match self.try_save(key, durable) {
            Ok(stat) => {
                self.end_saved();
                Ok(stat)
            }
            Err(error) => Err(self.give_up(error)),
        }
    }

    /// As [`Session::save`], of which the session still has the bytes if it fails.
    ///
    /// # Errors
    /// As [`Session::save`].
    pub(in crate::store) fn try_save(&mut self, key: &Key, durable: bool) -> Result<Stat> {
        self.stage_whole()?;
        self.save_checked(key, durable)
    }

    /// Ends a session that was saved in one go.
    pub(in crate::store) fn end_saved(self) {
        if self.staged.is_some() {
            self.discard();
        }
    }

    /// Ends a session that saves in one go and can't. What a rule had something against is kept, unless it is elsewhere.
    pub(in crate::store) fn give_up(mut self, error: Error) -> Error {
        match error {
            Error::Rejected { key, breach, kept: None } if !self.drops_rejected => {
                match self.keep(&key, Reason::Rejected, Some(&breach)) {
                    Ok(kept) => Error::Rejected { key, breach, kept: Some(kept) },
                    Err(error) => error,
                }
            }
            error => {
                self.discard();
                error
            }
        }
    }

    fn save_checked(&mut self, key: &Key, durable: bool) -> Result<Stat> {
        if let Some(breach) = self.overrun.take() {
            return Err(breach.at(key));
        }
        let size = self.end()?;
        let rules = self.store.rules_for(key);
        self.check_rules(key, &rules)?;
        if let Some(stat) = self.save_same(key, size)? {
            return Ok(stat);
        }
        let keep = self.keeps(key);
        let how = Commit {
            expect: self.expect,
            durable,
            amend: false,
            merge: None,
            sum: None,
            keep,
            max_size: None,
            mode: self.mode,
        };
        let mut staged = Some(self.staged.take().ok_or_else(|| self.broken())?);
        let (medium, creator) = (&self.store.backend, &self.creator);
        let mut commit = || {
            // It is called once.
            let Some(bytes) = staged.take() else { return Err(backend::Error::Invalid(key.clone(), "saved twice")) };
            medium.commit(key, bytes, &how, creator).map_err(|(error, given_back)| {
                staged = Some(given_back);
                error
            })
        };
        let committed = if self.may_make() { self.store.make_name(key, commit) } else { commit().map_err(Error::from) };
        self.staged = staged;
        let stat = committed?;
        self.announce(key, &stat);
        Ok(stat)
    }

    /// Ends the session and gives up what was not published.
    pub fn discard(mut self) {
        if let Some(staged) = self.staged.take() {
            staged.discard();
        }
    }

    /// Ends the session of an object that is no more. Returns what was written, for those who have it open.
    pub fn abandon(mut self) -> Option<Arc<File>> {
        if self.dirty
            && let Err(error) = self.stage_whole()
        {
            log::error!("{}: what was written to it after its removal is lost: {error}", self.key);
        }
        let staged = self.staged.take()?;
        let file = self.dirty.then(|| staged.file().clone());
        staged.discard();
        file
    }

    /// Ends the session. What could not be published is kept as a conflict.
    pub fn close(mut self, key: &Key) {
        self.announce_empty(key);
        let Some(staged) = self.staged.take() else { return };
        let breach = self.overrun.take().or(self.rejected.take());
        // Bytes that were only cut off before a write failed are in the generation that stays.
        let only_cut = !self.wrote && !self.failed.is_empty() && breach.is_none();
        if !self.dirty || self.lost.is_some() || only_cut {
            staged.discard();
            return;
        }
        self.staged = Some(staged);
        let reason = if breach.is_some() { Reason::Rejected } else { Reason::Failed };
        if let Err(error) = self.keep(key, reason, breach.as_ref()) {
            log::error!("{key}: what was written waits in the staging area for recovery: {error}");
        }
    }

    /// Whether what it replaces goes to the history.
    fn keeps(&self, key: &Key) -> bool {
        !self.store.is_ephemeral(key)
    }

    /// The error of a commit that would come too late now.
    fn stale(&self, key: &Key) -> Result<Option<backend::Error>> {
        let current = match self.store.backend.open(key) {
            Ok(opened) => Some(opened.stat),
            Err(error) if is_gone(&error) => None,
            Err(error) => return Err(error.into()),
        };
        let same = match (self.expect, &current) {
            (Precondition::Any, _) => true,
            (Precondition::Absent, current) => current.is_none(),
            (Precondition::Generation(generation), Some(stat)) => stat.generation == Some(generation),
            (expect, Some(stat)) => stat.precondition() == expect,
            (_, None) => false,
        };
        let current = current.and_then(|stat| stat.generation);
        Ok((!same).then(|| backend::Error::Stale { key: key.clone(), current }))
    }

    fn not_committed(&mut self, key: &Key, rules: &Applying, error: backend::Error) -> Error {
        let current = match &error {
            backend::Error::Stale { current, .. } => *current,
            // The object was removed by somebody else.
            backend::Error::NotFound(_) | backend::Error::NotDirectory(_) => None,
            _ => return self.grown_too_large(key, rules, error),
        };
        match self.keep(key, Reason::Stale, None) {
            Ok(kept) => {
                self.lost = Some((current, kept.clone()));
                self.dirty = false;
                Error::Conflict { key: key.clone(), current, kept }
            }
            Err(failure) => failure,
        }
    }

    fn keep(&mut self, key: &Key, reason: Reason, breach: Option<&Breach>) -> Result<ConflictId> {
        self.stage_whole()?;
        let staged = self.staged.take().ok_or_else(|| self.broken())?;
        let base = match self.expect {
            Precondition::Version(generation, ..) | Precondition::Generation(generation) => Some(generation),
            _ => None,
        };
        let base_lost = self.base_lost;
        let why = Aside { reason, breach, base, base_lost, actor: Some(self.actor) };
        self.store.set_aside(staged, key, &why).map_err(|(error, staged)| {
            self.staged = Some(staged);
            error.into()
        })
    }
}

/// Whether an object that was there before is gone, or something else has its name.
fn is_gone(error: &backend::Error) -> bool {
    use backend::Error::{Invalid, NotDirectory, NotFound};
    matches!(error, NotFound(_) | NotDirectory(_) | Invalid(..))
}

fn holds(file: &File, size: u64) -> bool {
    file.metadata().is_ok_and(|meta| meta.len() >= size)
}
