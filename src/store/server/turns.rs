//! The thread of a shard: a poll loop around the sans-I/O core.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use crate::store::session::{Health, Order, Shard};
use crate::store::sync::Replicas;

use super::keeping::{Durability, Keeper, Kept};
use super::kept;
use super::knowing::{self, unix_ms};
use super::master::{Around, Followed, Following};
use super::sockets::{Connection, Listener};
use super::starting::StartError;
use super::times::Times;

pub(super) const WAKER: Token = Token(usize::MAX);
/// Listeners have the numbers below, clients those from 0 on.
pub(super) const LISTENERS_FROM: usize = usize::MAX - 1 - LISTENERS_MAX;
/// Places where one shard listens.
pub(super) const LISTENERS_MAX: usize = 16;
/// Read of one client at once.
pub(super) const READ_BYTES: usize = 64 * 1024;
/// Events of one turn.
const EVENTS_MAX: usize = 1024;
/// Longest wait of a turn: the cron's rhythm, ten times a second as Redis'.
const CRON_MS: u64 = 100;
/// Keys that are ended in one turn.
const ENDED_KEYS_MAX: usize = 200;

pub(super) struct Turns {
    pub(super) shard: Shard,
    pub(super) keeper: Keeper,
    pub(super) following: Following,
    pub(super) dir: PathBuf,
    /// When a master's relative times came.
    pub(super) times: Times,
    /// The engine goes up to this offset, and not to the log's end.
    pub(super) ends_at: Option<u64>,
    /// Effects of a turn wait for room on the disk.
    pub(super) is_full: bool,
    pub(super) replicas: Replicas,
    pub(super) pinged_at: Instant,
    /// The engine cannot take rows.
    pub(super) are_rows_refused: bool,
    pub(super) poll: Poll,
    pub(super) listeners: Vec<Listener>,
    /// By the client's key.
    pub(super) connections: Vec<Option<Peer>>,
    pub(super) stop: Arc<AtomicBool>,
    /// Clients that may have whole requests that were not run.
    pub(super) again: Vec<usize>,
    /// What is read goes through it.
    pub(super) buffer: Box<[u8]>,
}

pub(super) struct Peer {
    pub(super) connection: Connection,
    /// It takes no more bytes now.
    is_full: bool,
    /// There may be more to read than was read.
    is_readable: bool,
}

