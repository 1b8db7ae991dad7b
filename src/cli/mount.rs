//! `sepia mount`, and `mount.fuse.sepia` for mount(8) and fstab(5).
//!
//! Without `--foreground` the command starts itself anew for the mount, before there is any thread, and waits for it
//! to say that the mount answers. Until then the new process writes to the caller's standard error and its exit code
//! is the command's; afterwards it belongs to no terminal, and its warnings go to a file.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::MountFlags;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::mount_options::MountOptions;
use super::mounts::{Mounts, activity, announced, in_time};
use super::process::{Process, keep_descriptors_to_oneself, raise_file_limit};
use super::{ExitCode, Failure};
use crate::backend::KeepAccessTimes;
use crate::fs::{Fs, FsOptions};
use crate::fuse::{self, MountConfig, Unmounter, mountinfo};
use crate::store::{Location, Outcome, Store};

/// Threads that answer the kernel. Two would do on few cores, but each is busy for as long as the first write into a large
/// file takes to copy it, and the others must go on meanwhile.
const THREADS: usize = 4;

/// How long a mount that ended at the same place may take to save what was under way.
const PREDECESSOR_LIMIT: Duration = Duration::from_secs(60);

/// A second signal that comes sooner is the same wish said twice: timeout(1), for one, signals the process and its group.
const IMPATIENCE: Duration = Duration::from_secs(1);

/// Mount a store as a directory
///
/// Returns when the mount answers; a process stays behind until it is unmounted with: sepia umount DIR
#[derive(Debug, clap::Args)]
pub struct MountArgs {
    /// The store: a directory or a URL
    store: OsString,
    /// The directory to mount it on
    dir: PathBuf,
    /// Stay in the foreground, until it is unmounted or interrupted
    #[arg(short, long)]
    foreground: bool,
    /// Options as mount(8) takes them: ro, rw, [no]suid, [no]dev, [no]exec, [no]atime, [no]diratime, sync, dirsync,
    /// [no]allow_other, fsname=NAME; those of fstab(5) are accepted
    #[arg(short, value_name = "OPTIONS")]
    options: Vec<OsString>,
    /// Refuse every change
    #[arg(long)]
    read_only: bool,
    /// Let other users in (root's mounts do so unless -o noallow_other is given)
    #[arg(long)]
    allow_other: bool,
    /// Where warnings go when in the background [default: .sepia/log in the store, if it can be written]
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Standard input is a pipe on which to say that the mount answers.
    #[arg(long, hide = true, requires = "foreground")]
    report_on_stdin: bool,
}

/// Runs `sepia mount`.
pub fn run(args: MountArgs) -> Result<(), Failure> {
    let mut options = MountOptions::defaults(rustix::process::geteuid().is_root());
    for list in &args.options {
        options.parse(list, false)?;
    }
    options.flags.set(MountFlags::RDONLY, args.read_only || options.flags.contains(MountFlags::RDONLY));
    options.allow_other |= args.allow_other;
    start(args, &options)
}

/// Runs as mount(8)'s helper: `mount.fuse.sepia STORE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]`, without the
/// program's name.
pub fn run_helper(args: Vec<OsString>) -> Result<(), Failure> {
    let mut options = MountOptions::defaults(rustix::process::geteuid().is_root());
    let (mut lists, mut places) = (Vec::new(), Vec::new());
    let (mut sloppy, mut fake) = (false, false);
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let letters = match arg.as_bytes() {
            [b'-', letters @ ..] if !letters.is_empty() => letters,
            _ => {
                places.push(arg);
                continue;
            }
        };
        for letter in letters {
            match letter {
                b's' => sloppy = true,
                b'f' => fake = true,
                b'n' | b'v' => {}
                b'o' => lists.extend(args.next()),
                b'N' | b't' => drop(args.next()),
                _ => return Err(Failure::usage(format!("unknown option {}", arg.display()))),
            }
        }
    }
    for list in lists {
        options.parse(&list, sloppy)?;
    }
    let [store, dir] = <[OsString; 2]>::try_from(places)
        .map_err(|_| Failure::usage("it is called as: mount.fuse.sepia STORE DIR [-sfnv] [-o OPTIONS]"))?;
    if fake || (!options.remount && is_mounted_by_name(&store, Path::new(&dir), &options)?) {
        return Ok(());
    }
    let args = MountArgs {
        store,
        dir: dir.into(),
        foreground: false,
        options: Vec::new(),
        read_only: false,
        allow_other: false,
        log: None,
        report_on_stdin: false,
    };
    start(args, &options)
}

