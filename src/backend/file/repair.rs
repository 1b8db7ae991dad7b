//! Putting one object in order after a process died in the middle of changing it.

use std::os::unix::fs::FileExt;

use super::adopt::replaces;
use super::entry::Found;
use super::in_place::{Own, Undo};
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
        let Some(from) = intent.append_from else {
            let own = Own { key, place: &place, found: &found };
            return if intent.in_place { self.finish_copy(own, abandoned) } else { Ok(false) };
        };
        let Some(record) = found.record else { return Ok(false) };
        if intent.in_place && record.inode == found.stat.incarnation {
            let own = Own { key, place: &place, found: &found };
            if self.undo_half_append(own, intent, abandoned.staged.file())? {
                found = self.find(key, &place)?;
            }
        }
        self.is_appended(&found, abandoned, from)
    }

    /// A commit into the object's own file that died: undone, so that it can be done again, or finished where nobody else
    /// has what was there before. Returns whether it is done.
    fn finish_copy(&self, own: Own<'_>, abandoned: &Abandoned) -> Result<bool> {
        let Own { key, place, found } = own;
        let failed = |error: std::io::Error| Error::from_io(key, "compare a save", error);
        if found.record.is_some_and(|record| record.inode != found.stat.incarnation) {
            return Ok(false);
        }
        if !replaces(&abandoned.intent, found) {
            // It may have been recorded already.
            let staged = abandoned.staged.file();
            let length = staged.metadata().map_err(failed)?.len();
            let is_whole = found.record.is_some() && !found.is_changed() && found.stat.size == length;
            if !is_whole {
                return Ok(false);
            }
            let current = super::open::open_place(key, place)?.file;
            return holds(&current, 0, staged, 0, length).map_err(failed);
        }
        if !found.is_changed() {
            return Ok(false);
        }
        match (self.undo_copy(own, Some(abandoned.staged.file()))?, &found.record) {
            // It amended a generation of its own, which nobody else has.
            (Undo::Impossible, Some(record)) => {
                self.write_into(own, &abandoned.staged, record.generation, self.now())?;
                Ok(true)
            }
            _ => Ok(false),
        }
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

/// Whether a file has, from offset `at` to its end, nothing but bytes that another has from `from` on: all of them, or as many
/// as had been copied when something was cut short. Blocks that a power loss kept from the medium read as zeros.
pub fn is_part(file: &File, at: u64, other: &File, from: u64) -> std::io::Result<bool> {
    let length = file.metadata()?.len().saturating_sub(at);
    if length > other.metadata()?.len().saturating_sub(from) {
        return Ok(false);
    }
    let (mut ours, mut theirs) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut done = 0;
    while done < length {
        let most = usize::try_from(length - done).unwrap_or(usize::MAX).min(ours.len());
        file.read_exact_at(&mut ours[..most], at + done)?;
        other.read_exact_at(&mut theirs[..most], from + done)?;
        if ours[..most].iter().zip(&theirs[..most]).any(|(our, their)| our != their && *our != 0) {
            return Ok(false);
        }
        done += most as u64;
    }
    Ok(true)
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
