//! What is made of a nutcracker.yml, and what is told about a wrong one.

use std::path::Path;
use std::time::Duration;

use super::{is_nutcracker, parse};
use crate::config::{Config, ConfigError, to_toml};
use crate::proxy::config::Protocol;
use crate::router::layout::Layout;

const END: &str = "  servers:\n   - 127.0.0.1:6379:1\n";

fn meant(text: &str) -> Config {
    match parse(Path::new("n.yml"), text) {
        Ok(config) => config,
        Err(error) => panic!("{error}\nin:\n{text}"),
    }
}

/// What is wrong first, and where.
fn told(text: &str) -> (String, usize, usize) {
    let Err(ConfigError::Wrong(problems)) = parse(Path::new("n.yml"), text) else {
        panic!("nothing is told about:\n{text}");
    };
    let first = problems.into_iter().next().expect("a problem");
    (first.what, first.at.line, first.at.column)
}

fn pool(lines: &str) -> String {
    format!("alpha:\n  listen: 127.0.0.1:22121\n  redis: true\n{lines}{END}")
}

#[test]
fn yaml_and_toml_are_told_apart() {
    for yaml in [
        "alpha:\n",
        "# c\n\nalpha: # the first\n  a: b\n",
        "---\nalpha:\n",
        "\"alpha\":\n",
        "alpha: {a: 1}",
        "a=b:\n",
    ] {
        assert_eq!(is_nutcracker(yaml), yaml != "a=b:\n", "{yaml}");
    }
    for toml in [
        "",
        "[pool.a]\n",
        "a = \"x: y\"\n",
        "# alpha:\n",
        "pool.a.b = 1",
    ] {
        assert!(!is_nutcracker(toml), "{toml}");
    }
}

#[test]
fn the_smallest_pool_has_the_defaults_of_the_original() {
    let config = meant(&pool(""));
    let [pool] = config.pools.as_slice() else {
        panic!("one pool")
    };
    assert_eq!(pool.backlog, 512);
    assert_eq!(pool.timeouts.request, None);
    assert_eq!(pool.upstream.connections, 1);
    assert_eq!(pool.layout.hash.name(), "fnv1a_64");
    assert_eq!(pool.layout.distribution.name(), "ketama");
    assert_eq!(pool.limits.clients_max, None);
}

#[test]
fn every_key_means_what_was_typed() {
    let config = meant(
        "alpha:\n  listen: /tmp/a.sock 0600\n  hash: murmur\n  hash_tag: \"{}\"\n  distribution: modula\n  timeout: \"400\"\n  backlog: 1024\n  client_connections: 7\n  tcpkeepalive: true\n  redis: true\n  preconnect: true\n  auto_eject_hosts: true\n  server_connections: 3\n  server_retry_timeout: 2000\n  server_failure_limit: 1\n  servers:\n   - 10.0.0.1:06379:2\n   - ::1:6379:1 six\n   - /run/r.sock:3\n",
    );
    let [pool] = config.pools.as_slice() else {
        panic!("one pool")
    };
    assert_eq!(
        pool.listen.first().map(ToString::to_string).as_deref(),
        Some("unix:/tmp/a.sock?mode=0600")
    );
    assert_eq!(pool.timeouts.request, Some(Duration::from_millis(400)));
    assert_eq!(pool.upstream.connect_timeout, Duration::from_millis(400));
    assert_eq!((pool.backlog, pool.limits.clients_max), (1024, Some(7)));
    assert!(pool.upstream.preconnect);
    assert!(pool.eject.enabled);
    assert_eq!(pool.eject.failures, 1);
    assert_eq!(pool.eject.retry_after, Duration::from_secs(2));
    assert_eq!(pool.upstream.connections, 3);
    let layout = Layout::new(pool.layout.clone()).expect("a layout");
    let names: Vec<_> = layout
        .shards()
        .iter()
        .map(|shard| (shard.name.as_str(), shard.weight))
        .collect();
    assert_eq!(
        names,
        [("six", 1), ("/run/r.sock:", 3), ("10.0.0.1:06379", 2)]
    );
}

#[test]
fn wrong_values_are_told_in_the_words_of_the_original() {
    for (line, what) in [
        ("  hsah: md5\n", "directive \"hsah\" is unknown"),
        ("  redis: true\n", "directive \"redis\" is a duplicate"),
        ("  timeout: -1\n", "directive \"timeout\" is not a number"),
        ("  timeout: 4k\n", "directive \"timeout\" is not a number"),
        (
            "  preconnect: yes\n",
            "directive \"preconnect\" is not \"true\" or \"false\"",
        ),
        (
            "  hash: crc16_slot\n",
            "directive \"hash\" is not a valid hash",
        ),
        (
            "  distribution: slots\n",
            "directive \"distribution\" is not a valid distribution",
        ),
        (
            "  hash_tag: \"{\"\n",
            "directive \"hash_tag\" is not a valid hash tag string with two characters",
        ),
        ("  hash_tag: \"\"\n", "directive \"hash_tag\" has no value"),
        (
            "  server_connections: 0\n",
            "directive \"server_connections:\" cannot be 0",
        ),
        ("  redis_db: 16\n", "pool 'alpha': redis_db is not below 16"),
    ] {
        let (told, at, _) = told(&pool(line));
        assert_eq!((told.as_str(), at), (what, 4), "{line}");
    }
}

