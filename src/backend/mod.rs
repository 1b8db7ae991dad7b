//! What a medium must be able to do to hold a store.
//!
//! One trait, [`Backend`]: small, synchronous, about bytes and metadata on one medium. A backend knows nothing of
//! write sessions, inodes or retention; it gives out every generation as a *local file descriptor*, and takes a new
//! one as a locally staged file together with the [`Precondition`] under which it may become current. The
//! conformance suite in [`conformance`] is written against the trait and runs over every backend.
//!
//! What each method promises is said here once; the implementations don't repeat it. Two promises hold for all:
//! a method that fails has no visible effect, and other users of the same medium see a change whole or not at all.

mod arrivals;
mod checksum;
pub mod conformance;
mod copy;
mod error;
pub mod file;
mod history;
mod journal;
pub mod memory;
mod ownership;
mod staged;
mod staging;
mod stat;
mod values;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;

pub use arrivals::Arrivals;
pub(crate) use checksum::{RunningSum, sum_of};
pub(crate) use copy::copy_range;
pub use error::{Error, Result};
pub use history::{GenerationInfo, GenerationName, Kept};
pub use staged::{Intent, Staged};
pub use staging::{Abandoned, Owner, StagingArea};
pub(crate) use stat::timestamps;
pub use stat::{Creator, DirEntry, FileKind, FsStat, KeepAccessTimes, SetAttr, SetTime, Stat};
pub use values::{Capabilities, Change, ChangeSink, Commit, Exclusive, Flaw, Opened, Rename, Still, Torn, Watch};

use crate::types::{Generation, Key, Precondition, Timestamp};

