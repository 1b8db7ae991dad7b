//! What a power loss does to generations that nobody has synced.
//!
//! close(2) doesn't wait for the medium, so a power loss can leave a name that leads to bytes that were never
//! written: cut short, or zeros. Each record therefore has a sum of the bytes that may not be on the medium yet, and
//! `.sepia/settled` says up to when all is, as of which mounting of the filesystem. Whoever opens the store after a
//! power loss looks at all that was saved later: what is torn gives way to the newest generation that is whole, and
//! what is left of it is set aside.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, StatxFlags};
use serde::{Deserialize, Serialize};

use super::adopt::replaces;
use super::entry::{Found, Place};
use super::generations::{kept_name, name_of};
use super::notes::{Beginning, is_passed_over, read_note};
use super::record::{Record, Unsettled};
use super::*;
use crate::backend::checksum::sum_of;
use crate::backend::ownership::give_path;
use crate::backend::{GenerationName, Intent, Kept, Torn, copy_range};
use crate::types::Timestamp;

/// The note on a generation that was torn.
const TORN: &str = "torn by a power loss";
/// And which one was brought back.
const BROUGHT_BACK: &str = "; brought back: ";
/// A save is stamped before its bytes are where syncfs(2) finds them, and clocks are set back now and then.
const SLACK: i64 = 10_000_000_000;

/// `.sepia/settled`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Settled {
    /// The mounting of the filesystem for which this holds.
    mounting: String,
    /// What was saved up to then is on the medium (nanoseconds since 1970).
    through: i64,
    /// So is all the rest: nobody writes.
    clean: bool,
}

/// What this process knows of it.
#[derive(Debug)]
pub struct Power {
    meta: PathBuf,
    /// There are saves of this process that may not be on the medium.
    pending: AtomicBool,
    /// Held, shared, as long as this process may have such saves.
    writing: Mutex<Option<OwnedFd>>,
}

impl Power {
    pub fn new(meta: PathBuf) -> Self {
        Power { meta, pending: AtomicBool::new(false), writing: Mutex::new(None) }
    }

    /// A save is about to be made without syncing it.
    pub fn unsettle(&self) -> std::io::Result<()> {
        if self.pending.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut writing = self.writing.lock();
        if writing.is_some() {
            self.pending.store(true, Ordering::Release);
            return Ok(());
        }
        let _marker = self.lock("settled", FlockOperation::LockExclusive)?;
        let lock = self.lock("writing", FlockOperation::LockShared)?;
        let mounting = self.mounting()?;
        let known = self.read()?;
        if known.is_none_or(|known| known.clean) {
            self.write(&Settled { mounting, through: Timestamp::now().nanos(), clean: false })?;
        }
        *writing = Some(lock);
        self.pending.store(true, Ordering::Release);
        Ok(())
    }

    /// The save was made: its bytes may have come after a sync that began since [`Power::unsettle`].
    pub fn saved(&self) {
        self.pending.store(true, Ordering::Release);
    }

    /// Waits until everything is on the medium. `end`: this process makes no further saves.
    fn settle(&self, end: bool) -> std::io::Result<()> {
        if self.writing.lock().is_none() {
            return Ok(());
        }
        // Not under the lock: saves go on meanwhile, and are pending again.
        let pending = self.pending.swap(false, Ordering::AcqRel);
        let through = Timestamp::now().nanos() - SLACK;
        if pending {
            let dir =
                rustix::fs::open(&self.meta, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            if let Err(error) = rustix::fs::syncfs(&dir) {
                self.pending.store(true, Ordering::Release);
                return Err(error.into());
            }
        }
        let _marker = self.lock("settled", FlockOperation::LockExclusive)?;
        let Some(known) = self.read()? else { return Ok(()) };
        if known.clean || known.mounting != self.mounting()? {
            return Ok(());
        }
        if end {
            *self.writing.lock() = None;
        }
        // Whoever else writes says itself when it has ended.
        let clean = end && self.lock("writing", FlockOperation::NonBlockingLockExclusive).is_ok();
        if clean || pending {
            self.write(&Settled { through: through.max(known.through), clean, ..known })?;
        }
        Ok(())
    }

    /// What tells one mounting of the filesystem from the next: after a power loss it is another one.
    fn mounting(&self) -> std::io::Result<String> {
        const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let flags = StatxFlags::MNT_ID | MNT_ID_UNIQUE;
        let mount = rustix::fs::statx(rustix::fs::CWD, &self.meta, AtFlags::empty(), flags)?.stx_mnt_id;
        Ok(format!("{} {mount}", boot.trim()))
    }

    fn lock(&self, name: &str, how: FlockOperation) -> std::io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(self.meta.join("lock").join(name), flags, Mode::RUSR | Mode::WUSR)?;
        give_path(&self.meta.join("lock").join(name));
        rustix::fs::flock(&file, how)?;
        Ok(file)
    }

