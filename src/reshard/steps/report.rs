//! What the steps of a way did, together.

use std::fmt;

use serde::Serialize;

use super::Walk;
use crate::reshard::job_error::JobError;
use crate::reshard::record::Copied;
use crate::reshard::report::Report;

/// The reports of all steps, and their totals.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WayReport {
    /// Version of this shape.
    pub v: u32,
    /// The way.
    pub way: String,
    /// The pool.
    pub pool: String,
    /// The state of the present step, as the interface names it.
    pub state: String,
    /// How many steps are completed.
    pub steps_completed: usize,
    /// Keys and bytes copied by all steps.
    pub copied: Copied,
    /// The longest wait of any request in any switch, microseconds.
    pub held_us_max: u64,
    /// Switches that were taken back.
    pub aborted_switches: u64,
    /// Each step, in order.
    pub steps: Vec<StepReport>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// Name of the old shard.
    pub shard: String,
    /// Its address.
    pub addr: String,
    /// What its job did; none before it began.
    pub job: Option<Report>,
}

impl WayReport {
    /// The report of a way so far.
    ///
    /// # Errors
    /// A step's journal that cannot be read.
    pub fn of(walk: &Walk) -> Result<Self, JobError> {
        let way = walk.way();
        let mut report = Self {
            v: 1,
            way: way.name.clone(),
            pool: way.pool.clone(),
            state: "planned".to_owned(),
            steps_completed: 0,
            copied: Copied::default(),
            held_us_max: 0,
            aborted_switches: 0,
            steps: Vec::new(),
        };
        for (at, step) in way.steps.iter().enumerate() {
            let history = walk.step_dir(at).history()?;
            let job = history.as_ref().map(Report::of);
            if let Some(job) = &job {
                report.state.clone_from(&job.state);
                report.steps_completed += usize::from(job.state == "completed");
                report.copied.keys += job.copied.keys;
                report.copied.bytes += job.copied.bytes;
                report.held_us_max = report.held_us_max.max(job.held_us_max());
                report.aborted_switches += job.aborted_switches;
            }
            let (shard, addr) = (step.shard.clone(), step.addr.clone());
            report.steps.push(StepReport { shard, addr, job });
        }
        Ok(report)
    }
}

impl fmt::Display for WayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = self.steps.len();
        writeln!(
            f,
            "{} of pool {}: {} of {of} steps completed, {} keys and {} bytes copied; the longest wait of a request {:.1} ms",
            self.way,
            self.pool,
            self.steps_completed,
            self.copied.keys,
            self.copied.bytes,
            self.held_us_max as f64 / 1000.0
        )?;
        for (at, StepReport { shard, addr, job }) in self.steps.iter().enumerate() {
            write!(f, "\nstep {} of {of}: {shard} {addr}", at + 1)?;
            match job {
                Some(job) => write!(f, "\n{job}")?,
                None => write!(f, ": not begun")?,
            }
        }
        Ok(())
    }
}
