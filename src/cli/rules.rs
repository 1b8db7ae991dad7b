//! `sepia rules`.

use std::ffi::OsString;

use serde::Serialize;

use super::output::{JsonKey, Output};
use super::progress::Progress;
use super::target::StoreArg;
use super::{ExitCode, Failure, output};
use crate::store::Breach;
use crate::store::rules::Audited;

/// Look for objects that break a rule of their class
///
/// The rules in .sepia/config.toml hold for what is saved, not for what was there before or what another program changes
/// in the store's directory. Changes nothing. Ends with 8 if an object breaks a rule.
#[derive(Debug, clap::Args)]
pub struct RulesArgs {
    /// Only this object, or what is below this directory
    #[arg(value_name = "PATH")]
    path: Option<OsString>,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct JsonBreach {
    #[serde(flatten)]
    key: JsonKey,
    #[serde(flatten)]
    breach: Breach,
}

/// Runs `sepia rules`.
pub fn run(args: &RulesArgs, store: &StoreArg) -> Result<(), Failure> {
    let target = store.directory(args.path.as_deref())?;
    let mut progress = Progress::new("looked at", None);
    let (mut looked, mut breaches) = (0_usize, Vec::new());
    target.store.find_breaches(&target.key, &mut |audited| match audited {
        Audited::Looked(bytes) => {
            looked += 1;
            progress.add(bytes);
        }
        Audited::Broken(key, breach) => breaches.push((key.clone(), breach.clone())),
    })?;
    drop(progress);
    let mut out = Output::new();
    if args.json {
        let found = breaches.iter().map(|(key, breach)| JsonBreach { key: key.into(), breach: breach.clone() });
        out.json(&found.collect::<Vec<_>>())?;
    } else {
        for (key, breach) in &breaches {
            out.line(format!("{key}: {}", output::name(breach.to_string().as_bytes())))?;
        }
        let count = |number| output::count(number, "object", "objects");
        out.line(match (looked, breaches.len()) {
            (0, 0) => "there is nothing that a rule is for".to_owned(),
            (looked, 0) => format!("{} looked at, none breaks a rule", count(looked)),
            (looked, broken) => format!("{} looked at, rules are broken {broken} times", count(looked)),
        })?;
    }
    out.finish()?;
    if breaches.is_empty() { Ok(()) } else { Err(Failure::silent(ExitCode::Rejected)) }
}
