//! What a wrong config is told, to the letter, and what a right one means.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::proxy::config::{Compat, EjectConfig, PoolLimits, Protocol, Timeouts};
use crate::router::hash::HashKind;
use crate::router::spec::DistributionKind;

const SHARD: &str = "[[pool.cache.shard]]\naddr = \"127.0.0.1:7001\"\n";

fn meant(text: &str) -> Config {
    match parse(Path::new("a.toml"), text, &|_| None) {
        Ok(config) => config,
        Err(error) => panic!("{error}\nin:\n{text}"),
    }
}

fn told(text: &str) -> String {
    parse(Path::new("a.toml"), text, &|_| None)
        .expect_err(text)
        .to_string()
}

/// What is told about `line`, alone on line 3 of an otherwise right pool.
fn told_about(line: &str) -> String {
    told(&format!(
        "[pool.cache]\nlisten = [\"127.0.0.1:0\"]\n{line}\n{SHARD}"
    ))
}

/// What is told about `line`, on line 6, in the only shard of a pool.
fn told_about_shard(line: &str) -> String {
    told(&format!(
        "[pool.cache]\nlisten = [\"127.0.0.1:0\"]\n\n{SHARD}{line}\n"
    ))
}

fn assert_told(given: &[(&str, &str)], about: impl Fn(&str) -> String) {
    for (line, message) in given {
        assert_eq!(about(line), *message, "\nabout: {line}");
    }
}

#[test]
fn the_smallest_config_means_the_defaults() {
    let config = meant(&format!(
        "[pool.cache]\nlisten = [\"127.0.0.1:6379\"]\n{SHARD}"
    ));
    assert_eq!(config.server, ServerConfig::default());
    assert_eq!(config.log, LogConfig::default());
    assert_eq!(config.admin.http, Some(HTTP_DEFAULT));
    let [pool] = config.pools.as_slice() else {
        panic!("one pool")
    };
    assert_eq!(pool.name, "cache");
    assert_eq!(pool.layout.hash, HashKind::Fnv1a64);
    assert_eq!(pool.layout.distribution, DistributionKind::Ketama);
    assert_eq!(pool.timeouts, Timeouts::default());
    assert_eq!(pool.eject, EjectConfig::default());
    assert_eq!(pool.limits, PoolLimits::default());
    assert_eq!(pool.compat, Compat::Redis);
    assert_eq!(pool.upstream.credentials, None);
}

#[test]
fn every_key_means_what_was_typed() {
    let config = meant(
        r#"
        [server]
        workers = 3
        state_dir = "/tmp/s"
        max_clients = 7
        [log]
        level = "debug"
        format = "json"
        file = "k.log"
        [admin]
        http = "10.0.0.1:80"
        token = "0123456789abcdef"
        nutcracker_stats = "127.0.0.1:22222"
        [pool.b]
        listen = ["unix:/tmp/b.sock?mode=0600"]
        hash = "crc16_slot"
        distribution = "slots"
        hash_tag = "{}"
        route = [{ prefix = "bull:", shard = "s1" }]
        timeout = { connect = "250ms", request = "2s", idle = "1m 30s" }
        eject = { enabled = true, failures = 3, retry_after = "5s" }
        upstream = { connections = 4, preconnect = true, tcp_keepalive = false, username = "u", password = "p" }
        limits = { max_request = "1MB", max_client_buffer = "2MB", large_bytes_per_second = "5MB", max_hold = "2s" }
        compat = "redis"
        [[pool.b.shard]]
        name = "s1"
        addr = "h:1"
        slots = "0-16383"
        [pool.a]
        listen = ["127.0.0.1:1", "[::1]:1"]
        shard = [{ addr = "h:1", weight = 2 }]
        "#,
    );
    assert_eq!((config.server.workers, config.server.max_clients), (3, 7));
    assert_eq!(
        (config.log.level, config.log.format),
        (LogLevel::Debug, LogFormat::Json)
    );
    assert_eq!(config.admin.http, "10.0.0.1:80".parse::<SocketAddr>().ok());
    let token = config.admin.token.as_ref().map(|token| token.reveal());
    assert_eq!(token, Some("0123456789abcdef"));
    let [b, a] = config.pools.as_slice() else {
        panic!("two pools, in the order of the file")
    };
    assert_eq!((b.name.as_str(), a.name.as_str()), ("b", "a"));
    assert_eq!(b.timeouts.connect, Duration::from_millis(250));
    assert_eq!(b.timeouts.idle, Some(Duration::from_secs(90)));
    assert_eq!(b.upstream.request_timeout, Some(Duration::from_secs(2)));
    assert!(b.upstream.preconnect && !b.upstream.tcp_keepalive);
    assert_eq!(b.upstream.connections, 4);
    let eject = EjectConfig {
        enabled: true,
        failures: 3,
        retry_after: Duration::from_secs(5),
    };
    assert_eq!((b.eject, a.eject), (eject, EjectConfig::default()));
    assert_eq!(b.limits.request_bytes_max, (1 << 20) + (64 << 10));
    assert_eq!(b.limits.client_buffer_bytes_max, 2 << 20);
    assert_eq!(b.limits.large_bytes_per_second, Some(5 << 20));
    assert_eq!(b.limits.held_max, Duration::from_secs(2));
    assert_eq!(a.limits.held_max, Duration::from_millis(250));
    assert_eq!(a.layout.shards.first().map(|shard| shard.weight), Some(2));
    assert_eq!(a.listen.len(), 2);
    let printed = format!("{config:?}");
    assert!(
        !printed.contains("0123456789abcdef") && !printed.contains("\"p\""),
        "{printed}"
    );
}

