//! `sepia log`.

use std::ffi::OsString;

use serde_json::{Map, Value};

use super::Failure;
use super::target::StoreArg;
use crate::store::Actor;

/// Record an activity: what is to be remembered of an object
///
/// It is listed by 'sepia events' among what has happened to the object.
#[derive(Debug, clap::Args)]
pub struct LogArgs {
    /// The object, or a directory
    #[arg(value_name = "KEY")]
    key: OsString,
    /// What was done, in a word or a sentence
    activity: String,
    /// More about it; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    meta: Vec<(String, String)>,
}

/// Runs `sepia log`.
pub fn run(args: &LogArgs, store: &StoreArg) -> Result<(), Failure> {
    let target = store.object(&args.key)?;
    let meta: Map<String, Value> =
        args.meta.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    target.store.log_activity(&target.key, &args.activity, meta, Actor::current())?;
    Ok(())
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("not of the form NAME=VALUE"),
    }
}
