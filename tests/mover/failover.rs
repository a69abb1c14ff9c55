//! A replica takes the place of a source, and has not had all that its master was
//! told.

use std::sync::Arc;
use std::time::Duration;

use keyferry::reshard::mover::{MoveError, Tapping, VerifyOptions};
use keyferry::router::moves::Moves;
use keyferry::router::spec::DistributionKind;

use crate::support::{Forwarder, RedisServer, Value, wait_until};
use crate::world::{World, layout_at, prepared_cut, start};

const SOON: Duration = Duration::from_secs(30);

/// Reads messages of our channel until one of that kind comes.
fn wait_published(server: &RedisServer, kind: &str) -> std::thread::JoinHandle<()> {
    let mut listener = server.client();
    listener.call(&["SUBSCRIBE", "__keyferry"]);
    let kind = format!(":{kind}:");
    std::thread::spawn(move || {
        loop {
            let push = listener.read();
            if push.items()[2].text().contains(&kind) {
                return;
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn markers_that_a_failover_swallowed_are_sent_again() {
    let servers = RedisServer::start_many(2, &[]);
    let replicating = Forwarder::start(&servers[0].address());
    let port = replicating.port().to_string();
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &port]);
    wait_until("the replica is in sync", SOON, || {
        let up = replica.info_field("replication", "master_link_status");
        up.as_deref() == Some("up")
    });
    let front = Forwarder::start(&servers[0].address());
    let address = servers[1].address();
    let old = layout_at(&[front.address()], DistributionKind::Ketama);
    let new = layout_at(&[front.address(), address], DistributionKind::Ketama);
    let world = World {
        moves: Arc::new(Moves::between(old, new).unwrap()),
        ..World::between(servers, 1, 2, DistributionKind::Ketama)
    };
    let key = world.find("k", |key| world.moves(key));
    let mut master = world.servers[0].client();
    master.call(&["SET", &key, "v", "PX", "800000"]);
    let mut config = world.config();
    let [tapped, source] = [replica.address(), front.address()].map(|at| at.parse().unwrap());
    config.tapping = Tapping {
        replicas: [(source, tapped)].into(),
        ..Tapping::default()
    };
    let mover = start(config).await.unwrap();
    mover.wait_following().await.unwrap();

    // From here on the replica hears nothing.
    replicating.stall();
    let published = wait_published(&world.servers[0], "settle");
    let prepared = tokio::time::timeout(SOON, mover.prepare_cut());
    let fail_over = tokio::task::spawn_blocking(move || {
        published.join().unwrap();
        front.point_at(&replica.address());
        front.cut();
        let mut promoted = replica.client();
        assert_eq!(promoted.call(&["REPLICAOF", "NO", "ONE"]), Value::ok());
        (front, replica)
    });
    let (prepared, failed_over) = tokio::join!(prepared, fail_over);
    let (_front, replica) = failed_over.unwrap();
    let error = prepared.expect("nobody waits for ever").unwrap_err();
    assert!(matches!(error, MoveError::Restarted { .. }), "{error}");
    mover.uncut();

    let mut promoted = replica.client();
    promoted.call(&["APPEND", &key, "+"]);
    let again = tokio::time::timeout(SOON, prepared_cut(&mover));
    again.await.expect("the settler is at work");
    let mut target = world.servers[1].client();
    assert_eq!(target.call(&["GET", &key]), Value::bulk("v+"));
    let times = [&mut target, &mut promoted].map(|at| at.call(&["PEXPIRETIME", &key]).int());
    assert_eq!(times[0], times[1]);
    mover.uncut();
    assert_eq!(mover.progress_now().restarts(), 0);
    let report = mover.verify(VerifyOptions::default()).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    mover.stop().await.unwrap();
}