#[test]
fn unknown_keys_are_told_with_what_was_meant() {
    assert_told(
        &[
            (
                "hsah = \"md5\"",
                "error: unknown key `hsah`\n  a.toml:3:1  pool.cache.hsah\n  help: did you mean `hash`?",
            ),
            (
                "timeout = { conect = \"1s\" }",
                "error: unknown key `conect`\n  a.toml:3:13  pool.cache.timeout.conect\n  help: did you mean `connect`?",
            ),
            (
                "upstream.pasword = \"hunter2\"",
                "error: unknown key `pasword`\n  a.toml:3:10  pool.cache.upstream.pasword\n  help: did you mean `password`?",
            ),
            (
                "timeout = { zzz = 1 }",
                "error: unknown key `zzz`\n  a.toml:3:13  pool.cache.timeout.zzz\n  help: known here: connect, request, idle",
            ),
        ],
        told_about,
    );
}

#[test]
fn wrong_types_and_ranges_are_told() {
    assert_told(
        &[
            (
                "hash = 5",
                "error: `pool.cache.hash` must be a string in quotes, not a number\n  a.toml:3:8  pool.cache.hash = 5\n  help: write a string in quotes",
            ),
            (
                "timeout = { connect = \"1 parsec\" }",
                "error: `pool.cache.timeout.connect` is no duration\n  a.toml:3:23  pool.cache.timeout.connect = \"1 parsec\"\n  help: write a number and a unit, as in \"500ms\", \"30s\" or \"5m\"; \"0s\" for none",
            ),
            (
                "timeout.connect = \"0s\"",
                "error: `pool.cache.timeout.connect` must be longer than zero\n  a.toml:3:19  pool.cache.timeout.connect = \"0s\"\n  help: write a duration such as \"1s\"",
            ),
            (
                "timeout.idle = \"2days\"",
                "error: `pool.cache.timeout.idle` is longer than a day\n  a.toml:3:16  pool.cache.timeout.idle = \"2days\"\n  help: write \"0s\" for no limit",
            ),
            (
                "limits = { max_request = \"64\" }",
                "error: `pool.cache.limits.max_request` is no size\n  a.toml:3:26  pool.cache.limits.max_request = \"64\"\n  help: write a whole number and a unit (B, KB, MB, GB), as in \"64MB\"",
            ),
            (
                "limits = { max_client_buffer = \"1KB\" }",
                "error: `pool.cache.limits.max_client_buffer` is out of range\n  a.toml:3:32  pool.cache.limits.max_client_buffer = \"1KB\"\n  help: write a size from \"64KB\" to \"16GB\"",
            ),
            (
                "hash = \"fnv1a64\"",
                "error: unknown hash \"fnv1a64\"\n  a.toml:3:8  pool.cache.hash = \"fnv1a64\"\n  help: did you mean \"fnv1a_64\"?",
            ),
            (
                "route = [{ prefix = \"q:\", shard = \"s9\" }]",
                "error: no shard is named \"s9\"\n  a.toml:3:35  pool.cache.route.shard = \"s9\"\n  help: name one of this layout's shards",
            ),
            (
                "route = [{ prefix = \"q:\" }]",
                "error: a rule needs a shard\n  a.toml:3:10  [pool.cache.route]\n  help: write { prefix = \"queue:\", shard = \"name\" }",
            ),
            (
                "hash_tag = \"{\"",
                "error: a hash tag is two ASCII characters\n  a.toml:3:12  pool.cache.hash_tag = \"{\"\n  help: write \"{}\", or \"\" for none",
            ),
        ],
        told_about,
    );
}

