//! Keys that targets hold before the job begins, and jobs that begin again.

use keyferry::reshard::mover::{MoveError, OnConflict, VerifyOptions, check_targets};

use crate::support::{Value, seeded};
use crate::world::{World, start};

struct Conflict {
    world: World,
    key: String,
}

/// A moving key on its source, and another value of it in its target.
fn conflict() -> Conflict {
    let world = World::ketama(2, 3);
    world.fill(&mut seeded("conflict"), 200);
    let key = world.find("conflict", |key| world.moves(key));
    world
        .old_client(0, key.as_bytes())
        .call(&["SET", &key, "source"]);
    world
        .new_client(0, key.as_bytes())
        .call(&["SET", &key, "target"]);
    Conflict { world, key }
}

impl Conflict {
    fn at_target(&self) -> Value {
        self.world
            .new_client(0, self.key.as_bytes())
            .call(&["GET", &self.key])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fail_refuses_and_changes_nothing() {
    let it = conflict();
    let Err(error) = start(it.world.config()).await else {
        panic!("it started")
    };
    let MoveError::Conflict { examples, count } = &error else {
        panic!("{error}")
    };
    assert_eq!(*count, 1);
    assert_eq!(examples[0].key, it.key.as_bytes());
    assert!(error.is_refusal());
    assert!(error.to_string().contains(&it.key), "{error}");
    assert_eq!(it.at_target(), Value::bulk("target"));
    let empty = it.world.servers[2].client().call(&["DBSIZE"]).int();
    assert!(empty <= 1, "something was copied");
}

#[tokio::test(flavor = "multi_thread")]
async fn replace_takes_the_sources_value() {
    let it = conflict();
    let mut config = it.world.config();
    config.on_conflict = OnConflict::Replace;
    let mover = start(config).await.unwrap();
    mover.wait_following().await.unwrap();
    assert_eq!(it.at_target(), Value::bulk("source"));
    assert!(
        mover
            .verify(VerifyOptions::default())
            .await
            .unwrap()
            .is_clean()
    );
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn skip_leaves_the_targets_value_and_its_writes_alone() {
    let it = conflict();
    let mut config = it.world.config();
    config.on_conflict = OnConflict::Skip;
    let mover = start(config).await.unwrap();
    mover.wait_following().await.unwrap();
    it.world
        .old_client(0, it.key.as_bytes())
        .call(&["APPEND", &it.key, "+"]);
    mover.marker("appended").await.unwrap();
    assert_eq!(it.at_target(), Value::bulk("target"));
    let report = mover.verify(VerifyOptions::default()).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.keys_skipped, 1);
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_job_removes_what_it_copied_and_copies_again() {
    let world = World::ketama(2, 3);
    let keys = world.fill(&mut seeded("resumed"), 800);
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    mover.stop().await.unwrap();
    // While nobody follows, a key ends and another changes.
    let moving: Vec<_> = keys.iter().filter(|key| world.moves(key)).collect();
    world
        .old_client(0, moving[0])
        .call(&[b"DEL", &moving[0][..]]);
    world
        .old_client(0, moving[1])
        .call(&[&b"SET"[..], &moving[1][..], b"again"]);
    let refused = check_targets(&world.config()).await;
    assert!(matches!(refused.err(), Some(MoveError::Conflict { .. })));
    let mut config = world.config();
    config.resumed = true;
    let mover = start(config).await.unwrap();
    mover.wait_following().await.unwrap();
    let report = mover.verify(VerifyOptions::default()).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert!(report.keys_compared > 0);
    mover.stop().await.unwrap();
}
