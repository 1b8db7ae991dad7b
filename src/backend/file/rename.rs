//! Renames: of objects, whose generations go on counting under the new name, and of directories with all below.
//!
//! The file moves first, then its history. A note ([`super::rename_notes`]) stands while the history has yet to move, so that a
//! crash between the two is finished by the next recovery.

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use super::entry::{Found, Place, note_elsewhere, write_record};
use super::generations::kept_name;
use super::moved::Note;
use super::record::{Record, Unsettled};
use super::*;
use crate::backend::GenerationName;
use crate::types::Timestamp;

/// How much of the histories at a name moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// That of the object. If its name was a directory's before, the histories of the members stay.
    Own,
    /// Those of all below a directory, too.
    Below,
}

impl FileBackend {
    pub(super) fn rename_entry(&self, from: &Key, to: &Key, how: &Rename) -> Result<Stat> {
        if from.is_root() || to.is_root() {
            return Err(Error::Invalid(from.clone(), "the root of the store can't be renamed"));
        }
        if from == to {
            let _tree = self.locks.share_tree(from)?;
            let _lock = self.lock(from)?;
            let found = self.check(from, &self.place(from)?, &how.expect_to)?;
            return found.map(|found| found.stat).ok_or_else(|| Error::NotFound(from.clone()));
        }
        // Asked again under the locks; here only to know which are needed.
        let moves_dir = |key: &Key| self.look(key).is_ok_and(|stat| stat.kind == FileKind::Directory);
        if moves_dir(from) || (how.exchange && moves_dir(to)) {
            if to.is_within(from) && to != from || (how.exchange && from.is_within(to) && to != from) {
                return Err(Error::Invalid(from.clone(), "a directory can't be moved into itself"));
            }
            let tree = self.locks.own_tree(from)?;
            let result = self.rename_dir(from, to, how);
            // Also when it failed half way: others must look again.
            tree.moved();
            self.objects.clear();
            self.history.clear();
            return result;
        }
        let _tree = self.locks.share_tree(from)?;
        let _locks = self.lock_both(from, to)?;
        self.births.left(from);
        self.births.left(to);
        let (source, target) = (self.place(from)?, self.place(to)?);
        let moved = self.check(from, &source, &how.expect_from)?.ok_or_else(|| Error::NotFound(from.clone()))?;
        let replaced = self.check(to, &target, &how.expect_to)?;
        if moved.stat.kind == FileKind::Directory {
            return Err(Error::Locked(from.clone()));
        }
        if how.exchange {
            let other = replaced.ok_or_else(|| Error::NotFound(to.clone()))?;
            // Two names of one file, which are that afterwards too.
            if other.stat.incarnation == moved.stat.incarnation {
                return Ok(moved.stat);
            }
            return self.exchange(from, to, (&source, &moved), (&target, &other));
        }
        match &replaced {
            // rename(2): two names of one file both stay.
            Some(other) if other.stat.incarnation == moved.stat.incarnation && moved.stat.nlink > 1 => {
                return Ok(moved.stat);
            }
            Some(other) if other.stat.kind == FileKind::Directory => return Err(Error::IsDirectory(to.clone())),
            _ => {}
        }
        self.rename_object(from, to, (&source, moved), (&target, replaced))
    }

