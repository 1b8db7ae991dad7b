//! A store whose directory other programs change, as tests use it that need no mount.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use sepia::store::SessionOptions;
use sepia::{Generation, Store};

use super::library::{ANY, key, put, read};

/// A store in a directory, for what other programs and crashes do below it.
pub struct Place {
    pub _dir: tempfile::TempDir,
    pub path: PathBuf,
    pub store: Store,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let store = Store::init(path.to_str().unwrap()).unwrap();
        Place { _dir: dir, path, store }
    }

    /// Another process.
    pub fn other(&self) -> Store {
        Store::open(self.path.to_str().unwrap()).unwrap()
    }

    pub fn mv(&self, from: &str, to: &str) {
        fs::rename(self.path.join(from), self.path.join(to)).unwrap();
    }

    /// Adds a generation of which the one before is the beginning.
    pub fn append(&self, name: &str, text: &str) {
        let mut session = self.store.open_session(&key(name), &SessionOptions::default()).unwrap();
        session.append(text.as_bytes()).unwrap();
        session.publish(&key(name), false).unwrap();
        session.close(&key(name));
    }

    /// An object of so many generations, each of which but the last is the beginning of the next.
    pub fn grow(&self, name: &str, generations: u64) {
        put(&self.store, name, "1");
        for number in 2..=generations {
            self.append(name, &number.to_string());
        }
    }

    /// Its bytes, if they are not lost.
    pub fn then(&self, name: &str, number: u64) -> Option<String> {
        let opened = self.store.backend().open_generation(&key(name), Generation::new(number).unwrap());
        opened.ok().map(|opened| read(&opened))
    }

    pub fn numbers(&self, name: &str) -> Vec<u64> {
        self.store.history(&key(name)).unwrap().iter().map(|info| info.generation.get()).collect()
    }

    /// All generations that have bytes.
    pub fn shown(&self, name: &str) -> Vec<String> {
        self.numbers(name).into_iter().filter_map(|number| self.then(name, number)).collect()
    }

    pub fn two_dirs(&self) {
        for dir in ["from", "to"] {
            self.store.create_dirs(&key(dir)).unwrap();
        }
    }

    pub fn rename(&self, from: &str, to: &str) {
        self.store.rename(&key(from), &key(to), ANY).unwrap();
    }

    /// The whole store, as cp -a takes it elsewhere.
    pub fn copied(&self) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        assert!(std::process::Command::new("cp").arg("-a").args([&self.path, &path]).status().unwrap().success());
        let store = Store::open(path.to_str().unwrap()).unwrap();
        Place { _dir: dir, path, store }
    }
}

/// As cp -a does, or rsync -X.
pub fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
    let open = |path| rustix::fs::open(path, OFlags::RDONLY, Mode::empty()).unwrap();
    let (from, to) = (open(from), open(to));
    let mut record = [0; 64];
    let length = rustix::fs::fgetxattr(&from, "user.sepia", &mut record[..]).unwrap();
    rustix::fs::fsetxattr(&to, "user.sepia", &record[..length], rustix::fs::XattrFlags::empty()).unwrap();
    let stat = rustix::fs::fstat(&from).unwrap();
    let time = |sec, nsec| rustix::fs::Timespec { tv_sec: sec, tv_nsec: nsec as _ };
    let times = rustix::fs::Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    rustix::fs::futimens(&to, &times).unwrap();
}
