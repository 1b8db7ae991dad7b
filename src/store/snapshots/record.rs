//! The record of a snapshot as text: a header, then a line of JSON for each entry, by key.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use serde::{Deserialize, Serialize};

use super::{SnapshotEntry, SnapshotInfo, id_of, stat_of_record};
use crate::backend::FileKind;
use crate::store::{Error, Result};
use crate::types::{Generation, Key, ObjectId, Timestamp, escape, unescape};

/// The format of the records.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Header {
    /// The format of what follows.
    snapshot: u32,
    name: String,
    created: i64,
    entries: u64,
    bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    kind: FileKind,
    id: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    generation: Option<Generation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    committed: Option<i64>,
    size: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    nlink: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    rdev: u64,
    atime: i64,
    mtime: i64,
    ctime: i64,
    inode: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
}

/// What a line says of the state.
pub struct Fields {
    pub id: ObjectId,
    pub kind: FileKind,
    pub generation: Option<Generation>,
    pub committed: Option<Timestamp>,
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub rdev: u64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub incarnation: u64,
}

/// The text of a record.
///
/// # Errors
/// [`Error::SnapshotDamaged`], which doesn't come.
pub fn write(info: &SnapshotInfo, entries: &[SnapshotEntry]) -> Result<Vec<u8>> {
    let header = Header {
        snapshot: VERSION,
        name: info.name.clone(),
        created: info.created.nanos(),
        entries: info.entries,
        bytes: info.bytes,
    };
    let mut text = Vec::with_capacity(256 * (entries.len() + 1));
    let mut line = |value: serde_json::Result<Vec<u8>>| match value {
        Ok(json) => {
            text.extend_from_slice(&json);
            text.push(b'\n');
            Ok(())
        }
        Err(error) => Err(damaged(&info.name, error)),
    };
    line(serde_json::to_vec(&header))?;
    for entry in entries {
        line(serde_json::to_vec(&Line::from(entry)))?;
    }
    Ok(text)
}

/// Reads the first line.
///
/// # Errors
/// [`Error::SnapshotDamaged`].
pub fn read_header(name: &str, line: &[u8]) -> Result<SnapshotInfo> {
    let header: Header = serde_json::from_slice(line).map_err(|error| damaged(name, error))?;
    if header.snapshot != VERSION {
        return Err(damaged(name, format!("it has the format {}, this version knows {VERSION}", header.snapshot)));
    }
    Ok(SnapshotInfo {
        name: name.to_owned(),
        created: Timestamp::from_nanos(header.created),
        entries: header.entries,
        bytes: header.bytes,
        damaged: false,
    })
}

/// Reads a record.
///
/// # Errors
/// [`Error::SnapshotDamaged`].
pub fn read(name: &str, text: &[u8]) -> Result<(SnapshotInfo, Vec<SnapshotEntry>)> {
    let mut lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let info = read_header(name, lines.next().unwrap_or_default())?;
    let mut entries = Vec::new();
    for (number, line) in (2..).zip(lines) {
        let wrong = |why: String| damaged(name, format!("line {number}: {why}"));
        let line: Line = serde_json::from_slice(line).map_err(|error| wrong(error.to_string()))?;
        entries.push(line.entry().ok_or_else(|| wrong("an impossible value".to_owned()))?);
    }
    if entries.len() as u64 != info.entries {
        return Err(damaged(name, format!("it has {} entries instead of {}", entries.len(), info.entries)));
    }
    Ok((info, entries))
}

impl From<&SnapshotEntry> for Line {
    fn from(entry: &SnapshotEntry) -> Self {
        let stat = &entry.stat;
        let xattr = |(name, value): (&OsString, &Vec<u8>)| (escape(name.as_bytes()), to_hex(value));
        Line {
            key: entry.key.escaped(),
            kind: stat.kind,
            id: stat.id.get(),
            generation: stat.generation,
            committed: stat.committed.map(Timestamp::nanos),
            size: stat.size,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            nlink: stat.nlink,
            rdev: stat.rdev,
            atime: stat.atime.nanos(),
            mtime: stat.mtime.nanos(),
            ctime: stat.ctime.nanos(),
            inode: stat.incarnation,
            target: entry.target.as_deref().map(escape),
            xattrs: entry.xattrs.iter().map(xattr).collect(),
        }
    }
}

impl Line {
    fn entry(self) -> Option<SnapshotEntry> {
        let mut xattrs = BTreeMap::new();
        for (name, value) in &self.xattrs {
            xattrs.insert(OsStr::from_bytes(&unescape(name)).to_owned(), from_hex(value)?);
        }
        let time = Timestamp::from_nanos;
        let fields = Fields {
            id: id_of(self.id)?,
            kind: self.kind,
            generation: self.generation.map(|number| Generation::new(number.get())).unwrap_or_default(),
            committed: self.committed.map(time),
            size: self.size,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            nlink: self.nlink,
            rdev: self.rdev,
            atime: time(self.atime),
            mtime: time(self.mtime),
            ctime: time(self.ctime),
            incarnation: self.inode,
        };
        Some(SnapshotEntry {
            key: Key::unescape(&self.key).ok()?,
            stat: stat_of_record(fields),
            target: self.target.as_deref().map(unescape),
            xattrs,
        })
    }
}

fn damaged(name: &str, why: impl ToString) -> Error {
    Error::SnapshotDamaged { name: name.to_owned(), why: why.to_string() }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pairs = digits.len().is_multiple_of(2).then(|| digits.chunks(2))?;
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> SnapshotEntry {
        let fields = Fields {
            id: ObjectId::random(),
            kind: FileKind::Symlink,
            generation: Generation::new(7),
            committed: Some(Timestamp::from_nanos(-3)),
            size: 12,
            mode: 0o4755,
            uid: 1,
            gid: 2,
            nlink: 3,
            rdev: 4,
            atime: Timestamp::from_nanos(5),
            mtime: Timestamp::from_nanos(6),
            ctime: Timestamp::from_nanos(7),
            incarnation: 8,
        };
        SnapshotEntry {
            key: Key::parse(OsStr::from_bytes(b"a/\xff\n\"")).unwrap(),
            stat: stat_of_record(fields),
            target: Some(b"../\xfe\\%41".to_vec()),
            xattrs: BTreeMap::from([(OsStr::from_bytes(b"user.\xff").to_owned(), vec![0, 255, 10])]),
        }
    }

    #[test]
    fn comes_back_and_damage_is_noticed() {
        let info =
            SnapshotInfo { name: "a".into(), created: Timestamp::from_nanos(9), entries: 1, bytes: 12, damaged: false };
        let text = write(&info, &[entry()]).unwrap();
        let (read_info, read_entries) = read("a", &text).unwrap();
        assert_eq!((read_info, read_entries[0].key.clone()), (info, entry().key));
        assert_eq!((&read_entries[0].target, &read_entries[0].xattrs), (&entry().target, &entry().xattrs));
        assert_eq!(read_entries[0].stat.committed, entry().stat.committed);
        for end in 0..text.len() - 1 {
            assert!(read("a", &text[..end]).is_err(), "cut off at {end}");
        }
    }
}
