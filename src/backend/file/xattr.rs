//! The extended attributes of what is at a place, by its name: a symbolic link is not followed.
//!
//! Linux has calls for that since 6.13 (getxattrat(2) and its kin), which rustix and libc don't know yet. Before, the
//! way is through `/proc/self/fd`, which takes three times as long.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::XattrFlags;
use rustix::io::{Errno, Result};

use super::entry::Place;

// The same on all architectures (asm-generic/unistd.h).
const SETXATTRAT: libc::c_long = 463;
const GETXATTRAT: libc::c_long = 464;
const LISTXATTRAT: libc::c_long = 465;

/// The kernel has no such calls, or a sandbox forbids them.
static MISSING: AtomicBool = AtomicBool::new(false);

/// `struct xattr_args` of linux/xattr.h.
#[repr(C)]
struct Arguments {
    value: u64,
    size: u32,
    flags: u32,
}

/// Reads the value into `value` and returns its length.
///
/// # Errors
/// NODATA when there is no such attribute; RANGE when it is longer.
pub fn get(place: &Place, name: impl AsRef<OsStr>, value: &mut [u8]) -> Result<usize> {
    let name = name.as_ref();
    let arguments = Arguments { value: value.as_mut_ptr() as u64, size: length(value), flags: 0 };
    match at(GETXATTRAT, place, Some((name, &arguments)), &mut []) {
        Err(Errno::NOSYS) => rustix::fs::lgetxattr(proc_path(place), name, value),
        other => other,
    }
}

/// Sets a value.
///
/// # Errors
/// NODATA, EXIST as `flags` say; NOSPC, ACCESS and the like.
pub fn set(place: &Place, name: impl AsRef<OsStr>, value: &[u8], flags: XattrFlags) -> Result<()> {
    let name = name.as_ref();
    let arguments = Arguments { value: value.as_ptr() as u64, size: length(value), flags: flags.bits() };
    match at(SETXATTRAT, place, Some((name, &arguments)), &mut []) {
        Err(Errno::NOSYS) => rustix::fs::lsetxattr(proc_path(place), name, value, flags),
        other => other.map(drop),
    }
}

/// Removes an attribute.
///
/// # Errors
/// NODATA when there is no such attribute.
pub fn remove(place: &Place, name: &OsStr) -> Result<()> {
    rustix::fs::lremovexattr(proc_path(place), name)
}

/// Reads the names, each with a NUL behind it, into `list` and returns their length.
///
/// # Errors
/// RANGE when they are longer.
pub fn list(place: &Place, list: &mut [u8]) -> Result<usize> {
    match at(LISTXATTRAT, place, None, list) {
        Err(Errno::NOSYS) => rustix::fs::llistxattr(proc_path(place), list),
        other => other,
    }
}

/// One of the calls: with an attribute's name and value, or with a list to be filled.
fn at(number: libc::c_long, place: &Place, attribute: Option<(&OsStr, &Arguments)>, list: &mut [u8]) -> Result<usize> {
    if MISSING.load(Ordering::Relaxed) {
        return Err(Errno::NOSYS);
    }
    let entry = CString::new(place.name.as_bytes()).map_err(|_| Errno::INVAL)?;
    let dir = place.dir.as_fd().as_raw_fd();
    let follow = libc::AT_SYMLINK_NOFOLLOW;
    let result = match attribute {
        Some((name, arguments)) => {
            let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
            let size = size_of::<Arguments>();
            // SAFETY: the strings end with NUL and outlive the call; the value that `arguments` describes is a slice
            // of the caller's, borrowed for as long, which only getxattrat writes to, at most to its size.
            unsafe { libc::syscall(number, dir, entry.as_ptr(), follow, name.as_ptr(), arguments, size) }
        }
        // SAFETY: as above; the kernel writes at most so many bytes to the list.
        None => unsafe { libc::syscall(number, dir, entry.as_ptr(), follow, list.as_mut_ptr(), list.len()) },
    };
    match usize::try_from(result) {
        Ok(length) => Ok(length),
        Err(_) => {
            let error = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
            // Seccomp filters that don't know a call answer EPERM rather than ENOSYS (older container runtimes).
            if error == Errno::NOSYS || (error == Errno::PERM && number == GETXATTRAT) {
                MISSING.store(true, Ordering::Relaxed);
                return Err(Errno::NOSYS);
            }
            Err(error)
        }
    }
}

fn length(value: &[u8]) -> u32 {
    u32::try_from(value.len()).unwrap_or(u32::MAX)
}

/// The path of the entry for calls that take no directory. No link in it is followed but the kernel's own.
fn proc_path(place: &Place) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", place.dir.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(place.name.as_bytes());
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_say_the_same() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::write(dir.path().join("a"), b"").unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("l")).unwrap();
        let root = super::super::dirs::open_root(dir.path()).unwrap();
        let dirs = super::super::dirs::Dirs::new(root, std::num::NonZeroUsize::MIN).unwrap();
        let place = |name: &str| Place { dir: dirs.root().clone(), name: name.into() };
        for missing in [false, true] {
            MISSING.store(missing, Ordering::Relaxed);
            let (file, link) = (place("a"), place("l"));
            let mut value = [0; 64];
            assert_eq!(get(&file, "user.x", &mut value), Err(Errno::NODATA));
            set(&file, "user.x", b"value", XattrFlags::CREATE).unwrap();
            assert_eq!(set(&file, "user.x", b"value", XattrFlags::CREATE), Err(Errno::EXIST));
            assert_eq!(get(&file, "user.x", &mut value), Ok(5));
            assert_eq!(&value[..5], b"value");
            assert_eq!(get(&file, "user.x", &mut value[..3]), Err(Errno::RANGE));
            let length = list(&file, &mut value).unwrap();
            assert!(value[..length].split(|&b| b == 0).any(|name| name == b"user.x"));
            // Not that of what the link leads to.
            assert!(get(&link, "user.x", &mut value).is_err());
            assert_eq!(get(&place("nothing"), "user.x", &mut value), Err(Errno::NOENT));
            remove(&file, OsStr::new("user.x")).unwrap();
            assert_eq!(get(&file, "user.x", &mut value), Err(Errno::NODATA));
        }
        MISSING.store(false, Ordering::Relaxed);
    }
}
