//! Opening a store, and looking at what is at a key.

use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Mode, RawDir, Statx, StatxFlags, XattrFlags};
use rustix::io::Errno;

use super::dirs::open_root;
use super::lock::KeyLock;
use super::nested::{check_not_inside, check_not_nested};
use super::record::{self, Record};
use super::*;
use crate::backend::ownership::give_path;
use crate::types::{RESERVED_NAME, Timestamp};

/// Directories that are held open at most; the usual limit of a process is 1,024 descriptors. Many objects are in
/// one directory, but each history is in one of its own.
const OBJECT_DIRS: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");
const HISTORY_DIRS: NonZeroUsize = NonZeroUsize::new(32).expect("not zero");

/// A key's directory, held open, and its name in it: what every operation works on.
#[derive(Debug, Clone)]
pub struct Place {
    pub dir: Arc<Dir>,
    pub name: OsString,
}

/// What is at a place.
#[derive(Debug, Clone)]
pub struct Found {
    pub stat: Stat,
    pub record: Option<Record>,
}

impl Found {
    /// An empty file to which nothing was ever committed.
    pub fn is_reserved(&self) -> bool {
        self.stat.kind == FileKind::File && self.record.is_none() && self.stat.size == 0
    }

    /// Whether its bytes are a generation that Sepia has not recorded.
    pub fn is_changed(&self) -> bool {
        self.stat.kind == FileKind::File && !self.stat.recorded && !self.is_reserved()
    }

    /// The state of a file as it was last recorded, whatever another program goes on doing to it.
    pub fn as_recorded(&self) -> Stat {
        match &self.record {
            Some(record) if record.inode == self.stat.incarnation => {
                Stat { size: record.size, mtime: record.mtime, recorded: true, ..self.stat.clone() }
            }
            _ => self.stat.clone(),
        }
    }
}

/// Where the processes that use the store in a directory stage, and say what they do.
pub fn staging_of(store: &Path) -> PathBuf {
    store.join(".sepia/staging")
}

