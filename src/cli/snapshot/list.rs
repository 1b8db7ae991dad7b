//! `sepia snapshot list`.

use super::super::Failure;
use super::super::output::{self, Align, Output, Style, Table};
use super::{JsonSnapshot, entries_text, name_text};
use crate::store::Store;

/// List the snapshots, the newest last
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Print them as a JSON array
    #[arg(long)]
    json: bool,
}

/// Runs `sepia snapshot list`.
pub fn run(args: &ListArgs, store: &Store) -> Result<(), Failure> {
    let all = store.snapshots()?;
    let mut out = Output::new();
    if args.json {
        out.json(&all.iter().map(JsonSnapshot::from).collect::<Vec<_>>())?;
        return out.finish();
    }
    let mut table = Table::new(&[Align::Left, Align::Right, Align::Right, Align::Left]);
    for info in &all {
        let cells = match info.damaged {
            true => ["its record is damaged", "", ""].map(str::to_owned),
            false => [info.created.human(), entries_text(info), output::size(info.bytes)],
        };
        let style = if info.damaged { Style::Red } else { Style::Plain };
        table.row(style, Style::Bold, cells.into_iter().chain([name_text(&info.name)]).collect());
    }
    out.table(&table)?;
    if all.is_empty() {
        out.line("no snapshots; take one with: sepia snapshot create [NAME]")?;
    }
    out.finish()
}
