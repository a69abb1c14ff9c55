//! The thread of a shard: a poll loop around the sans-I/O core.

use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::Events;

use crate::store::engine::EngineError;
use crate::store::session::{Health, Order, Shard};
use crate::store::sync::Replicas;

use super::keeping::{Durability, Keeper, Kept};
use super::kept::KeptError;
use super::knowing::{self, unix_ms};
use super::master::{Around, Followed, Following};
use super::network::{Heard, Network, lock};
use super::scribe::{Scribe, Written};
use super::starting::StartError;
use super::times::Times;

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
    /// When a master's relative times came.
    pub(super) times: Times,
    /// The engine goes up to this offset, and not to the log's end.
    pub(super) ends_at: Option<u64>,
    /// Effects of a turn wait for room on the disk.
    pub(super) is_full: bool,
    pub(super) replicas: Replicas,
    pub(super) scribe: Scribe,
    pub(super) pinged_at: Instant,
    /// The engine cannot take rows.
    pub(super) are_rows_refused: bool,
    pub(super) network: Arc<Mutex<Network>>,
    pub(super) stop: Arc<AtomicBool>,
    /// Clients that may have whole requests that were not run.
    pub(super) again: Vec<usize>,
}

impl Turns {
    pub(super) fn run(mut self) -> Result<(), StartError> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut has_more_due = false;
        let mut looked = Instant::now();
        while !self.stop.load(Ordering::Acquire) {
            let is_stalled = self.is_stalled();
            self.again.extend(lock(&self.network).take_left());
            let wait = match has_more_due || !self.again.is_empty() {
                true if !is_stalled => Duration::ZERO,
                _ => Duration::from_millis(self.wait_ms()),
            };
            self.wait(&mut events, wait)?;
            self.shard.start_clock(unix_ms());
            self.hear_replicas();
            self.tell_rewritten();
            if !is_stalled {
                for key in std::mem::take(&mut self.again) {
                    self.read(key);
                }
            }
            // All are noted before any is read: a script among their requests serves the
            // others if it runs for long.
            let heard: Vec<Heard> = {
                let mut network = lock(&self.network);
                let hear = |event| network.hear(event, &mut self.shard);
                events.iter().map(hear).collect()
            };
            for heard in heard {
                match heard {
                    Heard::Nothing => {}
                    Heard::Readable(key) if is_stalled => self.again.push(key),
                    Heard::Readable(key) => self.read(key),
                    Heard::Writable(key) => self.write_rest(key),
                    Heard::Both(key) => {
                        self.write_rest(key);
                        match is_stalled {
                            true => self.again.push(key),
                            false => self.read(key),
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
                self.shard.end_idle();
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
        self.scribe.finish();
        let end = self.ends_at.unwrap_or(self.keeper.end());
        if self.keeper.poison().is_some() || self.shard.is_torn() {
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
        // Compactions that are behind catch up: clients wait for them, and are refused nothing.
        let waits_for = rows
            .waits_for()
            .filter(|error| rows.is_full() && matches!(error, EngineError::NoSpace { .. }));
        let why = match (rows.failure(), waits_for) {
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

    fn wait(&self, events: &mut Events, wait: Duration) -> Result<(), StartError> {
        match lock(&self.network).poll(events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                Err(StartError::Poll(error))
            }
            _ => Ok(()),
        }
    }

    /// Reads what came and runs it.
    fn read(&mut self, key: usize) {
        if !lock(&self.network).read(key, &mut self.shard) {
            return;
        }
        // Not locked: a script that runs for long serves the network itself.
        self.shard.run_requests(key);
        if lock(&self.network).has_more(key) && self.shard.may_read(key) {
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
                if !self.shard.is_torn() {
                    self.shard.keyspace().freeze_if_due(end);
                }
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
        if lock(&self.network).write(key, &mut self.shard) {
            self.again.push(key);
        }
    }

    /// Sends what is left of replies of earlier turns. What was answered in this one, to a
    /// request whose end was read before this was heard, is not in the log yet.
    fn write_rest(&mut self, key: usize) {
        if !self.shard.is_marked(key) {
            self.write(key);
        }
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
                Order::KeepParameters { client, id } => {
                    self.scribe.ask(self.shard.kept_texts(), (client, id));
                }
                Order::Parameter { name, value } => self.set_parameter(name, &value),
            }
        }
        is_over
    }

    fn tell_rewritten(&mut self) {
        while let Some(Written { askers, outcome }) = self.scribe.written() {
            let words = outcome.as_ref().map_err(KeptError::words);
            if let Err(error) = &outcome {
                tracing::error!(%error, "CONFIG REWRITE: not all is kept");
            }
            for (key, id) in askers {
                let outcome = words.as_ref().map(|_| ()).map_err(String::as_str);
                self.shard.rewritten(key, id, outcome);
            }
        }
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
