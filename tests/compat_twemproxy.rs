//! `compat = "twemproxy"`: raw bytes to the real nutcracker and to a pool of ours
//! in front of the same servers. What they say, whether they close, and what is
//! then on which server must be equal; where it is not, the difference stands in
//! `deviations_are_as_they_are_told` with its reason.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use keyferry::router::commands;
use support::keyferry::LayoutText;
use support::{
    Keyferry, Nutcracker, Outcome, RedisServer, Signal, Value, exchange, exchange_in_turn,
    free_port, requests, wait_until,
};

const LIMIT: Duration = Duration::from_secs(20);
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const PONG: &[u8] = b"+PONG\r\n";

/// The original and ours, in front of the same servers `s1`, `s2`...
struct Both {
    original: Nutcracker,
    ours: Keyferry,
}

impl Both {
    /// `yml` are more lines of the original's pool, `toml` of ours.
    fn start(addresses: &[String], yml: &str, toml: &str) -> Both {
        let servers: String = (1..)
            .zip(addresses)
            .map(|(number, address)| format!("  - {address}:1 s{number}\n"))
            .collect();
        let original = Nutcracker::start_pool(&format!(
            "  hash: fnv1a_64\n  distribution: ketama\n  redis: true\n{yml}  servers:\n{servers}"
        ));
        let layout = LayoutText::new("fnv1a_64", "ketama", addresses);
        let toml = format!("compat = \"twemproxy\"\n{toml}");
        let ours = Keyferry::start_with(&layout, 1, &toml);
        Both { original, ours }
    }

    fn outcomes(&self, pieces: &[&[u8]]) -> (Outcome, Outcome) {
        let of = |address: String| exchange(&address, pieces, PING, PONG);
        (of(self.original.address()), of(self.ours.address()))
    }

    /// Both say `error` to a request; whether they close is told after that, as
    /// the original drops what comes behind.
    fn assert_error(&self, what: &str, request: &[u8], error: &str) -> Outcome {
        let until = error.as_bytes();
        let [theirs, ours] = [self.original.address(), self.ours.address()]
            .map(|address| exchange_in_turn(&address, &[request], until, PING, PONG));
        assert_eq!(ours, theirs, "{what}");
        assert_eq!(String::from_utf8_lossy(&ours.said), error, "{what}");
        ours
    }

    fn assert_equal(&self, what: &str, pieces: &[&[u8]]) -> Outcome {
        let (theirs, ours) = self.outcomes(pieces);
        assert_eq!(ours, theirs, "{what}");
        ours
    }
}

/// Two servers, and both proxies in front of them.
struct World {
    servers: Vec<RedisServer>,
    both: Both,
}

impl World {
    fn start() -> World {
        let servers = RedisServer::start_many(2, &[]);
        let addresses: Vec<String> = servers.iter().map(RedisServer::address).collect();
        let both = Both::start(&addresses, "", "");
        World { servers, both }
    }

    fn flush(&self) {
        for server in &self.servers {
            assert_eq!(server.client().call(&["FLUSHALL"]), Value::ok());
        }
    }

    /// Every key of each server with its value as DUMP has it.
    fn contents(&self) -> Vec<Vec<(Vec<u8>, Value)>> {
        let of = |server: &RedisServer| {
            let mut client = server.client();
            let keys = client.call(&["KEYS", "*"]);
            let mut keys: Vec<Vec<u8>> = keys
                .items()
                .iter()
                .map(|key| key.bytes().to_vec())
                .collect();
            keys.sort();
            let dump = |key: Vec<u8>| {
                let value = client.call(&[b"DUMP".as_slice(), &key]);
                (key, value)
            };
            keys.into_iter().map(dump).collect()
        };
        self.servers.iter().map(of).collect()
    }

