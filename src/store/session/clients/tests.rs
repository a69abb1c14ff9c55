//! What is said about clients and the server, by hand.

use crate::store::session::world::World;

#[test]
fn a_pause_of_writes_keeps_them_until_it_is_over() {
    let mut world = World::new();
    let (a, b) = (world.client(), world.client());
    world.say(a, "SET x 1");
    assert_eq!(world.say(a, "CLIENT PAUSE 100 WRITE"), "OK");
    assert_eq!(world.say(b, "SET x 2"), "", "it is not run yet");
    assert_eq!(world.say(a, "GET x"), "1");
    assert_eq!(world.say(b, "GET x"), "", "it stands behind the other one");
    assert_eq!(world.shard.next_due_ms(), Some(1_700_000_000_100));
    world.shard.set_now_ms(1_700_000_000_100);
    for resumed in world.shard.take_resumed() {
        world.shard.run_requests(resumed);
    }
    assert_eq!(world.owed(b), "OK 2");
}

#[test]
fn a_pause_of_all_ends_by_its_time_only_and_transactions_wait_too() {
    let mut world = World::new();
    let (a, b) = (world.client(), world.client());
    world.say(b, "MULTI");
    world.say(b, "SET x 2");
    assert_eq!(world.say(a, "CLIENT PAUSE 100 WRITE"), "OK");
    assert_eq!(world.say(b, "EXEC"), "");
    assert_eq!(world.say(a, "CLIENT UNPAUSE"), "OK");
    assert_eq!(world.owed(b), "[OK]");
    assert_eq!(world.say(a, "CLIENT PAUSE 50"), "OK");
    assert_eq!(world.say(b, "PING"), "");
    assert_eq!(world.say(a, "CLIENT UNPAUSE"), "", "it waits as all do");
    world.shard.client_gone(b);
    world.shard.set_now_ms(1_700_000_000_050);
    for resumed in world.shard.take_resumed() {
        world.shard.run_requests(resumed);
    }
    assert_eq!(world.owed(a), "OK");
}

#[test]
fn killed_clients_take_nothing_any_more() {
    let mut world = World::new();
    let (a, b) = (world.client(), world.client());
    world.say(b, "SUBSCRIBE c");
    assert_eq!(world.say(a, "CLIENT KILL TYPE pubsub"), ":1");
    assert_eq!(world.say(a, "PUBLISH c x"), ":0");
    assert!(!world.shard.may_read(b));
    assert_eq!(world.say(a, "CLIENT KILL ID 1"), ":0", "not itself");
    assert_eq!(world.say(a, "CLIENT KILL ID 1 SKIPME no"), ":1");
    assert!(!world.shard.may_read(a), "once it was told");
}

#[test]
fn a_client_chooses_which_replies_it_gets() {
    let mut world = World::new();
    let a = world.client();
    assert_eq!(world.say(a, "CLIENT REPLY SKIP"), "");
    assert_eq!(world.say(a, "PING"), "");
    assert_eq!(world.say(a, "PING"), "PONG");
    assert_eq!(world.say(a, "CLIENT REPLY OFF"), "");
    assert_eq!(world.say(a, "PING"), "");
    assert_eq!(world.say(a, "CLIENT REPLY ON"), "OK");
    assert_eq!(world.say(a, "PING"), "PONG");
}

#[test]
fn the_list_tells_who_is_there() {
    let mut world = World::new();
    let (a, b) = (world.client(), world.client());
    world.say(a, "CLIENT SETNAME one");
    world.say(b, "SUBSCRIBE c");
    let list = world.say(a, "CLIENT LIST");
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(
        lines[0].starts_with("id=1 addr=127.0.0.1:5 laddr=127.0.0.1:6379 "),
        "{list}"
    );
    assert!(
        lines[0].contains(" name=one ") && lines[0].contains(" cmd=client|list "),
        "{list}"
    );
    assert!(
        lines[1].contains(" flags=P ") && lines[1].contains(" sub=1 "),
        "{list}"
    );
    assert_eq!(world.say(a, "CLIENT LIST TYPE pubsub").lines().count(), 1);
    assert_eq!(world.say(a, "CLIENT LIST ID 2 7 1").lines().count(), 2);
    assert_eq!(world.say(a, "CLIENT GETNAME"), "one");
    assert_eq!(
        world.say(a, "CLIENT SETNAME"),
        "-ERR wrong number of arguments for 'client|setname' command"
    );
    assert_eq!(
        world.say(a, "CLIENT NOSUCH"),
        "-ERR unknown subcommand 'NOSUCH'. Try CLIENT HELP."
    );
}

#[test]
fn what_takes_long_is_told() {
    let mut world = World::new();
    let a = world.client();
    world.say(a, "SET x 1");
    assert_eq!(world.say(a, "SLOWLOG LEN"), ":0");
    world.settings().slowlog_log_slower_than = 0;
    world.settings().slowlog_max_len = 2;
    let long = "v".repeat(200);
    world.say(a, &format!("SET x {long}"));
    world.say(a, "PING");
    let told = slow(&mut world, a, "SLOWLOG GET");
    assert!(
        told.starts_with("[[:1 :1700000000 [PING] 127.0.0.1:5 ] [:0 "),
        "{told}"
    );
    assert!(told.contains("... (72 more bytes)]"), "{told}");
    let many = vec!["k"; 40].join(" ");
    world.say(a, &format!("DEL {many}"));
    let told = slow(&mut world, a, "SLOWLOG GET 1");
    assert!(told.contains(" k ... (10 more arguments)]"), "{told}");
    assert_eq!(world.say(a, "SLOWLOG RESET"), "OK");
    let told = slow(&mut world, a, "SLOWLOG GET -1");
    assert_eq!(told, "[[:5 :1700000000 [SLOWLOG RESET] 127.0.0.1:5 ]]");
}

