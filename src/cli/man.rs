//! `sepia man`.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::CommandFactory;

use super::output::Output;
use super::{Args, Failure, output};

/// Print the manual page, or write those of all commands into a folder
///
/// To read a command's page: sepia man put | man -l -
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// The page of this command, such as: put, or: conflicts resolve
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    command: Vec<String>,
    /// Write all pages into this folder, as sepia.1, sepia-put.1 …
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs `sepia man`.
pub fn run(args: &ManArgs) -> Result<(), Failure> {
    let mut command = Args::command();
    let mut out = Output::new();
    if let Some(dir) = &args.dir {
        let shown = output::name(dir.as_os_str().as_bytes());
        let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command, dir));
        written.map_err(|error| Failure::error(format!("{shown}: can't write the manual pages: {error}")))?;
        out.line(format!("{shown}: wrote the manual pages, read one with: man -l {shown}/sepia.1"))?;
        return out.finish();
    }
    // Gives the commands their full names, as in sepia-put(1).
    command.build();
    let mut page = &command;
    for name in &args.command {
        page = page
            .find_subcommand(name)
            .ok_or_else(|| Failure::usage(format!("there is no command {}", output::name(name.as_bytes()))))?;
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(page.clone()).render(&mut text).map_err(Failure::output)?;
    out.raw(&text)?;
    out.finish()
}
