//! Who may see what in a view: the permissions of what it stands for.

use std::fs::File;

use super::super::groups;
use crate::backend::Stat;
use crate::fs::Caller;
use crate::types::Timestamp;

/// Where an ACL is that may give the group less than the mode says.
pub const ACL: &str = "system.posix_acl_access";

/// Who may do what, and when the bytes were changed.
#[derive(Debug, Clone, Copy)]
pub struct Shade {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Timestamp,
}

/// The permissions that let a directory be searched by whom a file can be read.
pub fn searchable(mode: u32) -> u32 {
    let read = mode & 0o444;
    read | (read >> 2)
}

/// What belongs to the daemon's own user.
pub fn own(mode: u32) -> Shade {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Shade { mode, uid, gid, mtime: Timestamp::from_nanos(0) }
}

pub fn shade_of(stat: &Stat, has_acl: bool) -> Shade {
    // With an ACL the bits of the group are but its mask; who is who can't be said here, so only the owner is let in.
    let mode = if has_acl { stat.mode & 0o700 } else { stat.mode & 0o777 };
    Shade { mode, uid: stat.uid, gid: stat.gid, mtime: stat.mtime }
}

pub fn readable(shade: Shade) -> Shade {
    Shade { mode: shade.mode & 0o444, ..shade }
}

pub fn has_acl(file: &File) -> bool {
    rustix::fs::fgetxattr(file, ACL, &mut [0u8; 0][..]).is_ok_and(|length| length > 0)
}

/// Whether the permissions of a generation let the caller read it.
pub fn may_read(caller: &Caller, shade: Shade) -> bool {
    let bit = if caller.uid == shade.uid {
        0o400
    } else if groups::is_member(caller, shade.gid) {
        0o040
    } else {
        0o004
    };
    caller.uid == 0 || shade.mode & bit != 0
}
