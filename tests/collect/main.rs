//! The collector: what it deletes and what it leaves, also when everything around it fails.

#![allow(missing_docs, reason = "a test")]

#[path = "../common/mod.rs"]
mod common;
mod faults;
mod faulty;
mod history;
mod mounts;
mod processes;
mod promises;
mod saves;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use faulty::Faulty;
use sepia::backend::file::FileBackend;
use sepia::backend::memory::MemoryBackend;
use sepia::backend::{Backend, Kept};
use sepia::store::policy::Percent;
use sepia::store::{Collect, Collected, Location};
use sepia::{Generation, Key, Precondition, Result, Store};

const DAY: i64 = 86_400;

/// A store, and the backend below it that can be made to fail. The directory ends with it.
pub struct Rig {
    pub store: Store,
    pub faulty: Arc<Faulty>,
    pub dir: Option<tempfile::TempDir>,
}

impl Rig {
    pub fn in_memory(policy: &str) -> Self {
        Self::over(Arc::new(MemoryBackend::new()), None, policy)
    }

    pub fn on_disk(policy: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let backend = FileBackend::init(dir.path()).unwrap();
        Self::over(Arc::new(backend), Some(dir), policy)
    }

    fn over(backend: Arc<dyn Backend>, dir: Option<tempfile::TempDir>, policy: &str) -> Self {
        let faulty = faulty::over(backend);
        let place = dir.as_ref().map_or(Location::Memory, |dir| Location::File(dir.path().into()));
        let store = Store::with_backend(faulty.clone(), place);
        store.backend().put_record(&key("config.toml"), policy.as_bytes()).unwrap();
        Rig { store, faulty, dir }
    }

    pub fn put(&self, path: &str, text: &str) {
        self.store.put(&key(path), &mut text.as_bytes(), Precondition::Any).unwrap();
    }

    pub fn append(&self, path: &str, text: &str) {
        let mut session = self.store.open_session(&key(path), &Default::default()).unwrap();
        session.append(text.as_bytes()).unwrap();
        session.publish(&key(path), false).unwrap();
        session.close(&key(path));
    }

    pub fn remove(&self, path: &str) {
        self.store.remove(&key(path), Precondition::Any).unwrap();
    }

    /// Marks and deletes in one go.
    pub fn collect(&self) -> Result<Collected> {
        collect(&self.store, true)
    }

    /// The numbers whose bytes are kept, without the current one.
    pub fn kept(&self, path: &str) -> Vec<u64> {
        let infos = self.store.backend().generations(&key(path)).unwrap();
        let bytes = infos.iter().filter(|info| !matches!(info.kept, Kept::Lost(_)));
        bytes.map(|info| info.generation.get()).collect()
    }

    /// The bytes of everything that is kept or current, by key and number.
    pub fn everything(&self) -> BTreeMap<(Key, Generation), Vec<u8>> {
        let mut all = BTreeMap::new();
        let mut keys = self.store.backend().histories(&Key::root()).unwrap();
        keys.extend(self.files(&Key::root()));
        keys.sort();
        keys.dedup();
        for key in keys {
            for info in self.store.history(&key).unwrap_or_default() {
                if !matches!(info.kept, Kept::Lost(_)) {
                    all.insert((key.clone(), info.generation), read(&self.store, &key, info.generation));
                } else if info.moved_to().is_some()
                    && let Ok(opened) = self.store.get_generation(&key, info.generation)
                {
                    all.insert((key.clone(), info.generation), read_opened(&opened));
                }
            }
        }
        all
    }

    fn files(&self, dir: &Key) -> Vec<Key> {
        let entries = self.store.list(dir).unwrap();
        let (dirs, files): (Vec<_>, Vec<_>) =
            entries.iter().partition(|entry| entry.kind == sepia::backend::FileKind::Directory);
        let mut keys: Vec<Key> = files.iter().map(|entry| dir.child(&entry.name).unwrap()).collect();
        dirs.iter().for_each(|entry| keys.extend(self.files(&dir.child(&entry.name).unwrap())));
        keys
    }
}

pub fn collect(store: &Store, now: bool) -> Result<Collected> {
    store.collect(&Collect { now, load: Percent::ALL, stop: &|| false })
}

pub fn read(store: &Store, key: &Key, generation: Generation) -> Vec<u8> {
    read_opened(&store.get_generation(key, generation).unwrap_or_else(|error| panic!("{key}@{generation}: {error}")))
}

pub fn read_opened(opened: &sepia::backend::Opened) -> Vec<u8> {
    let mut bytes = vec![0; opened.stat.size as usize];
    opened.file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

pub fn key(path: &str) -> Key {
    Key::parse(path).unwrap()
}

pub fn generation(number: u64) -> Generation {
    Generation::new(number).unwrap()
}
