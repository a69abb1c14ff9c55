//! Servers that close idle connections, and a job that has to wait.

use std::time::Duration;

use keyferry::reshard::mover::VerifyOptions;
use keyferry::router::spec::DistributionKind;

use crate::support::{RedisServer, Value, seeded, wait_until};
use crate::world::{World, start};

/// Has the server closed an idle connection that was opened now?
fn idle_ones_are_closed(server: &RedisServer) {
    let mut idle = server.client();
    idle.call(&["CLIENT", "SETNAME", "idle"]);
    wait_until(
        "an idle connection is closed",
        Duration::from_secs(30),
        || {
            let list = server.client().call(&["CLIENT", "LIST"]).text();
            !list.contains("name=idle")
        },
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_outlives_the_servers_timeout() {
    let servers = RedisServer::start_many(3, &["--timeout", "1"]);
    let world = World::between(servers, 2, 3, DistributionKind::Ketama);
    world.fill(&mut seeded("idling"), 200);
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    for server in &world.servers {
        idle_ones_are_closed(server);
    }
    let key = world.find("late", |key| world.moves(key));
    world
        .old_client(0, key.as_bytes())
        .call(&["SET", &key, "v"]);
    mover.cut("late", 0).await.unwrap();
    let mut target = world.new_client(0, key.as_bytes());
    assert_eq!(target.call(&["GET", &key]), Value::bulk("v"));
    mover.uncut();
    let report = mover.verify(VerifyOptions::default()).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marker_finds_its_way_when_the_idle_connection_was_ended() {
    let world = World::ketama(2, 3);
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    let mut source = world.servers[0].client();
    // Lanes, taps and this client have their own look; what is left is the publisher.
    let list = source.call(&["CLIENT", "LIST", "TYPE", "normal"]).text();
    let ours = source.call(&["CLIENT", "ID"]).int().to_string();
    let field = |line: &str, name: &str| {
        let found = line.split(' ').find_map(|field| field.strip_prefix(name));
        found.unwrap_or_default().to_owned()
    };
    let links: Vec<String> = list
        .lines()
        .filter(|line| field(line, "name=").is_empty())
        .map(|line| field(line, "id="))
        .filter(|id| *id != ours)
        .collect();
    assert!(!links.is_empty(), "{list}");
    for id in &links {
        source.call(&["CLIENT", "KILL", "ID", id]);
    }
    wait_until("the publisher dials again", Duration::from_secs(20), || {
        let list = source.call(&["CLIENT", "LIST", "TYPE", "normal"]).text();
        list.lines()
            .any(|line| field(line, "name=").is_empty() && field(line, "id=") != ours)
    });
    mover.marker("after").await.unwrap();
    mover.stop().await.unwrap();
}
