//! Extended attributes: the user's own, and what Sepia says of an object under `user.sepia.`.
//!
//! Sepia's are read-only. Setting them, as `cp -a` and `rsync -X` do, is accepted and changes nothing, but for
//! `user.sepia.expect`: the generation that the next write session, rename over or removal must find.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::nodes::ROOT;
use super::types::{Caller, Ino};
use super::views::is_view;
use super::{Fs, Result, errno, from_backend, groups};
use crate::backend::{FileKind, SetAttr, Stat};
use crate::types::{Generation, Key};

/// All names with this beginning are Sepia's.
const PREFIX: &[u8] = b"user.sepia";
const EXPECT: &str = "user.sepia.expect";

/// Where the kernel keeps an ACL that says who may access the file.
const ACCESS_ACL: &str = "system.posix_acl_access";
const SGID: u32 = 0o2000;

/// The attributes that `getfattr -d` shows.
const SHOWN: [&str; 6] = [
    "user.sepia.id",
    "user.sepia.class",
    "user.sepia.kind",
    "user.sepia.generation",
    "user.sepia.committed",
    "user.sepia.links",
];

fn is_own(name: &OsStr) -> bool {
    name.as_bytes().strip_prefix(PREFIX).is_some_and(|rest| rest.is_empty() || rest[0] == b'.')
}

impl Fs {
    /// The value of an attribute.
    ///
    /// # Errors
    /// ENODATA; EOPNOTSUPP for a name space that the store can't hold.
    pub fn getxattr(&self, ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        if is_view(ino) {
            return self.view_getxattr(ino, name);
        }
        let _names = self.namespace.read();
        if let Some(removed) = self.removed(ino)? {
            return if is_own(name) { Err(Errno::NODATA) } else { removed.get(name) };
        }
        let key = self.sure_key(ino)?;
        if !is_own(name) {
            return self.store.backend().get_xattr(&key, name).map_err(from_backend);
        }
        if name == EXPECT {
            let expect = self.expects.get(&key);
            return expect.map(|generation| generation.to_string().into_bytes()).ok_or(Errno::NODATA);
        }
        if ino == ROOT && name == "user.sepia.store" {
            let location = self.store.location();
            return Ok(location.path().map_or_else(
                || location.to_string().into_bytes(),
                |path| {
                    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
                    path.into_os_string().into_vec()
                },
            ));
        }
        let stat = self.store.backend().stat(&key).map_err(from_backend)?;
        let stat = self.recorded(&key, stat)?;
        own_value(&key, &stat, name).map(String::into_bytes).ok_or(Errno::NODATA)
    }

    /// The names of all attributes.
    ///
    /// # Errors
    /// What the medium says.
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<OsString>> {
        if is_view(ino) {
            return self.view_listxattr(ino);
        }
        let _names = self.namespace.read();
        if let Some(removed) = self.removed(ino)? {
            let mut names = removed.list()?;
            names.retain(|name| !is_own(name));
            return Ok(names);
        }
        let key = self.sure_key(ino)?;
        let stat = self.store.backend().stat(&key).map_err(from_backend)?;
        let mut names = self.store.backend().list_xattrs(&key).map_err(from_backend)?;
        names.retain(|name| !is_own(name));
        // The kernel lets nobody read user.* of anything else (xattr(7)).
        if !matches!(stat.kind, FileKind::File | FileKind::Directory) {
            return Ok(names);
        }
        let own = SHOWN.iter().map(OsStr::new).filter(|name| own_value(&key, &stat, name).is_some());
        names.extend(own.map(OsString::from));
        if ino == ROOT {
            names.push("user.sepia.store".into());
        }
        Ok(names)
    }

    /// Sets an attribute on behalf of a process that the kernel has found entitled to it. `flags` as in setxattr(2).
    ///
    /// # Errors
    /// EEXIST, ENODATA (flags), EINVAL (no generation, or nothing that has one), ENOSPC, E2BIG (a rule), EROFS.
    pub fn setxattr(&self, caller: &Caller, ino: Ino, name: &OsStr, value: &[u8], flags: i32) -> Result<()> {
        self.check_no_view(ino)?;
        self.check_writable()?;
        let _names = self.namespace.read();
        if name == EXPECT {
            let generation = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse::<Generation>().ok());
            let generation = generation.ok_or(Errno::INVAL)?;
            return self.expect(ino, generation);
        }
        if is_own(name) {
            let create = XattrFlags::from_bits_retain(flags as u32).contains(XattrFlags::CREATE);
            return if create { Err(Errno::EXIST) } else { Ok(()) };
        }
        if let Some(removed) = self.removed(ino)? {
            removed.set(name, value, XattrFlags::from_bits_retain(flags as u32))?;
            return if name == ACCESS_ACL { removed.take_sgid(caller) } else { Ok(()) };
        }
        let (key, backend) = (self.sure_key(ino)?, self.store.backend());
        self.store.set_xattr(&key, name, value, flags).map_err(errno)?;
        self.note_changed(ino);
        if name == ACCESS_ACL {
            // The mode changes with it, and as with chmod(2) sgid is not for others to grant (`posix_acl_update_mode`).
            let stat = backend.stat(&key).map_err(from_backend)?;
            if stat.mode & SGID != 0 && !groups::may_keep_sgid(caller, stat.gid) {
                let attr = SetAttr { mode: Some(stat.mode & !SGID), ..SetAttr::default() };
                backend.set_attr(&key, &attr).map_err(from_backend)?;
            }
        }
        Ok(())
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// ENODATA, EROFS.
    pub fn removexattr(&self, ino: Ino, name: &OsStr) -> Result<()> {
        self.check_no_view(ino)?;
        self.check_writable()?;
        let _names = self.namespace.read();
        if is_own(name) {
            if name == EXPECT {
                self.expect_nothing(ino);
            }
            return Ok(());
        }
        if let Some(removed) = self.removed(ino)? {
            return removed.remove(name);
        }
        self.store.backend().remove_xattr(&self.sure_key(ino)?, name).map_err(from_backend)?;
        self.note_changed(ino);
        Ok(())
    }
}

/// What an attribute of Sepia's says of an object; `None` if it doesn't apply.
fn own_value(key: &Key, stat: &Stat, name: &OsStr) -> Option<String> {
    Some(match name.to_str()? {
        "user.sepia.id" => stat.id.to_string(),
        "user.sepia.class" => key.class()?.as_os_str().to_string_lossy().into_owned(),
        "user.sepia.kind" => match stat.kind {
            FileKind::File => "object",
            FileKind::Directory => "container",
            FileKind::Symlink => "reference",
            _ => "special",
        }
        .to_owned(),
        "user.sepia.generation" => stat.generation?.to_string(),
        "user.sepia.committed" => stat.committed?.rfc3339(),
        "user.sepia.links" => stat.nlink.to_string(),
        _ => return None,
    })
}
