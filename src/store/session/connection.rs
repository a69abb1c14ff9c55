//! Commands about the connection itself, and who runs which verb.

use crate::store::commands::table::{Command, Keys, Run, Verb};
use crate::store::commands::{Args, Failure, Unit};

use super::channels::Kind;
use super::client::CloseReason;
use super::shard::{Order, Shard};

const fn verb(name: &'static str, arity: i8, flags: &'static str, verb: Verb) -> Command {
    Command {
        name,
        arity,
        flags,
        keys: Keys::None,
        categories: "connection",
        run: Run::Session(verb),
    }
}

/// The family.
pub const COMMANDS: &[Command] = &[
    verb(
        "auth",
        -2,
        "noscript loading stale fast no-auth",
        Verb::Auth,
    ),
    verb("client", -2, "", Verb::Client),
    verb("command", -1, "loading stale", Verb::Command),
    verb("config", -2, "admin noscript loading stale", Verb::Config),
    verb("discard", 1, "noscript loading stale fast", Verb::Discard),
    verb("echo", 2, "loading stale fast", Verb::Echo),
    verb("exec", 1, "noscript loading stale", Verb::Exec),
    verb(
        "hello",
        -1,
        "noscript loading stale fast no-auth",
        Verb::Hello,
    ),
    verb("info", -1, "loading stale", Verb::Info),
    verb("lastsave", 1, "loading stale fast", Verb::Lastsave),
    verb("latency", -2, "", Verb::Latency),
    verb("memory", -2, "", Verb::Memory),
    verb("monitor", 1, "admin noscript loading stale", Verb::Monitor),
    verb("multi", 1, "noscript loading stale fast", Verb::Multi),
    verb("ping", -1, "fast pubsub-mode", Verb::Ping),
    verb(
        "psubscribe",
        -2,
        "pubsub noscript loading stale pubsub-mode",
        Verb::Psubscribe,
    ),
    verb("publish", 3, "pubsub loading stale fast", Verb::Publish),
    verb("pubsub", -2, "pubsub loading stale", Verb::Pubsub),
    verb(
        "punsubscribe",
        -1,
        "pubsub noscript loading stale pubsub-mode",
        Verb::Punsubscribe,
    ),
    verb(
        "quit",
        -1,
        "noscript loading stale fast no-auth pubsub-mode",
        Verb::Quit,
    ),
    verb(
        "reset",
        1,
        "noscript loading stale fast no-auth pubsub-mode",
        Verb::Reset,
    ),
    verb("select", 2, "loading stale fast", Verb::Select),
    verb(
        "shutdown",
        -1,
        "admin noscript loading stale no-multi",
        Verb::Shutdown,
    ),
    verb("slowlog", -2, "", Verb::Slowlog),
    verb("spublish", 3, "pubsub loading stale fast", Verb::Spublish),
    verb(
        "ssubscribe",
        -2,
        "pubsub noscript loading stale pubsub-mode",
        Verb::Ssubscribe,
    ),
    verb(
        "subscribe",
        -2,
        "pubsub noscript loading stale pubsub-mode",
        Verb::Subscribe,
    ),
    verb(
        "sunsubscribe",
        -1,
        "pubsub noscript loading stale pubsub-mode",
        Verb::Sunsubscribe,
    ),
    verb("time", 1, "loading stale fast", Verb::Time),
    verb(
        "unsubscribe",
        -1,
        "pubsub noscript loading stale pubsub-mode",
        Verb::Unsubscribe,
    ),
    verb("unwatch", 1, "noscript loading stale fast", Verb::Unwatch),
    Command {
        name: "watch",
        arity: -2,
        flags: "noscript loading stale fast",
        keys: Keys::ALL,
        categories: "transaction",
        run: Run::Session(Verb::Watch),
    },
];

