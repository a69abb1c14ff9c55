//! Command flags as `COMMAND` reports them, as a set of bits.

use std::fmt;

/// A set of command flags.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct CommandFlags(u32);

const NAMES: [&str; 19] = [
    "write",
    "readonly",
    "blocking",
    "pubsub",
    "admin",
    "noscript",
    "movablekeys",
    "no_mandatory_keys",
    "denyoom",
    "fast",
    "loading",
    "stale",
    "no_auth",
    "no_multi",
    "no_async_loading",
    "allow_busy",
    "asking",
    "skip_monitor",
    "skip_slowlog",
];

impl CommandFlags {
    /// Changes data.
    pub const WRITE: Self = Self(1);
    /// Only reads data.
    pub const READONLY: Self = Self(1 << 1);
    /// May keep the connection waiting.
    pub const BLOCKING: Self = Self(1 << 2);
    /// Publish and subscribe.
    pub const PUBSUB: Self = Self(1 << 3);
    /// For operators.
    pub const ADMIN: Self = Self(1 << 4);
    /// Key positions depend on the arguments.
    pub const MOVABLE_KEYS: Self = Self(1 << 6);
    /// May come without any key (scripts).
    pub const NO_MANDATORY_KEYS: Self = Self(1 << 7);

    /// Parses `write,fast` or `-`; `None` if a word is not a known flag.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == "-" {
            return Some(Self::default());
        }
        text.split(',').try_fold(Self::default(), |set, word| {
            let bit = NAMES.iter().position(|name| *name == word)?;
            Some(Self(set.0 | 1 << bit))
        })
    }

    /// True if every flag of `other` is in this set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names of the flags in this set, as `COMMAND` spells them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES
            .into_iter()
            .enumerate()
            .filter(move |(bit, _)| self.0 & (1 << bit) != 0)
            .map(|(_, name)| name)
    }
}

impl fmt::Debug for CommandFlags {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.names()).finish()
    }
}
