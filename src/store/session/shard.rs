//! All of a shard but its disk and its sockets.

use std::time::Instant;

use slab::Slab;

use crate::resp::RequestLimits;
use crate::store::acl::{LineError, RefusalLog, Users};
use crate::store::commands::{Effects, Event, Reply, Settings, Table};
use crate::store::keyspace::Keyspace;

use super::busy::Beside;
use super::channels::Channels;
use super::client::{Client, ClientId, CloseReason};
use super::info::Facts;
use super::migrating::{Courier, NoCourier};
use super::parameters::Parameters;
use super::pausing::Pausing;
use super::replicas::{FollowRequest, ReplicaAcks};
use super::requests::Ahead;
use super::scripting::Scripts;
use super::slowlog::SlowLog;
use super::stats::Stats;
use super::transactions::Watchers;
use super::waiting::WaitingClients;

/// A client that is owed more than this is not read from until it took some.
const OWED_BYTES_MAX: usize = 1024 * 1024;

/// So much is read from a client that waits for a key or for the end of a pause.
const STOPPED_INPUT_BYTES_MAX: usize = 1024 * 1024;

/// Bounds on what clients may make a shard hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardLimits {
    /// What one may send.
    pub request: RequestLimits,
}

/// Who decides what is in the keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// This shard.
    Master,
    /// Its master: clients may only read.
    Replica,
}

/// Whether writes can be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// They can.
    Good,
    /// They are refused, with this reason.
    NoWrites(String),
}

/// What a client asked for that the driver must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// The process is to end.
    Shutdown {
        /// What was written is not kept on purpose.
        without_saving: bool,
    },
    /// Another shard or Redis server is to be followed from now on.
    ReplicaOf(MasterAddress),
    /// What CONFIG SET and ACL SETUSER changed is to outlive the process; who asked is told
    /// by [`Shard::rewritten`].
    KeepParameters {
        /// Its key.
        client: usize,
        /// Its number.
        id: ClientId,
    },
    /// A client becomes a replica: its connection is to be given the stream.
    Follow(FollowRequest),
    /// These replicas' connections are to be ended.
    CutReplicas(Vec<ClientId>),
    /// The connection to the master is to be ended, and made anew.
    CutMaster,
    /// A parameter that the driver acts on was set.
    Parameter {
        /// Its name.
        name: &'static str,
        /// Checked.
        value: String,
    },
}

/// Where a master listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterAddress {
    /// Name or IP address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl MasterAddress {
    /// As `host:port`; an IPv6 address may stand in brackets.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        Some(Self {
            host: (!host.is_empty()).then(|| host.to_owned())?,
            port: port.parse().ok()?,
        })
    }
}

/// See the head of this folder.
#[derive(Debug)]
pub struct Shard {
    pub(super) keyspace: Keyspace,
    pub(super) table: Table,
    pub(super) settings: Settings,
    pub(super) limits: ShardLimits,
    pub(super) clients: Slab<Client>,
    pub(super) next_client: u64,
    pub(super) channels: Channels,
    pub(super) waiting: WaitingClients,
    pub(super) watchers: Watchers,
    /// Clients whose waits ended.
    pub(super) resumed: Vec<usize>,
    pub(super) effects: Effects,
    pub(super) events: Vec<Event>,
    pub(super) orders: Vec<Order>,
    pub(super) marked: Vec<usize>,
    pub(super) role: Role,
    /// It became a master: its history is one of its own from here on.
    pub(super) is_promoted: bool,
    pub(super) health: Health,
    pub(super) users: Users,
    pub(super) refusals: RefusalLog,
    pub(super) pausing: Pausing,
    /// Clients that are told of all commands.
    pub(super) monitors: Vec<usize>,
    pub(super) slow: SlowLog,
    pub(super) parameters: Parameters,
    pub(super) stats: Stats,
    /// Stands for a client's own while a command writes to that.
    pub(super) spare_reply: Option<Box<Reply>>,
    /// Of the input that is run now; empty in between, and kept for its room.
    pub(super) ahead: Ahead,
    /// When the last command of the input that is run now ended.
    pub(super) ran_at: Option<Instant>,
    /// When the clock was set to which Unix ms, if it goes on from there.
    pub(super) clock: Option<(Instant, u64)>,
    pub(super) facts: Facts,
    pub(super) acks: ReplicaAcks,
    /// The number of the master's link among the clients.
    pub(super) master_link: ClientId,
    /// What was applied has times that count from when it came.
    pub(super) has_relative_times: bool,
    /// Keys whose time is over are removed though nobody looks for them.
    pub(super) ends_keys: bool,
    /// Who carries what MIGRATE sends.
    pub(super) courier: Box<dyn Courier>,
    pub(super) scripts: Scripts,
    /// Serves connections while a script runs.
    pub(super) beside: Option<Box<dyn Beside>>,
}

