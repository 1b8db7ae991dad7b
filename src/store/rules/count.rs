//! How many objects a class has, where that is limited.
//!
//! Listing a large class at every creation would cost too much, so the number is kept in a record of the store, one for
//! each class that has a limit: when it was counted and what came of that, and behind it a `+` for each name that was
//! made and a `-` for each that went. All processes that change the names of such a class take the same lock, a `+` is
//! written before its name is made, and a `-` after its name is gone: whoever dies in between, the number is never too
//! low. Too high it may be, so nobody is refused before the class was counted anew, or just now.
//!
//! What knows nothing of the lock is another program in the store's directory, and a loss of power, after which a `+`
//! may be missing. So the class is also counted anew after a restart of the machine, and after an hour.

use std::io::Read;
use std::sync::OnceLock;

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use super::{Breach, Limit, Rule};
use crate::backend::{self, Exclusive};
use crate::store::locks::{Lock, PATIENCE};
use crate::store::{Config, Error, Result, Store};
use crate::types::{Class, Key};

/// After so many nanoseconds a class is counted anew.
const COUNTED_FOR: i64 = 3600 * 1_000_000_000;

/// For so many nanoseconds who is refused doesn't have a class counted anew.
const COUNTED_JUST_NOW: i64 = 1_000_000_000;

/// Bytes from which on a record is written anew.
const LONG: u64 = 16 << 10;

/// The threads of this process that want the lock: only one at a time asks for it.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<()>);

/// The lock.
pub(super) struct Alone<'a> {
    _everybody: Exclusive,
    _this_process: MutexGuard<'a, ()>,
}

/// The first line of a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Counted {
    /// Objects.
    count: u64,
    /// When: nanoseconds since the epoch.
    time: i64,
    /// Since which start of the machine.
    boot: String,
    /// Which names were counted.
    names: u32,
}

/// What a record says.
struct Known {
    count: u64,
    /// When the class was counted.
    time: i64,
    /// Names were made or went since.
    changed: bool,
}

impl Known {
    /// Whether counting would only say the same again: a class that is full is not listed for each who is refused.
    fn is_fresh(&self, now: i64) -> bool {
        !self.changed && (0..COUNTED_JUST_NOW).contains(&now.saturating_sub(self.time))
    }
}

/// A class with a limit.
struct Limited<'a> {
    class: Class,
    dir: Key,
    rule: &'a Rule,
    config: &'a Config,
}

impl Limited<'_> {
    fn counts(&self, key: &Key) -> bool {
        key.components().count() == 2 && self.rule.is_for(key, &self.config.retention)
    }

    /// What tells two sets of counted names apart.
    fn names(&self) -> u32 {
        let patterns = self.rule.except.iter().chain(self.config.retention.ephemeral.iter());
        let texts: Vec<_> = patterns.map(|pattern| pattern.as_str()).collect();
        crc32fast::hash(texts.join("\0").as_bytes())
    }
}

