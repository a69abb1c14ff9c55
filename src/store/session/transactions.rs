//! MULTI, EXEC, DISCARD, WATCH, UNWATCH.
//!
//! ```text
//!           MULTI              EXEC: all run as one unit, or null if a watched key
//! (none) ---------> queueing ------------------------------------------> (none)
//!                      '- a request that cannot be queued: EXEC will be EXECABORT
//! ```

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::store::commands::table::Verb;
use crate::store::commands::{Args, Command, Failure, OwnedRequest, Run, Unit};

use super::shard::Shard;

/// Requests that wait for EXEC.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    queue: Vec<(&'static Command, OwnedRequest)>,
    pub(super) is_broken: bool,
}

impl Transaction {
    /// Whether one of the commands is such.
    pub(super) fn has(&self, is_such: fn(&Command) -> bool) -> bool {
        self.queue.iter().any(|(command, _)| is_such(command))
    }

    /// How many commands wait, and their bytes.
    pub(super) fn size(&self) -> (i64, usize) {
        let bytes = self.queue.iter().map(|(_, request)| request.len()).sum();
        (i64::try_from(self.queue.len()).unwrap_or(i64::MAX), bytes)
    }
}

/// Which clients watch a key.
pub(super) type Watchers = HashMap<(usize, Box<[u8]>), Vec<usize>, RandomState>;

impl Shard {
    pub(super) fn is_queued(&self, key: usize, command: &Command) -> bool {
        let is_about_it = matches!(
            command.run,
            Run::Session(
                Verb::Exec | Verb::Discard | Verb::Multi | Verb::Watch | Verb::Quit | Verb::Reset
            )
        );
        self.clients[key].transaction.is_some() && !is_about_it
    }

    pub(super) fn queue(&mut self, key: usize, command: &'static Command, args: Args<'_>) {
        let client = &mut self.clients[key];
        let Some(transaction) = &mut client.transaction else {
            return;
        };
        if command.has_flag("no-multi") {
            transaction.is_broken = true;
            let words = "ERR Command not allowed inside a transaction";
            return client.reply.error(words);
        }
        transaction.queue.push((command, OwnedRequest::of(args)));
        client.reply.status("QUEUED");
    }

    pub(super) fn multi(&mut self, key: usize) -> Result<(), Failure> {
        let client = &mut self.clients[key];
        if client.transaction.is_some() {
            return Err(Failure::words("ERR MULTI calls can not be nested"));
        }
        client.transaction = Some(Transaction::default());
        client.reply.ok();
        Ok(())
    }

    pub(super) fn discard(&mut self, key: usize) -> Result<(), Failure> {
        if self.clients[key].transaction.take().is_none() {
            return Err(Failure::words("ERR DISCARD without MULTI"));
        }
        self.unwatch(key);
        self.clients[key].reply.ok();
        Ok(())
    }

    /// A request was refused before it was queued or run: EXEC will not run anything; and
    /// EXEC itself, if it is that, has ended the transaction.
    pub(super) fn break_transaction(
        &mut self,
        key: usize,
        args: Args<'_>,
        failure: Failure,
    ) -> Failure {
        match failure {
            Failure::Reply(words) if args.is(0, "EXEC") => {
                self.clients[key].transaction = None;
                self.unwatch(key);
                let why = words.strip_prefix(b"ERR ").unwrap_or(&words);
                let told = b"EXECABORT Transaction discarded because of: ";
                Failure::Reply([told, why].concat().into())
            }
            failure => {
                if let Some(transaction) = &mut self.clients[key].transaction {
                    transaction.is_broken = true;
                }
                failure
            }
        }
    }

    pub(super) fn exec(&mut self, key: usize, unit: &mut Unit) -> Result<(), Failure> {
        let Some(transaction) = self.clients[key].transaction.take() else {
            return Err(Failure::words("ERR EXEC without MULTI"));
        };
        // A watched key that is over by now counts as changed.
        for (db, watched) in self.clients[key].watched.clone() {
            self.keyspace.lookup(db, &watched)?;
        }
        for changed in self.keyspace.take_changed() {
            if changed.tells.watchers() {
                self.lose_watches(changed.db, &changed.key);
            }
        }
        let is_lost = self.clients[key].is_watch_lost;
        self.unwatch(key);
        if transaction.is_broken {
            return Err(Failure::words(
                "EXECABORT Transaction discarded because of previous errors.",
            ));
        }
        if is_lost {
            self.clients[key].reply.null_array();
            return Ok(());
        }
        self.clients[key].reply.array(transaction.queue.len());
        self.clients[key].is_executing = true;
        for (command, request) in &transaction.queue {
            if let Err(failure) = self.admit_at_exec(key, command, request.args()) {
                self.refuse(key, &failure);
                continue;
            }
            let may_wait = false;
            self.run_in(key, command, request.args(), unit, may_wait);
        }
        if let Some(client) = self.clients.get_mut(key) {
            client.is_executing = false;
        }
        unit.begin_next();
        Ok(())
    }

    pub(super) fn watch(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        if self.clients[key].transaction.is_some() {
            return Err(Failure::words("ERR WATCH inside MULTI is not allowed"));
        }
        let db = self.clients[key].db;
        for watched in args.from(1) {
            // What is over already is not there, and does not change by being removed.
            self.keyspace.lookup(db, watched)?;
            let place = (db, Box::from(watched));
            if self.clients[key].watched.contains(&place) {
                continue;
            }
            self.keyspace.add_interest(db, watched);
            self.watchers.entry(place.clone()).or_default().push(key);
            self.clients[key].watched.push(place);
        }
        self.clients[key].reply.ok();
        Ok(())
    }

    /// A client watches nothing any more.
    pub(super) fn unwatch(&mut self, key: usize) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        client.is_watch_lost = false;
        for place in std::mem::take(&mut client.watched) {
            self.keyspace.drop_interest(place.0, &place.1);
            if let Some(watchers) = self.watchers.get_mut(&place) {
                watchers.retain(|of| *of != key);
                if watchers.is_empty() {
                    self.watchers.remove(&place);
                }
            }
        }
    }

    pub(super) fn lose_watches(&mut self, db: usize, changed: &[u8]) {
        if self.watchers.is_empty() {
            return;
        }
        let Some(watchers) = self.watchers.get(&(db, Box::from(changed))) else {
            return;
        };
        for key in watchers {
            if let Some(client) = self.clients.get_mut(*key) {
                client.is_watch_lost = true;
            }
        }
    }
}
