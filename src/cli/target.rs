//! Which store and which object an argument means.
//!
//! With `--store URL` or `SEPIA_STORE` the argument is a key. Otherwise it is a path, which need not exist any more:
//! the nearest directory at or above it that is a store (it holds `.sepia/format`) or the root of a mount decides,
//! and what lies below that is the key. Symbolic links in the directories above are followed, the last component
//! is taken as it is. What is below a mount is looked up in the mount's store itself, not through the mount.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::mounts::Mounts;
use super::{ExitCode, Failure};
use crate::store::{Location, Store};
use crate::types::{Key, RESERVED_NAME};

/// The store that the command line or the environment names.
#[derive(Debug, clap::Args)]
pub struct StoreArg {
    /// The store; the other arguments are then keys in it, such as Note/note-1 (else SEPIA_STORE)
    ///
    /// Without it (and without SEPIA_STORE in the environment), arguments are paths below a mount or in a store's
    /// directory.
    #[arg(id = "store_url", long = "store", value_name = "URL", global = true, display_order = 900)]
    store: Option<OsString>,
}

/// An object in an open store.
#[derive(Debug)]
pub struct Target {
    /// Its store.
    pub store: Store,
    /// Its key.
    pub key: Key,
}

#[derive(Debug, PartialEq, Eq)]
struct Place {
    location: Location,
    key: Key,
}

impl StoreArg {
    /// Whether the command line names a store.
    pub fn is_given(&self) -> bool {
        self.store.is_some()
    }

    /// The object that `arg` means.
    pub fn object(&self, arg: &OsStr) -> Result<Target, Failure> {
        open(self.place(arg)?)
    }

    /// Two objects of one store.
    pub fn objects(&self, first: &OsStr, second: &OsStr) -> Result<(Target, Key), Failure> {
        let (first, second) = (self.place(first)?, self.place(second)?);
        if first.location != second.location {
            return Err(Failure::usage(format!(
                "{} is in the store {}, but {} in {}; copy it with: sepia cat … | sepia put …",
                first.key, first.location, second.key, second.location
            )));
        }
        Ok((open(first)?, second.key))
    }

    /// The directory that `arg` means; without it the store's root, or the current directory when no store is named.
    pub fn directory(&self, arg: Option<&OsStr>) -> Result<Target, Failure> {
        match (arg, self.named()?) {
            (Some(arg), _) => self.object(arg),
            (None, Some(location)) => open(Place { location, key: Key::root() }),
            (None, None) => self.object(OsStr::new(".")),
        }
    }

    /// The store as a whole: the one that is named, that `arg` is the URL of or lies in, or the current directory's.
    pub fn store(&self, arg: Option<&OsStr>) -> Result<Store, Failure> {
        let Some(arg) = arg else { return self.directory(None).map(|target| target.store) };
        if self.is_given() {
            return Err(Failure::usage("the store is given twice, as --store and as an argument"));
        }
        let location = parse_location(arg)?;
        let place = match location {
            Location::File(path) => find(&path)?,
            other => Place { location: other, key: Key::root() },
        };
        open(place).map(|target| target.store)
    }

    /// The link by which [`StoreArg::store`] was led to a store, if it was by one.
    pub fn alias(&self, arg: Option<&OsStr>, store: &Store) -> Option<PathBuf> {
        let Location::File(path) = parse_location(arg?).ok()? else { return None };
        let mounts = Mounts::read().ok()?;
        let link = follow(&path, &mounts, false).ok()?;
        let leads_to = follow(&link, &mounts, true).ok()?;
        (store.location().path() == Some(&leads_to)).then_some(link)
    }

    fn named(&self) -> Result<Option<Location>, Failure> {
        let env = || std::env::var_os("SEPIA_STORE").filter(|url| !url.is_empty());
        let Some(url) = self.store.clone().or_else(env) else { return Ok(None) };
        let location = parse_location(&url)?;
        if let Location::File(path) = &location {
            refuse_mount(path)?;
        }
        Ok(Some(location))
    }

