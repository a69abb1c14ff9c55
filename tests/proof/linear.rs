//! Is there one order of a key's operations, each somewhere between its call and
//! its return, in which every answer is right? (Linearizability, after Wing & Gong.)
//!
//! ```text
//! events by time:   call A   call B   return A   call C   return B ...
//! configurations:   (state, which open operations have taken effect)
//! ```
//! All configurations that may be are carried along. At a call nothing happens;
//! at a return, each configuration in which the operation has not taken effect is
//! extended by open operations, in every order, until it has; those in which its
//! answer cannot come out right die. None left: no such order exists. Equal
//! configurations are one (the memo), so the work is bounded by what is open at
//! once, not by the length of the history. Keys are checked one by one, which is
//! enough (locality).
//!
//! An unknown outcome has no return. Of a register, a write of unknown outcome
//! whose value nobody read is left out: if there is an order with it, there is one
//! without. One that was read has returned by then.

use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;

use super::history::{Call, Key, Op, Outcome, Seen, Token};

/// Configurations at most; more means that the load was not made for this checker.
const CONFIGURATIONS_MAX: usize = 200_000;

/// Open operations at most, one bit each.
const OPEN_MAX: usize = 128;

/// What a key of one kind may hold.
pub trait Model {
    /// Its value.
    type State: Clone + Eq + Hash;
    /// Before the first operation.
    fn initial() -> Self::State;
    /// The value after `op`, if its answer is right in `state`. An unknown answer
    /// is always right.
    fn step(state: &Self::State, op: &Op) -> Option<Self::State>;
}

/// INCR and GET.
pub struct CounterModel;

impl Model for CounterModel {
    type State = i64;

    fn initial() -> i64 {
        0
    }

    fn step(state: &i64, op: &Op) -> Option<i64> {
        let after = match op.call {
            Call::Add { by } => state + by,
            _ => *state,
        };
        match &op.outcome {
            Outcome::Done(Seen::Number(seen)) => (*seen == after).then_some(after),
            Outcome::Unknown(_) => Some(after),
            _ => None,
        }
    }
}

/// SET and GET.
pub struct RegisterModel;

impl Model for RegisterModel {
    type State = Option<Token>;

    fn initial() -> Option<Token> {
        None
    }

    fn step(state: &Option<Token>, op: &Op) -> Option<Option<Token>> {
        match (op.call, &op.outcome) {
            (Call::Write(token), Outcome::Done(Seen::Fine) | Outcome::Unknown(_)) => {
                Some(Some(token))
            }
            (Call::Read, Outcome::Done(Seen::Value(seen))) => (seen == state).then_some(*state),
            _ => None,
        }
    }
}

/// What a check says.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is such an order.
    Right,
    /// There is none: at the return of this operation the last one died.
    Wrong(String),
    /// Too much was open at once.
    TooHard,
}

/// Checks the operations of one key.
pub fn check<M: Model>(ops: &[Op]) -> Verdict {
    let ops: Vec<&Op> = ops
        .iter()
        .filter(|op| !matches!(op.outcome, Outcome::Refused(_)))
        .collect();
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for (at, op) in ops.iter().enumerate() {
        events.push((op.invoke_us, false, at));
        if op.return_us != u64::MAX {
            events.push((op.return_us, true, at));
        }
    }
    // Of two at one microsecond the call is first: they may have overlapped.
    events.sort_unstable();
    let mut slots: Vec<Option<usize>> = Vec::new();
    let mut slot_of: BTreeMap<usize, usize> = BTreeMap::new();
    let mut configurations: HashSet<(M::State, u128)> = HashSet::from([(M::initial(), 0)]);
    for (_, returns, at) in events {
        if !returns {
            let free = slots.iter().position(Option::is_none);
            let slot = free.unwrap_or(slots.len());
            if slot == OPEN_MAX {
                return Verdict::TooHard;
            }
            if slot == slots.len() {
                slots.push(None);
            }
            slots[slot] = Some(at);
            slot_of.insert(at, slot);
            continue;
        }
        let slot = slot_of
            .remove(&at)
            .expect("it was called before it returned");
        let bit = 1_u128 << slot;
        let mut done = HashSet::new();
        let mut todo: Vec<(M::State, u128)> = configurations.iter().cloned().collect();
        let mut met: HashSet<(M::State, u128)> = configurations;
        while let Some((state, taken)) = todo.pop() {
            if taken & bit != 0 {
                done.insert((state, taken & !bit));
                continue;
            }
            for (other, open) in slots.iter().enumerate() {
                let Some(open) = open.filter(|_| taken & (1 << other) == 0) else {
                    continue;
                };
                if let Some(next) = M::step(&state, ops[open]) {
                    let next = (next, taken | (1 << other));
                    if met.insert(next.clone()) {
                        todo.push(next);
                    }
                }
            }
            if met.len() > CONFIGURATIONS_MAX {
                return Verdict::TooHard;
            }
        }
        slots[slot] = None;
        configurations = done;
        if configurations.is_empty() {
            return Verdict::Wrong(format!("no order of the operations explains: {}", ops[at]));
        }
    }
    Verdict::Right
}

/// Leaves out unknown writes that nobody read, and lets those that were read end
/// with the first such read.
pub fn settle_unknown_writes(ops: &mut Vec<Op>) {
    let mut first_read: BTreeMap<Token, u64> = BTreeMap::new();
    for op in ops.iter() {
        if let Some(Seen::Value(Some(token))) = op.seen() {
            let at = first_read.entry(*token).or_insert(u64::MAX);
            *at = (*at).min(op.return_us);
        }
    }
    ops.retain_mut(|op| match (op.call, op.is_unknown()) {
        (Call::Write(token), true) => match first_read.get(&token) {
            Some(at) => {
                op.return_us = *at;
                true
            }
            None => false,
        },
        (Call::Read, true) => false,
        _ => true,
    });
}

/// Operations by key, each in the order of its calls.
pub fn by_key(ops: &[Op]) -> BTreeMap<Key, Vec<Op>> {
    let mut keys: BTreeMap<Key, Vec<Op>> = BTreeMap::new();
    for op in ops {
        keys.entry(op.key).or_default().push(op.clone());
    }
    for ops in keys.values_mut() {
        ops.sort_by_key(|op| op.invoke_us);
    }
    keys
}

#[cfg(test)]
#[path = "linear_tests.rs"]
mod tests;
