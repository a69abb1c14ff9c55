//! CLIENT, but PAUSE.

use std::fmt::Write;

use crate::store::acl::{UserId, Users};
use crate::store::commands::{Args, Failure};

use super::client::{Client, CloseReason, Wanted};
use super::connection::client_name;
use super::shard::{Order, Shard};

/// Of what kind a client is, as TYPE names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientType {
    Normal,
    Replica,
    Master,
    Pubsub,
}

/// Which clients CLIENT KILL ends.
#[derive(Debug)]
struct Doomed<'a> {
    id: Option<u64>,
    address: Option<&'a [u8]>,
    local_address: Option<&'a [u8]>,
    kind: Option<ClientType>,
    user: Option<UserId>,
    skips_me: bool,
}

impl ClientType {
    fn parse(name: &[u8]) -> Result<Self, Failure> {
        match name.to_ascii_lowercase().as_slice() {
            b"normal" => Ok(ClientType::Normal),
            b"slave" | b"replica" => Ok(ClientType::Replica),
            b"master" => Ok(ClientType::Master),
            b"pubsub" => Ok(ClientType::Pubsub),
            _ => Err(Failure::quoting("ERR Unknown client type '", name, "'")),
        }
    }

    fn of(client: &Client) -> Self {
        match client.is_subscriber() {
            true => ClientType::Pubsub,
            false => ClientType::Normal,
        }
    }
}

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

    fn client_list(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        let keys: Vec<usize> = if args.len() == 4 && args.is(2, "TYPE") {
            let wanted = ClientType::parse(args.at(3))?;
            let of_type = self
                .clients
                .iter()
                .filter(|(_, of)| ClientType::of(of) == wanted);
            of_type.map(|(key, _)| key).collect()
        } else if args.len() > 3 && args.is(2, "ID") {
            let mut keys = Vec::new();
            for number in 3..args.len() {
                let invalid = |_| Failure::words("ERR Invalid client ID");
                let id = args.integer(number).map_err(invalid)?;
                keys.extend(self.client_of_id(id));
            }
            keys
        } else if args.len() == 2 {
            self.clients.iter().map(|(key, _)| key).collect()
        } else {
            return Err(Failure::SYNTAX);
        };
        let mut text = String::new();
        for of in keys {
            text.push_str(&self.client_line(of));
            text.push('\n');
        }
        self.clients[key].reply.verbatim(&text);
        Ok(())
    }

    /// A client as CLIENT LIST tells of it. `fd` is our own number for its connection.
    pub(super) fn client_line(&self, key: usize) -> String {
        let mut line = String::new();
        let Some(client) = self.clients.get(key) else {
            return line;
        };
        let now_ms = self.keyspace.now_ms();
        let seconds = |since_ms: u64| now_ms.saturating_sub(since_ms) / 1000;
        let (queued, queued_bytes) = match &client.transaction {
            None => (-1, 0),
            Some(transaction) => transaction.size(),
        };
        let input = (client.input.len(), client.input.capacity());
        let owed = client.reply.len();
        let held = input.1 + owed + queued_bytes;
        // A string takes whatever is written to it.
        let _ = write!(
            line,
            "id={} addr={} laddr={} fd={key} name={} age={} idle={} flags={} db={} sub={} \
             psub={} ssub={} multi={queued} qbuf={} qbuf-free={} argv-mem=0 \
             multi-mem={queued_bytes} rbs={owed} rbp={owed} obl={owed} oll=0 omem=0 \
             tot-mem={held} events={} cmd={} user={} redir=-1 resp={}",
            client.id.0,
            client.address,
            client.local_address,
            String::from_utf8_lossy(&client.name),
            seconds(client.connected_at_ms),
            seconds(client.active_at_ms),
            flags(client),
            client.db,
            client.channels.len(),
            client.patterns.len(),
            client.shard_channels.len(),
            input.0,
            input.1 - input.0,
            if owed > 0 { "rw" } else { "r" },
            client.last_command,
            String::from_utf8_lossy(self.users.name(client.user)),
            if client.reply.is_resp3() { 3 } else { 2 },
        );
        line
    }

    fn client_kill(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        let is_by_address = args.len() == 3;
        let doomed = match is_by_address {
            true => Doomed {
                address: Some(args.at(2)),
                skips_me: false,
                ..Doomed::all_others()
            },
            false => Doomed::parse(args, &self.users)?,
        };
        let found = self
            .clients
            .iter()
            .filter(|(of, client)| doomed.takes(client) && !(doomed.skips_me && *of == key));
        let found: Vec<usize> = found.map(|(of, _)| of).collect();
        let mut replicas = 0;
        if doomed.kind == Some(ClientType::Replica) {
            // The driver has them; they ask anew by themselves.
            replicas = self.facts.replicas.len();
            self.orders.push(Order::CutReplicas);
        }
        let reply = &mut self.clients[key].reply;
        match (is_by_address, found.len() + replicas) {
            (true, 0) => return Err(Failure::words("ERR No such client")),
            (true, _) => reply.ok(),
            (false, killed) => reply.count(killed),
        }
        for of in found {
            match of == key {
                true => self.clients[of].closing = Some(CloseReason::Killed),
                false => self.kill(of),
            }
        }
        Ok(())
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
            _ => return Err(Failure::SYNTAX),
        };
        let id = args.integer(2)?;
        let of = self.client_of_id(id);
        let was_waiting = of.is_some_and(|of| self.unblock(of, with_error));
        self.clients[key].reply.flag(was_waiting);
        Ok(())
    }
}

