//! What the targets that need a whole store share: one small store in memory, put back in order for every input.

use std::path::PathBuf;

use sepia::{Key, Precondition, Store};

/// A store with one object, `Note/n`, of two generations.
pub struct Place {
    pub path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        // In memory where the machine has that, for speed.
        let base = ["/dev/shm", "/tmp"].into_iter().find(|dir| std::path::Path::new(dir).is_dir()).unwrap_or(".");
        let dir = tempfile::tempdir_in(base).expect("a directory");
        let path = dir.path().join("store");
        let place = Place { path, _dir: dir };
        let store = Store::init(place.url()).expect("a new store");
        for text in ["one", "two"] {
            store.put(&note(), &mut text.as_bytes(), Precondition::Any).expect("a save");
        }
        place
    }

    pub fn url(&self) -> &str {
        self.path.to_str().expect("a path in UTF-8")
    }

    pub fn open(&self) -> Store {
        Store::open(self.url()).expect("the store")
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

pub fn note() -> Key {
    Key::parse("Note/n").expect("a key")
}
