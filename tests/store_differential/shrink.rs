//! Makes a sequence that shows a difference short: drops what it can do without, first
//! units, in halves, quarters and so on, then words of long commands.

use super::line::{Line, Unit};
use super::replay::{Difference, Pair};
use super::sides::Protocol;
use super::tally::Tally;

/// Replays that may be made.
const REPLAYS_MAX: usize = 1_500;

/// Commands that are longer lose words, too.
const LONG_WORDS: usize = 6;

/// A short sequence and the difference that it shows.
pub struct Shrunk {
    /// What is left.
    pub units: Vec<Unit>,
    /// What it shows.
    pub difference: Difference,
    /// False if the difference did not show a second time.
    pub is_steady: bool,
}

struct Shrinker<'p> {
    pair: &'p mut Pair,
    protocol: Protocol,
    replays: usize,
    units: Vec<Unit>,
    difference: Difference,
}

/// Of `units`, which showed `difference`.
pub fn shrink(
    pair: &mut Pair,
    protocol: Protocol,
    units: &[Unit],
    difference: Difference,
) -> Shrunk {
    let needed = difference.unit.map_or(units.len(), |unit| unit + 1);
    let mut shrinker = Shrinker {
        pair,
        protocol,
        replays: 0,
        units: units[..needed].to_vec(),
        difference,
    };
    let whole = shrinker.units.clone();
    let is_steady = shrinker.try_units(whole);
    if is_steady {
        shrinker.drop_units();
        shrinker.drop_lines();
        shrinker.drop_words();
        shrinker.drop_units();
    }
    Shrunk {
        units: shrinker.units,
        difference: shrinker.difference,
        is_steady,
    }
}

impl Shrinker<'_> {
    /// Takes `units` if they show a difference.
    fn try_units(&mut self, units: Vec<Unit>) -> bool {
        if self.replays >= REPLAYS_MAX {
            return false;
        }
        self.replays += 1;
        let shown = self
            .pair
            .replay(self.protocol, &units, &mut Tally::default());
        let Some(difference) = shown else {
            return false;
        };
        let needed = difference.unit.map_or(units.len(), |unit| unit + 1);
        self.units = units;
        self.units.truncate(needed);
        self.difference = difference;
        true
    }

    fn drop_units(&mut self) {
        let mut size = self.units.len().div_ceil(2);
        while size > 0 {
            let mut end = self.units.len();
            while end > 0 {
                let start = end.saturating_sub(size);
                let mut units = self.units.clone();
                units.drain(start..end);
                if !units.is_empty() {
                    self.try_units(units);
                }
                end = start.min(self.units.len());
            }
            size /= 2;
        }
    }

    /// Of transactions, whose lines were made together but do not need each other.
    /// EXISTS stays: it takes away a key whose time is over.
    fn drop_lines(&mut self) {
        for unit in 0..self.units.len() {
            let names = self
                .units
                .get(unit)
                .map(|unit| unit.iter().map(Line::name).collect());
            let names: Vec<String> = names.unwrap_or_default();
            if !names.iter().any(|name| name == "MULTI") {
                continue;
            }
            for (at, name) in names.iter().enumerate().rev() {
                let stays = matches!(name.as_str(), "MULTI" | "EXEC" | "DISCARD" | "EXISTS");
                if !stays && self.units.get(unit).is_some_and(|unit| at < unit.len()) {
                    let mut units = self.units.clone();
                    units[unit].remove(at);
                    self.try_units(units);
                }
            }
        }
    }

    fn drop_words(&mut self) {
        for unit in 0..self.units.len() {
            let lines = self.units.get(unit).map_or(0, Vec::len);
            for line in 0..lines {
                self.drop_words_of(unit, line);
            }
        }
    }

    /// Pairs of words stay together.
    fn drop_words_of(&mut self, unit: usize, line: usize) {
        let length = |units: &[Unit]| units.get(unit).map_or(0, |unit| unit[line].words.len());
        let mut size = length(&self.units) / 4 * 2;
        while size > 0 {
            let mut end = length(&self.units);
            while length(&self.units) > LONG_WORDS && end > size + 1 {
                let mut units = self.units.clone();
                units[unit][line].words.drain(end - size..end);
                self.try_units(units);
                end -= size;
                end = end.min(length(&self.units));
            }
            size = size / 4 * 2;
        }
    }
}
