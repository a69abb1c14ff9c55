//! Against a real redis-server: every type in every encoding arrives the same
//! by RESTORE of its bytes, of an older layout, and by commands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::support::{Client, RedisServer, Value};
use keyferry::rdb::{
    KeyRecord, Loss, Record, Scanner, ScannerLimits, ValueType, content_digest, split_dump_payload,
};
use keyferry::resp::{RequestLimits, RequestScanner};
use keyferry::restore::{
    CannotRestore, Dialect, How, KeyHead, Outcome, Overwrite, Reply, Requests, RestoreOptions,
    Restorer, ServerIdentity, ServerVersion, TEMPORARY_PREFIX, UsageKept, Vendor, Verdict,
};

type Command = Vec<Vec<u8>>;

/// The same commands lead to different encodings on servers with these.
const ENCODINGS: [&[&str]; 2] = [
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
];

/// Its commands-mode form is not all of it: an entry that is gone stays pending.
const PENDING_DELETED: &[u8] = b"stream:pending-deleted";

fn command(text: &str) -> Command {
    text.split(' ').map(|arg| arg.as_bytes().to_vec()).collect()
}

/// Every type, small and large, with integers, text, binary and long runs.
fn data_set() -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    let mut run = |text: &str| commands.push(command(text));
    for number in ["0", "-1", "127", "-32769", "2147483648", "007", "1e3"] {
        run(&format!("SET string:{number} {number}"));
    }
    run(&format!("SET string:run {}", "ab".repeat(5000)));
    run(&format!(
        "SET string:chunks {}",
        "0123456789".repeat(30_001)
    ));
    run("SET string:expiring soon PXAT 4102444800123");
    for n in 0..600_i64 {
        run(&format!(
            "RPUSH list:large item-{n} {n} {}",
            "y".repeat(n as usize)
        ));
        run(&format!("SADD set:large member-{n} {n}"));
        run(&format!("SADD set:integers {}", n * 1_000_000_007));
        run(&format!("ZADD zset:large {}.25 member-{n} {n} {n}", n * 3));
        run(&format!("HSET hash:large field-{n} value-{n} {n} {}", -n));
        run(&format!(
            "XADD stream:large {}-1 n {n} text some-{n}",
            n * 10 + 1
        ));
    }
    run("PEXPIREAT hash:large 4102444800456");
    run("RPUSH list:small 1 -1 300 -70000 5000000000 text");
    run(&format!(
        "RPUSH list:big-items {0} small {0}",
        "z".repeat(70_000)
    ));
    run("SADD set:small a b c 1");
    run("SADD set:integers:16 1 2 -300");
    run(
        "ZADD zset:small 1 one 2.5 two inf top -inf bottom -0 zero 1e300 huge 3.0000000000000001 three 1e-310 tiny 0.1 tenth",
    );
    run("HSET hash:small f v 1 2 empty-not long-enough-to-convert");
    run("XADD stream:small 5-5 a 1 b 2");
    run("XADD stream:small 6-1 other 1 a 2 other 3");
    run("XADD stream:small 18446744073709551615-7 a 1 b 2");
    run("XDEL stream:large 101-1 111-1 5991-1");
    run("XGROUP CREATE stream:large g 0");
    run("XGROUP CREATE stream:large idle 500-0 ENTRIESREAD 51");
    run("XREADGROUP GROUP g first COUNT 20 STREAMS stream:large >");
    run("XREADGROUP GROUP g second COUNT 3 STREAMS stream:large >");
    run("XGROUP CREATECONSUMER stream:large g nothing-pending");
    run("XACK stream:large g 11-1 21-1");
    run("XCLAIM stream:large g first 0 41-1 TIME 1700000000000 RETRYCOUNT 4 JUSTID");
    run("XADD stream:emptied 1-1 a b");
    run("XTRIM stream:emptied MAXLEN 0");
    run("XGROUP CREATE stream:created g $ MKSTREAM");
    for n in 1..4 {
        run(&format!("XADD stream:pending-deleted {n}-1 a b"));
    }
    run("XGROUP CREATE stream:pending-deleted g 0");
    run("XREADGROUP GROUP g c COUNT 3 STREAMS stream:pending-deleted >");
    run("XDEL stream:pending-deleted 2-1");
    for (verb, key) in [("SET", "string:binary"), ("RPUSH", "list:binary")] {
        let key = key.as_bytes().to_vec();
        commands.push(vec![verb.as_bytes().to_vec(), key, (0..=255).collect()]);
    }
    commands.push(vec![b"SET".to_vec(), b"string:empty".to_vec(), Vec::new()]);
    commands.push(vec![b"RPUSH".to_vec(), b"list:empty".to_vec(), Vec::new()]);
    let binary_key = b"key \xff\r\n\0".to_vec();
    commands.push(vec![
        b"HSET".to_vec(),
        binary_key,
        b"\0".to_vec(),
        Vec::new(),
    ]);
    commands
}

