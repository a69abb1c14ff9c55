//! Where a command of a source's stream goes. Pure.
//!
//! Only keys that the command writes decide whether it concerns us; a command
//! that writes no moving key is dropped. One that does is
//!
//! ```text
//! forwarded as it is    every key it touches is on the same target, and to be relied on there
//! parted                its keys are independent: DEL, UNLINK, MSET, MSETNX
//! refreshed             else: the moving keys that it writes are read from the source again
//! ```

use crate::resp::Span;
use crate::router::commands::{
    ArgList, KeyArg, Refusal, SplitKind, StreamEffect, resolve, stream_effect,
};

use super::error::Unfollowable;
use super::key_text::KeyText;
use super::placement::{Place, Placement, SourceIndex, TargetIndex};

/// Keys of a command that a message shows.
const SHOWN_KEYS_MAX: usize = 4;

/// The arguments of one RESP array.
#[derive(Clone, Copy)]
pub(super) struct Args<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) spans: &'a [Span],
}

impl ArgList for Args<'_> {
    fn len(&self) -> usize {
        self.spans.len()
    }

    fn arg(&self, index: usize) -> &[u8] {
        self.spans
            .get(index)
            .map_or(&[], |span| span.of(self.bytes))
    }
}

/// A part of a command for one target: these arguments, after the name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) target: TargetIndex,
    pub(super) args: Vec<usize>,
}

/// Whether what a target has of a key can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It can.
    None,
    /// It is pending (`pending`): what it has is old.
    Pending,
    /// It may not be there: its time comes soon, or was not known, and it may have
    /// ended there before the command arrives; or its database is listed again.
    Ending,
}

/// What to do with a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// It changes no moving key.
    Nowhere,
    /// Its bytes go to this target; `key` is the argument that moves there.
    To { target: TargetIndex, key: usize },
    /// Each target gets its part, under this name.
    Parts {
        name: &'static [u8],
        parts: Vec<Part>,
    },
    /// The moving keys it writes, by database and argument, are read again.
    Refresh {
        name: &'static str,
        keys: Vec<(u32, usize)>,
        because: Because,
    },
    /// To the servers that are only in the new layout.
    NewServers,
    /// FLUSHDB: all of one database is gone.
    FlushDb,
    /// FLUSHALL: all of all is gone.
    FlushAll,
    /// SWAPDB: two databases have each other's keys.
    SwapDb(u32, u32),
}

/// Why a command is not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Because {
    /// Its keys are on different servers.
    Spans,
    /// A key of it is in doubt.
    Doubt,
}

/// Finds where a command goes; `scratch` is overwritten. `doubt` tells what a
/// target's key is worth.
pub(super) fn route(
    placement: &Placement,
    source: SourceIndex,
    db: u32,
    args: Args<'_>,
    doubt: impl Fn(u32, &[u8]) -> Doubt,
    scratch: &mut Vec<KeyArg>,
) -> Result<Route, Unfollowable> {
    let command = resolve(&args).map_err(|refusal| match refusal {
        Refusal::UnknownCommand | Refusal::UnknownSubcommand => Unfollowable::UnknownCommand,
        Refusal::Arity(_) => Unfollowable::NotPlain("it has the wrong number of arguments"),
    })?;
    let at = Origin {
        placement,
        source,
        db,
        args,
        doubt,
    };
    match stream_effect(command, &args, scratch) {
        StreamEffect::Ignored => Ok(Route::Nowhere),
        StreamEffect::Broadcast => Ok(Route::NewServers),
        StreamEffect::WholeDatabase => whole_databases(command.name, args),
        StreamEffect::Unroutable => match command.keys(&args, scratch) {
            Err(error) if command.has_keys() => Err(Unfollowable::BadArguments(error)),
            _ => Err(Unfollowable::NotPlain(
                "which keys it changes cannot be told",
            )),
        },
        StreamEffect::Splittable(kind) => at.split(command.name, kind),
        StreamEffect::Keyed if is_script(command.name) => Err(Unfollowable::NotPlain(
            "a script sent as it is changes keys that cannot be told (servers since 5.0 send its effects)",
        )),
        // In a stream it has succeeded, so every pair was set.
        StreamEffect::Keyed if command.name == "msetnx" => at.split("mset", SplitKind::Mset),
        StreamEffect::Keyed => at.whole(command.name, scratch),
    }
}

