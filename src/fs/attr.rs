//! Attributes: what stat shows and chmod, chown, utimensat and truncate change.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::node::{Node, Pages, Remains};
use super::open_node::OpenNode;
use super::removed::Descriptor;
use super::types::{Attr, Caller, Changes, Fh, Ino};
use super::views::is_view;
use super::{Fs, Result, from_backend};
use crate::backend::{SetAttr, SetTime, Stat};
use crate::types::{Key, Timestamp};

impl Fs {
    /// The attributes of an inode.
    ///
    /// # Errors
    /// ESTALE when its path no longer leads to it, which makes the kernel look up the path again (`retry_estale`).
    pub fn getattr(&self, ino: Ino, _fh: Option<Fh>) -> Result<Attr> {
        if is_view(ino) {
            return self.view_getattr(ino);
        }
        let _names = self.namespace.read();
        let look = || {
            if let Some(stat) = self.just_saved(ino) {
                return Ok(self.answer(ino, stat, None));
            }
            let (key, open, orphan) = self.known(ino)?;
            let stat = match key {
                Some(key) => match self.store.backend().stat(&key) {
                    Ok(stat) if stat.id.get() == ino => stat,
                    Err(error) if !error.is_gone() => return Err(from_backend(error)),
                    // Taken away or replaced by somebody else: who has it open goes on with what it is.
                    _ if open.as_deref().and_then(OpenNode::file).is_some() => {
                        self.orphan_stat(ino, open.as_deref(), orphan.as_ref())?
                    }
                    _ => return Err(Errno::STALE),
                },
                None => self.orphan_stat(ino, open.as_deref(), orphan.as_ref())?,
            };
            Ok(self.answer(ino, stat, open.as_deref()))
        };
        self.look(look, |_| {})
    }

    /// The attributes of what was saved and closed just now, if nobody can change them without our knowing.
    fn just_saved(&self, ino: Ino) -> Option<Stat> {
        if self.is_shared() {
            return None;
        }
        let mut nodes = self.nodes.lock();
        let stat = nodes.take_saved(ino)?;
        let told = !self.changes_from_outside || (nodes.is_overseen(ino) && self.watching.sees_all());
        told.then_some(stat)
    }

    /// Something was done to the attributes of an inode.
    pub(super) fn note_changed(&self, ino: Ino) {
        let open = {
            let mut nodes = self.nodes.lock();
            nodes.forget_saved(ino);
            super::open_node::open_of(nodes.get(ino))
        };
        if let Some(open) = open {
            open.state.lock().saved = None;
        }
    }

    /// Changes attributes on behalf of a process that the kernel has found entitled to it.
    ///
    /// # Errors
    /// EROFS; as [`Fs::write`] for the size; what the medium says.
    pub fn setattr(&self, caller: &Caller, ino: Ino, fh: Option<Fh>, changes: &Changes) -> Result<Attr> {
        self.check_no_view(ino)?;
        self.check_writable()?;
        let mut set = SetAttr {
            mode: changes.mode,
            uid: changes.uid,
            gid: changes.gid,
            atime: changes.atime,
            mtime: changes.mtime,
        };
        let mut seen = None;
        if let Some(size) = changes.size {
            let (changed, stat) = self.truncate(caller, ino, fh, size)?;
            // Even a truncation to the size that it has sets the modification time (POSIX, ftruncate).
            if !changed && set.mtime.is_none() {
                set.mtime = Some(SetTime::Now);
            }
            seen = stat;
            if caller.uid != 0 && changes.mode.is_none() {
                seen = None;
                self.clear_suid(ino)?;
            }
        }
        let _names = self.namespace.read();
        let (mut key, open, orphan) = self.known(ino)?;
        match open.as_deref().and_then(OpenNode::file) {
            None if key.is_some() && open.is_none() => drop(self.sure_key(ino)?),
            // Taken away or replaced by somebody else: who has it open goes on with what it is.
            Some(_) if seen.is_none() => key = key.filter(|key| self.leads_to(key, ino)),
            _ => {}
        }
        if let Some(open) = &open
            && (set.atime.is_some() || set.mtime.is_some())
            && open.set_times(&set)?
        {
            (set.atime, set.mtime) = (None, None);
        }
        let stat = match key {
            Some(key) if set == SetAttr::default() => match seen {
                Some(stat) => stat,
                None => self.store.backend().stat(&key).map_err(from_backend)?,
            },
            Some(key) => {
                let stat = self.store.backend().set_attr(&key, &set).map_err(from_backend)?;
                self.note_changed(ino);
                if set.mtime.is_some() {
                    self.note_touched(ino, &stat, open.as_deref());
                }
                stat
            }
            // Somebody else has moved, replaced or removed it, and there it belongs to an object, or a history.
            None if open.is_some() && !self.nodes.lock().get(ino).is_some_and(Node::is_orphan) => {
                let mtime = changes.mtime.and(set.mtime);
                if (SetAttr { mtime, ..set }) != SetAttr::default() {
                    return Err(Errno::STALE);
                }
                self.orphan_stat(ino, open.as_deref(), None)?
            }
            None => {
                self.set_orphan(open.as_deref(), orphan.as_ref(), &set)?;
                self.orphan_stat(ino, open.as_deref(), orphan.as_ref())?
            }
        };
        Ok(self.answer(ino, stat, open.as_deref()))
    }

