//! SUBSCRIBE and UNSUBSCRIBE: clients' side of [`Hub`](super::hub::Hub).
//!
//! ```text
//!   client: SUBSCRIBE x ---> hub: first one? ---> SUBSCRIBE x ---> shard of x
//!           confirmation <------------------------ confirmation <-'
//!   message <--------------- to each listener <--- message
//! ```
//!
//! Messages go past the order of replies, between two of them, as they do in
//! Redis. While a large reply passes they wait for its end.
//!
//! Invariants
//! - A subscription's shard is gone: its clients' connections are closed, as
//!   Redis's own would be, because messages may be lost.
//! - After a new layout each channel is subscribed at its new shard before it
//!   is given up at the old one.

use tracing::{info, warn};

use crate::metrics::latency::CommandClass;
use crate::resp::{ReplyScanner, Request, write_bulk, write_command};
use crate::router::commands::{Command, TopicKind};
use crate::router::errors::ErrorReply;
use crate::router::layout::ShardIndex;
use crate::upstream::pipe::PipeError;

use super::client::Pause;
use super::core::{FULL_BYTES, Full, PoolCore, Ticket};
use super::dispatch::{Seat, Verdict};
use super::hub::{Topic, Word, verbs, word_of, write_confirmation};
use super::lanes::PipePlace;
use super::private_pipes::Role;

/// The lane whose connections subscribe: RESP2, which every server speaks.
pub(super) const HUB_LANE: u32 = 0;

/// Topics of one client.
#[derive(Debug, Default)]
pub struct Subscriptions {
    topics: Vec<Topic>,
}

impl Subscriptions {
    fn has(&self, topic: &Topic) -> bool {
        self.topics.contains(topic)
    }

    /// As Redis counts: shard channels by themselves.
    fn count(&self, kind: TopicKind) -> usize {
        let is_sharded = |kind| kind == TopicKind::ShardChannel;
        let same = |topic: &&Topic| is_sharded(topic.0) == is_sharded(kind);
        self.topics.iter().filter(same).count()
    }

    /// How many there are of this kind.
    pub fn of_kind(&self, kind: TopicKind) -> usize {
        self.topics.iter().filter(|topic| topic.0 == kind).count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }
}

impl PoolCore {
    fn subscriptions_of(&mut self, key: u32) -> Option<&mut Subscriptions> {
        let client = self.clients.get_mut(key as usize)?;
        Some(&mut client.session().subscriptions)
    }

    fn shards_of(&self, kind: TopicKind, name: &[u8]) -> Vec<ShardIndex> {
        let layout = &self.routing.layout;
        match kind {
            TopicKind::Channel | TopicKind::ShardChannel => vec![layout.owner(name)],
            TopicKind::Pattern => {
                let mut found: Vec<ShardIndex> = Vec::new();
                for index in (0..layout.shards().len()).map(|index| ShardIndex(index as u16)) {
                    let address = &layout.shard(index).address;
                    let is_known = found.iter().any(|&f| layout.shard(f).address == *address);
                    if !is_known && !layout.out().contains(&index) {
                        found.push(index);
                    }
                }
                found
            }
        }
    }

    /// A connection that others use for the same.
    fn hub_like(&self, shard: ShardIndex) -> Option<u32> {
        let lane = self.lanes.get(HUB_LANE as usize)?;
        let index = usize::from(shard.0) * lane.connections;
        lane.pipes.get(index).copied()
    }

    /// The connection that subscribes at a shard.
    fn hub_pipe(&mut self, shard: ShardIndex) -> Option<u32> {
        let shared = self.hub_like(shard)?;
        let like = self.pipes.get(shared as usize)?;
        let known = self.pipes.iter().find(|(_, place)| {
            place.role == Role::Hub && !place.retired && place.address == like.address
        });
        if let Some((key, _)) = known {
            return Some(key as u32);
        }
        let mut pipe = self.new_pipe(HUB_LANE, &like.address);
        pipe.set_greeting(self.configured_greeting(HUB_LANE, &like.address));
        pipe.retain(false);
        let place = PipePlace::beside(like, pipe, Role::Hub);
        Some(self.pipes.insert(place) as u32)
    }

    pub(super) fn subscribe(
        &mut self,
        seat: &mut Seat,
        kind: TopicKind,
        request: &Request<'_>,
    ) -> Verdict {
        let key = seat.key;
        if self.is_owed(key) {
            return Verdict::Wait(Pause::Lane);
        }
        let mut wanted: Vec<(Topic, Vec<u32>)> = Vec::new();
        for name in (1..request.len()).map(|index| request.arg(index)) {
            let mut pipes = Vec::new();
            for shard in self.shards_of(kind, name) {
                // A shard that is known to be down gets no new subscriber.
                let like = self.hub_like(shard);
                if let Some(stop) = like.and_then(|like| self.not_now(key, like)) {
                    return stop;
                }
                let Some(pipe) = self.hub_pipe(shard) else {
                    return Verdict::End;
                };
                if let Some(stop) = self.not_now(key, pipe) {
                    return stop;
                }
                pipes.push(pipe);
            }
            wanted.push(((kind, name.into()), pipes));
        }
        seat.stale = true;
        for (topic, pipes) in wanted {
            self.subscribe_to(key, &topic, &pipes);
        }
        Verdict::Taken
    }

