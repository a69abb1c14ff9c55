//! The table of commands.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::args::Args;
use super::context::{Context, Outcome};

/// One command.
#[derive(Debug)]
pub struct Command {
    /// Its name, in lower case.
    pub name: &'static str,
    /// Arguments with the name; negative: at least so many.
    pub arity: i8,
    /// What COMMAND INFO tells of it, in Redis' order of flags: `write denyoom fast` ..
    pub flags: &'static str,
    /// Where its keys are.
    pub keys: Keys,
    /// Its ACL categories without the `@`: `string slow` ..; those that follow from its
    /// flags (`read`, `write`, `fast`, `slow`) are not named.
    pub categories: &'static str,
    /// What runs it.
    pub run: Run,
}

/// Where a command's keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// It has none.
    None,
    /// From one argument to another (negative: counted from the end), each so many.
    Range {
        /// The first key's number.
        first: i8,
        /// The last key's.
        last: i8,
        /// Distance from key to key.
        step: i8,
    },
    /// A number at this argument says how many follow it. `store` is one more key.
    Counted {
        /// Where the number is.
        number: i8,
        /// Where another key is; 0 for none.
        store: i8,
    },
    /// Those after a word: XREAD's `STREAMS`, the first half of what follows.
    AfterStreams,
    /// The first, and those after `STORE`: SORT, GEORADIUS.
    FirstAndStore,
}

impl Keys {
    /// One key, the first argument.
    pub const FIRST: Keys = Keys::Range {
        first: 1,
        last: 1,
        step: 1,
    };
    /// Two keys, the first arguments.
    pub const FIRST_TWO: Keys = Keys::Range {
        first: 1,
        last: 2,
        step: 1,
    };
    /// All arguments are keys.
    pub const ALL: Keys = Keys::Range {
        first: 1,
        last: -1,
        step: 1,
    };
    /// All but the last.
    pub const ALL_BUT_LAST: Keys = Keys::Range {
        first: 1,
        last: -2,
        step: 1,
    };

    /// First, last and step, as COMMAND INFO tells them.
    pub fn as_told(self) -> (i64, i64, i64) {
        match self {
            Keys::Range { first, last, step } => (first.into(), last.into(), step.into()),
            Keys::Counted { store, .. } if store != 0 => (store.into(), store.into(), 1),
            Keys::FirstAndStore => (1, 1, 1),
            Keys::None | Keys::Counted { .. } | Keys::AfterStreams => (0, 0, 0),
        }
    }

    /// Numbers of the arguments that are keys, of so many, if they stand in a range.
    pub fn range(self, len: usize) -> Option<impl Iterator<Item = usize>> {
        let Keys::Range { first, last, step } = self else {
            return None;
        };
        let last = match usize::try_from(last) {
            Ok(last) => last,
            Err(_) => len.saturating_sub(usize::from(last.unsigned_abs())),
        };
        let first = usize::from(first.unsigned_abs());
        let step = usize::from(step.unsigned_abs()).max(1);
        Some((first..=last.min(len.saturating_sub(1))).step_by(step))
    }

    /// Numbers of the arguments that are keys, in a request that the command takes.
    pub fn numbers(self, args: Args<'_>) -> Vec<usize> {
        let len = args.len();
        match self {
            Keys::None => Vec::new(),
            Keys::Range { .. } => self.range(len).into_iter().flatten().collect(),
            Keys::Counted { number, store } => {
                let at = usize::from(number.unsigned_abs());
                let count = args
                    .integer(at)
                    .ok()
                    .and_then(|count| usize::try_from(count).ok());
                let counted = count
                    .filter(|count| *count < len.saturating_sub(at))
                    .unwrap_or(0);
                let store = usize::from(store.unsigned_abs());
                let others = (at + 1)..(at + 1 + counted);
                (store != 0)
                    .then_some(store)
                    .into_iter()
                    .chain(others)
                    .collect()
            }
            Keys::AfterStreams => {
                let after = (1..len).find(|at| args.is(*at, "STREAMS")).map(|at| at + 1);
                after.map_or_else(Vec::new, |after| {
                    (after..after + (len - after) / 2).collect()
                })
            }
            Keys::FirstAndStore => {
                let is_store = |at: &usize| args.is(*at, "STORE") || args.is(*at, "STOREDIST");
                let stores = (2..len.saturating_sub(1)).filter(is_store).map(|at| at + 1);
                std::iter::once(1)
                    .filter(|at| *at < len)
                    .chain(stores)
                    .collect()
            }
        }
    }
}

