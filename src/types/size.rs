//! Numbers of bytes as people write them in a policy.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

/// The units, largest first: those of 1024 and those of 1000.
const UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1000),
    ("KB", 1000),
    ("B", 1),
];

/// A number of bytes: a whole number, alone or with one of the units `B`, `kB`, `KiB`, `MB`, `MiB`, `GB`, `GiB`, `TB`,
/// `TiB`.
///
/// ```
/// use sepia::Size;
/// let size: Size = "10 MiB".parse()?;
/// assert_eq!(size.bytes(), 10 * 1024 * 1024);
/// assert_eq!(size.to_string(), "10 MiB");
/// assert!("10 M".parse::<Size>().is_err());
/// # Ok::<(), sepia::SizeError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Size(u64);

/// Why a text is no [`Size`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no size such as 4096, 500 kB or 10 MiB")]
pub struct SizeError(String);

impl Size {
    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        Size(bytes)
    }

    /// How many bytes it is.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || SizeError(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = trimmed.split_at(digits);
        let unit = match unit.trim_start() {
            "" => 1,
            name => UNITS.iter().find(|(known, _)| *known == name).ok_or_else(wrong)?.1,
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(unit).map(Size).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    /// In the largest unit of 1024 that it is a whole number of.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = UNITS.iter().filter(|(_, unit)| unit.is_power_of_two());
        match binary.into_iter().find(|(_, unit)| self.0 > 0 && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) if *unit > 1 => write!(f, "{} {name}", self.0 / unit),
            _ => write!(f, "{} bytes", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Bytes(u64),
            Text(String),
        }
        let written = Written::deserialize(deserializer);
        match written.map_err(|_| de::Error::custom("a size is a number of bytes, or a text such as \"10 MiB\""))? {
            Written::Bytes(bytes) => Ok(Size(bytes)),
            Written::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes, shown) in [
            ("4096", 4096, "4 KiB"),
            ("10 MiB", 10 << 20, "10 MiB"),
            ("10MiB", 10 << 20, "10 MiB"),
            ("500 kB", 500_000, "500000 bytes"),
            ("7B", 7, "7 bytes"),
            ("0", 0, "0 bytes"),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, shown), "{text}");
        }
        for wrong in ["", "MiB", "-1", "1.5 MiB", "10 M", "10 mib", "99999999999 TiB"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }
}
