//! The accounting itself, on histories known to be good and known to be bad.

use std::collections::BTreeMap;

use super::super::history::{Call, Key, Kind, Op, Outcome, Seen, Token};
use super::{check_counters, check_tokens};

fn key(kind: Kind) -> Key {
    Key { kind, number: 0 }
}

fn token(sequence: u32) -> Token {
    Token {
        client: 1,
        sequence,
    }
}

fn op(kind: Kind, call: Call, times: (u64, u64), outcome: Outcome) -> Op {
    Op {
        client: 1,
        key: key(kind),
        call,
        invoke_us: times.0,
        return_us: times.1,
        outcome,
    }
}

fn push(kind: Kind, sequence: u32, times: (u64, u64), place: i64) -> Op {
    let outcome = Outcome::Done(Seen::Number(place));
    op(kind, Call::Push(token(sequence)), times, outcome)
}

fn lost(kind: Kind, call: Call, from: u64) -> Op {
    op(kind, call, (from, u64::MAX), Outcome::Unknown("cut".into()))
}

fn list_is_good(ops: Vec<Op>, held: &[u32]) -> bool {
    kind_is_good(Kind::List, ops, held)
}

fn kind_is_good(kind: Kind, ops: Vec<Op>, held: &[u32]) -> bool {
    let held = held.iter().map(|sequence| Ok(token(*sequence))).collect();
    let contents = BTreeMap::from([(key(kind), held)]);
    check_tokens(&BTreeMap::from([(key(kind), ops)]), &contents).is_empty()
}

fn counter_is_good(ops: Vec<Op>) -> bool {
    check_counters(&BTreeMap::from([(key(Kind::Counter), ops)])).is_empty()
}

fn add(value: i64, by: i64, times: (u64, u64)) -> Op {
    let outcome = Outcome::Done(Seen::Number(value));
    op(Kind::Counter, Call::Add { by }, times, outcome)
}

fn count(kind: Kind, value: i64, times: (u64, u64)) -> Op {
    let call = if kind == Kind::Counter {
        Call::Read
    } else {
        Call::Count
    };
    op(kind, call, times, Outcome::Done(Seen::Number(value)))
}

#[test]
fn lists_that_are_right_pass() {
    let two = || {
        vec![
            push(Kind::List, 1, (0, 1), 1),
            push(Kind::List, 2, (2, 3), 2),
        ]
    };
    assert!(list_is_good(two(), &[1, 2]));
    let with = |more: Op| [two(), vec![more]].concat();
    let cut = || lost(Kind::List, Call::Push(token(3)), 4);
    assert!(list_is_good(with(cut()), &[1, 2]));
    assert!(list_is_good(with(cut()), &[1, 2, 3]));
    assert!(list_is_good(with(count(Kind::List, 2, (4, 5))), &[1, 2]));
    assert!(list_is_good(with(count(Kind::List, 1, (2, 5))), &[1, 2]));
}

#[test]
fn lists_that_are_wrong_are_caught() {
    let two = || {
        vec![
            push(Kind::List, 1, (0, 1), 1),
            push(Kind::List, 2, (2, 3), 2),
        ]
    };
    let with = |more: Op| [two(), vec![more]].concat();
    assert!(!list_is_good(two(), &[1]), "lost");
    assert!(!list_is_good(two(), &[1, 2, 2]), "doubled");
    assert!(!list_is_good(two(), &[2, 1]), "reordered");
    assert!(!list_is_good(two(), &[1, 2, 9]), "from nowhere");
    let cut = lost(Kind::List, Call::Push(token(3)), 4);
    assert!(!list_is_good(with(cut.clone()), &[1, 2, 3, 3]), "ran twice");
    assert!(!list_is_good(with(cut), &[3, 1, 2]), "before its call");
    let stale = count(Kind::List, 1, (4, 5));
    assert!(!list_is_good(with(stale), &[1, 2]), "a stale read");
    let refused = Outcome::Refused("TRYAGAIN".into());
    let refused = op(Kind::List, Call::Push(token(3)), (4, 5), refused);
    assert!(!list_is_good(with(refused), &[1, 2, 3]), "refused, but ran");
}

#[test]
fn counters_that_are_right_pass() {
    assert!(counter_is_good(vec![add(1, 1, (0, 1)), add(3, 2, (2, 3))]));
    assert!(counter_is_good(vec![add(2, 1, (0, 9)), add(1, 1, (0, 9))]));
    let cut = lost(Kind::Counter, Call::Add { by: 1 }, 2);
    assert!(counter_is_good(vec![
        add(1, 1, (0, 1)),
        cut,
        add(3, 1, (4, 5))
    ]));
    assert!(counter_is_good(vec![
        add(1, 1, (0, 1)),
        count(Kind::Counter, 1, (2, 3))
    ]));
}

#[test]
fn counters_that_are_wrong_are_caught() {
    assert!(!counter_is_good(vec![add(1, 1, (0, 1)), add(1, 1, (2, 3))]));
    assert!(!counter_is_good(vec![add(1, 1, (0, 1)), add(3, 1, (2, 3))]));
    assert!(!counter_is_good(vec![add(2, 1, (0, 1)), add(1, 1, (2, 3))]));
    assert!(!counter_is_good(vec![add(2, 2, (0, 1)), add(2, 1, (2, 3))]));
    assert!(!counter_is_good(vec![
        add(1, 1, (0, 1)),
        count(Kind::Counter, 0, (2, 3))
    ]));
    let cut = lost(Kind::Counter, Call::Add { by: 1 }, 2);
    assert!(!counter_is_good(vec![
        add(1, 1, (0, 1)),
        cut,
        add(4, 1, (4, 5))
    ]));
}

#[test]
fn queues() {
    let pop = |sequence: Option<u32>, times| {
        let outcome = Outcome::Done(Seen::Value(sequence.map(token)));
        op(Kind::Queue, Call::Pop, times, outcome)
    };
    let pushed = || {
        vec![
            push(Kind::Queue, 1, (0, 1), 1),
            push(Kind::Queue, 2, (2, 3), 1),
        ]
    };
    let with = |more: Vec<Op>| [pushed(), more].concat();
    let good = |ops, held: &[u32]| kind_is_good(Kind::Queue, ops, held);
    assert!(good(
        with(vec![pop(Some(1), (0, 2)), pop(None, (4, 5))]),
        &[2]
    ));
    assert!(good(
        with(vec![pop(Some(1), (0, 2)), pop(Some(2), (4, 5))]),
        &[]
    ));
    let cut = lost(Kind::Queue, Call::Pop, 0);
    assert!(good(with(vec![pop(Some(2), (4, 5)), cut.clone()]), &[]));
    assert!(!good(with(vec![cut]), &[]), "one pop takes one");
    assert!(!good(with(vec![pop(Some(1), (0, 2))]), &[]), "lost");
    assert!(
        !good(with(vec![pop(Some(1), (0, 2))]), &[1, 2]),
        "popped and there"
    );
    let twice = vec![pop(Some(1), (0, 2)), pop(Some(1), (4, 5))];
    assert!(!good(with(twice), &[2]), "popped twice");
}