    fn place(&self, arg: &OsStr) -> Result<Place, Failure> {
        let Some(location) = self.named()? else { return find(Path::new(arg)) };
        let key = Key::parse(arg).map_err(|error| {
            Failure::usage(format!("{}: {error}", super::output::name(arg.as_bytes())))
                .hint("with --store or SEPIA_STORE the argument is a key, such as Note/note-1")
        })?;
        Ok(Place { location, key })
    }
}

fn parse_location(url: &OsStr) -> Result<Location, Failure> {
    match url.to_str() {
        Some(url) => Ok(Location::parse(url)?),
        // No URL has such bytes, but a directory's name may.
        None => Ok(Location::File(url.into())),
    }
}

/// A mount of a store is no store, which is easily mistaken.
fn refuse_mount(path: &Path) -> Result<(), Failure> {
    let mounts = Mounts::read()?;
    let Some(mount) = follow(path, &mounts, true).ok().and_then(|path| mounts.sepia_at(&path)) else { return Ok(()) };
    let (location, _) = mounts.store_of(mount)?;
    Err(Failure::new(ExitCode::StoreUnusable, format!("{} is a mount, of the store {location}", shown(path)))
        .hint(format!("name that: --store {location}; or go into the mount, and name objects by their paths")))
}

fn open(Place { location, key }: Place) -> Result<Target, Failure> {
    Ok(Target { store: Store::open_at(location)?, key })
}

/// Finds the store that a path lies in.
fn find(path: &Path) -> Result<Place, Failure> {
    let mounts = Mounts::read()?;
    let literal = follow(path, &mounts, false)?;
    if let Some(place) = find_at_or_above(&literal, &mounts)? {
        return Ok(place);
    }
    // A link from outside into a store means what it points to.
    if let Ok(target) = follow(&literal, &mounts, true)
        && target != literal
        && let Some(place) = find_at_or_above(&target, &mounts)?
    {
        return Ok(place);
    }
    Err(Failure::new(
        ExitCode::StoreUnusable,
        format!(
            "{}: neither in a store's directory nor below a mount of one; name the store with --store URL or \
             SEPIA_STORE, or make one with: sepia init DIR",
            shown(path)
        ),
    ))
}

fn find_at_or_above(path: &Path, mounts: &Mounts) -> Result<Option<Place>, Failure> {
    for dir in path.ancestors() {
        // Every ancestor is a prefix.
        let below = path.strip_prefix(dir).unwrap_or(path);
        if let Some(mount) = mounts.sepia_at(dir) {
            let (location, above) = mounts.store_of(mount)?;
            return Ok(Some(Place { location, key: key_of(&above.join(below), path)? }));
        }
        // A mount is not asked for names: the kernel would remember that there is nothing, when the command that
        // this is for is about to change that behind the mount.
        if mounts.sepia_over(dir).is_none() && !dir.is_symlink() && is_store(dir) {
            return Ok(Some(Place { location: Location::File(dir.to_owned()), key: key_of(below, path)? }));
        }
    }
    Ok(None)
}

fn is_store(dir: &Path) -> bool {
    match dir.join(".sepia/format").symlink_metadata() {
        Ok(meta) => meta.is_file(),
        // It is one, but of somebody else; opening it says so.
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied && dir.join(".sepia").is_dir(),
    }
}

fn key_of(below: &Path, path: &Path) -> Result<Key, Failure> {
    Key::parse(below.as_os_str()).map_err(|error| Failure::usage(format!("{}: {error}", shown(path))))
}

/// As many links as the kernel follows in one path.
const MOST_LINKS: usize = 40;

