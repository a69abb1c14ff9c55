//! What stands before a job runs: the directory's lock, the journal, the
//! proxies' word, the plan. Changes nothing but the directory's lock file.
//!
//! ```text
//! no journal, or a job that is over -> fresh job, planned from what the proxies report
//! the same job, unfinished          -> resumed with the plan it had
//! the same job, switched            -> taken up to follow back, or said so
//! another job, unfinished           -> refused
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::clock::now_ms;
use super::fence::FenceChoice;
use super::fencing::{self, FencePlan};
use super::history::History;
use super::job::Job;
use super::job_error::{JobError, OtherJob};
use super::journal::Journal;
use super::mover::{MoverLimits, OnConflict, Tapping, Throttle};
use super::plan::{Plan, PlanInput};
use super::proxies::{Fleet, ProxyUrl};
use super::record::{Direction, PlannedJob};
use super::state::JobState;
use super::state_dir::{Lock, StateDir};
use super::status::JobStatus;
use super::steps::{StepStatus, StepsError};
use crate::router::layout::Layout;
use crate::router::moves::Moves;
use crate::upstream::config::{Secret, UpstreamConfig};

/// What `reshard start` was asked to do.
#[derive(Debug, Clone)]
pub struct StartRequest {
    /// The pool.
    pub pool: String,
    /// The pool's layout in the config file.
    pub config_layout: Arc<Layout>,
    /// The layout wanted.
    pub to: Arc<Layout>,
    /// Fingerprint of the layout that the proxies must have for a new job; `None`: any.
    pub from: Option<u64>,
    /// Admin addresses of every proxy; at least one.
    pub proxies: Vec<ProxyUrl>,
    /// What the proxies want to know of callers.
    pub proxy_token: Option<Secret>,
    /// How to dial the shards.
    pub upstream: UpstreamConfig,
    /// How to run.
    pub options: JobOptions,
}

/// How a job runs.
#[derive(Debug, Clone)]
pub struct JobOptions {
    /// Who starts the switch.
    pub switch: SwitchMode,
    /// Longest time from the first hold to the first commit.
    pub hold: Duration,
    /// A clean verify older than this is repeated before a switch.
    pub verify_age_max: Duration,
    /// Bounds of the mover.
    pub limits: MoverLimits,
    /// Keys that targets already have.
    pub on_conflict: OnConflict,
    /// How fast the copy goes; may be turned while the job runs.
    pub throttle: Throttle,
    /// How the sources are read; the spool's directory is the job's own.
    pub tapping: Tapping,
    /// Pause before the second automatic try, and before the way back is tried
    /// again; it doubles.
    pub back_off: Duration,
    /// What keeps writers of the old route off at the switch.
    pub fence: FenceChoice,
    /// What becomes of the process once the job has switched.
    pub after: AfterSwitch,
    /// Which step the job is of a way.
    pub step: Option<StepStatus>,
}

/// `--hold` when none is given.
pub const HOLD_DEFAULT: Duration = Duration::from_millis(500);

/// A clean verify holds this long.
pub const VERIFY_AGE_MAX_DEFAULT: Duration = Duration::from_secs(600);

/// Pause before the second try of an automatic switch.
pub const BACK_OFF_DEFAULT: Duration = Duration::from_secs(1);

/// Tries of an automatic switch before the command ends.
pub const AUTO_TRIES_MAX: u32 = 3;

impl Default for JobOptions {
    fn default() -> Self {
        Self {
            switch: SwitchMode::Manual,
            hold: HOLD_DEFAULT,
            verify_age_max: VERIFY_AGE_MAX_DEFAULT,
            limits: MoverLimits::default(),
            on_conflict: OnConflict::Fail,
            throttle: Throttle::default(),
            tapping: Tapping::default(),
            back_off: BACK_OFF_DEFAULT,
            fence: FenceChoice::Auto,
            after: AfterSwitch::End,
            step: None,
        }
    }
}

/// Who starts the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwitchMode {
    /// `reshard switch`, from elsewhere.
    Manual,
    /// The job itself, as soon as it is verified.
    Auto,
}

