//! Verbs that ask or tell a running job over its control socket, and what they
//! say when none runs.

use std::io::Write as _;
use std::time::Duration;

use crate::cli::exit::ExitStatus;
use crate::cli::output::{finish, print_error, stdout};
use crate::reshard::clock::now_ms;
use crate::reshard::control::{Answer, Asked, Verb, ask_job};
use crate::reshard::history::{History, JobLog, Safety};
use crate::reshard::job_error::JobError;
use crate::reshard::logins::Logins;
use crate::reshard::mover::{Bound, ThrottleChange};
use crate::reshard::record::Record;
use crate::reshard::state::JobState;
use crate::reshard::state_dir::{StateDir, StateDirError};
use crate::reshard::status::JobStatus;
use crate::reshard::steps::Walk;

use super::complete::{clear_up_as, settings};
use super::place::{PlaceArgs, Spot};
use super::quantity::{latency_bound, rate_bound, size_bound};
use super::start::{ask_for_name, can_ask};
use super::{Failure, block_on, status_of};

/// Arguments of the verbs that read.
#[derive(Debug, clap::Args)]
pub struct ReadArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// Arguments of the verbs that tell.
#[derive(Debug, clap::Args)]
pub struct TellArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// JSON, one object
    #[arg(long)]
    json: bool,
}

/// Arguments of `set`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("bounds").required(true).multiple(true)))]
pub struct SetArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Snapshot bytes sent to all targets together, e.g. 80MB/s, or none
    #[arg(long, group = "bounds", value_name = "RATE", value_parser = rate_bound)]
    rate: Option<Bound>,
    /// Slow down while a target's p99 answer to PING is above this, e.g. 20ms, or none
    #[arg(long, group = "bounds", value_name = "TIME", value_parser = latency_bound)]
    target_p99: Option<Bound>,
    /// Slow down while a source holds more output for replicas, e.g. 64MB, or none
    #[arg(long, group = "bounds", value_name = "SIZE", value_parser = size_bound)]
    source_buffer: Option<Bound>,
    /// JSON, one object
    #[arg(long)]
    json: bool,
}

/// `set`.
pub fn set(args: &SetArgs) -> ExitStatus {
    block_on(async {
        let spot = args.place.spot()?;
        let change = ThrottleChange {
            rate_bytes_per_s: args.rate,
            target_ping_p99_ms_max: args.target_p99,
            source_buffer_bytes_max: args.source_buffer,
        };
        let answer = ask(&spot.dir, Verb::Set(change)).await?;
        Ok(print_answer(
            &answer.ok_or_else(|| not_running(&spot))?,
            args.json,
        ))
    })
}

/// `status`.
pub fn status(args: &ReadArgs) -> ExitStatus {
    block_on(async {
        let spot = args.place.spot()?;
        if let Some(answer) = ask(&spot.dir, Verb::Status).await?
            && let Some(status) = answer.status
        {
            return Ok(print_status(&status, args.json));
        }
        Ok(print_status(&spot.journaled_status()?, args.json))
    })
}

/// `watch`: of a way in steps through all of them.
pub fn watch(args: &ReadArgs) -> ExitStatus {
    block_on(async {
        let mut told = String::new();
        let mut has_seen = false;
        loop {
            let spot = args.place.spot()?;
            let asked = ask_job(&spot.dir.socket_path(), Verb::Watch).await;
            match asked.map_err(JobError::from)? {
                Some(asked) => {
                    has_seen = true;
                    if watch_job(asked, args.json, &mut told).await? != ExitStatus::Done {
                        return Ok(ExitStatus::Failed);
                    }
                }
                None if !has_seen => return Err(not_running(&spot)),
                None => {}
            }
            // Between two steps nobody answers.
            match &spot.walk {
                Some((walk, _)) if is_walked(walk)? => tokio::time::sleep(BETWEEN_STEPS).await,
                _ => return Ok(ExitStatus::Done),
            }
        }
    })
}

/// Pause before a process that begins its next step is asked again.
const BETWEEN_STEPS: Duration = Duration::from_millis(200);

fn is_walked(walk: &Walk) -> Result<bool, Failure> {
    match walk.dir().lock() {
        Ok(_) => Ok(false),
        Err(StateDirError::AlreadyRuns(_)) => Ok(true),
        Err(error) => Err(JobError::from(error).into()),
    }
}

async fn watch_job(mut asked: Asked, json: bool, told: &mut String) -> Result<ExitStatus, Failure> {
    while let Some(answer) = asked.next().await.map_err(JobError::from)? {
        let Some(status) = answer.status else {
            continue;
        };
        let line = line_of(&status, json);
        if line != *told {
            let mut out = stdout();
            let written = writeln!(out, "{line}");
            if finish(out, written, ExitStatus::Done) != ExitStatus::Done {
                return Ok(ExitStatus::Failed);
            }
            *told = line;
        }
    }
    Ok(ExitStatus::Done)
}

/// `verify`.
pub fn verify(args: &ReadArgs) -> ExitStatus {
    block_on(async {
        let spot = args.place.spot()?;
        let answer = ask(&spot.dir, Verb::Verify).await?;
        Ok(print_answer(
            &answer.ok_or_else(|| not_running(&spot))?,
            args.json,
        ))
    })
}

/// `switch`, `pause`, `resume`.
pub fn tell(args: &TellArgs, verb: Verb) -> ExitStatus {
    block_on(async {
        let spot = args.place.spot()?;
        if let Some(answer) = ask(&spot.dir, verb).await? {
            return Ok(print_answer(&answer, args.json));
        }
        Err(not_running(&spot))
    })
}

