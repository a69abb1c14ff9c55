//! Against a real redis-server: what it saves and dumps is split and written
//! again so that another server restores the same data; one content has one
//! digest in every encoding, and any change of content changes it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::support::{Client, RedisServer, Value};
use keyferry::rdb::{
    Checksum, ContentDigest, KeyRecord, Record, Scanner, ScannerLimits, content_digest,
    split_dump_payload, write_dump_payload,
};

type Command = Vec<Vec<u8>>;

/// The same commands lead to different encodings on servers with these.
const ENCODINGS: [&[&str]; 3] = [
    &["--enable-debug-command", "yes"],
    &[
        "--enable-debug-command",
        "yes",
        "--rdbcompression",
        "no",
        "--hash-max-listpack-entries",
        "0",
        "--zset-max-listpack-entries",
        "0",
        "--set-max-intset-entries",
        "0",
        "--list-max-listpack-size",
        "3",
        "--stream-node-max-entries",
        "3",
    ],
    &[
        "--enable-debug-command",
        "yes",
        "--list-max-listpack-size",
        "-1",
        "--list-compress-depth",
        "1",
        "--hash-max-listpack-value",
        "8",
        "--zset-max-listpack-value",
        "8",
        "--stream-node-max-bytes",
        "200",
    ],
];

fn command(text: &str) -> Command {
    text.split(' ').map(|arg| arg.as_bytes().to_vec()).collect()
}

/// Every type, small and large, with integers, text, binary and long runs.
fn data_set() -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    let mut run = |text: &str| commands.push(command(text));
    for number in [
        "0",
        "-1",
        "127",
        "128",
        "-32769",
        "2147483647",
        "2147483648",
        "007",
        "1e3",
    ] {
        run(&format!("SET string:{number} {number}"));
    }
    run(&format!("SET string:run {}", "ab".repeat(5000)));
    run(&format!("SET string:short-run {}", "x".repeat(21)));
    run("SET string:expiring soon PXAT 4102444800123");
    for n in 0..400_i64 {
        run(&format!(
            "RPUSH list:large item-{n} {n} {}",
            "y".repeat(n as usize)
        ));
        run(&format!("SADD set:large member-{n} {n}"));
        run(&format!("SADD set:integers:64 {}", n * 1_000_000_007));
        run(&format!("ZADD zset:large {}.25 member-{n} {n} {n}", n * 3));
        run(&format!("HSET hash:large field-{n} value-{n} {n} {}", -n));
        run(&format!(
            "XADD stream:large {}-1 n {n} text some-{n}",
            n * 10 + 1
        ));
    }
    run("RPUSH list:small 1 -1 300 -70000 5000000000 text");
    run(&format!(
        "RPUSH list:big-items {0} small {0}",
        "z".repeat(70_000)
    ));
    run("SADD set:small a b c 1");
    run("SADD set:integers:16 1 2 -300");
    run("SADD set:integers:32 1 2 -70000");
    run(
        "ZADD zset:small 1 one 2.5 two inf top -inf bottom -0 zero 1e300 huge 3.0000000000000001 three",
    );
    run("HSET hash:small f v 1 2 empty-not long-enough-to-convert");
    run("HSET hash:one f v");
    run("XADD stream:small 5-5 a 1 b 2");
    run("XADD stream:small 5-6 a 1 b 3");
    run("XADD stream:small 6-1 other 1 a 2 other 3");
    run("XADD stream:small 18446744073709551615-7 a 1 b 2");
    run("XDEL stream:large 101-1 111-1 3991-1");
    run("XGROUP CREATE stream:large g 0");
    run("XGROUP CREATE stream:large idle 500-0 ENTRIESREAD 51");
    run("XREADGROUP GROUP g first COUNT 20 STREAMS stream:large >");
    run("XREADGROUP GROUP g second COUNT 3 STREAMS stream:large >");
    run("XGROUP CREATECONSUMER stream:large g nothing-pending");
    run("XACK stream:large g 11-1 21-1");
    run("XDEL stream:large 31-1");
    run("XADD stream:emptied 1-1 a b");
    run("XTRIM stream:emptied MAXLEN 0");
    commands.push(vec![
        b"SET".to_vec(),
        b"string:binary".to_vec(),
        (0..=255).collect(),
    ]);
    commands.push(vec![b"SET".to_vec(), b"string:empty".to_vec(), Vec::new()]);
    commands.push(vec![
        b"RPUSH".to_vec(),
        b"list:empty-item".to_vec(),
        Vec::new(),
        b"\xff".to_vec(),
    ]);
    let binary_key = b"key \xff\r\n\0".to_vec();
    commands.push(vec![
        b"HSET".to_vec(),
        binary_key,
        b"\0".to_vec(),
        Vec::new(),
    ]);
    commands
}