    /// Runs the same exchanges through each, from empty servers, and compares.
    fn assert_same(&self, what: &str, exchanges: &[Vec<&[u8]>]) -> Vec<Outcome> {
        let run = |address: String| {
            self.flush();
            let outcomes: Vec<Outcome> = exchanges
                .iter()
                .map(|pieces| exchange(&address, pieces, PING, PONG))
                .collect();
            // What a client that was closed sent may be under way: it is before this.
            let names: Vec<String> = (0..20).map(|number| format!("GET b{number}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let settled = exchange(&address, &[&requests(&names)], PING, PONG);
            assert_eq!(settled.said, b"$-1\r\n".repeat(names.len()));
            (outcomes, self.contents())
        };
        let theirs = run(self.both.original.address());
        let ours = run(self.both.ours.address());
        assert_eq!(ours, theirs, "{what}");
        ours.0
    }
}

/// The words that stand in `docs/twemproxy.md` and the tables of Redis, and some
/// that are in neither.
fn names() -> BTreeSet<String> {
    let mut names: BTreeSet<String> = commands::all()
        .iter()
        .map(|command| command.name.to_owned())
        .collect();
    names.extend(["nosuchcommand", "gets", "stralgo", "xx", "a", "bitopx"].map(str::to_owned));
    names
}

#[test]
fn every_name_with_every_number_of_arguments() {
    const ARGUMENTS_MAX: usize = 6;
    let world = World::start();
    let mut accepted = 0;
    for name in names() {
        let asked: Vec<Vec<u8>> = (0..=ARGUMENTS_MAX)
            .map(|count| {
                // As a time to live it outlasts the test.
                let line = [name.as_str()].into_iter().chain(["100000"; ARGUMENTS_MAX]);
                let words: Vec<&str> = line.take(count + 1).collect();
                requests(&[&words.join(" ")])
            })
            .collect();
        let exchanges: Vec<Vec<&[u8]>> = asked.iter().map(|request| vec![&request[..]]).collect();
        let outcomes = world.assert_same(&name, &exchanges);
        let is_taken = outcomes.iter().any(|outcome| !outcome.closed);
        accepted += usize::from(is_taken);
    }
    // Of the 137 names, QUIT and MOVE close, and an EVAL is not tried without a key.
    assert_eq!(accepted, 135);
}

#[test]
fn framing_and_what_is_lost_or_kept_at_the_end() {
    let world = World::start();
    let set_get = requests(&["SET k v", "GET k"]);
    let get_bad = requests(&["SET k v", "GET k", "ECHO x"]);
    let get_quit_more = requests(&["SET k v", "GET k", "QUIT", "SET k w"]);
    let ping_bad = requests(&["PING", "FLUSHALL"]);
    let bad_set = requests(&["SELECT 1", "SET k v"]);
    let mixed = requests(&[
        "PING", "SET a 1", "PING", "MGET a b", "INCR a", "AUTH x", "PING",
    ]);
    let hello = requests(&["HELLO 3"]);
    let cases: Vec<(&str, Vec<&[u8]>)> = vec![
        ("nothing", vec![]),
        ("two requests", vec![&set_get]),
        ("all kinds, in order", vec![&mixed]),
        ("what was not answered is lost, and done", vec![&get_bad]),
        ("even a reply of the proxy's own", vec![&ping_bad]),
        ("what follows is not done", vec![&bad_set]),
        ("QUIT: what is owed, and no more", vec![&get_quit_more]),
        ("HELLO", vec![&hello]),
        ("lower case", vec![b"*2\r\n$3\r\nget\r\n$1\r\nk\r\n"]),
        ("mixed case", vec![b"*2\r\n$3\r\ngEt\r\n$1\r\nk\r\n"]),
        ("an inline command", vec![b"GET k\r\n"]),
        ("one letter of it", vec![b"G", b"ET k\r\n"]),
        ("an empty line", vec![b"\r\n"]),
        ("after a request", vec![b"*1\r\n$4\r\nPING\r\n\r\n"]),
        ("no arguments", vec![b"*0\r\n"]),
        ("less than none", vec![b"*-1\r\n"]),
        ("no number of arguments", vec![b"*\r\n"]),
        ("not a number", vec![b"*x\r\n"]),
        ("a null name", vec![b"*1\r\n$-1\r\n"]),
        ("an empty name", vec![b"*1\r\n$0\r\n\r\n"]),
        ("a null key", vec![b"*2\r\n$3\r\nGET\r\n$-1\r\n"]),
        ("no dollar", vec![b"*1\r\n:4\r\nPING\r\n"]),
        ("too short a length", vec![b"*1\r\n$3\r\nPING\r\n"]),
        ("too long a length", vec![b"*1\r\n$5\r\nPING\r\n*1\r\n"]),
        ("LF alone", vec![b"*1\n$4\nPING\n"]),
        (
            "an empty key",
            vec![b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$1\r\nv\r\n"],
        ),
        (
            "an empty value",
            vec![b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n"],
        ),
        (
            "bytes",
            vec![b"*3\r\n$3\r\nSET\r\n$2\r\n\r\n\r\n$2\r\n\x00\xff\r\n"],
        ),
        (
            "in pieces",
            vec![b"*2\r\n$3", b"\r\nGE", b"T\r\n$1\r\n", b"k\r", b"\n"],
        ),
        (
            "a bad name, the rest to come",
            vec![b"*2\r\n$4\r\nECHO\r\n", b"$1\r\nx\r\n"],
        ),
        (
            "too many, the rest to come",
            vec![b"*3\r\n$3\r\nGET\r\n$1\r\nk\r\n", b"$1\r\nx\r\n"],
        ),
        (
            "PING with words, the rest to come",
            vec![b"*2\r\n$4\r\nPING\r\n", b"$1\r\nx\r\n"],
        ),
        (
            "MSET without a value",
            vec![
                b"*4\r\n$4\r\nMSET\r\n$1\r\na\r\n",
                b"$1\r\nb\r\n$1\r\nc\r\n",
            ],
        ),
    ];
    for (what, pieces) in cases {
        let tried = world.assert_same(what, &[pieces]);
        assert_eq!(tried.len(), 1);
    }
}

#[test]
fn keys_have_a_longest_length() {
    let world = World::start();
    for (length, closes) in [(16_335, false), (16_336, true), (70_000, true)] {
        let key = "k".repeat(length);
        for line in [
            format!("SET {key} v"),
            format!("GET {key}"),
            format!("MGET a {key}"),
            format!("MSET a 1 {key} 2"),
            format!("DEL {key}"),
            format!("EVAL x 1 {key}"),
        ] {
            let request = requests(&[&line]);
            let word = line.split(' ').next().unwrap();
            let outcomes = world.assert_same(&format!("{word} {length}"), &[vec![&request]]);
            assert_eq!(outcomes[0].closed, closes, "{word} {length}");
        }
    }
    let value = "v".repeat(1_000_000);
    let large = requests(&[&format!("SET k {value}"), "STRLEN k", "GET k"]);
    let outcomes = world.assert_same("a large value", &[vec![&large]]);
    assert!(outcomes[0].said.len() > value.len());
}

#[test]
fn requests_go_where_their_first_key_is() {
    let world = World::start();
    let fill: Vec<String> = (0..40)
        .flat_map(|number| {
            [
                format!("SET k{number} v{number}"),
                format!("SADD set{number} {number} x y"),
                format!("ZADD z{number} 1 a {number} b"),
                format!("RPUSH l{number} a b c"),
            ]
        })
        .collect();
    let across: Vec<String> = (0..40)
        .flat_map(|number| {
            let other = (number + 1) % 40;
            [
                format!("MGET k{number} k{other} nothing k{number}"),
                format!("SINTER set{number} set{other}"),
                format!("SUNIONSTORE to{number} set{number} set{other}"),
                format!("SMOVE set{number} set{other} x"),
                format!("RPOPLPUSH l{number} l{other}"),
                format!("LMOVE l{number} l{other} LEFT RIGHT"),
                format!("COPY k{number} copy{other}"),
                format!("EXISTS k{number} k{other} k{number}"),
                format!("PFADD hll{number} a b"),
                format!("PFCOUNT hll{number} hll{other}"),
                format!("ZUNIONSTORE zto{number} 2 z{number} z{other}"),
                format!("ZUNION 2 z{number} z{other}"),
                format!("ZINTER 2 z{number} z{other} WITHSCORES"),
                format!("ZDIFF 1 z{number}"),
                format!("ZRANGESTORE zr{number} z{other} 0 -1"),
                format!("SORT l{number} ALPHA STORE sorted{other}"),
                format!("EVAL return{{KEYS[1],KEYS[2],ARGV[1]}} 2 k{number} k{other} x"),
                format!("EVAL return{{KEYS[1],ARGV[1]}} 1 k{number} x"),
                format!("TOUCH k{number} k{other} nothing"),
                format!("UNLINK copy{number} copy{other}"),
                format!("MSET m{number} 1 m{other} 2 m{number} 3"),
                format!("DEL m{number}"),
                format!("DEL k{number} k{number} l{other}"),
            ]
        })
        .collect();
    let of = |lines: &[String]| requests(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let (fill, across) = (of(&fill), of(&across));
    let command = requests(&["COMMAND", "LOLWUT", "LOLWUT x y"]);
    let outcomes = world.assert_same(
        "across servers",
        &[vec![&fill], vec![&across], vec![&command]],
    );
    assert!(outcomes.iter().all(|outcome| !outcome.closed));
    let server = |name: &str| {
        let all = world.contents();
        all.iter()
            .position(|keys| keys.iter().any(|(key, _)| key == name.as_bytes()))
    };
    let spread: BTreeSet<_> = (0..40)
        .map(|number| server(&format!("z{number}")))
        .collect();
    assert_eq!(spread.len(), 2, "both servers have keys");
}

#[test]
fn errors_of_servers_and_of_fragments() {
    let world = World::start();
    let mut wrong_type: Vec<String> = vec!["LPUSH list a".into(), "SET k v".into()];
    wrong_type.extend((0..20).map(|number| format!("GET list{number}")));
    wrong_type.extend(
        [
            "INCR k",
            "GET list",
            "MGET list k",
            "EVALSHA f 1 k",
            "RESTORE k 0 x",
        ]
        .map(str::to_owned),
    );
    let lines: Vec<&str> = wrong_type.iter().map(String::as_str).collect();
    world.assert_same("errors pass", &[vec![&requests(&lines)]]);

    let full = |on: bool| {
        for server in &world.servers {
            let bytes = if on { "1" } else { "0" };
            let set = server.client().call(&["CONFIG", "SET", "maxmemory", bytes]);
            assert_eq!(set, Value::ok());
        }
    };
    full(true);
    for lines in [
        vec!["SET k v"],
        vec!["MSET a 1 b 2 c 3 d 4"],
        vec!["MSET a 1"],
        vec!["DEL a b c d", "PING"],
    ] {
        let request = requests(&lines);
        let outcome = world.both.assert_equal(&lines.join("; "), &[&request]);
        assert!(!outcome.closed);
    }
    full(false);
}

/// A server that answers each read by these bytes, or closes.
fn fake(answer: Option<&'static [u8]>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(1..) = stream.read(&mut buffer) {
                    match answer {
                        Some(bytes) if stream.write_all(bytes).is_ok() => {}
                        _ => return,
                    }
                }
            });
        }
    });
    address
}

