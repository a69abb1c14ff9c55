//! Clients that must log in: beside a redis-server that asks for the same
//! password, and, with `redis_auth`, beside the real nutcracker. Byte by byte.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::fs;
use std::process::Command;
use std::time::Duration;

use support::keyferry::LayoutText;
use support::{
    Keyferry, Nutcracker, Process, RedisServer, Signal, Value, exchange, exchange_in_turn,
    free_port, http_get, requests, wait_until,
};

const LIMIT: Duration = Duration::from_secs(20);
const AUTH: &str = "auth = { password = \"hunter2\" }\n";
/// Its reply tells whether the client is in, and whether it is still there.
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const PONG: &[u8] = b"+PONG\r\n";
const NOAUTH: &[u8] = b"-NOAUTH Authentication required.\r\n";

fn proxy(server: &RedisServer, extra: &str) -> Keyferry {
    let layout = LayoutText::new("fnv1a_64", "ketama", &[server.address()]);
    Keyferry::start_with(&layout, 1, extra)
}

#[test]
fn strangers_hear_what_redis_says() {
    let guarded = RedisServer::start(&["--requirepass", "hunter2"]);
    let server = RedisServer::start(&[]);
    let proxy = proxy(&server, AUTH);
    let long = "x".repeat(16_384);
    let too_long = "x".repeat(16_385);
    let many = "x ".repeat(10);
    let setting = format!("SET k {too_long}");
    let passing = format!("SET k {long}");
    let pushing = format!("RPUSH k {}", many.trim_end());
    let authing = format!("AUTH {too_long}");
    let cases: &[&[&str]] = &[
        &["PING"],
        &["GET k"],
        &[
            "MGET a b",
            "KEYS *",
            "MULTI",
            "SUBSCRIBE c",
            "WATCH k",
            "BLPOP k 0",
            "EXEC",
        ],
        &[
            "CLIENT ID",
            "COMMAND",
            "INFO",
            "SELECT 1",
            "CONFIG GET requirepass",
            "ECHO x",
        ],
        &[
            "NOSUCH a b",
            "GET",
            "CLIENT NOSUCH",
            "CONFIG",
            "AUTH",
            "HELLO x",
        ],
        &["AUTH hunter2"],
        &["auth hunter2", "PING", "GET k"],
        &["AUTH default hunter2", "GET k"],
        &["AUTH nobody hunter2", "GET k"],
        &["AUTH wrong", "GET k"],
        &[
            "AUTH hunter",
            "AUTH hunter22",
            "AUTH Hunter2",
            "AUTH default wrong",
        ],
        &["AUTH a b c", "AUTH a b c d"],
        &[
            "AUTH hunter2",
            "AUTH wrong",
            "GET k",
            "AUTH nobody hunter2",
            "GET k",
        ],
        &["AUTH hunter2", "RESET", "GET k", "AUTH hunter2", "GET k"],
        &["RESET", "GET k"],
        &["HELLO", "GET k"],
        &["HELLO 3", "GET k"],
        &["HELLO 3 SETNAME x", "GET k"],
        &["HELLO 4", "HELLO 2 AUTH", "HELLO 2 AUTH default", "GET k"],
        &[
            "HELLO 2 AUTH default wrong",
            "HELLO 2 AUTH nobody hunter2",
            "GET k",
        ],
        &["HELLO 2 NOSUCH", "HELLO x AUTH default hunter2", "GET k"],
        &["HELLO 2 AUTH default hunter2 NOSUCH", "GET k"],
        &["QUIT", "GET k"],
        &["MULTI", "AUTH hunter2", "MULTI", "SET k 1", "EXEC", "DEL k"],
        &[&passing],
        &[&setting],
        &[&authing],
        &[&pushing],
        &["AUTH hunter2", &setting, &pushing, "DEL k"],
    ];
    for lines in cases {
        let bytes = requests(lines);
        // A reply for each, and whether it is in at the end: that is PING's.
        let both = [guarded.address(), proxy.address()].map(|address| {
            let whole = exchange(&address, &[&bytes], PING, PONG);
            let (name, rest) = bytes.split_at(bytes.len().min(40));
            (whole, exchange(&address, &[name, rest], PING, NOAUTH))
        });
        let shown: Vec<&str> = lines
            .iter()
            .map(|line| &line[..line.len().min(60)])
            .collect();
        assert_eq!(both[1], both[0], "{shown:?}");
    }
    for raw in [
        &b"PING\r\n"[..],
        b"AUTH hunter2\r\nPING\r\n",
        b"*10\r\n",
        b"*2\r\n$4\r\nAUTH\r\n:\r\n",
    ] {
        let both = [guarded.address(), proxy.address()]
            .map(|address| exchange(&address, &[raw], PING, NOAUTH));
        assert_eq!(both[1], both[0], "{}", raw.escape_ascii());
    }
    // What is refused before it is whole.
    for (raw, error) in [
        (&b"*11\r\n"[..], "unauthenticated multibulk length"),
        (b"*11\r\n$4\r\nAUTH\r\n", "unauthenticated multibulk length"),
        (
            b"*2\r\n$4\r\nAUTH\r\n$16385\r\n",
            "unauthenticated bulk length",
        ),
        (
            b"*2\r\n$4\r\nAUTH\r\n$16385\r\nxx",
            "unauthenticated bulk length",
        ),
        (
            b"*2\r\n$4\r\nAUTH\r\n$536870912\r\nxxxx",
            "unauthenticated bulk length",
        ),
    ] {
        let error = format!("-ERR Protocol error: {error}\r\n");
        for address in [guarded.address(), proxy.address()] {
            let told = exchange_in_turn(&address, &[raw], error.as_bytes(), PING, NOAUTH);
            assert_eq!(
                String::from_utf8_lossy(&told.said),
                error,
                "{}",
                raw.escape_ascii()
            );
            assert!(told.closed);
        }
    }
    let mut direct = server.client();
    assert_eq!(
        direct.call(&["DBSIZE"]),
        Value::Int(0),
        "nothing of a stranger got there"
    );
    // HELLO's map names the server, which we are not: only who may have it is compared.
    for (words, is_in) in [
        (
            vec!["HELLO", "3", "AUTH", "default", "hunter2", "SETNAME", "x"],
            true,
        ),
        (vec!["HELLO", "3"], false),
    ] {
        for address in [guarded.address(), proxy.address()] {
            let mut client = support::Client::connect(&address);
            assert_eq!(!client.call(&words).is_error(), is_in, "{address}");
            assert_eq!(
                client.call(&["GET", "k"]) == Value::Null,
                is_in,
                "{address}"
            );
        }
    }
}

