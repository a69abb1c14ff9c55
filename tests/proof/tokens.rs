//! Accounting: every token that was acknowledged is there once, where its answer
//! said, in each client's order; every other at most once.
//!
//! Keys that only grow give each operation a place (the length or the number that
//! was answered), so that the order in which they ran is known, and only times
//! are left to compare: what returned before another was called stands before it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::history::{Call, Finding, Key, Kind, Op, Outcome, Seen, Token, find};

/// What a key of tokens holds at the end, in its order; what is no token as text.
pub type Contents = BTreeMap<Key, Vec<Result<Token, String>>>;

const TOKENS: &str = "tokens";
const ORDER: &str = "order";
const COUNTERS: &str = "counters";
const QUEUES: &str = "queues";

/// Findings per key at most; one mistake shows many times.
const SHOWN_MAX: usize = 3;

/// Checks the keys that tokens are pushed to, against what they hold.
pub fn check_tokens(keys: &BTreeMap<Key, Vec<Op>>, contents: &Contents) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, ops) in keys {
        let empty = Vec::new();
        let held = contents.get(key).unwrap_or(&empty);
        let mut found = Vec::new();
        match key.kind {
            Kind::List | Kind::Text | Kind::Stream | Kind::Set => {
                account(key, ops, held, &mut found);
                order(key, ops, held, &mut found);
            }
            Kind::Counter | Kind::Register | Kind::Volatile | Kind::Queue => {}
        }
        found.truncate(SHOWN_MAX);
        findings.extend(found);
    }
    let mut found = Vec::new();
    queues(keys, contents, &mut found);
    found.truncate(SHOWN_MAX);
    findings.extend(found);
    findings
}

/// The push of each token.
fn pushes(ops: &[Op]) -> HashMap<Token, &Op> {
    let push = |op: &'_ Op| match op.call {
        Call::Push(token) => Some(token),
        _ => None,
    };
    ops.iter()
        .filter_map(|op| push(op).map(|token| (token, op)))
        .collect()
}

fn account(key: &Key, ops: &[Op], held: &[Result<Token, String>], found: &mut Vec<Finding>) {
    let pushes = pushes(ops);
    let mut there = BTreeSet::new();
    for item in held {
        match item {
            Err(text) => find(
                found,
                TOKENS,
                format!("{key} holds what nobody wrote: {text}"),
            ),
            Ok(token) if !there.insert(*token) => {
                find(found, TOKENS, format!("{key} holds {token} twice"));
            }
            Ok(token) => match pushes.get(token).map(|op| &op.outcome) {
                None => find(found, TOKENS, format!("{key} holds {token} of another key")),
                Some(Outcome::Refused(why)) => {
                    let text = format!("{key} holds {token}, which was refused: {why}");
                    find(found, TOKENS, text);
                }
                Some(_) => {}
            },
        }
    }
    for (token, op) in &pushes {
        if op.seen().is_some() && !there.contains(token) {
            find(found, TOKENS, format!("lost: {op}"));
        }
    }
    for op in ops {
        if let (Call::Holds(token), Some(Seen::Number(0))) = (op.call, op.seen()) {
            let pushed = pushes.get(&token);
            if pushed.is_some_and(|push| push.return_us < op.invoke_us) {
                find(found, TOKENS, format!("a stale read: {op}"));
            }
        }
    }
}

fn order(key: &Key, ops: &[Op], held: &[Result<Token, String>], found: &mut Vec<Finding>) {
    if key.kind == Kind::Set {
        return;
    }
    let pushes = pushes(ops);
    let in_place: Vec<Option<&Op>> = held
        .iter()
        .map(|item| {
            item.as_ref()
                .ok()
                .and_then(|token| pushes.get(token).copied())
        })
        .collect();
    // The latest call so far: nothing behind it may have returned before that.
    let mut latest: Option<&Op> = None;
    let mut last_of: HashMap<u32, Token> = HashMap::new();
    for (at, op) in in_place.iter().enumerate() {
        let Some(op) = op else { continue };
        if let Some(before) = latest.filter(|before| op.return_us < before.invoke_us) {
            find(found, ORDER, format!("{key}: {before} stands before {op}"));
        }
        if latest.is_none_or(|before| before.invoke_us < op.invoke_us) {
            latest = Some(op);
        }
        let (Call::Push(token), Some(seen)) = (op.call, op.seen()) else {
            continue;
        };
        let last = last_of.insert(op.client, token);
        if last.is_some_and(|last| last.sequence > token.sequence) {
            find(
                found,
                ORDER,
                format!("{key}: {token} stands behind a later one of its client"),
            );
        }
        if let Seen::Number(place) = seen
            && *place != at as i64 + 1
        {
            find(found, ORDER, format!("{key}: at place {} is {op}", at + 1));
        }
    }
    for op in ops {
        let (Call::Count, Some(Seen::Number(count))) = (op.call, op.seen()) else {
            continue;
        };
        let count = usize::try_from(*count).unwrap_or(usize::MAX);
        // What it did not count yet must have been under way when it was called.
        if let Some(Some(missed)) = in_place.get(count)
            && missed.return_us < op.invoke_us
        {
            find(found, ORDER, format!("a stale read: {op}, after {missed}"));
        }
        if count > held.len() {
            find(
                found,
                ORDER,
                format!("{key} holds {} at the end, but: {op}", held.len()),
            );
        }
    }
}

