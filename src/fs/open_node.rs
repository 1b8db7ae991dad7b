//! What the handles of one inode share.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustix::io::Errno;

use super::errno::from_io;
use super::files::Handle;
use super::node::Node;
use super::{Result, errno};
use crate::backend::{FileKind, Opened, SetAttr, Stat};
use crate::store::Session;
use crate::types::Key;

/// What the handles of one inode share that were opened on the same generation, or on what this mount made of it.
#[derive(Debug)]
pub struct OpenNode {
    pub(super) state: Mutex<State>,
    /// Its handles, and those that are being opened. Counted under the lock of all nodes: whoever only asks for
    /// attributes has a reference too, and must not keep it.
    users: AtomicUsize,
    /// Of the whole filesystem: counts what was published, before the lock is released.
    pub(super) publications: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) handles: usize,
    pub(super) writers: usize,
    /// The current generation, as it was last opened.
    pub(super) current: Option<Opened>,
    pub(super) session: Option<Session>,
    /// What the last session wrote, of a file without a name: its other handles go on sharing it.
    pub(super) unnamed: Option<Arc<File>>,
    /// Counts the sessions, so that a handle whose session was lost doesn't write into the next one.
    pub(super) session_number: u64,
    /// The kernel may remember attributes from before the session is saved. Not after a write(2), for it forgets size
    /// and times by itself then (`fuse_write_update_attr`), and also what was answered before but came in later.
    pub(super) told: bool,
    /// What the object was after the last save, if nothing was done to it since.
    pub(super) saved: Option<Stat>,
}

/// What a save, or the end of a session, makes of what the kernel knows.
#[derive(Debug, Default)]
pub struct Saved {
    /// The new state, if there is one.
    pub(super) stat: Option<Stat>,
    /// The kernel may know other attributes.
    pub(super) told: bool,
    /// The kernel has other bytes: others' appends came in between, or what it has passed on was not saved.
    pub(super) merged: bool,
}

impl State {
    pub(super) fn add_handle(&mut self, write: bool) {
        self.saved = None;
        self.handles += 1;
        self.writers += usize::from(write);
    }

    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        match (&self.session, self.file()) {
            (Some(session), _) => session.read_at(buffer, offset),
            (None, Some(file)) => read_at(file, buffer, offset),
            (None, None) => Ok(0),
        }
    }

    /// What is read while there is no session.
    pub(super) fn file(&self) -> Option<&Arc<File>> {
        self.unnamed.as_ref().or(self.current.as_ref().map(|current| &current.file))
    }

    /// The session of a handle, to write to.
    pub(super) fn session(&mut self, handle: &Handle) -> Result<&mut Session> {
        if !handle.write {
            return Err(Errno::BADF);
        }
        self.saved = None;
        match &mut self.session {
            Some(session) if handle.session == self.session_number => Ok(session),
            _ => Err(Errno::STALE),
        }
    }

    pub(super) fn publish(&mut self, key: &Key, durable: bool) -> Result<Saved> {
        let Some(session) = &mut self.session else { return Ok(Saved::default()) };
        let stat = if durable { session.sync(key) } else { session.publish(key, false) }.map_err(errno)?;
        if let (Some(stat), Some(file)) = (&stat, session.base_file()) {
            self.current = Some(Opened { file: file.clone(), stat: stat.clone() });
        }
        self.saved.clone_from(&stat);
        let told = stat.is_some() && std::mem::take(&mut self.told);
        Ok(Saved { told, merged: session.take_merged(), stat })
    }

    pub(super) fn begin(&mut self, session: Session) {
        self.session = Some(session);
        self.told = true;
    }
}

impl OpenNode {
    pub fn new(publications: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(OpenNode { state: Mutex::default(), users: AtomicUsize::new(0), publications })
    }

    /// For a handle to be, under the lock of all nodes.
    pub(super) fn join(self: &Arc<Self>) -> Arc<Self> {
        self.users.fetch_add(1, Ordering::Relaxed);
        self.clone()
    }

