//! Whether two replies to one command agree. They do when their bytes are the same.
//! Less is asked only where Redis promises less:
//!
//! | how          | of                                      | asked                        |
//! |--------------|-----------------------------------------|------------------------------|
//! | Exact        | everything else                         | the same bytes               |
//! | Unordered    | SINTER, KEYS, ...                       | the same elements, any order |
//! | UnlessTable  | HGETALL, SMEMBERS, SORT BY nosort       | order, unless a hash table   |
//! | About        | TTL, PEXPIRETIME ..                     | within a tolerance           |
//! | Moments      | XPENDING, XINFO                         | times within a tolerance     |
//! | SameKind     | DUMP, TIME, OBJECT REFCOUNT, IDLETIME   | both null, both strings ...  |
//! | SameLength   | SORT ALPHA BY weight:* LIMIT            | as many elements             |
//! | TableLength  | SORT BY nosort LIMIT of a hash table    | as many elements             |
//! | Rules        | ACL GETUSER, ACL LIST                   | single commands in any order |
//! | Lexical      | ZLEXCOUNT, ZRANGE BYLEX, ...            | see `lexical.rs`             |
//! | Drawn        | SPOP, RANDOMKEY, ...                    | see `drawn.rs`               |
//! | Scanned      | SCAN, HSCAN, ...                        | see `scanned.rs`             |

use super::lexical;
use super::line::{Line, upper};
use super::reply::{elements, integer, is_aggregate, is_error, is_null, kind, leaves, text};

/// How far two times of one key may be apart: each side had the command at a time of
/// its own. Keys have far longer to live.
const TOLERANCE_MS: i64 = 60_000;

/// What is asked of two replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The same bytes.
    Exact,
    /// The same elements.
    Unordered {
        /// How many elements belong together.
        width: usize,
    },
    /// The same bytes, or the same elements if the key at `words[1]` is a hash table.
    UnlessTable {
        /// How many elements belong together.
        width: usize,
    },
    /// Integers that are nearly the same, except for negative ones.
    About {
        /// How far apart they may be.
        by: i64,
    },
    /// The same, except for times, which are nearly the same, and for how a stream is
    /// packed.
    Moments {
        /// Whether it is XPENDING's list: id, consumer, how long it waits, how often it
        /// was given.
        is_pending: bool,
    },
    /// Both of one kind.
    SameKind,
    /// As many elements.
    SameLength,
    /// As many elements of a hash table; the same bytes of anything else.
    TableLength,
    /// Rules of users, whose `+command` and `-command` come as they lie in a hash table.
    Rules,
    /// The same bytes, where names have an order.
    Lexical,
    /// Random elements.
    Drawn,
    /// A cursor is followed.
    Scanned,
}

/// What is asked of the replies to this command.
pub fn how(line: &Line) -> How {
    let by_seconds = How::About {
        by: TOLERANCE_MS / 1000,
    };
    match line.name().as_str() {
        "SINTER" | "SUNION" | "SDIFF" | "KEYS" | "PUBSUB" => How::Unordered { width: 1 },
        "ACL" => match upper(line.words.get(1)).as_str() {
            "GETUSER" | "LIST" => How::Rules,
            "CAT" => How::Unordered { width: 1 },
            "GENPASS" => How::SameKind,
            _ => How::Exact,
        },
        "SMEMBERS" | "HKEYS" | "HVALS" => How::UnlessTable { width: 1 },
        "HGETALL" => How::UnlessTable { width: 2 },
        "XPENDING" if line.words.len() > 3 => How::Moments { is_pending: true },
        "XINFO" => How::Moments { is_pending: false },
        "GEOSEARCH"
        | "GEORADIUS"
        | "GEORADIUS_RO"
        | "GEORADIUSBYMEMBER"
        | "GEORADIUSBYMEMBER_RO" => how_found(line),
        "TTL" | "EXPIRETIME" => by_seconds,
        "PTTL" | "PEXPIRETIME" => How::About { by: TOLERANCE_MS },
        "OBJECT" => match upper(line.words.get(1)).as_str() {
            // Ours knows only what is cached: a long run has keys that were idle for a while.
            "IDLETIME" | "REFCOUNT" => How::SameKind,
            _ => How::Exact,
        },
        "FUNCTION" => match upper(line.words.get(1)).as_str() {
            "LIST" => How::Unordered { width: 1 },
            // Texts may be packed.
            "DUMP" => How::SameKind,
            _ => How::Exact,
        },
        "DUMP" | "TIME" | "LASTSAVE" => How::SameKind,
        "SPOP" | "SRANDMEMBER" | "HRANDFIELD" | "ZRANDMEMBER" | "RANDOMKEY" => How::Drawn,
        "SCAN" | "HSCAN" | "SSCAN" | "ZSCAN" => How::Scanned,
        "SORT" | "SORT_RO" => how_sorted(line),
        _ if lexical::is_lexical(line) => How::Lexical,
        _ => How::Exact,
    }
}

