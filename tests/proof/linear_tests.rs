//! The checker itself: histories known to be good, and known to be bad.

use super::super::history::{Call, Key, Kind, Op, Outcome, Seen, Token};
use super::{CounterModel, RegisterModel, Verdict, check, settle_unknown_writes};

fn op(call: Call, (from, to): (u64, u64), outcome: Outcome) -> Op {
    Op {
        client: 0,
        key: Key {
            kind: Kind::Register,
            number: 0,
        },
        call,
        invoke_us: from,
        return_us: to,
        outcome,
    }
}

fn token(sequence: u32) -> Token {
    Token {
        client: 1,
        sequence,
    }
}

fn write(sequence: u32, times: (u64, u64)) -> Op {
    op(
        Call::Write(token(sequence)),
        times,
        Outcome::Done(Seen::Fine),
    )
}

fn read(sequence: Option<u32>, times: (u64, u64)) -> Op {
    op(
        Call::Read,
        times,
        Outcome::Done(Seen::Value(sequence.map(token))),
    )
}

fn lost_write(sequence: u32, from: u64) -> Op {
    let outcome = Outcome::Unknown("cut".into());
    op(Call::Write(token(sequence)), (from, u64::MAX), outcome)
}

fn add(seen: i64, times: (u64, u64)) -> Op {
    op(
        Call::Add { by: 1 },
        times,
        Outcome::Done(Seen::Number(seen)),
    )
}

fn lost_add(from: u64) -> Op {
    op(
        Call::Add { by: 1 },
        (from, u64::MAX),
        Outcome::Unknown("cut".into()),
    )
}

fn registers(mut ops: Vec<Op>) -> bool {
    settle_unknown_writes(&mut ops);
    match check::<RegisterModel>(&ops) {
        Verdict::Right => true,
        Verdict::Wrong(_) => false,
        Verdict::TooHard => panic!("these are small"),
    }
}

fn counters(ops: &[Op]) -> bool {
    check::<CounterModel>(ops) == Verdict::Right
}

#[test]
fn good_registers_pass() {
    assert!(registers(vec![]));
    assert!(registers(vec![
        read(None, (0, 1)),
        write(1, (2, 3)),
        read(Some(1), (4, 5))
    ]));
    // A read beside a write may see either value.
    assert!(registers(vec![
        write(1, (0, 1)),
        write(2, (2, 9)),
        read(Some(1), (3, 4))
    ]));
    assert!(registers(vec![
        write(1, (0, 1)),
        write(2, (2, 9)),
        read(Some(2), (3, 4))
    ]));
    // Two writes side by side, in either order.
    assert!(registers(vec![
        write(1, (0, 9)),
        write(2, (0, 9)),
        read(Some(1), (10, 11))
    ]));
    assert!(registers(vec![
        write(1, (0, 9)),
        write(2, (0, 9)),
        read(Some(2), (10, 11))
    ]));
    // A lost write that is read late, or never.
    assert!(registers(vec![
        write(1, (0, 1)),
        lost_write(2, 2),
        read(Some(2), (90, 91))
    ]));
    assert!(registers(vec![
        write(1, (0, 1)),
        lost_write(2, 2),
        read(Some(1), (90, 91))
    ]));
    assert!(registers(vec![
        write(1, (0, 1)),
        lost_write(2, 2),
        read(Some(1), (10, 11)),
        read(Some(2), (12, 13)),
    ]));
}

#[test]
fn bad_registers_are_caught() {
    // A stale read.
    assert!(!registers(vec![
        write(1, (0, 1)),
        write(2, (2, 3)),
        read(Some(1), (4, 5))
    ]));
    // A lost write.
    assert!(!registers(vec![write(1, (0, 1)), read(None, (2, 3))]));
    // Back in time: new, then old.
    assert!(!registers(vec![
        write(1, (0, 1)),
        write(2, (2, 20)),
        read(Some(2), (3, 4)),
        read(Some(1), (5, 6)),
    ]));
    // A value from nowhere, and one from the future.
    assert!(!registers(vec![read(Some(7), (0, 1))]));
    assert!(!registers(vec![read(Some(1), (0, 1)), write(1, (2, 3))]));
    // A lost write that came, went, and came again.
    assert!(!registers(vec![
        write(1, (0, 1)),
        lost_write(2, 2),
        read(Some(2), (3, 4)),
        write(3, (5, 6)),
        read(Some(2), (7, 8)),
    ]));
}

#[test]
fn good_counters_pass() {
    assert!(counters(&[add(1, (0, 1)), add(2, (2, 3))]));
    assert!(counters(&[
        add(2, (0, 9)),
        add(1, (0, 9)),
        add(3, (10, 11))
    ]));
    // One that was lost ran or not.
    assert!(counters(&[add(1, (0, 1)), lost_add(2), add(2, (4, 5))]));
    assert!(counters(&[add(1, (0, 1)), lost_add(2), add(3, (4, 5))]));
    // It may run late.
    assert!(counters(&[lost_add(0), add(1, (2, 3)), add(3, (4, 5))]));
}

#[test]
fn bad_counters_are_caught() {
    // Twice the same answer: one was undone.
    assert!(!counters(&[add(1, (0, 1)), add(1, (2, 3))]));
    // A gap: something was added twice.
    assert!(!counters(&[add(1, (0, 1)), add(3, (2, 3))]));
    // In the wrong order of time.
    assert!(!counters(&[add(2, (0, 1)), add(1, (2, 3))]));
    // A lost one runs once at most.
    assert!(!counters(&[add(1, (0, 1)), lost_add(2), add(4, (4, 5))]));
    // And not before its call.
    assert!(!counters(&[add(2, (0, 1)), lost_add(2)]));
}

#[test]
fn random_histories_of_a_real_register_pass_and_a_change_is_caught() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut value, mut ops, mut now) = (None, Vec::new(), 0);
        for sequence in 0..60 {
            // The effect is at `now`; the operation began and ends around it.
            now += rng.u64(10..30);
            let times = (now - rng.u64(..10), now + rng.u64(..9));
            if rng.bool() {
                value = Some(sequence);
                ops.push(write(sequence, times));
            } else {
                ops.push(read(value, times));
            }
        }
        assert!(registers(ops.clone()), "seed {seed}");
        // A read at the end that sees the first of at least two writes.
        let written: Vec<u32> = ops
            .iter()
            .filter_map(|op| match op.call {
                Call::Write(token) => Some(token.sequence),
                _ => None,
            })
            .collect();
        ops.push(read(Some(written[0]), (now + 100, now + 101)));
        assert!(!registers(ops), "seed {seed}");
    }
}
