//! A backend that can't read what a test wants it not to, or reads other bytes.

use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use sepia::backend::{Backend, Opened, Result};
use sepia::{Generation, Key};

use crate::common::over::{Hook, Over, refused};

pub type Faulty = Over<Faults>;

#[derive(Default)]
pub struct Faults {
    /// The listing of this key fails.
    pub unlistable: Mutex<Option<Key>>,
    /// This key can't be looked at.
    pub unreadable: Mutex<Option<Key>>,
    /// This key may not be opened.
    pub denied: Mutex<Option<Key>>,
    /// The first byte of this generation is another one than was saved.
    pub flipped: Mutex<Option<(Key, Generation)>>,
}

pub fn over(below: Arc<dyn Backend>) -> Arc<Faulty> {
    Arc::new(Over::new(below, Faults::default()))
}

impl Hook for Faults {
    fn before(&self, operation: &'static str, key: &Key) -> Result<()> {
        let (which, errno) = match operation {
            "list" => (&self.unlistable, Errno::IO),
            "stat" => (&self.unreadable, Errno::IO),
            "open_generation" => (&self.denied, Errno::ACCESS),
            _ => return Ok(()),
        };
        if which.lock().unwrap().as_ref() == Some(key) { Err(refused(key, errno)) } else { Ok(()) }
    }

    fn opened(&self, key: &Key, generation: Generation, mut opened: Opened) -> Opened {
        if self.flipped.lock().unwrap().as_ref() != Some(&(key.clone(), generation)) {
            return opened;
        }
        let mut bytes = Vec::new();
        let mut from = opened.file.try_clone().unwrap();
        from.seek(SeekFrom::Start(0)).unwrap();
        from.read_to_end(&mut bytes).unwrap();
        bytes[0] ^= 1;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        opened.file = Arc::new(file);
        opened
    }
}
