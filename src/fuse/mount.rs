//! Making a mount and ending it.
//!
//! fuser 0.18 could mount too, but shows a direct mount as type `fuse`, lets a comma in the source inject options,
//! and unmounts whatever is at the mount point when it ends. So Sepia calls mount(2) itself, or as an ordinary user
//! fusermount3, and hands fuser the connection.

use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use fuser::{Session, SessionACL};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::cache::Cache;
use super::calls::Handler;
use super::mountinfo::{self, TYPE};
use crate::fs::Fs;

/// How a store is mounted.
#[derive(Debug, Clone)]
pub struct MountConfig {
    /// What `mount` and `df` show as the source.
    pub source: OsString,
    /// The URL of the store, for [`super::STORE_ATTRIBUTE`].
    pub store: OsString,
    /// Flags as for mount(2): `RDONLY`, `NOSUID`, `NODEV`, `NOEXEC`, `NOATIME` and the like. The kernel enforces
    /// them; a read-only [`Fs`] is made by its options.
    pub flags: MountFlags,
    /// Other users than the one who mounts may use the mount, as far as the permissions of the objects allow.
    pub allow_other: bool,
    /// Threads that answer requests.
    pub threads: usize,
}

/// A mount that answers. It outlives this value: end it with an [`Unmounter`], or by umount(8).
#[derive(Debug)]
#[must_use = "the process must stay until the mount ends"]
pub struct Mounted {
    session: JoinHandle<io::Result<()>>,
    unmounter: Unmounter,
}

impl Mounted {
    /// Waits until it is unmounted and everything under way is saved.
    ///
    /// # Errors
    /// When the connection to the kernel broke.
    pub fn wait(self) -> io::Result<()> {
        self.session.join().unwrap_or_else(|_| Err(io::Error::other("the thread that served the mount panicked")))
    }

    /// What ends the mount from another thread.
    pub fn unmounter(&self) -> Unmounter {
        self.unmounter.clone()
    }
}

/// Ends one mount, and never another one that was made at the same place since.
#[derive(Debug, Clone)]
pub struct Unmounter {
    dir: PathBuf,
    device: String,
}

impl Unmounter {
    /// Unmounts; does nothing when that has happened already. `lazy` as in [`unmount`].
    ///
    /// # Errors
    /// As [`unmount`].
    pub fn unmount(&self, lazy: bool) -> io::Result<()> {
        match mountinfo::at(&self.dir)? {
            Some(entry) if entry.device == self.device => unmount(&self.dir, lazy),
            _ => Ok(()),
        }
    }
}

/// Mounts `fs` on the existing directory `dir` and starts to answer.
///
/// `default_permissions` is always set: the kernel checks the permissions of objects, for root as on any filesystem.
///
/// # Errors
/// With a text that says what is missing: the FUSE device, fusermount3, a right.
pub fn mount(fs: Arc<Fs>, dir: &Path, config: &MountConfig) -> io::Result<Mounted> {
    let dir = dir.canonicalize()?;
    let device = if rustix::process::geteuid().is_root() {
        match mount_directly(&dir, config) {
            // In a container root may lack the right, and fusermount3 have it.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::PERM) => mount_by_helper(&dir, config)?,
            result => result?,
        }
    } else {
        mount_by_helper(&dir, config)?
    };
    let mounted = || -> io::Result<Mounted> {
        let unmounter = match mountinfo::at(&dir)? {
            Some(entry) if entry.kind == TYPE => Unmounter { dir: dir.clone(), device: entry.device },
            _ => return Err(io::Error::other("it is gone again at once")),
        };
        let handler = Handler { fs: fs.clone(), store: config.store.as_bytes().to_vec(), direct: false };
        let mut fuser_config = fuser::Config::default();
        fuser_config.n_threads = Some(config.threads);
        // Who may enter is the kernel's to check, by `allow_other`. fuser would check it again for every request, and
        // refuse the last flush of a program that has changed its user since it opened the file.
        let session = Session::from_fd(handler, device, SessionACL::All, fuser_config)?;
        fs.start(Arc::new(Cache::start(session.notifier())?));
        let session = std::thread::Builder::new().name("sepia-fuse".into()).spawn(move || session.run())?;
        Ok(Mounted { session, unmounter })
    };
    mounted().inspect_err(|_| {
        if let Err(error) = unmount(&dir, true) {
            log::warn!("{} stays mounted with nothing behind it: {error}", dir.display());
        }
    })
}

