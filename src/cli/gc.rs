//! `sepia gc`.

use std::ffi::OsString;

use serde::Serialize;

use super::conflicts::JsonConflict;
use super::interrupt::Interrupt;
use super::output::{JsonKey, Output, Style, count, json_time};
use super::target::StoreArg;
use super::{Failure, live, output};
use crate::backend::GenerationInfo;
use crate::store::collect::{Judged, Phase};
use crate::store::orphans::Orphans;
use crate::store::policy::Percent;
use crate::store::retention::Verdict;
use crate::store::{Collect, Collected, Store};
use crate::types::{Age, Generation, Key, Timestamp};

/// Delete the history that the store's policy no longer keeps
///
/// In two steps: what is to go is marked, and deleted by a later run if it is still to go then, an hour later unless
/// the policy says otherwise. Mounts do that by themselves. The policy is .sepia/config.toml; without one, a week of
/// everything is kept, and then one generation a day, a week and a month. What is current always stays.
#[derive(Debug, clap::Args)]
pub struct GcArgs {
    /// The store: a URL, or a path in it
    #[arg(value_name = "STORE")]
    store: Option<OsString>,
    /// Change nothing, and say of each generation why it stays or goes, and which conflicts go; with --json as "generations"
    /// and "conflicts"
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Delete at once what is to go
    #[arg(long)]
    now: bool,
    /// Switch all deletion of history off, until --enable
    #[arg(long, value_name = "WHY", num_args = 0..=1, default_missing_value = "", group = "switch")]
    disable: Option<String>,
    /// Switch deletion on again
    #[arg(long, group = "switch")]
    enable: bool,
    /// Collect nothing for such a time, such as 2h
    #[arg(long, value_name = "TIME", group = "switch")]
    pause: Option<Age>,
    /// End a pause
    #[arg(long, group = "switch")]
    resume: bool,
    /// Remove the objects that no root refers to, directly or through others; they can be brought back from the trash
    #[arg(long, requires = "root", conflicts_with_all = ["switch", "now"])]
    orphans: bool,
    /// A class all of whose objects are roots, or one object; may be given several times
    #[arg(long, value_name = "CLASS", requires = "orphans")]
    root: Vec<OsString>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct JsonJudged<'a> {
    #[serde(flatten)]
    key: JsonKey,
    current: bool,
    generation: Generation,
    committed: String,
    superseded: Option<String>,
    size: u64,
    verdict: &'a Verdict,
}

/// Runs `sepia gc`.
pub fn run(args: &GcArgs, store: &StoreArg) -> Result<(), Failure> {
    if args.dry_run && (args.now || args.disable.is_some() || args.enable || args.pause.is_some() || args.resume) {
        return Err(Failure::usage("--dry-run changes nothing, so it goes with --orphans and --json only"));
    }
    let named = store;
    let store = named.store(args.store.as_deref())?;
    if args.orphans {
        return orphans(args, named, &store);
    }
    if args.dry_run {
        return dry_run(args, &store);
    }
    let switched = if let Some(why) = &args.disable {
        store.disable_deletion(why)?;
        Some("the deletion of history is switched off; switch it on with: sepia gc --enable".to_owned())
    } else if args.enable {
        store.enable_deletion()?;
        Some("the deletion of history is switched on".to_owned())
    } else if let Some(age) = args.pause {
        let until = store.now().after(age);
        store.pause_collection(Some(until))?;
        Some(format!("collection is paused until {}; go on with: sepia gc --resume", until.human()))
    } else if args.resume {
        store.pause_collection(None)?;
        Some("collection is no longer paused".to_owned())
    } else {
        None
    };
    let mut out = Output::new();
    if let Some(text) = switched {
        if args.json {
            out.json(&store.collector_status()?)?
        } else {
            out.line(text)?
        }
        return out.finish();
    }
    let interrupt = Interrupt::new().map_err(|error| Failure::error(format!("can't wait for signals: {error}")))?;
    let stop = || interrupt.came();
    let done = store.collect(&Collect { now: args.now, load: Percent::ALL, stop: &stop })?;
    if args.json {
        out.json(&done)?;
        return out.finish();
    }
    for line in report(&done, store.now()) {
        out.line(line)?;
    }
    out.finish()
}

/// What a run has done, for people.
pub fn report(done: &Collected, now: Timestamp) -> Vec<String> {
    let generations = |number: u64| count(usize::try_from(number).unwrap_or(usize::MAX), "generation", "generations");
    let mut lines = Vec::new();
    if done.dropped > 0 || done.conflicts > 0 {
        let conflicts = match done.conflicts {
            0 => String::new(),
            n => format!(" and {}", count(n as usize, "conflict", "conflicts")),
        };
        lines.push(format!("deleted {}{conflicts}: {} freed", generations(done.dropped), output::size(done.freed)));
    }
    match (done.marked, done.due) {
        (0, _) => {}
        (marked, Some(due)) if due > now => lines.push(format!(
            "marked {} ({}); they go at the first run after {}, or at once with: sepia gc --now",
            generations(marked),
            output::size(done.marked_bytes),
            due.human()
        )),
        (marked, _) => lines.push(format!("marked {}; they go at the next run", generations(marked))),
    }
    if done.errors > 0 {
        lines.push(format!("{} failed; the log says why", count(done.errors as usize, "deletion", "deletions")));
    }
    if done.stopped {
        lines.push("stopped before the end; the next run goes on".to_owned());
    } else if lines.is_empty() {
        lines.push("nothing is to go".to_owned());
    }
    lines
}

