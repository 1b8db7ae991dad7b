//! What the tests on a real mount have in common: stores on a real filesystem, mounts by the real binary that are
//! always taken down again, commands with a bound on their time, and filesystems in loop files.
//!
//! Nothing here skips. What is missing (`/dev/fuse`, a program, root) panics with a message that says what to do.
//! Tests that need root have names that begin with `as_root_`, so that a run without root can leave them out by name
//! and say so.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

/// How long a command may take before it is ended and the test fails. Not a measure of speed: far above what anything
/// here needs, so that a hang is a failure and not a run that never ends.
pub const LIMIT: Duration = Duration::from_secs(300);

/// The program under test.
pub fn sepia_binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_sepia"))
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// To be called first by every test that can only run as root (and is named `as_root_…`).
#[track_caller]
pub fn need_root() {
    assert!(
        is_root(),
        "this test needs root. Run it as root, or leave the tests out whose names begin with as_root_ \
         (SEPIA_TEST_ROOTLESS=1 scripts/test does that and says so)."
    );
}

/// The path of a program that the tests use.
#[track_caller]
pub fn tool(name: &str) -> PathBuf {
    let tools = std::env::var_os("SEPIA_TEST_TOOLS").map(|dir| PathBuf::from(dir).join("bin"));
    let cargo = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
        .map(|home| home.join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    tools
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(cargo)
        .chain(system)
        .map(|dir| dir.join(name))
        .find(|file| file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0))
        .unwrap_or_else(|| panic!("these tests need the program `{name}`; scripts/test installs what is missing"))
}

#[track_caller]
fn need_fuse() {
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

// Commands

/// What a command did.
pub struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Output {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Runs a command to its end, or ends it with all its children when it takes longer than `limit`.
#[track_caller]
pub fn run_within(command: &mut Command, limit: Duration) -> Output {
    // Files, not pipes: a child that stays behind with an inherited pipe must not hold the test up.
    let mut stdout = tempfile::tempfile().unwrap();
    let mut stderr = tempfile::tempfile().unwrap();
    command.stdin(Stdio::null()).stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
    command.process_group(0);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("can't run {command:?}: {error}"));
    let ended = wait_child(&mut child, limit);
    if ended.is_none() {
        let group = Pid::from_child(&child);
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
        wait_child(&mut child, Duration::from_secs(5));
    }
    let read = |file: &mut File| {
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).unwrap();
        bytes
    };
    let (stdout, stderr) = (read(&mut stdout), String::from_utf8_lossy(&read(&mut stderr)).into_owned());
    let Some(status) = ended else {
        let text = String::from_utf8_lossy(&stdout);
        panic!("{command:?} still ran after {limit:?} and was killed\n--- stdout\n{text}\n--- stderr\n{stderr}");
    };
    Output { status, stdout, stderr }
}

fn wait_child(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if start.elapsed() > limit {
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Runs a command that must succeed.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let output = run_within(command, LIMIT);
    assert!(
        output.status.success(),
        "{command:?} failed: {}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        output.text(),
        output.stderr
    );
    output
}

/// A bash script, ready to run in `dir`: it ends at the first failing command, and finds `sepia`.
pub fn script(dir: &Path, script: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).current_dir(dir);
    environment(&mut command);
    command
}

fn environment(command: &mut Command) {
    let mut path = OsString::from(sepia_binary().parent().unwrap());
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path.push(":/usr/sbin:/sbin");
    command.env("PATH", path).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "Test").env(format!("GIT_{who}_EMAIL"), "test@example.invalid");
    }
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    for name in ["SEPIA_STORE", "RUST_LOG", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(name);
    }
}

/// Runs a bash script in `dir` that must succeed; returns what it printed.
#[track_caller]
pub fn sh(dir: &Path, text: &str) -> String {
    run(&mut script(dir, text)).text()
}

/// Runs a bash script in `dir` that must fail; returns its standard error.
#[track_caller]
pub fn sh_fails(dir: &Path, text: &str) -> String {
    let output = run_within(&mut script(dir, text), LIMIT);
    assert!(!output.status.success(), "this should have failed:\n{text}\n--- stdout\n{}", output.text());
    output.stderr
}

/// A bash script as another user, without supplementary groups. Needs root.
pub fn script_as(user: &str, dir: &Path, text: &str) -> Command {
    let group = match user {
        "nobody" => "nogroup",
        other => other,
    };
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={user}")).arg(format!("--regid={group}")).arg("--clear-groups");
    command.args(["bash", "-euo", "pipefail", "-c", text]).current_dir(dir);
    environment(&mut command);
    command
}

/// Runs a bash script as another user, which must succeed.
#[track_caller]
pub fn sh_as(user: &str, dir: &Path, text: &str) -> String {
    run(&mut script_as(user, dir, text)).text()
}

/// Runs a bash script as another user, which must fail; returns its standard error.
#[track_caller]
pub fn sh_as_fails(user: &str, dir: &Path, text: &str) -> String {
    let output = run_within(&mut script_as(user, dir, text), LIMIT);
    assert!(!output.status.success(), "{user} should not have been able to:\n{text}\n{}", output.text());
    output.stderr
}

