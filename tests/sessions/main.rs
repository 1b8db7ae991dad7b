//! Write sessions of `fs::Fs`, without a kernel: two mounts of one store that change the same file.

mod appends;
mod aside;
mod between;
mod expectations;
mod failed_writes;
mod names;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{OFlags, RenameFlags};
use rustix::io::Errno;
use sepia::backend::file::FileBackend;
use sepia::backend::{
    self, Abandoned, Backend, Capabilities, ChangeSink, Commit, Creator, DirEntry, FileKind, FsStat, GenerationInfo,
    Opened, Rename, SetAttr, SetTime, Staged, StagingArea, Stat, Still, Watch,
};
use sepia::fs::{Caller, Changes, Fh, Fs, FsOptions, Ino};
use sepia::store::{Actor, Reason};
use sepia::{Generation, Key, Precondition, Store, Timestamp};

const ROOT: Ino = 1;
const APPEND: OFlags = OFlags::WRONLY.union(OFlags::APPEND);

struct Side {
    fs: Fs,
    store: Store,
}

fn side(store: Store) -> Side {
    let options = FsOptions { ttl: Duration::ZERO, watched_ttl: Duration::ZERO, ..FsOptions::default() };
    Side { fs: Fs::new(store.clone(), options), store }
}

/// Two mounts of a store in a directory.
fn pair() -> (Side, Side, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let url = dir.path().to_str().unwrap();
    (side(Store::init(url).unwrap()), side(Store::open(url).unwrap()), dir)
}

fn caller() -> Caller {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Caller { uid, gid, umask: 0o022, thread: std::process::id() }
}

fn key(path: &str) -> Key {
    Key::parse(path).unwrap()
}

impl Side {
    fn ino(&self, name: &str) -> Ino {
        self.fs.lookup(ROOT, OsStr::new(name)).unwrap().attr.ino
    }

    fn try_open(&self, name: &str, flags: OFlags) -> Result<Fh, Errno> {
        self.fs.open(&caller(), self.ino(name), flags.bits() as i32).map(|reply| reply.fh)
    }

    fn open(&self, name: &str, flags: OFlags) -> Fh {
        self.try_open(name, flags).unwrap()
    }

    fn create(&self, name: &str) -> Fh {
        let flags = (OFlags::RDWR | OFlags::CREATE).bits() as i32;
        self.fs.create(&caller(), ROOT, OsStr::new(name), 0o644, flags).unwrap().1.fh
    }

    fn write(&self, fh: Fh, at: u64, bytes: &str) {
        assert_eq!(self.fs.write(&caller(), fh, at, bytes.as_bytes(), false, false), Ok(bytes.len()));
    }

    fn close(&self, fh: Fh) -> Result<(), Errno> {
        let flushed = self.fs.flush(&caller(), fh);
        self.fs.release(fh);
        flushed
    }

    /// The bytes that were set aside last.
    fn last_conflict(&self) -> String {
        let conflicts = self.store.conflicts().unwrap();
        let last = conflicts.iter().max_by_key(|conflict| conflict.id.to_string()).unwrap();
        let mut bytes = String::new();
        std::io::Read::read_to_string(&mut self.store.open_conflict(&last.id).unwrap(), &mut bytes).unwrap();
        bytes
    }

    fn save(&self, name: &str, bytes: &str) {
        let fh = self.create(name);
        self.write(fh, 0, bytes);
        self.close(fh).unwrap();
    }

    /// Saves by `> name`.
    fn rewrite(&self, name: &str, bytes: &str) {
        let fh = self.open(name, OFlags::WRONLY | OFlags::TRUNC);
        self.write(fh, 0, bytes);
        self.close(fh).unwrap();
    }

    fn expect(&self, name: &str, generation: u64) {
        let value = generation.to_string();
        self.fs.setxattr(&caller(), self.ino(name), OsStr::new("user.sepia.expect"), value.as_bytes(), 0).unwrap();
    }

    fn expected(&self, name: &str) -> Option<String> {
        let value = self.fs.getxattr(self.ino(name), OsStr::new("user.sepia.expect")).ok()?;
        Some(String::from_utf8(value).unwrap())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        self.fs.rename(&caller(), ROOT, OsStr::new(from), ROOT, OsStr::new(to), RenameFlags::empty())
    }

    fn text(&self, name: &str) -> String {
        let opened = self.store.get(&key(name)).unwrap();
        let mut bytes = vec![0; opened.stat.size as usize];
        std::os::unix::fs::FileExt::read_exact_at(&*opened.file, &mut bytes, 0).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn conflicts(&self) -> usize {
        self.store.conflicts().unwrap().len()
    }
}
