//! Names that are no more, by which the kernel may still know an inode.
//!
//! The kernel uses a name without asking for as long as it was told to, and names are never taken back
//! (`fuse/invalidate.rs`). When somebody else has renamed a file, and it was found here under its new name, a request
//! that comes by the old one looks like one that comes by the new one: it says which inode is meant, and no more. So
//! while the kernel may know a name that is no more, it is told the true one for no time at all, and each use of that
//! begins with a LOOKUP by the thread that uses it. A request that doesn't follow one is answered with ESTALE: then the
//! kernel walks the path again, and asks for each name on it (`retry_estale`, LOOKUP_REVAL). The name that is no more is
//! not found, and the kernel drops it.
//!
//! A LOOKUP that runs beside a rename by this mount can bring a true name here. That costs such a walk, no more. What is
//! walked again must not be answered with ESTALE once more, for that reaches the program.

use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::types::Ino;
use super::writers::Thread;
use super::{Fs, Result};
use crate::backend::FileKind;

/// A name in a directory.
type Name = (Ino, OsString);

/// For how long a LOOKUP vouches for what its thread asks next. A system call takes less as a rule, and the kernel can
/// walk its path again.
const VOUCHES: Duration = Duration::from_millis(50);

/// For how long a thread that was answered with ESTALE isn't again: it walks its path for the second time.
const WALKS: Duration = Duration::from_secs(1);

/// What is known of an inode that the kernel may know by names that are no more.
#[derive(Debug, Default)]
struct Misnamed {
    names: Vec<Name>,
    /// Who has looked it up by a true name.
    looks: Vec<Look>,
}

#[derive(Debug)]
struct Look {
    thread: Thread,
    until: Instant,
    /// The thread has asked for attributes since then. A system call does that once: the next one comes with another
    /// call, perhaps by another name.
    asked: bool,
}

/// The names that are no more. Empty as a rule.
#[derive(Debug)]
pub struct FormerNames {
    /// How long the kernel may know a name after it was told of it.
    ttl: Duration,
    /// To which inode a name leads in the kernel, and since when it is known not to.
    names: HashMap<Name, (Ino, Instant)>,
    /// All of them, and some that are no longer there, by the time at which they were noted.
    queue: VecDeque<(Instant, Name)>,
    inodes: HashMap<Ino, Misnamed>,
    /// Who was answered with ESTALE, and until when the kernel may walk the path again for them.
    refused: HashMap<Thread, Instant>,
}

impl FormerNames {
    pub fn new(ttl: Duration) -> Self {
        FormerNames {
            ttl,
            names: HashMap::new(),
            queue: VecDeque::new(),
            inodes: HashMap::new(),
            refused: HashMap::new(),
        }
    }

    /// The inode isn't at this name any more, though the kernel may have it there.
    pub fn note(&mut self, ino: Ino, parent: Ino, name: &OsStr, now: Instant) {
        self.expire(now);
        self.end(parent, name);
        let name = (parent, name.to_owned());
        self.names.insert(name.clone(), (ino, now));
        self.inodes.entry(ino).or_default().names.push(name.clone());
        self.queue.push_back((now, name));
    }

    /// The kernel has been told, or is being told, what is at this name now.
    pub fn end(&mut self, parent: Ino, name: &OsStr) {
        if self.names.is_empty() {
            return;
        }
        let name = (parent, name.to_owned());
        if let Some((ino, _)) = self.names.remove(&name)
            && let Some(misnamed) = self.inodes.get_mut(&ino)
        {
            misnamed.names.retain(|other| *other != name);
            if misnamed.names.is_empty() {
                self.inodes.remove(&ino);
            }
        }
        if self.names.is_empty() {
            self.queue.clear();
        }
    }

