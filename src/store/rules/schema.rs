//! JSON Schemas: read from the store's records, compiled, and read again when they change.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Instant;

use jsonschema::Validator;
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::content::{Bytes, read_json};
use crate::store::config::NOTICED_WITHIN;
use crate::store::{Error, Result, Store};
use crate::types::Key;

/// How many of the faults that a schema finds are named.
const NAMED: usize = 3;

/// Where a schema is: the path of a file below the store's own directory, such as `schemas/note.json`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SchemaPath(Key);

impl std::fmt::Display for SchemaPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, ".sepia/{}", self.0)
    }
}

impl<'de> Deserialize<'de> for SchemaPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = |why: &str| de::Error::custom(format!("{text:?} is no path below .sepia: {why}"));
        if text.starts_with('/') || text.contains("://") {
            return Err(wrong("a schema is a file of the store, such as \"schemas/note.json\""));
        }
        match Key::parse(&text) {
            Ok(key) if !key.is_root() => Ok(SchemaPath(key)),
            Ok(_) => Err(wrong("it is empty")),
            Err(error) => Err(wrong(&error.to_string())),
        }
    }
}

/// The schemas that were read, shared by the clones of a store.
#[derive(Debug, Default)]
pub(in crate::store) struct Schemas {
    known: Mutex<HashMap<SchemaPath, Known>>,
    /// One value is built at a time, for it takes many times the memory of its text.
    building: Mutex<()>,
}

#[derive(Debug)]
struct Known {
    /// Inode number, size and modification time of the file.
    file: Option<(u64, u64, i64, i64)>,
    /// What was read last, or what was wrong with it.
    read: Result<Arc<Validator>, String>,
    /// What could be understood last.
    good: Option<Arc<Validator>>,
    /// The log has what is wrong with it.
    told: bool,
    at: Instant,
}

impl Store {
    /// The schema that holds. One that can't be read or understood is replaced by what it was when this process last
    /// understood it; if there is none, by nothing, and the log says so.
    pub(super) fn schema_in_force(&self, path: &SchemaPath) -> Option<Arc<Validator>> {
        let (read, good) = self.schema(path);
        if let Err(why) = &read
            && self
                .rules
                .schemas
                .known
                .lock()
                .get_mut(path)
                .is_some_and(|known| !std::mem::replace(&mut known.told, true))
        {
            let until = match good {
                Some(_) => "what it was before holds until it is mended",
                None => "objects are not checked by it until it is mended",
            };
            log::error!("the schema {path} can't be used: {why}; {until}");
        }
        read.ok().or(good)
    }

    /// Whether a schema can be understood.
    ///
    /// # Errors
    /// [`Error::Config`] with what is wrong with it.
    pub(super) fn check_schema(&self, path: &SchemaPath) -> Result<()> {
        self.schema(path).0.map(drop).map_err(|why| Error::Config(format!("the schema {path}: {why}")))
    }

    fn schema(&self, path: &SchemaPath) -> (Result<Arc<Validator>, String>, Option<Arc<Validator>>) {
        let mut schemas = self.rules.schemas.known.lock();
        if let Some(known) = schemas.get(path).filter(|known| known.at.elapsed() < NOTICED_WITHIN) {
            return (known.read.clone(), known.good.clone());
        }
        let at = Instant::now();
        let opened = self.backend.open_record(&path.0).map_err(|error| error.to_string());
        let stamp = |meta: std::fs::Metadata| (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
        let file = opened.as_ref().ok().and_then(|file| file.metadata().ok()).map(stamp);
        if let Some(known) = schemas.get_mut(path).filter(|known| known.file == file) {
            known.at = at;
            return (known.read.clone(), known.good.clone());
        }
        let read = opened.and_then(compile).map(Arc::new);
        let before = schemas.remove(path).and_then(|known| known.good);
        let good = read.as_ref().ok().cloned().or(before);
        schemas.insert(path.clone(), Known { file, read: read.clone(), good: good.clone(), told: false, at });
        (read, good)
    }

    /// What a schema finds wrong with bytes; `None` when nothing is.
    ///
    /// # Errors
    /// When the bytes can't be read.
    pub(super) fn wrong_by_schema(&self, schema: &Validator, bytes: &dyn Bytes) -> io::Result<Option<String>> {
        let _one_at_a_time = self.rules.schemas.building.lock();
        let value: Value = match read_json(bytes)? {
            Ok(value) => value,
            Err(why) => return Ok(Some(why)),
        };
        let mut faults = schema.iter_errors(&value);
        let named: Vec<_> = faults
            .by_ref()
            .take(NAMED)
            .map(|fault| {
                let place = fault.instance_path().as_str().to_owned();
                // The bytes are nobody's business who reads the log.
                let what = fault.masked().to_string();
                format!("{}: {what}", if place.is_empty() { "/" } else { &place })
            })
            .collect();
        if named.is_empty() {
            return Ok(None);
        }
        let more = if faults.next().is_some() { "; and more" } else { "" };
        Ok(Some(named.join("; ") + more))
    }
}

fn compile(mut file: std::fs::File) -> Result<Validator, String> {
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(|error| error.to_string())?;
    let schema: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    jsonschema::options().offline().build(&schema).map_err(|error| error.to_string())
}