    fn rename_object(
        &self,
        from: &Key,
        to: &Key,
        (source, moved): (&Place, Found),
        (target, mut replaced): (&Place, Option<Found>),
    ) -> Result<Stat> {
        let now = self.now();
        if moved.stat.kind == FileKind::File && moved.stat.nlink > 1 {
            self.unkeep(from, &moved)?;
        }
        if let Some(other) = &replaced
            && other.stat.kind == FileKind::File
            && other.stat.nlink > 1
            && self.unkeep(to, other)?
        {
            replaced = self.find_optional(to, target)?;
        }
        let was = moved.clone();
        if replaced.as_ref().is_none_or(Found::is_reserved) && self.history_dir(to)?.is_some() {
            self.close_history(to)?;
        }
        if replaced.is_none() && (self.departed.knows(to) || self.history_dir(to)?.is_some()) {
            self.departed.came_back(to, from);
            self.taken_again(to, Some(from))?;
        }
        let mut highest = self.highest(to)?.max(replaced.as_ref().and_then(|other| other.stat.generation));
        // Where nothing is kept under the new name, the history comes along, and the count goes on.
        let has_history = !self.history_entries(from)?.0.is_empty();
        let history_moves = has_history && replaced.is_none() && !self.keeps_bytes(to)?;
        if history_moves {
            self.comes_back(to, from)?;
            highest = self.highest(to)?;
        }
        let note = if history_moves { Some(self.prepare_rename(from, to)?) } else { None };
        let forget = || note.iter().for_each(|note| self.forget_rename(note));
        let prepared = self.keep_both(
            from,
            to,
            (source, &moved),
            (target, replaced.as_ref()),
            highest,
            now,
            (has_history, history_moves),
        );
        prepared.inspect_err(|_| forget())?;
        let renamed = rustix::fs::renameat(&source.dir, &source.name, &target.dir, &target.name);
        if let Err(error) = renamed {
            forget();
            return Err(Error::from_io(from, "rename", error));
        }
        // It is renamed now, and whoever asked for that must not be told otherwise.
        if let Some(note) = note {
            self.end_rename(from, to, &note, self.move_history(from, to, Extent::Own));
        }
        let arrived = self.find(to, target)?.stat;
        if let (Some(name), Some(generation)) = (kept_name(&was, now, true), arrived.generation) {
            let note = Note { to: to.clone(), generation, id: arrived.id };
            // A note stands at once where anybody could remember the number.
            if let Err(error) = self.left(from, name, was.stat.mtime, note, has_history) {
                log::warn!("{from}: its history doesn't say that it was moved to {to}: {error}");
            }
        }
        Ok(arrived)
    }

    /// Keeps what a rename replaces, and what the history that stays is read from; and raises the number of what is renamed.
    #[allow(clippy::too_many_arguments, reason = "a part of one rename")]
    fn keep_both(
        &self,
        from: &Key,
        to: &Key,
        (source, moved): (&Place, &Found),
        (target, replaced): (&Place, Option<&Found>),
        highest: Option<Generation>,
        now: Timestamp,
        (has_history, history_moves): (bool, bool),
    ) -> Result<()> {
        if replaced.is_some() && moved.stat.kind == FileKind::File && self.may_begin_elsewhere(from, source, moved)? {
            // From then on the history of the other name leads up to it.
            note_elsewhere(from, source)?;
        }
        if has_history && !history_moves {
            // The bytes that the history which stays is read from are about to leave.
            self.make_prefix_whole(from, source)?;
        }
        if let Some(highest) = highest
            && moved.stat.kind == FileKind::File
            // Under its other names, it must not get a number that was used there.
            && moved.stat.generation.is_some_and(|own| own <= highest || (!history_moves && moved.stat.nlink == 1))
        {
            self.renumber(from, source, moved, highest.next(), now)?;
        }
        if let Some(other) = replaced
            && other.stat.kind == FileKind::File
        {
            if other.stat.nlink > 1 {
                if let Some(name) = kept_name(other, now, false) {
                    self.make_prefix_whole(to, target)?;
                    self.keep_as_note(to, &name, "kept under its other names", other.stat.mtime)?;
                }
            } else {
                self.keep_by_link(to, target, other, now)?;
            }
        }
        Ok(())
    }

    pub(super) fn renumber(
        &self,
        key: &Key,
        place: &Place,
        found: &Found,
        generation: Generation,
        now: Timestamp,
    ) -> Result<Found> {
        let stat = &found.stat;
        let record = Record {
            generation,
            id: stat.id,
            committed: self.committed_when_renumbered(found.record.as_ref(), now)?,
            size: stat.size,
            mtime: stat.mtime,
            inode: stat.incarnation,
            unsettled: found.record.map_or(Unsettled::nothing(stat.size), |record| record.unsettled),
        };
        write_record(key, place, &record)?;
        self.find(key, place)
    }

