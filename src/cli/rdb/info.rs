//! `keyferry rdb info`: what a file holds, as a table or one JSON object.

mod json;
mod text;

use std::convert::Infallible;
use std::io::{self, Read as _};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cli::exit::ExitStatus;
use crate::cli::output::{fail, finish, print_error, stdout};
use crate::cli::progress::shown;
use crate::rdbfile::facts::limits;
use crate::rdbfile::source::{FileError, Meter, Stopped, scan};
use crate::rdbfile::survey::{Survey, TOP_MAX};

use super::input::{FileArgs, Input};
use super::seen;

/// Arguments of `keyferry rdb info`.
#[derive(Debug, clap::Args)]
pub struct InfoArgs {
    #[command(flatten)]
    file: FileArgs,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// How many of the largest keys are told, by bytes and by elements
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = top)]
    top: usize,
}

fn top(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number <= TOP_MAX);
    number.ok_or_else(|| format!("write a number from 0 to {TOP_MAX}"))
}

/// What is printed.
struct Told<'a> {
    file: &'a str,
    survey: &'a Survey,
    /// Bytes of the file that were understood.
    bytes: u64,
    /// Bytes behind the file's end.
    behind: u64,
    /// Why the rest was not.
    error: Option<&'a FileError>,
}

/// Runs `keyferry rdb info`.
pub fn run(args: &InfoArgs) -> ExitStatus {
    let mut input = match args.file.open() {
        Ok(input) => input,
        Err(status) => return status,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    });
    let mut survey = Survey::new(now_ms, args.top);
    let (meter, total) = (Meter::default(), input.size());
    let ended = shown(seen(&meter, total), || {
        count(&mut input, &meter, &mut survey)
    });
    let (behind, error) = match &ended {
        Ok(behind) => (*behind, None),
        Err(error) => (0, Some(error)),
    };
    let file = args.file.name();
    let told = Told {
        file: &file,
        survey: &survey,
        bytes: meter.bytes(),
        behind,
        error,
    };
    let whole = error.is_none() && survey.broken.count == 0;
    let status = if whole {
        ExitStatus::Done
    } else {
        ExitStatus::Failed
    };
    let mut out = stdout();
    let written = if args.json {
        json::write(&mut out, &told)
    } else {
        text::write(&mut out, &told)
    };
    let status = finish(out, written, status);
    complain(&told);
    status
}

fn count(input: &mut Input, meter: &Meter, survey: &mut Survey) -> Result<u64, FileError> {
    let scanned = scan(input, limits(), meter, &mut |record| {
        survey.add(record);
        Ok::<(), Infallible>(())
    });
    match scanned {
        Ok(behind) => {
            let rest = io::copy(&mut input.by_ref(), &mut io::sink());
            let rest = rest.map_err(|cause| FileError::Read {
                offset: meter.bytes() + behind as u64,
                cause,
            })?;
            Ok(behind as u64 + rest)
        }
        Err(Stopped::File(error)) => Err(error),
        Err(Stopped::Taker(never)) => match never {},
    }
}

fn complain(told: &Told<'_>) {
    if let Some(error) = told.error {
        fail(
            &format!("{}: {error}", told.file),
            "what was printed is what stands before that place",
        );
    }
    if let Some((key, error)) = &told.survey.broken.first {
        print_error(&format!(
            "error: {} values break their format, the first is `{}`: {error}\n  help: see `keyferry rdb cat`: their lines have \"error\"",
            told.survey.broken.count,
            key.escape_ascii(),
        ));
    }
}
