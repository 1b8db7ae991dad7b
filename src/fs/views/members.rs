//! What a directory of a view lists.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;

use rustix::io::Errno;

use super::super::{Result, errno, from_backend};
use super::tree::{EVENTS, Item, LATEST, MOMENTS, SNAPSHOTS_DIR, Tree, VIEWS, View, What, generation, is_kept};
use crate::backend::FileKind;
use crate::types::Key;

/// An entry of a view's directory.
#[derive(Debug)]
pub struct Member {
    pub name: OsString,
    pub kind: FileKind,
    /// Where all entries were found by one look: what this one is.
    pub item: Option<Item>,
}

impl Tree<'_> {
    /// The entries of a directory, by name.
    pub fn members(&self, what: &What) -> Result<Vec<Member>> {
        let member = |(name, kind)| Member { name, kind, item: None };
        let mut members: Vec<Member> = self.names(what)?.into_iter().map(member).collect();
        if let What::Dir(View::Generations, key) = what {
            let mut kept = self.store.history(key).unwrap_or_default();
            kept.retain(is_kept);
            if let Some(last) = kept.last() {
                let shade = self.shade_of_key(key)?;
                let names =
                    kept.iter().map(|info| (info.generation.to_string(), info)).chain([(LATEST.to_owned(), last)]);
                members.extend(names.map(|(name, info)| {
                    let item = Some(generation(key, info, shade));
                    Member { name: name.into(), kind: FileKind::File, item }
                }));
                // A member of the directory that this was before may have a number for a name.
                members.reverse();
                members.sort_by(|a, b| a.name.cmp(&b.name));
                members.dedup_by(|a, b| a.name == b.name);
            }
        }
        Ok(members)
    }

    fn names(&self, what: &What) -> Result<BTreeMap<OsString, FileKind>> {
        let mut found: BTreeMap<OsString, FileKind> = BTreeMap::new();
        match what {
            What::Top => {
                found.extend(VIEWS.map(|(name, _)| (name.into(), FileKind::Directory)));
                found.extend([MOMENTS, SNAPSHOTS_DIR].map(|name| (name.into(), FileKind::Directory)));
                found.extend(["README", "stats"].map(|name| (name.into(), FileKind::File)));
            }
            What::Moments => {}
            What::Snapshots => {
                let all = self.store.snapshots().map_err(errno)?;
                let whole = all.into_iter().filter(|snapshot| !snapshot.damaged);
                found.extend(whole.map(|snapshot| (snapshot.name.into(), FileKind::Directory)));
            }
            What::InSnapshot(snapshot, key) => {
                let members = snapshot.children(key).filter_map(|entry| Some((entry.key.name()?, entry.stat.kind)));
                found.extend(members.map(|(name, kind)| (name.to_owned(), kind)));
            }
            What::Dir(View::At(then), key) => {
                found.extend(self.store.past_members(&mut self.renames.lock(), key, *then).map_err(errno)?);
            }
            What::Dir(View::Conflicts, key) => {
                for conflict in self.conflicts(key)? {
                    match below(key, &conflict.key) {
                        Some(name) => found.insert(name, FileKind::Directory),
                        None => found.insert(conflict.id.to_string().into(), FileKind::File),
                    };
                }
            }
            What::Dir(View::Trash, key) => {
                for name in self.store.backend().history_members(key).map_err(from_backend)? {
                    let key = key.child(&name).map_err(|error| from_backend(error.into()))?;
                    if self.store.has_trash_below(&key).map_err(errno)? {
                        found.insert(name, FileKind::Directory);
                    } else if self.store.trashed_at(&key).map_err(errno)?.is_some() {
                        found.insert(name, FileKind::File);
                    }
                }
            }
            What::Dir(view, key) => {
                let backend = self.store.backend();
                match backend.list(key) {
                    Ok(entries) => {
                        for entry in entries {
                            match (entry.kind, view) {
                                (FileKind::Directory, _) | (FileKind::File, View::Generations) => {
                                    found.insert(entry.name, FileKind::Directory);
                                }
                                (FileKind::File, _) => {
                                    let mut name = entry.name.into_vec();
                                    name.extend(EVENTS.as_bytes());
                                    found.insert(OsString::from_vec(name), FileKind::File);
                                }
                                _ => {}
                            }
                        }
                    }
                    Err(error) if error.is_gone() => {}
                    Err(error) => return Err(from_backend(error)),
                }
                if *view == View::Generations {
                    let histories = backend.history_members(key).map_err(from_backend)?;
                    found.extend(histories.into_iter().map(|name| (name, FileKind::Directory)));
                }
            }
            _ => return Err(Errno::NOTDIR),
        }
        Ok(found)
    }
}

/// The name of the entry of `dir` on the way to `key`, which is in it; `None` for `dir` itself.
fn below(dir: &Key, key: &Key) -> Option<OsString> {
    key.components().nth(dir.components().count()).map(OsStr::to_owned)
}
