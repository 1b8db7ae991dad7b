//! Notes in a history: symbolic links whose targets say what became of a generation's bytes.
//!
//! The most important are those on *beginnings*: generations whose bytes are the first ones of a later generation. Which
//! that is, whether it is still the one that was meant, and what may lie in between, is told here; what is read from
//! them, by [`super::generations`].

use rustix::fs::{AtFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::dirs::Dir;
use super::entry::{Place, read_rewritten};
use super::keeping::remove_partial;
use super::record::{Record, Unsettled};
use super::*;
use crate::backend::{GenerationName, Kept};
use crate::types::Timestamp;

/// The note on a generation that was changed or removed from outside, and on what can be read only from it.
pub const CHANGED_OUTSIDE: &str = "the file was changed outside Sepia";
/// The note on a generation that was dropped. What comes before it may be the beginning of what comes after it.
pub const DROPPED: &str = "dropped";

/// Where the bytes of a generation are, when they are not there themselves.
const PREFIX: (&str, &str) = ("first ", " bytes of ");
/// Of which object, after the number.
const OBJECT: &str = " of ";
/// The sum of its last bytes, and where these begin, if they were not synced.
const SUM: (&str, &str) = (", crc32 ", " from ");

impl FileBackend {
    /// Keeps a generation as words: where its bytes are, or why they aren't kept.
    pub(super) fn keep_as_note(&self, key: &Key, name: &GenerationName, text: &str, mtime: Timestamp) -> Result<()> {
        let mtime = Timespec { tv_sec: mtime.seconds(), tv_nsec: i64::from(mtime.subsec_nanos()) };
        let times = Timestamps { last_access: mtime, last_modification: mtime };
        self.put_in_history(key, "note the generation before", |room| {
            let name = room.path(name.to_string());
            match rustix::fs::symlinkat(text, &room.dir, &name) {
                Ok(()) => {}
                Err(Errno::EXIST) => return Ok(()),
                Err(error) => return Err(error),
            }
            // For people who look at the history; the bytes don't depend on it.
            let _ = rustix::fs::utimensat(&room.dir, &name, &times, AtFlags::SYMLINK_NOFOLLOW);
            Ok(())
        })
    }

    /// What the last entry of a history says, before the `current` generation, if it is the beginning of something later;
    /// and when that was committed.
    pub(super) fn last_beginning(
        &self,
        key: &Key,
        dir: &Dir,
        names: &[GenerationName],
        current: Option<&Record>,
    ) -> Result<Option<(Beginning, Timestamp)>> {
        let own = |name: &&GenerationName| {
            current.is_some_and(|record| record.generation.get() == name.number && record.committed == name.committed)
        };
        for name in names.iter().rev().filter(|name| !own(name)) {
            let Some(generation) = Generation::new(name.number) else { break };
            match self.look_at_kept(key, dir, generation, name)? {
                Some(info) if is_passed_over(&info) => {}
                Some(GenerationInfo { kept: Kept::Prefix(_), committed, .. }) => {
                    let beginning = Beginning::parse(&read_note(key, dir, &name.to_string())?);
                    return Ok(beginning.map(|beginning| (beginning, committed)));
                }
                _ => break,
            }
        }
        Ok(None)
    }

    /// Whether what was committed then is the beginning of the file at a place no more: it was written in place since, or
    /// replaced by another file, under another name.
    pub(super) fn is_rewritten(&self, key: &Key, place: &Place, committed: Timestamp) -> Result<bool> {
        Ok(read_rewritten(key, place)?.is_some_and(|rewritten| rewritten > committed))
    }

    /// The object has another id from now on, since its store was copied: says so in the notes on its beginnings.
    pub(super) fn readdress(&self, key: &Key, record: &Record, id: ObjectId) -> Result<()> {
        let failed = |error: Errno| Error::from_io(key, "mend its history", error);
        let (names, _) = self.history_entries(key)?;
        let Some(dir) = self.history_dir(key)? else { return Ok(()) };
        for name in names.iter().rev() {
            let Some(generation) = Generation::new(name.number) else { break };
            match self.look_at_kept(key, &dir, generation, name)? {
                Some(info) if is_passed_over(&info) => continue,
                Some(GenerationInfo { kept: Kept::Prefix(_), .. }) => {}
                _ => break,
            }
            let text = name.to_string();
            let Some(beginning) = Beginning::parse(&read_note(key, &dir, &text)?) else { break };
            if beginning.id != Some(record.id) {
                break;
            }
            let (note, partial) = (Beginning { id: Some(id), ..beginning }.note(generation.next()), format!(".{text}"));
            remove_partial(key, &dir, &partial)?;
            rustix::fs::symlinkat(&note, &dir, &partial).map_err(failed)?;
            rustix::fs::renameat(&dir, &partial, &dir, &text).map_err(failed)?;
        }
        Ok(())
    }
}

/// What a note says of a generation that is the beginning of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginning {
    pub size: u64,
    /// The object that it is of. Notes of the first stores don't say.
    pub id: Option<ObjectId>,
    /// What of it may not be on the medium.
    pub unsettled: Unsettled,
}

impl Beginning {
    /// Whether it is the beginning of what has this record, and not of something that had the name before. `last` is
    /// the last number of the history.
    pub fn is_of(&self, record: &Record, last: Option<Generation>) -> bool {
        self.id.map_or_else(|| last.is_none_or(|last| record.generation >= last), |id| id == record.id)
    }

    /// The text of the note; `of` is the number of the next generation.
    pub fn note(&self, of: Generation) -> String {
        let Unsettled { from, sum } = self.unsettled;
        let sum = if from < self.size { format!("{}{sum:08x}{}{from}", SUM.0, SUM.1) } else { String::new() };
        let id = self.id.map(|id| format!("{OBJECT}{id}")).unwrap_or_default();
        format!("{}{}{}{of}{id}{sum}", PREFIX.0, self.size, PREFIX.1)
    }

    pub fn parse(note: &str) -> Option<Self> {
        let (size, of) = note.strip_prefix(PREFIX.0)?.split_once(PREFIX.1)?;
        let size = size.parse().ok()?;
        let (of, unsettled) = match of.split_once(SUM.0) {
            None => (of, Unsettled::nothing(size)),
            Some((of, sum)) => {
                let (sum, from) = sum.split_once(SUM.1)?;
                (of, Unsettled { from: from.parse().ok()?, sum: u32::from_str_radix(sum, 16).ok()? })
            }
        };
        let id = match of.split_once(OBJECT) {
            Some((_, id)) => u64::from_str_radix(id, 16).ok().and_then(ObjectId::from_raw),
            None => None,
        };
        Some(Beginning { size, id, unsettled })
    }
}

pub fn read_note(key: &Key, dir: &Dir, name: &str) -> Result<String> {
    let target = rustix::fs::readlinkat(dir, name, Vec::new())
        .map_err(|e| Error::from_io(key, "read a note in its history", e))?;
    Ok(String::from_utf8_lossy(target.as_bytes()).into_owned())
}

/// Whether what comes before it may be the beginning of what comes after it: it says that a number was in use and no
/// more, or that its bytes were torn, and then it was a beginning that was brought back.
pub fn is_passed_over(info: &GenerationInfo) -> bool {
    matches!(&info.kept, Kept::Lost(note) if note == DROPPED || super::power::is_torn(note))
}
