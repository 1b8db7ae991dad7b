//! What must be so of the objects of a class: how large they may be and how many, their IDs, their bytes, their
//! attributes.
//!
//! The one place that decides. Whatever way bytes and names arrive in (a mount, a command, the library), it comes by
//! here: saves before they are committed, names before they are made, attributes before they are set. What is there
//! already is left alone, and what another program does in the store's directory can't be refused: it is adopted, and
//! the log says which rule it breaks.
//!
//! `policy` has the rules as they are written, `content` looks at bytes, `schema` keeps the JSON Schemas, `count` knows
//! how many objects a class has, and `audit` finds what breaks a rule all the same.

mod audit;
mod content;
mod count;
mod policy;
mod schema;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub use audit::Audited;
pub(super) use content::Bytes;
pub use content::MediaType;
pub(super) use policy::fault;
pub use policy::{IdPattern, Rule, SCHEMA_SIZE};
pub use schema::SchemaPath;

use super::{Config, Error, Result, Store};
use crate::backend::{self, FileKind, Opened, Stat};
use crate::types::{Key, Size};

/// How far beyond the largest size a save may go and still be kept whole. What would go further is refused at the
/// write, so that a size limit also limits what is written to the medium.
pub(super) const KEPT_BEYOND: u64 = 64 << 20;

/// What a rule limits, by its name in the policy file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The size of an object.
    MaxSize,
    /// The number of objects.
    MaxObjects,
    /// The form of IDs.
    Id,
    /// The media type of the bytes.
    ContentType,
    /// That the bytes are JSON.
    Json,
    /// That the bytes conform to a JSON Schema.
    Schema,
    /// The number of attributes.
    MaxXattrs,
    /// The size of one attribute.
    MaxXattrSize,
    /// The size of all attributes of an object.
    MaxXattrsSize,
    /// That one object doesn't have names for which different rules hold.
    Links,
    /// One that this version doesn't know.
    #[serde(other)]
    Unknown,
}

impl Limit {
    /// Its name in the policy file.
    pub fn name(self) -> &'static str {
        match self {
            Limit::MaxSize => "max_size",
            Limit::MaxObjects => "max_objects",
            Limit::Id => "id",
            Limit::ContentType => "content_type",
            Limit::Json => "json",
            Limit::Schema => "schema",
            Limit::MaxXattrs => "max_xattrs",
            Limit::MaxXattrSize => "max_xattr_size",
            Limit::MaxXattrsSize => "max_xattrs_size",
            Limit::Links => "links",
            Limit::Unknown => "unknown",
        }
    }
}

/// What a rule has against a save, a name or an attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breach {
    /// The rule.
    pub rule: Limit,
    /// What is wrong, in words.
    pub message: String,
}

impl Breach {
    fn new(rule: Limit, message: impl Into<String>) -> Self {
        Breach { rule, message: message.into() }
    }

    pub(super) fn too_large(key: &Key, limit: u64, size: &str) -> Self {
        let class = key.class().map(|class| class.as_os_str().to_string_lossy().into_owned()).unwrap_or_default();
        Breach::new(Limit::MaxSize, format!("{size}, and in {class} an object has at most {limit} bytes"))
    }

    /// The error that says so of a key.
    pub(super) fn at(self, key: &Key) -> Error {
        Error::Rejected { key: key.clone(), breach: self, kept: None }
    }
}

impl std::fmt::Display for Breach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.rule.name())
    }
}

/// What is known of a store's rules beside the policy, shared by its clones.
#[derive(Debug, Default)]
pub(super) struct State {
    schemas: schema::Schemas,
    names: count::Names,
    /// What was adopted and not yet looked at.
    adopted: Mutex<Vec<Key>>,
}

/// The rules that hold for a key.
#[derive(Debug, Clone)]
pub(super) struct Applying {
    config: Arc<Config>,
    rules: Vec<usize>,
}

impl Applying {
    fn of(config: &Arc<Config>, key: &Key) -> Self {
        let is_for = |rule: &Rule| rule.is_for(key, &config.retention);
        let rules = config.rule.iter().enumerate().filter(|(_, rule)| is_for(rule)).map(|(at, _)| at).collect();
        Applying { config: config.clone(), rules }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().map(|at| &self.config.rule[*at])
    }

