//! Points in time as people write them.

use super::{Age, Timestamp};

/// Reads a point in time: a span before `now` (`90m`, `1d 12h`), `yesterday` (24 hours before), or a date with or without
/// a time, in UTC if it doesn't say otherwise. In a file name, the time may have hyphens for colons.
///
/// ```
/// use sepia::{Timestamp, moment};
/// let now = Timestamp::now();
/// let ten: Timestamp = "20261123T100000.000000000Z".parse()?;
/// assert_eq!(moment("2026-11-23 10:00", now)?, ten);
/// assert_eq!(moment("2026-11-23T10-00-00Z", now)?, ten);
/// assert!(moment("1h", now)? < now);
/// # Ok::<(), &str>(())
/// ```
///
/// # Errors
/// What is wrong with it.
pub fn moment(text: &str, now: Timestamp) -> Result<Timestamp, &'static str> {
    let age = if text == "yesterday" { Ok(Age::days(1)) } else { text.parse::<Age>() };
    if let Ok(age) = age {
        return Ok(age.before(now));
    }
    let text = match text.split_once('T') {
        Some((date, time)) if !time.contains(':') => format!("{date}T{}", time.replace('-', ":")),
        _ => text.to_owned(),
    };
    let utc = || text.parse::<jiff::civil::DateTime>()?.to_zoned(jiff::tz::TimeZone::UTC).map(|time| time.timestamp());
    let time = text.parse::<jiff::Timestamp>().or_else(|_| utc()).map_err(|_| "neither a time nor a span of time")?;
    i64::try_from(time.as_nanosecond()).map(Timestamp::from_nanos).map_err(|_| "too far away")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_as_people_write_them() {
        let now = Timestamp::now();
        for (text, time) in [
            ("2026-11-23", "20261123T000000.000000000Z"),
            ("2026-11-23 10:00", "20261123T100000.000000000Z"),
            ("2026-11-23T10:00:01", "20261123T100001.000000000Z"),
            ("2026-11-23T10-00-01Z", "20261123T100001.000000000Z"),
            ("2026-11-23T10:00:00.5Z", "20261123T100000.500000000Z"),
            ("2026-11-23T10-00-00.5Z", "20261123T100000.500000000Z"),
            ("2026-11-23T10:00:00+01:00", "20261123T090000.000000000Z"),
        ] {
            assert_eq!(moment(text, now).unwrap().to_string(), time, "{text}");
        }
        assert_eq!(now.nanos() - moment("2h", now).unwrap().nanos(), 7_200_000_000_000);
        assert_eq!(moment("yesterday", now), moment("24h", now));
        for wrong in ["", "tomorrow", "10", "9999-12-31"] {
            assert!(moment(wrong, now).is_err(), "{wrong}");
        }
    }
}
