//! The tree as it was at a moment, as far as the histories tell.
//!
//! An object is there if one of its generations was current then. The names here are those of today; which they were then,
//! [`super::renames`] tells from the events. Directories have no history:
//! those are there that are there now, or in which something has a history. Links are there if they were made before.

use super::{Result, Store};
use crate::backend::{FileKind, GenerationInfo, Kept, Stat};
use crate::types::{Generation, Key, Timestamp};

/// What was at a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Past {
    /// A directory; its state today, if it is still there.
    Directory(Option<Stat>),
    /// This generation of an object: its number, its size in bytes, and when the bytes were last changed.
    Object(Generation, u64, Timestamp),
    /// A symbolic link.
    Link(Stat),
}

impl Past {
    /// The kind of thing.
    pub fn kind(&self) -> FileKind {
        match self {
            Past::Directory(_) => FileKind::Directory,
            Past::Object(..) => FileKind::File,
            Past::Link(_) => FileKind::Symlink,
        }
    }
}

/// Whether a kept generation was current at a moment, and can be read.
fn was_current(info: &GenerationInfo, then: Timestamp) -> bool {
    // What was moved away can be read by its old name.
    let readable = !matches!(&info.kept, Kept::Lost(why) if !why.starts_with("moved to "));
    readable && info.committed <= then && info.superseded.is_none_or(|end| then < end)
}

impl Store {
    /// What was at `key` at a moment; `None` if nothing was, or nobody knows any more.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn past(&self, key: &Key, then: Timestamp) -> Result<Option<Past>> {
        let stat = match self.stat(key) {
            Ok(stat) => Some(stat),
            Err(super::Error::Backend(error)) if error.is_gone() => None,
            Err(error) => return Err(error),
        };
        match stat {
            Some(stat) if stat.kind == FileKind::Directory => return Ok(Some(Past::Directory(Some(stat)))),
            Some(stat) if stat.kind == FileKind::Symlink && stat.mtime <= then => return Ok(Some(Past::Link(stat))),
            Some(stat) if stat.kind == FileKind::File => {
                let first = stat.recorded && stat.generation == Some(Generation::FIRST);
                // What was renamed to this name keeps the time of its commit, at which another one was here. So the older
                // ones are asked first. And what was changed from outside is in the history once it is recorded.
                let history = if first { Vec::new() } else { self.history(key)? };
                if let Some(info) = history.iter().find(|info| was_current(info, then)) {
                    return Ok(Some(Past::Object(info.generation, info.size, info.mtime)));
                }
                let since = stat.committed.filter(|committed| first && *committed <= then);
                return Ok(since.and(stat.generation).map(|number| Past::Object(number, stat.size, stat.mtime)));
            }
            _ => {}
        }
        let kept = self.backend.generations(key)?;
        if let Some(info) = kept.iter().find(|info| was_current(info, then)) {
            return Ok(Some(Past::Object(info.generation, info.size, info.mtime)));
        }
        let members = kept.is_empty() && !self.backend.history_members(key)?.is_empty();
        Ok(members.then_some(Past::Directory(None)))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::store::renames::Renames;
    use crate::types::Precondition;

    #[test]
    fn each_moment_has_its_generation() {
        let store = Store::open("memory:").unwrap();
        let key = Key::object("Note", "n").unwrap();
        let before = store.now();
        let mut moments = Vec::new();
        for text in ["one", "two!", "three"] {
            store.put(&key, &mut text.as_bytes(), Precondition::Any).unwrap();
            moments.push((store.now(), text.len() as u64));
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        store.remove(&key, Precondition::Any).unwrap();
        let sizes = |then| store.past(&key, then).unwrap().map(|past| matches!(past, Past::Object(_, n, _) if n > 0));
        assert_eq!(sizes(before), None);
        for (number, (then, size)) in moments.iter().enumerate() {
            match store.past(&key, *then).unwrap() {
                Some(Past::Object(generation, bytes, _)) => {
                    assert_eq!((generation.get(), bytes), (number as u64 + 1, *size));
                }
                other => panic!("{other:?}"),
            }
            let mut renames = Renames::default();
            let members = store.past_members(&mut renames, &Key::parse("Note").unwrap(), *then).unwrap();
            assert_eq!(members, [(OsString::from("n"), FileKind::File)]);
        }
        assert_eq!(store.past(&key, store.now()).unwrap(), None);
    }
}
