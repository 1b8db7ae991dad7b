//! `sepia stat`.

use std::ffi::OsString;

use super::output::{Align, Output, Style, Table};
use super::state::{JsonStat, kind_name, mode_text};
use super::target::StoreArg;
use super::{Failure, output};
use crate::backend::FileKind;

/// Show all that is known of an object
#[derive(Debug, clap::Args)]
pub struct StatArgs {
    /// The object, directory or link
    #[arg(value_name = "KEY")]
    key: OsString,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct JsonDetails {
    #[serde(flatten)]
    state: JsonStat,
    store: String,
    class: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

/// Runs `sepia stat`.
pub fn run(args: &StatArgs, store: &StoreArg) -> Result<(), Failure> {
    let target = store.object(&args.key)?;
    let (store, key) = (&target.store, &target.key);
    let stat = store.stat(key)?;
    let link = (stat.kind == FileKind::Symlink).then(|| store.backend().read_link(key)).transpose()?;
    let class = key.class().map(|class| class.as_os_str().as_encoded_bytes().to_vec());
    let mut out = Output::new();
    if args.json {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        out.json(&JsonDetails {
            state: JsonStat::new(key, &stat),
            store: store.location().to_string(),
            class: class.as_deref().map(text),
            target: link.as_deref().map(text),
        })?;
        return out.finish();
    }
    let mut table = Table::new(&[Align::Left, Align::Left]);
    let mut field = |label: &str, value: String| {
        table.row(Style::Plain, Style::Plain, vec![format!("{label}:"), value]);
    };
    field("key", key.to_string());
    field("store", output::name(store.location().to_string().as_bytes()));
    if let Some(class) = class {
        field("class", output::name(&class));
    }
    field("kind", kind_name(stat.kind).to_owned());
    if let Some(link) = link {
        field("target", output::name(&link));
    }
    field("id", stat.id.to_string());
    if stat.kind == FileKind::File {
        field("generation", stat.generation.map_or("none yet".to_owned(), |generation| generation.to_string()));
        if let Some(committed) = stat.committed {
            field("committed", committed.human());
        }
        if !stat.recorded {
            field("recorded", "no, changed from outside since; any save or 'sepia history' records it".to_owned());
        }
    }
    let exact = if stat.size < 1024 { String::new() } else { format!(" ({} bytes)", stat.size) };
    field("size", output::size(stat.size) + &exact);
    field("allocated", output::size(stat.blocks.saturating_mul(512)));
    field("mode", format!("{:04o} {}", stat.mode, mode_text(stat.kind, stat.mode)));
    field("owner", stat.uid.to_string());
    field("group", stat.gid.to_string());
    field("links", stat.nlink.to_string());
    if matches!(stat.kind, FileKind::CharDevice | FileKind::BlockDevice) {
        let (major, minor) = (rustix::fs::major(stat.rdev), rustix::fs::minor(stat.rdev));
        field("device", format!("{major}:{minor}"));
    }
    field("accessed", stat.atime.human());
    field("modified", stat.mtime.human());
    field("changed", stat.ctime.human());
    out.table(&table)?;
    out.finish()
}
