//! What Redis 7.0 says of its commands: for COMMAND, and to know subcommands by name.
//!
//! The words are in `described.tsv` and `help.txt`; which of the commands are here is the
//! table's business.

use std::collections::HashMap;
use std::sync::OnceLock;

use foldhash::fast::RandomState;

use super::args::Args;

const DESCRIBED: &str = include_str!("described.tsv");
const HELP: &str = include_str!("help.txt");
const FIELDS: usize = 11;

/// A command or a subcommand, `client|list`.
#[derive(Clone, Copy, Debug)]
pub struct Described {
    /// Name, of a subcommand with its container's.
    pub name: &'static str,
    /// As in [`super::Command::arity`].
    pub arity: i8,
    /// Flags, separated by blanks.
    pub flags: &'static str,
    /// First key, last key, step.
    pub keys: [i64; 3],
    /// ACL categories, separated by blanks, without the `@`.
    pub categories: &'static str,
    /// Separated by semicolons.
    pub tips: &'static str,
    /// See [`Described::key_specs`].
    specs: &'static str,
    /// First version of Redis that had it.
    pub since: &'static str,
    /// What family it is of.
    pub group: &'static str,
    /// How its time grows; may be empty.
    pub complexity: &'static str,
    /// What it does.
    pub summary: &'static str,
}

/// Where keys are, and what is done to them.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    /// For people; mostly empty.
    pub notes: &'static str,
    /// Separated by blanks.
    pub flags: &'static str,
    /// Where to begin.
    pub begin: Begin,
    /// How to go on from there.
    pub find: Find,
}

/// Where to begin looking for keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At an argument.
    Index(i64),
    /// Behind a word, looked for from an argument on; from the end if it is negative.
    Keyword(&'static str, i64),
    /// Only the command knows.
    Unknown,
}

/// How to find keys from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Find {
    /// Up to an argument (relative; negative from the end), in steps; of what is left one
    /// part in `limit`.
    Range {
        /// The last one.
        last: i64,
        /// From key to key.
        step: i64,
        /// 0 and 1 are all.
        limit: i64,
    },
    /// A number says how many.
    Number {
        /// Where the number is.
        index: i64,
        /// Where the first key is.
        first: i64,
        /// From key to key.
        step: i64,
    },
    /// Only the command knows.
    Unknown,
}

type ByName = HashMap<&'static str, Described, RandomState>;

fn all() -> &'static ByName {
    static ALL: OnceLock<ByName> = OnceLock::new();
    ALL.get_or_init(|| {
        let lines = DESCRIBED.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(read)
            .map(|described| (described.name, described))
            .collect()
    })
}

fn read(line: &'static str) -> Option<Described> {
    let fields: Vec<&str> = line.split('\t').collect();
    let fields: [&'static str; FIELDS] = fields.try_into().ok()?;
    let [
        name,
        arity,
        flags,
        keys,
        categories,
        tips,
        specs,
        since,
        group,
        complexity,
        summary,
    ] = fields;
    Some(Described {
        name,
        arity: arity.parse().ok()?,
        flags,
        keys: numbers(keys)?,
        categories,
        tips,
        specs,
        since,
        group,
        complexity,
        summary,
    })
}

fn numbers<const N: usize>(text: &str) -> Option<[i64; N]> {
    let numbers: Option<Vec<i64>> = text.split(' ').map(|word| word.parse().ok()).collect();
    numbers?.try_into().ok()
}

/// What is said of a command, or of a subcommand as `client|list`, in lower case.
pub fn find(name: &str) -> Option<&'static Described> {
    all().get(name)
}

/// All of them, in no order.
pub fn iter() -> impl Iterator<Item = &'static Described> {
    all().values()
}

/// Whether a command's second word is a command's name too.
pub fn is_container(name: &str) -> bool {
    matches!(
        name,
        "acl"
            | "client"
            | "cluster"
            | "command"
            | "config"
            | "function"
            | "latency"
            | "memory"
            | "module"
            | "object"
            | "pubsub"
            | "script"
            | "slowlog"
            | "xgroup"
            | "xinfo"
    )
}

/// A subcommand of a container, in any case of its letters.
pub fn subcommand(container: &str, name: &[u8]) -> Option<&'static Described> {
    let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
    find(&format!("{container}|{name}"))
}

/// All subcommands of a container, by name.
pub fn subcommands(container: &str) -> Vec<&'static Described> {
    let is_of = |described: &&Described| {
        described
            .name
            .split_once('|')
            .is_some_and(|(of, _)| of == container)
    };
    let mut found: Vec<_> = all().values().filter(is_of).collect();
    found.sort_by_key(|described| described.name);
    found
}