/// The path from the root, with the links in all components but the last followed, or in that too. What doesn't exist (any
/// more) is taken by its name. A mount isn't asked for the links in it: they are read in its store.
fn follow(path: &Path, mounts: &Mounts, last_too: bool) -> Result<PathBuf, Failure> {
    let fail = |error: io::Error| Failure::error(format!("{}: {error}", shown(path)));
    if path.as_os_str().is_empty() {
        return Err(Failure::usage("an empty path names no object"));
    }
    let names = |path: &Path| -> Vec<OsString> {
        let names = path.components().rev().filter(|part| !matches!(part, Component::RootDir | Component::CurDir));
        names.map(|part| part.as_os_str().to_owned()).collect()
    };
    let mut pending = names(&std::path::absolute(path).map_err(fail)?);
    let (mut resolved, mut links, mut missing) = (PathBuf::from("/"), 0, false);
    while let Some(name) = pending.pop() {
        if name == ".." {
            resolved.pop();
            continue;
        }
        resolved.push(name);
        if missing || (pending.is_empty() && !last_too) {
            continue;
        }
        let climbs = pending.iter().any(|name| name == "..");
        match link_at(&resolved, mounts, climbs) {
            Ok(Some(_)) if links == MOST_LINKS => return Err(fail(rustix::io::Errno::LOOP.into())),
            Ok(Some(target)) => {
                links += 1;
                resolved.pop();
                if target.is_absolute() {
                    resolved = PathBuf::from("/");
                }
                pending.extend(names(&target));
            }
            Ok(None) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                missing = true
            }
            Err(error) => return Err(fail(error)),
        }
    }
    Ok(resolved)
}

/// Where the link at a path leads; `None` for what is no link. In the views of a mount no object is found, so they are only
/// asked for links if what follows climbs out of them again.
fn link_at(path: &Path, mounts: &Mounts, climbs: bool) -> io::Result<Option<PathBuf>> {
    let Some(mount) = mounts.sepia_over(path) else { return link_in(path) };
    let below = path.strip_prefix(&mount.point).unwrap_or(path);
    // Whoever uses what is found there hears what is wrong with the mount.
    let (store, above) = match mounts.location_of(mount) {
        Ok((Location::File(store), above)) => (store, above),
        Ok((Location::Memory, _)) => return Ok(mounts.ask_for_link(mount, path)),
        Err(_) => return Ok(None),
    };
    let inside = above.join(below);
    if inside.as_os_str().is_empty() {
        return Ok(None);
    }
    if inside.starts_with(OsStr::from_bytes(RESERVED_NAME)) {
        return Ok(if climbs { mounts.ask_for_link(mount, path) } else { None });
    }
    match link_in(&store.join(inside)) {
        // Who may not look into the store, or doesn't see it, can do nothing there, but leave it by a link.
        Err(_) if store.join(".sepia/format").symlink_metadata().is_err() => Ok(mounts.ask_for_link(mount, path)),
        // Nor may somebody else's private directory be looked into.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        target => target,
    }
}

fn link_in(path: &Path) -> io::Result<Option<PathBuf>> {
    match std::fs::read_link(path) {
        // It is no link.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
        target => target.map(Some),
    }
}

fn shown(path: &Path) -> String {
    super::output::name(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_store_and_what_is_below() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        let store = root.join("s");
        std::fs::create_dir_all(store.join(".sepia")).unwrap();
        std::fs::write(store.join(".sepia/format"), "{}").unwrap();
        std::fs::create_dir_all(store.join("Note/sub")).unwrap();
        std::os::unix::fs::symlink(store.join("Note"), root.join("link")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", store.join("Note/out")).unwrap();
        for (path, key) in [
            ("s", ""),
            ("s/", ""),
            ("s/Note/note-1", "Note/note-1"),
            ("s/Note/../Gone/x/y/", "Gone/x/y"),
            ("s/Note/sub/..", "Note"),
            ("s/Gone/a/../b", "Gone/b"),
            ("s/./Note/./note-1/", "Note/note-1"),
            ("link/note-1", "Note/note-1"),
            ("link", "Note"),
            ("s/Note/out", "Note/out"),
        ] {
            let place = find(&root.join(path)).unwrap();
            assert_eq!(
                place,
                Place { location: Location::File(store.clone()), key: Key::parse(key).unwrap() },
                "{path}"
            );
        }
        assert_eq!(find(&root.join("elsewhere")).unwrap_err().code, ExitCode::StoreUnusable);
        assert_eq!(find(&store.join(".sepia/format")).unwrap_err().code, ExitCode::Usage);
    }
}
