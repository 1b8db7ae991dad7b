//! What there is at a path below `/.sepia`, found out anew each time from the store.
//!
//! Each view repeats the tree of the store, so that whoever may not search a directory can't get to what is in it through a
//! view, either: a directory of a view has the permissions of the one that it stands for, an object those of the object
//! today, and who opens an older generation must also have been allowed to read that one.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use rustix::io::Errno;

use super::super::{Result, errno, from_backend};
use super::shade::{ACL, Shade, has_acl, may_read, own, readable, searchable, shade_of};
use crate::backend::{FileKind, GenerationInfo, Kept, Stat};
use crate::fs::Caller;
use crate::store::snapshots::Snapshot;
use crate::store::{Conflict, ConflictId, Past, Renames, Store};
use crate::types::{Generation, Key, ObjectId, Timestamp, moment};

const README: &str = "\
This directory is made by Sepia. It isn't listed in the one above, but can be entered.

  generations/KEY/N      every kept generation of an object, by its number; \"latest\" is the current one
  conflicts/KEY/ID       saves that lost to a newer one, or that a rule refused: sepia conflicts --help
  events/KEY.jsonl       what has happened to an object: sepia events --help
  snapshots/NAME/KEY     the tree as it was: mkdir snapshots/NAME makes one, rmdir drops it
  at/TIME/KEY            the tree as it was: at/1h, at/yesterday, at/2026-11-23T10-00-00Z
  trash/KEY              what was removed: mv trash/KEY SOMEWHERE brings it back with its attributes
  stats                  numbers about the store and this mount, as JSON

KEY is the path of the object below the mount. It is read-only but for mkdir, rmdir and mv as above; copy from it with any
tool, or bring a generation back with: sepia restore KEY --generation N
";

/// Snapshots that are held in memory.
pub const SNAPSHOTS: std::num::NonZeroUsize = std::num::NonZeroUsize::new(4).expect("not zero");

pub(super) const MOMENTS: &str = "at";
pub(super) const SNAPSHOTS_DIR: &str = "snapshots";
pub(super) const LATEST: &str = "latest";
pub(super) const EVENTS: &str = ".jsonl";
/// What is at a path of a view.
#[derive(Debug)]
pub struct Item {
    /// As the kernel is to see it.
    pub stat: Stat,
    pub what: What,
}

/// What can be done with it.
#[derive(Debug)]
pub enum What {
    Dir(View, Key),
    Top,
    Text(Vec<u8>),
    Generation(Key, Generation),
    Trashed(Key, Generation),
    Conflict(ConflictId),
    Events(Key),
    Link(Key),
    /// The directory in which every moment can be entered.
    Moments,
    /// The directory in which all snapshots are.
    Snapshots,
    InSnapshot(Arc<Snapshot>, Key),
}

/// The views that repeat the tree of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    Generations,
    Conflicts,
    Events,
    Trash,
    At(Timestamp),
}

pub(super) const VIEWS: [(&str, View); 4] = [
    ("conflicts", View::Conflicts),
    ("events", View::Events),
    ("generations", View::Generations),
    ("trash", View::Trash),
];

/// What an open file of a view reads from.
#[derive(Debug)]
pub enum Source {
    Bytes(Vec<u8>),
    File(Arc<File>),
    /// Of a generation that was only appended to since: no more than there was.
    Beginning(Arc<File>, u64),
}

impl Item {
    /// Tells that two names of a snapshot are one file.
    pub fn alias(&self) -> Option<(&str, u64)> {
        match &self.what {
            What::InSnapshot(snapshot, _) if self.stat.kind != FileKind::Directory && self.stat.nlink > 1 => {
                Some((&snapshot.info().name, self.stat.id.get()))
            }
            _ => None,
        }
    }
}

/// A store, and the numbers that only the mount knows.
pub struct Tree<'a> {
    pub store: &'a Store,
    /// Inodes and open files.
    pub usage: (usize, usize),
    /// Those that were used last, by name.
    pub snapshots: &'a Mutex<LruCache<String, Arc<Snapshot>>>,
    pub renames: &'a Mutex<Renames>,
}

