//! Keys that a request names, and what it does to them: as far as rights ask.
//!
//! Mostly by what is told of the command (`described.tsv`); where that says that it depends
//! on the arguments, by these.

use crate::store::commands::Args;
use crate::store::commands::described::{Begin, Find, KeySpec};

use super::catalog::{CommandNumber, catalog};

/// What is done to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    reads: bool,
    writes: bool,
}

impl Access {
    /// Only that it is there is told, if anything.
    pub const NONE: Access = Access {
        reads: false,
        writes: false,
    };
    /// What it holds is told or copied.
    pub const READ: Access = Access {
        reads: true,
        writes: false,
    };
    /// It is made, changed or removed.
    pub const WRITE: Access = Access {
        reads: false,
        writes: true,
    };
    /// Both.
    pub const ALL: Access = Access {
        reads: true,
        writes: true,
    };

    /// Both of two.
    pub fn and(self, other: Access) -> Access {
        Access {
            reads: self.reads || other.reads,
            writes: self.writes || other.writes,
        }
    }

    /// Whether who may do this may do that.
    pub fn includes(self, other: Access) -> bool {
        (self.reads || !other.reads) && (self.writes || !other.writes)
    }

    /// What stands before a pattern.
    pub fn sign(self) -> &'static [u8] {
        match (self.reads, self.writes) {
            (true, false) => b"%R~",
            (false, true) => b"%W~",
            _ => b"~",
        }
    }

    fn of_spec(spec: &KeySpec) -> Access {
        spec.flags
            .split(' ')
            .fold(Access::NONE, |access, flag| match flag {
                "access" => access.and(Access::READ),
                "insert" | "delete" | "update" => access.and(Access::WRITE),
                _ => access,
            })
    }
}

/// A key of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// Which argument it is.
    pub number: usize,
    /// What is done to it.
    pub access: Access,
}

/// The keys of a request that the command takes.
pub fn keys_of(of: CommandNumber, args: Args<'_>) -> Vec<KeyUse> {
    let catalog = catalog();
    let at = |number: usize, access: Access| KeyUse { number, access };
    match catalog.name(of) {
        "set" => {
            let gets = (3..args.len()).any(|number| args.is(number, "GET"));
            vec![at(1, if gets { Access::ALL } else { Access::WRITE })]
        }
        "bitfield" => {
            let access = match bitfield_only_reads(args) {
                true => Access::READ,
                false => Access::ALL,
            };
            vec![at(1, access)]
        }
        "sort" => {
            let mut keys = vec![at(1, Access::READ)];
            keys.extend(sort_stores_to(args).map(|number| at(number, Access::WRITE)));
            keys
        }
        "sort_ro" => vec![at(1, Access::READ)],
        "migrate" => migrate_keys(args).map(|of| at(of, Access::ALL)).collect(),
        _ => {
            let specs = catalog.described(of).map(|of| of.key_specs());
            let specs = specs.into_iter().flatten();
            let mut keys = Vec::new();
            for spec in specs.filter(|spec| !spec.flags.contains("not_key")) {
                let access = Access::of_spec(&spec);
                let numbers = spec.numbers(args).unwrap_or_default();
                // The command is wrong, and will say so.
                if is_miscounted(&spec, args, numbers.len()) {
                    return Vec::new();
                }
                let in_it = numbers.into_iter().filter(|number| *number < args.len());
                keys.extend(in_it.map(|number| at(number, access)));
            }
            keys
        }
    }
}

/// Whether a number of keys is told that are not there.
fn is_miscounted(spec: &KeySpec, args: Args<'_>, found: usize) -> bool {
    let (Begin::Index(begin), Find::Number { index, .. }) = (spec.begin, spec.find) else {
        return false;
    };
    let number = usize::try_from(begin + index).unwrap_or(usize::MAX);
    let told = args.integer(number).ok();
    told.and_then(|count| usize::try_from(count).ok()) != Some(found) || found == 0
}

