//! `sepia mv`.

use std::ffi::OsString;

use super::output::Output;
use super::state::JsonStat;
use super::target::StoreArg;
use super::{Failure, live};
use crate::backend::FileKind;
use crate::types::Precondition;

/// Rename an object or a directory; its history goes along
///
/// An object that is replaced stays in the history of the new name.
#[derive(Debug, clap::Args)]
pub struct MvArgs {
    /// The old name
    from: OsString,
    /// The new name, or a directory to move it into
    to: OsString,
    /// Only if there is nothing under the new name
    #[arg(long)]
    if_absent: bool,
    /// Take the new name as it is, even if it is a directory's
    #[arg(short = 'T', long)]
    no_target_directory: bool,
    /// Print the object's new state as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `sepia mv`.
pub fn run(args: &MvArgs, store: &StoreArg) -> Result<(), Failure> {
    let (target, mut to) = store.objects(&args.from, &args.to)?;
    let from = &target.key;
    let Some(name) = from.name() else {
        return Err(Failure::usage("the root of a store can't be renamed"));
    };
    let into = !args.no_target_directory
        && (to.is_root() || target.store.stat(&to).is_ok_and(|stat| stat.kind == FileKind::Directory));
    if into {
        to = to.child(name)?;
    }
    let expect = if args.if_absent { Precondition::Absent } else { Precondition::Any };
    let stat = target.store.rename(from, &to, expect)?;
    live::show_names(&target.store, [from, &to]);
    let mut out = Output::new();
    if args.json {
        out.json(&JsonStat::new(&to, &stat))?;
    } else {
        out.line(match stat.generation {
            Some(generation) => format!("{from}: is now {to}, generation {generation}"),
            None => format!("{from}: is now {to}"),
        })?;
    }
    out.finish()
}
