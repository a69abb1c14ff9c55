//! A run: sequences until enough commands were sent, or two sides were found to differ.

use std::fmt;
use std::time::Instant;

use super::line::Unit;
use super::replay::{Difference, Pair};
use super::sequence::Sequence;
use super::shrink::shrink;
use super::sides::Protocol;
use super::tally::Tally;

/// From so many commands on, each of an enabled group has to have come.
const COMPLETE_FROM: u64 = 30_000;

/// From so many on, each of their options, too.
const ALL_OPTIONS_FROM: u64 = 100_000;

/// Sequences that may show differences which are known already, for each that is new.
const TRIES_A_DIFFERENCE: usize = 4;

/// What is run.
pub struct Plan {
    /// Everything random is of this.
    pub seed: u64,
    /// Commands to send.
    pub commands: u64,
    /// Of these groups.
    pub groups: Vec<&'static str>,
    /// One sequence alone, by its number.
    pub only: Option<u64>,
    /// Whether one client may block while another goes on: not through a proxy, where
    /// nothing says whose command comes first.
    pub may_block: bool,
    /// Differences, of a command each, after which it ends.
    pub differences_max: usize,
}

/// Two sides that do not agree, and how to see it.
pub struct Report {
    /// What differs.
    pub difference: Difference,
    /// Few commands that show it.
    pub units: Vec<Unit>,
    protocol: Protocol,
    is_steady: bool,
    seed: u64,
    sequence: u64,
    groups: Vec<&'static str>,
}

impl Plan {
    /// Runs it. After a difference it goes on with the next sequence, until enough were
    /// found.
    pub fn run(&self, pair: &mut Pair) -> Result<Tally, Vec<Report>> {
        let mut tally = Tally::default();
        let mut reports: Vec<Report> = Vec::new();
        let start = Instant::now();
        let mut number = self.only.unwrap_or(0);
        let mut tries = self.differences_max * TRIES_A_DIFFERENCE;
        while tally.lines < self.commands && reports.len() < self.differences_max && tries > 0 {
            if let Err(report) = self.one(pair, number, &mut tally) {
                tries -= 1;
                if !reports
                    .iter()
                    .any(|known| known.command() == report.command())
                {
                    reports.push(*report);
                }
            }
            if self.only.is_some() {
                break;
            }
            number += 1;
        }
        println!("{:.1?}: {tally}", start.elapsed());
        if reports.is_empty() {
            Ok(tally)
        } else {
            Err(reports)
        }
    }

    fn one(&self, pair: &mut Pair, number: u64, tally: &mut Tally) -> Result<(), Box<Report>> {
        // Neighbouring seeds of the generator are not alike.
        let seed = self
            .seed
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(number);
        let Sequence {
            protocol,
            mut units,
        } = Sequence::random(seed, number, &self.groups);
        if !self.may_block {
            units.retain(|unit| !unit.iter().any(|line| line.name() == "@BLOCK"));
        }
        let Some(difference) = pair.replay(protocol, &units, tally) else {
            return Ok(());
        };
        println!(
            "sequence {number} shows a difference at {}; making it short",
            difference.of
        );
        let shrunk = shrink(pair, protocol, &units, difference);
        Err(Box::new(Report {
            difference: shrunk.difference,
            units: shrunk.units,
            protocol,
            is_steady: shrunk.is_steady,
            seed: self.seed,
            sequence: number,
            groups: self.groups.clone(),
        }))
    }

    /// Panics if a command of the groups was not tried in earnest.
    pub fn assert_complete(&self, tally: &Tally) {
        if tally.lines < COMPLETE_FROM {
            return;
        }
        let mut missing = tally.missing(&self.groups);
        if tally.lines >= ALL_OPTIONS_FROM {
            missing.extend(tally.missing_options(&self.groups));
        }
        assert!(
            missing.is_empty(),
            "not everything was tried: {}",
            missing.join(", ")
        );
    }
}

impl Report {
    /// The name of the command that differs.
    fn command(&self) -> String {
        let name = self.difference.of.split(' ').next();
        name.unwrap_or_default().to_uppercase()
    }
}

/// All of them, to panic with.
pub fn texts(reports: &[Report]) -> String {
    let texts: Vec<_> = reports.iter().map(Report::to_string).collect();
    texts.join("\n\n")
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference {
            of,
            reference,
            other,
            why,
            ..
        } = &self.difference;
        writeln!(out, "the sides differ at {of}: {why}")?;
        writeln!(out, "  redis-server: {reference}")?;
        writeln!(out, "  the other:    {other}")?;
        let speech = if self.protocol == Protocol::Resp3 {
            " after HELLO 3"
        } else {
            ""
        };
        writeln!(out, "commands from empty servers on{speech}:")?;
        for line in self.units.iter().flatten() {
            writeln!(out, "  {line}")?;
        }
        if !self.is_steady {
            writeln!(
                out,
                "  (it did not show a second time: these are all commands)"
            )?;
        }
        write!(
            out,
            "again: KEYFERRY_TEST_SEED={} KEYFERRY_DIFF_SEQUENCE={} KEYFERRY_DIFF_GROUPS={}",
            self.seed,
            self.sequence,
            self.groups.join(",")
        )
    }
}
