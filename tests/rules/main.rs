//! The rules of classes: whatever way bytes and names arrive in, what a rule has something against is not saved, what
//! was there stays, and the bytes that were refused are listed.

#![allow(missing_docs, reason = "a test")]

#[path = "../common/mod.rs"]
mod common;

mod bytes;
mod mounted;
mod names;
mod promises;

use std::fs;

use sepia::store::{Conflict, Limit, Reason, SessionOptions};
use sepia::{Error, Key, Precondition, Store};

/// A store with a policy, on one of the backends.
pub struct Place {
    pub store: Store,
    dir: Option<tempfile::TempDir>,
}

impl Place {
    pub fn on_disk(policy: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Store::init(dir.path().to_str().unwrap()).unwrap();
        fs::write(dir.path().join(".sepia/config.toml"), policy).unwrap();
        let store = Store::open(dir.path().to_str().unwrap()).unwrap();
        Place { store, dir: Some(dir) }
    }

    pub fn in_memory(policy: &str) -> Self {
        let store = Store::open("memory:").unwrap();
        store.backend().put_record(&key("config.toml"), policy.as_bytes()).unwrap();
        Place { store, dir: None }
    }

    /// The same store, opened by somebody else; in memory by the same one.
    pub fn other(&self) -> Store {
        self.dir.as_ref().map_or_else(|| self.store.clone(), |dir| Store::open(dir.path().to_str().unwrap()).unwrap())
    }

    /// Where the store's files are.
    pub fn path(&self) -> &std::path::Path {
        self.dir.as_ref().unwrap().path()
    }

    pub fn put(&self, path: &str, bytes: impl AsRef<[u8]>) -> sepia::Result<()> {
        self.store.put(&key(path), &mut bytes.as_ref(), Precondition::Any).map(drop)
    }

    /// Saves by a session, as a program does: truncated, or appended to.
    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>, append: bool) -> sepia::Result<()> {
        let key = key(path);
        self.store.create_dirs(&key.parent().unwrap())?;
        let options = SessionOptions { truncate: !append, ..SessionOptions::default() };
        let mut session = self.store.open_session(&key, &options)?;
        let written =
            if append { session.append(bytes.as_ref()).map(drop) } else { session.write_at(bytes.as_ref(), 0) };
        let saved = written.and_then(|()| session.publish(&key, false).map(drop));
        session.close(&key);
        saved
    }

    pub fn read(&self, path: &str) -> Vec<u8> {
        read(&self.store, path)
    }

    pub fn rejected(&self) -> Vec<Conflict> {
        let mut all = self.store.conflicts().unwrap();
        all.retain(|conflict| conflict.reason == Reason::Rejected);
        all
    }

    /// The bytes that were set aside last.
    pub fn last_rejected(&self) -> (Conflict, Vec<u8>) {
        let last = self.rejected().pop().unwrap();
        let bytes = read_conflict(&self.store, &last);
        (last, bytes)
    }
}

/// Does the same on all backends.
pub fn everywhere(policy: &str, test: impl Fn(&Place)) {
    test(&Place::on_disk(policy));
    test(&Place::in_memory(policy));
}

pub fn key(path: &str) -> Key {
    Key::parse(path).unwrap()
}

pub fn read(store: &Store, path: &str) -> Vec<u8> {
    let opened = store.get(&key(path)).unwrap();
    let mut bytes = vec![0; opened.stat.size as usize];
    std::os::unix::fs::FileExt::read_exact_at(&*opened.file, &mut bytes, 0).unwrap();
    bytes
}

pub fn read_conflict(store: &Store, conflict: &Conflict) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut store.open_conflict(&conflict.id).unwrap(), &mut bytes).unwrap();
    bytes
}

#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: sepia::Result<T>, limit: Limit) -> String {
    match result {
        Err(Error::Rejected { breach, .. }) if breach.rule == limit => breach.message,
        other => panic!("not refused by {}: {other:?}", limit.name()),
    }
}