fn filled(encoding: &[&str]) -> (RedisServer, Client) {
    let server = RedisServer::start(encoding);
    let mut client = server.client();
    for reply in client.pipeline(&data_set()) {
        assert!(!reply.is_error(), "{reply:?}");
    }
    (server, client)
}

fn saved(client: &mut Client) -> Vec<u8> {
    assert_eq!(client.call(&["SAVE"]), Value::ok());
    let dir = client.call(&["CONFIG", "GET", "dir"]).items()[1].text();
    std::fs::read(PathBuf::from(dir).join("dump.rdb")).unwrap()
}

/// Calls `each` with every key of the file.
fn scan(file: &[u8], mut each: impl FnMut(&KeyRecord<'_>)) {
    let mut scanner = Scanner::new(ScannerLimits::default());
    let mut rest = file;
    while let Ok(Some(event)) = scanner.next(rest) {
        rest = &rest[event.consumed..];
        match event.record {
            Record::Key(record) => each(&record),
            Record::End { .. } => return,
            _ => {}
        }
    }
}

fn dialect_of(server: &RedisServer) -> Dialect {
    let info = server.client().call(&["INFO"]).text();
    Dialect::of(&ServerIdentity::of_info(&info).unwrap())
}

/// The dialect of a server that we only pretend to have.
fn pretended(vendor: Vendor, version: &str) -> Dialect {
    Dialect::of(&ServerIdentity {
        vendor,
        version: ServerVersion::parse(version).unwrap(),
        usage_kept: UsageKept::Neither,
    })
}

fn by_restore(overwrite: Overwrite) -> RestoreOptions {
    RestoreOptions {
        large_bytes: usize::MAX,
        large_elements: u64::MAX,
        ..RestoreOptions::new(overwrite, "test")
    }
}

fn commands_only(overwrite: Overwrite) -> RestoreOptions {
    RestoreOptions::commands_only(overwrite, "test")
}

/// Sends what restores one key; the outcome and what the replies say.
fn restore(
    target: &mut Client,
    restorer: &mut Restorer,
    head: &KeyHead<'_>,
    record: &KeyRecord<'_>,
) -> Result<(Outcome, Vec<Verdict>), CannotRestore> {
    let (mut bytes, mut replies) = (Vec::new(), Vec::new());
    let mut requests = Requests {
        bytes: &mut bytes,
        replies: &mut replies,
    };
    let outcome = restorer.whole(&mut requests, head, &record.value)?;
    Ok((outcome, exchanged(target, &bytes, &replies)))
}

fn exchanged(target: &mut Client, bytes: &[u8], replies: &[Reply]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    target.send_raw(bytes);
    for reply in replies {
        let bytes = target.read_reply_bytes().unwrap();
        let verdict = reply.judge(&bytes);
        assert_ne!(verdict, Verdict::Refused, "{}", bytes.escape_ascii());
        verdicts.push(verdict);
    }
    verdicts
}

/// Brings all keys of `file` to `target`; how each went, and what was lost of it.
fn bring(
    file: &[u8],
    target: &mut Client,
    restorer: &mut Restorer,
) -> BTreeMap<Vec<u8>, (How, Vec<Loss>)> {
    let mut went = BTreeMap::new();
    scan(file, |record| {
        let name = record.key.escape_ascii().to_string();
        let (outcome, verdicts) = restore(target, restorer, &KeyHead::of(record), record)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut lost: Vec<Loss> = outcome.lost.iter().collect();
        for verdict in verdicts {
            match verdict {
                Verdict::Done => {}
                Verdict::DoneBut(loss) => lost.push(loss),
                other => panic!("{name}: {other:?}"),
            }
        }
        went.insert(record.key.to_vec(), (outcome.how, lost));
    });
    assert!(went.len() > 25, "{} keys", went.len());
    went
}

fn keys(client: &mut Client) -> BTreeSet<Vec<u8>> {
    let found = client.call(&["KEYS", "*"]);
    found
        .items()
        .iter()
        .map(|key| key.bytes().to_vec())
        .collect()
}

fn is_stream(key: &[u8]) -> bool {
    key.starts_with(b"stream:")
}

/// XINFO STREAM FULL but for how its nodes are cut and when consumers were seen.
fn stream_in_full(client: &mut Client, key: &[u8]) -> String {
    fn kept(value: &Value, out: &mut String) {
        let Value::Array(items) = value else {
            return out.push_str(&format!("{value:?} "));
        };
        out.push('[');
        let mut skip = false;
        for item in items {
            let name = format!("{item:?}");
            if !std::mem::take(&mut skip) {
                skip = ["radix-tree", "seen-time", "active-time"]
                    .iter()
                    .any(|left_out| name.contains(left_out) && !name.starts_with('['));
                if !skip {
                    kept(item, out);
                }
            }
        }
        out.push(']');
    }
    let full: [&[u8]; 5] = [b"XINFO", b"STREAM", key, b"FULL", b"COUNT"];
    let mut args: Command = full.iter().map(|arg| arg.to_vec()).collect();
    args.push(b"0".to_vec());
    let (reply, mut out) = (client.call(&args), String::new());
    assert!(!reply.is_error(), "{reply:?}");
    kept(&reply, &mut out);
    out
}

/// Same keys, values, expiries and streams on both servers.
fn assert_equal(source: &mut Client, target: &mut Client, except: &[&[u8]]) {
    let all = keys(source);
    assert_eq!(keys(target), all);
    for key in all.iter().filter(|key| !except.contains(&&key[..])) {
        let name = key.escape_ascii();
        for question in ["PEXPIRETIME", "TYPE"] {
            let ask: [&[u8]; 2] = [question.as_bytes(), key];
            assert_eq!(target.call(&ask), source.call(&ask), "{question} {name}");
        }
        let ask: [&[u8]; 3] = [b"DEBUG", b"DIGEST-VALUE", key];
        assert_eq!(target.call(&ask), source.call(&ask), "{name}");
        if is_stream(key) {
            let wanted = stream_in_full(source, key);
            assert_eq!(stream_in_full(target, key), wanted, "{name}");
        }
        let digest = |client: &mut Client| {
            let payload = client.call(&[b"DUMP", &key[..]]).bytes().to_vec();
            content_digest(&split_dump_payload(&payload).unwrap().0).unwrap()
        };
        assert_eq!(digest(target), digest(source), "{name}");
    }
}

#[test]
fn every_value_arrives_whole_by_restore_and_by_commands() {
    for encoding in ENCODINGS {
        let (_source, mut at_source) = filled(encoding);
        let file = saved(&mut at_source);
        let target = RedisServer::start(encoding);
        let mut at_target = target.client();
        let dialect = dialect_of(&target);
        assert_eq!(dialect.identity().to_string(), "Redis 7.0.15");

        let mut restorer = Restorer::new(dialect, by_restore(Overwrite::Never));
        let went = bring(&file, &mut at_target, &mut restorer);
        assert!(went.values().all(|went| *went == (How::Raw, Vec::new())));
        assert_equal(&mut at_source, &mut at_target, &[]);
        let whole = at_source.call(&["DEBUG", "DIGEST"]);
        assert_eq!(at_target.call(&["DEBUG", "DIGEST"]), whole);

        // Once over keys that exist, once into nothing.
        for overwrite in [Overwrite::Always, Overwrite::Never] {
            let mut restorer = Restorer::new(dialect, commands_only(overwrite));
            let went = bring(&file, &mut at_target, &mut restorer);
            for (key, (how, lost)) in &went {
                assert_eq!(*how, How::Commands);
                let times = Loss::StreamConsumerTimes;
                let losses: &[Loss] = match &key[..] {
                    b"stream:large" => &[times],
                    PENDING_DELETED => &[times, Loss::StreamPendingDeleted],
                    _ => &[],
                };
                assert_eq!(lost, losses, "{}", key.escape_ascii());
            }
            assert_equal(&mut at_source, &mut at_target, &[PENDING_DELETED]);
            assert_eq!(at_target.call(&["DEBUG", "DIGEST"]), whole);
            at_target.call(&["FLUSHALL"]);
        }
    }
}

#[test]
fn layouts_of_older_servers_hold_the_same() {
    for encoding in ENCODINGS {
        let (_source, mut at_source) = filled(encoding);
        let file = saved(&mut at_source);
        // It reads all older layouts, so it can stand for older servers.
        let target = RedisServer::start(encoding);
        let mut at_target = target.client();
        for version in ["6.2.0", "6.0.16", "5.0.14"] {
            let dialect = pretended(Vendor::Redis, version);
            let mut restorer = Restorer::new(dialect, by_restore(Overwrite::Always));
            let went = bring(&file, &mut at_target, &mut restorer);
            let ways: BTreeSet<String> = went.values().map(|(how, _)| format!("{how:?}")).collect();
            assert!(ways.contains("Raw") && ways.contains("Converted(List)"));
            assert!(went.iter().all(|(key, (_, lost))| lost.is_empty()
                || is_stream(key) && *lost == [Loss::StreamCounters]));
            // Lag counters of streams are made up anew.
            let streams: Vec<_> = went.keys().filter(|key| is_stream(key)).collect();
            let except: Vec<&[u8]> = streams.iter().map(|key| &key[..]).collect();
            assert_equal(&mut at_source, &mut at_target, &except);
            assert_eq!(
                at_target.call(&["DEBUG", "DIGEST"]),
                at_source.call(&["DEBUG", "DIGEST"])
            );
            for key in streams {
                let digest = |client: &mut Client| {
                    let payload = client.call(&[b"DUMP", &key[..]]).bytes().to_vec();
                    content_digest(&split_dump_payload(&payload).unwrap().0).unwrap()
                };
                assert_eq!(digest(&mut at_target), digest(&mut at_source));
            }
        }
    }
}

#[test]
fn servers_without_absolute_expiry_or_replace_get_the_same_moment() {
    let (_source, mut at_source) = filled(ENCODINGS[0]);
    let file = saved(&mut at_source);
    let target = RedisServer::start(ENCODINGS[0]);
    let mut at_target = target.client();
    for (version, overwrite) in [
        ("4.0.14", Overwrite::Never),
        ("4.0.14", Overwrite::Always),
        ("2.8.24", Overwrite::Always),
    ] {
        let dialect = pretended(Vendor::Redis, version);
        let mut restorer = Restorer::new(dialect, by_restore(overwrite));
        scan(&file, |record| {
            let went = restore(&mut at_target, &mut restorer, &KeyHead::of(record), record);
            if is_stream(&record.key) {
                assert!(matches!(went, Err(CannotRestore::CannotHold { .. })));
                return;
            }
            let (_, verdicts) = went.unwrap();
            assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Done));
        });
        for key in keys(&mut at_source) {
            let ask: [&[u8]; 2] = [b"PEXPIRETIME", &key];
            let digest: [&[u8]; 3] = [b"DEBUG", b"DIGEST-VALUE", &key];
            if !is_stream(&key) {
                assert_eq!(at_target.call(&ask), at_source.call(&ask));
                assert_eq!(at_target.call(&digest), at_source.call(&digest));
            }
        }
    }
}

