//! CLIENT, but PAUSE, LIST and KILL.

use crate::store::commands::{Args, Failure};

use super::client::{CloseReason, Wanted};
use super::connection::client_name;
use super::shard::Shard;

impl Shard {
    pub(super) fn client_command(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        match args.at(1).to_ascii_lowercase().as_slice() {
            b"caching" => {
                return Err(Failure::words(
                    "ERR CLIENT CACHING can be called only when the client is in tracking mode \
                     with OPTIN or OPTOUT mode enabled",
                ));
            }
            b"getname" => {
                let client = &mut self.clients[key];
                let name = Some(&*client.name).filter(|name| !name.is_empty());
                client.reply.bulk_or_null(name);
            }
            b"getredir" => self.clients[key].reply.integer(-1),
            b"id" => {
                let client = &mut self.clients[key];
                client
                    .reply
                    .integer(i64::try_from(client.id.0).unwrap_or(i64::MAX));
            }
            b"info" => {
                let line = self.client_line(key) + "\n";
                self.clients[key].reply.verbatim(&line);
            }
            b"kill" => self.client_kill(key, args)?,
            b"list" => self.client_list(key, args)?,
            b"no-evict" => {
                // Nobody is evicted here: it is remembered, and told by CLIENT LIST.
                let is_kept = on_or_off(args, 2)?;
                let client = &mut self.clients[key];
                client.is_never_evicted = is_kept;
                client.reply.ok();
            }
            b"pause" => self.pause_clients(key, args)?,
            b"reply" => self.client_reply(key, args)?,
            b"setname" => {
                let name = client_name(args.at(2))?;
                let client = &mut self.clients[key];
                client.name = name;
                client.reply.ok();
            }
            b"tracking" => self.client_tracking(key, args)?,
            b"trackinginfo" => {
                let reply = &mut self.clients[key].reply;
                reply.map(3);
                reply.bulk(b"flags");
                reply.set(1);
                reply.bulk(b"off");
                reply.bulk(b"redirect");
                reply.integer(-1);
                reply.bulk(b"prefixes");
                reply.array(0);
            }
            b"unblock" => self.client_unblock(key, args)?,
            b"unpause" => {
                self.end_pause();
                self.clients[key].reply.ok();
            }
            _ => return Err(super::connection::unknown_subcommand("client", args)),
        }
        Ok(())
    }

    /// A client's key by its number.
    fn client_of_id(&self, id: i64) -> Option<usize> {
        let id = u64::try_from(id).ok()?;
        self.clients
            .iter()
            .find(|(_, client)| client.id.0 == id)
            .map(|(key, _)| key)
    }

    /// Ends a client's connection at once: what it is owed it does not get, and what it
    /// waits for it does not take.
    pub(super) fn kill(&mut self, key: usize) {
        self.stop_waiting(key);
        self.unwatch(key);
        self.leave_channels(key);
        self.stop_monitoring(key);
        if let Some(client) = self.clients.get_mut(key) {
            client.transaction = None;
            client.reply.truncate(0);
            client.closing = Some(CloseReason::Killed);
        }
        self.mark(key);
    }

    fn client_reply(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        let client = &mut self.clients[key];
        if args.is(2, "ON") {
            client.wanted = Wanted::All;
            client.reply.ok();
        } else if args.is(2, "OFF") {
            client.wanted = Wanted::None;
        } else if args.is(2, "SKIP") {
            if client.wanted != Wanted::None {
                client.wanted = Wanted::SkipNext;
            }
        } else {
            return Err(Failure::SYNTAX);
        }
        Ok(())
    }

    fn client_tracking(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        let mut at = 3;
        while at < args.len() {
            let is_flag = ["BCAST", "OPTIN", "OPTOUT", "NOLOOP"];
            if ["REDIRECT", "PREFIX"].iter().any(|word| args.is(at, word)) && at + 1 < args.len() {
                at += 2;
            } else if is_flag.iter().any(|word| args.is(at, word)) {
                at += 1;
            } else {
                return Err(Failure::SYNTAX);
            }
        }
        let is_wanted = on_or_off(args, 2)?;
        if is_wanted {
            return Err(Failure::words(
                "ERR client-side caching is not supported by this server",
            ));
        }
        self.clients[key].reply.ok();
        Ok(())
    }

    fn client_unblock(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        let with_error = match args.len() {
            3 => false,
            4 if args.is(3, "TIMEOUT") => false,
            4 if args.is(3, "ERROR") => true,
            4 => {
                return Err(Failure::words(
                    "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR",
                ));
            }
            _ => return Err(super::connection::wrong_count("CLIENT", args)),
        };
        let id = args.integer(2)?;
        let of = self.client_of_id(id);
        let was_waiting = of.is_some_and(|of| self.unblock(of, with_error));
        self.clients[key].reply.flag(was_waiting);
        Ok(())
    }
}

fn on_or_off(args: Args<'_>, number: usize) -> Result<bool, Failure> {
    match (args.is(number, "ON"), args.is(number, "OFF")) {
        (true, _) => Ok(true),
        (_, true) => Ok(false),
        _ => Err(Failure::SYNTAX),
    }
}

#[cfg(test)]
mod tests;
