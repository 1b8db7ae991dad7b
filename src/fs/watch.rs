//! Keeping the kernel's caches true: changes from outside, and other mounts of the same store.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::node::Seen;
use super::nodes::ROOT;
use super::types::{Ino, KernelCache};
use super::{Fs, peers};
use crate::backend::{Change, Watch};
use crate::types::Key;

/// How often to wait until what was saved is on the medium: a power loss can tear what was saved since, and what is
/// looked at after one is that. The kernel writes at such intervals anyway.
const SETTLE_EVERY: Duration = Duration::from_secs(30);

/// The watch on the store, and the way to tell the kernel.
#[derive(Default)]
pub struct Watching {
    kernel: OnceLock<Arc<dyn KernelCache>>,
    watch: Mutex<Option<Arc<dyn Watch>>>,
}

impl Watching {
    /// Reports changes in a directory from now on. Returns whether the system lets us.
    pub fn add(&self, dir: &Key, ino: Ino) -> bool {
        let Some(watch) = self.watch.lock().clone() else { return false };
        let added = watch.add(dir, ino);
        if let Err(error) = &added {
            // A shorter time to live of what the kernel caches makes up for it.
            log::debug!("{dir}: changes from outside are seen later: {error}");
        }
        added.is_ok()
    }

    /// Whether no change in a watched directory goes unnoticed, whoever makes it.
    pub fn sees_all(&self) -> bool {
        self.watch.lock().as_ref().is_some_and(|watch| watch.sees_all())
    }

    pub fn remove(&self, ino: Ino) {
        let watch = self.watch.lock().clone();
        if let Some(watch) = watch {
            watch.remove(ino);
        }
    }

    /// The kernel's attributes of an inode, and with `data` its pages, are no longer true.
    pub fn invalidate(&self, ino: Ino, data: bool) {
        if let Some(kernel) = self.kernel.get() {
            kernel.invalidate(ino, data);
        }
    }

    /// Gives the kernel the bytes of a file that nobody has open.
    pub fn fill(&self, ino: Ino, bytes: &[u8]) {
        if let Some(kernel) = self.kernel.get() {
            kernel.fill(ino, bytes);
        }
    }

    pub fn invalidate_attributes(&self, ino: Ino) {
        self.invalidate(ino, false);
    }

    pub fn stop(&self) {
        // Outside the lock: the watch's thread may be waiting for it.
        let watch = self.watch.lock().take();
        drop(watch);
    }
}

impl Fs {
    /// Starts to look for changes that others make; to be called once the kernel can be told.
    pub fn start(self: &Arc<Self>, kernel: Arc<dyn KernelCache>) {
        if self.watching.kernel.set(kernel).is_err() {
            return;
        }
        let fs = Arc::downgrade(self);
        let sink = Box::new(move |changes: Vec<Change>| {
            if let Some(fs) = Weak::upgrade(&fs) {
                // An answer from before a change that reached the kernel after the invalidation would stay there.
                fs.peers.let_answers_go();
                changes.iter().for_each(|change| fs.changed(change));
            }
        });
        match self.store.backend().watch(sink) {
            Ok(Some(watch)) => {
                *self.watching.watch.lock() = Some(watch.into());
                if self.watching.add(&Key::root(), ROOT)
                    && let Some(root) = self.nodes.lock().get_mut(ROOT)
                {
                    root.set_watched();
                }
            }
            Ok(None) => {}
            Err(error) => log::warn!("changes from outside are seen up to a second late: {error}"),
        }
        self.start_collector();
        self.start_checksums();
        if self.store.backend().capabilities().persistent {
            let fs = Arc::downgrade(self);
            let users = self.store.backend().staging().watch_users();
            let watcher = move || {
                while let Some(fs) = Weak::upgrade(&fs) {
                    let alone = !fs.look_for_peers();
                    drop(fs);
                    match &users {
                        Some(users) if alone => users.wait(peers::SELDOM),
                        _ => std::thread::sleep(peers::EVERY),
                    }
                }
            };
            if let Err(error) = std::thread::Builder::new().name("sepia-peers".into()).spawn(watcher) {
                log::warn!("can't look for other mounts, so the kernel is asked to cache nothing: {error}");
                self.trust_nothing();
            }
            let fs = Arc::downgrade(self);
            // A thread of its own, for it waits for the medium.
            let settler = move || {
                while let Some(fs) = Weak::upgrade(&fs) {
                    fs.sync_store(false);
                    drop(fs);
                    std::thread::sleep(SETTLE_EVERY);
                }
            };
            if let Err(error) = std::thread::Builder::new().name("sepia-settle".into()).spawn(settler) {
                log::warn!("after a power loss there will be more to look at: {error}");
            }
        }
    }

    /// Waits until what was saved is on the medium. `end`: nothing more will be.
    pub(super) fn sync_store(&self, end: bool) {
        if let Err(error) = self.store.backend().settle(end) {
            log::warn!("{error}");
        }
    }

    /// A directory's entries have changed: unless the kernel was told so already, once for all that changed.
    fn invalidate_dir(&self, ino: Ino) {
        let Ok(stat) = self.key(ino).and_then(|key| self.store.backend().stat(&key).map_err(super::from_backend))
        else {
            return;
        };
        let now = Seen::from(&stat);
        let told = {
            let mut nodes = self.nodes.lock();
            let Some(node) = nodes.get_mut(ino) else { return };
            node.seen.replace(now) == Some(now)
        };
        if !told {
            self.watching.invalidate_attributes(ino);
        }
    }

    /// Something changed in the store, perhaps by our own doing: what the kernel knows already is left alone.
    fn changed(&self, change: &Change) {
        let Change::Entry { token: parent, name } = change else {
            let all: Vec<Ino> = self.nodes.lock().iter().map(|(ino, _)| ino).collect();
            for ino in all {
                self.note_changed(ino);
                self.watching.invalidate(ino, true);
            }
            return;
        };
        let Ok(key) = self.child(*parent, name) else { return };
        let stat = self.store.backend().stat(&key);
        let nodes = self.nodes.lock();
        // Of what was there before and isn't any more, the kernel asks for the attributes now, and hears so.
        let found = stat.as_ref().ok().map(|stat| stat.id.get());
        let former = nodes.at(*parent, name).filter(|former| Some(*former) != found);
        let known =
            stat.as_ref().ok().and_then(|stat| Some((stat.id.get(), nodes.get(stat.id.get())?, Seen::from(stat))));
        let (inode, of_name) = match known {
            // What we have told the kernel ourselves.
            Some((_, node, now)) if node.has_name(*parent, name) && node.seen == Some(now) => return,
            Some((ino, node, now)) => {
                let same = node.seen.is_some_and(|seen| seen.same_bytes(&now));
                // The pages of what isn't open are looked at when it is opened, and those of what is being written
                // came through us.
                let read = super::open_node::open_of(Some(node)).is_some_and(|open| !open.is_written());
                (Some((ino, !same && read)), node.has_name(*parent, name))
            }
            None => (None, false),
        };
        drop(nodes);
        if let Some(former) = former {
            self.note_changed(former);
            self.watching.invalidate_attributes(former);
        }
        if !of_name {
            self.invalidate_dir(*parent);
        }
        if let Some((ino, data)) = inode {
            self.note_changed(ino);
            self.watching.invalidate(ino, data);
        }
    }
}
