//! `sepia restore`.

use std::ffi::OsString;

use super::put::report;
use super::target::StoreArg;
use super::{Failure, live};
use crate::backend;
use crate::store::Error;
use crate::types::{Generation, Precondition};

/// Make an older generation's bytes current again, as a new generation
///
/// Also brings back what was removed. What was current stays in the history.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// The object
    #[arg(value_name = "KEY")]
    key: OsString,
    /// The generation to restore (see: sepia history KEY)
    #[arg(short, long, value_name = "N")]
    generation: Generation,
    /// Only if this generation is the current one
    #[arg(long, value_name = "N")]
    if_generation: Option<Generation>,
    /// Print the object's new state as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `sepia restore`.
pub fn run(args: &RestoreArgs, store: &StoreArg) -> Result<(), Failure> {
    let target = store.object(&args.key)?;
    // A save that comes between our look at the object and the restoration is not to be hidden by it.
    let found = match target.store.get(&target.key) {
        Ok(opened) => opened.stat.generation.map_or(Precondition::Reserved(opened.stat.id), Precondition::Generation),
        Err(Error::Backend(backend::Error::NotFound(_))) => Precondition::Absent,
        Err(error) => return Err(error.into()),
    };
    let expect = args.if_generation.map_or(found, Precondition::Generation);
    let stat = target.store.restore(&target.key, args.generation, expect)?;
    live::show_names(&target.store, [&target.key]);
    report(&target.key, &stat, &format!("generation {} restored", args.generation), args.json)
}
