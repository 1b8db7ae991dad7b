//! Spans of time, as people write them into the policy and on the command line.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Timestamp;

/// A span of time such as `90d`: whole seconds. A day is 24 hours, a week 7 days, a year 365 days.
///
/// ```
/// use sepia::Age;
/// let age: Age = "36h".parse()?;
/// assert_eq!((age.seconds(), age.to_string()), (129_600, "36h".to_owned()));
/// assert_eq!("14d".parse::<Age>()?.to_string(), "2w");
/// # Ok::<(), &'static str>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Age(u64);

/// The units, from the greatest on, with their lengths in seconds.
const UNITS: [(&str, u64); 6] =
    [("y", 365 * 86_400), ("w", 7 * 86_400), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

impl Age {
    /// So many seconds.
    pub const fn from_seconds(seconds: u64) -> Self {
        Age(seconds)
    }

    /// So many days.
    pub const fn from_days(days: u64) -> Self {
        Age(days * 86_400)
    }

    /// Seconds.
    pub const fn seconds(self) -> u64 {
        self.0
    }

    /// Nanoseconds, as far as 64 bits go.
    pub fn nanos(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX).saturating_mul(1_000_000_000)
    }

    /// The point in time that lay so long before `now`.
    pub fn before(self, now: Timestamp) -> Timestamp {
        Timestamp::from_nanos(now.nanos().saturating_sub(self.nanos()))
    }
}

impl From<Age> for Duration {
    fn from(age: Age) -> Self {
        Duration::from_secs(age.0)
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Exactly, in the greatest unit in which it is a whole number. 0 is a whole number of them all.
        let (name, length) = match self.0 {
            0 => ("s", 1),
            seconds => UNITS.into_iter().find(|(_, length)| seconds % length == 0).unwrap_or(("s", 1)),
        };
        write!(f, "{}{name}", self.0 / length)
    }
}

impl FromStr for Age {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "a time is a whole number with its unit: 30s, 15m, 12h, 90d, 2w or 1y";
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let length = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or(wrong)?.1;
        number.parse::<u64>().ok().and_then(|number| number.checked_mul(length)).map(Age).ok_or(wrong)
    }
}

impl Serialize for Age {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (text, seconds) in [("0s", 0), ("90d", 90 * 86_400), ("12h", 43_200), ("2w", 1_209_600), ("1y", 31_536_000)]
        {
            let age: Age = text.parse().unwrap();
            assert_eq!((age.seconds(), age.to_string().as_str()), (seconds, text));
        }
        for text in ["", "d", "12", "1.5d", "-1d", "1 d", "1mo", "99999999999999999y"] {
            assert!(text.parse::<Age>().is_err(), "{text}");
        }
    }
}
