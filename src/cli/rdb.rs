//! `keyferry rdb`: look into an RDB file, or load it.
//!
//! ```text
//! info   what it holds: version, counts, bytes, the largest keys
//! cat    its keys as JSON lines
//! load   its keys into a server or a layout
//! ```
//! FILE may be `-` for stdin. A file that is damaged, cut off or beyond us:
//! what was read until there is printed, the error says where, exit code 1.

mod cat;
mod info;
mod input;
mod load;
mod wanted;

use super::exit::ExitStatus;
use super::progress::Seen;
use crate::rdbfile::source::Meter;

/// Arguments of `keyferry rdb`.
#[derive(Debug, clap::Args)]
pub struct RdbArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Print what a file holds
    Info(info::InfoArgs),
    /// Print the keys of a file as JSON lines
    Cat(cat::CatArgs),
    /// Load the keys of a file into a server or a layout
    Load(load::LoadArgs),
}

/// Runs `keyferry rdb`.
pub fn run(args: &RdbArgs) -> ExitStatus {
    match &args.verb {
        Verb::Info(args) => info::run(args),
        Verb::Cat(args) => cat::run(args),
        Verb::Load(args) => load::run(args),
    }
}

/// What progress shows of a scan.
fn seen(meter: &Meter, total: Option<u64>) -> impl Fn() -> Seen + Send {
    move || Seen {
        bytes: meter.bytes(),
        keys: meter.keys(),
        total,
    }
}
