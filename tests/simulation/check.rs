//! The invariants of the design (cutover.md 2.7), looked at while the world runs
//! and at its end.

use std::collections::BTreeMap;

use super::event::{Key, OpId, Us};

/// What a client knows of one of its operations.
#[derive(Debug, Clone)]
pub struct Logged {
    pub key: Key,
    pub is_write: bool,
    pub invoke: Us,
    /// `None`: nobody knows whether it ran.
    pub returned: Option<Us>,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Open,
    Length(usize),
    Refused,
    Unknown,
}

/// Everything all clients did.
pub type Log = BTreeMap<OpId, Logged>;

/// Acknowledged appends are there once, in the order of time; others at most once;
/// counts are not stale.
pub fn check_key(key: Key, list: &[OpId], log: &Log) -> Result<(), String> {
    let mut places = BTreeMap::new();
    let mut latest: Option<(OpId, Us)> = None;
    for (at, op) in list.iter().enumerate() {
        let Some(logged) = log.get(op) else {
            return Err(format!("key {key} holds {op:?}, which nobody sent"));
        };
        if places.insert(*op, at).is_some() {
            return Err(format!("key {key} holds {op:?} twice: {list:?}"));
        }
        if logged.outcome == Outcome::Refused {
            return Err(format!("key {key} holds {op:?}, which was refused"));
        }
        let returned = logged.returned.unwrap_or(Us::MAX);
        if let Some((before, _)) = latest.filter(|(_, invoke)| returned < *invoke) {
            return Err(format!("key {key}: {before:?} stands before {op:?}"));
        }
        if latest.is_none_or(|(_, invoke)| invoke < logged.invoke) {
            latest = Some((*op, logged.invoke));
        }
    }
    for (op, logged) in log.iter().filter(|(_, logged)| logged.key == key) {
        match (logged.outcome, logged.is_write) {
            (Outcome::Length(length), true) => match places.get(op) {
                None => return Err(format!("lost: {op:?} {logged:?}")),
                Some(at) if at + 1 != length => {
                    return Err(format!("{op:?} is at {}: {logged:?}", at + 1));
                }
                Some(_) => {}
            },
            (Outcome::Length(length), false) => {
                let missed = list.get(length).and_then(|missed| log.get(missed));
                let missed = missed.and_then(|missed| missed.returned);
                if missed.is_some_and(|returned| returned < logged.invoke) {
                    return Err(format!("a stale read: {op:?} {logged:?}"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}
