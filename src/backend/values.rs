//! What the methods of [`Backend`] take, and what they give.

use std::ffi::OsString;
use std::fs::File;
use std::sync::Arc;

#[allow(unused_imports, reason = "for the documentation")]
use super::Backend;
use super::{Error, Result, Staged, Stat};
use crate::types::{Generation, Key, Precondition, Timestamp};

/// What a backend can do beyond the minimum. What it can't is refused with [`Error::Unsupported`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Several names for one object.
    pub hard_links: bool,
    /// FIFOs, sockets and device nodes.
    pub special_files: bool,
    /// A rename is one step: nobody sees both names or neither, and a crash leaves one of them.
    pub atomic_rename: bool,
    /// Two names can be exchanged in one step.
    pub exchange: bool,
    /// Objects can be changed behind Sepia's back, so reads must look again.
    pub changes_from_outside: bool,
    /// What was committed is still there when the process has ended.
    pub persistent: bool,
    /// POSIX ACLs and attributes outside `user.*`.
    pub system_xattrs: bool,
    /// [`Backend::append_record`] costs what is appended; otherwise the record is written anew.
    pub appends: bool,
}

/// A generation as an open local file, with what was known of it at that moment.
#[derive(Debug)]
pub struct Opened {
    /// Open for reading; its offset means nothing, use positioned reads.
    pub file: Arc<File>,
    /// The state that `file` holds.
    pub stat: Stat,
}

/// How a staged file becomes the current generation.
#[derive(Debug, Clone, Copy)]
pub struct Commit {
    /// What must be current for it to happen.
    pub expect: Precondition,
    /// Return only when the new generation would survive a power loss, its name included.
    pub durable: bool,
    /// The current generation was published by the same write session: replace it under the same number and
    /// without keeping it, for a session is one generation.
    pub amend: bool,
    /// For [`Backend::append`], with the [`Stat::incarnation`] of the expected version: when that is no longer
    /// current, but its object holds its bytes as a beginning, since it was only appended to, append to that instead
    /// of failing. A version that was amended or rewritten is nobody's beginning.
    pub merge: Option<u64>,
    /// The CRC-32 of the staged bytes, where the caller knows it; otherwise they are read once more.
    pub sum: Option<u32>,
    /// Keep what is replaced. Otherwise it is gone, though the number counts on: for files that make no history.
    pub keep: bool,
    /// For [`Backend::append`]: the largest that the object may become, in bytes, whoever else has appended to it.
    pub max_size: Option<u64>,
    /// For [`Backend::commit`], if it makes the object: its mode, before the umask.
    pub mode: u32,
}

impl Commit {
    /// Whether an object of `size` bytes may grow by so many.
    ///
    /// # Errors
    /// [`Error::Io`] (EFBIG).
    pub(super) fn check_size(&self, key: &Key, size: u64, by: u64) -> Result<()> {
        match self.max_size {
            Some(most) if size.saturating_add(by) > most => Err(Error::from_io(key, "append", rustix::io::Errno::FBIG)),
            _ => Ok(()),
        }
    }
}

/// How a rename treats what it finds.
#[derive(Debug, Clone, Copy)]
pub struct Rename {
    /// What must be current under the old name.
    pub expect_from: Precondition,
    /// What must be current under the new name; [`Precondition::Absent`] is `RENAME_NOREPLACE`.
    pub expect_to: Precondition,
    /// `RENAME_EXCHANGE`: both names must exist and change places.
    pub exchange: bool,
}

/// A generation that a power loss has torn.
#[derive(Debug)]
pub struct Torn {
    /// Its key.
    pub key: Key,
    /// Its number.
    pub generation: Generation,
    /// It was the current one, or was to become it.
    pub current: bool,
    /// The generation whose bytes are current again; `None` when there is none, and then the object is gone.
    pub restored: Option<Generation>,
    /// What is left of its bytes.
    pub remains: Option<Staged>,
}

/// What contradicts the medium's own record of a file, although nobody can have meant it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// There is a record, and it can't be understood.
    Unreadable,
    /// The modification time is the recorded one, so nobody has written to the file; but its size is another.
    Size {
        /// The bytes that it had.
        recorded: u64,
        /// The bytes that it has.
        found: u64,
    },
}

/// Something changed on the medium, perhaps by this process. `token` is what [`Watch::add`] was given.
#[derive(Debug, Clone)]
pub enum Change {
    /// The entry `name` of a watched directory was made, changed, or removed.
    Entry {
        /// The watched directory.
        token: u64,
        /// The entry's name.
        name: OsString,
    },
    /// Changes were missed: anything may be different.
    Overflow,
}

/// A running watch on directories. Dropping it stops the thread behind it.
pub trait Watch: Send + Sync {
    /// Also reports the changes in `dir`, as `token`. Watching the same directory again replaces its token.
    ///
    /// # Errors
    /// [`Error::Io`] when the system's limit on watches is reached: the caller must look for itself then.
    fn add(&self, dir: &Key, token: u64) -> Result<()>;

    /// No longer reports the directory that was added as `token`.
    fn remove(&self, token: u64);

    /// Whether every change in the watched directories is reported within milliseconds, whoever makes it. Not so where
    /// other machines can write to the medium. Stores to mapped files, and what happens to a file under names in
    /// directories that are not watched, are never reported.
    fn sees_all(&self) -> bool;
}

/// A lock that is held until this is dropped. See [`Backend::try_exclusive`].
pub type Exclusive = Box<dyn Send>;

/// Nothing is changed by anybody until this is dropped: see [`Backend::hold_still`].
pub trait Still {
    /// Records what was changed from outside at `key`, as [`Backend::open`] does. Returns what is there then.
    ///
    /// # Errors
    /// As [`Backend::stat`].
    fn adopt(&self, key: &Key) -> Result<Stat>;

    /// From now on a generation that was committed up to `time` keeps its bytes and the time of its commit, whoever
    /// does what in whatever process: a session that is to amend it makes the next one instead, and a rename may give
    /// it another number, but not another time.
    ///
    /// # Errors
    /// [`Error::Io`]; then nothing has changed.
    fn keep_through(&self, time: Timestamp) -> Result<()>;
}

/// Takes the changes of a watch, as many as came together. Called from a thread of the backend's own, never while it
/// holds a lock.
pub type ChangeSink = Box<dyn Fn(Vec<Change>) + Send + Sync>;