fn dry_run(args: &GcArgs, store: &Store) -> Result<(), Failure> {
    let mut out = Output::new();
    let (mut going, mut bytes, mut staying, mut json) = (0, 0, 0, Vec::new());
    let mut failure = None;
    store.judge_history(&Key::root(), &mut |Judged { key, current, generations }| {
        let mut show = || -> Result<(), Failure> {
            if !args.json {
                let state = if current { "" } else { " (nothing is there now)" };
                out.line(format!("{key}{state}"))?;
            }
            for (info, verdict) in &generations {
                let GenerationInfo { generation, committed, superseded, size, .. } = info;
                if verdict.drops() {
                    going += 1;
                    bytes += if matches!(info.kept, crate::backend::Kept::Whole) { *size } else { 0 };
                } else {
                    staying += 1;
                }
                if args.json {
                    let (committed, superseded) = (json_time(*committed), superseded.map(json_time));
                    let key = (&key).into();
                    let (generation, size) = (*generation, *size);
                    let one = JsonJudged { key, current, generation, committed, superseded, size, verdict };
                    json.push(serde_json::to_value(one).map_err(|error| Failure::error(error.to_string()))?);
                } else {
                    let style = if verdict.drops() { Style::Red } else { Style::Plain };
                    let text = format!("  {generation:>6}  {}  {size:>12}  {verdict}", committed.human());
                    out.line(out.paint(style, &text))?;
                }
            }
            Ok(())
        };
        failure = failure.take().or_else(|| show().err());
        Ok(())
    })?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    let conflicts = store.outdated_conflicts()?;
    if args.json {
        let conflicts: Vec<_> = conflicts.iter().map(JsonConflict::from).collect();
        out.json(&serde_json::json!({ "generations": json, "conflicts": conflicts }))?;
        return out.finish();
    }
    for conflict in &conflicts {
        let text = format!("{}: conflict {} goes: older than conflicts_keep", conflict.key, conflict.id);
        out.line(out.paint(Style::Red, &text))?;
    }
    let mut sum = format!("{} ({})", count(going, "generation goes", "generations go"), output::size(bytes));
    if !conflicts.is_empty() {
        let size = output::size(conflicts.iter().map(|conflict| conflict.size).sum());
        sum.push_str(&format!(", {} ({size})", count(conflicts.len(), "conflict goes", "conflicts go")));
    }
    out.line(format!("{sum}, {staying} stay; nothing was changed"))?;
    out.finish()
}

fn orphans(args: &GcArgs, named: &StoreArg, store: &Store) -> Result<(), Failure> {
    let roots: Vec<Key> = args.root.iter().map(Key::parse).collect::<Result<_, _>>()?;
    let mut places = live::mounts_of(store);
    // Who comes by a link may have named the store so in its own links, too.
    places.extend(named.alias(args.store.as_deref(), store));
    let Orphans { orphans, reached, dangling } = store.orphans(&roots, &places)?;
    let mut out = Output::new();
    if !args.dry_run {
        let removed = store.remove_orphans(&orphans)?;
        live::show_names(store, orphans.iter().map(|orphan| &orphan.key));
        if !args.json
            && let Some(record) = removed
        {
            out.line(format!("what was removed is listed in .sepia/{record}"))?;
        }
    }
    if args.json {
        let keys = |keys: Vec<&Key>| keys.into_iter().map(JsonKey::from).collect::<Vec<_>>();
        out.json(&serde_json::json!({
            "orphans": keys(orphans.iter().map(|orphan| &orphan.key).collect()),
            "dangling": keys(dangling.iter().collect()),
            "reached": reached,
            "removed": !args.dry_run,
        }))?;
        return out.finish();
    }
    for orphan in &orphans {
        out.line(format!("{}{}", orphan.key, if orphan.container { "/" } else { "" }))?;
    }
    for link in &dangling {
        out.line(format!("{link}: refers to nothing"))?;
    }
    let what = if args.dry_run { "would be removed" } else { "removed; bring them back with: sepia trash restore" };
    out.line(format!("{} {what}; {reached} are reached", count(orphans.len(), "orphan", "orphans")))?;
    out.finish()
}

/// The collector in one line, for `sepia status`.
pub fn status_text(store: &Store) -> Result<(String, Style), Failure> {
    let status = store.collector_status()?;
    if let Some(why) = &status.disabled {
        let why = if why.is_empty() { String::new() } else { format!(" ({})", output::name(why.as_bytes())) };
        return Ok((format!("switched off{why}; switch it on with: sepia gc --enable"), Style::Red));
    }
    if let Some(until) = status.paused_until {
        return Ok((format!("paused until {}", Timestamp::from_nanos(until).human()), Style::Red));
    }
    let mut text = match (&status.last, status.running) {
        (_, true) => "running now".to_owned(),
        (None, _) => "has not run yet".to_owned(),
        (Some(last), _) => {
            let ended = Timestamp::from_nanos(last.ended).human();
            format!("last run {ended}, {} freed", output::size(last.freed))
        }
    };
    if status.phase == Phase::Marked && status.marked > 0 {
        text.push_str(&format!(", {} marked", status.marked));
    }
    let error = status.last.as_ref().and_then(|last| last.error.clone());
    let errors = status.last.as_ref().map_or(0, |last| last.errors);
    if errors > 0 {
        text.push_str(&format!(", {} failed", count(errors as usize, "deletion", "deletions")));
    }
    if let Some(error) = error {
        return Ok((format!("{text}; it ended early: {}", output::name(error.as_bytes())), Style::Red));
    }
    Ok((text, if errors > 0 { Style::Red } else { Style::Plain }))
}