#[test]
fn what_clients_must_say_is_told_without_the_words() {
    assert_told(
        &[
            (
                "auth = \"hunter2\"",
                "error: `pool.cache.auth` must be a table, not a string\n  a.toml:3:8  pool.cache.auth = \"***\"\n  help: write a table",
            ),
            (
                "auth = {}",
                "error: `auth` does not say which password clients must give\n  a.toml:3:8  [pool.cache.auth]\n  help: write password = \"file:/path\" or \"${NAME}\", or leave `auth` out to let all in",
            ),
            (
                "auth = { username = \"app\" }",
                "error: a username without a password\n  a.toml:3:21  pool.cache.auth.username = \"app\"\n  help: write `password` too, or leave out `username`",
            ),
            (
                "auth = { password = \"\" }",
                "error: `pool.cache.auth.password` is empty\n  a.toml:3:21  pool.cache.auth.password = \"***\"\n  help: write the secret, \"file:/path\" or \"${NAME}\", or leave the key out",
            ),
            (
                "compat = \"nutcracker\"",
                "error: unknown compat \"nutcracker\"\n  a.toml:3:10  pool.cache.compat = \"nutcracker\"\n  help: write one of redis, twemproxy",
            ),
        ],
        told_about,
    );
}

#[test]
fn a_pool_of_memcacheds_has_no_database_and_no_password() {
    let pool = |lines: &str| {
        format!(
            "[pool.cache]\nprotocol = \"memcached\"\nlisten = [\"127.0.0.1:0\"]\n{lines}\n{SHARD}"
        )
    };
    let config = meant(&pool(""));
    assert_eq!(config.pools[0].protocol, Protocol::Memcached);
    assert_eq!(
        told(&pool("database = 1")),
        "error: memcached has no databases\n  a.toml:4:12  pool.cache.database = 1\n  help: leave the line out, or write protocol = \"redis\""
    );
    assert_eq!(
        told(&pool("upstream = { password = \"hunter2\" }")),
        "error: memcached's text protocol has no password\n  a.toml:1:1  [pool.cache]\n  help: leave `password` out of `upstream`, or write protocol = \"redis\""
    );
    assert_eq!(
        told_about("protocol = \"memcache\""),
        "error: unknown protocol \"memcache\"\n  a.toml:3:12  pool.cache.protocol = \"memcache\"\n  help: did you mean \"memcached\"?"
    );
}

