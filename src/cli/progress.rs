//! How far a long transfer is, on standard error, if that is a terminal and it takes more than two seconds.

use std::io::{self, IsTerminal, Read, Write};
use std::time::{Duration, Instant};

use crate::store::Sparse;

const PATIENCE: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_millis(200);

/// A line that says how far a transfer is. Dropping it removes the line.
#[derive(Debug)]
pub struct Progress {
    what: String,
    total: Option<u64>,
    done: u64,
    started: Instant,
    next: Instant,
    enabled: bool,
    visible: bool,
}

impl Progress {
    /// Begins a transfer of `total` bytes, if that is known.
    pub fn new(what: impl Into<String>, total: Option<u64>) -> Self {
        let started = Instant::now();
        let enabled = io::stderr().is_terminal();
        Progress { what: what.into(), total, done: 0, started, next: started + PATIENCE, enabled, visible: false }
    }

    /// So many bytes more were transferred.
    pub fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if let Some(elapsed) = self.is_due() {
            self.show(&self.text(elapsed));
        }
    }

    /// Says `text`, if it is time to say something.
    pub fn say(&mut self, text: impl FnOnce() -> String) {
        if self.is_due().is_some() {
            self.show(&text());
        }
    }

    fn is_due(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if !self.enabled || now < self.next {
            return None;
        }
        self.next = now + INTERVAL;
        self.visible = true;
        Some(now - self.started)
    }

    fn show(&self, text: &str) {
        // A progress line that can't be shown is no reason to fail.
        let _ = write!(io::stderr(), "\r\x1b[K{text}");
    }

    fn text(&self, elapsed: Duration) -> String {
        let size = super::output::size;
        let speed = size((self.done as f64 / elapsed.as_secs_f64().max(0.001)) as u64);
        match self.total {
            Some(total) if total > 0 => {
                let percent = (u128::from(self.done) * 100 / u128::from(total)).min(100);
                format!("{}: {} of {} ({percent} %), {speed}/s", self.what, size(self.done), size(total))
            }
            _ => format!("{}: {}, {speed}/s", self.what, size(self.done)),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.visible {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Reads, and says how far it is.
#[derive(Debug)]
pub struct Counted<R> {
    /// Where the bytes come from.
    pub inner: R,
    /// What is told of them.
    pub progress: Progress,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.progress.add(n as u64);
        Ok(n)
    }
}

impl<R: Sparse> Sparse for Counted<R> {
    fn skip_hole(&mut self) -> io::Result<u64> {
        let n = self.inner.skip_hole()?;
        self.progress.add(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_far_it_is() {
        let mut progress = Progress::new("a", Some(4 << 20));
        progress.add(1 << 20);
        assert_eq!(progress.text(Duration::from_secs(2)), "a: 1.0 MiB of 4.0 MiB (25 %), 512.0 KiB/s");
        progress.total = None;
        assert_eq!(progress.text(Duration::from_secs(1)), "a: 1.0 MiB, 1.0 MiB/s");
    }
}
