//! `sepia events`.

use std::ffi::OsString;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::Failure;
use super::output::{self, JsonKey, Output, Style, json_time};
use super::state::kind_name;
use super::target::StoreArg;
use crate::backend::FileKind;
use crate::store::{Event, EventKind};
use crate::types::{Generation, Key, Timestamp, moment};

/// How often the log is looked at for more.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Show what has happened, the newest last
///
/// All that was done through any mount, command or program: created, updated, deleted, renamed, restored, conflict,
/// recovered, adopted (from outside), collected, snapshot, activity (see: sepia log), read (if the store's policy asks
/// for it).
#[derive(Debug, clap::Args)]
pub struct EventsArgs {
    /// An object, or a directory with all below it; else the whole store, or the current directory when no store is named
    #[arg(value_name = "KEY")]
    key: Option<OsString>,
    /// Go on with what happens from now on (with --since: from then on), until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Only what happened since: 90m, 12h, 2w, yesterday, 2026-11-23, "2026-11-23 10:00" (UTC), 2026-11-23T10:00:00+01:00
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
    /// Print a JSON object a line
    #[arg(long)]
    json: bool,
    /// Print lines as the event files of the original Sepia library have them
    #[arg(long, conflicts_with = "json")]
    original: bool,
}

/// An event as a JSON object: as in the log, but with times and names as all commands print them.
#[derive(Serialize)]
struct JsonEvent<'a> {
    ts: String,
    r#type: EventKind,
    #[serde(flatten)]
    key: JsonKey,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<JsonKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<JsonKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<FileKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#gen: Option<Generation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<&'a str>,
    meta: &'a Map<String, Value>,
}

/// Runs `sepia events`.
pub fn run(args: &EventsArgs, store: &StoreArg) -> Result<(), Failure> {
    let target = store.directory(args.key.as_deref())?;
    let since = args.since.or_else(|| args.follow.then(|| target.store.now()));
    let mut events = target.store.events(since).about(&target.key);
    let mut out = Output::new();
    loop {
        let mut printed = Ok(());
        events.read(&mut |event| {
            if printed.is_ok() {
                printed = print(&mut out, &event, args);
            }
        })?;
        printed?;
        if !args.follow {
            return out.finish();
        }
        out.flush()?;
        std::thread::sleep(LOOK_EVERY);
    }
}

fn print(out: &mut Output, event: &Event, args: &EventsArgs) -> Result<(), Failure> {
    if args.original {
        return out.line(event.original());
    }
    if args.json {
        return out.json_line(&json(event));
    }
    let name = |key: &Key| out.paint(Style::Bold, &key.to_string());
    let mut names = name(&event.key);
    if let Some(to) = &event.to {
        names = format!("{names} -> {}", name(to));
    }
    let mut said = Vec::new();
    if let Some(from) = &event.from {
        said.push(format!("also {from}"));
    }
    said.extend(event.file_kind.map(|kind| kind_name(kind).to_owned()));
    said.extend(event.generation.map(|generation| format!("generation {generation}")));
    said.extend(event.size.map(output::size));
    said.extend(event.meta.iter().map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{}={}", output::name(name.as_bytes()), output::name(value.as_bytes()))
    }));
    said.extend(by(event));
    out.line(format!("{}  {:<9}  {names}  {}", event.time.human(), event.kind.name(), said.join(", ")).trim_end())
}

fn by(event: &Event) -> Option<String> {
    let who = &event.who;
    let program = who.program.as_ref().map(|program| output::name(program.as_bytes()));
    let pid = who.pid.map(|pid| format!("process {pid}"));
    let uid = who.uid.map(|uid| format!("user {uid}"));
    let parts: Vec<_> = [program, pid, uid].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("by {}", parts.join(" ")))
}

fn json(event: &Event) -> JsonEvent<'_> {
    JsonEvent {
        ts: json_time(event.time),
        r#type: event.kind,
        key: (&event.key).into(),
        to: event.to.as_ref().map(JsonKey::from),
        from: event.from.as_ref().map(JsonKey::from),
        kind: event.file_kind,
        r#gen: event.generation,
        size: event.size,
        id: event.id.map(|id| id.to_string()),
        uid: event.who.uid,
        pid: event.who.pid,
        program: event.who.program.as_deref(),
        meta: &event.meta,
    }
}

/// A moment, or how long ago it was.
fn since(text: &str) -> Result<Timestamp, &'static str> {
    moment(text, Timestamp::now())
}