    fn read(&self) -> std::io::Result<Option<Settled>> {
        match std::fs::read(self.meta.join("settled")) {
            // What can't be read says nothing: all is looked at.
            Ok(text) => Ok(Some(serde_json::from_slice(&text).unwrap_or(Settled {
                mounting: String::new(),
                through: 0,
                clean: false,
            }))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, settled: &Settled) -> std::io::Result<()> {
        let (path, new) = (self.meta.join("settled"), self.meta.join("settled.new"));
        let mut file = std::fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec(settled)?)?;
        give_path(&new);
        file.sync_all()?;
        std::fs::rename(new, path)?;
        std::fs::File::open(&self.meta)?.sync_all()
    }
}

impl Drop for Power {
    fn drop(&mut self) {
        if let Err(error) = self.settle(true) {
            log::debug!("the next user after a reboot has more to look at: {error}");
        }
    }
}

impl FileBackend {
    pub(super) fn unsettle(&self, key: &Key) -> Result<()> {
        self.power.unsettle().map_err(|e| Error::from_io(key, "note that it is not synced", e))
    }

    pub(super) fn settle_all(&self, end: bool) -> Result<()> {
        self.power.settle(end).map_err(|e| Error::from_io(&Key::root(), "sync the store", e))
    }

    pub(super) fn mend_after_power_loss(&self) -> Result<Vec<Torn>> {
        let failed = |error: std::io::Error| Error::from_io(&Key::root(), "look for what a power loss has torn", error);
        let suspect = |known: &Option<Settled>| -> std::io::Result<bool> {
            Ok(match known {
                Some(known) => !known.clean && known.mounting != self.power.mounting()?,
                None => false,
            })
        };
        if !suspect(&self.power.read().map_err(failed)?).map_err(failed)? {
            return Ok(Vec::new());
        }
        let _marker = self.power.lock("settled", FlockOperation::LockExclusive).map_err(failed)?;
        // Who writes now was there before whatever happened, or has looked already.
        let Ok(_alone) = self.power.lock("writing", FlockOperation::NonBlockingLockExclusive) else {
            return Ok(Vec::new());
        };
        let known = self.power.read().map_err(failed)?;
        if !suspect(&known).map_err(failed)? {
            return Ok(Vec::new());
        }
        let through = Timestamp::from_nanos(known.map_or(0, |known| known.through));
        let mut torn = Vec::new();
        // First the histories, for from them comes what is brought back.
        for key in self.keys_with_history(&Key::root())? {
            self.mend_history(&key, through, &mut torn)?;
        }
        let mut pending = vec![Key::root()];
        while let Some(dir) = pending.pop() {
            for entry in self.read_dir(&dir)? {
                let key = dir.child(&entry.name)?;
                match entry.kind {
                    FileKind::Directory => pending.push(key),
                    FileKind::File => torn.extend(self.mend_object(&key, through)?),
                    _ => {}
                }
            }
        }
        let root = self.objects.root().reopen().map_err(|e| failed(e.into()))?;
        rustix::fs::syncfs(&root).map_err(|e| failed(e.into()))?;
        let mounting = self.power.mounting().map_err(failed)?;
        let settled = Settled { mounting, through: Timestamp::now().nanos() - SLACK, clean: true };
        self.power.write(&settled).map_err(failed)?;
        Ok(torn)
    }

