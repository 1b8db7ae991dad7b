//! A directory of plain files: format version 1, described in `docs/format.md`.
//!
//! The current generation of an object is an ordinary file in its place; superseded ones are below
//! `.sepia/generations/`, under the key's own path. Every change to a key's generation happens under the key's lock,
//! which other processes respect, and in an order such that a crash between any two steps leaves the old generation
//! or the new one current: first what is kept, then the rename that replaces it.

mod adopt;
mod atime;
mod births;
mod commit;
mod dirs;
mod drops;
mod entry;
mod format;
mod generations;
mod in_place;
mod keeping;
mod lock;
mod metadata;
mod moved;
mod moved_in;
mod names;
mod nested;
mod notes;
mod open;
mod power;
mod record;
mod records;
mod rename;
mod rename_notes;
mod repair;
mod still;
mod watch;
mod words;
mod xattr;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use adopt::{Adopted, Firsts};
use atime::AccessTimes;
use births::Births;
use dirs::{Dir, Dirs};
use format::Format;
pub use format::VERSION as FORMAT_VERSION;
use lock::Locks;
use moved::Departed;
use moved_in::Counted;
use power::Power;

use super::{
    Abandoned, Backend, Capabilities, Change, ChangeSink, Commit, Creator, DirEntry, Error, Exclusive, FileKind, Flaw,
    FsStat, GenerationInfo, KeepAccessTimes, Opened, Owner, Rename, Result, SetAttr, Staged, StagingArea, Stat, Still,
    Torn, Watch,
};
use crate::types::{Generation, Key, ObjectId, Precondition, Timestamp};

/// A store in a directory.
#[derive(Debug)]
pub struct FileBackend {
    path: PathBuf,
    format: Format,
    objects: Dirs,
    /// `.sepia/generations`, by the same keys.
    history: Dirs,
    /// `.sepia` itself: the records of the layers above.
    meta: PathBuf,
    locks: Locks,
    staging: StagingArea,
    departed: Departed,
    firsts: Firsts,
    counted: Counted,
    births: Births,
    adopted: Adopted,
    /// The record that was last appended to.
    growing: Mutex<Option<(Key, Arc<File>)>>,
    power: Power,
    access_times: AccessTimes,
}

/// The living users of the store in a directory that have announced themselves or write to it. Nothing is opened for it.
///
/// # Errors
/// When they can't be listed.
pub fn users(store: &Path) -> std::io::Result<Vec<Owner>> {
    StagingArea::new(entry::staging_of(store)).others()
}