fn whole_databases(name: &str, args: Args<'_>) -> Result<Route, Unfollowable> {
    match (name, number(args.arg(1)), number(args.arg(2))) {
        ("flushall", ..) => Ok(Route::FlushAll),
        ("flushdb", ..) => Ok(Route::FlushDb),
        ("swapdb", Some(one), Some(other)) => Ok(Route::SwapDb(one, other)),
        _ => Err(Unfollowable::NotPlain(
            "which databases it changes cannot be told",
        )),
    }
}

fn number(arg: &[u8]) -> Option<u32> {
    std::str::from_utf8(arg).ok()?.parse().ok()
}

/// Where COPY writes: its `DB` option, if it has one.
pub(super) fn copy_db(args: Args<'_>) -> Option<u32> {
    let at = (3..args.len()).find(|at| args.arg(*at).eq_ignore_ascii_case(b"db"))?;
    number(args.arg(at + 1))
}

/// Whether a command leaves nothing of what its key was.
pub(super) fn replaces(name: &str, args: Args<'_>) -> bool {
    match name {
        "set" => !(3..args.len()).any(|at| args.arg(at).eq_ignore_ascii_case(b"keepttl")),
        "setex" | "psetex" | "restore" | "restore-asking" | "getdel" => true,
        _ => false,
    }
}

/// A command as messages show it: its name and keys. Other arguments may be
/// values, which do not belong into logs.
pub(super) fn name_and_keys(args: Args<'_>) -> String {
    let mut keys = Vec::new();
    if let Ok(command) = resolve(&args)
        && command.keys(&args, &mut keys).is_err()
    {
        keys.clear();
    }
    let shown = keys.iter().map(|key| key.index as usize);
    let shown = std::iter::once(0).chain(shown.take(SHOWN_KEYS_MAX));
    let words: Vec<String> = shown
        .map(|index| KeyText(args.arg(index)).to_string())
        .collect();
    let more = if keys.len() > SHOWN_KEYS_MAX {
        " ..."
    } else {
        ""
    };
    format!("`{}{more}`", words.join(" "))
}

fn is_script(name: &str) -> bool {
    matches!(name, "eval" | "evalsha" | "fcall")
}

/// One command at one source.
struct Origin<'a, D> {
    placement: &'a Placement,
    source: SourceIndex,
    db: u32,
    args: Args<'a>,
    doubt: D,
}

