//! Making and removing names.

use std::cell::Cell;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::process::umask;

use super::entry::{Place, convert, statx};
use super::generations::kept_name;
use super::*;

impl FileBackend {
    pub(super) fn make_file(&self, key: &Key, mode: u32, creator: &Creator) -> Result<Stat> {
        self.make(key, mode, creator, |place, mode| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&place.dir, &place.name, flags, mode).map(drop)
        })
        .inspect(|stat| self.births.born(key, stat.id))
    }

    pub(super) fn make_dir(&self, key: &Key, mode: u32, creator: &Creator) -> Result<Stat> {
        self.make(key, mode, creator, |place, mode| rustix::fs::mkdirat(&place.dir, &place.name, mode))
    }

    pub(super) fn make_symlink(&self, key: &Key, target: &[u8], creator: &Creator) -> Result<Stat> {
        self.make(key, 0o777, creator, |place, _| rustix::fs::symlinkat(target, &place.dir, &place.name))
    }

    pub(super) fn make_special(
        &self,
        key: &Key,
        kind: FileKind,
        mode: u32,
        rdev: u64,
        creator: &Creator,
    ) -> Result<Stat> {
        let file_type = match kind {
            FileKind::Fifo => FileType::Fifo,
            FileKind::Socket => FileType::Socket,
            FileKind::CharDevice => FileType::CharacterDevice,
            FileKind::BlockDevice => FileType::BlockDevice,
            _ => return Err(Error::Invalid(key.clone(), "is no special file")),
        };
        self.make(key, mode, creator, |place, mode| rustix::fs::mknodat(&place.dir, &place.name, file_type, mode, rdev))
    }

    fn make(
        &self,
        key: &Key,
        mode: u32,
        creator: &Creator,
        make: impl Fn(&Place, Mode) -> rustix::io::Result<()>,
    ) -> Result<Stat> {
        let place = self.place(key)?;
        let failed = |error: Errno| Error::from_io(key, "create", error);
        // The kernel applies the umask, for only it knows whether a default ACL of the directory takes its place.
        with_umask(creator.umask, || make(&place, Mode::from_raw_mode(mode & 0o7777))).map_err(failed)?;
        // It is new: nothing was recorded of it yet.
        let stat = convert(&statx(&place.dir, &place.name).map_err(failed)?, None);
        let (uid, gid) = (creator.uid, creator.gid);
        if (uid, gid) == (stat.uid, stat.gid) {
            return Ok(stat);
        }
        let inherits = u32::from(statx(&place.dir, OsStr::new("")).map_err(failed)?.stx_mode) & 0o2000 != 0;
        let chown_gid = !inherits && gid != stat.gid;
        if uid == stat.uid && !chown_gid {
            return Ok(stat);
        }
        let gid = chown_gid.then(|| Gid::from_raw(gid));
        let owned =
            rustix::fs::chownat(&place.dir, &place.name, Some(Uid::from_raw(uid)), gid, AtFlags::SYMLINK_NOFOLLOW);
        match owned {
            // An ordinary user's mount makes files of that user, whoever asks.
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(failed(error)),
        }
        // A change of owner clears suid and sgid of files.
        if stat.mode & 0o6000 != 0 && stat.kind == FileKind::File {
            let mode = Mode::from_raw_mode(stat.mode);
            rustix::fs::chmodat(&place.dir, &place.name, mode, AtFlags::empty()).map_err(failed)?;
        }
        Ok(convert(&statx(&place.dir, &place.name).map_err(failed)?, None))
    }

    pub(super) fn make_link(&self, from: &Key, to: &Key, expect: &Precondition) -> Result<Stat> {
        let _tree = self.locks.share_tree(from)?;
        let _locks = self.lock_both(from, to)?;
        let (source, target) = (self.place(from)?, self.place(to)?);
        let found = self.check(from, &source, expect)?.ok_or_else(|| Error::NotFound(from.clone()))?;
        // A link that a commit left behind would make two names of what is one object.
        if found.stat.kind == FileKind::File && found.stat.nlink > 1 {
            self.unkeep(from, &found)?;
        }
        if self.find_optional(to, &target)?.is_none() {
            self.close_history(to)?;
            // From now on the bytes may be replaced in place under either name.
            self.make_prefix_whole(from, &source)?;
        }
        rustix::fs::linkat(&source.dir, &source.name, &target.dir, &target.name, AtFlags::empty())
            .map_err(|e| Error::from_io(to, "link", e))?;
        // The new name may have an older history, whose numbers must not come again.
        let highest = self.highest(to)?;
        if let (Some(record), Some(highest)) = (found.record, highest)
            && record.generation <= highest
        {
            self.renumber(to, &target, &self.find(to, &target)?, highest.next(), self.now())?;
        }
        Ok(self.find(to, &target)?.stat)
    }

    pub(super) fn remove_entry(&self, key: &Key, expect: &Precondition, keep: bool) -> Result<()> {
        let failed = |error: Errno| Error::from_io(key, "remove", error);
        let _tree = self.locks.share_tree(key)?;
        let _lock = self.lock(key)?;
        let place = self.place(key)?;
        let mut found = self.check(key, &place, expect)?.ok_or_else(|| Error::NotFound(key.clone()))?;
        if found.stat.kind == FileKind::Directory {
            return Err(Error::IsDirectory(key.clone()));
        }
        if found.stat.nlink > 1 && found.stat.kind == FileKind::File && self.unkeep(key, &found)? {
            found = self.find(key, &place)?;
        }
        let kept = match found.stat.kind {
            FileKind::File if keep || !self.may_vanish(key, Some(&found))? || self.history_dir(key)?.is_some() => {
                kept_name(&found, self.now(), true)
            }
            _ => None,
        };
        match kept {
            None => rustix::fs::unlinkat(&place.dir, &place.name, AtFlags::empty()).map_err(failed),
            Some(name) if found.stat.nlink > 1 => {
                self.make_prefix_whole(key, &place)?;
                self.keep_as_note(key, &name, "kept under its other names", found.stat.mtime)?;
                rustix::fs::unlinkat(&place.dir, &place.name, AtFlags::empty()).map_err(failed)
            }
            Some(name) => self.put_in_history(key, "remove", |room| {
                rustix::fs::renameat(&place.dir, &place.name, &room.dir, room.path(name.to_string()))
            }),
        }
    }

    pub(super) fn remove_empty_dir(&self, key: &Key) -> Result<()> {
        let place = self.place(key)?;
        rustix::fs::unlinkat(&place.dir, &place.name, AtFlags::REMOVEDIR)
            .map_err(|e| Error::from_io(key, "remove the directory", e))?;
        self.objects.removed(key);
        Ok(())
    }
}