    fn subscribe_to(&mut self, key: u32, topic: &Topic, pipes: &[u32]) {
        let Some(client) = self.clients.get_mut(key as usize) else {
            return;
        };
        let subscriptions = &mut client.session().subscriptions;
        if !subscriptions.has(topic) {
            subscriptions.topics.push(topic.clone());
        }
        let count = subscriptions.count(topic.0);
        let ticket = Ticket {
            client: key,
            generation: client.generation,
            sequence: client.next_sequence(),
            class: CommandClass::Waiting,
            part: None,
        };
        client.expect(1);
        let listeners = self.hub.listeners(topic);
        listeners.waiting.push((ticket, count));
        if listeners.pipes.is_empty() {
            listeners.pipes = pipes.to_vec();
            listeners.unconfirmed += pipes.len();
            for &pipe in pipes {
                self.tell(pipe, verbs(topic.0).0, &topic.1);
            }
        }
        self.confirm(topic);
    }

    /// Sends a command that has no reply of its own.
    fn tell(&mut self, pipe: u32, verb: &str, name: &[u8]) {
        if let Some(place) = self.pipes.get_mut(pipe as usize) {
            write_command(place.pipe.out_mut(), &[verb.as_bytes(), name]);
            self.mark_pipe(pipe);
        }
    }

    /// Tells those who wait for a topic that they have it, if they have.
    fn confirm(&mut self, topic: &Topic) {
        for (ticket, count) in self.hub.confirm(topic) {
            let (verb, protocol) = (verbs(topic.0).0, self.protocol(ticket.client));
            let mut reply = Vec::new();
            write_confirmation(protocol, verb, Some(&topic.1), count, &mut reply);
            self.delivery().one(ticket, &reply);
        }
    }

    pub(super) fn unsubscribe(
        &mut self,
        seat: &mut Seat,
        kind: TopicKind,
        request: &Request<'_>,
    ) -> Verdict {
        let key = seat.key;
        if self.is_owed(key) {
            return Verdict::Wait(Pause::Lane);
        }
        let Some(subscriptions) = self.subscriptions_of(key) else {
            return Verdict::End;
        };
        let names: Vec<Box<[u8]>> = if request.len() > 1 {
            (1..request.len()).map(|i| request.arg(i).into()).collect()
        } else {
            let own = subscriptions.topics.iter().filter(|topic| topic.0 == kind);
            own.map(|(_, name)| name.clone()).collect()
        };
        // Who has none is told so once, with a null for the name.
        let is_none = names.is_empty();
        let all = names.into_iter().map(Some).chain(is_none.then_some(None));
        let protocol = self.protocol(key);
        for name in all {
            if let Some(name) = &name {
                let topic = (kind, name.clone());
                if let Some(subscriptions) = self.subscriptions_of(key) {
                    subscriptions.topics.retain(|known| *known != topic);
                }
                self.leave_topic(key, seat.generation, &topic);
            }
            let own = self.subscriptions_of(key);
            let count = own.map_or(0, |subscriptions| subscriptions.count(kind));
            let mut reply = Vec::new();
            let verb = verbs(kind).1;
            write_confirmation(protocol, verb, name.as_deref(), count, &mut reply);
            self.answer(key, &reply);
        }
        seat.stale = true;
        Verdict::Taken
    }

    fn leave_topic(&mut self, key: u32, generation: u32, topic: &Topic) {
        for pipe in self.hub.leave(topic, (key, generation)) {
            self.give_up(pipe, topic);
        }
    }

    fn give_up(&mut self, pipe: u32, topic: &Topic) {
        if self.hub.uses(pipe) {
            self.tell(pipe, verbs(topic.0).1, &topic.1);
        } else {
            self.abandon(pipe);
        }
    }

    /// A client is gone: nobody listens for it.
    pub(super) fn drop_subscriptions(
        &mut self,
        key: u32,
        generation: u32,
        subscriptions: Subscriptions,
    ) {
        for topic in subscriptions.topics {
            self.leave_topic(key, generation, &topic);
        }
    }

    /// What a RESP2 client that subscribed gets for any other command; `None`:
    /// it may have it.
    pub(super) fn refuse_to_subscriber(
        &mut self,
        key: u32,
        command: &Command,
        request: &Request<'_>,
    ) -> Option<Verdict> {
        if self.protocol(key) == 3 || self.subscriptions_of(key).is_none_or(|s| s.is_empty()) {
            return None;
        }
        match command.name {
            "subscribe" | "unsubscribe" | "psubscribe" | "punsubscribe" | "ssubscribe"
            | "sunsubscribe" | "quit" | "reset" => None,
            "ping" => Some(self.answer_with(key, |_, out| {
                out.extend_from_slice(b"*2\r\n");
                write_bulk(out, b"pong");
                write_bulk(out, request.arg(1));
            })),
            name => {
                let error = ErrorReply::new(format!(
                    "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / \
                     QUIT / RESET are allowed in this context"
                ));
                Some(self.answer_error(key, &error))
            }
        }
    }