impl Store {
    /// Makes a change that makes the name `made` and takes the name `gone` away, as far as they count.
    ///
    /// # Errors
    /// [`Error::Rejected`] when the class is full; those of `change`.
    pub(super) fn counted<T>(
        &self,
        made: Option<&Key>,
        gone: Option<&Key>,
        change: impl FnOnce() -> backend::Result<T>,
    ) -> Result<T> {
        let config = self.config_in_force();
        let (into, from) = (made.and_then(|key| limited(&config, key)), gone.and_then(|key| limited(&config, key)));
        if into.is_none() && from.is_none() {
            return Ok(change()?);
        }
        let _alone = self.names_alone()?;
        if let (Some(class), Some(gone)) = (made.filter(|key| is_class(key)), gone) {
            self.check_room_in_class(&config, class, gone)?;
        }
        let within = matches!((&into, &from), (Some(a), Some(b)) if a.class == b.class);
        let counts = |limited: &Option<Limited<'_>>, key: Option<&Key>| {
            limited.as_ref().zip(key).is_some_and(|(limited, key)| limited.counts(key))
        };
        // What is replaced has been counted.
        let plus = counts(&into, made) && !made.map_or(Ok(true), |key| self.is_taken(key))?;
        let minus = counts(&from, gone);
        let (plus, minus) = if plus && minus && within { (false, false) } else { (plus, minus) };
        if let (Some(limited), Some(key)) = (into.as_ref().filter(|_| plus), made) {
            self.add_one(limited, key)?;
        }
        let done = change();
        match (&done, &into, &from) {
            (Err(_), Some(limited), _) if plus => self.note_change(limited, b"-"),
            (Ok(_), _, Some(limited)) if minus => self.note_change(limited, b"-"),
            _ => {}
        }
        if done.is_ok() {
            [made, gone].into_iter().flatten().for_each(|key| self.forget_count_of(&config, key));
        }
        Ok(done?)
    }

    /// Exchanges two names, at least one of which may be that of a class.
    ///
    /// # Errors
    /// As [`Store::counted`].
    pub(super) fn exchange_counted<T>(
        &self,
        a: &Key,
        b: &Key,
        change: impl FnOnce() -> backend::Result<T>,
    ) -> Result<T> {
        if !is_class(a) && !is_class(b) {
            // As many names as before, and the same ones.
            return Ok(change()?);
        }
        let config = self.config_in_force();
        let _alone = self.names_alone()?;
        for (class, other) in [(a, b), (b, a)] {
            self.check_room_in_class(&config, class, other)?;
        }
        let done = change()?;
        [a, b].into_iter().for_each(|key| self.forget_count_of(&config, key));
        Ok(done)
    }

    /// A class that has become another one is counted anew.
    fn forget_count_of(&self, config: &Config, key: &Key) {
        if is_class(key)
            && let Some(limited) = limited(config, key)
            && let Err(error) = record(&limited).and_then(|path| Ok(self.backend.remove_record(&path)?))
        {
            log::error!("{key}: the number of its objects can't be kept: {error}");
        }
    }

    /// Whether the directory `gone` may become the class `class`.
    fn check_room_in_class(&self, config: &Config, class: &Key, gone: &Key) -> Result<()> {
        let Some(limited) = limited(config, class).filter(|_| is_class(class)) else { return Ok(()) };
        let (count, most) = (self.count_in(&limited, gone)?, limited.rule.max_objects.unwrap_or(u64::MAX));
        if count > most { Err(full(&limited.class, most, count).at(class)) } else { Ok(()) }
    }

    /// Keeps all others from changing names in classes that are counted.
    ///
    /// # Errors
    /// [`backend::Error::Locked`] after half a minute.
    pub(super) fn names_alone(&self) -> Result<Alone<'_>> {
        let locked = || Error::from(backend::Error::Locked(Key::root()));
        let this_process = self.rules.names.0.try_lock_for(PATIENCE).ok_or_else(locked)?;
        Ok(Alone { _everybody: self.wait_exclusive(Lock::Names)?, _this_process: this_process })
    }

    fn add_one(&self, limited: &Limited<'_>, key: &Key) -> Result<()> {
        let Some(most) = limited.rule.max_objects else { return Ok(()) };
        let known = match self.read_count(limited)? {
            Some(known) if known.count < most || known.is_fresh(self.now().nanos()) => known,
            // Nobody is refused for a name that is long gone.
            _ => self.count_anew(limited)?,
        };
        if known.count >= most {
            return Err(full(&limited.class, most, known.count).at(key));
        }
        let count = known.count + 1;
        log::debug!("{key}: is object {count} of {most} of its class");
        if self.backend.append_record(&record(limited)?, b"+")? > LONG {
            self.write_count(limited, &Known { count, ..known })?;
        }
        Ok(())
    }

    /// The number by the record, if that still holds.
    fn read_count(&self, limited: &Limited<'_>) -> Result<Option<Known>> {
        let mut bytes = Vec::new();
        let mut file = match self.backend.open_record(&record(limited)?) {
            Err(error) if error.is_not_found() => return Ok(None),
            other => other?,
        };
        file.read_to_end(&mut bytes).map_err(|source| Error::Records { what: "the number of objects", source })?;
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let Ok(counted) = serde_json::from_slice::<Counted>(&bytes[..end]) else { return Ok(None) };
        let age = self.now().nanos().saturating_sub(counted.time);
        if !(0..COUNTED_FOR).contains(&age) || counted.boot != boot() || counted.names != limited.names() {
            return Ok(None);
        }
        let changes = bytes[end + 1..].iter().map(|byte| i64::from(*byte == b'+') - i64::from(*byte == b'-'));
        let count = counted.count.saturating_add_signed(changes.sum());
        Ok(Some(Known { count, time: counted.time, changed: end + 1 < bytes.len() }))
    }

    fn count_anew(&self, limited: &Limited<'_>) -> Result<Known> {
        let time = self.now().nanos();
        let known = Known { count: self.count_in(limited, &limited.dir)?, time, changed: false };
        self.write_count(limited, &known)?;
        Ok(known)
    }

    /// What the rules have against the number of objects in a class, counted now.
    pub(super) fn overfull(&self, class: &Key) -> Result<Option<Breach>> {
        let config = self.config_in_force();
        let Some(limited) = limited(&config, class).filter(|_| is_class(class)) else { return Ok(None) };
        let (count, most) = (self.count_in(&limited, class)?, limited.rule.max_objects.unwrap_or(u64::MAX));
        Ok((count > most).then(|| full(&limited.class, most, count)))
    }

    /// How many objects there would be if `dir` were the class.
    fn count_in(&self, limited: &Limited<'_>, dir: &Key) -> Result<u64> {
        let entries = match self.backend.list(dir) {
            Err(error) if error.is_gone() => return Ok(0),
            other => other?,
        };
        let mut count = 0;
        for entry in &entries {
            count += u64::from(limited.counts(&limited.dir.child(&entry.name)?));
        }
        Ok(count)
    }

    fn write_count(&self, limited: &Limited<'_>, known: &Known) -> Result<()> {
        let (count, time) = (known.count, known.time);
        let counted = Counted { count, time, boot: boot().to_owned(), names: limited.names() };
        let mut text = serde_json::to_vec(&counted)
            .map_err(|error| Error::Records { what: "the number of objects", source: error.into() })?;
        text.push(b'\n');
        Ok(self.backend.put_record(&record(limited)?, &text)?)
    }

    /// If it can't be written down, the class is counted anew.
    fn note_change(&self, limited: &Limited<'_>, change: &[u8]) {
        let noted = record(limited).and_then(|path| match self.backend.append_record(&path, change) {
            Ok(_) => Ok(()),
            Err(_) => Ok(self.backend.remove_record(&path)?),
        });
        if let Err(error) = noted {
            log::error!("{}: the number of its objects can't be kept: {error}", limited.dir);
        }
    }
}

fn is_class(key: &Key) -> bool {
    key.components().count() == 1
}

fn limited<'a>(config: &'a Config, key: &Key) -> Option<Limited<'a>> {
    let class = key.class()?;
    let rule = config.rule.iter().find(|rule| rule.max_objects.is_some() && class.as_os_str() == &*rule.class)?;
    let dir = Key::root().child(class.as_os_str()).ok()?;
    Some(Limited { class, dir, rule, config })
}

fn record(limited: &Limited<'_>) -> Result<Key> {
    Ok(Key::parse("counts")?.child(limited.class.as_os_str())?)
}

fn full(class: &Class, most: u64, count: u64) -> Breach {
    let class = class.as_os_str().to_string_lossy();
    Breach::new(Limit::MaxObjects, format!("{class} has {count} objects, and may have {most}"))
}

/// Which start of the machine this is; empty where the system doesn't say.
fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
    })
}
