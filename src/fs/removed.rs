//! What has lost its last name by this mount and is still in use: it can be asked and changed by its descriptors.
//!
//! What somebody else has removed is an object's, or a history's, by now, and left alone.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use rustix::fs::{Gid, Mode, Uid, XattrFlags};
use rustix::io::Errno;

use super::node::Remains;
use super::open_node::OpenNode;
use super::types::{Caller, Ino};
use super::{Fs, Result, groups};
use crate::backend::SetAttr;

/// The longest value, and the longest list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const LONGEST: usize = 64 << 10;
const SGID: u32 = 0o2000;

/// Something without a name.
#[derive(Debug)]
pub(super) enum Removed {
    /// As what was removed was held, or as it is open.
    There(Descriptor),
    /// The medium couldn't hold it, so it has no attributes but those that were remembered.
    Gone,
}

#[derive(Debug)]
pub(super) enum Descriptor {
    Held(Arc<OwnedFd>),
    Open(Arc<File>),
}

impl Descriptor {
    /// That of what is left, or else that by which it is open.
    pub(super) fn of(open: Option<&OpenNode>, orphan: Option<&Remains>) -> Option<Self> {
        match orphan {
            Some(Remains::Held(held)) => Some(Descriptor::Held(held.clone())),
            Some(Remains::Known(_)) => None,
            None => open.and_then(OpenNode::file).map(Descriptor::Open),
        }
    }

    /// Its own path, since it may be open for its path only (O_PATH).
    fn path(&self) -> String {
        let number = match self {
            Descriptor::Held(held) => held.as_raw_fd(),
            Descriptor::Open(file) => file.as_raw_fd(),
        };
        format!("/proc/self/fd/{number}")
    }

    /// Changes attributes.
    ///
    /// # Errors
    /// The system's answer.
    pub(super) fn set_attr(&self, set: &SetAttr) -> Result<()> {
        let path = self.path();
        if set.uid.is_some() || set.gid.is_some() {
            rustix::fs::chown(&path, set.uid.map(Uid::from_raw), set.gid.map(Gid::from_raw))?;
        }
        if let Some(mode) = set.mode {
            rustix::fs::chmod(&path, Mode::from_raw_mode(mode))?;
        }
        if set.atime.is_some() || set.mtime.is_some() {
            let times = crate::backend::timestamps(set.atime, set.mtime);
            rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty())?;
        }
        Ok(())
    }
}

impl Removed {
    fn path(&self, otherwise: Errno) -> Result<String> {
        match self {
            Removed::There(descriptor) => Ok(descriptor.path()),
            Removed::Gone => Err(otherwise),
        }
    }

    /// The value of an attribute.
    ///
    /// # Errors
    /// ENODATA.
    pub(super) fn get(&self, name: &OsStr) -> Result<Vec<u8>> {
        let mut value = vec![0; LONGEST];
        let length = rustix::fs::getxattr(self.path(Errno::NODATA)?, name, &mut value[..])?;
        value.truncate(length);
        Ok(value)
    }

    /// The names of all attributes.
    ///
    /// # Errors
    /// The system's answer.
    pub(super) fn list(&self) -> Result<Vec<OsString>> {
        let Ok(path) = self.path(Errno::NODATA) else { return Ok(Vec::new()) };
        let mut list = vec![0; LONGEST];
        let length = rustix::fs::listxattr(path, &mut list[..])?;
        let names = list[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
        Ok(names.map(|name| OsString::from_vec(name.to_vec())).collect())
    }

    /// Sets an attribute.
    ///
    /// # Errors
    /// As setxattr(2); EOPNOTSUPP for what the medium couldn't hold.
    pub(super) fn set(&self, name: &OsStr, value: &[u8], flags: XattrFlags) -> Result<()> {
        rustix::fs::setxattr(self.path(Errno::OPNOTSUPP)?, name.as_bytes(), value, flags)
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// ENODATA.
    pub(super) fn remove(&self, name: &OsStr) -> Result<()> {
        rustix::fs::removexattr(self.path(Errno::NODATA)?, name.as_bytes())
    }

    /// Takes sgid away, where this caller may not keep it.
    ///
    /// # Errors
    /// The system's answer.
    pub(super) fn take_sgid(&self, caller: &Caller) -> Result<()> {
        let path = self.path(Errno::OPNOTSUPP)?;
        let stat = rustix::fs::stat(&path)?;
        if stat.st_mode & SGID != 0 && !groups::may_keep_sgid(caller, stat.st_gid) {
            rustix::fs::chmod(&path, Mode::from_raw_mode(stat.st_mode & 0o7777 & !SGID))?;
        }
        Ok(())
    }
}

impl Fs {
    /// What is left of an inode that this mount has removed the last name of; `None` for what has a name.
    ///
    /// # Errors
    /// ESTALE for what nobody has open.
    pub(super) fn removed(&self, ino: Ino) -> Result<Option<Removed>> {
        let (open, orphan) = {
            let nodes = self.nodes.lock();
            match nodes.get(ino).filter(|node| node.is_orphan()) {
                Some(node) => (node.open.clone(), node.orphan()),
                None => return Ok(None),
            }
        };
        if let Some(descriptor) = Descriptor::of(open.as_deref(), orphan.as_ref()) {
            return Ok(Some(Removed::There(descriptor)));
        }
        if matches!(orphan, Some(Remains::Known(_))) { Ok(Some(Removed::Gone)) } else { Err(Errno::STALE) }
    }
}
