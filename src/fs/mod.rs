//! The filesystem: inodes, handles and write sessions over a store. Runs, and is tested, without a kernel.
//!
//! Decides what a request means for the store: which object an inode is, which session a write belongs to, when a
//! session is published, what the kernel may cache. Below it, [`crate::store`] decides about generations; above it,
//! [`crate::fuse`] only translates.
//!
//! Locks, in this order: `namespace` (held for reading while a path is used, for writing while a directory moves),
//! one inode's `open_node::OpenNode`, then `nodes` or `handles`, which are never held over a call to the store.

mod attr;
mod bytes;
mod checksums;
mod collector;
mod dirs;
mod errno;
mod expect;
mod files;
mod former;
mod groups;
mod names;
mod node;
mod nodes;
mod open_node;
mod pages;
mod peers;
mod removed;
mod saves;
mod types;
mod views;
mod watch;
mod writers;
mod xattr;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rustix::io::Errno;

pub use peers::Answer;
pub use types::{Attr, Caller, Changes, DirItem, Entry, Fh, FsOptions, Ino, KernelCache, OpenReply};

use crate::backend::{Creator, FileKind, FsStat, Stat};
use crate::store::{Actor, Store};
use crate::types::Key;
use dirs::DirHandle;
use errno::{errno, from_backend};
use expect::Expectations;
use files::Handle;
use nodes::Nodes;
use peers::Peers;

/// The answer to a request.
pub type Result<T> = std::result::Result<T, Errno>;

/// A mounted filesystem. Every method may be called from any thread, and answers with an errno.
pub struct Fs {
    store: Store,
    options: FsOptions,
    namespace: RwLock<()>,
    nodes: Mutex<Nodes>,
    handles: Mutex<HashMap<Fh, Arc<Handle>>>,
    dir_handles: Mutex<HashMap<Fh, Arc<DirHandle>>>,
    next_handle: AtomicU64,
    expects: Expectations,
    /// Counts what sessions have published: who has looked at an object meanwhile must look again.
    publications: Arc<AtomicU64>,
    peers: Peers,
    views: views::Views,
    watching: watch::Watching,
    collecting: Arc<collector::Background>,
    summing: Arc<collector::Background>,
    /// Others can change objects without Sepia.
    changes_from_outside: bool,
}

impl Fs {
    /// A filesystem over a store. If other mounts of the store are alive, this waits until they have noticed.
    pub fn new(store: Store, options: FsOptions) -> Self {
        let names_ttl = options.ttl.max(options.watched_ttl);
        let fs = Fs {
            changes_from_outside: store.backend().capabilities().changes_from_outside,
            store,
            options,
            namespace: RwLock::default(),
            nodes: Mutex::new(Nodes::new(names_ttl)),
            handles: Mutex::default(),
            dir_handles: Mutex::default(),
            next_handle: AtomicU64::new(1),
            expects: Expectations::default(),
            publications: Arc::default(),
            peers: Peers::default(),
            views: views::Views::default(),
            watching: watch::Watching::default(),
            collecting: Arc::default(),
            summing: Arc::default(),
        };
        fs.meet_peers();
        // What is wrong with the rules is in the log from the beginning, and not only when one is first needed.
        if let Err(error) = fs.store.check_rules() {
            log::error!("{error}");
        }
        fs
    }

    /// Publishes what open sessions have written, or sets it aside: the mount ends.
    pub fn shutdown(&self) {
        self.collecting.end("the collector");
        self.summing.end("the thread that computes checksums");
        self.watching.stop();
        let handles: Vec<_> = self.handles.lock().values().cloned().collect();
        for handle in handles {
            let key = self.nodes.lock().key(handle.ino());
            handle.end(key.as_ref());
        }
        self.sync_store(true);
    }

    /// How many inodes the kernel knows, and how many files are open: for diagnosis.
    pub fn usage(&self) -> (usize, usize) {
        (self.nodes.lock().len(), self.handles.lock().len())
    }

    /// Size and free space.
    ///
    /// # Errors
    /// What the medium says.
    pub fn statfs(&self) -> Result<FsStat> {
        self.store.backend().stat_fs().map_err(from_backend)
    }

    /// How long the kernel may remember that a name is not there. It can't be told of one that is made by others.
    pub fn negative_ttl(&self) -> Duration {
        if self.is_shared() { Duration::ZERO } else { self.options.ttl }
    }

    /// How long the kernel may use an entry's name and attributes. `overseen`: changes in its directory are reported.
    fn ttl(&self, overseen: bool, stat: &Stat) -> Duration {
        let reported = match stat.kind {
            FileKind::Directory => true,
            // The kernel follows a link that it has in its cache without asking for its attributes.
            FileKind::Symlink => false,
            // What happens under another name is not reported here.
            _ => stat.nlink == 1,
        };
        let told = reported && (overseen && self.watching.sees_all() || !self.changes_from_outside);
        match self.is_shared() {
            true => Duration::ZERO,
            false if told => self.options.watched_ttl,
            false => self.options.ttl,
        }
    }

    fn new_handle(&self) -> Fh {
        self.next_handle.fetch_add(1, Ordering::Relaxed)
    }

    fn check_writable(&self) -> Result<()> {
        if self.options.read_only { Err(Errno::ROFS) } else { Ok(()) }
    }

    /// The path of an inode that has one.
    fn key(&self, ino: Ino) -> Result<Key> {
        self.nodes.lock().key(ino).ok_or(Errno::STALE)
    }

    /// The path of an entry.
    fn child(&self, parent: Ino, name: &std::ffi::OsStr) -> Result<Key> {
        // What is created in a directory that was removed meanwhile is not found.
        let parent = self.nodes.lock().key(parent).ok_or(Errno::NOENT)?;
        parent.child(name).map_err(|error| from_backend(error.into()))
    }

    /// Looks at an object and at what a session has written to it, as of one moment: again if a session was
    /// published in between.
    fn look<T>(&self, look: impl Fn() -> Result<T>, undo: impl Fn(&T)) -> Result<T> {
        loop {
            let before = self.publications.load(Ordering::Acquire);
            let seen = look()?;
            if self.publications.load(Ordering::Acquire) == before {
                return Ok(seen);
            }
            undo(&seen);
        }
    }

    /// The state of what is at a path, for an answer to the kernel: counts one lookup.
    fn entry(&self, parent: Ino, name: &std::ffi::OsStr, mut stat: Stat) -> Entry {
        let (open, overseen, misnamed) = {
            let mut nodes = self.nodes.lock();
            let overseen = nodes.get(parent).is_some_and(|dir| dir.is_watched());
            let open = nodes.remember(parent, name, &stat).open.clone();
            (open, overseen, nodes.former.lead_to(stat.id.get(), Instant::now()))
        };
        if let Some(open) = open {
            open.overlay(&mut stat);
        }
        // Where it may know others that are no more, it is to look up this one each time.
        let ttl = if misnamed { Duration::ZERO } else { self.ttl(overseen, &stat) };
        Entry { attr: Attr { ino: stat.id.get(), stat, ttl }, ttl }
    }
}

impl Caller {
    fn creator(&self) -> Creator {
        Creator { uid: self.uid, gid: self.gid, umask: self.umask }
    }

    fn actor(&self) -> Actor {
        Actor { uid: self.uid, thread: (self.thread != 0).then_some(self.thread) }
    }
}
