//! All commands of Redis 7.0 by number, and their categories: what rules are about.
//!
//! Also those that this shard does not run are here, so that rules written for a Redis mean
//! the same.

use std::collections::HashMap;
use std::sync::OnceLock;

use foldhash::fast::RandomState;

use crate::store::commands::described::{self, Described};

/// In the order of ACL CAT.
pub const CATEGORIES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// One of [`CATEGORIES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Category(u8);

impl Category {
    /// By its name, in any case of its letters.
    pub fn find(name: &[u8]) -> Option<Self> {
        let mut names = CATEGORIES.iter();
        let at = names.position(|of| of.as_bytes().eq_ignore_ascii_case(name))?;
        u8::try_from(at).ok().map(Category)
    }

    /// All.
    pub fn all() -> impl Iterator<Item = Category> {
        (0..CATEGORIES.len() as u8).map(Category)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        CATEGORIES.get(usize::from(self.0)).copied().unwrap_or("")
    }
}

/// A command's or a subcommand's number; it is only good in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandNumber(u16);

impl CommandNumber {
    /// As an index.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

#[derive(Debug)]
struct Entry {
    described: &'static Described,
    /// Bits, as [`Category`] counts them.
    categories: u32,
    /// Of a subcommand.
    parent: Option<CommandNumber>,
    /// Of a container.
    subcommands: Vec<CommandNumber>,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Catalog {
    entries: Vec<Entry>,
    by_name: HashMap<&'static str, CommandNumber, RandomState>,
}

/// Longest name, with a container's: `cluster|count-failure-reports` has 29 bytes.
const NAME_BYTES_MAX: usize = 64;

/// The catalog.
pub fn catalog() -> &'static Catalog {
    static CATALOG: OnceLock<Catalog> = OnceLock::new();
    CATALOG.get_or_init(Catalog::new)
}

impl Catalog {
    fn new() -> Self {
        let mut all: Vec<&'static Described> = described::iter().collect();
        all.sort_unstable_by_key(|of| of.name);
        let number = |at: usize| CommandNumber(u16::try_from(at).unwrap_or(u16::MAX));
        let by_name: HashMap<_, _, _> = all
            .iter()
            .enumerate()
            .map(|(at, of)| (of.name, number(at)))
            .collect();
        let mut entries: Vec<Entry> = all
            .into_iter()
            .map(|described| Entry {
                described,
                categories: bits(described.categories),
                parent: described
                    .name
                    .split_once('|')
                    .and_then(|(container, _)| by_name.get(container).copied()),
                subcommands: Vec::new(),
            })
            .collect();
        for at in 0..entries.len() {
            if let Some(parent) = entries[at].parent {
                entries[parent.index()].subcommands.push(number(at));
            }
        }
        Self { entries, by_name }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// By its name in lower case, a subcommand's with its container's: `client|list`.
    pub fn number(&self, name: &str) -> Option<CommandNumber> {
        self.by_name.get(name).copied()
    }

    /// The same in any case of its letters.
    pub fn find(&self, name: &[u8]) -> Option<CommandNumber> {
        let name = std::str::from_utf8(name).ok()?;
        match name.len() <= NAME_BYTES_MAX {
            true => self.number(&name.to_ascii_lowercase()),
            false => None,
        }
    }

    /// All that are no subcommands, by name.
    pub fn tops(&self) -> impl Iterator<Item = CommandNumber> {
        let tops = self.entries.iter().enumerate();
        tops.filter(|(_, entry)| entry.parent.is_none())
            .map(|(at, _)| CommandNumber(at as u16))
    }

    /// All, by name.
    pub fn all(&self) -> impl Iterator<Item = CommandNumber> {
        (0..self.entries.len()).map(|at| CommandNumber(at as u16))
    }

    /// What is known of one.
    pub fn described(&self, of: CommandNumber) -> Option<&'static Described> {
        self.entries.get(of.index()).map(|entry| entry.described)
    }

    /// Its name, a subcommand's with its container's.
    pub fn name(&self, of: CommandNumber) -> &'static str {
        self.described(of).map_or("", |of| of.name)
    }

    /// Whether it is a subcommand.
    pub fn is_subcommand(&self, of: CommandNumber) -> bool {
        let entry = self.entries.get(of.index());
        entry.is_some_and(|entry| entry.parent.is_some())
    }

    /// Those of a container; none of others.
    pub fn subcommands(&self, of: CommandNumber) -> &[CommandNumber] {
        let entry = self.entries.get(of.index());
        entry.map_or(&[], |entry| entry.subcommands.as_slice())
    }

    /// Whether it is of a category.
    pub fn is_of(&self, of: CommandNumber, category: Category) -> bool {
        let entry = self.entries.get(of.index());
        entry.is_some_and(|entry| entry.categories & (1 << category.0) != 0)
    }
}

fn bits(categories: &str) -> u32 {
    let found = categories
        .split(' ')
        .filter_map(|name| Category::find(name.as_bytes()));
    found.fold(0, |bits, category| bits | 1 << category.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_runs_here_is_known() {
        let catalog = catalog();
        for family in crate::store::session::FAMILIES {
            for command in *family {
                assert!(catalog.number(command.name).is_some(), "{}", command.name);
            }
        }
        assert!(catalog.len() > 350);
    }

    #[test]
    fn containers_know_their_subcommands() {
        let catalog = catalog();
        let client = catalog.find(b"CLIENT").expect("known");
        let list = catalog.find(b"Client|List").expect("known");
        assert!(catalog.subcommands(client).contains(&list));
        assert!(catalog.is_subcommand(list) && !catalog.is_subcommand(client));
        let admin = Category::find(b"ADMIN").expect("a category");
        assert!(catalog.is_of(list, admin) && !catalog.is_of(client, admin));
        assert!(catalog.tops().all(|of| !catalog.is_subcommand(of)));
    }
}
