//! Replicas, as clients see them and as they ask to become some: SYNC, PSYNC, REPLCONF,
//! ROLE, WAIT, and how many of them a write needs.
//!
//! ```text
//! client --REPLCONF..--> Announced --PSYNC--> Order::Follow: the driver takes it from here
//! client --write, WAIT--> waits for acks at the offset of its write <-- Facts::replicas
//! ```
//! Who follows, and how far, is in [`super::Facts`]; the driver keeps it true.

use crate::store::commands::table::{Command, Keys, Run, Verb};
use crate::store::commands::{Args, Failure};

use super::client::ClientId;
use super::info::ReplicaFacts;
use super::shard::{Order, Role, Shard};

/// Longest address that a replica may announce.
const ADDRESS_BYTES_MAX: usize = 255;

const fn verb(name: &'static str, arity: i8, flags: &'static str, verb: Verb) -> Command {
    Command {
        name,
        arity,
        flags,
        keys: Keys::None,
        categories: "",
        run: Run::Session(verb),
    }
}

/// The family.
pub const COMMANDS: &[Command] = &[
    Command {
        categories: "admin dangerous",
        ..verb(
            "psync",
            -3,
            "admin noscript no-async-loading no-multi",
            Verb::Psync,
        )
    },
    Command {
        categories: "admin dangerous",
        ..verb(
            "replconf",
            -1,
            "admin noscript loading stale allow-busy",
            Verb::Replconf,
        )
    },
    Command {
        categories: "admin dangerous",
        ..verb("role", 1, "noscript loading stale fast", Verb::Role)
    },
    Command {
        categories: "admin dangerous",
        ..verb(
            "sync",
            1,
            "admin noscript no-async-loading no-multi",
            Verb::Sync,
        )
    },
    Command {
        categories: "connection",
        ..verb("wait", 3, "noscript", Verb::Wait)
    },
];

/// What a replica says of itself before it asks for the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// Where it listens; 0 if it did not say.
    pub port: u16,
    /// Where it can be reached, if not where it comes from.
    pub ip: Option<String>,
    /// It takes a snapshot whose length is not told before.
    pub takes_eof: bool,
    /// It takes on another id with +CONTINUE.
    pub knows_psync2: bool,
    /// It wants the snapshot and nothing behind it.
    pub is_rdb_only: bool,
    /// It wants no keys in the snapshot.
    pub is_without_keys: bool,
    /// It wants in the snapshot what CONFIG REWRITE would keep: a backup.
    pub takes_kept_texts: bool,
}

/// What a replica asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A snapshot and the stream, and no word of offsets.
    Sync,
    /// The stream from where it was, or a snapshot before.
    Psync {
        /// Of which history; `?` for none.
        replid: Box<[u8]>,
        /// Of the byte that it wants next, counted from 1.
        offset: i64,
    },
}

/// A client that becomes a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowRequest {
    /// Its key.
    pub client: usize,
    /// Its number, which it keeps.
    pub id: ClientId,
    /// Where it connected from.
    pub address: String,
    /// Where it connected to.
    pub local_address: String,
    /// When it connected, Unix ms.
    pub connected_at_ms: u64,
    /// Whose rights it has.
    pub user: String,
    /// What it asks for.
    pub wish: Wish,
    /// What it said before.
    pub announced: Announced,
}

/// Clients that wait for replicas, and how many replicas writes need.
#[derive(Debug, Default)]
pub(super) struct ReplicaAcks {
    waiting: Vec<WaitsForAcks>,
    /// Replicas are to be asked how far they are.
    is_asked: bool,
    /// `min-replicas-to-write`.
    wanted: usize,
    /// `min-replicas-max-lag`, in seconds.
    lag_s_max: u64,
}

#[derive(Clone, Copy, Debug)]
struct WaitsForAcks {
    client: usize,
    offset: u64,
    replicas: usize,
}

impl ReplicaAcks {
    pub(super) fn forget(&mut self, client: usize) {
        self.waiting.retain(|waits| waits.client != client);
    }
}

impl Shard {
    pub(super) fn sync(&mut self, key: usize) -> Result<(), Failure> {
        self.follow(key, Wish::Sync)
    }

    pub(super) fn psync(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        let wish = Wish::Psync {
            replid: args.at(1).into(),
            offset: args.integer(2)?,
        };
        self.follow(key, wish)
    }