    pub(super) fn current_in_stead_of(&self, key: &Key, torn: Generation) -> Result<Option<Stat>> {
        let kept = self.kept(key)?;
        let is_torn = |number: u64| {
            let mut found = kept.iter().filter(|info| info.generation.get() == number);
            found.any(|info| matches!(&info.kept, Kept::Lost(note) if is_torn(note)))
        };
        let stat = match self.look(key) {
            Ok(stat) => stat,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let current = stat.generation.filter(|current| *current > torn);
        Ok(current.filter(|current| (torn.get()..current.get()).all(is_torn)).map(|_| stat))
    }

    fn mend_history(&self, key: &Key, through: Timestamp, torn: &mut Vec<Torn>) -> Result<()> {
        let _tree = self.locks.share_tree(key)?;
        let _lock = self.lock(key)?;
        let kept = self.kept(key)?;
        for (at, info) in kept.iter().enumerate() {
            if info.kept != Kept::Whole || info.committed <= through {
                continue;
            }
            let opened = self.open_whole(key, info)?;
            let record = super::open::record_of(key, &opened.file)?;
            let intact = match record.filter(|record| record.inode == opened.stat.incarnation) {
                Some(record) => is_intact(&opened.file, record.size, record.unsettled),
                // A copy, which was synced.
                None => true,
            };
            if intact {
                continue;
            }
            // What can be read only from it gets a file of its own.
            for older in kept[..at].iter().rev().filter(|older| !is_passed_over(older)) {
                let Kept::Prefix(size) = older.kept else { break };
                if self.prefix_is_intact(key, older, &opened.file, through)? {
                    self.copy_prefix(key, older, &opened, size)?;
                    break;
                }
                self.note_torn(key, older, None)?;
            }
            torn.push(Torn {
                key: key.clone(),
                generation: info.generation,
                restored: None,
                current: false,
                remains: self.remains(key, &opened.file)?,
            });
            self.note_torn(key, info, None)?;
            let dir = self.make_history_dir(key)?;
            rustix::fs::unlinkat(&dir, name_of(info), AtFlags::empty())
                .map_err(|e| Error::from_io(key, "remove what was torn", e))?;
        }
        Ok(())
    }

    fn mend_object(&self, key: &Key, through: Timestamp) -> Result<Option<Torn>> {
        let _tree = self.locks.share_tree(key)?;
        let _lock = self.lock(key)?;
        let place = self.place(key)?;
        let Some(found) = self.find_optional(key, &place)? else { return Ok(None) };
        let Some(record) = found.record else { return Ok(None) };
        let (saved, written) = (record.committed > through, found.stat.mtime > through);
        if record.inode != found.stat.incarnation || !(saved || written) {
            return Ok(None);
        }
        let opened = super::open::open_place(key, &place)?;
        let grown = found.stat.size > record.size;
        let whole = grown || found.stat.size == record.size || !saved;
        let intact = whole && (!saved || is_summed(&opened.file, record.size, record.unsettled));
        if grown && written && intact {
            // An append that was not recorded any more; of its bytes nothing is known.
            let remains = self.remains(key, &opened.file)?;
            self.undo_append(key, &place, &record)?;
            let generation = record.generation;
            return Ok(Some(Torn {
                key: key.clone(),
                generation: generation.next(),
                restored: Some(generation),
                current: true,
                remains,
            }));
        }
        let only_touched = found.stat.size == record.size && found.stat.mtime > record.mtime;
        if intact && written && only_touched && self.was_appended_to(key, &found, &record)? {
            // Of that append only the time has reached the medium (xfs: the size follows the bytes).
            self.undo_append(key, &place, &record)?;
            return Ok(None);
        }
        if intact {
            return Ok(None);
        }
        // Modified later: it was changed from outside, unless another append was under way. Earlier: that it was modified is
        // lost, too.
        if found.stat.mtime > record.mtime {
            if !self.was_appended_to(key, &found, &record)? {
                return Ok(None);
            }
            self.unkeep(key, &found)?;
        }
        self.roll_back(key, &place, &found, &opened, through).map(Some)
    }

    /// Whether an append to what has this record was begun when it was modified last: that is noted first in a journal, and, but
    /// for an amendment, in the history as the beginning of what is to follow. Of the journal the power loss may have taken the end.
    fn was_appended_to(&self, key: &Key, found: &Found, record: &Record) -> Result<bool> {
        let when = found.stat.mtime;
        let intents = self.staging.abandoned_intents(key, true);
        let is_append = |intent: &Intent| intent.in_place && intent.append_from.is_some() && replaces(intent, found);
        if intents.iter().any(|(intent, _)| is_append(intent)) {
            return Ok(true);
        }
        let (names, _) = self.history_entries(key)?;
        let own = |name: &&GenerationName| (name.number, name.committed) == (record.generation.get(), record.committed);
        let (Some(name), Some(dir)) = (names.iter().find(own), self.history_dir(key)?) else { return Ok(false) };
        if when.nanos().abs_diff(name.superseded.nanos()) > SLACK.unsigned_abs() {
            return Ok(false);
        }
        let name = name.to_string();
        let stat = rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| Error::from_io(key, "look at its history", e))?;
        let is_note = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        Ok(is_note && Beginning::parse(&read_note(key, &dir, &name)?).is_some())
    }

