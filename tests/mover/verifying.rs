//! Verification finds what differs and nothing else.

use keyferry::reshard::mover::{Difference, DifferenceKind, Mover, VerifyOptions};

use crate::support::seeded;
use crate::world::{DBS, World, start};

async fn differences(mover: &Mover) -> Vec<Difference> {
    let report = mover.verify(VerifyOptions::default()).await.unwrap();
    assert_eq!(report.differences as usize, report.examples.len());
    assert_eq!(report.is_clean(), report.examples.is_empty());
    report.examples
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_differences_are_found_and_named() {
    let world = World::ketama(2, 3);
    world.fill(&mut seeded("planted"), 700);
    let db = DBS[1];
    let moving = |prefix: &str| world.find(prefix, |key| world.moves(key));
    let (text, list, gone, soon, stream, kind) = (
        moving("text"),
        moving("list"),
        moving("gone"),
        moving("soon"),
        moving("stream"),
        moving("kind"),
    );
    for (key, command) in [
        (&text, vec!["SET", &text, "one"]),
        (&list, vec!["RPUSH", &list, "a", "b"]),
        (&gone, vec!["SET", &gone, "x"]),
        (&soon, vec!["SET", &soon, "x", "EX", "500"]),
        (&stream, vec!["XADD", &stream, "1-1", "f", "v"]),
        (&stream, vec!["XGROUP", "CREATE", &stream, "g", "0"]),
        (&kind, vec!["SET", &kind, "x"]),
    ] {
        world.old_client(db, key.as_bytes()).call(&command);
    }
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    assert_eq!(differences(&mover).await, []);

    let extra = world.find("extra", |key| world.moves(key));
    let later = (crate::world::now_ms() + 505_000).to_string();
    for (key, command) in [
        (&text, vec!["SET", &text, "two"]),
        (&list, vec!["RPUSH", &list, "c"]),
        (&gone, vec!["DEL", &gone]),
        (&soon, vec!["PEXPIREAT", &soon, &later]),
        (
            &stream,
            vec!["XREADGROUP", "GROUP", "g", "c", "STREAMS", &stream, ">"],
        ),
        (&kind, vec!["DEL", &kind]),
        (&kind, vec!["RPUSH", &kind, "x"]),
        (&extra, vec!["SET", &extra, "x"]),
    ] {
        world.new_client(db, key.as_bytes()).call(&command);
    }
    let found = differences(&mover).await;
    let what = |key: &str| {
        let found = found.iter().find(|found| found.key == key.as_bytes());
        let found = found.unwrap_or_else(|| panic!("{key} was not found"));
        assert_eq!(found.db, db);
        assert_eq!(
            found.source.to_string(),
            world.old_owner(key.as_bytes()).address()
        );
        assert_eq!(
            found.target.to_string(),
            world.new_owner(key.as_bytes()).address()
        );
        found.what.clone()
    };
    assert_eq!(what(&text), DifferenceKind::Content);
    assert_eq!(
        what(&list),
        DifferenceKind::Length {
            source: 2,
            target: 3
        }
    );
    assert_eq!(what(&gone), DifferenceKind::MissingAtTarget);
    assert!(matches!(what(&soon), DifferenceKind::Expiry { .. }));
    assert_eq!(what(&stream), DifferenceKind::Content);
    assert!(matches!(what(&kind), DifferenceKind::Kind { .. }));
    assert_eq!(what(&extra), DifferenceKind::ExtraAtTarget);
    assert_eq!(found.len(), 7, "{found:?}");
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_within_a_second_agrees() {
    let world = World::ketama(2, 3);
    let key = world.find("k", |key| world.moves(key));
    world
        .old_client(0, key.as_bytes())
        .call(&["SET", &key, "x", "PX", "500000"]);
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    let mut target = world.new_client(0, key.as_bytes());
    let at = target.call(&["PEXPIRETIME", &key]).int();
    target.call(&["PEXPIREAT", &key, &(at + 900).to_string()]);
    assert_eq!(differences(&mover).await, []);
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_are_compared_in_bounded_batches() {
    let world = World::ketama(2, 3);
    let value = "v".repeat(3_000_000);
    for n in 0..40 {
        let key = format!("large{n}");
        world
            .old_client(0, key.as_bytes())
            .call(&["SET", &key, &value]);
    }
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    assert_eq!(differences(&mover).await, []);
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_verify_proves_the_same_content_whoever_holds_it() {
    let world = World::ketama(2, 3);
    world.fill(&mut seeded("proof"), 500);
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    let proof = async |mover: &Mover| {
        let report = mover.verify(VerifyOptions::default()).await.unwrap();
        let proof = report.verified.expect("nothing differs");
        let keys: u64 = proof.sources().iter().map(|source| source.keys).sum();
        assert_eq!(keys, report.keys_compared);
        proof
    };
    let first = proof(&mover).await;
    assert_eq!(first.sources().len(), 2);
    assert_eq!(
        first,
        proof(&mover).await,
        "the same keys, the same digests"
    );
    let key = world.find("one-more", |key| world.moves(key));
    world
        .old_client(0, key.as_bytes())
        .call(&["SET", &key, "x"]);
    let more = proof(&mover).await;
    let changed = first.sources().iter().zip(more.sources());
    let changed = changed.filter(|(before, after)| before.digest != after.digest);
    assert_eq!(changed.count(), 1, "one source has one more key");
    world
        .new_client(0, key.as_bytes())
        .call(&["SET", &key, "y"]);
    let report = mover.verify(VerifyOptions::default()).await.unwrap();
    assert_eq!((report.differences, report.verified), (1, None));
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn canaries_find_a_stale_value_and_tell_the_lag() {
    let world = World::ketama(2, 3);
    let keys: Vec<String> = (0..40)
        .map(|n| world.find(&format!("canary{n}:"), |key| world.moves(key)))
        .collect();
    for key in &keys {
        world.old_client(0, key.as_bytes()).call(&["SET", key, "v"]);
    }
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    let mut progress = mover.progress();
    // A round begins anew now and then, so each key is compared again and again.
    let compared = |least: u64| {
        move |seen: &keyferry::reshard::mover::MoverProgress| {
            let canaries = seen.sources.iter().map(|row| &row.canary);
            canaries.map(|canary| canary.keys_compared).sum::<u64>() >= least
        }
    };
    let seen = progress.wait_for(compared(80)).await.unwrap().clone();
    assert_eq!(seen.canary_differences(), 0);
    assert!(seen.lag_ms().is_some());
    let stale = &keys[7];
    world
        .new_client(0, stale.as_bytes())
        .call(&["SET", stale, "stale"]);
    let found = progress
        .wait_for(|seen| seen.canary_differences() > 0)
        .await
        .unwrap()
        .clone();
    let mut canaries = found.sources.iter().map(|row| &row.canary);
    let difference = canaries.find_map(|canary| canary.last_difference.clone());
    let difference = difference.expect("it is described");
    assert_eq!(difference.key, stale.as_bytes());
    assert_eq!(
        difference.what,
        DifferenceKind::Length {
            source: 1,
            target: 5
        }
    );
    mover.stop().await.unwrap();
}
