//! Putting one object in order after a process died in the middle of changing it.

use std::os::unix::fs::FileExt;

use super::adopt::replaces;
use super::entry::{Found, Place};
use super::in_place::has_begun;
use super::record::Record;
use super::*;
use crate::backend::Kept;
use crate::types::Timestamp;

impl FileBackend {
    /// A commit that died before its rename left at most a second link to the current generation, which the next
    /// commit would stumble over; one that died while it appended left bytes behind the recorded end. Both are
    /// undone. An append that was recorded but not forgotten is recognized by its bytes.
    pub(super) fn repair_object(&self, abandoned: &Abandoned) -> Result<bool> {
        let intent = &abandoned.intent;
        let key = &intent.key;
        let _tree = self.locks.share_tree(key)?;
        let _lock = self.lock(key)?;
        self.remove_partials(key)?;
        let place = match self.place(key) {
            Ok(place) => place,
            Err(Error::NotFound(_) | Error::NotDirectory(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        let Some(mut found) = self.find_optional(key, &place)? else {
            return Ok(false);
        };
        if found.stat.kind != FileKind::File {
            return Ok(false);
        }
        self.unkeep(key, &found)?;
        let Some(record) = found.record else { return Ok(false) };
        let Some(from) = intent.append_from else {
            return if intent.in_place { self.finish_copy(&place, &found, &record, abandoned) } else { Ok(false) };
        };
        if intent.in_place && record.inode == found.stat.incarnation && found.stat.size > record.size {
            self.undo_append(key, &place, &record)?;
            found = self.find(key, &place)?;
        }
        self.is_appended(&found, abandoned, from)
    }

    /// A commit into the object's own file that died: undone, so that it can be done again, or finished where nobody else
    /// has what was there before. Returns whether it is done.
    fn finish_copy(&self, place: &Place, found: &Found, record: &Record, abandoned: &Abandoned) -> Result<bool> {
        let key = &abandoned.intent.key;
        let failed = |error: std::io::Error| Error::from_io(key, "compare a save", error);
        if record.inode != found.stat.incarnation {
            return Ok(false);
        }
        if !replaces(&abandoned.intent, record) {
            // It may have been recorded already.
            let staged = abandoned.staged.file();
            let length = staged.metadata().map_err(failed)?.len();
            let is_whole = !found.is_changed() && found.stat.size == length;
            let current = super::open::open_place(key, place)?.file;
            return Ok(is_whole && holds(&current, 0, staged, 0, length).map_err(failed)?);
        }
        if !found.is_changed() || self.undo_copy(key, place, found)? {
            return Ok(false);
        }
        // It amended a generation of its own, which nobody else has.
        let begun = has_begun(key, place, record)?;
        if begun {
            self.write_into(key, place, found, &abandoned.staged, record.generation, self.now())?;
        }
        Ok(begun)
    }

    /// Whether what was staged to be appended is what a generation ends with, one commit after the expected. Others may
    /// have saved since.
    fn is_appended(&self, found: &Found, abandoned: &Abandoned, from: u64) -> Result<bool> {
        let key = &abandoned.intent.key;
        let Precondition::Version(base, id, committed) = abandoned.intent.expect else { return Ok(false) };
        let staged = abandoned.staged.file();
        let failed = |error: std::io::Error| Error::from_io(key, "compare an append", error);
        let length = staged.metadata().map_err(failed)?.len().saturating_sub(from);
        // That it is about to append is noted by who appends.
        if found.stat.id != id || length == 0 || !abandoned.intent.in_place {
            return Ok(false);
        }
        // A session that appends again amends its own generation: the number stays, the time of the commit doesn't.
        let is_next = |generation: Generation, when: Option<Timestamp>| {
            generation == base.next() || (generation == base && when != Some(committed))
        };
        let current = super::open::open_place(key, &self.place(key)?)?.file;
        let mut whole = current.clone();
        let mut ends = Vec::new();
        if found.stat.generation.is_some_and(|generation| is_next(generation, found.stat.committed)) {
            ends.push((current, found.stat.size));
        }
        let kept = self.kept(key)?;
        // If it was kept, its size says where the bytes must begin.
        let is_base = |info: &&GenerationInfo| info.generation == base && info.committed == committed;
        let start = kept.iter().find(is_base).map(|info| info.size);
        for info in kept.iter().rev() {
            match info.kept {
                Kept::Whole => whole = self.open_whole(key, info)?.file,
                Kept::Prefix(_) => {}
                Kept::Lost(_) => continue,
            }
            if is_next(info.generation, Some(info.committed)) {
                ends.push((whole.clone(), info.size));
            }
        }
        for (file, end) in ends {
            let begins = end.checked_sub(length).is_some_and(|at| start.is_none_or(|start| at == start));
            if begins && holds(&file, end - length, staged, from, length).map_err(failed)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a file has, from offset `at` on, the `length` bytes that another has from `from` on.
fn holds(file: &File, at: u64, other: &File, from: u64, length: u64) -> std::io::Result<bool> {
    let (mut ours, mut theirs) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut done = 0;
    while done < length {
        let most = usize::try_from(length - done).unwrap_or(usize::MAX).min(ours.len());
        other.read_exact_at(&mut ours[..most], from + done)?;
        match file.read_exact_at(&mut theirs[..most], at + done) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
        if ours[..most] != theirs[..most] {
            return Ok(false);
        }
        done += most as u64;
    }
    Ok(true)
}