    /// Both get a number that neither name has seen, so that no stale precondition fits by accident.
    fn exchange(
        &self,
        from: &Key,
        to: &Key,
        (source, moved): (&Place, &Found),
        (target, other): (&Place, &Found),
    ) -> Result<Stat> {
        let highest = [self.highest(from)?, self.highest(to)?, moved.stat.generation, other.stat.generation]
            .into_iter()
            .flatten()
            .max();
        if let Some(highest) = highest {
            for (key, place, found) in [(from, source, moved), (to, target, other)] {
                if found.stat.kind == FileKind::File && found.stat.generation.is_some() {
                    if found.stat.nlink > 1 {
                        self.unkeep(key, found)?;
                    }
                    // Each at a time of its own, which tells them apart when they have one number.
                    self.renumber(key, place, found, highest.next(), self.now())?;
                }
            }
        }
        let exchange =
            || rustix::fs::renameat_with(&source.dir, &source.name, &target.dir, &target.name, RenameFlags::EXCHANGE);
        exchange().map_err(|e| Error::from_io(from, "exchange", e))?;
        if let Err(error) = self.exchange_histories(from, to) {
            let _ = exchange();
            return Err(error);
        }
        Ok(self.find(to, target)?.stat)
    }

    fn exchange_histories(&self, from: &Key, to: &Key) -> Result<()> {
        match (self.history_dir(from)?, self.history_dir(to)?) {
            (None, None) => Ok(()),
            (Some(_), Some(_)) => self.rename_history(from, to, RenameFlags::EXCHANGE),
            (Some(_), None) => self.move_history(from, to, Extent::Below),
            (None, Some(_)) => self.move_history(to, from, Extent::Below),
        }
    }

    fn rename_dir(&self, from: &Key, to: &Key, how: &Rename) -> Result<Stat> {
        let (source, target) = (self.place(from)?, self.place(to)?);
        self.find(from, &source)?;
        if how.exchange {
            // One of them may be a file, of which a generation is expected.
            self.check(from, &source, &how.expect_from)?;
            self.check(to, &target, &how.expect_to)?;
        }
        let flags = match how.expect_to {
            _ if how.exchange => RenameFlags::EXCHANGE,
            Precondition::Absent => RenameFlags::NOREPLACE,
            _ => RenameFlags::empty(),
        };
        let joins = self.history_dir(to)?.is_some();
        let note = if how.exchange { None } else { Some(self.prepare_rename(from, to)?) };
        let rename = || rustix::fs::renameat_with(&source.dir, &source.name, &target.dir, &target.name, flags);
        let renamed = rename();
        self.objects.clear();
        if let Err(error) = renamed {
            if let Some(note) = note {
                self.forget_rename(&note);
            }
            let key =
                if matches!(error, Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR) { to } else { from };
            return Err(Error::from_io(key, "rename", error));
        }
        if how.exchange
            && let Err(error) = self.exchange_histories(from, to)
        {
            let _ = rename();
            return Err(error);
        }
        self.departed.directory_moved(from, to);
        self.births.clear();
        if let Some(note) = note {
            let moved = self.move_history(from, to, Extent::Below);
            let moved = moved.and_then(|()| if joins { self.count_on_below(to) } else { Ok(()) });
            self.end_rename(from, to, &note, moved);
        }
        Ok(self.find(to, &target)?.stat)
    }

    /// Moves the history of `from` to `to`, into what may be there already.
    pub(super) fn move_history(&self, from: &Key, to: &Key, extent: Extent) -> Result<()> {
        let Some(source) = self.history_dir(from)? else { return Ok(()) };
        let (names, mut members) = self.history_entries(from)?;
        if self.history_dir(to)?.is_none() && (extent == Extent::Below || members.is_empty()) {
            if let Some(parent) = to.parent() {
                self.make_history_dir(&parent)?;
            }
            return self.rename_history(from, to, RenameFlags::NOREPLACE);
        }
        if extent == Extent::Own {
            members.clear();
        }
        self.join_history(from, to, &source, names)?;
        for member in members {
            self.move_history(&from.child(&member)?, &to.child(&member)?, extent)?;
        }
        drop(source);
        let (_, left) = self.history_entries(from)?;
        if left.is_empty()
            && let (Some(parent), Some(name)) = (from.parent(), from.name())
            && let Some(above) = self.history_dir(&parent)?
        {
            let _ = rustix::fs::unlinkat(&above, name, AtFlags::REMOVEDIR);
            self.history_moved();
        }
        self.count_on(to)
    }