#[test]
fn who_is_in_is_as_any_other_and_nobody_reads_the_password() {
    let server = RedisServer::start(&["--requirepass", "hunter3"]);
    let proxy = proxy(
        &server,
        "upstream = { password = \"hunter3\" }\nauth = { username = \"app\", password = \"hunter2\" }\n",
    );
    let mut client = proxy.client();
    assert!(client.call(&["AUTH", "app", "hunter3"]).is_error());
    assert!(client.call(&["AUTH", "hunter3", "hunter2"]).is_error());
    assert_eq!(client.call(&["AUTH", "app", "hunter2"]), Value::ok());
    assert_eq!(client.call(&["SET", "k", "v"]), Value::ok());
    assert_eq!(client.call(&["MULTI"]), Value::ok());
    assert_eq!(client.call(&["GET", "k"]), Value::Simple("QUEUED".into()));
    assert_eq!(client.call(&["EXEC"]), Value::Array(vec![Value::bulk("v")]));
    let large = vec![b'x'; 300_000];
    assert_eq!(
        client.call(&[b"SET".as_slice(), b"large", &large]),
        Value::ok()
    );
    assert_eq!(client.call(&["GET", "large"]), Value::Bulk(large));
    let told = client.call(&["CONFIG", "GET", "requirepass"]);
    assert_eq!(
        told,
        Value::Array(vec![Value::bulk("requirepass"), Value::bulk("")])
    );
    let mut stranger = proxy.client();
    assert!(stranger.call(&["PING"]).is_error());
    let list = client.call(&["CLIENT", "LIST"]).text();
    assert_eq!(list.lines().count(), 2);
    assert!(
        list.lines().all(|line| line.contains(" user=default ")),
        "{list}"
    );
    let info = client.call(&["INFO"]).text();
    let (_, pools) = http_get(&proxy.admin(), "/api/v1/pools").unwrap();
    let (_, metrics) = http_get(&proxy.admin(), "/metrics").unwrap();
    for text in [list, info, pools, metrics] {
        assert!(!text.contains("hunter2") && !text.contains("hunter3"));
    }
    assert_eq!(client.call(&["RESET"]), Value::Simple("RESET".into()));
    assert_eq!(
        client.call(&["GET", "k"]),
        Value::Error("NOAUTH Authentication required.".into())
    );
    assert_eq!(client.call(&["AUTH", "hunter2"]), Value::ok());
    assert_eq!(client.call(&["GET", "k"]), Value::bulk("v"));
}

