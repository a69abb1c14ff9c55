//! Every key lands where the original puts it: 100,000 random binary keys for
//! each of the 12 hashes with ketama and with modula are SET through the real
//! `nutcracker`, then found on the server that `Layout::owner` names.
//!
//! The 24 pools differ in number of servers, weights, names (explicit, by
//! address, by socket path) and hash tags. With a million keys for each:
//!
//! ```text
//! KEYFERRY_PLACEMENT_KEYS=1000000 cargo test --test nutcracker_placement -- --nocapture
//! ```

#![allow(
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::collections::HashSet;
use std::env;

use keyferry::router::hash::HashKind;
use keyferry::router::layout::Layout;
use keyferry::router::spec::{DistributionKind, LayoutSpec, ShardSpec};
use support::client::encode;
use support::{Client, Nutcracker, RedisServer, Value, seeded};

/// Keys of each pool, unless the variable says otherwise.
const KEYS: usize = 100_000;
const KEYS_VARIABLE: &str = "KEYFERRY_PLACEMENT_KEYS";
/// SETs on their way at once.
const BATCH: usize = 1_000;
/// Position of the server that listens on a socket path, too.
const BY_SOCKET: usize = 0;

#[test]
fn keys_land_where_nutcracker_puts_them() {
    let mut random = seeded("keys_land_where_nutcracker_puts_them");
    let count = match env::var(KEYS_VARIABLE) {
        Ok(text) => text.parse().expect("a number of keys"),
        Err(_) => KEYS,
    };
    assert!(count > 0, "{KEYS_VARIABLE} is 0");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let socket = dir
        .path()
        .join("redis.sock")
        .to_str()
        .expect("a path in UTF-8")
        .to_owned();
    let mut servers = RedisServer::start_many(4, &[]);
    servers.insert(BY_SOCKET, RedisServer::start(&["--unixsocket", &socket]));
    let twelve = || HashKind::ALL.into_iter().filter(|hash| hash.is_twemproxy());
    let kinds = [DistributionKind::Ketama, DistributionKind::Modula];
    let cases: Vec<_> = kinds
        .into_iter()
        .flat_map(|kind| twelve().map(move |hash| (hash, kind)))
        .collect();
    assert_eq!(cases.len(), 24);
    for (number, (hash, distribution)) in cases.into_iter().enumerate() {
        let pool = Pool::new(number, hash, distribution, &servers, &socket, &mut random);
        let keys = random_keys(&mut random, count);
        let case = format!("case {number}: {:?}", pool.spec);
        set_all(
            &mut Nutcracker::start_pool(&pool.yaml()).client(),
            &keys,
            &case,
        );
        pool.check(&servers, &keys, &case);
        println!("{case}: {} keys, each where it belongs", keys.len());
    }
}

/// One case: a spec, and which of the servers is behind each of its shards.
struct Pool {
    spec: LayoutSpec,
    backends: Vec<usize>,
}

impl Pool {
    fn new(
        number: usize,
        hash: HashKind,
        distribution: DistributionKind,
        servers: &[RedisServer],
        socket: &str,
        random: &mut fastrand::Rng,
    ) -> Pool {
        let mut backends: Vec<usize> = (0..servers.len()).collect();
        random.shuffle(&mut backends);
        backends.truncate(3 + number % 3);
        let shard = |&backend: &usize| {
            let by_socket = backend == BY_SOCKET && number % 2 == 1;
            ShardSpec {
                // Of several lengths, since those come first in the order of servers.
                name: (number % 3 == 1)
                    .then(|| format!("{}{}", "n".repeat(random.usize(1..4)), 9 - backend)),
                addr: if by_socket {
                    format!("unix:{socket}")
                } else {
                    servers[backend].address()
                },
                weight: if number % 4 < 2 { random.u32(1..5) } else { 1 },
                slots: None,
            }
        };
        let shards = backends.iter().map(shard).collect();
        let hash_tag = [None, Some("{}"), None, Some("$$"), Some("<>")][number % 5];
        let hash_tag = hash_tag.map(|tag| tag.parse().expect("two characters"));
        Pool {
            spec: LayoutSpec {
                hash,
                distribution,
                hash_tag,
                route: Vec::new(),
                shards,
                earlier: None,
            },
            backends,
        }
    }

    /// The same pool in nutcracker's words.
    fn yaml(&self) -> String {
        let spec = &self.spec;
        let mut lines = format!(
            "  hash: {}\n  distribution: {}\n  redis: true\n",
            spec.hash, spec.distribution
        );
        if let Some(tag) = spec.hash_tag {
            lines.push_str(&format!("  hash_tag: \"{tag}\"\n"));
        }
        lines.push_str("  servers:\n");
        for shard in &spec.shards {
            let addr = shard.addr.trim_start_matches("unix:");
            let name = shard
                .name
                .as_deref()
                .map(|name| format!(" {name}"))
                .unwrap_or_default();
            lines.push_str(&format!("   - {addr}:{}{name}\n", shard.weight));
        }
        lines
    }

    /// Every key is on exactly the server its layout says; empties the servers.
    fn check(&self, servers: &[RedisServer], sent: &HashSet<Vec<u8>>, case: &str) {
        let layout = Layout::new(self.spec.clone()).expect("a sound layout");
        let mut found = 0;
        for (shard, &backend) in self.spec.shards.iter().zip(&self.backends) {
            let mut client = servers[backend].client();
            let Value::Array(keys) = client.call(&["KEYS", "*"]) else {
                panic!("{case}: KEYS has no array")
            };
            for key in &keys {
                let key = key.bytes();
                assert!(
                    sent.contains(key),
                    "{case}: nobody sent {}",
                    key.escape_ascii()
                );
                let owner = layout.shard(layout.owner(key)).address.to_string();
                assert_eq!(
                    owner,
                    shard.addr,
                    "{case}: {} is on {}",
                    key.escape_ascii(),
                    shard.addr
                );
            }
            found += keys.len();
            assert_eq!(client.call(&["FLUSHALL"]), Value::ok(), "{case}");
        }
        assert_eq!(found, sent.len(), "{case}");
    }
}

/// Distinct keys of all bytes, mostly short, some long; many with tag characters; one empty.
fn random_keys(random: &mut fastrand::Rng, count: usize) -> HashSet<Vec<u8>> {
    let mut keys = HashSet::from([Vec::new()]);
    while keys.len() < count {
        let length = if random.u8(..) == 0 {
            random.usize(..3_000)
        } else {
            random.usize(1..40)
        };
        let mut key: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
            .take(length)
            .collect();
        for _ in 0..random.usize(..5) {
            let at = random.usize(..key.len().max(1));
            key.insert(
                at.min(key.len()),
                *random.choice(b"{}$<>").expect("five characters"),
            );
        }
        keys.insert(key);
    }
    keys
}

fn set_all(client: &mut Client, keys: &HashSet<Vec<u8>>, case: &str) {
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    for batch in keys.chunks(BATCH) {
        let mut requests = Vec::new();
        for key in batch {
            encode(&mut requests, &[b"SET", *key, b""]);
        }
        client.send_raw(&requests);
        for key in batch {
            assert_eq!(
                client.read(),
                Value::ok(),
                "{case}: SET {}",
                key.escape_ascii()
            );
        }
    }
}
