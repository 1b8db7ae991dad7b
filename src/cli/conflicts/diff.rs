//! `sepia conflicts diff`.

use std::sync::Arc;

use serde::Serialize;

use super::super::compare::{Comparison, Side, compare};
use super::super::output::Output;
use super::super::state::generation_text;
use super::super::{ExitCode, Failure};
use super::JsonConflict;
use crate::store::Store;

/// Compare the current generation with the bytes that were set aside
///
/// Text as a unified diff, other bytes as a summary.
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// The conflict's ID, or as much of its beginning as is unique
    #[arg(value_name = "ID")]
    conflict: String,
    /// Lines around each difference
    #[arg(short = 'U', long, value_name = "LINES", default_value_t = 3)]
    unified: usize,
    /// End with 1 if they differ
    #[arg(long)]
    exit_code: bool,
    /// Print the comparison as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct JsonDiff {
    conflict: JsonConflict,
    #[serde(flatten)]
    comparison: Comparison,
}

/// Runs `sepia conflicts diff`.
pub fn run(args: &DiffArgs, store: &Store) -> Result<(), Failure> {
    let conflict = store.conflict(&args.conflict)?;
    let key = &conflict.key;
    let opened = store.get(key).map_err(|error| {
        let failure = Failure::from(error);
        if failure.code != ExitCode::NotFound {
            return failure;
        }
        failure.hint(format!("the bytes alone: sepia conflicts show {} --bytes", conflict.id))
    })?;
    let generation = generation_text(opened.stat.generation);
    let label = format!("{key} (generation {generation}, current)");
    let current = Side { label, file: opened.file, size: opened.stat.size };
    let label = format!("{key} (conflict {})", conflict.id);
    let lost = Side { label, file: Arc::new(store.open_conflict(&conflict.id)?), size: conflict.size };
    let comparison = compare(&current, &lost, args.unified)?;
    let equal = comparison.equal;
    let mut out = Output::new();
    if args.json {
        out.json(&JsonDiff { conflict: (&conflict).into(), comparison })?;
    } else {
        comparison.print(&current, &lost, &mut out)?;
    }
    out.finish()?;
    if args.exit_code && !equal { Err(Failure::silent(ExitCode::Error)) } else { Ok(()) }
}
