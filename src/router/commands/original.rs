//! twemproxy 0.5.0's own table of commands: 137 names, how many arguments each
//! takes, and where its key is. Anything else makes it close the connection.
//!
//! ```text
//! args -> judge -> Accepted -> Key(1), Key(3): to that key's server, as it is
//!                           -> Split: one request a server
//!                           -> Placeholder, Ping, Auth, Quit, Unanswered
//!                           -> Close
//! ```
//!
//! Only the first key counts, whatever else the command takes: where the other
//! keys are is not looked at. Numbers of arguments are the original's (`PING`
//! takes none), so a name that is here may still be closed on.
//!
//! `tests/compat_twemproxy.rs` holds the whole table against the real one.

use super::{ArgList, Command, SplitKind, lookup};

/// Longest key, in bytes: what its buffers of 16384 bytes hold beside their own
/// head of 48, less one.
pub const KEY_BYTES_MAX: usize = 16_384 - 48 - 1;

/// The key of what has none: LOLWUT and COMMAND go to its server.
pub const PLACEHOLDER: &[u8] = b"placeholder";

/// What becomes of a request.
#[derive(Debug, Clone, Copy)]
pub enum Accepted {
    /// To the server of the key at this place.
    Key(&'static Command, usize),
    /// Two keys or more, each to its server.
    Split(&'static Command, SplitKind),
    /// To the server of [`PLACEHOLDER`].
    Placeholder(&'static Command),
    /// Answered by the proxy.
    Ping,
    /// The same, with the password at place 1.
    Auth,
    /// MOVE: marked as answered by the proxy, which has no answer and closes.
    Unanswered,
    /// The end, without a reply.
    Quit,
    /// The end, and what is owed is lost.
    Close,
}

/// How many arguments a command takes, the key not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// No key and nothing else.
    Nothing,
    /// No key, anything else.
    NoKey,
    /// A key and so many more.
    Exactly(usize),
    /// A key and any number more.
    Any,
    /// Keys.
    Keys(SplitKind),
    /// Keys with a value each.
    Pairs,
    /// A script, a number of keys that is not 0, a key, anything.
    Script,
}

const TABLE: [(Takes, &[&str]); 13] = [
    (Takes::Nothing, &["ping", "quit", "command"]),
    (Takes::NoKey, &["lolwut"]),
    (
        Takes::Exactly(0),
        &[
            "persist", "pttl", "ttl", "type", "dump", "decr", "get", "getdel", "incr", "strlen",
            "hgetall", "hkeys", "hlen", "hvals", "llen", "scard", "smembers", "zcard", "auth",
        ],
    ),
    (
        Takes::Exactly(1),
        &[
            "expire",
            "expireat",
            "pexpire",
            "pexpireat",
            "move",
            "append",
            "decrby",
            "getbit",
            "getset",
            "incrby",
            "incrbyfloat",
            "setnx",
            "hexists",
            "hget",
            "hstrlen",
            "lindex",
            "rpoplpush",
            "sismember",
            "zrank",
            "zrevrank",
            "zscore",
        ],
    ),
    (
        Takes::Exactly(2),
        &[
            "getrange",
            "psetex",
            "setbit",
            "setex",
            "setrange",
            "hincrby",
            "hincrbyfloat",
            "hsetnx",
            "lrange",
            "lrem",
            "lset",
            "ltrim",
            "smove",
            "zcount",
            "zlexcount",
            "zincrby",
            "zremrangebylex",
            "zremrangebyrank",
            "zremrangebyscore",
        ],
    ),
    (Takes::Exactly(3), &["linsert", "lmove"]),
    (
        Takes::Any,
        &[
            "sort",
            "copy",
            "bitcount",
            "bitpos",
            "bitfield",
            "exists",
            "getex",
            "set",
            "hdel",
            "hmget",
            "hmset",
            "hscan",
            "hset",
            "hrandfield",
            "lpush",
            "lpushx",
            "rpush",
            "rpushx",
            "lpop",
            "rpop",
            "lpos",
            "sadd",
            "sdiff",
            "sdiffstore",
            "sinter",
            "sinterstore",
            "srem",
            "sunion",
            "sunionstore",
            "srandmember",
            "sscan",
            "spop",
            "smismember",
            "pfadd",
            "pfmerge",
            "pfcount",
            "zadd",
            "zdiff",
            "zdiffstore",
            "zinter",
            "zinterstore",
            "zmscore",
            "zpopmax",
            "zpopmin",
            "zrandmember",
            "zrange",
            "zrangebylex",
            "zrangebyscore",
            "zrangestore",
            "zrem",
            "zrevrange",
            "zrevrangebylex",
            "zrevrangebyscore",
            "zscan",
            "zunion",
            "zunionstore",
            "geodist",
            "geopos",
            "geohash",
            "geoadd",
            "georadius",
            "georadiusbymember",
            "geosearch",
            "geosearchstore",
            "restore",
        ],
    ),
    (Takes::Keys(SplitKind::Mget), &["mget"]),
    (Takes::Keys(SplitKind::Del), &["del"]),
    (Takes::Keys(SplitKind::Unlink), &["unlink"]),
    (Takes::Keys(SplitKind::Touch), &["touch"]),
    (Takes::Pairs, &["mset"]),
    (Takes::Script, &["eval", "evalsha"]),
];

impl Takes {
    /// What the original knows of a command; `None`: not even its name.
    pub(super) fn of(name: &str) -> Option<Self> {
        let mut rows = TABLE.iter();
        let row = rows.find(|(_, names)| names.contains(&name));
        row.map(|(takes, _)| *takes)
    }

    fn allows(self, args: &(impl ArgList + ?Sized), total: usize, whole: usize) -> bool {
        let is_short = |index: usize| args.arg(index).len() <= KEY_BYTES_MAX;
        match self {
            Self::Nothing => total == 1,
            Self::NoKey => true,
            _ if total == 1 => false,
            Self::Script => {
                (whole < 2 || total >= 4)
                    && (whole < 3 || names_keys(args.arg(2)))
                    && (whole < 4 || is_short(3))
            }
            _ if whole == 1 => true,
            Self::Exactly(count) => total == 2 + count && is_short(1),
            Self::Any => is_short(1),
            Self::Keys(_) => (1..whole).all(is_short),
            Self::Pairs => !total.is_multiple_of(2) && (1..whole).step_by(2).all(is_short),
        }
    }
}

/// What becomes of a request that is whole.
pub fn judge(args: &(impl ArgList + ?Sized)) -> Accepted {
    let Some((command, takes)) = known(args) else {
        return Accepted::Close;
    };
    if !takes.allows(args, args.len(), args.len()) {
        return Accepted::Close;
    }
    match (command.name, takes) {
        ("ping", _) => Accepted::Ping,
        ("quit", _) => Accepted::Quit,
        ("auth", _) => Accepted::Auth,
        ("move", _) => Accepted::Unanswered,
        (_, Takes::Nothing | Takes::NoKey) => Accepted::Placeholder(command),
        (_, Takes::Exactly(_) | Takes::Any) => Accepted::Key(command, 1),
        (_, Takes::Script) => Accepted::Key(command, 3),
        (_, Takes::Keys(_)) if args.len() == 2 => Accepted::Key(command, 1),
        (_, Takes::Keys(kind)) => Accepted::Split(command, kind),
        (_, Takes::Pairs) if args.len() == 3 => Accepted::Key(command, 1),
        (_, Takes::Pairs) => Accepted::Split(command, SplitKind::Mset),
    }
}

/// Whether a request that says it has `total` arguments may go on, `whole` of
/// which are here: the original judges each as it comes, and closes then.
pub fn may_go_on(args: &(impl ArgList + ?Sized), total: usize, whole: usize) -> bool {
    whole == 0 || known(args).is_some_and(|(_, takes)| takes.allows(args, total, whole))
}

fn known(args: &(impl ArgList + ?Sized)) -> Option<(&'static Command, Takes)> {
    let command = lookup(args.arg(0))?;
    Some((command, command.original?))
}

/// A number of keys: digits, in 32 bits that wrap, and not 0. It is compared
/// with nothing.
fn names_keys(digits: &[u8]) -> bool {
    let number = digits.iter().try_fold(0_u32, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
        Some(number.wrapping_mul(10).wrapping_add(digit))
    });
    number.is_some_and(|number| number != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::commands;

    fn of(line: &str) -> Accepted {
        let words: Vec<&str> = line.split(' ').collect();
        judge(&words)
    }

    #[test]
    fn there_are_137_names_and_each_is_a_command_of_redis() {
        let known = commands::all()
            .iter()
            .filter(|command| command.original.is_some());
        assert_eq!(known.count(), 137);
        let names = TABLE.iter().flat_map(|(_, names)| *names);
        assert!(names.clone().all(|name| lookup(name.as_bytes()).is_some()));
        assert_eq!(names.count(), 137);
    }

    #[test]
    fn numbers_of_arguments_are_the_original_s() {
        for line in [
            "PING",
            "quit",
            "AUTH x",
            "LOLWUT version 5",
            "GET k",
            "MGET a",
            "EVAL s 7 k",
        ] {
            assert!(!matches!(of(line), Accepted::Close), "{line}");
        }
        for line in [
            "PING x",
            "QUIT x",
            "COMMAND DOCS",
            "AUTH a b",
            "GET",
            "GET a b",
            "MSET a",
            "MSET a b c",
            "EVAL s 0",
            "EVAL s 0 k",
            "EVAL s 1",
            "EVAL s -1 k",
            "EVAL s 4294967296 k",
            "HELLO 3",
            "MOVE k",
            "SELECT 0",
            "",
            "LINSERT k BEFORE a",
        ] {
            assert!(matches!(of(line), Accepted::Close), "{line}");
        }
        assert!(matches!(of("MGET a"), Accepted::Key(_, 1)));
        assert!(matches!(of("MSET a b"), Accepted::Key(_, 1)));
        assert!(matches!(of("ZUNION 2 a b"), Accepted::Key(_, 1)));
        assert!(matches!(of("EVALSHA s 1 k"), Accepted::Key(_, 3)));
        assert!(matches!(of("DEL a a"), Accepted::Split(_, SplitKind::Del)));
        assert!(matches!(of("COMMAND"), Accepted::Placeholder(_)));
    }

    #[test]
    fn keys_have_a_longest_length_and_values_none() {
        let (longest, longer) = (vec![b'k'; KEY_BYTES_MAX], vec![b'k'; KEY_BYTES_MAX + 1]);
        for (key, is_taken) in [(&longest, true), (&longer, false)] {
            for args in [
                [&b"GET"[..], key].as_slice(),
                &[b"MGET", b"a", key],
                &[b"MSET", b"a", b"b", key, b"c"],
                &[b"EVAL", b"s", b"1", key],
            ] {
                assert_eq!(!matches!(judge(args), Accepted::Close), is_taken);
            }
            assert!(!matches!(
                judge([&b"MSET"[..], b"a", key].as_slice()),
                Accepted::Close
            ));
        }
    }

    #[test]
    fn a_beginning_is_judged_as_far_as_it_is_here() {
        let beginning = |line: &str, total: usize| {
            let words: Vec<&str> = line.split(' ').collect();
            may_go_on(&words, total, words.len())
        };
        for (line, total) in [
            ("GET", 3),
            ("EVAL", 2),
            ("MSET", 4),
            ("SET k", 9),
            ("EVAL s", 4),
        ] {
            assert!(beginning(line, total), "{line} of {total}");
        }
        for (line, total) in [
            ("ECHO", 2),
            ("PING", 2),
            ("GET", 1),
            ("GET k", 3),
            ("EVAL s", 3),
            ("EVAL s x", 4),
            ("MSET k", 4),
        ] {
            assert!(!beginning(line, total), "{line} of {total}");
        }
    }
}
