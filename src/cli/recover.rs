//! `sepia recover`.

use std::ffi::OsString;

use serde::Serialize;

use super::output::{JsonKey, Output};
use super::status::user_text;
use super::target::StoreArg;
use super::{ExitCode, Failure};
use crate::store::{Outcome, Recovered, Store};
use crate::types::Generation;

/// Finish or set aside the saves of processes that died
///
/// Every mount does the same when it starts. What living processes are about to save is left alone.
#[derive(Debug, clap::Args)]
pub struct RecoverArgs {
    /// The store: a URL, or a path in it
    #[arg(value_name = "STORE")]
    store: Option<OsString>,
    /// Print what was done as a JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct JsonRecovered {
    #[serde(flatten)]
    key: JsonKey,
    outcome: &'static str,
    generation: Option<Generation>,
    conflict: Option<String>,
    size: u64,
}

/// Runs `sepia recover`.
pub fn run(args: &RecoverArgs, store: &StoreArg) -> Result<(), Failure> {
    let store = store.store(args.store.as_deref())?;
    let recovered = store.recover()?;
    let waiting = recovered.iter().filter(|one| matches!(one.outcome, Outcome::Waits(_))).count();
    let mut out = Output::new();
    if args.json {
        out.json(&recovered.iter().map(json).collect::<Vec<_>>())?;
    } else {
        print(&store, &recovered, &mut out)?;
    }
    out.finish()?;
    match waiting {
        0 => Ok(()),
        n => Err(Failure::new(
            ExitCode::Error,
            format!("{n} of these could not be recovered, and wait for the next time"),
        )),
    }
}

fn print(store: &Store, recovered: &[Recovered], out: &mut Output) -> Result<(), Failure> {
    for one in recovered {
        out.line(one.to_string())?;
    }
    if recovered.is_empty() {
        out.line("nothing to recover: no process died while it was saving")?;
    }
    for user in store.users()? {
        out.line(format!("left alone, since it is alive: {}", user_text(&user)))?;
    }
    Ok(())
}

fn json(recovered: &Recovered) -> JsonRecovered {
    let (generation, conflict) = match &recovered.outcome {
        Outcome::AlreadySaved | Outcome::Empty | Outcome::Copied | Outcome::Waits(_) => (None, None),
        Outcome::Finished(generation) => (Some(*generation), None),
        Outcome::SetAside(id) => (None, Some(id.to_string())),
        Outcome::Torn { generation, kept, .. } => (Some(*generation), kept.as_ref().map(ToString::to_string)),
    };
    let outcome = recovered.outcome.name();
    JsonRecovered { key: (&recovered.key).into(), outcome, generation, conflict, size: recovered.size }
}
