//! Taking a snapshot: finding one point in time in a store that others go on changing.
//!
//! The store is looked through once while everybody works, which records what was changed from outside, and again
//! while saves, removals and renames are held off. Making names and changing metadata takes no lock; so it is looked
//! through until two passes in a row have found the same. Between these was a moment in which all of it was true.

use std::collections::BTreeMap;

use super::{DIR, Error, Result, Snapshot, SnapshotEntry, SnapshotInfo, Store, dir, record, record_path};
use crate::backend::{self, FileKind, Stat};
use crate::types::{Key, Timestamp};

/// How often files that are changed from outside are recorded anew before that is given up.
const ATTEMPTS: u32 = 10;
/// How many passes are made at most while others wait. When after so many somebody still makes names or changes
/// metadata, the last one counts: saved bytes, removals and renames are of one point in time all the same.
const PASSES: u32 = 6;
/// Two changes within this time, in nanoseconds, may bear the same time: a tick of the kernel's clock.
const TICK: i64 = 20_000_000;

/// What one pass has found.
struct Pass {
    started: Timestamp,
    entries: Vec<SnapshotEntry>,
    /// What was changed from outside, and isn't recorded.
    unrecorded: Vec<Key>,
}

impl Pass {
    fn same(&self, other: &Pass) -> bool {
        let same = |(a, b): (&SnapshotEntry, &SnapshotEntry)| {
            let read_meanwhile = Stat { atime: b.stat.atime, ..a.stat.clone() };
            a.key == b.key && read_meanwhile == b.stat && a.target == b.target && a.xattrs == b.xattrs
        };
        self.entries.len() == other.entries.len() && self.entries.iter().zip(&other.entries).all(same)
    }
}

pub fn take(store: &Store, name: Option<&str>) -> Result<SnapshotInfo> {
    let mut pass = look(store, &Key::root(), None)?;
    for _ in 0..ATTEMPTS {
        if adopt(store, &pass.unrecorded)? {
            pass = look(store, &Key::root(), Some(&pass))?;
        }
        let still = store.backend.hold_still()?;
        pass = look(store, &Key::root(), Some(&pass))?;
        for _ in 1..PASSES {
            let again = look(store, &Key::root(), Some(&pass))?;
            let same = again.same(&pass);
            pass = again;
            if same {
                break;
            }
        }
        if !pass.unrecorded.is_empty() {
            continue;
        }
        // A clock that was set back, or another host's, must not make a snapshot older than what is in it.
        let created = pass.entries.iter().filter_map(|entry| entry.stat.committed).fold(store.now(), Ord::max);
        let name = name.map_or_else(|| default_name(created), str::to_owned);
        clear_unfinished(store)?;
        if store.snapshot_names()?.contains(&name) {
            return Err(Error::SnapshotExists(name));
        }
        let info = described(name, created, &pass.entries);
        let text = record::write(&info, &pass.entries)?;
        // In this order, and while all is still: as soon as there is a snapshot, nothing of it is amended, and nobody
        // who looks for what it protects can have missed it.
        still.keep_through(created)?;
        store.backend.put_record(&record_path(&info.name)?, &text)?;
        return Ok(info);
    }
    Err(Error::Unsteady(pass.unrecorded.swap_remove(0)))
}

impl Store {
    /// What is there now, at and below `dir`, in the form of a snapshot that nobody keeps: for comparing. It is looked
    /// through while others go on.
    ///
    /// # Errors
    /// What the medium says. Nothing at `dir` is no error.
    pub fn present(&self, dir: &Key) -> Result<Snapshot> {
        let mut pass = look(self, dir, None)?;
        if adopt(self, &pass.unrecorded)? {
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
fn adopt(store: &Store, keys: &[Key]) -> Result<bool> {
    for key in keys {
        match store.backend.open(key) {
            Err(error) if !is_gone(&error) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(!keys.is_empty())
}

/// Looks at everything at and below a key. Of what is as `before`, attributes and targets are not read again.
fn look(store: &Store, from: &Key, before: Option<&Pass>) -> Result<Pass> {
    let mut pass = Pass { started: Timestamp::now(), entries: Vec::new(), unrecorded: Vec::new() };
    let mut pending = vec![from.clone()];
    while let Some(key) = pending.pop() {
        match look_at(store, &key, before) {
            Ok(entry) => {
                if !entry.stat.recorded && entry.stat.generation.is_some() {
                    pass.unrecorded.push(key.clone());
                }
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
    for name in supported(backend.list_xattrs(key))?.unwrap_or_default() {
        match supported(backend.get_xattr(key, &name)) {
            Ok(Some(value)) => drop(xattrs.insert(name, value)),
            Ok(None) | Err(backend::Error::NoAttribute(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(SnapshotEntry { key: key.clone(), stat, target, xattrs })
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