#[test]
fn wrong_shards_are_told() {
    assert_told(
        &[
            (
                "weight = 0",
                "error: `pool.cache.shard.weight` is out of range\n  a.toml:6:10  pool.cache.shard.weight = 0\n  help: write a number from 1 to 2147483647",
            ),
            (
                "slots = \"0-5\"",
                "error: slots mean nothing with distribution \"ketama\"\n  a.toml:6:9  pool.cache.shard.slots = \"0-5\"\n  help: leave them out or use \"slots\"",
            ),
            (
                "[[pool.cache.shard]]\naddr = \"store:x\"",
                "error: the directory of a built-in shard must be absolute\n  a.toml:7:8  pool.cache.shard.addr = \"store:x\"\n  help: start the path with `/`, as in \"store:/var/lib/keyferry/shard-1\"",
            ),
            (
                "[[pool.cache.shard]]\naddr = \"localhost\"",
                "error: not an address of a shard\n  a.toml:7:8  pool.cache.shard.addr = \"localhost\"\n  help: write \"host:port\", \"unix:/path\" or \"store:/dir\"",
            ),
            (
                "[[pool.cache.shard]]\nname = \"x\"",
                "error: a shard needs an address\n  a.toml:6:1  [[pool.cache.shard]]\n  help: write addr = \"host:port\" or \"unix:/path\"",
            ),
            (
                "name = \"x\"\n[[pool.cache.shard]]\nname = \"x\"\naddr = \"h:2\"",
                "error: shard 1 has the same name\n  a.toml:8:8  pool.cache.shard.name = \"x\"\n  help: each name is one place on the ring",
            ),
        ],
        told_about_shard,
    );
}

#[test]
fn slots_owned_twice_or_by_nobody_are_told() {
    let slots = |first: &str, second: &str| {
        told(&format!(
            "[pool.c]\nlisten = [\"127.0.0.1:0\"]\nhash = \"crc16_slot\"\ndistribution = \"slots\"\n\
             [[pool.c.shard]]\nname = \"a\"\naddr = \"h:1\"\nslots = \"{first}\"\n\
             [[pool.c.shard]]\nname = \"b\"\naddr = \"h:2\"\nslots = \"{second}\"\n"
        ))
    };
    assert_eq!(
        slots("0-9000", "8921-16383"),
        "error: slot 8921 is owned by both `a` and `b`\n  a.toml:12:9  pool.c.shard.slots = \"8921-16383\"\n  help: give it to one of them"
    );
    assert_eq!(
        slots("0-8000", "8921-16383"),
        "error: slots 8001-8920 are owned by no shard\n  a.toml:5:1  [[pool.c.shard]]\n  help: each slot needs exactly one"
    );
    assert_eq!(
        slots("0-8000", "8001-16384"),
        "error: \"8001-16384\" is no range of slots from 0 to 16383, such as \"0-16383\" or \"7\"\n  a.toml:12:9  pool.c.shard.slots = \"8001-16384\"\n  help: write it so"
    );
}

#[test]
fn wrong_pools_are_told() {
    assert_eq!(
        told("[server]\n"),
        "error: there is no pool\n  a.toml:1:1\n  help: write [pool.NAME] with `listen` and [[pool.NAME.shard]]"
    );
    assert_eq!(
        told("[pool.cache]\nlisten = [\"127.0.0.1:1\"]\n"),
        "error: there are no shards\n  a.toml:1:1  [pool.cache]\n  help: write [[pool.cache.shard]] with an `addr`"
    );
    assert_eq!(
        told(&format!("[pool.cache]\n{SHARD}")),
        "error: the pool does not say where clients connect\n  a.toml:1:1  [pool.cache]\n  help: write listen = [\"127.0.0.1:6379\"]"
    );
    assert_eq!(
        told("[pool.\"a b\"]\nlisten = [\"127.0.0.1:0\"]\nshard = [{ addr = \"h:1\" }]\n"),
        "error: a pool's name is letters, digits, `_`, `-` and `.`\n  a.toml:1:1  [pool.a b]\n  help: rename it; it has at most 64 characters"
    );
    assert_eq!(
        told("[pool.a]\nlisten = \"127.0.0.1:0\"\nshard = [{ addr = \"h:1\" }]\n"),
        "error: `listen` is a list\n  a.toml:2:10  pool.a.listen = \"127.0.0.1:0\"\n  help: write it in brackets, as in [\"127.0.0.1:6379\"]"
    );
    assert_eq!(
        told("[pool.a]\nlisten = [\"unix:/a?mode=999\"]\nshard = [{ addr = \"h:1\" }]\n"),
        "error: `999` is no unix mode\n  a.toml:2:11  pool.a.listen = \"unix:/a?mode=999\"\n  help: a mode is octal and at most 0777, as in \"unix:/path?mode=0660\""
    );
}

