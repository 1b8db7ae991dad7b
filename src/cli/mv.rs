//! `sepia mv`.

use std::ffi::OsString;

use super::output::Output;
use super::state::JsonStat;
use super::target::{StoreArg, Target};
use super::{Failure, live};
use crate::backend::{FileKind, Stat};
use crate::types::{Key, Precondition};

/// Rename an object or a directory; its history goes along
///
/// An object that is replaced stays in the history of the new name. Where both are names of one object, the old one goes.
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
    if !args.if_absent
        && let Some(stat) = become_one(&target, &to)?
    {
        return report(args, &target, &to, &stat);
    }
    let expect = if args.if_absent { Precondition::Absent } else { Precondition::Any };
    let stat = target.store.rename(from, &to, expect)?;
    report(args, &target, &to, &stat)
}

/// If both are names of one object, rename(2) would leave both, which nobody means by mv: the old one goes. Returns what the
/// object is then.
fn become_one(target: &Target, to: &Key) -> Result<Option<Stat>, Failure> {
    let (store, from) = (&target.store, &target.key);
    let (Ok(old), Ok(new)) = (store.stat(from), store.stat(to)) else { return Ok(None) };
    if from == to || old.id != new.id || old.kind == FileKind::Directory {
        return Ok(None);
    }
    // Should it be its last name by now, the history has it.
    let expect = match old.kind {
        FileKind::File => store.get(from)?.stat.precondition(),
        _ => Precondition::Any,
    };
    store.remove(from, expect)?;
    Ok(Some(store.stat(to)?))
}

fn report(args: &MvArgs, Target { store, key: from }: &Target, to: &Key, stat: &Stat) -> Result<(), Failure> {
    live::show_names(store, [from, to]);
    let mut out = Output::new();
    if args.json {
        out.json(&JsonStat::new(to, stat))?;
    } else {
        out.line(match stat.generation {
            Some(generation) => format!("{from}: is now {to}, generation {generation}"),
            None => format!("{from}: is now {to}"),
        })?;
    }
    out.finish()
}
