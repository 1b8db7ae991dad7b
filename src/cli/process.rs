//! Other processes, and what this one inherited.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::{Errno, FdFlags};
use rustix::process::{Pid, PidfdFlags, Resource};

/// Another process, which stays the one that is meant even when its id is used again.
#[derive(Debug)]
pub struct Process {
    id: u32,
    handle: rustix::fd::OwnedFd,
}

impl Process {
    /// The living process with this id; `None` when there is none.
    pub fn find(id: u32) -> io::Result<Option<Self>> {
        let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) else { return Ok(None) };
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => Ok(Some(Process { id, handle })),
            Err(Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it has ended; false when `limit` passed before. Says so when it takes long.
    pub fn wait(&self, limit: Option<Duration>, doing: &str) -> io::Result<bool> {
        if self.wait_quietly(Some(limit.map_or(Duration::from_secs(2), |limit| limit.min(Duration::from_secs(2)))))? {
            return Ok(true);
        }
        let id = self.id;
        if self.is_stopped() {
            eprintln!("sepia: waiting for process {id}, which is stopped; to let it go on: kill -CONT {id}");
        } else {
            eprintln!("sepia: waiting for process {id}, which is {doing}");
        }
        self.wait_quietly(limit)
    }

    /// Whether a signal, or a debugger, has stopped it.
    fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id)).unwrap_or_default();
        // The name, in parentheses, can have any bytes.
        let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
        matches!(state, Some("T" | "t"))
    }

    fn wait_quietly(&self, limit: Option<Duration>) -> io::Result<bool> {
        let start = Instant::now();
        loop {
            let left = limit.map(|limit| limit.saturating_sub(start.elapsed()));
            let timeout =
                left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
            let mut handle = [PollFd::new(&self.handle, PollFlags::IN)];
            match rustix::event::poll(&mut handle, timeout.as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Lets this process open as many files as the system allows it.
pub fn raise_file_limit() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, limit) {
        log::warn!("can't raise the limit on open files: {error}");
    }
}

/// Keeps a program that is started from now on from inheriting more than the three standard descriptors: a mount that
/// lasts for weeks must not keep the caller's files, locks and pipes open.
pub fn keep_descriptors_to_oneself() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if number > 2 {
            // SAFETY: no other thread runs, so the descriptor that was just listed is open still; the one of the
            // listing itself is, until the loop ends.
            let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
            rustix::io::fcntl_setfd(descriptor, FdFlags::CLOEXEC)?;
        }
    }
    Ok(())
}
