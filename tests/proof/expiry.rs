//! Keys that expire: nobody reads one more than a second past its time, and none
//! is gone before.
//!
//! Each volatile key is written by one client only, whose operations follow each
//! other, and read by all. So at any moment it is known which value it may hold,
//! and between which two moments that value's time runs out: the server set the
//! time between the call and the return of the operation that named it.
//!
//! ```text
//!   SET v1 PX 80            PEXPIRE 5000 -> 1             SET v2 ..
//!   |--------|              |---------|                   |------|
//!            '- sure from here                            '- v1 may be gone from here
//!   dies between call + 80 and return + 80, then between call + 5000 and return + 5000
//! ```

use std::collections::BTreeMap;

use super::history::{Call, Finding, Key, Kind, Op, Outcome, Seen, Token, find};

const EXPIRY: &str = "expiry";

/// How long past its time a value may be read. Design: one second.
const LATE_US: u64 = 1_000_000;

/// How much before its time it may be gone: clocks of servers tick in milliseconds.
const EARLY_US: u64 = 5_000;

const NEVER: u64 = u64::MAX;

/// One value of a key.
#[derive(Debug)]
struct Life {
    token: Token,
    /// It may be there from here, and is from there on.
    begins_us: (u64, u64),
    /// It may be overwritten from here, and is from there on.
    ends_us: (u64, u64),
    /// The times it was given, in order.
    spans: Vec<Span>,
}

/// From an operation on, a value dies between two moments.
#[derive(Debug, Clone, Copy)]
struct Span {
    from_us: u64,
    sure_us: u64,
    dies_us: (u64, u64),
    /// Whether the operation may not have run.
    is_unsure: bool,
}

fn after(at_us: u64, ms: Option<u64>) -> u64 {
    match ms {
        Some(ms) if at_us != u64::MAX => at_us + ms * 1_000,
        _ => NEVER,
    }
}

fn span(op: &Op, ms: Option<u64>) -> Span {
    Span {
        from_us: op.invoke_us,
        sure_us: op.return_us,
        dies_us: (after(op.invoke_us, ms), after(op.return_us, ms)),
        is_unsure: op.is_unknown(),
    }
}

impl Life {
    /// The latest moment at which it may die.
    fn latest_death(&self) -> u64 {
        let sure = self.spans.iter().rposition(|span| !span.is_unsure);
        let spans = self.spans.get(sure.unwrap_or(0)..).unwrap_or_default();
        spans
            .iter()
            .map(|span| span.dies_us.1)
            .max()
            .unwrap_or(NEVER)
    }

    /// Whether it is there for certain all the time between the two moments.
    fn is_surely_there(&self, from_us: u64, to_us: u64) -> bool {
        let is_written = self.begins_us.1 <= from_us && to_us <= self.ends_us.0;
        // Spans that may be in force at some moment between the two.
        let in_force = self.spans.iter().enumerate().filter(|(at, span)| {
            let next_is_sure = self.spans.get(at + 1..).unwrap_or_default();
            let replaced = next_is_sure
                .iter()
                .any(|next| !next.is_unsure && next.sure_us < from_us);
            span.from_us <= to_us && !replaced
        });
        let mut dies = in_force.map(|(_, span)| span.dies_us.0);
        is_written && dies.all(|dies| dies > to_us.saturating_add(EARLY_US))
    }
}

/// Checks the volatile keys.
pub fn check_expiry(keys: &BTreeMap<Key, Vec<Op>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for ops in keys
        .iter()
        .filter(|(key, _)| key.kind == Kind::Volatile)
        .map(|(_, ops)| ops)
    {
        let lives = lives(ops);
        let mut found = Vec::new();
        for op in ops {
            check_one(&lives, op, &mut found);
        }
        found.truncate(3);
        findings.extend(found);
    }
    findings
}

/// The values in the order they were written.
fn lives(ops: &[Op]) -> Vec<Life> {
    let mut lives: Vec<Life> = Vec::new();
    for op in ops {
        if matches!(op.outcome, Outcome::Refused(_)) {
            continue;
        }
        match op.call {
            Call::WriteFor { token, ms } => {
                for life in lives.iter_mut().rev() {
                    if life.ends_us.0 != NEVER {
                        break;
                    }
                    life.ends_us.0 = op.invoke_us;
                }
                if !op.is_unknown() {
                    for life in &mut lives {
                        life.ends_us.1 = life.ends_us.1.min(op.return_us);
                    }
                }
                lives.push(Life {
                    token,
                    begins_us: (op.invoke_us, op.return_us),
                    ends_us: (NEVER, NEVER),
                    spans: vec![span(op, Some(ms))],
                });
            }
            Call::Renew { .. } | Call::Persist if op.seen() != Some(&Seen::Number(0)) => {
                let ms = match op.call {
                    Call::Renew { ms } => Some(ms),
                    _ => None,
                };
                if let Some(life) = lives.last_mut() {
                    life.spans.push(span(op, ms));
                }
            }
            _ => {}
        }
    }
    lives
}

fn check_one(lives: &[Life], op: &Op, found: &mut Vec<Finding>) {
    match (op.call, op.seen()) {
        (Call::Read, Some(Seen::Value(Some(token)))) => {
            let Some(life) = lives.iter().find(|life| life.token == *token) else {
                return find(found, EXPIRY, format!("a value from nowhere: {op}"));
            };
            if op.return_us < life.begins_us.0 || life.ends_us.1 < op.invoke_us {
                find(found, EXPIRY, format!("a stale read: {op}"));
            }
            let dead_us = life.latest_death().saturating_add(LATE_US);
            if dead_us < op.invoke_us {
                let text = format!("revived, or never expired: {op}, dead since {dead_us}");
                find(found, EXPIRY, text);
            }
        }
        (Call::Read, Some(Seen::Value(None))) => {
            let there = |life: &&Life| life.is_surely_there(op.invoke_us, op.return_us);
            if let Some(life) = lives.iter().find(there) {
                find(
                    found,
                    EXPIRY,
                    format!("lost before its time: {op}, {life:?}"),
                );
            }
        }
        // The owner's own: 0 says that the key is gone, or (PERSIST) has no time.
        (Call::Renew { .. }, Some(Seen::Number(0))) => {
            let there = |life: &&Life| life.is_surely_there(op.invoke_us, op.return_us);
            if let Some(life) = lives.iter().find(there) {
                find(
                    found,
                    EXPIRY,
                    format!("lost before its time: {op}, {life:?}"),
                );
            }
        }
        (Call::Renew { .. }, Some(Seen::Number(1))) => {
            let before = |span: &Span| span.from_us < op.invoke_us;
            let last = lives.iter().rfind(|life| life.begins_us.0 < op.invoke_us);
            let dead = last.is_some_and(|life| {
                let earlier = life.spans.iter().filter(|span| before(span));
                let latest = earlier.map(|span| span.dies_us.1).max();
                latest.is_some_and(|latest| latest.saturating_add(LATE_US) < op.invoke_us)
            });
            if dead {
                find(found, EXPIRY, format!("revived: {op}"));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
#[path = "expiry_tests.rs"]
mod tests;