impl FileBackend {
    /// Makes a store in a directory, which is made if it is missing. Files that are there become its objects.
    ///
    /// # Errors
    /// [`Error::Unusable`] when the filesystem can't hold a store; [`Error::Exists`] when there is one.
    pub fn init(path: &Path) -> Result<Self> {
        let failed = |what: &str, error: std::io::Error| {
            Error::Unusable(format!("can't make a store in {}: {what}: {error}", path.display()))
        };
        // Before anything is made.
        let wanted = std::path::absolute(path).map_err(|e| failed("can't find the directory", e))?;
        if let Some(above) = wanted.ancestors().skip(1).find_map(|dir| dir.canonicalize().ok()) {
            check_not_inside(&above, &wanted)?;
        }
        std::fs::create_dir_all(path).map_err(|e| failed("can't make the directory", e))?;
        let path = path.canonicalize().map_err(|e| failed("can't find the directory", e))?;
        check_not_nested(&path)?;
        check_xattrs(&path)?;
        let meta = path.join(".sepia");
        match rustix::fs::mkdir(&meta, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed("can't make .sepia", error.into())),
        }
        match Format::new().write(&meta) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Error::Unusable(format!("{} is a store already", path.display())));
            }
            Err(error) => return Err(failed("can't write .sepia/format", error)),
        }
        for part in ["staging", "generations", "conflicts", "lock"] {
            make_part(&meta, part).map_err(|e| failed("can't make .sepia's directories", e))?;
        }
        let store = Self::open(&path)?;
        store.locks.make_all().map_err(|e| failed("can't make its locks", e))?;
        Ok(store)
    }

    /// Opens the store in a directory.
    ///
    /// # Errors
    /// [`Error::Unusable`] when there is none, or this version or this filesystem can't use it.
    pub fn open(path: &Path) -> Result<Self> {
        let format = Format::read(path)?;
        let unusable =
            |error: std::io::Error| Error::Unusable(format!("can't open the store {}: {error}", path.display()));
        let path = path.canonicalize().map_err(unusable)?;
        check_xattrs(&path)?;
        let meta = path.join(".sepia");
        let part = |name: &str| -> Result<OwnedFd> {
            make_part(&meta, name).map_err(unusable)?;
            open_root(&meta.join(name)).map_err(|e| unusable(e.into()))
        };
        Ok(FileBackend {
            format,
            objects: Dirs::new(open_root(&path).map_err(|e| unusable(e.into()))?, OBJECT_DIRS)
                .map_err(|e| unusable(e.into()))?,
            history: Dirs::new(part("generations")?, HISTORY_DIRS).map_err(|e| unusable(e.into()))?,
            locks: Locks::open(part("lock")?).map_err(unusable)?,
            staging: StagingArea::new(staging_of(&path)),
            departed: Departed::new(),
            firsts: Firsts::new(),
            counted: Counted::new(),
            births: Births::new(),
            adopted: Adopted::default(),
            growing: Mutex::default(),
            power: Power::new(meta.clone()),
            access_times: AccessTimes::default(),
            meta,
            path,
        })
    }

    /// The directory of the store, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that `key` is in, and its name there.
    pub(super) fn place(&self, key: &Key) -> Result<Place> {
        let (Some(parent), Some(name)) = (key.parent(), key.name()) else {
            return Err(Error::Invalid(key.clone(), "the root of the store can't be changed so"));
        };
        Ok(Place { dir: self.directory(&parent)?, name: name.to_owned() })
    }

    /// A directory, held open.
    pub(super) fn directory(&self, dir: &Key) -> Result<Arc<Dir>> {
        self.objects.open(dir, self.locks.moves())
    }

    /// What is at `key` now. Waits for a commit that is under way, so that it is seen whole or not at all.
    pub(super) fn look(&self, key: &Key) -> Result<Stat> {
        if key.is_root() {
            let dir = self.objects.root();
            let mut stat = convert(&statx(dir, OsStr::new("")).map_err(|e| Error::from_io(key, "stat", e))?, None);
            stat.id = ObjectId::ROOT;
            // Without Sepia's own directory.
            stat.nlink = stat.nlink.saturating_sub(1).max(2);
            return Ok(stat);
        }
        let found = match self.place(key).and_then(|place| self.find(key, &place)) {
            Ok(found) => found,
            Err(error) => {
                if error.is_not_found() {
                    self.objects.confirm(key, None);
                    self.check_root(key)?;
                }
                return Err(error);
            }
        };
        if found.stat.kind == FileKind::Directory {
            self.objects.confirm(key, Some(found.stat.incarnation));
        } else if found.record.is_some() && found.is_changed() {
            let _quiet = self.lock(key)?;
            return Ok(self.find(key, &self.place(key)?)?.stat);
        }
        Ok(found.stat)
    }

    /// Locks a key, and with it the object that is there under whatever names.
    ///
    /// # Errors
    /// [`Error::Locked`] after 30 seconds.
    pub(super) fn lock(&self, key: &Key) -> Result<KeyLock<'_>> {
        let lock = self.locks.key(key)?;
        // An object gets its second name under the lock of its first.
        if self.has_several_names(key) { self.locks.and_linked(lock, key) } else { Ok(lock) }
    }

    /// As [`FileBackend::lock`], two of them.
    pub(super) fn lock_both(&self, a: &Key, b: &Key) -> Result<KeyLock<'_>> {
        let lock = self.locks.keys(a, b)?;
        let linked = [a, b].into_iter().any(|key| self.has_several_names(key));
        if linked { self.locks.and_linked(lock, a) } else { Ok(lock) }
    }

    fn has_several_names(&self, key: &Key) -> bool {
        let statx = self.place(key).ok().and_then(|place| statx(&place.dir, &place.name).ok());
        statx.is_some_and(|statx| statx.stx_nlink > 1 && u32::from(statx.stx_mode) & 0o170_000 == 0o100_000)
    }

    /// What is at a place.
    pub(super) fn find(&self, key: &Key, place: &Place) -> Result<Found> {
        let look = || statx(&place.dir, &place.name).map_err(|e| Error::from_io(key, "stat", e));
        let mut statx = look()?;
        let mut record = None;
        if u32::from(statx.stx_mode) & 0o170_000 == 0o100_000 {
            record = read_record(key, place)?;
            // Two calls by name: a commit in between makes them speak of two files.
            while record.is_some_and(|record| record.inode != statx.stx_ino) {
                let again = look()?;
                if again.stx_ino == statx.stx_ino {
                    break;
                }
                statx = again;
                record = read_record(key, place)?;
            }
        }
        Ok(Found { stat: convert(&statx, record.as_ref()), record })
    }

    /// What is wrong with the record of the file at `key`, under the key's lock, for a commit changes file and record in
    /// several steps.
    pub(super) fn find_flaw(&self, key: &Key) -> Result<Option<Flaw>> {
        let found = self.find(key, &self.place(key)?)?;
        if found.stat.kind != FileKind::File || found.stat.recorded {
            return Ok(None);
        }
        let _quiet = self.lock(key)?;
        let place = self.place(key)?;
        let Found { stat, record } = self.find(key, &place)?;
        Ok(match record {
            _ if stat.kind != FileKind::File || stat.recorded => None,
            Some(Record { size, mtime, inode, .. }) => {
                let untouched = inode == stat.incarnation && mtime == stat.mtime && size != stat.size;
                untouched.then_some(Flaw::Size { recorded: size, found: stat.size })
            }
            None => match xattr::get(&place, record::NAME, &mut [0u8; 0][..]) {
                Ok(_) => Some(Flaw::Unreadable),
                Err(_) => None,
            },
        })
    }

    /// As [`FileBackend::find`], with `None` for nothing.
    pub(super) fn find_optional(&self, key: &Key, place: &Place) -> Result<Option<Found>> {
        match self.find(key, place) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// "Not found" right below the root may mean that the whole store is gone, which is another matter.
    fn check_root(&self, key: &Key) -> Result<()> {
        if key.parent().is_none_or(|parent| !parent.is_root()) {
            return Ok(());
        }
        match rustix::fs::fstat(self.objects.root()) {
            Ok(stat) if stat.st_nlink > 0 => Ok(()),
            Ok(_) => {
                log::error!("the store directory {} was removed", self.path.display());
                Err(Error::from_io(key, "look into the store, whose directory was removed", Errno::IO))
            }
            Err(error) => Err(Error::from_io(key, "look into the store", error)),
        }
    }

    pub(super) fn read_dir(&self, key: &Key) -> Result<Vec<DirEntry>> {
        let failed = |error: Errno| Error::from_io(key, "list", error);
        let fd = self.directory(key)?.reopen().map_err(failed)?;
        self.access_times.opened_directory(&fd);
        let mut entries = Vec::new();
        let mut buffer = Vec::with_capacity(32 << 10);
        let mut reader = RawDir::new(&fd, buffer.spare_capacity_mut());
        while let Some(entry) = reader.next() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") || (key.is_root() && name == RESERVED_NAME) {
                continue;
            }
            let name = OsStr::from_bytes(name).to_owned();
            let kind = match kind_of(entry.file_type()) {
                Some(kind) => kind,
                // A filesystem that doesn't say (d_type): ask, unless it vanished meanwhile.
                None => match rustix::fs::statat(&fd, &name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => kind_of(rustix::fs::FileType::from_raw_mode(stat.st_mode)).unwrap_or(FileKind::File),
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(failed(error)),
                },
            };
            entries.push(DirEntry { name, kind });
        }
        Ok(entries)
    }

    pub(super) fn link_target(&self, key: &Key) -> Result<Vec<u8>> {
        let place = self.place(key)?;
        match rustix::fs::readlinkat(&place.dir, &place.name, Vec::new()) {
            Ok(target) => Ok(target.into_bytes()),
            Err(Errno::INVAL) => Err(Error::Invalid(key.clone(), "is no symbolic link")),
            Err(error) => Err(Error::from_io(key, "read the link", error)),
        }
    }

    pub(super) fn sync_directory(&self, key: &Key) -> Result<()> {
        let failed = |error: Errno| Error::from_io(key, "sync the directory", error);
        self.directory(key)?.sync().map_err(failed)
    }

    pub(super) fn medium(&self) -> Result<FsStat> {
        let stat = rustix::fs::fstatvfs(self.objects.root()).map_err(|e| Error::from_io(&Key::root(), "ask", e))?;
        Ok(FsStat {
            block_size: u32::try_from(stat.f_frsize).unwrap_or(4096),
            blocks: stat.f_blocks,
            blocks_free: stat.f_bfree,
            blocks_available: stat.f_bavail,
            files: stat.f_files,
            files_free: stat.f_ffree,
            name_max: u32::try_from(stat.f_namemax).unwrap_or(255),
        })
    }
}

