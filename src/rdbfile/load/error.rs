//! What ends a load.

use crate::rdbfile::source::FileError;
use crate::router::address::ShardAddress;
use crate::upstream::SessionError;

/// Why a load did not start, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No connection, or credentials that are refused.
    #[error("{0}")]
    Session(#[from] SessionError),
    /// The layout gives keys to shards at random.
    #[error("the layout places keys at random, so no key has one owner")]
    NotDeterministic,
    /// A target is nothing that can be loaded into; nothing was changed.
    #[error("{target}: {why}")]
    Unfit {
        /// Which.
        target: ShardAddress,
        /// What is wrong, and what to do about it.
        why: String,
    },
    /// The file cannot be read on.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key is there already, and that was not to be.
    #[error("{target} has the key `{key}` (db {db}) already")]
    Exists {
        /// Where.
        target: ShardAddress,
        /// Its database.
        db: u32,
        /// Its name, escaped.
        key: String,
    },
    /// A target does not have a database of the file.
    #[error("{target} has no database {db}: {reply}")]
    NoDatabase {
        /// Which.
        target: ShardAddress,
        /// The database.
        db: u32,
        /// The target's words.
        reply: String,
    },
    /// Keys of two databases were to go to one.
    #[error("the file has keys in databases {first} and {second}, and all were to go to one")]
    SeveralDatabases {
        /// One.
        first: u32,
        /// Another.
        second: u32,
    },
    /// A target takes nothing more: full, read-only, loading.
    #[error("{target} takes no more (at {what}): {reply}")]
    TargetRefuses {
        /// Which.
        target: ShardAddress,
        /// What it was asked for.
        what: String,
        /// Its words.
        reply: String,
    },
    /// A connection broke.
    #[error("{target}: {what}")]
    TargetLost {
        /// Which.
        target: ShardAddress,
        /// What happened.
        what: String,
    },
    /// A task of ours ended as it must not.
    #[error("internal: a task of the load ended: {0}")]
    Task(String),
}

impl LoadError {
    /// Nothing was changed anywhere.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Unfit { .. } | Self::NotDeterministic)
    }

    /// What to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Session(_) | Self::TargetLost { .. } => {
                "check that the server is up and its credentials are right, then run it again with --on-conflict skip or replace"
            }
            Self::NotDeterministic => "use a layout with ketama, modula or slots",
            Self::Unfit { .. } => "nothing was changed; choose another target",
            Self::File(_) => {
                "what stands before that place was loaded; get a whole copy of the file"
            }
            Self::Exists { .. } => {
                "choose --on-conflict replace (the file's value wins) or skip (the target's stays)"
            }
            Self::NoDatabase { .. } => {
                "choose databases with --db, or put all into one: --to redis://HOST:PORT/N"
            }
            Self::SeveralDatabases { .. } => "choose one with --db",
            Self::TargetRefuses { .. } => {
                "make it take writes again, then run it again with --on-conflict skip or replace"
            }
            Self::Task(_) => "report this with the command line",
        }
    }
}

/// Whether a refusal is about the server and not about what was asked for.
pub(super) fn is_about_server(reply: &str) -> bool {
    const WORDS: [&str; 12] = [
        "OOM",
        "READONLY",
        "MISCONF",
        "NOAUTH",
        "NOPERM",
        "LOADING",
        "MASTERDOWN",
        "CLUSTERDOWN",
        "MOVED",
        "ASK",
        "NOREPLICAS",
        "BUSY",
    ];
    let word = reply.split(' ').next().unwrap_or_default();
    WORDS.contains(&word)
}
