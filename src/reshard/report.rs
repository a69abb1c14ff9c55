//! What a job did: made from its journal, so it can be asked for at any time.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::fence::FenceLevel;
use super::history::History;
use super::mover::SourceProof;
use super::record::{Copied, ProxyPause, Record};
use super::refreshes::SourceRefreshes;

/// The report of one job, also written to `report.json` after its switch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this shape.
    pub v: u32,
    /// The job.
    pub job: String,
    /// The pool.
    pub pool: String,
    /// Its state, as the interface names it.
    pub state: String,
    /// Epoch that the job brings.
    pub epoch: u64,
    /// Keys and bytes copied by the last process that finished copying.
    pub copied: Copied,
    /// Keys that the last clean verify compared.
    pub verified_keys: u64,
    /// What it found equal, by source.
    #[serde(default)]
    pub proof: Vec<SourceProof>,
    /// What was read from sources a second time, since a command on it could not be
    /// applied as it was; all processes together.
    #[serde(default)]
    pub refreshes: Vec<SourceRefreshes>,
    /// How often a process took the job over.
    pub starts: u64,
    /// How often a source had to be copied anew, its stream being lost.
    #[serde(default)]
    pub source_restarts: u64,
    /// Switches that were taken back.
    pub aborted_switches: u64,
    /// From the last start of a copy until it ended, milliseconds.
    pub copy_ms: u64,
    /// From the plan to the last record, milliseconds.
    pub total_ms: u64,
    /// From the last intent until every proxy had confirmed, milliseconds.
    pub switch_ms: u64,
    /// What each proxy's clients felt; empty before the switch.
    pub proxies: Vec<ProxyPause>,
    /// What kept writers of the old route off at the last switch.
    #[serde(default)]
    pub fence: Option<FenceLevel>,
    /// Proxies that had not confirmed the switch when it was recorded.
    #[serde(default)]
    pub late_proxies: Vec<String>,
    /// Connections that wrote to old shards, round the proxies, while it was made.
    #[serde(default)]
    pub bypass: Vec<String>,
    /// What each proxy's clients felt of the switch back; empty before it.
    #[serde(default)]
    pub proxies_back: Vec<ProxyPause>,
    /// From the intent of the switch back until every proxy had confirmed, milliseconds.
    #[serde(default)]
    pub switch_back_ms: u64,
    /// Keys deleted from old shards by `complete --purge`.
    pub purged_keys: Option<u64>,
    /// Keys removed from the new shards after the job was taken back.
    #[serde(default)]
    pub copies_removed: Option<u64>,
    /// What the last failure said, if the job failed.
    pub failure: Option<String>,
}

impl Report {
    /// The report of a job so far.
    pub fn of(history: &History) -> Self {
        let planned = &history.planned;
        let mut report = Self {
            v: 1,
            job: planned.job.clone(),
            pool: planned.pool.clone(),
            state: history.state.name().to_owned(),
            epoch: planned.epoch,
            copied: Copied::default(),
            verified_keys: 0,
            proof: Vec::new(),
            refreshes: Vec::new(),
            starts: 0,
            source_restarts: 0,
            aborted_switches: 0,
            copy_ms: 0,
            total_ms: 0,
            switch_ms: 0,
            proxies: Vec::new(),
            fence: None,
            late_proxies: Vec::new(),
            bypass: Vec::new(),
            proxies_back: Vec::new(),
            switch_back_ms: 0,
            purged_keys: None,
            copies_removed: None,
            failure: None,
        };
        let mut since = Since::default();
        for record in &history.records {
            report.take(record, &mut since);
        }
        report
    }

    fn take(&mut self, record: &Record, since: &mut Since) {
        let at_ms = record.at_ms();
        self.total_ms = at_ms.saturating_sub(*since.planned.get_or_insert(at_ms));
        match record {
            Record::Started { .. } => {
                self.starts += 1;
                since.refreshes.clone_from(&self.refreshes);
            }
            Record::Refreshed { sources, .. } => {
                self.refreshes = SourceRefreshes::sum(&since.refreshes, sources);
            }
            // From the switch on these tell of the way back.
            Record::CopyingBegan { .. }
            | Record::SourceRestarted { .. }
            | Record::FollowingBegan { .. }
            | Record::Verified { .. }
                if since.switched => {}
            Record::CopyingBegan { .. } => since.copying = at_ms,
            Record::SourceRestarted { .. } => {
                since.copying = at_ms;
                self.source_restarts += 1;
            }
            Record::FollowingBegan { copied, .. } => {
                self.copied = *copied;
                self.copy_ms = at_ms.saturating_sub(since.copying);
            }
            Record::Verified { keys, proof, .. } => {
                self.verified_keys = *keys;
                self.proof.clone_from(proof);
            }
            Record::SwitchIntended { fence, .. } => {
                since.switching = at_ms;
                self.fence = Some(*fence);
            }
            Record::SwitchAborted { .. } => self.aborted_switches += 1,
            Record::SwitchCommitted { proxies, .. } if since.switched => {
                self.proxies_back.clone_from(proxies);
                self.switch_back_ms = at_ms.saturating_sub(since.switching);
            }
            Record::SwitchCommitted {
                proxies,
                late,
                bypass,
                ..
            } => {
                since.switched = true;
                self.proxies.clone_from(proxies);
                self.late_proxies.clone_from(late);
                self.bypass.clone_from(bypass);
                self.switch_ms = at_ms.saturating_sub(since.switching);
            }
            Record::Completed { purged_keys, .. } => self.purged_keys = *purged_keys,
            Record::BypassSeen { writers, .. } => self.bypass.extend(writers.iter().cloned()),
            Record::CopiesRemoved { keys, .. } => self.copies_removed = Some(*keys),
            Record::Failed { why, .. } => self.failure = Some(why.clone()),
            _ => {}
        }
    }

