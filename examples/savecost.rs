//! What the system calls of a save cost by themselves, without FUSE and without Sepia's own code:
//!
//! ```text
//! savecost DIR [FILES]
//! ```
//!
//! Does in `DIR`, which must not exist, what docs/format.md asks for when an object is created and when it is overwritten
//! for the first time, one step for all files after the other. Prints a Markdown table; times are the average over the
//! files, 1000 unless said otherwise. Whoever thinks of changing the format sees here what a step is worth.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, XattrFlags, openat};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (dir, files) = match &arguments[..] {
        [dir] => (dir, Ok(1000)),
        [dir, files] => (dir, files.parse()),
        _ => {
            eprintln!("savecost: needs DIR [FILES]");
            return ExitCode::FAILURE;
        }
    };
    match files.map_err(Into::into).and_then(|files| run(Path::new(dir), files)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("savecost: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Dirs {
    objects: OwnedFd,
    staging: OwnedFd,
    history: OwnedFd,
}

fn run(dir: &Path, files: usize) -> Result<()> {
    fs::create_dir(dir)?;
    let part = |name: &str| -> Result<OwnedFd> {
        fs::create_dir(dir.join(name))?;
        Ok(rustix::fs::open(dir.join(name), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?)
    };
    let dirs = Dirs { objects: part("objects")?, staging: part("staging")?, history: part("history")? };
    let journal = File::create(dir.join("journal"))?;
    let names: Vec<String> = (0..files).map(|number| format!("file-{number:06}")).collect();
    println!("| step | create | first overwrite |\n|---|---:|---:|");
    let created = save(&dirs, &journal, &names, false)?;
    rustix::fs::sync();
    let overwritten = save(&dirs, &journal, &names, true)?;
    let show = |time: Option<f64>| time.map_or("–".to_owned(), |time| format!("{time:.1} µs"));
    for ((step, first), (_, second)) in created.iter().zip(&overwritten) {
        println!("| {step} | {} | {} |", show(*first), show(*second));
    }
    let sum = |steps: &[(&str, Option<f64>)]| steps.iter().filter_map(|(_, time)| *time).sum::<f64>();
    println!("| together | {:.0} µs | {:.0} µs |", sum(&created), sum(&overwritten));
    Ok(())
}

/// The steps with their times in microseconds, of those that there are.
fn save(dirs: &Dirs, journal: &File, names: &[String], over: bool) -> Result<Vec<(&'static str, Option<f64>)>> {
    let (bytes, record, line) = ([b's'; 4096], [b'r'; 59], [b'j'; 110]);
    let write = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let mut staged: Vec<File> = Vec::new();
    let mut steps = Vec::new();
    let mut step = |name, due: bool, action: &mut dyn FnMut(&str, usize) -> Result<()>| -> Result<()> {
        let start = Instant::now();
        for (at, file) in names.iter().enumerate().filter(|_| due) {
            action(file, at)?;
        }
        steps.push((name, due.then(|| start.elapsed().as_secs_f64() * 1e6 / names.len() as f64)));
        Ok(())
    };
    step("take the name (`O_EXCL`)", !over, &mut |name, _| {
        openat(&dirs.objects, name, write | OFlags::EXCL, Mode::from_raw_mode(0o644))?;
        Ok(())
    })?;
    step("make the staged file", true, &mut |name, _| {
        staged.push(openat(&dirs.staging, name, write, Mode::from_raw_mode(0o600))?.into());
        Ok(())
    })?;
    step("a line in the journal", true, &mut |_, at| Ok(journal.write_all_at(&line, at as u64 * 110)?))?;
    step("write 4 KiB", true, &mut |_, at| Ok(staged[at].write_all_at(&bytes, 0)?))?;
    step("look at the object, twice", true, &mut |name, _| {
        for _ in 0..2 {
            rustix::fs::statat(&dirs.objects, name, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    })?;
    step("the record and the mode", true, &mut |_, at| {
        rustix::fs::fsetxattr(&staged[at], "user.sepia", &record, XattrFlags::empty())?;
        Ok(rustix::fs::fchmod(&staged[at], Mode::from_raw_mode(0o644))?)
    })?;
    step("make the directory for its history", over, &mut |name, _| {
        Ok(rustix::fs::mkdirat(&dirs.history, name, Mode::RWXU)?)
    })?;
    step("link what was current there", over, &mut |name, _| {
        let kept = format!("{name}/1@20261123T100000.000000000Z-20261123T110000.000000000Z");
        Ok(rustix::fs::linkat(&dirs.objects, name, &dirs.history, kept, AtFlags::empty())?)
    })?;
    step("exchange the two files", true, &mut |name, _| {
        Ok(rustix::fs::renameat_with(&dirs.staging, name, &dirs.objects, name, RenameFlags::EXCHANGE)?)
    })?;
    step("unlink the staged name", true, &mut |name, _| {
        Ok(rustix::fs::unlinkat(&dirs.staging, name, AtFlags::empty())?)
    })?;
    Ok(steps)
}
