//! `sepia snapshot show`.

use std::ffi::OsString;

use serde::Serialize;

use super::super::Failure;
use super::super::output::{self, Align, Output, Style, Table};
use super::super::state::{JsonStat, generation_text, mode_text};
use super::super::target::StoreArg;
use super::{JsonSnapshot, entries_text, name_text};
use crate::backend::FileKind;
use crate::store::{Error, SnapshotEntry};
use crate::types::Key;

/// Show what a snapshot holds
///
/// Of a directory all that is at and below it, as sepia ls --long does.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// The snapshot
    #[arg(value_name = "NAME")]
    name: String,
    /// Only what is at and below this path
    #[arg(value_name = "PATH")]
    path: Option<OsString>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct JsonContent {
    snapshot: JsonSnapshot,
    content: Vec<JsonEntry>,
}

#[derive(Serialize)]
struct JsonEntry {
    #[serde(flatten)]
    state: JsonStat,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    attributes: Vec<String>,
}

impl From<&SnapshotEntry> for JsonEntry {
    fn from(entry: &SnapshotEntry) -> Self {
        JsonEntry {
            state: JsonStat::new(&entry.key, &entry.stat),
            target: entry.target.as_deref().map(|target| String::from_utf8_lossy(target).into_owned()),
            attributes: entry.xattrs.keys().map(|name| name.to_string_lossy().into_owned()).collect(),
        }
    }
}

/// Runs `sepia snapshot show`.
pub fn run(args: &ShowArgs, store: &StoreArg) -> Result<(), Failure> {
    let (store, dir) = match &args.path {
        Some(path) => store.object(path).map(|target| (target.store, target.key))?,
        None => (store.store(None)?, Key::root()),
    };
    let snapshot = store.snapshot(&args.name)?;
    if snapshot.entry(&dir).is_none() {
        return Err(Error::NotInSnapshot { name: args.name.clone(), key: dir }.into());
    }
    let shown = snapshot.entries().filter(|entry| entry.key.is_within(&dir));
    let info = snapshot.info();
    let mut out = Output::new();
    if args.json {
        out.json(&JsonContent { snapshot: info.into(), content: shown.map(JsonEntry::from).collect() })?;
        return out.finish();
    }
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Table::new(&[left, right, right, right, right, left, left]);
    for entry in shown {
        let stat = &entry.stat;
        let style = match stat.kind {
            FileKind::Directory => Style::Blue,
            FileKind::Symlink => Style::Cyan,
            _ => Style::Plain,
        };
        let target = entry.target.as_deref().map(|target| format!(" -> {}", output::name(target))).unwrap_or_default();
        let cells = vec![
            mode_text(stat.kind, stat.mode),
            stat.uid.to_string(),
            stat.gid.to_string(),
            stat.size.to_string(),
            generation_text(stat.generation),
            stat.mtime.human(),
            format!("{}{target}", entry.key),
        ];
        table.row(Style::Plain, style, cells);
    }
    out.line(format!("{}: taken at {}, {}", name_text(&info.name), info.created.human(), entries_text(info)))?;
    out.table(&table)?;
    out.finish()
}