/// Without an order of its own, SORT gives a set's elements as they lie; ALPHA with
/// weights leaves open in what order those of one weight come.
fn how_sorted(line: &Line) -> How {
    let words: Vec<String> = (2..line.words.len())
        .map(|at| upper(line.words.get(at)))
        .collect();
    let has = |name: &str| words.iter().any(|word| word == name);
    let by = words
        .iter()
        .position(|word| word == "BY")
        .and_then(|at| words.get(at + 1));
    let Some(by) = by else {
        return How::Exact;
    };
    match (by.contains('*'), has("LIMIT")) {
        (true, _) if !has("ALPHA") => How::Exact,
        (true, true) => How::SameLength,
        (false, true) => How::TableLength,
        (true, false) => How::Unordered { width: 1 },
        (false, false) => How::UnlessTable { width: 1 },
    }
}

/// Without ASC, DESC or COUNT, which sorts, places come as they are found; with ANY
/// those that are found first.
fn how_found(line: &Line) -> How {
    let has = |name: &str| line.words.iter().any(|word| upper(Some(word)) == name);
    match (has("ANY"), has("ASC") || has("DESC") || has("COUNT")) {
        (true, _) => How::SameLength,
        (false, true) => How::Exact,
        (false, false) => How::Unordered { width: 1 },
    }
}

impl How {
    /// Whether the encoding of the key at `words[1]` has to be known.
    pub fn needs_encoding(self) -> bool {
        matches!(self, How::UnlessTable { .. } | How::TableLength)
    }

    /// Whether other commands have to be sent with it, whose replies say how it goes on.
    pub fn is_alone(self) -> bool {
        matches!(self, How::Drawn | How::Scanned | How::Lexical)
    }
}

/// What is wrong about the `other` side's reply. `is_table` says whether the key is a
/// hash table, if that is known.
pub fn judge(how: How, is_table: Option<bool>, reference: &[u8], other: &[u8]) -> Option<String> {
    if reference == other {
        return None;
    }
    if is_error(reference) || is_error(other) || is_null(reference) || is_null(other) {
        return Some("the replies differ".into());
    }
    if kind(reference) != kind(other) {
        return Some("the replies are of different kinds".into());
    }
    let may_be_table = is_table != Some(false);
    match how {
        How::SameKind => None,
        How::Rules if leaves(reference).len() == leaves(other).len() => {
            let sorted = |raw| -> Vec<Vec<u8>> { leaves(raw).into_iter().map(rules).collect() };
            (sorted(reference) != sorted(other)).then(|| "the rules differ".into())
        }
        How::Moments { is_pending } => moments(is_pending, reference, other),
        How::About { by } => about(by, reference, other),
        How::Unordered { width } => unordered(width, reference, other),
        How::UnlessTable { width } if may_be_table => unordered(width, reference, other),
        How::UnlessTable { .. } if unordered(1, reference, other).is_none() => {
            Some("the elements are in another order, and the encoding is a compact one".into())
        }
        How::SameLength => same_length(reference, other),
        How::TableLength if may_be_table => same_length(reference, other),
        _ => Some("the replies differ".into()),
    }
}

/// A text of rules with each run of single commands in alphabetical order.
fn rules(leaf: &[u8]) -> Vec<u8> {
    let text = text(leaf).unwrap_or(leaf);
    let is_rule = |word: &[u8]| word.starts_with(b"+") || word.starts_with(b"-");
    let words: Vec<&[u8]> = text.split(|byte| *byte == b' ').collect();
    let mut sorted: Vec<u8> = Vec::new();
    for run in words.chunk_by(|one, other| is_rule(one) && is_rule(other)) {
        let ends = run
            .last()
            .is_some_and(|word| is_rule(word) && word.ends_with(b")"));
        let mut run: Vec<&[u8]> = run.to_vec();
        if ends && let Some(last) = run.last_mut() {
            *last = &last[..last.len() - 1];
        }
        run.sort_unstable();
        sorted.extend(run.join(&b' '));
        sorted.extend(if ends { b") ".as_slice() } else { b" " });
    }
    sorted
}

/// Integers behind these names are not compared.
const PACKED: &[&[u8]] = &[b"radix-tree-keys", b"radix-tree-nodes"];

/// More is a time of the clock, in milliseconds.
const CLOCK_FROM: i64 = 1_000_000_000_000;

