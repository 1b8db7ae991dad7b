//! Putting one object in order after a process died in the middle of changing it.

use std::os::unix::fs::FileExt;

use super::entry::Found;
use super::*;

impl FileBackend {
    /// A commit that died before its rename left at most a second link to the current generation, which the next
    /// commit would stumble over; one that died while it appended left bytes behind the recorded end. Both are
    /// undone. An append that was recorded but not forgotten is recognized by its bytes.
    pub(super) fn repair_object(&self, abandoned: &Abandoned) -> Result<bool> {
        let intent = &abandoned.intent;
        let key = &intent.key;
        let _tree = self.locks.share_tree(key)?;
        let _lock = self.lock(key)?;
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
        let (Some(record), Some(from)) = (found.record, intent.append_from) else {
            return Ok(false);
        };
        if intent.in_place && record.inode == found.stat.incarnation && found.stat.size > record.size {
            self.undo_append(key, &place, &record)?;
            found = self.find(key, &place)?;
        }
        self.is_appended(&found, abandoned, from)
    }

    /// Whether what was staged to be appended is what the current generation ends with, one commit after the expected.
    fn is_appended(&self, found: &Found, abandoned: &Abandoned, from: u64) -> Result<bool> {
        let key = &abandoned.intent.key;
        let (Precondition::Version(base, id, committed), Some(current)) =
            (abandoned.intent.expect, found.stat.generation)
        else {
            return Ok(false);
        };
        // A session that appends again amends its own generation: the number stays, the time of the commit doesn't.
        let next = current == base.next() || (current == base && found.stat.committed != Some(committed));
        let staged = abandoned.staged.file();
        let failed = |error: std::io::Error| Error::from_io(key, "compare an append", error);
        let length = staged.metadata().map_err(failed)?.len().saturating_sub(from);
        if found.stat.id != id || !next || length == 0 || found.stat.size < length {
            return Ok(false);
        }
        let object = super::open::open_place(key, &self.place(key)?)?.file;
        let start = found.stat.size - length;
        let (mut ours, mut theirs) = (vec![0; 64 << 10], vec![0; 64 << 10]);
        let mut at = 0;
        while at < length {
            let most = usize::try_from(length - at).unwrap_or(usize::MAX).min(ours.len());
            staged.read_exact_at(&mut ours[..most], from + at).map_err(failed)?;
            object.read_exact_at(&mut theirs[..most], start + at).map_err(failed)?;
            if ours[..most] != theirs[..most] {
                return Ok(false);
            }
            at += most as u64;
        }
        Ok(true)
    }
}