impl Turns {
    pub(super) fn run(mut self) -> Result<(), StartError> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut has_more_due = false;
        let mut looked = Instant::now();
        while !self.stop.load(Ordering::Acquire) {
            let is_stalled = self.is_stalled();
            let wait = match has_more_due || !self.again.is_empty() {
                true if !is_stalled => Duration::ZERO,
                _ => Duration::from_millis(self.wait_ms()),
            };
            if let Err(error) = self.poll.poll(&mut events, Some(wait))
                && error.kind() != io::ErrorKind::Interrupted
            {
                return Err(StartError::Poll(error));
            }
            self.shard.set_now_ms(unix_ms());
            self.hear_replicas();
            if !is_stalled {
                for key in std::mem::take(&mut self.again) {
                    self.read(key);
                }
            }
            for event in &events {
                match event.token() {
                    WAKER => {}
                    Token(number @ LISTENERS_FROM..) => self.accept(number - LISTENERS_FROM),
                    Token(key) => {
                        if event.is_writable()
                            && let Some(Some(peer)) = self.connections.get_mut(key)
                        {
                            peer.is_full = false;
                            self.write(key);
                        }
                        if event.is_readable() || event.is_read_closed() || event.is_error() {
                            if let Some(Some(peer)) = self.connections.get_mut(key) {
                                peer.is_readable = true;
                            }
                            match is_stalled {
                                true => self.again.push(key),
                                false => self.read(key),
                            }
                        }
                    }
                }
            }
            has_more_due = self.shard.end_due_keys(ENDED_KEYS_MAX);
            if !is_stalled && !self.is_full {
                has_more_due |= self.follow_master()?;
                if self.ends_at.is_some() {
                    break;
                }
            }
            self.end_turn();
            self.following.acknowledge(&mut self.shard, &self.keeper);
            if looked.elapsed() >= Duration::from_millis(CRON_MS) {
                knowing::look(&mut self.shard, &self.keeper);
                self.following.tell(&mut self.shard);
                self.replicas.look(&mut self.shard);
                looked = Instant::now();
            }
            let is_over = self.carry_out();
            self.replicas
                .begin_full_syncs(self.keeper.log(), &mut self.shard);
            if is_over {
                break;
            }
        }
        self.close_all()
    }

    /// Replicas sent away, everything into the engine, and both closed well.
    fn close_all(self) -> Result<(), StartError> {
        self.replicas.stop();
        let end = self.ends_at.unwrap_or(self.keeper.end());
        if self.keeper.poison().is_some() {
            // What is in memory may be more than what was kept: the log decides, next time.
            return Ok(());
        }
        self.shard.into_keyspace().close(end)?;
        self.keeper.close().map_err(StartError::Log)
    }

    /// The overlay is full: nobody is served until the engine has taken some of it. If that
    /// cannot be, writes are refused, and the others served.
    fn is_stalled(&mut self) -> bool {
        let rows = self.shard.keyspace().rows();
        let why = match (rows.failure(), rows.waits_for().filter(|_| rows.is_full())) {
            (Some(error), _) => Some(error.to_string()),
            (None, Some(error)) => Some(error.to_string()),
            (None, None) => None,
        };
        let is_full = rows.is_full();
        match why {
            Some(why) => {
                if *self.shard.health() == Health::Good {
                    tracing::error!(%why, "rows cannot be written: writes are refused");
                }
                let reason = format!("Errors writing rows to the disk: {why}");
                self.shard.set_health(Health::NoWrites(reason));
                self.are_rows_refused = true;
                false
            }
            None => {
                if std::mem::take(&mut self.are_rows_refused) && !self.is_full {
                    tracing::info!("rows can be written again");
                    self.shard.set_health(Health::Good);
                }
                is_full
            }
        }
    }

    fn wait_ms(&self) -> u64 {
        let due = self.shard.next_due_ms();
        due.map_or(CRON_MS, |at| at.saturating_sub(unix_ms()).min(CRON_MS))
    }

    fn accept(&mut self, listener: usize) {
        while let Some(listener) = self.listeners.get(listener) {
            match listener.accept() {
                Ok((mut connection, from, to)) => {
                    let key = self.shard.client_came(from, to);
                    let on = Interest::READABLE | Interest::WRITABLE;
                    if let Err(error) =
                        self.poll
                            .registry()
                            .register(&mut connection, Token(key), on)
                    {
                        tracing::warn!(%error, "a client's socket cannot be polled");
                        self.shard.client_gone(key);
                        continue;
                    }
                    if self.connections.len() <= key {
                        self.connections.resize_with(key + 1, || None);
                    }
                    self.connections[key] = Some(Peer {
                        connection,
                        is_full: false,
                        is_readable: false,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client");
                    return;
                }
            }
        }
    }

    /// Reads what came and runs it.
    fn read(&mut self, key: usize) {
        let Some(Some(peer)) = self.connections.get_mut(key) else {
            return;
        };
        if peer.is_readable && self.shard.may_read(key) {
            let Some(input) = self.shard.input_of(key) else {
                return;
            };
            match peer.connection.read(&mut self.buffer) {
                Ok(0) => return self.close(key),
                Ok(read) => {
                    input.extend_from_slice(self.buffer.get(..read).unwrap_or(&[]));
                    self.shard.note_traffic(read, 0);
                    peer.is_readable = read == READ_BYTES;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    peer.is_readable = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.close(key),
            }
        }
        self.shard.run_requests(key);
        if let Some(Some(peer)) = self.connections.get(key)
            && peer.is_readable
            && self.shard.may_read(key)
        {
            self.again.push(key);
        }
    }

    /// Everything is in the log; replies may go out.
    fn end_turn(&mut self) {
        loop {
            for key in self.shard.take_resumed() {
                self.shard.run_requests(key);
            }
            self.shard.ask_for_acks();
            self.keep_effects();
            let marked = self.shard.take_marked();
            if marked.is_empty() {
                return;
            }
            for key in marked {
                self.write(key);
            }
        }
    }

    /// Follows its master, if it has one; true if there is more to do.
    fn follow_master(&mut self) -> Result<bool, StartError> {
        let must_end = || self.stop.load(Ordering::Acquire);
        let mut around = Around {
            shard: &mut self.shard,
            keeper: &mut self.keeper,
            replicas: &mut self.replicas,
            must_end: &must_end,
        };
        match self.following.turn(&mut around)? {
            Followed::All => Ok(false),
            Followed::Some => Ok(true),
            Followed::EndsAt(offset) => {
                self.ends_at = Some(offset);
                Ok(false)
            }
        }
    }

    /// The turn's effects into the log; without that, nobody is told that they were.
    fn keep_effects(&mut self) {
        if self.shard.is_promoted() {
            self.replicas.cut_off();
            let promoted = self.following.promote(&mut self.shard, &mut self.keeper);
            if let Err(why) = promoted {
                return self.refuse_writes(&why, true);
            }
        }
        self.note_time();
        let effects = self.shard.effects();
        let db = effects.selected().and_then(|db| u16::try_from(db).ok());
        let has_grown = !effects.bytes().is_empty();
        let kept = self.keeper.keep(effects.bytes(), db);
        match kept {
            Kept::Yes => {
                self.shard.effects().clear();
                if self.is_full {
                    tracing::info!("the log can be written again");
                    self.is_full = false;
                    self.shard.set_health(Health::Good);
                }
                let end = self.keeper.end();
                self.shard.facts().repl_offset = end;
                if has_grown {
                    self.replicas.log_grew();
                }
                self.shard.keyspace().freeze_if_due(end);
                let durable = self.shard.keyspace().rows().durable_offset();
                let needed = self.replicas.needs_from(self.keeper.log());
                self.keeper.let_go_below(durable, needed);
            }
            Kept::NotNow(why) => self.refuse_writes(&why, true),
            Kept::Never(why) => self.refuse_writes(&why, false),
        }
    }

    /// The turn's frame is to be applied again at the time it came.
    fn note_time(&mut self) {
        if !self.shard.take_relative_times() || self.shard.effects().bytes().is_empty() {
            return;
        }
        let now_ms = self.shard.keyspace().now_ms();
        let durable = self.shard.keyspace().rows().durable_offset();
        let is_synced = self.keeper.durability() == Durability::Always;
        let noted = self
            .times
            .note(self.keeper.end(), now_ms, durable, is_synced);
        if let Err(error) = noted {
            tracing::warn!(%error, "after a restart, times to live that the master told may be longer");
        }
    }

    fn refuse_writes(&mut self, why: &str, is_full: bool) {
        if *self.shard.health() == Health::Good {
            tracing::error!(why, "writes are refused");
        }
        self.is_full = is_full;
        let reason = format!("Errors writing to the log, the outcome of this is not known: {why}");
        self.shard.revoke_turn(&reason);
        self.shard.set_health(Health::NoWrites(format!(
            "Errors writing to the log: {why}"
        )));
    }

    fn write(&mut self, key: usize) {
        let Some(Some(peer)) = self.connections.get_mut(key) else {
            return;
        };
        let Some((output, closing)) = self.shard.output_of(key) else {
            return;
        };
        let was_owed = !output.is_empty();
        let mut written = 0;
        while !peer.is_full && written < output.len() {
            match peer.connection.write(&output[written..]) {
                Ok(0) => return self.close(key),
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => peer.is_full = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.close(key),
            }
        }
        output.drain(..written);
        let is_empty = output.is_empty();
        self.shard.note_traffic(0, written);
        if is_empty && closing.is_some() {
            return self.close(key);
        }
        // It may have been stopped because it was owed too much.
        if was_owed && is_empty && (peer.is_readable || self.shard.has_input(key)) {
            self.again.push(key);
        }
    }

    fn close(&mut self, key: usize) {
        if let Some(place) = self.connections.get_mut(key)
            && let Some(mut peer) = place.take()
        {
            // A socket that cannot be deregistered is closed by being dropped.
            let _ = self.poll.registry().deregister(&mut peer.connection);
        }
        self.shard.client_gone(key);
    }

    /// Does what clients asked the process for. True if it is to end.
    fn carry_out(&mut self) -> bool {
        let mut is_over = false;
        for order in self.shard.take_orders() {
            match order {
                Order::Shutdown { .. } => is_over = true,
                Order::Follow(request) => self.follow(request),
                Order::CutReplicas(ids) => self.replicas.cut(&ids),
                Order::CutMaster => self.following.cut(&mut self.shard),
                Order::ReplicaOf(address) => self.following.follow(&mut self.shard, address),
                Order::KeepParameters => {
                    let changed = self.shard.changed_parameters();
                    let kept = kept::keep_settings(&self.dir, &changed)
                        .and_then(|()| kept::keep_users(&self.dir, &self.shard.user_lines()));
                    if let Err(error) = kept {
                        tracing::error!(%error, "CONFIG REWRITE: not all is kept");
                    }
                }
                Order::Parameter { name, value } => self.set_parameter(name, &value),
            }
        }
        is_over
    }

    fn set_parameter(&mut self, name: &str, value: &str) {
        match name {
            "appendfsync" => {
                if let Some(durability) = Durability::parse(value) {
                    self.keeper.set_durability(durability);
                }
            }
            "repl-timeout" => {
                if let Ok(seconds) = value.parse() {
                    self.replicas.set_timeout(Duration::from_secs(seconds));
                }
            }
            "repl-backlog-size" => {
                if let Ok(bytes) = value.parse() {
                    self.keeper.set_backlog_bytes(bytes);
                    self.shard.facts().backlog_bytes = bytes;
                }
            }
            "masterauth" | "masteruser" => self.following.set_credentials(&self.shard),
            _ => {}
        }
    }
}
