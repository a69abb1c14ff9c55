//! REPLICAOF: who decides what is in the keyspace.
//!
//! ```text
//!          REPLICAOF host port: who waits is sent away, writes are refused
//! Master ---------------------------------------------------------------> Replica
//!    ^---------------------------------------------------------------------'
//!          REPLICAOF NO ONE: a history of its own begins before the next effect
//! ```
//! Invariant: what clients do on a replica is not told to the log; its bytes are the
//! master's.

use crate::store::commands::table::{Command, Keys, Run, Verb};
use crate::store::commands::{Args, Failure, Unit};
use crate::store::keyspace::Expiry;
use crate::store::kinds::build::BuildLimits;
use crate::store::kinds::hash::HashLimits;
use crate::store::kinds::set::SetLimits;
use crate::store::kinds::zset;

use super::client::{ClientId, CloseReason};
use super::shard::{MasterAddress, Order, Role, Shard};

/// The family.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "replicaof",
        arity: 3,
        flags: "admin noscript stale no_async_loading",
        keys: Keys::None,
        categories: "admin slow dangerous",
        run: Run::Session(Verb::Replicaof),
    },
    Command {
        name: "slaveof",
        arity: 3,
        flags: "admin noscript stale no_async_loading",
        keys: Keys::None,
        categories: "admin slow dangerous",
        run: Run::Session(Verb::Replicaof),
    },
];

/// A replica that may not say what it last knew.
pub(super) const STALE: Failure = Failure::words(
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
);

impl Shard {
    pub(super) fn replicaof(
        &mut self,
        key: usize,
        args: Args<'_>,
        unit: &mut Unit,
    ) -> Result<(), Failure> {
        if args.is(1, "NO") && args.is(2, "ONE") {
            if self.role != Role::Master {
                self.become_master();
                tracing::info!("a client made this shard a master");
            }
            self.clients[key].reply.ok();
            return Ok(());
        }
        let port = args
            .integer(2)
            .ok()
            .and_then(|port| u16::try_from(port).ok());
        let port = port.ok_or(Failure::words("ERR Invalid master port"))?;
        let host = String::from_utf8_lossy(args.at(1)).into_owned();
        let address = MasterAddress { host, port };
        let is_same = self.role != Role::Master
            && self.facts.master.as_ref().is_some_and(|master| {
                master.host.eq_ignore_ascii_case(&address.host) && master.port == port
            });
        if is_same {
            let reply = &mut self.clients[key].reply;
            reply.status("OK Already connected to specified master");
            return Ok(());
        }
        // What the transaction did before it is a master's still.
        self.effects.push(std::mem::take(unit));
        self.become_replica(&address);
        self.orders.push(Order::ReplicaOf(address));
        self.clients[key].reply.ok();
        Ok(())
    }

    fn become_master(&mut self) {
        self.role = Role::Master;
        self.keyspace.set_expiry(Expiry::Remove);
        self.effects.set_muted(false);
        self.effects.forget_selected();
        self.facts.master = None;
        self.parameters.set("replicaof", String::new());
        self.orders
            .retain(|order| !matches!(order, Order::ReplicaOf(_)));
        self.is_promoted = true;
    }

    /// Writes are a master's from now on. The driver follows it.
    pub fn become_replica(&mut self, of: &MasterAddress) {
        if self.role == Role::Master {
            self.send_waiting_away();
        }
        self.role = Role::Replica;
        self.master_link = ClientId(self.next_client);
        self.next_client += 1;
        self.keyspace.set_expiry(Expiry::Hide);
        self.effects.set_muted(true);
        let MasterAddress { host, port } = of;
        self.parameters.set("replicaof", format!("{host} {port}"));
        self.facts.master = Some(super::MasterFacts {
            host: host.clone(),
            port: *port,
            state: "connect",
            last_io_s: -1,
            ..super::MasterFacts::default()
        });
        self.orders
            .retain(|order| !matches!(order, Order::ReplicaOf(_)));
    }

    /// Whether a history of its own is to begin before the next effects are kept. The
    /// driver says when it has.
    pub fn is_promoted(&self) -> bool {
        self.is_promoted
    }

    /// It has begun.
    pub fn promotion_done(&mut self) {
        self.is_promoted = false;
    }

