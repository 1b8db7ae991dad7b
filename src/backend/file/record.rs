//! What Sepia records of a current generation: one small binary attribute, `user.sepia`, on its file.
//!
//! 59 bytes, little endian: format (1), generation, object id, commit time, size, modification time, inode number,
//! and 6 and 4 bytes for what may be torn by a power loss. Below 60 bytes ext4 keeps it in the inode, so reading it
//! costs no block. Size, modification time and inode number tell whether the file is still the one that Sepia
//! recorded: a file changed from outside has another size or modification time, and a copy that took the attribute
//! along has another inode number.

use std::ffi::OsStr;

use crate::types::{Generation, ObjectId, Timestamp};

/// The attribute's name.
pub const NAME: &str = "user.sepia";

/// Another attribute, of files whose bytes were replaced in place: when, in nanoseconds (8 bytes, little endian).
pub const REWRITTEN: &str = "user.sepia.rewritten";

/// And another, of files that were appended to where the history doesn't lead up to them: the histories of other names
/// may have beginnings of them.
pub const ELSEWHERE: &str = "user.sepia.elsewhere";

/// Whether an attribute is one of these.
pub fn is_own(name: &OsStr) -> bool {
    name == NAME || name == REWRITTEN || name == ELSEWHERE
}

const FORMAT: u8 = 1;
const LENGTH: usize = 59;
/// Where the part behind the six long fields begins.
const UNSETTLED: usize = 49;

/// The contents of the attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub generation: Generation,
    pub id: ObjectId,
    pub committed: Timestamp,
    pub size: u64,
    pub mtime: Timestamp,
    pub inode: u64,
    pub unsettled: Unsettled,
}

/// The end of a file, which may not have been on the medium when it was recorded: only that could a power loss tear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsettled {
    /// Where it begins; it ends with the recorded size. Below 2^48.
    pub from: u64,
    /// The CRC-32 of these bytes.
    pub sum: u32,
}

impl Unsettled {
    /// Of a file of `size` bytes that is on the medium, or whose bytes are not Sepia's to vouch for.
    pub fn nothing(size: u64) -> Self {
        Unsettled { from: size, sum: 0 }
    }
}

impl Record {
    /// Whether these are the bytes that were recorded, be it in another file: a store may have been copied.
    pub fn is_of_bytes(&self, stat: &crate::backend::Stat) -> bool {
        self.size == stat.size && self.mtime == stat.mtime
    }

    pub fn pack(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[0] = FORMAT;
        let fields = [
            self.generation.get(),
            self.id.get(),
            self.committed.nanos() as u64,
            self.size,
            self.mtime.nanos() as u64,
            self.inode,
        ];
        for (place, field) in bytes[1..].chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes[UNSETTLED..UNSETTLED + 6].copy_from_slice(&self.unsettled.from.to_le_bytes()[..6]);
        bytes[UNSETTLED + 6..].copy_from_slice(&self.unsettled.sum.to_le_bytes());
        bytes
    }

    /// Reads the attribute; `None` for what Sepia never wrote. The file then counts as not recorded.
    pub fn unpack(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != LENGTH || bytes[0] != FORMAT {
            return None;
        }
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        let field = |n: usize| number(&bytes[1 + 8 * n..9 + 8 * n]);
        Some(Record {
            generation: Generation::new(field(0))?,
            id: ObjectId::from_raw(field(1))?,
            committed: Timestamp::from_nanos(field(2) as i64),
            size: field(3),
            mtime: Timestamp::from_nanos(field(4) as i64),
            inode: field(5),
            unsettled: Unsettled {
                from: number(&bytes[UNSETTLED..UNSETTLED + 6]),
                sum: number(&bytes[UNSETTLED + 6..]) as u32,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_and_is_small() {
        let record = Record {
            generation: Generation::FIRST.next(),
            id: ObjectId::random(),
            committed: Timestamp::now(),
            size: u64::MAX,
            mtime: Timestamp::from_nanos(-1),
            inode: 12,
            unsettled: Unsettled { from: (1 << 48) - 2, sum: 0x8000_0001 },
        };
        let bytes = record.pack();
        assert!(bytes.len() < 60);
        assert_eq!(Record::unpack(&bytes), Some(record));
    }

    #[test]
    fn refuses_what_it_did_not_write() {
        for bytes in [&[][..], &[0; 59], &[1; 58], &[1; 60], &[0xff; 59], b"garbage"] {
            assert_eq!(Record::unpack(bytes), None, "{bytes:?}");
        }
        let mut no_generation = [0; 59];
        no_generation[0] = 1;
        assert_eq!(Record::unpack(&no_generation), None);
    }
}