/// The lines of a container's HELP.
pub fn help(container: &str) -> Option<Vec<&'static str>> {
    let mut lines = HELP
        .lines()
        .skip_while(|line| line.strip_prefix("== ") != Some(container));
    lines.next()?;
    Some(lines.take_while(|line| !line.starts_with("== ")).collect())
}

impl Described {
    /// Whether a flag is among its flags.
    pub fn has_flag(&self, flag: &str) -> bool {
        self.flags.split(' ').any(|of| of == flag)
    }

    /// Whether it takes so many arguments, container and name counted.
    pub fn takes(&self, args: usize) -> bool {
        let wanted = usize::from(self.arity.unsigned_abs());
        match self.arity < 0 {
            true => args >= wanted,
            false => args == wanted,
        }
    }

    /// Where its keys are.
    pub fn key_specs(&self) -> Vec<KeySpec> {
        let specs = self.specs.split(';').filter(|spec| !spec.is_empty());
        specs.filter_map(key_spec).collect()
    }
}

fn key_spec(text: &'static str) -> Option<KeySpec> {
    let mut parts = text.split('|');
    let (notes, flags) = (parts.next()?, parts.next()?);
    let begin = parts.next()?;
    let begin = match begin.split_once(' ') {
        Some(("index", at)) => Begin::Index(at.parse().ok()?),
        Some(("keyword", rest)) => {
            let (word, from) = rest.split_once(' ')?;
            Begin::Keyword(word, from.parse().ok()?)
        }
        _ => Begin::Unknown,
    };
    let find = match parts.next()?.split_once(' ') {
        Some(("range", rest)) => {
            let [last, step, limit] = numbers(rest)?;
            Find::Range { last, step, limit }
        }
        Some(("keynum", rest)) => {
            let [index, first, step] = numbers(rest)?;
            Find::Number { index, first, step }
        }
        _ => Find::Unknown,
    };
    Some(KeySpec {
        notes,
        flags,
        begin,
        find,
    })
}

impl KeySpec {
    /// Numbers of the arguments that are keys. `None` if only the command knows.
    pub fn numbers(&self, args: Args<'_>) -> Option<Vec<usize>> {
        let len = i64::try_from(args.len()).ok()?;
        let begin = match self.begin {
            Begin::Index(at) => at,
            Begin::Keyword(word, from) => {
                let from_end = from < 0;
                let start = if from_end { len + from } else { from };
                let mut at = start;
                loop {
                    if at < 1 || at >= len {
                        return Some(Vec::new());
                    }
                    if args.is(usize::try_from(at).ok()?, word) {
                        break at + 1;
                    }
                    at += if from_end { -1 } else { 1 };
                }
            }
            Begin::Unknown => return None,
        };
        let (first, last, step) = match self.find {
            Find::Range { last, step, limit } => {
                let last = match last {
                    0.. => begin + last,
                    -1 if limit > 1 => begin + (len - begin) / limit + last,
                    _ => len + last,
                };
                (begin, last, step)
            }
            Find::Number { index, first, step } => {
                let number = usize::try_from(begin + index).ok()?;
                let count = args.integer(number).ok().filter(|count| *count >= 0);
                let Some(count) = count.filter(|count| *count <= len) else {
                    return Some(Vec::new());
                };
                let first = begin + first;
                (first, first + (count - 1) * step.max(1), step)
            }
            Find::Unknown => return None,
        };
        let last = usize::try_from(last.min(len - 1)).unwrap_or(0);
        let first = usize::try_from(first).ok()?;
        let step = usize::try_from(step.max(1)).ok()?;
        Some((first..=last).step_by(step).filter(|at| *at > 0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::commands::OwnedRequest;

    #[test]
    fn every_line_is_read() {
        let lines = DESCRIBED.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(lines.count(), all().len());
        for described in all().values() {
            let specs = described.specs.split(';').filter(|spec| !spec.is_empty());
            assert_eq!(
                described.key_specs().len(),
                specs.count(),
                "{}",
                described.name
            );
        }
        assert!(help("client").is_some_and(|lines| lines.len() > 10));
        assert!(subcommand("client", b"List").is_some());
    }

    #[test]
    fn keys_are_found_where_the_specs_say() {
        for (line, keys) in [
            ("get k", vec![vec![1]]),
            ("mset a 1 b 2", vec![vec![1, 3]]),
            ("zunionstore d 2 a b", vec![vec![1], vec![3, 4]]),
            ("xread count 2 streams a b 0 0", vec![vec![4, 5]]),
            ("eval x 0", vec![vec![]]),
            ("eval x nan", vec![vec![]]),
        ] {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let request = OwnedRequest::from_words(&words).expect("a request");
            let described = find(line.split(' ').next().unwrap_or_default()).expect("a command");
            let found: Vec<_> = described
                .key_specs()
                .iter()
                .map(|spec| spec.numbers(request.args()).expect("numbers"))
                .collect();
            assert_eq!(found, keys, "{line}");
        }
    }
}
