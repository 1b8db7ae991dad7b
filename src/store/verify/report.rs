//! What a verification has found.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::types::{Generation, Key, ObjectId, Timestamp};

/// How thoroughly; each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Records can be understood, and what they refer to is there.
    References,
    /// Every generation that the history claims to keep can be opened, and has its size.
    Existence,
    /// It has the bytes that were saved.
    Content,
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Names with a file or a history.
    pub objects: u64,
    /// Generations whose bytes are kept.
    pub generations: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Generations that had no checksum yet; they have one now.
    pub new: u64,
    /// Those that have none, for the medium can only be read. What they held isn't known.
    pub missing: u64,
    /// Files that were changed outside Sepia, and not recorded yet.
    pub unrecorded: u64,
    /// Objects that were changed again and again while they were looked at. The next run looks at them again.
    pub busy: u64,
    /// Objects that this user has no right to read.
    pub denied: u64,
    /// Damaged generations in whose place an intact one was brought back before.
    pub replaced: u64,
    /// Records that were repaired.
    pub repaired: u64,
    /// Objects whose newest intact generation was brought back.
    pub brought_back: u64,
}

/// What is wrong with a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Harm {
    /// Its bytes are not those that were saved.
    Content {
        /// The BLAKE3 of what was saved, in hexadecimal.
        expected: String,
        /// That of what is there.
        found: String,
    },
    /// It is shorter or longer than what was saved.
    Size {
        /// Bytes that were saved.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// The system can't read it, as the text says.
    Unreadable(String),
    /// What it is the beginning of is gone.
    Gone,
    /// Its record can't be understood.
    Record,
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Harm::Content { .. } => write!(f, "its bytes are not those that were saved"),
            Harm::Size { expected, found } => write!(f, "it has {found} bytes, and had {expected} when it was saved"),
            Harm::Unreadable(why) => write!(f, "it can't be read: {why}"),
            Harm::Gone => write!(f, "the later generation that held its bytes is gone"),
            Harm::Record => write!(f, "Sepia's record on the file can't be understood"),
        }
    }
}

/// A damaged generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Its number.
    pub generation: Option<Generation>,
    /// When it was committed, in nanoseconds since 1970.
    pub committed: Option<i64>,
    /// The object's id, where it is known; not written down.
    #[serde(skip)]
    pub id: Option<ObjectId>,
    /// It is current.
    pub current: bool,
    /// What is wrong with it.
    pub harm: Harm,
}

/// A damaged object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// The object.
    pub key: Key,
    /// Its damaged generations, oldest first.
    pub generations: Vec<Damage>,
    /// The newest of its generations that is intact as far as the level can tell.
    pub intact: Option<Intact>,
    /// What was done about it, if anything was.
    pub mended: Option<Mended>,
}

/// A generation that is intact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intact {
    /// Its number.
    pub generation: Generation,
    /// When it was committed, in nanoseconds since 1970.
    pub committed: i64,
}

/// What was done about a damaged object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mended {
    /// The newest intact generation's bytes are this generation now, which is current.
    BroughtBack(Generation),
    /// It was recorded anew, as this generation.
    Recorded(Generation),
    /// It could not be done, as the text says.
    Failed(String),
}

impl Damaged {
    /// Whether something is left to be done.
    pub fn remains(&self) -> bool {
        let current_only = self.generations.iter().all(|damage| damage.current);
        !current_only || !matches!(self.mended, Some(Mended::BroughtBack(_) | Mended::Recorded(_)))
    }
}

/// A record that is damaged, or refers to what isn't there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Which record.
    pub record: String,
    /// What is wrong with it.
    pub why: String,
    /// It was repaired.
    pub repaired: bool,
}

/// What came of a verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// How much was looked at.
    pub counts: Counts,
    /// The objects that are damaged, by key.
    pub damaged: Vec<Damaged>,
    /// The records that are.
    pub faults: Vec<Fault>,
    /// When the run began that this one went on with, if it did.
    pub resumed: Option<Timestamp>,
    /// Which part it was, from 1, and of how many.
    pub part: Option<(u32, u32)>,
    /// It was asked to stop before the end. The next run goes on.
    pub stopped: bool,
}

impl Verified {
    /// Whether something is damaged and was not repaired.
    pub fn is_damaged(&self) -> bool {
        self.damaged.iter().any(Damaged::remains) || self.faults.iter().any(|fault| !fault.repaired)
    }

    /// Whether it isn't known of something, since it could not be looked at.
    pub fn is_partial(&self) -> bool {
        self.stopped || self.counts.denied > 0
    }
}
