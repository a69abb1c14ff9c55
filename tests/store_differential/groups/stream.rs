//! Streams and their consumer groups. Ids are given, or follow one that lies far ahead:
//! those that come of the clock are another on each side.

use super::list::numkeys;
use super::{Group, Recipe};
use crate::dice::Dice;
use crate::dice::Kind::Stream;
use crate::line::{Line, line};

pub const GROUP: Group = Group {
    name: "stream",
    recipes: &[
        Recipe::new("XADD", 40, |d| {
            let made = line("XADD").word(key(d));
            let made = added_to(d, made).word(new_id(d));
            fields(d, made)
        }),
        Recipe::new("XADD", 4, far_ahead),
        Recipe::new("XADD", 3, many),
        Recipe::new("XLEN", 4, |d| line("XLEN").word(key(d))),
        Recipe::new("XDEL", 8, |d| {
            let ids: Vec<_> = (0..d.between(1, 4)).map(|_| id(d)).collect();
            line("XDEL").word(key(d)).words(ids)
        }),
        Recipe::new("XRANGE", 10, |d| {
            let made = line("XRANGE").word(key(d)).word(from(d)).word(to(d));
            with_count(d, made)
        }),
        Recipe::new("XREVRANGE", 8, |d| {
            let made = line("XREVRANGE").word(key(d)).word(to(d)).word(from(d));
            with_count(d, made)
        }),
        Recipe::new("XTRIM", 6, |d| {
            let made = line("XTRIM").word(key(d));
            trim(d, made)
        }),
        Recipe::new("XREAD", 8, read),
        Recipe::new("XREADGROUP", 16, read_group),
        Recipe::new("XREAD", 2, |d| {
            let key = key(d);
            // Nothing comes behind the largest of all ids: the last one has to be another.
            let begun = line("DEL").word(&key).by_second();
            let first = line("XADD").word(&key).word(format!("{}-0", d.next_ms()));
            let begun = begun.then(first.words(["n", "1"]).by_second());
            let blocked = line("@BLOCK XREAD BLOCK")
                .word(block_ms(d))
                .word("STREAMS")
                .word(&key);
            begun.then(woken(d, blocked.word("$"), &key))
        }),
        Recipe::new("XREAD", 1, |d| {
            let key = key(d);
            let blocked = line("@BLOCK XREAD BLOCK")
                .word(block_ms(d))
                .word("STREAMS")
                .word(&key);
            let blocked = blocked.word(d.pick(&["5", "0"]));
            woken(d, blocked, &key)
        }),
        Recipe::new("XREADGROUP", 3, |d| {
            let key = key(d);
            let blocked = line("@BLOCK XREADGROUP GROUP")
                .word(group(d))
                .word(consumer(d));
            let blocked = blocked
                .word("BLOCK")
                .word(block_ms(d))
                .word("STREAMS")
                .word(&key);
            woken(d, blocked.word(">"), &key)
        }),
        Recipe::new("XACK", 8, |d| {
            let ids: Vec<_> = (0..d.between(1, 4)).map(|_| id(d)).collect();
            line("XACK").word(key(d)).word(group(d)).words(ids)
        }),
        Recipe::new("XPENDING", 5, |d| {
            line("XPENDING").word(key(d)).word(group(d))
        }),
        Recipe::new("XPENDING", 8, |d| {
            let mut made = line("XPENDING").word(key(d)).word(group(d));
            if d.one_in(3) {
                made = made.word("IDLE").word(idle(d));
            }
            let made = made.word(from(d)).word(to(d)).word(d.count());
            if d.one_in(3) {
                made.word(consumer(d))
            } else {
                made
            }
        }),
        Recipe::new("XCLAIM", 10, claim),
        Recipe::new("XAUTOCLAIM", 8, |d| {
            let made = line("XAUTOCLAIM").word(key(d)).word(group(d));
            let made = made.word(consumer(d)).word(idle(d)).word(from(d));
            let count = d.count();
            let options = vec![vec![b"COUNT".to_vec(), count], vec![b"JUSTID".to_vec()]];
            let options = d.some_of(3, options);
            made.words(options)
        }),
        Recipe::new("XGROUP|CREATE", 8, |d| {
            let made = line("XGROUP CREATE").word(key(d)).word(group(d)).word("0");
            made.word("MKSTREAM")
        }),
        Recipe::new("XGROUP|CREATE", 8, |d| {
            let made = line("XGROUP CREATE")
                .word(key(d))
                .word(group(d))
                .word(last_id(d));
            let read = d.integer();
            let options = vec![
                vec![b"MKSTREAM".to_vec()],
                vec![b"ENTRIESREAD".to_vec(), read],
            ];
            let options = d.some_of(3, options);
            made.words(options)
        }),
        Recipe::new("XGROUP|SETID", 4, |d| {
            let made = line("XGROUP SETID")
                .word(key(d))
                .word(group(d))
                .word(last_id(d));
            if d.one_in(3) {
                made.word("ENTRIESREAD").word(d.integer())
            } else {
                made
            }
        }),
        Recipe::new("XGROUP|DESTROY", 2, |d| {
            line("XGROUP DESTROY").word(key(d)).word(group(d))
        }),
        Recipe::new("XGROUP|CREATECONSUMER", 4, |d| {
            line("XGROUP CREATECONSUMER")
                .word(key(d))
                .word(group(d))
                .word(consumer(d))
        }),
        Recipe::new("XGROUP|DELCONSUMER", 3, |d| {
            line("XGROUP DELCONSUMER")
                .word(key(d))
                .word(group(d))
                .word(consumer(d))
        }),
        Recipe::new("XINFO|STREAM", 6, |d| line("XINFO STREAM").word(key(d))),
        Recipe::new("XINFO|STREAM", 8, |d| {
            let made = line("XINFO STREAM").word(key(d)).word("FULL");
            if d.one_in(2) {
                made.word("COUNT").word(d.count())
            } else {
                made
            }
        }),
        Recipe::new("XINFO|GROUPS", 6, |d| line("XINFO GROUPS").word(key(d))),
        Recipe::new("XINFO|CONSUMERS", 6, |d| {
            line("XINFO CONSUMERS").word(key(d)).word(group(d))
        }),
        Recipe::new("XGROUP|SETID", 2, |d| {
            let id = d.pick(&["5-0", "$"]);
            of_group(d, "XGROUP SETID", &[id])
        }),
        Recipe::new("XGROUP|CREATECONSUMER", 2, |d| {
            of_group(d, "XGROUP CREATECONSUMER", &["bob"])
        }),
        Recipe::new("XGROUP|DELCONSUMER", 2, |d| {
            of_group(d, "XGROUP DELCONSUMER", &["alice"])
        }),
        Recipe::new("XINFO|CONSUMERS", 2, |d| {
            of_group(d, "XINFO CONSUMERS", &[])
        }),
        Recipe::new("XAUTOCLAIM", 2, |d| {
            of_group(d, "XAUTOCLAIM", &["bob", "0", "0"])
        }),
        Recipe::new("XCLAIM", 2, |d| {
            of_group(d, "XCLAIM", &["bob", "0", "5", "7", "9"])
        }),
        Recipe::new("XSETID", 2, |d| {
            line("XSETID").word(key(d)).number(d.next_ms())
        }),
        Recipe::new("XSETID", 1, |d| {
            let made = line("XSETID").word(key(d)).number(d.next_ms());
            let deleted = d.pick(&["0-0", "0-1", "1-1"]);
            made.words(["ENTRIESADDED", "100000", "MAXDELETEDID", deleted])
        }),
        Recipe::new("XSETID", 3, |d| {
            let made = line("XSETID").word(key(d)).word(id(d));
            if d.one_in(3) {
                return made
                    .word("ENTRIESADDED")
                    .word(d.integer())
                    .word("MAXDELETEDID")
                    .word(id(d));
            }
            made
        }),
    ],
};

