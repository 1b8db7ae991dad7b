//! A flat space of named byte strings, with what the API of an object store (S3) offers and nothing else.
//!
//! Every object has bytes, a map of metadata, and an entity tag that changes with each write. Single operations are
//! atomic and at once visible to all; there is no operation on two objects but the copy on the server, no rename,
//! no directories and no lock. Who needs more builds it from the conditions: `If-None-Match: *` is
//! [`Condition::Absent`], `If-Match` is [`Condition::Match`].

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

/// The metadata of an object, by name.
pub type Metadata = BTreeMap<String, Vec<u8>>;

/// Names one state of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Etag(u64);

/// What must hold for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Any,
    /// There is no such object.
    Absent,
    /// The object is in this state.
    Match(Etag),
}

/// The condition of a write doesn't hold, or the source of a copy is not in the state asked for: nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// What is known of an object without its bytes.
#[derive(Debug, Clone)]
pub struct Head {
    /// Its state.
    pub etag: Etag,
    /// Bytes.
    pub size: u64,
    /// Its metadata.
    pub metadata: Arc<Metadata>,
}

/// An object.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its state.
    pub etag: Etag,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
    /// Its metadata.
    pub metadata: Arc<Metadata>,
}

/// A listing up to the next slash.
#[derive(Debug, Default)]
pub struct Level {
    /// The objects whose names have no further slash.
    pub objects: Vec<Vec<u8>>,
    /// The beginnings, up to and with the next slash, of all other names.
    pub prefixes: Vec<Vec<u8>>,
}

/// The space of objects.
#[derive(Debug, Default)]
pub struct FlatSpace {
    objects: RwLock<BTreeMap<Vec<u8>, Object>>,
    last_etag: AtomicU64,
}

impl FlatSpace {
    /// The object with this name.
    pub fn get(&self, name: &[u8]) -> Option<Object> {
        self.objects.read().get(name).cloned()
    }

    /// What is known of the object with this name.
    pub fn head(&self, name: &[u8]) -> Option<Head> {
        let objects = self.objects.read();
        let object = objects.get(name)?;
        Some(Head { etag: object.etag, size: object.bytes.len() as u64, metadata: object.metadata.clone() })
    }

    /// The names that begin with `prefix`, in the order of their bytes.
    pub fn list(&self, prefix: &[u8]) -> Vec<Vec<u8>> {
        let objects = self.objects.read();
        let from = objects.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
        from.map(|(name, _)| name).take_while(|name| name.starts_with(prefix)).cloned().collect()
    }

    /// The names that begin with `prefix`, cut off after the next slash (a listing with the delimiter `/`).
    pub fn list_level(&self, prefix: &[u8]) -> Level {
        let objects = self.objects.read();
        let mut level = Level::default();
        let mut from = Bound::Included(prefix.to_vec());
        while let Some((name, _)) = objects.range((from, Bound::Unbounded)).next() {
            let Some(rest) = name.strip_prefix(prefix) else { break };
            match rest.iter().position(|&b| b == b'/') {
                None => {
                    level.objects.push(name.clone());
                    from = Bound::Excluded(name.clone());
                }
                Some(slash) => {
                    let common = name[..=prefix.len() + slash].to_vec();
                    // The first name that doesn't begin with it: the slash counted up by one.
                    let mut behind = common.clone();
                    if let Some(last) = behind.last_mut() {
                        *last = b'/' + 1;
                    }
                    level.prefixes.push(common);
                    from = Bound::Included(behind);
                }
            }
        }
        level
    }

    /// Stores an object. Returns its new state.
    pub fn put(
        &self,
        name: &[u8],
        bytes: Arc<[u8]>,
        metadata: Metadata,
        condition: Condition,
    ) -> Result<Etag, Refused> {
        let mut objects = self.objects.write();
        check(&objects, name, condition)?;
        Ok(self.store(&mut objects, name, bytes, Arc::new(metadata)))
    }

    /// Copies `from`, which must be in the state `source`, to `to` without the bytes passing through the caller;
    /// with other metadata if some is given. A copy onto itself changes just the metadata.
    pub fn copy(
        &self,
        from: &[u8],
        source: Etag,
        to: &[u8],
        metadata: Option<Metadata>,
        condition: Condition,
    ) -> Result<Etag, Refused> {
        let mut objects = self.objects.write();
        check(&objects, from, Condition::Match(source))?;
        check(&objects, to, condition)?;
        let Object { bytes, metadata: old, .. } = objects.get(from).cloned().ok_or(Refused)?;
        Ok(self.store(&mut objects, to, bytes, metadata.map_or(old, Arc::new)))
    }

    /// Deletes an object. One that isn't there is no error with [`Condition::Any`].
    pub fn delete(&self, name: &[u8], condition: Condition) -> Result<(), Refused> {
        let mut objects = self.objects.write();
        check(&objects, name, condition)?;
        objects.remove(name);
        Ok(())
    }

    fn store(
        &self,
        objects: &mut BTreeMap<Vec<u8>, Object>,
        name: &[u8],
        bytes: Arc<[u8]>,
        metadata: Arc<Metadata>,
    ) -> Etag {
        let etag = Etag(self.last_etag.fetch_add(1, Ordering::Relaxed) + 1);
        objects.insert(name.to_vec(), Object { etag, bytes, metadata });
        etag
    }
}

fn check(objects: &BTreeMap<Vec<u8>, Object>, name: &[u8], condition: Condition) -> Result<(), Refused> {
    let holds = match condition {
        Condition::Any => true,
        Condition::Absent => !objects.contains_key(name),
        Condition::Match(etag) => objects.get(name).is_some_and(|object| object.etag == etag),
    };
    if holds { Ok(()) } else { Err(Refused) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(space: &FlatSpace, name: &str, condition: Condition) -> Result<Etag, Refused> {
        space.put(name.as_bytes(), Arc::from(name.as_bytes()), Metadata::new(), condition)
    }

    #[test]
    fn conditions_decide() {
        let space = FlatSpace::default();
        let first = put(&space, "a", Condition::Absent).unwrap();
        assert_eq!(put(&space, "a", Condition::Absent), Err(Refused));
        let second = put(&space, "a", Condition::Match(first)).unwrap();
        assert_eq!(put(&space, "a", Condition::Match(first)), Err(Refused));
        assert_eq!(space.copy(b"a", first, b"b", None, Condition::Any), Err(Refused));
        space.copy(b"a", second, b"b", None, Condition::Absent).unwrap();
        assert_eq!(&*space.get(b"b").unwrap().bytes, b"a");
        assert_eq!(space.delete(b"a", Condition::Match(first)), Err(Refused));
        space.delete(b"a", Condition::Match(second)).unwrap();
        assert!(space.head(b"a").is_none());
    }

    #[test]
    fn a_level_ends_at_the_slash() {
        let space = FlatSpace::default();
        for name in ["d/", "d/a", "d/b/", "d/b/x", "d/b/y/z", "d/b0", "d/c/x", "e"] {
            put(&space, name, Condition::Any).unwrap();
        }
        let level = space.list_level(b"d/");
        assert_eq!(level.objects, [&b"d/"[..], b"d/a", b"d/b0"]);
        assert_eq!(level.prefixes, [&b"d/b/"[..], b"d/c/"]);
        assert_eq!(space.list(b"d/b/").len(), 3);
        assert_eq!(space.list_level(b"").prefixes, [&b"d/"[..]]);
    }
}
