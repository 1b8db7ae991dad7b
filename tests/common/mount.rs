//! Mounts by the real program, which are always taken down again.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::commands::{environment, wait_child};
use super::scratch::detach;
use super::{LIMIT, Scratch, is_mounted, sepia_binary, sh};

#[track_caller]
pub(super) fn need_fuse() {
    let usable = fs::metadata("/dev/fuse").is_ok_and(|meta| meta.file_type().is_char_device());
    assert!(
        usable,
        "these tests need /dev/fuse, which is missing here: load the module (modprobe fuse), or give the container \
         the device (--device /dev/fuse --cap-add SYS_ADMIN)"
    );
    if let Err(error) = File::options().read(true).write(true).open("/dev/fuse") {
        panic!("these tests need /dev/fuse, which this user can't open ({error}): as root, chmod 0666 /dev/fuse");
    }
}

/// A mount by the real program. However the test ends, the mount is taken down and its daemon is gone afterwards.
pub struct Mount {
    path: PathBuf,
    log: PathBuf,
    daemon: Option<Child>,
    _scratch: Arc<Scratch>,
}

impl Mount {
    #[track_caller]
    pub(super) fn new(scratch: &Arc<Scratch>, store: &Path, arguments: &[&str]) -> Self {
        need_fuse();
        let path = (1..)
            .map(|number| scratch.path().join(format!("mnt{number}")))
            .find(|path| fs::create_dir(path).is_ok())
            .unwrap();
        let log = path.with_extension("log");
        let file = File::create(&log).unwrap();
        let mut command = Command::new(sepia_binary());
        environment(&mut command);
        command.args(["mount", "-f"]).args(arguments).arg(store).arg(&path);
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        command.env("RUST_BACKTRACE", "1");
        let daemon = command.spawn().unwrap_or_else(|error| panic!("can't run {command:?}: {error}"));
        let mut mount = Self { path, log, daemon: Some(daemon), _scratch: Arc::clone(scratch) };
        let start = Instant::now();
        loop {
            if let Some(status) = mount.daemon.as_mut().unwrap().try_wait().unwrap() {
                mount.daemon = None;
                panic!("{command:?} ended ({status}) before there was a mount:\n{}", mount.log());
            }
            if is_mounted(&mount.path) && fs::metadata(&mount.path).is_ok() {
                return mount;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{command:?} made no mount:\n{}", mount.log());
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Runs a bash script in the mount.
    #[track_caller]
    pub fn sh(&self, text: &str) -> String {
        sh(&self.path, text)
    }

    /// What the daemon wrote so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The daemon's process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.daemon.as_ref().unwrap())
    }

    /// Ends the daemon as a crash would, and takes the dead mount out of the tree.
    pub fn kill(mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        detach(&self.path);
    }

    /// To be called when something else has ended the mount; its daemon must come to an orderly end.
    #[track_caller]
    pub fn ended(mut self) {
        let mut daemon = self.daemon.take().unwrap();
        let status = wait_child(&mut daemon, LIMIT);
        assert!(!is_mounted(&self.path), "{} is still mounted", self.path.display());
        let status = status.unwrap_or_else(|| panic!("the daemon still runs\n{}", self.log()));
        assert!(status.success(), "the daemon ended with {status}\n{}", self.log());
        assert!(!self.log().contains("panicked at"), "the daemon panicked\n{}", self.log());
    }

    /// `sepia umount`: when it returns, the mount and the daemon are gone.
    #[track_caller]
    pub fn unmount(mut self) {
        if let Err(message) = self.take_down() {
            panic!("{message}\n--- log of the daemon\n{}", self.log());
        }
    }

    /// Does all it takes to take the mount down; an error when it took more than it should.
    fn take_down(&mut self) -> Result<(), String> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        let mut trouble = Vec::new();
        let mut command = Command::new(sepia_binary());
        environment(&mut command);
        command.arg("umount").arg(&self.path).stdin(Stdio::null());
        let (mut errors, mut text) = (tempfile::tempfile().unwrap(), String::new());
        command.stdout(Stdio::null()).stderr(errors.try_clone().unwrap());
        match command.spawn() {
            Ok(mut child) => match wait_child(&mut child, Duration::from_secs(60)) {
                Some(status) if status.success() => {
                    if daemon.try_wait().is_ok_and(|ended| ended.is_none()) && is_running(&daemon) {
                        trouble.push("`sepia umount` returned before the daemon had ended".to_owned());
                    }
                }
                Some(status) => {
                    let _ = errors.rewind().and_then(|()| errors.read_to_string(&mut text));
                    trouble.push(format!("`sepia umount` failed ({status}): {text}"));
                }
                None => {
                    trouble.push("`sepia umount` did not end".to_owned());
                    let _ = child.kill();
                }
            },
            Err(error) => trouble.push(format!("can't run sepia umount: {error}")),
        }
        if is_mounted(&self.path) {
            detach(&self.path);
        }
        let status = wait_child(&mut daemon, Duration::from_secs(10)).or_else(|| {
            trouble.push("the daemon did not end after its mount was gone".to_owned());
            let _ = rustix::process::kill_process(Pid::from_child(&daemon), Signal::TERM);
            wait_child(&mut daemon, Duration::from_secs(5))
        });
        match status {
            Some(status) if status.success() => {}
            Some(status) => trouble.push(format!("the daemon ended with {status}")),
            None => {
                let _ = daemon.kill();
                wait_child(&mut daemon, Duration::from_secs(5));
            }
        }
        if self.log().contains("panicked at") {
            trouble.push("the daemon panicked".to_owned());
        }
        if trouble.is_empty() { Ok(()) } else { Err(format!("{}: {}", self.path.display(), trouble.join("; "))) }
    }
}

/// Whether a child still runs; a zombie, which only its parent's wait is missing for, doesn't.
fn is_running(child: &Child) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z")
}

impl Drop for Mount {
    fn drop(&mut self) {
        let outcome = self.take_down();
        if thread::panicking() {
            eprintln!("--- log of the daemon at {}\n{}", self.path.display(), self.log());
            if let Err(message) = outcome {
                eprintln!("{message}");
            }
        } else if let Err(message) = outcome {
            panic!("{message}\n--- log of the daemon\n{}", self.log());
        }
    }
}
