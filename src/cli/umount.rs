//! `sepia umount`.

use std::ffi::OsString;

use super::Failure;

/// Unmount, after everything under way was saved.
#[derive(Debug, clap::Args)]
pub struct UmountArgs {
    /// The directory that the store is mounted on.
    dir: OsString,
}

/// Runs `sepia umount`.
pub fn run(args: UmountArgs) -> Result<(), Failure> {
    Err(Failure::error(format!("can't unmount {:?}: not in this build", args.dir)))
}
