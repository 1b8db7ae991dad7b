//! Live mounts of a store, and the names that a command has changed in it.
//!
//! The kernel may believe a name, or that there is none, for a second after the mount has told it so, and the mount
//! can't take that back without risk (`docs/design.md`, Coherence). A program can: where it asks to make a name, the
//! kernel looks it up anew. So each changed name is asked for below each mount that this process sees, in a way that can't
//! come to anything: as a hard link of a file on another filesystem.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD};

use crate::fuse::mountinfo;
use crate::store::Store;
use crate::types::Key;

/// After this long the kernel looks by itself, so there is no use in waiting for a mount that hangs.
const PATIENCE: Duration = Duration::from_secs(1);

/// What can be linked nowhere but in /proc.
const ELSEWHERE: &str = "/proc/self/exe";

/// Has the mounts of a store show what was just done to names. Where that fails, they show it a second later.
pub fn show_names<'a>(store: &Store, changed: impl IntoIterator<Item = &'a Key>) {
    let mounts = mounts_of(store);
    if mounts.is_empty() {
        return;
    }
    // With the directories above, which may be as new; they come first in this order.
    let mut names = BTreeSet::new();
    for key in changed {
        names.extend(key.as_path().ancestors().filter(|path| !path.as_os_str().is_empty()).map(Path::to_owned));
    }
    let (done, wait) = channel();
    let look = move || {
        for name in mounts.iter().flat_map(|mount| names.iter().map(|name| mount.join(name))) {
            // It fails whether or not there is such a name.
            let _ = rustix::fs::linkat(CWD, ELSEWHERE, CWD, &name, AtFlags::empty());
        }
        let _ = done.send(());
    };
    if std::thread::Builder::new().spawn(look).is_ok() {
        let _ = wait.recv_timeout(PATIENCE);
    }
}

/// Where the store is mounted, as far as this process can see.
pub fn mounts_of(store: &Store) -> Vec<PathBuf> {
    let users = store.users().unwrap_or_default();
    let places = users.iter().filter(|user| user.mount).filter_map(|user| user.activity.strip_prefix("mount "));
    let is_there = |place: &PathBuf| {
        mountinfo::at(place).is_ok_and(|found| found.is_some_and(|mount| mount.kind == mountinfo::TYPE))
    };
    places.map(PathBuf::from).filter(is_there).collect()
}
