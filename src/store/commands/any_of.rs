//! Commands that take from the first of several keys that has something: LMPOP, ZMPOP, and
//! those that wait for one.

use std::ops::Range;

use bytes::Bytes;

use super::args::Args;
use super::context::{Context, OnTimeout, Wait};
use super::failure::Failure;

/// What LMPOP and ZMPOP are told, from the number of keys on: `numkeys key .. END [COUNT n]`.
pub(super) struct PopOfAny<E> {
    /// Numbers of the arguments that are keys.
    pub(super) keys: Range<usize>,
    /// From which end.
    pub(super) end: E,
    /// How many at most; at least 1.
    pub(super) count: u64,
}

impl<E> PopOfAny<E> {
    /// Reads it from the argument `number` on; `end_of` reads the end.
    pub(super) fn parse(
        args: Args<'_>,
        number: usize,
        end_of: fn(Args<'_>, usize) -> Result<E, Failure>,
    ) -> Result<Self, Failure> {
        let keys = count_of(args, number, "ERR numkeys should be greater than 0")?;
        let behind = usize::try_from(keys)
            .ok()
            .and_then(|keys| keys.checked_add(number + 1));
        let behind = behind
            .filter(|behind| *behind < args.len())
            .ok_or(Failure::SYNTAX)?;
        let end = end_of(args, behind)?;
        let count = match args.len() - behind {
            1 => 1,
            3.. if args.is(behind + 1, "COUNT") => {
                let count = count_of(args, behind + 2, "ERR count should be greater than 0")?;
                if args.len() - behind > 3 {
                    return Err(Failure::SYNTAX);
                }
                count
            }
            _ => return Err(Failure::SYNTAX),
        };
        Ok(Self {
            keys: number + 1..behind,
            end,
            count,
        })
    }
}

fn count_of(args: Args<'_>, number: usize, words: &'static str) -> Result<u64, Failure> {
    let count = args
        .integer(number)
        .ok()
        .and_then(|count| u64::try_from(count).ok());
    count
        .filter(|count| *count > 0)
        .ok_or(Failure::words(words))
}

/// The client waits until one of the keys has something, or is answered at once where it
/// may not wait.
pub(super) fn wait_for_any(
    context: &mut Context<'_>,
    args: Args<'_>,
    keys: Range<usize>,
    until_ms: Option<u64>,
) {
    if !context.may_wait() {
        return context.reply.null_array();
    }
    context.wait = Some(Wait {
        keys: keys
            .map(|number| Bytes::copy_from_slice(args.at(number)))
            .collect(),
        until_ms,
        on_timeout: OnTimeout::NullArray,
        again_as: None,
        ends_with_key: false,
    });
}
