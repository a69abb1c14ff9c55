//! `keyferry rdb cat`: the keys of a file as JSON lines.

use std::io::{self, IsTerminal as _};

use crate::cli::exit::ExitStatus;
use crate::cli::output::{Output, fail, finish, stdout};
use crate::cli::progress::shown;
use crate::rdb::Record;
use crate::rdbfile::facts::limits;
use crate::rdbfile::lines::{Detail, LineWriter};
use crate::rdbfile::selection::Selection;
use crate::rdbfile::source::{Meter, Stopped, scan};

use super::input::{FileArgs, Input};
use super::seen;
use super::wanted::WantedArgs;

/// Arguments of `keyferry rdb cat`.
#[derive(Debug, clap::Args)]
pub struct CatArgs {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    wanted: WantedArgs,
    /// Leave the values out
    #[arg(long)]
    keys_only: bool,
}

/// Runs `keyferry rdb cat`.
pub fn run(args: &CatArgs) -> ExitStatus {
    let mut input = match args.file.open() {
        Ok(input) => input,
        Err(status) => return status,
    };
    let detail = if args.keys_only {
        Detail::KeyOnly
    } else {
        Detail::Whole
    };
    let selection = args.wanted.selection();
    let (meter, total) = (Meter::default(), input.size());
    let mut lines = LineWriter::new(stdout(), detail);
    let mut work = || print(&mut input, &meter, &selection, &mut lines);
    // A bar would run into the lines.
    let stopped = if io::stdout().is_terminal() {
        work()
    } else {
        shown(seen(&meter, total), work)
    };
    let broken = lines.broken();
    let out = lines.into_inner();
    match stopped {
        Ok(_) if broken == 0 => finish(out, Ok(()), ExitStatus::Done),
        Ok(_) => {
            let status = finish(out, Ok(()), ExitStatus::Failed);
            fail(
                &format!("{broken} values break their format"),
                "look for lines with \"error\": their values were printed as far as they go",
            );
            status
        }
        Err(Stopped::Taker(error)) => finish(out, Err(error), ExitStatus::Done),
        Err(Stopped::File(error)) => {
            let status = finish(out, Ok(()), ExitStatus::Failed);
            fail(
                &format!("{}: {error}", args.file.name()),
                "the keys printed are those before that place",
            );
            status
        }
    }
}

fn print(
    input: &mut Input,
    meter: &Meter,
    selection: &Selection,
    lines: &mut LineWriter<Output>,
) -> Result<usize, Stopped<io::Error>> {
    let mut unwanted = false;
    let scanned = scan(input, limits(), meter, &mut |record| match record {
        Record::Key(key) if selection.wants(key.db, &key.key, key.value.type_id.kind()) => {
            lines.key(key)
        }
        Record::LargeKey(key) => {
            unwanted = !selection.wants(key.db, &key.key, key.type_id.kind());
            if unwanted { Ok(()) } else { lines.large(key) }
        }
        Record::Part(part) if !unwanted => lines.part(part),
        _ => Ok(()),
    });
    if let Err(Stopped::File(error)) = &scanned {
        lines.cut_off(&error.to_string()).map_err(Stopped::Taker)?;
    }
    scanned
}
