//! What the kernel has cached: told that it is no longer true, and filled, without ever waiting for ourselves.
//!
//! Names are not invalidated, they expire: to drop an entry the kernel takes the lock of the directory's inode, which
//! may be held by a request that this process has yet to answer. A process that is killed while it waits there keeps
//! the connection open, so that nobody's request is ever aborted, and everybody who uses the mount hangs.
//!
//! To drop pages the kernel waits for those that are being read: that is asked for from a thread that answers no
//! request. To drop *attributes* only (a negative offset in `fuse_reverse_inval_inode`) the kernel takes but the
//! connection's `killsb` for reading and a spin lock, and waits for nothing of ours: that is done at once, in the
//! caller's thread, so that a handler can count on it before it replies.
//!
//! To fill pages (`fuse_notify_store`) it takes the lock of each, as one that is read has until this process has answered:
//! that is done at once too, and only for a file of which nothing can be being read.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};

use fuser::{INodeNo, Notifier};
use rustix::io::Errno;

use crate::fs::{Ino, KernelCache};

/// The way to the kernel. Its thread ends when it is dropped.
pub(super) struct Cache {
    notifier: Notifier,
    queue: Sender<Ino>,
}

impl Cache {
    pub(super) fn start(notifier: Notifier) -> io::Result<Self> {
        let (queue, stale) = channel();
        let own = notifier.clone();
        std::thread::Builder::new().name("sepia-inval".into()).spawn(move || drain(&own, &stale))?;
        Ok(Cache { notifier, queue })
    }
}

impl KernelCache for Cache {
    fn invalidate(&self, ino: Ino, data: bool) {
        if data {
            // The thread is gone only when the mount is.
            let _ = self.queue.send(ino);
        } else {
            report(self.notifier.inval_inode(INodeNo(ino), -1, 0));
        }
    }

    fn fill(&self, ino: Ino, bytes: &[u8]) {
        report(self.notifier.store(INodeNo(ino), 0, bytes));
    }
}

fn drain(notifier: &Notifier, stale: &Receiver<Ino>) {
    for ino in stale {
        report(notifier.inval_inode(INodeNo(ino), 0, 0));
    }
}

fn report(result: io::Result<()>) {
    if let Err(error) = result {
        match Errno::from_io_error(&error) {
            // Nothing was cached, or the mount is ending.
            Some(Errno::NOENT | Errno::NOTDIR | Errno::NOTCONN | Errno::NODEV | Errno::PERM) => {}
            _ => log::warn!("the kernel may show something out of date: {error}"),
        }
    }
}
