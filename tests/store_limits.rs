//! The built-in shard at its limits: more data than memory, and a disk that is full.
//!
//! `KEYFERRY_STORE_TIMES=10` is the long run: so many times `--memory` of values.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test fails"
)]

mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sha1_smol::Sha1;
use support::process::memory_bytes;
use support::{Client, StoreServer, Value, free_port, seeded, wait_until};

/// The least that a shard takes.
const MEMORY_BYTES: usize = 64_000_000;
/// Of a value.
const VALUE_BYTES: usize = 4_000;
/// How many times the memory is written, unless `KEYFERRY_STORE_TIMES` says otherwise.
const TIMES: usize = 2;
/// What the process may have resident: its memory, and as much again for buffers, for what
/// the allocator keeps, and for the tables that are being compacted.
const RESIDENT_BYTES_MAX: usize = 3 * MEMORY_BYTES;
/// Values of the test of the room that they leave.
const FREED_KEYS: usize = 20_000;
/// Requests that are sent before their replies are read.
const PIPELINE: usize = 200;
const LONG: Duration = Duration::from_secs(120);

fn times() -> usize {
    let asked = std::env::var("KEYFERRY_STORE_TIMES").ok();
    asked.map_or(TIMES, |text| text.parse().expect("a number"))
}

fn key(number: usize) -> String {
    format!("key:{number}")
}

/// What nothing can compress.
fn value(number: usize, version: u64) -> Vec<u8> {
    let mut value = vec![0; VALUE_BYTES];
    let seed = (number as u64) << 8 | version;
    fastrand::Rng::with_seed(seed).fill(&mut value);
    value
}

fn in_pipelines(
    client: &mut Client,
    numbers: impl Iterator<Item = usize>,
    request: &dyn Fn(usize) -> Vec<Vec<u8>>,
    each: &mut dyn FnMut(usize, &Value),
) {
    let mut numbers = numbers.peekable();
    while numbers.peek().is_some() {
        let batch: Vec<usize> = numbers.by_ref().take(PIPELINE).collect();
        for number in &batch {
            client.send(&request(*number));
        }
        for number in batch {
            each(number, &client.read());
        }
    }
}

fn set(version: u64) -> impl Fn(usize) -> Vec<Vec<u8>> {
    move |number| {
        vec![
            b"SET".to_vec(),
            key(number).into_bytes(),
            value(number, version),
        ]
    }
}

fn get(number: usize) -> Vec<Vec<u8>> {
    vec![b"GET".to_vec(), key(number).into_bytes()]
}

fn is_ok(number: usize, reply: &Value) {
    assert_eq!(*reply, Value::ok(), "{}", key(number));
}

/// DEBUG DIGEST of one database of strings, by Redis' rules.
#[derive(Default)]
struct Digest([u8; 20]);

impl Digest {
    fn xor(&mut self, data: &[u8]) {
        for (byte, other) in self.0.iter_mut().zip(Sha1::from(data).digest().bytes()) {
            *byte ^= other;
        }
    }

    fn mix(&mut self, data: &[u8]) {
        self.xor(data);
        self.0 = Sha1::from(self.0).digest().bytes();
    }

    fn of_strings(all: impl Iterator<Item = (String, Vec<u8>)>) -> String {
        let mut whole = Digest::default();
        whole.mix(&0_u32.to_be_bytes());
        for (key, value) in all {
            let mut one = Digest::default();
            one.mix(key.as_bytes());
            one.mix(&0_u32.to_be_bytes());
            one.mix(&value);
            whole.xor(&one.0);
        }
        whole.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn bytes_in(dir: &Path) -> u64 {
    let mut bytes = 0;
    // What was listed may be gone by now: compactions go on.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        bytes += match path.is_dir() {
            true => bytes_in(&path),
            false => entry.metadata().map_or(0, |about| about.len()),
        };
    }
    bytes
}

fn check_all(client: &mut Client, keys: usize, version_of: &dyn Fn(usize) -> Option<u64>) {
    in_pipelines(client, 0..keys, &get, &mut |number, reply| {
        let wanted = version_of(number).map(|version| value(number, version));
        let found = match reply {
            Value::Null => None,
            Value::Bulk(found) => Some(found),
            other => panic!("{}: {other:?}", key(number)),
        };
        assert!(found == wanted.as_ref(), "{} is another one", key(number));
    });
}

