//! `sepia trash`.

mod empty;
mod list;
mod restore;

use super::Failure;
use super::target::StoreArg;

/// List what was removed, bring it back, or delete it for good
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct TrashArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    list: list::ListArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    List(list::ListArgs),
    Restore(restore::RestoreArgs),
    Empty(empty::EmptyArgs),
}

/// Runs `sepia trash`.
pub fn run(args: &TrashArgs, store: &StoreArg) -> Result<(), Failure> {
    match &args.action {
        None => list::run(&args.list, store),
        Some(Action::List(args)) => list::run(args, store),
        Some(Action::Restore(args)) => restore::run(args, store),
        Some(Action::Empty(args)) => empty::run(args, store),
    }
}