impl<D: Fn(u32, &[u8]) -> Doubt> Origin<'_, D> {
    fn place(&self, index: usize) -> Place {
        self.placement
            .place(self.source, self.db, self.args.arg(index))
    }

    /// A command that must stay in one piece.
    fn whole(&self, name: &'static str, keys: &[KeyArg]) -> Result<Route, Unfollowable> {
        let written = self.written(name, keys);
        if written.is_empty() {
            return Ok(Route::Nowhere);
        }
        let refresh = |because| {
            Ok(Route::Refresh {
                name,
                keys: written.clone(),
                because,
            })
        };
        let mut found: Option<(TargetIndex, usize)> = None;
        for key in keys {
            let index = key.index as usize;
            match (self.place(index), found) {
                (Place::Moves(target), None) => found = Some((target, index)),
                (Place::Moves(target), Some((first, _))) if target == first => {}
                _ => return refresh(Because::Spans),
            }
        }
        let Some((target, key)) = found else {
            return refresh(Because::Spans);
        };
        let here = keys.iter().map(|key| (self.db, key.index as usize));
        let doubts = here
            .chain(written.iter().copied())
            .map(|(db, index)| (self.doubt)(db, self.args.arg(index)));
        let in_doubt = |doubt| match doubt {
            Doubt::None => false,
            Doubt::Pending => true,
            Doubt::Ending => !replaces(name, self.args),
        };
        if doubts.into_iter().any(in_doubt) {
            return refresh(Because::Doubt);
        }
        Ok(Route::To { target, key })
    }

    /// The moving keys that it writes, with the databases they are in.
    fn written(&self, name: &str, keys: &[KeyArg]) -> Vec<(u32, usize)> {
        let moves = |(db, index): &(u32, usize)| {
            let place = self
                .placement
                .place(self.source, *db, self.args.arg(*index));
            matches!(place, Place::Moves(_))
        };
        let written = keys.iter().filter(|key| key.writes);
        let written = written.map(|key| {
            let index = key.index as usize;
            match name {
                "copy" if index == 2 => (copy_db(self.args).unwrap_or(self.db), index),
                _ => (self.db, index),
            }
        });
        let mut written: Vec<(u32, usize)> = written.filter(moves).collect();
        if name == "move"
            && let Some(there) = number(self.args.arg(2)).map(|db| (db, 1))
            && moves(&there)
        {
            written.push(there);
        }
        written
    }

    /// A command whose keys are independent of each other.
    fn split(&self, name: &'static str, kind: SplitKind) -> Result<Route, Unfollowable> {
        let step = if kind == SplitKind::Mset { 2 } else { 1 };
        let mut parts: Vec<Part> = Vec::new();
        let mut left_out = false;
        for index in (1..self.args.len()).step_by(step) {
            let pending = || (self.doubt)(self.db, self.args.arg(index)) == Doubt::Pending;
            let target = match self.place(index) {
                Place::Moves(target) if !pending() => target,
                // What is read later has it.
                _ => {
                    left_out = true;
                    continue;
                }
            };
            let part = match parts.iter().position(|part| part.target == target) {
                Some(at) => parts.get_mut(at),
                None => {
                    parts.push(Part {
                        target,
                        args: Vec::new(),
                    });
                    parts.last_mut()
                }
            };
            if let Some(part) = part {
                part.args.extend(index..index + step);
            }
        }
        let renamed = !self.args.arg(0).eq_ignore_ascii_case(name.as_bytes());
        match parts.as_slice() {
            [] => Ok(Route::Nowhere),
            [only] if !left_out && !renamed => Ok(Route::To {
                target: only.target,
                key: 1,
            }),
            _ => Ok(Route::Parts {
                name: name.as_bytes(),
                parts,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reshard::mover::placement::tests::{keys, placement};
    use crate::resp::{RequestLimits, RequestScanner, write_command};

    /// The server that stays in the layout.
    const SOURCE: SourceIndex = SourceIndex(1);

    fn with_args<T>(words: &[&[u8]], ask: impl FnOnce(Args<'_>) -> T) -> T {
        let mut bytes = Vec::new();
        write_command(&mut bytes, words);
        let mut scanner = RequestScanner::new(RequestLimits::default());
        let request = scanner.scan(&bytes).unwrap().unwrap();
        ask(Args {
            bytes: request.bytes,
            spans: request.args,
        })
    }

    fn routed(words: &[&[u8]]) -> Result<Route, Unfollowable> {
        with_args(words, |args| {
            let doubt = |_: u32, _: &[u8]| Doubt::None;
            route(&placement(), SOURCE, 0, args, doubt, &mut Vec::new())
        })
    }

    #[test]
    fn messages_show_names_and_keys_but_no_values() {
        for (words, shown) in [
            (&[&b"SET"[..], b"k\x00", b"secret"][..], "`SET k\\x00`"),
            (&[b"RENAME", b"a", b"b"], "`RENAME a b`"),
            (&[b"MSET", b"a", b"secret", b"b", b"secret"], "`MSET a b`"),
            (&[b"DEL", b"a", b"b", b"c", b"d", b"e"], "`DEL a b c d ...`"),
            (&[b"FROBNICATE", b"secret"], "`FROBNICATE`"),
            (&[b"EVAL", b"secret", b"1", b"k", b"secret"], "`EVAL k`"),
            (&[b"SWAPDB", b"0", b"1"], "`SWAPDB`"),
        ] {
            assert_eq!(with_args(words, name_and_keys), shown);
        }
    }

    /// One key for each case: stays, stray, moves to one target, to another.
    struct Cast {
        stays: Vec<u8>,
        stray: Vec<u8>,
        one: (Vec<u8>, TargetIndex),
        other: (Vec<u8>, TargetIndex),
    }

    fn cast() -> Cast {
        let placement = placement();
        let place = |key: &Vec<u8>| placement.place(SOURCE, 0, key);
        let find = |wanted: Place| keys().find(|key| place(key) == wanted).unwrap();
        let moving = |not: Option<TargetIndex>| {
            let mut found = keys().filter_map(|key| match place(&key) {
                Place::Moves(target) if Some(target) != not => Some((key, target)),
                _ => None,
            });
            found.next().unwrap()
        };
        let one = moving(None);
        let other = moving(Some(one.1));
        Cast {
            stays: find(Place::Stays),
            stray: find(Place::Stray),
            one,
            other,
        }
    }

    #[test]
    fn commands_follow_the_keys_they_write() {
        let Cast {
            stays,
            stray,
            one: (key, target),
            ..
        } = cast();
        assert_eq!(routed(&[b"SET", &stays, b"v"]), Ok(Route::Nowhere));
        assert_eq!(routed(&[b"INCR", &stray]), Ok(Route::Nowhere));
        assert_eq!(routed(&[b"INCR", &key]), Ok(Route::To { target, key: 1 }));
        // Reads a moving key, writes one that stays.
        assert_eq!(routed(&[b"SUNIONSTORE", &stays, &key]), Ok(Route::Nowhere));
        assert_eq!(
            routed(&[b"LMOVE", &key, &key, b"LEFT", b"RIGHT"]),
            Ok(Route::To { target, key: 1 })
        );
    }

    #[test]
    fn independent_keys_are_parted() {
        let Cast {
            stays,
            stray,
            one,
            other,
        } = cast();
        let part = |target, args: &[usize]| Part {
            target,
            args: args.to_vec(),
        };
        assert_eq!(
            routed(&[b"DEL", &one.0, &stays, &other.0, &stray]),
            Ok(Route::Parts {
                name: b"del",
                parts: vec![part(one.1, &[1]), part(other.1, &[3])]
            })
        );
        assert_eq!(
            routed(&[b"MSETNX", &one.0, b"1", &other.0, b"2"]),
            Ok(Route::Parts {
                name: b"mset",
                parts: vec![part(one.1, &[1, 2]), part(other.1, &[3, 4])],
            })
        );
        assert_eq!(
            routed(&[b"UNLINK", &one.0]),
            Ok(Route::To {
                target: one.1,
                key: 1
            })
        );
        assert_eq!(routed(&[b"DEL", &stays, &stray]), Ok(Route::Nowhere));
    }

    #[test]
    fn what_spans_servers_is_read_again() {
        let Cast {
            stays,
            stray,
            one,
            other,
        } = cast();
        let written = |words: &[&[u8]]| match routed(words) {
            Ok(Route::Refresh { keys, because, .. }) => {
                assert_eq!(because, Because::Spans, "{words:?}");
                keys
            }
            route => panic!("{words:?}: {route:?}"),
        };
        for (words, keys) in [
            (
                &[&b"RENAME"[..], &one.0, &other.0][..],
                &[(0, 1), (0, 2)][..],
            ),
            (&[b"RENAME", &stays, &one.0], &[(0, 2)]),
            (&[b"RENAME", &one.0, &stays], &[(0, 1)]),
            (&[b"SUNIONSTORE", &one.0, &stray], &[(0, 1)]),
            (&[b"PFMERGE", &one.0, &other.0], &[(0, 1)]),
            (&[b"COPY", &one.0, &other.0, b"DB", b"3"], &[(3, 2)]),
            (&[b"SORT", &stays, b"STORE", &one.0], &[(0, 3)]),
        ] {
            assert_eq!(written(words), keys, "{words:?}");
        }
    }

    #[test]
    fn what_needs_a_key_in_doubt_is_read_again() {
        let one = cast().one;
        let stays = cast().stays;
        let told = |words: &[&[u8]], doubted: u32, doubt: Doubt| {
            let doubt = |db: u32, key: &[u8]| match (db, key) == (doubted, &one.0[..]) {
                true => doubt,
                false => Doubt::None,
            };
            with_args(words, |args| {
                route(&placement(), SOURCE, 0, args, doubt, &mut Vec::new()).unwrap()
            })
        };
        let refresh = |name, keys: &[(u32, usize)]| Route::Refresh {
            name,
            keys: keys.to_vec(),
            because: Because::Doubt,
        };
        let to = Route::To {
            target: one.1,
            key: 1,
        };
        let incr: [&[u8]; 2] = [b"INCR", &one.0];
        assert_eq!(told(&incr, 0, Doubt::Pending), refresh("incr", &[(0, 1)]));
        assert_eq!(told(&incr, 0, Doubt::Ending), refresh("incr", &[(0, 1)]));
        assert_eq!(told(&incr, 1, Doubt::Pending), to);
        let set: [&[u8]; 3] = [b"SET", &one.0, b"v"];
        assert_eq!(told(&set, 0, Doubt::Pending), refresh("set", &[(0, 1)]));
        assert_eq!(told(&set, 0, Doubt::Ending), to, "nothing of it is left");
        let kept: [&[u8]; 4] = [b"SET", &one.0, b"v", b"KEEPTTL"];
        let its_time_is = refresh("set", &[(0, 1)]);
        assert_eq!(told(&kept, 0, Doubt::Ending), its_time_is);
        let moved: [&[u8]; 3] = [b"MOVE", &one.0, b"4"];
        assert_eq!(
            told(&moved, 4, Doubt::Pending),
            refresh("move", &[(0, 1), (4, 1)])
        );
        let del: [&[u8]; 3] = [b"DEL", &one.0, &stays];
        assert_eq!(told(&del, 0, Doubt::Pending), Route::Nowhere);
        assert!(matches!(told(&del, 0, Doubt::Ending), Route::Parts { .. }));
    }

    #[test]
    fn what_has_no_known_effect_is_an_error() {
        let one = cast().one;
        assert_eq!(routed(&[b"FLUSHALL"]), Ok(Route::FlushAll));
        assert_eq!(routed(&[b"FLUSHDB", b"ASYNC"]), Ok(Route::FlushDb));
        assert_eq!(routed(&[b"SWAPDB", b"0", b"1"]), Ok(Route::SwapDb(0, 1)));
        assert_eq!(
            routed(&[b"FROBNICATE", b"k"]),
            Err(Unfollowable::UnknownCommand)
        );
        assert!(matches!(
            routed(&[b"EVAL", b"s", b"1", &one.0]),
            Err(Unfollowable::NotPlain(_))
        ));
        assert!(routed(&[b"GET"]).is_err());
    }

    #[test]
    fn messages_and_libraries_are_no_keys() {
        assert_eq!(routed(&[b"PUBLISH", b"c", b"m"]), Ok(Route::Nowhere));
        assert_eq!(
            routed(&[b"FUNCTION", b"DELETE", b"lib"]),
            Ok(Route::NewServers)
        );
    }
}
