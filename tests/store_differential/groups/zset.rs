//! Sorted sets: by rank, by score, by name.

use super::hash::{cursor, drawn_count, scan_options};
use super::list::{numkeys, patience, timeout, with_count};
use super::set::with_limit;
use super::{Group, Recipe};
use crate::dice::Dice;
use crate::dice::Kind::{Lex, Zset};
use crate::line::{Line, line};

pub const GROUP: Group = Group {
    name: "zset",
    recipes: &[
        Recipe::new("ZADD", 30, |d| {
            line("ZADD").word(d.key(Zset)).words(scored(d))
        }),
        Recipe::new("ZADD", 12, |d| {
            let mut made = line("ZADD").word(d.key(Lex));
            for member in d.members(Lex) {
                made = made.word("0").word(member);
            }
            made
        }),
        Recipe::new("ZADD", 16, zadd_with_options),
        Recipe::new("ZINCRBY", 8, |d| {
            line("ZINCRBY")
                .word(d.key(Zset))
                .word(d.float())
                .word(d.member())
        }),
        Recipe::new("ZREM", 8, |d| {
            let kind = kind(d);
            line("ZREM").word(d.key(kind)).words(d.members(kind))
        }),
        Recipe::new("ZCARD", 4, |d| line("ZCARD").word(zset_key(d))),
        Recipe::new("ZCARD", 5, |d| {
            let key = zset_key(d);
            line("OBJECT ENCODING")
                .word(&key)
                .then(line("ZCARD").word(key))
        }),
        Recipe::new("ZSCORE", 6, |d| {
            line("ZSCORE").word(zset_key(d)).word(d.member())
        }),
        Recipe::new("ZMSCORE", 5, |d| {
            let members: Vec<_> = (0..d.between(1, 5)).map(|_| d.member()).collect();
            line("ZMSCORE").word(zset_key(d)).words(members)
        }),
        Recipe::new("ZRANK", 5, |d| {
            line("ZRANK").word(zset_key(d)).word(d.member())
        }),
        Recipe::new("ZREVRANK", 5, |d| {
            line("ZREVRANK").word(zset_key(d)).word(d.member())
        }),
        Recipe::new("ZCOUNT", 6, |d| {
            line("ZCOUNT")
                .word(zset_key(d))
                .word(bound(d))
                .word(bound(d))
        }),
        Recipe::new("ZLEXCOUNT", 5, |d| {
            line("ZLEXCOUNT")
                .word(d.key(Lex))
                .word(lex_bound(d))
                .word(lex_bound(d))
        }),
        Recipe::new("ZRANGE", 16, |d| {
            let made = line("ZRANGE").word(zset_key(d));
            let made = range(d, made);
            with_scores(d, made)
        }),
        Recipe::new("ZRANGE", 4, |d| {
            line("ZRANGE")
                .word(zset_key(d))
                .words(["0", "-1", "WITHSCORES"])
        }),
        Recipe::new("ZREVRANGE", 5, |d| {
            let made = line("ZREVRANGE")
                .word(zset_key(d))
                .word(d.index())
                .word(d.index());
            with_scores(d, made)
        }),
        Recipe::new("ZRANGEBYSCORE", 6, |d| {
            let made = line("ZRANGEBYSCORE")
                .word(zset_key(d))
                .word(bound(d))
                .word(bound(d));
            let made = with_scores(d, made);
            limited(d, made)
        }),
        Recipe::new("ZREVRANGEBYSCORE", 6, |d| {
            let made = line("ZREVRANGEBYSCORE")
                .word(zset_key(d))
                .word(bound(d))
                .word(bound(d));
            let made = limited(d, made);
            with_scores(d, made)
        }),
        Recipe::new("ZRANGEBYLEX", 6, |d| {
            let made = line("ZRANGEBYLEX")
                .word(d.key(Lex))
                .word(lex_bound(d))
                .word(lex_bound(d));
            limited(d, made)
        }),
        Recipe::new("ZREVRANGEBYLEX", 6, |d| {
            let made = line("ZREVRANGEBYLEX")
                .word(d.key(Lex))
                .word(lex_bound(d))
                .word(lex_bound(d));
            limited(d, made)
        }),
        Recipe::new("ZRANGESTORE", 8, |d| {
            let made = line("ZRANGESTORE").word(zset_key(d)).word(zset_key(d));
            let made = range(d, made);
            if d.one_in(20) {
                made.word("WITHSCORES")
            } else {
                made
            }
        }),
        Recipe::new("ZREMRANGEBYRANK", 3, |d| {
            line("ZREMRANGEBYRANK")
                .word(zset_key(d))
                .word(d.index())
                .word(d.index())
        }),
        Recipe::new("ZREMRANGEBYSCORE", 3, |d| {
            line("ZREMRANGEBYSCORE")
                .word(zset_key(d))
                .word(bound(d))
                .word(bound(d))
        }),
        Recipe::new("ZREMRANGEBYLEX", 3, |d| {
            line("ZREMRANGEBYLEX")
                .word(d.key(Lex))
                .word(lex_bound(d))
                .word(lex_bound(d))
        }),
        Recipe::new("ZPOPMIN", 3, |d| line("ZPOPMIN").word(zset_key(d))),
        Recipe::new("ZPOPMIN", 3, |d| {
            line("ZPOPMIN").word(zset_key(d)).word(d.count())
        }),
        Recipe::new("ZPOPMAX", 3, |d| line("ZPOPMAX").word(zset_key(d))),
        Recipe::new("ZPOPMAX", 3, |d| {
            line("ZPOPMAX").word(zset_key(d)).word(d.count())
        }),
        Recipe::new("ZMPOP", 5, |d| {
            let keys = d.keys(Zset, 4);
            let made = line("ZMPOP")
                .word(numkeys(d, keys.len()))
                .words(keys)
                .word(end(d));
            with_count(d, made)
        }),
        Recipe::new("BZPOPMIN", 2, |d| {
            let keys = d.keys(Zset, 3);
            line("BZPOPMIN").words(keys).word(timeout(d))
        }),
        Recipe::new("BZPOPMAX", 2, |d| {
            let keys = d.keys(Zset, 3);
            line("BZPOPMAX").words(keys).word(timeout(d))
        }),
        Recipe::new("BZPOPMIN", 2, |d| {
            let keys = d.keys(Zset, 2);
            let blocked = line("@BLOCK")
                .word(d.pick(&["BZPOPMIN", "BZPOPMAX"]))
                .words(&keys);
            let blocked = blocked.word(patience(d));
            woken(d, blocked, &keys)
        }),
        Recipe::new("BZMPOP", 1, |d| {
            let keys = d.keys(Zset, 2);
            let blocked = line("@BLOCK BZMPOP")
                .word(patience(d))
                .word(keys.len().to_string());
            let blocked = blocked.words(&keys).word(end(d));
            let blocked = with_count(d, blocked);
            woken(d, blocked, &keys)
        }),
        Recipe::new("BZMPOP", 2, |d| {
            let keys = d.keys(Zset, 3);
            let made = line("BZMPOP").word(timeout(d)).word(numkeys(d, keys.len()));
            let made = made.words(keys).word(end(d));
            with_count(d, made)
        }),
        Recipe::new("ZUNION", 6, |d| {
            let made = combined(d, line("ZUNION"));
            with_scores(d, made)
        }),
        Recipe::new("ZINTER", 6, |d| {
            let made = combined(d, line("ZINTER"));
            with_scores(d, made)
        }),
        Recipe::new("ZDIFF", 5, |d| {
            let keys = source_keys(d);
            let made = line("ZDIFF").word(numkeys(d, keys.len())).words(keys);
            with_scores(d, made)
        }),
        Recipe::new("ZUNIONSTORE", 6, |d| {
            let made = line("ZUNIONSTORE").word(zset_key(d));
            combined(d, made)
        }),
        Recipe::new("ZINTERSTORE", 6, |d| {
            let made = line("ZINTERSTORE").word(zset_key(d));
            combined(d, made)
        }),
        Recipe::new("ZDIFFSTORE", 5, |d| {
            let keys = source_keys(d);
            line("ZDIFFSTORE")
                .word(zset_key(d))
                .word(numkeys(d, keys.len()))
                .words(keys)
        }),
        Recipe::new("ZINTERCARD", 5, |d| {
            let keys = source_keys(d);
            let made = line("ZINTERCARD").word(numkeys(d, keys.len())).words(keys);
            with_limit(d, made)
        }),
        Recipe::new("ZRANDMEMBER", 3, |d| line("ZRANDMEMBER").word(zset_key(d))),
        Recipe::new("ZRANDMEMBER", 5, |d| {
            let made = line("ZRANDMEMBER").word(zset_key(d)).word(drawn_count(d));
            with_scores(d, made)
        }),
        Recipe::new("ZSCAN", 5, |d| {
            let options = scan_options(d);
            line("ZSCAN")
                .word(zset_key(d))
                .word(cursor(d))
                .words(options)
        }),
    ],
};

