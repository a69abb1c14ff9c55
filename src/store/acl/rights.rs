//! Which commands may be run.
//!
//! ```text
//! one bit for each command and subcommand | one for commands there will be
//! first arguments: `+select|0` where SELECT as such may not be run
//! ```

use std::collections::BTreeMap;

use super::catalog::{Catalog, Category, CommandNumber, catalog};

/// Words of bits: room for 448 commands and subcommands.
const WORDS: usize = 7;

/// See the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    bits: [u64; WORDS],
    /// Set by `+@all`, cleared by `-@all`: which of both a description begins with.
    with_future: bool,
    first_arguments: BTreeMap<CommandNumber, Vec<Box<[u8]>>>,
    /// All bits are set.
    is_all: bool,
}

impl Rights {
    /// None.
    pub fn none() -> Self {
        Self::default()
    }

    /// All.
    pub fn all() -> Self {
        let mut rights = Self::none();
        rights.with_future = true;
        for of in catalog().all() {
            rights.set(of, true);
        }
        rights.note_all();
        rights
    }

    /// Whether nothing is refused.
    pub fn is_all(&self) -> bool {
        self.is_all
    }

    fn note_all(&mut self) {
        self.is_all = self.with_future && catalog().all().all(|of| self.has(of));
    }

    fn has(&self, of: CommandNumber) -> bool {
        let word = self.bits.get(of.index() / 64);
        word.is_some_and(|word| word & (1 << (of.index() % 64)) != 0)
    }

    fn set(&mut self, of: CommandNumber, is_allowed: bool) {
        if let Some(word) = self.bits.get_mut(of.index() / 64) {
            let bit = 1 << (of.index() % 64);
            match is_allowed {
                true => *word |= bit,
                false => *word &= !bit,
            }
        }
    }

    /// A command with all its subcommands, or one of these.
    pub fn change(&mut self, of: CommandNumber, is_allowed: bool) {
        self.change_bits(of, is_allowed);
        self.note_all();
    }

    fn change_bits(&mut self, of: CommandNumber, is_allowed: bool) {
        self.set(of, is_allowed);
        self.first_arguments.remove(&of);
        for subcommand in catalog().subcommands(of) {
            self.set(*subcommand, is_allowed);
        }
    }

    /// All of a category.
    pub fn change_category(&mut self, category: Category, is_allowed: bool) {
        let catalog = catalog();
        // A container before its subcommands, some of which may be of other categories.
        for top in catalog.tops() {
            let subcommands = catalog.subcommands(top).iter().copied();
            for of in std::iter::once(top).chain(subcommands) {
                if catalog.is_of(of, category) {
                    self.change_bits(of, is_allowed);
                }
            }
        }
        self.note_all();
    }

    /// A command that may not be run may be with this as its first argument.
    pub fn allow_first_argument(&mut self, of: CommandNumber, argument: &[u8]) {
        let known = self.first_arguments.entry(of).or_default();
        if !known.iter().any(|of| of.eq_ignore_ascii_case(argument)) {
            known.push(argument.into());
        }
    }

    /// Whether a command may be run; `first_argument` is what follows its name.
    pub fn allow(&self, of: CommandNumber, first_argument: Option<&[u8]>) -> bool {
        if self.is_all || self.has(of) {
            return true;
        }
        let (Some(known), Some(argument)) = (self.first_arguments.get(&of), first_argument) else {
            return false;
        };
        known.iter().any(|of| of.eq_ignore_ascii_case(argument))
    }

    /// The rules that lead here: `+@all` or `-@all`, categories that fit best, and single
    /// commands for what still differs.
    pub fn describe(&self) -> String {
        let catalog = catalog();
        let (mut told, mut reached) = match self.with_future {
            true => ("+@all".to_owned(), Rights::all()),
            false => ("-@all".to_owned(), Rights::none()),
        };
        let (is_added, sign) = match self.with_future {
            true => (false, '-'),
            false => (true, '+'),
        };
        // What no category told yet.
        let mut left = self.clone();
        let mut categories: Vec<Category> = Category::all().collect();
        while let Some(best) = left.best_of(&categories, is_added) {
            categories.retain(|of| *of != best);
            reached.change_category(best, is_added);
            left.change_category(best, !is_added);
            told.push_str(&format!(" {sign}@{}", best.name()));
        }
        for top in catalog.tops() {
            self.describe_one(top, &mut reached, catalog, &mut told);
            for of in catalog.subcommands(top) {
                self.describe_one(*of, &mut reached, catalog, &mut told);
            }
            self.describe_first_arguments(top, catalog, &mut told);
        }
        told
    }

