//! The store's policy, `.sepia/config.toml`: what to keep, what to write down, which limits hold.
//!
//! Each section belongs to the module that it rules, and is defined there. A file that is missing or empty means the
//! defaults; one that can't be understood is an error, for a misspelt rule must not be taken for no rule.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Deserialize;

use super::{Error, Result, Store, events};
use crate::types::Key;

/// How long a change of the file may go unnoticed by those who have read it.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);

/// The file, as a record of the store.
pub const FILE: &str = "config.toml";

/// What the store's owner has decided. See the [module](self).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What is written down of what happens.
    pub events: events::Policy,
}

/// What was read last, shared by the clones of a store.
#[derive(Debug, Default)]
pub(super) struct Cached(Mutex<Option<Known>>);

#[derive(Debug)]
struct Known {
    config: Arc<Config>,
    /// Inode number, size and modification time of the file; `None` when there was none.
    file: Option<(u64, u64, i64, i64)>,
    at: Instant,
}

impl Store {
    /// The policy that holds now. The file is looked at every two seconds at most.
    ///
    /// # Errors
    /// [`Error::Config`] when the file can't be understood; what the medium says when it can't be read.
    pub fn config(&self) -> Result<Arc<Config>> {
        let mut cached = self.config.0.lock();
        if let Some(read) = cached.as_ref().filter(|read| read.at.elapsed() < NOTICED_WITHIN) {
            return Ok(read.config.clone());
        }
        let opened = match self.backend.open_record(&Key::parse(FILE)?) {
            Err(error) if error.is_not_found() => None,
            other => Some(other?),
        };
        let failed = |source| Error::Records { what: FILE, source };
        let file = match &opened {
            Some(file) => {
                let meta = file.metadata().map_err(failed)?;
                Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
            }
            None => None,
        };
        let at = Instant::now();
        if let Some(read) = cached.as_mut().filter(|read| read.file == file) {
            read.at = at;
            return Ok(read.config.clone());
        }
        let mut text = String::new();
        if let Some(mut file) = opened {
            file.read_to_string(&mut text).map_err(failed)?;
        }
        let config: Arc<Config> = Arc::new(toml::from_str(&text).map_err(|error| Error::Config(error.to_string()))?);
        *cached = Some(Known { config: config.clone(), file, at });
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_means_the_defaults_and_a_misspelt_rule_is_an_error() {
        let store = Store::open("memory:").unwrap();
        assert_eq!(*store.config().unwrap(), Config::default());
        let other = Store::open("memory:").unwrap();
        other.backend().put_record(&Key::parse(FILE).unwrap(), b"[retention_]\n").unwrap();
        assert!(matches!(other.config(), Err(Error::Config(_))));
    }
}
