//! `sepia umount`, and `umount.fuse.sepia` for umount(8).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;

use super::mounts::process_behind;
use super::process::Process;
use super::{ExitCode, Failure};
use crate::fuse;
use crate::fuse::mountinfo::{self, Entry};

/// Unmount, and wait until everything under way is saved
///
/// If the same mount is to be seen elsewhere too, by a bind mount, it goes on there, and nothing is waited for.
#[derive(Debug, clap::Args)]
pub struct UmountArgs {
    /// The directory that the store is mounted on
    dir: PathBuf,
    /// Take it out of the tree now; it ends when the last program has closed its files there, without being waited for
    #[arg(short, long)]
    lazy: bool,
}

/// Runs `sepia umount`.
pub fn run(args: UmountArgs) -> Result<(), Failure> {
    let mount = find(&args.dir)?;
    let (dir, shown) = (&mount.point, mount.point.display());
    // Learn who serves it while it is there. A dead mount has nobody to wait for.
    let id = if args.lazy { Ok(None) } else { process_behind(&mount) };
    let id = id.unwrap_or_else(|_| {
        eprintln!("sepia: {shown}: the mount doesn't answer, so nobody knows which process to wait for");
        None
    });
    let daemon = id.and_then(|id| Process::find(id).ok().flatten());
    fuse::unmount(dir, args.lazy).map_err(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => Failure::new(ExitCode::Locked, format!("{shown} is in use"))
            .hint(format!("end the programs that `fuser -vm {shown}` lists, or run: sepia umount --lazy {shown}")),
        _ => Failure::error(format!("{shown}: can't unmount: {error}")),
    })?;
    let Some(daemon) = daemon else { return Ok(()) };
    if let Some(other) = elsewhere(&mount)? {
        eprintln!("sepia: {shown}: unmounted; the process behind it goes on, for it serves {} too", other.display());
        return Ok(());
    }
    match daemon.wait(None, "saving what was under way") {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::error(format!("{shown}: unmounted, but can't wait for its process: {error}"))),
    }
}

/// Runs as umount(8)'s helper: `umount.fuse.sepia DIR [-nlfvr] [-N NAMESPACE] [-t TYPE]`, without the program's name.
pub fn run_helper(args: Vec<OsString>) -> Result<(), Failure> {
    let (mut lazy, mut force, mut dir) = (false, false, None);
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.as_bytes() {
            [b'-', letters @ ..] if !letters.is_empty() => {
                for letter in letters {
                    match letter {
                        b'l' => lazy = true,
                        b'f' => force = true,
                        b'n' | b'v' | b'r' => {}
                        b'N' | b't' => drop(args.next()),
                        _ => return Err(Failure::usage(format!("unknown option {}", arg.display()))),
                    }
                }
            }
            _ => dir = Some(PathBuf::from(arg)),
        }
    }
    let dir = dir.ok_or_else(|| Failure::usage("it is called as: umount.fuse.sepia DIR [-nlfvr]"))?;
    if force {
        // Ends the connection to a process that hangs: nobody to ask, nobody to wait for.
        return rustix::mount::unmount(&dir, UnmountFlags::FORCE)
            .map_err(|error| Failure::error(format!("{}: can't unmount: {error}", dir.display())));
    }
    run(UmountArgs { dir, lazy })
}

/// Where what was unmounted is still mounted: it was a bind mount of that, or the other way round.
fn elsewhere(unmounted: &Entry) -> Result<Option<PathBuf>, Failure> {
    let mounts = mountinfo::read().map_err(cannot_list)?;
    Ok(mounts.into_iter().find(|mount| mount.device == unmounted.device).map(|mount| mount.point))
}

fn cannot_list(error: io::Error) -> Failure {
    Failure::error(format!("can't list the mounts: {error}"))
}

/// The mount that `dir` means, found without asking the mount itself, which may be dead.
fn find(dir: &Path) -> Result<Entry, Failure> {
    let shown = dir.display();
    let by_parent = match (dir.parent(), dir.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            parent.canonicalize().ok().map(|parent| parent.join(name))
        }
        _ => None,
    };
    let look = |dir: &Path| mountinfo::at(dir).map_err(cannot_list);
    let found = match by_parent {
        Some(dir) => look(&dir)?,
        None => None,
    };
    let found = match found {
        Some(entry) => Some(entry),
        None => look(&dir.canonicalize().map_err(|error| Failure::error(format!("{shown}: {error}")))?)?,
    };
    match found {
        Some(entry) if entry.kind == mountinfo::TYPE => Ok(entry),
        Some(entry) => Err(Failure::error(format!("{shown} is a mount of type {}, not of a Sepia store", entry.kind))
            .hint(format!("unmount it with: umount {shown}"))),
        None => Err(Failure::new(ExitCode::NotFound, format!("{shown}: nothing is mounted there"))),
    }
}