/// What runs a command.
#[derive(Clone, Copy, Debug)]
pub enum Run {
    /// It works on keys, and needs no more than the keyspace.
    Data(fn(&mut Context<'_>, Args<'_>) -> Outcome),
    /// It is about the client, other clients or the server.
    Session(Verb),
}

/// Commands that need more than the keyspace, by what they are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// ACL.
    Acl,
    /// AUTH.
    Auth,
    /// CLIENT.
    Client,
    /// COMMAND.
    Command,
    /// CONFIG.
    Config,
    /// DISCARD.
    Discard,
    /// ECHO.
    Echo,
    /// EVAL and EVAL_RO.
    Eval,
    /// EVALSHA and EVALSHA_RO.
    Evalsha,
    /// EXEC.
    Exec,
    /// FCALL and FCALL_RO.
    Fcall,
    /// FUNCTION.
    Function,
    /// HELLO.
    Hello,
    /// LASTSAVE.
    Lastsave,
    /// LATENCY.
    Latency,
    /// MEMORY.
    Memory,
    /// INFO.
    Info,
    /// MIGRATE.
    Migrate,
    /// MONITOR.
    Monitor,
    /// MULTI.
    Multi,
    /// PING.
    Ping,
    /// PSUBSCRIBE.
    Psubscribe,
    /// PSYNC.
    Psync,
    /// PUBLISH.
    Publish,
    /// PUBSUB.
    Pubsub,
    /// PUNSUBSCRIBE.
    Punsubscribe,
    /// QUIT.
    Quit,
    /// REPLICAOF and SLAVEOF.
    Replicaof,
    /// REPLCONF.
    Replconf,
    /// RESET.
    Reset,
    /// ROLE.
    Role,
    /// SCRIPT.
    Script,
    /// SELECT.
    Select,
    /// SHUTDOWN.
    Shutdown,
    /// SLOWLOG.
    Slowlog,
    /// SPUBLISH.
    Spublish,
    /// SSUBSCRIBE.
    Ssubscribe,
    /// SUBSCRIBE.
    Subscribe,
    /// SUNSUBSCRIBE.
    Sunsubscribe,
    /// SYNC.
    Sync,
    /// TIME.
    Time,
    /// UNSUBSCRIBE.
    Unsubscribe,
    /// UNWATCH.
    Unwatch,
    /// WAIT.
    Wait,
    /// WATCH.
    Watch,
}

impl Command {
    /// Whether a flag is among its flags.
    pub fn has_flag(&self, flag: &str) -> bool {
        self.flags.split(' ').any(|of| of == flag)
    }

    /// Whether it takes so many arguments, its name counted.
    pub fn takes(&self, args: usize) -> bool {
        let wanted = usize::from(self.arity.unsigned_abs());
        match self.arity < 0 {
            true => args >= wanted,
            false => args == wanted,
        }
    }
}

/// Longest name, so that one is put into lower case without allocating.
const NAME_BYTES_MAX: usize = 32;

/// All commands by name.
#[derive(Debug)]
pub struct Table {
    by_name: HashMap<&'static [u8], &'static Command, RandomState>,
}

impl Table {
    /// Of the families given.
    pub fn new(families: &[&'static [Command]]) -> Self {
        let commands = families.iter().flat_map(|family| family.iter());
        Self {
            by_name: commands
                .map(|command| (command.name.as_bytes(), command))
                .collect(),
        }
    }

    /// The command of a name, in any case of its letters.
    pub fn find(&self, name: &[u8]) -> Option<&'static Command> {
        let mut lower = [0; NAME_BYTES_MAX];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        self.by_name.get(&*lower).copied()
    }

    /// All commands, in no order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'static Command> {
        self.by_name.values().copied()
    }
}
