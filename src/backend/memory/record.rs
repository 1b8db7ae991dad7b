//! What the metadata of an object in the flat space says: everything of a [`Stat`] that isn't its bytes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::flat::Metadata;
use crate::backend::{Creator, Error, FileKind, Result, Stat};
use crate::types::{Generation, Key, ObjectId, Precondition, Timestamp};

const XATTR: &str = "xattr-";
const KINDS: [(FileKind, &str); 3] =
    [(FileKind::File, "file"), (FileKind::Directory, "directory"), (FileKind::Symlink, "symlink")];
/// The kind of an object that stands for nothing: see [`Record::claim`].
const CLAIM: &str = "claim";

/// What tells the key at which a file was made: short, for metadata have little room. Two keys with the same mean no more
/// than that something is not kept which a name of a temporary file says need not be.
pub fn born_at(key: &Key) -> u64 {
    u64::from(crc32fast::hash(key.as_bytes())) << 16 | (key.as_bytes().len() as u64 & 0xffff)
}

/// The metadata of a file, a directory or a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub kind: FileKind,
    pub id: ObjectId,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub committed: Option<Timestamp>,
    pub generation: Option<Generation>,
    /// A random number that changes whenever the bytes are replaced, and stays when they are appended to.
    pub incarnation: u64,
    /// Of the key at which it was made, see [`born_at`].
    pub born: Option<u64>,
    /// The bytes are not here: they are the first so many of the next generation.
    pub prefix: Option<u64>,
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
}

impl Record {
    /// Something new in the directory `parent`.
    pub fn new(kind: FileKind, mode: u32, creator: &Creator, parent: &Record, now: Timestamp) -> Self {
        const S_ISGID: u32 = 0o2000;
        let inherits = parent.mode & S_ISGID != 0;
        let mode = match kind {
            FileKind::Symlink => 0o777,
            FileKind::Directory if inherits => mode & 0o7777 & !creator.umask | S_ISGID,
            _ => mode & 0o7777 & !creator.umask,
        };
        let gid = if inherits { parent.gid } else { creator.gid };
        Self::with_id(ObjectId::random(), kind, mode, (creator.uid, gid), now)
    }

    /// The root of a store.
    pub fn root(now: Timestamp) -> Self {
        let creator = Creator::current();
        Self::with_id(ObjectId::ROOT, FileKind::Directory, 0o755, (creator.uid, creator.gid), now)
    }

    fn with_id(id: ObjectId, kind: FileKind, mode: u32, (uid, gid): (u32, u32), now: Timestamp) -> Self {
        Record {
            kind,
            id,
            mode,
            uid,
            gid,
            atime: now,
            mtime: now,
            ctime: now,
            committed: None,
            generation: None,
            incarnation: new_incarnation(),
            born: None,
            prefix: None,
            xattrs: BTreeMap::new(),
        }
    }

    /// The metadata of a claim: an object that stands for nothing. Whoever wants to make an object where nothing is
    /// first puts a claim there, so that the making itself is a write to a known state.
    pub fn claim() -> Metadata {
        Metadata::from([("kind".to_owned(), CLAIM.into())])
    }

    /// Reads metadata; `None` for a claim.
    pub fn read(key: &Key, metadata: &Metadata) -> Result<Option<Self>> {
        if metadata.get("kind").is_some_and(|kind| kind == CLAIM.as_bytes()) {
            return Ok(None);
        }
        match Self::parse(metadata) {
            Some(record) => Ok(Some(record)),
            None => Err(Error::Unusable(format!("{key}: its metadata can't be read"))),
        }
    }

