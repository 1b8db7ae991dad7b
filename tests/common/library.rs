//! The library as tests use it that need no mount.

use std::os::unix::fs::FileExt;

use sepia::backend::Opened;
use sepia::{Key, Precondition, Store};

pub const ANY: Precondition = Precondition::Any;

pub fn key(path: &str) -> Key {
    Key::parse(path).unwrap()
}

pub fn put(store: &Store, path: &str, text: &str) {
    store.put(&key(path), &mut text.as_bytes(), ANY).unwrap();
}

/// All bytes of an object or a generation.
pub fn read(opened: &Opened) -> String {
    let mut bytes = vec![0; opened.stat.size as usize];
    opened.file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Runs a test on a store in a directory, and on one in memory.
pub fn on_both(test: impl Fn(&Store)) {
    let dir = tempfile::tempdir().unwrap();
    test(&Store::init(dir.path().to_str().unwrap()).unwrap());
    test(&Store::open("memory:").unwrap());
}
