//! `sepia conflicts` without a command: the list.

use std::ffi::OsStr;

use super::super::Failure;
use super::super::output::{self, Align, Output, Style, Table};
use super::super::target::StoreArg;
use super::{JsonConflict, reason_text};
use crate::types::Key;

/// Lists the conflicts at or below a path, or all of them.
pub fn run(path: Option<&OsStr>, json: bool, store: &StoreArg) -> Result<(), Failure> {
    let (store, dir) = match path {
        Some(path) => store.object(path).map(|target| (target.store, target.key))?,
        None => (store.store(None)?, Key::root()),
    };
    let mut conflicts = store.conflicts()?;
    conflicts.retain(|conflict| conflict.key.is_within(&dir));
    let mut out = Output::new();
    if json {
        out.json(&conflicts.iter().map(JsonConflict::from).collect::<Vec<_>>())?;
        return out.finish();
    }
    let mut table = Table::new(&[Align::Left, Align::Left, Align::Right, Align::Left]);
    for conflict in &conflicts {
        let cells = vec![
            conflict.id.to_string(),
            reason_text(conflict.reason).to_owned(),
            output::size(conflict.size),
            match &conflict.breach {
                Some(breach) => format!("{}: {}", conflict.key, output::name(breach.to_string().as_bytes())),
                None => conflict.key.to_string(),
            },
        ];
        table.row(Style::Plain, Style::Bold, cells);
    }
    out.table(&table)?;
    out.line(match conflicts.len() {
        0 => "no conflicts".to_owned(),
        n => format!(
            "{}; compare with: sepia conflicts diff ID; end it with: sepia conflicts resolve ID --take, --keep or \
             --as NEWNAME",
            output::count(n, "conflict", "conflicts")
        ),
    })?;
    out.finish()
}
