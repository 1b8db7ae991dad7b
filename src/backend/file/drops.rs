//! Dropping generations, and forgetting keys.
//!
//! All of one call is done under the key's lock and by one listing, so that thinning a long history costs what is
//! dropped. What is dropped is replaced by nothing, or in one step by a note: a crash leaves either.

use std::collections::HashMap;

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::generations::name_of;
use super::keeping::remove_partial;
use super::notes::{CHANGED_OUTSIDE, DROPPED, is_passed_over};
use super::*;
use crate::backend::Kept;

/// The unit of `st_blocks`, in bytes.
const BLOCK: u64 = 512;

impl FileBackend {
    pub(super) fn drop_from_history(
        &self,
        key: &Key,
        which: &[GenerationInfo],
        gone: bool,
    ) -> Result<Vec<Result<u64>>> {
        let _tree = self.locks.share_tree(key)?;
        let _lock = self.locks.key(key)?;
        if gone {
            self.check_gone(key)?;
        }
        self.remove_partials(key)?;
        let kept = self.kept(key)?;
        let wanted: HashMap<Generation, &GenerationInfo> = which.iter().map(|info| (info.generation, info)).collect();
        let mut results = HashMap::new();
        // The entry before the one that is looked at, as it is after the drops, which says what became of its bytes; and the
        // last before it with bytes.
        let mut before: Option<&GenerationInfo> = None;
        let mut bytes_before: Option<&Kept> = None;
        for (at, info) in kept.iter().enumerate() {
            let is_wanted = wanted.get(&info.generation).is_some_and(|wanted| wanted.is_same_as(info));
            if is_wanted {
                let result = if info.kept == Kept::Whole && matches!(bytes_before, Some(Kept::Prefix(_))) {
                    Err(Error::Invalid(key.clone(), "an older generation is kept as the beginning of this one"))
                } else if before.is_some_and(|before| lost_by(before, info)) {
                    Err(Error::Invalid(key.clone(), "it says that the bytes of the generation before it are lost"))
                } else {
                    self.drop_entry(key, info, at + 1 == kept.len())
                };
                let dropped = result.is_ok();
                results.insert(info.generation, result);
                if dropped {
                    continue;
                }
            }
            if !is_passed_over(info) {
                before = Some(info);
            }
            if !matches!(info.kept, Kept::Lost(_)) {
                bytes_before = Some(&info.kept);
            }
        }
        let missing = |info: &GenerationInfo| Err(Error::NoGeneration(key.clone(), info.generation));
        Ok(which.iter().map(|info| results.remove(&info.generation).unwrap_or_else(|| missing(info))).collect())
    }

    /// Returns the bytes that were freed.
    fn drop_entry(&self, key: &Key, info: &GenerationInfo, last: bool) -> Result<u64> {
        let failed = |error: Errno| Error::from_io(key, "drop a generation", error);
        if last && matches!(info.kept, Kept::Lost(_)) {
            // It says already what is to be said, and its number must not be used again.
            return Ok(0);
        }
        let Some(dir) = self.history_dir(key)? else {
            return Err(Error::NoGeneration(key.clone(), info.generation));
        };
        let name = name_of(info);
        let freed = match rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1 => {
                stat.st_blocks.unsigned_abs() * BLOCK
            }
            Ok(_) => 0,
            Err(error) => return Err(failed(error)),
        };
        if last {
            // Where it is the last that the history knows, a note takes its place, so that the number is not used again.
            let note = format!(".{name}");
            remove_partial(key, &dir, &note)?;
            rustix::fs::symlinkat(DROPPED, &dir, &note).map_err(failed)?;
            rustix::fs::renameat(&dir, &note, &dir, &name).map_err(failed)?;
        } else {
            rustix::fs::unlinkat(&dir, &name, AtFlags::empty()).map_err(failed)?;
        }
        Ok(freed)
    }

    fn check_gone(&self, key: &Key) -> Result<()> {
        let place = match self.place(key) {
            Ok(place) => place,
            Err(Error::NotFound(_) | Error::NotDirectory(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        match self.find_optional(key, &place)? {
            Some(found) if found.stat.kind == FileKind::File => Err(Error::Exists(key.clone())),
            _ => Ok(()),
        }
    }

    pub(super) fn forget_key(&self, key: &Key, which: &[GenerationInfo]) -> Result<()> {
        let failed = |error: Errno| Error::from_io(key, "forget its history", error);
        let _tree = self.locks.share_tree(key)?;
        let _lock = self.locks.key(key)?;
        self.check_gone(key)?;
        let kept = self.kept(key)?;
        let same = kept.len() == which.len() && kept.iter().zip(which).all(|(a, b)| a.is_same_as(b));
        if !same || kept.iter().any(|info| !matches!(info.kept, Kept::Lost(_))) {
            return Err(Error::Invalid(key.clone(), "its history is another one by now"));
        }
        let (names, members) = self.history_entries(key)?;
        let Some(dir) = self.history_dir(key)? else { return Ok(()) };
        // The last one last: up to then it says how far the numbers were given out.
        for name in &names {
            rustix::fs::unlinkat(&dir, name.to_string(), AtFlags::empty()).map_err(failed)?;
        }
        drop(dir);
        if members.is_empty()
            && let (Some(parent), Some(name)) = (key.parent(), key.name())
            && let Some(above) = self.history_dir(&parent)?
        {
            // Refused when something else is in it.
            if rustix::fs::unlinkat(&above, name, AtFlags::REMOVEDIR).is_ok() {
                self.history_moved();
            }
        }
        Ok(())
    }

    pub(super) fn xattrs_of(&self, key: &Key, generation: Generation) -> Result<Vec<(OsString, Vec<u8>)>> {
        use std::os::unix::ffi::OsStringExt;
        let failed = |error: Errno| Error::from_io(key, "read its attributes", error);
        let opened = self.open_kept(key, generation)?;
        let mut list = vec![0; 64 << 10];
        let length = match rustix::fs::flistxattr(&*opened.file, &mut list[..]) {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP) => 0,
            Err(error) => return Err(failed(error)),
        };
        let mut attributes = Vec::new();
        for name in list[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            let name = OsString::from_vec(name.to_vec());
            if record::is_own(&name) {
                continue;
            }
            let mut value = vec![0; 64 << 10];
            match rustix::fs::fgetxattr(&*opened.file, &name, &mut value[..]) {
                Ok(length) => {
                    value.truncate(length);
                    attributes.push((name, value));
                }
                Err(Errno::NODATA) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(attributes)
    }
}

/// Whether `note` is what says that the bytes of the generation before it can't be had.
fn lost_by(before: &GenerationInfo, note: &GenerationInfo) -> bool {
    let lost = Kept::Lost(CHANGED_OUTSIDE.into());
    note.kept == lost && before.kept == lost && before.size > 0
}
