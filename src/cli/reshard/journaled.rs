//! `keyferry reshard report`: what a job did, from its journal.

use std::fmt::Display;
use std::io::Write as _;

use serde::Serialize;

use crate::cli::exit::ExitStatus;
use crate::cli::output::{finish, stdout};
use crate::reshard::report::Report;
use crate::reshard::steps::WayReport;

use super::Failure;
use super::place::PlaceArgs;

/// Arguments of `keyferry reshard report`.
#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Runs `keyferry reshard report`.
pub fn report(args: &ReportArgs) -> ExitStatus {
    printed(args).unwrap_or_else(Failure::print)
}

fn printed(args: &ReportArgs) -> Result<ExitStatus, Failure> {
    let spot = args.place.spot()?;
    match &spot.walk {
        Some((walk, _)) => Ok(print(&WayReport::of(walk)?, args.json)),
        None => Ok(print(&Report::of(&spot.history()?), args.json)),
    }
}

fn print(report: &(impl Serialize + Display), json: bool) -> ExitStatus {
    let mut out = stdout();
    let written = if json {
        serde_json::to_writer(&mut out, report)
            .map_err(std::io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        writeln!(out, "{report}")
    };
    finish(out, written, ExitStatus::Done)
}