#[test]
fn without_a_password_all_is_as_it_was() {
    let server = RedisServer::start(&[]);
    let proxy = proxy(&server, "");
    let mut client = proxy.client();
    assert!(client.call(&["AUTH", "x"]).is_error());
    assert_eq!(client.call(&["AUTH", "default", "x"]), Value::ok());
    assert!(client.call(&["AUTH", "nobody", "x"]).is_error());
    assert_eq!(client.call(&["SET", "k", "v"]), Value::ok());
}

#[test]
fn a_password_that_changes_is_for_those_who_come() {
    let server = RedisServer::start(&[]);
    let layout = LayoutText::new("fnv1a_64", "ketama", &[server.address()]);
    let mut proxy = Keyferry::start_with(&layout, 1, "");
    let is_in = |client: &mut support::Client| client.call(&["GET", "k"]) == Value::Null;
    let opens = |proxy: &Keyferry, password: &str| {
        let mut client = proxy.client();
        client.call(&["AUTH", password]) == Value::ok() && is_in(&mut client)
    };
    let mut early = proxy.client();
    assert!(is_in(&mut early));

    proxy.write_config(&layout, 1, AUTH);
    proxy.signal(Signal::Hup);
    wait_until("the password holds", LIMIT, || opens(&proxy, "hunter2"));
    assert!(is_in(&mut early), "who was there stays");
    let mut second = proxy.client();
    assert!(!is_in(&mut second));
    assert_eq!(second.call(&["AUTH", "hunter2"]), Value::ok());
    let mut waiting = proxy.client();
    assert!(!is_in(&mut waiting));

    // The server's changes, too: the next connection to it says the new one.
    let mut direct = server.client();
    let set = direct.call(&["CONFIG", "SET", "requirepass", "theirs"]);
    assert_eq!(set, Value::ok());
    let extra = "auth = { password = \"*****\" }\nupstream = { password = \"theirs\" }\n";
    proxy.write_config(&layout, 1, extra);
    proxy.signal(Signal::Hup);
    wait_until("the new password holds", LIMIT, || {
        let mut client = proxy.client();
        client.call(&["AUTH", "*****"]) == Value::ok()
    });
    assert!(!opens(&proxy, "hunter2"));
    assert!(is_in(&mut second), "who was in stays");
    assert!(waiting.call(&["AUTH", "hunter2"]).is_error());
    assert_eq!(waiting.call(&["AUTH", "*****"]), Value::ok());
    direct.call(&["CLIENT", "KILL", "TYPE", "normal"]);
    wait_until("connections are made anew", LIMIT, || is_in(&mut second));
    assert_eq!(second.call(&["RESET"]), Value::Simple("RESET".into()));
    assert!(second.call(&["AUTH", "hunter2"]).is_error());

    let mut left_out = proxy.client();
    assert!(!is_in(&mut left_out));
    proxy.write_config(&layout, 1, "upstream = { password = \"theirs\" }\n");
    proxy.signal(Signal::Hup);
    wait_until("nobody is asked", LIMIT, || is_in(&mut proxy.client()));
    assert!(is_in(&mut left_out), "nor who waited");
}

/// A running `keyferry run -c FILE`.
fn run(dir: &std::path::Path, file: &std::path::Path, port: u16) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyferry"));
    command.arg("run").arg("-c").arg(file);
    let mut process = Process::spawn("keyferry", "keyferry", dir, &mut command);
    wait_until("it listens", LIMIT, || {
        assert!(process.try_wait().is_none(), "{}", process.stderr());
        support::Client::try_connect(&format!("127.0.0.1:{port}")).is_ok()
    });
    process
}

