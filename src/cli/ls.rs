//! `sepia ls`.

use std::ffi::OsString;

use super::output::{Align, Output, Style, Table};
use super::state::{JsonStat, generation_text, mode_text};
use super::target::StoreArg;
use super::{Failure, output};
use crate::backend::{self, FileKind, Stat};
use crate::store::{Error, Store};
use crate::types::Key;

/// List objects, sorted by name
#[derive(Debug, clap::Args)]
pub struct LsArgs {
    /// A directory or an object; else the store's root, or the current directory when no store is named
    #[arg(value_name = "PATH")]
    path: Option<OsString>,
    /// Kind and permissions, owner, group, size in bytes, generation, time of the last change, name
    #[arg(short, long)]
    long: bool,
    /// Also what is below the directories in it
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Print a JSON array with all that is known of each
    #[arg(long)]
    json: bool,
}

struct Entry {
    key: Key,
    kind: FileKind,
    /// Only when it is shown.
    stat: Option<Stat>,
}

/// Runs `sepia ls`.
pub fn run(args: &LsArgs, store: &StoreArg) -> Result<(), Failure> {
    let target = store.directory(args.path.as_deref())?;
    let with_stat = args.long || args.json;
    let stat = target.store.stat(&target.key)?;
    let (dir, entries) = if stat.kind == FileKind::Directory {
        let mut entries = Vec::new();
        collect(&target.store, &target.key, args.recursive, with_stat, &mut entries)?;
        (target.key, entries)
    } else {
        let entry = Entry { kind: stat.kind, key: target.key.clone(), stat: Some(stat) };
        (target.key.parent().unwrap_or_else(Key::root), vec![entry])
    };
    let mut out = Output::new();
    if args.json {
        let states = entries.iter().filter_map(|entry| Some(JsonStat::new(&entry.key, entry.stat.as_ref()?)));
        out.json(&states.collect::<Vec<_>>())?;
    } else if args.long {
        let (right, left) = (Align::Right, Align::Left);
        let mut table = Table::new(&[left, right, right, right, right, left, left]);
        for entry in &entries {
            let Some(stat) = &entry.stat else { continue };
            let cells = vec![
                mode_text(stat.kind, stat.mode),
                stat.uid.to_string(),
                stat.gid.to_string(),
                stat.size.to_string(),
                generation_text(stat.generation),
                stat.mtime.human(),
                entry.shown(&dir),
            ];
            table.row(Style::Plain, entry.style(), cells);
        }
        out.table(&table)?;
    } else {
        for entry in &entries {
            let line = out.paint(entry.style(), &entry.shown(&dir));
            out.line(line)?;
        }
    }
    out.finish()
}

fn collect(
    store: &Store,
    dir: &Key,
    recursive: bool,
    with_stat: bool,
    entries: &mut Vec<Entry>,
) -> Result<(), Failure> {
    for entry in store.list(dir)? {
        let key = dir.child(&entry.name)?;
        let stat = match with_stat.then(|| store.stat(&key)).transpose() {
            // Removed since the listing.
            Err(Error::Backend(backend::Error::NotFound(_))) => continue,
            other => other?,
        };
        entries.push(Entry { key: key.clone(), kind: entry.kind, stat });
        if recursive && entry.kind == FileKind::Directory {
            match collect(store, &key, recursive, with_stat, entries) {
                Err(failure) if failure.code == super::ExitCode::NotFound => {}
                other => other?,
            }
        }
    }
    Ok(())
}

impl Entry {
    /// Its path below the directory that was asked for.
    fn shown(&self, dir: &Key) -> String {
        let below = self.key.rebase(dir, &Key::root()).unwrap_or_else(|| self.key.clone());
        output::name(below.as_bytes().strip_prefix(b"/").unwrap_or(below.as_bytes()))
    }

    fn style(&self) -> Style {
        match self.kind {
            FileKind::Directory => Style::Blue,
            FileKind::Symlink => Style::Cyan,
            _ => Style::Plain,
        }
    }
}
