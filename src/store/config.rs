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

use super::policy::{Gc, Retention};
use super::{Error, Result, Store, checksums, events, rules};
use crate::types::Key;

/// How long a change of the file may go unnoticed by those who have read it.
pub(super) const NOTICED_WITHIN: Duration = Duration::from_secs(2);

/// The file, as a record of the store.
pub const FILE: &str = "config.toml";

/// What a new store's file says: nothing, but it shows what holds then.
pub const TEMPLATE: &str = r##"# The policy of this store. What is not said here has the default that is shown; docs/retention.md explains it.
#
# [retention]
# keep_last = 10
# keep_within = "7d"
# keep_daily = 30
# keep_weekly = 12
# keep_monthly = 24
# trash_keep = "30d"
# conflicts_keep = "90d"
# ephemeral = ["*~", ".*.sw?", "4913", ".#*", "#*#", "*.tmp", ".~lock.*#", "~$*", ".goutputstream-*"]
#
# [gc]
# background = true
# every = "1h"
# grace = "1h"
# load = "20%"
# min_free = "5%"
#
# [events]
# keep = "90d"
#
# [checksums]
# background = true
# rate = 16777216

## What must be so of the objects of a class; nothing, unless a rule is given. docs/rules.md explains it.
##
## [[rule]]
## class = "Note"
## max_size = "1 MiB"
## content_type = "text/*"
"##;

/// What the store's owner has decided. See the [module](self).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What is kept of the history.
    pub retention: Retention,
    /// How the collector behaves.
    pub gc: Gc,
    /// What is written down of what happens.
    pub events: events::Policy,
    /// How checksums are computed.
    pub checksums: checksums::Policy,
    /// What must be so of the objects of a class.
    pub rule: Vec<rules::Rule>,
}

/// What was read last, shared by the clones of a store.
#[derive(Debug, Default)]
pub(super) struct Cached(Mutex<Option<Known>>);

#[derive(Debug)]
struct Known {
    /// What the file says, or what is wrong with it.
    read: std::result::Result<Arc<Config>, String>,
    /// What could be understood last; the defaults if nothing ever could.
    good: Arc<Config>,
    /// Something could.
    had_one: bool,
    /// The log has what is wrong with it.
    told: bool,
    /// Inode number, size and modification time of the file; `None` when there was none.
    file: Option<(u64, u64, i64, i64)>,
    at: Instant,
}

impl Store {
    /// Whether saves of this key make no history, by its name. When the policy can't be read, they do.
    pub fn is_ephemeral(&self, key: &Key) -> bool {
        self.config().is_ok_and(|config| config.retention.is_ephemeral(key))
    }

    /// The policy that holds now. The file is looked at every two seconds at most.
    ///
    /// # Errors
    /// [`Error::Config`] when the file can't be understood; what the medium says when it can't be read.
    pub fn config(&self) -> Result<Arc<Config>> {
        let mut cached = self.config.0.lock();
        self.look_at_config(&mut cached)?;
        match cached.as_ref().map(|known| &known.read) {
            Some(Ok(config)) => Ok(config.clone()),
            Some(Err(why)) => Err(Error::Config(why.clone())),
            None => Ok(Arc::default()),
        }
    }

    /// The policy by which saves are judged: one that can't be read or understood must hold up nobody's work, so the
    /// one that this process understood last goes on to hold. If there is none, that is one without rules.
    pub(super) fn config_in_force(&self) -> Arc<Config> {
        let mut cached = self.config.0.lock();
        if let Err(error) = self.look_at_config(&mut cached) {
            log::error!("{error}; the policy that was read last goes on to hold");
            // Not at each save anew.
            let at = Instant::now();
            match cached.as_mut() {
                Some(known) => known.at = at,
                None => {
                    let (read, good, no_file) = (Err(error.to_string()), Arc::default(), Some((0, 0, 0, 0)));
                    *cached = Some(Known { read, good, had_one: false, told: true, file: no_file, at });
                }
            }
        }
        let Some(known) = cached.as_mut() else { return Arc::default() };
        if let Err(why) = &known.read
            && !std::mem::replace(&mut known.told, true)
        {
            let until = match known.had_one {
                true => "the rules that were read before go on to hold",
                false => "no rule is checked until it is mended",
            };
            log::error!(".sepia/{FILE} can't be understood: {why}; {until}");
        }
        known.good.clone()
    }

    fn look_at_config(&self, cached: &mut Option<Known>) -> Result<()> {
        if cached.as_ref().is_some_and(|read| read.at.elapsed() < NOTICED_WITHIN) {
            return Ok(());
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
            return Ok(());
        }
        let mut bytes = Vec::new();
        if let Some(mut file) = opened {
            file.read_to_end(&mut bytes).map_err(failed)?;
        }
        let read = understand(&bytes).map(Arc::new);
        let before = cached.take().filter(|known| known.had_one || known.read.is_ok()).map(|known| known.good);
        let had_one = before.is_some();
        let good = read.as_ref().map_or(before.unwrap_or_default(), Arc::clone);
        *cached = Some(Known { read, good, had_one, told: false, file, at });
        Ok(())
    }
}

fn understand(bytes: &[u8]) -> std::result::Result<Config, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
    match config.retention.fault().or_else(|| rules::fault(&config.rule)) {
        Some(fault) => Err(fault),
        None => Ok(config),
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
        let empty = Store::open("memory:").unwrap();
        empty.backend().put_record(&Key::parse(FILE).unwrap(), b"[retention]\nkeep_last = 0\n").unwrap();
        assert!(matches!(empty.config(), Err(Error::Config(_))));
    }

    #[test]
    fn a_new_stores_file_shows_the_defaults() {
        let shown: String =
            TEMPLATE.lines().map(|line| line.strip_prefix("# ").unwrap_or("").to_owned() + "\n").collect();
        let from = shown.find("[retention]").unwrap();
        let config: Config = toml::from_str(&shown[from..]).unwrap();
        let key = Key::parse("Note/a").unwrap();
        assert_eq!(config.retention.policy(&key), Config::default().retention.policy(&key));
        assert_eq!(config.retention.ephemeral, Config::default().retention.ephemeral);
        assert_eq!(config.retention.conflicts_keep, Config::default().retention.conflicts_keep);
        assert_eq!(config.gc, Config::default().gc);
        assert_eq!(config.checksums, Config::default().checksums);
        assert_eq!(toml::from_str::<Config>(TEMPLATE).unwrap(), Config::default());
    }
}