/// Whether what is to be mounted is mounted already, under another name than the store's. `mount -a` passes over what the
/// kernel lists with the source of fstab, and so can't know.
fn is_mounted_by_name(store: &OsStr, dir: &Path, options: &MountOptions) -> Result<bool, Failure> {
    let Some(name) = &options.source else { return Ok(false) };
    let (location, dir) = (resolve(store)?, mount_point(dir)?);
    Ok(Mounts::read()?.of_store_at(&location, &dir).is_some_and(|mount| mount.source == *name))
}

fn start(args: MountArgs, options: &MountOptions) -> Result<(), Failure> {
    if options.remount {
        return super::remount::run(&mount_point(&args.dir)?, options.flags);
    }
    if args.foreground { serve(&args, options) } else { start_in_background(&args, options) }
}

fn start_in_background(args: &MountArgs, options: &MountOptions) -> Result<(), Failure> {
    let cant = |error: io::Error| Failure::error(format!("can't start the process for the mount: {error}"));
    keep_descriptors_to_oneself().map_err(cant)?;
    let (mut ready, report) = io::pipe().map_err(cant)?;
    let mut command = Command::new(std::env::current_exe().map_err(cant)?);
    command.args(["mount", "--foreground", "--report-on-stdin", "-o"]).arg(options.to_list());
    if let Some(log) = &args.log {
        command.arg("--log").arg(log);
    }
    command.arg("--").arg(&args.store).arg(&args.dir).stdin(Stdio::from(report));
    let mut child = command.spawn().map_err(cant)?;
    // Its copy of the pipe's other end would keep us from seeing the end.
    drop(command);
    let mut said = Vec::new();
    ready.read_to_end(&mut said).map_err(cant)?;
    if !said.is_empty() {
        return Ok(());
    }
    let status = child.wait().map_err(cant)?;
    match status.code().and_then(ExitCode::from_number) {
        // It said itself why.
        Some(code) if code != ExitCode::Done => Err(Failure::silent(code)),
        _ => Err(Failure::error(format!("the process for the mount ended before the mount answered ({status})"))),
    }
}

fn serve(args: &MountArgs, options: &MountOptions) -> Result<(), Failure> {
    super::init_log(log::LevelFilter::Warn);
    let dir = mount_point(&args.dir)?;
    let location = resolve(&args.store)?;
    check_places(&location, &dir)?;
    let store = Store::open_at(location.clone())?;
    let log = if args.report_on_stdin { Some(open_log(args.log.as_deref(), &location)?) } else { None };
    // The caller's umask comes with each request.
    rustix::process::umask(rustix::fs::Mode::empty());
    let _ = rustix::process::chdir("/");
    raise_file_limit();

    wait_for_predecessor(&store, &dir)?;
    recover(&store);
    announce(&store, &dir, options.flags.contains(MountFlags::RDONLY))?;

    let cant = |error: io::Error| Failure::error(format!("can't mount {location} on {}: {error}", dir.display()));
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(cant)?;
    store.backend().keep_access_times(KeepAccessTimes {
        files: options.flags.contains(MountFlags::NOATIME),
        directories: options.flags.intersects(MountFlags::NOATIME | MountFlags::NODIRATIME),
    });
    // A read-only mount is the kernel's business, so that it can be made writable later.
    let fs = Arc::new(Fs::new(store, FsOptions::default()));
    let config = MountConfig {
        source: options.source.clone().unwrap_or_else(|| url(&location)),
        store: url(&location),
        flags: options.flags,
        allow_other: options.allow_other,
        threads: THREADS,
    };
    let mounted = fuse::mount(fs.clone(), &dir, &config).map_err(|error| {
        let failure = cant(io::Error::new(error.kind(), error.to_string()));
        let text = error.to_string();
        if text.contains("user_allow_other") {
            failure.hint("root can allow it there, or mount without allow_other")
        } else if text.contains("/dev/fuse: Permission denied") {
            failure.hint("root can let everybody use it with: chmod 0666 /dev/fuse")
        } else {
            failure
        }
    })?;
    let unmounter = mounted.unmounter();
    let (for_signals, weak, shown) = (unmounter.clone(), Arc::downgrade(&fs), dir.clone());
    drop(fs);
    std::thread::Builder::new()
        .name("sepia-signals".into())
        .spawn(move || {
            let mut asked: Option<Instant> = None;
            for _ in signals.forever() {
                match asked {
                    None => end(&for_signals, &shown),
                    Some(first) if first.elapsed() < IMPATIENCE => continue,
                    Some(_) => end_at_once(&weak, &shown),
                }
                asked = Some(Instant::now());
            }
        })
        .map_err(cant)?;
    // Looked at only for somebody who waits for the answer: meanwhile the mount is in use, and can't be ended.
    let reported = log.map_or(Ok(()), |log| dir.metadata().and_then(|_| detach(&log)));
    if let Err(error) = reported {
        let _ = unmounter.unmount(true);
        return Err(cant(error));
    }
    mounted.wait().map_err(|error| Failure::error(format!("{}: the mount ended early: {error}", dir.display())))
}

