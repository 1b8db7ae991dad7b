//! Which version of an object, and which object.

use std::fmt;
use std::str::FromStr;

/// The number of a saved version: 1, 2, 3 …, never reused for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Generation(u64);

impl Generation {
    /// The first generation of every object.
    pub const FIRST: Generation = Generation(1);

    /// The generation with this number; `None` for 0, which is no generation.
    pub fn new(number: u64) -> Option<Self> {
        (number > 0).then_some(Generation(number))
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The one after it.
    pub fn next(self) -> Self {
        Generation(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Generation {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().ok().and_then(Generation::new).ok_or("a generation is a whole number from 1")
    }
}

/// An object's identity: 63 bits that stay with it through renames and are its `st_ino`.
///
/// Recorded ids are random. What carries no record (directories, links, special files, files that came from
/// outside) gets one computed from its inode number and birth time, so that an inode number that is used again
/// is another object. 0 and 1 never occur (1 is the root's inode number).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(u64);

impl ObjectId {
    /// The root directory of a store, which every FUSE mount numbers 1.
    pub const ROOT: ObjectId = ObjectId(1);

    /// A new random id.
    pub fn random() -> Self {
        let mut bytes = [0u8; 8];
        // getrandom() of 8 bytes neither fails nor is cut short once the kernel's pool is seeded; the clock stands
        // in where the call itself is missing or forbidden.
        if rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) != Ok(8) {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            bytes = (now.tv_sec as u64 ^ (now.tv_nsec as u64) << 32).to_ne_bytes();
        }
        Self::from_hash(u64::from_ne_bytes(bytes))
    }

    /// An id for something that carries no record, from its inode number and birth time (nanoseconds).
    pub fn derived(inode: u64, birth: i128) -> Self {
        // The finalizer of SplitMix64 (Steele, Lea and Flood, 2014) over both numbers.
        let mut x = inode ^ (birth as u64).rotate_left(32);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self::from_hash(x ^ (x >> 31))
    }

    /// Takes back a number that was given out before.
    pub fn from_raw(raw: u64) -> Option<Self> {
        (raw > 1 && raw >> 63 == 0).then_some(ObjectId(raw))
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }

    fn from_hash(hash: u64) -> Self {
        ObjectId((hash >> 1).max(2))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
