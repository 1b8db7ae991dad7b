//! What becomes of what was written to an open file: saved by close and fsync, and at the end of its last handle.

use rustix::io::Errno;

use super::errno::from_io;
use super::node::{Node, Pages};
use super::open_node::{Saved, State};
use super::types::{Caller, Fh, Ino};
use super::views::is_view;
use super::{Fs, Result};
use crate::store::Session;
use crate::types::Key;

impl Fs {
    /// Where what was written to an inode belongs; `None` when this mount has removed its last name. When somebody
    /// else has, and the directory with it, the bytes are set aside under the name that it had.
    fn key_to_save(&self, ino: Ino, state: &State) -> Option<Key> {
        let (mut known, removed) = {
            let nodes = self.nodes.lock();
            (nodes.keys(ino), nodes.get(ino).is_some_and(Node::is_orphan))
        };
        if known.len() > 1
            && let Some(at) = known.iter().position(|key| self.is_at(ino, key))
        {
            // Somebody else may have taken away the one by which it was last found.
            return Some(known.swap_remove(at));
        }
        let known = known.into_iter().next();
        known.or_else(|| if removed { None } else { state.session.as_ref().map(|session| session.key().clone()) })
    }

    /// A descriptor was closed: what the caller's process has written through it becomes a generation. A process
    /// that has written nothing only drops its copy of the descriptor ([`super::writers`]).
    ///
    /// # Errors
    /// ESTALE when somebody else's generation came first; ENOSPC and the like.
    pub fn flush(&self, caller: &Caller, fh: Fh) -> Result<()> {
        if is_view(fh) {
            return Ok(());
        }
        let handle = self.handle(fh)?;
        if !handle.write {
            return Ok(());
        }
        let _names = self.namespace.read();
        let mut state = handle.node.state.lock();
        let key = self.key_to_save(handle.ino, &state);
        // One that was only truncated waits until who has opened it closes it for the last time: `cmd > file` closes a copy
        // of the descriptor before cmd has written anything.
        let due = |session: &Session| {
            session.is_lost()
                || if session.has_written() {
                    handle.writers.include_process_of(caller.thread)
                } else {
                    session.has_only_cut() && handle.writers.opener_has_done(caller.thread, handle.ino)
                }
        };
        let own = handle.session == state.session_number;
        let cut = state.session.as_ref().is_some_and(|session| !session.has_written());
        let due = own && state.session.as_ref().is_some_and(due);
        if let Some(session) = state.session.as_mut().filter(|session| own && (due || session.has_news())) {
            session.set_actor(caller.actor());
            if !due {
                // When it is, there may be nobody left to ask.
                self.store.who(caller.actor());
            }
        }
        match key {
            Some(key) if due => {
                let saved = handle.node.publish(&mut state, &key, false);
                // Who has done nothing but truncate may have handed it on to who writes what the rules want.
                let may_go_on = cut && state.session.as_ref().is_some_and(Session::is_rejected);
                drop(state);
                let saved = self.note_saved(handle.ino, saved);
                if may_go_on { Ok(()) } else { saved }
            }
            Some(_) if !own => Err(Errno::STALE),
            _ => Ok(()),
        }
    }

    /// What was written so far will survive a power loss, whichever handle it was written through.
    ///
    /// # Errors
    /// As [`Fs::flush`].
    pub fn fsync(&self, fh: Fh) -> Result<()> {
        if is_view(fh) {
            return Ok(());
        }
        let handle = self.handle(fh)?;
        let _names = self.namespace.read();
        let mut state = handle.node.state.lock();
        let key = self.key_to_save(handle.ino, &state);
        if handle.write && handle.session != state.session_number {
            return Err(Errno::STALE);
        }
        match (&key, &state.session, &state.current) {
            (Some(key), Some(_), _) => {
                let saved = handle.node.publish(&mut state, key, true);
                drop(state);
                self.note_saved(handle.ino, saved)
            }
            (_, None, Some(current)) => current.file.sync_all().map_err(|e| from_io(&e)),
            // Without a name there is nothing that could be found after a crash.
            _ => Ok(()),
        }
    }

    /// The kernel knows the bytes that were just saved: it passed them on. What else it may know is put right.
    pub(super) fn note_saved(&self, ino: Ino, saved: Result<Saved>) -> Result<()> {
        let mut saved = match saved {
            Ok(saved) => saved,
            Err(error) => {
                // It may have been told of what is not to be, and have the bytes.
                self.drop_pages(ino);
                return Err(error);
            }
        };
        if saved.merged && saved.stat.is_none() {
            self.note_mixed(ino);
        } else if let Some(stat) = &saved.stat {
            let mut nodes = self.nodes.lock();
            if let Some(node) = nodes.get_mut(ino) {
                // Others have read what was current before a save that a rule had refused at first.
                saved.merged |= node.is_split();
                node.pages = if saved.merged { Pages::Mixed } else { Pages::Of(stat.version()) };
                node.seen = Some(stat.into());
            }
        }
        if saved.told || saved.merged {
            self.watching.invalidate(ino, saved.merged);
        }
        Ok(())
    }

    /// The last descriptor of a handle was closed.
    pub fn release(&self, fh: Fh) {
        if is_view(fh) {
            return self.view_release(fh);
        }
        let Some(handle) = self.handles.lock().remove(&fh) else { return };
        let _names = self.namespace.read();
        let mut state = handle.node.state.lock();
        let key = self.key_to_save(handle.ino, &state);
        state.handles -= 1;
        let mut saved = Saved::default();
        if handle.write {
            state.writers -= 1;
            if state.writers == 0 {
                saved = handle.node.end_session(&mut state, key.as_ref());
            }
        }
        // Readers that shared what was written anew, and is lost, go on with what has won.
        if state.session.is_none()
            && state.file().is_none()
            && state.handles > 0
            && let Some(opened) = key.and_then(|key| self.store.get(&key).ok())
            && opened.stat.id.get() == handle.ino
        {
            state.current = Some(opened);
        }
        let known = state.saved.take().filter(|_| state.handles == 0);
        drop(state);
        let _ = self.note_saved(handle.ino, Ok(saved));
        self.close_node(handle.ino, &handle.node);
        if let Some(stat) = known {
            self.nodes.lock().note_saved(handle.ino, stat);
        }
    }
}
