//! `sepia snapshot delete`.

use super::super::Failure;
use super::super::output::Output;
use super::name_text;
use crate::store::Store;

/// Delete a snapshot
///
/// The objects, and the generations that it refers to, stay; but it no longer keeps these from being dropped.
#[derive(Debug, clap::Args)]
pub struct DeleteArgs {
    /// The snapshot
    #[arg(value_name = "NAME")]
    name: String,
}

/// Runs `sepia snapshot delete`.
pub fn run(args: &DeleteArgs, store: &Store) -> Result<(), Failure> {
    store.delete_snapshot(&args.name)?;
    let mut out = Output::new();
    out.line(format!("{}: deleted; the generations that it referred to stay in the histories", name_text(&args.name)))?;
    out.finish()
}