/// The directory to mount on, by its one true name.
fn mount_point(dir: &Path) -> Result<PathBuf, Failure> {
    let shown = dir.display();
    let fail = |error: io::Error| match Errno::from_io_error(&error) {
        Some(Errno::NOENT) => Failure::error(format!("{shown}: there is no such directory to mount on")),
        Some(Errno::NOTCONN) => Failure::error(format!("{shown}: a mount whose process has died is still there"))
            .hint(format!("take it away with: sepia umount {shown}")),
        _ => Failure::error(format!("{shown}: {error}")),
    };
    let wanted = dir.to_owned();
    let canonical = in_time(dir, move || wanted.canonicalize())?.map_err(fail)?;
    if mountinfo::at(&canonical).ok().flatten().is_some_and(|mount| announced(&mount).is_some()) {
        // It lives, so it is not asked.
        return Ok(canonical);
    }
    let wanted = canonical.clone();
    let is_dir = in_time(dir, move || {
        // The kernel may remember the attributes of a mount that is dead; the answer to this one it never does.
        rustix::fs::statfs(&wanted)?;
        Ok(wanted.metadata()?.is_dir())
    })?;
    if !is_dir.map_err(fail)? {
        return Err(Failure::error(format!("{shown}: not a directory, so nothing can be mounted there")));
    }
    Ok(canonical)
}

/// Where the store is, independent of the current directory.
fn resolve(store: &OsStr) -> Result<Location, Failure> {
    let location = match store.to_str() {
        Some(url) => Location::parse(url)?,
        // No URL has such bytes, but a directory's name may.
        None => Location::File(store.into()),
    };
    match location {
        Location::File(path) => path.canonicalize().map(Location::File).map_err(|error| {
            Failure::new(ExitCode::StoreUnusable, format!("{}: {error}", path.display()))
                .hint("a new store is made with: sepia init DIR")
        }),
        other => Ok(other),
    }
}

/// The store's name in the table of mounts, and for [`fuse::STORE_ATTRIBUTE`].
fn url(location: &Location) -> OsString {
    location.path().map_or_else(|| location.to_string().into(), |path| path.as_os_str().to_owned())
}

fn check_places(location: &Location, dir: &Path) -> Result<(), Failure> {
    if let Some(path) = location.path() {
        let shown = dir.display();
        if dir.starts_with(path) {
            return Err(Failure::usage(format!("{shown} is inside the store {location}"))
                .hint("mount it on a directory outside of it"));
        }
        if path.starts_with(dir) {
            return Err(Failure::usage(format!("{shown} holds the store {location}, which the mount would hide"))
                .hint("mount it on another directory"));
        }
    }
    if Mounts::read()?.of_store_at(location, dir).is_some() {
        return Err(Failure::error(format!("{location} is mounted on {} already", dir.display())));
    }
    Ok(())
}