/// The slow log without how long each command took.
fn slow(world: &mut World, client: usize, line: &str) -> String {
    let told = world.say(client, line);
    let mut untimed = String::new();
    for (at, entry) in told.split(" :1700000000 :").enumerate() {
        match entry.split_once(' ') {
            Some((_, rest)) if at > 0 => untimed.push_str(&format!(" :1700000000 {rest}")),
            _ => untimed.push_str(entry),
        }
    }
    untimed
}

#[test]
fn memory_is_what_the_rows_of_a_key_take() {
    let mut world = World::new();
    let a = world.client();
    let usage = |world: &mut World, key: &str| {
        let told = world.say(a, &format!("MEMORY USAGE {key} SAMPLES 0"));
        told.strip_prefix(':')
            .and_then(|bytes| bytes.parse::<u64>().ok())
    };
    assert_eq!(usage(&mut world, "none"), None);
    world.say(a, "SADD s a");
    let small = usage(&mut world, "s").expect("bytes");
    assert!((5..100).contains(&small), "{small}");
    for number in 0..1_000 {
        world.say(a, &format!("SADD s member-{number}"));
    }
    let large = usage(&mut world, "s").expect("bytes");
    assert!((20_000..100_000).contains(&large), "{large}");
}

#[test]
fn commands_say_where_their_keys_are() {
    let mut world = World::new();
    let a = world.client();
    assert_eq!(
        world.say(a, "COMMAND GETKEYS SINTERCARD 2 a b LIMIT 3"),
        "[a b]"
    );
    assert_eq!(
        world.say(a, "COMMAND GETKEYSANDFLAGS SMOVE a b c"),
        "[[a [RW access delete]] [b [RW insert]]]"
    );
    assert_eq!(
        world.say(a, "COMMAND LIST FILTERBY PATTERN SINTER*"),
        "[sinter sintercard sinterstore]"
    );
    assert!(
        world
            .say(a, "COMMAND INFO nosuch hlen")
            .starts_with("[nil [hlen :2 [readonly fast] ")
    );
    assert!(
        world
            .say(a, "COMMAND DOCS hlen")
            .starts_with("[hlen [summary Get the number of ")
    );
}

#[test]
fn the_table_says_what_redis_says() {
    use crate::store::commands::described;
    for command in crate::store::session::FAMILIES
        .iter()
        .flat_map(|family| family.iter())
    {
        let Some(described) = described::find(command.name) else {
            continue;
        };
        assert_eq!(command.arity, described.arity, "{}", command.name);
        let is_container = described::is_container(command.name);
        let (first, last, step) = command.keys.as_told();
        // Redis counts channels of shards as keys, where it tells of keys at all.
        let is_of_keys = described
            .key_specs()
            .iter()
            .all(|spec| spec.flags != "not_key");
        if !is_container && is_of_keys {
            assert_eq!([first, last, step], described.keys, "{}", command.name);
            for flag in [
                "write", "readonly", "denyoom", "no_multi", "no_auth", "blocking",
            ] {
                let is_set = command.has_flag(flag) || command.has_flag(&flag.replace('_', "-"));
                assert_eq!(is_set, described.has_flag(flag), "{} {flag}", command.name);
            }
        }
    }
}

#[test]
fn who_monitors_is_told_of_what_is_run_and_of_no_secret() {
    let mut world = World::new();
    let (a, b) = (world.client(), world.client());
    assert_eq!(world.say(a, "MONITOR"), "OK");
    assert_eq!(world.say(a, "MONITOR"), "");
    world.say(b, "MULTI");
    world.send(b, &[b"SET", b"x", b"a\"\n\xff"]);
    world.say(b, "EXEC");
    world.say(b, "CONFIG GET maxmemory");
    world.say(b, "AUTH secret");
    let told = world.owed(a);
    let told: Vec<&str> = told.split("1700000000.000000 [0 127.0.0.1:5] ").collect();
    let wanted = [
        "",
        "\"MULTI\" ",
        "\"SET\" \"x\" \"a\\\"\\n\\xff\" ",
        "\"EXEC\" ",
        "\"AUTH\" \"(redacted)\"",
    ];
    assert_eq!(told, wanted);
    assert_eq!(
        world.say(a, "GET x"),
        "-ERR Replica can't interact with the keyspace"
    );
    assert!(world.say(b, "CLIENT LIST").contains(" flags=O "));
    assert_eq!(
        world.say(a, "RESET"),
        "1700000000.000000 [0 127.0.0.1:5] \"RESET\" RESET"
    );
    world.say(b, "PING");
    assert_eq!(world.owed(a), "");
}

#[test]
fn who_does_not_take_what_it_is_told_is_told_no_more() {
    let mut world = World::new();
    let (a, b) = (world.client(), world.client());
    world.say(a, "SUBSCRIBE c");
    let message = vec![b'x'; 1 << 20];
    let mut told = 0;
    while world.send(b, &[b"PUBLISH", b"c", &message]) == ":1" {
        told += 1;
        assert!(told < 40, "it is still told");
    }
    assert!(told >= 31, "{told}");
    assert!(!world.shard.may_read(a));
}
