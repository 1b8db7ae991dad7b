//! `sepia mount`.

use std::ffi::OsString;

use super::Failure;

/// Mount a store as a directory.
#[derive(Debug, clap::Args)]
pub struct MountArgs {
    /// The store: a directory or a URL.
    store: OsString,
    /// The directory to mount it on.
    dir: OsString,
}

/// Runs `sepia mount`.
pub fn run(args: MountArgs) -> Result<(), Failure> {
    Err(Failure::error(format!("can't mount {:?} on {:?}: not in this build", args.store, args.dir)))
}

/// Runs as mount(8)'s helper `mount.fuse.sepia`; `args` without the program's name.
pub fn run_helper(args: Vec<OsString>) -> Result<(), Failure> {
    Err(Failure::error(format!("can't mount {args:?}: not in this build")))
}
