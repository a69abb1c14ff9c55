//! What comes after a position is applied once, whatever breaks meanwhile.

use keyferry::reshard::mover::{Begin, MoverConfig, Position, VerifyOptions};

use crate::support::{RedisServer, Value};
use crate::world::{World, in_db, start};

/// Where a source's stream is now, in database `db`.
fn position(server: &RedisServer, db: u32) -> Position {
    let field = |name| server.info_field("replication", name).unwrap();
    Position {
        source: server.address().parse().unwrap(),
        replid: field("master_replid"),
        offset: field("master_repl_offset").parse().unwrap(),
        db,
    }
}

fn full_syncs(server: &RedisServer) -> u64 {
    let count = server.info_field("stats", "sync_full").unwrap();
    count.parse().unwrap()
}

/// A world of one server that becomes two, with a counter in each database that
/// was copied, and its sources' positions.
async fn copied() -> (World, String, Vec<Position>) {
    let world = World::ketama(1, 2);
    let key = world.find("count", |key| world.moves(key));
    for db in [0, 3] {
        in_db(&world.servers[0], db).call(&["INCR", &key]);
    }
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    mover.stop().await.unwrap();
    // The last command was in database 3.
    let at = vec![position(&world.servers[0], 3)];
    (world, key, at)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_after_a_position_is_followed() {
    let (world, key, at) = copied().await;
    let mut source = in_db(&world.servers[0], 3);
    assert_eq!(source.call(&["INCR", &key]), Value::Int(2));
    let config = MoverConfig {
        begin: Begin::Follow(at),
        ..world.config()
    };
    let mover = start(config).await.unwrap();
    mover.wait_following().await.unwrap();
    assert_eq!(full_syncs(&world.servers[0]), 1);
    let report = mover.verify(VerifyOptions::default()).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(
        in_db(&world.servers[1], 3).call(&["GET", &key]),
        Value::bulk("2")
    );
    assert_eq!(mover.progress_now().restarts(), 0);
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_is_gone_makes_its_keys_be_copied_anew() {
    let (world, key, mut at) = copied().await;
    at[0].replid = "0".repeat(40);
    let stale = world.find("stale", |key| world.moves(key));
    in_db(&world.servers[1], 0).call(&["SET", &stale, "x"]);
    let config = MoverConfig {
        begin: Begin::Follow(at),
        ..world.config()
    };
    let mover = start(config).await.unwrap();
    mover.wait_following().await.unwrap();
    let report = mover.verify(VerifyOptions::default()).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    let mut target = in_db(&world.servers[1], 0);
    assert_eq!(target.call(&["EXISTS", &stale]), Value::Int(0));
    assert_eq!(target.call(&["GET", &key]), Value::bulk("1"));
    assert_eq!(mover.progress_now().restarts(), 1);
    mover.stop().await.unwrap();
}