#[test]
fn wrong_servers_are_told() {
    const FORM: &str = "directive \"servers\" has an invalid \"hostname:port:weight [name]\"or \"/path/unix_socket:weight [name]\" format string";
    for (line, what) in [
        ("10.0.0.1:6379", FORM),
        ("10.0.0.1", FORM),
        ("/run/r.sock", FORM),
        ("/run/r:x.sock:1", FORM),
        (
            "h:6379:0",
            "directive \"servers\" has a zero weight in \"hostname:port:weight [name]\" format string",
        ),
        (
            "h:6379:x",
            "directive \"servers\" has an invalid weight in \"hostname:port:weight [name]\" format string",
        ),
        (
            "h:0:1",
            "directive \"servers\" has an invalid port in \"hostname:port:weight [name]\" format string",
        ),
        (
            "h:65536:1 n",
            "directive \"servers\" has an invalid port in \"hostname:port:weight [name]\" format string",
        ),
        (
            "127.0.0.1:6379:2",
            "pool 'alpha' has servers with same name '127.0.0.1:6379'",
        ),
    ] {
        let (told, at, column) = told(&pool("").replace(END, &format!("{END}   - {line}\n")));
        assert_eq!((told.as_str(), at, column), (what, 6, 6), "{line}");
    }
}

#[test]
fn wrong_listens_are_told() {
    for (line, what) in [
        (
            "localhost",
            "directive \"listen\" has an invalid \"hostname:port\" format string",
        ),
        (
            "127.0.0.1:0",
            "directive \"listen\" has an invalid port in \"hostname:port\" format string",
        ),
        (
            "/tmp/a 1000",
            "directive \"listen\" has an invalid file permission in \"socket_path permission\" format string",
        ),
    ] {
        let text = pool("").replace("127.0.0.1:22121", line);
        assert_eq!(told(&text), (what.to_owned(), 2, 11), "{line}");
    }
    assert_eq!(
        told(&format!("alpha:\n  redis: true\n{END}")).0,
        "directive \"listen:\" is missing"
    );
}

#[test]
fn wrong_shapes_are_told() {
    for (text, what) in [
        (
            "",
            "'n.yml' must contain only 1 document; found 0 documents",
        ),
        (
            "a:\n  b: c\n",
            "'n.yml' missing sequence directive at depth 2",
        ),
        ("a: b\n", "'n.yml' has invalid mapping \"key:\" at depth 1"),
        ("a\n", "'n.yml' has invalid empty \"key:\" at depth 0"),
        ("a:\n  b:\n    c: d\n", "'n.yml' has a depth greater than 2"),
        (
            "a:\n  b:\n   - c\n  d:\n   - e\n",
            "'n.yml' has more than one sequence directive",
        ),
        ("a:\n - b\n", "'n.yml' has sequence at depth 1 instead of 2"),
        (
            "---\na:\n  b: c\n",
            "document start token (5) is disallowed",
        ),
        (
            "a:\n  b: [c]\n",
            "flow sequence start token (10) is disallowed",
        ),
        (
            "a:\n  b: {}\n",
            "flow mapping start token (12) is disallowed",
        ),
        ("a:\n  b: &x c\n", "anchor token (19) is disallowed"),
        ("a:\n  b: !x c\n", "tag token (20) is disallowed"),
    ] {
        assert_eq!(told(text).0, what, "{text}");
    }
}

#[test]
fn pools_that_cannot_stand_together_are_told() {
    let two = |name: &str, listen: &str| {
        let second = pool("")
            .replace("alpha", name)
            .replace("127.0.0.1:22121", listen);
        told(&(pool("") + &second)).0
    };
    assert_eq!(
        two("beta", "127.0.0.1:22121"),
        "pools 'alpha' and 'beta' have the same listen address '127.0.0.1:22121'"
    );
    assert_eq!(
        two("alpha", "127.0.0.1:1"),
        "'n.yml' has pools with same name alpha'"
    );
    assert_eq!(
        two("beta", "0.0.0.0:22121"),
        "pools 'alpha' and 'beta' listen on the same address 0.0.0.0:22121"
    );
}

#[test]
fn pools_are_of_memcacheds_by_default() {
    for redis in ["", "  redis: false\n"] {
        // As in the original a database is read and means nothing there.
        let text = pool("  redis_db: 3\n").replace("  redis: true\n", redis);
        let config = meant(&text);
        assert_eq!(config.pools[0].protocol, Protocol::Memcached, "{redis}");
        assert_eq!(config.pools[0].database, 0);
        let toml = to_toml(&config).expect("its TOML");
        assert!(toml.contains("\nprotocol = \"memcached\"\n"), "{toml}");
    }
    let redis = meant(&pool(""));
    assert_eq!(redis.pools[0].protocol, Protocol::Redis);
    assert!(!to_toml(&redis).expect("its TOML").contains("protocol"));
    let (what, ..) = told(&pool("  redis_auth: x\n").replace("  redis: true\n", ""));
    assert_eq!(
        what,
        "directive \"redis_auth:\" is only valid for a redis pool"
    );
}

#[test]
fn passwords_are_meant_and_not_printed() {
    let lines = "  redis_auth: hunter2\n";
    let config = parse(Path::new("n.yml"), &pool(lines)).expect(lines);
    let (auth, said) = (&config.pools[0].auth, &config.pools[0].upstream.credentials);
    assert_eq!(auth, said, "clients say what we say to the servers");
    let auth = auth.as_ref().expect("a password");
    assert!(auth.password.is(b"hunter2") && auth.username.is_none());
    assert!(!format!("{config:?}").contains("hunter2"));
    for lines in [
        "  redis_aut: hunter2\n",
        "  redis_auth: a\n  redis_auth: hunter2\n",
    ] {
        let error = parse(Path::new("n.yml"), &pool(lines)).expect_err(lines);
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}
