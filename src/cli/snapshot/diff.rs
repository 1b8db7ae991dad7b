//! `sepia snapshot diff`.

use std::ffi::OsString;

use serde::Serialize;

use super::super::output::Output;
use super::super::target::StoreArg;
use super::super::{ExitCode, Failure};
use super::{JsonChange, JsonSnapshot, print_changes};
use crate::types::Key;

/// Show what has changed since a snapshot, or between two
///
/// A line for each name: + added, - removed, ~ changed, and in what; of bytes the generations.
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// The older snapshot
    #[arg(value_name = "NAME")]
    name: String,
    /// The newer one; else what is there now
    #[arg(value_name = "NAME2")]
    other: Option<String>,
    /// Only what is at and below this path
    #[arg(short, long, value_name = "PATH")]
    path: Option<OsString>,
    /// End with 1 if they differ
    #[arg(long)]
    exit_code: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct JsonDiff {
    from: JsonSnapshot,
    /// Null for what is there now.
    to: Option<JsonSnapshot>,
    changes: Vec<JsonChange>,
}

/// Runs `sepia snapshot diff`.
pub fn run(args: &DiffArgs, store: &StoreArg) -> Result<(), Failure> {
    let (store, dir) = match &args.path {
        Some(path) => store.object(path).map(|target| (target.store, target.key))?,
        None => (store.store(None)?, Key::root()),
    };
    let old = store.snapshot(&args.name)?;
    let new = args.other.as_ref().map(|name| store.snapshot(name)).transpose()?;
    let changes = match &new {
        Some(new) => store.compare_snapshots(&old, new, &dir)?,
        None => store.compare_snapshots(&old, &store.present(&dir)?, &dir)?,
    };
    let mut out = Output::new();
    if args.json {
        let to = new.as_ref().map(|new| new.info().into());
        out.json(&JsonDiff { from: old.info().into(), to, changes: changes.iter().map(JsonChange::from).collect() })?;
    } else {
        print_changes(&changes, &mut out)?;
    }
    out.finish()?;
    if args.exit_code && !changes.is_empty() { Err(Failure::silent(ExitCode::Error)) } else { Ok(()) }
}
