//! Noticing that users of a store come and go, without looking all the time.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

/// A watch on the directory in which each user of a store has one of their own.
#[derive(Debug)]
pub struct Arrivals {
    inotify: OwnedFd,
}

impl Arrivals {
    /// `None` where others than this machine may write to it, or the system lets us watch no more.
    pub(super) fn watch(dir: &Path) -> Option<Self> {
        use inotify::WatchFlags as W;
        if !is_local(dir) {
            return None;
        }
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok()?;
        inotify::add_watch(&inotify, dir, W::MOVE | W::DELETE | W::ATTRIB | W::ONLYDIR).ok()?;
        Some(Arrivals { inotify })
    }

    /// Waits until somebody has come, gone or said something else of themselves since the last call, or for so long.
    pub fn wait(&self, most: Duration) {
        let most = Timespec::try_from(most).ok();
        // What goes wrong here, or interrupts it, makes the caller look earlier.
        if poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], most.as_ref()).is_ok() {
            let mut buffer = Vec::with_capacity(4 << 10);
            let mut reader = inotify::Reader::new(&self.inotify, buffer.spare_capacity_mut());
            while reader.next().is_ok() {}
        }
    }
}

/// Whether only this machine writes to the filesystem of a directory. One that isn't known here counts as shared.
pub(super) fn is_local(dir: &Path) -> bool {
    // From linux/magic.h, and zfs and bcachefs from their sources.
    const EXT4: u64 = 0xEF53;
    const XFS: u64 = 0x5846_5342;
    const BTRFS: u64 = 0x9123_683E;
    const TMPFS: u64 = 0x0102_1994;
    const F2FS: u64 = 0xF2F5_2010;
    const OVERLAY: u64 = 0x794C_7630;
    const ZFS: u64 = 0x2FC1_2FC1;
    const BCACHEFS: u64 = 0xCA45_1A4E;
    rustix::fs::statfs(dir)
        .is_ok_and(|stat| matches!(stat.f_type as u64, EXT4 | XFS | BTRFS | TMPFS | F2FS | OVERLAY | ZFS | BCACHEFS))
}
