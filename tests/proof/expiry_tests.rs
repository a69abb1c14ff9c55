//! The expiry rules themselves. Times are in milliseconds here.

use std::collections::BTreeMap;

use super::super::history::{Call, Key, Kind, Op, Outcome, Seen, Token};
use super::check_expiry;

const KEY: Key = Key {
    kind: Kind::Volatile,
    number: 0,
};

fn token(sequence: u32) -> Token {
    Token {
        client: 1,
        sequence,
    }
}

fn op(call: Call, at_ms: u64, seen: Seen) -> Op {
    Op {
        client: 1,
        key: KEY,
        call,
        invoke_us: at_ms * 1_000,
        return_us: at_ms * 1_000 + 900,
        outcome: Outcome::Done(seen),
    }
}

fn set(sequence: u32, at_ms: u64, ms: u64) -> Op {
    let call = Call::WriteFor {
        token: token(sequence),
        ms,
    };
    op(call, at_ms, Seen::Fine)
}

fn get(sequence: Option<u32>, at_ms: u64) -> Op {
    op(Call::Read, at_ms, Seen::Value(sequence.map(token)))
}

fn renew(ms: u64, at_ms: u64, answer: i64) -> Op {
    op(Call::Renew { ms }, at_ms, Seen::Number(answer))
}

fn persist(at_ms: u64) -> Op {
    op(Call::Persist, at_ms, Seen::Number(1))
}

fn is_good(ops: Vec<Op>) -> bool {
    check_expiry(&BTreeMap::from([(KEY, ops)])).is_empty()
}

#[test]
fn what_servers_do_passes() {
    assert!(is_good(vec![
        get(None, 0),
        set(1, 10, 80),
        get(Some(1), 50),
        get(None, 200)
    ]));
    // Late by less than a second.
    assert!(is_good(vec![set(1, 10, 80), get(Some(1), 900)]));
    assert!(is_good(vec![
        set(1, 10, 80),
        renew(5_000, 50, 1),
        get(Some(1), 4_000)
    ]));
    assert!(is_good(vec![
        set(1, 10, 80),
        renew(5_000, 200, 0),
        get(None, 300)
    ]));
    assert!(is_good(vec![
        set(1, 10, 80),
        persist(50),
        get(Some(1), 90_000)
    ]));
    assert!(is_good(vec![
        set(1, 10, 80),
        set(2, 50, 80),
        get(Some(2), 100),
        get(None, 200)
    ]));
    assert!(is_good(vec![
        set(1, 10, 5_000),
        renew(20, 50, 1),
        get(None, 200)
    ]));
}

#[test]
fn a_key_that_is_lost_early_is_caught() {
    assert!(!is_good(vec![set(1, 10, 500), get(None, 100)]));
    assert!(!is_good(vec![
        set(1, 10, 80),
        renew(5_000, 50, 1),
        get(None, 1_000)
    ]));
    assert!(!is_good(vec![
        set(1, 10, 80),
        persist(50),
        get(None, 9_000)
    ]));
    assert!(!is_good(vec![set(1, 10, 500), renew(900, 50, 0)]));
}

#[test]
fn a_key_that_outlives_its_time_is_caught() {
    assert!(!is_good(vec![set(1, 10, 80), get(Some(1), 1_200)]));
    assert!(!is_good(vec![set(1, 10, 80), renew(50, 3_000, 1)]));
    assert!(!is_good(vec![
        set(1, 10, 9_000),
        renew(20, 50, 1),
        get(Some(1), 2_000)
    ]));
}

#[test]
fn a_stale_value_is_caught() {
    assert!(!is_good(vec![
        set(1, 10, 900),
        set(2, 20, 900),
        get(Some(1), 50)
    ]));
    assert!(!is_good(vec![get(Some(1), 5), set(1, 10, 900)]));
}

#[test]
fn an_unknown_renewal_may_have_run_or_not() {
    let lost = Op {
        return_us: u64::MAX,
        outcome: Outcome::Unknown("cut".into()),
        ..renew(5_000, 50, 1)
    };
    assert!(is_good(vec![set(1, 10, 80), lost.clone(), get(None, 300)]));
    assert!(is_good(vec![
        set(1, 10, 80),
        lost.clone(),
        get(Some(1), 3_000)
    ]));
    assert!(!is_good(vec![set(1, 10, 800), lost, get(None, 300)]));
}