impl Shard {
    /// Over an open keyspace, with the commands given.
    pub fn new(keyspace: Keyspace, table: Table, settings: Settings, limits: ShardLimits) -> Self {
        Self {
            keyspace,
            table,
            settings,
            limits,
            clients: Slab::new(),
            next_client: 1,
            channels: Channels::default(),
            waiting: WaitingClients::default(),
            watchers: Watchers::default(),
            resumed: Vec::new(),
            effects: Effects::default(),
            events: Vec::new(),
            orders: Vec::new(),
            marked: Vec::new(),
            role: Role::Master,
            is_promoted: false,
            health: Health::Good,
            users: Users::new(),
            refusals: RefusalLog::default(),
            pausing: Pausing::default(),
            monitors: Vec::new(),
            slow: SlowLog::default(),
            parameters: Parameters::default(),
            stats: Stats::default(),
            spare_reply: None,
            ahead: Ahead::default(),
            ran_at: None,
            clock: None,
            facts: Facts::default(),
            acks: ReplicaAcks::default(),
            master_link: ClientId(0),
            has_relative_times: false,
            ends_keys: true,
            courier: Box::new(NoCourier),
            scripts: Scripts::default(),
            beside: None,
        }
    }

    /// All databases.
    pub fn keyspace(&mut self) -> &mut Keyspace {
        &mut self.keyspace
    }

    /// Sets the clock; what is due at it is done.
    pub fn set_now_ms(&mut self, now_ms: u64) {
        self.keyspace.set_now_ms(now_ms);
        self.end_waits_due();
        self.end_pause_if_due();
    }

    /// The same of a clock that goes on by itself: what a client sends is run at the time it
    /// is run, since it may name a time that is later than when the turn began.
    pub fn start_clock(&mut self, now_ms: u64) {
        self.clock = Some((Instant::now(), now_ms));
        self.set_now_ms(now_ms);
    }

    /// Time has gone on up to `now`.
    pub(super) fn look_at_clock(&mut self, now: Instant) {
        if let Some((set_at, ms)) = self.clock {
            let since = now.saturating_duration_since(set_at).as_millis();
            let now_ms = ms.saturating_add(u64::try_from(since).unwrap_or(u64::MAX));
            self.keyspace.set_now_ms(now_ms);
        }
    }

    /// When [`Shard::set_now_ms`] has something to do at the latest, if nothing comes before.
    pub fn next_due_ms(&self) -> Option<u64> {
        let dues = [self.waiting.next_due_ms(), self.pausing.next_due_ms()];
        dues.into_iter().flatten().min()
    }

    /// Whether writes are refused from now on.
    pub fn set_health(&mut self, health: Health) {
        self.health = health;
    }

    /// Who decides what is in the keyspace.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether writes are refused.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Says what clients must say first; nothing lets all in.
    pub fn set_password(&mut self, password: Option<&[u8]>) {
        self.users.set_default_password(password);
    }