fn bitfield_only_reads(args: Args<'_>) -> bool {
    let mut at = 2;
    while at < args.len() {
        let left = args.len() - at - 1;
        if args.is(at, "GET") && left >= 2 {
            at += 3;
        } else if args.is(at, "OVERFLOW") && left >= 1 {
            at += 2;
        } else {
            return false;
        }
    }
    true
}

/// The words of SORT that take others behind them.
fn sort_word(args: Args<'_>, at: usize) -> Option<(&'static str, usize)> {
    let words = [("LIMIT", 2), ("STORE", 1), ("BY", 1), ("GET", 1)];
    let is_it = |(word, takes): &(&str, usize)| args.is(at, word) && at + takes < args.len();
    words.into_iter().find(is_it)
}

fn sort_words(args: Args<'_>) -> impl Iterator<Item = (usize, &'static str)> {
    let mut at = 2;
    std::iter::from_fn(move || {
        while at < args.len() {
            let here = at;
            match sort_word(args, here) {
                Some((word, takes)) => {
                    at += 1 + takes;
                    return Some((here, word));
                }
                None => at += 1,
            }
        }
        None
    })
}

fn sort_stores_to(args: Args<'_>) -> Option<usize> {
    let stores = sort_words(args).filter(|(_, word)| *word == "STORE");
    stores.last().map(|(at, _)| at + 1)
}

/// The first option of SORT that reads keys by a pattern: these are not among its keys.
pub fn sort_reads_by_pattern(args: Args<'_>) -> Option<&'static str> {
    let reads = |(at, word): &(usize, &'static str)| match *word {
        "BY" => args.at(at + 1).contains(&b'*'),
        "GET" => true,
        _ => false,
    };
    sort_words(args).find(reads).map(|(_, word)| word)
}

fn migrate_keys(args: Args<'_>) -> std::ops::Range<usize> {
    let mut at = 6;
    while at < args.len() && args.at(3).is_empty() {
        if args.is(at, "KEYS") {
            return at + 1..args.len();
        }
        at += match (args.is(at, "AUTH"), args.is(at, "AUTH2")) {
            (true, _) => 2,
            (_, true) => 3,
            _ => 1,
        };
    }
    3..4.min(args.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::commands::OwnedRequest;

    fn told(line: &str) -> String {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let request = OwnedRequest::from_words(&words).expect("a request");
        let of = catalog().find(words[0]).expect("a command");
        let keys = keys_of(of, request.args());
        let told = keys.iter().map(|of| {
            let letters = [(of.access.reads, 'R'), (of.access.writes, 'W')];
            let letters: String = letters.iter().filter(|of| of.0).map(|of| of.1).collect();
            format!("{}{letters}", of.number)
        });
        told.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn keys_and_what_is_done_to_them() {
        for (line, keys) in [
            ("get k", "1R"),
            ("set k v", "1W"),
            ("set k v get", "1RW"),
            ("exists a b", "1 2"),
            ("copy a b", "1R 2W"),
            ("bitfield k get u8 0", "1R"),
            ("bitfield k set u8 0 1", "1RW"),
            ("sort k by w:* store d", "1R 5W"),
            ("georadius k 1 2 3 m store d", "1R 7W"),
            ("georadius k 1 2 3 m", "1R"),
            ("eval s 1 k a", "3RW"),
            ("zunionstore d 2 a b", "1W 3R 4R"),
            ("zunionstore d 3 a b", ""),
            ("zunionstore d x a b", ""),
            ("migrate h 1 k 0 5", "3RW"),
            ("publish c m", ""),
            ("ssubscribe c", ""),
        ] {
            assert_eq!(told(line), keys, "{line}");
        }
    }

    #[test]
    fn migrate_has_keys_behind_a_word() {
        let words: [&[u8]; 9] = [b"migrate", b"h", b"1", b"", b"0", b"5", b"KEYS", b"a", b"b"];
        let request = OwnedRequest::from_words(&words).expect("a request");
        assert_eq!(migrate_keys(request.args()), 7..9);
    }
}
