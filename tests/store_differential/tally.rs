//! How often each command was sent, and whether it ever did anything but fail.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::line::{Line, upper};
use super::options;
use super::reply;
use super::table;

/// Commands that can only fail here, and why.
const ALWAYS_FAIL: &[(&str, &str)] = &[
    ("OBJECT|FREQ", "no LFU policy is set"),
    ("ACL|SAVE", "there is no file of users"),
    ("ACL|LOAD", "there is no file of users"),
    ("ACL", "it is nothing without a subcommand"),
    ("CLIENT", "it is nothing without a subcommand"),
    ("CONFIG", "it is nothing without a subcommand"),
    ("FUNCTION", "it is nothing without a subcommand"),
    ("OBJECT", "it is nothing without a subcommand"),
    ("PUBSUB", "it is nothing without a subcommand"),
    ("SCRIPT", "it is nothing without a subcommand"),
    ("SLOWLOG", "it is nothing without a subcommand"),
    ("XGROUP", "it is nothing without a subcommand"),
    ("XINFO", "it is nothing without a subcommand"),
    ("FUNCTION|KILL", "no function runs"),
    ("SCRIPT|KILL", "no script runs"),
];

#[derive(Clone, Copy, Default)]
struct Count {
    sent: u64,
    failed: u64,
}

/// By name.
#[derive(Default)]
pub struct Tally {
    counts: BTreeMap<String, Count>,
    /// Commands and their options that were taken.
    options: BTreeSet<(String, String)>,
    /// All lines.
    pub lines: u64,
}

impl Tally {
    /// One line and what the reference said.
    pub fn count(&mut self, line: &Line, said: &[u8]) {
        let name = line.counted_as();
        let count = self.counts.entry(name.clone()).or_default();
        count.sent += 1;
        self.lines += 1;
        if reply::is_error(said) {
            count.failed += 1;
            return;
        }
        for word in line.words.iter().skip(1) {
            let word = upper(Some(word));
            if options::is_option(&name, &word) {
                self.options.insert((name.clone(), word));
            }
        }
    }

    /// Options of commands of `groups` that were never taken.
    pub fn missing_options(&self, groups: &[&str]) -> Vec<String> {
        options::missing(groups, &self.options)
    }

    /// Commands of `groups` that were never sent, or that failed each time.
    pub fn missing(&self, groups: &[&str]) -> Vec<String> {
        let names = table::commands_of(groups);
        let faults = names.filter_map(|name| {
            let count = self.counts.get(name).copied().unwrap_or_default();
            let may_fail = ALWAYS_FAIL.iter().any(|(failing, _)| *failing == name);
            match (count.sent, count.failed) {
                (0, _) => Some(format!("{name} was never sent")),
                (sent, failed) if sent == failed && !may_fail => {
                    Some(format!("{name} failed each of {sent} times"))
                }
                _ => None,
            }
        });
        faults.collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} commands (sent/failed):", self.lines)?;
        for (name, count) in &self.counts {
            if table::is_known(name) || name.starts_with('@') {
                write!(out, " {name} {}/{}", count.sent, count.failed)?;
            }
        }
        Ok(())
    }
}