    /// Moves these entries of the history of `from` into that of `to`. Returns what was added to their numbers.
    pub(super) fn join_history(
        &self,
        from: &Key,
        to: &Key,
        source: &Arc<Dir>,
        names: Vec<GenerationName>,
    ) -> Result<u64> {
        let target = self.make_history_dir(to)?;
        self.close_history(to)?;
        // Numbers that were used here already must not come again: those that join count on from them. Unless these lead up
        // to what is here: the object was saved after a crash had left its history behind.
        let highest = self.highest(to)?.map_or(0, Generation::get);
        let lowest = names.iter().map(|name| name.number).find(|number| *number > 0);
        let leads_up = match (names.last(), self.history_entries(to)?.0.iter().find(|name| name.number > 0)) {
            (Some(last), Some(first)) if last.number + 1 == first.number => {
                let object = self.object_of(from, source, last)?;
                object.is_some() && object == self.object_of(to, &target, first)?
            }
            _ => false,
        };
        let count_from = if !leads_up && lowest.is_some_and(|lowest| lowest <= highest) { highest } else { 0 };
        for old in names {
            let number = if old.number > 0 { old.number + count_from } else { 0 };
            let new = GenerationName { number, ..old };
            match rustix::fs::renameat_with(source, old.to_string(), &target, new.to_string(), RenameFlags::NOREPLACE) {
                // The same number at the same nanoseconds: then the older one stays where it is.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(Error::from_io(to, "move its history", error)),
            }
        }
        Ok(count_from)
    }

    /// Below a directory that took another one's name: its members get numbers above those that were used there, also
    /// where they bring no history of their own.
    pub(super) fn count_on_below(&self, dir: &Key) -> Result<()> {
        for key in self.keys_with_history(dir)? {
            self.count_on(&key)?;
        }
        Ok(())
    }

    /// After histories were joined: the object at `key` gets a number above all of them.
    pub(super) fn count_on(&self, key: &Key) -> Result<()> {
        let Ok(place) = self.place(key) else { return Ok(()) };
        let Some(mut found) = self.find_optional(key, &place)? else { return Ok(()) };
        if found.stat.kind != FileKind::File {
            return Ok(());
        }
        if found.stat.nlink > 1 && self.unkeep(key, &found)? {
            found = self.find(key, &place)?;
        }
        // What another program has written is no commit of ours.
        found = self.adopt_locked(key, &place, found)?;
        self.close_history(key)?;
        if let (Some(record), Some(highest)) = (found.record, self.highest(key)?)
            && record.generation <= highest
        {
            self.renumber(key, &place, &found, highest.next(), self.now())?;
        }
        Ok(())
    }

    fn rename_history(&self, from: &Key, to: &Key, flags: RenameFlags) -> Result<()> {
        let above = |key: &Key| key.parent().map_or(Ok(None), |parent| self.history_dir(&parent));
        let (Some(source), Some(target)) = (above(from)?, above(to)?) else { return Ok(()) };
        let (Some(name), Some(new_name)) = (from.name(), to.name()) else { return Ok(()) };
        let renamed = rustix::fs::renameat_with(&source, name, &target, new_name, flags);
        self.history_moved();
        renamed.map_err(|e| Error::from_io(to, "move its history", e))
    }

    /// Other mounts hold the directory of a key's history open, and must not go on keeping generations in it.
    pub(super) fn history_moved(&self) {
        self.locks.moved();
        self.history.clear();
    }
}