/// The file for warnings of a mount in the background.
fn open_log(wanted: Option<&Path>, location: &Location) -> Result<File, Failure> {
    let open = |path: &Path| File::options().append(true).create(true).mode(0o600).open(path);
    if let Some(path) = wanted {
        return open(path).map_err(|error| Failure::error(format!("{}: can't write the log: {error}", path.display())));
    }
    let default = location.path().map(|store| store.join(".sepia/log"));
    default
        .and_then(|path| open(&path).ok())
        .map_or_else(|| File::options().write(true).open("/dev/null"), Ok)
        .map_err(|error| Failure::error(format!("/dev/null: {error}")))
}

/// The process of a mount that was just ended here may still be saving; it must not be overtaken.
fn wait_for_predecessor(store: &Store, dir: &Path) -> Result<(), Failure> {
    // One that something else hides has not ended, nor will it.
    let is_mount = |entry: &mountinfo::Entry| entry.point == dir && entry.kind == mountinfo::TYPE;
    if mountinfo::read().is_ok_and(|mounts| mounts.iter().any(is_mount)) {
        return Ok(());
    }
    for owner in store.users()?.into_iter().filter(|owner| owner.mount && owner.activity == activity(dir)) {
        let ended = match Process::find(owner.pid) {
            Ok(Some(process)) => process.wait(Some(PREDECESSOR_LIMIT), "saving what was under way").unwrap_or(true),
            _ => true,
        };
        if !ended {
            let text = format!("{}: process {} of the last mount there has not ended", dir.display(), owner.pid);
            return Err(Failure::new(ExitCode::Locked, text).hint("try again when it has"));
        }
    }
    Ok(())
}

/// Finishes what a crash left behind. What can't be finished now is tried again next time, and mustn't keep people
/// from their files.
fn recover(store: &Store) {
    match store.recover() {
        Ok(recovered) => recovered.iter().for_each(|session| match session.outcome {
            Outcome::Waits(_) => eprintln!("sepia: not recovered: {session}"),
            _ => eprintln!("sepia: recovered {session}"),
        }),
        Err(error) => eprintln!("sepia: recovery is not complete, and goes on at the next mount: {error}"),
    }
}

/// Tells the other users of the store of the mount; if there is no room for that, older history makes some.
fn announce(store: &Store, dir: &Path, read_only: bool) -> Result<(), Failure> {
    let announce = || store.backend().staging().announce(&activity(dir), true);
    let is_full = |error: &io::Error| matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    let announced = announce().or_else(|error| match !read_only && is_full(&error) && store.make_room_for_write(1) {
        true => announce(),
        false => Err(error),
    });
    match announced {
        // Every change will be refused by the medium itself.
        Err(error) if !read_only && error.kind() != ErrorKind::ReadOnlyFilesystem => {
            let location = store.location();
            let hint = match is_full(&error) {
                true => format!(
                    "make room with: sepia trash empty --store {location}, or: sepia gc --now --store {location}; or mount \
                     it with --read-only"
                ),
                false => "to only read it, mount it with --read-only".to_owned(),
            };
            Err(Failure::error(format!("{location}: can't write to the store: {error}")).hint(hint))
        }
        _ => Ok(()),
    }
}

/// The mount answers: leave the terminal, and say so to the process that waits at the other end of standard input.
fn detach(log: &File) -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::process::setsid()?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(log)?;
    // If it was killed meanwhile, the mount stays all the same.
    let _ = rustix::io::write(rustix::stdio::stdin(), b"mounted");
    Ok(rustix::stdio::dup2_stdin(&null)?)
}

/// A signal asks the mount to end: it is unmounted, and [`serve`] returns when that is done.
fn end(unmounter: &Unmounter, dir: &Path) {
    let shown = dir.display();
    let ended = unmounter.unmount(false).or_else(|error| {
        log::warn!(
            "{shown}: can't unmount at once ({error}); it is taken out of the tree, and ends when the last program \
             has closed its files there"
        );
        unmounter.unmount(true)
    });
    if let Err(error) = ended {
        log::error!("{shown}: can't unmount: {error}");
    }
}

/// A further signal, while programs have files open still.
fn end_at_once(fs: &Weak<Fs>, dir: &Path) {
    log::warn!("{}: asked to end again, so files that are still open are saved as they are now", dir.display());
    if let Some(fs) = fs.upgrade() {
        fs.shutdown();
    }
    std::process::exit(ExitCode::Error as i32);
}
