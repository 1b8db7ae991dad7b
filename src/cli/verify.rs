//! `sepia verify`.

use std::cell::RefCell;
use std::ffi::OsString;

use clap::ValueEnum;
use serde::Serialize;

use super::interrupt::Interrupt;
use super::output::{JsonKey, Output, Style, count, json_time};
use super::progress::Progress;
use super::target::StoreArg;
use super::{ExitCode, Failure, output};
use crate::backend::KeepAccessTimes;
use crate::store::verify::{Counts, Damage, Damaged, Fault, Intact, Level, Mended, Parts, Verified, Verify};
use crate::store::{Error, Store};
use crate::types::Timestamp;

/// Check that nothing is damaged: the bytes of all generations against their checksums
///
/// Names each damaged object, its damaged generations, and the newest generation that is intact. Mounts may go on
/// meanwhile. What has no checksum yet gets one. A run that is interrupted is gone on with by the next one that asks for
/// the same. Changes nothing else, unless --repair or --bring-back says so.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes:
  0  nothing is damaged, or all of it was repaired
  7  something is damaged
  1  something could not be looked at at all, so it isn't known")]
pub struct VerifyArgs {
    /// An object, or a directory: what is below it; without it the whole store
    #[arg(value_name = "PATH")]
    path: Option<OsString>,
    /// How thoroughly
    #[arg(long, value_enum, default_value_t = LevelArg::Content)]
    level: LevelArg,
    /// Only a part, and the next one at the next run: 5%, or daily/month for a thirtieth
    #[arg(long, value_name = "PART")]
    part: Option<Parts>,
    /// Begin anew, though a run was interrupted
    #[arg(long)]
    restart: bool,
    /// Repair records: those on files, and those of checksums
    #[arg(long)]
    repair: bool,
    /// Where the current generation is damaged, save the newest intact one as a new generation; nothing is deleted
    #[arg(long)]
    bring_back: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LevelArg {
    /// Records can be understood, and what they refer to is there
    References,
    /// Each generation that is kept can be opened, and has its size
    Existence,
    /// It has the bytes that were saved
    Content,
}

#[derive(Serialize)]
struct Json<'a> {
    damaged: bool,
    objects: Vec<JsonDamaged<'a>>,
    records: &'a [Fault],
    checked: &'a Counts,
    part: Option<u32>,
    parts: Option<u32>,
    resumed: Option<String>,
    complete: bool,
}

#[derive(Serialize)]
struct JsonDamaged<'a> {
    #[serde(flatten)]
    key: JsonKey,
    generations: Vec<JsonDamage<'a>>,
    intact: Option<Intact>,
    mended: &'a Option<Mended>,
}

#[derive(Serialize)]
struct JsonDamage<'a> {
    #[serde(flatten)]
    damage: &'a Damage,
    says: String,
}

/// Runs `sepia verify`.
pub fn run(args: &VerifyArgs, store: &StoreArg) -> Result<(), Failure> {
    if args.bring_back && !matches!(args.level, LevelArg::Content) {
        return Err(Failure::usage("--bring-back needs --level content: what is intact is told by the bytes"));
    }
    let target = match &args.path {
        Some(path) => store.object(path)?,
        None => {
            let root = store.directory(None)?;
            super::target::Target { key: crate::types::Key::root(), ..root }
        }
    };
    // That Sepia looks at it is no access of anybody's.
    target.store.backend().keep_access_times(KeepAccessTimes { files: true, directories: true });
    let level = match args.level {
        LevelArg::References => Level::References,
        LevelArg::Existence => Level::Existence,
        LevelArg::Content => Level::Content,
    };
    let interrupt = Interrupt::new().map_err(|error| Failure::error(format!("can't wait for signals: {error}")))?;
    let progress = RefCell::new(Progress::new("verify", None));
    let verified = target.store.verify(&Verify {
        dir: target.key,
        level,
        parts: args.part,
        restart: args.restart,
        repair: args.repair,
        bring_back: args.bring_back,
        stop: &|| interrupt.came(),
        progress: &|key, counts| {
            progress.borrow_mut().say(|| {
                let (objects, bytes) = (objects(counts.objects), output::size(counts.bytes));
                format!("verified {objects} ({bytes}), now {key}")
            });
        },
    });
    drop(progress);
    let (verified, ended) = match verified {
        Err(Error::VerificationEnded { source, found }) => (*found, Some(*source)),
        other => (other?, None),
    };
    let mut out = Output::new();
    if args.json {
        out.json(&Json { complete: !verified.is_partial() && ended.is_none(), ..json(&verified) })?;
    } else {
        show(&mut out, &verified, args, ended.is_none() && !verified.is_partial())?;
    }
    out.finish()?;
    interrupt.end();
    if let Some(error) = ended {
        let failure = Failure::from(error).hint("what comes after it was not verified; the next run goes on there");
        let code = if verified.is_damaged() { ExitCode::Damaged } else { ExitCode::Error };
        return Err(Failure { code, ..failure });
    }
    match (verified.is_damaged(), verified.is_partial()) {
        (true, _) => Err(Failure::silent(ExitCode::Damaged)),
        (false, true) => Err(Failure::silent(ExitCode::Error)),
        (false, false) => Ok(()),
    }
}

