//! Links that break: the tap goes on at the exact byte, or starts again.

use super::*;

/// Writes in database 5, so that a lost SELECT would show.
fn writer(source: &RedisServer) -> Client {
    let mut client = source.client();
    client.call(&["SELECT", "5"]);
    client
}

async fn follow(config: TapConfig) -> Follower {
    Follower::start(Tap::attach(config, None).await.unwrap(), Seen::default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_cut_anywhere_is_made_whole() {
    let source = source(true);
    let forwarder = Forwarder::start(&source.address());
    let follower = follow(patient(&forwarder.address())).await;
    follower.catch_up(&source);
    let mut client = writer(&source);
    // The SET is 30 bytes long, SELECT and PING may come before it.
    let cuts: Vec<usize> = (1..=40).step_by(3).collect();
    for (round, cut) in cuts.iter().enumerate() {
        forwarder.cut_after(*cut);
        client.call(&["SET", &format!("key:{round}"), "v"]);
        client.call(&["MULTI"]);
        client.call(&["INCR", "counter"]);
        client.call(&["INCR", "counter"]);
        client.call(&["EXEC"]);
        wait_until("the link is back", LIMIT, || {
            follower.figures().reconnects == round as u64 + 1
        });
    }
    follower.catch_up(&source);
    let figures = follower.figures();
    assert_eq!(figures.full_resyncs, 1);
    assert!(figures.last_error.is_some());
    let seen = follower.stop().await;
    assert_eq!(seen.commands().len(), 3 * cuts.len(), "each exactly once");
    assert!(seen.commands().iter().all(|(_, db, _)| *db == 5));
    let continued = |event: &&TapEvent| matches!(event, TapEvent::Continue { .. });
    assert!(seen.events.iter().filter(continued).count() >= 1);
    Copy::of(&seen.events).assert_equals(&source);
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_survive_a_link_that_breaks_all_the_time() {
    let source = RedisServer::start(&[
        "--enable-debug-command",
        "yes",
        "--repl-backlog-size",
        "64mb",
    ]);
    fill(&mut source.client());
    let forwarder = Forwarder::start(&source.address());
    let follower = follow(patient(&forwarder.address())).await;
    follower.catch_up(&source);
    let stop = Arc::new(AtomicBool::new(false));
    let (mut client, stopped) = (source.client(), Arc::clone(&stop));
    let writing = thread::spawn(move || write_until(&stopped, &mut client));
    for round in 1..=10 {
        forwarder.cut_after(20_011 * round);
        wait_until("the link is back", LIMIT, || {
            follower.figures().reconnects >= round as u64
        });
    }
    stop.store(true, Ordering::Relaxed);
    writing.join().unwrap();
    follower.catch_up(&source);
    assert_eq!(follower.figures().full_resyncs, 1);
    Copy::of(&follower.stop().await.events).assert_equals(&source);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_replica_goes_on_under_its_new_id() {
    let mut master = source(true);
    let port = master.port().to_string();
    let replica = RedisServer::start(&[
        "--enable-debug-command",
        "yes",
        "--replicaof",
        "127.0.0.1",
        &port,
    ]);
    fill(&mut master.client());
    wait_until("the replica is in sync", LIMIT, || {
        let up = replica.info_field("replication", "master_link_status");
        up.as_deref() == Some("up")
    });
    let forwarder = Forwarder::start(&master.address());
    let follower = follow(patient(&forwarder.address())).await;
    follower.catch_up(&master);
    writer(&master).call(&["SET", "before", "v"]);
    let offset = follower.catch_up(&master);
    wait_until("the replica has it, too", LIMIT, || {
        let there = replica.info_field("replication", "slave_repl_offset");
        there.unwrap().parse::<u64>().unwrap() >= offset
    });
    let old = follower.seen().resume.clone().unwrap().replid;
    forwarder.point_at(&replica.address());
    master.kill();
    replica.client().call(&["REPLICAOF", "NO", "ONE"]);
    let mut client = writer(&replica);
    client.call(&["SET", "after", "v"]);
    follower.catch_up(&replica);
    assert_eq!(follower.figures().full_resyncs, 1);
    let seen = follower.stop().await;
    let continued: Vec<_> = seen
        .events
        .iter()
        .filter_map(|event| match event {
            TapEvent::Continue { replid } => Some(replid.clone()),
            _ => None,
        })
        .collect();
    let new = replica.info_field("replication", "master_replid").unwrap();
    assert!(new != old && continued == [new], "{continued:?}");
    let key = ("SET".to_owned(), 5, false);
    assert_eq!(seen.commands(), [key.clone(), key]);
    Copy::of(&seen.events).assert_equals(&replica);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_replica_is_gone_its_master_goes_on() {
    let master = source(true);
    let port = master.port().to_string();
    let mut replica = RedisServer::start(&["--replicaof", "127.0.0.1", &port]);
    wait_until("the replica is in sync", LIMIT, || {
        let up = replica.info_field("replication", "master_link_status");
        up.as_deref() == Some("up")
    });
    let mut config = patient(&replica.address());
    config.alternates = vec![master.address().parse().unwrap()];
    let follower = follow(config).await;
    writer(&master).call(&["SET", "through", "the replica"]);
    follower.catch_up(&master);
    let links = |server: &RedisServer| server.info_field("replication", "connected_slaves");
    assert_eq!(
        links(&replica).as_deref(),
        Some("1"),
        "the first address is preferred"
    );
    replica.kill();
    writer(&master).call(&["SET", "through", "nobody"]);
    follower.catch_up(&master);
    assert_eq!(follower.figures().full_resyncs, 1);
    Copy::of(&follower.stop().await.events).assert_equals(&master);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_that_is_over_means_a_new_snapshot() {
    let source = RedisServer::start(&[
        "--enable-debug-command",
        "yes",
        "--repl-backlog-size",
        "16384",
    ]);
    source.client().call(&["SET", "void", "later"]);
    let forwarder = Forwarder::start(&source.address());
    let follower = follow(patient(&forwarder.address())).await;
    follower.catch_up(&source);
    forwarder.refuse();
    forwarder.cut();
    let mut client = writer(&source);
    for i in 0..100 {
        client.call(&["SET", &format!("key:{i}"), &"x".repeat(1000)]);
    }
    source.client().call(&["DEL", "void"]);
    forwarder.admit();
    wait_until("a second snapshot", LIMIT, || {
        follower.figures().full_resyncs == 2
    });
    client.call(&["SET", "after", "v"]);
    follower.catch_up(&source);
    let seen = follower.stop().await;
    Copy::of(&seen.events).assert_equals(&source);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_comes_back_empty_counts_from_its_own_offset() {
    let mut source = source(true);
    let follower = follow(patient(&source.address())).await;
    fill(&mut source.client());
    let before = follower.catch_up(&source);
    source.restart();
    wait_until("a second snapshot", LIMIT, || {
        follower.figures().full_resyncs == 2
    });
    writer(&source).call(&["SET", "new", "v"]);
    let offset = follower.catch_up(&source);
    assert!(offset < before);
    wait_until("the ACK is of the new history", LIMIT, || {
        let slave = source.info_field("replication", "slave0").unwrap();
        slave.contains(&format!("offset={offset},"))
    });
    Copy::of(&follower.stop().await.events).assert_equals(&source);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_cut_off_is_sent_again() {
    for diskless in [true, false] {
        let source = source(diskless);
        fill(&mut source.client());
        let forwarder = Forwarder::start(&source.address());
        forwarder.cut_after(60_000);
        let follower = follow(patient(&forwarder.address())).await;
        follower.catch_up(&source);
        assert_eq!(follower.figures().full_resyncs, 2);
        Copy::of(&follower.stop().await.events).assert_equals(&source);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_link_is_left() {
    let source = RedisServer::start(&[
        "--enable-debug-command",
        "yes",
        "--repl-ping-replica-period",
        "1",
    ]);
    let forwarder = Forwarder::start(&source.address());
    let mut config = patient(&forwarder.address());
    config.silence_max = Duration::from_secs(3);
    let follower = follow(config).await;
    follower.catch_up(&source);
    forwarder.stall();
    wait_until("the tap notices", LIMIT, || {
        let error = follower.figures().last_error;
        error.is_some_and(|text| text.contains("not a byte within 3s"))
    });
    forwarder.go_on();
    writer(&source).call(&["SET", "k", "v"]);
    follower.catch_up(&source);
    assert_eq!(follower.figures().full_resyncs, 1);
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attaching_waits_for_a_source_that_is_not_ready() {
    let source = source(true);
    let forwarder = Forwarder::start(&source.address());
    forwarder.refuse();
    let attaching = tokio::spawn(Tap::attach(patient(&forwarder.address()), None));
    wait_until("it has tried", LIMIT, || forwarder.tries() >= 3);
    forwarder.admit();
    attaching.await.unwrap().unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn patience_ends_with_the_last_error() {
    let mut source = source(true);
    let mut config = patient(&source.address());
    config.patience = Duration::from_millis(300);
    let follower = follow(config.clone()).await;
    follower.catch_up(&source);
    source.kill();
    let error = wait_for("the tap gives up", LIMIT, || {
        follower.seen.lock().unwrap().error.take()
    });
    assert_eq!((error.step, error.retry()), (TapStep::Connect, Retry::Safe));
    let refused = Tap::attach(config, None).await.unwrap_err();
    assert_eq!(refused.step, TapStep::Connect);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_haste_no_rest_is_taken_and_none_holds_up_the_end() {
    let source = source(true);
    let mut config = patient(&source.address());
    // Longer than any test: what is told at all is told without it.
    config.rest = Duration::from_secs(3600);
    config.haste.hurry();
    let haste = config.haste.clone();
    let follower = follow(config).await;
    let mut client = writer(&source);
    for round in 0..100 {
        client.call(&["SET", "key", &round.to_string()]);
        follower.catch_up(&source);
    }
    haste.relax();
    client.call(&["SET", "key", "last"]);
    follower.catch_up(&source);
    // It rests now, and the stream after it waits.
    client.call(&["SET", "key", "not told"]);
    let seen = follower.stop().await;
    assert_eq!(seen.commands().len(), 101, "{:?}", seen.commands());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tap_that_rests_tells_all() {
    let source = source(true);
    let mut config = patient(&source.address());
    config.rest = Duration::from_millis(1);
    let follower = follow(config).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (mut client, stopped) = (source.client(), Arc::clone(&stop));
    let writing = thread::spawn(move || write_until(&stopped, &mut client));
    wait_until("much is told", LIMIT, || {
        follower.seen().events.len() > 5_000
    });
    stop.store(true, Ordering::Relaxed);
    writing.join().unwrap();
    follower.catch_up(&source);
    Copy::of(&follower.stop().await.events).assert_equals(&source);
}
