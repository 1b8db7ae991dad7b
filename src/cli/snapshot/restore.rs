//! `sepia snapshot restore`.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};

use serde::Serialize;

use super::super::output::{self, JsonKey, Output};
use super::super::progress::Progress;
use super::super::target::StoreArg;
use super::super::{ExitCode, Failure, live};
use super::{JsonChange, name_text, print_changes};
use crate::store::snapshots::diff::Change;
use crate::store::snapshots::restore::{Restored, Summary};
use crate::types::Key;

/// Put a path, or everything, back as it was in a snapshot
///
/// Bytes become new generations, where they are others now; what is current stays in the history. What was made since
/// stays, unless --delete is given. The first line says how much it is, before anything is done; on a terminal it asks then.
/// Interrupted, it has done a part; run it again for the rest.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// The snapshot
    #[arg(value_name = "NAME")]
    name: String,
    /// Only what is at and below this path; else everything
    #[arg(value_name = "PATH")]
    path: Option<OsString>,
    /// Only show what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Also remove what was made since; the bytes of files stay in their histories
    #[arg(long)]
    delete: bool,
    /// Don't ask; only a terminal is asked
    #[arg(short, long)]
    yes: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct JsonRestoration {
    snapshot: String,
    dry_run: bool,
    summary: Summary,
    /// What is done: added is brought back, removed is removed.
    changes: Vec<JsonChange>,
    failed: Vec<JsonFailed>,
}

#[derive(Serialize)]
struct JsonFailed {
    #[serde(flatten)]
    key: JsonKey,
    error: String,
}

/// Runs `sepia snapshot restore`.
pub fn run(args: &RestoreArgs, store: &StoreArg) -> Result<(), Failure> {
    let (store, dir) = match &args.path {
        Some(path) => store.object(path).map(|target| (target.store, target.key))?,
        None => (store.store(None)?, Key::root()),
    };
    let snapshot = store.snapshot(&args.name)?;
    let plan = store.plan_restoration(&snapshot, &dir, args.delete)?;
    let summary = plan.summary();
    if !args.json {
        let mut out = Output::new();
        out.line(format!("{}: {}", name_text(&args.name), summary_text(&summary)))?;
        print_changes(plan.changes(), &mut out)?;
        out.finish()?;
    }
    let mut restored = Restored::default();
    if !args.dry_run && !args.yes && !plan.changes().is_empty() && !confirmed()? {
        return Err(Failure::error(format!("{}: nothing was changed", name_text(&args.name))));
    }
    if !args.dry_run {
        let mut progress = Progress::new(name_text(&args.name), Some(summary.bytes));
        restored = plan.apply(&store, &mut |change| {
            progress.add(match change {
                Change::Removed(_) => 0,
                other => other.entry().stat.size,
            });
        });
        live::show_names(&store, plan.changes().iter().map(Change::key));
    }
    if args.json {
        let failed = restored.failed.iter();
        let mut out = Output::new();
        out.json(&JsonRestoration {
            snapshot: args.name.clone(),
            dry_run: args.dry_run,
            summary,
            changes: plan.changes().iter().map(JsonChange::from).collect(),
            failed: failed.map(|(key, error)| JsonFailed { key: key.into(), error: error.to_string() }).collect(),
        })?;
        out.finish()?;
    }
    outcome(restored)
}

/// Asks, if there is somebody to ask.
fn confirmed() -> Result<bool, Failure> {
    let (input, mut terminal) = (std::io::stdin(), std::io::stderr());
    if !input.is_terminal() || !terminal.is_terminal() {
        return Ok(true);
    }
    let fail = |error: std::io::Error| Failure::error(format!("can't ask whether to go on: {error}"));
    write!(terminal, "Put all this back? [y/N] ").and_then(|()| terminal.flush()).map_err(fail)?;
    let mut answer = String::new();
    input.read_line(&mut answer).map_err(fail)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// The first failure's code, with all of them as the message.
fn outcome(restored: Restored) -> Result<(), Failure> {
    let done = output::count(restored.done.len(), "name", "names");
    let failures: Vec<Failure> = restored.failed.into_iter().map(|(_, error)| error.into()).collect();
    let Some(code) = failures.first().map(|failure| failure.code) else { return Ok(()) };
    let code = if failures.iter().all(|failure| failure.code == code) { code } else { ExitCode::Error };
    let lines: Vec<String> = failures.into_iter().map(|failure| failure.message).collect();
    let undone = output::count(lines.len(), "thing was", "things were");
    Err(Failure::new(
        code,
        format!("{}\nsepia: {undone} not put back; {done} are as they were", lines.join("\nsepia: ")),
    ))
}

fn summary_text(summary: &Summary) -> String {
    let words = [
        (summary.brought_back, "to be brought back"),
        (summary.changed_back, "to be changed back"),
        (summary.metadata_only, "to get mode, owner, times or attributes back"),
        (summary.removed, "to be removed"),
        (summary.stays, "made since, which stay (--delete removes them)"),
    ];
    let mut parts: Vec<String> =
        words.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}")).collect();
    if parts.is_empty() {
        return "nothing to do, all is as it was".to_owned();
    }
    if summary.bytes > 0 {
        parts.push(format!("{} to be saved", output::size(summary.bytes)));
    }
    parts.join(", ")
}
