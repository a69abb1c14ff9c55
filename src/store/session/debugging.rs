//! DEBUG, as far as it is about the shard: what test suites of clients and tools ask for.
//!
//! What it says of the data is in `commands::generic`.

use crate::store::commands::{Args, Failure};

use super::shard::{Role, Shard};

impl Shard {
    /// Whether it is one of these; it is done then.
    pub(super) fn debug_shard(&mut self, key: usize, args: Args<'_>) -> Result<bool, Failure> {
        match (args.at(1).to_ascii_lowercase().as_slice(), args.len()) {
            (b"set-active-expire", 3) => {
                // As C reads a number.
                self.ends_keys = args
                    .at(2)
                    .first()
                    .is_some_and(|digit| (b'1'..=b'9').contains(digit));
            }
            (b"change-repl-id", 2) => {
                if self.role != Role::Master {
                    return Err(Failure::words(
                        "ERR the replication id of a replica is its master's",
                    ));
                }
                // A history of its own begins, as when a replica is promoted.
                self.is_promoted = true;
            }
            (b"reload", _) => {
                let known = ["MERGE", "NOFLUSH", "NOSAVE"];
                let is_known = |number| known.iter().any(|word| args.is(number, word));
                if !(2..args.len()).all(is_known) {
                    return Err(Failure::words(
                        "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
                    ));
                }
                self.keyspace.forget_cached();
            }
            (b"loadaof", 2) => self.keyspace.forget_cached(),
            (b"log", 3) => {
                let text = String::from_utf8_lossy(args.at(2));
                tracing::info!(%text, "DEBUG LOG");
            }
            // About what is not here: nothing changes.
            (b"quicklist-packed-threshold" | b"pause-cron", 3) | (b"replybuffer", 4) => {}
            _ => return Ok(false),
        }
        self.clients[key].reply.ok();
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use crate::store::session::world::World;

    #[test]
    fn keys_end_by_themselves_unless_they_are_told_not_to() {
        let mut world = World::new();
        let client = world.client();
        world.say(client, "SET k v PX 100");
        assert_eq!(world.say(client, "DEBUG SET-ACTIVE-EXPIRE 0"), "OK");
        world.shard.set_now_ms(1_700_000_001_000);
        world.shard.end_due_keys(10);
        assert_eq!(world.say(client, "DBSIZE"), ":1");
        assert_eq!(world.say(client, "DEBUG SET-ACTIVE-EXPIRE 1"), "OK");
        world.shard.end_due_keys(10);
        assert_eq!(world.say(client, "DBSIZE"), ":0");
    }

    #[test]
    fn another_replication_id_is_another_history() {
        let mut world = World::new();
        let client = world.client();
        assert_eq!(world.say(client, "DEBUG CHANGE-REPL-ID"), "OK");
        assert!(world.shard.is_promoted());
        world.shard.promotion_done();
        world.say(client, "REPLICAOF 10.0.0.1 6379");
        assert!(
            world
                .say(client, "DEBUG CHANGE-REPL-ID")
                .contains("its master's")
        );
        assert!(!world.shard.is_promoted());
    }

    #[test]
    fn a_reload_finds_all_in_the_rows() {
        let mut world = World::new();
        let client = world.client();
        world.say(client, "SET k v");
        assert_eq!(world.say(client, "DEBUG RELOAD NOSAVE"), "OK");
        assert_eq!(world.say(client, "GET k"), "v");
        let told = world.say(client, "DEBUG RELOAD FOO");
        assert!(
            told.starts_with("-ERR DEBUG RELOAD only supports"),
            "{told}"
        );
    }

    #[test]
    fn populated_keys_are_told_to_the_log() {
        let mut world = World::new();
        let client = world.client();
        world.say(client, "SET p:0 old");
        world.effects();
        assert_eq!(world.say(client, "DEBUG POPULATE 2 p 8"), "OK");
        assert_eq!(world.effects(), "SET p:1 value:1\0");
        assert_eq!(world.say(client, "GET p:0"), "old");
        assert_eq!(world.say(client, "DEBUG POPULATE 1"), "OK");
        assert_eq!(world.say(client, "GET key:0"), "value:0");
        let told = world.say(client, "DEBUG POPULATE x");
        assert_eq!(told, "-ERR value is out of range, must be positive");
        world.say(client, "REPLICAOF 10.0.0.1 6379");
        assert!(world.say(client, "DEBUG POPULATE 1").contains("READONLY"));
    }

    #[test]
    fn each_kind_of_reply_can_be_asked_for() {
        let mut world = World::new();
        let client = world.client();
        for (kind, told) in [
            ("string", "Hello World"),
            ("integer", ":12345"),
            ("double", "3.141"),
            ("null", "nil"),
            ("array", "[:0 :1 :2]"),
            ("map", "[:0 :0 :1 :1 :2 :0]"),
            ("true", ":1"),
        ] {
            assert_eq!(world.say(client, &format!("DEBUG PROTOCOL {kind}")), told);
        }
        assert!(
            world
                .say(client, "DEBUG PROTOCOL no")
                .contains("Wrong protocol type name")
        );
    }
}