/// Waits until `done` returns something, for as long as a command may take.
#[track_caller]
pub fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(start.elapsed() < LIMIT, "waited {LIMIT:?} in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

// Directories

/// A directory of the test's own on a real filesystem (below `SEPIA_TEST_DIR`, or /var/tmp), removed at the end.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn new() -> Arc<Self> {
        let base = std::env::var_os("SEPIA_TEST_DIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        let path = tempfile::Builder::new()
            // Short, for the address of a socket has 108 bytes at most, and pjdfstest's names are long.
            .prefix("s")
            .tempdir_in(&base)
            .unwrap_or_else(|error| panic!("can't make a directory in {}: {error}", base.display()))
            .keep();
        // Other users take part in some tests.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Arc::new(Self { path: path.canonicalize().unwrap() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A new directory in it.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        fs::create_dir(&path).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Removing a tree with something still mounted in it would remove what is mounted.
        for mounted in mounts_below(&self.path) {
            eprintln!("{} was still mounted at the end of its test", mounted.display());
            detach(&mounted);
        }
        if mounts_below(&self.path).is_empty() {
            if let Err(error) = fs::remove_dir_all(&self.path) {
                eprintln!("{} stays behind: {error}", self.path.display());
            }
        } else {
            eprintln!("{} stays behind: something is still mounted in it", self.path.display());
        }
    }
}

/// The mount points at or below a directory, deepest first.
fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<PathBuf> = table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(OsString::from_vec(unescape(field))))
        .filter(|path| path.starts_with(dir))
        .collect();
    found.sort_by_key(|path| std::cmp::Reverse(path.as_os_str().len()));
    found
}

/// Undoes the octal escapes of mountinfo.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'\\')
            .then(|| tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok()))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

pub fn is_mounted(dir: &Path) -> bool {
    mounts_below(dir).iter().any(|mounted| mounted == dir)
}

/// Takes a mount out of the tree, whatever state it is in.
fn detach(dir: &Path) {
    let mut command = if is_root() { Command::new("umount") } else { Command::new("fusermount3") };
    command.arg(if is_root() { "-l" } else { "-uz" }).arg(dir);
    let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
}

// Stores and mounts

/// A store in a scratch directory.
pub struct Store {
    path: PathBuf,
    scratch: Arc<Scratch>,
}

impl Store {
    /// A new, empty store.
    #[track_caller]
    pub fn new() -> Self {
        let scratch = Scratch::new();
        let path = scratch.path().join("store");
        Self::at(scratch, path)
    }

    /// A new, empty store at `path`, which keeps `scratch` alive.
    #[track_caller]
    pub fn at(scratch: Arc<Scratch>, path: PathBuf) -> Self {
        run(Command::new(sepia_binary()).arg("init").arg(&path));
        Self { path, scratch }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that everything of this test lies in.
    pub fn scratch(&self) -> &Arc<Scratch> {
        &self.scratch
    }

    /// Mounts the store at a new directory.
    #[track_caller]
    pub fn mount(&self) -> Mount {
        self.mount_with(&[])
    }

    /// Mounts the store with further arguments.
    #[track_caller]
    pub fn mount_with(&self, arguments: &[&str]) -> Mount {
        Mount::new(&self.scratch, &self.path, arguments)
    }

    /// `sepia COMMAND --store STORE …`, which must succeed; what it printed.
    #[track_caller]
    pub fn sepia<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Vec<u8> {
        run(&mut self.command(arguments)).stdout
    }

    /// `sepia COMMAND --store STORE …`, not yet run.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(sepia_binary());
        environment(&mut command);
        command.arg(&arguments[0]).arg("--store").arg(&self.path).args(&arguments[1..]);
        command.current_dir(self.scratch.path());
        command
    }

