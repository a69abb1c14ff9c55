//! A directory's way: which step is the present one, and how one is done.
//!
//! ```text
//! DIR/lock                   held by the process that walks
//! DIR/steps                  the plan (file.rs)
//! DIR/steps.NAME             plans of ways that nobody goes on with
//! DIR/NAME/1, DIR/NAME/2..   a job's directory (state_dir.rs) for each step
//!
//! present step = the first whose journal does not say `completed`
//! ```
//! Killed at any moment, the next start finds the present step by this rule alone. A
//! step that was cancelled or rolled back begins anew; a way of which no step is under
//! way may be left for another job.

use std::sync::Arc;

use super::{StepStatus, StepsError, Way, file};
use crate::reshard::clearing::clear;
use crate::reshard::clock::now_ms;
use crate::reshard::history::{History, JobLog, Safety};
use crate::reshard::job_error::{JobError, OtherJob};
use crate::reshard::mover::remove_notes;
use crate::reshard::plan::{Plan, PlanInput};
use crate::reshard::prepare::{AfterSwitch, Prepared, StartRequest, SwitchMode, prepare};
use crate::reshard::proxies::Fleet;
use crate::reshard::record::{Copied, Record};
use crate::reshard::report::Report;
use crate::reshard::run::mover_names;
use crate::reshard::state::JobState;
use crate::reshard::state_dir::{Lock, StateDir};
use crate::router::layout::Layout;
use crate::router::moves::{ESTIMATE_SAMPLES, Moves};
use crate::upstream::config::UpstreamConfig;

/// A way and where it lives.
#[derive(Debug)]
pub struct Walk {
    dir: StateDir,
    way: Way,
    /// Held by the process that walks; none of those that look.
    _lock: Option<Lock>,
}

/// The step that is done now, or the last one when all are done.
#[derive(Debug)]
pub struct Present {
    /// Which, from 0.
    pub at: usize,
    /// Its job; `None` before it began.
    pub history: Option<History>,
}

impl Present {
    fn is_under_way(&self) -> bool {
        (self.history.as_ref()).is_some_and(|history| !history.state.is_over())
    }

    fn is_completed(&self) -> bool {
        let state = self.history.as_ref().map(|history| &history.state);
        state == Some(&JobState::Completed)
    }
}

impl Walk {
    /// The way in `dir`, to be looked at; `None` when a whole job lives there, or none.
    ///
    /// # Errors
    /// A plan that cannot be read.
    pub fn seen(dir: &StateDir) -> Result<Option<Self>, JobError> {
        let way = file::read(dir.path())?;
        Ok(way.map(|way| Self {
            dir: dir.clone(),
            way,
            _lock: None,
        }))
    }

    /// The same for a process that walks it: it takes the directory's lock.
    ///
    /// # Errors
    /// Another process has it.
    pub fn taken(dir: &StateDir) -> Result<Option<Self>, JobError> {
        let lock = dir.lock()?;
        let walk = Self::seen(dir)?;
        Ok(walk.map(|walk| Self {
            _lock: Some(lock),
            ..walk
        }))
    }

    /// The way that was asked for: the one in the directory, or a new one from where
    /// the proxies are; `None` when they are there already.
    ///
    /// # Errors
    /// [`JobError`]; nothing was changed.
    pub async fn begin(dir: &StateDir, request: &StartRequest) -> Result<Option<Self>, JobError> {
        let lock = dir.lock()?;
        let known = Self::seen(dir)?;
        if let Some(walk) = &known {
            let present = walk.present()?;
            let differs = walk.differs(request)?;
            match (differs, present.is_completed()) {
                (None, false) => {
                    return Ok(known.map(|walk| Self {
                        _lock: Some(lock),
                        ..walk
                    }));
                }
                (Some(what), _) if present.is_under_way() => {
                    return Err(walk.under_way(&present, what).into());
                }
                _ => {}
            }
        }
        let (over, _) = dir.open(&lock)?;
        if let Some(other) = over.as_ref().filter(|over| !over.state.is_over()) {
            return Err(whole_job(dir, other));
        }
        let Some(way) = plan(request).await? else {
            return Ok(None);
        };
        if let Some(over) = &over {
            dir.put_aside(&lock, over)?;
        }
        if let Some(walk) = &known {
            file::put_aside(dir.path(), &walk.way)?;
        }
        file::write(dir.path(), &way)?;
        Ok(Some(Self {
            dir: dir.clone(),
            way,
            _lock: Some(lock),
        }))
    }

    /// Makes room for a whole job: puts the plan of a way aside of which no step is
    /// under way.
    ///
    /// # Errors
    /// One is.
    pub fn leave(dir: &StateDir) -> Result<(), JobError> {
        let Some(walk) = Self::seen(dir)? else {
            return Ok(());
        };
        let _lock = dir.lock()?;
        let present = walk.present()?;
        if present.is_under_way() {
            let what = "a job without --step was asked";
            return Err(walk.under_way(&present, what).into());
        }
        Ok(file::put_aside(dir.path(), &walk.way)?)
    }

