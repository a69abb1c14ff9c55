//! Sequences of random commands: of two or three groups mostly, so that what one
//! command leaves is met by the next, and of all enabled ones now and then. A few
//! commands are spoilt afterwards: words missing, too many, swapped, out of range.

use super::dice::{Dice, ODD_INTEGERS};
use super::directions::is_direction;
use super::groups::{Group, group};
use super::line::{Line, Unit, line};
use super::sides::Protocol;

/// Strings that stand under names of any type when a sequence begins.
const STRINGS: usize = 4;

/// Units of a sequence.
const UNITS_MIN: i64 = 60;
const UNITS_MAX: i64 = 900;

/// One unit in so many is spoilt.
const SPOILT_ONE_IN: u32 = 30;

/// Replies as long as their count, or a wait as long as their timeout: what is odd
/// about these is in their recipes.
const NEVER_ODD: &[&str] = &[
    "SRANDMEMBER",
    "HRANDFIELD",
    "ZRANDMEMBER",
    "BLPOP",
    "BRPOP",
    "BLMOVE",
    "BRPOPLPUSH",
    "BLMPOP",
    "BZPOPMIN",
    "BZPOPMAX",
    "BZMPOP",
    "XREAD",
    "XREADGROUP",
    "WAIT",
];

/// With a number out of place, keys of these would expire while the test runs.
const TIMED: &[&str] = &[
    "SET",
    "SETEX",
    "PSETEX",
    "GETEX",
    "EXPIRE",
    "PEXPIRE",
    "EXPIREAT",
    "PEXPIREAT",
    "RESTORE",
];

/// A sequence.
pub struct Sequence {
    /// How its clients speak.
    pub protocol: Protocol,
    /// What they send.
    pub units: Vec<Unit>,
}

impl Sequence {
    /// Of this seed and these groups, each of which has its turn.
    pub fn random(seed: u64, number: u64, groups: &[&'static str]) -> Sequence {
        let mut dice = Dice::new(seed);
        let protocol = if dice.one_in(4) {
            Protocol::Resp3
        } else {
            Protocol::Resp2
        };
        let groups: Vec<&Group> = groups.iter().map(|name| group(name)).collect();
        let turn = usize::try_from(number).unwrap_or(0) % groups.len();
        let focus = [groups[turn], dice.pick(&groups), dice.pick(&groups)];
        let count = dice.between(UNITS_MIN, UNITS_MAX);
        let strings = (0..STRINGS).map(|_| {
            let made = line("SET").word(dice.any_key());
            made.word(dice.value()).into_unit()
        });
        let strings: Vec<Unit> = strings.collect();
        let units = (0..count).map(|_| {
            let from = if dice.one_in(6) {
                groups.as_slice()
            } else {
                &focus
            };
            let group = dice.pick(from);
            let mut unit = one_of(&mut dice, group).into_unit();
            spoil(&mut dice, &mut unit);
            unit
        });
        Sequence {
            protocol,
            units: strings.into_iter().chain(units).collect(),
        }
    }
}

fn one_of(dice: &mut Dice, group: &Group) -> Line {
    let total: u32 = group.recipes.iter().map(|recipe| recipe.weight).sum();
    let mut at = dice.rng().u32(..total);
    for recipe in group.recipes {
        if at < recipe.weight {
            return (recipe.make)(dice);
        }
        at -= recipe.weight;
    }
    unreachable!("`at` is below the sum of all weights")
}

/// An id that is given by the clock when nothing lies ahead of it.
fn has_clock(line: &Line) -> bool {
    line.name() == "XADD" && line.words.iter().any(|word| word == b"*")
}

/// Makes one command wrong, or spells it otherwise.
fn spoil(dice: &mut Dice, unit: &mut Unit) {
    // What follows another line relies on it there.
    let stays = unit
        .iter()
        .any(|line| is_direction(line) || has_clock(line) || line.name() == "AUTH");
    if stays || !dice.one_in(SPOILT_ONE_IN) {
        return;
    }
    let at = dice.rng().usize(..unit.len());
    let name = unit[at].name();
    let words = &mut unit[at].words;
    let is_timed = TIMED.contains(&name.as_str());
    let is_odd = !is_timed && !NEVER_ODD.contains(&name.as_str());
    let last = words.len() - 1;
    match dice.between(0, 7) {
        0 | 1 if last > 0 => {
            words.pop();
        }
        // No number: it may stand where a timeout is expected.
        2 => words.push(b"spoilt".into()),
        3 if last > 0 => words.push(words[last].clone()),
        4 if last > 1 && is_odd => {
            let (one, other) = (dice.rng().usize(1..=last), dice.rng().usize(1..=last));
            words.swap(one, other);
        }
        5 | 6 if last > 1 && is_odd => {
            let at = dice.rng().usize(2..=last);
            words[at] = dice.pick(ODD_INTEGERS).into();
        }
        _ => words[0] = words[0].to_ascii_lowercase(),
    }
}