    /// The category that has more commands in common with these rights than others: the
    /// fewest others, then the most in common.
    fn best_of(&self, categories: &[Category], is_added: bool) -> Option<Category> {
        let mut best: Option<(usize, usize, Category)> = None;
        for category in categories {
            let (mut same, mut different) = (0, 0);
            for of in catalog().all().filter(|of| catalog().is_of(*of, *category)) {
                match self.has(of) == is_added {
                    true => same += 1,
                    false => different += 1,
                }
            }
            let is_better = best.is_none_or(|(least, most, _)| {
                different < least || (different == least && same > most)
            });
            if same > different && is_better {
                best = Some((different, same, *category));
            }
        }
        best.map(|(_, _, category)| category)
    }

    fn describe_one(
        &self,
        of: CommandNumber,
        reached: &mut Rights,
        catalog: &Catalog,
        told: &mut String,
    ) {
        let is_allowed = self.has(of);
        if reached.has(of) != is_allowed {
            let sign = if is_allowed { '+' } else { '-' };
            told.push_str(&format!(" {sign}{}", catalog.name(of)));
            reached.change_bits(of, is_allowed);
        }
    }

    fn describe_first_arguments(&self, of: CommandNumber, catalog: &Catalog, told: &mut String) {
        if self.has(of) {
            return;
        }
        for argument in self.first_arguments.get(&of).into_iter().flatten() {
            let argument = String::from_utf8_lossy(argument);
            told.push_str(&format!(" +{}|{argument}", catalog.name(of)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(name: &str) -> CommandNumber {
        catalog().number(name).expect("known")
    }

    fn category(name: &str) -> Category {
        Category::find(name.as_bytes()).expect("a category")
    }

    #[test]
    fn the_bits_have_room_for_all() {
        assert!(catalog().len() <= WORDS * 64);
        assert!(Rights::all().is_all());
    }

    #[test]
    fn descriptions_are_as_redis_makes_them() {
        let mut rights = Rights::none();
        assert_eq!(rights.describe(), "-@all");
        rights.change(number("get"), true);
        rights.change(number("config|get"), true);
        rights.allow_first_argument(number("select"), b"0");
        assert_eq!(rights.describe(), "-@all +config|get +get +select|0");
        let mut rights = Rights::all();
        rights.change_category(category("dangerous"), false);
        assert_eq!(rights.describe(), "+@all -@dangerous");
        rights.change(number("keys"), true);
        assert!(!rights.is_all());
        // What Redis finds nearest, not what was said.
        assert_eq!(
            rights.describe(),
            "+@all -@admin -flushall -flushdb -info -migrate -restore -restore-asking -sort \
             -sort_ro -swapdb"
        );
    }

    #[test]
    fn a_container_has_its_subcommands_with_it() {
        let mut rights = Rights::none();
        rights.change(number("client"), true);
        assert!(rights.allow(number("client|kill"), None));
        rights.change(number("client|kill"), false);
        assert!(rights.allow(number("client|id"), None));
        assert!(!rights.allow(number("client|kill"), None));
        assert_eq!(rights.describe(), "-@all +client -client|kill");
    }

    #[test]
    fn a_first_argument_opens_a_command() {
        let mut rights = Rights::none();
        let select = number("select");
        rights.allow_first_argument(select, b"0");
        assert!(rights.allow(select, Some(b"0")));
        assert!(!rights.allow(select, Some(b"1")) && !rights.allow(select, None));
        rights.change(select, false);
        assert!(!rights.allow(select, Some(b"0")), "it is closed again");
    }
}
