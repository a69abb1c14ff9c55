//! What a command seen in a replication stream means for the follow stage.
//!
//! Servers replicate effects: absolute expiry times, SREM for SPOP, no blocking
//! forms. What is left to tell apart is where an effect must be applied.

use super::{ArgList, Command, KeyArg, SplitKind};

/// How a replicated command is applied to the targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEffect {
    /// Where its keys ([`Command::keys`]) are now.
    Keyed,
    /// May be parted by its keys without changing what it does.
    Splittable(SplitKind),
    /// To every target: functions belong to no key.
    Broadcast,
    /// Changes no data.
    Ignored,
    /// Drops or swaps whole databases of the source: FLUSHALL, FLUSHDB, SWAPDB.
    WholeDatabase,
    /// Changes data, but which is not known: a script without keys, a
    /// command that never should be in a stream.
    Unroutable,
}

/// Tells how to apply `command` with `args`; `scratch` is overwritten.
pub fn stream_effect(
    command: &Command,
    args: &(impl ArgList + ?Sized),
    scratch: &mut Vec<KeyArg>,
) -> StreamEffect {
    match command.name {
        "del" => StreamEffect::Splittable(SplitKind::Del),
        "unlink" => StreamEffect::Splittable(SplitKind::Unlink),
        "mset" => StreamEffect::Splittable(SplitKind::Mset),
        "flushall" | "flushdb" | "swapdb" => StreamEffect::WholeDatabase,
        "function|load" | "function|delete" | "function|flush" | "function|restore" => {
            StreamEffect::Broadcast
        }
        "publish" | "spublish" | "ping" | "replconf" | "script|load" | "script|flush" => {
            StreamEffect::Ignored
        }
        _ => match command.keys(args, scratch) {
            Ok(()) if !scratch.is_empty() => StreamEffect::Keyed,
            _ => StreamEffect::Unroutable,
        },
    }
}
