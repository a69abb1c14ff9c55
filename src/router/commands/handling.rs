//! What the proxy does with each command.
//!
//! A request may ride on a connection that other clients use too, so whatever
//! changes that connection's state or keeps it waiting gets a connection of its
//! own, is answered here, or is refused; whatever has no key has no shard. What
//! is refused says why.

use super::{ArgList, Command, CommandFlags, FanOut};

/// How requests of a command are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// To the shard of its keys; all of them must be on one.
    Forward,
    /// Answered by the proxy itself.
    Local(LocalCommand),
    /// Parted by keys, one request a shard, and the replies merged.
    Split(SplitKind),
    /// Binds the client to a connection of one shard for a while.
    Session(SessionCommand),
    /// Without a key: to every shard, or to one after the other.
    Everywhere(FanOut),
    /// Refused with an error; the connection stays open.
    Unsupported(Unsupported),
}

/// Commands after which a client's requests are more than one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionCommand {
    /// MULTI: requests are kept until EXEC.
    Multi,
    /// EXEC: what was kept goes to its shard at once.
    Exec,
    /// DISCARD: what was kept is forgotten.
    Discard,
    /// WATCH: a connection to the keys' shard looks after them.
    Watch,
    /// UNWATCH.
    Unwatch,
    /// Waits at the keys' shard, on a connection that no one else uses.
    Block,
    /// SUBSCRIBE and its kin.
    Subscribe(TopicKind),
    /// UNSUBSCRIBE and its kin.
    Unsubscribe(TopicKind),
    /// PUBLISH, SPUBLISH: to the channel's shard, as if it were a key.
    Publish,
}

/// What can be subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TopicKind {
    /// SUBSCRIBE: a channel, which belongs to the shard that a key of its name
    /// would belong to.
    Channel,
    /// PSUBSCRIBE: channels of any shard.
    Pattern,
    /// SSUBSCRIBE: a channel, likewise; they have names of their own.
    ShardChannel,
}

/// Commands that the proxy answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the command of its name")]
pub enum LocalCommand {
    Ping,
    PubSub,
    Echo,
    Quit,
    Select,
    Hello,
    Auth,
    Client,
    Command,
    Info,
    Time,
    Reset,
    ReadOnly,
    ReadWrite,
    Acl,
    Cluster,
    Config,
    Latency,
    Role,
    Slowlog,
}

/// Commands whose keys may be on several shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplitKind {
    /// Values in the order asked for.
    Mget,
    /// Key and value pairs; OK when all shards said so. Not atomic across shards.
    Mset,
    /// Sum of the shards' counts.
    Del,
    /// Sum of the shards' counts.
    Unlink,
    /// Sum of the shards' counts.
    Exists,
    /// Sum of the shards' counts.
    Touch,
}

/// Why a command is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsupported {
    /// WAIT, WAITAOF.
    Wait,
    /// MONITOR.
    Monitor,
    /// PSYNC, SYNC, REPLCONF: between servers.
    Replication,
    /// Has no key and so belongs to one server, which the client did not name.
    OneServer,
    /// A script or function that declares no keys.
    KeylessScript,
    /// MIGRATE names another server, behind the proxy's back.
    Migrate,
    /// SCRIPT KILL, FUNCTION KILL.
    ScriptKill,
    /// CLIENT TRACKING, CLIENT CACHING.
    Tracking,
    /// CLIENT PAUSE, UNPAUSE, UNBLOCK.
    OtherClients,
    /// CONFIG SET, CONFIG REWRITE.
    Settings,
}

impl Unsupported {
    /// The reason, for people: what follows "not supported through this proxy: ".
    pub fn reason(self) -> &'static str {
        match self {
            Self::Wait => {
                "its writes went over connections that other clients share, and no one may keep \
                 those waiting; min-replicas-to-write of a shard's config guards every write"
            }
            Self::Monitor => "it watches one server; connect to that server",
            Self::Replication => "it is spoken between a server and its replica",
            Self::OneServer => "it has no key, so it belongs to one server; connect to that server",
            Self::KeylessScript => {
                "a script must declare the keys it uses, so that its shard is known"
            }
            Self::ScriptKill => {
                "it could wait behind the very script that it is to end; connect to that server"
            }
            Self::Tracking => {
                "a server would tell what changed to a connection that other clients share"
            }
            Self::OtherClients => "no client may stop or wake the others",
            Self::Settings => {
                "the proxy's settings are in its config file, a shard's are changed at the shard"
            }
            Self::Migrate => "keys moved behind the proxy would not be found again",
        }
    }
}