    /// The largest object, in bytes.
    pub(super) fn max_size(&self) -> Option<u64> {
        self.iter().filter_map(|rule| rule.size_limit()).map(|size| size.bytes()).min()
    }

    /// Whether others' appends may come in between without being looked at together.
    pub(super) fn merges(&self) -> bool {
        !self.iter().any(Rule::is_about_the_whole)
    }

    /// Only those that don't hold for another key, too, by the same policy.
    fn without(mut self, other: &Applying) -> Self {
        self.rules.retain(|at| !other.rules.contains(at));
        self
    }

    fn is_about_bytes(&self) -> bool {
        self.iter().any(Rule::is_about_bytes)
    }
}

impl Store {
    /// The rules for a key. Where there are none this costs a look at the policy that is known.
    pub(super) fn rules_for(&self, key: &Key) -> Applying {
        Applying::of(&self.config_in_force(), key)
    }

    /// Whether the rules can be understood, with the schemas that they name.
    ///
    /// # Errors
    /// [`Error::Config`] with what is wrong.
    pub fn check_rules(&self) -> Result<()> {
        for rule in &self.config()?.rule {
            if let Some(schema) = &rule.schema {
                self.check_schema(schema)?;
            }
        }
        Ok(())
    }

    /// What the rules have against bytes that are to become those of `key`, if anything.
    ///
    /// # Errors
    /// When the bytes can't be read.
    pub(super) fn check_bytes(&self, key: &Key, rules: &Applying, bytes: &dyn Bytes) -> io::Result<Option<Breach>> {
        if let Some(limit) = rules.max_size() {
            let size = bytes.size()?;
            if size > limit {
                return Ok(Some(Breach::too_large(key, limit, &format!("it has {size} bytes"))));
            }
        }
        for rule in rules.iter() {
            if !rule.content_type.is_empty()
                && let Some(fault) = content::wrong_type(bytes, &rule.content_type)?
            {
                return Ok(Some(Breach::new(Limit::ContentType, fault)));
            }
            if rule.json
                && let Some(fault) = content::wrong_json(bytes)?
            {
                return Ok(Some(Breach::new(Limit::Json, format!("it is no JSON: {fault}"))));
            }
            if let Some(path) = &rule.schema
                && let Some(schema) = self.schema_in_force(path)
                && let Some(fault) = self.wrong_by_schema(&schema, bytes)?
            {
                return Ok(Some(Breach::new(Limit::Schema, format!("it doesn't conform to {path}: {fault}"))));
            }
        }
        Ok(None)
    }

    /// Makes the name `key`, if the rules have nothing against it: its ID, and how many objects there are. What has
    /// the name already keeps it.
    ///
    /// # Errors
    /// [`Error::Rejected`], and those of `make`.
    pub(super) fn make_name<T>(&self, key: &Key, make: impl FnOnce() -> backend::Result<T>) -> Result<T> {
        let rules = self.rules_for(key);
        if rules.is_empty() || key.components().count() != 2 {
            return Ok(make()?);
        }
        if let Some(breach) = wrong_id(key, &rules)
            && !self.is_taken(key)?
        {
            return Err(breach.at(key));
        }
        self.counted(Some(key), None, make)
    }

    /// Takes the name `key` away.
    ///
    /// # Errors
    /// Those of `take`.
    pub(super) fn take_name<T>(&self, key: &Key, take: impl FnOnce() -> backend::Result<T>) -> Result<T> {
        if self.rules_for(key).is_empty() { Ok(take()?) } else { self.counted(None, Some(key), take) }
    }

