//! CLIENT LIST and CLIENT KILL: asked by one client, answered by all workers.
//!
//! ```text
//! worker 0  CLIENT LIST --+-- its own lines ------------------> merge -> the client
//!                         |-- Order::RollCall --> worker 1         ^
//!                         |                        its lines ------| Order::RollAnswer
//!                         '-- Order::RollCall --> worker 2 --------'
//! ```
//!
//! A worker owns its clients; nobody else looks at them. So it is asked through
//! its inbox, and its answer is a part of a merge like a shard's. A worker that
//! has ended has no clients, and answers nothing at once.

use std::sync::mpsc::SendError;

use crate::resp::{Request, write_integer};
use crate::router::errors::{ErrorReply, SYNTAX};

use super::client::{Client, Ending};
use super::core::{PartOf, PoolCore, Ticket};
use super::describe;
use super::dispatch::Verdict;
use super::merge::MergeKind;
use super::orders::Order;
use super::pool::WorkerPort;
use super::worker::Worker;
use crate::metrics::latency::CommandClass;

/// What every worker is asked.
#[derive(Debug, Clone)]
pub struct RollCall {
    filter: Filter,
    kills: bool,
    /// Whose reply it is a part of.
    ticket: Ticket,
}

/// A question on its way to a worker.
pub struct RollAsked {
    call: RollCall,
    back: WorkerPort,
}

/// Which clients are meant.
#[derive(Debug, Clone, Default)]
struct Filter {
    ids: Option<Vec<u64>>,
    address: Option<Vec<u8>>,
    own_address: Option<Vec<u8>>,
    /// Of this type.
    kind: Option<ClientKind>,
    age_s_min: Option<u64>,
    /// The one who asks, if it is not meant.
    but: Option<u64>,
}

impl PoolCore {
    pub(super) fn client_line(&self, client: &Client) -> String {
        describe::client_line(client, &self.own_address(), self.now_ms())
    }

    /// Where clients connect, if that is one place.
    fn own_address(&self) -> String {
        match self.config.listen.as_slice() {
            [one] => one.to_string(),
            _ => String::new(),
        }
    }

    pub(super) fn client_list(&mut self, key: u32, args: &Request<'_>) -> Verdict {
        let protocol = self.protocol(key);
        match Filter::of_list(args) {
            Ok(filter) => self.ask_workers(key, filter, MergeKind::Lines { protocol }),
            Err(error) => self.answer_error(key, &error),
        }
    }

    pub(super) fn client_kill(&mut self, key: u32, args: &Request<'_>) -> Verdict {
        if args.len() == 3 {
            let filter = Filter {
                address: Some(args.arg(2).to_vec()),
                ..Filter::default()
            };
            return self.ask_workers(key, filter, MergeKind::Killed);
        }
        let own_id = self.clients.get(key as usize).map_or(0, |client| client.id);
        match Filter::of_kill(args, own_id) {
            Ok(filter) => self.ask_workers(key, filter, MergeKind::Sum),
            Err(error) => self.answer_error(key, &error),
        }
    }

    fn ask_workers(&mut self, key: u32, filter: Filter, kind: MergeKind) -> Verdict {
        let Some(client) = self.clients.get_mut(key as usize) else {
            return Verdict::End;
        };
        let generation = client.generation;
        let sequence = client.next_sequence();
        client.expect(1);
        let workers = self.workers();
        let merge = self
            .merges
            .begin((key, generation), kind, workers, [].into_iter());
        let call = RollCall {
            filter,
            kills: !matches!(kind, MergeKind::Lines { .. }),
            ticket: Ticket {
                client: key,
                generation,
                sequence,
                class: CommandClass::Part,
                part: Some(PartOf { merge, part: 0 }),
            },
        };
        if workers > 1 {
            self.chores.roll_calls.push(call.clone());
        }
        let own = self.answer_roll_call(&call);
        self.delivery().one(call.ticket, &own);
        let is_open = self
            .clients
            .get(key as usize)
            .is_some_and(|client| client.ending == Ending::Open);
        if is_open {
            Verdict::Taken
        } else {
            Verdict::End
        }
    }

    /// This worker's part.
    fn answer_roll_call(&mut self, call: &RollCall) -> Vec<u8> {
        let (own_address, now_ms) = (self.own_address(), self.now_ms());
        let meant = self.clients.iter().filter(|(_, client)| {
            client.ending != Ending::Closed && call.filter.takes(client, &own_address, now_ms)
        });
        if !call.kills {
            let lines: String = meant.map(|(_, client)| self.client_line(client)).collect();
            return lines.into_bytes();
        }
        let meant: Vec<(u32, u32)> = meant
            .map(|(key, client)| (key as u32, client.generation))
            .collect();
        for &(key, generation) in &meant {
            if !call.ticket.is_of(key, generation) {
                self.close_client(key);
            } else if let Some(client) = self.clients.get_mut(key as usize) {
                client.ending = Ending::Finishing; // it gets its reply first
                self.mark_client(key);
            }
        }
        call.told(meant.len())
    }

    /// What another worker answered.
    pub(super) fn take_roll_answer(&mut self, ticket: Ticket, part: &[u8]) {
        self.delivery().one(ticket, part);
    }
}

impl RollCall {
    /// A part that says that so many clients were ended, or that none is there.
    fn told(&self, ended: usize) -> Vec<u8> {
        let mut part = Vec::new();
        if self.kills {
            write_integer(&mut part, ended as i64);
        }
        part
    }
}