impl<'a> Doomed<'a> {
    fn all_others() -> Self {
        Self {
            id: None,
            address: None,
            local_address: None,
            kind: None,
            user: None,
            skips_me: true,
        }
    }

    fn parse(args: Args<'a>, users: &Users) -> Result<Self, Failure> {
        let mut doomed = Self::all_others();
        let mut at = 2;
        while at < args.len() {
            let Some(value) = args.get(at + 1) else {
                return Err(Failure::SYNTAX);
            };
            if args.is(at, "ID") {
                let id = args
                    .integer(at + 1)
                    .ok()
                    .and_then(|id| u64::try_from(id).ok());
                let too_small = Failure::words("ERR client-id should be greater than 0");
                doomed.id = Some(id.filter(|id| *id > 0).ok_or(too_small)?);
            } else if args.is(at, "TYPE") {
                doomed.kind = Some(ClientType::parse(value)?);
            } else if args.is(at, "ADDR") {
                doomed.address = Some(value);
            } else if args.is(at, "LADDR") {
                doomed.local_address = Some(value);
            } else if args.is(at, "USER") {
                let unknown = || Failure::quoting("ERR No such user '", value, "'");
                doomed.user = Some(users.find(value).ok_or_else(unknown)?);
            } else if args.is(at, "SKIPME") {
                doomed.skips_me = if args.is(at + 1, "YES") {
                    true
                } else if args.is(at + 1, "NO") {
                    false
                } else {
                    return Err(Failure::SYNTAX);
                };
            } else {
                return Err(Failure::SYNTAX);
            }
            at += 2;
        }
        Ok(doomed)
    }

    fn takes(&self, client: &Client) -> bool {
        self.id.is_none_or(|id| client.id.0 == id)
            && self
                .address
                .is_none_or(|address| client.address.as_bytes() == address)
            && self
                .local_address
                .is_none_or(|address| client.local_address.as_bytes() == address)
            && self.kind.is_none_or(|kind| ClientType::of(client) == kind)
            && self.user.is_none_or(|user| client.user == user)
    }
}

fn on_or_off(args: Args<'_>, number: usize) -> Result<bool, Failure> {
    match (args.is(number, "ON"), args.is(number, "OFF")) {
        (true, _) => Ok(true),
        (_, true) => Ok(false),
        _ => Err(Failure::SYNTAX),
    }
}

/// In Redis' order.
fn flags(client: &Client) -> String {
    let flags = [
        (client.is_monitor, 'O'),
        (client.is_subscriber(), 'P'),
        (client.transaction.is_some(), 'x'),
        (client.waiting.is_some() || client.is_postponed, 'b'),
        (client.is_watch_lost, 'd'),
        (client.closing.is_some(), 'c'),
        (client.address.starts_with('/'), 'U'),
        (client.is_never_evicted, 'e'),
    ];
    let told: String = flags
        .iter()
        .filter(|(is_set, _)| *is_set)
        .map(|(_, flag)| *flag)
        .collect();
    match told.is_empty() {
        true => "N".to_owned(),
        false => told,
    }
}

#[cfg(test)]
mod tests;
