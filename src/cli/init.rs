//! `sepia init`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use super::output::Output;
use super::{Failure, output};
use crate::store::{Location, Store};

/// Make a new store
///
/// A directory may hold files already: they are the store's first objects.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// A directory, which is made if need be, or another store's URL
    #[arg(value_name = "STORE")]
    url: OsString,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `sepia init`.
pub fn run(args: &InitArgs) -> Result<(), Failure> {
    let Some(url) = args.url.to_str() else {
        let shown = output::name(args.url.as_bytes());
        return Err(Failure::usage(format!("{shown}: the name of a store must be text (UTF-8)")));
    };
    if Location::parse(url)? == Location::Memory {
        return Err(Failure::usage(
            "memory: is a new store each time, gone with its process; use it with: sepia mount memory: DIR",
        ));
    }
    let store = Store::init(url)?;
    let mut out = Output::new();
    if args.json {
        let id = store.backend().store_id();
        out.json(&serde_json::json!({ "store": store.location().to_string(), "id": id }))?;
    } else {
        let shown = output::name(store.location().to_string().as_bytes());
        out.line(format!("{shown}: made a store; use it with: sepia mount {shown} DIR"))?;
    }
    out.finish()
}
