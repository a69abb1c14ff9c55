//! A key of a pool of memcacheds is where the original, `redis: false`, has it:
//! what is stored through the one is read through the other, for every hash and
//! random binary keys. Each key is on one server only, so another place is a miss.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use support::memcached::store;
use support::{Memcached, Nutcracker, Process, TextClient, free_port, seeded, wait_until};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(20);
const KEYS: usize = 3_000;
const BATCH: usize = 500;
const HASHES: [&str; 12] = [
    "one_at_a_time",
    "md5",
    "crc16",
    "crc32",
    "crc32a",
    "fnv1_64",
    "fnv1a_64",
    "fnv1_32",
    "fnv1a_32",
    "hsieh",
    "murmur",
    "jenkins",
];

/// Keys of all bytes but blanks and control characters, of all lengths.
fn random_keys(random: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let mut keys = BTreeSet::new();
    while keys.len() < KEYS {
        let length = match random.u8(0..20) {
            0 => random.usize(1..=250),
            _ => random.usize(1..30),
        };
        let mut key = Vec::new();
        while key.len() < length {
            let byte = match random.u8(0..10) {
                0 => b"{}"[random.usize(0..2)],
                _ => random.u8(..),
            };
            if byte > b' ' && byte != 0x7f {
                key.push(byte);
            }
        }
        keys.insert(key);
    }
    keys.into_iter().collect()
}

fn set_all(client: &mut TextClient, keys: &[Vec<u8>], value: &[u8]) {
    for batch in keys.chunks(BATCH) {
        client.send(
            batch
                .iter()
                .flat_map(|key| store("set", key, value, ""))
                .collect::<Vec<u8>>(),
        );
        for key in batch {
            assert_eq!(client.read(), b"STORED\r\n", "{}", key.escape_ascii());
        }
    }
}

/// Every key has this value: one by one, and, where it is asked so, many at once.
fn check_all(client: &mut TextClient, keys: &[Vec<u8>], value: &[u8], case: &str) {
    let blocks = |keys: &[Vec<u8>]| {
        let block = |key: &Vec<u8>| {
            let rest = format!(" 0 {}\r\n", value.len());
            [b"VALUE ", &key[..], rest.as_bytes(), value, b"\r\n"].concat()
        };
        let mut all: Vec<u8> = keys.iter().flat_map(block).collect();
        all.extend_from_slice(b"END\r\n");
        all
    };
    for batch in keys.chunks(BATCH) {
        let one = |key: &Vec<u8>| [b"get ", &key[..], b"\r\n"].concat();
        client.send(batch.iter().flat_map(one).collect::<Vec<u8>>());
        for key in batch {
            let got = client.read();
            assert!(
                got == blocks(std::slice::from_ref(key)),
                "{case}: {}",
                key.escape_ascii()
            );
        }
        client.send([b"get ", &batch.join(&b' ')[..], b"\r\n"].concat());
        assert!(
            client.read() == blocks(batch),
            "{case}: {} keys at once",
            batch.len()
        );
    }
}

#[test]
fn keys_are_where_nutcracker_has_them() {
    let mut random = seeded("keys_are_where_nutcracker_has_them");
    let servers = Memcached::start_many(4, &[]);
    for (number, hash) in HASHES.into_iter().enumerate() {
        let distribution = if number % 2 == 0 { "ketama" } else { "modula" };
        let tag = if number % 3 == 0 {
            "  hash_tag: \"{}\"\n"
        } else {
            ""
        };
        // Absent: `redis: false` is the default.
        let redis = if number % 2 == 0 {
            ""
        } else {
            "  redis: false\n"
        };
        let lines: String = servers
            .iter()
            .enumerate()
            .map(|(at, server)| {
                let name = if number % 3 == 1 {
                    format!(" m{at}")
                } else {
                    String::new()
                };
                format!(
                    "   - {}:{}{name}\n",
                    server.address(),
                    1 + (at * number) % 3
                )
            })
            .collect();
        let pool = format!(
            "  hash: {hash}\n  distribution: {distribution}\n{tag}{redis}  servers:\n{lines}"
        );
        let theirs = Nutcracker::start_pool(&pool);
        let ours = Ours::start(&pool);
        let (mut theirs, mut ours) = (TextClient::connect(&theirs.address()), ours);
        let keys = random_keys(&mut random);
        let case = format!("{hash} {distribution}{tag}");
        set_all(&mut ours.client, &keys, b"by us");
        // The original takes longer lines in pieces and answers misses in
        // another order: only hits are asked for.
        check_all(&mut theirs, &keys, b"by us", &case);
        for server in &servers {
            assert_eq!(server.client().ask("flush_all\r\n"), "OK\r\n");
        }
        set_all(&mut theirs, &keys, b"by them");
        check_all(&mut ours.client, &keys, b"by them", &case);
        for server in &servers {
            assert_eq!(server.client().ask("flush_all\r\n"), "OK\r\n");
        }
    }
}

/// `keyferry run` with the same file.
struct Ours {
    client: TextClient,
    _process: Process,
    _dir: TempDir,
}

impl Ours {
    fn start(pool: &str) -> Ours {
        let dir = TempDir::with_prefix("keyferry-placement-").expect("a directory");
        let port = free_port();
        let yml = dir.path().join("n.yml");
        fs::write(&yml, format!("alpha:\n  listen: 127.0.0.1:{port}\n{pool}")).expect("written");
        let link = dir.path().join("nutcracker");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_keyferry"), &link).expect("a link");
        let mut command = Command::new(link);
        command
            .args(["-a", "127.0.0.1", "-s", &free_port().to_string(), "-c"])
            .arg(&yml);
        let mut process = Process::spawn("keyferry", "keyferry", dir.path(), &mut command);
        let address = format!("127.0.0.1:{port}");
        wait_until("it listens", LIMIT, || {
            assert!(process.try_wait().is_none(), "{}", process.stderr());
            TextClient::try_connect(&address).is_ok()
        });
        Ours {
            client: TextClient::connect(&address),
            _process: process,
            _dir: dir,
        }
    }
}
