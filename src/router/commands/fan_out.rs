//! Commands without a key that every shard has a part in.

/// What is asked of the shards, and what becomes of their answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FanOut {
    /// KEYS: the names of all shards, joined.
    Keys,
    /// DBSIZE: the sum.
    Size,
    /// RANDOMKEY: one of the shards' answers.
    RandomKey,
    /// SCAN: one shard after the other; the cursor says which.
    Scan,
    /// FLUSHDB, FLUSHALL: OK when all said so, if the pool allows it.
    Flush,
    /// SCRIPT LOAD, SCRIPT FLUSH: the one answer all give.
    Scripts,
    /// SCRIPT EXISTS: what all have.
    ScriptsExist,
    /// FUNCTION LOAD, DELETE, FLUSH, RESTORE: the one answer all give.
    Functions,
    /// FUNCTION STATS: of a shard that runs a function, else of any.
    FunctionStats,
    /// What every shard answers alike: FUNCTION LIST, FUNCTION DUMP, LOLWUT,
    /// ACL CAT, ACL GENPASS, COMMAND DOCS (redis-cli's hints), and every HELP.
    /// Asked is the first one that is there.
    AnyShard,
}

impl FanOut {
    /// How a command is sent to all shards; `None` for one that is not.
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "keys" => Self::Keys,
            "dbsize" => Self::Size,
            "randomkey" => Self::RandomKey,
            "scan" => Self::Scan,
            "flushdb" | "flushall" => Self::Flush,
            "script|load" | "script|flush" => Self::Scripts,
            "script|exists" => Self::ScriptsExist,
            "function|load" | "function|delete" | "function|flush" | "function|restore" => {
                Self::Functions
            }
            "function|stats" => Self::FunctionStats,
            "function|list" | "function|dump" | "lolwut" | "acl|cat" | "acl|genpass"
            | "command|docs" => Self::AnyShard,
            _ if name.ends_with("|help") => Self::AnyShard,
            _ => return None,
        })
    }

    /// Whether its answer or its effect depends on which shard has which keys,
    /// or must reach the shards of a coming layout as a change does.
    pub fn waits_for_moves(self) -> bool {
        match self {
            Self::Keys
            | Self::Size
            | Self::RandomKey
            | Self::Scan
            | Self::Flush
            | Self::Functions => true,
            Self::Scripts | Self::ScriptsExist | Self::FunctionStats | Self::AnyShard => false,
        }
    }
}
