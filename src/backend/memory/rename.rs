//! Renames over a space that knows only copy and delete.
//!
//! An object is copied to the new name, under the condition that both ends are as they were found, and then deleted
//! under the old one, under the condition that nobody has changed it since: else the copy is taken back. In between
//! both names exist; that is why this medium has no `atomic_rename`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::MemoryBackend;
use super::flat::{Condition, Etag, Object};
use super::names::{Entry, below, dir_name};
use super::record::check;
use crate::backend::{Error, FileKind, Rename, Result, Stat};
use crate::types::{Generation, Key, Precondition};

/// Members move by themselves, whatever they are.
const PLAIN: Rename = Rename { expect_from: Precondition::Any, expect_to: Precondition::Any, exchange: false };

impl MemoryBackend {
    pub(super) fn rename_any(&self, from: &Key, to: &Key, how: &Rename) -> Result<Stat> {
        if how.exchange {
            return Err(Error::Unsupported(from.clone(), "an exchange of two names"));
        }
        if from.is_root() || to.is_root() {
            return Err(Error::Invalid(Key::root(), "the root of a store can't be renamed or replaced"));
        }
        loop {
            let source = self.find(from)?;
            check(from, &how.expect_from, Some(&source.record))?;
            if from != to && source.is_dir() && to.is_within(from) {
                return Err(Error::Invalid(from.clone(), "a directory can't be moved into itself"));
            }
            self.parent_of(to)?;
            let target = self.look(to)?;
            if target.is_some() && how.expect_to == Precondition::Absent {
                return Err(Error::Exists(to.clone()));
            }
            check(to, &how.expect_to, target.as_ref().map(|target| &target.record))?;
            if from == to {
                return self.stat_entry(to, &source);
            }
            let done = match (&target, source.is_dir()) {
                (Some(target), false) if target.is_dir() => return Err(Error::IsDirectory(to.clone())),
                (Some(target), true) if !target.is_dir() => return Err(Error::NotDirectory(to.clone())),
                (Some(_), true) if !self.entries(to)?.is_empty() => return Err(Error::NotEmpty(to.clone())),
                (_, true) => self.move_directory(from, to, &source, target)?,
                (_, false) => self.move_object(from, to, source, target, true)?,
            };
            if let Some(stat) = done {
                return Ok(stat);
            }
        }
    }

    /// Moves a file or a link. `None` if either end changed since it was found; nothing has then happened. Without
    /// `enter` it is a member of a directory that moves: the directories at both ends are the caller's business, and
    /// its history comes along in any case, for under the old name nobody would look for it.
    fn move_object(
        &self,
        from: &Key,
        to: &Key,
        source: Entry,
        target: Option<Entry>,
        enter: bool,
    ) -> Result<Option<Stat>> {
        let replaced = target.as_ref().and_then(|target| self.flat.get(&target.name));
        let (condition, claim) = match &target {
            Some(target) => (target.etag, None),
            None => match self.claim(to) {
                Ok(claim) => (claim, Some(claim)),
                Err(Error::Exists(_)) => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        let now = self.tick();
        let mut record = source.record.clone();
        record.ctime = now;
        let replaces = target.as_ref().and_then(|target| target.record.generation);
        let (old, older) = (self.history(from)?, self.history(to)?);
        let along = record.kind == FileKind::File && replaces.is_none() && older.is_of(record.id, record.generation);
        let joins = record.kind == FileKind::File && replaces.is_none() && !along && !enter;
        let last = older.last().max(replaces.map_or(0, Generation::get));
        if let Some(own) = record.generation.filter(|_| !along) {
            record.generation = Generation::new(last + if joins { own.get() } else { 1 });
            if !self.still.is_kept_through(record.committed) {
                record.committed = Some(now);
            }
        }

        let mut made = Vec::new();
        let copied = (|| {
            if let Some(target) = target.as_ref().filter(|_| replaces.is_some()) {
                made.push(self.keep(to, target, now, false).ok()?);
            }
            if source.record.generation.is_some() && !along && !joins && !old.kept.is_empty() {
                // The history stays here, and ends with what leaves.
                made.push(self.keep(from, &source, now, true).ok()?);
            }
            self.flat
                .copy(&source.name, source.etag, to.as_bytes(), Some(record.metadata()), Condition::Match(condition))
                .ok()
        })();
        let Some(copy) = copied else {
            self.take_back(made);
            claim.into_iter().for_each(|claim| self.unclaim(to, claim));
            return Ok(None);
        };
        let undo = |made| {
            self.take_back(made);
            self.put_back(to, copy, replaced.as_ref());
        };
        if enter && let Err(error) = self.touch_parent(to) {
            undo(made);
            return Err(error);
        }
        if let Some(generation) = source.record.generation {
            made.extend(self.mark(from, record.id, generation.get().max(old.last()), Some(to))?);
        }
        if self.flat.delete(&source.name, Condition::Match(source.etag)).is_err() {
            undo(made);
            return Ok(None);
        }
        if let Some(generation) = source.record.generation {
            // The new marker says as much.
            self.unmark(&old, generation.get());
        }
        if along || joins {
            self.unmark(&older, record.generation.map_or(0, Generation::get));
            self.move_history(old, to, if joins { last } else { 0 })?;
        }
        if enter {
            self.leave(from)?;
        }
        Ok(Some(record.stat(source.size, 1)))
    }

    /// Makes what was at `to` before a copy the current state again, unless somebody has changed the copy.
    fn put_back(&self, to: &Key, copy: Etag, replaced: Option<&Object>) {
        let condition = Condition::Match(copy);
        let _ = match replaced {
            Some(old) => self.flat.put(to.as_bytes(), old.bytes.clone(), (*old.metadata).clone(), condition).map(drop),
            None => self.flat.delete(to.as_bytes(), condition),
        };
    }

    /// The directory that something has left, if it is still there.
    fn leave(&self, from: &Key) -> Result<()> {
        self.touch_parent(from).or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })
    }