fn show(out: &mut Output, verified: &Verified, args: &VerifyArgs, complete: bool) -> Result<(), Failure> {
    for damaged in &verified.damaged {
        show_damaged(out, damaged)?;
    }
    for Fault { record, why, repaired } in &verified.faults {
        let done = if *repaired { "; repaired" } else { "" };
        let style = if *repaired { Style::Plain } else { Style::Red };
        let text = format!("{}: {}{done}", output::name(record.as_bytes()), output::name(why.as_bytes()));
        out.line(out.paint(style, &text))?;
    }
    if let Some(began) = verified.resumed {
        out.line(format!("went on with the run of {}; begin anew with: --restart", began.human()))?;
    }
    let Counts { generations, bytes, new, missing, unrecorded, busy, denied, replaced, repaired, brought_back, .. } =
        verified.counts;
    let read = if bytes > 0 { format!(" ({} read)", output::size(bytes)) } else { String::new() };
    let part = verified.part.map_or(String::new(), |(part, of)| format!(", part {part} of {of}"));
    let (seen, kept) = (objects(verified.counts.objects), many(generations, "generation", "generations"));
    out.line(format!("verified {seen} with {kept}{read}{part}"))?;
    let told = [
        (new, "had no checksum yet and has one now", "had no checksum yet and have one now"),
        (
            missing,
            "has no checksum, and gets none on a medium that can only be read",
            "have no checksum, and get none on a medium that can only be read",
        ),
        (unrecorded, "was made or changed outside Sepia", "were made or changed outside Sepia"),
        (busy, "changed all the time; the next run looks again", "changed all the time; the next run looks again"),
        (denied, "may not be read by this user", "may not be read by this user"),
        (replaced, "is damaged and was replaced by an intact one", "are damaged and were replaced by intact ones"),
        (repaired, "was repaired", "were repaired"),
        (brought_back, "was brought back", "were brought back"),
    ];
    let nouns = ["generation", "generation", "object", "object", "object", "older generation", "record", "object"];
    for ((number, one, more), noun) in told.into_iter().zip(nouns).filter(|((number, ..), _)| *number > 0) {
        let says = if number == 1 { one } else { more };
        out.line(format!("{} {says}", many(number, noun, &format!("{noun}s"))))?;
    }
    let remaining: Vec<&Damaged> = verified.damaged.iter().filter(|damaged| damaged.remains()).collect();
    let current = |damaged: &&&Damaged| damaged.intact.is_some() && damaged.generations.iter().any(|one| one.current);
    if !args.bring_back && remaining.iter().filter(current).count() > 0 {
        out.line("bring back the intact generations with: sepia verify --bring-back")?;
    }
    let faults = verified.faults.iter().filter(|fault| !fault.repaired).count();
    if unrecorded > 0 && !args.repair {
        out.line("record and verify what was made or changed outside with: sepia verify --repair")?;
    }
    if verified.counts.denied > 0 {
        out.line("run it as root to verify all")?;
    }
    if verified.stopped {
        out.line("interrupted; the next run goes on from there")?;
    } else if remaining.is_empty() && faults == 0 && !complete {
        out.line("nothing of that is damaged")?;
    } else if remaining.is_empty() && faults == 0 {
        let mended = !verified.damaged.is_empty() || !verified.faults.is_empty();
        let text = if mended { "nothing is damaged any more" } else { "nothing is damaged" };
        out.line(out.paint(Style::Green, text))?;
    } else {
        let faults = if faults > 0 { format!(", {}", count(faults, "record", "records")) } else { String::new() };
        let text = format!("damaged: {}{faults}", count(remaining.len(), "object", "objects"));
        out.line(out.paint(Style::Red, &text))?;
    }
    Ok(())
}

