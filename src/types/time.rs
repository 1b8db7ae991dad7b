//! Points in time, as records and file names hold them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A point in time: nanoseconds since the Unix epoch, UTC.
///
/// Its text form has neither colons nor spaces, so that it can be part of a file name anywhere:
///
/// ```
/// use sepia::Timestamp;
/// let time = Timestamp::from_nanos(1_795_428_000_000_000_005);
/// assert_eq!(time.to_string(), "20261123T100000.000000005Z");
/// assert_eq!(time.to_string().parse(), Ok(time));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Now, by the wall clock.
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Self::from_parts(now.tv_sec, now.tv_nsec as u32)
    }

    /// So many nanoseconds since the epoch (negative before it). Good from 1677 to 2262.
    pub fn from_nanos(nanos: i64) -> Self {
        Timestamp(nanos)
    }

    /// Seconds since the epoch and nanoseconds within the second, as `stat` gives them.
    pub fn from_parts(seconds: i64, nanos: u32) -> Self {
        Timestamp(seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(nanos)))
    }

    /// Nanoseconds since the epoch.
    pub fn nanos(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// Nanoseconds within the second.
    pub fn subsec_nanos(self) -> u32 {
        self.0.rem_euclid(1_000_000_000) as u32
    }

    /// For people: `2026-11-23 10:00:00 UTC`.
    pub fn human(self) -> String {
        self.utc().strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
    }

    /// RFC 3339 with nanoseconds, for JSON.
    pub fn rfc3339(self) -> String {
        self.utc().strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
    }

    /// So much later.
    pub fn after(self, span: impl Into<Duration>) -> Self {
        Timestamp(self.0.saturating_add(nanos(span.into())))
    }

    /// So much earlier.
    pub fn before(self, span: impl Into<Duration>) -> Self {
        Timestamp(self.0.saturating_sub(nanos(span.into())))
    }

    /// The year and the month (1 to 12) that it lies in.
    pub fn year_and_month(self) -> (i64, i64) {
        let date = self.utc().date();
        (date.year().into(), date.month().into())
    }

    fn utc(self) -> jiff::civil::DateTime {
        // Every i64 of nanoseconds is within the range of jiff's years -9999 to 9999.
        let time = jiff::Timestamp::from_nanosecond(self.0.into()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        jiff::tz::Offset::UTC.to_datetime(time)
    }
}

fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = self.utc();
        let (date, time) = (t.date(), t.time());
        write!(f, "{:04}{:02}{:02}T", date.year(), date.month(), date.day())?;
        write!(f, "{:02}{:02}{:02}.{:09}Z", time.hour(), time.minute(), time.second(), time.subsec_nanosecond())
    }
}

impl FromStr for Timestamp {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "not a time of the form 20261123T100000.000000000Z";
        let utc = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S.%fZ", text).map_err(|_| wrong)?;
        let time = jiff::tz::Offset::UTC.to_timestamp(utc).map_err(|_| wrong)?;
        let time = i64::try_from(time.as_nanosecond()).map(Timestamp).map_err(|_| wrong)?;
        // One time has one text form: fewer digits, or another year's width, is not what Sepia wrote.
        if time.to_string() == text { Ok(time) } else { Err(wrong) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_back() {
        for nanos in [0, -1, 951_782_400_000_000_000, 4_107_542_399_999_999_999, i64::from(i32::MAX) * 1_000_000_000] {
            let time = Timestamp::from_nanos(nanos);
            assert_eq!(time.to_string().parse(), Ok(time));
        }
        assert_eq!(Timestamp::from_nanos(951_782_400_000_000_000).human(), "2000-02-29 00:00:00 UTC");
    }

    #[test]
    fn refuses_no_dates() {
        for text in ["", "20261323T100000.000000000Z", "20260230T100000.000000000Z", "2026112ET100000.000000000Z"] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }
}