/// Does something under a umask, of this thread alone.
fn with_umask<T>(mask: u32, act: impl FnOnce() -> T) -> T {
    thread_local! {
        /// Whether the thread has a umask of its own.
        static OWN: Cell<bool> = const { Cell::new(false) };
    }
    if !OWN.get() {
        // A sandbox may forbid it; then, and in the main thread, all threads see it for just this call.
        OWN.set(unshare_umask());
    }
    let before = umask(Mode::from_raw_mode(mask & 0o777));
    let result = act();
    // The thread may be our caller's, who makes files too.
    umask(before);
    result
}

/// Gives this thread a umask (and a current directory) of its own. The main thread keeps the process's.
fn unshare_umask() -> bool {
    // SAFETY: CLONE_FS touches neither memory nor descriptors.
    !is_main_thread() && unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }.is_ok()
}

fn is_main_thread() -> bool {
    rustix::thread::gettid() == rustix::process::getpid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_umask_is_of_its_thread_and_of_the_call() {
        let now = || {
            let mask = umask(Mode::empty());
            umask(mask);
            mask.as_raw_mode()
        };
        let (before, other) = (now(), now() ^ 0o070);
        let own = move || (with_umask(other, now), now());
        let (within, after) = std::thread::spawn(own).join().unwrap();
        assert_eq!((within, after, now()), (other, before, before));
    }
}