/// Unmounts what is mounted on `dir`, by fusermount3 where the user may not do it directly. With `lazy` it is only
/// taken out of the tree, and ends when the last program has closed its files there.
///
/// # Errors
/// [`io::ErrorKind::ResourceBusy`] when a program has files or its working directory there.
pub fn unmount(dir: &Path, lazy: bool) -> io::Result<()> {
    let mut flags = UnmountFlags::NOFOLLOW;
    flags.set(UnmountFlags::DETACH, lazy);
    match rustix::mount::unmount(dir, flags) {
        Err(Errno::PERM) => {}
        result => return Ok(result?),
    }
    let mut command = fusermount();
    command.arg("-u").args(lazy.then_some("-z")).arg("--").arg(dir);
    let output = command.stdin(Stdio::null()).output().map_err(no_fusermount)?;
    if output.status.success() {
        return Ok(());
    }
    let text = complaint(&output.stderr);
    let kind = if text.contains("busy") { io::ErrorKind::ResourceBusy } else { io::ErrorKind::Other };
    Err(io::Error::new(kind, text))
}

fn mount_directly(dir: &Path, config: &MountConfig) -> io::Result<OwnedFd> {
    let path = "/dev/fuse";
    let device = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| {
        let hint = if errno == Errno::NOENT { " (is the kernel module loaded? modprobe fuse)" } else { "" };
        io::Error::other(format!("can't open {path}: {}{hint}", io::Error::from(errno)))
    })?;
    // Numbers only: the source, in which a comma would begin an option, travels by itself.
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions{}\0",
        std::os::fd::AsRawFd::as_raw_fd(&device),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
        if config.allow_other { ",allow_other" } else { "" },
    );
    let data = std::ffi::CStr::from_bytes_with_nul(data.as_bytes()).map_err(io::Error::other)?;
    rustix::mount::mount(&config.source, dir, TYPE, config.flags, data)?;
    Ok(device)
}

/// The flags that fusermount3 knows, by name. Those that an ordinary user may not clear it sets itself.
const HELPER_FLAGS: [(MountFlags, &str); 8] = [
    (MountFlags::RDONLY, "ro"),
    (MountFlags::NOSUID, "nosuid"),
    (MountFlags::NODEV, "nodev"),
    (MountFlags::NOEXEC, "noexec"),
    (MountFlags::NOATIME, "noatime"),
    (MountFlags::NODIRATIME, "nodiratime"),
    (MountFlags::SYNCHRONOUS, "sync"),
    (MountFlags::DIRSYNC, "dirsync"),
];

fn helper_options(config: &MountConfig) -> OsString {
    let mut options = b"subtype=sepia,default_permissions,fsname=".to_vec();
    for &byte in config.source.as_bytes() {
        if matches!(byte, b',' | b'\\') {
            options.push(b'\\');
        }
        options.push(byte);
    }
    let flags = HELPER_FLAGS.iter().filter(|(flag, _)| config.flags.contains(*flag)).map(|(_, name)| *name);
    for name in flags.chain(config.allow_other.then_some("allow_other")) {
        options.push(b',');
        options.extend_from_slice(name.as_bytes());
    }
    OsString::from_vec(options)
}

fn mount_by_helper(dir: &Path, config: &MountConfig) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    // The socket on which it sends the connection is its standard input, for that one is inherited anyway.
    let child = fusermount()
        .arg("-o")
        .arg(helper_options(config))
        .arg("--")
        .arg(dir)
        .env("_FUSE_COMMFD", "0")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(no_fusermount)?;
    let device = receive_descriptor(&ours);
    finish(child).and(device)
}

fn finish(child: Child) -> io::Result<()> {
    let output = child.wait_with_output()?;
    if output.status.success() { Ok(()) } else { Err(io::Error::other(complaint(&output.stderr))) }
}

fn receive_descriptor(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut parts = [io::IoSliceMut::new(&mut byte)];
    rustix::io::retry_on_intr(|| rustix::net::recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC))?;
    let mut descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let first = descriptors.next().and_then(|mut descriptors| descriptors.next());
    first.ok_or_else(|| io::Error::other("fusermount3 sent no connection"))
}

fn fusermount() -> Command {
    Command::new("fusermount3")
}

fn no_fusermount(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => io::Error::other("ordinary users need fusermount3 (Debian: apt install fuse3)"),
        _ => io::Error::new(error.kind(), format!("fusermount3: {error}")),
    }
}

fn complaint(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let text = text.trim().trim_start_matches("fusermount3: ");
    if text.is_empty() { "fusermount3 failed and didn't say why".to_owned() } else { text.replace('\n', "; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_injects_no_options() {
        let config = MountConfig {
            source: r"/a,allow_other\".into(),
            store: "/a".into(),
            flags: MountFlags::RDONLY | MountFlags::NOSUID,
            allow_other: false,
            threads: 1,
        };
        assert_eq!(helper_options(&config), r"subtype=sepia,default_permissions,fsname=/a\,allow_other\\,ro,nosuid");
    }
}
