//! Whose Sepia's own files are. What root makes in somebody else's store belongs to the owner of the directory that it is made
//! in, who could neither lock nor read it otherwise.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid, Stat, Uid};

/// Whom something belongs to that root makes in this directory, if to somebody else.
fn heir(dir: &Stat) -> Option<(Uid, Gid)> {
    (dir.st_uid != 0).then(|| (Uid::from_raw(dir.st_uid), Gid::from_raw(dir.st_gid)))
}

/// Whether what this process makes in a directory has to be given away.
pub fn is_foreign(dir: impl AsFd) -> bool {
    rustix::process::geteuid().is_root() && rustix::fs::fstat(dir).is_ok_and(|stat| heir(&stat).is_some())
}

/// Gives what was just made, by its name in the directory, to whom that belongs. What can't be given stays root's.
pub fn give_entry(dir: impl AsFd, name: impl rustix::path::Arg) {
    if rustix::process::geteuid().is_root()
        && let Some((uid, gid)) = rustix::fs::fstat(&dir).ok().and_then(|stat| heir(&stat))
    {
        let _ = rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
    }
}

/// As [`give_entry`], by its path.
pub fn give_path(made: &Path) {
    if rustix::process::geteuid().is_root()
        && let Some((uid, gid)) = made.parent().and_then(|dir| heir(&rustix::fs::stat(dir).ok()?))
    {
        let _ = rustix::fs::chownat(CWD, made, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
    }
}

/// Makes a directory and those above it, where they are missing.
///
/// # Errors
/// As mkdir(2).
pub fn make_dirs(dir: &Path) -> io::Result<()> {
    match std::fs::create_dir(dir) {
        Ok(()) => {
            give_path(dir);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => match dir.parent() {
            Some(above) => make_dirs(above).and_then(|()| make_dirs(dir)),
            None => Err(error),
        },
        Err(_) if dir.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}