/// `cancel`, `rollback`: of a running job, or of what its journal left.
pub fn give_up(args: &TellArgs, verb: Verb) -> ExitStatus {
    block_on(async {
        let spot = args.place.spot()?;
        let (dir, history) = (&spot.dir, spot.history()?);
        if !args.yes {
            if !can_ask() {
                return Err(Failure::new(
                    ExitStatus::Usage,
                    "giving a job up cannot be undone, and there is no terminal to ask on",
                    "add --yes",
                ));
            }
            ask_for_name(&history.planned.pool)?;
        }
        match ask(dir, verb).await? {
            Some(answer) => Ok(print_answer(&answer, args.json)),
            None => {
                let is_over = history.state.is_over();
                let left_users = Logins::in_dir(dir.path()).exists();
                if left_users || (history.was_tried() && !is_over) {
                    let (upstream, token) = settings(args.place.config(), &history.planned.pool)?;
                    if !is_over {
                        check_can_give_up(&history, verb)?;
                    }
                    clear_up_as(&history, dir, &upstream, token).await?;
                }
                if is_over && left_users {
                    return Ok(cleared());
                }
                give_up_journal(&spot, verb)
            }
        }
    })
}

/// A job that is over, whose late proxies had kept its users on the servers.
fn cleared() -> ExitStatus {
    let mut out = stdout();
    let written = writeln!(
        out,
        "the job is over already; what it left was looked after"
    );
    finish(out, written, ExitStatus::Done)
}

/// No process runs the job: its journal is all there is to end.
fn give_up_journal(spot: &Spot, verb: Verb) -> Result<ExitStatus, Failure> {
    let dir = &spot.dir;
    let lock = dir.lock().map_err(JobError::from)?;
    let (history, journal) = dir.open(&lock).map_err(JobError::from)?;
    let history = history.ok_or_else(|| spot.no_job())?;
    check_can_give_up(&history, verb)?;
    let at_ms = now_ms();
    let record = match verb {
        Verb::Rollback => Record::RolledBack { at_ms },
        _ => Record::Cancelled {
            at_ms,
            why: "asked to, while no process ran it".to_owned(),
        },
    };
    let mut log = JobLog::new(history, journal);
    log.record(record, Safety::Synced).map_err(JobError::from)?;
    dir.remove_spool(&lock).map_err(JobError::from)?;
    let how = if verb == Verb::Rollback {
        "rolled back"
    } else {
        "cancelled"
    };
    let mut out = stdout();
    let written = writeln!(out, "{}", JobError::Undone { how });
    Ok(finish(out, written, ExitStatus::Done))
}

fn check_can_give_up(history: &History, verb: Verb) -> Result<(), Failure> {
    let (what, help) = match &history.state {
        JobState::Switched { .. } if verb == Verb::Rollback => (
            "the job has switched, and no process keeps its old shards exact",
            "run the job's `reshard start` command again (with --stay if it has --switch auto), and this one when status says `following back`",
        ),
        JobState::Switched { .. } => (
            "the job has switched",
            "go back with `keyferry reshard rollback --yes`, or end the job with `complete --yes`",
        ),
        JobState::Switching(_) => (
            "a switch of this job was interrupted and must be finished first",
            "run the job's `reshard start` command again: it asks every proxy and goes the one safe way",
        ),
        state if state.is_over() => ("the job is over already", "see `keyferry reshard report`"),
        _ => return Ok(()),
    };
    Err(Failure::new(ExitStatus::Refused, what, help))
}

async fn ask(dir: &StateDir, verb: Verb) -> Result<Option<Answer>, Failure> {
    let asked = ask_job(&dir.socket_path(), verb).await;
    match asked.map_err(JobError::from)? {
        Some(mut asked) => Ok(asked.next().await.map_err(JobError::from)?),
        None => Ok(None),
    }
}

fn not_running(spot: &Spot) -> Failure {
    let state = match spot.history() {
        Ok(history) => history.state,
        Err(failure) => return failure,
    };
    let what = format!(
        "no process runs the job in {}; it is {}",
        spot.dir.path().display(),
        state.name()
    );
    let help = match state {
        JobState::Switched { .. } => {
            "end it with `keyferry reshard complete --yes`, or run its `reshard start` command again to follow back"
        }
        _ if state.is_over() => "it is over; see `keyferry reshard report`",
        _ => "run its `reshard start` command again: it resumes",
    };
    Failure::new(ExitStatus::Refused, what, help)
}

fn print_status(status: &JobStatus, json: bool) -> ExitStatus {
    let mut out = stdout();
    let written = writeln!(out, "{}", line_of(status, json));
    finish(out, written, ExitStatus::Done)
}

fn line_of(status: &JobStatus, json: bool) -> String {
    if json {
        // A status has no map with keys that JSON could refuse.
        serde_json::to_string(status).unwrap_or_default()
    } else {
        status.to_string()
    }
}

/// What was done goes to stdout, what was not to stderr; JSON always to stdout.
fn print_answer(answer: &Answer, json: bool) -> ExitStatus {
    let status = status_of(answer.ending);
    if !json && status != ExitStatus::Done {
        print_error(&format!("error: {}", answer.message));
        return status;
    }
    let mut out = stdout();
    let written = if json {
        let text = serde_json::to_string(answer).unwrap_or_default();
        writeln!(out, "{text}")
    } else {
        writeln!(out, "{}", answer.message)
    };
    finish(out, written, status)
}
