//! The mounts of Sepia stores that this process can see, from `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::{ExitCode, Failure};
use crate::store::Location;

/// The attribute of a mount's root directory that names its store.
pub const STORE_ATTRIBUTE: &str = "user.sepia.store";

/// A line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `major:minor` of the filesystem; the same for all bind mounts of it.
    device: Vec<u8>,
    /// The directory of the filesystem that is mounted; `/` but for bind mounts.
    root: PathBuf,
    /// Where.
    point: PathBuf,
    /// The filesystem's type.
    kind: Vec<u8>,
}

/// All mounts, in the order in which they were made.
#[derive(Debug)]
pub struct Mounts(Vec<Mount>);

impl Mounts {
    /// Reads the table of this process.
    pub fn read() -> Result<Self, Failure> {
        let path = "/proc/self/mountinfo";
        let text = std::fs::read(path).map_err(|error| Failure::error(format!("{path}: {error}")))?;
        Ok(Mounts(text.split(|&b| b == b'\n').filter_map(parse_line).collect()))
    }

    /// The mount of a Sepia store on exactly this directory, unless something else is mounted over it.
    pub fn sepia_at(&self, dir: &Path) -> Option<&Mount> {
        self.0.iter().rfind(|mount| mount.point == dir).filter(|mount| mount.kind == b"fuse.sepia")
    }

    /// The store of a mount, and the directory in it that is mounted there.
    pub fn store_of<'a>(&self, mount: &'a Mount) -> Result<(Location, &'a Path), Failure> {
        let whole = |other: &&Mount| other.device == mount.device && other.root == Path::new("/");
        // A bind mount shows a directory of the store, which has not the attributes of the root.
        let root = if whole(&mount) { mount } else { self.0.iter().find(whole).unwrap_or(mount) };
        let shown = super::output::name(root.point.as_os_str().as_bytes());
        let mut value = vec![0; 64 << 10];
        let len = rustix::fs::getxattr(&root.point, STORE_ATTRIBUTE, &mut value[..]).map_err(|error| {
            let failure = Failure::new(ExitCode::StoreUnusable, format!("{shown}: can't learn its store: {error}"));
            match error {
                rustix::io::Errno::NOTCONN => {
                    failure.hint("the mount has no process behind it any more: sepia umount it, and mount it again")
                }
                _ => failure.hint("name it with --store URL or SEPIA_STORE"),
            }
        })?;
        value.truncate(len);
        let location = match String::from_utf8(value) {
            Ok(url) => Location::parse(&url)?,
            Err(bytes) => Location::File(OsString::from_vec(bytes.into_bytes()).into()),
        };
        if location == Location::Memory {
            return Err(Failure::new(
                ExitCode::StoreUnusable,
                format!(
                    "{shown}: its store is in the memory of the process that mounted it, where no other process can \
                     reach it; use the files below the mount and its .sepia directory instead"
                ),
            ));
        }
        let inside = mount.root.strip_prefix("/").unwrap_or(&mount.root);
        Ok((location, inside))
    }
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let device = fields.nth(2)?.to_vec();
    let root = unescape(fields.next()?);
    let point = unescape(fields.next()?);
    // Optional fields end with a lone dash.
    let kind = fields.skip_while(|&field| field != b"-").nth(1)?.to_vec();
    Some(Mount { device, root, point, kind })
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut at = 0;
    while at < field.len() {
        let code = (field[at] == b'\\')
            .then(|| field.get(at + 1..at + 4))
            .flatten()
            .and_then(|octal| std::str::from_utf8(octal).ok())
            .and_then(|octal| u8::from_str_radix(octal, 8).ok());
        bytes.push(code.unwrap_or(field[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_mountinfo() {
        let line = br"36 35 0:52 /Note /mnt/a\040b\134 rw,nosuid shared:1 master:2 - fuse.sepia /srv/s rw,user_id=0";
        let mount = parse_line(line).unwrap();
        assert_eq!(mount.point, Path::new("/mnt/a b\\"));
        assert_eq!((mount.kind.as_slice(), mount.device.as_slice()), (&b"fuse.sepia"[..], &b"0:52"[..]));
        assert_eq!(mount.root, Path::new("/Note"));
        assert_eq!(parse_line(b""), None);
    }

    #[test]
    fn what_is_mounted_over_it_counts() {
        let line = |kind: &str| parse_line(format!("1 2 0:1 / /m rw - {kind} x rw").as_bytes()).unwrap();
        assert!(Mounts(vec![line("fuse.sepia")]).sepia_at(Path::new("/m")).is_some());
        assert!(Mounts(vec![line("fuse.sepia"), line("tmpfs")]).sepia_at(Path::new("/m")).is_none());
    }
}
