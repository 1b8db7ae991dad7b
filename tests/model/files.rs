//! What happens to open files in the model, of either mount.

use rustix::io::Errno;

use super::names::Model;
use super::sessions::{OpenId, Session, Staged};
use super::tree::{Id, Tree};

type Result<T = ()> = std::result::Result<T, Errno>;

impl Model {
    pub fn open(&mut self, side: usize, file: (&str, Id), how: (bool, bool)) -> Result<(OpenId, u64)> {
        self.mounts[side].open(&mut self.shared, file, how)
    }

    /// The session that a handle writes to.
    pub fn session(&mut self, side: usize, open: OpenId, write: bool, number: u64) -> Result<(&mut Session, &Tree)> {
        if !write {
            return Err(Errno::BADF);
        }
        let open = self.mounts[side].opens.get_mut(&open).expect("an open file");
        match &mut open.session {
            Some(session) if open.number == number => Ok((session, &self.shared.tree)),
            _ => Err(Errno::STALE),
        }
    }

    /// flush or fsync of a handle. `wrote`: something was written through this one.
    pub fn publish(
        &mut self,
        side: usize,
        at: OpenId,
        (write, number): (bool, u64),
        wrote: bool,
        durable: bool,
    ) -> Result {
        let mount = &mut self.mounts[side];
        let open = &mount.opens[&at];
        let named = mount.target(&self.shared.tree, at).is_some();
        let late = write && open.number != number;
        let tree = &self.shared.tree;
        let due = |session: &Session| (session.wrote && wrote) || session.lost || session.has_only_cut(tree);
        let due = open.session.as_ref().is_some_and(due);
        if durable {
            if late {
                return Err(Errno::STALE);
            }
        } else {
            match (write, named, late) {
                (false, ..) | (_, false, _) => return Ok(()),
                (_, _, true) => return Err(Errno::STALE),
                _ if !due => return Ok(()),
                _ => {}
            }
        }
        let result = mount.publish(&mut self.shared, at, durable);
        self.tear();
        result
    }

    pub fn release(&mut self, side: usize, open: OpenId, write: bool) {
        self.mounts[side].release(&mut self.shared, open, write);
        self.tear();
    }

    /// truncate(2): by itself, or as part of a session that is open.
    pub fn set_size(&mut self, side: usize, (path, id): (&str, Id), size: usize) -> Result {
        let (at, number) = self.mounts[side].open(&mut self.shared, (path, id), (true, false))?;
        let result = self.session(side, at, true, number).and_then(|(session, tree)| session.truncate(tree, size));
        let open = &self.mounts[side].opens[&at];
        let alone = open.writers == 1;
        let dirty = open.session.as_ref().is_some_and(|session| session.dirty);
        let result = match result {
            Ok(changed) if alone && dirty => self.mounts[side].publish(&mut self.shared, at, false).map(|()| changed),
            other => other,
        };
        self.mounts[side].release(&mut self.shared, at, true);
        self.tear();
        if !result? {
            self.set_mtime(side, id);
        }
        Ok(())
    }

    /// The modification time is another one, of what is staged if something is.
    pub fn set_mtime(&mut self, side: usize, id: Id) {
        let open = self.mounts[side].newest(id);
        let staged = open.and_then(|open| open.session.as_ref()).is_some_and(|s| !matches!(s.staged, Staged::None));
        if staged {
            return;
        }
        let stamp = self.shared.tree.fresh();
        let file = self.shared.tree.file_mut(id);
        file.stamp = stamp;
        let version = file.version;
        let open = self.mounts[side].newest_mut(id).filter(|open| open.current_version == version);
        if let Some(current) = open.and_then(|open| open.current.as_mut()) {
            current.1 = stamp;
        }
    }

    /// What sessions of others read is open where bytes were replaced under them.
    pub fn tear(&mut self) {
        let torn = std::mem::take(&mut self.shared.torn);
        for session in
            self.mounts.iter_mut().flat_map(|mount| mount.opens.values_mut()).filter_map(|o| o.session.as_mut())
        {
            session.torn |= session.base.is_some_and(|(phys, _)| torn.contains(&phys));
        }
    }
}
