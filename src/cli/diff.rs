//! `sepia diff`.

use std::ffi::OsString;

use serde::Serialize;

use super::compare::{Comparison, Side, compare};
use super::output::{JsonKey, Output, json_time};
use super::target::StoreArg;
use super::{ExitCode, Failure};
use crate::backend::Kept;
use crate::store::Store;
use crate::types::{Generation, Key, Timestamp};

/// Compare two generations of an object
///
/// Text as a unified diff, other bytes as a summary. Without generations: the previous one with the current one.
/// Of an object that was removed: the last two.
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// The object
    #[arg(value_name = "KEY")]
    key: OsString,
    /// The older generation
    #[arg(value_name = "FROM")]
    from: Option<Generation>,
    /// The newer generation; else the current one
    #[arg(value_name = "TO")]
    to: Option<Generation>,
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
    #[serde(flatten)]
    key: JsonKey,
    from: JsonSide,
    to: JsonSide,
    #[serde(flatten)]
    comparison: Comparison,
}

#[derive(Serialize)]
struct JsonSide {
    generation: Generation,
    committed: Option<String>,
    size: u64,
}

/// Runs `sepia diff`.
pub fn run(args: &DiffArgs, store: &StoreArg) -> Result<(), Failure> {
    let target = store.object(&args.key)?;
    let key = &target.key;
    let (from, to) = choose(&target.store, key, args.from, args.to)?;
    let (from, from_committed) = side(&target.store, key, from)?;
    let (to, to_committed) = side(&target.store, key, to)?;
    let comparison = compare(&from.1, &to.1, args.unified)?;
    let equal = comparison.equal;
    let mut out = Output::new();
    if args.json {
        let json = |(generation, side): &(Generation, Side), committed: Option<Timestamp>| JsonSide {
            generation: *generation,
            committed: committed.map(json_time),
            size: side.size,
        };
        out.json(&JsonDiff {
            key: key.into(),
            from: json(&from, from_committed),
            to: json(&to, to_committed),
            comparison,
        })?;
    } else {
        comparison.print(&from.1, &to.1, &mut out)?;
    }
    out.finish()?;
    if args.exit_code && !equal { Err(Failure::silent(ExitCode::Error)) } else { Ok(()) }
}

fn choose(
    store: &Store,
    key: &Key,
    from: Option<Generation>,
    to: Option<Generation>,
) -> Result<(Generation, Generation), Failure> {
    if let (Some(from), Some(to)) = (from, to) {
        return Ok((from, to));
    }
    let history = store.history(key)?;
    let mut kept = history.iter().rev().filter(|info| !matches!(info.kept, Kept::Lost(_))).map(|info| info.generation);
    let Some(newest) = kept.next() else {
        return Err(Failure::new(ExitCode::NotFound, format!("{key}: no generation of it is kept")));
    };
    match from.or_else(|| kept.next()) {
        Some(from) => Ok((from, newest)),
        None => Err(Failure::new(
            ExitCode::NotFound,
            format!("{key}: only generation {newest} is kept, there is nothing to compare it with"),
        )),
    }
}

fn side(store: &Store, key: &Key, generation: Generation) -> Result<((Generation, Side), Option<Timestamp>), Failure> {
    let opened = store.get_generation(key, generation)?;
    let time = opened.stat.committed.map(|time| format!(", {}", time.human())).unwrap_or_default();
    let label = format!("{key} (generation {generation}{time})");
    Ok(((generation, Side { label, file: opened.file, size: opened.stat.size }), opened.stat.committed))
}
