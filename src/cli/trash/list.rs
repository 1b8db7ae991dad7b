//! `sepia trash list`.

use std::ffi::OsString;

use serde::Serialize;

use crate::cli::Failure;
use crate::cli::output::{Align, JsonKey, Output, Style, Table, json_time};
use crate::cli::target::StoreArg;
use crate::store::trash::Trashed;
use crate::types::Generation;

/// List what was removed and can be brought back
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Only what was there or below
    #[arg(value_name = "KEY")]
    dir: Option<OsString>,
    /// Print it as a JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct JsonTrashed {
    #[serde(flatten)]
    key: JsonKey,
    generation: Generation,
    deleted: String,
    size: u64,
    mtime: String,
    until: String,
}

impl From<&Trashed> for JsonTrashed {
    fn from(trashed: &Trashed) -> Self {
        JsonTrashed {
            key: (&trashed.key).into(),
            generation: trashed.generation,
            deleted: json_time(trashed.deleted),
            size: trashed.size,
            mtime: json_time(trashed.mtime),
            until: json_time(trashed.until),
        }
    }
}

/// Runs `sepia trash list`.
pub fn run(args: &ListArgs, store: &StoreArg) -> Result<(), Failure> {
    let target = store.directory(args.dir.as_deref())?;
    let trash = target.store.trash(&target.key)?;
    let mut out = Output::new();
    if args.json {
        out.json(&trash.iter().map(JsonTrashed::from).collect::<Vec<_>>())?;
        return out.finish();
    }
    let mut table = Table::new(&[Align::Left, Align::Right, Align::Right, Align::Left]);
    if !trash.is_empty() {
        let header = ["removed", "last", "bytes", "object"].map(str::to_owned);
        table.row(Style::Plain, Style::Plain, header.to_vec());
    }
    for one in &trash {
        let cells = vec![one.deleted.human(), one.generation.to_string(), one.size.to_string(), one.key.to_string()];
        table.row(Style::Plain, Style::Bold, cells);
    }
    out.table(&table)?;
    if trash.is_empty() {
        out.line("the trash is empty")?;
    }
    out.finish()
}
