//! What is wrong with a config, and how it is said:
//!
//! ```text
//! error: unknown key `levle`
//!   configs/prod.toml:4:1  log.levle
//!   help: did you mean `level`?
//! ```
//!
//! Invariant: a problem never quotes a secret; values of the keys in
//! [`SECRET_KEYS`] are printed as `"***"`.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Keys whose values are never printed.
pub const SECRET_KEYS: [&str; 3] = ["password", "token", "auth"];

/// Longest piece of the file that a problem quotes, in characters.
const QUOTE_CHARS_MAX: usize = 120;

/// A config that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("error: cannot read the config: {cause}\n  {}\n  help: {}", file.display(), read_help(cause))]
    Unreadable {
        /// As it was named.
        file: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The file was read and says something wrong; every problem found, in
    /// the order of the file.
    #[error("{}", Listing(.0))]
    Wrong(Vec<Problem>),
}

/// One thing that is wrong at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, without a full stop.
    pub what: String,
    /// Where.
    pub at: Position,
    /// What to do about it.
    pub help: String,
}

/// A place in a file and the text there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// As it was named on the command line.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The offending text, on one line.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.what)?;
        let Position {
            file,
            line,
            column,
            text,
        } = &self.at;
        let gap = if text.is_empty() { "" } else { "  " };
        writeln!(f, "  {}:{line}:{column}{gap}{text}", file.display())?;
        write!(f, "  help: {}", self.help)
    }
}

struct Listing<'a>(&'a [Problem]);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            write!(f, "{gap}{problem}")?;
        }
        Ok(())
    }
}

fn read_help(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::NotFound => "check the path after -c",
        io::ErrorKind::PermissionDenied => "let this user read the file",
        io::ErrorKind::InvalidData => "a config is UTF-8 text",
        _ => "check that this is a regular file",
    }
}

/// Cuts `text` to one line of bounded length.
pub fn quote(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim();
    let cut = line.chars().count() > QUOTE_CHARS_MAX || text.trim_end().lines().count() > 1;
    let mut quoted: String = line.chars().take(QUOTE_CHARS_MAX).collect();
    if cut {
        quoted.push_str(" ...");
    }
    quoted
}

/// As [`quote`], for a line that did not parse: what follows the `=` of a key
/// that looks like one of [`SECRET_KEYS`] is left out.
pub fn quote_unparsed(line: &str) -> String {
    let Some((key, _)) = line.split_once(['=', ':']) else {
        return quote(line);
    };
    let looks_secret = |word: &str| {
        SECRET_KEYS
            .iter()
            .any(|secret| strsim::jaro_winkler(word, secret) > 0.85)
    };
    let words = line.split(|c: char| !c.is_ascii_alphanumeric());
    if words
        .map(str::to_ascii_lowercase)
        .any(|word| looks_secret(&word))
    {
        return format!("{} = \"***\"", key.trim());
    }
    quote(line)
}

/// The closest of `known` to `given`, if it is close enough to be meant.
pub fn closest<'k>(given: &str, known: &[&'k str]) -> Option<&'k str> {
    const MEANT: f64 = 0.78;
    let scored = known
        .iter()
        .map(|&word| (strsim::jaro_winkler(given, word), word));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (best.0 >= MEANT).then_some(best.1)
}
