//! Compares filesystems: the same operations in several directories, interleaved, as a Markdown table.
//!
//! `scripts/bench` mounts what is to be compared and calls this:
//!
//! ```text
//! fsbench [--rounds N] [--files N] [--entries N] [--large MIB] [--only TEXT] --tree SOURCES NAME=DIR…
//! ```
//!
//! The first directory is the one that the others are compared with. Every round does every operation once in each
//! directory before it goes on to the next operation, so that what disturbs the machine disturbs all of them. A number
//! is the time of one operation on the average of a round; the table has the least and the median of all rounds.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

struct Options {
    rounds: usize,
    /// Small files a round.
    files: usize,
    /// Entries of the directory that is listed.
    entries: usize,
    /// Bytes of the large file.
    large: u64,
    /// Leave out operations whose name doesn't contain this.
    only: String,
    /// The source tree that is copied in.
    tree: PathBuf,
    targets: Vec<Target>,
}

struct Target {
    name: String,
    dir: PathBuf,
}

/// What a round does with one directory; the time is that of one operation.
type Operation = fn(&Options, &Path, usize) -> Result<Duration>;

const BLOCK: usize = 1 << 20;
const APPENDS: usize = 10_000;

/// In this order: later ones use what earlier ones made.
const OPERATIONS: &[(&str, Operation)] = &[
    ("create + write 4 KiB + close", create),
    ("stat, just created", stat),
    ("stat, a second later", stat_later),
    ("stat, caches dropped", stat_cold),
    ("open + read 4 KiB + close", read),
    ("overwrite 4 KiB", overwrite),
    ("overwrite 4 KiB, again", overwrite),
    ("unlink", unlink),
    ("`ls -l` of the large directory", list),
    ("rsync of a source tree in", rsync),
    ("git status", git_status),
    ("rm -r of the source tree", remove_tree),
    ("append a line, by a `>>` of its own", append_lines),
    ("append to a 1 KiB file", append_small),
    ("sequential write of the large file", write_large),
    ("sequential read of the large file", read_large),
    ("append to the large file", append_large),
    ("change one byte of the large file", change_large),
];

fn main() -> ExitCode {
    match parse().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fsbench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse() -> Result<Options> {
    let mut options = Options {
        rounds: 7,
        files: 1000,
        entries: 100_000,
        large: 1 << 30,
        only: String::new(),
        tree: PathBuf::new(),
        targets: Vec::new(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--rounds" => options.rounds = value()?.parse()?,
            "--files" => options.files = value()?.parse()?,
            "--entries" => options.entries = value()?.parse()?,
            "--large" => options.large = value()?.parse::<u64>()? << 20,
            "--only" => options.only = value()?,
            "--tree" => options.tree = value()?.into(),
            other => {
                let (name, dir) = other.split_once('=').ok_or(format!("{other}: expected NAME=DIR"))?;
                options.targets.push(Target { name: name.to_owned(), dir: dir.into() });
            }
        }
    }
    if options.targets.is_empty() || options.rounds == 0 || options.files == 0 || !options.tree.is_dir() {
        return Err("needs --tree SOURCES, at least one NAME=DIR, and rounds and files".into());
    }
    Ok(options)
}

fn run(options: &Options) -> Result<()> {
    let mut times: BTreeMap<(usize, usize), Vec<Duration>> = BTreeMap::new();
    for target in &options.targets {
        eprintln!("{}: preparing", target.name);
        prepare(options, &target.dir).map_err(|error| format!("{}: {error}", target.name))?;
    }
    for round in 0..options.rounds {
        for (number, (name, operation)) in OPERATIONS.iter().enumerate() {
            if !name.contains(&options.only) {
                continue;
            }
            for at in 0..options.targets.len() {
                // Another one begins each round, so that none always has the others' caches before it.
                let at = (at + round) % options.targets.len();
                let target = &options.targets[at];
                let time = operation(options, &target.dir, round)
                    .map_err(|error| format!("{}: {name}: {error}", target.name))?;
                times.entry((number, at)).or_default().push(time);
            }
        }
        eprintln!("round {} of {}", round + 1, options.rounds);
    }
    table(options, &mut times);
    Ok(())
}

fn table(options: &Options, times: &mut BTreeMap<(usize, usize), Vec<Duration>>) {
    let native = &options.targets[0].name;
    print!("| minimum / median |");
    for (at, target) in options.targets.iter().enumerate() {
        print!(" {} |", target.name);
        if at > 0 {
            print!(" to {native} |");
        }
    }
    print!("\n|---|");
    for at in 0..options.targets.len() {
        print!("{}", if at > 0 { "---:|---:|" } else { "---:|" });
    }
    println!();
    for (number, (name, _)) in OPERATIONS.iter().enumerate() {
        let mut base = 0.0;
        let mut cells = String::new();
        for at in 0..options.targets.len() {
            let Some(found) = times.get_mut(&(number, at)) else { continue };
            found.sort_unstable();
            let median = found[found.len() / 2];
            cells += &format!(" {} / {} |", short(found[0]), short(median));
            if at == 0 {
                base = median.as_secs_f64();
            } else {
                cells += &format!(" × {:.2} |", median.as_secs_f64() / base);
            }
        }
        if !cells.is_empty() {
            println!("| {name} |{cells}");
        }
    }
}

fn short(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        m if m < 100.0 => format!("{m:.1} µs"),
        m if m < 10_000.0 => format!("{m:.0} µs"),
        m if m < 1e7 => format!("{:.0} ms", m / 1e3),
        m => format!("{:.1} s", m / 1e6),
    }
}