    fn follow(&mut self, key: usize, wish: Wish) -> Result<(), Failure> {
        let is_linked = self
            .facts
            .master
            .as_ref()
            .is_some_and(|master| master.is_up);
        if self.role != Role::Master && !is_linked {
            return Err(Failure::words(
                "NOMASTERLINK Can't SYNC while not connected with my master",
            ));
        }
        let client = &mut self.clients[key];
        if client.announced.is_without_keys && !client.announced.takes_eof {
            return Err(Failure::words(
                "ERR Filtered replica requires EOF capability",
            ));
        }
        client.is_handed_over = true;
        self.orders.push(Order::Follow(FollowRequest {
            client: key,
            id: client.id,
            address: client.address.clone(),
            local_address: client.local_address.clone(),
            connected_at_ms: client.connected_at_ms,
            user: String::from_utf8_lossy(self.users.name(client.user)).into_owned(),
            wish,
            announced: client.announced.clone(),
        }));
        Ok(())
    }

    pub(super) fn replconf(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        if args.len().is_multiple_of(2) {
            return Err(Failure::SYNTAX);
        }
        for at in (1..args.len()).step_by(2) {
            let is = |word| args.is(at, word);
            // Neither has an answer, and from who is no replica no meaning.
            if is("ack") || is("getack") {
                return Ok(());
            }
            let announced = &mut self.clients[key].announced;
            if is("listening-port") {
                let port = args.integer(at + 1)?;
                announced.port = u16::try_from(port).unwrap_or(0);
            } else if is("ip-address") {
                announced.ip = Some(announced_ip(args.at(at + 1))?);
            } else if is("capa") {
                announced.takes_eof |= args.is(at + 1, "eof");
                announced.knows_psync2 |= args.is(at + 1, "psync2");
            } else if is("rdb-only") {
                announced.is_rdb_only = match args.integer(at + 1)? {
                    0 => false,
                    1 => true,
                    _ => {
                        let words = "ERR value is out of range, value must between 0 and 1";
                        return Err(Failure::words(words));
                    }
                };
            } else if is("keyferry-kept") {
                // There are passwords in it.
                self.admit_by_rights(key, "config|get", args)?;
                self.admit_by_rights(key, "acl|list", args)?;
                self.clients[key].announced.takes_kept_texts = true;
            } else if is("rdb-filter-only") {
                announced.is_without_keys = is_filter_known(args.at(at + 1))?;
            } else if !is("version") {
                let option = String::from_utf8_lossy(args.at(at)).into_owned();
                return Err(Failure::text(format!(
                    "ERR Unrecognized REPLCONF option: {option}"
                )));
            }
        }
        self.clients[key].reply.ok();
        Ok(())
    }

    pub(super) fn tell_role(&mut self, key: usize) {
        let (facts, reply) = (&self.facts, &mut self.clients[key].reply);
        let offset = i64::try_from(facts.repl_offset).unwrap_or(i64::MAX);
        match (self.role, &facts.master) {
            (Role::Replica, Some(master)) => {
                reply.array(5);
                reply.bulk(b"slave");
                reply.bulk(master.host.as_bytes());
                reply.integer(master.port.into());
                reply.bulk(master.state.as_bytes());
                reply.integer(if master.is_up { offset } else { -1 });
            }
            _ => {
                reply.array(3);
                reply.bulk(b"master");
                reply.integer(offset);
                let online: Vec<_> = facts.replicas.iter().filter(|of| is_online(of)).collect();
                reply.array(online.len());
                for replica in online {
                    reply.array(3);
                    reply.bulk(replica.ip.as_bytes());
                    reply.bulk(replica.port.to_string().as_bytes());
                    reply.bulk(replica.offset.to_string().as_bytes());
                }
            }
        }
    }

    pub(super) fn wait_for_replicas(
        &mut self,
        key: usize,
        args: Args<'_>,
        may_wait: bool,
    ) -> Result<(), Failure> {
        if self.role != Role::Master {
            return Err(Failure::words(
                "ERR WAIT cannot be used with replica instances. Please also note that since \
                 Redis 4.0 if a replica is configured to be writable (which is not the default) \
                 writes to replicas are just local and are not propagated.",
            ));
        }
        let replicas = args.integer(1)?;
        let until_ms = wait_ends_at(args, self.keyspace.now_ms())?;
        let offset = self.clients[key].wrote_to;
        let acked = self.replicas_at(offset);
        let replicas = usize::try_from(replicas).unwrap_or(0);
        if acked >= replicas || !may_wait {
            self.clients[key].reply.count(acked);
            return Ok(());
        }
        self.acks.is_asked = true;
        self.acks.waiting.push(WaitsForAcks {
            client: key,
            offset,
            replicas,
        });
        self.wait_for_acks(key, args, offset, until_ms);
        Ok(())
    }

