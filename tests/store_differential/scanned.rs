//! SCAN, HSCAN, SSCAN and ZSCAN: cursors mean what the server likes. With cursor 0 the
//! whole round is made on each side, and both have to come to the same elements. Any
//! other cursor has to be refused by both or by none.

use std::collections::BTreeSet;

use super::line::{Line, Who};
use super::replay::{Clash, Pair};
use super::reply::{self, Raw, elements, is_error, leaves};
use super::sides::Side;

/// More calls than a round of the largest key takes.
const CALLS_MAX: usize = 5_000;

/// One whole round.
struct Round {
    /// The first reply.
    first: Raw,
    /// Elements, or pairs of them, without repetition.
    found: BTreeSet<Vec<u8>>,
}

/// The reference's first reply, if both are right.
pub fn compare(pair: &mut Pair, line: &Line) -> Result<Raw, Clash> {
    let at = if line.name() == "SCAN" { 1 } else { 2 };
    let begins = line.words.get(at).is_some_and(|cursor| cursor == b"0");
    let wanted = round(&mut pair.reference, line, at, begins)?;
    let found = round(&mut pair.other, line, at, begins)?;
    let clash = |why: &str| Clash::of(&wanted.first, &found.first, why);
    if is_error(&wanted.first) || is_error(&found.first) {
        return match wanted.first == found.first {
            true => Ok(wanted.first),
            false => Err(clash("the replies differ")),
        };
    }
    let has_shape = elements(&found.first).len() == 2;
    if !has_shape {
        return Err(clash("not a cursor and elements"));
    }
    if begins && wanted.found != found.found {
        let missing = wanted.found.difference(&found.found).count();
        let foreign = found.found.difference(&wanted.found).count();
        let why = format!("the whole round misses {missing} elements and has {foreign} others");
        return Err(Clash {
            reference: shown(&wanted),
            other: shown(&found),
            why,
        });
    }
    Ok(wanted.first)
}

fn shown(round: &Round) -> String {
    let all: Vec<&Vec<u8>> = round.found.iter().collect();
    format!("the whole round: {}", reply::shown(&reply::array(&all)))
}

fn round(side: &mut Side, line: &Line, at: usize, begins: bool) -> Result<Round, Clash> {
    let width = if matches!(line.name().as_str(), "HSCAN" | "ZSCAN") {
        2
    } else {
        1
    };
    let mut round = Round {
        first: side.ask(line.who, &line.words)?,
        found: BTreeSet::new(),
    };
    let mut last = round.first.clone();
    let mut words = line.words.clone();
    for _ in 0..CALLS_MAX {
        let parts = elements(&last);
        let [cursor, found] = parts.as_slice() else {
            return Ok(round);
        };
        let leaves = leaves_of(found);
        round.found.extend(leaves.chunks(width).map(<[_]>::concat));
        let cursor = reply::text(cursor).unwrap_or_default();
        if cursor == b"0" || !begins {
            return Ok(round);
        }
        words[at] = cursor.to_vec();
        last = ask(side, line.who, &words)?;
    }
    Err(Clash::from(format!(
        "{}: no end after {CALLS_MAX} calls",
        side.name
    )))
}

fn ask(side: &mut Side, who: Who, words: &[Vec<u8>]) -> Result<Raw, Clash> {
    Ok(side.ask(who, words)?)
}

/// An empty array has none.
fn leaves_of(raw: &[u8]) -> Vec<&[u8]> {
    elements(raw).into_iter().flat_map(leaves).collect()
}
