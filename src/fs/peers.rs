//! Other mounts of the same store: while there are any, the kernel must ask each time.
//!
//! A mount that finds others when it starts waits until each of them says, in the staging area
//! ([`crate::backend::Owner::shares`]), that its kernel no longer believes what it was told before. For that the older
//! mount first lets the answers go out that are being given, then has the kernel drop all attributes. *Names* that the
//! kernel was told stay with it, for they can't be dropped safely (see `fuse/invalidate.rs`), but they are no longer
//! good for anything: without attributes the kernel asks for the inode on every path, and hears ESTALE where the path
//! no longer leads to it, or may not ([`super::former`]), which makes it look up the names.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::nodes::ROOT;
use super::types::Ino;
use super::{Fs, Result};
use crate::types::Key;

/// How often to look whether other mounts of the store are alive, while there are any or none can be heard coming.
pub const EVERY: Duration = Duration::from_millis(100);

/// How often to look though nobody was heard coming.
pub const SELDOM: Duration = Duration::from_secs(5);

/// How long to wait for another mount to take note of this one. It may be stopped (SIGSTOP).
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether there are other mounts, and the answers that may not know yet what has changed.
#[derive(Debug, Default)]
pub struct Peers {
    present: AtomicBool,
    /// Answers that are being given, by the parity of the era in which they began.
    answers: [AtomicUsize; 2],
    era: AtomicUsize,
}

/// An answer that is being given to the kernel. It ends when the kernel has it.
#[derive(Debug)]
pub struct Answer<'a>(&'a AtomicUsize);

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl Peers {
    pub fn present(&self) -> bool {
        self.present.load(Ordering::SeqCst)
    }

    fn begin_answer(&self) -> Answer<'_> {
        loop {
            let era = self.era.load(Ordering::SeqCst);
            let count = &self.answers[era % 2];
            count.fetch_add(1, Ordering::SeqCst);
            let answer = Answer(count);
            // Otherwise nobody may be waiting for those of this era any more.
            if self.era.load(Ordering::SeqCst) == era {
                return answer;
            }
        }
    }

    /// Waits until all answers are given that began before the call.
    pub fn let_answers_go(&self) {
        let before = self.era.fetch_add(1, Ordering::SeqCst) % 2;
        while self.answers[before].load(Ordering::Acquire) > 0 {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

impl Fs {
    /// To be held from before a request is looked at until its answer is sent, if the answer says how long the kernel
    /// may believe it.
    pub fn answer_begins(&self) -> Answer<'_> {
        self.peers.begin_answer()
    }

    /// Whether others may change what is seen and open here.
    pub(super) fn is_shared(&self) -> bool {
        self.peers.present()
    }

    /// The path of an inode that has one. The kernel may not have looked it up for a while: if somebody else may have
    /// changed what is there, it is looked at.
    ///
    /// # Errors
    /// ESTALE when it leads to something else, which makes the kernel look.
    pub(super) fn sure_key(&self, ino: Ino) -> Result<Key> {
        let key = self.key(ino)?;
        if self.is_shared() && ino != ROOT {
            match self.store.backend().stat(&key) {
                Ok(stat) if stat.id.get() == ino => {}
                Err(error) if !error.is_gone() => return Err(super::from_backend(error)),
                _ => return Err(Errno::STALE),
            }
        }
        Ok(key)
    }

    /// This mount begins: waits until those that are there already know of it.
    pub(super) fn meet_peers(&self) {
        let start = Instant::now();
        while self.look_for_peers() {
            // What the others have told their kernels of links, and of names that are *not* there, runs out by itself.
            let known = self.peers_know() && {
                std::thread::sleep(self.options.ttl);
                self.peers_know()
            };
            if known {
                return;
            }
            if start.elapsed() > PATIENCE {
                log::warn!("another mount of this store doesn't answer: it may show old names for a while");
                return;
            }
            std::thread::sleep(EVERY / 10);
        }
    }

    fn peers_know(&self) -> bool {
        self.store.users().is_ok_and(|users| users.iter().filter(|user| user.mount).all(|user| user.shares))
    }

    /// Finds out whether other mounts of this store are alive.
    pub(super) fn look_for_peers(&self) -> bool {
        // Not knowing counts as having some.
        let peers = self.store.users().map_or(true, |users| users.iter().any(|user| user.mount));
        if peers == self.peers.present() {
            return peers;
        }
        log::info!("{}", if peers { "another mount uses this store too" } else { "the only mount of this store" });
        if peers {
            self.trust_nothing();
        }
        // Who reads it may begin at once, so it is said after the kernel has been told, and taken back before.
        let said = self.store.backend().staging().share(peers);
        if let Err(error) = &said {
            log::warn!("can't tell the other users of the store that they are known: {error}");
        }
        if !peers && said.is_ok() {
            self.peers.present.store(false, Ordering::SeqCst);
        }
        peers
    }

    /// Has the kernel ask for everything from now on.
    pub(super) fn trust_nothing(&self) {
        self.peers.present.store(true, Ordering::SeqCst);
        self.peers.let_answers_go();
        let known: Vec<Ino> = self.nodes.lock().iter().map(|(ino, _)| ino).collect();
        for ino in known {
            self.watching.invalidate_attributes(ino);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_began_before_are_waited_for_and_later_ones_are_not() {
        let peers = Peers::default();
        let early = peers.begin_answer();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| peers.let_answers_go());
            while peers.era.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            let late = peers.begin_answer();
            std::thread::sleep(Duration::from_millis(20));
            assert!(!waiting.is_finished());
            drop(early);
            waiting.join().unwrap();
            drop(late);
        });
    }
}