#[test]
fn a_key_that_exists_is_kept_or_replaced() {
    let (_source, mut at_source) = filled(ENCODINGS[0]);
    let file = saved(&mut at_source);
    let target = RedisServer::start(ENCODINGS[0]);
    let mut at_target = target.client();
    for key in keys(&mut at_source) {
        at_target.call(&[b"SET", &key[..], b"kept"]);
    }
    let old = pretended(Vendor::Redis, "4.0.14");
    let dialect = dialect_of(&target);
    for (dialect, options) in [
        (dialect, by_restore(Overwrite::Never)),
        (dialect, commands_only(Overwrite::Never)),
        (old, by_restore(Overwrite::Never)),
    ] {
        let mut restorer = Restorer::new(dialect, options);
        scan(&file, |record| {
            let went = restore(&mut at_target, &mut restorer, &KeyHead::of(record), record);
            let Ok((_, verdicts)) = went else { return };
            // What was built for nothing is removed after that.
            assert!(verdicts.contains(&Verdict::Exists), "{verdicts:?}");
        });
        for key in keys(&mut at_source) {
            assert_eq!(at_target.call(&[b"GET", &key[..]]).bytes(), b"kept");
            assert_eq!(at_target.call(&[b"PTTL", &key[..]]).int(), -1);
        }
    }
    let mut restorer = Restorer::new(dialect, commands_only(Overwrite::Always));
    // What a refused RENAMENX leaves is cleared by the next of that name.
    bring(&file, &mut at_target, &mut restorer);
    let wanted = keys(&mut at_source);
    assert!(wanted.is_subset(&keys(&mut at_target)));
    for key in keys(&mut at_target).difference(&wanted) {
        assert!(key.starts_with(TEMPORARY_PREFIX.as_bytes()));
    }
}

