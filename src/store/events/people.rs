//! Who it was: the process and the program behind a request.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};

/// How long what was read in /proc is believed: long enough that a process which makes thousands of files is looked up
/// a few times a second, short enough that one which starts another program in its place (execve(2)) gets its new name.
const BELIEVED_FOR: Duration = Duration::from_millis(100);

/// How many threads are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

/// On whose behalf something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Actor {
    /// User.
    pub uid: u32,
    /// A thread or process of theirs, by its number in this process's PID namespace, if it is known.
    pub thread: Option<u32>,
}

impl Actor {
    /// This process.
    pub fn current() -> Self {
        Actor { uid: rustix::process::geteuid().as_raw(), thread: Some(std::process::id()) }
    }
}

/// Who has done something, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Who {
    /// User.
    pub uid: Option<u32>,
    /// Process.
    pub pid: Option<u32>,
    /// The program that it ran, as the kernel has its name (`/proc/PID/comm`, 15 bytes at most).
    pub program: Option<Arc<str>>,
}

/// The threads that have asked for something lately.
#[derive(Debug)]
pub struct People(Mutex<LruCache<u32, Known>>);

#[derive(Debug, Clone)]
struct Known {
    pid: u32,
    program: Option<Arc<str>>,
    at: Instant,
}

impl Default for People {
    fn default() -> Self {
        People(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl People {
    /// Who an actor is. One that has ended meanwhile is who it was when it was last looked up.
    pub fn who(&self, actor: Actor) -> Who {
        let uid = Some(actor.uid);
        let Some(thread) = actor.thread else { return Who { uid, ..Who::default() } };
        let known = self.0.lock().get(&thread).cloned();
        let found = match known {
            Some(known) if known.at.elapsed() < BELIEVED_FOR => known,
            known => {
                let Some(found) = look_up(thread).or(known) else {
                    return Who { uid, pid: Some(thread), program: None };
                };
                self.0.lock().put(thread, found.clone());
                found
            }
        };
        Who { uid, pid: Some(found.pid), program: found.program }
    }
}

fn look_up(thread: u32) -> Option<Known> {
    let pid = process_of(thread)?;
    let mut name = [0; 64];
    let program = beginning(&format!("/proc/{pid}/comm"), &mut name);
    let program = program.map(|name| String::from_utf8_lossy(name.trim_ascii_end()).into());
    Some(Known { pid, program, at: Instant::now() })
}

/// The process (thread group) that a thread belongs to, as proc_pid_status(5) has it.
pub(crate) fn process_of(thread: u32) -> Option<u32> {
    let mut status = [0; 1024];
    let status = beginning(&format!("/proc/{thread}/status"), &mut status)?;
    status.split(|&b| b == b'\n').find_map(|line| {
        let id = std::str::from_utf8(line.strip_prefix(b"Tgid:")?).ok()?;
        id.trim().parse().ok()
    })
}

/// What a file of proc(5) begins with, by one read: they have no size by which a buffer could be made.
fn beginning<'a>(path: &str, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let length = rustix::io::read(&file, &mut *buffer).ok()?;
    Some(&buffer[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_its_process_and_the_dead_are_remembered() {
        let people = People::default();
        let own = people.who(Actor::current());
        assert_eq!(own.pid, Some(std::process::id()));
        assert!(own.program.is_some());
        let thread = std::thread::spawn(|| rustix::thread::gettid().as_raw_nonzero().get() as u32);
        let other = Actor { uid: 7, thread: Some(thread.join().unwrap()) };
        assert_eq!(people.who(other).uid, Some(7));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let actor = Actor { uid: 0, thread: Some(child.id()) };
        let named = loop {
            let who = people.who(actor);
            if who.program.as_deref() == Some("sleep") {
                break who;
            }
            std::thread::sleep(BELIEVED_FOR);
        };
        child.kill().unwrap();
        child.wait().unwrap();
        std::thread::sleep(BELIEVED_FOR);
        assert_eq!(people.who(actor), named);
        let nobody = Actor { uid: 1, thread: None };
        assert_eq!(people.who(nobody), Who { uid: Some(1), pid: None, program: None });
    }
}
