//! Strings and counters.

use super::{Group, Recipe};
use crate::dice::Dice;
use crate::dice::Kind::{Number, Text};
use crate::line::{Line, line};

pub const GROUP: Group = Group {
    name: "string",
    recipes: &[
        Recipe::new("SET", 30, |d| line("SET").word(d.key(Text)).word(d.value())),
        Recipe::new("SET", 6, |d| {
            line("SET").word(d.key(Number)).word(d.integer())
        }),
        Recipe::new("SET", 3, |d| {
            line("SET").word(d.key(Number)).word(d.float())
        }),
        Recipe::new("SET", 14, set_with_options),
        Recipe::new("SETNX", 3, |d| {
            line("SETNX").word(d.key(Text)).word(d.value())
        }),
        Recipe::new("SETEX", 3, |d| {
            line("SETEX")
                .word(d.key(Text))
                .word(d.seconds())
                .word(d.value())
        }),
        Recipe::new("PSETEX", 3, |d| {
            line("PSETEX")
                .word(d.key(Text))
                .word(d.milliseconds())
                .word(d.value())
        }),
        Recipe::new("GET", 14, |d| line("GET").word(text_key(d))),
        Recipe::new("GETSET", 4, |d| {
            line("GETSET").word(text_key(d)).word(d.value())
        }),
        Recipe::new("GETDEL", 3, |d| line("GETDEL").word(text_key(d))),
        Recipe::new("GETEX", 8, getex),
        Recipe::new("STRLEN", 5, |d| line("STRLEN").word(text_key(d))),
        Recipe::new("APPEND", 8, |d| {
            line("APPEND").word(text_key(d)).word(d.value())
        }),
        Recipe::new("GETRANGE", 8, |d| {
            line("GETRANGE")
                .word(text_key(d))
                .word(d.index())
                .word(d.index())
        }),
        Recipe::new("SUBSTR", 3, |d| {
            line("SUBSTR")
                .word(text_key(d))
                .word(d.index())
                .word(d.index())
        }),
        Recipe::new("SETRANGE", 8, |d| {
            let key = text_key(d);
            line("SETRANGE").word(key).word(offset(d)).word(d.value())
        }),
        Recipe::new("INCR", 6, |d| line("INCR").word(d.key(Number))),
        Recipe::new("INCR", 1, |d| line("INCR").word(d.key(Text))),
        Recipe::new("DECR", 6, |d| line("DECR").word(d.key(Number))),
        Recipe::new("INCRBY", 8, |d| {
            line("INCRBY").word(d.key(Number)).word(d.integer())
        }),
        Recipe::new("DECRBY", 8, |d| {
            line("DECRBY").word(d.key(Number)).word(d.integer())
        }),
        Recipe::new("INCRBYFLOAT", 8, |d| {
            line("INCRBYFLOAT").word(d.key(Number)).word(d.float())
        }),
        Recipe::new("MGET", 6, |d| {
            let keys: Vec<_> = (0..d.between(1, 6)).map(|_| text_key(d)).collect();
            line("MGET").words(keys)
        }),
        Recipe::new("MSET", 5, |d| line("MSET").words(pairs(d))),
        Recipe::new("MSETNX", 5, |d| line("MSETNX").words(pairs(d))),
        Recipe::new("LCS", 5, lcs),
    ],
};

fn text_key(d: &mut Dice) -> Vec<u8> {
    let kind = if d.one_in(4) { Number } else { Text };
    d.key(kind)
}

fn offset(d: &mut Dice) -> Vec<u8> {
    match d.between(0, 20) {
        0 => d
            .pick(&[
                "536870911",
                "536870912",
                "-1",
                "9223372036854775807",
                "abc",
                "",
            ])
            .into(),
        1..4 => d.between(0, 900).to_string().into(),
        _ => d.between(0, 30).to_string().into(),
    }
}

fn pairs(d: &mut Dice) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    for _ in 0..d.between(1, 4) {
        words.push(text_key(d));
        words.push(d.value());
    }
    if d.one_in(25) {
        words.pop();
    }
    words
}

fn expiry(d: &mut Dice) -> Vec<Vec<u8>> {
    match d.between(0, 4) {
        0 => vec![b"EX".into(), d.seconds()],
        1 => vec![b"PX".into(), d.milliseconds()],
        2 => vec![b"EXAT".into(), d.unix_seconds()],
        3 => vec![b"PXAT".into(), d.unix_milliseconds()],
        // In the past.
        _ => vec![b"PXAT".into(), b"1".into()],
    }
}

/// A key that is set with a time in the past goes when it is looked at.
fn set_with_options(d: &mut Dice) -> Line {
    let key = text_key(d);
    let first = expiry(d);
    let last = expiry(d);
    let mut options = vec![
        first,
        vec![b"NX".into()],
        vec![b"XX".into()],
        vec![b"GET".into()],
        vec![b"KEEPTTL".into()],
    ];
    if d.one_in(6) {
        options.push(last);
        options.push(vec![b"EX".into()]);
    }
    let options = d.some_of(4, options);
    line("SET")
        .word(&key)
        .word(d.value())
        .words(options)
        .then(line("EXISTS").word(&key))
}

fn getex(d: &mut Dice) -> Line {
    let key = text_key(d);
    let first = expiry(d);
    let options = d.some_of(2, vec![first, vec![b"PERSIST".into()]]);
    line("GETEX")
        .word(&key)
        .words(options)
        .then(line("EXISTS").word(&key))
}

fn lcs(d: &mut Dice) -> Line {
    let (one, other) = (text_key(d), text_key(d));
    let least = d.integer();
    let options = d.some_of(
        3,
        vec![
            vec![b"LEN".into()],
            vec![b"IDX".into()],
            vec![b"MINMATCHLEN".into(), least],
            vec![b"WITHMATCHLEN".into()],
        ],
    );
    line("LCS").word(one).word(other).words(options)
}