    /// Replaces what is torn at `place` by the newest generation that is whole, as a new generation.
    fn roll_back(&self, key: &Key, place: &Place, found: &Found, torn: &Opened, through: Timestamp) -> Result<Torn> {
        let failed = |error: std::io::Error| Error::from_io(key, "bring back the generation before", error);
        let generation = found.stat.generation.unwrap_or(Generation::FIRST);
        let kept = self.kept(key)?;
        let now = self.now();
        let mut good = None;
        for (at, info) in kept.iter().enumerate().rev().filter(|(_, info)| info.generation < generation) {
            // Before the torn one there was nothing.
            if info.deleted {
                break;
            }
            match info.kept {
                Kept::Whole => good = Some((info, self.open_whole(key, info)?.file)),
                Kept::Prefix(_) => match kept[at..].iter().find(|later| later.kept == Kept::Whole) {
                    Some(whole) => good = Some((info, self.open_whole(key, whole)?.file)),
                    None if self.prefix_is_intact(key, info, &torn.file, through)? => {
                        good = Some((info, torn.file.clone()));
                    }
                    None => self.note_torn(key, info, None)?,
                },
                Kept::Lost(_) => {}
            }
            if good.is_some() {
                break;
            }
        }
        if let Some((info, file)) = &good
            && Arc::ptr_eq(file, &torn.file)
            && self.may_begin_elsewhere(key, place, found)?
        {
            // Nobody will read beginnings from what becomes current.
            self.copy_prefix(key, info, torn, info.size)?;
        }
        // A part of it was synced: its session went on to append.
        let synced = found.record.map_or(0, |record| record.unsettled.from).min(torn.stat.size);
        let good = match good {
            Some((info, _)) if synced > info.size && info.kept != Kept::Whole => {
                Some((generation, synced, torn.file.clone(), found.stat.mtime))
            }
            None if synced > 0 => Some((generation, synced, torn.file.clone(), found.stat.mtime)),
            good => good.map(|(info, file)| (info.generation, info.size, file, info.mtime)),
        };
        let remains = self.remains(key, &torn.file)?;
        let brought_back = good.as_ref().map(|(generation, ..)| *generation);
        let text = torn_note(brought_back);
        if let Some(name) = kept_name(found, now, good.is_none()) {
            self.keep_as_note(key, &name, &text, found.stat.mtime)?;
        }
        match good {
            Some((_, size, file, mtime)) => {
                let staged = self.stage_copy(key, &file, size)?;
                super::metadata::set_mtime(&**staged.file(), mtime).map_err(|e| failed(e.into()))?;
                staged.file().sync_all().map_err(failed)?;
                let settled = Unsettled::nothing(size);
                // Later than the note: an object with several names is copied for a while, and not in its place.
                let now = Timestamp::from_nanos(now.nanos() + 1);
                let record = self.replace(key, place, found, &staged, generation.next(), true, now, settled)?;
                if record.inode == found.stat.incarnation { staged.discard() } else { drop(staged.committed()) }
            }
            None => rustix::fs::unlinkat(&place.dir, &place.name, AtFlags::empty()).map_err(|e| failed(e.into()))?,
        }
        place.dir.sync().map_err(|e| failed(e.into()))?;
        Ok(Torn { key: key.clone(), generation, restored: brought_back, current: true, remains })
    }