    /// Moves a directory: first it is made under the new name, then all below moves, then the old one goes. `None`
    /// if either end changed before anything happened.
    fn move_directory(&self, from: &Key, to: &Key, source: &Entry, target: Option<Entry>) -> Result<Option<Stat>> {
        let mut record = source.record.clone();
        record.ctime = self.tick();
        let condition = target.as_ref().map_or(Condition::Absent, |target| Condition::Match(target.etag));
        let name = dir_name(to);
        let Ok(copy) = self.flat.copy(&source.name, source.etag, &name, Some(record.metadata()), condition) else {
            return Ok(None);
        };
        match self.confirm_dir(to, copy) {
            Ok(()) => {}
            Err(Error::Exists(_)) => return Ok(None),
            Err(error) => return Err(error),
        }
        if let Err(error) = self.touch_parent(to) {
            let _ = match target {
                Some(old) => {
                    self.flat.put(&name, Default::default(), old.record.metadata(), Condition::Match(copy)).map(drop)
                }
                None => self.flat.delete(&name, Condition::Match(copy)),
            };
            return Err(error);
        }
        // Others may still make entries under the old name while this runs; they move too.
        while !self.flat.list(&below(from)).is_empty() {
            self.move_members(from, to)?;
        }
        self.move_old_histories(from, to)?;
        self.leave(from)?;
        let entry = self.find(to)?;
        self.stat_entry(to, &entry).map(Some)
    }

    /// Moves what is below a directory, and removes the directories that are empty then.
    fn move_members(&self, from: &Key, to: &Key) -> Result<()> {
        let names = self.flat.list(&below(from));
        // In the order of the names a directory comes before what is in it.
        for name in &names {
            let key = Key::parse(OsStr::from_bytes(name))?;
            let Some(new) = key.rebase(from, to) else { continue };
            if name.ends_with(b"/") {
                if let Some(head) = self.flat.head(name) {
                    // Refused when an earlier round has made it.
                    let _ = self.flat.copy(name, head.etag, &dir_name(&new), None, Condition::Absent);
                }
                continue;
            }
            loop {
                let source = match self.find(&key) {
                    Ok(source) if !source.is_dir() => source,
                    Ok(_) | Err(Error::NotFound(_)) => {
                        // A claim: whoever put it there will find it gone, and the directory too.
                        if let Some(head) = self.flat.head(name)
                            && super::record::Record::read(&key, &head.metadata)?.is_none()
                        {
                            self.unclaim(&key, head.etag);
                        }
                        break;
                    }
                    Err(error) => return Err(error),
                };
                let target = self.look(&new)?;
                if target.as_ref().is_some_and(Entry::is_dir) {
                    return Err(Error::IsDirectory(new));
                }
                check(&key, &PLAIN.expect_from, Some(&source.record))?;
                if self.move_object(&key, &new, source, target, false)?.is_some() {
                    break;
                }
            }
        }
        for name in names.iter().rev().filter(|name| name.ends_with(b"/")) {
            if let Some(head) = self.flat.head(name)
                && self.flat.list(name).len() == 1
            {
                let _ = self.flat.delete(name, Condition::Match(head.etag));
            }
        }
        Ok(())
    }

    /// Moves the histories of objects that were removed before: nothing below has taken them along.
    fn move_old_histories(&self, from: &Key, to: &Key) -> Result<()> {
        for key in self.keys_with_history(from)? {
            let Some(new) = key.rebase(from, to).filter(|_| key != *from) else { continue };
            // Somebody has made it anew: then it stays.
            if self.look_file(&key)? || self.look_file(&new)? {
                continue;
            }
            let (history, count_from) = (self.history(&key)?, self.history(&new)?.last());
            if let Some(superseded) = history.kept.values().next_back() {
                self.mark(&key, superseded.record.id, history.last(), Some(&new))?;
            }
            self.move_history(history, &new, count_from)?;
        }
        Ok(())
    }

    fn look_file(&self, key: &Key) -> Result<bool> {
        match self.find(key) {
            Ok(entry) => Ok(entry.record.kind == FileKind::File),
            Err(Error::NotFound(_) | Error::NotDirectory(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
