//! SORT and its options.

use super::{Group, Recipe};
use crate::dice::Dice;
use crate::dice::Kind::{Hash, Ints, List, Number, Set, Text, Zset};
use crate::line::{Line, line};

pub const GROUP: Group = Group {
    name: "sort",
    recipes: &[
        Recipe::new("SORT", 12, |d| within_range().then(sorted(d, line("SORT")))),
        Recipe::new("SORT_RO", 6, |d| {
            within_range().then(sorted(d, line("SORT_RO")))
        }),
        Recipe::new("SORT", 6, |d| within_range().then(stored(d))),
        // What is sorted, and what it is sorted by.
        Recipe::new("SORT", 6, |d| {
            let numbers: Vec<_> = (0..d.between(1, 12)).map(|_| d.small_integer()).collect();
            line("RPUSH").word(d.key(List)).words(numbers)
        }),
        Recipe::new("SORT", 6, |d| {
            line("SADD").word(d.key(Ints)).words(d.members(Ints))
        }),
        Recipe::new("SORT", 4, |d| {
            line("SADD").word(d.key(Set)).words(d.members(Set))
        }),
        Recipe::new("SORT", 4, |d| {
            let member = d.member();
            line("ZADD")
                .word(d.key(Zset))
                .word(d.small_integer())
                .word(member)
        }),
        Recipe::new("SORT", 6, |d| {
            let name = format!("weight:{}", d.between(-5, 20));
            line("SET").word(name).word(weight(d))
        }),
        Recipe::new("SORT", 4, |d| {
            let name = format!("object:{}", d.between(-5, 20));
            line("HSET").word(name).word("name").word(d.value())
        }),
        Recipe::new("SORT", 2, |d| {
            line("LTRIM").word(d.key(List)).words(["0", "5"])
        }),
    ],
};

/// Sorting by numbers, redis-server does not reset `errno`: after a float that was out of
/// range, of any command, it fails. A score that is in range resets it; this adds none.
fn within_range() -> Line {
    line("ZADD none:0 XX 1 m")
}

/// A float that is not out of range.
fn weight(d: &mut Dice) -> Vec<u8> {
    let made = d.float();
    match made.windows(2).any(|pair| pair == b"e4" || pair == b"e-") {
        true => d.small_integer(),
        false => made,
    }
}

fn source(d: &mut Dice) -> Vec<u8> {
    match d.between(0, 9) {
        0..4 => d.key(List),
        4..7 => d.key(Ints),
        7 => d.key(Set),
        8 => d.key(Zset),
        _ => match d.between(0, 2) {
            0 => d.key(Text),
            1 => d.key(Hash),
            _ => d.key(Number),
        },
    }
}

fn pattern(d: &mut Dice) -> &'static str {
    d.pick(&[
        "weight:*",
        "object:*->name",
        "#",
        "nosort",
        "*",
        "weight:*->",
        "text:*",
        "->*",
        "",
    ])
}

/// Any options, in any order, but for STORE.
fn sorted(d: &mut Dice, made: Line) -> Line {
    let by = vec![b"BY".to_vec(), pattern(d).into()];
    let (from, count) = (d.index(), d.index());
    let limit = vec![b"LIMIT".to_vec(), from, count];
    let gets = [pattern(d), pattern(d)];
    let mut options = vec![
        by,
        limit,
        vec![b"ALPHA".into()],
        vec![b"DESC".into()],
        vec![b"ASC".into()],
    ];
    options.extend(gets.map(|get| vec![b"GET".to_vec(), get.into()]));
    let options = d.some_of(3, options);
    made.word(source(d)).words(options)
}

/// With STORE, and a full order: what is stored has to be the same on both sides.
fn stored(d: &mut Dice) -> Line {
    let order = match d.between(0, 3) {
        0 => vec![vec![b"ALPHA".to_vec()]],
        1 => vec![vec![b"BY".to_vec(), b"nosort".to_vec()]],
        2 => vec![vec![b"BY".to_vec(), b"weight:*".to_vec()]],
        _ => vec![],
    };
    let (from, count) = (d.index(), d.index());
    let get = pattern(d).into();
    let mut options = order;
    for (odds, option) in [
        (4, vec![b"LIMIT".to_vec(), from, count]),
        (4, vec![b"DESC".to_vec()]),
        (4, vec![b"GET".to_vec(), get]),
    ] {
        if d.one_in(odds) {
            options.push(option);
        }
    }
    let options = d.some_of(1, options);
    let to = match d.between(0, 4) {
        0 => d.any_key(),
        _ => d.key(List),
    };
    line("SORT")
        .word(source(d))
        .words(options)
        .word("STORE")
        .word(to)
}
