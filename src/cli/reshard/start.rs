//! `keyferry reshard start`: runs the job in the foreground.

use std::fmt::Display;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::cli::exit::ExitStatus;
use crate::cli::logging::Log;
use crate::cli::output::{finish, print_error, stdout};
use crate::config::LogConfig;
use crate::reshard::fence::FenceChoice;
use crate::reshard::job::Job;
use crate::reshard::mover::{Attach, Bound, OnConflict, Tapping, Throttle, ThrottleChange};
use crate::reshard::moving::Movers;
use crate::reshard::plan::Plan;
use crate::reshard::prepare::{
    AfterSwitch, JobOptions, Prepared, StartRequest, SwitchMode, prepare,
};
use crate::reshard::report::Report;
use crate::reshard::state_dir::StateDir;
use crate::reshard::steps::Walk;
use crate::reshard::stop::{Stop, StopSource, stop_channel};
use crate::router::address::ShardAddress;

use super::pool::{MeantPool, PoolArgs};
use super::quantity::{ByteRate, hold, latency_bound, size, size_bound};
use super::{Failure, block_on, place, progress, steps};

/// Arguments of `keyferry reshard start`.
#[derive(Debug, clap::Args)]
pub struct StartArgs {
    #[command(flatten)]
    pool: PoolArgs,
    /// Start without asking for the pool's name
    #[arg(long)]
    yes: bool,
    /// Who starts the switch: `reshard switch` from elsewhere, or the job itself
    #[arg(long, value_enum, default_value = "manual", value_name = "WHO")]
    switch: WhoSwitches,
    /// Stay after the switch and keep the old shards exact, so that `rollback` is
    /// possible until `complete`; what --switch manual does anyway
    #[arg(long)]
    stay: bool,
    /// Move one old shard after another, each by a job of its own with its own switch;
    /// `complete` ends a step's way back and begins the next
    #[arg(long, value_name = "WHAT")]
    step: Option<StepBy>,
    /// Directory of the job's journal [default: `reshard` in server.state_dir]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Snapshot bytes sent to all targets together, e.g. 80MB/s [default: as fast as they take it]
    #[arg(long, value_name = "RATE")]
    rate: Option<ByteRate>,
    /// Slow the copy down while a target's p99 answer to PING is above this, e.g. 20ms
    #[arg(long, value_name = "TIME", value_parser = latency_bound)]
    target_p99: Option<Bound>,
    /// Slow the copy down while a source holds more output for replicas, e.g. 64MB
    #[arg(long, value_name = "SIZE", value_parser = size_bound)]
    source_buffer: Option<Bound>,
    /// How old shards are read: psync (as a replica), or scan for servers without
    /// PSYNC (SCAN, DUMP and PTTL; promises less, see docs/operations.md)
    #[arg(long, value_name = "HOW", default_value_t = Attach::Psync)]
    attach: Attach,
    /// Read an old shard from this replica of it: SHARD=REPLICA, each as host:port;
    /// may be given for each shard
    #[arg(long = "replica", value_name = "SHARD=REPLICA", value_parser = replica)]
    replicas: Vec<(ShardAddress, ShardAddress)>,
    /// Bytes on disk for what one shard sends faster than targets take it, e.g.
    /// 20GB [default: as many as there is room for]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    spool_max: Option<u64>,
    /// Longest time that requests for moving keys may wait during the switch
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = hold)]
    hold: Duration,
    /// What keeps writers of the old route off from the switch on: auto (the best that
    /// servers and proxies allow), acl (nothing less), or proxies (no fence on the servers)
    #[arg(long, value_name = "HOW", default_value_t = FenceChoice::Auto)]
    fence: FenceChoice,
    /// A moving key that its target already has: fail, replace it, or skip it
    #[arg(long, value_name = "WHAT", default_value_t = OnConflict::Fail)]
    on_conflict: OnConflict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum WhoSwitches {
    /// `keyferry reshard switch`
    Manual,
    /// The job, as soon as it is verified
    Auto,
}

/// What a pool is moved by, if not as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum StepBy {
    /// One old shard after another
    Shard,
}

/// Runs `keyferry reshard start`.
pub fn run(args: &StartArgs) -> ExitStatus {
    let meant = match check_consent(args).and_then(|()| args.pool.meant()) {
        Ok(meant) => meant,
        Err(failure) => return failure.print(),
    };
    if let Err(error) = Log::start(&LogConfig::default()) {
        print_error(&format!("warning: no log: {error}"));
    }
    block_on(start(args, meant))
}

fn replica(text: &str) -> Result<(ShardAddress, ShardAddress), String> {
    let wrong = || "write SHARD=REPLICA, such as 10.0.0.1:6379=10.0.0.2:6379".to_owned();
    let (shard, replica) = text.split_once('=').ok_or_else(wrong)?;
    let address = |text: &str| text.parse().map_err(|error| format!("{error}"));
    Ok((address(shard)?, address(replica)?))
}

/// Without a terminal nobody can be asked: say so before anything else.
fn check_consent(args: &StartArgs) -> Result<(), Failure> {
    if args.yes || can_ask() {
        return Ok(());
    }
    Err(Failure::new(
        ExitStatus::Usage,
        "`reshard start` writes to servers, and there is no terminal to ask on",
        "look at `keyferry reshard plan`, then add --yes",
    ))
}

/// Whether somebody sits there to answer.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