    fn differs(&self, request: &StartRequest) -> Result<Option<&'static str>, JobError> {
        let to = Layout::new(self.way.to.clone())?;
        Ok(if self.way.pool != request.pool {
            Some("another pool was asked")
        } else if to.fingerprint() != request.to.fingerprint() {
            Some("its new layout is another one")
        } else {
            None
        })
    }

    fn under_way(&self, present: &Present, what: &'static str) -> StepsError {
        let state = present.history.as_ref().map(|history| history.state.name());
        StepsError::UnderWay {
            dir: self.dir.path().to_path_buf(),
            number: present.at + 1,
            of: self.way.steps.len(),
            pool: self.way.pool.clone(),
            state: state.unwrap_or("planned"),
            what,
        }
    }

    /// The plan.
    pub fn way(&self) -> &Way {
        &self.way
    }

    /// Where the way lives.
    pub fn dir(&self) -> &StateDir {
        &self.dir
    }

    /// Where the job of step `at` lives.
    pub fn step_dir(&self, at: usize) -> StateDir {
        let number = (at + 1).to_string();
        StateDir::at(self.dir.path().join(&self.way.name).join(number))
    }

    /// The present step.
    ///
    /// # Errors
    /// A journal that cannot be read.
    pub fn present(&self) -> Result<Present, JobError> {
        let mut present = Present {
            at: 0,
            history: None,
        };
        for at in 0..self.way.steps.len() {
            let history = self.step_dir(at).history()?;
            present = Present { at, history };
            if !present.is_completed() {
                break;
            }
        }
        Ok(present)
    }

    /// What step `at` shows of the way.
    ///
    /// # Errors
    /// A journal that cannot be read.
    pub fn status(&self, at: usize) -> Result<StepStatus, JobError> {
        let mut before = Copied::default();
        for earlier in 0..at {
            if let Some(history) = self.step_dir(earlier).history()? {
                let copied = Report::of(&history).copied;
                before.keys += copied.keys;
                before.bytes += copied.bytes;
            }
        }
        Ok(StepStatus::of(&self.way, at, before))
    }

    /// Prepares the job of step `at`.
    ///
    /// # Errors
    /// [`JobError`]; nothing was changed.
    pub async fn prepare(&self, at: usize, request: &StartRequest) -> Result<Prepared, JobError> {
        let mut request = request.clone();
        request.to = Arc::new(Layout::new(self.way.layout(at))?);
        request.options.step = Some(self.status(at)?);
        if !self.way.is_last(at) && request.options.switch == SwitchMode::Auto {
            // Nobody would have the time to roll it back.
            request.options.after = AfterSwitch::End;
        }
        let from = Layout::new(self.way.layout_before(at))?;
        request.from = Some(from.fingerprint());
        let moves = Moves::between(Arc::new(from), Arc::clone(&request.to))?;
        let replicas = &mut request.options.tapping.replicas;
        replicas.retain(|shard, _| moves.may_give(shard));
        prepare(self.step_dir(at), request).await
    }

    /// Ends step `at`, which has switched and is not followed back any more: its users
    /// and keys leave the servers. The next one can begin.
    ///
    /// # Errors
    /// [`StepsError::NotCleared`] and others; the same again goes on.
    pub async fn complete(
        &self,
        at: usize,
        fleet: &mut Fleet,
        upstream: &UpstreamConfig,
    ) -> Result<(), JobError> {
        let dir = self.step_dir(at);
        let lock = dir.lock()?;
        let (history, journal) = dir.open(&lock)?;
        let Some(history) = history else {
            return Ok(());
        };
        let left = clear(fleet, &history, upstream, dir.path()).await?;
        if !left.is_empty() {
            let (number, of) = (at + 1, self.way.steps.len());
            return Err(StepsError::NotCleared { number, of, left }.into());
        }
        remove_what_was_noted(&history, upstream).await?;
        let mut log = JobLog::new(history, journal);
        let record = Record::Completed {
            at_ms: now_ms(),
            purged_keys: None,
        };
        log.record(record, Safety::Synced)?;
        dir.remove_spool(&lock)?;
        dir.write_report(&lock, &Report::of(log.history()))?;
        Ok(())
    }
}

/// That notes stay on a server is no reason to stop.
async fn remove_what_was_noted(
    history: &History,
    upstream: &UpstreamConfig,
) -> Result<(), JobError> {
    let planned = &history.planned;
    let from = Arc::new(Layout::new(planned.from.clone())?);
    let to = Arc::new(Layout::new(planned.to.clone())?);
    let names = mover_names(&planned.job);
    let names = names.each_ref().map(String::as_str);
    let moves = Moves::between(from, to)?;
    if let Err(error) = remove_notes(&moves, upstream, &names).await {
        tracing::warn!(%error, "keys with the prefix __keyferry: stay on servers");
    }
    Ok(())
}

fn whole_job(dir: &StateDir, history: &History) -> JobError {
    JobError::OtherJob(Box::new(OtherJob {
        dir: dir.path().to_path_buf(),
        job: history.planned.job.clone(),
        pool: history.planned.pool.clone(),
        state: history.state.name(),
        what: "a job by steps was asked".to_owned(),
        help: "resume it without --step, end it with `keyferry reshard cancel --yes` or, once it has switched, `complete --yes`, or use another --state directory",
    }))
}

/// From where the proxies are.
async fn plan(request: &StartRequest) -> Result<Option<Way>, JobError> {
    let token = request.proxy_token.clone();
    let mut fleet = Fleet::new(&request.pool, request.proxies.clone(), token);
    let agreed = fleet.agree(None).await?.with_all_shards()?;
    let from = Arc::new(agreed.layout);
    let (plan, moves) = Plan::between(&PlanInput {
        pool: &request.pool,
        config_layout: &request.config_layout,
        from: &from,
        epoch: Some(agreed.epoch),
        to: &request.to,
        attach: request.options.tapping.attach,
    })?;
    if plan.nothing_to_do {
        return Ok(None);
    }
    let way = Way::of(&request.pool, &moves, &moves.estimate(ESTIMATE_SAMPLES))?;
    Ok(Some(way))
}
