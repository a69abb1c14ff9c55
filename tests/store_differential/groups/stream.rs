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
            let made = line("XADD").word(d.key(Stream));
            let made = added_to(d, made).word(new_id(d));
            fields(d, made)
        }),
        Recipe::new("XADD", 4, far_ahead),
        Recipe::new("XADD", 3, many),
        Recipe::new("XLEN", 4, |d| line("XLEN").word(d.key(Stream))),
        Recipe::new("XDEL", 8, |d| {
            let ids: Vec<_> = (0..d.between(1, 4)).map(|_| id(d)).collect();
            line("XDEL").word(d.key(Stream)).words(ids)
        }),
        Recipe::new("XRANGE", 10, |d| {
            let made = line("XRANGE").word(d.key(Stream)).word(from(d)).word(to(d));
            with_count(d, made)
        }),
        Recipe::new("XREVRANGE", 8, |d| {
            let made = line("XREVRANGE")
                .word(d.key(Stream))
                .word(to(d))
                .word(from(d));
            with_count(d, made)
        }),
        Recipe::new("XTRIM", 6, |d| {
            let made = line("XTRIM").word(d.key(Stream));
            trim(d, made)
        }),
        Recipe::new("XREAD", 8, read),
        Recipe::new("XREADGROUP", 16, read_group),
        Recipe::new("XACK", 8, |d| {
            let ids: Vec<_> = (0..d.between(1, 4)).map(|_| id(d)).collect();
            line("XACK").word(d.key(Stream)).word(group(d)).words(ids)
        }),
        Recipe::new("XPENDING", 5, |d| {
            line("XPENDING").word(d.key(Stream)).word(group(d))
        }),
        Recipe::new("XPENDING", 8, |d| {
            let mut made = line("XPENDING").word(d.key(Stream)).word(group(d));
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
            let made = line("XAUTOCLAIM").word(d.key(Stream)).word(group(d));
            let made = made.word(consumer(d)).word(idle(d)).word(from(d));
            let count = d.count();
            let options = vec![vec![b"COUNT".to_vec(), count], vec![b"JUSTID".to_vec()]];
            let options = d.some_of(3, options);
            made.words(options)
        }),
        Recipe::new("XGROUP|CREATE", 8, |d| {
            let made = line("XGROUP CREATE")
                .word(d.key(Stream))
                .word(group(d))
                .word("0");
            made.word("MKSTREAM")
        }),
        Recipe::new("XGROUP|CREATE", 8, |d| {
            let made = line("XGROUP CREATE")
                .word(d.key(Stream))
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
                .word(d.key(Stream))
                .word(group(d))
                .word(last_id(d));
            if d.one_in(3) {
                made.word("ENTRIESREAD").word(d.integer())
            } else {
                made
            }
        }),
        Recipe::new("XGROUP|DESTROY", 2, |d| {
            line("XGROUP DESTROY").word(d.key(Stream)).word(group(d))
        }),
        Recipe::new("XGROUP|CREATECONSUMER", 4, |d| {
            line("XGROUP CREATECONSUMER")
                .word(d.key(Stream))
                .word(group(d))
                .word(consumer(d))
        }),
        Recipe::new("XGROUP|DELCONSUMER", 3, |d| {
            line("XGROUP DELCONSUMER")
                .word(d.key(Stream))
                .word(group(d))
                .word(consumer(d))
        }),
        Recipe::new("XINFO|STREAM", 6, |d| {
            line("XINFO STREAM").word(d.key(Stream))
        }),
        Recipe::new("XINFO|STREAM", 8, |d| {
            let made = line("XINFO STREAM").word(d.key(Stream)).word("FULL");
            if d.one_in(2) {
                made.word("COUNT").word(d.count())
            } else {
                made
            }
        }),
        Recipe::new("XINFO|GROUPS", 6, |d| {
            line("XINFO GROUPS").word(d.key(Stream))
        }),
        Recipe::new("XINFO|CONSUMERS", 6, |d| {
            line("XINFO CONSUMERS").word(d.key(Stream)).word(group(d))
        }),
        Recipe::new("XSETID", 3, |d| {
            let made = line("XSETID").word(d.key(Stream)).word(id(d));
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
    let key = d.key(Stream);
    let first = line("XADD")
        .word(&key)
        .word(format!("99999999999999-{}", d.between(0, 9)));
    let second = line("XADD").word(key).word("*");
    first.words(["n", "1"]).then(fields(d, second))
}

/// More than one node takes.
fn many(d: &mut Dice) -> Line {
    let key = d.key(Stream);
    let entry = |ms: i64| {
        let made = line("XADD").word(&key).word(ms.to_string());
        made.word("n").number(ms)
    };
    let first = entry(d.next_ms());
    (0..d.between(20, 130)).fold(first, |made, _| made.then(entry(d.next_ms())))
}

fn streams(d: &mut Dice, made: Line, read_id: fn(&mut Dice) -> Vec<u8>) -> Line {
    let most = if d.one_in(3) { 3 } else { 1 };
    let keys = d.keys(Stream, most);
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
        .word(d.key(Stream))
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
