//! `keyferry reshard complete`: ends a switched job; `--purge` deletes the
//! moved keys from old shards that stay.
//!
//! Of a way in steps, `complete` on one that is not the last begins the next.
//! A process that keeps the old shards exact is asked to let go first.
//!
//! Invariant: nothing is deleted unless every proxy routes by this very job's
//! layout and epoch, from the first key to the last (`reshard::purging`).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::exit::ExitStatus;
use crate::cli::output::print_error;
use crate::cli::pool_choice::choose;
use crate::config;
use crate::reshard::clearing::clear;
use crate::reshard::clock::now_ms;
use crate::reshard::control::{Verb, ask_job};
use crate::reshard::ending::Ending;
use crate::reshard::history::{History, JobLog, Safety};
use crate::reshard::job_error::JobError;
use crate::reshard::logins::Logins;
use crate::reshard::mover::{purge, remove_notes};
use crate::reshard::proxies::{Fleet, ProxyUrl};
use crate::reshard::purging::{CHECK_EVERY, purge_copies, while_in_force};
use crate::reshard::record::Record;
use crate::reshard::report::Report;
use crate::reshard::run::mover_names;
use crate::reshard::state::JobState;
use crate::reshard::state_dir::{Lock, StateDir, StateDirError};
use crate::reshard::steps::WayReport;
use crate::router::layout::Layout;
use crate::router::moves::Moves;
use crate::upstream::config::{Secret, UpstreamConfig};

use super::place::{PlaceArgs, Spot};
use super::pool::ProxyArgs;
use super::quantity::KeyRate;
use super::start::{ask_for_name, can_ask, say};
use super::{Failure, block_on, status_of, steps};

/// Longest wait for a process that said it lets go.
const LET_GO_MAX: Duration = Duration::from_secs(10);

/// Arguments of `keyferry reshard complete`.
#[derive(Debug, clap::Args)]
pub struct CompleteArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    #[command(flatten)]
    pub proxies: ProxyArgs,
    /// Do it without asking for the pool's name
    #[arg(long)]
    yes: bool,
    /// Delete the moved keys from old shards that stay in the pool; give -c if
    /// the shards or the proxies want a password
    #[arg(long)]
    pub purge: bool,
    /// Keys deleted a second
    #[arg(long, value_name = "RATE", default_value_t = KeyRate(20_000))]
    rate: KeyRate,
}

/// Runs `keyferry reshard complete`.
pub fn run(args: &CompleteArgs) -> ExitStatus {
    block_on(complete(args))
}

async fn complete(args: &CompleteArgs) -> Result<ExitStatus, Failure> {
    let spot = args.place.spot()?;
    if spot.history().is_ok_and(|history| history.leaves_copies()) {
        return remove_copies(args, &spot).await;
    }
    if let Some((walk, at)) = &spot.walk
        && !walk.way().is_last(*at)
    {
        return steps::complete(args, &spot, (walk, *at)).await;
    }
    let (dir, history) = (&spot.dir, spot.history()?);
    if matches!(history.state, JobState::Completed) {
        if Logins::in_dir(dir.path()).exists() {
            clear_up(args, &history, dir).await?;
        }
        return Ok(say("the job is completed already"));
    }
    check_switched(&history)?;
    consent(args, &history)?;
    let lock = take_over(dir).await?;
    let (history, journal) = dir.open(&lock).map_err(JobError::from)?;
    let history = history.ok_or_else(|| spot.no_job())?;
    check_switched(&history)?;
    let purged_keys = if args.purge {
        Some(delete_moved(args, &history, &spot).await?)
    } else {
        None
    };
    remove_what_was_noted(args, &history).await;
    clear_up(args, &history, dir).await?;
    let mut log = JobLog::new(history, journal);
    let record = Record::Completed {
        at_ms: now_ms(),
        purged_keys,
    };
    log.record(record, Safety::Synced).map_err(JobError::from)?;
    let report = Report::of(log.history());
    dir.write_report(&lock, &report).map_err(JobError::from)?;
    match &spot.walk {
        Some((walk, _)) => Ok(say(&WayReport::of(walk)?.to_string())),
        None => Ok(say(&report.to_string())),
    }
}

/// Of a job that was taken back: what it copied leaves the new shards.
async fn remove_copies(args: &CompleteArgs, spot: &Spot) -> Result<ExitStatus, Failure> {
    let dir = &spot.dir;
    consent(args, &spot.history()?)?;
    let lock = dir.lock().map_err(JobError::from)?;
    let (history, journal) = dir.open(&lock).map_err(JobError::from)?;
    let history = history.ok_or_else(|| spot.no_job())?;
    let planned = &history.planned;
    let (upstream, configured) = settings(args.place.config(), &planned.pool)?;
    let token = args.proxies.token(configured.as_ref())?;
    let mut fleet = Fleet::new(&planned.pool, urls(&planned.proxies)?, token);
    print_error(&format!(
        "removing copies from the new shards, at most {}",
        args.rate
    ));
    let keys = purge_copies(&mut fleet, &history, &upstream, args.rate.0).await?;
    let mut log = JobLog::new(history, journal);
    let at_ms = now_ms();
    let record = Record::CopiesRemoved { at_ms, keys };
    log.record(record, Safety::Synced).map_err(JobError::from)?;
    let report = Report::of(log.history());
    dir.write_report(&lock, &report).map_err(JobError::from)?;
    Ok(say(&report.to_string()))
}