#[test]
fn addresses_that_clash_are_told() {
    let pools = "[pool.a]\nlisten = [\"127.0.0.1:5\"]\nshard = [{ addr = \"h:1\" }]\n\
                 [pool.b]\nlisten = [\"127.0.0.1:6\", \"0.0.0.0:5\"]\nshard = [{ addr = \"h:1\" }]\n";
    assert_eq!(
        told(pools),
        "error: 0.0.0.0:5 is already listened on by pool `a`\n  a.toml:5:26  pool.b.listen = \"0.0.0.0:5\"\n  help: give each an address of its own"
    );
    assert_eq!(
        told(&format!(
            "[admin]\nhttp = \"127.0.0.1:9\"\n[pool.cache]\nlisten = [\"127.0.0.1:9\"]\n{SHARD}"
        )),
        "error: `admin.http` is also listened on by pool `cache`\n  a.toml:2:8  admin.http = \"127.0.0.1:9\"\n  help: give each an address of its own"
    );
}

#[test]
fn an_admin_address_for_others_needs_a_token() {
    let admin = |lines: &str| {
        told(&format!(
            "[admin]\n{lines}\n[pool.cache]\nlisten = [\"127.0.0.1:0\"]\n{SHARD}"
        ))
    };
    assert_eq!(
        admin("http = \"0.0.0.0:9180\""),
        "error: 0.0.0.0:9180 can be reached from other machines, and there is no `admin.token`\n  a.toml:2:8  admin.http = \"0.0.0.0:9180\"\n  help: write token = \"file:/path\" below it, or listen on 127.0.0.1"
    );
    assert_eq!(
        admin("token = \"hunter2\""),
        "error: `admin.token` must be at least 16 printable characters without spaces\n  a.toml:2:9  admin.token = \"***\"\n  help: make one with: openssl rand -hex 16"
    );
    assert_eq!(
        admin("http = \"localhost:80\""),
        "error: a listen address needs an IP address, not the name `localhost`\n  a.toml:2:8  admin.http = \"localhost:80\"\n  help: write \"IP:PORT\" such as \"127.0.0.1:9180\", or \"\" for none"
    );
}

#[test]
fn secrets_come_from_files_and_the_environment_and_are_never_printed() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("secret"), "from-file\n").expect("written");
    let config = |value: &str| {
        let text = format!(
            "[pool.cache]\nlisten = [\"127.0.0.1:0\"]\nupstream = {{ password = '{value}' }}\n{SHARD}"
        );
        let environment = |name: &str| (name == "REDIS_PASSWORD").then(|| "from-env".to_owned());
        parse(&dir.path().join("a.toml"), &text, &environment)
    };
    let password = |value: &str| {
        let config = config(value).expect(value);
        let credentials = config
            .pools
            .first()
            .and_then(|pool| pool.upstream.credentials.clone());
        credentials
            .expect("credentials")
            .password
            .reveal()
            .to_owned()
    };
    assert_eq!(password("plain"), "plain");
    assert_eq!(password("${REDIS_PASSWORD}"), "from-env");
    assert_eq!(password("file:secret"), "from-file");
    assert_eq!(
        password(&format!("file:{}", dir.path().join("secret").display())),
        "from-file"
    );

    let error = config("${NOT_SET}").expect_err("not set").to_string();
    assert!(
        error.contains("the environment variable of `pool.cache.upstream.password` is not set"),
        "{error}"
    );
    assert!(
        error.contains("a.toml:3:25  pool.cache.upstream.password = \"***\""),
        "{error}"
    );
    assert!(
        error.contains("help: set NOT_SET before starting keyferry"),
        "{error}"
    );
    let error = config("file:nowhere").expect_err("no file").to_string();
    assert!(
        error.contains("cannot read the file of `pool.cache.upstream.password`"),
        "{error}"
    );
    let error = config("").expect_err("empty").to_string();
    assert!(
        error.contains("`pool.cache.upstream.password` is empty"),
        "{error}"
    );
}

