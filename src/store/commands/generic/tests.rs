//! Keys of any kind by hand.

use crate::store::session::world::World;

#[test]
fn the_log_is_told_when_keys_end() {
    let mut world = World::new();
    let a = world.client();
    for (said, told) in [
        ("SET k v", "SELECT 0 SET k v"),
        ("EXPIRE k 10", "PEXPIREAT k 1700000010000"),
        ("EXPIRE k 5 GT", ""),
        ("PEXPIRE k 5 LT", "PEXPIREAT k 1700000000005"),
        ("EXPIRE k 9 NX", ""),
        ("PERSIST k", "PERSIST k"),
        ("PERSIST k", ""),
        ("EXPIREAT k 1", "DEL k"),
        ("EXPIRE k 10", ""),
        ("FLUSHDB", "FLUSHDB"),
        ("DEL k", ""),
    ] {
        world.say(a, said);
        assert_eq!(world.effects(), told, "{said}");
    }
}

#[test]
fn a_key_that_is_over_is_told_to_the_log_before_what_found_it() {
    let mut world = World::new();
    let a = world.client();
    world.say(a, "SET k v PX 5");
    world.effects();
    world.shard.set_now_ms(1_700_000_000_006);
    assert_eq!(world.say(a, "SETNX k w"), ":1");
    assert_eq!(world.effects(), "MULTI DEL k SETNX k w EXEC");
}

#[test]
fn digests_are_those_of_redis() {
    let mut world = World::new();
    let a = world.client();
    let zeros = "0".repeat(40);
    assert_eq!(world.say(a, "DEBUG DIGEST"), zeros);
    world.say(a, "SET k v");
    assert_eq!(
        world.say(a, "DEBUG DIGEST-VALUE k none"),
        format!("[d79ee9fe5d5ad902d7f6620efc3b07b75ddd742f {zeros}]")
    );
    assert_eq!(
        world.say(a, "DEBUG DIGEST"),
        "264ccf65edec66bccfa7cc659414ccca432057d2"
    );
    for said in [
        "RPUSH l a b",
        "SADD s 1 2",
        "HSET h f v",
        "ZADD z 1.5 m",
        "EXPIRE k 1000",
        "SELECT 3",
        "SET k v",
    ] {
        world.say(a, said);
    }
    assert_eq!(
        world.say(a, "DEBUG DIGEST"),
        "4ee932cd2c2f829911ecc384955e20d583024be7"
    );
}

#[test]
fn what_is_dumped_is_restored_with_its_rows() {
    let mut world = World::new();
    let a = world.client();
    world.say(a, &format!("SET string {}", "long".repeat(30_000)));
    for number in 0..1500 {
        world.say(a, &format!("RPUSH list item-{number}"));
        world.say(a, &format!("SADD set member-{number}"));
        world.say(a, &format!("HSET hash field-{number} value-{number}"));
        world.say(a, &format!("ZADD zset {number}.5 member-{number}"));
    }
    for key in ["string", "list", "set", "hash", "zset"] {
        let payload = dump(&mut world, a, key);
        let restore: &[&[u8]] = &[b"RESTORE", b"copy", b"0", &payload];
        assert_eq!(world.send(a, restore), "OK");
        assert_eq!(
            world.send(a, restore),
            "-BUSYKEY Target key name already exists."
        );
        let digests = world.say(a, &format!("DEBUG DIGEST-VALUE {key} copy"));
        let (one, other) = digests
            .trim_matches(['[', ']'])
            .split_once(' ')
            .expect("two");
        assert_eq!(one, other, "{key}");
        let encodings = ["copy", key].map(|key| world.say(a, &format!("OBJECT ENCODING {key}")));
        assert_eq!(encodings[0], encodings[1]);
        world.say(a, "DEL copy");
        world.say(a, &format!("COPY {key} copy"));
        assert_eq!(
            world.say(a, &format!("DEBUG DIGEST-VALUE {key} copy")),
            digests
        );
        world.say(a, "DEL copy");
        let mut damaged = payload.clone();
        damaged[1] ^= 1;
        assert_eq!(
            world.send(a, &[b"RESTORE", b"copy", b"0", &damaged]),
            "-ERR DUMP payload version or checksum are wrong"
        );
    }
}

fn dump(world: &mut World, client: usize, key: &str) -> Vec<u8> {
    let mut request = Vec::new();
    crate::resp::write_command(&mut request, &[b"DUMP", key.as_bytes()]);
    world
        .shard
        .input_of(client)
        .expect("a client")
        .extend(request);
    world.shard.run_requests(client);
    let (output, _) = world.shard.output_of(client).expect("a client");
    let reply = std::mem::take(output);
    let head = reply
        .iter()
        .position(|byte| *byte == b'\n')
        .expect("a bulk string");
    reply[head + 1..reply.len() - 2].to_vec()
}

#[test]
fn a_relative_time_is_restored_as_an_absolute_one() {
    let mut world = World::new();
    let a = world.client();
    world.say(a, "SET k v");
    let payload = dump(&mut world, a, "k");
    world.effects();
    world.send(a, &[b"RESTORE", b"k", b"50", &payload, b"REPLACE"]);
    let told = world.effects();
    assert!(told.starts_with("RESTORE k 1700000000050"), "{told}");
    assert!(told.ends_with("REPLACE ABSTTL"), "{told}");
    assert_eq!(world.say(a, "PTTL k"), ":50");
    world.send(
        a,
        &[b"RESTORE", b"k", b"1", &payload, b"ABSTTL", b"REPLACE"],
    );
    assert_eq!(world.effects(), "DEL k", "what is over at once is not put");
    assert_eq!(world.say(a, "EXISTS k"), ":0");
}

