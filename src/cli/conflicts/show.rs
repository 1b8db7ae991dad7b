//! `sepia conflicts show`.

use super::super::output::{self, Align, Output, Style, Table};
use super::super::state::generation_text;
use super::super::{Failure, cat};
use super::{JsonConflict, reason_text};
use crate::store::Store;

/// Show what is known of a conflict, or its bytes
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// The conflict's ID, or as much of its beginning as is unique
    #[arg(value_name = "ID")]
    conflict: String,
    /// Print the bytes that were set aside
    #[arg(long, conflicts_with = "json")]
    bytes: bool,
    /// Print what is known as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `sepia conflicts show`.
pub fn run(args: &ShowArgs, store: &Store) -> Result<(), Failure> {
    let conflict = store.conflict(&args.conflict)?;
    let mut out = Output::new();
    if args.bytes {
        cat::copy(&conflict.key, &store.open_conflict(&conflict.id)?, conflict.size, &mut out)?;
    } else if args.json {
        out.json(&JsonConflict::from(&conflict))?;
    } else {
        let mut table = Table::new(&[Align::Left, Align::Left]);
        let now = store.stat(&conflict.key).ok().and_then(|stat| stat.generation);
        let breach = conflict.breach.iter().flat_map(|breach| {
            [("rule:", breach.rule.name().to_owned()), ("what is wrong:", output::name(breach.message.as_bytes()))]
        });
        let lost = conflict.base_lost.map(|lost| {
            let text = format!(
                "generation {} is kept nowhere: what was not written of the first {lost} bytes is not from it",
                generation_text(conflict.base)
            );
            ("base lost:", text)
        });
        for (label, value) in [
            ("id:", conflict.id.to_string()),
            ("key:", conflict.key.to_string()),
            ("reason:", reason_text(conflict.reason).to_owned()),
            ("when:", conflict.time.human()),
            ("size:", output::size(conflict.size)),
            ("based on:", generation_text(conflict.base)),
            ("lost to:", generation_text(conflict.current)),
            ("current now:", generation_text(now)),
        ]
        .into_iter()
        .chain(breach)
        .chain(lost)
        {
            table.row(Style::Plain, Style::Plain, vec![label.to_owned(), value]);
        }
        out.table(&table)?;
    }
    out.finish()
}
