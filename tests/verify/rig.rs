//! Stores to be damaged: bytes change on the medium, and modification times don't.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sepia::backend::memory::MemoryBackend;
use sepia::store::Location;
use sepia::store::checksums::Summing;
use sepia::store::verify::{Damage, Level, Verified, Verify};
use sepia::{Generation, Key, Precondition, Store};

use crate::faulty::Faulty;

/// A store; its directory goes with it.
pub struct Rig {
    pub store: Store,
    pub faulty: Option<Arc<Faulty>>,
    dir: Option<tempfile::TempDir>,
}

pub fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

pub fn numbers(damage: &[Damage]) -> Vec<u64> {
    damage.iter().map(|one| one.generation.unwrap().get()).collect()
}

/// Computes what is missing. Returns how many checksums that were.
pub fn sum(store: &Store, quiet: Duration) -> u64 {
    store.sum_in_background(&Summing { quiet, stop: &|| false }).unwrap().generations
}

impl Rig {
    /// In a directory.
    pub fn file() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::init(dir.path().join("store").to_str().unwrap()).unwrap();
        Rig { store, faulty: None, dir: Some(dir) }
    }

    pub fn memory() -> Self {
        Rig { store: Store::open("memory:").unwrap(), faulty: None, dir: None }
    }

    /// In memory, over a backend that can be made to fail.
    pub fn faulty() -> Self {
        let faulty = crate::faulty::over(Arc::new(MemoryBackend::new()));
        Rig { store: Store::with_backend(faulty.clone(), Location::Memory), faulty: Some(faulty), dir: None }
    }

    /// The same store, as another process opens it.
    pub fn again(&self) -> Store {
        Store::open(self.path("").to_str().unwrap()).unwrap()
    }

    /// A copy of the store with all attributes.
    pub fn copy(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("store");
        let status = std::process::Command::new("cp").arg("-a").arg(self.path("")).arg(&to).status().unwrap();
        assert!(status.success());
        let store = Store::open(to.to_str().unwrap()).unwrap();
        Rig { store, faulty: None, dir: Some(dir) }
    }

    pub fn is_memory(&self) -> bool {
        self.dir.is_none()
    }

    pub fn path(&self, key: &str) -> PathBuf {
        self.dir.as_ref().unwrap().path().join("store").join(key)
    }

    /// The file of a generation that is kept whole.
    pub fn kept(&self, key: &str, generation: u64) -> PathBuf {
        let dir = self.path(".sepia/generations").join(key);
        let prefix = format!("{generation}@");
        let mut names = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
        names.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&prefix)).unwrap()
    }

    pub fn put(&self, name: &str, bytes: &[u8]) {
        self.store.put(&key(name), &mut &bytes[..], Precondition::Any).unwrap();
    }

    pub fn append(&self, name: &str, bytes: &[u8]) {
        let options = sepia::store::SessionOptions { create: Some(0o666), ..Default::default() };
        let mut session = self.store.open_session(&key(name), &options).unwrap();
        session.append(bytes).unwrap();
        session.publish(&key(name), false).unwrap();
        session.close(&key(name));
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        bytes(&self.store.get(&key(name)).unwrap())
    }

    pub fn read_generation(&self, name: &str, generation: u64) -> Vec<u8> {
        bytes(&self.store.get_generation(&key(name), Generation::new(generation).unwrap()).unwrap())
    }

    /// Computes the checksums of all that was saved. Returns how many these were.
    pub fn sum(&self) -> u64 {
        self.sum_after(Duration::ZERO)
    }

    pub fn sum_after(&self, quiet: Duration) -> u64 {
        sum(&self.store, quiet)
    }

    /// Lines in the records of checksums.
    pub fn lines(&self) -> usize {
        let records = self.store.backend().list_records(&key("checksums")).unwrap();
        let read = |path: &Key| fs::read_to_string(self.path(".sepia").join(path.as_path())).unwrap().lines().count();
        records.iter().filter(|path| path.as_bytes().ends_with(b".jsonl")).map(read).sum()
    }

    pub fn verify(&self) -> Verified {
        self.verify_at(Level::Content)
    }

    pub fn verify_at(&self, level: Level) -> Verified {
        let verified = self.store.verify(&Verify { level, ..Verify::all() }).unwrap();
        assert!(!verified.stopped);
        verified
    }

    pub fn bring_back(&self) -> Verified {
        self.store.verify(&Verify { bring_back: true, ..Verify::all() }).unwrap()
    }

    /// Changes a bit of a byte of the current generation; a second time, back.
    pub fn flip(&self, key: &str, at: u64) {
        change(&self.path(key), |file| flip(file, at));
    }

    pub fn flip_kept(&self, key: &str, generation: u64, at: u64) {
        change(&self.kept(key, generation), |file| flip(file, at));
    }

    pub fn truncate(&self, key: &str, size: u64) {
        change(&self.path(key), |file| file.set_len(size).unwrap());
    }

    pub fn truncate_kept(&self, key: &str, generation: u64, size: u64) {
        change(&self.kept(key, generation), |file| file.set_len(size).unwrap());
    }
}

fn bytes(opened: &sepia::backend::Opened) -> Vec<u8> {
    let mut bytes = vec![0; opened.stat.size as usize];
    opened.file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Changes a file as a medium does that loses what it was given.
fn change(path: &Path, how: impl Fn(&File)) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    how(&file);
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
}

fn flip(file: &File, at: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 1;
    file.write_all_at(&byte, at).unwrap();
}