#[test]
fn what_expired_meanwhile_is_gone_and_so_is_what_it_replaced() {
    let (_source, mut at_source) = filled(ENCODINGS[0]);
    let file = saved(&mut at_source);
    let target = RedisServer::start(ENCODINGS[0]);
    let mut at_target = target.client();
    let (now, old) = (dialect_of(&target), pretended(Vendor::Redis, "4.0.14"));
    for (dialect, options) in [
        (now, by_restore(Overwrite::Always)),
        (now, commands_only(Overwrite::Always)),
        (now, by_restore(Overwrite::Never)),
        (now, commands_only(Overwrite::Never)),
        (old, by_restore(Overwrite::Always)),
        (old, by_restore(Overwrite::Never)),
    ] {
        let mut restorer = Restorer::new(dialect, options.clone());
        for at_ms in [i64::MIN, 0, 1, 1_000_000] {
            scan(&file, |record| {
                if options.overwrite == Overwrite::Always {
                    at_target.call(&[b"SET", &record.key[..], b"old"]);
                }
                let head = KeyHead {
                    expires_at_ms: Some(at_ms),
                    ..KeyHead::of(record)
                };
                let went = restore(&mut at_target, &mut restorer, &head, record);
                if let Ok((_, verdicts)) = went {
                    assert!(
                        verdicts
                            .iter()
                            .all(|verdict| !matches!(verdict, Verdict::Exists))
                    );
                    assert_eq!(at_target.call(&[b"EXISTS", &record.key[..]]).int(), 0);
                }
            });
        }
    }
}

