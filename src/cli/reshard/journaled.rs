//! `keyferry reshard report`: what a job did, from its journal.

use std::io::Write as _;

use crate::cli::exit::ExitStatus;
use crate::cli::output::{finish, stdout};
use crate::reshard::job_error::JobError;
use crate::reshard::report::Report;

use super::Failure;
use super::ask::no_job;
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
    match made(args) {
        Ok(report) => {
            let mut out = stdout();
            let written = if args.json {
                serde_json::to_writer(&mut out, &report)
                    .map_err(std::io::Error::from)
                    .and_then(|()| writeln!(out))
            } else {
                writeln!(out, "{report}")
            };
            finish(out, written, ExitStatus::Done)
        }
        Err(failure) => failure.print(),
    }
}

fn made(args: &ReportArgs) -> Result<Report, Failure> {
    let dir = args.place.dir()?;
    let history = dir.history().map_err(JobError::from)?;
    let history = history.ok_or_else(|| no_job(&dir))?;
    Ok(Report::of(&history))
}
