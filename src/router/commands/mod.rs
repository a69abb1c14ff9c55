//! The command table: what a request is, how many arguments it takes, which of
//! them are keys, and how the proxy and the follow stage must treat it.
//!
//! ```text
//! request args -> resolve ----> Command -> handling_for -> Forward | Local | Split | Everywhere | Unsupported
//!                    |             |-----> keys ---------> key positions
//!                    v             `-----> stream_effect -> how a replicated command is applied
//!             Refusal (Redis's own words, the connection stays open)
//! ```
//!
//! The data is `commands.tsv`, made once from a server's own `COMMAND` answer
//! (see `scripts/generate-commands`) and compiled in. It is parsed on first use
//! and never changes, so a `&'static Command` may be kept and compared.
//!
//! What COMMAND DOCS tells is data of its own (`docs.rs`).
//!
//! Invariants: every name is lower case; a subcommand's name is
//! `container|subcommand`, as Redis prints it in errors.

pub mod docs;
mod effect;
mod fan_out;
mod flags;
mod handling;
mod keys;
mod keyspec;
mod table;

pub use effect::{StreamEffect, stream_effect};
pub use fan_out::FanOut;
pub use flags::CommandFlags;
pub use handling::{Handling, LocalCommand, SessionCommand, SplitKind, TopicKind, Unsupported};
pub use keys::{ArgList, KeyArg, KeyError, SpannedArgs};
use keyspec::KeySpec;

/// One command or subcommand that a Redis server knows.
#[derive(Debug)]
pub struct Command {
    /// Lower case; `client|setname` for a subcommand.
    pub name: &'static str,
    /// Number of arguments including the name(s); negative: at least that many.
    pub arity: i32,
    /// Flags as `COMMAND` reports them.
    pub flags: CommandFlags,
    /// First Redis version that knows it, e.g. `7.0.0`.
    pub since: &'static str,
    specs: Vec<KeySpec>,
    subcommands: Vec<Command>,
    handling: Handling,
    quirk: keys::Quirk,
    /// 0: none (position 0 is the command's own name).
    fast_key: u8,
    writes: bool,
}

/// Why a server would not even look at a request; rendered in Redis's words by
/// [`super::errors::ErrorReply::refused`].
#[derive(Debug, Clone, Copy)]
pub enum Refusal {
    /// No command has this name.
    UnknownCommand,
    /// The container exists, the subcommand does not.
    UnknownSubcommand,
    /// Too few or too many arguments for this command.
    Arity(&'static Command),
}

/// Finds a top-level command by its name in any case. No allocation.
///
/// For a container such as `CONFIG` this is the container itself; requests go
/// through [`resolve`].
#[inline]
pub fn lookup(name: &[u8]) -> Option<&'static Command> {
    table::table().find(name)
}

/// Finds the command or subcommand that a request names and checks its arity.
///
/// # Errors
/// A [`Refusal`]; the connection stays open.
#[inline]
pub fn resolve(args: &(impl ArgList + ?Sized)) -> Result<&'static Command, Refusal> {
    let Some(mut command) = lookup(args.arg(0)) else {
        return Err(Refusal::UnknownCommand);
    };
    if command.is_container() && args.len() > 1 {
        command = command
            .subcommand(args.arg(1))
            .ok_or(Refusal::UnknownSubcommand)?;
    }
    if !command.arity_ok(args.len()) {
        return Err(Refusal::Arity(command));
    }
    Ok(command)
}

/// Every top-level command, by name; subcommands hang below their container.
pub fn all() -> &'static [Command] {
    table::table().commands()
}

impl Command {
    /// True for `CONFIG`, `XGROUP`, ...: the second argument names the command.
    #[inline]
    pub fn is_container(&self) -> bool {
        !self.subcommands.is_empty()
    }

    /// The subcommands of a container, by name; empty for any other command.
    pub fn subcommands(&self) -> &[Command] {
        &self.subcommands
    }

    /// Finds `word` (any case, without the container's name) below a container.
    pub fn subcommand(&self, word: &[u8]) -> Option<&Command> {
        let prefix = self.name.len() + 1;
        self.subcommands.iter().find(|sub| {
            sub.name
                .as_bytes()
                .get(prefix..)
                .is_some_and(|own| own.eq_ignore_ascii_case(word))
        })
    }

    /// Whether a request of `count` arguments, names included, can be right.
    #[inline]
    pub fn arity_ok(&self, count: usize) -> bool {
        let wanted = self.arity.unsigned_abs() as usize;
        if self.arity < 0 {
            count >= wanted
        } else {
            count == wanted
        }
    }

    /// True if it may change data: flagged `write`, or a script that may write
    /// to the keys it declares.
    #[inline]
    pub fn is_write(&self) -> bool {
        self.writes
    }

    /// True if some argument of it can be a key.
    pub fn has_keys(&self) -> bool {
        self.specs.iter().any(|spec| !spec.is_not_key())
    }

    /// `Some(i)` when argument `i` is the only key of every request of this
    /// command that passes [`Command::arity_ok`].
    #[inline]
    pub fn first_key_fast(&self) -> Option<usize> {
        if self.fast_key == 0 {
            None
        } else {
            Some(usize::from(self.fast_key))
        }
    }

    /// First key, last key (negative: from the end) and step, as COMMAND tells
    /// them to clients: of the first key spec that has fixed places, else zeros.
    pub fn key_range(&self) -> (usize, isize, usize) {
        let ranges = self.specs.iter().filter(|spec| !spec.is_not_key());
        let mut ranges = ranges.filter_map(KeySpec::fixed_range);
        ranges.next().unwrap_or_default()
    }

    /// How requests of this command are treated, unless their arguments matter
    /// ([`Command::handling_for`]).
    #[inline]
    pub fn handling(&self) -> Handling {
        self.handling
    }
}

#[cfg(test)]
mod tests;
