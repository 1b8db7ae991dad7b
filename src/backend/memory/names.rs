//! Names over the flat space: lookup, listing, making and removing.
//!
//! A file or link `a/b` is the object `a/b`, a directory `a/b` the object `a/b/`, the root `.sepia/root`. What is
//! made where nothing was goes three ways, so that two hosts never both succeed:
//!
//! 1. A *claim* is put at the name (or one that is there is used). It stands for nothing, and is passed over by all
//!    readers.
//! 2. Everything that must hold of an absent name is looked up after that: no directory of that name, the highest
//!    generation that the name ever had.
//! 3. The object is put over the claim under the condition that the claim is unchanged. So whatever was made and
//!    removed in between is noticed.
//!
//! An entry then touches the directory above, which POSIX wants for its times, and which changes the directory's
//! entity tag: a removal that had found it empty fails. If the directory is gone, the entry is taken back.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use super::MemoryBackend;
use super::flat::{Condition, Etag};
use super::record::{Record, born_at, check};
use crate::backend::{Creator, DirEntry, Error, FileKind, Result, Stat};
use crate::types::{Key, Precondition, RESERVED_NAME};

/// The object of the flat space that is the root directory.
const ROOT: &[u8] = b".sepia/root";

/// What is at a key.
#[derive(Debug)]
pub struct Entry {
    /// The name of its object in the flat space.
    pub name: Vec<u8>,
    /// The state of that object.
    pub etag: Etag,
    /// Bytes.
    pub size: u64,
    /// Its metadata.
    pub record: Record,
}

impl Entry {
    pub fn is_dir(&self) -> bool {
        self.record.kind == FileKind::Directory
    }
}

/// The object that is the directory `key`.
pub fn dir_name(key: &Key) -> Vec<u8> {
    if key.is_root() { ROOT.to_vec() } else { below(key) }
}

/// What the names of all objects below the directory `key` begin with.
pub fn below(key: &Key) -> Vec<u8> {
    if key.is_root() { Vec::new() } else { [key.as_bytes(), b"/"].concat() }
}

impl MemoryBackend {
    /// The object with this name in the flat space, unless it is a claim.
    fn entry(&self, key: &Key, name: Vec<u8>) -> Result<Option<Entry>> {
        let Some(head) = self.flat.head(&name) else { return Ok(None) };
        let record = Record::read(key, &head.metadata)?;
        Ok(record.map(|record| Entry { name, etag: head.etag, size: head.size, record }))
    }

    /// What is at a key.
    pub(super) fn find(&self, key: &Key) -> Result<Entry> {
        if !key.is_root()
            && let Some(entry) = self.entry(key, key.as_bytes().to_vec())?
        {
            return Ok(entry);
        }
        match self.entry(key, dir_name(key))? {
            Some(entry) => Ok(entry),
            None => Err(self.missing(key)?),
        }
    }

