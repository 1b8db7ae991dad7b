//! Open files: handles, and the write session that the handles of one inode share.
//!
//! Handles of an inode read the same bytes: those of the session, if there is one, else those of the generation that
//! was current when the first of them was opened. The session begins with the first handle that is open for writing,
//! is published when a handle that wrote is closed or synced, and ends with the last.
//!
//! Who opens the object after somebody else (another mount, a command) has saved it gets the new generation; the
//! handles that are open stay with theirs, so that nobody reads the half of one and the half of the other, and what
//! they write meets the precondition of what they have read.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::node::{Node, Pages, Remains};
use super::open_node::{OpenNode, State};
use super::types::{Caller, Entry, Fh, Ino, OpenReply};
use super::views::is_view;
use super::writers::Writers;
use super::{Fs, Result, errno};
use crate::backend::{self, Opened};
use crate::store::{self, Session, SessionOptions};
use crate::types::{Generation, Key, Precondition};

/// An open file description.
#[derive(Debug)]
pub struct Handle {
    pub(super) ino: Ino,
    pub(super) node: Arc<OpenNode>,
    pub(super) write: bool,
    pub(super) append: bool,
    /// Which of the inode's sessions it writes to.
    pub(super) session: u64,
    /// Whose close(2) saves.
    pub(super) writers: Writers,
}

impl Handle {
    pub fn ino(&self) -> Ino {
        self.ino
    }

    /// The mount ends: publishes what was written, or sets it aside. Without a name it is given up.
    pub fn end(&self, key: Option<&Key>) {
        let mut state = self.node.state.lock();
        self.node.end_session(&mut state, key);
    }
}

/// What an open has come to.
enum Joined {
    /// It shares what the others have open.
    Shared { keep_cache: bool },
    /// They have an older generation open.
    Newer,
}

impl Fs {
    /// Opens a file. `flags` as in open(2); the kernel has checked the permissions.
    ///
    /// # Errors
    /// ESTALE when the path now leads to another object, which makes the kernel look again.
    pub fn open(&self, caller: &Caller, ino: Ino, flags: i32) -> Result<OpenReply> {
        if is_view(ino) {
            return self.view_open(caller, ino, OFlags::from_bits_retain(flags as u32));
        }
        let flags = OFlags::from_bits_retain(flags as u32);
        let write = !(flags & OFlags::ACCMODE).is_empty();
        if write || flags.contains(OFlags::TRUNC) {
            self.check_writable()?;
        }
        let _names = self.namespace.read();
        let (key, node, orphan) = {
            let mut nodes = self.nodes.lock();
            let key = nodes.key(ino);
            nodes.forget_saved(ino);
            let node = nodes.get_mut(ino).ok_or(Errno::STALE)?;
            (key, node.open.get_or_insert_with(|| OpenNode::new(self.publications.clone())).join(), node.is_orphan())
        };
        let expect = key.as_ref().filter(|_| write).and_then(|key| self.expects.get(key));
        let (node, session, keep_cache) = match &key {
            Some(key) => self.open_named(node, key, ino, caller, flags, write, expect)?,
            // Opened again by /proc/PID/fd: whoever holds it open shares it.
            None => {
                let mut state = node.state.lock();
                let mut shares = orphan && state.handles > 0;
                // Or by who had found it at its name when this mount took that away: who only reads is served as if just
                // before that, for the kernel looks again but once, and by then it may have happened again.
                if orphan
                    && !shares
                    && !write
                    && let Some(file) = self.open_removed(ino)
                {
                    state.unnamed = Some(file);
                    shares = true;
                }
                if shares {
                    state.add_handle(write);
                }
                let session = state.session_number;
                drop(state);
                if !shares {
                    self.close_node(ino, &node);
                    return Err(Errno::STALE);
                }
                (node, session, false)
            }
        };
        if let (Some(key), Some(_)) = (&key, expect) {
            // The session sees to it from now on.
            self.expects.end(key);
        }
        if flags & OFlags::ACCMODE != OFlags::WRONLY {
            self.note_read(caller, key.as_ref(), &node);
        }
        let append = flags.contains(OFlags::APPEND);
        let writers = Writers::new(caller.thread);
        let fh = self.add_handle(Handle { ino, node, write, append, session, writers });
        // The kernel has one cache for all handles of an inode. Those that were open before may go on using it.
        let split = self.nodes.lock().get(ino).is_some_and(Node::is_split);
        Ok(OpenReply { fh, keep_cache: keep_cache && !split, direct: split || self.is_shared(), no_flush: !write })
    }

