//! Hashes.

use super::{Group, Recipe};
use crate::dice::Dice;
use crate::dice::Kind::Hash;
use crate::line::{Line, line};

pub const GROUP: Group = Group {
    name: "hash",
    recipes: &[
        Recipe::new("HSET", 30, |d| {
            line("HSET").word(d.key(Hash)).words(pairs(d))
        }),
        Recipe::new("HMSET", 5, |d| {
            line("HMSET").word(d.key(Hash)).words(pairs(d))
        }),
        Recipe::new("HSETNX", 6, |d| {
            line("HSETNX")
                .word(d.key(Hash))
                .word(d.member())
                .word(d.value())
        }),
        Recipe::new("HGET", 10, |d| {
            line("HGET").word(d.key(Hash)).word(d.member())
        }),
        Recipe::new("HMGET", 8, |d| {
            let fields: Vec<_> = (0..d.between(1, 6)).map(|_| d.member()).collect();
            line("HMGET").word(d.key(Hash)).words(fields)
        }),
        Recipe::new("HDEL", 12, |d| {
            let fields: Vec<_> = (0..d.between(1, 6)).map(|_| d.member()).collect();
            line("HDEL").word(d.key(Hash)).words(fields)
        }),
        Recipe::new("HDEL", 1, |d| {
            let fields = (0..d.between(20, 600)).map(|n| format!("m{n}"));
            line("HDEL")
                .word(d.key(Hash))
                .words(fields.collect::<Vec<_>>())
        }),
        Recipe::new("HEXISTS", 5, |d| {
            line("HEXISTS").word(d.key(Hash)).word(d.member())
        }),
        Recipe::new("HLEN", 6, |d| line("HLEN").word(d.key(Hash))),
        Recipe::new("HSTRLEN", 5, |d| {
            line("HSTRLEN").word(d.key(Hash)).word(d.member())
        }),
        Recipe::new("HGETALL", 8, |d| line("HGETALL").word(d.key(Hash))),
        Recipe::new("HKEYS", 5, |d| line("HKEYS").word(d.key(Hash))),
        Recipe::new("HVALS", 5, |d| line("HVALS").word(d.key(Hash))),
        Recipe::new("HINCRBY", 10, |d| {
            line("HINCRBY")
                .word(d.key(Hash))
                .word(d.member())
                .word(d.integer())
        }),
        Recipe::new("HINCRBYFLOAT", 10, |d| {
            line("HINCRBYFLOAT")
                .word(d.key(Hash))
                .word(d.member())
                .word(d.float())
        }),
        Recipe::new("HRANDFIELD", 3, |d| line("HRANDFIELD").word(d.key(Hash))),
        Recipe::new("HRANDFIELD", 5, |d| {
            let made = line("HRANDFIELD").word(d.key(Hash)).word(drawn_count(d));
            match d.between(0, 9) {
                0..4 => made.word("WITHVALUES"),
                4 => made.word("WITHSCORES"),
                _ => made,
            }
        }),
        Recipe::new("HSCAN", 5, scan),
        Recipe::new("HLEN", 4, |d| {
            let key = d.key(Hash);
            line("OBJECT ENCODING")
                .word(&key)
                .then(line("HLEN").word(key))
        }),
    ],
};

/// How many random elements: never so many negative ones that the reply is huge.
pub fn drawn_count(d: &mut Dice) -> Vec<u8> {
    match d.between(0, 15) {
        0 => d
            .pick(&[
                "abc",
                "",
                "9223372036854775807",
                "9223372036854775808",
                "1.5",
            ])
            .into(),
        1 => "0".into(),
        2 => d.between(-300, 700).to_string().into(),
        _ => d.between(-8, 12).to_string().into(),
    }
}

/// Options of SCAN and its likes.
pub fn scan_options(d: &mut Dice) -> Vec<Vec<u8>> {
    let pattern = d.pattern().into();
    let count = d
        .pick(&["1", "2", "10", "100", "1000", "0", "-1", "abc", ""])
        .into();
    d.some_of(
        3,
        vec![vec![b"MATCH".into(), pattern], vec![b"COUNT".into(), count]],
    )
}

/// A cursor: mostly that of a new round.
pub fn cursor(d: &mut Dice) -> &'static str {
    if d.one_in(12) {
        return d.pick(&["abc", "", "-1", "18446744073709551616", "1.5", " 0", "0x0"]);
    }
    "0"
}

fn scan(d: &mut Dice) -> Line {
    let options = scan_options(d);
    line("HSCAN")
        .word(d.key(Hash))
        .word(cursor(d))
        .words(options)
}

fn pairs(d: &mut Dice) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    if let Some(count) = d.many() {
        let from = d.between(0, 400);
        for n in (from..).take(count) {
            words.extend([format!("m{n}").into_bytes(), d.small_integer()]);
        }
        return words;
    }
    for _ in 0..d.between(1, 4) {
        words.extend([d.member(), d.value()]);
    }
    if d.one_in(30) {
        words.pop();
    }
    words
}
