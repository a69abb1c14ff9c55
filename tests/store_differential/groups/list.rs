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
        Recipe::new("BLPOP", 3, |d| {
            let keys = d.keys(List, 2);
            let blocked = line("@BLOCK")
                .word(d.pick(&["BLPOP", "BRPOP"]))
                .words(&keys);
            let blocked = blocked.word(patience(d));
            woken(d, blocked, &keys)
        }),
        Recipe::new("BLMOVE", 2, |d| {
            let (from, to) = (d.key(List), d.key(List));
            let blocked = line("@BLOCK BLMOVE").word(&from).word(&to);
            let blocked = blocked.word(end(d)).word(end(d)).word(patience(d));
            woken(d, blocked, &[from, to])
        }),
        Recipe::new("BRPOPLPUSH", 1, |d| {
            let (from, to) = (d.key(List), d.key(List));
            let blocked = line("@BLOCK BRPOPLPUSH")
                .word(&from)
                .word(&to)
                .word(patience(d));
            woken(d, blocked, &[from, to])
        }),
        Recipe::new("BLMPOP", 1, |d| {
            let keys = d.keys(List, 2);
            let blocked = line("@BLOCK BLMPOP")
                .word(patience(d))
                .word(keys.len().to_string());
            let blocked = blocked.words(&keys).word(end(d));
            let blocked = with_count(d, blocked);
            woken(d, blocked, &keys)
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

/// So long that it does not end before somebody wakes the client.
pub fn patience(d: &mut Dice) -> &'static str {
    d.pick(&["0", "100", "77.5"])
}

/// What the first client does while the second one waits for `keys`.
fn woken(d: &mut Dice, blocked: Line, keys: &[Vec<u8>]) -> Line {
    let mut made = blocked.by_second();
    for _ in 0..d.between(0, 3) {
        let key = &keys[usize::try_from(d.between(0, keys.len() as i64 - 1)).unwrap_or(0)];
        made = made.then(match d.between(0, 11) {
            0..4 => line("RPUSH").word(key).words(elements(d)),
            4..6 => line("LPUSH").word(key).words(elements(d)),
            6 => line("DEL").word(key),
            7 => line("RENAME").word(d.key(List)).word(key),
            8 => line("SET").word(key).word(d.value()),
            9 => line("LMOVE")
                .word(d.key(List))
                .word(key)
                .words(["LEFT", "RIGHT"]),
            10 => line("SORT")
                .word(d.key(List))
                .words(["ALPHA", "STORE"])
                .word(key),
            _ => {
                let pushed = line("RPUSH").word(key).words(elements(d));
                let changed = line(d.pick(&["LPOP", "DEL", "LLEN"])).word(key);
                line("MULTI").then(pushed).then(changed).then(line("EXEC"))
            }
        });
    }
    made.then(line("@REPLY list").word(&keys[0]).by_second())
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
