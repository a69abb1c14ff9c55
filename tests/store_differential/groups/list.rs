//! Lists, and the blocking commands where they do not block for long.

use super::{Group, Recipe};
use crate::dice::Dice;
use crate::dice::Kind::List;
use crate::line::{Line, line};

pub const GROUP: Group = Group {
    name: "list",
    recipes: &[
        Recipe::new("RPUSH", 20, |d| {
            line("RPUSH").word(d.key(List)).words(elements(d))
        }),
        Recipe::new("LPUSH", 20, |d| {
            line("LPUSH").word(d.key(List)).words(elements(d))
        }),
        Recipe::new("RPUSHX", 4, |d| {
            line("RPUSHX").word(d.key(List)).words(elements(d))
        }),
        Recipe::new("LPUSHX", 4, |d| {
            line("LPUSHX").word(d.key(List)).words(elements(d))
        }),
        Recipe::new("LPOP", 4, |d| line("LPOP").word(d.key(List))),
        Recipe::new("LPOP", 4, |d| {
            line("LPOP").word(d.key(List)).word(d.count())
        }),
        Recipe::new("RPOP", 4, |d| line("RPOP").word(d.key(List))),
        Recipe::new("RPOP", 4, |d| {
            line("RPOP").word(d.key(List)).word(d.count())
        }),
        Recipe::new("LLEN", 6, |d| line("LLEN").word(d.key(List))),
        Recipe::new("LRANGE", 8, |d| {
            line("LRANGE")
                .word(d.key(List))
                .word(d.index())
                .word(d.index())
        }),
        Recipe::new("LRANGE", 4, |d| {
            line("LRANGE").word(d.key(List)).words(["0", "-1"])
        }),
        Recipe::new("LINDEX", 8, |d| {
            line("LINDEX").word(d.key(List)).word(d.index())
        }),
        Recipe::new("LSET", 8, |d| {
            line("LSET")
                .word(d.key(List))
                .word(d.index())
                .word(d.value())
        }),
        Recipe::new("LINSERT", 10, |d| {
            let place = d.pick(&["BEFORE", "AFTER", "before", "BEFORE", "AFTER", "BETWEEN"]);
            line("LINSERT")
                .word(d.key(List))
                .word(place)
                .word(d.value())
                .word(d.value())
        }),
        Recipe::new("LREM", 8, |d| {
            line("LREM")
                .word(d.key(List))
                .word(d.index())
                .word(d.value())
        }),
        Recipe::new("LTRIM", 5, |d| {
            line("LTRIM")
                .word(d.key(List))
                .word(d.index())
                .word(d.index())
        }),
        Recipe::new("LPOS", 10, lpos),
        Recipe::new("RPOPLPUSH", 5, |d| {
            line("RPOPLPUSH").word(d.key(List)).word(d.key(List))
        }),
        Recipe::new("LMOVE", 8, |d| {
            let made = line("LMOVE").word(d.key(List)).word(d.key(List));
            made.word(end(d)).word(end(d))
        }),
        Recipe::new("LMPOP", 8, |d| {
            let keys = d.keys(List, 4);
            let made = line("LMPOP")
                .word(numkeys(d, keys.len()))
                .words(keys)
                .word(end(d));
            with_count(d, made)
        }),
        Recipe::new("BLPOP", 3, |d| {
            let keys = d.keys(List, 4);
            line("BLPOP").words(keys).word(timeout(d))
        }),
        Recipe::new("BRPOP", 3, |d| {
            let keys = d.keys(List, 4);
            line("BRPOP").words(keys).word(timeout(d))
        }),
        Recipe::new("BRPOPLPUSH", 3, |d| {
            line("BRPOPLPUSH")
                .word(d.key(List))
                .word(d.key(List))
                .word(timeout(d))
        }),
        Recipe::new("BLMOVE", 3, |d| {
            let made = line("BLMOVE").word(d.key(List)).word(d.key(List));
            made.word(end(d)).word(end(d)).word(timeout(d))
        }),
        Recipe::new("BLMPOP", 3, |d| {
            let keys = d.keys(List, 4);
            let made = line("BLMPOP").word(timeout(d)).word(numkeys(d, keys.len()));
            let made = made.words(keys).word(end(d));
            with_count(d, made)
        }),
    ],
};

fn elements(d: &mut Dice) -> Vec<Vec<u8>> {
    match d.many() {
        Some(count) => (0..count).map(|_| d.small_integer()).collect(),
        None => (0..d.between(1, 5)).map(|_| d.value()).collect(),
    }
}

fn end(d: &mut Dice) -> &'static str {
    if d.one_in(30) {
        return d.pick(&["UP", "", "MIN"]);
    }
    d.pick(&["LEFT", "RIGHT", "left", "RIGHT"])
}

/// The number of keys, rarely a wrong one.
pub fn numkeys(d: &mut Dice, count: usize) -> Vec<u8> {
    if d.one_in(25) {
        return d
            .pick(&["0", "-1", "abc", "", "2", "1", "99", "9223372036854775807"])
            .into();
    }
    count.to_string().into()
}

/// COUNT of the commands that pop several.
pub fn with_count(d: &mut Dice, made: Line) -> Line {
    match d.between(0, 9) {
        0..4 => made.word("COUNT").word(d.count()),
        4 => made.word("COUNT"),
        5 if d.one_in(3) => made.words(["COUNT", "1", "COUNT", "2"]),
        _ => made,
    }
}

/// So short that nobody waits for it; 0 would wait for ever.
pub fn timeout(d: &mut Dice) -> &'static str {
    d.pick(&[
        "0.001",
        "0.002",
        "0.0015",
        "1e-3",
        "0.003",
        "-1",
        "-0.5",
        "abc",
        "",
        "inf",
        "nan",
        "1e300",
        "9223372036854775807",
    ])
}

fn lpos(d: &mut Dice) -> Line {
    let (rank, count, length) = (d.index(), d.count(), d.count());
    let options = d.some_of(
        3,
        vec![
            vec![b"RANK".into(), rank],
            vec![b"COUNT".into(), count],
            vec![b"MAXLEN".into(), length],
        ],
    );
    line("LPOS")
        .word(d.key(List))
        .word(d.value())
        .words(options)
}
