//! A part of the names of a store: for who verifies a little each day.

use std::fmt;
use std::str::FromStr;

use crate::types::Key;

/// How often each, and how long all of it may take: so many parts.
const RHYTHMS: [(&str, u32); 6] = [
    ("daily/week", 7),
    ("daily/month", 30),
    ("daily/year", 365),
    ("weekly/month", 4),
    ("weekly/year", 52),
    ("monthly/year", 12),
];

/// Into how many parts the names are split. Which one a name is in depends on the name alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Parts(u32);

impl Parts {
    /// So many parts, at least one.
    pub(super) fn new(count: u32) -> Self {
        Parts(count.max(1))
    }

    /// How many there are.
    /// How many there are.
    pub fn count(self) -> u32 {
        self.0
    }

    /// The number of the part that a name is in, from 0.
    pub fn of(self, key: &Key) -> u32 {
        let hash = blake3::hash(key.as_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hash.as_bytes()[..8]);
        // Less than a u32.
        (u64::from_le_bytes(bytes) % u64::from(self.0)) as u32
    }
}

/// Why a text is no part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no part: give a share from 1% to 100%, or one of daily/week, daily/month, daily/year, weekly/month, \
     weekly/year, monthly/year"
)]
pub struct PartError(String);

impl FromStr for Parts {
    type Err = PartError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some((_, parts)) = RHYTHMS.iter().find(|(name, _)| *name == text) {
            return Ok(Parts(*parts));
        }
        let percent = text.strip_suffix('%').and_then(|number| number.parse::<u32>().ok());
        let percent = percent.filter(|percent| (1..=100).contains(percent));
        // As many as it takes for all.
        percent.map(|percent| Parts(100_u32.div_ceil(percent))).ok_or_else(|| PartError(text.to_owned()))
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_in_one_part() {
        for (text, count) in [("5%", 20), ("100%", 1), ("33%", 4), ("1%", 100), ("daily/month", 30)] {
            let parts: Parts = text.parse().unwrap();
            assert_eq!(parts.count(), count);
            let numbers = (0..200).map(|n| parts.of(&Key::parse(format!("Note/{n}")).unwrap()));
            assert!(numbers.clone().all(|number| number < count));
            assert_eq!(count == 1, numbers.clone().min() == numbers.max(), "{text}");
        }
        for text in ["0%", "101%", "5", "%", "-1%", "1.5%", "month/daily"] {
            assert!(text.parse::<Parts>().is_err(), "{text}");
        }
    }
}
