//! CLIENT LIST, INFO and KILL: who is connected.
//!
//! Replicas and the link to a master are among them, though the driver has their
//! connections: it tells of them in [`super::Facts`], and ends them when it is told to.

use std::fmt::Write;

use crate::store::acl::{DEFAULT, Users};
use crate::store::commands::{Args, Failure};

use super::client::{Client, ClientId, CloseReason};
use super::info::{MasterFacts, ReplicaFacts};
use super::shard::{Order, Role, Shard};

/// Of what kind a client is, as TYPE names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientType {
    Normal,
    Replica,
    Master,
    Pubsub,
}

/// Where a connection is.
#[derive(Clone, Copy, Debug)]
enum Place {
    Client(usize),
    /// Among the facts.
    Replica(usize),
    Master,
}

/// A connection, as far as it is chosen by.
#[derive(Debug)]
struct Seen {
    place: Place,
    id: ClientId,
    address: String,
    local_address: String,
    kind: ClientType,
    user: Vec<u8>,
}

/// Which clients CLIENT KILL ends.
#[derive(Debug)]
struct Doomed<'a> {
    id: Option<ClientId>,
    address: Option<&'a [u8]>,
    local_address: Option<&'a [u8]>,
    kind: Option<ClientType>,
    user: Option<&'a [u8]>,
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
    /// All connections, the oldest first.
    fn roll(&self) -> Vec<Seen> {
        let clients = self.clients.iter().map(|(key, client)| Seen {
            place: Place::Client(key),
            id: client.id,
            address: client.address.clone(),
            local_address: client.local_address.clone(),
            kind: ClientType::of(client),
            user: self.users.name(client.user).to_vec(),
        });
        let replicas = self.facts.replicas.iter().enumerate();
        let replicas = replicas.map(|(number, replica)| Seen {
            place: Place::Replica(number),
            id: replica.id,
            address: replica.address.clone(),
            local_address: replica.local_address.clone(),
            kind: ClientType::Replica,
            user: replica.user.clone().into_bytes(),
        });
        // As in Redis, there is one when there is a stream.
        let followed = self.facts.master.as_ref();
        let followed = followed.filter(|master| self.role == Role::Replica && master.is_up);
        let master = followed.map(|master| Seen {
            place: Place::Master,
            id: self.master_link,
            address: format!("{}:{}", master.host, master.port),
            local_address: String::new(),
            kind: ClientType::Master,
            user: DEFAULT.to_vec(),
        });
        let mut roll: Vec<Seen> = clients.chain(replicas).chain(master).collect();
        roll.sort_by_key(|seen| seen.id);
        roll
    }

    pub(super) fn client_list(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        let mut roll = self.roll();
        if args.len() == 4 && args.is(2, "TYPE") {
            let wanted = ClientType::parse(args.at(3))?;
            roll.retain(|seen| seen.kind == wanted);
        } else if args.len() > 3 && args.is(2, "ID") {
            let mut ids = Vec::new();
            for number in 3..args.len() {
                let invalid = |_| Failure::words("ERR Invalid client ID");
                ids.push(args.integer(number).map_err(invalid)?);
            }
            roll.retain(|seen| i64::try_from(seen.id.0).is_ok_and(|id| ids.contains(&id)));
        } else if args.len() != 2 {
            return Err(Failure::SYNTAX);
        }
        let mut text = String::new();
        for seen in roll {
            text.push_str(&match seen.place {
                Place::Client(of) => self.client_line(of),
                Place::Replica(number) => match self.facts.replicas.get(number) {
                    Some(replica) => self.replica_line(replica),
                    None => continue,
                },
                Place::Master => match &self.facts.master {
                    Some(master) => self.master_line(master),
                    None => continue,
                },
            });
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

    fn replica_line(&self, replica: &ReplicaFacts) -> String {
        let age_s = self
            .keyspace
            .now_ms()
            .saturating_sub(replica.connected_at_ms)
            / 1000;
        format!(
            "id={} addr={} laddr={} fd=-1 name= age={age_s} idle={} flags=S db=0 {EMPTY} \
             events=r cmd=replconf user={} redir=-1 resp=2",
            replica.id.0, replica.address, replica.local_address, replica.lag_s, replica.user,
        )
    }

    fn master_line(&self, master: &MasterFacts) -> String {
        format!(
            "id={} addr={}:{} laddr= fd=-1 name= age=0 idle={} flags=M db=0 {EMPTY} events=r \
             cmd=NULL user=default redir=-1 resp=2",
            self.master_link.0,
            master.host,
            master.port,
            master.last_io_s.max(0),
        )
    }

    pub(super) fn client_kill(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        let is_by_address = args.len() == 3;
        let doomed = match is_by_address {
            true => Doomed {
                address: Some(args.at(2)),
                skips_me: false,
                ..Doomed::all_others()
            },
            false => Doomed::parse(args, &self.users)?,
        };
        let me = self.clients[key].id;
        let mut found = self.roll();
        found.retain(|seen| doomed.takes(seen) && !(doomed.skips_me && seen.id == me));
        let reply = &mut self.clients[key].reply;
        match (is_by_address, found.len()) {
            (true, 0) => return Err(Failure::words("ERR No such client")),
            (true, _) => reply.ok(),
            (false, killed) => reply.count(killed),
        }
        // They ask anew by themselves.
        let mut replicas = Vec::new();
        for seen in found {
            match seen.place {
                Place::Client(of) if of == key => {
                    self.clients[of].closing = Some(CloseReason::Killed);
                }
                Place::Client(of) => self.kill(of),
                Place::Replica(_) => replicas.push(seen.id),
                Place::Master => self.orders.push(Order::CutMaster),
            }
        }
        if !replicas.is_empty() {
            self.orders.push(Order::CutReplicas(replicas));
        }
        Ok(())
    }
}

/// What is told of buffers that the driver has.
const EMPTY: &str = "sub=0 psub=0 ssub=0 multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 \
                     rbp=0 obl=0 oll=0 omem=0 tot-mem=0";

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
                let id = id.filter(|id| *id > 0).ok_or(too_small)?;
                doomed.id = Some(ClientId(id));
            } else if args.is(at, "TYPE") {
                doomed.kind = Some(ClientType::parse(value)?);
            } else if args.is(at, "ADDR") {
                doomed.address = Some(value);
            } else if args.is(at, "LADDR") {
                doomed.local_address = Some(value);
            } else if args.is(at, "USER") {
                let unknown = || Failure::quoting("ERR No such user '", value, "'");
                users.find(value).ok_or_else(unknown)?;
                doomed.user = Some(value);
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

    fn takes(&self, seen: &Seen) -> bool {
        let is_it = |wanted: Option<&[u8]>, has: &[u8]| wanted.is_none_or(|wanted| wanted == has);
        self.id.is_none_or(|id| seen.id == id)
            && is_it(self.address, seen.address.as_bytes())
            && is_it(self.local_address, seen.local_address.as_bytes())
            && self.kind.is_none_or(|kind| seen.kind == kind)
            && is_it(self.user, &seen.user)
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
mod tests {
    use crate::store::session::world::World;
    use crate::store::session::{ClientId, MasterFacts, Order, ReplicaFacts};

    #[test]
    fn replicas_are_among_the_clients() {
        let mut world = World::new();
        let client = world.client();
        world.shard.facts().replicas = vec![ReplicaFacts {
            id: ClientId(7),
            address: "10.0.0.2:5".to_owned(),
            user: "default".to_owned(),
            ..ReplicaFacts::default()
        }];
        let told = world.say(client, "CLIENT LIST TYPE replica");
        assert!(told.starts_with("id=7 addr=10.0.0.2:5"), "{told}");
        assert_eq!(world.say(client, "CLIENT LIST").lines().count(), 2);
        assert!(world.say(client, "CLIENT LIST ID 7").contains("flags=S"));
        assert_eq!(world.say(client, "CLIENT KILL ADDR 10.0.0.2:5"), ":1");
        assert_eq!(world.say(client, "CLIENT KILL TYPE replica"), ":1");
        assert_eq!(world.say(client, "CLIENT KILL TYPE master"), ":0");
        let cut = Order::CutReplicas(vec![ClientId(7)]);
        assert_eq!(world.shard.take_orders(), [cut.clone(), cut]);
    }

    #[test]
    fn the_master_is_among_the_clients_when_it_is_followed() {
        let mut world = World::new();
        let client = world.client();
        world.say(client, "REPLICAOF 10.0.0.1 6379");
        assert_eq!(world.say(client, "CLIENT LIST TYPE master"), "");
        world.shard.facts().master = Some(MasterFacts {
            host: "10.0.0.1".to_owned(),
            port: 6379,
            is_up: true,
            ..MasterFacts::default()
        });
        let told = world.say(client, "CLIENT LIST TYPE master");
        assert!(
            told.contains("addr=10.0.0.1:6379") && told.contains("flags=M"),
            "{told}"
        );
        world.shard.take_orders();
        assert_eq!(world.say(client, "CLIENT KILL TYPE master"), ":1");
        assert_eq!(world.shard.take_orders(), [Order::CutMaster]);
    }
}
