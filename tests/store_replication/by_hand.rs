//! What goes over the wire, byte by byte.

use std::fs;
use std::io::{BufRead, Read};

use crate::support::{Client, RedisServer, ServerKind, StoreServer, Value};
use crate::{LIMIT, digest, info, prepare};

/// A line that is no keepalive.
fn line(client: &mut Client) -> String {
    loop {
        let mut line = String::new();
        client.reader().read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the shard closed the connection");
        if line != "\n" {
            return line.trim_end().to_owned();
        }
    }
}

fn take(client: &mut Client, bytes: usize) -> Vec<u8> {
    let mut taken = vec![0; bytes];
    client.reader().read_exact(&mut taken).unwrap();
    taken
}

/// `+FULLRESYNC`: the id and the offset.
fn full_resync(client: &mut Client) -> (String, u64) {
    let answer = line(client);
    let mut words = answer.split(' ');
    assert_eq!(words.next(), Some("+FULLRESYNC"), "{answer}");
    let replid = words.next().unwrap().to_owned();
    assert_eq!(replid.len(), 40);
    (replid, words.next().unwrap().parse().unwrap())
}

fn with_length(client: &mut Client) -> Vec<u8> {
    let head = line(client);
    let length = head.strip_prefix('$').unwrap().parse().unwrap();
    take(client, length)
}

fn until_mark(client: &mut Client) -> Vec<u8> {
    let head = line(client);
    let mark = head.strip_prefix("$EOF:").unwrap().as_bytes().to_vec();
    assert_eq!(mark.len(), 40);
    let mut rdb = Vec::new();
    while !rdb.ends_with(&mark) {
        rdb.extend(take(client, 1));
    }
    rdb.truncate(rdb.len() - 40);
    rdb
}

/// A real server that loaded the snapshot holds what we hold.
fn assert_loads(store: &StoreServer, rdb: &[u8]) {
    for kind in ServerKind::ALL.into_iter().filter(|kind| kind.is_here()) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("dump.rdb"), rdb).unwrap();
        let flags: &[&str] = match kind.is_seven_or_later() {
            true => &["--enable-debug-command", "yes"],
            false => &[],
        };
        let server = RedisServer::start_with_files(kind, dir.path(), flags).unwrap();
        let (ours, theirs) = (digest(&mut store.client()), digest(&mut server.client()));
        assert_eq!(ours, theirs, "{kind} loads something else");
    }
}

/// The next command of the stream that is no PING, as words; and its bytes.
fn next_command(client: &mut Client) -> Vec<String> {
    loop {
        let words: Vec<String> = client.read().items().iter().map(Value::text).collect();
        if words != ["PING"] {
            return words;
        }
    }
}

#[test]
fn sync_without_a_word_of_offsets_is_served() {
    let store = StoreServer::start(&[]);
    prepare(&store);
    let mut old = store.client();
    old.send_raw(b"SYNC\r\n");
    let rdb = with_length(&mut old);
    assert_loads(&store, &rdb);
    // Whatever was selected, it begins with a SELECT.
    let mut writer = store.client();
    writer.call(&["SELECT", "9"]);
    writer.call(&["INCR", "counter"]);
    assert_eq!(next_command(&mut old), ["SELECT", "9"]);
    assert_eq!(next_command(&mut old), ["INCR", "counter"]);
    let known = info(&mut writer, "replication", "slave0");
    assert!(known.contains("state=online"), "{known}");
}

#[test]
fn a_replica_without_eof_gets_a_length_and_the_stream_right_behind() {
    let store = StoreServer::start(&[]);
    prepare(&store);
    let mut replica = store.client();
    replica.call(&[
        "REPLCONF",
        "listening-port",
        "1234",
        "ip-address",
        "somewhere",
    ]);
    replica.send(&["PSYNC", "?", "-1"]);
    let (replid, offset) = full_resync(&mut replica);
    let mut writer = store.client();
    assert_eq!(info(&mut writer, "replication", "master_replid"), replid);
    let rdb = with_length(&mut replica);
    assert!(rdb.starts_with(b"REDIS0009\xfa"));
    assert_loads(&store, &rdb);
    writer.call(&["INCR", "counter"]);
    assert_eq!(next_command(&mut replica), ["SELECT", "0"]);
    assert_eq!(next_command(&mut replica), ["INCR", "counter"]);
    let end: u64 = info(&mut writer, "replication", "master_repl_offset")
        .parse()
        .unwrap();
    assert!(end > offset);
    let known = info(&mut writer, "replication", "slave0");
    assert!(
        known.starts_with("ip=somewhere,port=1234,state=online,offset=0,"),
        "{known}"
    );
    // More than it was sent is not believed.
    replica.send(&["REPLCONF", "ACK", &(end + 1_000_000).to_string()]);
    let wanted = format!("offset={end},");
    crate::wait_until("the acknowledgement is seen", LIMIT, || {
        info(&mut writer, "replication", "slave0").contains(&wanted)
    });
}

