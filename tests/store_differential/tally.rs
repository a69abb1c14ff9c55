//! How often each command was sent, and whether it ever did anything but fail.

use std::collections::BTreeMap;
use std::fmt;

use super::line::Line;
use super::reply;
use super::table;

/// Commands that can only fail here, and why.
const ALWAYS_FAIL: &[(&str, &str)] = &[
    ("OBJECT|FREQ", "no LFU policy is set"),
    ("ACL|SAVE", "there is no file of users"),
    ("ACL|LOAD", "there is no file of users"),
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
    /// All lines.
    pub lines: u64,
}

impl Tally {
    /// One line and what the reference said.
    pub fn count(&mut self, line: &Line, said: &[u8]) {
        let count = self.counts.entry(line.counted_as()).or_default();
        count.sent += 1;
        count.failed += u64::from(reply::is_error(said));
        self.lines += 1;
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