fn load(server: &RedisServer) -> Client {
    let mut client = server.client();
    for reply in client.pipeline(&data_set()) {
        assert!(!reply.is_error(), "{reply:?}");
    }
    for reply in client.pipeline(&[
        command("SELECT 3"),
        command("SET other-db 1"),
        command("SELECT 0"),
    ]) {
        assert!(!reply.is_error(), "{reply:?}");
    }
    // Delivery times are part of a pending entry; give all servers the same.
    for id in ["41-1", "211-1"] {
        let claim =
            format!("XCLAIM stream:large g first 0 {id} TIME 1700000000000 RETRYCOUNT 4 JUSTID");
        client.call(&command(&claim));
    }
    client
}

/// All keys of database 0, ascending.
fn keys(client: &mut Client) -> Vec<Vec<u8>> {
    let mut keys: Vec<_> = client
        .call(&["KEYS", "*"])
        .items()
        .iter()
        .map(|key| key.bytes().to_vec())
        .collect();
    keys.sort();
    keys
}

fn dump(client: &mut Client, key: &[u8]) -> Vec<u8> {
    client.call(&[b"DUMP", key]).bytes().to_vec()
}

fn digest_of_dump(client: &mut Client, key: &[u8]) -> (u8, ContentDigest) {
    let payload = dump(client, key);
    let (value, version) = split_dump_payload(&payload).unwrap();
    assert_eq!(version, 10, "this server writes RDB 10");
    let digest = content_digest(&value);
    let digest = digest.unwrap_or_else(|error| panic!("{}: {error}", key.escape_ascii()));
    (value.type_id.byte(), digest)
}

fn debug_digest(client: &mut Client, key: &[u8]) -> Vec<Value> {
    client
        .call(&[&b"DEBUG"[..], b"DIGEST-VALUE", key])
        .items()
        .to_vec()
}

fn saved(client: &mut Client) -> Vec<u8> {
    assert_eq!(client.call(&["SAVE"]), Value::ok());
    let dir = client.call(&["CONFIG", "GET", "dir"]).items()[1].text();
    std::fs::read(PathBuf::from(dir).join("dump.rdb")).unwrap()
}

fn restore(target: &mut Client, record: &KeyRecord<'_>) {
    let mut payload = Vec::new();
    write_dump_payload(&mut payload, &record.value).unwrap();
    let ttl = record.expires_at_ms.unwrap_or(0).to_string();
    let db = record.db.to_string();
    target.call(&["SELECT", &db]);
    let reply = target.call(&[
        b"RESTORE",
        &record.key[..],
        ttl.as_bytes(),
        &payload,
        b"ABSTTL",
    ]);
    assert_eq!(reply, Value::ok(), "{}", record.key.escape_ascii());
}

#[test]
fn a_saved_file_is_restored_key_by_key_into_an_equal_data_set() {
    for encoding in ENCODINGS {
        let source = RedisServer::start(encoding);
        let target = RedisServer::start(encoding);
        let mut at_source = load(&source);
        let mut at_target = target.client();
        let file = saved(&mut at_source);

        let mut scanner = Scanner::new(ScannerLimits::default());
        let mut rest = &file[..];
        let mut restored = 0;
        while let Some(event) = scanner.next(rest).unwrap() {
            rest = &rest[event.consumed..];
            match event.record {
                Record::Key(record) => {
                    restore(&mut at_target, &record);
                    restored += 1;
                }
                Record::End { checksum } => {
                    assert_eq!(checksum, Checksum::Verified);
                    break;
                }
                _ => {}
            }
        }
        assert!(rest.is_empty() && restored > 30, "{restored} keys");

        at_target.call(&["SELECT", "0"]);
        let whole = at_source.call(&["DEBUG", "DIGEST"]);
        assert_eq!(at_target.call(&["DEBUG", "DIGEST"]), whole);
        assert_eq!(
            at_target.call(&["PEXPIRETIME", "string:expiring"]).int(),
            4_102_444_800_123
        );
        for key in keys(&mut at_source) {
            let name = key.escape_ascii();
            assert_eq!(
                debug_digest(&mut at_target, &key),
                debug_digest(&mut at_source, &key),
                "{name}"
            );
            assert_eq!(
                digest_of_dump(&mut at_target, &key),
                digest_of_dump(&mut at_source, &key),
                "{name}"
            );
        }
    }
}

/// Digest of each key, and the type bytes it was seen in.
type Seen = BTreeMap<Vec<u8>, (ContentDigest, Vec<u8>)>;

