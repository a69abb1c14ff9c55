//! What a shard counts of its clients and commands.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;

/// Kinds of errors that are told apart; the rest is not counted by kind.
const ERROR_KINDS_MAX: usize = 128;
/// Turns between two samples of what is done a second, and how many are kept: 1.6 seconds.
const SAMPLES: usize = 16;

/// Counters; those of INFO's sections Stats, Commandstats and Errorstats.
#[derive(Debug, Default)]
pub(super) struct Stats {
    pub(super) connections: u64,
    pub(super) commands: u64,
    pub(super) input_bytes: u64,
    pub(super) output_bytes: u64,
    pub(super) errors: u64,
    by_command: Vec<(&'static str, OfCommand)>,
    /// Numbers among them.
    numbers: HashMap<&'static str, usize, RandomState>,
    /// The last one that was asked for: mostly it is asked for again.
    last: usize,
    pub(super) by_error: BTreeMap<String, u64>,
    samples: [Sample; SAMPLES],
    sampled: usize,
}

/// Of one command.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OfCommand {
    pub(super) calls: u64,
    pub(super) us: u64,
    pub(super) rejected: u64,
    pub(super) failed: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    at_ms: u64,
    commands: u64,
    input_bytes: u64,
    output_bytes: u64,
}

/// What was done in a second, lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) commands: f64,
    pub(super) input_kib: f64,
    pub(super) output_kib: f64,
}

impl Stats {
    /// What is counted of a command.
    pub(super) fn of_command(&mut self, name: &'static str) -> &mut OfCommand {
        let is_last = |(of, _): &(&'static str, OfCommand)| std::ptr::eq(*of, name);
        if !self.by_command.get(self.last).is_some_and(is_last) {
            let next = self.by_command.len();
            self.last = *self.numbers.entry(name).or_insert(next);
            if self.last == next {
                self.by_command.push((name, OfCommand::default()));
            }
        }
        &mut self.by_command[self.last].1
    }

    /// All commands of which something was counted.
    pub(super) fn commands_seen(&self) -> impl Iterator<Item = (&'static str, &OfCommand)> {
        self.by_command.iter().map(|(name, of)| (*name, of))
    }

    /// An error reply: counted by its first word.
    pub(super) fn note_error(&mut self, reply: &[u8]) {
        self.errors += 1;
        let word = reply
            .split(|byte| matches!(byte, b' ' | b'\r'))
            .next()
            .unwrap_or(reply);
        let word = String::from_utf8_lossy(word);
        if let Some(count) = self.by_error.get_mut(&*word) {
            *count += 1;
        } else if self.by_error.len() < ERROR_KINDS_MAX {
            self.by_error.insert(word.into_owned(), 1);
        }
    }

    /// Ten times a second.
    pub(super) fn sample(&mut self, now_ms: u64) {
        self.samples[self.sampled % SAMPLES] = Sample {
            at_ms: now_ms,
            commands: self.commands,
            input_bytes: self.input_bytes,
            output_bytes: self.output_bytes,
        };
        self.sampled += 1;
    }

    pub(super) fn rates(&self) -> Rates {
        if self.sampled < 2 {
            return Rates::default();
        }
        let newest = self.samples[(self.sampled - 1) % SAMPLES];
        let oldest = self.samples[self.sampled.saturating_sub(SAMPLES) % SAMPLES];
        let seconds = newest.at_ms.saturating_sub(oldest.at_ms) as f64 / 1000.0;
        if seconds <= 0.0 {
            return Rates::default();
        }
        let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
        Rates {
            commands: rate(newest.commands, oldest.commands),
            input_kib: rate(newest.input_bytes, oldest.input_bytes) / 1024.0,
            output_kib: rate(newest.output_bytes, oldest.output_bytes) / 1024.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_last_samples() {
        let mut stats = Stats::default();
        for second in 0..40 {
            stats.commands = second * 100;
            stats.sample(second * 1_000);
        }
        assert_eq!(stats.rates().commands, 100.0);
        stats.note_error(b"ERR what\r\n");
        stats.note_error(b"WRONGTYPE\r\n");
        assert_eq!(
            stats.by_error.keys().collect::<Vec<_>>(),
            ["ERR", "WRONGTYPE"]
        );
    }
}