    /// What is at a key, if something is.
    pub(super) fn look(&self, key: &Key) -> Result<Option<Entry>> {
        match self.find(key) {
            Ok(entry) => Ok(Some(entry)),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Why nothing is at a key: ENOENT, or ENOTDIR when a name above it is no directory.
    fn missing(&self, key: &Key) -> Result<Error> {
        let mut above = key.parent();
        while let Some(dir) = above.filter(|dir| !dir.is_root()) {
            if self.entry(key, dir.as_bytes().to_vec())?.is_some() {
                return Ok(Error::NotDirectory(key.clone()));
            }
            above = dir.parent();
        }
        Ok(Error::NotFound(key.clone()))
    }

    /// The directory in which `key` is to be made.
    pub(super) fn parent_of(&self, key: &Key) -> Result<Record> {
        let Some(parent) = key.parent() else { return Err(Error::Exists(key.clone())) };
        match self.find(&parent) {
            Ok(entry) if entry.is_dir() => Ok(entry.record),
            Ok(_) | Err(Error::NotDirectory(_)) => Err(Error::NotDirectory(key.clone())),
            Err(Error::NotFound(_)) => Err(Error::NotFound(key.clone())),
            Err(error) => Err(error),
        }
    }

    pub(super) fn stat_entry(&self, key: &Key, entry: &Entry) -> Result<Stat> {
        let mut nlink = 1;
        if entry.is_dir() {
            let entries = self.entries(key)?;
            nlink = 2 + entries.iter().filter(|entry| entry.kind == FileKind::Directory).count() as u32;
        }
        Ok(entry.record.stat(entry.size, nlink))
    }

    /// The entries of a directory that exists.
    pub(super) fn entries(&self, dir: &Key) -> Result<Vec<DirEntry>> {
        let prefix = below(dir);
        let level = self.flat.list_level(&prefix);
        let mut entries = Vec::new();
        for name in level.objects.into_iter().chain(level.prefixes) {
            let last = name[prefix.len()..].strip_suffix(b"/").unwrap_or(&name[prefix.len()..]).to_vec();
            // The directory's own object, and Sepia's records.
            if last.is_empty() || (dir.is_root() && last == RESERVED_NAME) {
                continue;
            }
            if let Some(entry) = self.entry(dir, name)? {
                entries.push(DirEntry { name: OsString::from_vec(last), kind: entry.record.kind });
            }
        }
        Ok(entries)
    }

    /// Takes the name of something to be made: returns the state of the claim on it.
    ///
    /// # Errors
    /// [`Error::Exists`].
    pub(super) fn claim(&self, key: &Key) -> Result<Etag> {
        let etag = loop {
            match self.flat.head(key.as_bytes()) {
                None => match self.flat.put(key.as_bytes(), Arc::default(), Record::claim(), Condition::Absent) {
                    Ok(etag) => break etag,
                    Err(_) => continue,
                },
                Some(head) if Record::read(key, &head.metadata)?.is_none() => break head.etag,
                Some(_) => return Err(Error::Exists(key.clone())),
            }
        };
        if self.flat.head(&dir_name(key)).is_some() {
            self.unclaim(key, etag);
            return Err(Error::Exists(key.clone()));
        }
        Ok(etag)
    }

    /// Gives a claim up. If somebody else has used it meanwhile, it is theirs.
    pub(super) fn unclaim(&self, key: &Key, etag: Etag) {
        let _ = self.flat.delete(key.as_bytes(), Condition::Match(etag));
    }

    /// Makes a file or a link where nothing is. `kind` and `mode` are the new one's; with `generation` it is one.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NotFound`], [`Error::NotDirectory`].
    pub(super) fn make(
        &self,
        key: &Key,
        (kind, mode): (FileKind, u32),
        bytes: &Arc<[u8]>,
        creator: &Creator,
        fill: &dyn Fn(&mut Record) -> Result<()>,
    ) -> Result<Stat> {
        loop {
            let parent = self.parent_of(key)?;
            let claim = self.claim(key)?;
            let mut record = Record::new(kind, mode, creator, &parent, self.tick());
            record.born = Some(born_at(key));
            if let Err(error) = fill(&mut record) {
                self.unclaim(key, claim);
                return Err(error);
            }
            let condition = Condition::Match(claim);
            if let Ok(etag) = self.flat.put(key.as_bytes(), bytes.clone(), record.metadata(), condition) {
                self.adopt(key, key.as_bytes(), etag)?;
                return Ok(record.stat(bytes.len() as u64, 1));
            }
        }
    }

    /// Makes a directory.
    pub(super) fn make_dir(&self, key: &Key, mode: u32, creator: &Creator) -> Result<Stat> {
        let parent = self.parent_of(key)?;
        let record = Record::new(FileKind::Directory, mode, creator, &parent, self.tick());
        let name = dir_name(key);
        if self.entry(key, key.as_bytes().to_vec())?.is_some() {
            return Err(Error::Exists(key.clone()));
        }
        let etag = self
            .flat
            .put(&name, Arc::default(), record.metadata(), Condition::Absent)
            .map_err(|_| Error::Exists(key.clone()))?;
        self.confirm_dir(key, etag)?;
        self.adopt(key, &name, etag)?;
        Ok(record.stat(0, 2))
    }

    /// Makes sure that no file was made under the name of a directory that was just made: claims from before would
    /// not know of the directory, so they are removed; a file was first, and wins.
    pub(super) fn confirm_dir(&self, key: &Key, etag: Etag) -> Result<()> {
        while let Some(head) = self.flat.head(key.as_bytes()) {
            if Record::read(key, &head.metadata)?.is_some() {
                let _ = self.flat.delete(&dir_name(key), Condition::Match(etag));
                return Err(Error::Exists(key.clone()));
            }
            self.unclaim(key, head.etag);
        }
        Ok(())
    }

    /// Enters what was just made into the directory above; takes it back if that is gone.
    pub(super) fn adopt(&self, key: &Key, name: &[u8], etag: Etag) -> Result<()> {
        match self.touch_parent(key) {
            Ok(()) => Ok(()),
            Err(error) => {
                let _ = self.flat.delete(name, Condition::Match(etag));
                Err(error)
            }
        }
    }

    /// The entries of the directory above have changed.
    pub(super) fn touch_parent(&self, key: &Key) -> Result<()> {
        let Some(parent) = key.parent() else { return Ok(()) };
        let name = dir_name(&parent);
        loop {
            let Some(mut dir) = self.entry(&parent, name.clone())? else { return Err(self.missing(key)?) };
            let now = self.tick();
            (dir.record.mtime, dir.record.ctime) = (now, now);
            if self.replace_metadata(&dir).is_ok() {
                return Ok(());
            }
        }
    }

    /// Stores the changed metadata of an entry, if the entry is still as it was found.
    pub(super) fn replace_metadata(&self, entry: &Entry) -> std::result::Result<Etag, super::flat::Refused> {
        let metadata = Some(entry.record.metadata());
        self.flat.copy(&entry.name, entry.etag, &entry.name, metadata, Condition::Match(entry.etag))
    }

    /// Changes the metadata of what is at a key.
    pub(super) fn change(&self, key: &Key, change: &dyn Fn(&mut Record) -> Result<()>) -> Result<Stat> {
        loop {
            let mut entry = self.find(key)?;
            change(&mut entry.record)?;
            entry.record.ctime = self.tick();
            if self.replace_metadata(&entry).is_ok() {
                return self.stat_entry(key, &entry);
            }
        }
    }

    /// Removes a name that is no directory.
    pub(super) fn remove_name(&self, key: &Key, expect: &Precondition, keep: bool) -> Result<()> {
        loop {
            let entry = self.find(key)?;
            if entry.is_dir() {
                return Err(Error::IsDirectory(key.clone()));
            }
            check(key, expect, Some(&entry.record))?;
            let mut kept = Vec::new();
            let keep = keep || !self.may_vanish(key, &entry) || !self.history(key)?.is_empty();
            if entry.record.generation.is_some() && keep {
                match self.keep(key, &entry, self.tick(), true) {
                    Ok(copy) => kept.push(copy),
                    Err(_) => continue,
                }
            }
            if self.flat.delete(&entry.name, Condition::Match(entry.etag)).is_ok() {
                // The directory may be gone too by now.
                return self.touch_parent(key).or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) });
            }
            self.take_back(kept);
        }
    }

    /// Removes an empty directory.
    pub(super) fn remove_empty_dir(&self, key: &Key) -> Result<()> {
        if key.is_root() {
            return Err(Error::Invalid(key.clone(), "the root of a store can't be removed"));
        }
        loop {
            let entry = self.find(key)?;
            if !entry.is_dir() {
                return Err(Error::NotDirectory(key.clone()));
            }
            if !self.entries(key)?.is_empty() {
                return Err(Error::NotEmpty(key.clone()));
            }
            if self.flat.delete(&entry.name, Condition::Match(entry.etag)).is_ok() {
                self.remove_claims(&below(key))?;
                return self.touch_parent(key).or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) });
            }
        }
    }

    /// Removes the claims that nobody made anything of.
    fn remove_claims(&self, prefix: &[u8]) -> Result<()> {
        for name in self.flat.list_level(prefix).objects {
            if let Some(head) = self.flat.head(&name)
                && Record::read(&Key::parse(OsStr::from_bytes(&name))?, &head.metadata)?.is_none()
            {
                let _ = self.flat.delete(&name, Condition::Match(head.etag));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Backend;

    /// What another host does in the middle of a change is played by calls on the flat space.
    #[test]
    fn what_is_made_in_a_directory_that_goes_is_taken_back() {
        let store = MemoryBackend::new();
        let (dir, key) = (Key::parse("d").unwrap(), Key::parse("d/f").unwrap());
        store.create_dir(&dir, 0o755, &Creator::current()).unwrap();
        let record = store.find(&dir).unwrap().record.metadata();
        let etag = store.flat.put(key.as_bytes(), Arc::default(), record, Condition::Absent).unwrap();
        store.flat.delete(&dir_name(&dir), Condition::Any).unwrap();
        assert!(matches!(store.adopt(&key, key.as_bytes(), etag), Err(Error::NotFound(_))));
        assert!(store.flat.head(key.as_bytes()).is_none());
    }

    #[test]
    fn a_claim_is_nothing_and_is_used_by_whoever_comes_first() {
        let store = MemoryBackend::new();
        let (dir, key) = (Key::parse("d").unwrap(), Key::parse("d/f").unwrap());
        store.create_dir(&dir, 0o755, &Creator::current()).unwrap();
        let claim = store.claim(&key).unwrap();
        assert!(store.stat(&key).unwrap_err().is_not_found());
        assert_eq!(store.list(&dir).unwrap(), []);
        store.create_dir(&key, 0o755, &Creator::current()).unwrap();
        assert!(store.flat.put(key.as_bytes(), Arc::default(), Record::claim(), Condition::Match(claim)).is_err());
        store.remove_dir(&key).unwrap();
        store.claim(&key).unwrap();
        store.remove_dir(&dir).unwrap();
        assert!(store.flat.list(b"d").is_empty());
    }
}
