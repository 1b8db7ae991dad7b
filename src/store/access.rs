//! Who may do what with an object that is made again: as before, and nobody more.

use std::ffi::OsStr;

use serde::{Deserialize, Serialize};

use super::{Result, Store};
use crate::backend::{Creator, Stat};
use crate::types::{Generation, Key};

/// Where the kernel keeps an ACL that says who may access a file.
pub(super) const ACL: &str = "system.posix_acl_access";

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

impl Access {
    /// Without what the group bits of a file with an ACL say: those are the ACL's mask, and the group's own rights are in it.
    fn without_mask(self) -> Self {
        Access { mode: self.mode & !0o070, ..self }
    }
}

impl Store {
    /// Who can do what with the object that is at `key`.
    pub(super) fn access(&self, key: &Key, stat: &Stat) -> Access {
        let access = Access::from(stat);
        if self.backend.get_xattr(key, OsStr::new(ACL)).is_ok() { access.without_mask() } else { access }
    }

    /// Who could do what with what is kept of it.
    ///
    /// # Errors
    /// As [`crate::backend::Backend::generation_xattrs`].
    pub(super) fn kept_access(&self, key: &Key, generation: Generation, stat: &Stat) -> Result<Access> {
        let access = Access::from(stat);
        let attributes = self.backend.generation_xattrs(key, generation)?;
        Ok(if attributes.iter().any(|(name, _)| name == ACL) { access.without_mask() } else { access })
    }

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
            // Whoever was in the group is one of the others now, and may do no more than before.
            let group = (mode >> 3) & 0o7;
            mode &= !FOR_GROUP & (!0o7 | group);
        }
        let uid = if keeps_owner { access.uid } else { me.uid };
        let gid = if keeps_group { access.gid } else { me.gid };
        Ok((Creator { uid, gid, umask: 0 }, mode))
    }
}
