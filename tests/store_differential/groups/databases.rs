//! Sixteen databases of one server.

use super::generic::any_key;
use super::{Group, Recipe};
use crate::dice::Dice;
use crate::line::line;

pub const GROUP: Group = Group {
    name: "databases",
    recipes: &[
        Recipe::new("SELECT", 12, |d| line("SELECT").word(database(d))),
        Recipe::new("DBSIZE", 10, |_| line("DBSIZE")),
        Recipe::new("MOVE", 12, |d| {
            line("MOVE").word(any_key(d)).word(database(d))
        }),
        Recipe::new("SWAPDB", 4, |d| {
            line("SWAPDB").word(database(d)).word(database(d))
        }),
        Recipe::new("FLUSHDB", 1, |d| {
            let how = flush_option(d);
            line("FLUSHDB").words(how)
        }),
        Recipe::new("FLUSHALL", 1, |d| {
            let how = flush_option(d);
            line("FLUSHALL").words(how)
        }),
    ],
};

/// Mostly one of a few, so that keys meet.
fn database(d: &mut Dice) -> &'static str {
    if d.one_in(8) {
        return d.pick(&[
            "3",
            "15",
            "16",
            "-1",
            "abc",
            "",
            "9223372036854775807",
            "1.0",
            "00",
        ]);
    }
    d.pick(&["0", "0", "1", "2"])
}

fn flush_option(d: &mut Dice) -> Option<&'static str> {
    if d.one_in(2) {
        return None;
    }
    Some(d.pick(&["ASYNC", "SYNC", "sync", "NOW"]))
}
