//! MULTI and what ends it. A transaction is made whole, with commands of the other
//! groups inside; nothing random, since both sides have to hold the same afterwards.

use super::generic::any_key;
use super::{Group, Recipe};

use crate::dice::Dice;
use crate::directions::is_direction;
use crate::judge::how;
use crate::line::{Line, line};

pub const GROUP: Group = Group {
    name: "transactions",
    recipes: &[
        Recipe::new("MULTI", 10, |d| {
            let begun = line("MULTI");
            inside(d, begun).then(line("EXEC"))
        }),
        Recipe::new("DISCARD", 3, |d| {
            let begun = line("MULTI");
            inside(d, begun).then(line("DISCARD"))
        }),
        Recipe::new("WATCH", 10, watched),
        Recipe::new("UNWATCH", 3, |d| {
            let key = any_key(d);
            let begun = line("WATCH").word(&key).then(line("UNWATCH"));
            let begun = begun.then(line("DEL").word(key)).then(line("MULTI"));
            inside(d, begun).then(line("EXEC"))
        }),
        // Errors while it is queued, and commands that may not be.
        Recipe::new("EXEC", 4, |d| {
            let wrong = match d.between(0, 5) {
                0 => line("MULTI"),
                1 => line("WATCH").word(any_key(d)),
                2 => line("NOSUCH"),
                3 => line("GET"),
                4 => line("UNWATCH"),
                _ => line("EXEC too many"),
            };
            let begun = line("MULTI").then(line("PING")).then(wrong);
            inside(d, begun).then(line("EXEC"))
        }),
        Recipe::new("EXEC", 1, |_| line("EXEC")),
        Recipe::new("DISCARD", 1, |_| line("DISCARD")),
        Recipe::new("UNWATCH", 1, |_| line("UNWATCH")),
    ],
};

/// Commands that a transaction may be made of.
const INSIDE: &[&str] = &[
    "string",
    "hash",
    "list",
    "set",
    "zset",
    "generic",
    "databases",
];

fn inside(d: &mut Dice, begun: Line) -> Line {
    let mut made = begun;
    for _ in 0..d.between(0, 6) {
        let unit = one_inside(d).into_unit();
        if !unit.iter().any(is_alone) {
            made = unit.into_iter().fold(made, Line::then);
        }
    }
    made
}

/// What needs replies to go on cannot be queued.
fn is_alone(line: &Line) -> bool {
    how(line).is_alone() || is_direction(line)
}

fn one_inside(d: &mut Dice) -> Line {
    let group = super::group(d.pick(INSIDE));
    let at = usize::try_from(d.between(0, group.recipes.len() as i64 - 1)).unwrap_or(0);
    (group.recipes[at].make)(d)
}

/// A key is watched, perhaps changed by this client or the other one, and the
/// transaction then runs or does not.
fn watched(d: &mut Dice) -> Line {
    let key = any_key(d);
    let mut made = line("WATCH").word(&key);
    if d.one_in(4) {
        made = made.word(any_key(d));
    }
    let touch = match d.between(0, 9) {
        0 => line("DEL").word(&key),
        1 => line("SET").word(&key).word(d.value()),
        2 => line("EXPIRE").word(&key).word(d.seconds()),
        3 => line("APPEND").word(&key).word(d.member()),
        4 => line("SADD").word(&key).word(d.member()),
        5 => line("RENAME").word(any_key(d)).word(&key),
        6 => line("GET").word(&key),
        7 => line("FLUSHDB"),
        8 => line("SWAPDB 0 1"),
        _ => line("PERSIST").word(&key),
    };
    let touch = if d.one_in(3) {
        touch
    } else {
        touch.by_second()
    };
    if !d.one_in(4) {
        made = made.then(touch);
    }
    let begun = made.then(line("MULTI"));
    inside(d, begun).then(line("EXEC"))
}