/// Mostly one of two, so that they have groups and consumers.
fn key(d: &mut Dice) -> Vec<u8> {
    match d.between(0, 2) {
        0 => d.key(Stream),
        _ => d.pick(&["stream:0", "stream:1"]).into(),
    }
}

/// A command of a group that is there.
fn of_group(d: &mut Dice, name: &str, rest: &[&str]) -> Line {
    let (key, group) = (key(d), group(d));
    let made = line("XGROUP CREATE")
        .word(&key)
        .word(group)
        .words(["0", "MKSTREAM"]);
    made.then(line(name).word(&key).word(group).words(rest))
}

fn group(d: &mut Dice) -> &'static str {
    if d.one_in(20) {
        return d.pick(&["", "nobody"]);
    }
    d.pick(&["g0", "g0", "g0", "g1"])
}

fn consumer(d: &mut Dice) -> &'static str {
    d.pick(&["alice", "bob", "carol", ""])
}

/// An id that may exist.
fn id(d: &mut Dice) -> Vec<u8> {
    match d.between(0, 20) {
        0 => d
            .pick(&[
                "abc", "", "1-", "-1", "1-1-1", "0-0", "*", "-", "+", "$", "1.5",
            ])
            .into(),
        1 => b"18446744073709551615-18446744073709551615".into(),
        2..6 => d.recent_ms().to_string().into(),
        _ => format!("{}-{}", d.recent_ms(), d.between(0, 1)).into(),
    }
}

