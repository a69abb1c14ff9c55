//! CLIENT PAUSE: requests that come meanwhile stay in their clients' input.
//!
//! ```text
//!             PAUSE                      its time is over, or UNPAUSE
//! (running) --------> paused, until ------------------------------> (running)
//!                       '- a request that may not run: its client is postponed
//! ```
//! As in Redis, keys whose time is over are not seen then, and stay: the data does not
//! change.

use crate::store::commands::described::Described;
use crate::store::commands::{Args, Command, Failure};
use crate::store::keyspace::Expiry;

use super::shard::{Role, Shard};

/// Of commands that change nothing, these tell replicas something.
pub(super) const MAY_REPLICATE: &[&str] =
    &["eval", "evalsha", "fcall", "pfcount", "publish", "spublish"];

/// Which requests do not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Paused {
    Writes,
    All,
}

/// A pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pause {
    paused: Paused,
    until_ms: u64,
}

/// Who waits for the end of the pause.
#[derive(Debug, Default)]
pub(super) struct Pausing {
    pause: Option<Pause>,
    postponed: Vec<usize>,
}

impl Pausing {
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.pause.map(|pause| pause.until_ms)
    }
}

impl Shard {
    /// CLIENT PAUSE timeout [WRITE|ALL].
    pub(super) fn pause_clients(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        let paused = match args.len() {
            4 if args.is(3, "WRITE") => Paused::Writes,
            3 => Paused::All,
            4 if args.is(3, "ALL") => Paused::All,
            4 => return Err(Failure::words("ERR CLIENT PAUSE mode must be WRITE or ALL")),
            _ => return Err(super::connection::wrong_count("CLIENT", args)),
        };
        let not_integer = Failure::words("ERR timeout is not an integer or out of range");
        let for_ms = args.integer(2).map_err(|_| not_integer)?;
        let for_ms =
            u64::try_from(for_ms).map_err(|_| Failure::words("ERR timeout is negative"))?;
        let until_ms = self.keyspace.now_ms().saturating_add(for_ms);
        if until_ms > i64::MAX as u64 {
            return Err(Failure::words("ERR timeout is out of range"));
        }
        if for_ms > 0 {
            let before = self.pausing.pause;
            self.pausing.pause = Some(Pause {
                paused: before.map_or(paused, |before| before.paused.max(paused)),
                until_ms: before.map_or(until_ms, |before| before.until_ms.max(until_ms)),
            });
            if self.role == Role::Master {
                self.keyspace.set_expiry(Expiry::Hide);
            }
        }
        self.clients[key].reply.ok();
        Ok(())
    }

    /// Ends the pause, if there is one: who waited for it may run.
    pub(super) fn end_pause(&mut self) {
        if self.pausing.pause.take().is_none() {
            return;
        }
        if self.role == Role::Master {
            self.keyspace.set_expiry(Expiry::Remove);
        }
        for key in std::mem::take(&mut self.pausing.postponed) {
            if let Some(client) = self.clients.get_mut(key)
                && std::mem::take(&mut client.is_postponed)
            {
                self.resumed.push(key);
            }
        }
    }

    pub(super) fn end_pause_if_due(&mut self) {
        let now_ms = self.keyspace.now_ms();
        if self
            .pausing
            .pause
            .is_some_and(|pause| pause.until_ms <= now_ms)
        {
            self.end_pause();
        }
    }

    /// Whether a request has to wait for the end of the pause; its client is noted then.
    pub(super) fn postpone(
        &mut self,
        key: usize,
        command: &Command,
        subcommand: Option<&Described>,
    ) -> bool {
        let Some(pause) = self.pausing.pause else {
            return false;
        };
        let is_write = || {
            let has_flag =
                command.has_flag("write") || subcommand.is_some_and(|of| of.has_flag("write"));
            has_flag || MAY_REPLICATE.contains(&command.name)
        };
        let executes_writes = || {
            let transaction = self.clients.get(key).and_then(|of| of.transaction.as_ref());
            command.name == "exec" && transaction.is_some_and(|of| of.has(is_written))
        };
        if pause.paused == Paused::Writes && !is_write() && !executes_writes() {
            return false;
        }
        if let Some(client) = self.clients.get_mut(key) {
            client.is_postponed = true;
            self.pausing.postponed.push(key);
        }
        true
    }
}

fn is_written(command: &Command) -> bool {
    command.has_flag("write") || MAY_REPLICATE.contains(&command.name)
}