fn show_damaged(out: &mut Output, damaged: &Damaged) -> Result<(), Failure> {
    out.line(out.paint(Style::Bold, &damaged.key.to_string()))?;
    for Damage { generation, committed, current, harm, .. } in &damaged.generations {
        let number = generation.map_or("the file".to_owned(), |generation| format!("generation {generation}"));
        let time = committed.map_or(String::new(), |at| format!(" of {}", Timestamp::from_nanos(at).human()));
        let current = if *current { ", current" } else { "" };
        let text = format!("  {number}{time}{current}: {}", output::name(harm.to_string().as_bytes()));
        out.line(out.paint(Style::Red, &text))?;
    }
    out.line(match damaged.intact {
        Some(Intact { generation, committed }) => {
            let time = Timestamp::from_nanos(committed).human();
            format!("  the newest intact generation is {generation} of {time}")
        }
        None => "  no generation is known to be intact".to_owned(),
    })?;
    match &damaged.mended {
        None => Ok(()),
        Some(Mended::BroughtBack(generation)) => out.line(format!("  brought back as generation {generation}")),
        Some(Mended::Recorded(generation)) => out.line(format!("  recorded anew as generation {generation}")),
        Some(Mended::Failed(why)) => {
            out.line(out.paint(Style::Red, &format!("  not repaired: {}", output::name(why.as_bytes()))))
        }
    }
}

fn json(verified: &Verified) -> Json<'_> {
    let damage = |damage| JsonDamage { damage, says: damage.harm.to_string() };
    Json {
        damaged: verified.is_damaged(),
        objects: verified
            .damaged
            .iter()
            .map(|one| JsonDamaged {
                key: (&one.key).into(),
                generations: one.generations.iter().map(damage).collect(),
                intact: one.intact,
                mended: &one.mended,
            })
            .collect(),
        records: &verified.faults,
        checked: &verified.counts,
        part: verified.part.map(|(part, _)| part),
        parts: verified.part.map(|(_, of)| of),
        resumed: verified.resumed.map(json_time),
        complete: !verified.is_partial(),
    }
}

fn many(number: u64, one: &str, more: &str) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), one, more)
}

fn objects(number: u64) -> String {
    many(number, "object", "objects")
}

/// The last verification in one line, for `sepia status`.
pub fn status_text(store: &Store) -> Result<(String, Style), Failure> {
    let status = store.verification_status()?;
    let mut text = match (&status.last, status.running) {
        (_, true) => "running now".to_owned(),
        (None, _) => "never; do it with: sepia verify".to_owned(),
        (Some(last), _) => {
            let part = last.part.map_or(String::new(), |(part, of)| format!(" (part {} of {of})", part + 1));
            let ended = Timestamp::from_nanos(last.ended).human();
            format!("{}{part}, {ended}", objects(last.counts.objects))
        }
    };
    if let Some(error) = status.last.as_ref().and_then(|last| last.error.as_ref()) {
        return Ok((format!("{text}; it ended early: {}", output::name(error.as_bytes())), Style::Red));
    }
    let records = status.last.as_ref().map_or(0, |last| last.damaged).saturating_sub(status.damaged);
    if status.damaged > 0 {
        text.push_str(&format!(", {} damaged; name them with: sepia verify", objects(status.damaged)));
    } else if records > 0 {
        text.push_str(&format!(", {} damaged; name them with: sepia verify", many(records, "record", "records")));
    }
    Ok((text, if status.damaged + records > 0 { Style::Red } else { Style::Plain }))
}