/// Values answered to INCRs are distinct, without gaps but for unknown ones, and in
/// the order of time.
pub fn check_counters(keys: &BTreeMap<Key, Vec<Op>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, ops) in keys.iter().filter(|(key, _)| key.kind == Kind::Counter) {
        let mut found = Vec::new();
        counter(key, ops, &mut found);
        found.truncate(SHOWN_MAX);
        findings.extend(found);
    }
    findings
}

fn counter(key: &Key, ops: &[Op], found: &mut Vec<Finding>) {
    let mut adds: BTreeMap<i64, &Op> = BTreeMap::new();
    let (mut unknown, mut highest) = (0, 0);
    for op in ops {
        match (op.call, &op.outcome) {
            (Call::Add { by }, Outcome::Done(Seen::Number(value))) => {
                highest = highest.max(*value);
                for value in value - by + 1..=*value {
                    if let Some(other) = adds.insert(value, op) {
                        find(
                            found,
                            COUNTERS,
                            format!("answered twice: {other}, and {op}"),
                        );
                    }
                }
            }
            (Call::Add { by }, Outcome::Unknown(_)) => unknown += by,
            (Call::Read, Outcome::Done(Seen::Number(value))) => highest = highest.max(*value),
            _ => {}
        }
    }
    let gaps = highest - adds.len() as i64;
    if gaps > unknown {
        let text = format!(
            "{key} is at {highest}, but only {} INCRs were answered and {unknown} are unknown",
            adds.len()
        );
        find(found, COUNTERS, text);
    }
    let mut latest: Option<&Op> = None;
    for op in adds.values() {
        if let Some(before) = latest.filter(|before| op.return_us < before.invoke_us) {
            find(found, COUNTERS, format!("{before} was counted before {op}"));
        }
        if latest.is_none_or(|before| before.invoke_us < op.invoke_us) {
            latest = Some(op);
        }
    }
    // From each value on, the earliest return of what counted higher.
    let mut earliest = u64::MAX;
    let mut returned_above: BTreeMap<i64, u64> = BTreeMap::new();
    for (value, op) in adds.iter().rev() {
        returned_above.insert(*value, earliest);
        earliest = earliest.min(op.return_us);
    }
    for op in ops {
        let (Call::Read, Some(Seen::Number(value))) = (op.call, op.seen()) else {
            continue;
        };
        let above = match returned_above.range(..=*value).next_back() {
            Some((_, above)) => *above,
            None => earliest,
        };
        // An unknown INCR may stand between.
        if unknown == 0 && above < op.invoke_us {
            find(found, COUNTERS, format!("a stale read: {op}"));
        }
    }
}

/// What was pushed was popped once, or is there; each pop of unknown outcome may
/// have taken one. Of all queues together: tokens go from one to another.
fn queues(keys: &BTreeMap<Key, Vec<Op>>, contents: &Contents, found: &mut Vec<Finding>) {
    let ops = keys.iter().filter(|(key, _)| key.kind == Kind::Queue);
    let ops: Vec<Op> = ops.flat_map(|(_, ops)| ops.iter().cloned()).collect();
    let pushes = pushes(&ops);
    let mut gone: BTreeMap<Token, &Op> = BTreeMap::new();
    let mut pops_unknown = 0;
    for op in ops.iter().filter(|op| op.call == Call::Pop) {
        match &op.outcome {
            Outcome::Done(Seen::Value(Some(token))) => {
                if let Some(other) = gone.insert(*token, op) {
                    find(found, QUEUES, format!("popped twice: {other}, and {op}"));
                }
                if !pushes.contains_key(token) {
                    find(found, QUEUES, format!("popped from nowhere: {op}"));
                }
            }
            Outcome::Unknown(_) => pops_unknown += 1,
            _ => {}
        }
    }
    let mut there = BTreeSet::new();
    let held = contents.iter().filter(|(key, _)| key.kind == Kind::Queue);
    for (key, item) in held.flat_map(|(key, held)| held.iter().map(move |item| (key, item))) {
        match item {
            Ok(token) if gone.contains_key(token) => {
                let text = format!("{key} holds {token}, which was popped");
                find(found, QUEUES, text);
            }
            Ok(token) if !there.insert(*token) => {
                find(found, QUEUES, format!("{key} holds {token} a second time"));
            }
            Ok(_) => {}
            Err(text) => {
                let text = format!("{key} holds what nobody wrote: {text}");
                find(found, QUEUES, text);
            }
        }
    }
    let lost: Vec<&&Op> = pushes
        .iter()
        .filter(|(token, op)| {
            op.seen().is_some() && !gone.contains_key(*token) && !there.contains(*token)
        })
        .map(|(_, op)| op)
        .collect();
    if lost.len() > pops_unknown {
        let text = format!(
            "{} lost, {pops_unknown} pops unknown: {}",
            lost.len(),
            lost[0]
        );
        find(found, QUEUES, text);
    }
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
