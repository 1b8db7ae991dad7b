//! What an old name remembers of an object that has moved away.
//!
//! Editors save by renaming the old file away and writing a new one under its name; the history of the name must go
//! on then. Where a name with a history was left, a note stands in it at once. Where nothing was kept yet, a note for
//! every temporary file would be litter: it is written only if the name is taken again, by the process that
//! remembers the rename. Either way the new file counts on, and what was kept of the old one is shown here too.

use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::notes::{CHANGED_OUTSIDE, is_passed_over};
use super::*;
use crate::backend::{GenerationName, Kept};
use crate::types::Timestamp;

/// Renames that a process remembers. Editors take the name again within milliseconds.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// Recent renames, by the old name: the generation that left, its modification time, and the note on it.
#[derive(Debug)]
pub struct Departed(Mutex<LruCache<Key, (GenerationName, Timestamp, Note)>>);

/// Where a generation is that has moved away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub to: Key,
    pub generation: Generation,
    /// Whose: the name may be another object's by then.
    pub id: ObjectId,
}

impl Note {
    pub fn text(&self) -> String {
        format!("moved to {}@{} of {}", self.to.escaped(), self.generation, self.id)
    }

    pub fn parse(text: &str) -> Option<Self> {
        crate::backend::history::parse_moved(text).map(|(to, generation, id)| Note { to, generation, id })
    }
}

impl Departed {
    pub fn new() -> Self {
        Departed(Mutex::new(LruCache::new(REMEMBERED)))
    }

    pub fn knows(&self, key: &Key) -> bool {
        self.0.lock().contains(key)
    }

    /// The object that left `key` for `from` is about to come back.
    pub fn came_back(&self, key: &Key, from: &Key) {
        let mut departed = self.0.lock();
        if departed.peek(key).is_some_and(|(_, _, note)| note.to == *from) {
            departed.pop(key);
        }
    }

    /// The directory `from` is `to` now: what was below either of them has another name.
    pub fn directory_moved(&self, from: &Key, to: &Key) {
        let is_meant = |key: &Key| key.is_within(from) || key.is_within(to);
        let mut departed = self.0.lock();
        let stale: Vec<Key> = departed
            .iter()
            .filter(|(key, (_, _, note))| is_meant(key) || is_meant(&note.to))
            .map(|(key, _)| key.clone())
            .collect();
        for key in stale {
            departed.pop(&key);
        }
    }
}

impl FileBackend {
    /// An object has left `from`, where it was generation `name`, and is generation `generation` at `to`.
    pub(super) fn left(
        &self,
        from: &Key,
        name: GenerationName,
        mtime: Timestamp,
        note: Note,
        noted: bool,
    ) -> Result<()> {
        if noted {
            return self.keep_as_note(from, &name, &note.text(), mtime);
        }
        self.departed.0.lock().put(from.clone(), (name, mtime, note));
        Ok(())
    }

    /// Another object is about to take the name `key`, by a rename `from` somewhere or as a new one: the history
    /// goes on from what left. Returns whether there is a history.
    pub(super) fn taken_again(&self, key: &Key, from: Option<&Key>) -> Result<bool> {
        let departed = self.departed.0.lock().pop(key);
        // Another process may have renamed directories since: then the name, and the number, are another history's.
        if let Some((name, mtime, note)) = departed
            && self.highest(key)?.is_none_or(|highest| highest.get() < name.number)
        {
            self.keep_as_note(key, &name, &note.text(), mtime)?;
        } else if self.history_dir(key)?.is_none() {
            return Ok(false);
        }
        let kept = self.kept(key)?;
        match kept.last().map(|info| (&info.kept, info.generation)) {
            Some((Kept::Lost(text), left)) if kept.iter().all(|info| matches!(info.kept, Kept::Lost(_))) => {
                match Note::parse(text) {
                    Some(note) if Some(&note.to) != from => self.share_history(&note.to, key, left)?,
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(true)
    }

    /// The object that left `key` for `to` comes back with its history: what was noted of its leaving no longer
    /// holds.
    pub(super) fn comes_back(&self, key: &Key, to: &Key) -> Result<()> {
        let kept = self.kept(key)?;
        let is_note = |info: &GenerationInfo| matches!(&info.kept, Kept::Lost(text) if Note::parse(text).is_some_and(|note| note.to == *to));
        // Where other numbers are remembered too, it counts on from all of them.
        if !kept.iter().all(is_note) {
            return Ok(());
        }
        for info in kept {
            if let Kept::Lost(text) = &info.kept
                && Note::parse(text).is_some_and(|note| note.to == *to)
                && let Some(dir) = self.history_dir(key)?
            {
                rustix::fs::unlinkat(&dir, super::generations::name_of(&info), AtFlags::empty())
                    .map_err(|e| Error::from_io(key, "mend its history", e))?;
            }
        }
        Ok(())
    }

    /// Links what is kept of generations before `upto` at `from` to `to` too.
    fn share_history(&self, from: &Key, to: &Key, upto: Generation) -> Result<()> {
        if let Ok(place) = self.place(from)
            && self.find_optional(from, &place)?.is_some_and(|found| found.stat.kind == FileKind::File)
        {
            self.make_prefix_whole(from, &place)?;
        }
        let (Some(source), Some(target)) = (self.history_dir(from)?, self.history_dir(to)?) else { return Ok(()) };
        let kept = self.kept(from)?;
        let shared = kept.partition_point(|info| info.generation < upto);
        let last = kept[..shared].iter().rposition(|info| !is_passed_over(info));
        for (at, info) in kept[..shared].iter().enumerate() {
            if Some(at) == last
                && let Kept::Prefix(size) = info.kept
                && let Some(whole) = kept[shared..].iter().find(|later| later.kept == Kept::Whole)
            {
                // Its bytes are those of one that stays behind.
                self.copy_prefix(to, info, &self.open_whole(from, whole)?, size)?;
                continue;
            }
            if Some(at) == last && matches!(info.kept, Kept::Prefix(_)) {
                // Nothing here has its bytes.
                self.keep_as_note(to, &super::generations::name_parts(info), CHANGED_OUTSIDE, info.mtime)?;
                continue;
            }
            if let Kept::Lost(note) = &info.kept {
                // The entry itself may still say that its bytes are the beginning of later ones.
                self.keep_as_note(to, &super::generations::name_parts(info), note, info.mtime)?;
                continue;
            }
            let name = super::generations::name_of(info);
            match rustix::fs::linkat(&source, &name, &target, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(Error::from_io(to, "keep the history of the name", error)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_back() {
        let to = Key::parse("a@b/c of d@9 of 7").unwrap();
        let note = Note { to, generation: Generation::FIRST, id: ObjectId::random() };
        assert_eq!(Note::parse(&note.text()), Some(note));
        assert_eq!(Note::parse("kept under its other names"), None);
    }
}
