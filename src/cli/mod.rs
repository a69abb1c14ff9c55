//! Subcommands and exit codes: one file each.
//!
//! Results go to stdout, logs and progress and errors to stderr. An error says
//! `error: what`, where, and `help: what to do`.
//!
//! Called as `nutcracker` it is one: see `nutcracker`.

mod check;
mod convert;
mod demo;
mod diff;
mod exit;
mod logging;
mod nutcracker;
mod output;
mod planted;
mod pool_choice;
mod progress;
mod rdb;
mod reshard;
mod route;
mod run;
mod server;
mod signals;
mod state_dir;
mod store;
mod stores;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use exit::ExitStatus;

/// A proxy in front of Redis-protocol shards that can also move the keys to
/// another shard layout while clients keep working.
#[derive(Debug, Parser)]
#[command(name = "keyferry", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Parse and lint a config, and dial its shards if asked
    Check(check::CheckArgs),
    /// Write a nutcracker.yml as TOML
    Convert(convert::ConvertArgs),
    /// Look into configs
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show the main job on this machine, with nothing but this program
    Demo(demo::DemoArgs),
    /// Look into an RDB file, or load it
    Rdb(rdb::RdbArgs),
    /// Move a pool's keys to another layout while clients keep working
    Reshard(reshard::ReshardArgs),
    /// Print which shard owns each key
    Route(route::RouteArgs),
    /// Run the proxy
    Run(run::RunArgs),
    /// Run a built-in shard; look at one, back it up, restore it
    Store(store::StoreArgs),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print how much of the key space moves from one config or layout to another
    Diff(diff::DiffArgs),
}

/// The config that most subcommands read.
#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The config: TOML, or a nutcracker.yml as it is
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    file: PathBuf,
}

/// Runs the command line.
pub fn main() -> ExitCode {
    if let Err(status) = planted::plant_what_is_asked_for() {
        return status.into();
    }
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_default();
    if Path::new(&program).file_name() == Some(OsStr::new("nutcracker")) {
        return nutcracker::main(words);
    }
    // clap prints usage errors to stderr and ends with code 2 by itself.
    let arguments = Arguments::parse();
    let status = match arguments.command {
        Command::Check(args) => check::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Config(ConfigCommand::Diff(args)) => diff::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Rdb(args) => rdb::run(&args),
        Command::Reshard(args) => reshard::run(&args),
        Command::Route(args) => route::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Store(args) => store::run(&args),
    };
    status.into()
}