impl Handling {
    /// Classifies the command `name` (`container|subcommand` for a subcommand).
    pub(super) fn of(name: &str, flags: CommandFlags, has_keys: bool) -> Self {
        let family = name.split('|').next().unwrap_or(name);
        if let Some(kind) = split(name) {
            return Self::Split(kind);
        }
        if let Some(kind) = FanOut::of(name) {
            return Self::Everywhere(kind);
        }
        if let Some(why) = refused(name) {
            return Self::Unsupported(why);
        }
        if let Some(local) = local(name).or_else(|| local(family)) {
            return Self::Local(local);
        }
        match family {
            "multi" => Self::Session(SessionCommand::Multi),
            "exec" => Self::Session(SessionCommand::Exec),
            "discard" => Self::Session(SessionCommand::Discard),
            "watch" => Self::Session(SessionCommand::Watch),
            "unwatch" => Self::Session(SessionCommand::Unwatch),
            "subscribe" => Self::Session(SessionCommand::Subscribe(TopicKind::Channel)),
            "psubscribe" => Self::Session(SessionCommand::Subscribe(TopicKind::Pattern)),
            "ssubscribe" => Self::Session(SessionCommand::Subscribe(TopicKind::ShardChannel)),
            "unsubscribe" => Self::Session(SessionCommand::Unsubscribe(TopicKind::Channel)),
            "punsubscribe" => Self::Session(SessionCommand::Unsubscribe(TopicKind::Pattern)),
            "sunsubscribe" => Self::Session(SessionCommand::Unsubscribe(TopicKind::ShardChannel)),
            "publish" | "spublish" => Self::Session(SessionCommand::Publish),
            "monitor" => Self::Unsupported(Unsupported::Monitor),
            "psync" | "sync" | "replconf" => Self::Unsupported(Unsupported::Replication),
            "migrate" => Self::Unsupported(Unsupported::Migrate),
            // These block only with BLOCK: see `Command::handling_for`.
            "xread" | "xreadgroup" => Self::Forward,
            "wait" | "waitaof" => Self::Unsupported(Unsupported::Wait),
            _ if flags.contains(CommandFlags::BLOCKING) => Self::Session(SessionCommand::Block),
            _ if has_keys => Self::Forward,
            _ => Self::Unsupported(Unsupported::OneServer),
        }
    }
}

/// What is refused of families that are answered otherwise.
fn refused(name: &str) -> Option<Unsupported> {
    Some(match name {
        "client|tracking" | "client|caching" => Unsupported::Tracking,
        "client|pause" | "client|unpause" | "client|unblock" => Unsupported::OtherClients,
        "config|set" | "config|rewrite" => Unsupported::Settings,
        "script|kill" | "function|kill" => Unsupported::ScriptKill,
        _ => return None,
    })
}

fn local(name: &str) -> Option<LocalCommand> {
    Some(match name {
        "ping" => LocalCommand::Ping,
        "pubsub" => LocalCommand::PubSub,
        "echo" => LocalCommand::Echo,
        "quit" => LocalCommand::Quit,
        "select" => LocalCommand::Select,
        "hello" => LocalCommand::Hello,
        "auth" => LocalCommand::Auth,
        "client" => LocalCommand::Client,
        "command" => LocalCommand::Command,
        "info" => LocalCommand::Info,
        "time" => LocalCommand::Time,
        "reset" => LocalCommand::Reset,
        "readonly" => LocalCommand::ReadOnly,
        "readwrite" => LocalCommand::ReadWrite,
        "acl|whoami" => LocalCommand::Acl,
        "cluster" | "asking" => LocalCommand::Cluster,
        "config" => LocalCommand::Config,
        "latency" => LocalCommand::Latency,
        "role" => LocalCommand::Role,
        "slowlog" => LocalCommand::Slowlog,
        _ => return None,
    })
}

fn split(name: &str) -> Option<SplitKind> {
    Some(match name {
        "mget" => SplitKind::Mget,
        "mset" => SplitKind::Mset,
        "del" => SplitKind::Del,
        "unlink" => SplitKind::Unlink,
        "exists" => SplitKind::Exists,
        "touch" => SplitKind::Touch,
        _ => return None,
    })
}

impl Command {
    /// How this request is treated: [`Command::handling`], except that `XREAD
    /// ... BLOCK` blocks and a script may come without keys. Costs nothing for
    /// commands with one fixed key.
    #[inline]
    pub fn handling_for(&self, args: &(impl ArgList + ?Sized)) -> Handling {
        if self.first_key_fast().is_some() || self.handling() != Handling::Forward {
            return self.handling();
        }
        if self.flags.contains(CommandFlags::BLOCKING) && asks_to_block(args) {
            return Handling::Session(SessionCommand::Block);
        }
        if self.flags.contains(CommandFlags::NO_MANDATORY_KEYS) && args.arg(2) == b"0" {
            return Handling::Unsupported(Unsupported::KeylessScript);
        }
        Handling::Forward
    }
}

/// True if BLOCK is among the options of XREAD or XREADGROUP, which all stand
/// before STREAMS (a group or a stream may be named "block").
fn asks_to_block(args: &(impl ArgList + ?Sized)) -> bool {
    let mut index = 1;
    while index < args.len() {
        let word = args.arg(index);
        if word.eq_ignore_ascii_case(b"block") {
            return true;
        }
        index += if word.eq_ignore_ascii_case(b"count") {
            2
        } else if word.eq_ignore_ascii_case(b"group") {
            3
        } else if word.eq_ignore_ascii_case(b"noack") {
            1
        } else {
            return false;
        };
    }
    false
}
