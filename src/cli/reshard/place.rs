//! `--state DIR`: where the job lives.

use std::path::{Path, PathBuf};

use crate::config;
use crate::reshard::state_dir::StateDir;

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

    /// The config's file, if it was given.
    pub fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }
}

/// The directory of a job: `state` if given, else one below the proxy's own.
pub fn dir(state: Option<&Path>, proxy_state_dir: &Path) -> StateDir {
    match state {
        Some(state) => StateDir::at(state),
        None => StateDir::at(proxy_state_dir.join(BELOW_STATE_DIR)),
    }
}