impl Shard {
    pub(super) fn run_verb(
        &mut self,
        key: usize,
        verb: Verb,
        args: Args<'_>,
        unit: &mut Unit,
        may_wait: bool,
    ) -> Result<(), Failure> {
        match verb {
            Verb::Acl => self.acl(key, args)?,
            Verb::Auth => self.auth(key, args)?,
            Verb::Client => self.client_command(key, args)?,
            Verb::Command => self.command_command(key, args)?,
            Verb::Config => self.config(key, args)?,
            Verb::Discard => self.discard(key)?,
            Verb::Echo => self.clients[key].reply.bulk(args.at(1)),
            Verb::Eval | Verb::Evalsha | Verb::Fcall | Verb::Script | Verb::Function => {
                self.run_script_verb(key, verb, args, unit)?;
            }
            Verb::Exec => self.exec(key, unit)?,
            Verb::Hello => self.hello(key, args)?,
            Verb::Info => self.info(key, args)?,
            Verb::Lastsave => self.last_save(key),
            Verb::Latency => self.latency(key, args)?,
            Verb::Memory => self.memory(key, args)?,
            Verb::Migrate => self.migrate(key, args, unit)?,
            Verb::Monitor => self.monitor(key, may_wait)?,
            Verb::Multi => self.multi(key)?,
            Verb::Ping => self.ping(key, args)?,
            Verb::Psubscribe => self.subscribe(key, Kind::Pattern, args),
            Verb::Psync => self.psync(key, args)?,
            Verb::Publish => self.publish_command(key, args, false, unit),
            Verb::Pubsub => self.pubsub(key, args)?,
            Verb::Punsubscribe => self.unsubscribe(key, Kind::Pattern, args),
            Verb::Quit => {
                self.clients[key].reply.ok();
                self.clients[key].closing = Some(CloseReason::Quit);
            }
            Verb::Replicaof => self.replicaof(key, args, unit)?,
            Verb::Replconf => self.replconf(key, args)?,
            Verb::Reset => self.reset(key),
            Verb::Role => self.tell_role(key),
            Verb::Select => {
                let db = args.database(1)?;
                self.clients[key].db = db;
                self.clients[key].reply.ok();
            }
            Verb::Shutdown => self.shutdown(args)?,
            Verb::Slowlog => self.slowlog(key, args)?,
            Verb::Spublish => self.publish_command(key, args, true, unit),
            Verb::Ssubscribe => self.subscribe(key, Kind::ShardChannel, args),
            Verb::Subscribe => self.subscribe(key, Kind::Channel, args),
            Verb::Sync => self.sync(key)?,
            Verb::Sunsubscribe => self.unsubscribe(key, Kind::ShardChannel, args),
            Verb::Time => self.time(key),
            Verb::Unsubscribe => self.unsubscribe(key, Kind::Channel, args),
            Verb::Unwatch => {
                self.unwatch(key);
                self.clients[key].reply.ok();
            }
            Verb::Wait => self.wait_for_replicas(key, args, may_wait)?,
            Verb::Watch => self.watch(key, args)?,
        }
        Ok(())
    }

    fn ping(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        if args.len() > 2 {
            return Err(Failure::arity("ping"));
        }
        let client = &mut self.clients[key];
        let reply_as_message = client.is_subscriber() && !client.reply.is_resp3();
        match (reply_as_message, args.get(1)) {
            (true, text) => {
                client.reply.array(2);
                client.reply.bulk(b"pong");
                client.reply.bulk(text.unwrap_or(b""));
            }
            (false, Some(text)) => client.reply.bulk(text),
            (false, None) => client.reply.status("PONG"),
        }
        Ok(())
    }

    fn hello(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        let version = match args.get(1) {
            None => None,
            Some(_) => {
                let version = args.integer(1).map_err(|_| {
                    Failure::words("ERR Protocol version is not an integer or out of range")
                })?;
                if !(2..=3).contains(&version) {
                    return Err(Failure::words("NOPROTO unsupported protocol version"));
                }
                Some(version)
            }
        };
        let mut name = None;
        let mut at = 2;
        while at < args.len() {
            if args.is(at, "AUTH") && at + 2 < args.len() {
                self.log_in(key, args, at + 1)?;
                at += 3;
            } else if args.is(at, "SETNAME") && at + 1 < args.len() {
                name = Some(args.at(at + 1));
                at += 2;
            } else {
                let before = "ERR Syntax error in HELLO option '";
                return Err(Failure::quoting(before, args.at(at), "'"));
            }
        }
        if self.must_log_in(key) {
            return Err(Failure::words(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise \
                 the HELLO AUTH <user> <pass> option can be used to authenticate the client \
                 and select the RESP protocol version at the same time",
            ));
        }
        if let Some(name) = name {
            self.clients[key].name = client_name(name)?;
        }
        let role = match self.role {
            super::Role::Master => "master",
            super::Role::Replica => "replica",
        };
        let client = &mut self.clients[key];
        if let Some(version) = version {
            client.reply.set_resp3(version == 3);
        }
        let is_resp3 = client.reply.is_resp3();
        let id = i64::try_from(client.id.0).unwrap_or(i64::MAX);
        let reply = &mut client.reply;
        reply.map(7);
        for (field, text) in [("server", "redis"), ("version", REDIS_VERSION)] {
            reply.bulk(field.as_bytes());
            reply.bulk(text.as_bytes());
        }
        reply.bulk(b"proto");
        reply.integer(if is_resp3 { 3 } else { 2 });
        reply.bulk(b"id");
        reply.integer(id);
        for (field, text) in [("mode", "standalone"), ("role", role)] {
            reply.bulk(field.as_bytes());
            reply.bulk(text.as_bytes());
        }
        reply.bulk(b"modules");
        reply.array(0);
        Ok(())
    }

