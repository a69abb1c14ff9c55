//! Clients that wait for a key: BLPOP and its kin.
//!
//! A command that finds nothing says what it waits for, and is run again when one of its
//! keys changes; it is served if it does not wait again. Of several that wait for one key
//! the first is served first, and the next one as long as there is something. Who reads
//! for a group of a stream is told so when that is gone, too.

use std::collections::{BTreeSet, HashMap, VecDeque};

use foldhash::fast::RandomState;

use crate::store::commands::{Args, Failure, OnTimeout, OwnedRequest, Run, Unit, Wait, Waits};

use super::shard::Shard;

/// What a client waits for.
#[derive(Debug)]
pub(super) struct Waiting {
    db: usize,
    keys: Vec<Box<[u8]>>,
    until_ms: Option<u64>,
    ends: Ends,
    /// The wait is over when there is nothing at a key any more.
    ends_with_key: bool,
    request: OwnedRequest,
}

/// What the client is told when its time is over.
#[derive(Clone, Copy, Debug)]
enum Ends {
    With(OnTimeout),
    /// How many replicas have the stream up to here.
    WithAcks(u64),
}

/// All clients that wait.
#[derive(Debug, Default)]
pub(super) struct WaitingClients {
    by_key: HashMap<(usize, Box<[u8]>), VecDeque<usize>, RandomState>,
    by_time: BTreeSet<(u64, usize)>,
}

impl WaitingClients {
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.by_time.first().map(|(at, _)| *at)
    }
}

impl Shard {
    pub(super) fn wait(&mut self, key: usize, args: Args<'_>, wait: Wait) {
        let db = self.clients[key].db;
        let mut keys: Vec<Box<[u8]>> = Vec::with_capacity(wait.keys.len());
        for of in &wait.keys {
            if keys.iter().any(|known| **known == **of) {
                continue;
            }
            self.keyspace.add_interest(db, of);
            let place = (db, Box::from(&**of));
            self.waiting.by_key.entry(place).or_default().push_back(key);
            keys.push(Box::from(&**of));
        }
        if let Some(at) = wait.until_ms {
            self.waiting.by_time.insert((at, key));
        }
        self.clients[key].waiting = Some(Waiting {
            db,
            keys,
            until_ms: wait.until_ms,
            ends: Ends::With(wait.on_timeout),
            ends_with_key: wait.ends_with_key,
            request: wait.again_as.unwrap_or_else(|| OwnedRequest::of(args)),
        });
    }

    /// A client waits for replicas to have the stream up to `offset`.
    pub(super) fn wait_for_acks(
        &mut self,
        key: usize,
        args: Args<'_>,
        offset: u64,
        until_ms: Option<u64>,
    ) {
        if let Some(at) = until_ms {
            self.waiting.by_time.insert((at, key));
        }
        let client = &mut self.clients[key];
        client.waiting = Some(Waiting {
            db: client.db,
            keys: Vec::new(),
            until_ms,
            ends: Ends::WithAcks(offset),
            ends_with_key: false,
            request: OwnedRequest::of(args),
        });
    }

    /// As if its time was over: it has what it waits for.
    pub(super) fn end_wait(&mut self, key: usize) {
        if let Some(waiting) = self.stop_waiting(key) {
            self.tell_end(key, waiting.ends);
        }
    }

    pub(super) fn stop_waiting(&mut self, key: usize) -> Option<Waiting> {
        let waiting = self.clients.get_mut(key)?.waiting.take()?;
        for of in &waiting.keys {
            self.keyspace.drop_interest(waiting.db, of);
            let place = (waiting.db, of.clone());
            if let Some(queue) = self.waiting.by_key.get_mut(&place) {
                queue.retain(|client| *client != key);
                if queue.is_empty() {
                    self.waiting.by_key.remove(&place);
                }
            }
        }
        if let Some(at) = waiting.until_ms {
            self.waiting.by_time.remove(&(at, key));
        }
        if let Ends::WithAcks(_) = waiting.ends {
            self.acks.forget(key);
        }
        Some(waiting)
    }

    /// A key changed: those who wait for it are run again, the first one first.
    pub(super) fn serve(&mut self, db: usize, changed: &[u8]) {
        if self.waiting.by_key.is_empty() {
            return;
        }
        let place = (db, Box::from(changed));
        let Some(queue) = self.waiting.by_key.get(&place) else {
            return;
        };
        let mut is_gone = false;
        for key in queue.clone() {
            // Nothing is left for those behind.
            if is_gone && !self.ends_with_key(key) {
                continue;
            }
            let is_served = self.run_again(key, changed).is_some();
            is_gone =
                is_gone || (!is_served && matches!(self.keyspace.lookup(db, changed), Ok(None)));
        }
    }

    fn ends_with_key(&self, key: usize) -> bool {
        let waiting = self.clients.get(key).and_then(|of| of.waiting.as_ref());
        waiting.is_some_and(|waiting| waiting.ends_with_key)
    }

    /// Nothing if the client waits on.
    fn run_again(&mut self, key: usize, by: &[u8]) -> Option<()> {
        let client = self.clients.get_mut(key)?;
        let waiting = client.waiting.as_ref()?;
        let (db, request) = (waiting.db, waiting.request.clone());
        let Run::Data(handler) = self.table.find(request.args().at(0))?.run else {
            return None;
        };
        let before = client.reply.len();
        let mut reply = std::mem::take(&mut client.reply);
        let mut unit = Unit::default();
        let waits = Waits::Woken { by };
        let again = self.run_data(&mut reply, db, handler, request.args(), &mut unit, waits);
        if !unit.is_empty() {
            self.effects.push(unit);
            self.note_write(key);
        }
        let client = &mut self.clients[key];
        client.reply = reply;
        client.turn_from.get_or_insert(before);
        if again.is_some() {
            client.reply.truncate(before);
            return None;
        }
        self.stop_waiting(key);
        self.mark(key);
        self.resumed.push(key);
        Some(())
    }

    /// Clients whose waits are over by the clock are told so.
    pub(super) fn end_waits_due(&mut self) {
        let now_ms = self.keyspace.now_ms();
        while let Some((at, key)) = self.waiting.by_time.first().copied()
            && at <= now_ms
        {
            self.waiting.by_time.remove(&(at, key));
            self.end_wait(key);
        }
    }

    fn tell_end(&mut self, key: usize, ends: Ends) {
        let acked = match ends {
            Ends::WithAcks(offset) => self.replicas_at(offset),
            Ends::With(_) => 0,
        };
        let reply = &mut self.clients[key].reply;
        match ends {
            Ends::With(OnTimeout::Null) => reply.null(),
            Ends::With(OnTimeout::NullArray) => reply.null_array(),
            Ends::WithAcks(_) => reply.count(acked),
        }
        self.mark(key);
        self.resumed.push(key);
    }

    /// Ends a client's wait as CLIENT UNBLOCK does. False if it did not wait.
    pub(super) fn unblock(&mut self, key: usize, with_error: bool) -> bool {
        let Some(waiting) = self.stop_waiting(key) else {
            return false;
        };
        match with_error {
            true => {
                let words = "UNBLOCKED client unblocked via CLIENT UNBLOCK";
                self.refuse(key, &Failure::words(words));
                self.mark(key);
                self.resumed.push(key);
            }
            false => self.tell_end(key, waiting.ends),
        }
        true
    }

    /// Clients whose waits ended since they were last taken: they may have sent more.
    pub fn take_resumed(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.resumed)
    }
}
