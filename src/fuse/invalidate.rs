//! Tells the kernel that what it has cached is no longer true, without ever waiting for itself.
//!
//! To drop an entry the kernel takes the lock of the directory's inode, and to drop pages it waits for those that are
//! being read. Either may be held by a request that this process has yet to answer, so both are asked for from a
//! thread that answers none. To drop *attributes* only (a negative offset in `fuse_reverse_inval_inode`) the kernel
//! takes but the connection's `killsb` for reading and a spin lock, and waits for nothing of ours: that is done at
//! once, in the caller's thread, so that a handler can count on it before it replies.

use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};

use fuser::{INodeNo, Notifier};
use rustix::io::Errno;

use crate::fs::{Ino, Invalidate};

/// The way to the kernel. Its thread ends when it is dropped.
pub(super) struct Invalidator {
    notifier: Notifier,
    queue: Sender<Stale>,
}

enum Stale {
    Entry(Ino, OsString),
    Data(Ino),
}

impl Invalidator {
    pub(super) fn start(notifier: Notifier) -> io::Result<Self> {
        let (queue, stale) = channel();
        let own = notifier.clone();
        std::thread::Builder::new().name("sepia-inval".into()).spawn(move || drain(&own, &stale))?;
        Ok(Invalidator { notifier, queue })
    }
}

impl Invalidate for Invalidator {
    fn entry(&self, parent: Ino, name: &OsStr) {
        // The thread is gone only when the mount is.
        let _ = self.queue.send(Stale::Entry(parent, name.to_owned()));
    }

    fn inode(&self, ino: Ino, data: bool) {
        if data {
            let _ = self.queue.send(Stale::Data(ino));
        } else {
            report(self.notifier.inval_inode(INodeNo(ino), -1, 0));
        }
    }
}

fn drain(notifier: &Notifier, stale: &Receiver<Stale>) {
    for stale in stale {
        report(match stale {
            Stale::Entry(parent, name) => notifier.inval_entry(INodeNo(parent), &name),
            Stale::Data(ino) => notifier.inval_inode(INodeNo(ino), 0, 0),
        });
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
