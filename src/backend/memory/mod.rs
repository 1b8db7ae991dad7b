//! A store in memory: for tests, and the model of the backends over object stores.
//!
//! Two layers. `flat` is a space of named byte strings that can do what S3 can and nothing else; it is the only
//! shared state. Above it the [`Backend`], as if every call came from another host: no lock, every change is a
//! write under a condition on the state it was based on. `names` does lookup, making and removing, `commit` the
//! bytes, `history` the superseded generations, `rename` what a flat space has no word for.
//!
//! ```text
//! Note/note-1                     the current generation; everything else of a Stat is in its metadata
//! Board/b1/                       a directory: an empty object
//! .sepia/root                     the root directory
//! .sepia/generations/<key>/<name> superseded generations, as the server copied them
//! .sepia/<path>                   records of the layers above
//! ```
//!
//! A file and a directory are different objects, so one name can be both for the moment in which two hosts race for
//! it; `names` says how that ends. Real object stores limit metadata to some 2 KiB; this one doesn't.

mod commit;
mod drops;
mod flat;
mod history;
mod local;
mod names;
mod record;
mod rename;
mod still;

use std::collections::btree_map::Entry as MapEntry;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use self::flat::{Condition, FlatSpace};
use self::local::{Names, PrivateDir};
use self::record::Record;
use self::still::Quiet;
use super::{
    Abandoned, Backend, Capabilities, ChangeSink, Commit, Creator, DirEntry, Error, Exclusive, FileKind, FsStat,
    GenerationInfo, Opened, Rename, Result, SetAttr, SetTime, Staged, StagingArea, Stat, Still, Watch,
};
use crate::types::{Generation, Key, ObjectId, Precondition, Timestamp};

/// The longest value of an attribute, in bytes (`XATTR_SIZE_MAX`).
const XATTR_SIZE_MAX: usize = 65536;
/// Where the records of the layers above begin.
const RECORDS: &[u8] = b".sepia/";
/// The names below it that belong to this backend.
const OWN_RECORDS: [&str; 2] = ["generations", "root"];

/// A store in memory. It ends with the process.
#[derive(Debug)]
pub struct MemoryBackend {
    flat: FlatSpace,
    store_id: String,
    last_tick: AtomicI64,
    exclusive: Names,
    still: Quiet,
    staging: StagingArea,
    // After the staging area, which cleans up in it when dropped.
    _dir: PrivateDir,
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryBackend {
    /// A new, empty store.
    pub fn new() -> Self {
        let dir = PrivateDir::new();
        let backend = MemoryBackend {
            flat: FlatSpace::default(),
            store_id: format!("{}{}", ObjectId::random(), ObjectId::random()),
            last_tick: AtomicI64::new(i64::MIN),
            exclusive: Names::default(),
            still: Quiet::default(),
            staging: StagingArea::new(dir.path()),
            _dir: dir,
        };
        let root = Record::root(backend.tick()).metadata();
        let name = names::dir_name(&Key::root());
        // The space is empty, and the write has no condition.
        let _ = backend.flat.put(&name, Arc::default(), root, Condition::Any);
        backend
    }

    /// The time, later at every call: so the names of two copies in a history are never the same.
    fn tick(&self) -> Timestamp {
        let now = Timestamp::now().nanos();
        let later = |last: i64| now.max(last.saturating_add(1));
        let last = self.last_tick.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(later(last)));
        Timestamp::from_nanos(later(last.unwrap_or(now)))
    }

    fn record_name(path: &Key) -> Result<Vec<u8>> {
        match path.components().next() {
            Some(first) if !OWN_RECORDS.iter().any(|own| first == *own) => Ok([RECORDS, path.as_bytes()].concat()),
            _ => Err(Error::Invalid(path.clone(), "not a name for a record")),
        }
    }
}

fn user_attribute(key: &Key, name: &OsStr) -> Result<()> {
    match name.as_bytes().strip_prefix(b"user.") {
        Some(rest) if !rest.is_empty() => Ok(()),
        _ => Err(Error::Unsupported(key.clone(), "attributes other than user.*")),
    }
}

/// Where other media keep Sepia's own record: a value there would be lost when the store is copied to one of them.
fn is_own_attribute(name: &OsStr) -> bool {
    name == "user.sepia"
}