    /// The kernel has forgotten the inode, and all names that led to it.
    pub fn end_all(&mut self, ino: Ino) {
        for (parent, name) in self.inodes.remove(&ino).map(|misnamed| misnamed.names).unwrap_or_default() {
            self.end(parent, &name);
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some((noted, _)) = self.queue.front()
            && now.saturating_duration_since(*noted) >= self.ttl
            && let Some((noted, (parent, name))) = self.queue.pop_front()
        {
            let name = (parent, name);
            // It may have been noted again since.
            if self.names.get(&name).is_some_and(|(_, since)| *since == noted) {
                self.end(name.0, &name.1);
            }
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether the kernel may come to the inode by a name that is no more.
    pub fn lead_to(&mut self, ino: Ino, now: Instant) -> bool {
        if self.names.is_empty() {
            return false;
        }
        self.expire(now);
        self.inodes.contains_key(&ino)
    }

    /// A thread has looked up a name: it has found `ino` there, or nothing.
    fn looked_up(&mut self, thread: Thread, ino: Option<Ino>, now: Instant) {
        let walks = self.refused.remove(&thread).is_some_and(|until| now < until);
        if let Some(misnamed) = ino.and_then(|ino| self.inodes.get_mut(&ino)) {
            misnamed.vouch(thread, false, if walks { WALKS } else { VOUCHES }, now);
        }
    }

    /// Whether a thread may have come to the inode by a name that is no more. `attributes`: it asks for these only.
    fn doubt(&mut self, thread: Thread, ino: Ino, attributes: bool, now: Instant) -> bool {
        if !self.lead_to(ino, now) {
            return false;
        }
        let Some(misnamed) = self.inodes.get_mut(&ino) else { return false };
        // Thread 0 is any that is in another PID namespace: they can't be told apart.
        let counted = attributes && thread != 0;
        let look = misnamed.looks.iter_mut().find(|look| look.thread == thread && now < look.until);
        if let Some(look) = look
            && !(counted && look.asked)
        {
            look.asked |= attributes;
            return false;
        }
        // The path was walked again. Where another thread was looking the name up, this one has waited for its answer.
        let walks = self.refused.get(&thread).is_some_and(|until| now < *until);
        if walks {
            misnamed.vouch(thread, attributes, WALKS, now);
            self.refused.remove(&thread);
        }
        !walks
    }

    /// A thread was answered with ESTALE.
    fn refused(&mut self, thread: Thread, now: Instant) {
        self.refused.retain(|_, until| now < *until);
        self.refused.insert(thread, now + WALKS);
    }
}

impl Misnamed {
    fn vouch(&mut self, thread: Thread, asked: bool, how_long: Duration, now: Instant) {
        self.looks.retain(|look| now < look.until);
        match self.looks.iter_mut().find(|look| look.thread == thread) {
            Some(look) => (look.until, look.asked) = (look.until.max(now + how_long), asked),
            None => self.looks.push(Look { thread, until: now + how_long, asked }),
        }
    }
}

impl Fs {
    /// The kernel is about to hear what a thread has found at a name.
    pub fn looked_up(&self, thread: Thread, found: Option<(Ino, FileKind)>) {
        // The path goes on below a directory.
        if found.is_none_or(|(_, kind)| kind != FileKind::Directory) {
            self.nodes.lock().former.looked_up(thread, found.map(|(ino, _)| ino), Instant::now());
        }
    }

    /// To be called before a request that the kernel sends by path: `attributes` for those that only ask for these.
    ///
    /// # Errors
    /// ESTALE when it may have come by a name that is no more, which makes the kernel look.
    pub fn check_name(&self, thread: Thread, ino: Ino, attributes: bool) -> Result<()> {
        let mut nodes = self.nodes.lock();
        if nodes.former.is_empty() {
            return Ok(());
        }
        // The requests of a handle come without a LOOKUP, and nobody asks them again.
        let open = nodes.get(ino).is_some_and(|node| node.may_be_open());
        if !open && nodes.former.doubt(thread, ino, attributes, Instant::now()) { Err(Errno::STALE) } else { Ok(()) }
    }

    /// A thread's request by path was answered with ESTALE.
    pub fn refused(&self, thread: Thread) {
        self.nodes.lock().former.refused(thread, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(60);
    const MS: Duration = Duration::from_millis(1);

    fn with_one() -> (FormerNames, Instant) {
        let (mut former, now) = (FormerNames::new(TTL), Instant::now());
        former.note(10, 1, OsStr::new("old"), now);
        (former, now)
    }

    fn is_empty(former: &FormerNames) -> bool {
        former.names.is_empty() && former.queue.is_empty() && former.inodes.is_empty()
    }

    #[test]
    fn a_name_is_here_until_it_is_looked_up() {
        let (mut former, now) = with_one();
        former.note(10, 1, OsStr::new("older"), now);
        assert!(former.lead_to(10, now) && !former.lead_to(11, now));
        former.end(1, OsStr::new("old"));
        former.end(2, OsStr::new("older"));
        assert!(former.lead_to(10, now), "the other name");
        former.end(1, OsStr::new("older"));
        assert!(!former.lead_to(10, now));
        assert!(is_empty(&former));
        former.note(10, 1, OsStr::new("old"), now);
        former.end_all(10);
        assert!(is_empty(&former), "of what the kernel has forgotten");
    }

    #[test]
    fn a_name_is_here_no_longer_than_the_kernel_may_know_it() {
        let (mut former, now) = with_one();
        former.note(10, 1, OsStr::new("old"), now + TTL / 2);
        assert!(former.lead_to(10, now + TTL), "it was noted again");
        assert!(!former.lead_to(10, now + TTL / 2 + TTL));
        assert!(is_empty(&former));
    }

    #[test]
    fn who_has_just_looked_it_up_comes_by_a_true_name() {
        let (mut former, now) = with_one();
        assert!(former.doubt(7, 10, true, now), "nobody has looked it up");
        former.looked_up(7, Some(10), now);
        assert!(former.doubt(8, 10, true, now), "another thread");
        assert!(!former.doubt(7, 10, true, now));
        assert!(!former.doubt(7, 10, false, now), "the rest of the same call");
        assert!(former.doubt(7, 10, true, now), "the next call, without a look");
        former.looked_up(7, Some(10), now);
        assert!(former.doubt(7, 10, false, now + VOUCHES), "that was long ago");
        assert!(!former.doubt(7, 11, true, now), "what has its names");
    }

    #[test]
    fn nobody_is_refused_twice() {
        let (mut former, now) = with_one();
        for _ in 0..3 {
            assert!(former.doubt(7, 10, true, now));
            former.refused(7, now);
            assert!(!former.doubt(7, 10, true, now + MS), "though another thread has looked it up");
            assert!(!former.doubt(7, 10, false, now + MS));
        }
        former.refused(7, now);
        former.looked_up(7, Some(10), now);
        assert!(!former.doubt(7, 10, true, now + VOUCHES) && !former.doubt(7, 10, false, now + 2 * VOUCHES), "slowly");
        former.refused(7, now);
        former.looked_up(7, None, now);
        assert!(former.doubt(7, 10, true, now), "what it was refused for wasn't there: this is another call");
    }
}
