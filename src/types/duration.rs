//! Spans of time as people write them in a policy.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use super::Timestamp;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;
const YEAR: u64 = 365 * DAY;

/// How old something may be: whole seconds, written as `90d`, `12h`, `2w` or `1y 6d`. A day has 24 hours, a year
/// 365 days.
///
/// ```
/// use sepia::Age;
/// let age: Age = "1d 12h".parse()?;
/// assert_eq!(age.seconds(), 36 * 3600);
/// assert_eq!(age.to_string(), "36h");
/// assert!("90".parse::<Age>().is_err());
/// # Ok::<(), sepia::AgeError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Age(u64);

/// Why a text is no [`Age`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no span of time such as 90d, 12h, 2w or 1y")]
pub struct AgeError(String);

impl Age {
    /// So many days.
    pub const fn days(days: u32) -> Self {
        Age(days as u64 * DAY)
    }

    /// Its length in seconds.
    pub fn seconds(self) -> u64 {
        self.0
    }

    /// The moment that was so long before `now`; the earliest there is when it is longer than that.
    pub fn before(self, now: Timestamp) -> Timestamp {
        let nanos = i64::try_from(self.0).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
        Timestamp::from_nanos(now.nanos().saturating_sub(nanos))
    }
}

impl From<Age> for Duration {
    fn from(age: Age) -> Self {
        Duration::from_secs(age.0)
    }
}

impl FromStr for Age {
    type Err = AgeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || AgeError(text.to_owned());
        let span: jiff::Span = text.parse().map_err(|_| wrong())?;
        // Months have no length, and nobody keeps anything for milliseconds.
        let odd = span.get_months() != 0 || span.is_negative();
        if odd || span.get_milliseconds() != 0 || span.get_microseconds() != 0 || span.get_nanoseconds() != 0 {
            return Err(wrong());
        }
        let parts = [
            (i64::from(span.get_years()), YEAR),
            (i64::from(span.get_weeks()), WEEK),
            (i64::from(span.get_days()), DAY),
            (i64::from(span.get_hours()), HOUR),
            (span.get_minutes(), MINUTE),
            (span.get_seconds(), 1),
        ];
        // None of them is negative, and jiff bounds each so that the sum is far from the end of u64.
        Ok(Age(parts.iter().map(|(count, unit)| count.unsigned_abs().saturating_mul(*unit)).sum()))
    }
}

impl fmt::Display for Age {
    /// In the largest unit that it is a whole number of.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(YEAR, "y"), (WEEK, "w"), (DAY, "d"), (HOUR, "h"), (MINUTE, "m"), (1, "s")];
        let (unit, name) =
            units.into_iter().find(|(unit, _)| self.0 > 0 && self.0.is_multiple_of(*unit)).unwrap_or((1, "s"));
        write!(f, "{}{name}", self.0 / unit)
    }
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_as_people_write_them() {
        for (text, seconds, shown) in [
            ("90d", 90 * DAY, "90d"),
            ("12h", 12 * HOUR, "12h"),
            ("2w", 2 * WEEK, "2w"),
            ("14 days", 2 * WEEK, "2w"),
            ("1y", YEAR, "1y"),
            ("1y 6d", YEAR + 6 * DAY, "53w"),
            ("90m", 90 * MINUTE, "90m"),
            ("0s", 0, "0s"),
        ] {
            let age: Age = text.parse().unwrap();
            assert_eq!((age.seconds(), age.to_string().as_str()), (seconds, shown), "{text}");
            assert_eq!(age.to_string().parse(), Ok(age));
        }
        for wrong in ["", "90", "d", "-1d", "1d ago", "3mo", "5ms", "forever", "99999999999999999999y"] {
            assert!(wrong.parse::<Age>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn reaches_back() {
        let now = Timestamp::from_nanos(1_795_428_000_000_000_005);
        assert_eq!(Age::days(1).before(now).nanos(), now.nanos() - 86_400_000_000_000);
        assert!("19998y".parse::<Age>().unwrap().before(now).nanos() < 0, "further back than times go");
    }
}
