//! `mount -o remount`: changes the flags of a mount that is there.
//!
//! The kernel enforces them and tells the daemon nothing. So a change is made only where the daemon need not know, and
//! one that would not do what it says is refused.

use std::path::Path;

use rustix::fs::StatVfsMountFlags;
use rustix::mount::MountFlags;

use super::Failure;
use super::mounts::Mounts;
use crate::fuse::{PID_ATTRIBUTE, STORE_ATTRIBUTE, mountinfo};
use crate::store::{Location, Store};

/// Gives the mount at `dir`, which is absolute, the flags that mount(8) found: all of them, as mount(2) wants it.
pub fn run(dir: &Path, flags: MountFlags) -> Result<(), Failure> {
    let shown = dir.display();
    let cant = |error: rustix::io::Errno| Failure::error(format!("{shown}: can't change the mount: {error}"));
    let mounts = Mounts::read()?;
    let Some(mount) = mounts.sepia_at(dir) else {
        return Err(Failure::error(format!("{shown}: no Sepia store is mounted there, so nothing can be changed")));
    };
    let now = rustix::fs::statvfs(dir).map_err(cant)?.f_flag;
    for (name, wanted, current) in [
        ("noatime", MountFlags::NOATIME, StatVfsMountFlags::NOATIME),
        ("nodiratime", MountFlags::NODIRATIME, StatVfsMountFlags::NODIRATIME),
    ] {
        if flags.contains(wanted) != now.contains(current) {
            let without = if now.contains(current) { "with" } else { "without" };
            return Err(Failure::error(format!("{shown} was mounted {without} {name}, which a remount can't change"))
                .hint("unmount it, and mount it as you want it"));
        }
    }
    if now.contains(StatVfsMountFlags::RDONLY) && !flags.contains(MountFlags::RDONLY) {
        check_writable(dir, &mounts, mount)?;
    }
    rustix::mount::mount_remount(dir, flags, "").map_err(cant)
}

/// Fails when writing through the mount would: its medium can't be written, or couldn't be when it was mounted. Then
/// the other users of the store don't know of the mount, and would not ask again for what it changes.
fn check_writable(dir: &Path, mounts: &Mounts, mount: &mountinfo::Entry) -> Result<(), Failure> {
    let shown = dir.display();
    let mut value = [0; 4096];
    let attribute = |name: &str, value: &mut [u8]| {
        rustix::fs::getxattr(dir, name, value).map_err(|error| Failure::error(format!("{shown}: {error}")))
    };
    let len = attribute(STORE_ATTRIBUTE, &mut value)?;
    if value[..len] == *Location::Memory.to_string().as_bytes() {
        return Ok(());
    }
    let (location, _) = mounts.store_of(mount)?;
    let store = Store::open_at(location.clone())?;
    store.backend().staging().announce(&format!("remount {shown}"), false).map_err(|error| {
        Failure::error(format!("{location}: can't write to the store: {error}")).hint("the mount stays read-only")
    })?;
    let len = attribute(PID_ATTRIBUTE, &mut value)?;
    let known = store.users()?.iter().any(|user| user.mount && user.pid.to_string().as_bytes() == &value[..len]);
    if known {
        return Ok(());
    }
    Err(Failure::error(format!("{location} couldn't be written to when it was mounted on {shown}"))
        .hint("unmount it, and mount it again"))
}
