//! The format file: what makes a directory a store, and what version of it.

use std::io::{Read, Write};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::super::{Error, Result};
use crate::types::{ObjectId, Timestamp};

/// The version that this code reads and writes. `docs/format.md` describes it.
pub const VERSION: u32 = 1;

const NAME: &str = "sepia";

/// The contents of `.sepia/format`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    name: String,
    version: u32,
    /// The store's identity.
    pub id: String,
    created: String,
}

impl Format {
    /// For a new store.
    pub fn new() -> Self {
        Format {
            name: NAME.to_owned(),
            version: VERSION,
            id: format!("{}{}", ObjectId::random(), ObjectId::random()),
            created: Timestamp::now().rfc3339(),
        }
    }

    /// Writes it, durably, unless there is one.
    pub fn write(&self, meta: &Path) -> std::io::Result<()> {
        let mut text = serde_json::to_string(self)?;
        text.push('\n');
        let staged = meta.join(format!("format.{}", self.id));
        let mut file = std::fs::File::create_new(&staged)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // A link, unlike a rename, leaves a store alone that somebody else made meanwhile.
        let linked = std::fs::hard_link(&staged, meta.join("format"));
        std::fs::remove_file(&staged)?;
        linked?;
        let dir = rustix::fs::open(meta, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(rustix::fs::fsync(&dir)?)
    }

    /// Reads it, and checks that this version can use the store.
    pub fn read(store: &Path) -> Result<Self> {
        let path = store.join(".sepia/format");
        let unusable = |why: String| Error::Unusable(why);
        let mut text = String::new();
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let hint =
                    if store.is_dir() { "make it one with" } else { "there is no such directory; make one with" };
                return Err(unusable(format!("{0} is no store; {hint}: sepia init {0}", store.display())));
            }
            Err(error) => return Err(unusable(format!("can't open the store {}: {error}", store.display()))),
        };
        // A format line is short; who put gigabytes there meant no good.
        file.take(64 << 10)
            .read_to_string(&mut text)
            .map_err(|error| unusable(format!("can't read {}: {error}", path.display())))?;
        Self::parse(&text).map_err(|why| unusable(format!("{}: {why}", path.display())))
    }

    /// Reads the text of the file.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        #[derive(Deserialize)]
        struct Header {
            name: String,
            version: u32,
        }
        let damaged = "is damaged. The objects beside it are plain files and are not affected; copy another store's \
                       format file there, or move .sepia away and run sepia init (histories are in \
                       .sepia/generations)";
        // The header first: a newer version may have other fields.
        let header: Header = serde_json::from_str(text).map_err(|error| format!("{damaged} ({error})"))?;
        if header.name != NAME {
            return Err(format!("belongs to {:?}, not to Sepia", header.name));
        }
        if header.version != VERSION {
            return Err(format!(
                "the store has format version {}, this sepia can use version {VERSION}; use a newer sepia",
                header.version
            ));
        }
        serde_json::from_str(text).map_err(|error| format!("{damaged} ({error})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_and_damaged_ones_are_refused() {
        let good = serde_json::to_string(&Format::new()).unwrap();
        assert!(Format::parse(&good).is_ok());
        assert!(Format::parse(&good.replace("\"version\":1", "\"version\":2")).unwrap_err().contains("newer sepia"));
        assert!(Format::parse(&good[..good.len() / 2]).unwrap_err().contains("damaged"));
        assert!(Format::parse("").is_err());
    }
}