    /// The end of a handle, or of an open that has failed, under the lock of all nodes. Returns whether it was the last.
    pub(super) fn leave(&self) -> bool {
        self.users.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// Whether there are handles, or opens under way.
    pub(super) fn is_used(&self) -> bool {
        self.users.load(Ordering::Relaxed) > 0
    }

    pub(super) fn publish(&self, state: &mut State, key: &Key, durable: bool) -> Result<Saved> {
        let published = state.publish(key, durable);
        self.publications.fetch_add(1, Ordering::Release);
        published
    }

    /// Puts into `stat`, for an answer to the kernel, what a session has written and not yet published.
    pub fn overlay(&self, stat: &mut Stat) {
        let mut state = self.state.lock();
        let Some(session) = &state.session else { return };
        let overlay = session.overlay();
        state.told = true;
        match overlay {
            Ok(Some((size, blocks, mtime, ctime))) => {
                (stat.size, stat.blocks, stat.mtime) = (size, blocks, mtime);
                stat.ctime = stat.ctime.max(ctime);
            }
            Ok(None) => {}
            Err(error) => log::error!("can't look at what was staged: {error}"),
        }
    }

    /// The file that was written after its last name was removed, once its session has ended.
    pub fn unnamed(&self) -> Option<Arc<File>> {
        self.state.lock().unnamed.clone()
    }

    /// Whether a session is under way, or something else is being done with it at this moment.
    pub fn is_written(&self) -> bool {
        self.state.try_lock().is_none_or(|state| state.session.is_some())
    }

    /// Sets times on what a session has staged. Returns whether there is something.
    pub fn set_times(&self, attr: &SetAttr) -> Result<bool> {
        match &mut self.state.lock().session {
            Some(session) => session.set_times(attr.atime, attr.mtime).map_err(|e| from_io(&e)),
            None => Ok(false),
        }
    }

    /// Publishes what was written, for the object is about to be renamed or linked.
    pub fn settle(&self, key: &Key) -> Result<Saved> {
        let mut state = self.state.lock();
        match &state.session {
            Some(session) if session.is_dirty() && !session.is_lost() => self.publish(&mut state, key, false),
            _ => Ok(Saved::default()),
        }
    }

    /// As [`OpenNode::settle`], of what an fsync has acknowledged, for the object is about to lose its name: its history
    /// keeps what it was last.
    pub fn settle_secured(&self, key: &Key) -> Result<Option<Saved>> {
        let mut state = self.state.lock();
        match &state.session {
            Some(session) if session.is_secured() => self.publish(&mut state, key, false).map(Some),
            _ => Ok(None),
        }
    }

    /// The object has another name, and perhaps another generation, by this mount's own doing. A session that was
    /// based on what it was `before` goes on; one that was stale stays so.
    pub fn follow(&self, before: &Stat, key: &Key, stat: &Stat) {
        let mut state = self.state.lock();
        state.saved = None;
        if let Some(session) = &mut state.session
            && !session.is_lost()
        {
            if session.is_based_on(before) {
                session.follow(key, stat);
            } else {
                session.moved(key);
            }
        }
        if let Some(current) = &mut state.current
            && current.stat.same_bytes(before)
        {
            current.stat = stat.clone();
        }
    }

    /// This mount has set the modification time: what is open is still the same if it was.
    pub fn touched(&self, stat: &Stat) {
        let same =
            |old: &Stat| (old.incarnation, old.size, old.committed) == (stat.incarnation, stat.size, stat.committed);
        if let Some(current) = &mut self.state.lock().current
            // Or there is nothing to be recorded yet.
            && (stat.recorded || stat.generation.is_none())
            && same(&current.stat)
        {
            current.stat = stat.clone();
        }
    }

    /// A directory above the object has another name, and the object, as it is `now`, perhaps another number by that.
    pub fn moved(&self, key: &Key, now: Option<&Stat>) {
        let same = |old: &Stat, now: &Stat| {
            let bytes = |stat: &Stat| (stat.id, stat.incarnation, stat.size, stat.mtime);
            now.recorded && bytes(old) == bytes(now)
        };
        let before = self.state.lock().current.as_ref().map(|current| current.stat.clone());
        match (before, now) {
            (Some(before), Some(now)) if same(&before, now) => self.follow(&before, key, now),
            _ => {
                if let Some(session) = &mut self.state.lock().session {
                    session.moved(key);
                }
            }
        }
    }

    /// The file that its handles read, for one that has no name any more.
    pub fn file(&self) -> Option<Arc<File>> {
        self.state.lock().file().cloned()
    }

    pub(super) fn end_session(&self, state: &mut State, key: Option<&Key>) -> Saved {
        let mut saved = Saved::default();
        if let Some(key) = key {
            // What a rule had something against, and nobody has changed since, is no better now.
            let unfinished = state.session.as_ref().is_some_and(|s| !s.is_lost() && s.is_dirty() && !s.is_rejected());
            if unfinished {
                saved = self.publish(state, key, false).unwrap_or_else(|error| {
                    log::warn!("{key}: what was written could not be saved when it was closed: {error}");
                    // What the kernel has of it is not what is there.
                    Saved { told: true, ..Saved::default() }
                });
            }
        }
        let Some(session) = state.session.take() else { return saved };
        // What was given up, or lost, was told too.
        let unsaved = session.is_lost() || session.is_dirty();
        saved.told |= unsaved;
        // Who has a file without a name open goes on with its bytes.
        saved.merged |= unsaved && key.is_some();
        if let Some(file) = session.base_file()
            && let Some(current) = &mut state.current
        {
            current.file = file.clone();
        }
        match key {
            Some(key) => session.close(key),
            None => state.unnamed = session.abandon(),
        }
        saved
    }
}

/// What is open of a node, if anything.
pub fn open_of(node: Option<&Node>) -> Option<Arc<OpenNode>> {
    node.filter(|node| node.kind == FileKind::File).and_then(|node| node.open.clone())
}

pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    use std::os::unix::fs::FileExt;
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
