//! Sets.

use super::hash::{cursor, drawn_count, scan_options};
use super::list::numkeys;
use super::{Group, Recipe};
use crate::dice::Dice;
use crate::line::{Line, line};

pub const GROUP: Group = Group {
    name: "set",
    recipes: &[
        Recipe::new("SADD", 40, |d| {
            let kind = d.set_kind();
            line("SADD").word(d.key(kind)).words(d.members(kind))
        }),
        Recipe::new("SREM", 14, |d| {
            let kind = d.set_kind();
            line("SREM").word(d.key(kind)).words(d.members(kind))
        }),
        Recipe::new("SISMEMBER", 8, |d| {
            let kind = d.set_kind();
            line("SISMEMBER").word(d.key(kind)).word(d.member_of(kind))
        }),
        Recipe::new("SMISMEMBER", 6, |d| {
            let kind = d.set_kind();
            let members: Vec<_> = (0..d.between(1, 6)).map(|_| d.member_of(kind)).collect();
            line("SMISMEMBER").word(d.key(kind)).words(members)
        }),
        Recipe::new("SMOVE", 8, |d| {
            let kind = d.set_kind();
            line("SMOVE")
                .word(d.key(kind))
                .word(set_key(d))
                .word(d.member_of(kind))
        }),
        Recipe::new("SCARD", 8, |d| line("SCARD").word(set_key(d))),
        Recipe::new("SCARD", 6, |d| {
            let key = set_key(d);
            line("OBJECT ENCODING")
                .word(&key)
                .then(line("SCARD").word(key))
        }),
        Recipe::new("SMEMBERS", 10, |d| line("SMEMBERS").word(set_key(d))),
        Recipe::new("SINTER", 6, |d| line("SINTER").words(set_keys(d))),
        Recipe::new("SUNION", 6, |d| line("SUNION").words(set_keys(d))),
        Recipe::new("SDIFF", 6, |d| line("SDIFF").words(set_keys(d))),
        Recipe::new("SINTERSTORE", 5, |d| {
            line("SINTERSTORE").word(set_key(d)).words(set_keys(d))
        }),
        Recipe::new("SUNIONSTORE", 5, |d| {
            line("SUNIONSTORE").word(set_key(d)).words(set_keys(d))
        }),
        Recipe::new("SDIFFSTORE", 5, |d| {
            line("SDIFFSTORE").word(set_key(d)).words(set_keys(d))
        }),
        Recipe::new("SINTERCARD", 6, |d| {
            let keys = set_keys(d);
            let made = line("SINTERCARD").word(numkeys(d, keys.len())).words(keys);
            with_limit(d, made)
        }),
        Recipe::new("SPOP", 4, |d| line("SPOP").word(set_key(d))),
        Recipe::new("SPOP", 4, |d| line("SPOP").word(set_key(d)).word(d.count())),
        Recipe::new("SRANDMEMBER", 4, |d| line("SRANDMEMBER").word(set_key(d))),
        Recipe::new("SRANDMEMBER", 5, |d| {
            line("SRANDMEMBER").word(set_key(d)).word(drawn_count(d))
        }),
        Recipe::new("SSCAN", 5, |d| {
            let options = scan_options(d);
            line("SSCAN")
                .word(set_key(d))
                .word(cursor(d))
                .words(options)
        }),
    ],
};

fn set_key(d: &mut Dice) -> Vec<u8> {
    let kind = d.set_kind();
    d.key(kind)
}

fn set_keys(d: &mut Dice) -> Vec<Vec<u8>> {
    (0..d.between(1, 4)).map(|_| set_key(d)).collect()
}

/// LIMIT of the commands that count an intersection.
pub fn with_limit(d: &mut Dice, made: Line) -> Line {
    match d.between(0, 9) {
        0..4 => made.word("LIMIT").word(d.count()),
        4 => made.word("LIMIT"),
        _ => made,
    }
}
