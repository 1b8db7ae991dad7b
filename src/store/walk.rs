//! All names of a store in one order: what is there now, and what only has a history.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ffi::OsString;

use super::{Result, Store};
use crate::backend::FileKind;
use crate::types::Key;

/// Goes through the names at and below a key, each directory before what is in it, by the bytes of the names. Holds the
/// names of the directories on the way to where it is, and no others.
pub struct Walk<'a> {
    store: &'a Store,
    /// Deepest last; of each directory what is still to come, in reverse order.
    pending: Vec<Vec<(Key, Kind)>>,
    /// What is at or before it was passed already.
    after: Option<Key>,
}

/// What is at a name, as far as the listing has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    Other,
    Unknown,
}

impl<'a> Walk<'a> {
    /// Begins at `from`, or behind the name `after`, which it has come to before.
    pub fn new(store: &'a Store, from: &Key, after: Option<Key>) -> Self {
        Walk { store, pending: vec![vec![(from.clone(), Kind::Unknown)]], after }
    }

    /// The next name. There may be nothing any more when the caller looks.
    ///
    /// # Errors
    /// The first listing that fails: nothing is known of what is below it.
    pub fn next(&mut self) -> Result<Option<Key>> {
        while let Some(level) = self.pending.last_mut() {
            let Some((key, kind)) = level.pop() else {
                self.pending.pop();
                continue;
            };
            match self.after.as_ref().map(|after| (compare(&key, after), after.is_within(&key))) {
                // Passed, but not all that is below it.
                Some((_, true)) => self.enter(&key, kind)?,
                Some((Ordering::Less, _)) => {}
                _ => {
                    self.after = None;
                    self.enter(&key, kind)?;
                    return Ok(Some(key));
                }
            }
        }
        Ok(None)
    }

    fn enter(&mut self, dir: &Key, kind: Kind) -> Result<()> {
        let mut names: BTreeMap<OsString, Kind> = BTreeMap::new();
        for name in self.store.backend.history_members(dir)? {
            names.insert(name, Kind::Other);
        }
        let is_directory = match kind {
            Kind::Unknown => match self.store.backend.stat(dir) {
                Ok(stat) => stat.kind == FileKind::Directory,
                Err(error) if error.is_gone() => false,
                Err(error) => return Err(error.into()),
            },
            known => known == Kind::Directory,
        };
        if is_directory {
            match self.store.backend.list(dir) {
                Ok(entries) => names.extend(entries.into_iter().map(|entry| {
                    let is_directory = entry.kind == FileKind::Directory;
                    (entry.name, if is_directory { Kind::Directory } else { Kind::Other })
                })),
                // Removed since.
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let members = names.into_iter().rev().map(|(name, kind)| Ok((dir.child(&name)?, kind)));
        let members: Vec<_> = members.collect::<Result<_>>()?;
        if !members.is_empty() {
            self.pending.push(members);
        }
        Ok(())
    }
}

/// Which of two names comes first.
pub fn compare(a: &Key, b: &Key) -> Ordering {
    a.components().cmp(b.components())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Precondition;

    #[test]
    fn goes_on_behind_any_name() {
        let store = Store::open("memory:").unwrap();
        let key = |text: &str| Key::parse(text).unwrap();
        for name in ["a.b", "a/b", "a/c/d", "a/c.d", "e"] {
            store.put(&key(name), &mut name.as_bytes(), Precondition::Any).unwrap();
        }
        // Gone, with a history: below a name that is a file now, too.
        store.put(&key("f/g"), &mut &b"x"[..], Precondition::Any).unwrap();
        store.remove(&key("f/g"), Precondition::Any).unwrap();
        store.remove_dir(&key("f")).unwrap();
        store.put(&key("f"), &mut &b"x"[..], Precondition::Any).unwrap();
        let walk = |from: &str, after: Option<&str>| {
            let mut walk = Walk::new(&store, &key(from), after.map(key));
            let mut names = Vec::new();
            while let Some(key) = walk.next().unwrap() {
                names.push(key.to_string());
            }
            names
        };
        let all = walk("", None);
        let shown = all.iter().map(String::as_str).filter(|name| name.len() > 1).collect::<Vec<_>>();
        assert_eq!(shown, ["a/b", "a/c", "a/c/d", "a/c.d", "a.b", "f/g"], "{all:?}");
        for (at, name) in all.iter().enumerate().skip(1) {
            assert_eq!(walk("", Some(name)), all[at + 1..], "{name}");
        }
        assert_eq!(walk("a", None), all[1..6]);
        assert_eq!(walk("a/c", Some("a/c")), ["a/c/d"]);
    }
}
