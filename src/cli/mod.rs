//! The `sepia` command: one small file a command.
//!
//! This file holds the command line as a whole and calls the command's file; `exit` says how commands end,
//! `target` which store and object an argument means, and `output` how things are printed. The commands decide
//! nothing about objects: that is the store's business.

mod cat;
mod compare;
mod completions;
mod conflicts;
mod diff;
mod events;
mod exit;
mod gc;
mod history;
mod init;
mod interrupt;
mod live;
mod log;
mod ls;
mod man;
pub mod mount;
mod mount_options;
mod mounts;
mod mv;
mod output;
mod pin;
mod process;
mod progress;
mod put;
mod recover;
mod remount;
mod restore;
mod rm;
mod rules;
mod snapshot;
mod stat;
mod state;
mod status;
mod target;
mod trash;
pub mod umount;
mod verify;

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Parser, Subcommand};

pub use exit::{ExitCode, Failure};

/// A versioned object store that you mount as a directory.
#[derive(Debug, Parser)]
#[command(name = "sepia", version, about, after_help = ExitCode::TABLE, disable_help_subcommand = true)]
pub struct Args {
    #[command(flatten)]
    store: target::StoreArg,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::InitArgs),
    Mount(mount::MountArgs),
    Umount(umount::UmountArgs),
    Status(status::StatusArgs),
    Ls(ls::LsArgs),
    Cat(cat::CatArgs),
    Put(put::PutArgs),
    Rm(rm::RmArgs),
    Mv(mv::MvArgs),
    Stat(stat::StatArgs),
    History(history::HistoryArgs),
    Diff(diff::DiffArgs),
    Restore(restore::RestoreArgs),
    Snapshot(snapshot::SnapshotArgs),
    Conflicts(conflicts::ConflictsArgs),
    Events(events::EventsArgs),
    Log(log::LogArgs),
    Recover(recover::RecoverArgs),
    Trash(trash::TrashArgs),
    Pin(pin::PinArgs),
    Gc(gc::GcArgs),
    Verify(verify::VerifyArgs),
    Rules(rules::RulesArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// The whole program: reads the command line, does what it says, prints what went wrong.
pub fn main() -> std::process::ExitCode {
    let mut argv: Vec<OsString> = std::env::args_os().collect();
    if is_called(&argv, "mount.fuse.sepia") || is_called(&argv, "mount.sepia") {
        return ended(mount::run_helper(argv.split_off(1))).of_mount_helper().into();
    }
    if is_called(&argv, "umount.fuse.sepia") {
        return ended(umount::run_helper(argv.split_off(1))).of_mount_helper().into();
    }
    match Args::try_parse_from(argv) {
        Ok(args) => ended(run(args)).into(),
        Err(error) => {
            // Nobody is left to tell when the terminal is gone.
            let _ = error.print();
            std::process::ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(ExitCode::Usage as u8))
        }
    }
}

/// Says what went wrong, if anything did.
fn ended(result: Result<(), Failure>) -> ExitCode {
    let Err(failure) = result else { return ExitCode::Done };
    if !failure.message.is_empty() {
        eprintln!("sepia: {}", failure.message);
    }
    failure.code
}

/// Whether the program was called by this name: mount(8) and umount(8) run `mount.TYPE` and `umount.TYPE`.
fn is_called(argv: &[OsString], name: &str) -> bool {
    argv.first().and_then(|program| Path::new(program).file_name()) == Some(OsStr::new(name))
}

fn run(Args { store, command }: Args) -> Result<(), Failure> {
    if !matches!(command, Command::Mount(_)) {
        init_log(::log::LevelFilter::Error);
    }
    if store.is_given() && !command.takes_store() {
        return Err(Failure::usage("--store means nothing to this command, which takes no keys"));
    }
    match command {
        Command::Init(args) => init::run(&args),
        Command::Status(args) => status::run(&args, &store),
        Command::Ls(args) => ls::run(&args, &store),
        Command::Cat(args) => cat::run(&args, &store),
        Command::Put(args) => put::run(&args, &store),
        Command::Rm(args) => rm::run(&args, &store),
        Command::Mv(args) => mv::run(&args, &store),
        Command::Stat(args) => stat::run(&args, &store),
        Command::History(args) => history::run(&args, &store),
        Command::Diff(args) => diff::run(&args, &store),
        Command::Restore(args) => restore::run(&args, &store),
        Command::Snapshot(args) => snapshot::run(&args, &store),
        Command::Conflicts(args) => conflicts::run(&args, &store),
        Command::Events(args) => events::run(&args, &store),
        Command::Log(args) => log::run(&args, &store),
        Command::Recover(args) => recover::run(&args, &store),
        Command::Trash(args) => trash::run(&args, &store),
        Command::Pin(args) => pin::run(&args, &store),
        Command::Gc(args) => gc::run(&args, &store),
        Command::Verify(args) => verify::run(&args, &store),
        Command::Rules(args) => rules::run(&args, &store),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Mount(args) => mount::run(args),
        Command::Umount(args) => umount::run(args),
    }
}

impl Command {
    fn takes_store(&self) -> bool {
        use Command::{Completions, Init, Man, Mount, Umount};
        !matches!(self, Init(_) | Mount(_) | Umount(_) | Completions(_) | Man(_))
    }
}

/// Starts logging to standard error. `SEPIA_LOG` (as env_logger's filter) overrides `default`. Later calls change
/// nothing: `sepia mount` calls it when it knows where its standard error goes.
pub fn init_log(default: ::log::LevelFilter) {
    let env = env_logger::Env::new().filter("SEPIA_LOG");
    let mut builder = env_logger::Builder::new();
    builder.filter_level(default).parse_env(env).format_target(false);
    // Somebody else's logger is as good.
    let _ = builder.try_init();
}
