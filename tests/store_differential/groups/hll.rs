//! HyperLogLogs. They are strings whose bytes have to be equal, too: sparse, dense, and
//! where one becomes the other.

use super::{Group, Recipe};
use crate::dice::Dice;
use crate::dice::Kind::{Hll, Text};
use crate::line::line;

pub const GROUP: Group = Group {
    name: "hll",
    recipes: &[
        Recipe::new("PFADD", 20, |d| {
            line("PFADD").word(d.key(Hll)).words(few(d))
        }),
        Recipe::new("PFADD", 4, |d| {
            let (from, count) = (d.between(0, 5_000), d.between(50, 900));
            let many: Vec<_> = (from..from + count).map(|n| format!("e{n}")).collect();
            line("PFADD").word(d.key(Hll)).words(many)
        }),
        Recipe::new("PFADD", 1, |d| {
            line("PFADD").word(d.key(Text)).words(few(d))
        }),
        Recipe::new("PFCOUNT", 8, |d| line("PFCOUNT").word(d.key(Hll))),
        Recipe::new("PFCOUNT", 6, |d| line("PFCOUNT").words(d.keys(Hll, 4))),
        Recipe::new("PFMERGE", 6, |d| {
            let sources = d.keys(Hll, 4);
            line("PFMERGE").word(d.key(Hll)).words(sources)
        }),
        Recipe::new("PFMERGE", 1, |d| line("PFMERGE").word(d.key(Hll))),
        // What is in it is compared, and damaged.
        Recipe::new("PFCOUNT", 3, |d| {
            let key = d.key(Hll);
            line("GET").word(&key).then(line("PFCOUNT").word(key))
        }),
        Recipe::new("PFCOUNT", 1, |d| {
            let (key, at) = (d.key(Hll), d.between(0, 20));
            let bytes = d.member();
            line("SETRANGE")
                .word(&key)
                .number(at)
                .word(bytes)
                .then(line("PFCOUNT").word(key))
        }),
    ],
};

fn few(d: &mut Dice) -> Vec<Vec<u8>> {
    (0..d.between(0, 6)).map(|_| d.member()).collect()
}