// What the rounds work on

fn prepare(options: &Options, dir: &Path) -> Result<()> {
    let wanted = |text: &str| OPERATIONS.iter().any(|(name, _)| name.contains(text) && name.contains(&options.only));
    if wanted("ls -l") {
        let entries = dir.join("entries");
        fs::create_dir(&entries)?;
        for number in 0..options.entries {
            File::create(entries.join(format!("entry-{number:06}")))?;
        }
    }
    if wanted("git status") {
        let repository = dir.join("repository");
        command(Command::new("cp").arg("-r").arg(&options.tree).arg(&repository))?;
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.args(["-c", "user.name=Bench", "-c", "user.email=bench@example.invalid"]).args(arguments);
            command(git.current_dir(&repository))
        };
        git(&["init", "-q"])?;
        git(&["add", "-A"])?;
        git(&["commit", "-qm", "everything"])?;
    }
    fs::write(dir.join("small"), vec![b'x'; 1024])?;
    Ok(())
}

fn command(command: &mut Command) -> Result<Duration> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let status = command.status().map_err(|error| format!("{command:?}: {error}"))?;
    let time = start.elapsed();
    if status.success() { Ok(time) } else { Err(format!("{command:?}: {status}").into()) }
}

/// The time of one of `count` operations.
fn each(count: usize, mut operation: impl FnMut(usize) -> io::Result<()>) -> Result<Duration> {
    let start = Instant::now();
    for number in 0..count {
        operation(number)?;
    }
    Ok(start.elapsed() / u32::try_from(count)?)
}

fn files(dir: &Path, round: usize, count: usize) -> Vec<PathBuf> {
    (0..count).map(|number| dir.join(format!("round-{round}/file-{number:06}"))).collect()
}

/// Forgets names, inodes and, below, cached blocks of metadata. Only root can.
fn drop_caches() -> Result<()> {
    fs::write("/proc/sys/vm/drop_caches", "2")
        .map_err(|error| format!("dropping the caches needs root: {error}").into())
}

// Small files

fn create(options: &Options, dir: &Path, round: usize) -> Result<Duration> {
    fs::create_dir(dir.join(format!("round-{round}")))?;
    let (paths, bytes) = (files(dir, round, options.files), [b'c'; 4096]);
    each(options.files, |number| File::create_new(&paths[number])?.write_all(&bytes))
}

fn stat(options: &Options, dir: &Path, round: usize) -> Result<Duration> {
    let paths = files(dir, round, options.files);
    each(options.files, |number| fs::metadata(&paths[number]).map(drop))
}