    /// Whether an object is where it was, or can't be looked for.
    fn leads_to(&self, key: &Key, ino: Ino) -> bool {
        match self.store.backend().stat(key) {
            Ok(stat) => stat.id.get() == ino,
            Err(error) => !error.is_gone(),
        }
    }

    /// The bytes are the same, though they have another modification time now.
    fn note_touched(&self, ino: Ino, stat: &Stat, open: Option<&OpenNode>) {
        if let Some(open) = open {
            open.touched(stat);
        }
        if let Some(node) = self.nodes.lock().get_mut(ino)
            && let Pages::Of((incarnation, _, size)) = node.pages
            && incarnation == stat.incarnation
            && size == stat.size
        {
            node.pages = Pages::Of(stat.version());
        }
    }

    #[allow(clippy::type_complexity, reason = "the three places where an inode's attributes can be")]
    fn known(&self, ino: Ino) -> Result<(Option<Key>, Option<Arc<OpenNode>>, Option<Remains>)> {
        let nodes = self.nodes.lock();
        let node = nodes.get(ino).ok_or(Errno::STALE)?;
        Ok((nodes.key(ino), node.open.clone(), node.orphan()))
    }

    /// As the kernel is to know it.
    fn answer(&self, ino: Ino, mut stat: Stat, open: Option<&OpenNode>) -> Attr {
        let (overseen, misnamed) = {
            let mut nodes = self.nodes.lock();
            if let Some(node) = nodes.get_mut(ino) {
                node.seen = Some((&stat).into());
            }
            (nodes.is_overseen(ino), nodes.former.lead_to(ino, Instant::now()))
        };
        if let Some(open) = open {
            open.overlay(&mut stat);
        }
        // What is open but gone has only its handles to be asked by. Its name may still be in the kernel's cache, and is
        // looked up again as soon as the handles are closed and this answers ESTALE.
        let ttl = if stat.nlink == 0 || misnamed { Duration::ZERO } else { self.ttl(overseen, &stat) };
        Attr { ino, stat, ttl }
    }

    /// The attributes of what has lost its last name but is still in use.
    fn orphan_stat(&self, ino: Ino, open: Option<&OpenNode>, orphan: Option<&Remains>) -> Result<Stat> {
        let mut stat = match (open.and_then(OpenNode::file), orphan) {
            (_, Some(Remains::Known(stat))) => {
                let mut stat = Stat { nlink: 0, ..stat.lock().clone() };
                if let Some(file) = open.and_then(OpenNode::unnamed) {
                    let written = rustix::fs::fstat(&*file)?;
                    (stat.size, stat.blocks) = (written.st_size as u64, written.st_blocks as u64);
                    stat.mtime = Timestamp::from_parts(written.st_mtime, written.st_mtime_nsec as u32);
                }
                return Ok(stat);
            }
            (_, Some(Remains::Held(fd))) => rustix::fs::fstat(fd),
            (Some(file), None) => rustix::fs::fstat(&*file),
            (None, None) => return Err(Errno::STALE),
        }?;
        if let Some(file) = open.and_then(OpenNode::unnamed) {
            let written = rustix::fs::fstat(&*file)?;
            (stat.st_size, stat.st_blocks) = (written.st_size, written.st_blocks);
            (stat.st_mtime, stat.st_mtime_nsec) = (written.st_mtime, written.st_mtime_nsec);
        }
        let time = |seconds: i64, nanos: i64| Timestamp::from_parts(seconds, nanos as u32);
        let id = crate::types::ObjectId::from_raw(ino).ok_or(Errno::STALE)?;
        Ok(Stat {
            id,
            kind: self.nodes.lock().get(ino).ok_or(Errno::STALE)?.kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size as u64,
            blocks: stat.st_blocks as u64,
            nlink: 0,
            rdev: stat.st_rdev,
            atime: time(stat.st_atime, stat.st_atime_nsec as i64),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec as i64),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec as i64),
            committed: None,
            generation: None,
            recorded: true,
            incarnation: stat.st_ino,
        })
    }

    fn set_orphan(&self, open: Option<&OpenNode>, orphan: Option<&Remains>, set: &SetAttr) -> Result<()> {
        if let Some(Remains::Known(stat)) = orphan {
            self.set_known(&mut stat.lock(), set);
            return Ok(());
        }
        Descriptor::of(open, orphan).ok_or(Errno::STALE)?.set_attr(set)
    }

    fn set_known(&self, stat: &mut Stat, set: &SetAttr) {
        let now = self.store.now();
        let time = |set: SetTime| match set {
            SetTime::Now => now,
            SetTime::At(time) => time,
        };
        stat.mode = set.mode.unwrap_or(stat.mode);
        (stat.uid, stat.gid) = (set.uid.unwrap_or(stat.uid), set.gid.unwrap_or(stat.gid));
        (stat.atime, stat.mtime) = (set.atime.map_or(stat.atime, time), set.mtime.map_or(stat.mtime, time));
        stat.ctime = now;
    }
}