    /// The numbers of all generations of an object, oldest first, with the current one.
    #[track_caller]
    pub fn generations<S: AsRef<OsStr>>(&self, key: S) -> Vec<u64> {
        let printed = self.sepia(&[OsStr::new("history"), OsStr::new("--json"), OsStr::new("--"), key.as_ref()]);
        let history: Value = serde_json::from_slice(&printed)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", String::from_utf8_lossy(&printed)));
        let listed = history["generations"].as_array().unwrap_or_else(|| panic!("no generations in {history}"));
        let mut numbers: Vec<u64> = listed
            .iter()
            .map(|item| item["generation"].as_u64().unwrap_or_else(|| panic!("a generation without number: {item}")))
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// The bytes of a generation of an object.
    #[track_caller]
    pub fn cat(&self, key: &str, generation: Option<u64>) -> Vec<u8> {
        match generation {
            Some(number) => self.sepia(&["cat", "--generation", &number.to_string(), key]),
            None => self.sepia(&["cat", key]),
        }
    }

    /// What `sepia conflicts --json` lists.
    #[track_caller]
    pub fn conflicts(&self) -> Vec<Value> {
        let printed = self.sepia(&["conflicts", "--json"]);
        serde_json::from_slice(&printed)
            .unwrap_or_else(|error| panic!("no list ({error}): {}", String::from_utf8_lossy(&printed)))
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
    fn new(scratch: &Arc<Scratch>, store: &Path, arguments: &[&str]) -> Self {
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

// Filesystems in loop files

/// A filesystem of its own in a loop file. Needs root.
pub struct LoopFs {
    dir: PathBuf,
    image: PathBuf,
    device: Option<PathBuf>,
    _scratch: Arc<Scratch>,
}

impl LoopFs {
    /// Makes and mounts a filesystem (`ext4`, `xfs`, `btrfs`) of `size` bytes, in a sparse file.
    #[track_caller]
    pub fn new(scratch: &Arc<Scratch>, kind: &str, size: u64) -> Self {
        need_root();
        let image = scratch.path().join(format!("{kind}.img"));
        let file = File::create_new(&image).unwrap();
        file.set_len(size).unwrap();
        let mut make = Command::new(tool(&format!("mkfs.{kind}")));
        make.arg(if kind == "ext4" { "-qF" } else { "-qf" }).arg(&image);
        run(&mut make);
        let dir = scratch.dir(&format!("{kind}.dir"));
        let mut made = Self { dir, image, device: None, _scratch: Arc::clone(scratch) };
        made.mount();
        fs::set_permissions(&made.dir, fs::Permissions::from_mode(0o755)).unwrap();
        made
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    pub fn image(&self) -> &Path {
        &self.image
    }

    /// Mounts it again after [`LoopFs::unmount`], or after its image was replaced.
    #[track_caller]
    pub fn mount(&mut self) {
        assert!(self.device.is_none(), "it is mounted already");
        let device = run(Command::new(tool("losetup")).args(["--find", "--show"]).arg(&self.image)).text();
        let device = PathBuf::from(device.trim());
        self.device = Some(device.clone());
        run(Command::new(tool("mount")).arg(device).arg(&self.dir));
    }

    /// Unmounts it; the image then holds everything.
    #[track_caller]
    pub fn unmount(&mut self) {
        run(Command::new(tool("umount")).arg(&self.dir));
        self.release();
    }

    fn release(&mut self) {
        let Some(device) = self.device.take() else { return };
        if is_mounted(&self.dir) {
            let ended = Command::new("umount").arg(&self.dir).stdin(Stdio::null()).status();
            if !ended.is_ok_and(|status| status.success()) {
                detach(&self.dir);
            }
        }
        let _ = Command::new(tool("losetup")).arg("--detach").arg(device).stdin(Stdio::null()).status();
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        self.release();
    }
}

// Mounts by mount(8)

/// A bash script, ready to run in `dir`, for which the program under test is installed as the helper that mount(8)
/// calls for `fuse.sepia`. It runs in a mount namespace of its own, in which the program stands in the place of
/// /sbin/mount.fuse, the helper that mount(8) falls back to; nothing outside is touched. Needs root.
pub fn script_with_mount_helper(dir: &Path, text: &str) -> Command {
    need_root();
    let helper = tool("mount.fuse").canonicalize().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-euc"]);
    command.arg(
        r#"mount -t tmpfs none /mnt
         printf '#!/bin/bash\nexec -a mount.fuse.sepia "%s" "$@"\n' "$1" > /mnt/helper
         chmod 755 /mnt/helper
         mount --bind /mnt/helper "$2"
         umount -l /mnt
         exec bash -euo pipefail -c "$3""#,
    );
    command.arg("bash").arg(sepia_binary()).arg(helper).arg(text).current_dir(dir);
    environment(&mut command);
    command
}

// Mounts by an ordinary user

/// Runs a bash script as an ordinary user who may mount with fusermount3, in `dir`, which is made to belong to that
/// user. Run by root, it becomes `nobody` in a mount namespace of its own in which `/dev/fuse` is open to all, as on
/// any Debian with udev; nothing outside is touched, and what the script leaves mounted is gone with the namespace.
/// The script finds the program under test as `sepia`.
#[track_caller]
pub fn sh_as_ordinary_user(dir: &Path, text: &str) -> String {
    tool("fusermount3");
    if !is_root() {
        need_fuse();
        return sh(dir, text);
    }
    // The build directory may lie where other users can't look.
    let bin = dir.join("bin");
    fs::create_dir(&bin).unwrap();
    fs::copy(sepia_binary(), bin.join("sepia")).unwrap();
    let device = dir.join("fuse-device");
    run(Command::new("mknod").arg("-m").arg("666").arg(&device).args(["c", "10", "229"]));
    run(Command::new("chown").arg("nobody:nogroup").arg(dir));
    let text = format!("export HOME=\"$PWD\"\n{text}");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-euc"]);
    command.arg(
        "mount --bind \"$1\" /dev/fuse
         exec setpriv --reuid=nobody --regid=nogroup --clear-groups bash -euo pipefail -c \"$2\"",
    );
    command.arg("bash").arg(&device).arg(text).current_dir(dir);
    environment(&mut command);
    let mut path = OsString::from(bin);
    path.push(":/usr/bin:/bin:/usr/sbin:/sbin");
    command.env("PATH", path);
    run(&mut command).text()
}
