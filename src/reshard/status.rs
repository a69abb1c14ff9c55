//! What a job says of itself while it runs, and what its journal says otherwise.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::clock::now_ms;
use super::fence::FenceLevel;
use super::history::History;
use super::mover::{Attach, MoverProgress, Phase, SourceProgress};
use super::moving::copied;
use super::record::{Copied, Record};
use super::state::{Back, JobState};
use super::steps::StepStatus;

mod source;

pub use source::SourceStatus;

/// The answer to `status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Version of this shape.
    pub v: u32,
    /// The job.
    pub job: String,
    /// Its pool.
    pub pool: String,
    /// One of the interface's states.
    pub state: String,
    /// Whether a process runs the job now.
    pub running: bool,
    /// What is being done or waited for, in words.
    pub doing: String,
    /// Epoch that the job brings.
    pub epoch: u64,
    /// Admin addresses of the proxies.
    pub proxies: Vec<String>,
    /// Of a switched job: `following back`, `copying back`, `rollback unavailable
    /// because ...` or, when no process runs it, `not followed back`.
    #[serde(default)]
    pub way_back: Option<String>,
    /// Keys and bytes that targets have confirmed.
    pub copied: Copied,
    /// Commands of the live streams that were sent to targets.
    #[serde(default)]
    pub commands_applied: u64,
    /// Stream bytes read but not applied, all sources together.
    pub lag_bytes: u64,
    /// How long a marker takes, at the slowest source, from being written there until
    /// all before it is applied; none before one was sent.
    #[serde(default)]
    pub lag_ms: Option<u64>,
    /// How long the copy will still take, as far as its speed until now tells;
    /// none when nothing is being copied.
    #[serde(default)]
    pub eta_s: Option<u64>,
    /// Snapshot bytes a second that are let through now; none: all.
    #[serde(default)]
    pub throttled_to_bytes_per_s: Option<u64>,
    /// Which server's strain is the reason, if one's is.
    #[serde(default)]
    pub throttled_by: Option<String>,
    /// How the sources are attached to, `psync` or `scan`; none when no process
    /// runs the job.
    #[serde(default)]
    pub attach: Option<String>,
    /// One row a source; empty when no process runs the job.
    pub sources: Vec<SourceStatus>,
    /// When the last clean verify ended, milliseconds since 1970.
    pub verified_at_ms: Option<u64>,
    /// How long ago that was, in milliseconds.
    #[serde(default)]
    pub verified_age_ms: Option<u64>,
    /// Keys compared since they are followed, all the time, by canaries.
    #[serde(default)]
    pub canaries_compared: u64,
    /// Of these, keys that differed.
    #[serde(default)]
    pub canaries_differing: u64,
    /// What the old shards refuse from the switch on, as `--fence` names it.
    #[serde(default)]
    pub fence: Option<FenceLevel>,
    /// Why they refuse nothing, if more was wanted.
    #[serde(default)]
    pub no_fence_because: Option<String>,
    /// Proxies that have not confirmed the last switch, with what each said last.
    #[serde(default)]
    pub late_proxies: BTreeMap<String, String>,
    /// Connections that wrote to old shards, round the proxies, while it was made.
    #[serde(default)]
    pub bypass: Vec<String>,
    /// The job was taken back, and what it copied is still in the new shards.
    #[serde(default)]
    pub copies_left: bool,
    /// Of a job that is one step of a way: which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepStatus>,
    /// Before the switch: connections that write to shards which keys will leave, round
    /// the proxies. They stand in its way.
    #[serde(default)]
    pub going_round: Vec<String>,
    /// What to do next: a command, or what to wait for.
    #[serde(default)]
    pub next: String,
    /// Switches taken back.
    pub aborted_switches: u64,
    /// Why the last one was.
    pub last_abort: Option<String>,
    /// What the last failure said.
    pub last_failure: Option<String>,
}

impl JobStatus {
    /// A job that no process runs now.
    pub fn of(history: &History) -> Self {
        let mut status = Self {
            v: 1,
            job: history.planned.job.clone(),
            pool: history.planned.pool.clone(),
            state: history.state.name().to_owned(),
            running: false,
            doing: String::new(),
            epoch: history.planned.epoch,
            proxies: history.planned.proxies.clone(),
            way_back: match &history.state {
                JobState::Switched { .. } => Some("not followed back".to_owned()),
                _ => None,
            },
            copied: Copied::default(),
            commands_applied: 0,
            lag_bytes: 0,
            lag_ms: None,
            eta_s: None,
            throttled_to_bytes_per_s: None,
            throttled_by: None,
            attach: None,
            sources: Vec::new(),
            verified_at_ms: None,
            verified_age_ms: None,
            canaries_compared: 0,
            canaries_differing: 0,
            fence: None,
            no_fence_because: None,
            late_proxies: BTreeMap::new(),
            bypass: Vec::new(),
            copies_left: history.leaves_copies(),
            step: None,
            going_round: Vec::new(),
            next: String::new(),
            aborted_switches: 0,
            last_abort: None,
            last_failure: None,
        };
        let mut has_switched = false;
        for record in &history.records {
            status.take(record, &mut has_switched);
        }
        let age = |at_ms| now_ms().saturating_sub(at_ms);
        status.verified_age_ms = status.verified_at_ms.map(age);
        status.next = match status.copies_left {
            true => REMOVE_COPIES.to_owned(),
            false => next_step(&history.state, false).to_owned(),
        };
        status
    }