    /// How many replicas have acknowledged the stream up to `offset`.
    pub(super) fn replicas_at(&self, offset: u64) -> usize {
        let has_it = |of: &&ReplicaFacts| is_online(of) && of.offset >= offset;
        self.facts.replicas.iter().filter(has_it).count()
    }

    /// Replicas acknowledged more: who waited for it is told.
    pub fn acks_came(&mut self) {
        let waiting = self.acks.waiting.clone();
        for waits in waiting {
            if self.replicas_at(waits.offset) >= waits.replicas {
                self.end_wait(waits.client);
            }
        }
    }

    /// Before the turn's effects are taken: replicas are asked how far they are, if somebody
    /// began to wait for them.
    pub fn ask_for_acks(&mut self) {
        let is_asked = std::mem::take(&mut self.acks.is_asked);
        if is_asked && !self.facts.replicas.is_empty() {
            self.effects.push_plain(&[b"REPLCONF", b"GETACK", b"*"]);
        }
    }

    /// Tells replicas that they are not forgotten.
    pub fn ping_replicas(&mut self) {
        if self.role == Role::Master && !self.facts.replicas.is_empty() {
            self.effects.push_plain(&[b"PING"]);
        }
    }

    /// Seconds between two of these.
    pub fn ping_period_s(&self) -> u64 {
        u64::try_from(self.parameters.number("repl-ping-replica-period")).unwrap_or(1)
    }

    /// A client's command had effects.
    pub(super) fn note_write(&mut self, key: usize) {
        if let Some(client) = self.clients.get_mut(key) {
            client.wrote_to = self.facts.repl_offset + self.effects.bytes().len() as u64;
        }
    }

    pub(super) fn note_replica_limits(&mut self) {
        let number = |name| u64::try_from(self.parameters.number(name)).unwrap_or(0);
        self.acks.lag_s_max = number("min-replicas-max-lag");
        self.acks.wanted = usize::try_from(number("min-replicas-to-write")).unwrap_or(usize::MAX);
    }

    /// A write needs so many replicas that are near.
    pub(super) fn admit_by_replicas(&self) -> Result<(), Failure> {
        let ReplicaAcks {
            wanted, lag_s_max, ..
        } = self.acks;
        if wanted == 0 || lag_s_max == 0 || self.role != Role::Master {
            return Ok(());
        }
        let is_near = |of: &&ReplicaFacts| is_online(of) && of.lag_s <= lag_s_max;
        match self.facts.replicas.iter().filter(is_near).count() >= wanted {
            true => Ok(()),
            false => Err(Failure::words(
                "NOREPLICAS Not enough good replicas to write.",
            )),
        }
    }
}

fn is_online(replica: &ReplicaFacts) -> bool {
    replica.state == "online"
}

fn announced_ip(ip: &[u8]) -> Result<String, Failure> {
    if ip.len() > ADDRESS_BYTES_MAX {
        return Err(Failure::text(format!(
            "ERR REPLCONF ip-address provided by replica instance is too long: {} bytes",
            ip.len()
        )));
    }
    // It is told in a line of INFO.
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b',';
    match ip.iter().all(is_plain) {
        true => Ok(String::from_utf8_lossy(ip).into_owned()),
        false => Err(Failure::words(
            "ERR REPLCONF ip-address provided by replica instance is no address",
        )),
    }
}

/// Names of what a snapshot may be restricted to. We have nothing but keys, which they all
/// leave out.
fn is_filter_known(names: &[u8]) -> Result<bool, Failure> {
    for name in names
        .split(|byte| *byte == b' ')
        .filter(|name| !name.is_empty())
    {
        if !name.eq_ignore_ascii_case(b"functions") {
            let name = String::from_utf8_lossy(name).into_owned();
            return Err(Failure::text(format!(
                "ERR Unsupported rdb-filter-only option: {name}"
            )));
        }
    }
    Ok(true)
}

/// When WAIT ends; never, if its timeout is 0.
fn wait_ends_at(args: Args<'_>, now_ms: u64) -> Result<Option<u64>, Failure> {
    let words = "ERR timeout is not an integer or out of range";
    let timeout = args.integer(2).map_err(|_| Failure::words(words))?;
    let timeout = u64::try_from(timeout).map_err(|_| Failure::words("ERR timeout is negative"))?;
    Ok((timeout > 0).then(|| now_ms.saturating_add(timeout)))
}

#[cfg(test)]
mod tests {
    use super::super::world::World;
    use super::*;

    fn replica(state: &'static str, offset: u64, lag_s: u64) -> ReplicaFacts {
        ReplicaFacts {
            ip: "10.0.0.1".into(),
            port: 6380,
            state,
            offset,
            lag_s,
            ..ReplicaFacts::default()
        }
    }

