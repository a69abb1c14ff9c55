//! `--state DIR`: where the job lives.

use std::path::{Path, PathBuf};

use crate::config;
use crate::reshard::history::History;
use crate::reshard::job_error::JobError;
use crate::reshard::state_dir::StateDir;
use crate::reshard::status::JobStatus;
use crate::reshard::steps::Walk;

use super::Failure;
use crate::cli::exit::ExitStatus;

/// Where jobs live when neither `--state` nor a config says.
const DEFAULT: &str = "/var/lib/keyferry/reshard";

/// Name of the jobs' directory in `server.state_dir`.
const BELOW_STATE_DIR: &str = "reshard";

/// Where the job is, for verbs that need nothing else of the config.
#[derive(Debug, clap::Args)]
pub struct PlaceArgs {
    /// Directory of the job's journal [default: `reshard` in the config's
    /// server.state_dir, else /var/lib/keyferry/reshard]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The config, if --state is not given
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl PlaceArgs {
    /// The directory that is meant.
    ///
    /// # Errors
    /// A config that is wrong.
    pub fn dir(&self) -> Result<StateDir, Failure> {
        if let Some(state) = &self.state {
            return Ok(StateDir::at(state));
        }
        match &self.config {
            None => Ok(StateDir::at(DEFAULT)),
            Some(file) => {
                let config = config::load(file)
                    .map_err(|error| Failure::laid_out(ExitStatus::Usage, error))?;
                Ok(dir(None, &config.server.state_dir))
            }
        }
    }

    /// Where the job is that lives there: of a way in steps the present one's.
    ///
    /// # Errors
    /// A config or a plan of steps that is wrong.
    pub fn spot(&self) -> Result<Spot, Failure> {
        let dir = self.dir()?;
        let Some(walk) = Walk::seen(&dir)? else {
            return Ok(Spot { dir, walk: None });
        };
        let at = walk.present()?.at;
        Ok(Spot {
            dir: walk.step_dir(at),
            walk: Some((walk, at)),
        })
    }

    /// The config's file, if it was given.
    pub fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }
}

/// Where a job lives, and of which step of which way it is, if it is one's.
pub struct Spot {
    /// The job's directory.
    pub dir: StateDir,
    /// The way and the present step, from 0.
    pub walk: Option<(Walk, usize)>,
}

impl Spot {
    /// The job as its journal tells it.
    ///
    /// # Errors
    /// There was never a job.
    pub fn history(&self) -> Result<History, Failure> {
        let history = self.dir.history().map_err(JobError::from)?;
        history.ok_or_else(|| self.no_job())
    }

    /// There was never a job, or the present step did not begin.
    pub fn no_job(&self) -> Failure {
        match &self.walk {
            Some((walk, at)) => {
                let (number, of) = (at + 1, walk.way().steps.len());
                Failure::new(
                    ExitStatus::Refused,
                    format!(
                        "step {number} of {of} has not begun; the steps before it are completed"
                    ),
                    "go on with the `reshard start --step shard` command, or go back with a job that has the old layout as --to",
                )
            }
            None => Failure::new(
                ExitStatus::Refused,
                format!("there is no job in {}", self.dir.path().display()),
                "give the --state directory that `reshard start` was given",
            ),
        }
    }

    /// What the journal says of a job that no process runs.
    ///
    /// # Errors
    /// There was never a job.
    pub fn journaled_status(&self) -> Result<JobStatus, Failure> {
        let history = self.dir.history().map_err(JobError::from)?;
        let Some((walk, at)) = &self.walk else {
            let history = history.ok_or_else(|| self.no_job())?;
            return Ok(JobStatus::of(&history));
        };
        // Between two steps the last word is that of the one before.
        let (history, at) = match (history, at.checked_sub(1)) {
            (Some(history), _) => (history, *at),
            (None, Some(before)) => {
                let history = walk.step_dir(before).history().map_err(JobError::from)?;
                (history.ok_or_else(|| self.no_job())?, before)
            }
            (None, None) => return Err(self.no_job()),
        };
        let mut status = JobStatus::of(&history);
        walk.status(at)?.put_into(&mut status);
        Ok(status)
    }
}

/// The directory of a job: `state` if given, else one below the proxy's own.
pub fn dir(state: Option<&Path>, proxy_state_dir: &Path) -> StateDir {
    match state {
        Some(state) => StateDir::at(state),
        None => StateDir::at(proxy_state_dir.join(BELOW_STATE_DIR)),
    }
}