/// One for XADD: its second half may be left to the server.
fn new_id(d: &mut Dice) -> Vec<u8> {
    match d.between(0, 15) {
        0..3 => format!("{}-*", d.recent_ms()).into(),
        3..13 => format!("{}-{}", d.next_ms(), d.between(0, 1)).into(),
        13 => d
            .pick(&["1-**", "abc-*", "-*", "0-*", "18446744073709551616-*"])
            .into(),
        _ => {
            let made = id(d);
            if made == b"*" { b"7-*".into() } else { made }
        }
    }
}

fn last_id(d: &mut Dice) -> Vec<u8> {
    match d.between(0, 3) {
        0 => b"$".into(),
        1 => b"0".into(),
        _ => id(d),
    }
}

fn from(d: &mut Dice) -> Vec<u8> {
    match d.between(0, 5) {
        0 | 1 => b"-".into(),
        2 => [b"(".as_slice(), &id(d)].concat(),
        _ => id(d),
    }
}

fn to(d: &mut Dice) -> Vec<u8> {
    match d.between(0, 5) {
        0 | 1 => b"+".into(),
        2 => [b"(".as_slice(), &id(d)].concat(),
        _ => id(d),
    }
}

/// Nobody waits between 0 and an hour.
fn idle(d: &mut Dice) -> &'static str {
    if d.one_in(12) {
        return d.pick(&["-1", "abc", "", "9223372036854775807"]);
    }
    d.pick(&["0", "0", "0", "3600000000"])
}

fn fields(d: &mut Dice, made: Line) -> Line {
    let mut made = made;
    for _ in 0..d.between(1, 3) {
        made = made.word(d.member()).word(d.value());
    }
    if d.one_in(30) { made.word("odd") } else { made }
}

fn with_count(d: &mut Dice, made: Line) -> Line {
    match d.between(0, 9) {
        0..4 => made.word("COUNT").word(d.count()),
        4 => made.word("COUNT"),
        _ => made,
    }
}

/// Exactly, or about so many that nothing goes: how much more than asked stays depends
/// on how entries are packed.
fn trim(d: &mut Dice, made: Line) -> Line {
    match d.between(0, 11) {
        0..3 => made.word("MAXLEN").word(d.count()),
        3..5 => made.words(["MAXLEN", "="]).word(d.count()),
        5..7 => made.word("MINID").word(id(d)),
        7 => made.words(["MINID", "="]).word(id(d)),
        8 => made.words(["MAXLEN", "~", "1000000"]),
        9 => made
            .words(["MAXLEN", "~", "1000000", "LIMIT"])
            .word(d.count()),
        10 => made.words(["MINID", "~", "0", "LIMIT", "10"]),
        _ => made.words(["MAXLEN", "=", "5", "LIMIT", "10"]),
    }
}

