//! Write sessions: the bytes of one object while it is being written.
//!
//! A session lasts from the first handle that opens an object for writing until the last one closes, and makes one
//! generation if it changed the bytes. Until [`Session::publish`] nobody else sees its writes. It copies nothing
//! before it must: reads come from the base, and a session that only writes behind the base's end stages just what
//! is new, which is then appended to the object.
//!
//! Decides what becomes of the bytes when the base is no longer current: appended (if the session only appended),
//! or set aside as a conflict. Nothing that was written is ever dropped, but by [`Session::discard`].
//!
//! What a rule of the class has something against is not published. The session goes on all the same, for its writer
//! may not be done yet: only what is still so when it is closed is set aside.

mod announce;
mod failed;
mod fill;
mod publish;
mod read;
mod room;
mod rules;
mod same;
mod stage;

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use rustix::fs::FallocateFlags;

use super::{Actor, Breach, ConflictId, Error, Result, Store};
use crate::backend::{self, Creator, FileKind, Opened, RunningSum, SetTime, Staged, Stat, timestamps};
use crate::types::{Generation, Key, Precondition, Timestamp};

/// How to open a session.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Make the object when it doesn't exist, with these permission bits (before the umask).
    pub create: Option<u32>,
    /// Fail when the object exists.
    pub exclusive: bool,
    /// Start empty.
    pub truncate: bool,
    /// Commit only if this holds, rather than if what was found at opening is still current.
    pub expect: Option<Precondition>,
    /// Whose the object is to be, if it is made.
    pub creator: Creator,
    /// On whose behalf.
    pub actor: Actor,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            create: Some(0o666),
            exclusive: false,
            truncate: false,
            expect: None,
            creator: Creator::current(),
            actor: Actor::current(),
        }
    }
}

/// The bytes of one object while it is being written. See the [module](self).
#[derive(Debug)]
#[must_use = "publish or discard it; dropped, its bytes wait for recovery"]
pub struct Session {
    store: Store,
    creator: Creator,
    /// Of the object, if the session makes it; before the umask.
    mode: u32,
    actor: Actor,
    /// What this session made is in the events: up to which of its generations.
    announced: announce::Announced,
    /// The generation that reads come from as far as nothing was written over it; `None` when it starts empty.
    base: Option<Opened>,
    /// What the base was before the session was made empty: it may come to the same bytes again.
    emptied: Option<Opened>,
    /// What must be current for the commit.
    expect: Precondition,
    /// What was written.
    staged: Option<Staged>,
    /// That is a copy of what is kept elsewhere.
    copied: bool,
    /// If set, `staged` holds only the bytes from here on, and those before are the base's.
    tail_from: Option<u64>,
    /// So many bytes at the beginning, as far as they were not written since, are others than those that the session was based
    /// on, which are kept nowhere.
    base_lost: Option<u64>,
    /// Of what is staged.
    sum: RunningSum,
    /// The bytes differ from what was last published.
    dirty: bool,
    /// Something was written, not just truncated, since the last publication.
    wrote: bool,
    /// Every write so far was an append.
    append_only: bool,
    /// The current generation is this session's own: the next publication replaces it.
    published: bool,
    /// A part of what is current was acknowledged by fsync, and no older generation holds it.
    synced: bool,
    /// What is staged was acknowledged by fsync, and not published.
    secured: bool,
    /// Access and modification times that were set on what is staged.
    times: (Option<SetTime>, Option<SetTime>),
    /// What was published last stands behind others' appends, not where it was written.
    merged: bool,
    /// Writes that failed and were not repeated: the bytes are not what the writer meant.
    failed: failed::FailedWrites,
    /// What a rule had against it when it was to be published; nothing was written since.
    rejected: Option<Breach>,
    /// What went too far beyond the largest size was not written. As `failed`, until that is.
    overrun: Option<Breach>,
    /// The largest object where it was opened, in bytes.
    max_size: Option<u64>,
    /// What can't be saved by a rule is kept elsewhere, or the caller has it.
    drops_rejected: bool,
    /// The session lost to a newer generation.
    lost: Option<(Option<Generation>, ConflictId)>,
    key: Key,
}