    /// What is left of torn bytes, for people to look at.
    fn remains(&self, key: &Key, file: &File) -> Result<Option<Staged>> {
        let size = file.metadata().map_err(|e| Error::from_io(key, "stat", e))?.len();
        if size == 0 { Ok(None) } else { self.stage_copy(key, file, size).map(Some) }
    }

    fn stage_copy(&self, key: &Key, file: &File, size: u64) -> Result<Staged> {
        let failed = |error: std::io::Error| Error::from_io(key, "copy what is left of it", error);
        let expect = Precondition::Any;
        let intent = Intent {
            key: key.clone(),
            expect,
            append_from: None,
            base: None,
            acknowledged: false,
            in_place: false,
            sum: None,
            copied: false,
        };
        let staged = self.staging.stage(&intent).map_err(failed)?;
        copy_range(file, staged.file(), 0, size).map_err(failed)?;
        staged.file().set_len(size).map_err(failed)?;
        Ok(staged)
    }

    fn prefix_is_intact(&self, key: &Key, info: &GenerationInfo, file: &File, through: Timestamp) -> Result<bool> {
        let Some(dir) = self.history_dir(key)? else { return Ok(false) };
        let note = read_note(key, &dir, &name_of(info))?;
        let unsettled = match Beginning::parse(&note) {
            Some(Beginning { unsettled, .. }) if info.committed > through => unsettled,
            _ => Unsettled::nothing(info.size),
        };
        Ok(file.metadata().is_ok_and(|meta| meta.len() >= info.size) && is_summed(file, info.size, unsettled))
    }

    fn note_torn(&self, key: &Key, info: &GenerationInfo, brought_back: Option<Generation>) -> Result<()> {
        let note = crate::backend::GenerationName { superseded: self.now(), ..super::generations::name_parts(info) };
        self.keep_as_note(key, &note, &torn_note(brought_back), info.mtime)
    }
}

/// Whether all of the recorded bytes are there.
fn is_intact(file: &File, size: u64, unsettled: Unsettled) -> bool {
    file.metadata().is_ok_and(|meta| meta.len() == size) && is_summed(file, size, unsettled)
}

fn is_summed(file: &File, size: u64, unsettled: Unsettled) -> bool {
    sum_of(file, unsettled.from.min(size), size).is_ok_and(|sum| sum == unsettled.sum)
}

fn torn_note(brought_back: Option<Generation>) -> String {
    brought_back.map_or_else(|| TORN.to_owned(), |generation| format!("{TORN}{BROUGHT_BACK}{generation}"))
}

/// Whether a note says that the bytes never reached the medium.
pub fn is_torn(note: &str) -> bool {
    note.starts_with(TORN)
}

/// The generation whose bytes took the place of a torn one, if that is what a note says.
pub fn brought_back(note: &str) -> Option<Generation> {
    Generation::new(note.strip_prefix(TORN)?.strip_prefix(BROUGHT_BACK)?.parse().ok()?)
}
