//! `sepia trash empty`.

use std::ffi::OsString;

use crate::cli::Failure;
use crate::cli::output::{self, Output, count};
use crate::cli::target::StoreArg;
use crate::types::Age;

/// Delete for good what was removed, with its history
///
/// What is pinned or in a snapshot stays.
#[derive(Debug, clap::Args)]
pub struct EmptyArgs {
    /// Only what was there or below
    #[arg(value_name = "KEY")]
    dir: Option<OsString>,
    /// Only what was removed longer ago, such as 7d
    #[arg(long, value_name = "TIME", default_value = "0s")]
    older_than: Age,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `sepia trash empty`.
pub fn run(args: &EmptyArgs, store: &StoreArg) -> Result<(), Failure> {
    let target = store.directory(args.dir.as_deref())?;
    let done = target.store.empty_trash(&target.key, args.older_than)?;
    let mut out = Output::new();
    if args.json {
        out.json(&done)?;
    } else {
        let dropped = count(done.dropped as usize, "generation", "generations");
        out.line(format!("deleted {dropped}: {} freed", output::size(done.freed)))?;
    }
    out.finish()
}