impl Tree<'_> {
    /// What is at `path`, of which the root is `/.sepia` itself.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR.
    pub fn at(&self, path: &Key) -> Result<Item> {
        let mut names = path.components();
        let Some(first) = names.next() else { return Ok(self.directory(What::Top, own(0o555))) };
        let rest: Vec<&OsStr> = names.collect();
        let text = |text: Vec<u8>| match rest.is_empty() {
            true => Ok(item(FileKind::File, own(0o444), text.len() as u64, What::Text(text))),
            false => Err(Errno::NOTDIR),
        };
        match first.to_str() {
            Some(SNAPSHOTS_DIR) => return self.in_snapshots(&rest),
            Some("README") => return text(README.into()),
            Some("stats") => return text(self.stats()?),
            _ => {}
        }
        let (view, rest) = match VIEWS.into_iter().find(|(name, _)| *name == first) {
            Some((_, view)) => (view, &rest[..]),
            None if first != MOMENTS => return Err(Errno::NOENT),
            None => match rest.split_first() {
                None => return Ok(self.directory(What::Moments, own(0o555))),
                Some((time, rest)) => {
                    let time = moment(time.to_str().unwrap_or_default(), self.store.now()).map_err(|_| Errno::NOENT)?;
                    (View::At(time), rest)
                }
            },
        };
        let mut key = Key::root();
        for (at, name) in rest.iter().enumerate() {
            let last = at + 1 == rest.len();
            if last && let Some(found) = self.leaf(view, &key, name)? {
                return Ok(found);
            }
            key = key.child(name).map_err(|_| Errno::NOENT)?;
        }
        self.stands_for(view, key)
    }

    /// What is at a path in `snapshots`.
    fn in_snapshots(&self, path: &[&OsStr]) -> Result<Item> {
        let Some((name, path)) = path.split_first() else {
            return Ok(self.directory(What::Snapshots, own(0o755)));
        };
        let snapshot = self.snapshot(name.to_str().ok_or(Errno::NOENT)?)?;
        let mut key = Key::root();
        for name in path {
            key = key.child(name).map_err(|_| Errno::NOENT)?;
        }
        let stat = snapshot.entry(&key).ok_or(Errno::NOENT)?.stat.clone();
        Ok(Item { stat, what: What::InSnapshot(snapshot, key) })
    }

    fn snapshot(&self, name: &str) -> Result<Arc<Snapshot>> {
        // One of the same name may have been made since.
        let info = self.store.snapshot_info(name).map_err(errno)?;
        if let Some(known) = self.snapshots.lock().get(name).filter(|known| *known.info() == info) {
            return Ok(known.clone());
        }
        let snapshot = self.store.snapshot(name).map_err(errno)?;
        self.snapshots.lock().put(name.to_owned(), snapshot.clone());
        Ok(snapshot)
    }

    /// The directory of a view that stands for a directory or an object.
    fn stands_for(&self, view: View, key: Key) -> Result<Item> {
        let place = match view {
            View::At(then) if !key.is_root() => match self.past(&key, then)? {
                Some((place, Past::Directory(_))) => place,
                _ => return Err(Errno::NOENT),
            },
            _ => key.clone(),
        };
        let shade = match self.store.backend().stat(&place) {
            Ok(stat) if stat.kind == FileKind::Directory => {
                let shade = self.shade(&place, &stat);
                // Who may take something out of a directory may also take it out of its trash.
                let bits = if view == View::Trash { 0o777 | stat.mode & 0o1000 } else { 0o555 };
                Shade { mode: (shade.mode | stat.mode & 0o1000) & bits, ..shade }
            }
            // The events of an object are a file, and so is what it was.
            Ok(stat) if stat.kind == FileKind::File && matches!(view, View::Generations | View::Conflicts) => {
                let shade = self.shade(&place, &stat);
                Shade { mode: searchable(shade.mode), ..shade }
            }
            // A link that took the name of an object.
            Ok(stat) if stat.kind != FileKind::File && view == View::Generations => self.shade_of_what_was(&place)?,
            Ok(_) => return Err(Errno::NOENT),
            // Of a directory that is gone, nobody knows what it was like.
            Err(error) if error.is_gone() && view == View::Trash => own(0o700),
            Err(error) if error.is_gone() => self.shade_of_what_was(&place)?,
            Err(error) => return Err(from_backend(error)),
        };
        let empty = match view {
            _ if key.is_root() => false,
            View::Conflicts => self.conflicts(&key)?.is_empty(),
            View::Trash => !self.store.has_trash_below(&key).map_err(errno)?,
            _ => false,
        };
        if empty {
            return Err(Errno::NOENT);
        }
        Ok(self.directory(What::Dir(view, key), shade))
    }

    /// What isn't there any more, but has a history: the permissions of its last generation, and only the daemon's own
    /// user's for a directory, of which nobody knows what it was like.
    fn shade_of_what_was(&self, key: &Key) -> Result<Shade> {
        let history = self.store.backend().generations(key).map_err(from_backend)?;
        if let Some(last) = history.iter().rev().find(|info| is_kept(info)) {
            let opened = self.store.get_generation(key, last.generation).map_err(errno)?;
            let shade = self.shade_of_kept(&opened.stat, &opened.file);
            return Ok(Shade { mode: searchable(shade.mode), ..shade });
        }
        if history.is_empty() && self.store.backend().history_members(key).map_err(from_backend)?.is_empty() {
            return Err(Errno::NOENT);
        }
        Ok(own(0o500))
    }

    /// An entry that stands for nothing in the store: a generation, a conflict, the events of an object.
    fn leaf(&self, view: View, key: &Key, name: &OsStr) -> Result<Option<Item>> {
        let text = name.to_str().unwrap_or_default();
        match view {
            View::Generations if text == LATEST => {
                let current = self.store.stat(key).ok().and_then(|stat| stat.generation);
                let latest = match current {
                    Some(number) => self.store.generation(key, number).ok().flatten(),
                    None => self.store.history(key).ok().and_then(|history| history.into_iter().rfind(is_kept)),
                };
                latest.map(|info| Ok(generation(key, &info, self.shade_of_key(key)?))).transpose()
            }
            View::Generations => {
                let Some(number) = text.parse().ok().and_then(Generation::new) else { return Ok(None) };
                // An object in a directory may have a number for a name.
                let info = self.store.generation(key, number).ok().flatten();
                info.filter(|info| is_kept(info) && text == number.to_string())
                    .map(|info| Ok(generation(key, &info, self.shade_of_key(key)?)))
                    .transpose()
            }
            View::Conflicts => {
                let found =
                    self.conflicts(key)?.into_iter().find(|found| found.key == *key && found.id.to_string() == text);
                let Some(found) = found else { return Ok(None) };
                let shade = Shade { mtime: found.time, ..self.shade_of_key(key)? };
                Ok(Some(item(FileKind::File, readable(shade), found.size, What::Conflict(found.id))))
            }
            View::Trash => self.trashed(&key.child(name).map_err(|_| Errno::NOENT)?),
            View::At(then) => {
                let Ok(key) = key.child(name) else { return Ok(None) };
                Ok(match self.past(&key, then)? {
                    Some((key, Past::Object(generation, size, mtime))) => {
                        let shade = Shade { mtime, ..self.shade_of_key(&key)? };
                        Some(item(FileKind::File, readable(shade), size, What::Generation(key, generation)))
                    }
                    Some((key, Past::Link(stat))) => Some(Item { stat, what: What::Link(key) }),
                    Some((_, Past::Directory(_))) => None,
                    None => return Err(Errno::NOENT),
                })
            }
            View::Events => {
                let Some(object) = name.as_bytes().strip_suffix(EVENTS.as_bytes()) else { return Ok(None) };
                let Ok(object) = key.child(OsStr::from_bytes(object)) else { return Ok(None) };
                match self.store.backend().stat(&object) {
                    Ok(stat) if stat.kind == FileKind::File => {
                        let shade = self.shade(&object, &stat);
                        // Of no size, like the files in /proc: it is put together when it is opened.
                        Ok(Some(item(FileKind::File, readable(shade), 0, What::Events(object))))
                    }
                    _ => Ok(None),
                }
            }
        }
    }

    /// What was at a key at a moment, and under which name it is known now.
    fn past(&self, key: &Key, then: Timestamp) -> Result<Option<(Key, Past)>> {
        self.store.past_by_name(&mut self.renames.lock(), key, then).map_err(errno)
    }

    /// What was removed at a key. A directory of its name, with what was removed below that, hides it.
    fn trashed(&self, key: &Key) -> Result<Option<Item>> {
        let Some(trashed) = self.store.trashed_at(key).map_err(errno)? else { return Ok(None) };
        if self.store.has_trash_below(key).map_err(errno)? {
            return Ok(None);
        }
        let opened = self.store.get_generation(key, trashed.generation).map_err(errno)?;
        let shade = Shade { mode: opened.stat.mode & 0o7777, ..shade_of(&opened.stat, false) };
        Ok(Some(item(FileKind::File, shade, trashed.size, What::Trashed(key.clone(), trashed.generation))))
    }

    /// The permissions of the object at a key, or of what was there last.
    pub(super) fn shade_of_key(&self, key: &Key) -> Result<Shade> {
        match self.store.backend().stat(key) {
            Ok(stat) => Ok(self.shade(key, &stat)),
            Err(error) if error.is_gone() => {
                let history = self.store.backend().generations(key).map_err(from_backend)?;
                match history.iter().rev().find(|info| is_kept(info)) {
                    Some(last) => {
                        let opened = self.store.get_generation(key, last.generation).map_err(errno)?;
                        Ok(self.shade_of_kept(&opened.stat, &opened.file))
                    }
                    None => Ok(own(0o400)),
                }
            }
            Err(error) => Err(from_backend(error)),
        }
    }

    fn shade(&self, key: &Key, stat: &Stat) -> Shade {
        let has_acl = self.store.backend().capabilities().system_xattrs
            && self.store.backend().get_xattr(key, OsStr::new(ACL)).is_ok();
        shade_of(stat, has_acl)
    }

    fn shade_of_kept(&self, stat: &Stat, file: &File) -> Shade {
        shade_of(stat, has_acl(file))
    }

    pub(super) fn conflicts(&self, below: &Key) -> Result<Vec<Conflict>> {
        let mut all = self.store.conflicts().map_err(errno)?;
        all.retain(|conflict| conflict.key.is_within(below));
        Ok(all)
    }

    fn directory(&self, what: What, shade: Shade) -> Item {
        item(FileKind::Directory, shade, 0, what)
    }

    fn stats(&self) -> Result<Vec<u8>> {
        let medium = self.store.backend().stat_fs().map_err(from_backend)?;
        let stats = serde_json::json!({
            "store": self.store.location().to_string(),
            "id": self.store.backend().store_id(),
            "inodes": self.usage.0,
            "open_files": self.usage.1,
            "free_bytes": u64::from(medium.block_size) * medium.blocks_available,
            "size_bytes": u64::from(medium.block_size) * medium.blocks,
            "conflicts": self.store.conflicts().map_err(errno)?.len(),
            "events_missing": self.store.events_missing(),
            "collector": self.store.collector_status().map_err(errno)?,
            "verification": self.store.verification_status().map_err(errno)?,
        });
        Ok(format!("{stats:#}\n").into_bytes())
    }

    /// The extended attributes that are shown.
    pub fn xattrs(&self, what: &What) -> Result<BTreeMap<OsString, Vec<u8>>> {
        Ok(match what {
            What::InSnapshot(snapshot, key) => {
                snapshot.entry(key).map(|entry| entry.xattrs.clone()).unwrap_or_default()
            }
            What::Trashed(key, generation) => {
                let kept = self.store.backend().generation_xattrs(key, *generation).map_err(from_backend)?;
                kept.into_iter().collect()
            }
            _ => BTreeMap::new(),
        })
    }

    /// The target of a symbolic link.
    pub fn link_target(&self, what: &What) -> Result<Vec<u8>> {
        match what {
            What::Link(key) => self.store.backend().read_link(key).map_err(from_backend),
            What::InSnapshot(snapshot, key) => {
                snapshot.entry(key).and_then(|entry| entry.target.clone()).ok_or(Errno::INVAL)
            }
            _ => Err(Errno::INVAL),
        }
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// EACCES where the caller could not have read the generation when it was current.
    pub fn open(&self, caller: &Caller, what: What) -> Result<Source> {
        Ok(match what {
            What::Text(text) => Source::Bytes(text),
            What::Generation(key, generation) | What::Trashed(key, generation) => {
                let opened = self.store.get_generation(&key, generation).map_err(errno)?;
                if !may_read(caller, self.shade_of_kept(&opened.stat, &opened.file)) {
                    return Err(Errno::ACCESS);
                }
                let longer = opened.file.metadata().is_ok_and(|meta| meta.len() > opened.stat.size);
                if longer { Source::Beginning(opened.file, opened.stat.size) } else { Source::File(opened.file) }
            }
            What::Conflict(id) => Source::File(Arc::new(self.store.open_conflict(&id).map_err(errno)?)),
            What::Events(key) => {
                let events = self.store.events_of(&key).map_err(errno)?;
                Source::Bytes(events.iter().flat_map(|event| (event.original() + "\n").into_bytes()).collect())
            }
            What::InSnapshot(snapshot, key) => {
                let opened = snapshot.open(self.store, &key).map_err(errno)?;
                let longer = opened.file.metadata().is_ok_and(|meta| meta.len() > opened.stat.size);
                if longer { Source::Beginning(opened.file, opened.stat.size) } else { Source::File(opened.file) }
            }
            What::Link(_) => return Err(Errno::LOOP),
            What::Dir(..) | What::Top | What::Moments | What::Snapshots => return Err(Errno::ISDIR),
        })
    }
}

pub(super) fn is_kept(info: &GenerationInfo) -> bool {
    // One that was moved away can be read under its old name, too.
    !matches!(&info.kept, Kept::Lost(why) if !why.starts_with("moved to "))
}

pub(super) fn generation(key: &Key, info: &GenerationInfo, shade: Shade) -> Item {
    let shade = Shade { mtime: info.mtime, ..shade };
    item(FileKind::File, readable(shade), info.size, What::Generation(key.clone(), info.generation))
}

fn item(kind: FileKind, shade: Shade, size: u64, what: What) -> Item {
    let Shade { mode, uid, gid, mtime } = shade;
    let nlink = if kind == FileKind::Directory { 2 } else { 1 };
    let stat = Stat {
        // The views have inode numbers of their own.
        id: ObjectId::ROOT,
        kind,
        mode,
        uid,
        gid,
        size,
        blocks: size.div_ceil(512),
        nlink,
        rdev: 0,
        atime: mtime,
        mtime,
        ctime: mtime,
        committed: None,
        generation: None,
        recorded: true,
        incarnation: 0,
    };
    Item { stat, what }
}
