//! `sepia rm`.

use std::ffi::OsString;

use serde::Serialize;

use super::output::{JsonKey, Output};
use super::target::{StoreArg, Target};
use super::{Failure, live};
use crate::backend::FileKind;
use crate::store::Store;
use crate::types::{Generation, Key, Precondition};

/// Remove objects; their generations stay in the history
#[derive(Debug, clap::Args)]
pub struct RmArgs {
    /// What to remove
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<OsString>,
    /// Only if this generation is the current one
    #[arg(long, value_name = "N", conflicts_with = "recursive")]
    if_generation: Option<Generation>,
    /// Directories too, with all that is in them
    #[arg(short, long)]
    recursive: bool,
    /// Print what was removed as a JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Removed {
    #[serde(flatten)]
    key: JsonKey,
    kind: FileKind,
    /// The last generation of a file, by which it can be brought back.
    generation: Option<Generation>,
}

/// Runs `sepia rm`.
pub fn run(args: &RmArgs, store: &StoreArg) -> Result<(), Failure> {
    if args.if_generation.is_some() && args.keys.len() > 1 {
        return Err(Failure::usage("--if-generation is about one object, but several are given"));
    }
    let targets = args.keys.iter().map(|key| store.object(key)).collect::<Result<Vec<_>, _>>()?;
    let mut out = Output::new();
    let mut removed = Vec::new();
    let mut result = Ok(());
    for Target { store, key } in &targets {
        result = remove(store, key, args, &mut |removal| removed.push(removal));
        if result.is_err() {
            break;
        }
    }
    if let Some(Target { store, .. }) = targets.first() {
        live::show_names(store, removed.iter().map(|(key, _)| key));
    }
    // What was removed before a failure is said all the same.
    if args.json {
        out.json(&removed.iter().map(|(_, removal)| removal).collect::<Vec<_>>())?;
    } else {
        for (key, removal) in &removed {
            out.line(match removal.generation {
                Some(_) => format!("{key}: removed, 'sepia trash restore' brings it back"),
                None => format!("{key}: removed"),
            })?;
        }
    }
    out.finish()?;
    result
}

fn remove(store: &Store, key: &Key, args: &RmArgs, done: &mut dyn FnMut((Key, Removed))) -> Result<(), Failure> {
    let stat = store.stat(key)?;
    if stat.kind == FileKind::Directory {
        if !args.recursive {
            return Err(Failure::error(format!("{key}: is a directory; remove it and all that is in it with: rm -r")));
        }
        if key.is_root() {
            return Err(Failure::usage("the root of a store can't be removed"));
        }
        for entry in store.list(key)? {
            remove(store, &key.child(&entry.name)?, args, done)?;
        }
        store.remove_dir(key)?;
    } else {
        let expect = args.if_generation.map_or(Precondition::Any, Precondition::Generation);
        store.remove(key, expect)?;
    }
    // Another save may have come between the look at it and the removal: the history knows.
    let last = store.history(key).ok().and_then(|history| history.last().map(|info| info.generation));
    let generation = last.filter(|_| stat.kind == FileKind::File && stat.nlink <= 1);
    done((key.clone(), Removed { key: key.into(), kind: stat.kind, generation }));
    Ok(())
}
