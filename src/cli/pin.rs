//! `sepia pin`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;

use super::Failure;
use super::output::{JsonKey, Output, json_time};
use super::target::StoreArg;
use crate::store::pins::Pin;
use crate::types::Generation;

/// Keep a generation, whatever the policy says
///
/// It goes along when its object is renamed. The current generation can be pinned, too: it then stays when it is no
/// longer the current one.
#[derive(Debug, clap::Args)]
pub struct PinArgs {
    /// The object and the number of the generation, such as Note/plan@3; with --list, the store
    #[arg(value_name = "KEY@N", required_unless_present = "list")]
    what: Option<OsString>,
    /// Take the pin away
    #[arg(long, conflicts_with = "list")]
    remove: bool,
    /// List all pins
    #[arg(long)]
    list: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct JsonPin {
    #[serde(flatten)]
    key: JsonKey,
    generation: Generation,
    committed: String,
    pinned: String,
}

impl From<&Pin> for JsonPin {
    fn from(pin: &Pin) -> Self {
        JsonPin {
            key: (&pin.key).into(),
            generation: pin.generation,
            committed: json_time(pin.committed),
            pinned: json_time(pin.pinned),
        }
    }
}

/// Runs `sepia pin`.
pub fn run(args: &PinArgs, store: &StoreArg) -> Result<(), Failure> {
    let mut out = Output::new();
    if args.list {
        let pins = store.store(args.what.as_deref())?.pins()?;
        if args.json {
            out.json(&pins.iter().map(JsonPin::from).collect::<Vec<_>>())?;
            return out.finish();
        }
        for pin in &pins {
            out.line(format!("{}@{}  pinned {}", pin.key, pin.generation, pin.pinned.human()))?;
        }
        if pins.is_empty() {
            out.line("nothing is pinned")?;
        }
        return out.finish();
    }
    let what = args.what.as_deref().unwrap_or_default();
    let (key, generation) = split(what).ok_or_else(|| {
        let shown = super::output::name(what.as_bytes());
        Failure::usage(format!("{shown}: name the generation too, such as Note/plan@3"))
    })?;
    let target = store.object(key)?;
    if args.remove {
        let removed = target.store.unpin(&target.key, generation)?;
        if args.json {
            out.json(&serde_json::json!({ "removed": removed }))?;
        } else if removed == 0 {
            out.line(format!("{}@{generation}: was not pinned", target.key))?;
        } else {
            out.line(format!("{}@{generation}: no longer pinned", target.key))?;
        }
        return out.finish();
    }
    let pin = target.store.pin(&target.key, generation)?;
    if args.json {
        out.json(&JsonPin::from(&pin))?;
    } else {
        out.line(format!("{}@{generation}: pinned", target.key))?;
    }
    out.finish()
}

/// The object and the generation: what is behind the last `@`.
fn split(what: &OsStr) -> Option<(&OsStr, Generation)> {
    let bytes = what.as_bytes();
    let at = bytes.iter().rposition(|&byte| byte == b'@')?;
    let generation = std::str::from_utf8(&bytes[at + 1..]).ok()?.parse().ok()?;
    Some((OsStr::from_bytes(&bytes[..at]), generation))
}
