//! `sepia history`.

use std::ffi::OsString;

use serde::Serialize;

use super::output::{Align, JsonKey, Output, Style, Table, json_time};
use super::target::StoreArg;
use super::{Failure, output};
use crate::backend::{GenerationInfo, Kept};
use crate::types::Generation;

/// Show an object's generations, the newest last
///
/// Works for objects that were removed, too.
#[derive(Debug, clap::Args)]
pub struct HistoryArgs {
    /// The object
    #[arg(value_name = "KEY")]
    key: OsString,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct JsonHistory {
    #[serde(flatten)]
    key: JsonKey,
    current: Option<Generation>,
    generations: Vec<JsonGeneration>,
}

#[derive(Serialize)]
struct JsonGeneration {
    generation: Generation,
    current: bool,
    committed: String,
    superseded: Option<String>,
    deleted: bool,
    size: u64,
    mtime: String,
    kept: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost_because: Option<String>,
}

/// Runs `sepia history`.
pub fn run(args: &HistoryArgs, store: &StoreArg) -> Result<(), Failure> {
    let target = store.object(&args.key)?;
    let history = target.store.history(&target.key)?;
    let mut out = Output::new();
    if args.json {
        out.json(&JsonHistory {
            key: (&target.key).into(),
            current: history.iter().find(|info| info.superseded.is_none()).map(|info| info.generation),
            generations: history.iter().map(json).collect(),
        })?;
        return out.finish();
    }
    if history.is_empty() {
        out.line(format!("{}: has no generations, only files that were saved have", target.key))?;
    }
    let mut table = Table::new(&[Align::Right, Align::Left, Align::Left, Align::Right, Align::Left]);
    if !history.is_empty() {
        let header = ["", "committed", "superseded", "bytes", "kept"].map(str::to_owned);
        table.row(Style::Plain, Style::Plain, header.to_vec());
    }
    for info in &history {
        let style = if info.superseded.is_none() { Style::Bold } else { Style::Plain };
        let lost = matches!(info.kept, Kept::Lost(_));
        let superseded = match info.superseded {
            None => "current".to_owned(),
            Some(time) if info.deleted => format!("{} (removed)", time.human()),
            Some(time) => time.human(),
        };
        let cells = vec![
            info.generation.to_string(),
            info.committed.human(),
            superseded,
            info.size.to_string(),
            kept_text(&info.kept),
        ];
        table.row(style, if lost { Style::Red } else { style }, cells);
    }
    out.table(&table)?;
    out.finish()
}

fn json(info: &GenerationInfo) -> JsonGeneration {
    let (kept, lost_because) = match &info.kept {
        Kept::Whole => ("whole", None),
        Kept::Prefix(_) => ("prefix", None),
        Kept::Lost(why) => ("lost", Some(why.clone())),
    };
    JsonGeneration {
        generation: info.generation,
        current: info.superseded.is_none(),
        committed: json_time(info.committed),
        superseded: info.superseded.map(json_time),
        deleted: info.deleted,
        size: info.size,
        mtime: json_time(info.mtime),
        kept,
        lost_because,
    }
}

fn kept_text(kept: &Kept) -> String {
    match kept {
        Kept::Whole => "whole".to_owned(),
        Kept::Prefix(_) => "as the beginning of a later one".to_owned(),
        Kept::Lost(why) => format!("lost: {}", output::name(why.as_bytes())),
    }
}