    /// A job that this process runs.
    pub fn running(history: &History, doing: &str, progress: Option<&MoverProgress>) -> Self {
        let mut status = Self {
            running: true,
            doing: doing.to_owned(),
            next: next_step(&history.state, true).to_owned(),
            ..Self::of(history)
        };
        if let JobState::Switched { back, .. } = &history.state {
            let way = match back {
                Back::Unbegun | Back::Copying => "copying back",
                Back::Following | Back::Verified { .. } => "following back",
            };
            status.way_back = Some(way.to_owned());
        }
        if let Some(progress) = progress {
            if history.state.direction().is_forward() {
                status.copied = copied(progress);
            }
            status.lag_bytes = progress.sources.iter().map(SourceProgress::lag_bytes).sum();
            status.lag_ms = progress.lag_ms();
            status.commands_applied = progress.sources.iter().map(|row| row.commands_sent).sum();
            status.eta_s = eta_s(history, progress);
            let canaries = progress.sources.iter().map(|row| &row.canary);
            status.canaries_compared = canaries.map(|canary| canary.keys_compared).sum();
            status.canaries_differing = progress.canary_differences();
            status.throttled_to_bytes_per_s = progress.held.bytes_per_s;
            status.throttled_by.clone_from(&progress.held.why);
            let is_scan = progress.sources.iter().any(|row| row.walk.is_some());
            let attach = if is_scan { Attach::Scan } else { Attach::Psync };
            status.attach = Some(attach.to_string());
            status.sources = progress.sources.iter().map(SourceStatus::of).collect();
        }
        status
    }

    /// The old shards of a switched job are not kept exact, and why.
    pub fn no_way_back(&mut self, why: &str) {
        if self.way_back.is_some() {
            self.way_back = Some(format!("rollback unavailable because {why}"));
        }
    }

    fn take(&mut self, record: &Record, has_switched: &mut bool) {
        match record {
            Record::FollowingBegan { .. } if *has_switched => {}
            Record::FollowingBegan { copied, .. } => self.copied = *copied,
            Record::SwitchCommitted { late, bypass, .. } => {
                *has_switched = true;
                self.verified_at_ms = None;
                self.aborted_switches = 0;
                self.last_abort = None;
                let late = late.iter().map(|proxy| (proxy.clone(), String::new()));
                self.late_proxies = late.collect();
                self.bypass.clone_from(bypass);
            }
            Record::BypassSeen { writers, .. } => self.bypass.extend(writers.iter().cloned()),
            Record::Verified { at_ms, .. } => self.verified_at_ms = Some(*at_ms),
            Record::VerifyDiffered { .. }
            | Record::Started { .. }
            | Record::SourceRestarted { .. } => self.verified_at_ms = None,
            Record::SwitchAborted { why, .. } => {
                self.aborted_switches += 1;
                self.last_abort = Some(why.clone());
            }
            Record::SwitchIntended { fence, .. } => self.fence = Some(*fence),
            Record::Failed { why, .. } => self.last_failure = Some(why.clone()),
            _ => {}
        }
    }
}

/// What is next when copies are left.
const REMOVE_COPIES: &str =
    "keyferry reshard complete: removes the copies that the new shards hold";

/// What an operator does next.
fn next_step(state: &JobState, running: bool) -> &'static str {
    match state {
        JobState::Paused(_) => "keyferry reshard resume",
        JobState::Switched {
            back: Back::Verified { .. },
            ..
        } if running => "keyferry reshard complete, or rollback",
        JobState::Switched { .. } => "keyferry reshard complete",
        JobState::Completed | JobState::RolledBack | JobState::Cancelled => {
            "keyferry reshard report"
        }
        _ if !running => "run its `reshard start` command again: it resumes",
        JobState::Planned { .. } | JobState::Copying => "wait until all is copied",
        JobState::Following { .. } => "keyferry reshard verify",
        JobState::Verified { .. } => "keyferry reshard switch",
        JobState::Switching(_) => "wait until the switch is through",
        JobState::Failed { .. } => "run its `reshard start` command again: it resumes",
    }
}

