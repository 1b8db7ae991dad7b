//! `sepia snapshot`: everything as it was at one point in time.

mod create;
mod delete;
mod diff;
mod list;
mod restore;
mod show;

use clap::Subcommand;
use serde::Serialize;

use super::Failure;
use super::output::{self, JsonKey, Output, Style, json_time};
use super::target::StoreArg;
use crate::backend::FileKind;
use crate::store::SnapshotInfo;
use crate::store::snapshots::diff::{Aspect, Change};
use crate::types::Generation;

/// Take, look at and restore snapshots: everything as it was at one point in time
///
/// A snapshot copies nothing. It holds all names, modes, owners, times, attributes and links, and says which generation
/// of each object was current.
#[derive(Debug, clap::Args)]
pub struct SnapshotArgs {
    #[command(subcommand)]
    command: SnapshotCommand,
}

#[derive(Debug, Subcommand)]
enum SnapshotCommand {
    Create(create::CreateArgs),
    List(list::ListArgs),
    Show(show::ShowArgs),
    Diff(diff::DiffArgs),
    Restore(restore::RestoreArgs),
    Delete(delete::DeleteArgs),
}

/// Runs `sepia snapshot`.
pub fn run(args: &SnapshotArgs, store: &StoreArg) -> Result<(), Failure> {
    match &args.command {
        SnapshotCommand::Create(args) => create::run(args, &store.store(None)?),
        SnapshotCommand::List(args) => list::run(args, &store.store(None)?),
        SnapshotCommand::Show(args) => show::run(args, store),
        SnapshotCommand::Diff(args) => diff::run(args, store),
        SnapshotCommand::Restore(args) => restore::run(args, store),
        SnapshotCommand::Delete(args) => delete::run(args, &store.store(None)?),
    }
}

#[derive(Serialize)]
struct JsonSnapshot {
    name: String,
    created: Option<String>,
    entries: u64,
    bytes: u64,
    damaged: bool,
}

impl From<&SnapshotInfo> for JsonSnapshot {
    fn from(info: &SnapshotInfo) -> Self {
        JsonSnapshot {
            name: info.name.clone(),
            created: (!info.damaged).then(|| json_time(info.created)),
            entries: info.entries,
            bytes: info.bytes,
            damaged: info.damaged,
        }
    }
}

fn entries_text(info: &SnapshotInfo) -> String {
    output::count(usize::try_from(info.entries).unwrap_or(usize::MAX), "name", "names")
}

fn name_text(name: &str) -> String {
    output::name(name.as_bytes())
}

/// A difference in a JSON document.
#[derive(Serialize)]
struct JsonChange {
    #[serde(flatten)]
    key: JsonKey,
    change: &'static str,
    kind: FileKind,
    #[serde(skip_serializing_if = "<[Aspect]>::is_empty")]
    what: Vec<Aspect>,
    /// Of a file, on both sides; null where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    generations: Option<[Option<Generation>; 2]>,
}

impl From<&Change> for JsonChange {
    fn from(change: &Change) -> Self {
        let (word, what) = match change {
            Change::Added(_) => ("added", Vec::new()),
            Change::Removed(_) => ("removed", Vec::new()),
            Change::Changed { what, .. } => ("changed", what.clone()),
        };
        let generations = generations(change);
        JsonChange { key: change.key().into(), change: word, kind: change.entry().stat.kind, what, generations }
    }
}

/// The generations of a file on the old side and on the new one.
fn generations(change: &Change) -> Option<[Option<Generation>; 2]> {
    let generations = match change {
        Change::Added(new) => [None, new.stat.generation],
        Change::Removed(old) => [old.stat.generation, None],
        Change::Changed { old, new, .. } => [old.stat.generation, new.stat.generation],
    };
    (generations != [None, None]).then_some(generations)
}

/// Prints a line for each difference.
fn print_changes(changes: &[Change], out: &mut Output) -> Result<(), Failure> {
    for change in changes {
        let key = change.key();
        let line = match change {
            Change::Added(_) => out.paint(Style::Green, &format!("+ {key}")),
            Change::Removed(_) => out.paint(Style::Red, &format!("- {key}")),
            Change::Changed { what, .. } => {
                let words = what.iter().map(|aspect| match (aspect, generations(change)) {
                    (Aspect::Bytes, Some([Some(old), Some(new)])) => format!("bytes, generation {old} to {new}"),
                    _ => aspect_text(*aspect).to_owned(),
                });
                let words: Vec<String> = words.collect();
                format!("~ {key} ({})", words.join(", "))
            }
        };
        out.line(line)?;
    }
    Ok(())
}

fn aspect_text(aspect: Aspect) -> &'static str {
    match aspect {
        Aspect::Kind => "another kind",
        Aspect::Bytes => "bytes",
        Aspect::Target => "target",
        Aspect::Links => "hard links",
        Aspect::Mode => "mode",
        Aspect::Owner => "owner",
        Aspect::Time => "time",
        Aspect::Attributes => "attributes",
    }
}
