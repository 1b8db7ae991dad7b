//! What the tests on a real mount have in common: stores on a real filesystem, mounts by the real binary that are
//! always taken down again, commands with a bound on their time, and filesystems in loop files.
//!
//! Nothing here skips. What is missing (`/dev/fuse`, a program, root) panics with a message that says what to do.
//! Tests that need root have names that begin with `as_root_`, so that a run without root can leave them out by name
//! and say so.

#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]

mod commands;
pub mod library;
mod loop_fs;
mod mount;
mod namespaces;
pub mod over;
pub mod place;
mod scratch;
mod store;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

pub use commands::*;
pub use loop_fs::LoopFs;
pub use mount::Mount;
pub use namespaces::{script_with_mount_helper, sh_as_ordinary_user};
pub use scratch::{Scratch, is_mounted};
pub use store::Store;

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