#[test]
fn redis_auth_beside_the_original() {
    for password in ["hunter2", "0123", "a \\\"b"] {
        let server = RedisServer::start(&["--requirepass", password]);
        let pool = format!(
            "  redis: true\n  redis_auth: {}\n  servers:\n  - {}:1 s1\n",
            if password.contains(' ') {
                format!("'{password}'")
            } else {
                password.to_owned()
            },
            server.address()
        );
        let original = Nutcracker::start_pool(&pool);
        let dir = tempfile::tempdir().expect("a directory");
        let (port, admin) = (free_port(), free_port());
        let yml = dir.path().join("nutcracker.yml");
        fs::write(&yml, format!("alpha:\n  listen: 127.0.0.1:{port}\n{pool}")).unwrap();
        let converted = Command::new(env!("CARGO_BIN_EXE_keyferry"))
            .arg("convert")
            .arg(&yml)
            .output()
            .unwrap();
        assert!(converted.status.success());
        let text = String::from_utf8(converted.stdout).unwrap();
        assert!(text.contains("auth = { password = "), "{text}");

        let settings = |text: &str| {
            let text = text
                .replace("127.0.0.1:9180", &format!("127.0.0.1:{admin}"))
                .replace("127.0.0.1:22222", &format!("127.0.0.1:{}", free_port()));
            format!(
                "server.state_dir = \"{}\"\nserver.workers = 1\n{text}",
                dir.path().display()
            )
        };
        // As it is converted it speaks as Redis does.
        let toml = dir.path().join("redis.toml");
        fs::write(&toml, settings(&text)).unwrap();
        let ours = format!("127.0.0.1:{port}");
        let process = run(dir.path(), &toml, port);
        let mut client = support::Client::connect(&ours);
        assert_eq!(
            client.call(&["GET", "k"]),
            Value::Error("NOAUTH Authentication required.".into())
        );
        assert_eq!(client.call(&["AUTH", password]), Value::ok());
        assert_eq!(client.call(&["SET", "k", "v"]), Value::ok());
        drop(process);

        // One line makes it the original.
        assert_eq!(text.matches("compat = \"redis\"").count(), 1);
        let toml = dir.path().join("twemproxy.toml");
        fs::write(
            &toml,
            settings(&text.replace("compat = \"redis\"", "compat = \"twemproxy\"")),
        )
        .unwrap();
        let _process = run(dir.path(), &toml, port);
        let (ping, pong) = (requests(&["PING"]), b"+PONG\r\n");
        let right = {
            let mut out = Vec::new();
            support::client::encode(&mut out, &["AUTH", password]);
            out
        };
        let unclosed = requests(&[
            "PING", "GET k", "COMMAND", "MOVE k 1", "MGET a b", "DEL a b",
        ]);
        let cases: Vec<Vec<u8>> = vec![
            unclosed,
            requests(&["QUIT"]),
            requests(&["ECHO x"]),
            requests(&["GET k", "HELLO 3"]),
            requests(&["AUTH"]),
            requests(&["AUTH default x"]),
            requests(&["AUTH wrong", "GET k"]),
            right.clone(),
            [&right[..], &requests(&["GET k", "MGET k k", "PING"])].concat(),
            [
                &right[..],
                &requests(&["AUTH wrong", "GET k", "PING"]),
                &right,
                &requests(&["GET k"]),
            ]
            .concat(),
            [
                &requests(&["GET k"])[..],
                &right,
                &requests(&["GET k", "QUIT", "GET k"]),
            ]
            .concat(),
            requests(&[&format!("SET k {}", "x".repeat(20_000))]),
            requests(&["MSET 1 1 2 2 3 3 4 4 5 5 6 6 7 7 8 8"]),
        ];
        for case in cases {
            let pieces: [&[u8]; 1] = [&case];
            let both = [original.address(), ours.clone()].map(|address| {
                let open = exchange(&address, &pieces, &ping, pong);
                let out = exchange(
                    &address,
                    &pieces,
                    &ping,
                    b"-NOAUTH Authentication required\r\n",
                );
                (open, out)
            });
            assert_eq!(
                both[1],
                both[0],
                "{}",
                case[..case.len().min(200)].escape_ascii()
            );
        }
    }
}

#[test]
fn a_stranger_can_not_make_the_proxy_keep_much() {
    let server = RedisServer::start(&[]);
    let proxy = proxy(&server, &format!("compat = \"twemproxy\"\n{AUTH}"));
    let mut stranger = proxy.client();
    let mut bytes = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$500000000\r\n".to_vec();
    bytes.resize(16 * 1024 * 1024, b'x');
    let sent = stranger.try_send_raw(&bytes);
    assert!(
        sent.is_err() || stranger.try_read().is_err(),
        "it is closed"
    );
    let mut client = proxy.client();
    assert_eq!(client.call(&["AUTH", "hunter2"]), Value::ok());
    assert_eq!(client.call(&["EXISTS", "k"]), Value::Int(0));
}