#[test]
fn watched_keys_change_by_a_swap_only_if_they_are_or_will_be_there() {
    let mut world = World::new();
    let (a, b) = (world.client(), world.client());
    for (before, is_lost) in [("DEL k", false), ("SET k v", true)] {
        world.say(b, before);
        for swap in ["SWAPDB 0 1", "SWAPDB 0 1", "FLUSHALL"] {
            world.say(a, "WATCH k");
            world.say(b, swap);
            world.say(a, "MULTI");
            world.say(a, "PING");
            let told = world.say(a, "EXEC");
            assert_eq!(told == "nil", is_lost, "{before}, {swap}: {told}");
        }
        world.say(b, before);
        for line in ["WATCH k", "SWAPDB 0 0", "MULTI", "PING"] {
            world.say(a, line);
        }
        assert_eq!(world.say(a, "EXEC"), "[+PONG]", "nothing changed places");
    }
}

#[test]
fn sorted_elements_are_told_by_other_keys() {
    let mut world = World::new();
    let a = world.client();
    world.say(a, "RPUSH l 3 1 2");
    world.say(a, "MSET w_1 30 w_2 20 w_3 10 g_1 one g_2 two");
    world.say(a, "HSET o_3 name three");
    for (said, told) in [
        ("SORT l", "[1 2 3]"),
        ("SORT l DESC LIMIT 1 5", "[2 1]"),
        ("SORT l BY w_* GET # GET g_*", "[3 nil 2 two 1 one]"),
        ("SORT l BY nosort GET o_*->name", "[three nil nil]"),
        (
            "SORT g_1",
            "-WRONGTYPE Operation against a key holding the wrong kind of value",
        ),
        (
            "SORT l BY g_*",
            "-ERR One or more scores can't be converted into double",
        ),
        ("SORT l STORE s", ":3"),
        ("LRANGE s 0 -1", "[1 2 3]"),
        ("SORT none STORE s", ":0"),
        ("EXISTS s", ":0"),
        ("SORT_RO l STORE s", "-ERR syntax error"),
    ] {
        assert_eq!(world.say(a, said), told, "{said}");
    }
}

#[test]
fn a_key_that_no_row_can_have_is_not_there_and_cannot_be_made() {
    let mut world = World::new();
    let a = world.client();
    let long = "k".repeat(70_000);
    for (said, told) in [
        ("GET", "nil"),
        ("EXISTS", ":0"),
        ("DEL", ":0"),
        ("LLEN", ":0"),
    ] {
        assert_eq!(world.say(a, &format!("{said} {long}")), told);
    }
    world.say(a, "SET a 1");
    for said in [
        "SET {} v",
        "RENAME a {}",
        "COPY a {}",
        "MSET x 1 {} 2",
        "BITOP NOT {} a",
    ] {
        let told = world.say(a, &said.replace("{}", &long));
        assert!(
            told.starts_with("-ERR the key is longer than"),
            "{said}: {told}"
        );
    }
    assert_eq!(
        world.say(a, "EXISTS a x"),
        ":1",
        "nothing was done by halves"
    );
}

#[test]
fn a_look_that_is_no_use_leaves_the_idle_time() {
    let mut world = World::new();
    let a = world.client();
    world.say(a, "SET k v");
    world.shard.set_now_ms(1_700_000_100_000);
    for said in ["TYPE k", "TTL k", "EXISTS k", "OBJECT ENCODING k"] {
        world.say(a, said);
    }
    assert_eq!(world.say(a, "OBJECT IDLETIME k"), ":100");
    let payload = dump(&mut world, a, "k");
    assert_eq!(world.say(a, "OBJECT IDLETIME k"), ":0", "DUMP is a use");
    world.send(a, &[b"RESTORE", b"l", b"0", &payload, b"IDLETIME", b"77"]);
    assert_eq!(world.say(a, "OBJECT IDLETIME l"), ":77");
    world.say(a, "TOUCH l");
    assert_eq!(world.say(a, "OBJECT IDLETIME l"), ":0");
}

#[test]
fn uses_are_counted_under_an_lfu_policy() {
    let mut world = World::new();
    let a = world.client();
    world.say(a, "SET k v");
    assert!(
        world
            .say(a, "OBJECT FREQ k")
            .contains("policy is not selected")
    );
    world.say(a, "CONFIG SET maxmemory-policy allkeys-lfu");
    let before = world.say(a, "OBJECT FREQ k");
    assert_eq!(world.say(a, "OBJECT FREQ k"), before, "a look is no use");
    for _ in 0..1_000 {
        world.say(a, "GET k");
    }
    assert_ne!(world.say(a, "OBJECT FREQ k"), before);
    world.say(a, "SET n v");
    let payload = dump(&mut world, a, "n");
    world.send(a, &[b"RESTORE", b"r", b"0", &payload, b"FREQ", b"77"]);
    assert_eq!(world.say(a, "OBJECT FREQ r"), ":77");
}
