//! The mounts of Sepia stores that this process can see, and what store is behind each.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::{ExitCode, Failure};
use crate::fuse::STORE_ATTRIBUTE;
use crate::fuse::mountinfo::{self, Entry, TYPE};
use crate::store::Location;

/// All mounts, in the order in which they were made.
#[derive(Debug)]
pub struct Mounts(Vec<Entry>);

impl Mounts {
    /// Reads the table of this process.
    pub fn read() -> Result<Self, Failure> {
        mountinfo::read().map(Mounts).map_err(|error| Failure::error(format!("can't list the mounts: {error}")))
    }

    /// The mount of a Sepia store on exactly this directory, unless something else is mounted over it.
    pub fn sepia_at(&self, dir: &Path) -> Option<&Entry> {
        self.at(dir).filter(|mount| mount.kind == TYPE)
    }

    /// Whether a path is below a mount of a Sepia store, by the name alone.
    pub fn is_in_sepia(&self, path: &Path) -> bool {
        path.ancestors().find_map(|dir| self.at(dir)).is_some_and(|mount| mount.kind == TYPE)
    }

    fn at(&self, dir: &Path) -> Option<&Entry> {
        self.0.iter().rfind(|mount| mount.point == dir)
    }

    /// The store of a mount, and the directory in it that is mounted there.
    pub fn store_of<'a>(&self, mount: &'a Entry) -> Result<(Location, &'a Path), Failure> {
        let whole = |other: &&Entry| other.device == mount.device && other.root == Path::new("/");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_over_it_counts() {
        let line = |kind: &str| Entry {
            device: "0:1".into(),
            root: "/".into(),
            point: "/m".into(),
            kind: kind.into(),
            source: "x".into(),
        };
        assert!(Mounts(vec![line("fuse.sepia")]).sepia_at(Path::new("/m")).is_some());
        assert!(Mounts(vec![line("fuse.sepia")]).is_in_sepia(Path::new("/m/a/b")));
        let covered = Mounts(vec![line("fuse.sepia"), line("tmpfs")]);
        assert!(covered.sepia_at(Path::new("/m")).is_none());
        assert!(!covered.is_in_sepia(Path::new("/m/a/b")));
    }
}
