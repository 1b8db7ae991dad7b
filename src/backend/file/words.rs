//! Three numbers in the file of the tree lock, mapped into every process that uses the store.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

/// Bytes of the file.
const LENGTH: usize = 24;

/// What concerns everybody. Whoever dies may leave the latter two set, so nothing may wait for these alone.
#[derive(Debug)]
pub struct Words {
    /// How often directories were renamed; whether somebody waits for the exclusive lock; whether all is held still.
    words: &'static [AtomicU64; 3],
    /// The medium can be written; otherwise nobody here changes anything.
    writable: bool,
}

impl Words {
    /// Maps the file of the tree lock.
    pub fn map(file: &OwnedFd) -> io::Result<Self> {
        let writable = rustix::fs::fcntl_getfl(file)?.contains(OFlags::RDWR);
        if writable {
            give_room(file)?;
        }
        // Without write access and never written to: as if it were zeros.
        let empty = rustix::fs::fstat(file)?.st_size == 0;
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a fresh shared mapping at an address that the kernel chooses (so page-aligned), of a file that is not
        // empty and never shortened, so that its first page can be read, and has room on the medium, so that it can be
        // written (what finds none is ended by SIGBUS); the mapping is only taken away by drop below.
        // An AtomicU64 has the layout of a u64. Without write access it is only ever loaded from.
        let words = unsafe {
            let at = match empty {
                true => rustix::mm::mmap_anonymous(std::ptr::null_mut(), LENGTH, protection, MapFlags::PRIVATE)?,
                false => rustix::mm::mmap(std::ptr::null_mut(), LENGTH, protection, MapFlags::SHARED, file, 0)?,
            };
            &*at.cast::<[AtomicU64; 3]>()
        };
        Ok(Words { words, writable })
    }

    pub fn moves(&self) -> u64 {
        self.words[0].load(Ordering::Acquire)
    }

    pub fn moved(&self) {
        if self.writable {
            self.words[0].fetch_add(1, Ordering::AcqRel);
        }
    }

    pub fn is_wanted(&self) -> bool {
        self.words[1].load(Ordering::Relaxed) != 0
    }

    pub fn want(&self, wanted: bool) {
        self.set(1, wanted);
    }

    pub fn is_still(&self) -> bool {
        self.words[2].load(Ordering::SeqCst) != 0
    }

    /// Only under the tree lock: exclusive to set it, shared to take back what a dead process has left.
    pub fn hold_still(&self, still: bool) {
        self.set(2, still);
    }

    fn set(&self, word: usize, to: bool) {
        // Not written when it is so already: the page is shared by all processors.
        if self.writable && (self.words[word].load(Ordering::SeqCst) != 0) != to {
            self.words[word].store(to.into(), Ordering::SeqCst);
        }
    }
}

/// Has the medium set aside what the file needs, now that it can still say that it is full: a file that was only made
/// longer, or a copy of one, is a hole. What other processes have written there stays.
fn give_room(file: &OwnedFd) -> io::Result<()> {
    let stat = rustix::fs::fstat(file)?;
    if stat.st_size >= LENGTH as i64 && stat.st_blocks > 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, LENGTH as u64) {
        // A filesystem that can't promise space.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) if stat.st_size < LENGTH as i64 => {
            Ok(rustix::fs::ftruncate(file, LENGTH as u64)?)
        }
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        other => Ok(other?),
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: the mapping that map() made; nothing else refers to it, for the reference never leaves self.
        let _ = unsafe { rustix::mm::munmap(self.words.as_ptr().cast_mut().cast(), LENGTH) };
    }
}
