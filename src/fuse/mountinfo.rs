//! The mounts that this process sees, from `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
//!
//! Asking here, and not by a path, wakes no filesystem: a mount whose process has died or hangs is listed all the same.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The type under which the kernel knows a mount of a Sepia store.
pub const TYPE: &str = "fuse.sepia";

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The number of the mount.
    pub id: u64,
    /// The number of the mount that it is mounted on.
    pub parent: u64,
    /// `major:minor` of the filesystem; the same for all bind mounts of it.
    pub device: String,
    /// The directory of the filesystem that is mounted: `/`, but for bind mounts.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// The filesystem's type.
    pub kind: String,
    /// What is mounted, as the mount calls it.
    pub source: OsString,
}

/// All mounts, in the order in which they were made.
///
/// # Errors
/// When `/proc` is not there.
pub fn read() -> io::Result<Vec<Entry>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(text.split(|&b| b == b'\n').filter_map(parse).collect())
}

/// What is mounted at `point` itself, and can be reached there.
///
/// # Errors
/// As [`read`].
pub fn at(point: &Path) -> io::Result<Option<Entry>> {
    Ok(over(&read()?, point).filter(|entry| entry.point == point).cloned())
}

/// The mount that a path without links is in, as the kernel finds it: from the root on, what is mounted on the mount that
/// it is in by then. What is mounted over a mount, or over a directory above it, hides that, but it stays in the table.
pub fn over<'a>(mounts: &'a [Entry], path: &Path) -> Option<&'a Entry> {
    let is_listed = |id: u64| mounts.iter().any(|mount| mount.id == id);
    let mut dirs: Vec<&Path> = path.ancestors().collect();
    dirs.reverse();
    let mut reached: Option<&Entry> = None;
    for dir in dirs {
        let next = |below: Option<&Entry>| {
            let is_on_it = |mount: &Entry| match below {
                Some(below) => mount.parent == below.id && mount.id != below.id,
                // The root of this process need not be one that it sees.
                None => mount.parent == mount.id || !is_listed(mount.parent),
            };
            mounts.iter().rfind(|mount| mount.point == dir && is_on_it(mount))
        };
        while let Some(mount) = next(reached) {
            reached = Some(mount);
        }
    }
    reached
}

fn parse(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|&b| b == b' ');
    let (id, parent) = (number(fields.next()?)?, number(fields.next()?)?);
    let device = text(fields.next()?);
    let root = unescape(fields.next()?).into();
    let point = unescape(fields.next()?).into();
    // Mount options, then optional fields up to a lone dash.
    let mut fields = fields.skip_while(|&field| field != b"-").skip(1);
    Some(Entry { id, parent, device, root, point, kind: text(fields.next()?), source: unescape(fields.next()?) })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

/// Space, tab, newline, backslash and `#` are written as three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| first == b'\\').and_then(|octal| std::str::from_utf8(octal).ok());
        if let Some(byte) = digits.and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_line() {
        let line = br"36 35 0:52 /Note /mnt/a\040b\134 rw,nosuid shared:1 master:2 - fuse.sepia /srv/s rw,user_id=0";
        let entry = parse(line).unwrap();
        assert_eq!((entry.id, entry.parent), (36, 35));
        assert_eq!((entry.device.as_str(), entry.kind.as_str()), ("0:52", TYPE));
        assert_eq!((entry.root.as_path(), entry.point.as_path()), (Path::new("/Note"), Path::new("/mnt/a b\\")));
        assert_eq!(entry.source, "/srv/s");
        assert_eq!(parse(b""), None);
        assert_eq!(parse(br"1 2 0:1 / /m rw - tmpfs"), None);
        assert_eq!(unescape(br"\04"), r"\04");
    }

    #[test]
    fn what_is_hidden_is_not_reached() {
        let lines = [
            "1 1 0:1 / / rw - rootfs - rw",
            "20 1 8:1 / / rw - ext4 /dev/a rw",
            "21 20 0:21 / /a/m rw - fuse.sepia /s rw",
            "22 21 0:22 / /a/m/n rw - fuse.sepia /t rw",
            "23 20 0:23 / /b rw - fuse.sepia /s rw",
            "24 23 0:24 / /b rw - tmpfs none rw",
        ];
        let mut mounts: Vec<Entry> = lines.iter().map(|line| parse(line.as_bytes()).unwrap()).collect();
        let id = |mounts: &[Entry], path: &str| over(mounts, Path::new(path)).map(|mount| mount.id);
        for (path, wanted) in [("/", 20), ("/a", 20), ("/a/m", 21), ("/a/m/x", 21), ("/a/m/n/x", 22), ("/b/x", 24)] {
            assert_eq!(id(&mounts, path), Some(wanted), "{path}");
        }
        mounts.push(parse(b"25 20 0:25 / /a rw - tmpfs none rw").unwrap());
        assert_eq!(id(&mounts, "/a/m/n"), Some(25));
        // As in a root that is no mount itself.
        mounts.drain(..2);
        assert_eq!((id(&mounts, "/a/m/n"), id(&mounts, "/c")), (Some(25), None));
        mounts.pop();
        assert_eq!(id(&mounts, "/a/m/n"), Some(22));
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(at(Path::new("/")).unwrap().is_some());
    }
}