/// Keys that are left, at the speed of those that were copied since the copy began.
fn eta_s(history: &History, progress: &MoverProgress) -> Option<u64> {
    let is_copied = |row: &SourceProgress| row.phase > Phase::Snapshot;
    if progress.sources.iter().all(is_copied) {
        return None;
    }
    let began = history
        .records
        .iter()
        .rev()
        .find_map(|record| match record {
            Record::CopyingBegan { at_ms, .. } | Record::SourceRestarted { at_ms, .. } => {
                Some(*at_ms)
            }
            _ => None,
        })?;
    let elapsed_ms = now_ms().saturating_sub(began);
    let scanned: u64 = progress.sources.iter().map(|row| row.keys_scanned).sum();
    let left = progress.sources.iter().filter(|row| !is_copied(row));
    let left: u64 = left
        .map(|row| row.keys_hint.saturating_sub(row.keys_scanned))
        .sum();
    let eta_ms = u128::from(left) * u128::from(elapsed_ms) / u128::from(scanned).max(1);
    (scanned > 0).then(|| u64::try_from(eta_ms / 1000).unwrap_or(u64::MAX))
}

/// One line, as `status`, `watch` and the status line print it.
impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(step) = &self.step {
            write!(f, "step {} of {} ({}), ", step.number, step.of, step.shard)?;
        }
        write!(f, "{} {}", self.job, self.state,)?;
        if let Some(way) = &self.way_back {
            write!(f, ", {way}")?;
        }
        write!(
            f,
            ": {} keys, {} copied",
            self.copied.keys,
            Bytes(self.copied.bytes)
        )?;
        if let Some(before) = self.step.as_ref().map(|step| step.copied_before) {
            let (keys, bytes) = (before.keys, Bytes(before.bytes));
            write!(f, " (and {keys}, {bytes} in the steps before)")?;
        }
        if !self.sources.is_empty() {
            if self.commands_applied > 0 {
                write!(f, ", {} commands applied", self.commands_applied)?;
            }
            write!(f, ", lag {}", Bytes(self.lag_bytes))?;
            if let Some(ms) = self.lag_ms {
                write!(f, " {ms} ms")?;
            }
            if let Some(seconds) = self.eta_s {
                write!(f, ", copied in about {}", Seconds(seconds))?;
            }
            let waiting: u64 = self.sources.iter().map(|row| row.waiting_bytes).sum();
            if waiting > 0 {
                write!(f, ", {} wait to be applied", Bytes(waiting))?;
            }
            if self.attach.as_deref() == Some("scan") {
                f.write_str(", by scan")?;
            }
            let passes = self.sources.iter().filter_map(|row| row.pass_ms);
            if let Some(ms) = passes.max() {
                write!(f, " in passes of {ms} ms")?;
            }
            let unheld: u64 = self.sources.iter().map(|row| row.keys_unheld).sum();
            if unheld > 0 {
                write!(f, ", {unheld} keys that targets cannot hold")?;
            }
        }
        if let Some(age) = self.verified_age_ms {
            write!(f, ", verified {} ago", Seconds(age / 1000))?;
        }
        if self.canaries_differing > 0 {
            let (compared, differing) = (self.canaries_compared, self.canaries_differing);
            write!(f, ", {differing} of {compared} canaries DIFFER")?;
        }
        if !self.running {
            return write!(f, " (no process runs it) | next: {}", self.next);
        }
        if !self.doing.is_empty() {
            write!(f, " | {}", self.doing)?;
        }
        if let Some(why) = &self.no_fence_because {
            write!(f, " | no fence on the servers: {why}")?;
        }
        for (proxy, said) in &self.late_proxies {
            write!(f, " | late: {proxy} {said}")?;
        }
        for writer in &self.going_round {
            write!(
                f,
                " | no switch as long as this writes round the proxies: {writer}"
            )?;
        }
        for writer in &self.bypass {
            write!(f, " | BYPASS: {writer}")?;
        }
        if let Some(rate) = self.throttled_to_bytes_per_s {
            write!(f, " | copy at most {}/s", Bytes(rate))?;
            if let Some(why) = &self.throttled_by {
                write!(f, ": {why}")?;
            }
        }
        if let Some(why) = &self.last_abort {
            write!(
                f,
                " | switch taken back {}x, last: {why}",
                self.aborted_switches
            )?;
        }
        write!(f, " | next: {}", self.next)
    }
}

/// A time in whole units.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..=119 => write!(f, "{} s", self.0),
            120..=7_199 => write!(f, "{} min", self.0 / 60),
            7_200..=172_799 => write!(f, "{} h", self.0 / 3_600),
            _ => write!(f, "{} days", self.0 / 86_400),
        }
    }
}

/// A size in the largest unit that leaves a digit before the point.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "GB"), (20, "MB"), (10, "KB")] {
            if self.0 >> shift > 0 {
                return write!(f, "{:.1} {unit}", self.0 as f64 / (1_u64 << shift) as f64);
            }
        }
        write!(f, "{} B", self.0)
    }
}