impl Backend for FileBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            hard_links: true,
            special_files: true,
            atomic_rename: true,
            exchange: true,
            changes_from_outside: true,
            persistent: true,
            system_xattrs: true,
            appends: true,
        }
    }

    fn store_id(&self) -> &str {
        &self.format.id
    }

    fn staging(&self) -> &StagingArea {
        &self.staging
    }

    fn stat(&self, key: &Key) -> Result<Stat> {
        self.look(key)
    }

    fn list(&self, dir: &Key) -> Result<Vec<DirEntry>> {
        self.read_dir(dir)
    }

    fn read_link(&self, key: &Key) -> Result<Vec<u8>> {
        self.link_target(key)
    }

    fn create_dir(&self, key: &Key, mode: u32, creator: &Creator) -> Result<Stat> {
        self.locks.pass(key)?;
        self.make_dir(key, mode, creator)
    }

    fn create_symlink(&self, key: &Key, target: &[u8], creator: &Creator) -> Result<Stat> {
        self.locks.pass(key)?;
        self.make_symlink(key, target, creator)
    }

    fn create_special(&self, key: &Key, kind: FileKind, mode: u32, rdev: u64, creator: &Creator) -> Result<Stat> {
        self.locks.pass(key)?;
        self.make_special(key, kind, mode, rdev, creator)
    }

    fn reserve(&self, key: &Key, mode: u32, creator: &Creator) -> Result<Stat> {
        self.locks.pass(key)?;
        self.make_file(key, mode, creator)
    }

    fn link(&self, from: &Key, to: &Key, expect: &Precondition) -> Result<Stat> {
        self.make_link(from, to, expect)
    }

    fn remove(&self, key: &Key, expect: &Precondition) -> Result<()> {
        self.remove_entry(key, expect, true)
    }

    fn remove_unkept(&self, key: &Key, expect: &Precondition) -> Result<()> {
        self.remove_entry(key, expect, false)
    }

    fn remove_dir(&self, key: &Key) -> Result<()> {
        self.locks.pass(key)?;
        self.remove_empty_dir(key)
    }

    fn rename(&self, from: &Key, to: &Key, how: &Rename) -> Result<Stat> {
        self.rename_entry(from, to, how)
    }

    fn hold(&self, key: &Key) -> Result<Option<OwnedFd>> {
        self.hold_entry(key).map(Some)
    }

    fn sync_dir(&self, dir: &Key) -> Result<()> {
        self.sync_directory(dir)
    }

    fn set_attr(&self, key: &Key, attr: &SetAttr) -> Result<Stat> {
        self.locks.pass(key)?;
        self.change_attr(key, attr)
    }

    fn get_xattr(&self, key: &Key, name: &OsStr) -> Result<Vec<u8>> {
        self.read_xattr(key, name)
    }

    fn list_xattrs(&self, key: &Key) -> Result<Vec<OsString>> {
        self.xattr_names(key)
    }

    fn set_xattr(&self, key: &Key, name: &OsStr, value: &[u8], flags: i32) -> Result<()> {
        self.locks.pass(key)?;
        self.write_xattr(key, name, value, flags)
    }

    fn remove_xattr(&self, key: &Key, name: &OsStr) -> Result<()> {
        self.locks.pass(key)?;
        self.drop_xattr(key, name)
    }

    fn open(&self, key: &Key) -> Result<Opened> {
        self.open_current(key)
    }

    fn keep_access_times(&self, which: KeepAccessTimes) {
        self.access_times.keep(which);
    }

    fn mark_read(&self, opened: &Opened) -> bool {
        self.mark_access(opened)
    }

    fn was_rewritten(&self, opened: &Opened) -> bool {
        let mut value = [0; 8];
        let rewritten = match rustix::fs::fgetxattr(&opened.file, record::REWRITTEN, &mut value) {
            Ok(8) => Timestamp::from_nanos(i64::from_le_bytes(value)),
            // Damaged: it may have been at any time.
            Ok(_) | Err(rustix::io::Errno::RANGE) => return true,
            Err(_) => return false,
        };
        opened.stat.committed.is_some_and(|committed| committed < rewritten)
    }

    fn commit(
        &self,
        key: &Key,
        staged: Staged,
        how: &Commit,
        creator: &Creator,
    ) -> std::result::Result<Stat, (Error, Staged)> {
        self.commit_staged(key, staged, how, creator)
    }

    fn append(&self, key: &Key, staged: &Staged, from: u64, how: &Commit) -> Result<Stat> {
        self.append_staged(key, staged, from, how)
    }

    fn generations(&self, key: &Key) -> Result<Vec<GenerationInfo>> {
        self.count_on_if_moved_in(key)?;
        self.kept(key)
    }

    fn generation(&self, key: &Key, generation: Generation) -> Result<Option<GenerationInfo>> {
        self.kept_as(key, generation)
    }

    fn histories(&self, dir: &Key) -> Result<Vec<Key>> {
        self.keys_with_history(dir)
    }

    fn open_generation(&self, key: &Key, generation: Generation) -> Result<Opened> {
        self.open_kept(key, generation)
    }

    fn open_kept(&self, key: &Key, info: &GenerationInfo) -> Result<Opened> {
        self.open_listed(key, info)
    }

    fn check_record(&self, key: &Key) -> Result<Option<Flaw>> {
        self.find_flaw(key)
    }

    fn history_members(&self, dir: &Key) -> Result<Vec<OsString>> {
        Ok(self.history_entries(dir)?.1)
    }

    fn generation_xattrs(&self, key: &Key, generation: Generation) -> Result<Vec<(OsString, Vec<u8>)>> {
        self.xattrs_of(key, generation)
    }

    fn drop_generations(&self, key: &Key, which: &[GenerationInfo], gone: bool) -> Result<Vec<Result<u64>>> {
        self.drop_from_history(key, which, gone)
    }

    fn forget_history(&self, key: &Key, which: &[GenerationInfo]) -> Result<()> {
        self.forget_key(key, which)
    }

    fn try_exclusive(&self, name: &str) -> Result<Option<Exclusive>> {
        let lock = self.locks.try_exclusive(name).map_err(|e| Error::from_io(&Key::root(), "take a lock", e))?;
        Ok(lock.map(|lock| Box::new(lock) as Exclusive))
    }

    fn hold_still(&self) -> Result<Box<dyn Still + '_>> {
        self.hold_tree_still()
    }

    fn put_record(&self, path: &Key, bytes: &[u8]) -> Result<()> {
        self.write_record_file(path, bytes)
    }

    fn append_record(&self, path: &Key, bytes: &[u8]) -> Result<u64> {
        self.append_to_record_file(path, bytes)
    }

    fn keep_staged(&self, path: &Key, staged: Staged) -> std::result::Result<(), (Error, Staged)> {
        self.move_staged_to_record(path, staged)
    }

    fn open_record(&self, path: &Key) -> Result<File> {
        self.open_record_file(path)
    }

    fn list_records(&self, dir: &Key) -> Result<Vec<Key>> {
        self.record_files(dir)
    }

    fn remove_record(&self, path: &Key) -> Result<()> {
        self.remove_record_file(path)
    }

    fn stat_fs(&self) -> Result<FsStat> {
        self.medium()
    }

    fn take_abandoned(&self) -> Result<Vec<Abandoned>> {
        self.finish_renames()?;
        self.staging.take_abandoned().map_err(|e| Error::from_io(&Key::root(), "take over sessions of the dead", e))
    }

    fn repair(&self, abandoned: &Abandoned) -> Result<bool> {
        self.repair_object(abandoned)
    }

    fn mend_torn(&self) -> Result<Vec<Torn>> {
        self.mend_after_power_loss()
    }

    fn in_stead_of_torn(&self, key: &Key, torn: Generation) -> Result<Option<Stat>> {
        self.current_in_stead_of(key, torn)
    }

    fn settle(&self, end: bool) -> Result<()> {
        self.settle_all(end)
    }

    fn take_adopted(&self) -> Vec<(Key, Stat)> {
        self.adopted.take()
    }

    fn sync_all(&self) -> Result<()> {
        self.sync_filesystem()
    }

    fn watch(&self, sink: ChangeSink) -> Result<Option<Box<dyn Watch>>> {
        watch::start(self.path.clone(), sink).map(Some)
    }
}
