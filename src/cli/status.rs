//! `sepia status`.

use std::ffi::OsString;

use serde::Serialize;

use super::output::{Align, Output, Style, Table};
use super::target::StoreArg;
use super::{Failure, output};
use crate::backend::{Owner, file::FORMAT_VERSION};

/// Show a store: where it is, who uses it, what needs attention
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// The store: a URL, or a path in it
    #[arg(value_name = "STORE")]
    store: Option<OsString>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct JsonStatus {
    store: String,
    id: String,
    format: Option<u64>,
    users: Vec<Owner>,
    conflicts: usize,
    collector: crate::store::collect::Status,
    verification: crate::store::verify::Status,
    /// What is wrong with `.sepia/config.toml` or a schema that it names.
    policy_fault: Option<String>,
    size: u64,
    free: u64,
    available: u64,
}

/// Runs `sepia status`.
pub fn run(args: &StatusArgs, store: &StoreArg) -> Result<(), Failure> {
    let store = store.store(args.store.as_deref())?;
    let space = store.backend().stat_fs()?;
    let bytes = |blocks: u64| blocks.saturating_mul(space.block_size.into());
    let status = JsonStatus {
        store: store.location().to_string(),
        id: store.backend().store_id().to_owned(),
        format: store.location().path().map(|_| FORMAT_VERSION.into()),
        users: store.users()?,
        conflicts: store.conflicts()?.len(),
        collector: store.collector_status()?,
        verification: store.verification_status()?,
        policy_fault: store.check_rules().err().map(|error| error.to_string()),
        size: bytes(space.blocks),
        free: bytes(space.blocks_free),
        available: bytes(space.blocks_available),
    };
    let mut out = Output::new();
    if args.json {
        out.json(&status)?;
        return out.finish();
    }
    let mut table = Table::new(&[Align::Left, Align::Left]);
    let mut field = |label: &str, value: String, style| {
        table.row(Style::Plain, style, vec![label.to_owned(), value]);
    };
    field("store:", output::name(status.store.as_bytes()), Style::Bold);
    field("id:", output::name(status.id.as_bytes()), Style::Plain);
    if let Some(version) = status.format {
        field("format:", version.to_string(), Style::Plain);
    }
    field("space:", format!("{} free of {}", output::size(status.available), output::size(status.size)), Style::Plain);
    match status.conflicts {
        0 => field("conflicts:", "none".to_owned(), Style::Plain),
        n => field("conflicts:", format!("{n}, list them with: sepia conflicts"), Style::Red),
    }
    if let Some(fault) = &status.policy_fault {
        field("policy:", output::name(fault.as_bytes()), Style::Red);
    }
    let (collector, style) = super::gc::status_text(&store)?;
    field("history:", collector, style);
    let (verified, style) = super::verify::status_text(&store)?;
    field("verified:", verified, style);
    if status.users.is_empty() {
        field("used by:", "nobody".to_owned(), Style::Plain);
    }
    for (at, user) in status.users.iter().enumerate() {
        let label = if at == 0 { "used by:" } else { "" };
        field(label, user_text(user), Style::Plain);
    }
    out.table(&table)?;
    out.finish()
}

/// A process that uses a store, and what it is doing if it has said so.
pub fn user_text(user: &Owner) -> String {
    let activity = output::name(user.activity.as_bytes());
    if activity.is_empty() { format!("process {}", user.pid) } else { format!("process {} ({activity})", user.pid) }
}
