//! `keyferry store`: the built-in shard, and what its operators do with one.
//!
//! ```text
//! (no verb)  run it
//! stats      what it holds, and how it is
//! backup     everything at one moment into a file, while it runs
//! restore    a new shard of such a file, or of a dump.rdb
//! ```

mod backup;
mod interrupted;
mod restore;
pub mod serve;
mod shard;
mod stats;

use super::exit::ExitStatus;

/// Arguments of `keyferry store`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct StoreArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    serve: serve::ServeArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Print what a shard holds, and how it is
    Stats(stats::StatsArgs),
    /// Copy a running shard, as it is at one moment, into a new file
    Backup(backup::BackupArgs),
    /// Make a new shard of a backup, or of a Redis' dump.rdb
    Restore(restore::RestoreArgs),
}

/// Runs `keyferry store`.
pub fn run(args: &StoreArgs) -> ExitStatus {
    match &args.verb {
        None => serve::run(&args.serve),
        Some(Verb::Stats(args)) => stats::run(args),
        Some(Verb::Backup(args)) => backup::run(args),
        Some(Verb::Restore(args)) => restore::run(args),
    }
}