#[test]
fn chunks_keep_their_bounds_and_large_values_take_them_by_themselves() {
    let server = RedisServer::start(&[]);
    let mut client = server.client();
    for n in 0..9000 {
        client.send(&["HSET", "hash", &format!("field-{n}"), &"v".repeat(n % 40)]);
        client.send(&["RPUSH", "list", &"item".repeat(n % 80)]);
    }
    for _ in 0..18_000 {
        client.read();
    }
    client.call(&["SETRANGE", "string", "3000000", "end"]);
    let file = saved(&mut client);
    let mut restorer = Restorer::new(
        dialect_of(&server),
        RestoreOptions::new(Overwrite::Always, "bounds"),
    );
    let mut seen = BTreeMap::new();
    scan(&file, |record| {
        let (mut bytes, mut replies) = (Vec::new(), Vec::new());
        let mut requests = Requests {
            bytes: &mut bytes,
            replies: &mut replies,
        };
        let outcome = restorer.whole(&mut requests, &KeyHead::of(record), &record.value);
        let mut counted = 0;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let mut scanner = RequestScanner::new(RequestLimits::default());
            let request = scanner.scan(rest).unwrap().unwrap();
            let consumed = request.consumed;
            assert!(consumed < 100 * 1024 && request.len() <= 2 + 2 * 512);
            rest = &rest[consumed..];
            counted += 1;
        }
        assert_eq!(counted, replies.len());
        seen.insert(record.key.to_vec(), (outcome.unwrap().how, counted));
    });
    let how = |key: &str| seen[key.as_bytes()].0;
    assert_eq!(how("hash"), How::Commands);
    // Its 3 MB of zeros are packed to less than the budget.
    assert_eq!(how("string"), How::Raw);
    assert!(seen[&b"hash"[..]].1 >= 18 + 2);
}

