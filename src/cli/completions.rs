//! `sepia completions`.

use clap::CommandFactory;

use super::output::Output;
use super::{Args, Failure};

/// Print the completions for a shell
///
/// For bash: sepia completions bash > ~/.local/share/bash-completion/completions/sepia
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// Runs `sepia completions`.
pub fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    // Into memory first: the generator panics when its output fails.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "sepia", &mut script);
    let mut out = Output::new();
    out.raw(&script)?;
    out.finish()
}
