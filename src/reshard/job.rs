//! A prepared job, and what is around its run: the control socket, the
//! preflight and the announcement before anything is recorded, the report at
//! the end.
//!
//! Invariant: a fresh job that is refused leaves nothing in its directory.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::announce::{Absent, Announced};
use super::clock::now_ms;
use super::control::{ControlSocket, QUESTIONS_MAX};
use super::fencing::Fences;
use super::history::JobLog;
use super::job_error::JobError;
use super::journal::Journal;
use super::logins::Logins;
use super::lookout::Lookout;
use super::mover::{Begin, KeeperConfig, MoverConfig, Tapping, ThrottleDial};
use super::moving::DataPath;
use super::plan::Plan;
use super::prepare::{Begun, JobOptions};
use super::proxies::Fleet;
use super::purging::{KEYS_PER_S_DEFAULT, purge_copies};
use super::record::{Direction, Record};
use super::reminders::Reminders;
use super::report::Report;
use super::run::{INCARNATION_FIRST, Runner, mission};
use super::state_dir::{Lock, StateDir};
use super::status::JobStatus;
use super::stop::Stop;
use crate::router::moves::Moves;
use crate::upstream::config::UpstreamConfig;

/// The file in a job's directory that names every key which a target could not
/// be given.
pub const SHORTFALLS: &str = "shortfalls.jsonl";

/// The directory in a job's directory for settings of sources that are to be put
/// back.
const SETTINGS: &str = "settings";

/// A job that was prepared and can run.
#[derive(Debug)]
pub struct Job {
    pub(super) dir: StateDir,
    pub(super) lock: Lock,
    pub(super) journal: Journal,
    pub(super) begun: Begun,
    pub(super) fleet: Fleet,
    pub(super) moves: Arc<Moves>,
    pub(super) plan: Plan,
    pub(super) upstream: UpstreamConfig,
    pub(super) options: JobOptions,
    pub(super) status: watch::Sender<JobStatus>,
}

impl Job {
    /// What it will do.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The earlier state of a job that is taken up again; `None` for a new one.
    pub fn resumed_from(&self) -> Option<&'static str> {
        match &self.begun {
            Begun::Fresh { .. } => None,
            Begun::Earlier(history) => Some(history.state.name()),
        }
    }

    /// Follows the job; the channel closes when it ends.
    pub fn status(&self) -> watch::Receiver<JobStatus> {
        self.status.subscribe()
    }

    /// Runs it until it is switched; if it is to follow back then, until it is
    /// rolled back, or completed by somebody.
    ///
    /// # Errors
    /// [`JobError`]; its `ending` says whether the same command resumes.
    pub async fn run<D: DataPath>(self, data: &D, stop: Stop) -> Result<Report, JobError> {
        let (questions, receiver) = mpsc::channel(QUESTIONS_MAX);
        let path = self.dir.socket_path();
        let socket = ControlSocket::listen(&path, questions, self.status.subscribe())?;
        let mut config = MoverConfig {
            moves: Arc::clone(&self.moves),
            upstream: self.upstream.clone(),
            limits: self.options.limits,
            on_conflict: self.options.on_conflict,
            resumed: false,
            begin: Begin::Copy,
            throttle: ThrottleDial::new(self.options.throttle),
            tapping: Tapping {
                spool_dir: Some(self.dir.spool_path()),
                settings_dir: Some(self.dir.path().join(SETTINGS)),
                ..self.options.tapping.clone()
            },
            shortfall_file: Some(self.dir.path().join(SHORTFALLS)),
            job: self.status.borrow().job.clone(),
        };
        let (log, announced) = match self.begun {
            Begun::Earlier(history) => (JobLog::new(*history, self.journal), None),
            Begun::Fresh { planned, over } => {
                let checked = until_stopped(&stop, data.preflight(&config)).await??;
                for warning in &checked.warnings {
                    tracing::warn!("{warning}");
                }
                // Refused, it ends here, with nothing on disk that could be resumed.
                let announced =
                    Announced::begin(&self.fleet, &config.job, INCARNATION_FIRST, Absent::Refused)
                        .await?;
                let journal = match over {
                    Some(over) => self.dir.put_aside(&self.lock, &over)?,
                    None => self.journal,
                };
                let log = JobLog::begin(journal, *planned, now_ms())?;
                (log, Some(announced))
            }
        };
        config.resumed = log.state().copied_before();
        let fences = Fences::nowhere(mission(&log.history().planned));
        if log.history().may_go_on() {
            config.begin = Begin::Resume;
        }
        let mut runner = Runner {
            log,
            fleet: self.fleet,
            moves: self.moves,
            options: self.options,
            questions: receiver,
            throttle: config.throttle.clone(),
            stop,
            status: self.status,
            progress: None,
            doing: "starting",
            undo: None,
            clean: None,
            restarts_recorded: 0,
            upstream: self.upstream,
            fences,
            logins: Logins::in_dir(self.dir.path()),
            commits: Reminders::none(),
            aborts: Reminders::none(),
            as_new: Default::default(),
            unfenced_because: None,
            lookout: Lookout::default(),
            no_fence_because: None,
            direction: Direction::Forward,
            keeping: KeeperConfig::of(&config),
            keepers: None,
            no_way_back: None,
            let_go: None,
            canaries_recorded: 0,
        };
        let ended = Box::pin(runner.run(data, config, announced)).await;
        Box::pin(runner.remove_copies()).await;
        let report = Report::of(runner.log.history());
        if let Err(error) = self.dir.remove_spool(&self.lock) {
            tracing::warn!(%error, "bytes that no target needs any more stay on disk");
        }
        // The journal has all of it; `reshard report` makes it again.
        if let Err(error) = self.dir.write_report(&self.lock, &report) {
            tracing::warn!(%error, "report.json was not written");
        }
        // Dropping the runner closes the status, which lets the socket's clients go.
        drop(runner);
        socket.close().await;
        ended.map(|()| report)
    }
}

async fn until_stopped<T>(stop: &Stop, work: impl Future<Output = T>) -> Result<T, JobError> {
    let mut stop = stop.clone();
    tokio::select! {
        done = work => Ok(done),
        () = stop.requested() => Err(JobError::Stopped),
    }
}

impl Runner {
    /// What a job that was taken back had copied leaves the new shards, where another
    /// job would meet it. A stop leaves the rest to `complete`.
    async fn remove_copies(&mut self) {
        let history = self.log.history().clone();
        if !history.leaves_copies() {
            return;
        }
        self.say("removing the copies from the new shards");
        let removing = purge_copies(
            &mut self.fleet,
            &history,
            &self.upstream,
            KEYS_PER_S_DEFAULT,
        );
        let removed = match until_stopped(&self.stop, removing).await {
            Ok(removed) => removed,
            Err(stopped) => Err(stopped),
        };
        let kept = removed.and_then(|keys| {
            let at_ms = now_ms();
            self.record(Record::CopiesRemoved { at_ms, keys })
        });
        if let Err(error) = kept {
            tracing::warn!(
                %error,
                "copies stay in the new shards; `keyferry reshard complete --yes` removes them"
            );
        }
    }
}
