//! Commands and scripts, with a bound on their time.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::{LIMIT, sepia_binary};

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

pub(super) fn wait_child(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
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

pub(super) fn environment(command: &mut Command) {
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