const AGAIN: &[&str] = &["GET a"];
const FAN_OUT: [&[&str]; 5] = [
    &["MGET a b"],
    &["DEL a b"],
    &["UNLINK a b"],
    &["TOUCH a b"],
    &["MSET a 1 b 2"],
];

#[test]
fn servers_that_fail() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let nobody = format!("127.0.0.1:{}", free_port());
    let timeout = (
        "  timeout: 300\n",
        "timeout = { connect = \"300ms\", request = \"300ms\" }\n",
    );
    for (what, address, (yml, toml), text) in [
        ("nobody listens", nobody, ("", ""), "Connection refused"),
        ("it closes", fake(None), ("", ""), "unknown"),
        (
            "it is silent",
            silent.local_addr().unwrap().to_string(),
            timeout,
            "Connection timed out",
        ),
        (
            "it says what is no reply",
            fake(Some(b"?\r\n")),
            ("", ""),
            "Invalid argument",
        ),
        (
            "it loads",
            fake(Some(b"-LOADING Redis is loading\r\n")),
            ("", ""),
            "Invalid argument",
        ),
        (
            "it is busy",
            fake(Some(b"-BUSY running a script\r\n")),
            ("", ""),
            "Invalid argument",
        ),
        (
            "it has no address",
            "no-such-host.invalid:6379".to_owned(),
            ("", ""),
            "Host is down",
        ),
    ] {
        let both = Both::start(&[address], yml, toml);
        let has_address = text != "Host is down";
        for lines in FAN_OUT.into_iter().chain([AGAIN]) {
            if lines == FAN_OUT[0] && !has_address {
                continue; // see `deviations_are_as_they_are_told`
            }
            let request = requests(lines);
            let error = format!("-ERR {text}\r\n");
            let outcome = both.assert_error(&format!("{what}: {lines:?}"), &request, &error);
            let is_mget = lines == FAN_OUT[0];
            assert_eq!(outcome.closed, is_mget, "{what}: {lines:?}");
        }
    }
    // These pass.
    for answer in [
        &b"-BUSYKEY x\r\n"[..],
        b"-NOAUTH x\r\n",
        b"-MISCONF x\r\n",
        b"-OOMX x\r\n",
    ] {
        let both = Both::start(&[fake(Some(answer))], "", "");
        let outcome = both.assert_equal("an error", &[&requests(AGAIN)]);
        assert_eq!(outcome.said, answer);
    }
    let both = Both::start(
        &[fake(Some(b"-NOAUTH Authentication required.\r\n"))],
        "",
        "",
    );
    for lines in FAN_OUT {
        let outcome = both.assert_equal("a fragment's error", &[&requests(lines)]);
        assert_eq!(outcome.said, b"-ERR Invalid argument\r\n");
        assert!(!outcome.closed);
    }
}

