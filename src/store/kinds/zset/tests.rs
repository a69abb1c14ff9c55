//! A sorted set against a vector, short and in rows.

use super::*;
use crate::store::rows::End;

const LIMITS: Limits = Limits {
    members: 128,
    member_bytes: 64,
};

fn keyspace() -> Keyspace {
    Keyspace::in_memory(1 << 20)
}

fn walked(keyspace: &Keyspace, zset: &Collection, range: &Range<'_>) -> [Vec<Entry>; 2] {
    [Direction::Forward, Direction::Backward].map(|direction| {
        let entries = walk(keyspace, zset, range, direction).expect("a walk");
        entries.collect::<Result<Vec<_>, _>>().expect("entries")
    })
}

fn entry(member: &[u8], score: f64) -> Entry {
    let member = Bytes::copy_from_slice(member);
    Entry { member, score }
}

#[test]
fn random_changes_leave_what_they_leave_of_a_sorted_vector() {
    for (seed, members, cache_bytes) in [
        (1, 8, 1 << 20),
        (2, 100, 1 << 20),
        (3, 900, 1 << 20),
        (4, 900, 64 << 10),
        (5, 900, 4 << 10),
        (6, 900, 0),
    ] {
        let mut keyspace = Keyspace::in_memory(cache_bytes);
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut zset = empty();
        let mut model: Vec<Entry> = Vec::new();
        for step in 0..1500 {
            let number = dice.usize(0..members);
            let mut name = format!("member {number}").into_bytes();
            if number % 7 == 3 && members > 50 {
                name.resize(9000 + number, b'x');
            }
            let old = score(keyspace.rows_read(), &zset, &name).expect("a score");
            let known = model.iter().position(|entry| *entry.member == *name);
            assert_eq!(old, known.map(|at| model[at].score));
            match dice.u8(0..10) {
                0 => {
                    let taken = pop(&mut keyspace, &mut zset, Direction::Backward, 2);
                    let expected: Vec<_> =
                        model.drain(model.len().saturating_sub(2)..).rev().collect();
                    assert_eq!(taken.expect("pops"), expected);
                }
                1 => {
                    let taken = pop(&mut keyspace, &mut zset, Direction::Forward, 1);
                    let expected: Vec<_> = model.drain(..model.len().min(1)).collect();
                    assert_eq!(taken.expect("pops"), expected);
                }
                2 => {
                    if let Some(at) = known {
                        remove(keyspace.rows(), &mut zset, &[model.remove(at)]);
                    }
                }
                _ => {
                    let score = f64::from(dice.i32(-20..20)) / 4.0;
                    put(&mut keyspace, &mut zset, &name, score, old, LIMITS).expect("puts");
                    known.map(|at| model.remove(at));
                    model.push(entry(&name, score));
                    sort(&mut model);
                }
            }
            if len(&zset) == 0 {
                zset = empty();
            }
            let (from, to) = (dice.u64(0..900), dice.u64(0..900));
            let (from, to) = (from.min(to), from.max(to).min(model.len() as u64));
            let ranks = from.min(to)..to;
            let expected = model[ranks.start as usize..ranks.end as usize].to_vec();
            let [forward, backward] = walked(&keyspace, &zset, &Range::Rank(ranks));
            assert_eq!(forward, expected, "seed {seed}, step {step}");
            assert!(
                backward.iter().eq(expected.iter().rev()),
                "seed {seed}, step {step}"
            );
            let range = ScoreRange {
                min: -2.0,
                excludes_min: dice.bool(),
                max: 1.5,
                excludes_max: dice.bool(),
            };
            let [forward, backward] = walked(&keyspace, &zset, &Range::Score(range));
            assert!(backward.iter().eq(forward.iter().rev()));
            let is_in = |entry: &&Entry| {
                let is_low = entry.score > -2.0 || (entry.score == -2.0 && !range.excludes_min);
                is_low && (entry.score < 1.5 || (entry.score == 1.5 && !range.excludes_max))
            };
            assert!(
                forward.iter().eq(model.iter().filter(is_in)),
                "seed {seed}, step {step}"
            );
            if let Some(at) = (!model.is_empty()).then(|| dice.usize(0..model.len())) {
                let found = rank(&keyspace, &zset, &model[at].member).expect("a rank");
                assert_eq!(found, Some(at as u64));
            }
        }
    }
}

#[test]
fn names_of_one_score_are_a_range_in_rows_as_in_the_meta_row() {
    for count in [100, 2000] {
        let mut keyspace = keyspace();
        let mut builder = Builder::default();
        for number in 0..count {
            assert!(
                builder
                    .push(&mut keyspace, format!("{number:05}").as_bytes(), 0.0)
                    .expect("a push")
            );
        }
        assert!(!builder.push(&mut keyspace, b"00007", 1.0).expect("a push"));
        let zset = builder.finish(&mut keyspace, LIMITS);
        assert_eq!((len(&zset), zset.is_compact), (count, count <= 128));
        let range = Range::Lex(LexRange {
            min: LexBound::Excluded(b"00010"),
            max: LexBound::Included(b"00012"),
            skipped: 0,
        });
        let [forward, backward] = walked(&keyspace, &zset, &range);
        assert_eq!(forward, [entry(b"00011", 0.0), entry(b"00012", 0.0)]);
        assert_eq!(backward, [entry(b"00012", 0.0), entry(b"00011", 0.0)]);
    }
}

#[test]
fn minus_zero_is_kept_where_redis_keeps_it() {
    let mut keyspace = keyspace();
    for (count, is_kept) in [(10, false), (100, false), (600, true)] {
        let mut builder = Builder::default();
        for number in 0..count {
            let member = format!("{number:060}");
            builder.push_new(&mut keyspace, member.as_bytes(), -0.0);
        }
        let zset = builder.finish(&mut keyspace, LIMITS);
        let entries = walk_all(keyspace.rows_read(), &zset).expect("a walk");
        for entry in entries {
            let entry = entry.expect("an entry");
            assert_eq!(entry.score.is_sign_negative(), is_kept, "{count}");
            let found = score(keyspace.rows_read(), &zset, &entry.member).expect("a score");
            assert_eq!(found.map(f64::to_bits), Some(entry.score.to_bits()));
        }
    }
}

#[test]
fn a_popped_end_is_where_the_next_walk_begins() {
    let mut keyspace = keyspace();
    let mut builder = Builder::default();
    for number in 0..1000_u32 {
        builder.push_new(&mut keyspace, &number.to_be_bytes(), f64::from(number));
    }
    let mut zset = builder.finish(&mut keyspace, LIMITS);
    let Stored::Rows { id, .. } = zset.stored else {
        panic!("in rows");
    };
    for _ in 0..10 {
        pop(&mut keyspace, &mut zset, Direction::Forward, 1).expect("pops");
        pop(&mut keyspace, &mut zset, Direction::Backward, 1).expect("pops");
    }
    let named = |number: u32| row::score(id, f64::from(number), &number.to_be_bytes());
    let bound = |end| keyspace.rows_read().bound(&row::sub(id, kind::SCORE), end);
    assert_eq!(bound(End::Front), Some(named(10)));
    assert_eq!(bound(End::Back), Some(row::behind(&named(989))));
    put(&mut keyspace, &mut zset, &[0, 0, 0, 3], 3.0, None, LIMITS).expect("puts");
    let taken = pop(&mut keyspace, &mut zset, Direction::Forward, 2).expect("pops");
    assert_eq!(
        taken.iter().map(|entry| entry.score).collect::<Vec<_>>(),
        [3.0, 10.0]
    );
}
