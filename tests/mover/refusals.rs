//! Servers that cannot take part, and commands that cannot be followed.

use std::time::Duration;

use keyferry::reshard::mover::{MoveError, Mover, Retry, Role, Unfollowable, preflight};
use keyferry::router::spec::DistributionKind;
use keyferry::upstream::config::{Credentials, Secret, UpstreamConfig};

use crate::support::{RedisServer, Value, seeded};
use crate::world::{World, start};

fn with_last(extra: &[&str]) -> World {
    let mut servers = RedisServer::start_many(2, &[]);
    servers.push(RedisServer::start(extra));
    World::between(servers, 2, 3, DistributionKind::Ketama)
}

fn with_first(extra: &[&str]) -> World {
    let mut servers = vec![RedisServer::start(extra)];
    servers.extend(RedisServer::start_many(2, &[]));
    World::between(servers, 2, 3, DistributionKind::Ketama)
}

async fn refused(world: &World, role: Role, server: usize, step: &str) -> String {
    let error = preflight(&world.config()).await.unwrap_err();
    let text = error.to_string();
    let MoveError::Preflight {
        role: found,
        server: address,
        ..
    } = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!(*found, role, "{text}");
    assert_eq!(
        address.to_string(),
        world.servers[server].address(),
        "{text}"
    );
    assert!(text.contains(step), "{text}");
    assert!(error.is_refusal());
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_world_passes_and_nothing_is_left() {
    let world = World::ketama(2, 3);
    let report = preflight(&world.config()).await.unwrap();
    assert_eq!((report.sources.len(), report.targets.len()), (2, 3));
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    for server in &world.servers {
        assert_eq!(server.client().call(&["DBSIZE"]), Value::Int(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_without_restore_is_named() {
    let world = with_last(&["--rename-command", "RESTORE", ""]);
    let text = refused(&world, Role::Target, 2, "RESTORE").await;
    assert!(text.contains("unknown command"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_whose_acl_denies_restore_is_named() {
    let world = with_last(&[
        "--user", "default", "on", "nopass", "~*", "&*", "+@all", "-restore",
    ]);
    let text = refused(&world, Role::Target, 2, "RESTORE").await;
    assert!(text.contains("NOPERM"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_psync_is_named() {
    let world = with_first(&["--rename-command", "PSYNC", ""]);
    let text = refused(&world, Role::Source, 0, "PSYNC").await;
    assert!(text.contains("--attach scan"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_can_be_neither_tapped_nor_walked_is_named() {
    // Which of the two is looked at first depends on their ports.
    let why = async |extra: &[&str]| {
        let world = World::without_psync(extra);
        let error = preflight(&world.config()).await.unwrap_err();
        assert!(error.is_refusal(), "{error}");
        error.to_string()
    };
    let text = why(&["--rename-command", "DUMP", ""]).await;
    assert!(text.contains("check DUMP: ERR unknown command"), "{text}");
    let denied = ["--user", "default", "on", "nopass", "~*", "&*", "+@all"];
    let text = why(&[&denied[..], &["-subscribe"]].concat()).await;
    assert!(text.contains("check SUBSCRIBE: NOPERM"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_not_read_by_scan() {
    let world = World::without_psync(&[]);
    let mut config = world.config();
    let address = |at: usize| world.servers[at].address().parse().unwrap();
    config.tapping.replicas.insert(address(0), address(2));
    let text = preflight(&config).await.unwrap_err().to_string();
    assert!(text.contains("--attach psync only"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_notifications_is_a_warning() {
    let world = World::without_psync(&[]);
    let report = preflight(&world.config()).await.unwrap();
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    let world = World::without_psync(&["--rename-command", "CONFIG", ""]);
    let report = preflight(&world.config()).await.unwrap();
    assert_eq!(report.warnings.len(), 2, "{:?}", report.warnings);
    for server in &world.servers[..2] {
        let mut warnings = report.warnings.iter();
        let warning = warnings.find(|warning| warning.contains(&server.address()));
        assert!(warning.unwrap().contains("--hold"), "{warning:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_whose_acl_denies_psync_is_named() {
    let world = with_first(&[
        "--user", "default", "on", "nopass", "~*", "&*", "+@all", "-psync",
    ]);
    refused(&world, Role::Source, 0, "PSYNC").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_fewer_databases_is_named() {
    let world = with_last(&["--databases", "2"]);
    let mut source = crate::world::in_db(&world.servers[0], 3);
    source.call(&["SET", "k", "v"]);
    refused(&world, Role::Target, 2, "SELECT").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_no_shard() {
    let world = World::ketama(2, 3);
    let port = world.servers[0].port().to_string();
    world.servers[2]
        .client()
        .call(&["REPLICAOF", "127.0.0.1", &port]);
    let text = refused(&world, Role::Target, 2, "master").await;
    assert!(text.contains("slave"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_evicts_is_a_warning() {
    let world = with_last(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let report = preflight(&world.config()).await.unwrap();
    assert_eq!(report.warnings.len(), 1);
    assert!(report.warnings[0].contains(&world.servers[2].address()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_named_and_not_shown() {
    let servers = RedisServer::start_many(3, &["--requirepass", "right"]);
    let world = World::between(servers, 2, 3, DistributionKind::Ketama);
    let mut config = world.config();
    let password = Secret::new("not-the-password");
    config.upstream = UpstreamConfig {
        credentials: Some(Credentials {
            username: None,
            password,
        }),
        ..config.upstream
    };
    let text = preflight(&config).await.unwrap_err().to_string();
    assert!(
        world
            .servers
            .iter()
            .any(|server| text.contains(&server.address())),
        "{text}"
    );
    assert!(!text.contains("not-the-password"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_target_stops_the_job_for_now() {
    let world = with_last(&["--maxmemory", "3mb"]);
    let value = "v".repeat(4000);
    for n in 0..6000 {
        let key = format!("full{n}");
        let key = key.as_bytes();
        if world.moves(key) && world.new_at(key) == 2 {
            world
                .old_client(0, key)
                .call(&[b"SET", key, value.as_bytes()]);
        }
    }
    let error = match start(world.config()).await {
        Ok(mover) => {
            let error = mover.wait_following().await.unwrap_err();
            let text = error.to_string();
            assert!(text.contains("RESTORE") && text.contains("`full"), "{text}");
            mover.stop().await.unwrap();
            error
        }
        // One source may have filled it before the other's first checkpoint came.
        Err(error) => error,
    };
    let text = error.to_string();
    assert!(
        text.contains("OOM") && text.contains(&world.servers[2].address()),
        "{text}"
    );
    assert!(text.contains("more memory"), "{text}");
    assert_eq!(error.retry(), Retry::RunAgain);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_dies_stops_the_job_for_now() {
    let mut world = World::ketama(2, 3);
    world.fill(&mut seeded("dies"), 200);
    let mut config = world.config();
    config.limits.target_patience_ms = 500;
    let mover = start(config).await.unwrap();
    mover.wait_following().await.unwrap();
    world.servers[2].kill();
    let error = mover.failed().await;
    assert!(matches!(error, MoveError::Link { .. }), "{error}");
    assert!(
        error.to_string().contains(&world.servers[2].address()),
        "{error}"
    );
    assert_eq!(error.retry(), Retry::RunAgain);
    assert!(mover.marker("late").await.is_err());
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_dies_stops_the_job_for_now() {
    let mut world = World::ketama(2, 3);
    world.fill(&mut seeded("source dies"), 200);
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    let address = world.servers[0].address();
    world.servers[0].kill();
    let error = mover.failed().await;
    assert!(error.to_string().contains(&address), "{error}");
    assert_eq!(error.retry(), Retry::RunAgain, "{error}");
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_target_holds_the_marker_and_lets_the_job_stop() {
    let mut world = World::ketama(2, 3);
    world.fill(&mut seeded("frozen"), 200);
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    world.servers[2].pause();
    let keys = (0..).map(|n| format!("frozen{n}"));
    let key = keys
        .into_iter()
        .find(|key| world.moves(key.as_bytes()) && world.new_at(key.as_bytes()) == 2);
    let key = key.unwrap();
    world
        .old_client(0, key.as_bytes())
        .call(&["SET", &key, "v"]);
    // Held as long as the target is: giving up on it is the caller's choice.
    let marker = tokio::time::timeout(Duration::from_millis(100), mover.marker("held"));
    assert!(marker.await.is_err(), "a frozen target has answered");
    world.servers[2].resume();
    mover.marker("thawed").await.unwrap();
    let mut target = world.servers[2].client();
    assert_eq!(target.call(&["GET", &key]), Value::bulk("v"));
    world.servers[2].pause();
    world
        .old_client(0, key.as_bytes())
        .call(&["SET", &key, "w"]);
    mover.stop().await.unwrap();
    world.servers[2].resume();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_late_marker_of_a_cut_taken_back_does_not_hold_up_the_next() {
    let mut world = World::ketama(2, 3);
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    world.servers[0].pause();
    let first = tokio::time::timeout(Duration::from_millis(100), mover.cut("first", 0));
    assert!(first.await.is_err(), "a frozen source has answered");
    mover.uncut();
    // The second cut is in force before the frozen source shows the first marker.
    let second = tokio::time::timeout(Duration::from_secs(20), mover.cut("second", 0));
    let (second, ()) = tokio::join!(second, async { world.servers[0].resume() });
    second
        .expect("a source waits for the end of the cut before")
        .unwrap();
    mover.uncut();
    mover.marker("after").await.unwrap();
    mover.stop().await.unwrap();
}

async fn stopped_by(world: &World, mover: &Mover) -> (String, Unfollowable) {
    let failed = tokio::time::timeout(Duration::from_secs(20), mover.failed());
    let error = failed.await.expect("the job goes on");
    let text = error.to_string();
    let MoveError::Unfollowable {
        source_server, why, ..
    } = error
    else {
        panic!("{text}")
    };
    assert!(
        world
            .servers
            .iter()
            .any(|server| server.address() == source_server.to_string())
    );
    assert!(text.contains("offset"), "{text}");
    (text, why)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_command_stops_the_job() {
    // Streams say what a renamed command is called on its server.
    let mut servers = RedisServer::start_many(1, &["--rename-command", "APPEND", "FROBNICATE"]);
    servers.extend(RedisServer::start_many(2, &[]));
    let world = World::between(servers, 1, 3, DistributionKind::Ketama);
    let moving = world.find("moving", |key| world.moves(key));
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    world.servers[0]
        .client()
        .call(&["FROBNICATE", &moving, "x"]);
    let (text, why) = stopped_by(&world, &mover).await;
    assert_eq!(why, Unfollowable::UnknownCommand, "{text}");
    assert!(text.contains("FROBNICATE"), "{text}");
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn independent_keys_of_one_command_go_their_own_ways() {
    let world = World::ketama(1, 3);
    let moving = |to: usize| world.find("k", |key| world.moves(key) && world.new_at(key) == to);
    let (one, two) = (moving(1), moving(2));
    let stays = world.find("s", |key| !world.moves(key));
    let mut source = world.old_client(0, one.as_bytes());
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    let at = |server: usize, key: &str| world.servers[server].client().call(&["GET", key]);
    source.call(&["MSET", &one, "1", &stays, "s", &two, "2"]);
    mover.marker("mset").await.unwrap();
    assert_eq!(
        (at(1, &one), at(2, &two)),
        (Value::bulk("1"), Value::bulk("2"))
    );
    assert_eq!((at(1, &stays), at(2, &one)), (Value::Null, Value::Null));
    source.call(&["DEL", &two, &stays, &one]);
    source.call(&["MSETNX", &two, "4", &one, "3"]);
    mover.marker("msetnx").await.unwrap();
    assert_eq!(
        (at(1, &one), at(2, &two)),
        (Value::bulk("3"), Value::bulk("4"))
    );
    source.call(&["UNLINK", &two, &one]);
    mover.marker("unlink").await.unwrap();
    assert_eq!((at(1, &one), at(2, &two)), (Value::Null, Value::Null));
    mover.stop().await.unwrap();
}