#[test]
fn one_of_two_servers_is_down() {
    let server = RedisServer::start(&[]);
    let both = Both::start(
        &[server.address(), format!("127.0.0.1:{}", free_port())],
        "",
        "",
    );
    let names: Vec<String> = (0..20).map(|number| format!("key-{number}")).collect();
    let alone: Vec<Outcome> = names
        .iter()
        .map(|name| both.assert_equal(name, &[&requests(&[&format!("GET {name}")])]))
        .collect();
    let failed = alone
        .iter()
        .filter(|outcome| outcome.said.starts_with(b"-"));
    let failed = failed.count();
    assert!(failed > 0 && failed < names.len(), "{alone:?}");
    for word in ["MGET", "DEL", "TOUCH"] {
        let request = requests(&[&format!("{word} {}", names.join(" "))]);
        let outcome = both.assert_error(word, &request, "-ERR Connection refused\r\n");
        assert_eq!(outcome.closed, word == "MGET");
    }
}

#[test]
fn databases_are_where_the_original_puts_them() {
    let dir = tempfile::tempdir().expect("a directory");
    for (what, arguments, auth, expected) in [
        ("a plain server", vec![], "", 3),
        (
            "with a password that clients say",
            vec!["--requirepass", "pw"],
            "pw",
            0,
        ),
        ("a password that the server has not", vec![], "pw", 3),
    ] {
        let socket = dir.path().join(format!("{}.sock", what.len()));
        let socket = socket.to_str().unwrap().to_owned();
        let mut arguments = arguments;
        arguments.extend(["--unixsocket", &socket]);
        let server = RedisServer::start(&arguments);
        for (address, expected) in [(server.address(), expected), (socket.clone(), 0)] {
            let mut yml = "  redis_db: 3\n".to_owned();
            let mut toml = "database = 3\n".to_owned();
            if !auth.is_empty() {
                yml.push_str(&format!("  redis_auth: {auth}\n"));
                toml.push_str(&format!(
                    "auth = {{ password = \"{auth}\" }}\nupstream = {{ password = \"{auth}\" }}\n"
                ));
            }
            let line = format!("  servers:\n  - {address}:1 s1\n");
            let original = Nutcracker::start_pool(&format!("  redis: true\n{yml}{line}"));
            let shard = match address.starts_with('/') {
                true => format!("unix:{address}"),
                false => address.clone(),
            };
            let toml = format!("compat = \"twemproxy\"\n{toml}");
            let layout = LayoutText::new("fnv1a_64", "ketama", &[shard]);
            let ours = Keyferry::start_with(&layout, 1, &toml);
            let mut databases = Vec::new();
            for proxy in [original.address(), ours.address()] {
                let mut lines = vec![];
                let login = format!("AUTH {auth}");
                if !auth.is_empty() {
                    lines.push(login.as_str());
                }
                lines.push("SET k v");
                let outcome = exchange(&proxy, &[&requests(&lines)], PING, PONG);
                assert!(outcome.said.ends_with(b"+OK\r\n"), "{what} {outcome:?}");
                let mut direct = server.client();
                let found = (0..16).find(|database| {
                    assert_eq!(direct.call(&["SELECT", &database.to_string()]), Value::ok());
                    direct.call(&["DEL", "k"]) == Value::Int(1)
                });
                databases.push(found);
            }
            assert_eq!(
                databases,
                [Some(expected), Some(expected)],
                "{what} {address}"
            );
        }
    }
}

