//! `sepia trash restore`.

use std::ffi::OsString;

use crate::cli::output::{JsonKey, Output};
use crate::cli::put::report;
use crate::cli::target::{StoreArg, Target};
use crate::cli::{Failure, live};
use crate::types::Generation;

/// Bring back what was removed, with its mode, owner, times and attributes
///
/// Its history is gone on with. Of a directory, all comes back that was removed below it. What an ordinary user brings back
/// of somebody else's becomes their own, without the rights that were for another owner or group.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// What was removed
    #[arg(value_name = "KEY")]
    key: OsString,
    /// An older generation rather than the last
    #[arg(short, long, value_name = "N")]
    generation: Option<Generation>,
    /// Under another name; the history stays where it is
    #[arg(long = "as", value_name = "KEY")]
    to: Option<OsString>,
    /// Print the object's new state as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `sepia trash restore`.
pub fn run(args: &RestoreArgs, store: &StoreArg) -> Result<(), Failure> {
    let (target, to) = match &args.to {
        Some(to) => store.objects(&args.key, to)?,
        None => {
            let target = store.object(&args.key)?;
            let to = target.key.clone();
            (target, to)
        }
    };
    let is_object = target.store.trash(&target.key)?.iter().any(|one| one.key == target.key);
    if args.to.is_none() && args.generation.is_none() && !is_object {
        return below(args, &target);
    }
    let stat = target.store.untrash(&target.key, args.generation, &to)?;
    live::show_names(&target.store, [&to]);
    report(&to, &stat, "brought back", args.json)
}

/// A directory, with all that was removed below it.
fn below(args: &RestoreArgs, target: &Target) -> Result<(), Failure> {
    let back = target.store.untrash_below(&target.key)?;
    live::show_names(&target.store, &back);
    let mut out = Output::new();
    if args.json {
        out.json(&back.iter().map(JsonKey::from).collect::<Vec<_>>())?;
    } else {
        for key in &back {
            out.line(format!("{key}: brought back"))?;
        }
    }
    out.finish()
}
