//! Mode, owner, times and extended attributes.

use std::fs::Metadata;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::entry::{Place, statx, write_record};
use super::record::{self, Record};
use super::*;
use crate::backend::{SetTime, timestamps};
use crate::types::Timestamp;

/// The longest value or list of attributes that Linux knows (XATTR_SIZE_MAX, XATTR_LIST_MAX), in bytes.
const XATTR_MAX: usize = 64 << 10;

impl FileBackend {
    pub(super) fn change_attr(&self, key: &Key, attr: &SetAttr) -> Result<Stat> {
        let failed = |error: Errno| Error::from_io(key, "change its attributes", error);
        if key.is_root() {
            let root = self.objects.root().reopen().map_err(failed)?;
            change(
                attr,
                |mode| rustix::fs::fchmod(&root, mode),
                |uid, gid| rustix::fs::fchown(&root, uid, gid),
                |times| rustix::fs::futimens(&root, times),
            )
            .map_err(failed)?;
            return self.look(key);
        }
        let place = self.place(key)?;
        let set_mtime = attr.mtime.is_some();
        // The record holds the modification time, so both change together.
        let _tree = if set_mtime { Some(self.locks.share_tree(key)?) } else { None };
        let _lock = if set_mtime { Some(self.lock(key)?) } else { None };
        let before = match set_mtime {
            // What was changed from outside is recorded first: another time could make it look like what was recorded.
            true => Some(self.find(key, &place).and_then(|found| self.adopt_locked(key, &place, found))?),
            false => None,
        };
        change(
            attr,
            |mode| chmod(&place, mode),
            |uid, gid| rustix::fs::chownat(&place.dir, &place.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
            |times| rustix::fs::utimensat(&place.dir, &place.name, times, AtFlags::SYMLINK_NOFOLLOW),
        )
        .map_err(failed)?;
        let after = self.find(key, &place)?;
        if let Some(before) = before
            && before.stat.recorded
            && let Some(record) = after.record
        {
            write_record(key, &place, &Record { mtime: after.stat.mtime, ..record })?;
            return Ok(self.find(key, &place)?.stat);
        }
        Ok(after.stat)
    }

    pub(super) fn read_xattr(&self, key: &Key, name: &OsStr) -> Result<Vec<u8>> {
        if record::is_own(name) {
            return Err(Error::NoAttribute(key.clone()));
        }
        let place = self.xattr_place(key)?;
        let mut value = vec![0; 256];
        loop {
            match xattr::get(&place, name, &mut value) {
                Ok(length) => {
                    value.truncate(length);
                    return Ok(value);
                }
                Err(Errno::RANGE) if value.len() < XATTR_MAX => value.resize(XATTR_MAX, 0),
                Err(error) => return Err(from_xattr(key, "read an attribute", error)),
            }
        }
    }

    pub(super) fn xattr_names(&self, key: &Key) -> Result<Vec<OsString>> {
        let list = list_names(&self.xattr_place(key)?).map_err(|e| from_xattr(key, "list its attributes", e))?;
        Ok(list.into_iter().filter(|name| !record::is_own(name)).collect())
    }

    pub(super) fn write_xattr(&self, key: &Key, name: &OsStr, value: &[u8], flags: i32) -> Result<()> {
        if record::is_own(name) {
            return Err(Error::Invalid(key.clone(), "this attribute is Sepia's own record"));
        }
        let flags = XattrFlags::from_bits_retain(flags as u32);
        xattr::set(&self.xattr_place(key)?, name, value, flags).map_err(|e| from_xattr(key, "set an attribute", e))
    }

    pub(super) fn drop_xattr(&self, key: &Key, name: &OsStr) -> Result<()> {
        if record::is_own(name) {
            return Err(Error::NoAttribute(key.clone()));
        }
        xattr::remove(&self.xattr_place(key)?, name).map_err(|e| from_xattr(key, "remove an attribute", e))
    }

    fn xattr_place(&self, key: &Key) -> Result<Place> {
        if key.is_root() {
            return Ok(Place { dir: self.objects.root().clone(), name: ".".into() });
        }
        self.place(key)
    }
}

/// Gives a staged file the extended attributes of the object that it is to replace, also the one that says of what it
/// isn't the beginning any more. `fresh`: the object was just made, so its access time means nothing.
pub fn copy(key: &Key, place: &Place, from: &Stat, to: &Staged, fresh: bool) -> Result<()> {
    let names = match list_names(place) {
        Ok(names) => names,
        Err(Errno::OPNOTSUPP | Errno::ACCESS) => Vec::new(),
        Err(error) => return Err(Error::from_io(key, "read its attributes", error)),
    };
    for name in names.iter().filter(|name| !record::is_own(name) || *name == record::REWRITTEN) {
        let mut value = vec![0; XATTR_MAX];
        let length = match xattr::get(place, name, &mut value) {
            Ok(length) => length,
            Err(Errno::NODATA) => continue,
            Err(error) => return Err(Error::from_io(key, "read its attributes", error)),
        };
        match rustix::fs::fsetxattr(&**to.file(), name, &value[..length], XattrFlags::empty()) {
            // Attributes of the system that an ordinary user may see but not set (security.selinux).
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(Error::from_io(key, "copy its attributes", error)),
        }
    }
    if !fresh {
        let times = timestamps(Some(SetTime::At(from.atime)), None);
        rustix::fs::futimens(&**to.file(), &times).map_err(|e| Error::from_io(key, "copy its times", e))?;
    }
    Ok(())
}

/// Notes on a staged file that what was committed before `now` is nothing that it begins with.
pub fn set_rewritten(key: &Key, staged: &Staged, now: Timestamp) -> Result<()> {
    rustix::fs::fsetxattr(&**staged.file(), record::REWRITTEN, &now.nanos().to_le_bytes(), XattrFlags::empty())
        .map_err(|e| Error::from_io(key, "save", e))
}

/// Gives a staged file its record, and the owner and mode of the object that it is to replace: in this order, for an
/// ordinary user can't set attributes of what is read-only, and a change of owner clears suid and sgid.
pub fn seal(key: &Key, staged: &Staged, own: &Metadata, object: &Stat, record: &Record) -> Result<()> {
    let failed = |error: Errno| Error::from_io(key, "save", error);
    let file = &**staged.file();
    rustix::fs::fsetxattr(file, record::NAME, &record.pack(), XattrFlags::empty()).map_err(failed)?;
    if (object.uid, object.gid) != (own.uid(), own.gid()) {
        let owner = (Some(Uid::from_raw(object.uid)), Some(Gid::from_raw(object.gid)));
        match rustix::fs::fchown(file, owner.0, owner.1) {
            // An ordinary user's mount makes files of that user.
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(object.mode)).map_err(failed)
}

/// Gives a copy in the history the owner, mode and modification time of the generation.
pub fn copy_to_history(from: &Stat, to: &File) -> rustix::io::Result<()> {
    match rustix::fs::fchown(to, Some(Uid::from_raw(from.uid)), Some(Gid::from_raw(from.gid))) {
        Ok(()) | Err(Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    rustix::fs::fchmod(to, Mode::from_raw_mode(from.mode))?;
    set_mtime(to, from.mtime)
}

/// Sets the modification time alone.
pub fn set_mtime(file: impl AsFd, mtime: Timestamp) -> rustix::io::Result<()> {
    rustix::fs::futimens(file, &timestamps(None, Some(SetTime::At(mtime))))
}

/// Opens a file of one's own for writing though its mode forbids it, as an ordinary user's mount must.
pub fn open_read_only(place: &Place) -> rustix::io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(statx(&place.dir, &place.name)?.stx_mode.into());
    chmod(place, mode | Mode::WUSR)?;
    let opened =
        rustix::fs::openat(&place.dir, &place.name, OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    chmod(place, mode)?;
    opened
}

fn chmod(place: &Place, mode: Mode) -> rustix::io::Result<()> {
    // fchmodat follows links; of what has a mode to change, none is one.
    if rustix::fs::FileType::from_raw_mode(statx(&place.dir, &place.name)?.stx_mode.into()).is_symlink() {
        return Err(Errno::OPNOTSUPP);
    }
    rustix::fs::chmodat(&place.dir, &place.name, mode, AtFlags::empty())
}

fn change(
    attr: &SetAttr,
    chmod: impl Fn(Mode) -> rustix::io::Result<()>,
    chown: impl Fn(Option<Uid>, Option<Gid>) -> rustix::io::Result<()>,
    utimens: impl Fn(&Timestamps) -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    // The owner first: changing it clears suid and sgid, which the mode may set.
    if attr.uid.is_some() || attr.gid.is_some() {
        chown(attr.uid.map(Uid::from_raw), attr.gid.map(Gid::from_raw))?;
    }
    if let Some(mode) = attr.mode {
        chmod(Mode::from_raw_mode(mode & 0o7777))?;
    }
    if attr.atime.is_some() || attr.mtime.is_some() {
        utimens(&timestamps(attr.atime, attr.mtime))?;
    }
    Ok(())
}

fn list_names(place: &Place) -> rustix::io::Result<Vec<OsString>> {
    let mut list = vec![0u8; 512];
    loop {
        match xattr::list(place, &mut list) {
            Ok(length) => {
                let names = list[..length].split(|&b| b == 0).filter(|name| !name.is_empty());
                return Ok(names.map(|name| OsString::from_vec(name.to_vec())).collect());
            }
            Err(Errno::RANGE) if list.len() < XATTR_MAX => list.resize(XATTR_MAX, 0),
            Err(error) => return Err(error),
        }
    }
}

fn from_xattr(key: &Key, operation: &'static str, error: Errno) -> Error {
    match error {
        Errno::OPNOTSUPP => Error::Unsupported(key.clone(), "such an attribute"),
        error => Error::from_io(key, operation, error),
    }
}