fn moments(is_pending: bool, reference: &[u8], other: &[u8]) -> Option<String> {
    let (wanted, found) = (leaves(reference), leaves(other));
    if wanted.len() != found.len() {
        return Some("the replies are not as long".into());
    }
    for (at, (wanted_leaf, found_leaf)) in wanted.iter().zip(&found).enumerate() {
        let before = at.checked_sub(1).and_then(|at| text(wanted[at]));
        let (one, two) = (integer(wanted_leaf), integer(found_leaf));
        let is_time = before == Some(b"idle")
            || one
                .zip(two)
                .is_some_and(|(one, two)| one.min(two) > CLOCK_FROM)
            || (is_pending && at % 4 == 2);
        let is_packed = before.is_some_and(|name| PACKED.contains(&name));
        let fits = match one.zip(two) {
            Some(_) if is_packed => true,
            Some((one, two)) if is_time => one.abs_diff(two) <= TOLERANCE_MS.unsigned_abs(),
            _ => wanted_leaf == found_leaf,
        };
        if !fits {
            return Some(format!("part {} of the replies differs", at + 1));
        }
    }
    None
}

fn same_length(reference: &[u8], other: &[u8]) -> Option<String> {
    let (wanted, found) = (elements(reference).len(), elements(other).len());
    (wanted != found).then(|| format!("{found} elements instead of {wanted}"))
}

fn about(by: i64, reference: &[u8], other: &[u8]) -> Option<String> {
    let (Some(wanted), Some(found)) = (integer(reference), integer(other)) else {
        return Some("the replies differ".into());
    };
    let fine = wanted >= 0 && found >= 0 && wanted.abs_diff(found) <= by.unsigned_abs();
    (!fine).then(|| format!("more than {by} apart"))
}

fn unordered(width: usize, reference: &[u8], other: &[u8]) -> Option<String> {
    let sorted = |raw| {
        let parts = elements(raw);
        let mut groups: Vec<Vec<u8>> = parts.chunks(width).map(<[_]>::concat).collect();
        groups.sort();
        groups
    };
    if !is_aggregate(reference) || sorted(reference) != sorted(other) {
        return Some("the elements differ, in whatever order".into());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{How, how, judge};
    use crate::line::line;

    #[test]
    fn each_way_finds_what_it_is_for() {
        let (ab, ba): (&[u8], &[u8]) = (b"*2\r\n+a\r\n+b\r\n", b"*2\r\n+b\r\n+a\r\n");
        let aa: &[u8] = b"*2\r\n+a\r\n+a\r\n";
        let set = How::UnlessTable { width: 1 };
        assert!(judge(How::Exact, None, ab, ba).is_some());
        assert!(judge(How::Unordered { width: 1 }, None, ab, ba).is_none());
        assert!(judge(How::Unordered { width: 2 }, None, ab, ba).is_some());
        assert!(judge(How::Unordered { width: 1 }, None, ab, aa).is_some());
        assert!(judge(set, Some(true), ab, ba).is_none());
        assert!(judge(set, Some(false), ab, ba).is_some());
        assert!(judge(How::SameKind, None, b"$-1\r\n", b"$0\r\n\r\n").is_some());
        assert!(judge(How::TableLength, Some(true), ab, aa).is_none());
        assert!(judge(How::TableLength, Some(false), ab, aa).is_some());
        let pending: [&[u8]; 3] = [
            b"*1\r\n*4\r\n+1-1\r\n+c\r\n:10\r\n:2\r\n",
            b"*1\r\n*4\r\n+1-1\r\n+c\r\n:90\r\n:2\r\n",
            b"*1\r\n*4\r\n+1-1\r\n+c\r\n:10\r\n:3\r\n",
        ];
        let waiting = How::Moments { is_pending: true };
        assert!(judge(waiting, None, pending[0], pending[1]).is_none());
        assert!(judge(waiting, None, pending[0], pending[2]).is_some());
        let about = How::About { by: 5 };
        assert!(judge(about, None, b":100\r\n", b":104\r\n").is_none());
        assert!(judge(about, None, b":100\r\n", b":106\r\n").is_some());
        assert!(judge(about, None, b":1\r\n", b":-1\r\n").is_some());
        assert!(judge(How::Exact, None, b"$-1\r\n", b"*-1\r\n").is_some());
        let told: [&[u8]; 3] = [
            b"$24\r\n~k -@all +get +set (+del)\r\n",
            b"$24\r\n~k -@all +set +get (+del)\r\n",
            b"$24\r\n~k -@all +set +del (+get)\r\n",
        ];
        assert!(judge(How::Rules, None, told[0], told[1]).is_none());
        assert!(judge(How::Rules, None, told[0], told[2]).is_some());
    }

    #[test]
    fn only_sorts_without_a_full_order_are_let_off() {
        assert_eq!(how(&line("SORT k ALPHA LIMIT 0 3")), How::Exact);
        assert_eq!(how(&line("SORT k BY w:* GET #")), How::Exact);
        assert_eq!(
            how(&line("SORT k by w:* alpha")),
            How::Unordered { width: 1 }
        );
        assert_eq!(how(&line("SORT k BY w:* ALPHA LIMIT 0 3")), How::SameLength);
        assert_eq!(how(&line("SORT k BY nosort LIMIT 0 3")), How::TableLength);
    }
}