#[test]
fn behind_the_mark_nothing_comes_before_the_first_acknowledgement() {
    let store = StoreServer::start(&[]);
    prepare(&store);
    let mut replica = store.client();
    replica.call(&["REPLCONF", "capa", "eof", "capa", "psync2"]);
    replica.send(&["PSYNC", "?", "-1"]);
    let (_, offset) = full_resync(&mut replica);
    let rdb = until_mark(&mut replica);
    assert_loads(&store, &rdb);
    let mut writer = store.client();
    writer.call(&["INCR", "counter"]);
    let known = info(&mut writer, "replication", "slave0");
    assert!(known.contains("state=send_bulk"), "{known}");
    replica.set_reply_limit(std::time::Duration::from_millis(200));
    assert!(replica.try_read().is_err(), "it says something too early");
    replica.set_reply_limit(LIMIT);
    replica.send(&["REPLCONF", "ACK", &offset.to_string()]);
    assert_eq!(next_command(&mut replica), ["SELECT", "0"]);
    assert_eq!(next_command(&mut replica), ["INCR", "counter"]);
}

#[test]
fn the_stream_goes_on_at_any_byte_that_the_log_has() {
    let mut store = StoreServer::start(&[]);
    let mut writer = store.client();
    writer.call(&["SELECT", "3"]);
    for number in 0..10 {
        writer.call(&["SET", "key", &number.to_string()]);
    }
    let id = info(&mut writer, "replication", "master_replid");
    let end: u64 = info(&mut writer, "replication", "master_repl_offset")
        .parse()
        .unwrap();
    let mut whole = store.client();
    whole.send(&["PSYNC", &id, "1"]);
    assert_eq!(
        line(&mut whole),
        "+CONTINUE",
        "who knows no PSYNC2 is told no id"
    );
    let stream = take(&mut whole, end as usize);
    assert!(stream.starts_with(b"*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n"));
    for have in [1, 7, end / 2, end - 1, end] {
        let mut replica = store.client();
        replica.call(&["REPLCONF", "capa", "psync2"]);
        replica.send(&["PSYNC", &id, &(have + 1).to_string()]);
        assert_eq!(line(&mut replica), format!("+CONTINUE {id}"));
        let rest = take(&mut replica, (end - have) as usize);
        assert_eq!(rest, stream[have as usize..]);
    }
    for (id, next) in [(id.as_str(), end + 2), (&"0".repeat(40), 1), (&id[..39], 1)] {
        let mut replica = store.client();
        replica.send(&["PSYNC", id, &next.to_string()]);
        assert_eq!(full_resync(&mut replica).1, end);
    }
    // After a crash the former name holds up to the end that was found, and no further.
    store.kill();
    store.start_again();
    let new = info(&mut store.client(), "replication", "master_replid");
    assert_ne!(new, id);
    store.client().call(&["SET", "key", "after"]);
    let mut replica = store.client();
    replica.call(&["REPLCONF", "capa", "psync2"]);
    replica.send(&["PSYNC", &id, &(end + 1).to_string()]);
    assert_eq!(line(&mut replica), format!("+CONTINUE {new}"));
    assert_eq!(next_command(&mut replica), ["SELECT", "0"]);
    assert_eq!(next_command(&mut replica), ["SET", "key", "after"]);
    let mut ahead = store.client();
    ahead.send(&["PSYNC", &id, &(end + 2).to_string()]);
    full_resync(&mut ahead);
}

#[test]
fn who_wants_only_the_stream_gets_a_snapshot_without_keys() {
    let store = StoreServer::start(&[]);
    prepare(&store);
    let mut replica = store.client();
    assert_eq!(
        replica.call(&["REPLCONF", "rdb-filter-only", ""]),
        Value::ok()
    );
    let words = "ERR Filtered replica requires EOF capability";
    assert_eq!(
        replica.call(&["PSYNC", "?", "-1"]),
        Value::Error(words.to_owned())
    );
    replica.call(&["REPLCONF", "capa", "eof"]);
    replica.send(&["PSYNC", "?", "-1"]);
    let (_, offset) = full_resync(&mut replica);
    let rdb = until_mark(&mut replica);
    assert!(rdb.len() < 300, "{} bytes", rdb.len());
    replica.send(&["REPLCONF", "ACK", &offset.to_string()]);
    store.client().call(&["INCR", "counter"]);
    assert_eq!(next_command(&mut replica), ["SELECT", "0"]);
    assert_eq!(next_command(&mut replica), ["INCR", "counter"]);
}