/// What becomes of the process once the job has switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterSwitch {
    /// It ends; the old shards stay what they were.
    End,
    /// It keeps the old shards exact, so that the job can be rolled back.
    FollowBack,
}

/// What came of preparing.
#[derive(Debug)]
pub enum Prepared {
    /// The job can run.
    Ready(Box<Job>),
    /// The same job has switched before, and is not to be followed back.
    AlreadySwitched(Box<History>),
    /// The proxies route by this layout already.
    NothingToDo(Box<Plan>),
}

/// Whether the job is new.
#[derive(Debug)]
pub(super) enum Begun {
    /// It is; a job that is over may lie in the directory.
    Fresh {
        /// What it is to do.
        planned: Box<PlannedJob>,
        /// The journal to put aside.
        over: Option<Box<History>>,
    },
    /// An earlier process left it.
    Earlier(Box<History>),
}

/// Looks at the directory and the proxies.
///
/// # Errors
/// [`JobError`]; nothing was changed.
pub async fn prepare(dir: StateDir, request: StartRequest) -> Result<Prepared, JobError> {
    let lock = dir.lock()?;
    let (found, journal) = dir.open(&lock)?;
    let fleet = Fleet::new(
        &request.pool,
        request.proxies.clone(),
        request.proxy_token.clone(),
    );
    let place = Place {
        dir,
        lock,
        journal,
        fleet,
    };
    match found {
        Some(history) if !history.state.is_over() => {
            check_same(&place.dir, &history, &request)?;
            let switched = matches!(history.state, JobState::Switched { .. });
            if switched && request.options.after == AfterSwitch::End {
                return Ok(Prepared::AlreadySwitched(Box::new(history)));
            }
            resume(place, history, request).await
        }
        over => plan_anew(place, over, request).await,
    }
}

/// Where a job lives and whom it talks to.
struct Place {
    dir: StateDir,
    lock: Lock,
    journal: Journal,
    fleet: Fleet,
}

impl Place {
    fn job(self, begun: Begun, plan: Plan, moves: Moves, request: StartRequest) -> Box<Job> {
        let mut status = match &begun {
            Begun::Fresh { planned, .. } => {
                let history = History::of_plan(PlannedJob::clone(planned), now_ms());
                JobStatus::running(&history, "looking at every server", None)
            }
            Begun::Earlier(history) => JobStatus::running(history, "starting", None),
        };
        if let Some(step) = &request.options.step {
            step.put_into(&mut status);
        }
        Box::new(Job {
            status: watch::Sender::new(status),
            begun,
            dir: self.dir,
            lock: self.lock,
            journal: self.journal,
            fleet: self.fleet,
            moves: Arc::new(moves),
            plan,
            upstream: request.upstream,
            options: request.options,
        })
    }
}

async fn plan_anew(
    mut place: Place,
    over: Option<History>,
    request: StartRequest,
) -> Result<Prepared, JobError> {
    let agreed = place.fleet.agree(None).await?.with_all_shards()?;
    let from = Arc::new(agreed.layout);
    let is_there = request.to.fingerprint() == from.fingerprint();
    if let (Some(step), Some(wanted)) = (&request.options.step, request.from)
        && wanted != from.fingerprint()
        && !is_there
    {
        let (epoch, number, of) = (agreed.epoch, step.number, step.of);
        return Err(StepsError::NotThere { epoch, number, of }.into());
    }
    let (plan, moves) = Plan::between(&PlanInput {
        pool: &request.pool,
        config_layout: &request.config_layout,
        from: &from,
        epoch: Some(agreed.epoch),
        to: &request.to,
        attach: request.options.tapping.attach,
    })?;
    if plan.nothing_to_do {
        return Ok(Prepared::NothingToDo(Box::new(plan)));
    }
    let planned = PlannedJob {
        job: new_job_name(),
        pool: request.pool.clone(),
        from: from.spec().clone(),
        to: request.to.spec().clone(),
        epoch: agreed.epoch + 1,
        proxies: request.proxies.iter().map(ToString::to_string).collect(),
    };
    let plan = plan.with_fence(fence_plan(&moves, &request).await);
    let begun = Begun::Fresh {
        planned: Box::new(planned),
        over: over.map(Box::new),
    };
    Ok(Prepared::Ready(place.job(begun, plan, moves, request)))
}

