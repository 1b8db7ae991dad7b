//! The mounts of Sepia stores that this process can see, what store is behind each, and which process.
//!
//! A mount whose process is stopped, or hangs, answers nobody, and who asks it waits. So it is found out without asking
//! where that is possible: the kernel says what is mounted, and in the store it says which mounts it has. A mount is asked where
//! it was given another name, or moved.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::{ExitCode, Failure};
use crate::backend::{self, Owner};
use crate::fuse::mountinfo::{self, Entry, TYPE};
use crate::fuse::{PID_ATTRIBUTE, STORE_ATTRIBUTE};
use crate::store::Location;

/// After this long it is said that something is waited for, and after the rest of the limit it is given up.
const SOON: Duration = Duration::from_secs(2);

/// How long a mount may take to answer. All of its threads may be copying large files.
const LIMIT: Duration = Duration::from_secs(30);

/// All mounts.
#[derive(Debug)]
pub struct Mounts {
    all: Vec<Entry>,
    /// What was found out about the stores of those with these numbers, so that none is waited for twice.
    known: RefCell<HashMap<u64, Result<Location, Failure>>>,
    /// Which of them didn't answer when they were asked for a link.
    silent: RefCell<HashSet<u64>>,
}

impl Mounts {
    /// Reads the table of this process.
    pub fn read() -> Result<Self, Failure> {
        mountinfo::read().map(Mounts::of).map_err(|error| Failure::error(format!("can't list the mounts: {error}")))
    }

    fn of(all: Vec<Entry>) -> Self {
        Mounts { all, known: RefCell::default(), silent: RefCell::default() }
    }

    /// The mount of a Sepia store on exactly this directory, unless something else is mounted over it or above it.
    pub fn sepia_at(&self, dir: &Path) -> Option<&Entry> {
        self.sepia_over(dir).filter(|mount| mount.point == dir)
    }

    /// The mount of a Sepia store that a path is in, by the name alone.
    pub fn sepia_over(&self, path: &Path) -> Option<&Entry> {
        mountinfo::over(&self.all, path).filter(|mount| mount.kind == TYPE)
    }

    /// The mount of this store on exactly this directory.
    pub fn of_store_at(&self, location: &Location, dir: &Path) -> Option<&Entry> {
        let mount = self.sepia_at(dir).filter(|mount| mount.root == Path::new("/"))?;
        let known = location.path().is_some_and(|store| server(store, dir).is_some());
        let is_it = || self.store_of(mount).is_ok_and(|(store, _)| store == *location);
        (known || is_it()).then_some(mount)
    }

    /// The store of a mount, and the directory in it that is mounted there.
    pub fn store_of<'a>(&self, mount: &'a Entry) -> Result<(Location, &'a Path), Failure> {
        match self.location_of(mount)? {
            (Location::Memory, _) => Err(Failure::new(
                ExitCode::StoreUnusable,
                format!(
                    "{}: its store is in the memory of the process that mounted it, where no other process can \
                     reach it; use the files below the mount and its .sepia directory instead",
                    super::output::name(self.whole(mount).point.as_os_str().as_bytes())
                ),
            )),
            found => Ok(found),
        }
    }

    /// As [`Mounts::store_of`], though it be a store that no other process can reach.
    pub fn location_of<'a>(&self, mount: &'a Entry) -> Result<(Location, &'a Path), Failure> {
        let root = self.whole(mount);
        let inside = mount.root.strip_prefix("/").unwrap_or(&mount.root);
        let known = self.known.borrow().get(&root.id).cloned();
        let found = known.unwrap_or_else(|| {
            let found = location_behind(root);
            self.known.borrow_mut().insert(root.id, found.clone());
            found
        });
        Ok((found?, inside))
    }

    /// A bind mount shows a directory of the store, which has not the attributes of the root.
    fn whole<'a>(&'a self, mount: &'a Entry) -> &'a Entry {
        let is_whole = |other: &&Entry| other.device == mount.device && other.root == Path::new("/");
        if is_whole(&mount) { mount } else { self.all.iter().find(is_whole).unwrap_or(mount) }
    }

    /// Where the link at a path leads, as its mount says it; `None` for what is no link, or where it doesn't answer.
    pub fn ask_for_link(&self, mount: &Entry, path: &Path) -> Option<PathBuf> {
        if self.silent.borrow().contains(&mount.id) {
            return None;
        }
        let at = path.to_owned();
        let Ok(answer) = in_time(&mount.point, move || std::fs::read_link(at)) else {
            self.silent.borrow_mut().insert(mount.id);
            return None;
        };
        answer.ok()
    }
}