impl Session {
    /// Opens a session on what is at `key`.
    pub(super) fn open(store: &Store, key: &Key, options: &SessionOptions) -> Result<Self> {
        loop {
            if options.exclusive && options.create.is_some() {
                return Self::create(store, key, options);
            }
            match store.get(key) {
                Ok(opened) => {
                    let mut session = Self::on(store, key, opened, options);
                    if options.truncate {
                        session.truncate(0)?;
                    }
                    return Ok(session);
                }
                Err(Error::Backend(error)) if error.is_not_found() && options.create.is_some() => {
                    match Self::create(store, key, options) {
                        // Somebody else was faster: then it is theirs that we open.
                        Err(Error::Backend(backend::Error::Exists(_))) => {}
                        other => return other,
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn create(store: &Store, key: &Key, options: &SessionOptions) -> Result<Self> {
        let stat = store.reserve(key, options.create.unwrap_or(0o666), &options.creator)?;
        Ok(Self::reserved(store, key, &stat, options))
    }

    /// A session on an object that was just reserved.
    pub fn reserved(store: &Store, key: &Key, stat: &Stat, options: &SessionOptions) -> Self {
        let expect = options.expect.unwrap_or(Precondition::Reserved(stat.id));
        let mut session = Self::new(store, key, None, expect, options);
        session.announced.is_new();
        session
    }

    /// A session on an object that was just opened.
    pub fn on(store: &Store, key: &Key, opened: Opened, options: &SessionOptions) -> Self {
        let found = opened.stat.precondition();
        let base = opened.stat.generation.is_some().then_some(opened);
        Self::new(store, key, base, options.expect.unwrap_or(found), options)
    }

    /// A session that replaces all bytes under a precondition, whether or not the object exists.
    pub(super) fn replace(store: &Store, key: &Key, expect: Precondition) -> Result<Self> {
        let is_new = match store.backend.stat(key) {
            Ok(stat) if stat.kind == FileKind::Directory => return Err(backend::Error::IsDirectory(key.clone()).into()),
            Ok(stat) if stat.kind != FileKind::File => {
                return Err(backend::Error::Invalid(key.clone(), "not a regular file").into());
            }
            Ok(_) => false,
            Err(error) if error.is_not_found() => true,
            Err(error) => return Err(error.into()),
        };
        let mut session = Self::new(store, key, None, expect, &SessionOptions::default());
        if is_new {
            session.announced.is_new();
        }
        session.dirty = true;
        session.append_only = false;
        Ok(session)
    }

    fn new(store: &Store, key: &Key, base: Option<Opened>, expect: Precondition, options: &SessionOptions) -> Self {
        Session {
            store: store.clone(),
            creator: options.creator,
            mode: options.create.unwrap_or(0o666),
            actor: options.actor,
            announced: announce::Announced::default(),
            base,
            emptied: None,
            expect,
            staged: None,
            copied: false,
            tail_from: None,
            base_lost: None,
            sum: RunningSum::new(0),
            dirty: false,
            wrote: false,
            append_only: true,
            published: false,
            synced: false,
            secured: false,
            times: (None, None),
            merged: false,
            failed: failed::FailedWrites::default(),
            rejected: None,
            overrun: None,
            max_size: store.rules_for(key).max_size(),
            drops_rejected: true,
            lost: None,
            key: key.clone(),
        }
    }

    /// Whether there is something to publish.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Where the object was when the session last heard of it.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Whether an fsync has acknowledged what isn't published.
    pub fn is_secured(&self) -> bool {
        self.secured && self.dirty && self.lost.is_none()
    }

    /// Whether the current generation is this session's own.
    pub fn is_published(&self) -> bool {
        self.published
    }

    /// Whether the last publication put the bytes behind others' appends; asked once.
    pub fn take_merged(&mut self) -> bool {
        std::mem::take(&mut self.merged)
    }

    /// Whether bytes were written, not just truncated, since the last publication.
    pub fn has_written(&self) -> bool {
        self.wrote
    }

    /// Whether all that was done is that bytes were cut off. What was made longer may be about to be written through a
    /// mapping.
    pub fn has_only_cut(&self) -> bool {
        let before = self.base.as_ref().map_or(1, |base| base.stat.size);
        self.dirty && !self.wrote && self.size().is_ok_and(|size| size < before)
    }

    /// Whether the session lost to a newer generation, so that nothing more can be written in it.
    pub fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// Whether the version that it was based on when it was opened is no longer this one. Who named a generation may
    /// have named another one on purpose.
    pub fn is_outdated(&self, stat: &Stat) -> bool {
        !matches!(self.expect, Precondition::Generation(_)) && !self.is_based_on(stat)
    }

    /// Whether it is a change of this generation, or goes on with it.
    pub fn expects(&self, generation: Generation) -> bool {
        match self.expect {
            Precondition::Version(base, ..) | Precondition::Generation(base) => base == generation,
            _ => false,
        }
    }

    /// The file that readers may read while nothing is staged.
    pub fn base_file(&self) -> Option<&Arc<File>> {
        self.base.as_ref().map(|base| &base.file)
    }

    /// Writes at an offset; behind the end, the gap reads as zeros.
    ///
    /// # Errors
    /// ENOSPC and the like: the range is then remembered, and unless it is written again the session is not
    /// published, for its bytes are not what the writer meant; but for one of which an fsync has acknowledged bytes.
    /// [`Error::Conflict`] in a session that lost; [`Error::Rejected`] far beyond the size that a rule allows, which
    /// counts as a write that failed.
    pub fn write_at(&mut self, data: &[u8], offset: u64) -> Result<()> {
        self.append_only = false;
        self.write(data, offset)
    }

    /// Writes at the end, wherever that is, and returns where that was. Sessions that only append don't conflict
    /// with each other.
    ///
    /// # Errors
    /// As [`Session::write_at`].
    pub fn append(&mut self, data: &[u8]) -> Result<u64> {
        let offset = self.end()?;
        self.write(data, offset)?;
        Ok(offset)
    }

    fn write(&mut self, data: &[u8], offset: u64) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let range = (offset, offset.saturating_add(data.len() as u64));
        let size = self.end()?;
        let mut done = 0;
        let result = self.check_overrun(range.1).and_then(|()| self.stage_with_room(data, offset, &mut done));
        if let Err(error) = result {
            if done > 0 && offset < size {
                // What was there before is no more.
                self.changed();
                self.wrote = true;
            }
            self.note_failed(range, size, &error);
            return Err(error);
        }
        self.sum.written(offset, data);
        self.note_written(range, size);
        self.changed();
        self.wrote = true;
        Ok(())
    }

    fn end(&self) -> Result<u64> {
        self.size().map_err(|e| self.io("find the end", e))
    }

    /// Cuts the bytes off at `size`, or fills up with zeros to it. Returns whether that changed anything.
    ///
    /// # Errors
    /// As [`Session::write_at`]; [`Error::Rejected`] when it would be larger than a rule allows.
    pub fn truncate(&mut self, size: u64) -> Result<bool> {
        self.check_lost()?;
        let old = self.end()?;
        if size == old {
            self.note_cut(size);
            return Ok(false);
        }
        if size > old {
            self.check_extent(size)?;
        }
        self.append_only = false;
        if size == 0 {
            // Nothing of the base is needed any more, unless that fails.
            let base = self.base.take();
            if let Err(error) = self.stage_nothing() {
                self.base = base;
                return Err(error);
            }
            self.emptied = base.or(self.emptied.take()).filter(|_| !self.published);
        } else {
            self.stage_from(size.min(old))?;
            self.staged_file()?.set_len(size).map_err(|e| self.io("truncate", e))?;
            self.base_lost = self.base_lost.map(|lost| lost.min(size));
            self.sum.lose();
        }
        self.note_cut(size);
        self.changed();
        Ok(true)
    }

    /// fallocate(2) with any of its modes.
    ///
    /// # Errors
    /// As [`Session::truncate`]; the bytes are as before then, and no space is taken behind their end.
    pub fn allocate(&mut self, mode: FallocateFlags, offset: u64, length: u64) -> Result<()> {
        if !mode.contains(FallocateFlags::KEEP_SIZE) {
            self.check_extent(offset.saturating_add(length))?;
        }
        self.append_only = false;
        let shifts = mode.intersects(FallocateFlags::COLLAPSE_RANGE | FallocateFlags::INSERT_RANGE);
        self.stage_from(offset)?;
        if shifts {
            self.stage_whole()?;
        }
        self.sum.lose();
        let size = self.end()?;
        if let Err(error) = rustix::fs::fallocate(self.staged_file()?, mode, offset, length) {
            self.cut_back(size);
            return Err(self.io("allocate space", error));
        }
        self.changed();
        self.wrote = true;
        Ok(())
    }

    /// Copies a range of another open file into this session in the kernel. Returns how many bytes were copied.
    ///
    /// # Errors
    /// As [`Session::write_at`].
    pub fn copy_from(&mut self, from: &File, at: u64, offset: u64, length: usize) -> Result<usize> {
        // Programs ask for as much as there is, or more.
        let there = from.metadata().map_err(|e| self.io("copy", e))?.len().saturating_sub(at);
        let most = there.min(length as u64);
        let range = (offset, offset.saturating_add(most));
        let size = self.end()?;
        self.append_only = false;
        let copied = self.check_overrun(range.1).and_then(|()| self.copy_with_room(from, at, offset, length, most));
        match copied {
            Ok(0) => Ok(0),
            Ok(n) => {
                self.sum.lose();
                self.note_written((offset, offset.saturating_add(n as u64)), size);
                self.changed();
                self.wrote = true;
                Ok(n)
            }
            Err(error) => {
                if most > 0 && !asks_to_write(&error) {
                    self.note_failed(range, size, &error);
                }
                Err(error)
            }
        }
    }

    /// Sets the times of what is staged. Returns whether something is: otherwise the object's own are meant.
    ///
    /// # Errors
    /// The system's answer.
    pub fn set_times(&mut self, atime: Option<SetTime>, mtime: Option<SetTime>) -> io::Result<bool> {
        let Some(staged) = &self.staged else {
            return Ok(false);
        };
        rustix::fs::futimens(&**staged.file(), &timestamps(atime, mtime))?;
        // Those of now are those of this moment, not of the save.
        let meta = staged.file().metadata()?;
        let accessed = Timestamp::from_parts(meta.atime(), meta.atime_nsec() as u32);
        let modified = Timestamp::from_parts(meta.mtime(), meta.mtime_nsec() as u32);
        self.times.0 = atime.map(|_| SetTime::At(accessed)).or(self.times.0);
        self.times.1 = mtime.map(|_| SetTime::At(modified)).or(self.times.1);
        Ok(true)
    }

    fn check_lost(&self) -> Result<()> {
        match &self.lost {
            None => Ok(()),
            Some((current, kept)) => {
                Err(Error::Conflict { key: self.key.clone(), current: *current, kept: kept.clone() })
            }
        }
    }

    fn io(&self, operation: &'static str, source: impl Into<io::Error>) -> Error {
        backend::Error::Io { key: self.key.clone(), operation, source: source.into() }.into()
    }

    fn broken(&self) -> Error {
        self.io("write without a staged file", rustix::io::Errno::IO)
    }
}

/// Whether it is an answer to copy_file_range(2) after which programs read and write instead.
fn asks_to_write(error: &Error) -> bool {
    use rustix::io::Errno;
    let Error::Backend(backend::Error::Io { source, .. }) = error else { return false };
    let instead = [Errno::XDEV, Errno::INVAL, Errno::OPNOTSUPP, Errno::NOSYS];
    Errno::from_io_error(source).is_some_and(|errno| instead.contains(&errno))
}