/// When what a kernel may believe for a second is no longer believed.
fn stat_later(options: &Options, dir: &Path, round: usize) -> Result<Duration> {
    std::thread::sleep(Duration::from_millis(1100));
    stat(options, dir, round)
}

fn stat_cold(options: &Options, dir: &Path, round: usize) -> Result<Duration> {
    let paths = files(dir, round, options.files);
    drop_caches()?;
    each(options.files, |number| fs::metadata(&paths[number]).map(drop))
}

fn read(options: &Options, dir: &Path, round: usize) -> Result<Duration> {
    let (paths, mut bytes) = (files(dir, round, options.files), [0; 4096]);
    each(options.files, |number| File::open(&paths[number])?.read_exact(&mut bytes))
}

fn overwrite(options: &Options, dir: &Path, round: usize) -> Result<Duration> {
    let (paths, bytes) = (files(dir, round, options.files), [b'o'; 4096]);
    each(options.files, |number| OpenOptions::new().write(true).truncate(true).open(&paths[number])?.write_all(&bytes))
}

fn unlink(options: &Options, dir: &Path, round: usize) -> Result<Duration> {
    let paths = files(dir, round, options.files);
    each(options.files, |number| fs::remove_file(&paths[number]))
}

// Trees

fn list(_: &Options, dir: &Path, _: usize) -> Result<Duration> {
    command(Command::new("ls").arg("-l").arg(dir.join("entries")))
}

fn rsync(options: &Options, dir: &Path, round: usize) -> Result<Duration> {
    let mut source = options.tree.clone().into_os_string();
    source.push("/");
    command(Command::new("rsync").arg("-a").arg(source).arg(dir.join(format!("tree-{round}"))))
}

fn git_status(_: &Options, dir: &Path, _: usize) -> Result<Duration> {
    command(Command::new("git").args(["status", "--porcelain"]).current_dir(dir.join("repository")))
}

fn remove_tree(_: &Options, dir: &Path, round: usize) -> Result<Duration> {
    command(Command::new("rm").arg("-r").arg(dir.join(format!("tree-{round}"))))
}

// Appends, and the large file

fn append(path: &Path, count: usize) -> Result<Duration> {
    each(count, |_| {
        OpenOptions::new().append(true).create(true).open(path)?.write_all(b"a line of a log, as logs have them\n")
    })
}

fn append_lines(_: &Options, dir: &Path, round: usize) -> Result<Duration> {
    append(&dir.join(format!("log-{round}")), APPENDS)
}

fn append_small(_: &Options, dir: &Path, _: usize) -> Result<Duration> {
    append(&dir.join("small"), 20)
}

fn large(dir: &Path, round: usize) -> PathBuf {
    dir.join(format!("large-{round}"))
}

fn write_large(options: &Options, dir: &Path, round: usize) -> Result<Duration> {
    if round > 0 {
        fs::remove_file(large(dir, round - 1))?;
    }
    let block = vec![b'l'; BLOCK];
    let start = Instant::now();
    let mut file = File::create_new(large(dir, round))?;
    for _ in 0..options.large / BLOCK as u64 {
        file.write_all(&block)?;
    }
    drop(file);
    Ok(start.elapsed())
}

fn read_large(options: &Options, dir: &Path, round: usize) -> Result<Duration> {
    let mut block = vec![0; BLOCK];
    let start = Instant::now();
    let mut file = File::open(large(dir, round))?;
    for _ in 0..options.large / BLOCK as u64 {
        file.read_exact(&mut block)?;
    }
    drop(file);
    Ok(start.elapsed())
}

fn append_large(_: &Options, dir: &Path, round: usize) -> Result<Duration> {
    append(&large(dir, round), 20)
}

fn change_large(options: &Options, dir: &Path, round: usize) -> Result<Duration> {
    let start = Instant::now();
    let file = OpenOptions::new().write(true).open(large(dir, round))?;
    file.write_all_at(b"!", options.large / 2)?;
    drop(file);
    Ok(start.elapsed())
}