/// One medium with one store on it. See the [module](self) for what every method promises.
///
/// A key's *history* outlives the object: what a commit, a rename over it or a removal supersedes is kept until
/// [`Backend::drop_generation`].
#[allow(missing_docs, reason = "arguments are named by their types")]
pub trait Backend: Send + Sync + 'static {
    /// What this backend can do.
    fn capabilities(&self) -> Capabilities;

    /// The identity that the store was given when it was made; a copy of the store has the same.
    fn store_id(&self) -> &str;

    /// Where new generations are staged, on this host.
    fn staging(&self) -> &StagingArea;

    // Names

    /// The state of what is at `key`; a symbolic link is not followed.
    ///
    /// Never changes anything. What was changed from outside is reported as it is, with [`Stat::recorded`] false.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotDirectory`] (a component above is no directory), [`Error::Io`].
    fn stat(&self, key: &Key) -> Result<Stat>;

    /// The entries of a directory in any order, without `.` and `..`, and without the reserved name at the root.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotDirectory`]. An entry that can't be read fails the whole listing: a listing
    /// that was cut short must never look complete.
    fn list(&self, dir: &Key) -> Result<Vec<DirEntry>>;

    /// The target of the symbolic link at `key`.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] when it is something else.
    fn read_link(&self, key: &Key) -> Result<Vec<u8>>;

    /// Makes a directory. Mode, owner and inherited ACLs follow POSIX for `creator` and the directory above.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NotFound`] (the directory above).
    fn create_dir(&self, key: &Key, mode: u32, creator: &Creator) -> Result<Stat>;

    /// Makes a symbolic link. Errors as [`Backend::create_dir`].
    fn create_symlink(&self, key: &Key, target: &[u8], creator: &Creator) -> Result<Stat>;

    /// Makes a FIFO, socket or device node. Errors as [`Backend::create_dir`], and [`Error::Unsupported`].
    fn create_special(&self, key: &Key, kind: FileKind, mode: u32, rdev: u64, creator: &Creator) -> Result<Stat>;

    /// Makes an empty file and thereby takes the name, exclusively among all users of the medium. It has no
    /// generation until something is committed to it with [`Precondition::Reserved`]. Errors as [`Backend::create_dir`].
    fn reserve(&self, key: &Key, mode: u32, creator: &Creator) -> Result<Stat>;

    /// Gives the object at `from` the further name `to`.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NotFound`], [`Error::Unsupported`], [`Error::Stale`] when the precondition of what
    /// is at `from` doesn't hold.
    fn link(&self, from: &Key, to: &Key, expect: &Precondition) -> Result<Stat>;

    /// Removes a name that is no directory. The last name's bytes go to the key's history as a deleted generation.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::IsDirectory`], [`Error::Stale`] when the precondition doesn't hold.
    fn remove(&self, key: &Key, expect: &Precondition) -> Result<()>;

    /// As [`Backend::remove`], but of an object without a history nothing is kept, not even its number.
    ///
    /// # Errors
    /// As [`Backend::remove`].
    fn remove_unkept(&self, key: &Key, expect: &Precondition) -> Result<()>;

    /// Removes an empty directory; the histories below it stay.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotDirectory`], [`Error::NotEmpty`].
    fn remove_dir(&self, key: &Key) -> Result<()>;

    /// Renames an object, a directory or a link. An object that is replaced goes to the target's history, and the
    /// moved one becomes the target's next generation. Otherwise the history moves along, unless the new name has
    /// an older one, which then stays and goes on. The histories at and below a directory always move along: where
    /// the new names have older ones, they are joined to these. Returns the state at `to`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Exists`], [`Error::NotEmpty`], [`Error::IsDirectory`], [`Error::NotDirectory`],
    /// [`Error::Invalid`] (into itself), [`Error::Stale`], [`Error::Unsupported`].
    fn rename(&self, from: &Key, to: &Key, how: &Rename) -> Result<Stat>;

    /// A descriptor (O_PATH) that keeps the attributes of what is at `key` readable after it was removed; `None`
    /// where the medium has no such thing.
    fn hold(&self, key: &Key) -> Result<Option<OwnedFd>> {
        let _ = key;
        Ok(None)
    }

    /// Returns when the directory's entries would survive a power loss.
    fn sync_dir(&self, dir: &Key) -> Result<()>;

    // Metadata: changes make no generation

    /// Changes mode, owner or times. Sizes change by commits only.
    fn set_attr(&self, key: &Key, attr: &SetAttr) -> Result<Stat>;

    /// The value of an attribute; Sepia's own record is not visible.
    ///
    /// # Errors
    /// [`Error::NoAttribute`], [`Error::Unsupported`] (its name space).
    fn get_xattr(&self, key: &Key, name: &OsStr) -> Result<Vec<u8>>;

    /// The names of all attributes, without Sepia's own record.
    fn list_xattrs(&self, key: &Key) -> Result<Vec<OsString>>;

    /// Sets an attribute. `flags` as in setxattr(2): `XATTR_CREATE`, `XATTR_REPLACE`.
    ///
    /// # Errors
    /// [`Error::NoAttribute`], [`Error::Exists`], [`Error::Unsupported`], [`Error::Io`] (ENOSPC, E2BIG).
    fn set_xattr(&self, key: &Key, name: &OsStr, value: &[u8], flags: i32) -> Result<()>;

    /// Removes an attribute. Errors as [`Backend::get_xattr`].
    fn remove_xattr(&self, key: &Key, name: &OsStr) -> Result<()>;

    // Bytes

    /// Opens the current generation of a regular file. What was changed from outside is recorded as a generation
    /// first, so the result always has one, except for a name that is only reserved.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] when it is no regular file.
    fn open(&self, key: &Key) -> Result<Opened>;

    /// From now on, reading leaves access times alone: the mount options noatime and, for directories, nodiratime.
    fn keep_access_times(&self, which: KeepAccessTimes) {
        let _ = which;
    }

    /// Somebody has read `opened` without the medium seeing it: marks the access, if relatime would (mount(8)).
    /// Returns whether that changed its access time.
    fn mark_read(&self, opened: &Opened) -> bool {
        let _ = opened;
        false
    }

    /// Whether the bytes of what was opened were replaced in its own file since: by a save of the object under another one of
    /// its names, or by another program, as far as that was recorded.
    fn was_rewritten(&self, opened: &Opened) -> bool {
        let _ = opened;
        false
    }

    /// Makes `staged` the current generation of `key`, with the metadata that the object has at that moment, and
    /// the modification time of `staged`. The superseded generation is kept. On failure `staged` is given back
    /// unharmed, inside the error of the second kind: the caller decides whether the bytes are set aside.
    ///
    /// With [`Precondition::Absent`] (or [`Precondition::Any`] and nothing there) the object is made with the mode
    /// `how.mode` less the umask of `creator` and belongs to `creator`, before it has any bytes.
    ///
    /// # Errors
    /// [`Error::Stale`] when the precondition doesn't hold; [`Error::Io`] (ENOSPC and the like).
    fn commit(
        &self,
        key: &Key,
        staged: Staged,
        how: &Commit,
        creator: &Creator,
    ) -> std::result::Result<Stat, (Error, Staged)>;

    /// Appends the bytes of `staged` from offset `from` to its end to the current generation, which makes a new one
    /// that costs only what is appended; the older one is kept as "the first so many bytes". `from` is the size of
    /// the generation that `how.expect` names. `staged` has served its purpose afterwards; the caller discards it.
    ///
    /// # Errors
    /// As [`Backend::commit`]; [`Error::Io`] (EFBIG) beyond `how.max_size`.
    fn append(&self, key: &Key, staged: &Staged, from: u64, how: &Commit) -> Result<Stat>;

    // History

    /// The generations of `key` that are kept, oldest first, without the current one.
    fn generations(&self, key: &Key) -> Result<Vec<GenerationInfo>>;

    /// A kept generation of `key`, but for the current one, by its number. For those who look for only one: a history may
    /// have ten thousand.
    ///
    /// # Errors
    /// As [`Backend::generations`].
    fn generation(&self, key: &Key, generation: Generation) -> Result<Option<GenerationInfo>> {
        Ok(self.generations(key)?.into_iter().find(|info| info.generation == generation))
    }

    /// The keys at or below `dir` that have a history, whether or not an object is there now.
    fn histories(&self, dir: &Key) -> Result<Vec<Key>>;

    /// Opens a kept generation, or the current one by its number.
    ///
    /// # Errors
    /// [`Error::NoGeneration`].
    fn open_generation(&self, key: &Key, generation: Generation) -> Result<Opened>;

    /// As [`Backend::open_generation`], of what [`Backend::generations`] has just told, without another look at the whole
    /// history.
    ///
    /// # Errors
    /// [`Error::NoGeneration`], also when it has gone since.
    fn open_kept(&self, key: &Key, info: &GenerationInfo) -> Result<Opened> {
        self.open_generation(key, info.generation)
    }

    /// Whether what the medium has recorded of the regular file at `key` is in order. Changes nothing. A file that was
    /// changed from outside is in order: the next [`Backend::open`] records it.
    ///
    /// # Errors
    /// As [`Backend::stat`].
    fn check_record(&self, key: &Key) -> Result<Option<Flaw>> {
        self.stat(key).map(|_| None)
    }

    /// The names in `dir` at or below which there may be a history, whether or not something is there now: a level of
    /// [`Backend::histories`], for those who go through them all a few at a time.
    ///
    /// # Errors
    /// As [`Backend::list`]: a listing that was cut short must never look complete.
    fn history_members(&self, dir: &Key) -> Result<Vec<OsString>>;

    /// The extended attributes of a kept generation, or the current one, as far as the medium keeps them with it.
    ///
    /// # Errors
    /// [`Error::NoGeneration`].
    fn generation_xattrs(&self, key: &Key, generation: Generation) -> Result<Vec<(OsString, Vec<u8>)>>;

    /// Drops kept generations for good, each only if it is the very one that `which` tells of (number, and times of
    /// its commit and its end): another object may have come to the key since. `gone`: only if there is no file at the
    /// key. A number that nothing else remembers stays known by a note. The results are in the order of `which`, with
    /// the bytes that were freed; the older ones are dropped first.
    ///
    /// # Errors
    /// For all: [`Error::Exists`] (`gone`), and what the medium says of the history as a whole. For each:
    /// [`Error::NoGeneration`]; [`Error::Invalid`] when another kept one is stored in terms of it.
    fn drop_generations(&self, key: &Key, which: &[GenerationInfo], gone: bool) -> Result<Vec<Result<u64>>>;

    /// Drops a kept generation for good. Fails when another kept one is stored in terms of it, or it is current.
    ///
    /// # Errors
    /// [`Error::NoGeneration`], [`Error::Invalid`].
    fn drop_generation(&self, key: &Key, generation: Generation) -> Result<()> {
        let missing = || Error::NoGeneration(key.clone(), generation);
        let info = self.generations(key)?.into_iter().find(|info| info.generation == generation).ok_or_else(missing)?;
        self.drop_generations(key, &[info], false)?.pop().ok_or_else(missing)?.map(drop)
    }

    /// Forgets that a key was ever used: removes its history, which must be `which` and hold no bytes. Numbers count
    /// from 1 again.
    ///
    /// # Errors
    /// [`Error::Exists`] when there is a file at the key; [`Error::Invalid`] when the history is another one.
    fn forget_history(&self, key: &Key, which: &[GenerationInfo]) -> Result<()>;

    /// Takes a lock of this store by its name (letters and dashes), for one holder among all processes and threads,
    /// until the result is dropped; `None` while somebody else has it.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn try_exclusive(&self, name: &str) -> Result<Option<Exclusive>>;

    /// Holds off every change, by whoever uses the medium, until the result is dropped. What is one step on the medium
    /// (making a name, changing mode or attributes) may still happen if it was begun before; but nothing is begun after
    /// such a change and seen, while that is not.
    ///
    /// Meanwhile the caller may stat, list, read links and attributes, and handle records; for anything else it would
    /// wait for itself. Others wait for it, with an error after a while, so it should be dropped soon.
    ///
    /// # Errors
    /// [`Error::Locked`].
    fn hold_still(&self) -> Result<Box<dyn Still + '_>>;

    // Records of the layers above, below the reserved name

    /// Stores a small record at `path` (relative, like `conflicts/x.json`), replacing what was there, durably.
    fn put_record(&self, path: &Key, bytes: &[u8]) -> Result<()>;

    /// Appends `bytes` to the record at `path`, which is made if there is none, and returns how large it is afterwards.
    /// What several processes append follows one after the other, each whole. Not durable: a power loss may take the
    /// end of the record, and a full medium may have taken a part of `bytes` when this fails.
    fn append_record(&self, path: &Key, bytes: &[u8]) -> Result<u64>;

    /// Moves the bytes of a staged file to the record `path`, durably and without needing space for a copy where
    /// the medium allows.
    fn keep_staged(&self, path: &Key, staged: Staged) -> std::result::Result<(), (Error, Staged)>;

    /// Opens a record.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    fn open_record(&self, path: &Key) -> Result<File>;

    /// The paths of all records below `dir`.
    fn list_records(&self, dir: &Key) -> Result<Vec<Key>>;

    /// Removes a record. Removing what isn't there is no error.
    fn remove_record(&self, path: &Key) -> Result<()>;

    // Housekeeping

    /// Size and free space of the medium.
    fn stat_fs(&self) -> Result<FsStat>;

    /// Takes over the staged files of users of this store that have died. Those that are alive are left alone.
    fn take_abandoned(&self) -> Result<Vec<Abandoned>>;

    /// Puts an object in order whose user died in the middle of a change to it: undoes or completes what is half
    /// done. Returns whether the abandoned bytes are in the object already.
    fn repair(&self, abandoned: &Abandoned) -> Result<bool>;

    /// After a loss of power: finds what it has torn among what nobody had synced, and puts the newest generation that
    /// is whole in its place, as a new generation. Costs nothing when there was none.
    fn mend_torn(&self) -> Result<Vec<Torn>> {
        Ok(Vec::new())
    }

    /// What is current at `key`, if a power loss tore this generation and nobody has saved anything since: a save that
    /// was based on the one may replace the other.
    fn in_stead_of_torn(&self, key: &Key, torn: Generation) -> Result<Option<Stat>> {
        let _ = (key, torn);
        Ok(None)
    }

    /// Waits until all that was committed would survive a loss of power, which makes [`Backend::mend_torn`] cheaper.
    /// `end`: this process commits nothing more.
    fn settle(&self, end: bool) -> Result<()> {
        let _ = end;
        Ok(())
    }

    /// Returns when all that anybody has committed so far would survive a loss of power.
    fn sync_all(&self) -> Result<()> {
        Ok(())
    }

    /// Reports changes until the returned watch is dropped; `None` when the medium can't tell.
    fn watch(&self, sink: ChangeSink) -> Result<Option<Box<dyn Watch>>>;

    /// The changes from outside that were recorded as generations since this was last asked, by whatever method came
    /// across them. Asked often, so it costs nothing when there are none.
    fn take_adopted(&self) -> Vec<(Key, Stat)> {
        Vec::new()
    }

    /// The time by which generations are stamped.
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