/// What is not taken that the original forwards, and why.
const NOT_TAKEN: [(&str, &str, &[u8]); 2] = [
    (
        "lengths with leading zeros",
        "Redis refuses them, and closes the connection that all clients share",
        b"*02\r\n$3\r\nGET\r\n$1\r\nk\r\n",
    ),
    (
        "a key's length without digits",
        "the same",
        b"*2\r\n$3\r\nGET\r\n$\r\n\r\n",
    ),
];

/// `docs/twemproxy.md` tells of the same.
#[test]
fn deviations_are_as_they_are_told() {
    for (what, why, request) in NOT_TAKEN {
        let world = World::start();
        let (theirs, ours) = world.both.outcomes(&[request]);
        assert!(
            theirs.said.starts_with(b"-ERR ") && !theirs.closed,
            "{what}: {theirs:?}"
        );
        assert!(
            ours.said.is_empty() && ours.closed,
            "{what}: {why}: {ours:?}"
        );
    }
    let world = World::start();
    // What else is under way when a server says -OOM: the original closes its
    // connection, so that one full server fails the requests of all clients.
    for server in &world.servers {
        let set = server.client().call(&["CONFIG", "SET", "maxmemory", "1"]);
        assert_eq!(set, Value::ok());
    }
    let (theirs, ours) = world.both.outcomes(&[&requests(&["SET k v", "GET k"])]);
    let hidden = "-ERR Invalid argument\r\n";
    assert_eq!(String::from_utf8_lossy(&theirs.said), hidden.repeat(2));
    assert_eq!(
        String::from_utf8_lossy(&ours.said),
        format!("{hidden}$-1\r\n")
    );
    // What is behind an MGET that a server failed is answered, and then it closes; by
    // the original it is, or is not.
    let both = Both::start(&[fake(None)], "", "");
    let behind = requests(&["MGET a b", "PING"]);
    for _ in 0..8 {
        let ours = exchange(&both.ours.address(), &[&behind], b"", b"+PONG\r\n");
        assert_eq!(String::from_utf8_lossy(&ours.said), "-ERR unknown\r\n");
        assert!(!ours.closed, "{ours:?}");
    }
    // An MGET to a host without an address: the original closes before it says so.
    let both = Both::start(&["no-such-host.invalid:6379".to_owned()], "", "");
    let (theirs, ours) = both.outcomes(&[&requests(&["MGET a b"])]);
    assert!(theirs.said.is_empty() && theirs.closed);
    assert_eq!(String::from_utf8_lossy(&ours.said), "-ERR Host is down\r\n");
}

