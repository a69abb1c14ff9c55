//! Where a command of a source's stream goes. Pure.
//!
//! Only keys that the command writes decide whether it concerns us; a command
//! that writes no moving key is dropped. One that does is forwarded as it is
//! when every key it touches is on the same target, parted when its parts are
//! independent (DEL, UNLINK, MSET, MSETNX), and otherwise cannot be followed.

use std::collections::BTreeSet;

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
    /// To the servers that are only in the new layout.
    NewServers,
}

/// Finds where a command goes; `scratch` is overwritten.
pub(super) fn route(
    placement: &Placement,
    source: SourceIndex,
    db: u32,
    args: Args<'_>,
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
    };
    match stream_effect(command, &args, scratch) {
        StreamEffect::Ignored => Ok(Route::Nowhere),
        StreamEffect::Broadcast => Ok(Route::NewServers),
        StreamEffect::WholeDatabase => Err(Unfollowable::WholeDatabase),
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
        StreamEffect::Keyed => at.whole(scratch),
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
struct Origin<'a> {
    placement: &'a Placement,
    source: SourceIndex,
    db: u32,
    args: Args<'a>,
}

impl Origin<'_> {
    fn place(&self, index: usize) -> Place {
        self.placement
            .place(self.source, self.db, self.args.arg(index))
    }

    /// A command that must stay in one piece.
    fn whole(&self, keys: &[KeyArg]) -> Result<Route, Unfollowable> {
        let writes_moving = keys
            .iter()
            .filter(|key| key.writes)
            .any(|key| matches!(self.place(key.index as usize), Place::Moves(_)));
        if !writes_moving {
            return Ok(Route::Nowhere);
        }
        let mut found: Option<(TargetIndex, usize)> = None;
        for key in keys {
            let index = key.index as usize;
            match (self.place(index), found) {
                (Place::Moves(target), None) => found = Some((target, index)),
                (Place::Moves(target), Some((first, _))) if target == first => {}
                _ => return Err(self.crosses(keys)),
            }
        }
        // The first key may have been one that stays.
        match found {
            Some((target, key)) => Ok(Route::To { target, key }),
            None => Err(self.crosses(keys)),
        }
    }

    /// A command whose keys are independent of each other.
    fn split(&self, name: &'static str, kind: SplitKind) -> Result<Route, Unfollowable> {
        let step = if kind == SplitKind::Mset { 2 } else { 1 };
        let mut parts: Vec<Part> = Vec::new();
        let mut left_out = false;
        for index in (1..self.args.len()).step_by(step) {
            let Place::Moves(target) = self.place(index) else {
                left_out = true;
                continue;
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

    fn crosses(&self, keys: &[KeyArg]) -> Unfollowable {
        let owners: BTreeSet<String> = keys
            .iter()
            .map(|key| {
                let index = key.index as usize;
                let owner = match self.place(index) {
                    Place::Moves(target) => self.placement.targets().get(target.0),
                    Place::Stays | Place::Stray => self.placement.sources().get(self.source.0),
                };
                let owner = owner.map(ToString::to_string).unwrap_or_default();
                format!("`{}` on {owner}", KeyText(self.args.arg(index)))
            })
            .collect();
        let shown: Vec<String> = owners.into_iter().take(4).collect();
        Unfollowable::CrossesServers(shown.join(", "))
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
            route(&placement(), SOURCE, 0, args, &mut Vec::new())
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
    fn what_has_no_one_place_is_an_error() {
        let Cast {
            stays,
            stray,
            one,
            other,
        } = cast();
        for words in [
            [&b"RENAME"[..], &one.0, &other.0],
            [b"RENAME", &stays, &one.0],
            [b"RENAME", &one.0, &stays],
            [b"SUNIONSTORE", &one.0, &stray],
            [b"PFMERGE", &one.0, &other.0],
        ] {
            assert!(
                matches!(routed(&words), Err(Unfollowable::CrossesServers(_))),
                "{words:?}"
            );
        }
        assert_eq!(routed(&[b"FLUSHALL"]), Err(Unfollowable::WholeDatabase));
        assert_eq!(
            routed(&[b"SWAPDB", b"0", b"1"]),
            Err(Unfollowable::WholeDatabase)
        );
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