/// Brings `file` with every value over 2 KB or 50 elements in parts; how many were.
fn bring_in_parts(file: &[u8], target: &mut Client, restorer: &mut Restorer) -> usize {
    let mut scanner = Scanner::new(ScannerLimits {
        whole_bytes_max: 2000,
        whole_elements_max: 50,
        ..ScannerLimits::default()
    });
    let (mut rest, mut large, mut count) = (file, None, 0);
    while let Some(event) = scanner.next(rest).unwrap() {
        rest = &rest[event.consumed..];
        let (mut bytes, mut replies) = (Vec::new(), Vec::new());
        let mut requests = Requests {
            bytes: &mut bytes,
            replies: &mut replies,
        };
        match event.record {
            Record::Key(record) => {
                let head = KeyHead::of(&record);
                restorer.whole(&mut requests, &head, &record.value).unwrap();
            }
            Record::LargeKey(head) => {
                count += 1;
                let begun = restorer.begin(&KeyHead::of_large(&head), head.type_id);
                large = Some(begun.unwrap());
            }
            Record::Part(part) => {
                let value = large.as_mut().unwrap();
                let done = value.part(restorer, &mut requests, part.bytes, part.last);
                assert_eq!(done.unwrap().is_some(), part.last);
            }
            Record::End { .. } => break,
            _ => {}
        }
        let verdicts = exchanged(target, &bytes, &replies);
        assert!(verdicts.iter().all(|verdict| *verdict != Verdict::Exists));
    }
    count
}

#[test]
fn values_in_parts_arrive_whole() {
    for encoding in ENCODINGS {
        let (_source, mut at_source) = filled(encoding);
        let file = saved(&mut at_source);
        let target = RedisServer::start(encoding);
        let mut at_target = target.client();
        let dialect = dialect_of(&target);
        let held = RestoreOptions::new(Overwrite::Always, "held");
        for (options, except) in [
            (held, &[][..]),
            (commands_only(Overwrite::Never), &[PENDING_DELETED]),
            (commands_only(Overwrite::Always), &[PENDING_DELETED]),
        ] {
            if options.overwrite == Overwrite::Never {
                at_target.call(&["FLUSHALL"]);
            }
            let mut restorer = Restorer::new(dialect, options);
            let large = bring_in_parts(&file, &mut at_target, &mut restorer);
            assert!(large >= 5, "{large} values in parts");
            assert_equal(&mut at_source, &mut at_target, except);
        }
    }
}