fn kind(d: &mut Dice) -> crate::dice::Kind {
    if d.one_in(4) { Lex } else { Zset }
}

fn zset_key(d: &mut Dice) -> Vec<u8> {
    let kind = kind(d);
    d.key(kind)
}

/// Sets count as sorted sets with scores of 1.
fn source_keys(d: &mut Dice) -> Vec<Vec<u8>> {
    let one = |d: &mut Dice| {
        if d.one_in(5) {
            let kind = d.set_kind();
            return d.key(kind);
        }
        zset_key(d)
    };
    (0..d.between(1, 4)).map(|_| one(d)).collect()
}

fn scored(d: &mut Dice) -> Vec<Vec<u8>> {
    let members = d.members(Zset);
    let mut words = Vec::new();
    for member in members {
        words.extend([d.float(), member]);
    }
    words
}

/// What the first client does while the second one waits for `keys`.
fn woken(d: &mut Dice, blocked: Line, keys: &[Vec<u8>]) -> Line {
    let mut made = blocked.by_second();
    for _ in 0..d.between(0, 3) {
        let key = &keys[usize::try_from(d.between(0, keys.len() as i64 - 1)).unwrap_or(0)];
        made = made.then(match d.between(0, 6) {
            0..3 => line("ZADD").word(key).words(scored(d)),
            3 => line("ZINCRBY")
                .word(key)
                .word(d.small_integer())
                .word(d.member()),
            4 => line("DEL").word(key),
            5 => line("ZUNIONSTORE").word(key).word("1").word(zset_key(d)),
            _ => line("RENAME").word(zset_key(d)).word(key),
        });
    }
    made.then(line("@REPLY zset").word(&keys[0]).by_second())
}

