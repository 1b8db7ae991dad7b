//! Who has written through a handle.
//!
//! The kernel sends FLUSH for every close(2) of a descriptor, also when a forked child drops its copy by execve(2) or
//! exit. Published then, the bytes would be what the parent has written so far, perhaps the half of a record. So only
//! a process that has written through the handle saves by closing; what nobody closes is saved when the last copy of
//! the descriptor is gone.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use rustix::fs::OFlags;

use super::types::Ino;
use crate::store::events::process_of;

/// A thread, as FUSE names the sender of a request: by its thread ID in the daemon's PID namespace, 0 if it is in
/// another one.
pub type Thread = u32;

/// Who has written through a handle.
#[derive(Debug)]
pub struct Writers {
    opener: Thread,
    /// Who wrote last: most often the only one.
    last: AtomicU32,
    all: Mutex<Vec<Writer>>,
}

#[derive(Debug)]
struct Writer {
    thread: Thread,
    /// Of threads that didn't open the handle, since they may have ended when this is asked.
    process: Option<u32>,
}

impl Writers {
    pub fn new(opener: Thread) -> Self {
        Writers { opener, last: AtomicU32::new(0), all: Mutex::default() }
    }

    /// `thread` has written. Pages of a mapping are written back by anyone: they count as the opener's.
    pub fn wrote(&self, thread: Thread, mapped: bool) {
        let thread = if mapped { self.opener } else { thread };
        if thread != 0 && self.last.swap(thread, Ordering::Relaxed) == thread {
            return;
        }
        let mut all = self.all.lock();
        if all.iter().all(|writer| writer.thread != thread) {
            let process = if thread == self.opener { None } else { process_of(thread) };
            all.push(Writer { thread, process });
        }
    }

    /// Whether it is the opener who closes a descriptor of an inode, and has no other one to write by. Of other processes
    /// that have one, nobody knows.
    pub fn opener_has_done(&self, thread: Thread, ino: Ino) -> bool {
        if thread == 0 || self.opener == 0 {
            return false;
        }
        let Some(process) = process_of(thread) else { return false };
        (thread == self.opener || process_of(self.opener) == Some(process))
            && can_write(thread, ino).is_ok_and(|can_write| !can_write)
    }

    /// Whether the process of `thread` has written, or may have: of a thread that has ended nobody knows.
    pub fn include_process_of(&self, thread: Thread) -> bool {
        if thread != 0 && self.last.load(Ordering::Relaxed) == thread {
            return true;
        }
        let all = self.all.lock();
        if all.iter().any(|writer| writer.thread == thread) {
            return true;
        }
        let Some(process) = process_of(thread) else { return true };
        all.iter().any(|writer| {
            writer.thread == process
                || writer.process.or_else(|| process_of(writer.thread)).is_none_or(|it| it == process)
        })
    }
}

/// Whether a thread has a descriptor of an inode, of whatever mount, by which it can write: proc_pid_fdinfo(5). One
/// that is being closed isn't there any more. Who has very many is not looked through: it may.
fn can_write(thread: Thread, ino: Ino) -> io::Result<bool> {
    const MOST: usize = 256;
    for (count, entry) in std::fs::read_dir(format!("/proc/{thread}/fdinfo"))?.enumerate() {
        if count == MOST {
            return Ok(true);
        }
        let text = match std::fs::read_to_string(entry?.path()) {
            // Another thread has just closed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            text => text?,
        };
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let flags = field("flags:").and_then(|flags| u32::from_str_radix(flags, 8).ok());
        let writes = flags.is_none_or(|flags| !(OFlags::from_bits_retain(flags) & OFlags::ACCMODE).is_empty());
        // Linux 5.14 says which inode it is.
        if writes && field("ino:").is_none_or(|it| it.parse() == Ok(ino)) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    fn this_thread() -> Thread {
        rustix::thread::gettid().as_raw_nonzero().get() as Thread
    }

    #[test]
    fn threads_of_one_process_are_one_writer_and_another_process_is_none() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let other = child.id();
        let writers = Writers::new(this_thread());
        assert!(!writers.include_process_of(other), "nobody has written");
        std::thread::scope(|scope| scope.spawn(|| writers.wrote(this_thread(), false)).join().unwrap());
        assert!(writers.include_process_of(this_thread()), "another thread of this process, which has ended, wrote");
        assert!(!writers.include_process_of(other));
        writers.wrote(other, false);
        assert!(writers.include_process_of(other));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn an_opener_has_done_when_it_has_no_descriptor_to_write_by() {
        use std::os::unix::fs::MetadataExt;

        let file = tempfile::tempfile().unwrap();
        let ino = file.metadata().unwrap().ino();
        let writers = Writers::new(this_thread());
        assert!(!writers.opener_has_done(this_thread(), ino), "it still has this one");
        let reader = std::fs::File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        let copy = file.try_clone().unwrap();
        drop(file);
        assert!(!writers.opener_has_done(this_thread(), ino), "it has a copy");
        drop(copy);
        assert!(writers.opener_has_done(this_thread(), ino), "what it has left can only read");
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(!writers.opener_has_done(child.id(), ino), "another process closes its copy");
        child.kill().unwrap();
        child.wait().unwrap();
        drop(reader);
    }

    #[test]
    fn pages_of_a_mapping_are_its_openers() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let writers = Writers::new(this_thread());
        writers.wrote(child.id(), true);
        assert!(writers.include_process_of(this_thread()));
        assert!(!writers.include_process_of(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
