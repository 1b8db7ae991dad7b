//! Changes of watched directories, by inotify.
//!
//! One thread reads the events, waits a moment for more of them, and hands on each changed name once: a save is
//! several events. The descriptor is closed by the thread, which a pipe wakes up to end.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use rustix::io::Errno;

use super::*;
use crate::backend::arrivals::is_local;

/// How long events are collected. Short enough that nobody waits for them, long enough for the events of one save.
const SETTLE: Duration = Duration::from_millis(5);

struct InotifyWatch {
    shared: Arc<Shared>,
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    store: PathBuf,
    /// Nobody can change the filesystem but this machine, and its events are being read.
    sees_all: AtomicBool,
    inotify: OwnedFd,
    tokens: Mutex<Tokens>,
}

#[derive(Default)]
struct Tokens {
    by_watch: HashMap<i32, u64>,
    by_token: HashMap<u64, i32>,
}

/// Starts watching; directories are added later.
pub fn start(store: PathBuf, sink: ChangeSink) -> Result<Box<dyn Watch>> {
    let failed = |error: std::io::Error| Error::from_io(&Key::root(), "watch for changes", error);
    let inotify =
        inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(|e| failed(e.into()))?;
    let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    let sees_all = AtomicBool::new(is_local(&store));
    let shared = Arc::new(Shared { store, sees_all, inotify, tokens: Mutex::default() });
    let thread = std::thread::Builder::new()
        .name("sepia-watch".into())
        .spawn({
            let shared = shared.clone();
            move || shared.run(&stopped, &sink)
        })
        .map_err(failed)?;
    Ok(Box::new(InotifyWatch { shared, stop: Some(stop), thread: Some(thread) }))
}

impl Watch for InotifyWatch {
    fn add(&self, dir: &Key, token: u64) -> Result<()> {
        use inotify::WatchFlags as W;
        let what =
            W::CREATE | W::DELETE | W::MOVE | W::ATTRIB | W::MODIFY | W::ONLYDIR | W::DONT_FOLLOW | W::EXCL_UNLINK;
        let path = self.shared.store.join(dir.as_path());
        let watch = inotify::add_watch(&self.shared.inotify, path, what)
            .map_err(|e| Error::from_io(dir, "watch for changes", e))?;
        let mut tokens = self.shared.tokens.lock();
        tokens.by_watch.insert(watch, token);
        tokens.by_token.insert(token, watch);
        Ok(())
    }

    fn remove(&self, token: u64) {
        let watch = {
            let mut tokens = self.shared.tokens.lock();
            let Some(watch) = tokens.by_token.remove(&token) else { return };
            tokens.by_watch.remove(&watch);
            watch
        };
        // Fails when the directory is gone, and its watch with it.
        let _ = inotify::remove_watch(&self.shared.inotify, watch);
    }

    fn sees_all(&self) -> bool {
        self.shared.sees_all.load(Ordering::Relaxed)
    }
}

impl Drop for InotifyWatch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, stopped: &OwnedFd, sink: &ChangeSink) {
        loop {
            let mut fds = [PollFd::new(&self.inotify, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    self.sees_all.store(false, Ordering::Relaxed);
                    log::error!("changes from outside are no longer noticed at once: {error}");
                    return;
                }
            }
            if !fds[1].revents().is_empty() {
                return;
            }
            std::thread::sleep(SETTLE);
            let (changes, overflow) = self.read();
            let entries = changes.into_iter().map(|(token, name)| Change::Entry { token, name });
            sink(overflow.then_some(Change::Overflow).into_iter().chain(entries).collect());
        }
    }

    /// All events that are waiting, each name once.
    fn read(&self) -> (HashSet<(u64, OsString)>, bool) {
        let (mut changes, mut overflow) = (HashSet::new(), false);
        let mut buffer = Vec::with_capacity(64 << 10);
        let mut reader = inotify::Reader::new(&self.inotify, buffer.spare_capacity_mut());
        // WOULDBLOCK ends it: all are read.
        while let Ok(event) = reader.next() {
            if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) {
                overflow = true;
                continue;
            }
            let mut tokens = self.tokens.lock();
            let Some(&token) = tokens.by_watch.get(&event.wd()) else { continue };
            if event.events().contains(inotify::ReadFlags::IGNORED) {
                tokens.by_watch.remove(&event.wd());
                if tokens.by_token.get(&token) == Some(&event.wd()) {
                    tokens.by_token.remove(&token);
                }
            } else if let Some(name) = event.file_name() {
                changes.insert((token, OsString::from_vec(name.to_bytes().to_vec())));
            }
        }
        (changes, overflow)
    }
}
