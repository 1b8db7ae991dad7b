//! The journal of a staging area: what each staged file is for, one JSON line each, so that recovery knows it.
//!
//! The last line of a slot counts. It is written before the bytes are, and not synced for each; [`Journal::sync`] is for
//! an fsync that is to be acknowledged.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ownership::give_path;
use super::staged::Intent;
use crate::types::{Generation, Key, ObjectId, Precondition, Timestamp};

const NAME: &str = "journal";

/// A journal longer than this (bytes) is written anew with what still counts.
const LENGTH_MAX: u64 = 4 << 20;

/// The journal of one living process, open for writing.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    length: u64,
    last_slot: u64,
    /// The lines that count.
    active: HashMap<u64, String>,
}

/// What the journal says of a slot.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line {
    slot: u64,
    /// Of the file that is meant, since the name of a slot is used again.
    pub inode: u64,
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    generation: Option<Generation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    absent: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    committed: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    append_from: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    acknowledged: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    in_place: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sum: Option<u32>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    copied: bool,
}

impl Line {
    fn new(slot: u64, inode: u64, intent: &Intent) -> Self {
        let (generation, id, absent) = match intent.expect {
            Precondition::Any => (None, None, None),
            Precondition::Absent => (None, None, Some(true)),
            Precondition::Generation(g) => (Some(g), None, None),
            Precondition::Version(g, id, _) => (Some(g), Some(id.get()), None),
            Precondition::Reserved(id) => (None, Some(id.get()), None),
        };
        Line {
            slot,
            inode,
            key: intent.key.escaped(),
            generation,
            id,
            committed: match intent.expect {
                Precondition::Version(_, _, committed) => Some(committed.nanos()),
                _ => None,
            },
            absent,
            append_from: intent.append_from,
            base: intent.base,
            acknowledged: intent.acknowledged,
            in_place: intent.in_place,
            sum: intent.sum,
            copied: intent.copied,
        }
    }

    /// What the slot is for; `None` where the line makes no sense.
    pub fn intent(&self) -> Option<Intent> {
        let id = match self.id {
            Some(raw) => Some(ObjectId::from_raw(raw)?),
            None => None,
        };
        Some(Intent {
            key: Key::unescape(&self.key).ok()?,
            expect: match (self.generation, id) {
                (Some(g), Some(id)) => {
                    Precondition::Version(Generation::new(g.get())?, id, Timestamp::from_nanos(self.committed?))
                }
                (Some(g), None) => Precondition::Generation(Generation::new(g.get())?),
                (None, Some(id)) => Precondition::Reserved(id),
                (None, None) if self.absent == Some(true) => Precondition::Absent,
                (None, None) => Precondition::Any,
            },
            append_from: self.append_from,
            base: self.base,
            acknowledged: self.acknowledged,
            in_place: self.in_place,
            sum: self.sum,
            copied: self.copied,
        })
    }
}

impl Journal {
    /// A new one in a directory.
    pub fn create(dir: &Path) -> io::Result<Self> {
        let file = File::options().append(true).create_new(true).open(dir.join(NAME))?;
        give_path(&dir.join(NAME));
        Ok(Journal { file, length: 0, last_slot: 0, active: HashMap::new() })
    }

    /// A slot that was never used.
    pub fn new_slot(&mut self) -> u64 {
        self.last_slot += 1;
        self.last_slot
    }

    /// Writes what the staged file in a slot is for from now on. `dir` is where the journal is now.
    ///
    /// # Errors
    /// When it can't be written; what was noted before then stands.
    pub fn note(&mut self, dir: &Path, slot: u64, inode: u64, intent: &Intent) -> io::Result<()> {
        use io::Write;
        let mut line = serde_json::to_string(&Line::new(slot, inode, intent))?;
        line.push('\n');
        if self.length > LENGTH_MAX {
            self.compact(dir)?;
        }
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            // Cut off what was written of the line, so that the next one stands by itself.
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += line.len() as u64;
        self.active.insert(slot, line);
        Ok(())
    }

    /// The slot is empty.
    pub fn forget(&mut self, slot: u64) {
        self.active.remove(&slot);
        if self.active.is_empty() && self.length > LENGTH_MAX / 4 && self.file.set_len(0).is_ok() {
            self.length = 0;
        }
    }

    /// Whether nothing waits for recovery.
    pub fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn compact(&mut self, dir: &Path) -> io::Result<()> {
        let text: String = self.active.values().map(String::as_str).collect();
        let new = dir.join("journal.new");
        std::fs::write(&new, &text)?;
        give_path(&new);
        let file = File::options().append(true).open(&new)?;
        file.sync_all()?;
        std::fs::rename(&new, dir.join(NAME))?;
        self.length = text.len() as u64;
        self.file = file;
        Ok(())
    }
}

/// What the journal in a directory says of each slot; nothing, if there is none.
pub(super) fn read(dir: &Path) -> io::Result<HashMap<u64, Line>> {
    match std::fs::read(dir.join(NAME)) {
        Ok(bytes) => Ok(parse(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(HashMap::new()),
        Err(error) => Err(error),
    }
}

/// The last whole line of each slot. A line that was cut off or scrambled says nothing about any file.
fn parse(bytes: &[u8]) -> HashMap<u64, Line> {
    let mut lines = HashMap::new();
    for text in bytes.split_inclusive(|&b| b == b'\n').filter_map(|line| line.strip_suffix(b"\n")) {
        if let Ok(line) = serde_json::from_slice::<Line>(text) {
            lines.insert(line.slot, line);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrambled_journal_says_nothing() {
        let intent = Intent {
            key: Key::parse("a").unwrap(),
            expect: Precondition::Version(Generation::FIRST, ObjectId::random(), Timestamp::now()),
            append_from: Some(7),
            base: Some(8),
            acknowledged: true,
            in_place: false,
            sum: Some(9),
            copied: false,
        };
        let good = serde_json::to_string(&Line::new(1, 2, &intent)).unwrap();
        let text = format!("{good}\n{{\"slot\":2,\"ino\0\n{good}");
        assert_eq!(parse(text.as_bytes()).len(), 1);
        assert!(parse(b"\xff\xff\n[]\n{}\n").is_empty());
    }
}
