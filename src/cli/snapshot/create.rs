//! `sepia snapshot create`.

use super::super::Failure;
use super::super::output::{self, Output};
use super::{JsonSnapshot, entries_text, name_text};
use crate::store::Store;

/// Take a snapshot
///
/// Others may go on working; saves wait for the moments that it takes. What is written but not saved yet is not in it.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// Its name, up to 200 bytes; else the time, as 2026-11-23T10-00-00Z
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `sepia snapshot create`.
pub fn run(args: &CreateArgs, store: &Store) -> Result<(), Failure> {
    let info = store.create_snapshot(args.name.as_deref())?;
    let mut out = Output::new();
    if args.json {
        out.json(&JsonSnapshot::from(&info))?;
    } else {
        let (name, names) = (name_text(&info.name), entries_text(&info));
        out.line(format!("{name}: taken at {}, {names}, {}", info.created.human(), output::size(info.bytes)))?;
    }
    out.finish()
}