    /// Bytes of a connection that subscribed.
    #[cold]
    pub(super) fn hub_bytes(&mut self, key: u32, bytes: &[u8]) {
        let now_us = self.now_us;
        let Some(place) = self.pipes.get_mut(key as usize) else {
            return;
        };
        let was_ready = place.pipe.is_ready();
        let mut replies = Vec::new();
        let received = place.pipe.receive_unasked(bytes, now_us, &mut replies);
        if !was_ready && place.pipe.is_ready() {
            place.counters.connects_total.inc();
            place.counters.connections.add(1);
            self.mark_pipe(key);
        }
        let mut scanner = ReplyScanner::new();
        let mut rest = replies.as_slice();
        while let Ok(Some(reply)) = scanner.scan(rest) {
            let (whole, after) = rest.split_at_checked(reply.len).unwrap_or((rest, &[]));
            rest = after;
            match word_of(whole) {
                Some(Word::Message(topic)) => self.give_message(&topic, whole),
                Some(Word::Subscribed(topic)) => {
                    if let Some(listeners) = self.hub.get_mut(&topic) {
                        listeners.unconfirmed = listeners.unconfirmed.saturating_sub(1);
                    }
                    self.confirm(&topic);
                }
                Some(Word::Other) => {}
                None => {
                    let text = String::from_utf8_lossy(whole);
                    let text = text.trim_start_matches('-').trim_end();
                    warn!(pool = %self.config.name, error = text, "a shard refused a subscription");
                    return self.pipe_failed(key, PipeError::Refused(text.to_owned()));
                }
            }
            if rest.is_empty() {
                break;
            }
        }
        if let Err(error) = received {
            self.pipe_failed(key, error);
        }
    }

    fn give_message(&mut self, topic: &Topic, message: &[u8]) {
        let Some(listeners) = self.hub.get_mut(topic) else {
            return;
        };
        let clients = std::mem::take(&mut listeners.clients);
        for &(key, generation) in &clients {
            self.give(key, generation, message);
        }
        if let Some(listeners) = self.hub.get_mut(topic) {
            listeners.clients = clients;
        }
    }

    /// Gives a message, an array, to one client: a push in RESP3.
    fn give(&mut self, key: u32, generation: u32, message: &[u8]) {
        let bytes_max = self.config.limits.client_buffer_bytes_max;
        let Some(client) = self.clients.get_mut(key as usize) else {
            return;
        };
        if client.generation != generation {
            return;
        }
        if client.kept() > bytes_max {
            client.overrun = true;
            return self.mark_client(key);
        }
        let kind = if client.protocol == 3 { b">" } else { b"*" };
        let rest = message.get(1..).unwrap_or_default();
        if client.receives_large {
            let deferred = &mut client.session().deferred;
            deferred.extend_from_slice(kind);
            deferred.extend_from_slice(rest);
            if deferred.len() > bytes_max {
                client.overrun = true;
                self.mark_client(key);
            }
            return;
        }
        client.prepare_output(&mut self.spare_outputs);
        client.out.extend_from_slice(kind);
        client.out.extend_from_slice(rest);
        if client.unwritten() >= FULL_BYTES && !client.full {
            client.full = true;
            self.full.push(Full::Client(key));
        }
        self.mark_client(key);
    }

    /// The connection of the hub to a shard is gone: so are its subscribers.
    pub(super) fn hub_lost(&mut self, pipe: u32) {
        let clients = self.hub.lose(pipe);
        if clients.is_empty() {
            return;
        }
        info!(
            pool = %self.config.name,
            clients = clients.len(),
            "closing clients that were subscribed at a shard whose connection is gone"
        );
        for (key, generation) in clients {
            let is_there = self
                .clients
                .get(key as usize)
                .is_some_and(|client| client.generation == generation);
            if is_there {
                self.close_client(key);
            }
        }
    }

    /// Brings all subscriptions to where the layout in use wants them.
    pub(super) fn move_subscriptions(&mut self) {
        for topic in self.hub.topics() {
            let shards = self.shards_of(topic.0, &topic.1);
            let wanted: Vec<u32> = shards
                .into_iter()
                .filter_map(|shard| self.hub_pipe(shard))
                .collect();
            for &pipe in &wanted {
                self.open_pipe(pipe);
            }
            let Some(listeners) = self.hub.get_mut(&topic) else {
                continue;
            };
            let old = std::mem::replace(&mut listeners.pipes, wanted.clone());
            let new: Vec<u32> = wanted
                .iter()
                .copied()
                .filter(|p| !old.contains(p))
                .collect();
            listeners.unconfirmed += new.len();
            for pipe in new {
                self.tell(pipe, verbs(topic.0).0, &topic.1);
            }
            for pipe in old.into_iter().filter(|pipe| !wanted.contains(pipe)) {
                self.give_up(pipe, &topic);
            }
        }
    }
}