/// Written, read at random, written over, deleted, killed, read again: what comes is what
/// was written, and the memory stays bounded.
#[test]
fn more_data_than_memory_is_right_and_bounded() {
    let mut rng = seeded("more_data_than_memory_is_right_and_bounded");
    let keys = times() * MEMORY_BYTES / VALUE_BYTES;
    let mut store = StoreServer::start(&["--memory", "64MB", "--durability", "no"]);
    let mut client = store.client();
    in_pipelines(&mut client, 0..keys, &set(0), &mut is_ok);
    let written = bytes_in(&store.files());
    let random: Vec<usize> = (0..keys / 4).map(|_| rng.usize(..keys)).collect();
    in_pipelines(
        &mut client,
        random.into_iter(),
        &get,
        &mut |number, reply| {
            assert!(*reply == Value::Bulk(value(number, 0)), "{}", key(number));
        },
    );
    // Every third is written over, every fifth deleted.
    in_pipelines(&mut client, (0..keys).step_by(3), &set(1), &mut is_ok);
    let delete = |number: usize| vec![b"DEL".to_vec(), key(number).into_bytes()];
    in_pipelines(
        &mut client,
        (0..keys).step_by(5),
        &delete,
        &mut |_, reply| {
            assert_eq!(*reply, Value::Int(1));
        },
    );
    let version_of = |number: usize| match (number % 5, number % 3) {
        (0, _) => None,
        (_, 0) => Some(1),
        _ => Some(0),
    };
    check_all(&mut client, keys, &version_of);
    let wanted = Digest::of_strings(
        (0..keys).filter_map(|number| Some((key(number), value(number, version_of(number)?)))),
    );
    let digest = |client: &mut Client| client.call(&["DEBUG", "DIGEST"]).text();
    client.set_reply_limit(LONG);
    assert_eq!(digest(&mut client), wanted);
    let pid = store.process().pid();
    let peaks = [memory_bytes(pid, "VmHWM"), memory_bytes(pid, "VmRSS")];
    store.kill();
    store.start_again();
    let mut client = store.client();
    client.set_reply_limit(LONG);
    check_all(&mut client, keys, &version_of);
    assert_eq!(digest(&mut client), wanted);
    let again = memory_bytes(store.process().pid(), "VmHWM");

    in_pipelines(&mut client, 0..keys, &delete, &mut |_, reply| {
        assert!(matches!(reply, Value::Int(_)));
    });
    assert_eq!(client.call(&["DBSIZE"]), Value::Int(0));
    let data = keys * VALUE_BYTES;
    let room = bytes_in(&store.files());
    println!(
        "{keys} values, {data} bytes in {written} on disk; memory: {peaks:?} at the highest and \
         in the end, {again} after the kill; {room} when all was deleted"
    );
    for peak in peaks.into_iter().chain([again]) {
        assert!(peak < RESIDENT_BYTES_MAX, "{peak} bytes are resident");
    }
}

/// A round of the test below: something is written, most of it goes, and with it its room.
fn gives_back(what: &str, write: &dyn Fn(&mut Client), undo: &dyn Fn(&mut Client)) {
    let mut store = StoreServer::start(&["--memory", "64MB", "--durability", "no"]);
    let mut client = store.client();
    client.set_reply_limit(LONG);
    write(&mut client);
    let rows = store.files().join("rows");
    let data = (FREED_KEYS * VALUE_BYTES) as u64;
    wait_until("it is in tables", LONG, || bytes_in(&rows) > data);
    let full = bytes_in(&rows);
    undo(&mut client);
    let digest = |client: &mut Client| client.call(&["DEBUG", "DIGEST"]).text();
    let wanted = digest(&mut client);
    let began = Instant::now();
    wait_until(what, LONG, || bytes_in(&rows) < full / 10);
    println!(
        "{what}: {full} bytes, {} after {:?}",
        bytes_in(&rows),
        began.elapsed()
    );
    assert_eq!(digest(&mut client), wanted);
    store.kill();
    store.start_again();
    let mut client = store.client();
    client.set_reply_limit(LONG);
    assert_eq!(digest(&mut client), wanted);
}

