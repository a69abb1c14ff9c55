//! One client: what it sent, what it is owed, and what it is in the middle of.

use std::collections::BTreeSet;

use crate::resp::{RequestLimits, RequestScanner};
use crate::store::acl::UserId;
use crate::store::commands::Reply;

use super::replicas::Announced;
use super::transactions::Transaction;
use super::waiting::Waiting;

/// Number of a client, never given twice: what CLIENT ID tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// Which replies a client wants: CLIENT REPLY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    All,
    /// All but that of the next request.
    SkipNext,
    /// None to this one.
    Skip,
    None,
}

/// Why a connection ends once what it is owed was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// QUIT.
    Quit,
    /// What it sent is no request.
    Protocol,
    /// CLIENT KILL, or it must not go on.
    Killed,
    /// What it was told of the last turn does not hold.
    Revoked,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Client {
    pub(super) id: ClientId,
    /// Moved as one word: it was written to a moment before, each time.
    pub(super) reply: Box<Reply>,
    pub(super) input: Vec<u8>,
    pub(super) scanner: RequestScanner,
    pub(super) db: usize,
    pub(super) name: Box<[u8]>,
    /// Where it connected from.
    pub(super) address: String,
    /// Where it connected to.
    pub(super) local_address: String,
    /// Whose rights it has.
    pub(super) user: UserId,
    /// It logged in, or came when nobody had to.
    pub(super) is_authenticated: bool,
    pub(super) transaction: Option<Transaction>,
    /// What EXEC runs is being run.
    pub(super) is_executing: bool,
    pub(super) watched: Vec<(usize, Box<[u8]>)>,
    /// A key that it watches changed.
    pub(super) is_watch_lost: bool,
    pub(super) channels: BTreeSet<Box<[u8]>>,
    pub(super) patterns: BTreeSet<Box<[u8]>>,
    pub(super) shard_channels: BTreeSet<Box<[u8]>>,
    pub(super) waiting: Option<Waiting>,
    pub(super) wanted: Wanted,
    /// What it said of itself by REPLCONF.
    pub(super) announced: Announced,
    /// It asked to become a replica: nothing more of it is run here.
    pub(super) is_handed_over: bool,
    /// Where the stream was behind its last write.
    pub(super) wrote_to: u64,
    pub(super) closing: Option<CloseReason>,
    /// Where answers are missing among its replies: nothing is sent until they are there.
    pub(super) unanswered: Vec<usize>,
    /// Length of its replies before the first one of this turn.
    pub(super) turn_from: Option<usize>,
    /// It is among those whose replies are to be sent.
    pub(super) is_marked: bool,
    /// What it sent next waits for the end of a pause.
    pub(super) is_postponed: bool,
    /// CLIENT NO-EVICT.
    pub(super) is_never_evicted: bool,
    /// It is told of all commands.
    pub(super) is_monitor: bool,
    pub(super) connected_at_ms: u64,
    pub(super) active_at_ms: u64,
    pub(super) last_command: &'static str,
}

impl Client {
    pub(super) fn new(
        id: ClientId,
        address: String,
        local_address: String,
        now_ms: u64,
        limits: RequestLimits,
        user: UserId,
    ) -> Self {
        Self {
            id,
            reply: Box::default(),
            input: Vec::new(),
            scanner: RequestScanner::new(limits),
            db: 0,
            name: Box::default(),
            address,
            local_address,
            user,
            is_authenticated: false,
            transaction: None,
            is_executing: false,
            watched: Vec::new(),
            is_watch_lost: false,
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
            shard_channels: BTreeSet::new(),
            waiting: None,
            wanted: Wanted::All,
            announced: Announced::default(),
            is_handed_over: false,
            wrote_to: 0,
            closing: None,
            unanswered: Vec::new(),
            turn_from: None,
            is_marked: false,
            is_postponed: false,
            is_never_evicted: false,
            is_monitor: false,
            connected_at_ms: now_ms,
            active_at_ms: now_ms,
            last_command: "NULL",
        }
    }

    /// Takes back what it was answered behind `place`.
    pub(super) fn drop_replies_from(&mut self, place: usize) {
        self.reply.truncate(place);
        self.unanswered.retain(|of| *of < place);
    }

    /// Whether its next request has to wait, or is never run.
    pub(super) fn is_stopped(&self) -> bool {
        self.waiting.is_some()
            || self.closing.is_some()
            || self.is_postponed
            || self.is_handed_over
            || !self.unanswered.is_empty()
    }

    /// Whether it is on this machine.
    pub(super) fn is_local(&self) -> bool {
        let from = ["/", "127.0.0.1:", "[::1]:"];
        from.iter().any(|from| self.address.starts_with(from))
    }

    /// Channels and patterns it listens to, as SUBSCRIBE counts them.
    pub(super) fn subscriptions(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    /// In RESP2 it may do little else then.
    pub(super) fn is_subscriber(&self) -> bool {
        self.subscriptions() + self.shard_channels.len() > 0
    }
}
