//! Opening current generations.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::dirs::open_root;
use super::entry::{Place, convert};
use super::record::{self, Record};
use super::*;

impl FileBackend {
    pub(super) fn open_current(&self, key: &Key) -> Result<Opened> {
        let place = self.place(key)?;
        // Before the open, for opening a device is an action of its own.
        let statx = super::entry::statx(&place.dir, &place.name).map_err(|e| Error::from_io(key, "stat", e))?;
        if convert(&statx, None).kind != FileKind::File {
            return Err(Error::Invalid(key.clone(), "is no regular file"));
        }
        let mut opened = open_place(key, &place)?;
        if !opened.stat.recorded && opened.stat.generation.is_some() {
            // Changed from outside, or a commit is under way.
            opened = self.open_adopted(key)?;
        }
        self.firsts.saw(key, &opened.stat);
        self.access_times.opened_file(&*opened.file);
        Ok(opened)
    }
}

impl FileBackend {
    /// A descriptor that keeps what is at `key` after it was removed.
    pub(super) fn hold_entry(&self, key: &Key) -> Result<OwnedFd> {
        if key.is_root() {
            return open_root(&self.path).map_err(|e| Error::from_io(key, "hold it open", e));
        }
        let place = self.place(key)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&place.dir, &place.name, flags, Mode::empty())
            .map_err(|e| Error::from_io(key, "hold it open", e))
    }
}

/// Opens the file at a place and looks at it by the descriptor, so that both are of the same file.
pub fn open_place(key: &Key, place: &Place) -> Result<Opened> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let failed = |error: Errno| Error::from_io(key, "open", error);
    let fd = rustix::fs::openat(&place.dir, &place.name, flags | OFlags::LARGEFILE, Mode::empty()).map_err(failed)?;
    let statx = super::entry::statx(&fd, OsStr::new("")).map_err(failed)?;
    let record = record_of(key, &fd)?;
    let stat = convert(&statx, record.as_ref());
    if stat.kind != FileKind::File {
        return Err(Error::Invalid(key.clone(), "is no regular file"));
    }
    Ok(Opened { file: Arc::new(File::from(fd)), stat })
}

/// The record of an open file.
pub fn record_of(key: &Key, file: impl rustix::fd::AsFd) -> Result<Option<Record>> {
    let mut value = [0u8; 64];
    match rustix::fs::fgetxattr(file, record::NAME, &mut value[..]) {
        Ok(length) => Ok(Record::unpack(&value[..length])),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(None),
        Err(error) => Err(Error::from_io(key, "read its record", error)),
    }
}
