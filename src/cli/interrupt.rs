//! Ctrl-C while bytes are read: the reading fails, so that whoever reads can clean up, and the process then ends by
//! the signal, as the shell that waits for it expects.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::store::Sparse;

/// The signals that ask this process to end. A second one ends it at once.
#[derive(Debug)]
pub struct Interrupt {
    /// The one that came; 0 if none did.
    came: Arc<AtomicUsize>,
    wakes: UnixStream,
}

impl Interrupt {
    /// From now on signals are noted, but those that the process was started to ignore (nohup(1), a shell's `&`).
    pub fn new() -> io::Result<Self> {
        let (wakes, wake) = UnixStream::pair()?;
        let (again, came) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let ignored = ignored_signals();
        for signal in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0) {
            // In this order, so that the first signal passes over the end by the second.
            flag::register_conditional_default(signal, again.clone())?;
            flag::register(signal, again.clone())?;
            flag::register_usize(signal, came.clone(), signal.unsigned_abs() as usize)?;
            low_level::pipe::register(signal, wake.try_clone()?)?;
        }
        Ok(Interrupt { came, wakes })
    }

    /// Whether a signal came.
    pub fn came(&self) -> bool {
        self.came.load(Ordering::SeqCst) != 0
    }

    /// Ends the process by the signal that came, if one did. To be called when nothing is left to clean up.
    pub fn end(&self) {
        if let Ok(signal @ 1..) = i32::try_from(self.came.load(Ordering::SeqCst)) {
            // Otherwise the caller's error says as much.
            let _ = low_level::emulate_default_handler(signal);
        }
    }
}

/// Reads a file, pipe or terminal until a signal comes; then it fails.
#[derive(Debug)]
pub struct UntilInterrupted<'a> {
    /// What is read.
    pub source: File,
    /// What ends it.
    pub interrupt: &'a Interrupt,
}

impl Read for UntilInterrupted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut fds = [PollFd::new(&self.source, PollFlags::IN), PollFd::new(&self.interrupt.wakes, PollFlags::IN)];
            match rustix::event::poll(&mut fds, None) {
                Ok(_) if !fds[1].revents().is_empty() => return Err(io::Error::other("interrupted by a signal")),
                Ok(_) => return self.source.read(buffer),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Sparse for UntilInterrupted<'_> {
    fn skip_hole(&mut self) -> io::Result<u64> {
        // What is no file has no holes, and some devices say nonsense of themselves.
        let about = self.source.metadata()?;
        if !about.is_file() {
            return Ok(0);
        }
        let at = self.source.stream_position()?;
        let data = data_from(&self.source, at, about.len());
        Ok(rustix::fs::seek(&self.source, SeekFrom::Start(data))? - at)
    }
}

/// Where a file that had `size` bytes has its next ones from `at` on that are in no hole. It moves there, or anywhere.
fn data_from(source: &File, at: u64, size: u64) -> u64 {
    match rustix::fs::seek(source, SeekFrom::Data(at)) {
        Ok(data) => data.max(at),
        // Nothing but a hole was left, or the end. What is behind the size as it was before may have been appended since,
        // and be no hole.
        Err(Errno::NXIO) => size.max(at),
        // It is of a filesystem that knows no holes, or none at all.
        Err(_) => at,
    }
}

/// A bit for each signal, the first one for signal 1.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_has_got_since_is_no_hole() {
        let file = tempfile::tempfile().unwrap();
        rustix::fs::ftruncate(&file, 1 << 20).unwrap();
        assert_eq!(data_from(&file, 0, 1 << 20), 1 << 20);
        // As what is appended between the question and the answer.
        rustix::fs::ftruncate(&file, 2 << 20).unwrap();
        assert_eq!(data_from(&file, 0, 1 << 20), 1 << 20);
        assert_eq!(data_from(&file, 1 << 20, 1 << 20), 1 << 20);
        std::os::unix::fs::FileExt::write_at(&file, b"x", (3 << 20) + 5).unwrap();
        assert!((2 << 20..=(3 << 20) + 5).contains(&data_from(&file, 0, 1 << 20)));
    }
}
