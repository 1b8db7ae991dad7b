//! `sepia conflicts`: the bytes that lost, and what to do with them.

mod diff;
mod list;
mod resolve;
mod show;

use std::ffi::OsString;

use clap::Subcommand;
use serde::Serialize;

use super::Failure;
use super::output::{JsonKey, json_time};
use super::target::StoreArg;
use crate::store::{Breach, Conflict, Reason};
use crate::types::Generation;

/// List and resolve conflicts: saves that came too late or that a rule refused, and bytes that a crash interrupted
///
/// They stay until sepia conflicts resolve ends them, or for as long as the store's policy says (conflicts_keep in
/// .sepia/config.toml, 90 days unless it says otherwise).
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ConflictsArgs {
    #[command(subcommand)]
    command: Option<ConflictsCommand>,
    /// Only those of this object, or below this directory
    #[arg(value_name = "PATH")]
    path: Option<OsString>,
    /// Print them as a JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum ConflictsCommand {
    Show(show::ShowArgs),
    Diff(diff::DiffArgs),
    Resolve(resolve::ResolveArgs),
}

/// Runs `sepia conflicts`.
pub fn run(args: &ConflictsArgs, store: &StoreArg) -> Result<(), Failure> {
    match &args.command {
        None => list::run(args.path.as_deref(), args.json, store),
        Some(ConflictsCommand::Show(args)) => show::run(args, &store.store(None)?),
        Some(ConflictsCommand::Diff(args)) => diff::run(args, &store.store(None)?),
        Some(ConflictsCommand::Resolve(args)) => resolve::run(args, &store.store(None)?),
    }
}

/// A conflict, for machines.
#[derive(Serialize)]
pub struct JsonConflict {
    id: String,
    #[serde(flatten)]
    key: JsonKey,
    reason: Reason,
    #[serde(flatten)]
    breach: Option<Breach>,
    base: Option<Generation>,
    base_lost: Option<u64>,
    current: Option<Generation>,
    time: String,
    size: u64,
}

impl From<&Conflict> for JsonConflict {
    fn from(conflict: &Conflict) -> Self {
        JsonConflict {
            id: conflict.id.to_string(),
            key: (&conflict.key).into(),
            reason: conflict.reason,
            breach: conflict.breach.clone(),
            base: conflict.base,
            base_lost: conflict.base_lost,
            current: conflict.current,
            time: json_time(conflict.time),
            size: conflict.size,
        }
    }
}

fn reason_text(reason: Reason) -> &'static str {
    match reason {
        Reason::Stale => "came too late",
        Reason::Interrupted => "interrupted by a crash",
        Reason::Failed => "could not be saved",
        Reason::Torn => "torn by a power loss",
        Reason::Rejected => "refused by a rule",
        Reason::Damaged => "its record is damaged, see --bytes",
    }
}
