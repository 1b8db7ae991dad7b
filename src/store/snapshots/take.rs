//! Taking a snapshot: finding one point in time in a store that others go on changing.
//!
//! The store is looked through once while everybody works, which records what was changed from outside and reads what
//! takes time, and once while everything is held still. What was one step on the medium, and begun before, may still
//! happen then; so what has changed in the last moment is looked at twice.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{DIR, Error, Result, Snapshot, SnapshotEntry, SnapshotInfo, Store, dir, record, record_path};
use crate::backend::{self, FileKind};
use crate::types::{Key, Timestamp};

/// Two changes within this time, in nanoseconds, may bear the same time: a tick of the kernel's clock.
const TICK: i64 = 20_000_000;

/// What one pass has found.
struct Pass {
    started: Timestamp,
    entries: Vec<SnapshotEntry>,
    /// What was changed from outside, and isn't recorded, by its place in `entries`.
    unrecorded: Vec<usize>,
}

pub fn take(store: &Store, name: Option<&str>) -> Result<SnapshotInfo> {
    let mut before = look(store, &Key::root(), None)?;
    if adopt(store, &before)? {
        before = look(store, &Key::root(), Some(&before))?;
    }
    let still = store.backend.hold_still()?;
    let mut pass = look(store, &Key::root(), Some(&before))?;
    look_again_at_the_latest(store, &mut pass)?;
    // What another program changes all the time: as it is at this moment.
    for at in pass.unrecorded {
        let entry = &mut pass.entries[at];
        match still.adopt(&entry.key) {
            // Gone, or another kind of thing: then what was there just before, whose bytes can't be had.
            Err(error) if is_gone(&error) => {}
            other => entry.stat = other?,
        }
    }
    // A clock that was set back, or another host's, must not make a snapshot older than what is in it.
    let now = store.now();
    let created = pass.entries.iter().filter_map(|entry| entry.stat.committed).fold(now, Ord::max);
    clear_unfinished(store)?;
    let name = free_name(store, name, now)?;
    let info = described(name, created, &pass.entries);
    let text = record::write(&info, &pass.entries)?;
    // In this order, and while all is still: as soon as there is a snapshot, nothing of it is amended, and nobody
    // who looks for what it protects can have missed it.
    still.keep_through(created)?;
    let path = record_path(&info.name)?;
    store.backend.put_record(&path, &text)?;
    drop(still);
    // What it refers to was perhaps only closed, which a power loss would tear.
    if let Err(error) = store.backend.sync_all() {
        store.backend.remove_record(&path)?;
        return Err(error.into());
    }
    Ok(info)
}

/// The name of a snapshot to be, while everything is held still.
fn free_name(store: &Store, name: Option<&str>, now: Timestamp) -> Result<String> {
    let taken = store.snapshot_names()?;
    if let Some(name) = name {
        return match taken.iter().any(|taken| taken == name) {
            true => Err(Error::SnapshotExists(name.to_owned())),
            false => Ok(name.to_owned()),
        };
    }
    let time = default_name(now);
    let further = (2..).map(|number| format!("{time}-{number}"));
    let mut names = std::iter::once(time.clone()).chain(further);
    Ok(names.find(|name| !taken.contains(name)).unwrap_or(time))
}

impl Store {
    /// What is there now, at and below `dir`, in the form of a snapshot that nobody keeps: for comparing. It is looked
    /// through while others go on.
    ///
    /// # Errors
    /// What the medium says. Nothing at `dir` is no error.
    pub fn present(&self, dir: &Key) -> Result<Snapshot> {
        let mut pass = look(self, dir, None)?;
        if adopt(self, &pass)? {
            pass = look(self, dir, Some(&pass))?;
        }
        let info = described("now".to_owned(), self.now(), &pass.entries);
        Ok(Snapshot::new(info, pass.entries))
    }
}

fn described(name: String, created: Timestamp, entries: &[SnapshotEntry]) -> SnapshotInfo {
    let files = entries.iter().filter(|entry| entry.stat.kind == FileKind::File);
    let bytes = files.map(|entry| entry.stat.size).sum();
    SnapshotInfo { name, created, entries: entries.len() as u64, bytes, damaged: false }
}

fn default_name(time: Timestamp) -> String {
    // RFC 3339 to the second, with nothing that another system's file names can't hold.
    let text = time.rfc3339().replace(':', "-");
    text.split_once('.').map_or(text.clone(), |(seconds, _)| format!("{seconds}Z"))
}

