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

/// What is mounted at `point` itself, the last mount if there are several on top of each other.
///
/// # Errors
/// As [`read`].
pub fn at(point: &Path) -> io::Result<Option<Entry>> {
    Ok(read()?.into_iter().rfind(|entry| entry.point == point))
}

fn parse(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|&b| b == b' ');
    let device = text(fields.nth(2)?);
    let root = unescape(fields.next()?).into();
    let point = unescape(fields.next()?).into();
    // Mount options, then optional fields up to a lone dash.
    let mut fields = fields.skip_while(|&field| field != b"-").skip(1);
    Some(Entry { device, root, point, kind: text(fields.next()?), source: unescape(fields.next()?) })
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
        assert_eq!((entry.device.as_str(), entry.kind.as_str()), ("0:52", TYPE));
        assert_eq!((entry.root.as_path(), entry.point.as_path()), (Path::new("/Note"), Path::new("/mnt/a b\\")));
        assert_eq!(entry.source, "/srv/s");
        assert_eq!(parse(b""), None);
        assert_eq!(parse(br"1 2 0:1 / /m rw - tmpfs"), None);
        assert_eq!(unescape(br"\04"), r"\04");
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(at(Path::new("/")).unwrap().is_some());
    }
}
