//! What can stop the mover: which server, at which step, whose fault, and
//! whether the same command may simply be run again.

use std::fmt;
use std::sync::Arc;

use crate::rdb::DecodeError;
use crate::replication::TapError;
use crate::router::address::ShardAddress;
use crate::router::commands::KeyError;
use crate::upstream::{self, Blame, SessionError};

use super::key_text::KeyText;

/// What a server is to the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// An old shard: keys are read from it.
    Source,
    /// A new shard: keys are written to it.
    Target,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Source => "source",
            Role::Target => "target",
        })
    }
}

/// Whether the same job, started again, can be expected to get further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Nothing will change without somebody's help.
    AfterRepair,
    /// A passing state (link lost, memory full, loading): run again.
    RunAgain,
}

/// One key somewhere, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyAt {
    /// Database number.
    pub db: u32,
    /// The key, binary.
    pub key: Vec<u8>,
    /// The server that holds it.
    pub server: ShardAddress,
}

impl fmt::Display for KeyAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` (db {}) on {}",
            KeyText(&self.key),
            self.db,
            self.server
        )
    }
}

/// Why the mover stopped or refused to start. Cheap to clone: every waiter of
/// a failed mover gets the same one.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MoveError {
    /// A layout places keys at random: nobody can say which ones move.
    #[error(
        "the {which} layout places keys at random, so no key has one owner: use ketama, modula or slots"
    )]
    NotDeterministic {
        /// `old` or `new`.
        which: &'static str,
    },
    /// A check before the start failed; nothing was changed.
    #[error("{role} {server}: {step}: {why}")]
    Preflight {
        /// Old or new shard.
        role: Role,
        /// Its address.
        server: ShardAddress,
        /// What was being checked.
        step: &'static str,
        /// What is wrong and what to do about it.
        why: String,
    },
    /// Two addresses lead to one server, so its keys would be moved onto themselves.
    #[error(
        "{first} and {second} are the same server (run id {run_id}): write its address the same way in both layouts"
    )]
    SameServer {
        /// One address.
        first: ShardAddress,
        /// The other address.
        second: ShardAddress,
        /// The server's own id.
        run_id: String,
    },
    /// Keys would end on their targets at other moments than on their sources.
    #[error(
        "the clocks of {first} and {second} are at least {apart_ms} ms apart, more than the {max_ms} ms that expiry times bear: set both by one time source (NTP), then run it again"
    )]
    ClocksDiffer {
        /// One server.
        first: ShardAddress,
        /// The other server.
        second: ShardAddress,
        /// Lower bound of the difference.
        apart_ms: u64,
        /// The bound.
        max_ms: u64,
    },
    /// A connection of ours could not be made or broke.
    #[error("{role} {server}: {step}: {cause}")]
    Link {
        /// Old or new shard.
        role: Role,
        /// Its address.
        server: ShardAddress,
        /// What we were doing.
        step: &'static str,
        /// What the connection said.
        #[source]
        cause: Arc<SessionError>,
    },
    /// A server answered one of our own requests with an error or with something unexpected.
    #[error("{role} {server}: {step}: {reply}{}", help_for(.reply))]
    Answer {
        /// Old or new shard.
        role: Role,
        /// Its address.
        server: ShardAddress,
        /// What we asked for.
        step: &'static str,
        /// The server's words, or what was odd about them.
        reply: String,
    },
    /// The tap could not follow its source.
    #[error("source {source_server}: replication: {cause}")]
    Tap {
        /// The source's address.
        source_server: ShardAddress,
        /// What the tap said.
        #[source]
        cause: Arc<TapError>,
    },
    /// Targets already hold keys that are to move to them; nothing was changed.
    #[error("{count} keys that are to move already exist in their targets, for example {}: look at them, then choose --on-conflict replace (the source's value wins) or skip (the target's value stays)", list(.examples))]
    Conflict {
        /// Some of them.
        examples: Vec<KeyAt>,
        /// How many there are.
        count: u64,
    },
    /// `OnConflict::Skip` met more keys than it remembers.
    #[error(
        "more than {max} keys already exist in their targets: too many to skip, look at how the targets were filled"
    )]
    TooManySkipped {
        /// The bound.
        max: usize,
    },
    /// A source that is walked through has too many keys that would have to be
    /// remembered.
    #[error(
        "source {source_server} has more than {max} keys to be remembered: {}",
        if *.passes {
            "in repeated passes all moving keys are; let our user CONFIG GET and CONFIG SET notify-keyspace-events, or allow PSYNC and use --attach psync"
        } else {
            "streams and HyperLogLogs are, since they can change without a notification; allow PSYNC and use --attach psync"
        }
    )]
    TooManyToRemember {
        /// The source's address.
        source_server: ShardAddress,
        /// The bound.
        max: usize,
        /// Whether it is read in repeated passes.
        passes: bool,
    },
    /// A resumed job cannot tell its own keys from those it was told to leave alone.
    #[error(
        "a job with --on-conflict skip cannot be resumed: which keys were in the targets before it began is not known any more; start again with --on-conflict replace (the source's values win) or after removing the copied keys"
    )]
    SkipCannotResume,
    /// A target answered a key or command we sent with an error.
    #[error("target {}: {command} of `{}` (db {}) from {source_server}: {reply}{}", .at.server, KeyText(&.at.key), .at.db, help_for(.reply))]
    TargetRefused {
        /// The target, and the first moving key of what we sent; it may be empty.
        at: Box<KeyAt>,
        /// The source whose data it was.
        source_server: ShardAddress,
        /// The command's name.
        command: String,
        /// The target's words.
        reply: String,
    },
    /// A lane's connection broke, or its target fell silent.
    #[error("target {target}: connection for keys of {source_server}: {what}")]
    LaneLost {
        /// The target's address.
        target: ShardAddress,
        /// The source whose keys went over it.
        source_server: ShardAddress,
        /// What happened.
        what: String,
    },
    /// A target does not hold what it had confirmed.
    #[error(
        "target {target} has lost data of {source_server} that it had confirmed ({what}): it restarted without it, or an older copy took its place; start the job again, which copies anew"
    )]
    TargetForgot {
        /// The target's address.
        target: ShardAddress,
        /// The source whose data it was.
        source_server: ShardAddress,
        /// What its checkpoint says.
        what: String,
    },
    /// A target refused something, and may have applied what came behind it.
    #[error(
        "target {target} may have applied what came after a command from {source_server} that it refused: start the job again, which copies anew; {why}"
    )]
    TargetAhead {
        /// The target's address.
        target: ShardAddress,
        /// The source whose data it was.
        source_server: ShardAddress,
        /// The refusal.
        why: String,
    },
    /// A value of a snapshot breaks its format.
    #[error("source {source_server}: the value of `{}` (db {db}) cannot be read: {cause}", KeyText(.key))]
    Malformed {
        /// The source's address.
        source_server: ShardAddress,
        /// Database number.
        db: u32,
        /// The key.
        key: Vec<u8>,
        /// Where and how.
        #[source]
        cause: DecodeError,
    },
    /// A command in a source's stream that cannot be applied elsewhere.
    #[error("source {source_server}: {command} at offset {offset} of its stream: {why}")]
    Unfollowable {
        /// The source's address.
        source_server: ShardAddress,
        /// The command's name and what it touched.
        command: String,
        /// Offset after the command, in bytes of the replication stream.
        offset: u64,
        /// Why, and what to do.
        why: Unfollowable,
    },
    /// More keys wait to be read again than are remembered.
    #[error(
        "source {source_server}: too many keys were written by commands that span servers and wait to be read again: let such commands (RENAME, SMOVE, *STORE ..) rest while keys move, or use hash tags"
    )]
    TooManyPending {
        /// The source's address.
        source_server: ShardAddress,
    },
    /// Too many keys end soon for their exact times to be set while clients wait.
    #[error(
        "source {source_server}: {count} keys end within seconds, more than the {max} whose times can be set at a switch: try again when fewer do"
    )]
    TooManyEnding {
        /// The source's address.
        source_server: ShardAddress,
        /// How many.
        count: usize,
        /// The bound.
        max: usize,
    },
    /// Targets were too slow while a switch was prepared: keys may have ended
    /// there before the commands that renewed them came.
    #[error(
        "source {source_server}: commands took {lag_ms} ms to its targets while a switch was prepared, more than the {max_ms} ms in which no key can end unseen"
    )]
    TooFarBehind {
        /// The source's address.
        source_server: ShardAddress,
        /// The longest.
        lag_ms: u64,
        /// The bound.
        max_ms: u64,
    },
    /// A marker did not come back in time.
    #[error("the marker sent to source {source_server} was not applied within {waited_ms} ms")]
    MarkerLate {
        /// The source's address.
        source_server: ShardAddress,
        /// How long we waited.
        waited_ms: u64,
    },
    /// Keepers did not attach in time.
    #[error("new shards did not take a replica within {waited_ms} ms")]
    KeeperLate {
        /// How long we waited.
        waited_ms: u64,
    },
    /// What was asked of a source's stream has no answer: it was lost for good, so
    /// that the source is copied anew, or a promoted replica goes on with it.
    #[error(
        "source {source_server}: what was asked of its stream was lost: it is copied anew, or another server took its place"
    )]
    Restarted {
        /// The source's address.
        source_server: ShardAddress,
    },
    /// What some keys hold cannot be on their targets: clients would miss it.
    #[error("{count} keys of source {source_server} cannot be held by their targets")]
    Unheld {
        /// The source's address.
        source_server: ShardAddress,
        /// How many.
        count: u64,
    },
    /// A task of ours ended without an error of its own.
    #[error("task {task} ended unexpectedly: {how}")]
    TaskLost {
        /// The task's name.
        task: String,
        /// Panicked, or closed its channel.
        how: String,
    },
    /// The mover was stopped while somebody waited for it.
    #[error("the mover was stopped")]
    Stopped,
}

/// Why a command of the stream has no place to go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfollowable {
    /// We do not know which keys it has.
    #[error("unknown command: which keys it changes cannot be told")]
    UnknownCommand,
    /// Known by name, but its effect is not that of a plain command.
    #[error("{0}")]
    NotPlain(&'static str),
    /// Its arguments do not give its keys.
    #[error("{0}")]
    BadArguments(KeyError),
}

impl MoveError {
    /// Whether running the same job again may help.
    pub fn retry(&self) -> Retry {
        match self {
            // A wrong password is still wrong the next time.
            MoveError::Link { cause, .. } if cause.blame() == Blame::Configuration => {
                Retry::AfterRepair
            }
            // So is what a tap cannot read or is not allowed to.
            MoveError::Tap { cause, .. } if cause.retry() == upstream::Retry::Never => {
                Retry::AfterRepair
            }
            MoveError::Link { .. }
            | MoveError::LaneLost { .. }
            | MoveError::TargetForgot { .. }
            | MoveError::TargetAhead { .. }
            | MoveError::MarkerLate { .. }
            | MoveError::KeeperLate { .. }
            | MoveError::Restarted { .. }
            | MoveError::TooManyEnding { .. }
            | MoveError::TooFarBehind { .. }
            | MoveError::Tap { .. }
            | MoveError::Stopped => Retry::RunAgain,
            MoveError::TargetRefused { reply, .. } | MoveError::Answer { reply, .. }
                if is_passing(reply) =>
            {
                Retry::RunAgain
            }
            _ => Retry::AfterRepair,
        }
    }

    /// Whether what targets hold may be gone on with at their checkpoints by a run
    /// after this error; after others only a new copy is to be trusted.
    pub fn keeps_checkpoints(&self) -> bool {
        let is_distrusted = matches!(
            self,
            MoveError::TargetForgot { .. } | MoveError::TargetAhead { .. }
        );
        self.is_refusal() || (self.retry() == Retry::RunAgain && !is_distrusted)
    }

    /// True when a source was out of reach, far behind, or began anew: what failed can be done
    /// again by the same mover.
    pub fn is_of_a_moment(&self) -> bool {
        match self {
            MoveError::Restarted { .. }
            | MoveError::MarkerLate { .. }
            | MoveError::TooManyEnding { .. }
            | MoveError::TooFarBehind { .. } => true,
            MoveError::Link { role, cause, .. } => {
                *role == Role::Source && cause.blame() != Blame::Configuration
            }
            _ => false,
        }
    }

    /// True when nothing was written to any server before this error.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            MoveError::NotDeterministic { .. }
                | MoveError::Preflight { .. }
                | MoveError::SameServer { .. }
                | MoveError::ClocksDiffer { .. }
                | MoveError::Conflict { .. }
                | MoveError::TooManySkipped { .. }
                | MoveError::SkipCannotResume
        )
    }
}

/// Error replies that go away by themselves or by giving the server what it lacks.
const PASSING: [&str; 8] = [
    "OOM",
    "MISCONF",
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "NOREPLICAS",
    "BUSY ",
    "TRYAGAIN",
];

/// True for error replies that say "not now".
pub(super) fn is_passing(reply: &str) -> bool {
    // What EXEC itself is refused for.
    const DISCARDED: &str = "EXECABORT Transaction discarded because of: ";
    let reply = reply.strip_prefix(DISCARDED).unwrap_or(reply);
    PASSING.iter().any(|word| reply.starts_with(word))
}

fn help_for(reply: &str) -> &'static str {
    if reply.starts_with("OOM") {
        " (give the target more memory, then run the job again)"
    } else if reply.starts_with("BUSYKEY") {
        " (somebody else wrote this key to the target after the job began)"
    } else {
        ""
    }
}

fn list(examples: &[KeyAt]) -> String {
    let shown: Vec<String> = examples.iter().take(3).map(KeyAt::to_string).collect();
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::{TapErrorKind, TapStep};

    #[test]
    fn a_tap_that_can_never_go_on_is_not_run_again() {
        let retry = |kind: TapErrorKind| {
            let address: ShardAddress = "s:1".parse().unwrap();
            let cause = TapError {
                address: address.clone(),
                step: TapStep::Stream,
                kind,
            };
            let error = MoveError::Tap {
                source_server: address,
                cause: Arc::new(cause),
            };
            error.retry()
        };
        for lasting in [
            TapErrorKind::WrongPassword("WRONGPASS".to_owned()),
            TapErrorKind::PsyncNotAvailable("ERR unknown command".to_owned()),
            TapErrorKind::NotACommand {
                offset: 7,
                byte: b'+',
            },
        ] {
            let text = lasting.to_string();
            assert_eq!(retry(lasting), Retry::AfterRepair, "{text}");
        }
        for passing in [
            TapErrorKind::Closed,
            TapErrorKind::NotNow("LOADING".to_owned()),
        ] {
            let text = passing.to_string();
            assert_eq!(retry(passing), Retry::RunAgain, "{text}");
        }
    }

    #[test]
    fn only_what_passes_and_leaves_targets_as_they_were_told_keeps_checkpoints() {
        let server = || -> ShardAddress { "s:1".parse().unwrap() };
        let refused = |reply: &str| MoveError::TargetRefused {
            at: Box::new(KeyAt {
                db: 0,
                key: b"k".to_vec(),
                server: server(),
            }),
            source_server: server(),
            command: "SET".to_owned(),
            reply: reply.to_owned(),
        };
        let (target, source_server) = (server(), server());
        let forgot = MoveError::TargetForgot {
            target,
            source_server,
            what: "it is empty".to_owned(),
        };
        let ahead = MoveError::TargetAhead {
            target: server(),
            source_server: server(),
            why: refused("OOM").to_string(),
        };
        let lost = MoveError::LaneLost {
            target: server(),
            source_server: server(),
            what: "closed".to_owned(),
        };
        for keeping in [refused("OOM"), refused("LOADING"), lost, MoveError::Stopped] {
            assert!(keeping.keeps_checkpoints(), "{keeping}");
        }
        for other in [forgot, ahead, refused("WRONGTYPE")] {
            assert!(!other.keeps_checkpoints(), "{other}");
        }
    }

    #[test]
    fn replies_that_pass_are_told_from_those_that_stay() {
        for passing in [
            "OOM command not allowed",
            "EXECABORT Transaction discarded because of: OOM command not allowed",
            "LOADING Redis is loading",
            "READONLY You can't",
        ] {
            assert!(is_passing(passing), "{passing}");
        }
        for lasting in [
            "BUSYKEY Target key name already exists.",
            "NOPERM this user",
            "EXECABORT Transaction discarded because of previous errors.",
            "ERR x",
        ] {
            assert!(!is_passing(lasting), "{lasting}");
        }
    }
}