#[test]
fn a_reload_changes_the_habits_of_those_who_are_there() {
    let server = RedisServer::start(&[]);
    let layout = LayoutText::new("fnv1a_64", "ketama", &[server.address()]);
    let mut proxy = Keyferry::start_with(&layout, 1, "");
    let mut half = proxy.client();
    half.send_raw(b"*2\r\n$4\r\nECHO\r\n");
    let mut other = proxy.client();
    assert!(other.call(&["NOSUCH"]).is_error());
    let mut queue = proxy.client();
    assert_eq!(queue.call(&["MULTI"]), Value::ok());

    proxy.write_config(&layout, 1, "compat = \"twemproxy\"\n");
    proxy.signal(Signal::Hup);
    let is_original = |proxy: &Keyferry| {
        let said = exchange(&proxy.address(), &[&requests(&["ECHO x"])], PING, PONG);
        said.closed
    };
    wait_until("it closes", LIMIT, || is_original(&proxy));
    half.send_raw(b"$1\r\nx\r\n");
    assert!(
        half.try_read().is_err(),
        "half a request is seen as the other half"
    );
    assert!(other.try_call(&["NOSUCH"]).is_err());
    assert!(queue.try_call(&["EXEC"]).is_err());
    let mut third = proxy.client();
    assert_eq!(third.call(&["SET", "k", "v"]), Value::ok());

    proxy.write_config(&layout, 1, "");
    proxy.signal(Signal::Hup);
    wait_until("it does not close", LIMIT, || !is_original(&proxy));
    assert_eq!(third.call(&["ECHO", "x"]), Value::bulk("x"));
    assert_eq!(third.call(&["GET", "k"]), Value::bulk("v"));
}
