//! Stores that are, or would be, inside one another: to the outer one the inner one's own files would be objects, and two
//! histories would be kept of the same files.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::dirs::open_root;
use crate::backend::{Error, Result};

/// How many directories are looked at for a store that is further down. Nobody waits for more when a store is made.
const LOOKED_AT: usize = 10_000;

/// Refuses a place for a store that is inside another one, or a mount of one. `above`: the directory that it is in, or the
/// nearest that is there, if it is still to be made.
///
/// # Errors
/// [`Error::Unusable`].
pub fn check_not_inside(above: &Path, path: &Path) -> Result<()> {
    let is_store = |dir: &&Path| dir.join(".sepia/format").exists();
    if let Some(outer) = above.ancestors().find(is_store) {
        return Err(Error::Unusable(format!(
            "{} lies inside the store {}; a store can't be part of another one",
            path.display(),
            outer.display()
        )));
    }
    check_no_mount(above, path)
}

/// Refuses a place for a store that is inside another one, or a mount of one, or around one that is found soon.
///
/// # Errors
/// [`Error::Unusable`].
pub fn check_not_nested(path: &Path) -> Result<()> {
    if let Some(above) = path.parent() {
        check_not_inside(above, path)?;
    }
    check_no_mount(path, path)?;
    match store_below(path) {
        Some(inner) => Err(Error::Unusable(format!(
            "{} holds the store {}; a store can't be part of another one",
            path.display(),
            inner.display()
        ))),
        None => Ok(()),
    }
}

/// A mount shows nothing of its store's own directory, and keeps the names of the attributes that a store needs for itself.
fn check_no_mount(dir: &Path, path: &Path) -> Result<()> {
    match rustix::fs::getxattr(dir, "user.sepia.kind", &mut [0u8; 64][..]) {
        Ok(_) | Err(Errno::RANGE) => Err(Error::Unusable(format!(
            "{} lies inside a mount of Sepia; a store can't be part of another one",
            path.display()
        ))),
        Err(_) => Ok(()),
    }
}

/// The store that is the least deep below a directory, as far as that is looked for: on this filesystem, since others are
/// no part of the store, and where this user may look.
fn store_below(path: &Path) -> Option<PathBuf> {
    let root = open_root(path).ok()?;
    let open = |below: &Path| -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Another filesystem is not even asked, for it may be a mount that hangs.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(&root, below, flags, Mode::empty(), resolve)
    };
    let mut pending = VecDeque::from([PathBuf::from(".")]);
    let mut left = LOOKED_AT;
    while let Some(below) = pending.pop_front().filter(|_| left > 0) {
        left -= 1;
        let Ok(dir) = open(&below) else { continue };
        let is_root = below == Path::new(".");
        if !is_root && rustix::fs::statat(&dir, ".sepia/format", AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Some(path.join(below));
        }
        let Ok(entries) = Dir::read_from(&dir) else { continue };
        for entry in entries.flatten() {
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let is_dir = match entry.file_type() {
                FileType::Unknown => !matches!(open(&below.join(name)), Err(Errno::NOTDIR)),
                kind => kind == FileType::Directory,
            };
            let is_own = is_root && name == ".sepia";
            if is_dir && !is_own && name != "." && name != ".." && pending.len() < left {
                pending.push_back(if is_root { name.into() } else { below.join(name) });
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_is_found_if_it_is_a_store() {
        let dir = tempfile::tempdir().unwrap();
        let (path, deep) = (dir.path().join("outer"), dir.path().join("outer/a/b/c"));
        std::fs::create_dir_all(deep.join(".sepia")).unwrap();
        std::fs::create_dir_all(dir.path().join("elsewhere/.sepia")).unwrap();
        std::fs::write(dir.path().join("elsewhere/.sepia/format"), "").unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), path.join("link")).unwrap();
        assert_eq!(store_below(&path), None);
        std::fs::write(deep.join(".sepia/format"), "").unwrap();
        assert_eq!(store_below(&path), Some(deep.clone()));
        assert_eq!(store_below(&deep), None, "its own");
        assert!(check_not_nested(&path).unwrap_err().to_string().contains("holds the store"));
    }
}
