//! Clients that wait for a key: BLPOP and its kin.
//!
//! A command that finds nothing says what it waits for, and is run again when one of its
//! keys changes; it is served if it does not wait again. Of several that wait for one key
//! the first is served first, and the next one as long as there is something.

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
    on_timeout: OnTimeout,
    request: OwnedRequest,
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
            on_timeout: wait.on_timeout,
            request: wait.again_as.unwrap_or_else(|| OwnedRequest::of(args)),
        });
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
        for key in queue.clone() {
            self.run_again(key, changed);
        }
    }

    fn run_again(&mut self, key: usize, by: &[u8]) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let Some(waiting) = &client.waiting else {
            return;
        };
        let (db, request) = (waiting.db, waiting.request.clone());
        let Some(command) = self.table.find(request.args().at(0)) else {
            return;
        };
        let Run::Data(handler) = command.run else {
            return;
        };
        let before = client.reply.len();
        let mut reply = std::mem::take(&mut client.reply);
        let mut unit = Unit::default();
        let waits = Waits::Woken { by };
        let again = self.run_data(&mut reply, db, handler, request.args(), &mut unit, waits);
        self.effects.push(unit);
        let client = &mut self.clients[key];
        client.reply = reply;
        client.turn_from.get_or_insert(before);
        if again.is_some() {
            client.reply.truncate(before);
            return;
        }
        self.stop_waiting(key);
        self.mark(key);
        self.resumed.push(key);
    }

    /// Clients whose waits are over by the clock are told so.
    pub(super) fn end_waits_due(&mut self) {
        let now_ms = self.keyspace.now_ms();
        while let Some((at, key)) = self.waiting.by_time.first().copied()
            && at <= now_ms
        {
            self.waiting.by_time.remove(&(at, key));
            if let Some(waiting) = self.stop_waiting(key) {
                self.tell_timeout(key, waiting.on_timeout);
            }
        }
    }

    fn tell_timeout(&mut self, key: usize, on_timeout: OnTimeout) {
        let reply = &mut self.clients[key].reply;
        match on_timeout {
            OnTimeout::Null => reply.null(),
            OnTimeout::NullArray => reply.null_array(),
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
            false => self.tell_timeout(key, waiting.on_timeout),
        }
        true
    }

    /// Clients whose waits ended since they were last taken: they may have sent more.
    pub fn take_resumed(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.resumed)
    }
}