    fn reset(&mut self, key: usize) {
        self.clients[key].transaction = None;
        self.unwatch(key);
        self.leave_channels(key);
        self.stop_monitoring(key);
        let (user, is_open) = (self.users.default_id(), self.users.is_open());
        let client = &mut self.clients[key];
        client.db = 0;
        client.name = Box::default();
        (client.user, client.is_authenticated) = (user, is_open);
        client.wanted = super::client::Wanted::All;
        client.is_never_evicted = false;
        client.reply.set_resp3(false);
        client.reply.status("RESET");
    }

    fn shutdown(&mut self, args: Args<'_>) -> Result<(), Failure> {
        let said = |word| (1..args.len()).any(|number| args.is(number, word));
        let how = ["SAVE", "NOSAVE", "NOW", "FORCE"];
        let is_how = |number| how.iter().any(|word| args.is(number, word));
        let is_known = |number| is_how(number) || args.is(number, "ABORT");
        let (without_saving, aborts) = (said("NOSAVE"), said("ABORT"));
        let says_both = (without_saving && said("SAVE")) || (aborts && how.into_iter().any(said));
        if says_both || !(1..args.len()).all(is_known) {
            return Err(Failure::SYNTAX);
        }
        if aborts {
            // One that is asked for is carried out at the end of the same turn.
            return Err(Failure::words("ERR No shutdown in progress."));
        }
        self.shut_down_script(without_saving)?;
        self.orders.push(Order::Shutdown { without_saving });
        Ok(())
    }
}

/// What we say we are: clients choose by it what they send.
pub const REDIS_VERSION: &str = "7.0.15";

/// A name as CLIENT SETNAME takes one.
pub(super) fn client_name(name: &[u8]) -> Result<Box<[u8]>, Failure> {
    match name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        true => Ok(Box::from(name)),
        false => Err(Failure::words(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        )),
    }
}

/// A subcommand that there is not.
pub(super) fn unknown_subcommand(container: &str, args: Args<'_>) -> Failure {
    let name = args.at(1);
    let name = name.get(..SUBCOMMAND_BYTES_MAX).unwrap_or(name);
    let container = container.to_ascii_uppercase();
    let after = format!("'. Try {container} HELP.");
    Failure::quoting("ERR unknown subcommand '", name, &after)
}

/// A subcommand that there is, and not with so many words.
pub(super) fn wrong_count(container: &str, args: Args<'_>) -> Failure {
    let before = "ERR unknown subcommand or wrong number of arguments for '";
    Failure::quoting(before, args.at(1), &format!("'. Try {container} HELP."))
}

/// So much of an unknown subcommand is told.
const SUBCOMMAND_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::super::world::World;
    use super::Order;

    #[test]
    fn a_shutdown_that_says_two_things_is_none() {
        let mut world = World::new();
        let client = world.client();
        for line in [
            "SHUTDOWN NOSAVE SAVE",
            "SHUTDOWN ABORT NOW",
            "SHUTDOWN SAVE x",
        ] {
            assert_eq!(world.say(client, line), "-ERR syntax error", "{line}");
        }
        let told = world.say(client, "SHUTDOWN ABORT");
        assert_eq!(told, "-ERR No shutdown in progress.");
        assert!(world.shard.take_orders().is_empty());
        world.say(client, "SHUTDOWN NOW SAVE FORCE");
        let without_saving = false;
        let orders = world.shard.take_orders();
        assert_eq!(orders, [Order::Shutdown { without_saving }]);
    }
}