/// What is deleted, flushed or written over takes no room after a while, though nothing
/// else is written.
#[test]
fn room_comes_back_by_itself() {
    let delete = |number: usize| vec![b"DEL".to_vec(), key(number).into_bytes()];
    let fill = |client: &mut Client| {
        in_pipelines(client, 0..FREED_KEYS, &set(0), &mut is_ok);
        assert_eq!(client.call(&["SET", "kept", "1"]), Value::ok());
    };
    let field = |number: usize| {
        let (key, field) = (b"a hash".to_vec(), key(number).into_bytes());
        vec![b"HSET".to_vec(), key, field, value(number, 0)]
    };
    let fill_hash = |client: &mut Client| {
        in_pipelines(client, 0..FREED_KEYS, &field, &mut |_, reply| {
            assert_eq!(*reply, Value::Int(1));
        });
    };
    let short = |number: usize| {
        let key = key(number).into_bytes();
        vec![b"SET".to_vec(), key, b"short".to_vec()]
    };
    let one_by_one = |client: &mut Client| {
        in_pipelines(client, 0..FREED_KEYS, &delete, &mut |_, reply| {
            assert_eq!(*reply, Value::Int(1));
        });
    };
    let whole = |client: &mut Client| assert_eq!(client.call(&["DEL", "a hash"]), Value::Int(1));
    let over = |client: &mut Client| in_pipelines(client, 0..FREED_KEYS, &short, &mut is_ok);
    let flush = |client: &mut Client| assert_eq!(client.call(&["FLUSHDB"]), Value::ok());
    // Most of it is waiting, so each has a shard of its own at the same time.
    thread::scope(|scope| {
        scope.spawn(|| gives_back("strings are deleted", &fill, &one_by_one));
        scope.spawn(|| gives_back("a hash is deleted", &fill_hash, &whole));
        scope.spawn(|| gives_back("strings are written over", &fill, &over));
        scope.spawn(|| gives_back("a database is flushed", &fill, &flush));
    });
}

/// A disk of its own, in a namespace of its own, part of which a file takes up until
/// somebody says a line.
struct SmallDisk {
    child: Child,
    port: u16,
}

const DISK: &str = "size=640m";
const FILLER: &str = "200m";

impl SmallDisk {
    /// Nothing, and why, if this user may have none.
    fn start(dir: &Path) -> Result<Self, String> {
        let may = Command::new("unshare").args(["-rm", "true"]).output();
        match may {
            Ok(output) if output.status.success() => {}
            Ok(output) => return Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => return Err(format!("unshare: {error}")),
        }
        let port = free_port();
        let script = "mount -t tmpfs -o \"$1\" none \"$2\" || exit 1
            head -c \"$3\" /dev/zero > \"$2/filler\" || exit 1
            \"$4\" store --dir \"$2/shard\" --listen \"127.0.0.1:$5\" --memory 64MB &
            shard=$!
            read line && rm \"$2/filler\" && read line
            kill $shard
            wait $shard";
        let child = Command::new("unshare")
            .args(["-rm", "--kill-child", "sh", "-c", script, "sh", DISK])
            .arg(dir)
            .args([FILLER, env!("CARGO_BIN_EXE_keyferry"), &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        Ok(Self { child, port })
    }

    fn client(&self) -> Option<Client> {
        Client::try_connect(&format!("127.0.0.1:{}", self.port)).ok()
    }

    fn make_room(&mut self) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(b"now\n").unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Its lines end, and with them the shard.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Writes are refused in clear words, reads go on, nothing acknowledged is lost, and when
/// there is room it goes on.
#[test]
fn a_full_disk_is_told_and_gone_on_from() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = match SmallDisk::start(dir.path()) {
        Ok(disk) => disk,
        Err(why) => {
            eprintln!("skipped: a_full_disk_is_told_and_gone_on_from: no mounts here: {why}");
            assert!(
                std::env::var_os("KEYFERRY_TEST_ALL_SERVERS").is_none(),
                "CI has everything"
            );
            return;
        }
    };
    wait_until("the shard answers", LONG, || disk.client().is_some());
    let mut client = disk.client().unwrap();
    let mut acknowledged = 0;
    let refusal = loop {
        assert!(acknowledged < 1_000_000, "the disk is never full");
        let Ok(reply) = client.try_call(&set(0)(acknowledged)) else {
            // The outcome of the turn that met it is open: its connections end.
            wait_until("it can be connected to", LONG, || disk.client().is_some());
            client = disk.client().unwrap();
            continue;
        };
        match reply {
            Value::Error(words) => break words,
            reply => assert_eq!(reply, Value::ok()),
        }
        acknowledged += 1;
    };
    assert!(refusal.starts_with("MISCONF"), "{refusal}");
    assert!(acknowledged > 1_000, "{acknowledged}: {refusal}");
    println!("{acknowledged} values, then: {refusal}");
    let mut client = disk.client().unwrap();
    check_all(&mut client, acknowledged, &|_| Some(0));
    let health = client.call(&["INFO", "keyferry"]).text();
    assert!(!health.contains("health:good"), "{health}");
    disk.make_room();
    wait_until("writes are taken again", LONG, || {
        let mut client = disk.client().expect("it runs");
        client
            .try_call(&["SET", "after", "1"])
            .is_ok_and(|reply| reply == Value::ok())
    });
    let more = acknowledged + 5_000;
    in_pipelines(&mut client, acknowledged..more, &set(0), &mut is_ok);
    check_all(&mut client, more, &|_| Some(0));
    let health = client.call(&["INFO", "keyferry"]).text();
    assert!(health.contains("health:good"), "{health}");
}