/// The store that is mounted here as a whole.
fn location_behind(root: &Entry) -> Result<Location, Failure> {
    if let Some((store, _)) = announced(root) {
        return Ok(Location::File(store));
    }
    let shown = super::output::name(root.point.as_os_str().as_bytes());
    let value = ask(&root.point, STORE_ATTRIBUTE)?.map_err(|error| {
        let failure = Failure::new(ExitCode::StoreUnusable, format!("{shown}: can't learn its store: {error}"));
        match rustix::io::Errno::from_io_error(&error) {
            Some(rustix::io::Errno::NOTCONN) => {
                failure.hint("the mount has no process behind it any more: sepia umount it, and mount it again")
            }
            _ => failure.hint("name it with --store URL or SEPIA_STORE"),
        }
    })?;
    match String::from_utf8(value) {
        Ok(url) => Ok(Location::parse(&url)?),
        Err(bytes) => Ok(Location::File(OsString::from_vec(bytes.into_bytes()).into())),
    }
}

/// The id of the process behind a mount of a whole store, if that can be found out.
pub fn process_behind(mount: &Entry) -> Result<Option<u32>, Failure> {
    if let Some((_, owner)) = announced(mount) {
        return Ok(Some(owner.pid));
    }
    let text = ask(&mount.point, PID_ATTRIBUTE)?.unwrap_or_default();
    Ok(std::str::from_utf8(&text).ok().and_then(|id| id.parse().ok()))
}

/// What other users of a store see of the process of its mount at `dir`.
pub fn activity(dir: &Path) -> String {
    format!("mount {}", dir.display())
}

/// The store of which the kernel says that it is mounted here, and the process of which that store says that it has it
/// mounted here. It lives.
pub fn announced(mount: &Entry) -> Option<(PathBuf, Owner)> {
    let store = Path::new(&mount.source);
    if !store.is_absolute() || mount.root != Path::new("/") {
        return None;
    }
    Some((store.to_owned(), server(store, &mount.point)?))
}

/// The process of which the store in a directory says that it has it mounted at `point`. Where several have, in namespaces of
/// their own, nobody knows which one is meant.
fn server(store: &Path, point: &Path) -> Option<Owner> {
    let activity = activity(point);
    let users = backend::file::users(store).ok()?;
    let mut there = users.into_iter().filter(|user| user.mount && user.activity == activity);
    there.next().filter(|_| there.next().is_none())
}

/// Asks a mount for an attribute of its root.
fn ask(point: &Path, attribute: &'static str) -> Result<io::Result<Vec<u8>>, Failure> {
    let at = point.to_owned();
    in_time(point, move || {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::getxattr(&at, attribute, &mut value[..])?;
        value.truncate(length);
        Ok(value)
    })
}

/// Does what waits for the answer of a mount, but not for ever.
pub fn in_time<T: Send + 'static>(point: &Path, f: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let shown = super::output::name(point.as_os_str().as_bytes());
    let (done, wait) = channel();
    let spawned = std::thread::Builder::new().spawn(move || drop(done.send(f())));
    spawned.map_err(|error| Failure::error(format!("can't start a thread: {error}")))?;
    for left in [SOON, LIMIT - SOON] {
        match wait.recv_timeout(left) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Timeout) if left == SOON => {
                eprintln!("sepia: waiting for the mount {shown} to answer");
            }
            Err(_) => break,
        }
    }
    Err(Failure::new(ExitCode::StoreUnusable, format!("{shown}: the mount there doesn't answer")).hint(
        "its process is stopped or hangs; name the store itself, with --store URL, or end it: sepia umount --lazy",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn what_is_mounted_over_it_counts() {
        let line = |(id, parent): (u64, u64), kind: &str| Entry {
            id,
            parent,
            device: "0:1".into(),
            root: "/".into(),
            point: "/m".into(),
            kind: kind.into(),
            source: "x".into(),
        };
        let mount = line((2, 1), "fuse.sepia");
        assert!(Mounts::of(vec![mount.clone()]).sepia_at(Path::new("/m")).is_some());
        assert!(Mounts::of(vec![mount.clone()]).sepia_over(Path::new("/m/a/b")).is_some());
        let covered = Mounts::of(vec![mount, line((3, 2), "tmpfs")]);
        assert!(covered.sepia_at(Path::new("/m")).is_none());
        assert!(covered.sepia_over(Path::new("/m/a/b")).is_none());
    }

    #[test]
    fn of_several_at_the_same_place_none_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("store");
        let url = path.to_str().unwrap();
        let point = Path::new("/m");
        let (first, second) = (Store::init(url).unwrap(), Store::open(url).unwrap());
        first.backend().staging().announce(&activity(point), true).unwrap();
        assert_eq!(server(&path, point).unwrap().pid, std::process::id());
        second.backend().staging().announce(&activity(point), true).unwrap();
        assert_eq!(server(&path, point), None);
    }
}
