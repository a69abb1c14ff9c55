//! How connections spread over the workers of a real `keyferry run`: the kernel
//! gives them out by a hash, or for a Unix socket to whoever wakes first, and
//! the workers even that out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use support::client::encode;
use support::keyferry::{Keyferry, LayoutText};
use support::process::Signal;
use support::{Client, RedisServer, Value, http_get, seeded, wait_for, wait_until};

const LIMIT: Duration = Duration::from_secs(20);
const WORKERS: u32 = 4;
const CONNECTIONS: usize = 50;
/// Most clients of a worker, as a multiple of the mean.
const SKEW_MAX: f64 = 1.25;

fn start(servers: &[RedisServer]) -> (Keyferry, LayoutText) {
    let addresses: Vec<_> = servers.iter().map(RedisServer::address).collect();
    let layout = LayoutText::new("fnv1a_64", "ketama", &addresses);
    (Keyferry::start_with(&layout, WORKERS, ""), layout)
}

/// Clients of each worker of `pool`, in the order of the workers.
fn of_workers(proxy: &Keyferry, pool: &str) -> Vec<u64> {
    let (status, text) = http_get(&proxy.admin(), "/metrics").expect("metrics");
    assert_eq!(status, 200, "{text}");
    let prefix = format!("keyferry_worker_clients{{pool=\"{pool}\",worker=\"");
    let workers: BTreeMap<u64, u64> = text
        .lines()
        .filter_map(|line| {
            let (worker, clients) = line.strip_prefix(&prefix)?.split_once("\"} ")?;
            Some((worker.parse().unwrap(), clients.parse().unwrap()))
        })
        .collect();
    workers.into_values().collect()
}

fn assert_even(proxy: &Keyferry, pool: &str) {
    let clients = of_workers(proxy, pool);
    assert_eq!(clients.len(), WORKERS as usize, "{clients:?}");
    assert_eq!(
        clients.iter().sum::<u64>(),
        CONNECTIONS as u64,
        "{clients:?}"
    );
    let most = *clients.iter().max().unwrap() as f64;
    let mean = CONNECTIONS as f64 / f64::from(WORKERS);
    assert!(
        most / mean <= SKEW_MAX,
        "{clients:?}: {:.2} times the mean",
        most / mean
    );
}

/// Every client is served, and gets the value it wrote itself.
fn assert_served(clients: &mut [Client]) {
    for (index, client) in clients.iter_mut().enumerate() {
        let (key, value) = (format!("key-{index}"), format!("value-{index}"));
        let replies = client.pipeline(&[
            vec!["PING"],
            vec!["SET", key.as_str(), value.as_str()],
            vec!["GET", key.as_str()],
        ]);
        let expected = [
            Value::Simple("PONG".into()),
            Value::ok(),
            Value::bulk(&value),
        ];
        assert_eq!(replies, expected);
    }
}

#[test]
fn fifty_connections_spread_over_four_workers() {
    let servers = RedisServer::start_many(2, &[]);
    let (proxy, _) = start(&servers);
    let mut random = seeded("fifty_connections");
    // The kernel finishes connections before anyone accepts them: a burst.
    let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| proxy.client()).collect();
    assert_served(&mut clients);
    assert_even(&proxy, Keyferry::POOL);
    assert!(
        proxy.metric("keyferry_clients_handed_over_total") > 0.0,
        "a hash does not spread {CONNECTIONS} connections evenly by itself"
    );

    for _ in 0..3 {
        random.shuffle(&mut clients);
        clients.truncate(CONNECTIONS - 30);
        wait_until("30 are closed", LIMIT, || {
            of_workers(&proxy, Keyferry::POOL).iter().sum::<u64>() == CONNECTIONS as u64 - 30
        });
        assert_served(&mut clients); // in a later turn than the closes
        clients.extend((0..30).map(|_| proxy.client()));
        assert_served(&mut clients);
        assert_even(&proxy, Keyferry::POOL);
    }
}

fn call_unix(stream: &mut UnixStream, args: &[&str], expected: &str) {
    let mut request = Vec::new();
    encode(&mut request, args);
    stream.write_all(&request).expect("written");
    let mut reply = vec![0; expected.len()];
    stream.read_exact(&mut reply).expect("a reply");
    assert_eq!(String::from_utf8_lossy(&reply), expected);
}

fn connect_unix(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("connected");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    stream
}

#[test]
fn a_unix_socket_of_a_pool_that_came_by_a_reload_spreads_too() {
    let servers = RedisServer::start_many(1, &[]);
    let (mut proxy, layout) = start(&servers);
    // The clients of one pool leave the spread of another alone.
    let mut others: Vec<_> = (0..7).map(|_| proxy.client()).collect();
    assert_served(&mut others);

    let path = proxy.dir().join("local.sock");
    let first = fs::read_to_string(proxy.config()).expect("the config");
    let listen = format!("unix:{}", path.display());
    let both = first.clone() + &layout.to_pool("local", &listen, "");
    fs::write(proxy.config(), both).expect("written");
    proxy.signal(Signal::Hup);
    wait_until("the pool is there", LIMIT, || {
        proxy.metric("keyferry_config_reloads_total") == 1.0
    });

    let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| connect_unix(&path)).collect();
    for client in &mut clients {
        call_unix(client, &["PING"], "+PONG\r\n");
        call_unix(client, &["SET", "k", "value"], "+OK\r\n");
        call_unix(client, &["GET", "k"], "$5\r\nvalue\r\n");
    }
    assert_even(&proxy, "local");

    fs::write(proxy.config(), first).expect("written");
    proxy.signal(Signal::Hup);
    for client in &mut clients {
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).expect("closed");
        assert!(rest.is_empty(), "{}", rest.escape_ascii());
    }
    assert_served(&mut others);
}

#[test]
fn max_clients_is_exact_after_clients_came_and_went() {
    const CLIENTS_MAX: usize = 20;
    const CHURNERS: usize = 4;
    const ROUNDS: usize = 100;
    let servers = RedisServer::start_many(1, &[]);
    let (mut proxy, _) = start(&servers);
    let text = fs::read_to_string(proxy.config()).expect("the config");
    let limited = format!("[server]\nmax_clients = {CLIENTS_MAX}");
    fs::write(proxy.config(), text.replace("[server]", &limited)).expect("written");
    proxy.launch();

    let pong = Value::Simple("PONG".into());
    let is_served =
        |client: &mut Client| client.try_call(&["PING"]).is_ok_and(|reply| reply == pong);
    std::thread::scope(|scope| {
        for _ in 0..CHURNERS {
            scope.spawn(|| {
                let served = (0..ROUNDS).filter(|_| {
                    // The second leaves at once, maybe before it is accepted.
                    let mut pair = [proxy.client(), proxy.client()];
                    is_served(&mut pair[0])
                });
                assert!(served.count() > 0, "none of {ROUNDS} was served");
            });
        }
    });

    for _ in 0..3 {
        let clients = wait_for("every place is free again", LIMIT, || {
            let mut clients: Vec<_> = (0..CLIENTS_MAX).map(|_| proxy.client()).collect();
            clients.iter_mut().all(is_served).then_some(clients)
        });
        for _ in 0..WORKERS {
            let refused = proxy.client().read();
            assert_eq!(
                refused,
                Value::Error("ERR max number of clients reached".into())
            );
        }
        let total = of_workers(&proxy, Keyferry::POOL).iter().sum::<u64>();
        assert_eq!(total, CLIENTS_MAX as u64);
        drop(clients);
    }
}