fn make_part(meta: &Path, name: &str) -> std::io::Result<()> {
    match rustix::fs::mkdir(meta.join(name), Mode::RWXU) {
        Ok(()) => {
            give_path(&meta.join(name));
            Ok(())
        }
        Err(Errno::EXIST) => Ok(()),
        // Readable all the same.
        Err(Errno::ROFS) if meta.join(name).is_dir() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Asking for an attribute that isn't there tells whether the filesystem has attributes at all.
fn check_xattrs(path: &Path) -> Result<()> {
    match rustix::fs::getxattr(path, record::NAME, &mut [0u8; 64][..]) {
        Err(Errno::OPNOTSUPP) => Err(Error::Unusable(format!(
            "the filesystem of {} has no user attributes (user.*), where Sepia keeps the number of each generation; \
             use ext4, xfs, btrfs or tmpfs (Linux 6.6 or later), or mount it without nouser_xattr",
            path.display()
        ))),
        _ => Ok(()),
    }
}

fn read_record(key: &Key, place: &Place) -> Result<Option<Record>> {
    let mut value = [0u8; 64];
    match xattr::get(place, record::NAME, &mut value) {
        Ok(length) => Ok(Record::unpack(&value[..length])),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(None),
        // Not readable for an ordinary user who owns the mount: as if there were none.
        Err(Errno::ACCESS) => Ok(None),
        Err(error) => Err(Error::from_io(key, "read its record", error)),
    }
}

/// Writes the record of the file at a place.
pub fn write_record(key: &Key, place: &Place, record: &Record) -> Result<()> {
    write_own(key, place, record::NAME, &record.pack())
}

/// When the bytes of the file at a place were last replaced in it, and not by another file.
pub fn read_rewritten(key: &Key, place: &Place) -> Result<Option<Timestamp>> {
    let mut value = [0; 8];
    match xattr::get(place, record::REWRITTEN, &mut value) {
        Ok(8) => Ok(Some(Timestamp::from_nanos(i64::from_le_bytes(value)))),
        Err(Errno::NODATA) => Ok(None),
        // Damaged: it may have been at any time.
        Ok(_) | Err(Errno::RANGE) => Ok(Some(Timestamp::from_nanos(i64::MAX))),
        Err(error) => Err(Error::from_io(key, "read when it was rewritten", error)),
    }
}

/// Notes that the bytes of the file at a place are replaced in it: what was `committed` before isn't its beginning.
pub fn write_rewritten(key: &Key, place: &Place, committed: Timestamp) -> Result<()> {
    write_own(key, place, record::REWRITTEN, &committed.nanos().to_le_bytes())
}

/// Whether the histories of other names may have beginnings of the file at a place, as was noted on it.
pub fn is_noted_elsewhere(key: &Key, place: &Place) -> Result<bool> {
    match xattr::get(place, record::ELSEWHERE, &mut [0; 8]) {
        Ok(_) | Err(Errno::RANGE) => Ok(true),
        Err(Errno::NODATA) => Ok(false),
        Err(error) => Err(Error::from_io(key, "read whether it was elsewhere", error)),
    }
}

/// Notes that they may.
pub fn note_elsewhere(key: &Key, place: &Place) -> Result<()> {
    if is_noted_elsewhere(key, place)? { Ok(()) } else { write_own(key, place, record::ELSEWHERE, &[1]) }
}

fn write_own(key: &Key, place: &Place, name: &str, value: &[u8]) -> Result<()> {
    let set = || xattr::set(place, name, value, XattrFlags::empty());
    match set() {
        // An ordinary user may set attributes only of what they may write; a read-only file of theirs they may
        // make writable for a moment.
        Err(Errno::ACCESS) => {
            let stat = rustix::fs::statat(&place.dir, &place.name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| Error::from_io(key, "stat", e))?;
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            let chmod = |mode| rustix::fs::chmodat(&place.dir, &place.name, mode, AtFlags::empty());
            chmod(mode | Mode::WUSR).map_err(|e| Error::from_io(key, "write its record", e))?;
            let result = set();
            chmod(mode).map_err(|e| Error::from_io(key, "write its record", e))?;
            result
        }
        other => other,
    }
    .map_err(|e| Error::from_io(key, "write its record", e))
}

pub fn statx(dir: &impl rustix::fd::AsFd, name: &OsStr) -> rustix::io::Result<Statx> {
    let mut flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    if name.is_empty() {
        flags |= AtFlags::EMPTY_PATH;
    }
    rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

fn kind_of(file_type: rustix::fs::FileType) -> Option<FileKind> {
    use rustix::fs::FileType;
    Some(match file_type {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        FileType::CharacterDevice => FileKind::CharDevice,
        FileType::BlockDevice => FileKind::BlockDevice,
        FileType::Unknown => return None,
    })
}

/// What the kernel says of a file, and what Sepia recorded of it, as one.
pub fn convert(statx: &Statx, record: Option<&Record>) -> Stat {
    let time = |t: rustix::fs::StatxTimestamp| Timestamp::from_parts(t.tv_sec, t.tv_nsec);
    let kind = kind_of(rustix::fs::FileType::from_raw_mode(statx.stx_mode.into())).unwrap_or(FileKind::File);
    let birth = if statx.stx_mask & StatxFlags::BTIME.bits() != 0 { time(statx.stx_btime).nanos() } else { 0 };
    let derived = ObjectId::derived(statx.stx_ino, birth.into());
    let (size, mtime) = (statx.stx_size, time(statx.stx_mtime));
    let own = record.filter(|record| record.inode == statx.stx_ino);
    let first = (kind == FileKind::File && size > 0).then_some(Generation::FIRST);
    Stat {
        id: own.map_or(derived, |record| record.id),
        kind,
        mode: u32::from(statx.stx_mode) & 0o7777,
        uid: statx.stx_uid,
        gid: statx.stx_gid,
        size,
        blocks: statx.stx_blocks,
        nlink: statx.stx_nlink,
        rdev: rustix::fs::makedev(statx.stx_rdev_major, statx.stx_rdev_minor),
        atime: time(statx.stx_atime),
        mtime,
        ctime: time(statx.stx_ctime),
        committed: record.map(|record| record.committed),
        generation: record.map(|record| record.generation).or(first),
        recorded: kind != FileKind::File || own.is_some_and(|record| record.size == size && record.mtime == mtime),
        incarnation: statx.stx_ino,
    }
}
