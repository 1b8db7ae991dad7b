//! `sepia conflicts resolve`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;

use super::super::output::{self, Output};
use super::super::state::JsonStat;
use super::super::{ExitCode, Failure, live};
use super::JsonConflict;
use crate::store::{Conflict, Resolution, Store};
use crate::types::{Generation, Key};

/// End a conflict
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("how").required(true))]
pub struct ResolveArgs {
    /// The conflict's ID, or as much of its beginning as is unique
    #[arg(value_name = "ID")]
    conflict: String,
    /// Make the bytes that were set aside the next generation; what is current stays in the history
    #[arg(long, group = "how")]
    take: bool,
    /// Keep what is current and drop the bytes that were set aside, for good
    #[arg(long, group = "how")]
    keep: bool,
    /// Save them as a new object: a name beside the old one, or a key with slashes from the store's root
    #[arg(long = "as", value_name = "NEWNAME", group = "how")]
    new_name: Option<OsString>,
    /// Print the resolution as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct JsonResolution {
    conflict: JsonConflict,
    resolution: &'static str,
    saved: Option<JsonStat>,
}

/// Runs `sepia conflicts resolve`.
pub fn run(args: &ResolveArgs, store: &Store) -> Result<(), Failure> {
    let conflict = store.conflict(&args.conflict)?;
    let how = resolution(args, &conflict)?;
    let saved = store.resolve_conflict(&conflict.id, &how).map_err(|error| {
        let failure = Failure::from(error);
        if failure.code != ExitCode::Conflict {
            return failure;
        }
        failure.hint("the conflict stays as it is, give another name")
    })?;
    let (word, key) = match &how {
        Resolution::Take => ("take", &conflict.key),
        Resolution::Keep => ("keep", &conflict.key),
        Resolution::As(key) => ("as", key),
    };
    live::show_names(store, [key]);
    let mut out = Output::new();
    if args.json {
        let saved = saved.as_ref().map(|stat| JsonStat::new(key, stat));
        out.json(&JsonResolution { conflict: (&conflict).into(), resolution: word, saved })?;
    } else {
        let generation = saved.and_then(|stat| stat.generation).unwrap_or(Generation::FIRST);
        let size = output::size(conflict.size);
        out.line(match how {
            Resolution::Keep => format!("{key}: stays as it is; the {size} that were set aside are gone"),
            Resolution::Take => format!("{key}: the {size} that were set aside are now generation {generation}"),
            Resolution::As(_) => format!("{key}: holds the {size} that were set aside, as generation {generation}"),
        })?;
    }
    out.finish()
}

fn resolution(args: &ResolveArgs, conflict: &Conflict) -> Result<Resolution, Failure> {
    let Some(name) = &args.new_name else {
        return Ok(if args.take { Resolution::Take } else { Resolution::Keep });
    };
    let fail = |error| Failure::usage(format!("{}: {error}", output::name(name.as_bytes())));
    let key = if name.as_bytes().contains(&b'/') {
        Key::parse(name)
    } else {
        conflict.key.parent().unwrap_or_else(Key::root).child(name)
    };
    key.map(Resolution::As).map_err(fail)
}
