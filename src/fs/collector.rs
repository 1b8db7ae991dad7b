//! The collector of a mount: when to ask the store to collect. What is done then, the store decides.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::Fs;
use crate::store::{Collected, Error, Store};

/// When there was nothing that could go though space is short, so long nobody looks again.
const IN_VAIN: Duration = Duration::from_secs(600);
/// How long the end of a mount waits for a run to stop: it does between two batches.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the mount and one of its threads in the background know of each other.
#[derive(Debug, Default)]
pub struct Background {
    ended: AtomicBool,
    /// Wakes who waits for the next run, with `ending`, when the mount ends.
    wake: Condvar,
    ending: Mutex<()>,
    /// Held during a run. The store is in use as long.
    busy: Mutex<()>,
}

impl Background {
    /// The mount ends: a run that is under way stops, and none begins. `who` it is, is said if it doesn't stop soon.
    pub fn end(&self, who: &str) {
        {
            let _ending = self.ending.lock();
            self.ended.store(true, Ordering::Relaxed);
        }
        self.wake.notify_all();
        if self.busy.try_lock_for(PATIENCE).is_none() {
            log::warn!("{who} is still busy; what it has begun, the next one goes on with");
        }
    }

    /// Waits so long, or until the mount ends.
    pub fn rest(&self, how_long: Duration) {
        let mut ending = self.ending.lock();
        let until = Instant::now() + how_long;
        while !self.has_ended() && !self.wake.wait_until(&mut ending, until).timed_out() {}
    }

    /// Begins a run, which lasts as long as the result; `None` when the mount has ended.
    pub fn begin(&self) -> Option<MutexGuard<'_, ()>> {
        let busy = self.busy.lock();
        (!self.has_ended()).then_some(busy)
    }

    /// Whether the mount has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

impl Fs {
    /// Starts to look now and then whether something is to be collected.
    pub(super) fn start_collector(self: &Arc<Self>) {
        let (fs, background, every) = (Arc::downgrade(self), self.collecting.clone(), self.options.collect_every);
        let collector = move || {
            let mut in_vain: Option<Instant> = None;
            loop {
                background.rest(every);
                let Some(_busy) = background.begin() else { return };
                let Some(store) = Weak::upgrade(&fs).map(|fs| fs.store.clone()) else { return };
                let stop = || background.has_ended();
                if in_vain.is_none_or(|since| since.elapsed() > IN_VAIN) {
                    in_vain = keep_room(&store, &stop).then(Instant::now);
                }
                match store.collect_if_due(&stop) {
                    Ok(Some(Collected { dropped, freed, .. })) if dropped > 0 => {
                        log::info!("collected {dropped} generations, {freed} bytes");
                    }
                    Ok(_) => {}
                    Err(error) => log::warn!("the history was not collected: {error}"),
                }
            }
        };
        if let Err(error) = spawn_patient("sepia-collector", collector) {
            log::warn!("nothing is collected by this mount: {error}");
        }
    }
}

/// Starts a thread whose work can wait: where processors are short it gets a tenth of what answers requests gets.
pub(super) fn spawn_patient(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    /// As nice(1) gives.
    const NICENESS: i32 = 10;
    let patient = move || {
        // Linux has a priority for each thread (setpriority(2)). Without it the work is done all the same.
        if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS) {
            log::debug!("work in the background has the priority of requests: {error}");
        }
        work();
    };
    std::thread::Builder::new().name(name.into()).spawn(patient).map(drop)
}

/// Frees space if there is too little. Returns whether that was in vain.
fn keep_room(store: &Store, stop: &dyn Fn() -> bool) -> bool {
    let freed = match store.lacks_room() {
        Ok(0) => return false,
        Ok(lacking) => store.make_room(lacking, stop),
        Err(error) => Err(error),
    };
    match freed {
        Ok(freed) => freed == 0,
        Err(Error::Collecting | Error::DeletionDisabled(_) | Error::Paused(_)) => true,
        Err(error) => {
            log::warn!("no room can be made: {error}");
            true
        }
    }
}