fn added_to(d: &mut Dice, made: Line) -> Line {
    let made = if d.one_in(10) {
        made.word("NOMKSTREAM")
    } else {
        made
    };
    if d.one_in(8) { trim(d, made) } else { made }
}

/// Behind an id that lies ahead of the clock the next one is its neighbour. The first
/// must not fail unless the second does.
fn far_ahead(d: &mut Dice) -> Line {
    let key = key(d);
    let first = line("XADD")
        .word(&key)
        .word(format!("99999999999999-{}", d.between(0, 9)));
    let second = line("XADD").word(&key).word("*");
    let made = first.words(["n", "1"]).then(fields(d, second));
    // Nothing of the usual ids comes behind it.
    match d.one_in(4) {
        true => made,
        false => made.then(line("DEL").word(key)),
    }
}

/// More than one node takes.
fn many(d: &mut Dice) -> Line {
    let key = key(d);
    let entry = |ms: i64| {
        let made = line("XADD").word(&key).word(ms.to_string());
        made.word("n").number(ms)
    };
    let first = entry(d.next_ms());
    let first = match d.one_in(2) {
        true => line("DEL").word(&key).then(first),
        false => first,
    };
    (0..d.between(20, 130)).fold(first, |made, _| made.then(entry(d.next_ms())))
}

fn streams(d: &mut Dice, made: Line, read_id: fn(&mut Dice) -> Vec<u8>) -> Line {
    let most = if d.one_in(3) { 3 } else { 1 };
    let keys: Vec<_> = (0..d.between(1, most)).map(|_| key(d)).collect();
    let ids: Vec<_> = keys.iter().map(|_| read_id(d)).collect();
    let ids = if d.one_in(25) { &ids[1..] } else { &ids };
    made.word("STREAMS").words(&keys).words(ids)
}

fn read(d: &mut Dice) -> Line {
    let count = d.count();
    let options = vec![
        vec![b"COUNT".to_vec(), count],
        vec![b"BLOCK".to_vec(), b"1".to_vec()],
    ];
    let options = d.some_of(4, options);
    streams(d, line("XREAD").words(options), last_id)
}

fn block_ms(d: &mut Dice) -> &'static str {
    d.pick(&["0", "100000"])
}

/// What the first client does while the second one waits for `key`.
fn woken(d: &mut Dice, blocked: Line, key: &[u8]) -> Line {
    let mut made = blocked.by_second();
    for _ in 0..d.between(0, 2) {
        made = made.then(match d.between(0, 5) {
            0..3 => {
                let added = line("XADD").word(key).word(new_id(d));
                fields(d, added)
            }
            3 => line("DEL").word(key),
            4 => line("XGROUP DESTROY").word(key).word(group(d)),
            _ => line("SET").word(key).word(d.value()),
        });
    }
    made.then(line("@REPLY stream").word(key).by_second())
}

fn read_group(d: &mut Dice) -> Line {
    let made = line("XREADGROUP GROUP").word(group(d)).word(consumer(d));
    let count = d.count();
    let options = vec![
        vec![b"COUNT".to_vec(), count],
        vec![b"BLOCK".to_vec(), b"1".to_vec()],
        vec![b"NOACK".to_vec()],
    ];
    let options = d.some_of(5, options);
    streams(d, made.words(options), |d| match d.between(0, 3) {
        0 => b"0".into(),
        1 => id(d),
        _ => b">".into(),
    })
}

fn claim(d: &mut Dice) -> Line {
    let made = line("XCLAIM")
        .word(key(d))
        .word(group(d))
        .word(consumer(d))
        .word(idle(d));
    let ids: Vec<_> = (0..d.between(1, 3)).map(|_| id(d)).collect();
    let (retries, last) = (numkeys(d, 3), id(d));
    let options = vec![
        vec![b"IDLE".to_vec(), b"0".to_vec()],
        vec![b"TIME".to_vec(), b"1700000000000".to_vec()],
        vec![b"RETRYCOUNT".to_vec(), retries],
        vec![b"FORCE".to_vec()],
        vec![b"JUSTID".to_vec()],
        vec![b"LASTID".to_vec(), last],
    ];
    let options = d.some_of(5, options);
    made.words(ids).words(options)
}