    fn is_taken(&self, key: &Key) -> Result<bool> {
        match self.backend.stat(key) {
            Ok(_) => Ok(true),
            Err(error) if error.is_gone() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives what is at `from` the further name `to`, if the same rules hold for both.
    ///
    /// # Errors
    /// [`Error::Rejected`], and those of `link`.
    pub(super) fn link_name<T>(&self, from: &Key, to: &Key, link: impl FnOnce() -> backend::Result<T>) -> Result<T> {
        check_link(&self.config_in_force(), from, to)?;
        self.make_name(to, link)
    }

    /// Renames, if the rules have nothing against what comes to each name. What is checked may not change meanwhile:
    /// `rename` is given the state that must still be there.
    ///
    /// # Errors
    /// [`Error::Rejected`], and those of `rename`.
    pub(super) fn move_name<T>(
        &self,
        from: &Key,
        to: &Key,
        exchange: bool,
        rename: impl FnOnce(Option<&Stat>) -> backend::Result<T>,
    ) -> Result<T> {
        let config = self.config_in_force();
        if config.rule.is_empty() {
            return Ok(rename(None)?);
        }
        let ids = [from, to].map(|key| self.backend.stat(key).ok().map(|stat| stat.id));
        if from == to || ids[0].is_some() && ids[0] == ids[1] {
            // Two names of one file: rename(2) leaves both.
            return Ok(rename(None)?);
        }
        let checked = self.check_move(&config, from, to)?;
        if exchange {
            self.check_move(&config, to, from)?;
            return self.exchange_counted(from, to, || rename(checked.as_ref()));
        }
        self.counted(Some(to), Some(from), || rename(checked.as_ref()))
    }

    /// Checks what is at `from`, and below it, by the rules that hold at `to` and not where it is. Returns the state of
    /// the file that was checked.
    fn check_move(&self, config: &Arc<Config>, from: &Key, to: &Key) -> Result<Option<Stat>> {
        let (old, rules) = (Applying::of(config, from), Applying::of(config, to));
        let depth = |key: &Key| key.components().count();
        if depth(to) == 2
            && (depth(from) != 2 || from.class() != to.class() || from.name() != to.name())
            && let Some(breach) = wrong_id(to, &rules)
        {
            return Err(breach.at(to));
        }
        let stat = match self.backend.stat(from) {
            // The rename says so.
            Err(error) if error.is_gone() => return Ok(None),
            other => other?,
        };
        match stat.kind {
            FileKind::Directory => {
                let classes = [from.class(), to.class()];
                let is_of = |rule: &Rule| classes.iter().flatten().any(|class| class.as_os_str() == &*rule.class);
                // Within a class only rules for some of its paths make a difference.
                let by_path = config.retention.ephemeral.iter().any(|pattern| pattern.is_of_paths());
                let differs =
                    |rule: &Rule| classes[0] != classes[1] || by_path || rule.path.is_some() || !rule.except.is_empty();
                if config.rule.iter().any(|rule| is_of(rule) && differs(rule)) {
                    for entry in self.backend.list(from)? {
                        self.check_move(config, &from.child(&entry.name)?, &to.child(&entry.name)?)?;
                    }
                }
                Ok(None)
            }
            FileKind::File => {
                if stat.nlink > 1 {
                    check_link(config, from, to)?;
                }
                let added = match stat.generation {
                    // Nothing was saved to it, by whatever rule: it may have a name, but not a good object's.
                    None if !self.is_taken(to)? => return Ok(None),
                    None => rules,
                    Some(_) => rules.without(&old),
                };
                if !added.is_about_bytes() {
                    return Ok(None);
                }
                let opened = self.backend.open(from)?;
                match self.check_bytes(to, &added, &opened) {
                    Ok(None) => Ok(Some(opened.stat)),
                    Ok(Some(breach)) => Err(breach.at(to)),
                    Err(error) => Err(Error::Source(error)),
                }
            }
            _ => Ok(None),
        }
    }

    /// Sets an attribute, as [`backend::Backend::set_xattr`] does, if the rules have nothing against it.
    ///
    /// # Errors
    /// [`Error::Rejected`], and those of the backend.
    pub fn set_xattr(&self, key: &Key, name: &OsStr, value: &[u8], flags: i32) -> Result<()> {
        let set = || Ok(self.backend.set_xattr(key, name, value, flags)?);
        let rules = self.rules_for(key);
        if !rules.iter().any(Rule::is_about_attributes) || !name.as_bytes().starts_with(b"user.") {
            return set();
        }
        let _alone = self.names_alone()?;
        match self.wrong_attributes(key, &rules, Some((name, value.len())))? {
            Some(breach) => Err(breach.at(key)),
            None => set(),
        }
    }

    /// What the rules have against the attributes of an object, with the one that is to be set.
    fn wrong_attributes(&self, key: &Key, rules: &Applying, new: Option<(&OsStr, usize)>) -> Result<Option<Breach>> {
        let mut sizes = Vec::new();
        for name in self.backend.list_xattrs(key)? {
            if new.is_none_or(|(new, _)| new != name) && name.as_bytes().starts_with(b"user.") {
                let size = self.backend.get_xattr(key, &name)?.len();
                sizes.push((name, size));
            }
        }
        let there = sizes.iter().map(|(name, size)| (name.as_os_str(), *size));
        // What was there before is not this one's fault.
        let largest = new.or_else(|| there.clone().max_by_key(|(_, size)| *size));
        let all = there.chain(new);
        let (count, total) = (all.clone().count(), all.map(|(name, size)| name.len() + size).sum::<usize>());
        for rule in rules.iter() {
            let bytes = |size: Option<Size>| size.map(Size::bytes);
            let largest_size = largest.map_or(0, |(_, size)| size);
            let limits = [
                (Limit::MaxXattrSize, largest_size, bytes(rule.max_xattr_size), "a value of", "bytes"),
                (Limit::MaxXattrs, count, rule.max_xattrs, "in all", "attributes"),
                (Limit::MaxXattrsSize, total, bytes(rule.max_xattrs_size), "in all", "bytes"),
            ];
            for (limit, number, most, what, unit) in limits {
                if let Some(most) = most.filter(|most| number as u64 > *most) {
                    let name = largest.map_or_else(String::new, |(name, _)| name.to_string_lossy().into_owned());
                    return Ok(Some(Breach::new(
                        limit,
                        format!("{name}: {what} {number} {unit}, at most {most} are allowed"),
                    )));
                }
            }
        }
        Ok(None)
    }

    /// What was adopted will be looked at when there is time for it ([`Store::judge_adopted`]).
    pub(super) fn adopted(&self, key: &Key) {
        if self.rules_for(key).is_about_bytes() {
            self.rules.adopted.lock().push(key.clone());
        }
    }

    /// Writes to the log which rules are broken by what another program has changed: that can't be refused.
    pub(super) fn judge_adopted(&self) {
        let adopted = std::mem::take(&mut *self.rules.adopted.lock());
        for key in adopted {
            let rules = self.rules_for(&key);
            let Ok(opened) = self.backend.open(&key) else { continue };
            if let Ok(Some(breach)) = self.check_bytes(&key, &rules, &opened) {
                log::warn!("{key}: was changed by another program, so it was not refused: {breach}");
            }
        }
    }
}

/// One object must not have a name for which it is good, and another for which it isn't.
fn check_link(config: &Arc<Config>, from: &Key, to: &Key) -> Result<()> {
    let (old, new) = (Applying::of(config, from), Applying::of(config, to));
    let differ = old.clone().without(&new).is_about_bytes() || new.without(&old).is_about_bytes();
    if !differ {
        return Ok(());
    }
    let why = format!("other rules hold for {from}, and one file can't have both names");
    Err(Breach::new(Limit::Links, why).at(to))
}

/// What the rules have against the ID in a key; members of a container have none of their own.
fn wrong_id(key: &Key, rules: &Applying) -> Option<Breach> {
    let id = key.name()?;
    let pattern = rules.iter().filter_map(|rule| rule.id.as_ref()).find(|pattern| !pattern.matches(id.as_bytes()))?;
    let id = id.to_string_lossy();
    Some(Breach::new(Limit::Id, format!("{id:?} is no ID of this class: they match {}", pattern.as_str())))
}

impl Bytes for Opened {
    fn size(&self) -> io::Result<u64> {
        Ok(self.stat.size)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        // A file that is appended to in place may be longer by now.
        let most = usize::try_from(self.stat.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        FileExt::read_at(&*self.file, &mut buffer[..most], offset)
    }
}

impl Bytes for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}