    fn send_waiting_away(&mut self) {
        let waiting = self
            .clients
            .iter()
            .filter(|(_, client)| client.waiting.is_some());
        let keys: Vec<usize> = waiting.map(|(key, _)| key).collect();
        for key in keys {
            self.stop_waiting(key);
            let words = "UNBLOCKED force unblock from blocking operation, instance state \
                         changed (master -> replica?)";
            self.refuse(key, &Failure::words(words));
            self.clients[key].closing = Some(CloseReason::Killed);
            self.mark(key);
        }
    }

    /// Whether a command may be answered from data that the master may have changed since.
    pub(super) fn admit_stale(&self, command: &Command) -> Result<(), Failure> {
        match self.is_stale() && !command.has_flag("stale") {
            true => Err(STALE),
            false => Ok(()),
        }
    }

    /// Whether its master is lost, and who asks is to be told so.
    pub(super) fn is_stale(&self) -> bool {
        let is_down = self.role != Role::Master
            && self
                .facts
                .master
                .as_ref()
                .is_none_or(|master| !master.is_up);
        is_down && self.parameters.value("replica-serve-stale-data") == "no"
    }

    /// What collections from a master look like here.
    pub fn build_limits(&self) -> BuildLimits {
        BuildLimits {
            hash: HashLimits {
                entries_max: self.settings.hash_max_listpack_entries,
                bytes_max: self.settings.hash_max_listpack_value,
            },
            set: SetLimits {
                intset_entries_max: self.settings.set_max_intset_entries,
            },
            zset: zset::Limits {
                members: self.settings.zset_max_listpack_entries,
                member_bytes: self.settings.zset_max_listpack_value,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::store::session::world::World;
    use crate::store::session::{MasterAddress, Order};

    const TO: &str = "REPLICAOF 10.0.0.1 6379";

    #[test]
    fn a_replica_refuses_writes_and_tells_its_log_nothing() {
        let mut world = World::new();
        let (client, other) = (world.client(), world.client());
        world.say(client, "SET a 1");
        world.shard.effects().clear();
        assert_eq!(world.say(other, "BLPOP list 0"), "");
        assert_eq!(world.say(client, TO), "OK");
        assert!(world.owed(other).contains("UNBLOCKED"));
        let refused = "READONLY You can't write against a read only replica.";
        assert!(world.say(client, "SET a 2").contains(refused));
        let told = world.say(client, "CONFIG SET replica-read-only no");
        assert!(told.contains("what clients write would be lost"), "{told}");
        assert!(world.say(client, "SET a 3").contains(refused));
        assert!(world.shard.effects().bytes().is_empty());
        let orders = world.shard.take_orders();
        let host = "10.0.0.1".to_owned();
        let address = MasterAddress { host, port: 6379 };
        assert_eq!(orders.first(), Some(&Order::ReplicaOf(address)));
        assert!(!world.shard.is_promoted());
        assert_eq!(world.say(client, "REPLICAOF no one"), "OK");
        assert!(world.shard.is_promoted());
        assert_eq!(world.say(client, "SET a 4"), "OK");
        assert!(
            world
                .shard
                .effects()
                .bytes()
                .starts_with(b"*2\r\n$6\r\nSELECT")
        );
    }

    #[test]
    fn a_transaction_with_writes_is_refused_whole() {
        let mut world = World::new();
        let (client, other) = (world.client(), world.client());
        world.say(client, "MULTI");
        world.say(client, "SET a 1");
        world.say(other, TO);
        let told = world.say(client, "EXEC");
        let words = "EXECABORT Transaction discarded because of: READONLY";
        assert!(told.contains(words), "{told}");
        assert!(world.say(client, "EXEC").contains("without MULTI"));
    }

    #[test]
    fn sentinel_s_transaction_is_run() {
        let mut world = World::new();
        let client = world.client();
        world.say(client, TO);
        world.say(client, "MULTI");
        assert_eq!(world.say(client, "SLAVEOF NO ONE"), "QUEUED");
        assert_eq!(world.say(client, "CONFIG REWRITE"), "QUEUED");
        assert_eq!(world.say(client, "EXEC"), "");
        assert!(world.shard.is_promoted());
        let orders = world.shard.take_orders();
        let [Order::KeepParameters { client: key, id }] = orders[..] else {
            panic!("{orders:?}");
        };
        world.shard.rewritten(key, id, Ok(()));
        assert_eq!(world.owed(client), "[OK OK]");
    }
}