    fn parse(metadata: &Metadata) -> Option<Self> {
        let text = |name: &str| std::str::from_utf8(metadata.get(name)?).ok();
        let number = |name: &str| text(name)?.parse::<u64>().ok();
        let time = |name: &str| text(name)?.parse().ok().map(Timestamp::from_nanos);
        let kind = text("kind")?;
        let xattrs = metadata.iter().filter_map(|(name, value)| {
            Some((OsString::from_vec(from_hex(name.strip_prefix(XATTR)?)?), value.clone()))
        });
        Some(Record {
            kind: KINDS.iter().find(|(_, name)| *name == kind)?.0,
            id: match number("id")? {
                1 => ObjectId::ROOT,
                raw => ObjectId::from_raw(raw)?,
            },
            mode: number("mode")?.try_into().ok()?,
            uid: number("uid")?.try_into().ok()?,
            gid: number("gid")?.try_into().ok()?,
            atime: time("atime")?,
            mtime: time("mtime")?,
            ctime: time("ctime")?,
            committed: time("committed"),
            generation: number("generation").and_then(Generation::new),
            incarnation: number("incarnation")?,
            born: number("born"),
            prefix: number("prefix"),
            xattrs: xattrs.collect(),
        })
    }

    /// The metadata that says this.
    pub fn metadata(&self) -> Metadata {
        let mut metadata = Metadata::new();
        let mut put = |name: &str, value: String| metadata.insert(name.to_owned(), value.into_bytes());
        if let Some((_, name)) = KINDS.iter().find(|(kind, _)| *kind == self.kind) {
            put("kind", (*name).to_owned());
        }
        put("id", self.id.get().to_string());
        put("mode", self.mode.to_string());
        put("uid", self.uid.to_string());
        put("gid", self.gid.to_string());
        put("atime", self.atime.nanos().to_string());
        put("mtime", self.mtime.nanos().to_string());
        put("ctime", self.ctime.nanos().to_string());
        put("incarnation", self.incarnation.to_string());
        if let Some(committed) = self.committed {
            put("committed", committed.nanos().to_string());
        }
        if let Some(generation) = self.generation {
            put("generation", generation.to_string());
        }
        if let Some(born) = self.born {
            put("born", born.to_string());
        }
        if let Some(prefix) = self.prefix {
            put("prefix", prefix.to_string());
        }
        for (name, value) in &self.xattrs {
            metadata.insert(format!("{XATTR}{}", to_hex(name.as_bytes())), value.clone());
        }
        metadata
    }

    /// The state that this and the size in bytes describe.
    pub fn stat(&self, size: u64, nlink: u32) -> Stat {
        Stat {
            id: self.id,
            kind: self.kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            size,
            blocks: size.div_ceil(512),
            nlink,
            rdev: 0,
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            committed: self.committed,
            generation: self.generation,
            recorded: true,
            incarnation: self.incarnation,
        }
    }
}

/// A number that no other bytes have had.
pub fn new_incarnation() -> u64 {
    ObjectId::random().get()
}

/// Checks a precondition against what is at `key`.
///
/// # Errors
/// [`Error::Stale`].
pub fn check(key: &Key, expect: &Precondition, found: Option<&Record>) -> Result<()> {
    let holds = match (*expect, found) {
        (Precondition::Any, _) => true,
        (Precondition::Absent, found) => found.is_none(),
        (_, None) => false,
        (Precondition::Generation(generation), Some(found)) => found.generation == Some(generation),
        (Precondition::Version(generation, id, committed), Some(found)) => {
            found.generation == Some(generation) && found.id == id && found.committed == Some(committed)
        }
        (Precondition::Reserved(id), Some(found)) => {
            found.kind == FileKind::File && found.generation.is_none() && found.id == id
        }
    };
    if holds {
        Ok(())
    } else {
        Err(Error::Stale { key: key.clone(), current: found.and_then(|record| record.generation) })
    }
}

/// Names of metadata are letters, digits and hyphens on real media; names of attributes are any bytes.
fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back() {
        let root = Record::root(Timestamp::from_nanos(-5));
        let creator = Creator { uid: 1, gid: 2, umask: 0o022 };
        let mut record = Record::new(FileKind::File, 0o666, &creator, &root, Timestamp::now());
        record.generation = Generation::new(7);
        record.prefix = Some(0);
        record.xattrs.insert(OsString::from_vec(b"user./\xff=\n".to_vec()), vec![0, 255]);
        for record in [root, record] {
            assert_eq!(Record::read(&Key::root(), &record.metadata()).unwrap(), Some(record));
        }
        assert_eq!(Record::read(&Key::root(), &Record::claim()).unwrap(), None);
        assert!(Record::read(&Key::root(), &Metadata::new()).is_err());
    }
}
