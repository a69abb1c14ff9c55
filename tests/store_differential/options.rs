//! Words that redis-server 7.0 knows as options of its commands, by COMMAND DOCS: each has to
//! be sent, and taken, at least once in a long run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use super::support::{RedisServer, Value};
use super::table;

/// Options that no group sends, or that are never taken, and why.
const NEVER_TAKEN: &[(&str, &[&str], &str)] = &[];

type Options = BTreeMap<String, BTreeSet<String>>;

/// By command.
fn all() -> &'static Options {
    static ALL: OnceLock<Options> = OnceLock::new();
    ALL.get_or_init(|| {
        let docs = RedisServer::start(&[]).client().call(&["COMMAND", "DOCS"]);
        let mut found = Options::new();
        describe(&docs, &mut found);
        found
    })
}

fn pairs(items: &[Value]) -> impl Iterator<Item = (String, &Value)> {
    items.chunks_exact(2).map(|pair| (pair[0].text(), &pair[1]))
}

/// Commands, and their subcommands.
fn describe(docs: &Value, found: &mut Options) {
    for (name, about) in pairs(docs.items()) {
        for (field, value) in pairs(about.items()) {
            match field.as_str() {
                "arguments" => tokens(value, found.entry(name.to_uppercase()).or_default()),
                "subcommands" => describe(value, found),
                _ => {}
            }
        }
    }
}

fn tokens(arguments: &Value, found: &mut BTreeSet<String>) {
    for argument in arguments.items() {
        for (field, value) in pairs(argument.items()) {
            match field.as_str() {
                "token" => {
                    found.insert(value.text().to_uppercase());
                }
                "arguments" => tokens(value, found),
                _ => {}
            }
        }
    }
}

/// Whether a word, in capitals, is an option of the command.
pub fn is_option(command: &str, word: &str) -> bool {
    all().get(command).is_some_and(|of| of.contains(word))
}

/// Options of the groups' commands that are not among those that were taken, unless there is
/// a reason; and reasons that are none any more.
pub fn missing(groups: &[&str], taken: &BTreeSet<(String, String)>) -> Vec<String> {
    let may_miss = |command: &str, option: &str| {
        let of = NEVER_TAKEN.iter().find(|(name, ..)| *name == command);
        of.is_some_and(|(_, options, _)| options.contains(&option))
    };
    let mut faults = Vec::new();
    for command in table::commands_of(groups) {
        for option in all().get(command).into_iter().flatten() {
            let is_taken = taken.contains(&(command.to_owned(), option.clone()));
            match (is_taken, may_miss(command, option)) {
                (false, false) => faults.push(format!("{command} never took {option}")),
                (true, true) => faults.push(format!("{command} takes {option} by now")),
                _ => {}
            }
        }
    }
    faults
}
