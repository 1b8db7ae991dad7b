//! `sepia put`.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, makedev};

use super::interrupt::{Interrupt, UntilInterrupted};
use super::output::Output;
use super::progress::{Counted, Progress};
use super::state::JsonStat;
use super::target::StoreArg;
use super::{Failure, live, output};
use crate::backend::Stat;
use crate::types::{Generation, Key, Precondition};

/// Save bytes as the next generation of an object
///
/// Directories above it are made, and holes of a file stay holes. What was current stays in its history. When the command ends with 0, the bytes
/// would survive a power loss; otherwise nothing was changed. Bytes that a rule of the class refuses (docs/rules.md) are
/// kept as a conflict, and the command ends with 8.
#[derive(Debug, clap::Args)]
pub struct PutArgs {
    /// The object
    #[arg(value_name = "KEY")]
    key: OsString,
    /// Where the bytes come from; - or nothing is standard input, which must not be closed
    #[arg(value_name = "FILE")]
    file: Option<OsString>,
    /// Only if this generation is the current one
    #[arg(long, value_name = "N", conflicts_with = "if_absent")]
    if_generation: Option<Generation>,
    /// Only if there is nothing yet
    #[arg(long)]
    if_absent: bool,
    /// Print the object's new state as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `sepia put`.
pub fn run(args: &PutArgs, store: &StoreArg) -> Result<(), Failure> {
    let target = store.object(&args.key)?;
    let expect = match args.if_generation {
        Some(generation) => Precondition::Generation(generation),
        None if args.if_absent => Precondition::Absent,
        None => Precondition::Any,
    };
    let (source, total) = match args.file.as_deref().filter(|&file| file != "-") {
        None => {
            let input = std::io::stdin().as_fd().try_clone_to_owned();
            let input = input.map_err(|error| Failure::error(format!("standard input: {error}")))?;
            if was_closed(&input) {
                return Err(Failure::usage("standard input is closed, so there is nothing to save")
                    .hint(format!("an empty object is saved by: sepia put {} /dev/null", target.key)));
            }
            (File::from(input), None)
        }
        Some(file) => {
            let fail = |error| Failure::error(format!("{}: {error}", output::name(file.as_bytes())));
            let file = File::open(file).map_err(fail)?;
            let total = file.metadata().map_err(fail)?.len();
            (file, Some(total))
        }
    };
    // Others see who is at work when this takes long; if they can't be told, saving fails for the same reason.
    let _ = target.store.backend().staging().announce(&format!("put {}", target.key), false);
    let interrupt = Interrupt::new().map_err(|error| Failure::error(format!("can't wait for signals: {error}")))?;
    let inner = UntilInterrupted { source, interrupt: &interrupt };
    let mut bytes = Counted { inner, progress: Progress::new(target.key.to_string(), total) };
    let saved = target.store.put_sparse(&target.key, &mut bytes, expect);
    drop(bytes);
    match saved {
        Ok(stat) => {
            live::show_names(&target.store, [&target.key]);
            report(&target.key, &stat, "saved", args.json)
        }
        Err(error) => {
            // With the store its place in the staging area is given up, which ending by the signal would leave behind.
            drop(target);
            interrupt.end();
            Err(error.into())
        }
    }
}

/// Whether a program was started without this standard input. Rust's runtime opens /dev/null in its place, and so do those who
/// start daemons: for reading and writing, unlike a shell that is asked for it.
fn was_closed(input: &OwnedFd) -> bool {
    let is_null = |stat: rustix::fs::Stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(1, 3)
    };
    let both_ways = fcntl_getfl(input).is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDWR);
    both_ways && fstat(input).is_ok_and(is_null)
}

/// Says what was saved.
pub fn report(key: &Key, stat: &Stat, what: &str, json: bool) -> Result<(), Failure> {
    let mut out = Output::new();
    if json {
        out.json(&JsonStat::new(key, stat))?;
    } else {
        let generation = stat.generation.unwrap_or(Generation::FIRST);
        out.line(format!("{key}: {what} as generation {generation}, {}", output::size(stat.size)))?;
    }
    out.finish()
}