impl Worker {
    /// Asks the other workers.
    pub(super) fn call_roll(&mut self, pool_index: usize, calls: &mut Vec<RollCall>) {
        let own = self.index;
        let Some(pool) = self.pool(pool_index) else {
            return;
        };
        let ports = pool.balance.ports();
        let Some(back) = ports.get(own).cloned() else {
            return;
        };
        for call in calls.drain(..) {
            let others = ports.iter().enumerate().filter(|(at, _)| *at != own);
            for (part, (_, port)) in (1..).zip(others) {
                let mut call = call.clone();
                if let Some(place) = &mut call.ticket.part {
                    place.part = part;
                }
                let asked = RollAsked {
                    call,
                    back: back.clone(),
                };
                let order = Order::RollCall {
                    pool: pool_index,
                    asked: Box::new(asked),
                };
                if let Err(SendError(Order::RollCall { asked, .. })) = port.offer(order)
                    && let Some(pool) = self.pool(pool_index)
                {
                    let nothing = asked.call.told(0);
                    pool.core.take_roll_answer(asked.call.ticket, &nothing);
                }
            }
        }
    }

    /// Answers another worker, also for a pool that is gone here.
    pub(super) fn answer_roll(&mut self, pool_index: usize, asked: &RollAsked) {
        let call = &asked.call;
        let part = match self.pool(pool_index) {
            Some(pool) => pool.core.answer_roll_call(call),
            None => call.told(0),
        };
        // A worker that ended meanwhile has nobody left who waits for it.
        asked.back.send(Order::RollAnswer {
            pool: pool_index,
            ticket: call.ticket,
            part,
        });
    }
}

impl Filter {
    /// `CLIENT LIST [TYPE t] [ID id...]`
    fn of_list(args: &Request<'_>) -> Result<Self, ErrorReply> {
        let mut filter = Self::default();
        match args.arg(2) {
            [] if args.len() == 2 => {}
            word if word.eq_ignore_ascii_case(b"TYPE") && args.len() == 4 => {
                filter.kind = Some(kind_of(args.arg(3))?);
            }
            word if word.eq_ignore_ascii_case(b"ID") && args.len() > 3 => {
                let ids = (3..args.len()).map(|index| number(args.arg(index)));
                let ids: Option<Vec<u64>> = ids.collect();
                filter.ids = Some(ids.ok_or_else(|| ErrorReply::new("ERR Invalid client ID"))?);
            }
            _ => return Err(SYNTAX),
        }
        Ok(filter)
    }

    /// `CLIENT KILL [ID id] [TYPE t] [ADDR a] [LADDR a] [USER u] [SKIPME yes|no] [MAXAGE s]`
    fn of_kill(args: &Request<'_>, own_id: u64) -> Result<Self, ErrorReply> {
        let mut filter = Self {
            but: Some(own_id),
            ..Self::default()
        };
        for index in (2..args.len()).step_by(2) {
            if index + 1 == args.len() {
                return Err(SYNTAX);
            }
            let (word, value) = (args.arg(index), args.arg(index + 1));
            match word.to_ascii_uppercase().as_slice() {
                b"ID" => {
                    let id = number(value).filter(|&id| id > 0);
                    let id = id
                        .ok_or_else(|| ErrorReply::new("ERR client-id should be greater than 0"))?;
                    filter.ids = Some(vec![id]);
                }
                b"TYPE" => filter.kind = Some(kind_of(value)?),
                b"ADDR" => filter.address = Some(value.to_vec()),
                b"LADDR" => filter.own_address = Some(value.to_vec()),
                b"USER" if value == b"default" => {}
                b"USER" => {
                    let user = String::from_utf8_lossy(value);
                    return Err(ErrorReply::new(format!("ERR No such user '{user}'")));
                }
                b"SKIPME" if value.eq_ignore_ascii_case(b"yes") => filter.but = Some(own_id),
                b"SKIPME" if value.eq_ignore_ascii_case(b"no") => filter.but = None,
                b"MAXAGE" => {
                    let age = number(value).ok_or_else(|| {
                        ErrorReply::new("ERR maxage is not an integer or out of range")
                    })?;
                    filter.age_s_min = Some(age);
                }
                _ => return Err(SYNTAX),
            }
        }
        Ok(filter)
    }

    fn takes(&self, client: &Client, own_address: &str, now_ms: u64) -> bool {
        let peer = client.peer.as_deref().unwrap_or("?").as_bytes();
        let age_s = now_ms.saturating_sub(client.since_ms) / 1_000;
        let is_own = |wanted: &Vec<u8>| wanted == own_address.as_bytes();
        self.but != Some(client.id)
            && self.kind.is_none_or(|kind| kind == ClientKind::of(client))
            && self.age_s_min.is_none_or(|least| age_s >= least)
            && self.ids.as_ref().is_none_or(|ids| ids.contains(&client.id))
            && self.address.as_ref().is_none_or(|wanted| wanted == peer)
            && self.own_address.as_ref().is_none_or(is_own)
    }
}

/// What CLIENT LIST TYPE tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientKind {
    Normal,
    PubSub,
    /// Between servers: none of ours.
    Server,
}

impl ClientKind {
    fn of(client: &Client) -> Self {
        match client.is_subscriber() {
            true => Self::PubSub,
            false => Self::Normal,
        }
    }
}

fn kind_of(word: &[u8]) -> Result<ClientKind, ErrorReply> {
    match word.to_ascii_lowercase().as_slice() {
        b"normal" => Ok(ClientKind::Normal),
        b"pubsub" => Ok(ClientKind::PubSub),
        b"slave" | b"replica" | b"master" => Ok(ClientKind::Server),
        _ => {
            let word = String::from_utf8_lossy(word);
            Err(ErrorReply::new(format!("ERR Unknown client type '{word}'")))
        }
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
