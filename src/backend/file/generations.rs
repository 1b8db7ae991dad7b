//! Superseded generations, below `.sepia/generations/<key>/`.
//!
//! A regular file there is a whole generation. A symbolic link says in its target what became of the bytes: `first N
//! bytes of M` for one that was only appended to, anything else for bytes that are not kept.

use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, RawDir};
use rustix::io::Errno;

use super::dirs::Room;
use super::entry::{Found, Place, convert, statx};
use super::moved::Note;
use super::notes::{Beginning, CHANGED_OUTSIDE, is_passed_over, read_note};
use super::open::open_place;
use super::*;
use crate::backend::{GenerationName, Kept};
use crate::types::Timestamp;

/// How many renames are followed to find a generation's bytes.
const MOVES: u32 = 8;

impl FileBackend {
    /// The directory of a key's history, if it has one.
    pub(super) fn history_dir(&self, key: &Key) -> Result<Option<Arc<Dir>>> {
        match self.history.open(key, self.locks.moves()) {
            Ok(dir) => Ok(Some(dir)),
            Err(Error::NotFound(_) | Error::NotDirectory(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The directory of a key's history, made if need be.
    pub(super) fn make_history_dir(&self, key: &Key) -> Result<Arc<Dir>> {
        self.history.open_or_create(key, self.locks.moves())
    }

    /// Puts one entry into a key's history.
    pub(super) fn put_in_history<T>(
        &self,
        key: &Key,
        operation: &'static str,
        put: impl Fn(&Room) -> rustix::io::Result<T>,
    ) -> Result<T> {
        let try_once = || {
            let room = self.history.room(key, self.locks.moves())?;
            put(&room).map_err(|e| Error::from_io(key, operation, e))
        };
        match try_once() {
            // Somebody has cleared the history away, and a directory that is held open is no more.
            Err(Error::NotFound(_)) => {
                self.history.clear();
                try_once()
            }
            other => other,
        }
    }

    /// Removes what processes have left in a key's history that died while they put something there. The key is locked.
    pub(super) fn remove_partials(&self, key: &Key) -> Result<()> {
        let failed = |error: Errno| Error::from_io(key, "tidy its history", error);
        let Some(dir) = self.history_dir(key)? else { return Ok(()) };
        let fd = match dir.reopen() {
            // It was cleared away.
            Err(Errno::NOENT) => return Ok(()),
            other => other.map_err(failed)?,
        };
        let mut buffer = Vec::with_capacity(8 << 10);
        let mut reader = RawDir::new(&fd, buffer.spare_capacity_mut());
        let mut partials = Vec::new();
        while let Some(entry) = reader.next() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            // A directory is the history of an object with such a name.
            if entry.file_type() != FileType::Directory
                && name.strip_prefix(b".").is_some_and(|rest| GenerationName::parse(OsStr::from_bytes(rest)).is_some())
            {
                partials.push(OsStr::from_bytes(name).to_owned());
            }
        }
        for name in partials {
            match rustix::fs::unlinkat(&fd, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    /// What is in the directory of a key's history: generations and markers, and the histories of members.
    pub(super) fn history_entries(&self, key: &Key) -> Result<(Vec<GenerationName>, Vec<OsString>)> {
        let (mut names, mut members) = (Vec::new(), Vec::new());
        let Some(dir) = self.history_dir(key)? else {
            return Ok((names, members));
        };
        let failed = |error: Errno| Error::from_io(key, "list its history", error);
        // Somebody has cleared the history away, and this is held open though it is no more: ext4 says so when it is
        // opened again, tmpfs when it is read.
        let anew = || {
            self.history.clear();
            self.history_entries(key)
        };
        let fd = match dir.reopen() {
            Err(Errno::NOENT) => return anew(),
            other => other.map_err(failed)?,
        };
        let mut buffer = Vec::with_capacity(8 << 10);
        let mut reader = RawDir::new(&fd, buffer.spare_capacity_mut());
        while let Some(entry) = reader.next() {
            let entry = match entry {
                Err(Errno::NOENT) => return anew(),
                other => other.map_err(failed)?,
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let is_dir = match entry.file_type() {
                FileType::Unknown => {
                    let stat = rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
                    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
                }
                other => other == FileType::Directory,
            };
            match GenerationName::parse(name) {
                Some(parsed) if !is_dir => names.push(parsed),
                _ if is_dir => members.push(name.to_owned()),
                _ => {}
            }
        }
        names.sort_by_key(|name| (name.number, name.superseded));
        Ok((names, members))
    }

    /// The highest number that the history of `key` knows.
    pub(super) fn highest(&self, key: &Key) -> Result<Option<Generation>> {
        let (names, _) = self.history_entries(key)?;
        Ok(names.iter().filter_map(|name| Generation::new(name.number)).max())
    }

    /// The number that a commit makes over `found`.
    pub(super) fn next_generation(&self, key: &Key, found: Option<&Found>) -> Result<Generation> {
        if let Some(record) = found.and_then(|found| found.record.as_ref()) {
            return Ok(record.generation.next());
        }
        self.close_history(key)?;
        Ok(self.highest(key)?.map_or(Generation::FIRST, Generation::next))
    }

    /// For a key where something else becomes current, or has become by another program's doing. If its last kept
    /// generation is the beginning of one that was removed from outside, that is noted, or the bytes of the next one
    /// would be taken for it.
    pub(super) fn close_history(&self, key: &Key) -> Result<()> {
        let kept = self.kept(key)?;
        let is_gone = |last: &&GenerationInfo| last.kept == Kept::Lost(CHANGED_OUTSIDE.into()) && last.size > 0;
        let Some(last) = kept.iter().rfind(|info| !is_passed_over(info)).filter(is_gone) else { return Ok(()) };
        let superseded = last.superseded.unwrap_or(last.committed);
        let number = self.highest(key)?.unwrap_or(last.generation).next().get();
        let lost = GenerationName { number, committed: superseded, superseded: self.now(), deleted: true };
        log::warn!("{key}: generation {number} was removed outside Sepia");
        self.keep_as_note(key, &lost, CHANGED_OUTSIDE, last.mtime)
    }

    /// Whether bytes are kept for `key`, and not just notes.
    pub(super) fn keeps_bytes(&self, key: &Key) -> Result<bool> {
        Ok(self.kept(key)?.iter().any(|info| !matches!(info.kept, Kept::Lost(_))))
    }

    pub(super) fn kept(&self, key: &Key) -> Result<Vec<GenerationInfo>> {
        let (names, _) = self.history_entries(key)?;
        let Some(dir) = self.history_dir(key)? else {
            return Ok(Vec::new());
        };
        // Not look(), which would wait for the key's lock: the caller may hold it.
        let current = self.place(key).and_then(|place| self.find(key, &place)).ok();
        let record = current.as_ref().and_then(|found| found.record);
        let current = current.and_then(|found| found.stat.generation);
        let beginning = self.last_beginning(key, &dir, &names, record.as_ref())?;
        let last = names.iter().filter_map(|name| Generation::new(name.number)).rfind(|last| Some(*last) != current);
        let mut kept: Vec<GenerationInfo> = Vec::with_capacity(names.len());
        for name in names {
            let Some(generation) = Generation::new(name.number) else { continue };
            // A commit is under way, or died there: this one is still current.
            if current == Some(generation) && record.is_none_or(|record| record.committed == name.committed) {
                continue;
            }
            let Some(info) = self.look_at_kept(key, &dir, generation, &name)? else { continue };
            // The later of two notes on one generation is the true one. A note hides no bytes, unless they are torn.
            if matches!(&info.kept, Kept::Lost(note) if !super::power::is_torn(note))
                && kept.last().is_some_and(|before| before.generation == generation && before.kept == Kept::Whole)
            {
                continue;
            }
            kept.pop_if(|before| before.generation == generation);
            kept.push(info);
        }
        let mut is_lost = match (&record, beginning) {
            (Some(record), Some((beginning, committed))) => {
                !beginning.is_of(record, last) || self.is_rewritten(key, &self.place(key)?, committed)?
            }
            (Some(_), None) => false,
            (None, _) => true,
        };
        for info in kept.iter_mut().rev() {
            match &info.kept {
                Kept::Prefix(_) if is_lost => info.kept = Kept::Lost(CHANGED_OUTSIDE.into()),
                Kept::Lost(note) if note == CHANGED_OUTSIDE => is_lost = true,
                _ if is_passed_over(info) => {}
                _ => is_lost = false,
            }
        }
        Ok(kept)
    }

    /// One superseded generation, at the cost of a look at the names of all.
    pub(super) fn kept_as(&self, key: &Key, generation: Generation) -> Result<Option<GenerationInfo>> {
        self.count_on_if_moved_in(key)?;
        let (names, _) = self.history_entries(key)?;
        let is_meant = |name: &&GenerationName| name.number == generation.get();
        let mut meant = names.iter().filter(is_meant);
        let Some(name) = meant.next_back() else { return Ok(None) };
        let alone = meant.next().is_none();
        let Some(dir) = self.history_dir(key)? else { return Ok(None) };
        let current = self.place(key).and_then(|place| self.find(key, &place)).ok();
        if current.is_some_and(|found| found.stat.generation == Some(generation)) {
            return Ok(None);
        }
        match self.look_at_kept(key, &dir, generation, name)? {
            // Whether its bytes are still there, the later ones tell.
            Some(GenerationInfo { kept: Kept::Prefix(_), .. }) | None => {
                Ok(self.kept(key)?.into_iter().find(|info| info.generation == generation))
            }
            // Which of several is the true one, too.
            _ if !alone => Ok(self.kept(key)?.into_iter().find(|info| info.generation == generation)),
            info => Ok(info),
        }
    }

    /// What an entry of a history is; `None` if it has just vanished.
    pub(super) fn look_at_kept(
        &self,
        key: &Key,
        dir: &Dir,
        generation: Generation,
        name: &GenerationName,
    ) -> Result<Option<GenerationInfo>> {
        let text = name.to_string();
        let statx = match statx(dir, OsStr::new(&text)) {
            Ok(statx) => statx,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(Error::from_io(key, "look at its history", error)),
        };
        let stat = convert(&statx, None);
        let (size, kept) = if stat.kind == FileKind::Symlink {
            let note = read_note(key, dir, &text)?;
            match Beginning::parse(&note) {
                Some(Beginning { size, .. }) => (size, Kept::Prefix(size)),
                None => (0, Kept::Lost(note)),
            }
        } else {
            (stat.size, Kept::Whole)
        };
        Ok(Some(GenerationInfo {
            generation,
            committed: name.committed,
            superseded: Some(name.superseded),
            deleted: name.deleted,
            size,
            mtime: stat.mtime,
            kept,
        }))
    }

    /// The object that an entry of a history is of, if that can be told.
    pub(super) fn object_of(&self, key: &Key, dir: &Arc<Dir>, name: &GenerationName) -> Result<Option<ObjectId>> {
        let text = name.to_string();
        let Some(generation) = Generation::new(name.number) else { return Ok(None) };
        match self.look_at_kept(key, dir, generation, name)? {
            Some(GenerationInfo { kept: Kept::Prefix(_), .. }) => {
                Ok(Beginning::parse(&read_note(key, dir, &text)?).and_then(|beginning| beginning.id))
            }
            Some(GenerationInfo { kept: Kept::Whole, .. }) => {
                let found = self.find_optional(key, &Place { dir: dir.clone(), name: text.into() })?;
                Ok(found.map(|found| found.stat.id))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn keys_with_history(&self, dir: &Key) -> Result<Vec<Key>> {
        let mut keys = Vec::new();
        let mut pending = vec![dir.clone()];
        while let Some(key) = pending.pop() {
            let (names, members) = self.history_entries(&key)?;
            if !names.is_empty() {
                keys.push(key.clone());
            }
            for member in members {
                pending.push(key.child(&member)?);
            }
        }
        keys.sort();
        Ok(keys)
    }

    pub(super) fn open_kept(&self, key: &Key, generation: Generation) -> Result<Opened> {
        self.open_moved(key, generation, MOVES)
    }

    fn open_moved(&self, key: &Key, generation: Generation, follow: u32) -> Result<Opened> {
        let missing = || Error::NoGeneration(key.clone(), generation);
        let current = match self.open_current(key) {
            Ok(opened) => Some(opened),
            Err(Error::NotFound(_) | Error::NotDirectory(_) | Error::Invalid(..)) => None,
            Err(error) => return Err(error),
        };
        if let Some(opened) = &current
            && opened.stat.generation == Some(generation)
        {
            if follow > 0 && self.count_on_if_moved_in(key)? {
                return self.open_moved(key, generation, follow - 1);
            }
            return Ok(current.unwrap_or_else(|| unreachable!("matched above")));
        }
        let info = self.kept_as(key, generation)?.ok_or_else(missing)?;
        let mut opened = match &info.kept {
            Kept::Whole => self.open_whole(key, &info)?,
            // Its object has another name now. Numbers there go on counting, so this ends.
            Kept::Lost(text) => match Note::parse(text) {
                Some(note) if (&note.to, note.generation) != (key, generation) && follow > 0 => {
                    let there = self.open_moved(&note.to, note.generation, follow - 1)?;
                    if there.stat.id != note.id {
                        return Err(missing());
                    }
                    there
                }
                _ => return Err(missing()),
            },
            Kept::Prefix(_) => {
                // Its bytes are the beginning of every later one up to the next that was not appended to.
                let later = self.kept(key)?.into_iter().filter(|later| later.generation > generation);
                match (later.into_iter().find(|later| later.kept == Kept::Whole), current) {
                    (Some(whole), _) => self.open_whole(key, &whole)?,
                    (None, Some(current)) => current,
                    (None, None) => return Err(missing()),
                }
            }
        };
        if matches!(info.kept, Kept::Lost(_)) {
            opened.stat.generation = Some(generation);
            return Ok(opened);
        }
        if opened.stat.size < info.size {
            return Err(Error::Invalid(key.clone(), "the generation is shorter than recorded; run: sepia recover"));
        }
        opened.stat.size = info.size;
        opened.stat.mtime = info.mtime;
        opened.stat.generation = Some(generation);
        opened.stat.committed = Some(info.committed);
        Ok(opened)
    }

    /// A generation that was listed just now.
    pub(super) fn open_listed(&self, key: &Key, info: &GenerationInfo) -> Result<Opened> {
        if info.kept != Kept::Whole || info.superseded.is_none() {
            return self.open_kept(key, info.generation);
        }
        let mut opened = match self.open_whole(key, info) {
            Err(Error::NotFound(_)) => return Err(Error::NoGeneration(key.clone(), info.generation)),
            other => other?,
        };
        opened.stat.generation = Some(info.generation);
        opened.stat.committed = Some(info.committed);
        Ok(opened)
    }

    pub(super) fn open_whole(&self, key: &Key, info: &GenerationInfo) -> Result<Opened> {
        let dir = self.history_dir(key)?.ok_or_else(|| Error::NoGeneration(key.clone(), info.generation))?;
        open_place(key, &Place { dir, name: name_of(info).into() })
    }

    /// Whether everything from generation `from` on, as it was `committed`, only appended to it, up to the current
    /// one, though that may be another file.
    pub(super) fn only_appended_since(
        &self,
        key: &Key,
        (from, committed): (Generation, Timestamp),
        current: Generation,
    ) -> Result<bool> {
        let kept = self.kept(key)?;
        let is_base = |info: &GenerationInfo| info.generation == from && info.committed == committed;
        let is_beginning = |number: u64| {
            kept.iter().filter(|info| info.generation.get() == number).any(|info| match &info.kept {
                Kept::Prefix(_) => true,
                // What was brought back in its stead begins with `from`, unless that itself was torn.
                Kept::Lost(note) => {
                    number > from.get() && super::power::brought_back(note).is_some_and(|back| back >= from)
                }
                Kept::Whole => false,
            })
        };
        Ok(kept.iter().any(is_base) && from < current && (from.get()..current.get()).all(is_beginning))
    }
}

/// The name under which what is at a place is to be kept; `None` when it is no generation.
pub fn kept_name(found: &Found, now: Timestamp, deleted: bool) -> Option<GenerationName> {
    let generation = found.stat.generation?;
    let committed = found.record.as_ref().map_or(found.stat.mtime, |record| record.committed);
    Some(GenerationName { number: generation.get(), committed, superseded: now, deleted })
}

pub fn name_parts(info: &GenerationInfo) -> GenerationName {
    GenerationName {
        number: info.generation.get(),
        committed: info.committed,
        superseded: info.superseded.unwrap_or(info.committed),
        deleted: info.deleted,
    }
}

/// The name under which a generation is kept.
pub fn name_of(info: &GenerationInfo) -> String {
    name_parts(info).to_string()
}
