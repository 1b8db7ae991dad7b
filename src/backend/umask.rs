//! The umask, which the kernel keeps for a process, but for a thread too that wants one of its own.
//!
//! Files are made on behalf of others, whose umask must be the kernel's at that moment: only it knows whether a default
//! ACL takes its place.

use std::cell::Cell;

use rustix::fs::Mode;
use rustix::process::umask;

/// A umask that a thread has for itself.
#[derive(Clone, Copy)]
struct Own {
    current: u32,
    /// What it was before, which is the process's.
    of_process: u32,
}

thread_local! {
    /// `None` until the thread has one of its own.
    static OWN: Cell<Option<Own>> = const { Cell::new(None) };
}

/// The process's.
pub fn of_process() -> u32 {
    match OWN.get() {
        Some(own) => own.of_process,
        None => {
            let mask = umask(Mode::empty());
            umask(mask);
            mask.as_raw_mode()
        }
    }
}

/// Does something under a umask, of this thread alone.
pub fn with_umask<T>(mask: u32, act: impl FnOnce() -> T) -> T {
    let mask = mask & 0o777;
    let own = OWN.get();
    if own.is_some_and(|own| own.current == mask) {
        return act();
    }
    let mode = Mode::from_raw_mode(mask);
    if own.is_none() && !unshare_umask() {
        // Shared with all threads after all (a sandbox that forbids it): set it for just this call.
        let before = umask(mode);
        let result = act();
        umask(before);
        return result;
    }
    let before = umask(mode).as_raw_mode();
    OWN.set(Some(Own { current: mask, of_process: own.map_or(before, |own| own.of_process) }));
    act()
}

/// Gives this thread a umask (and a current directory) of its own. The main thread keeps the process's.
fn unshare_umask() -> bool {
    // SAFETY: CLONE_FS touches neither memory nor descriptors.
    !is_main_thread() && unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }.is_ok()
}

fn is_main_thread() -> bool {
    rustix::thread::gettid() == rustix::process::getpid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_has_for_itself_is_not_the_processs() {
        let seen = std::thread::spawn(|| {
            let before = of_process();
            let other = before ^ 0o070;
            let within = with_umask(other, || {
                let mask = umask(Mode::empty());
                umask(mask);
                mask.as_raw_mode()
            });
            (before, other, within, of_process())
        });
        let (before, other, within, after) = seen.join().unwrap();
        assert_eq!((within, after), (other, before));
    }
}