#[test]
fn every_problem_is_told_in_the_order_of_the_file() {
    let text =
        told("[log]\nlevel = \"loud\"\n[pool.cache]\nlisten = [\"x\"]\ncolour = 1\n[serber]\n");
    let places: Vec<_> = text
        .lines()
        .filter(|line| line.contains("a.toml:"))
        .collect();
    assert_eq!(
        places,
        [
            "  a.toml:2:9  log.level = \"loud\"",
            "  a.toml:3:1  [pool.cache]",
            "  a.toml:4:11  pool.cache.listen = \"x\"",
            "  a.toml:5:1  pool.cache.colour",
            "  a.toml:6:2  serber",
        ]
    );
    assert!(text.ends_with("help: did you mean `server`?"), "{text}");
}

#[test]
fn what_is_no_toml_is_told_by_line() {
    assert_eq!(
        told("[pool.cache]\ntimeout = 5s\nhash = md5\n"),
        "error: string values must be quoted, expected literal string\n  a.toml:2:11  timeout = 5s\n  help: put texts, durations and sizes in quotes, as in \"500ms\"\n\
         error: string values must be quoted, expected literal string\n  a.toml:3:8  hash = md5\n  help: put texts, durations and sizes in quotes, as in \"500ms\""
    );
    assert_eq!(
        told("[server]\nworkers = 1\nworkers = 2\n"),
        "error: duplicate key\n  a.toml:3:1  workers = 2\n  help: write each key once; a section's keys all go under one header"
    );
    let secret = told("[pool.cache.upstream]\npassword = \"hunter2\n");
    assert!(
        secret.contains("a.toml:2:") && !secret.contains("hunter2"),
        "{secret}"
    );
}

#[test]
fn a_nutcracker_yml_is_recognised() {
    let yml = "# pools\nalpha:\n  listen: 127.0.0.1:22121\n  redis: true\n  servers:\n   - 127.0.0.1:6379:1\n";
    let config = meant(yml);
    assert_eq!(
        config.pools.first().map(|pool| pool.name.as_str()),
        Some("alpha")
    );
    let error = parse_layout(Path::new("to.toml"), yml).expect_err("no layout");
    assert!(error.to_string().contains("a layout is wanted"), "{error}");
}

#[test]
fn a_layout_file_has_the_keys_of_a_pool() {
    let file = Path::new("to.toml");
    let spec = parse_layout(
        file,
        "hash = \"md5\"\n[[shard]]\nname = \"a\"\naddr = \"h:1\"\n",
    )
    .expect("a layout");
    assert_eq!((spec.hash, spec.shards.len()), (HashKind::Md5, 1));
    let error = parse_layout(file, "[pool.x]\n").expect_err("a config");
    assert!(
        error
            .to_string()
            .contains("this is a config, and a layout is wanted"),
        "{error}"
    );
    let error =
        parse_layout(file, "listen = [\"h:1\"]\n[[shard]]\naddr = \"h:1\"\n").expect_err("listen");
    assert_eq!(
        error.to_string(),
        "error: unknown key `listen`\n  to.toml:1:1  listen\n  help: known here: pool, hash, distribution, hash_tag, route, shard"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    let error = load(Path::new("/nowhere/a.toml")).expect_err("no file");
    assert_eq!(
        error.to_string(),
        "error: cannot read the config: No such file or directory (os error 2)\n  /nowhere/a.toml\n  help: check the path after -c"
    );
}

proptest::proptest! {
    /// Whatever is cut out of an example or typed into it, reading it ends
    /// with a config or with places that are in the file.
    #[test]
    fn no_damage_makes_reading_panic(
        cut in 0usize..4000,
        length in 0usize..40,
        typed in "[ -~\n\u{e9}]{0,6}",
    ) {
        let example = include_str!("../../configs/slots.toml");
        let (start, end) = (cut % example.len(), (cut % example.len() + length).min(example.len()));
        if let (Some(before), Some(after)) = (example.get(..start), example.get(end..)) {
            let text = format!("{before}{typed}{after}");
            let lines = text.lines().count().max(1);
            if let Err(ConfigError::Wrong(problems)) = parse(Path::new("a.toml"), &text, &|_| None) {
                assert!(!problems.is_empty());
                for problem in problems {
                    assert!((1..=lines + 1).contains(&problem.at.line), "{problem}\nin:\n{text}");
                }
            }
        }
    }
}