    /// Puts users of `user ..` lines, `default`, too, if it is among them.
    ///
    /// # Errors
    /// [`LineError`]; nothing is changed then.
    pub fn load_users<'l>(
        &mut self,
        lines: impl Iterator<Item = &'l [u8]>,
    ) -> Result<(), LineError> {
        self.users.load(lines)
    }

    /// A client came.
    pub fn client_came(&mut self, address: String, local_address: String) -> usize {
        self.stats.connections += 1;
        let id = ClientId(self.next_client);
        self.next_client += 1;
        let now_ms = self.keyspace.now_ms();
        let user = self.users.default_id();
        let limits = self.limits.request;
        let mut client = Client::new(id, address, local_address, now_ms, limits, user);
        client.is_authenticated = self.users.is_open();
        self.clients.insert(client)
    }

    /// A client's connection ended.
    pub fn client_gone(&mut self, key: usize) {
        self.stop_waiting(key);
        self.unwatch(key);
        self.leave_channels(key);
        self.stop_monitoring(key);
        if self.clients.contains(key) {
            self.clients.remove(key);
        }
        self.marked.retain(|of| *of != key);
    }

    /// Where a client's bytes are put before [`Shard::run_requests`].
    pub fn input_of(&mut self, key: usize) -> Option<&mut Vec<u8>> {
        self.clients.get_mut(key).map(|client| &mut client.input)
    }

    /// Whether a client has sent something that was not run.
    pub fn has_input(&self, key: usize) -> bool {
        self.clients
            .get(key)
            .is_some_and(|client| !client.input.is_empty())
    }

    /// Whether more may be read from a client: it takes what it is owed, and what it sent
    /// while it waits is not much.
    pub fn may_read(&self, key: usize) -> bool {
        self.clients.get(key).is_some_and(|client| {
            let is_stopped =
                client.waiting.is_some() || client.is_postponed || !client.unanswered.is_empty();
            let has_room = !is_stopped || client.input.len() <= STOPPED_INPUT_BYTES_MAX;
            client.reply.len() <= OWED_BYTES_MAX && client.closing.is_none() && has_room
        })
    }

    /// Clients that are owed something or are to be closed, each once.
    pub fn take_marked(&mut self) -> Vec<usize> {
        let marked = std::mem::take(&mut self.marked);
        for key in &marked {
            if let Some(client) = self.clients.get_mut(*key) {
                client.is_marked = false;
                client.turn_from = None;
            }
        }
        marked
    }

    /// The turn's effects could not be kept: who was told something of it is told this
    /// instead, and its connection ends.
    pub fn revoke_turn(&mut self, reason: &str) {
        for key in &self.marked {
            if let Some(client) = self.clients.get_mut(*key)
                && let Some(from) = client.turn_from.take()
            {
                client.reply.truncate(from);
                client.unanswered.clear();
                client.reply.error(&format!("MISCONF {reason}"));
                client.closing = Some(CloseReason::Revoked);
            }
        }
    }

    pub(super) fn mark(&mut self, key: usize) {
        if let Some(client) = self.clients.get_mut(key)
            && !client.is_marked
        {
            client.is_marked = true;
            self.marked.push(key);
        }
    }

    /// What a client is owed, and whether its connection ends then. What was sent is
    /// taken off the front by the driver. Nothing as long as an answer is missing in it.
    pub fn output_of(&mut self, key: usize) -> Option<(&mut Vec<u8>, Option<CloseReason>)> {
        let client = self.clients.get_mut(key)?;
        match (client.unanswered.first(), client.closing) {
            (None, _) => {}
            (Some(_), None) => return None,
            (Some(place), Some(_)) => {
                // It goes without it; what stands behind would be taken for the answer.
                client.reply.truncate(*place);
                client.unanswered.clear();
            }
        }
        Some((client.reply.raw(), client.closing))
    }

    /// Effects of the turn so far. They must be in the log before a reply goes out.
    pub fn effects(&mut self) -> &mut Effects {
        &mut self.effects
    }

    /// What is for the driver to do.
    pub fn take_orders(&mut self) -> Vec<Order> {
        std::mem::take(&mut self.orders)
    }

    /// Removes keys whose time is over, at most `max`; true if there are more.
    pub fn end_due_keys(&mut self, max: usize) -> bool {
        if self.role != Role::Master || !self.ends_keys {
            return false;
        }
        match self.keyspace.end_due(max) {
            Ok(has_more) => {
                self.tell_ended();
                self.after_commands();
                has_more
            }
            Err(error) => {
                self.fail(&error);
                false
            }
        }
    }

    /// Ends the shard; its keyspace goes on.
    pub fn into_keyspace(self) -> Keyspace {
        self.keyspace
    }
}
