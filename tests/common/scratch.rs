//! Directories of a test's own, and what is mounted in them.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::is_root;

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
pub(super) fn detach(dir: &Path) {
    let mut command = if is_root() { Command::new("umount") } else { Command::new("fusermount3") };
    command.arg(if is_root() { "-l" } else { "-uz" }).arg(dir);
    let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
}