    /// The file of an inode that has lost its last name, where the medium keeps it.
    fn open_removed(&self, ino: Ino) -> Option<Arc<File>> {
        let Remains::Held(held) = self.nodes.lock().get(ino)?.orphan()? else { return None };
        let path = format!("/proc/self/fd/{}", held.as_raw_fd());
        Some(Arc::new(File::open(path).ok()?))
    }

    /// Adds a handle to those that share `node`, or that share another node, if what is at `key` is another
    /// generation than theirs. Returns the node, the number of the session, and whether cached pages are good.
    #[allow(clippy::too_many_arguments, clippy::type_complexity, reason = "what an open is made of")]
    fn open_named(
        &self,
        mut node: Arc<OpenNode>,
        key: &Key,
        ino: Ino,
        caller: &Caller,
        flags: OFlags,
        write: bool,
        expect: Option<Generation>,
    ) -> Result<(Arc<OpenNode>, u64, bool)> {
        loop {
            let mut state = node.state.lock();
            match self.open_state(&mut state, key, ino, caller, flags, write, expect) {
                Ok(Joined::Shared { keep_cache }) => {
                    state.add_handle(write);
                    let session = state.session_number;
                    drop(state);
                    return Ok((node, session, keep_cache));
                }
                Ok(Joined::Newer) => {
                    drop(state);
                    let newer = OpenNode::new(self.publications.clone());
                    let mut nodes = self.nodes.lock();
                    let unused = node.leave();
                    let joins = match nodes.get_mut(ino) {
                        Some(known) => {
                            if unused {
                                known.end_open(&node);
                            }
                            known.renew(&node, newer)
                        }
                        None => newer,
                    };
                    node = joins.join();
                }
                Err(error) => {
                    drop(state);
                    self.close_node(ino, &node);
                    return Err(error);
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "what an open is made of")]
    fn open_state(
        &self,
        state: &mut State,
        key: &Key,
        ino: Ino,
        caller: &Caller,
        flags: OFlags,
        write: bool,
        expect: Option<Generation>,
    ) -> Result<Joined> {
        let truncate = flags.contains(OFlags::TRUNC) && write;
        // A session that was published and not written to since makes way for a new one: what follows is another
        // save, though the last close of the one before may still be on its way to us.
        // Nor does one join what a rule has something against: its writer may go on, everybody else has what is current.
        let joined = state.session.as_ref().filter(|s| s.is_dirty() && !s.is_lost() && !s.is_rejected());
        let mut keep = true;
        if let Some(session) = joined {
            // Who wrote before asked for nothing, and must not lose by it.
            if expect.is_some_and(|generation| !session.expects(generation)) {
                return Err(Errno::STALE);
            }
        } else {
            let mut opened = self.store.get(key).map_err(errno)?;
            let replaced = opened.stat.id.get() != ino;
            if replaced {
                // By somebody else, since the kernel looked it up. Who only reads is served as if just before that.
                // Where it is the same file below, only its record was changed, and what was before is not what it was.
                let known = self.nodes.lock().get(ino).and_then(|node| node.seen);
                let same_file = known.is_some_and(|known| known.is_of_file(&opened.stat));
                let reads = if write || same_file { None } else { self.store.replaced(key, ino).map_err(errno)? };
                opened = reads.ok_or(Errno::STALE)?;
            }
            let same = state.current.as_ref().is_some_and(|current| current.stat.same_bytes(&opened.stat));
            let own = |session: &Session| session.is_based_on(&opened.stat) && !session.is_rejected();
            let rejected = state.session.as_ref().is_some_and(Session::is_rejected);
            if (!same || rejected) && state.handles > 0 && !state.session.as_ref().is_some_and(own) {
                return Ok(Joined::Newer);
            }
            keep = if replaced {
                self.note_mixed(ino);
                false
            } else {
                self.note_opened(ino, &opened, flags & OFlags::ACCMODE, state.handles == 0)
            };
            if !same {
                state.current = Some(Opened { file: opened.file.clone(), stat: opened.stat.clone() });
            }
            let had_session = state.session.is_some();
            // A precondition that somebody asked for must not be forgotten, either.
            let anew = |old: &mut Session| write && (old.is_published() || expect.is_some());
            // Another mount may have given the same bytes another number, by a rename.
            let begins_anew = |old: &mut Session| anew(old) || old.is_lost() || old.is_outdated(&opened.stat);
            if let Some(old) = state.session.take_if(begins_anew) {
                // The handles of a session that was lost must not write over what won.
                state.session_number += u64::from(old.is_lost());
                old.close(key);
            }
            if state.session.is_none() && (write || state.writers > 0) {
                state.session_number += u64::from(!had_session);
                let options = SessionOptions {
                    create: None,
                    exclusive: false,
                    truncate: false,
                    expect: expect.map(Precondition::Generation),
                    creator: caller.creator(),
                    actor: caller.actor(),
                };
                state.begin(Session::on(&self.store, key, opened, &options));
            }
        }
        if truncate && let Some(session) = &mut state.session {
            session.truncate(0).map_err(errno)?;
        }
        Ok(Joined::Shared { keep_cache: keep })
    }

    /// Writes down who has opened what for reading, where the store's policy asks for it.
    fn note_read(&self, caller: &Caller, key: Option<&Key>, node: &OpenNode) {
        let Some(key) = key.filter(|_| self.store.audits_reads()) else { return };
        let stat = node.state.lock().current.as_ref().map(|current| current.stat.clone());
        if let Some(stat) = stat.or_else(|| self.store.stat(key).ok()) {
            self.store.by(caller.actor()).opened(key, &stat);
        }
    }

    /// Creates and opens a file.
    ///
    /// # Errors
    /// EEXIST with O_EXCL, and what [`Fs::open`] says.
    pub fn create(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &std::ffi::OsStr,
        mode: u32,
        flags: i32,
    ) -> Result<(Entry, OpenReply)> {
        self.check_no_view(parent)?;
        self.check_writable()?;
        let open_flags = OFlags::from_bits_retain(flags as u32);
        let names = self.namespace.read();
        let key = self.child(parent, name)?;
        let stat = match self.store.reserve(&key, mode, &caller.creator()) {
            Ok(stat) => stat,
            Err(store::Error::Backend(backend::Error::Exists(_))) if !open_flags.contains(OFlags::EXCL) => {
                drop(names);
                let entry = self.lookup(parent, name)?;
                return match self.open(caller, entry.attr.ino, flags) {
                    Ok(reply) => Ok((entry, reply)),
                    Err(error) => {
                        self.forget(entry.attr.ino, 1);
                        Err(error)
                    }
                };
            }
            Err(error) => return Err(errno(error)),
        };
        let ino = stat.id.get();
        // What was expected here is no more: that is told when the session is saved, as for a file that is there.
        let expect = self.expects.get(&key).map(Precondition::Generation);
        self.expects.end(&key);
        let options = SessionOptions {
            create: Some(mode),
            exclusive: true,
            truncate: false,
            expect,
            creator: caller.creator(),
            actor: caller.actor(),
        };
        let session = Session::reserved(&self.store, &key, &stat, &options);
        let entry = self.entry(parent, name, stat.clone());
        let node = {
            let mut nodes = self.nodes.lock();
            let node = nodes.get_mut(ino).ok_or(Errno::STALE)?;
            node.pages = Pages::Of(stat.version());
            node.open.get_or_insert_with(|| OpenNode::new(self.publications.clone())).join()
        };
        let write = true;
        let mut state = node.state.lock();
        state.begin(session);
        state.session_number += 1;
        let session = state.session_number;
        state.add_handle(write);
        drop(state);
        let append = open_flags.contains(OFlags::APPEND);
        let writers = Writers::new(caller.thread);
        let fh = self.add_handle(Handle { ino, node, write, append, session, writers });
        Ok((entry, OpenReply { fh, keep_cache: false, direct: self.is_shared(), no_flush: false }))
    }

    fn add_handle(&self, handle: Handle) -> Fh {
        let fh = self.new_handle();
        self.handles.lock().insert(fh, Arc::new(handle));
        fh
    }

    pub(super) fn handle(&self, fh: Fh) -> Result<Arc<Handle>> {
        self.handles.lock().get(&fh).cloned().ok_or(Errno::BADF)
    }

    /// The end of one that joined an inode's handles. After the last, what they shared is dropped.
    pub(super) fn close_node(&self, ino: Ino, node: &Arc<OpenNode>) {
        let mut nodes = self.nodes.lock();
        if node.leave()
            && let Some(known) = nodes.get_mut(ino)
        {
            known.end_open(node);
        }
    }
}
