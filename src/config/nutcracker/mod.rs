//! nutcracker.yml as it is: the file of twemproxy, told what twemproxy tells.
//!
//! ```text
//! text --tree--> pools of directives --draft--> Draft --meaning--> Config
//!        shape,               each value           whole pools, and
//!        raw scalars          by itself            what this build can do
//! ```
//!
//! Scalars stay as they were typed: `redis_auth: 0123` is a text of four bytes,
//! and only `true` and `false` are switches. What is wrong is said in the words
//! of the original's log, without its prefix `conf: `. Beyond the original,
//! mistakes in values are all named, not only the first.
//!
//! Invariant: the layout of a pool is the one twemproxy uses. Names and order
//! of servers are left to `router::layout`, which makes them once.

mod draft;
mod meaning;
mod server_line;
mod tree;
mod umask;

#[cfg(test)]
mod tests;

use std::path::Path;

use super::problem::{ConfigError, Position, Problem};
use super::process::Config;

use draft::Draft;
use tree::Place;

/// Something wrong at one place.
#[derive(Debug)]
struct Fault {
    at: Place,
    /// The text there, without secrets.
    text: String,
    what: String,
    help: &'static str,
}

/// Whether `text` is a nutcracker.yml rather than TOML: its first line that
/// says something is `name:`, or a marker that only YAML has. In TOML that
/// line is a `[header]` or `key = value`.
pub fn is_nutcracker(text: &str) -> bool {
    let said = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let Some(line) = text.lines().map(str::trim).find(said) else {
        return false;
    };
    if line.starts_with("---") || line.starts_with('%') {
        return true;
    }
    if line.starts_with('[') {
        return false;
    }
    let colon = line
        .find(": ")
        .or_else(|| line.strip_suffix(':').map(str::len));
    match (colon, line.find('=')) {
        (Some(colon), Some(equals)) => colon < equals,
        (colon, None) => colon.is_some(),
        (None, Some(_)) => false,
    }
}

/// The meaning of `text`, the content of `file`.
///
/// # Errors
/// What the original would say first; and all wrong values, if only those are.
pub fn parse(file: &Path, text: &str) -> Result<Config, ConfigError> {
    let wrong = |faults: Vec<Fault>| {
        let problems = faults.into_iter().map(|fault| Problem {
            what: fault.what,
            at: Position {
                file: file.to_owned(),
                line: fault.at.line,
                column: fault.at.column,
                text: fault.text,
            },
            help: fault.help.to_owned(),
        });
        ConfigError::Wrong(problems.collect())
    };
    let name = file.display().to_string();
    let pools = tree::read(&name, text).map_err(|fault| wrong(vec![fault]))?;
    let mut drafts = Vec::with_capacity(pools.len());
    let mut faults = Vec::new();
    for pool in pools {
        drafts.push(Draft::of(pool, &mut faults));
    }
    if !faults.is_empty() {
        return Err(wrong(faults));
    }
    meaning::config(&name, drafts).map_err(wrong)
}