async fn start(args: &StartArgs, meant: MeantPool) -> Result<ExitStatus, Failure> {
    if meant.proxies.is_empty() {
        return Err(Failure::new(
            ExitStatus::Usage,
            "no proxy is known",
            "give --proxy http://HOST:PORT for each proxy of the pool, or set admin.http in the config",
        ));
    }
    let dir = place::dir(args.state.as_deref(), &meant.config.server.state_dir);
    let pool = meant.pool.name.clone();
    if args.step == Some(StepBy::Shard) {
        let request = request(args, meant);
        return Box::pin(steps::start(&dir, &request, args.yes)).await;
    }
    Walk::leave(&dir)?;
    match prepare(dir.clone(), request(args, meant)).await? {
        Prepared::NothingToDo(plan) => {
            let text = format!(
                "pool {pool} has this layout already (epoch {})",
                epoch(&plan)
            );
            Ok(say(&text))
        }
        Prepared::AlreadySwitched(history) => {
            Ok(say(&already_switched(&Report::of(&history), &dir)))
        }
        Prepared::Ready(job) => Box::pin(run_job(args, &pool, &dir, *job)).await,
    }
}

/// For a job that is not to be followed back.
pub fn already_switched(report: &impl Display, dir: &StateDir) -> String {
    format!(
        "{report}\nthe job has switched already; end it with `keyferry reshard complete --yes --state {}`, or start again with --stay to be able to roll it back",
        dir.path().display()
    )
}

fn epoch(plan: &Plan) -> String {
    plan.epoch
        .map(|epoch| epoch.to_string())
        .unwrap_or_default()
}

/// Prints the end.
pub fn say(text: &str) -> ExitStatus {
    let mut out = stdout();
    let written = writeln!(out, "{text}");
    finish(out, written, ExitStatus::Done)
}

fn request(args: &StartArgs, meant: MeantPool) -> StartRequest {
    StartRequest {
        pool: meant.pool.name,
        config_layout: meant.config_layout,
        to: meant.to,
        from: None,
        proxies: meant.proxies,
        proxy_token: meant.token,
        upstream: meant.pool.upstream,
        options: JobOptions {
            switch: match args.switch {
                WhoSwitches::Manual => SwitchMode::Manual,
                WhoSwitches::Auto => SwitchMode::Auto,
            },
            tapping: Tapping {
                attach: args.attach,
                replicas: args.replicas.iter().cloned().collect(),
                spool_bytes_max: args.spool_max,
                ..Tapping::default()
            },
            hold: args.hold,
            on_conflict: args.on_conflict,
            fence: args.fence,
            throttle: Throttle::default().with(ThrottleChange {
                rate_bytes_per_s: args.rate.map(|rate| Bound::At(rate.0)),
                target_ping_p99_ms_max: args.target_p99,
                source_buffer_bytes_max: args.source_buffer,
            }),
            after: match args.switch {
                WhoSwitches::Auto if !args.stay => AfterSwitch::End,
                WhoSwitches::Auto | WhoSwitches::Manual => AfterSwitch::FollowBack,
            },
            ..JobOptions::default()
        },
    }
}

async fn run_job(
    args: &StartArgs,
    pool: &str,
    dir: &StateDir,
    job: Job,
) -> Result<ExitStatus, Failure> {
    print_error(&format!("{}", job.plan()));
    if let Some(state) = job.resumed_from() {
        print_error(&format!(
            "resuming the job in {} ({state})",
            dir.path().display()
        ));
    }
    if !args.yes {
        ask_for_name(pool)?;
    }
    let signals = Signals::heard();
    let ended = run_to_end(job, &signals.stop).await;
    signals.end();
    Ok(say(&ended?.to_string()))
}

/// Runs a job with its progress on stderr.
pub async fn run_to_end(job: Job, stop: &Stop) -> Result<Report, Failure> {
    let shown = tokio::spawn(progress::show(job.status()));
    let ended = tokio::select! {
        ended = job.run(&Movers, stop.clone()) => ended.map_err(Failure::from),
        () = insisted(stop.clone()) => Err(Failure::new(
            ExitStatus::TryAgain,
            "stopped at once, as asked twice",
            "run the same command again: it finds out how far it got, and goes on",
        )),
    };
    // Ends by itself when the job's status is closed; its last line comes first.
    let _ = shown.await;
    ended
}

/// SIGINT and SIGTERM, as long as a command runs jobs.
pub struct Signals {
    /// Where jobs hear of them.
    pub stop: Stop,
    task: JoinHandle<()>,
}

impl Signals {
    /// From now on they do not end the process.
    pub fn heard() -> Self {
        let (source, stop) = stop_channel();
        Self {
            stop,
            task: tokio::spawn(pass_signals_on(source)),
        }
    }

    /// Nobody listens any more.
    pub fn end(self) {
        self.task.abort();
    }
}

async fn insisted(mut stop: Stop) {
    stop.insisted().await;
}

async fn pass_signals_on(source: StopSource) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        tracing::warn!("signals cannot be heard: Ctrl-C ends the process at once");
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        print_error("stopping; once more: at once");
        source.request();
    }
}

/// The name of the pool must be typed.
pub fn ask_for_name(pool: &str) -> Result<(), Failure> {
    let mut terminal = io::stderr();
    let mut typed = String::new();
    let asked = write!(terminal, "type the pool's name ({pool}) to go on: ")
        .and_then(|()| terminal.flush())
        .and_then(|()| io::stdin().lock().read_line(&mut typed));
    if asked.is_ok() && typed.trim() == pool {
        return Ok(());
    }
    Err(Failure::new(
        ExitStatus::Refused,
        "that is not the pool's name; nothing was changed",
        "type it exactly, or give --yes",
    ))
}
