//! Generators, one file a group. A group is a name of `table.rs` and a recipe for each
//! of its commands.

pub mod acl;
mod bits;
mod computed;
mod connection;
mod curated;
mod databases;
mod functions;
mod generic;
mod geo;

mod hash;
mod hll;
mod list;

mod script;
mod server;
mod set;
mod sort;

mod stream;
mod string;
mod transactions;
mod zset;

use super::dice::Dice;
use super::line::Line;

/// How one command is made up.
pub struct Recipe {
    /// As in `table.rs`.
    pub name: &'static str,
    /// How often it comes, compared with the group's other ones.
    pub weight: u32,
    /// Makes one, and what must follow it.
    pub make: fn(&mut Dice) -> Line,
}

impl Recipe {
    const fn new(name: &'static str, weight: u32, make: fn(&mut Dice) -> Line) -> Recipe {
        Recipe { name, weight, make }
    }
}

/// Recipes under one name.
pub struct Group {
    /// As in `table.rs`.
    pub name: &'static str,
    /// Several of them may make the same command.
    pub recipes: &'static [Recipe],
}

/// All groups.
pub const GROUPS: &[Group] = &[
    string::GROUP,
    bits::GROUP,
    hll::GROUP,
    hash::GROUP,
    list::GROUP,
    set::GROUP,
    zset::GROUP,
    generic::GROUP,
    sort::GROUP,
    databases::GROUP,
    transactions::GROUP,
    connection::GROUP,
    stream::GROUP,
    geo::GROUP,
    script::GROUP,
    acl::GROUP,
    functions::GROUP,
    server::GROUP,
];

/// The group of this name.
pub fn group(name: &str) -> &'static Group {
    let found = GROUPS.iter().find(|group| group.name == name);
    found.unwrap_or_else(|| panic!("no group is called {name:?}"))
}

/// Every group's name.
pub fn names() -> Vec<&'static str> {
    GROUPS.iter().map(|group| group.name).collect()
}
