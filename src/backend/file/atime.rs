//! Access times: what reading marks, and what it leaves alone.
//!
//! Reads go to the object's own file, so the filesystem below marks them by the rules of its own mount: relatime, as a
//! rule. Two things are left to do here: to read without a mark where a mount asks for that (noatime), and to mark what
//! the kernel has read from its own cache, of which nobody below hears.

use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;

use super::{FileBackend, KeepAccessTimes, Opened};
use crate::types::Timestamp;

/// An access is marked again after this long (relatime), in nanoseconds.
const A_DAY: i64 = 24 * 60 * 60 * 1_000_000_000;

/// What is read without a mark.
#[derive(Debug, Default)]
pub struct AccessTimes {
    keep_files: AtomicBool,
    keep_directories: AtomicBool,
}

impl AccessTimes {
    pub fn keep(&self, which: KeepAccessTimes) {
        self.keep_files.store(which.files, Ordering::Relaxed);
        self.keep_directories.store(which.directories, Ordering::Relaxed);
    }

    /// To be called with a file that was opened to be read.
    pub fn opened_file(&self, file: impl AsFd) {
        if self.keep_files.load(Ordering::Relaxed) {
            read_unmarked(file);
        }
    }

    /// To be called with a directory that was opened to be listed.
    pub fn opened_directory(&self, directory: impl AsFd) {
        if self.keep_directories.load(Ordering::Relaxed) {
            read_unmarked(directory);
        }
    }
}

fn read_unmarked(descriptor: impl AsFd) {
    // Not of what belongs to others, for an ordinary user: then their reading is marked, as any other user's would be.
    let _ = rustix::fs::fcntl_setfl(descriptor, OFlags::NOATIME);
}

impl FileBackend {
    /// Has the filesystem below mark a read that it hasn't seen, if relatime would (mount(8)). Not by setting the time,
    /// which would change the status change time too.
    pub(super) fn mark_access(&self, opened: &Opened) -> bool {
        let stat = &opened.stat;
        let now = Timestamp::now().nanos();
        let due =
            stat.atime <= stat.mtime || stat.atime <= stat.ctime || now.saturating_sub(stat.atime.nanos()) >= A_DAY;
        if !due || self.access_times.keep_files.load(Ordering::Relaxed) {
            return false;
        }
        // What the one byte is doesn't matter, nor whether there is one.
        let _ = opened.file.read_at(&mut [0], 0);
        let marked =
            |meta: std::fs::Metadata| Timestamp::from_parts(meta.atime(), meta.atime_nsec() as u32) != stat.atime;
        opened.file.metadata().is_ok_and(marked)
    }
}
