//! Superseded generations, and the names under which they are kept.
//!
//! `3@20261123T100000.000000000Z-20261123T110000.000000000Z` is generation 3, committed at ten and superseded at
//! eleven. `…+deleted` at the end says that it was superseded by nothing: the object was removed. Generation 0 is no
//! generation but a marker, whose content says where the history before it went.

use std::ffi::OsStr;
use std::fmt;

use crate::types::{Generation, Key, ObjectId, Timestamp};

/// In what form the bytes of a generation are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// As a whole file.
    Whole,
    /// As the first so many bytes of a later generation, to which was only appended.
    Prefix(u64),
    /// Not at all, as the text says: for example overwritten from outside.
    Lost(String),
}

/// A generation of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationInfo {
    /// Its number.
    pub generation: Generation,
    /// When it became current.
    pub committed: Timestamp,
    /// When it stopped being current; `None` for the current one.
    pub superseded: Option<Timestamp>,
    /// Whether it ended by a removal, so that it was followed by nothing.
    pub deleted: bool,
    /// Bytes.
    pub size: u64,
    /// Last change of its bytes.
    pub mtime: Timestamp,
    /// The form in which it is kept.
    pub kept: Kept,
}

impl GenerationInfo {
    /// Where the generation is now, if all that is here is a note that its object has another name.
    pub fn moved_to(&self) -> Option<(Key, Generation)> {
        match &self.kept {
            Kept::Lost(text) => parse_moved(text).map(|(to, generation, _)| (to, generation)),
            _ => None,
        }
    }

    /// Whether both tell of the same entry of a history: numbers and times together don't come again.
    pub fn is_same_as(&self, other: &GenerationInfo) -> bool {
        let identity = |info: &GenerationInfo| (info.generation, info.committed, info.superseded);
        identity(self) == identity(other)
    }
}

/// The key and the number in a note that says that an object has moved, and the object's id.
pub(super) fn parse_moved(text: &str) -> Option<(Key, Generation, ObjectId)> {
    let (to, rest) = text.strip_prefix("moved to ")?.rsplit_once('@')?;
    let (generation, id) = rest.split_once(" of ")?;
    let id = ObjectId::from_raw(u64::from_str_radix(id, 16).ok()?)?;
    Some((Key::unescape(to).ok()?, generation.parse().ok()?, id))
}

/// The name under which a superseded generation is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenerationName {
    /// The number; 0 for a marker.
    pub number: u64,
    /// When it became current.
    pub committed: Timestamp,
    /// When it stopped being current.
    pub superseded: Timestamp,
    /// Whether by a removal.
    pub deleted: bool,
}

const DELETED: &str = "+deleted";

impl GenerationName {
    /// Reads a name; `None` for what is none (a directory of a member's history, say).
    pub fn parse(name: &OsStr) -> Option<Self> {
        let text = name.to_str()?;
        let (text, deleted) = text.strip_suffix(DELETED).map_or((text, false), |rest| (rest, true));
        let (number, times) = text.split_once('@')?;
        let (committed, superseded) = times.split_once('-')?;
        let parsed = GenerationName {
            number: number.parse().ok()?,
            committed: committed.parse().ok()?,
            superseded: superseded.parse().ok()?,
            deleted,
        };
        (parsed.to_string().as_bytes() == name.as_encoded_bytes()).then_some(parsed)
    }
}

impl fmt::Display for GenerationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deleted = if self.deleted { DELETED } else { "" };
        write!(f, "{}@{}-{}{deleted}", self.number, self.committed, self.superseded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_others_are_none() {
        let name = GenerationName {
            number: 12,
            committed: Timestamp::from_nanos(5),
            superseded: Timestamp::from_nanos(1_795_428_000_000_000_000),
            deleted: true,
        };
        assert_eq!(GenerationName::parse(OsStr::new(&name.to_string())), Some(name));
        for other in ["note", "3@", "3@x-y", "03@19700101T000000.000000005Z-19700101T000000.000000005Z", ""] {
            assert_eq!(GenerationName::parse(OsStr::new(other)), None, "{other}");
        }
    }
}
