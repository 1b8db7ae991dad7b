//! Reading a file for the checksums of some of its beginnings, in one pass.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::str::FromStr;

use rustix::fs::{Advice, OFlags};

/// So much is read at once.
const CHUNK: usize = 256 << 10;

/// The BLAKE3 of a generation's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sum(pub(super) [u8; 32]);

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Sum {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        blake3::Hash::from_hex(text).map(|hash| Sum(hash.into())).map_err(|_| "no BLAKE3 in hexadecimal")
    }
}

/// Where the bytes are to be read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// What the kernel has in memory is as good: it is what was saved.
    Any,
    /// The medium, so what the kernel has in memory is let go before and afterwards.
    Medium,
}

/// What came of reading a file.
#[derive(Debug)]
pub struct Summed {
    /// The checksums of the first so many of the beginnings.
    pub sums: Vec<Sum>,
    /// Why there are no more.
    pub ended: Ended,
}

/// Why reading ended.
#[derive(Debug)]
pub enum Ended {
    /// That was all.
    Done,
    /// It was asked to stop.
    Stopped,
    /// What the medium said; an end of the file that came too early is one of these.
    Failed(io::Error),
}

/// The checksums of the beginnings of a file that end where `ends` say, in ascending order. `go_on` is told after each
/// piece how many bytes it was, and says whether to go on. Access times stay what they are.
pub fn sum_beginnings(file: &File, ends: &[u64], source: Source, go_on: &mut dyn FnMut(u64) -> bool) -> Summed {
    let let_go = || {
        if source == Source::Medium {
            // What can't be let go is read from memory.
            let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
        }
    };
    let_go();
    // That Sepia looks at it is no access of anybody's. Not so for an ordinary user, of a file that belongs to others.
    let _ = rustix::fs::fcntl_setfl(file, OFlags::NOATIME);
    let _ = rustix::fs::fadvise(file, 0, None, Advice::Sequential);
    let mut hasher = blake3::Hasher::new();
    let (mut sums, mut at, mut buffer) = (Vec::with_capacity(ends.len()), 0, vec![0; CHUNK]);
    let mut ended = Ended::Done;
    'ends: for &end in ends {
        while at < end {
            let most = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            match file.read_at(&mut buffer[..most], at) {
                Ok(0) => {
                    ended = Ended::Failed(io::ErrorKind::UnexpectedEof.into());
                    break 'ends;
                }
                Ok(n) => {
                    hasher.update(&buffer[..n]);
                    at += n as u64;
                    if !go_on(n as u64) {
                        ended = Ended::Stopped;
                        break 'ends;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    ended = Ended::Failed(error);
                    break 'ends;
                }
            }
        }
        // Finishing leaves the hasher as it is.
        sums.push(Sum(hasher.finalize().into()));
    }
    let_go();
    Summed { sums, ended }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn each_beginning_has_the_sum_of_its_bytes() {
        let bytes: Vec<u8> = (0..CHUNK * 2 + 17).map(|n| (n * 31 % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let ends = [0, 5, 5, CHUNK as u64, bytes.len() as u64];
        for source in [Source::Any, Source::Medium] {
            let summed = sum_beginnings(&file, &ends, source, &mut |_| true);
            let expected = ends.map(|end| Sum(blake3::hash(&bytes[..end as usize]).into()));
            assert_eq!(summed.sums, expected);
            assert!(matches!(summed.ended, Ended::Done));
        }
        let sum = sum_beginnings(&file, &[0], Source::Any, &mut |_| true).sums[0];
        assert_eq!(sum.to_string(), "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
        assert_eq!(sum.to_string().parse(), Ok(sum));
        assert!("af13".parse::<Sum>().is_err());
        let short = sum_beginnings(&file, &[7, bytes.len() as u64 + 1], Source::Any, &mut |_| true);
        assert_eq!(short.sums.len(), 1);
        assert!(matches!(short.ended, Ended::Failed(_)));
        let stopped = sum_beginnings(&file, &[7, CHUNK as u64], Source::Any, &mut |n| n == 7);
        assert_eq!(stopped.sums.len(), 1);
        assert!(matches!(stopped.ended, Ended::Stopped));
    }
}