/// Removes what a snapshot has left behind whose process died while it wrote the record: records are only written
/// while everything is held still, so nobody is writing one now.
fn clear_unfinished(store: &Store) -> Result<()> {
    for path in store.backend.list_records(&dir())? {
        if path.as_bytes().ends_with(b".new") && path.parent().is_some_and(|parent| parent.as_bytes() == DIR.as_bytes())
        {
            store.backend.remove_record(&path)?;
        }
    }
    Ok(())
}

/// Records what was changed from outside. Returns whether there was something to record.
fn adopt(store: &Store, pass: &Pass) -> Result<bool> {
    for &at in &pass.unrecorded {
        match store.backend.open(&pass.entries[at].key) {
            Err(error) if !is_gone(&error) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(!pass.unrecorded.is_empty())
}

/// A change that was begun before all was held still may be seen by half: looks again at what has just changed. By
/// now, that is done.
fn look_again_at_the_latest(store: &Store, pass: &mut Pass) -> Result<()> {
    let since = pass.started.nanos().saturating_sub(TICK);
    for entry in pass.entries.iter_mut().filter(|entry| entry.stat.ctime.nanos() >= since) {
        match look_at(store, &entry.key, None) {
            Ok(again) => *entry = again,
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    pass.find_unrecorded();
    Ok(())
}

impl Pass {
    fn find_unrecorded(&mut self) {
        let is_unrecorded = |entry: &SnapshotEntry| !entry.stat.recorded && entry.stat.generation.is_some();
        self.unrecorded = (0..self.entries.len()).filter(|&at| is_unrecorded(&self.entries[at])).collect();
    }
}

/// Looks at everything at and below a key. Of what is as `before`, attributes and targets are not read again.
fn look(store: &Store, from: &Key, before: Option<&Pass>) -> Result<Pass> {
    let mut pass = Pass { started: Timestamp::now(), entries: Vec::new(), unrecorded: Vec::new() };
    let mut pending = vec![from.clone()];
    while let Some(key) = pending.pop() {
        match look_at(store, &key, before) {
            Ok(entry) => {
                let is_dir = entry.stat.kind == FileKind::Directory;
                pass.entries.push(entry);
                if is_dir {
                    match store.backend.list(&key) {
                        Ok(entries) => {
                            for entry in entries {
                                pending.push(key.child(&entry.name)?);
                            }
                        }
                        Err(error) if is_gone(&error) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            // Gone since its directory was listed.
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    pass.entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    pass.find_unrecorded();
    Ok(pass)
}

fn look_at(store: &Store, key: &Key, before: Option<&Pass>) -> backend::Result<SnapshotEntry> {
    let backend = &store.backend;
    let stat = backend.stat(key)?;
    if let Some(before) = before
        && let Ok(at) = before.entries.binary_search_by(|entry| entry.key.cmp(key))
        && let known = &before.entries[at]
        && (known.stat.id, known.stat.ctime, known.stat.incarnation) == (stat.id, stat.ctime, stat.incarnation)
        && stat.ctime.nanos().saturating_add(TICK) < before.started.nanos()
    {
        return Ok(SnapshotEntry { stat, ..known.clone() });
    }
    let target = match stat.kind {
        FileKind::Symlink => Some(backend.read_link(key)?),
        _ => None,
    };
    let mut xattrs = BTreeMap::new();
    for name in supported(backend.list_xattrs(key))?.unwrap_or_default().into_iter().filter(|name| is_kept(name)) {
        match supported(backend.get_xattr(key, &name)) {
            Ok(Some(value)) => drop(xattrs.insert(name, value)),
            Ok(None) | Err(backend::Error::NoAttribute(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(SnapshotEntry { key: key.clone(), stat, target, xattrs })
}

/// Whether an attribute is the object's, and not what the system says of it, as `security.selinux` is.
pub(super) fn is_kept(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let prefixes = [&b"user."[..], b"trusted.", b"system.posix_acl_"];
    prefixes.iter().any(|prefix| name.starts_with(prefix)) || name == b"security.capability"
}

fn supported<T>(result: backend::Result<T>) -> backend::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(backend::Error::Unsupported(..)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether it is no longer there, or something else is.
fn is_gone(error: &backend::Error) -> bool {
    use backend::Error::{Invalid, NotDirectory, NotFound};
    matches!(error, NotFound(_) | NotDirectory(_) | Invalid(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_name_has_no_colon() {
        assert_eq!(default_name(Timestamp::from_nanos(1_795_428_000_000_000_005)), "2026-11-23T10-00-00Z");
    }
}