    /// Requests that waited at all proxies together.
    pub fn held_requests(&self) -> u64 {
        self.proxies.iter().map(|pause| pause.held_requests).sum()
    }

    /// The longest wait of any request, microseconds.
    pub fn held_us_max(&self) -> u64 {
        let longest = self.proxies.iter().map(|pause| pause.held_us_max).max();
        longest.unwrap_or(0)
    }
}

#[derive(Default)]
struct Since {
    planned: Option<u64>,
    copying: u64,
    switching: u64,
    switched: bool,
    /// By processes before the newest.
    refreshes: Vec<SourceRefreshes>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "job {} of pool {}: {}", self.job, self.pool, self.state)?;
        writeln!(
            f,
            "  copied    {} keys, {} bytes in {}",
            self.copied.keys,
            self.copied.bytes,
            Millis(self.copy_ms)
        )?;
        writeln!(f, "  verified  {} keys", self.verified_keys)?;
        for source in &self.proof {
            writeln!(f, "            {source}")?;
        }
        for source in &self.refreshes {
            writeln!(f, "  re-read   {source}")?;
        }
        if !self.proxies.is_empty() {
            writeln!(
                f,
                "  switched  to epoch {} in {} (fence: {}); {} requests waited, the longest {:.1} ms",
                self.epoch,
                Millis(self.switch_ms),
                self.fence.unwrap_or_default(),
                self.held_requests(),
                self.held_us_max() as f64 / 1000.0
            )?;
            for pause in &self.proxies {
                writeln!(
                    f,
                    "            {}: {} requests, at most {:.1} ms",
                    pause.proxy,
                    pause.held_requests,
                    pause.held_us_max as f64 / 1000.0
                )?;
            }
        }
        for proxy in &self.late_proxies {
            writeln!(
                f,
                "  late      {proxy}: the old shards refuse what it sends until it takes the new route"
            )?;
        }
        for writer in &self.bypass {
            writeln!(
                f,
                "  BYPASS    {writer}: what it wrote after the switch is only there"
            )?;
        }
        if !self.proxies_back.is_empty() {
            let waits = self.proxies_back.iter().map(|pause| pause.held_us_max);
            writeln!(
                f,
                "  back      to epoch {} in {}; {} requests waited, the longest {:.1} ms",
                self.epoch + 1,
                Millis(self.switch_back_ms),
                self.proxies_back
                    .iter()
                    .map(|pause| pause.held_requests)
                    .sum::<u64>(),
                waits.max().unwrap_or(0) as f64 / 1000.0
            )?;
        }
        if let Some(keys) = self.purged_keys {
            writeln!(f, "  purged    {keys} keys from the old shards")?;
        }
        if let Some(keys) = self.copies_removed {
            writeln!(f, "  removed   {keys} copies from the new shards")?;
        }
        if let Some(why) = &self.failure {
            writeln!(f, "  last failure: {why}")?;
        }
        write!(
            f,
            "  in all    {}, {} starts, {} switches taken back",
            Millis(self.total_ms),
            self.starts,
            self.aborted_switches
        )
    }
}

/// A span in words: `0.4 s`, `2 m 05 s`.
struct Millis(u64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1000;
        if seconds < 60 {
            write!(f, "{:.1} s", self.0 as f64 / 1000.0)
        } else {
            write!(f, "{} m {:02} s", seconds / 60, seconds % 60)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::reshard::record::PlannedJob;
    use crate::router::spec::LayoutSpec;

    fn refreshed(keys: u64, spanning: &[(&str, u64)]) -> Record {
        let spanning = spanning.iter();
        let spanning: BTreeMap<String, u64> = spanning
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect();
        Record::Refreshed {
            at_ms: 9,
            sources: vec![SourceRefreshes {
                source: "s:1".to_owned(),
                keys,
                spanning,
            }],
        }
    }

    #[test]
    fn what_was_read_again_is_summed_over_processes() {
        let job = PlannedJob {
            job: "job-1".to_owned(),
            pool: "cache".to_owned(),
            from: LayoutSpec::default(),
            to: LayoutSpec::default(),
            epoch: 2,
            proxies: Vec::new(),
        };
        let started = |incarnation| Record::Started {
            incarnation,
            at_ms: 1,
        };
        let records = vec![
            Record::Planned { at_ms: 0, job },
            started(1),
            Record::CopyingBegan {
                at_ms: 2,
                beside_others: false,
            },
            refreshed(3, &[("rename", 2)]),
            refreshed(5, &[("rename", 3), ("smove", 1)]),
            started(2),
            Record::CopyingBegan {
                at_ms: 3,
                beside_others: false,
            },
            refreshed(10, &[("rename", 10)]),
        ];
        let history = History::replay(records).unwrap().unwrap();
        let report = Report::of(&history);
        let text = "s:1: 15 keys; keys on different servers: RENAME 13, SMOVE 1";
        assert_eq!(report.refreshes[0].to_string(), text);
        assert!(report.to_string().contains(text), "{report}");
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }
}
