//! `keyferry rdb load`: the keys of a file into a server or a layout.
//!
//! Exit codes: 0 all is loaded, 1 some keys are not (they are named) or the
//! load ended early, 2 usage, 4 a target is unfit and nothing was changed.

mod destination;
mod report;

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cli::exit::ExitStatus;
use crate::cli::output::{fail, finish, print_error, stdout};
use crate::cli::progress::shown;
use crate::cli::reshard::quantity::ByteRate;
use crate::rdbfile::load::{self, LoadConfig, LoadError, NotLoaded, OnConflict, Prepared, Report};
use crate::rdbfile::source::Meter;

use super::input::FileArgs;
use super::seen;
use super::wanted::WantedArgs;
use destination::To;

/// Arguments of `keyferry rdb load`.
#[derive(Debug, clap::Args)]
pub struct LoadArgs {
    #[command(flatten)]
    file: FileArgs,
    /// redis://[USER:PASSWORD@]HOST:PORT[/DB], unix:/PATH, or a LAYOUT file whose shards share the keys
    #[arg(long, value_name = "URL|LAYOUT")]
    to: String,
    /// The password of all targets is the first line of this file
    #[arg(long, value_name = "FILE")]
    password_file: Option<std::path::PathBuf>,
    /// The ACL user of all targets
    #[arg(long, value_name = "NAME", requires = "password_file")]
    user: Option<String>,
    /// Start without asking
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    wanted: WantedArgs,
    /// A key that its target already has: fail (end there), replace it, or skip it
    #[arg(long, value_enum, default_value = "fail", value_name = "WHAT")]
    on_conflict: Conflict,
    /// Build every value by commands (RPUSH, HSET...), none by RESTORE
    #[arg(long)]
    commands: bool,
    /// Bytes sent to all targets together, e.g. 80MB/s [default: as fast as they take it]
    #[arg(long, value_name = "RATE")]
    rate: Option<ByteRate>,
    /// The summary as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Conflict {
    Fail,
    Replace,
    Skip,
}

/// Runs `keyferry rdb load`.
pub fn run(args: &LoadArgs) -> ExitStatus {
    let to = match To::parse(
        &args.to,
        args.user.as_deref(),
        args.password_file.as_deref(),
    ) {
        Ok(to) => to,
        Err(text) => {
            print_error(&text);
            return ExitStatus::Usage;
        }
    };
    let asks = io::stdin().is_terminal() && io::stderr().is_terminal();
    if !args.yes && (args.file.is_stdin() || !asks) {
        fail(
            "`rdb load` writes to servers, and there is no terminal to ask on",
            "look at `keyferry rdb info`, then add --yes",
        );
        return ExitStatus::Usage;
    }
    let input = match args.file.open() {
        Ok(input) => input,
        Err(status) => return status,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            fail(
                &format!("cannot start threads: {error}"),
                "check this user's limits on threads and files",
            );
            return ExitStatus::Failed;
        }
    };
    let prepared = match runtime.block_on(load::prepare(config(args, to))) {
        Ok(prepared) => prepared,
        Err(error) => return complain(&error),
    };
    if !args.yes
        && let Err(status) = ask(&prepared)
    {
        return status;
    }
    let (meter, total) = (Arc::new(Meter::default()), input.size());
    let started = Instant::now();
    let (report, ended) = shown(seen(&meter, total), || {
        let loading = prepared.run(input, Arc::clone(&meter));
        runtime.block_on(Box::pin(loading))
    });
    // Look-ups of names may be under way; nobody waits for them any more.
    runtime.shutdown_background();
    end(args, &report, started.elapsed(), ended)
}

fn config(args: &LoadArgs, to: To) -> LoadConfig {
    LoadConfig {
        destination: to.destination,
        database: to.database,
        upstream: to.upstream,
        selection: args.wanted.selection(),
        on_conflict: match args.on_conflict {
            Conflict::Fail => OnConflict::Fail,
            Conflict::Replace => OnConflict::Replace,
            Conflict::Skip => OnConflict::Skip,
        },
        by_commands: args.commands,
        rate_bytes_per_s: args.rate.map(|rate| rate.0),
        tag: format!("load-{:016x}", fastrand::u64(..)),
        overflow: tell,
    }
}

/// The report is full: each further key is told at once.
fn tell(not_loaded: &NotLoaded) {
    print_error(&report::line(not_loaded));
}

/// Shows what would be written to, and asks.
fn ask(prepared: &Prepared) -> Result<(), ExitStatus> {
    for target in prepared.targets() {
        let identity = &target.identity;
        print_error(&format!(
            "{}  {:?} {}",
            target.address, identity.vendor, identity.version
        ));
    }
    let mut terminal = io::stderr();
    let mut typed = String::new();
    let asked = write!(terminal, "type `load` to write to them: ")
        .and_then(|()| terminal.flush())
        .and_then(|()| io::stdin().lock().read_line(&mut typed));
    if asked.is_ok() && typed.trim() == "load" {
        return Ok(());
    }
    fail(
        "that is not `load`; nothing was changed",
        "type it exactly, or give --yes",
    );
    Err(ExitStatus::Refused)
}

fn complain(error: &LoadError) -> ExitStatus {
    fail(&error.to_string(), error.help());
    if error.is_refusal() {
        ExitStatus::Refused
    } else {
        ExitStatus::Failed
    }
}

fn end(
    args: &LoadArgs,
    report: &Report,
    took: Duration,
    ended: Result<(), LoadError>,
) -> ExitStatus {
    let whole = ended.is_ok() && report.not_loaded_count == 0;
    let status = if whole {
        ExitStatus::Done
    } else {
        ExitStatus::Failed
    };
    let mut out = stdout();
    let written = if args.json {
        let error = ended.as_ref().err().map(ToString::to_string);
        report::write_object(&mut out, report, took, error.as_deref())
    } else {
        report::write_text(&mut out, report, took)
    };
    let status = finish(out, written, status);
    if let Err(error) = ended {
        return complain(&error);
    }
    if report.not_loaded_count > 0 {
        fail(
            &format!(
                "{} keys or libraries were not loaded",
                report.not_loaded_count
            ),
            "they are named above with the reason; the others were loaded",
        );
    }
    status
}