/// Nothing is completed that has not switched.
pub fn check_switched(history: &History) -> Result<(), Failure> {
    if matches!(history.state, JobState::Switched { .. }) {
        return Ok(());
    }
    Err(Failure::new(
        ExitStatus::Refused,
        format!(
            "the job is {}, not switched; nothing was changed",
            history.state.name()
        ),
        "switch it first, or give it up with `keyferry reshard cancel --yes`",
    ))
}

/// The directory's lock, once the process that follows back has let go of
/// everything: the reverse tap ends before anything is deleted.
async fn take_over(dir: &StateDir) -> Result<Lock, Failure> {
    let asked = ask_job(&dir.socket_path(), Verb::Complete).await;
    if let Some(mut asked) = asked.map_err(JobError::from)? {
        let answer = asked.next().await.map_err(JobError::from)?;
        match answer {
            Some(answer) if answer.ending != Ending::Done => {
                return Err(Failure::new(
                    status_of(answer.ending),
                    answer.message,
                    "see `keyferry reshard status`",
                ));
            }
            _ => {}
        }
    }
    let waited = tokio::time::timeout(LET_GO_MAX, dir.lock_when_free()).await;
    waited
        .unwrap_or_else(|_| Err(StateDirError::AlreadyRuns(dir.path().to_path_buf())))
        .map_err(|error| JobError::from(error).into())
}

/// `--yes`, or the pool's name typed.
pub fn consent(args: &CompleteArgs, history: &History) -> Result<(), Failure> {
    if args.yes {
        return Ok(());
    }
    if !can_ask() {
        return Err(Failure::new(
            ExitStatus::Usage,
            "`reshard complete` cannot be undone, and there is no terminal to ask on",
            "add --yes",
        ));
    }
    ask_for_name(&history.planned.pool)
}

/// Users and keys of the job leave the servers; what does not is told.
async fn clear_up(args: &CompleteArgs, history: &History, dir: &StateDir) -> Result<(), Failure> {
    let (upstream, configured) = settings(args.place.config(), &history.planned.pool)?;
    let token = args.proxies.token(configured.as_ref())?;
    clear_up_as(history, dir, &upstream, token).await
}

/// The same, with how to reach servers and proxies.
pub async fn clear_up_as(
    history: &History,
    dir: &StateDir,
    upstream: &UpstreamConfig,
    token: Option<Secret>,
) -> Result<(), Failure> {
    let planned = &history.planned;
    let mut fleet = Fleet::new(&planned.pool, urls(&planned.proxies)?, token);
    let left = clear(&mut fleet, history, upstream, dir.path()).await?;
    for why in left {
        print_error(&format!(
            "warning: users and keys of the job stay on the servers: {why}; run the same command again to remove them"
        ));
    }
    Ok(())
}

/// What the job moved; of a way in steps what all of them did.
async fn delete_moved(args: &CompleteArgs, history: &History, spot: &Spot) -> Result<u64, Failure> {
    let planned = &history.planned;
    let (upstream, configured) = settings(args.place.config(), &planned.pool)?;
    let token = args.proxies.token(configured.as_ref())?;
    let from = match &spot.walk {
        Some((walk, _)) => &walk.way().earlier,
        None => &planned.from,
    };
    let from = Layout::new(from.clone()).map_err(JobError::from)?;
    let to = Layout::new(planned.to.clone()).map_err(JobError::from)?;
    let mut fleet = Fleet::new(&planned.pool, urls(&planned.proxies)?, token);
    let moves = Moves::between(Arc::new(from), Arc::new(to)).map_err(JobError::from)?;
    let moves = Arc::new(moves);
    let deleting = async {
        print_error(&format!("deleting moved keys, at most {}", args.rate));
        purge(&moves, &upstream, Some(args.rate.0)).await
    };
    let report = while_in_force(&mut fleet, history, CHECK_EVERY, deleting).await?;
    Ok(report.map_err(JobError::from)?.keys())
}

/// The movers' notes on servers; that they stay is no reason to keep the job open.
async fn remove_what_was_noted(args: &CompleteArgs, history: &History) {
    let planned = &history.planned;
    let names = mover_names(&planned.job);
    let names = names.each_ref().map(String::as_str);
    let removed = async {
        let (upstream, _) = settings(args.place.config(), &planned.pool)?;
        let from = Layout::new(planned.from.clone()).map_err(JobError::from)?;
        let to = Layout::new(planned.to.clone()).map_err(JobError::from)?;
        let moves = Moves::between(Arc::new(from), Arc::new(to)).map_err(JobError::from)?;
        let removed = remove_notes(&moves, &upstream, &names).await;
        removed.map_err(|error| Failure::from(JobError::from(error)))
    };
    if let Err(failure) = removed.await {
        print_error(&format!(
            "warning: keys with the prefix __keyferry: stay on servers (with -c their passwords are known): {}",
            failure.text
        ));
    }
}

/// How to reach shards and proxies: the config's word, or no passwords.
pub fn settings(
    file: Option<&Path>,
    pool: &str,
) -> Result<(UpstreamConfig, Option<Secret>), Failure> {
    let Some(file) = file else {
        return Ok((UpstreamConfig::default(), None));
    };
    let usage = |text: String| Failure::laid_out(ExitStatus::Usage, text);
    let config = config::load(file).map_err(|error| usage(error.to_string()))?;
    let pool = choose(&config, file, Some(pool)).map_err(|error| usage(error.to_string()))?;
    Ok((pool.upstream.clone(), config.admin.token.clone()))
}

/// Admin addresses as the journal has them.
pub fn urls(texts: &[String]) -> Result<Vec<ProxyUrl>, Failure> {
    let parsed = texts.iter().map(|text| {
        text.parse().map_err(|error| {
            Failure::new(ExitStatus::Failed, error, "the journal was changed by hand")
        })
    });
    parsed.collect()
}
