//! Sums of bytes, by which those that a power loss has torn are known.
//!
//! CRC-32 (of zlib): it tells accidents, not malice, and the sum of two ranges follows from theirs.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crc32fast::Hasher;

const BUFFER: usize = 256 << 10;

/// The sum of bytes that are written one behind the other, made while they pass.
#[derive(Debug, Clone)]
pub struct RunningSum {
    hasher: Hasher,
    /// Where the next bytes must begin; `None` once some were written elsewhere.
    next: Option<u64>,
}

impl RunningSum {
    /// Of the bytes from `start` on.
    pub fn new(start: u64) -> Self {
        RunningSum { hasher: Hasher::new(), next: Some(start) }
    }

    /// `bytes` were written at `offset`.
    pub fn written(&mut self, offset: u64, bytes: &[u8]) {
        if self.next == Some(offset) {
            self.hasher.update(bytes);
            self.next = Some(offset + bytes.len() as u64);
        } else {
            self.next = None;
        }
    }

    /// Something else was done with the bytes.
    pub fn lose(&mut self) {
        self.next = None;
    }

    /// The sum, if it is known and ends at `end`.
    pub fn up_to(&self, end: u64) -> Option<u32> {
        (self.next == Some(end)).then(|| self.hasher.clone().finalize())
    }
}

/// The sum of the bytes `start..end` of a file.
///
/// # Errors
/// The system's answer; UnexpectedEof when the file is shorter.
pub fn sum_of(file: &File, start: u64, end: u64) -> io::Result<u32> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; usize::try_from(end.saturating_sub(start)).unwrap_or(BUFFER).min(BUFFER)];
    let mut at = start;
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(BUFFER).min(BUFFER);
        file.read_exact_at(&mut buffer[..most], at)?;
        hasher.update(&buffer[..most]);
        at += most as u64;
    }
    Ok(hasher.finalize())
}

/// The sum of bytes whose sum is `first`, followed by `length` bytes whose sum is `second`.
pub fn joined(first: u32, second: u32, length: u64) -> u32 {
    let mut hasher = Hasher::new_with_initial(first);
    hasher.combine(&Hasher::new_with_initial_len(second, length));
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_ways_agree() {
        let bytes: Vec<u8> = (0..700_000u32).map(|n| (n * 7) as u8).collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let mut running = RunningSum::new(100);
        for (number, piece) in bytes[100..].chunks(1000).enumerate() {
            running.written(100 + number as u64 * 1000, piece);
        }
        let whole = sum_of(&file, 100, 700_000).unwrap();
        assert_eq!(running.up_to(700_000), Some(whole));
        assert_eq!(running.up_to(699_999), None);
        let (first, second) = (sum_of(&file, 100, 5000).unwrap(), sum_of(&file, 5000, 700_000).unwrap());
        assert_eq!(joined(first, second, 695_000), whole);
        assert_eq!(joined(0, whole, 699_900), whole, "0 is the sum of nothing");
        running.written(5, b"x");
        assert_eq!(running.up_to(6), None);
        assert!(sum_of(&file, 0, 700_001).is_err());
    }
}