#[test]
fn who_wants_only_the_snapshot_is_left_behind_it() {
    let store = StoreServer::start(&[]);
    prepare(&store);
    let mut replica = store.client();
    replica.call(&["REPLCONF", "rdb-only", "1"]);
    replica.send(&["SYNC"]);
    let rdb = with_length(&mut replica);
    assert_loads(&store, &rdb);
    assert_eq!(replica.read_to_end().unwrap(), b"");
    let mut diskless = store.client();
    diskless.call(&["REPLCONF", "rdb-only", "1", "capa", "eof"]);
    diskless.send(&["PSYNC", "?", "-1"]);
    full_resync(&mut diskless);
    assert_eq!(until_mark(&mut diskless).len(), rdb.len());
    assert_eq!(diskless.read_to_end().unwrap(), b"");
}

#[test]
fn what_was_asked_before_is_answered_before() {
    let store = StoreServer::start(&[]);
    let mut client = store.client();
    client.send_raw(b"SET k v\r\nGET k\r\nPSYNC ? -1\r\nREPLCONF ACK 0\r\n\r\n");
    assert_eq!(client.read(), Value::ok());
    assert_eq!(client.read(), Value::bulk("v"));
    let (_, offset) = full_resync(&mut client);
    with_length(&mut client);
    let mut writer = store.client();
    let end = info(&mut writer, "replication", "master_repl_offset");
    assert_eq!(
        end,
        offset.to_string(),
        "the snapshot has all that was answered"
    );
    writer.call(&["INCR", "counter"]);
    assert_eq!(next_command(&mut client), ["SELECT", "0"]);
}

#[test]
fn a_shard_stops_though_a_replica_takes_nothing() {
    let mut store = StoreServer::start(&[]);
    let mut writer = store.client();
    for number in 0..40 {
        writer.call(&["SET", &format!("large:{number}"), &"x".repeat(1 << 20)]);
    }
    let mut stuck = store.client();
    stuck.send(&["SYNC"]);
    let mut other = store.client();
    other.call(&["REPLCONF", "capa", "eof"]);
    other.send(&["PSYNC", "?", "-1"]);
    full_resync(&mut other);
    crate::wait_until("both take a snapshot", LIMIT, || {
        let of = |slave| info(&mut store.client(), "replication", slave);
        of("slave0").contains("send_bulk") && of("slave1").contains("send_bulk")
    });
    writer.send(&["SHUTDOWN"]);
    let status = store.process().wait(LIMIT);
    assert!(status.success(), "{status}");
    store.start_again();
    assert_eq!(store.client().call(&["DBSIZE"]).int(), 40);
}

#[test]
fn a_replica_that_says_nothing_is_let_go() {
    let store = StoreServer::start(&[]);
    let mut client = store.client();
    client.call(&["CONFIG", "SET", "repl-timeout", "1"]);
    client.call(&["CONFIG", "SET", "repl-ping-replica-period", "1"]);
    let id = info(&mut client, "replication", "master_replid");
    let mut silent = store.client();
    silent.send(&["PSYNC", &id, "1"]);
    assert_eq!(line(&mut silent), "+CONTINUE");
    let heard = silent.read_to_end().unwrap();
    assert!(heard.is_empty() || heard.starts_with(b"*1\r\n$4\r\nPING\r\n"));
    crate::wait_until("nobody follows", LIMIT, || {
        info(&mut client, "replication", "connected_slaves") == "0"
    });
}

#[test]
fn replconf_and_its_kin_answer_as_redis_does() {
    let store = StoreServer::start(&[]);
    let redis = RedisServer::start(&[]);
    let (mut ours, mut theirs) = (store.client(), redis.client());
    for words in [
        "REPLCONF",
        "REPLCONF listening-port",
        "REPLCONF listening-port 6380",
        "REPLCONF listening-port x",
        "REPLCONF ip-address 1.2.3.4 capa eof capa psync2",
        "REPLCONF capa unknown",
        "REPLCONF nothing 1",
        "REPLCONF rdb-only 0",
        "REPLCONF rdb-only 2",
        "REPLCONF rdb-only x",
        "REPLCONF rdb-filter-only functions",
        "REPLCONF rdb-filter-only keys",
        "PSYNC",
        "PSYNC ?",
        "PSYNC ? x",
        "SYNC 1",
        "ROLE",
        "ROLE 1",
        "WAIT 0 0",
        "WAIT -1 0",
        "WAIT 1 1",
        "WAIT x 0",
        "WAIT 0 x",
        "WAIT 0 -1",
        "MULTI",
        "SYNC",
        "DISCARD",
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        assert_eq!(ours.call(&words), theirs.call(&words), "{words:?}");
    }
    // No answer to these: the next one is that to PING.
    for client in [&mut ours, &mut theirs] {
        client.send(&["REPLCONF", "ACK", "1"]);
        client.send(&["REPLCONF", "GETACK", "*"]);
        assert_eq!(client.call(&["PING"]), Value::Simple("PONG".to_owned()));
    }
}