#[test]
fn use_is_told_where_the_policy_keeps_it() {
    let key = KeyHead {
        key: b"k",
        idle_s: Some(5000),
        freq: Some(77),
        ..KeyHead::default()
    };
    for (policy, question, least) in [
        ("allkeys-lru", "IDLETIME", 5000),
        ("volatile-lfu", "FREQ", 70),
        ("noeviction", "IDLETIME", 0),
    ] {
        let server = RedisServer::start(&["--maxmemory-policy", policy]);
        let mut client = server.client();
        client.call(&["SET", "k", "v"]);
        let payload = client.call(&["DUMP", "k"]).bytes().to_vec();
        let (value, _) = split_dump_payload(&payload).unwrap();
        let mut restorer = Restorer::new(dialect_of(&server), by_restore(Overwrite::Always));
        let (mut bytes, mut replies) = (Vec::new(), Vec::new());
        let mut requests = Requests {
            bytes: &mut bytes,
            replies: &mut replies,
        };
        restorer.whole(&mut requests, &key, &value).unwrap();
        exchanged(&mut client, &bytes, &replies);
        let found = client.call(&["OBJECT", question, "k"]).int();
        assert!(
            found >= least && (least > 0 || found < 100),
            "{policy} {found}"
        );
    }
}

/// Values of servers from 2.4 to 8, in layouts this server only reads or does
/// not know at all.
#[test]
fn values_of_other_servers_keep_their_content_both_ways() {
    let server = RedisServer::start(&[]);
    let mut client = server.client();
    let dialect = dialect_of(&server);
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rdb");
    let (mut held, mut not_held) = (BTreeSet::new(), BTreeSet::new());
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // No server wrote those two, nor loads them.
        if !name.ends_with(".rdb") || name.contains("corrupt") || name.contains("zipmap_big_len") {
            continue;
        }
        let file = std::fs::read(&path).unwrap();
        for options in [
            by_restore(Overwrite::Always),
            commands_only(Overwrite::Always),
        ] {
            let mut restorer = Restorer::new(dialect, options);
            scan(&file, |record| {
                // Its module is not here.
                if record.value.type_id == ValueType::Module2 {
                    return;
                }
                let byte = record.value.type_id.byte();
                let name = format!("{name} {}", record.key.escape_ascii());
                let lasting = KeyHead {
                    expires_at_ms: None,
                    ..KeyHead::of(record)
                };
                client.call(&["FLUSHALL"]);
                let verdicts = match restore(&mut client, &mut restorer, &lasting, record) {
                    Ok((_, verdicts)) => verdicts,
                    Err(CannotRestore::CannotHold { .. }) => {
                        not_held.insert(byte);
                        return;
                    }
                    Err(error) => panic!("{name}: {error}"),
                };
                if verdicts.is_empty() || verdicts.iter().any(|v| *v != Verdict::Done) {
                    return;
                }
                held.insert(byte);
                let payload = client.call(&[b"DUMP", &record.key[..]]).bytes().to_vec();
                let (value, _) = split_dump_payload(&payload).unwrap();
                // One fixture's stream counts entries that it does not hold.
                let ours = content_digest(&record.value).unwrap();
                let theirs = content_digest(&value).unwrap();
                assert_eq!(
                    (theirs.kind, theirs.digest),
                    (ours.kind, ours.digest),
                    "{name}"
                );
            });
        }
    }
    let known: BTreeSet<u8> = (0..=5).chain(9..=21).collect();
    assert!(held.is_superset(&known), "{held:?}");
    // Fields that expire.
    assert!(
        not_held.iter().all(|byte| (22..=25).contains(byte)),
        "{not_held:?}"
    );
    assert!(!not_held.is_empty());
}
