//! Servers of other versions and vendors as sources, in the way each of them
//! sends: one socket or two.

use super::*;
use support::servers::{ServerKind, Skipped};

fn source_of(kind: ServerKind) -> RedisServer {
    // So large that a busy machine does not turn a cut into a full resync.
    let mut args = vec!["--repl-diskless-sync", "yes"];
    args.extend(["--repl-backlog-size", "64mb"]);
    if kind.is_seven_or_later() {
        args.extend(["--enable-debug-command", "yes"]);
    }
    if sends_on_two_sockets(kind) && kind != ServerKind::Redis80 {
        args.extend(["--dual-channel-replication-enabled", "yes"]);
    }
    RedisServer::start_kind(kind, &args)
}

fn sends_on_two_sockets(kind: ServerKind) -> bool {
    matches!(
        kind,
        ServerKind::Redis80 | ServerKind::Valkey81 | ServerKind::Valkey91
    )
}

/// What all of them know.
fn fill_plainly(client: &mut Client) {
    for db in ["0", "5"] {
        client.call(&["SELECT", db]);
        for i in 0..3_000 {
            let reply = client.call(&["SET", &format!("key:{i}"), &"x".repeat(i % 400)]);
            assert!(!reply.is_error(), "{reply:?}");
        }
        for line in [
            "RPUSH list a b 3",
            "SADD intset 1 2 300000",
            "ZADD zset 1 a 2.5 b",
            "HSET hash f v g w",
            "XADD stream 1-1 f v",
            "SET volatile v PX 100000000",
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let reply = client.call(&words);
            assert!(!reply.is_error(), "{line}: {reply:?}");
        }
    }
}

fn write_plainly_until(stop: &AtomicBool, client: &mut Client) {
    let mut round = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let key = format!("during:{}", round % 100);
        let commands: Vec<Vec<&str>> = vec![
            vec!["SELECT", ["0", "5"][round as usize % 2]],
            vec!["INCR", "counter"],
            vec!["RPUSH", &key, "element"],
            vec!["MULTI"],
            vec!["INCR", "in-transaction"],
            vec!["HINCRBY", "hash-during", &key, "1"],
            vec!["EXEC"],
            vec!["SPOP", "intset"],
        ];
        client.pipeline(&commands);
    }
}

async fn is_followed(kind: ServerKind) {
    let source = source_of(kind);
    fill_plainly(&mut source.client());
    let stop = Arc::new(AtomicBool::new(false));
    let (mut client, stopped) = (source.client(), Arc::clone(&stop));
    let writing = thread::spawn(move || write_plainly_until(&stopped, &mut client));
    let forwarder = Forwarder::start(&source.address());
    let tap = Tap::attach(patient(&forwarder.address()), None)
        .await
        .unwrap();
    let follower = Follower::start(tap, Seen::default());
    wait_until("commands came after the snapshot", LIMIT, || {
        follower.seen().commands().len() > 2_000
    });
    let mode = if sends_on_two_sockets(kind) {
        TapMode::TwoSockets
    } else {
        TapMode::Psync
    };
    assert_eq!(follower.figures().mode, mode, "{kind}");
    forwarder.cut();
    wait_until("the link is back", LIMIT, || {
        follower.figures().reconnects == 1
    });
    stop.store(true, Ordering::Relaxed);
    writing.join().unwrap();
    let offset = follower.catch_up(&source);
    wait_until("the source sees our ACK", LIMIT, || {
        let slave = source.info_field("replication", "slave0").unwrap();
        slave.contains(&format!("offset={offset}")) && slave.contains("state=online")
    });
    assert_eq!(follower.figures().full_resyncs, 1, "{kind}");
    let seen = follower.stop().await;
    if kind.is_seven_or_later() {
        Copy::at(source_of(kind), &seen.events).assert_equals(&source);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_server_is_followed_in_its_own_way() {
    let mut skipped = Skipped::default();
    for kind in ServerKind::ALL {
        if skipped.unless_here(kind.name(), &[kind]) {
            println!("{kind}");
            is_followed(kind).await;
        }
    }
    skipped.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sockets_can_be_declined() {
    let mut skipped = Skipped::default();
    let kinds = [ServerKind::Redis80, ServerKind::Valkey91];
    for kind in kinds {
        if skipped.unless_here(kind.name(), &[kind]) {
            let source = source_of(kind);
            fill_plainly(&mut source.client());
            let mut config = config(&source.address());
            config.two_sockets = false;
            let tap = Tap::attach(config, None).await.unwrap();
            let follower = Follower::start(tap, Seen::default());
            follower.catch_up(&source);
            assert_eq!(follower.figures().mode, TapMode::Psync, "{kind}");
            Copy::at(source_of(kind), &follower.stop().await.events).assert_equals(&source);
        }
    }
    skipped.finish();
}