    #[test]
    fn wait_ends_when_enough_have_the_clients_own_write() {
        let mut world = World::new();
        let (one, other) = (world.client(), world.client());
        assert_eq!(world.say(one, "WAIT 0 0"), ":0");
        world.shard.facts().repl_offset = 100;
        world.shard.facts().replicas = vec![replica("online", 100, 0), replica("send_bulk", 0, 0)];
        assert_eq!(
            world.say(one, "WAIT 1 0"),
            ":1",
            "it wrote nothing: all have that"
        );
        world.say(one, "SET k v");
        let end = 100 + world.shard.effects().bytes().len() as u64;
        assert_eq!(world.say(one, "WAIT 1 0"), "");
        assert_eq!(world.say(other, "WAIT 1 0"), ":1");
        world.shard.ask_for_acks();
        // The text of effects has no word that begins with an asterisk.
        assert_eq!(world.effects(), "SELECT 0 SET k v REPLCONF GETACK");
        world.shard.ask_for_acks();
        assert_eq!(world.effects(), "", "once for all who wait");
        world.shard.facts().replicas[0].offset = end - 1;
        world.shard.acks_came();
        assert_eq!(world.owed(one), "");
        world.shard.facts().replicas[0].offset = end;
        world.shard.acks_came();
        assert_eq!(world.owed(one), ":1");
        assert_eq!(world.say(one, "PING"), "PONG");
    }

    #[test]
    fn wait_tells_how_many_when_its_time_is_over_or_its_client_goes() {
        let mut world = World::new();
        let (one, gone) = (world.client(), world.client());
        world.say(one, "SET k v");
        assert_eq!(world.say(one, "WAIT 2 50"), "");
        assert_eq!(world.say(gone, "WAIT 2 50"), "");
        world.shard.client_gone(gone);
        world.shard.facts().replicas = vec![replica("online", 1_000, 0)];
        world.shard.acks_came();
        assert_eq!(world.owed(one), "");
        let now_ms = world.shard.keyspace().now_ms();
        world.shard.set_now_ms(now_ms + 50);
        assert_eq!(world.owed(one), ":1");
        world.say(one, "MULTI");
        world.say(one, "WAIT 9 0");
        assert_eq!(world.say(one, "EXEC"), "[:1]");
    }

    #[test]
    fn writes_are_refused_without_replicas_that_are_near() {
        let mut world = World::new();
        let client = world.client();
        world.say(
            client,
            "CONFIG SET min-replicas-to-write 1 min-replicas-max-lag 3",
        );
        for (replicas, reply) in [
            (vec![], "-NOREPLICAS Not enough good replicas to write."),
            (
                vec![replica("send_bulk", 9, 0)],
                "-NOREPLICAS Not enough good replicas to write.",
            ),
            (
                vec![replica("online", 9, 4)],
                "-NOREPLICAS Not enough good replicas to write.",
            ),
            (vec![replica("online", 0, 3)], "OK"),
        ] {
            world.shard.facts().replicas = replicas;
            assert_eq!(world.say(client, "SET k v"), reply);
            assert!(!world.say(client, "GET k").starts_with('-'), "reads go on");
        }
    }

    #[test]
    fn who_asks_for_the_stream_is_handed_over_with_what_it_said() {
        let mut world = World::new();
        let client = world.client();
        world.say(
            client,
            "REPLCONF listening-port 7000 ip-address 10.0.0.9 capa eof",
        );
        assert_eq!(world.say(client, "PSYNC ? -1"), "");
        assert_eq!(
            world.say(client, "PING"),
            "",
            "nothing of it is run here any more"
        );
        let orders = world.shard.take_orders();
        let [Order::Follow(request)] = &orders[..] else {
            panic!("{orders:?}");
        };
        assert_eq!(request.client, client);
        let wish = Wish::Psync {
            replid: (*b"?").into(),
            offset: -1,
        };
        assert_eq!(request.wish, wish);
        let announced = Announced {
            port: 7000,
            ip: Some("10.0.0.9".into()),
            takes_eof: true,
            ..Announced::default()
        };
        assert_eq!(request.announced, announced);
        let other = world.client();
        assert!(
            world
                .say(other, "REPLCONF ip-address 1,state=online")
                .starts_with('-')
        );
        world.say(other, "REPLCONF rdb-filter-only functions");
        let refused = "-ERR Filtered replica requires EOF capability";
        assert_eq!(world.say(other, "PSYNC ? -1"), refused);
    }
}