async fn resume(
    mut place: Place,
    history: History,
    request: StartRequest,
) -> Result<Prepared, JobError> {
    let planned = &history.planned;
    let from = Arc::new(Layout::new(planned.from.clone())?);
    let to = Arc::new(Layout::new(planned.to.clone())?);
    // An open switch is settled first; only then do the proxies agree again.
    if !matches!(history.state, JobState::Switching(_)) {
        check_proxies(&mut place.fleet, &history).await?;
    }
    let (plan, moves) = Plan::between(&PlanInput {
        pool: &planned.pool,
        config_layout: &request.config_layout,
        from: &from,
        epoch: planned.epoch.checked_sub(1),
        to: &to,
        attach: request.options.tapping.attach,
    })?;
    let plan = plan.with_fence(fence_plan(&moves, &request).await);
    let begun = Begun::Earlier(Box::new(history));
    Ok(Prepared::Ready(place.job(begun, plan, moves, request)))
}

async fn fence_plan(moves: &Moves, request: &StartRequest) -> FencePlan {
    fencing::plan(moves, &request.upstream, request.options.fence).await
}

/// All proxies must still be where the job was planned from, or brought them, but for
/// those that are late since its switch.
pub(super) async fn check_proxies(fleet: &mut Fleet, history: &History) -> Result<(), JobError> {
    let planned = &history.planned;
    let direction = history.state.direction();
    let goal = planned.goal(direction);
    let from = Layout::new(goal.from.clone())?;
    let agreed = match direction {
        Direction::Forward => fleet.agree(Some(&planned.job)).await?,
        Direction::Back => fleet.agree_but_late(&planned.job, planned.epoch).await?,
    };
    let agreed = agreed.with_all_shards()?;
    let layout_differs = agreed.layout.fingerprint() != from.fingerprint();
    if agreed.epoch + 1 == goal.epoch && !layout_differs {
        return Ok(());
    }
    let (job, epoch) = (planned.job.clone(), agreed.epoch);
    Err(match direction {
        Direction::Forward => JobError::ProxiesMovedOn {
            job,
            epoch,
            planned_from: planned.epoch.saturating_sub(1),
            layout_differs,
        },
        Direction::Back => JobError::NoWayBack {
            job,
            epoch,
            wanted: planned.epoch,
            layout_differs,
        },
    })
}

fn check_same(dir: &StateDir, history: &History, request: &StartRequest) -> Result<(), JobError> {
    let planned = &history.planned;
    let mut proxies: Vec<String> = request.proxies.iter().map(ToString::to_string).collect();
    let mut planned_proxies = planned.proxies.clone();
    proxies.sort();
    planned_proxies.sort();
    let to = Layout::new(planned.to.clone())?;
    let what = if planned.pool != request.pool {
        format!("pool {} was asked", request.pool)
    } else if to.fingerprint() != request.to.fingerprint() {
        "its new layout is another one".to_owned()
    } else if proxies != planned_proxies {
        format!(
            "it was planned with the proxies {}",
            planned_proxies.join(", ")
        )
    } else {
        return Ok(());
    };
    Err(JobError::OtherJob(Box::new(OtherJob {
        dir: dir.path().to_path_buf(),
        job: planned.job.clone(),
        pool: planned.pool.clone(),
        state: history.state.name(),
        what,
        help: if matches!(history.state, JobState::Switched { .. }) {
            "end it with `keyferry reshard complete --yes`, or use another --state directory"
        } else {
            "resume it with its own arguments, end it with `keyferry reshard cancel --yes`, or use another --state directory"
        },
    })))
}

/// Letters, digits and `-`: it goes into markers, file names and messages.
fn new_job_name() -> String {
    format!("job-{:012x}", fastrand::u64(..) & 0xffff_ffff_ffff)
}