#[test]
fn one_content_has_one_digest_in_every_encoding() {
    let mut seen = Seen::new();
    for encoding in ENCODINGS {
        let server = RedisServer::start(encoding);
        let mut client = load(&server);
        // Entries were delivered at times of each server's own.
        let pending = client.call(&["XPENDING", "stream:large", "g", "-", "+", "100"]);
        for entry in pending.items() {
            let id = entry.items()[0].text();
            let consumer = entry.items()[1].text();
            let claim = format!(
                "XCLAIM stream:large g {consumer} 0 {id} TIME 1700000000000 RETRYCOUNT 2 JUSTID"
            );
            client.call(&command(&claim));
        }
        for key in keys(&mut client) {
            let (type_byte, digest) = digest_of_dump(&mut client, &key);
            let (first, types) = seen.entry(key.clone()).or_insert((digest, Vec::new()));
            assert_eq!(*first, digest, "{}", key.escape_ascii());
            types.push(type_byte);
        }
    }
    let types = |key: &str| &seen[key.as_bytes()].1[..];
    assert_eq!(types("hash:small"), [16, 4, 4]);
    assert_eq!(types("zset:small"), [17, 5, 17]);
    assert_eq!(types("set:integers:16"), [11, 2, 11]);
    assert_eq!(types("list:large"), [18, 18, 18]);
    let digests: std::collections::BTreeSet<_> =
        seen.values().map(|(digest, _)| digest.digest).collect();
    assert_eq!(
        digests.len(),
        seen.len(),
        "different contents have different digests"
    );
}

#[test]
fn every_change_of_content_changes_the_digest() {
    let server = RedisServer::start(ENCODINGS[0]);
    let mut client = load(&server);
    for change in [
        "APPEND string:run x",
        "SETRANGE string:run 7000 c",
        "INCR string:0",
        "LSET list:large 500 changed",
        "RPOP list:large",
        "LINSERT list:small BEFORE 300 300",
        "LMOVE list:small list:small LEFT RIGHT",
        "SADD set:large more",
        "SREM set:integers:64 0",
        "ZINCRBY zset:large 0.0000001 member-7",
        "ZINCRBY zset:small 1 one",
        "ZREM zset:small zero",
        "HSET hash:large field-9 other",
        "HDEL hash:small 1",
        "HINCRBY hash:small 1 1",
        "XADD stream:small 18446744073709551615-8 a 1 b 2",
        "XDEL stream:large 991-1",
        "XACK stream:large g 51-1",
        "XCLAIM stream:large g second 0 61-1 TIME 1700000000000 JUSTID",
        "XCLAIM stream:large g second 0 61-1 TIME 1700000000001 JUSTID",
        "XCLAIM stream:large g second 0 61-1 TIME 1700000000001 RETRYCOUNT 77 JUSTID",
        "XGROUP SETID stream:large idle 600-0",
        "XGROUP CREATE stream:large another 0",
        "XGROUP DESTROY stream:large idle",
        "XGROUP DELCONSUMER stream:large g second",
        "XSETID stream:emptied 2-2",
    ] {
        let command = command(change);
        let key = match &command[0][..] {
            b"XGROUP" => command[2].clone(),
            _ => command[1].clone(),
        };
        let (_, before) = digest_of_dump(&mut client, &key);
        let reply = client.call(&command);
        assert!(!reply.is_error(), "{change}: {reply:?}");
        let (_, after) = digest_of_dump(&mut client, &key);
        assert_ne!(before.digest, after.digest, "{change}");
    }
    for no_change in [
        "EXPIRE string:run 1000",
        "XGROUP CREATECONSUMER stream:large g nobody-yet",
        "SADD set:large more",
        "OBJECT FREQ set:large",
    ] {
        let command = command(no_change);
        let key = command
            .iter()
            .find(|arg| arg.contains(&b':'))
            .unwrap()
            .clone();
        let before = digest_of_dump(&mut client, &key);
        client.call(&command);
        assert_eq!(before, digest_of_dump(&mut client, &key), "{no_change}");
    }
}

/// Values of servers from 2.4 on, in layouts this server only reads.
#[test]
fn values_of_older_servers_keep_their_content_through_restore() {
    let server = RedisServer::start(&[]);
    let mut client = server.client();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rdb");
    let mut types = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // No server wrote those two, nor loads them.
        if !name.ends_with(".rdb") || name.contains("corrupt") || name.contains("zipmap_big_len") {
            continue;
        }
        let file = std::fs::read(&path).unwrap();
        let mut scanner = Scanner::new(ScannerLimits::default());
        let mut rest = &file[..];
        while let Ok(Some(event)) = scanner.next(rest) {
            rest = &rest[event.consumed..];
            let Record::Key(record) = event.record else {
                if matches!(event.record, Record::End { .. }) {
                    break;
                }
                continue;
            };
            // Newer than this server, or of a module it does not have.
            if record.value.type_id.lowest_version() > 10 || record.value.type_id.byte() == 7 {
                continue;
            }
            let stays = KeyRecord {
                db: 0,
                expires_at_ms: None,
                ..record
            };
            client.call(&["FLUSHALL"]);
            restore(&mut client, &stays);
            let (_, digest) = digest_of_dump(&mut client, &stays.key);
            let ours = content_digest(&stays.value).unwrap();
            assert_eq!(ours, digest, "{name} {}", stays.key.escape_ascii());
            types.insert(stays.value.type_id.byte());
        }
    }
    let expected: Vec<u8> = vec![0, 1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19];
    assert_eq!(types.into_iter().collect::<Vec<_>>(), expected);
}