impl Backend for MemoryBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            hard_links: false,
            special_files: false,
            atomic_rename: false,
            exchange: false,
            changes_from_outside: false,
            persistent: false,
            system_xattrs: false,
            appends: false,
        }
    }

    fn store_id(&self) -> &str {
        &self.store_id
    }

    fn staging(&self) -> &StagingArea {
        &self.staging
    }

    fn stat(&self, key: &Key) -> Result<Stat> {
        self.stat_entry(key, &self.find(key)?)
    }

    fn list(&self, dir: &Key) -> Result<Vec<DirEntry>> {
        if !self.find(dir)?.is_dir() {
            return Err(Error::NotDirectory(dir.clone()));
        }
        self.entries(dir)
    }

    fn read_link(&self, key: &Key) -> Result<Vec<u8>> {
        loop {
            let entry = self.find(key)?;
            if entry.record.kind != FileKind::Symlink {
                return Err(Error::Invalid(key.clone(), "not a symbolic link"));
            }
            if let Some(object) = self.flat.get(&entry.name).filter(|object| object.etag == entry.etag) {
                return Ok(object.bytes.to_vec());
            }
        }
    }

    fn create_dir(&self, key: &Key, mode: u32, creator: &Creator) -> Result<Stat> {
        let _moving = self.still.share();
        self.make_dir(key, mode, creator)
    }

    fn create_symlink(&self, key: &Key, target: &[u8], creator: &Creator) -> Result<Stat> {
        let _moving = self.still.share();
        self.make(key, (FileKind::Symlink, 0o777), &target.into(), creator, &|_| Ok(()))
    }

    fn create_special(&self, key: &Key, _: FileKind, _: u32, _: u64, _: &Creator) -> Result<Stat> {
        Err(Error::Unsupported(key.clone(), "special files"))
    }

    fn reserve(&self, key: &Key, mode: u32, creator: &Creator) -> Result<Stat> {
        let _moving = self.still.share();
        self.reserve_name(key, mode, creator)
    }

    fn link(&self, _: &Key, to: &Key, _: &Precondition) -> Result<Stat> {
        Err(Error::Unsupported(to.clone(), "hard links"))
    }

    fn remove(&self, key: &Key, expect: &Precondition) -> Result<()> {
        let _moving = self.still.share();
        self.remove_name(key, expect, true)
    }

    fn remove_unkept(&self, key: &Key, expect: &Precondition) -> Result<()> {
        let _moving = self.still.share();
        self.remove_name(key, expect, false)
    }

    fn remove_dir(&self, key: &Key) -> Result<()> {
        let _moving = self.still.share();
        self.remove_empty_dir(key)
    }

    fn rename(&self, from: &Key, to: &Key, how: &Rename) -> Result<Stat> {
        let _moving = self.still.share();
        self.rename_any(from, to, how)
    }

    fn sync_dir(&self, dir: &Key) -> Result<()> {
        // Nothing here survives a power loss, and nobody was promised that it would.
        if self.find(dir)?.is_dir() { Ok(()) } else { Err(Error::NotDirectory(dir.clone())) }
    }

    fn set_attr(&self, key: &Key, attr: &SetAttr) -> Result<Stat> {
        const S_ISUID: u32 = 0o4000;
        const S_ISGID: u32 = 0o2000;
        const S_IXGRP: u32 = 0o0010;
        let _moving = self.still.share();
        let now = self.tick();
        let time = |set: SetTime| match set {
            SetTime::Now => now,
            SetTime::At(time) => time,
        };
        self.change(key, &|record| {
            if (attr.uid.is_some() || attr.gid.is_some()) && record.kind != FileKind::Directory {
                // As chown(2): set-group-ID without group execution means mandatory locking, and stays.
                record.mode &= !S_ISUID;
                if record.mode & S_IXGRP != 0 {
                    record.mode &= !S_ISGID;
                }
            }
            record.mode = attr.mode.map_or(record.mode, |mode| mode & 0o7777);
            record.uid = attr.uid.unwrap_or(record.uid);
            record.gid = attr.gid.unwrap_or(record.gid);
            record.atime = attr.atime.map_or(record.atime, time);
            record.mtime = attr.mtime.map_or(record.mtime, time);
            Ok(())
        })
    }

    fn get_xattr(&self, key: &Key, name: &OsStr) -> Result<Vec<u8>> {
        let mut entry = self.find(key)?;
        user_attribute(key, name)?;
        entry.record.xattrs.remove(name).ok_or_else(|| Error::NoAttribute(key.clone()))
    }

    fn list_xattrs(&self, key: &Key) -> Result<Vec<OsString>> {
        Ok(self.find(key)?.record.xattrs.into_keys().collect())
    }

    fn set_xattr(&self, key: &Key, name: &OsStr, value: &[u8], flags: i32) -> Result<()> {
        const XATTR_CREATE: i32 = 1;
        const XATTR_REPLACE: i32 = 2;
        user_attribute(key, name)?;
        if is_own_attribute(name) {
            return Err(Error::Unsupported(key.clone(), "another record than Sepia's own in user.sepia"));
        }
        if value.len() > XATTR_SIZE_MAX {
            return Err(Error::from_io(key, "set an attribute", rustix::io::Errno::TOOBIG));
        }
        let _moving = self.still.share();
        self.change(key, &|record| {
            match record.xattrs.entry(name.to_owned()) {
                MapEntry::Occupied(_) if flags & XATTR_CREATE != 0 => return Err(Error::Exists(key.clone())),
                MapEntry::Vacant(_) if flags & XATTR_REPLACE != 0 => return Err(Error::NoAttribute(key.clone())),
                MapEntry::Occupied(mut old) => drop(old.insert(value.to_vec())),
                MapEntry::Vacant(new) => drop(new.insert(value.to_vec())),
            }
            Ok(())
        })
        .map(drop)
    }

    fn remove_xattr(&self, key: &Key, name: &OsStr) -> Result<()> {
        user_attribute(key, name)?;
        let _moving = self.still.share();
        self.change(key, &|record| match record.xattrs.remove(name) {
            Some(_) => Ok(()),
            None => Err(Error::NoAttribute(key.clone())),
        })
        .map(drop)
    }

    fn open(&self, key: &Key) -> Result<Opened> {
        self.open_current(key)
    }

    fn commit(
        &self,
        key: &Key,
        staged: Staged,
        how: &Commit,
        creator: &Creator,
    ) -> std::result::Result<Stat, (Error, Staged)> {
        let _moving = self.still.share();
        match self.commit_staged(key, &staged, how, creator) {
            Ok(stat) => {
                staged.discard();
                Ok(stat)
            }
            Err(error) => Err((error, staged)),
        }
    }

    fn append(&self, key: &Key, staged: &Staged, from: u64, how: &Commit) -> Result<Stat> {
        let _moving = self.still.share();
        self.append_staged(key, staged, from, how)
    }

    fn generations(&self, key: &Key) -> Result<Vec<GenerationInfo>> {
        self.list_generations(key)
    }

    fn histories(&self, dir: &Key) -> Result<Vec<Key>> {
        self.keys_with_history(dir)
    }

    fn open_generation(&self, key: &Key, generation: Generation) -> Result<Opened> {
        self.open_numbered(key, generation)
    }

    fn history_members(&self, dir: &Key) -> Result<Vec<OsString>> {
        self.members_with_history(dir)
    }

    fn generation_xattrs(&self, key: &Key, generation: Generation) -> Result<Vec<(OsString, Vec<u8>)>> {
        self.xattrs_of(key, generation)
    }

    fn drop_generations(&self, key: &Key, which: &[GenerationInfo], gone: bool) -> Result<Vec<Result<u64>>> {
        let _moving = self.still.share();
        self.drop_from_history(key, which, gone)
    }

    fn forget_history(&self, key: &Key, which: &[GenerationInfo]) -> Result<()> {
        let _moving = self.still.share();
        self.forget_key(key, which)
    }

    fn try_exclusive(&self, name: &str) -> Result<Option<Exclusive>> {
        Ok(self.exclusive.take(name).map(|held| Box::new(held) as Exclusive))
    }

    fn hold_still(&self) -> Result<Box<dyn Still + '_>> {
        Ok(self.own_still())
    }

    fn put_record(&self, path: &Key, bytes: &[u8]) -> Result<()> {
        let name = Self::record_name(path)?;
        // A put without a condition is never refused.
        let _ = self.flat.put(&name, bytes.into(), Default::default(), Condition::Any);
        Ok(())
    }

    fn append_record(&self, path: &Key, bytes: &[u8]) -> Result<u64> {
        let name = Self::record_name(path)?;
        loop {
            let (before, condition) = match self.flat.get(&name) {
                Some(object) => (object.bytes, Condition::Match(object.etag)),
                None => (Arc::default(), Condition::Absent),
            };
            let whole = [&before, bytes].concat();
            let size = whole.len() as u64;
            if self.flat.put(&name, whole.into(), Default::default(), condition).is_ok() {
                return Ok(size);
            }
        }
    }

    fn keep_staged(&self, path: &Key, staged: Staged) -> std::result::Result<(), (Error, Staged)> {
        let kept = local::read_all(staged.file())
            .map_err(|e| Error::from_io(path, "read the staged bytes", e))
            .and_then(|bytes| self.put_record(path, &bytes));
        match kept {
            Ok(()) => {
                staged.discard();
                Ok(())
            }
            Err(error) => Err((error, staged)),
        }
    }

    fn open_record(&self, path: &Key) -> Result<File> {
        let object = self.flat.get(&Self::record_name(path)?).ok_or_else(|| Error::NotFound(path.clone()))?;
        local::materialize(&object.bytes).map_err(|e| Error::from_io(path, "open in memory", e))
    }

    fn list_records(&self, dir: &Key) -> Result<Vec<Key>> {
        let mut paths = Vec::new();
        for name in self.flat.list(&[RECORDS, &names::below(dir)].concat()) {
            let path = Key::parse(OsStr::from_bytes(&name[RECORDS.len()..]))?;
            if Self::record_name(&path).is_ok() {
                paths.push(path);
            }
        }
        Ok(paths)
    }

    fn remove_record(&self, path: &Key) -> Result<()> {
        // A deletion without a condition is never refused.
        let _ = self.flat.delete(&Self::record_name(path)?, Condition::Any);
        Ok(())
    }

    fn stat_fs(&self) -> Result<FsStat> {
        local::stat_fs().map_err(|e| Error::from_io(&Key::root(), "tell the size of the store", e))
    }

    fn take_abandoned(&self) -> Result<Vec<Abandoned>> {
        // The staging area is private to this process, and so was the store of one that died.
        Ok(Vec::new())
    }

    fn repair(&self, _: &Abandoned) -> Result<bool> {
        Ok(false)
    }

    fn watch(&self, _: ChangeSink) -> Result<Option<Box<dyn Watch>>> {
        Ok(None)
    }

    fn now(&self) -> Timestamp {
        self.tick()
    }
}