fn zadd_with_options(d: &mut Dice) -> Line {
    let flags = ["NX", "XX", "GT", "LT", "CH", "INCR"];
    let flags = flags.map(|flag| vec![flag.into()]).to_vec();
    let flags = d.some_of(4, flags);
    let key = zset_key(d);
    let made = line("ZADD").word(key).words(flags);
    if d.one_in(2) {
        return made.word(d.float()).word(d.member());
    }
    let words = scored(d);
    made.words(words)
}

fn end(d: &mut Dice) -> &'static str {
    if d.one_in(30) {
        return d.pick(&["LEFT", "", "MEDIAN"]);
    }
    d.pick(&["MIN", "MAX", "min", "MAX"])
}

fn with_scores(d: &mut Dice, made: Line) -> Line {
    match d.between(0, 30) {
        0..12 => made.word("WITHSCORES"),
        12 => made.word("WITHVALUES"),
        13 => made.word("withscores"),
        _ => made,
    }
}

fn limited(d: &mut Dice, made: Line) -> Line {
    match d.between(0, 20) {
        0..8 => made.word("LIMIT").word(d.index()).word(d.index()),
        8 => made.words(["LIMIT", "0"]),
        _ => made,
    }
}

/// A bound of scores.
fn bound(d: &mut Dice) -> Vec<u8> {
    match d.between(0, 14) {
        0..2 => b"-inf".into(),
        2..4 => b"+inf".into(),
        4 => d
            .pick(&[
                "(inf", "(-inf", "", "(", "abc", "(abc", "nan", "[1", "(nan", "inf",
            ])
            .into(),
        5..8 => [b"(".as_slice(), &d.float()].concat(),
        _ => d.float(),
    }
}

/// A bound of names.
fn lex_bound(d: &mut Dice) -> Vec<u8> {
    match d.between(0, 14) {
        0..3 => b"-".into(),
        3..6 => b"+".into(),
        6 => d.pick(&["", "a", "(", "[", "++", "-a", "inf"]).into(),
        7..10 => [b"(".as_slice(), &d.member()].concat(),
        _ => [b"[".as_slice(), &d.member()].concat(),
    }
}

/// Bounds and options of ZRANGE, which may not fit together.
fn range(d: &mut Dice, made: Line) -> Line {
    let mut options = Vec::new();
    let made = match d.between(0, 9) {
        0..4 => made.word(d.index()).word(d.index()),
        4..7 => {
            options.push(vec![b"BYSCORE".to_vec()]);
            made.word(bound(d)).word(bound(d))
        }
        7 | 8 => {
            options.push(vec![b"BYLEX".to_vec()]);
            made.word(lex_bound(d)).word(lex_bound(d))
        }
        _ => {
            options.push(vec![
                d.pick(&["BYSCORE", "BYLEX", "BYRANK", "byscore"]).into(),
            ]);
            made.word(d.index()).word(d.index())
        }
    };
    if d.one_in(3) {
        options.push(vec![b"REV".into()]);
    }
    // Without BYSCORE or BYLEX a syntax error.
    let odds = if options.is_empty() { 12 } else { 3 };
    if d.one_in(odds) {
        options.push(vec![b"LIMIT".into(), d.index(), d.index()]);
    }
    let options = d.some_of(1, options);
    made.words(options)
}

/// Source keys, WEIGHTS and AGGREGATE.
fn combined(d: &mut Dice, made: Line) -> Line {
    let keys = source_keys(d);
    let mut weights = vec![b"WEIGHTS".to_vec()];
    let wrong = i64::from(d.one_in(20));
    for _ in 0..keys.len() as i64 - wrong {
        weights.push(d.float());
    }
    let how = d
        .pick(&["SUM", "MIN", "MAX", "sum", "MIN", "MAX", "AVG"])
        .into();
    let options = d.some_of(3, vec![weights, vec![b"AGGREGATE".into(), how]]);
    made.word(numkeys(d, keys.len())).words(keys).words(options)
}
