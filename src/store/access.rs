//! Who may do what with an object that is made again: as before, and nobody more.

use serde::{Deserialize, Serialize};

use super::{Result, Store};
use crate::backend::{Creator, Stat};
use crate::types::Key;

/// Mode and owner of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Permission bits with suid, sgid and sticky (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Access {
    /// For who runs this alone.
    pub(super) fn private() -> Self {
        let me = Creator::current();
        Access { mode: 0o600, uid: me.uid, gid: me.gid }
    }
}

impl From<&Stat> for Access {
    fn from(stat: &Stat) -> Self {
        Access { mode: stat.mode, uid: stat.uid, gid: stat.gid }
    }
}

impl Store {
    /// How to make the object `key` with this access, as far as this process may. Bits that would be for another user or
    /// group than before are left out.
    ///
    /// # Errors
    /// Those of a look at the directory above.
    pub(super) fn maker(&self, key: &Key, access: Access) -> Result<(Creator, u32)> {
        const FOR_OWNER: u32 = 0o4000;
        const FOR_GROUP: u32 = 0o2070;
        let me = Creator::current();
        let (is_root, mut mode) = (me.uid == 0, access.mode & 0o7777);
        let above = self.backend.stat(&key.parent().unwrap_or_else(Key::root))?;
        let inherits = above.mode & 0o2000 != 0;
        let in_group = || {
            let groups = rustix::process::getgroups().unwrap_or_default();
            access.gid == me.gid || groups.iter().any(|group| group.as_raw() == access.gid)
        };
        let keeps_owner = is_root || access.uid == me.uid;
        let keeps_group = if inherits { above.gid == access.gid } else { is_root || in_group() };
        if !keeps_owner {
            mode &= !FOR_OWNER;
        }
        if !keeps_group {
            mode &= !FOR_GROUP;
        }
        let uid = if keeps_owner { access.uid } else { me.uid };
        let gid = if keeps_group { access.gid } else { me.gid };
        Ok((Creator { uid, gid, umask: 0 }, mode))
    }
}
