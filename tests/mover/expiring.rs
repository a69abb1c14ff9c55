//! Keys that would end on their target before the copy reaches what renewed them.

use std::time::Duration;

use keyferry::reshard::mover::{Phase, VerifyOptions};

use crate::support::{Value, seeded, wait_until};
use crate::world::{DBS, World, contents, in_db, now_ms, rate, start};

/// Longer than the renewals take, shorter than the copy.
const TTL_MS: u64 = 3_000;
/// With a megabyte a second, what comes after it comes after the TTL.
const FILLER_BYTES: usize = 5_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn keys_renewed_while_the_copy_lags_are_kept() {
    let world = World::ketama(1, 2);
    let moving = |prefix: &str| world.find(prefix, |key| world.moves(key));
    // Random bytes: a snapshot compresses others.
    let mut rng = seeded("expiring");
    let filler: Vec<u8> = (0..100_000).map(|_| rng.u8(..)).collect();
    let mut first = in_db(&world.servers[0], DBS[0]);
    for n in 0.. {
        let key = format!("filler{n}");
        if world.moves(key.as_bytes()) {
            first.call(&[b"SET", key.as_bytes(), &filler]);
        }
        if first.call(&["DBSIZE"]).int() as usize * filler.len() >= FILLER_BYTES {
            break;
        }
    }
    // The second database comes after the first in a snapshot.
    let mut source = in_db(&world.servers[0], DBS[1]);
    let [count, text, forever, gone, fresh] =
        ["count", "text", "forever", "gone", "fresh"].map(moving);
    let ttl = TTL_MS.to_string();
    for key in [&count, &text, &forever, &gone] {
        source.call(&["SET", key, "41", "PX", &ttl]);
    }
    let ended = now_ms() + TTL_MS;
    let mut config = world.config();
    config.throttle = rate(1_000_000);
    let mover = start(config).await.unwrap();
    let mut progress = mover.progress();
    let begun = progress.wait_for(|now| {
        let mut rows = now.sources.iter();
        rows.next().is_some_and(|row| row.phase >= Phase::Snapshot)
    });
    begun.await.unwrap();
    for command in [
        vec!["INCR", &count],
        vec!["PEXPIRE", &count, "600000"],
        vec!["PEXPIRE", &text, "600000"],
        vec!["PERSIST", &forever],
        vec!["SET", &fresh, "1", "PX", &ttl],
        vec!["INCR", &fresh],
        vec!["RENAME", &fresh, &fresh],
        vec!["PEXPIRE", &fresh, "600000", "GT"],
    ] {
        let reply = source.call(&command);
        assert!(
            !reply.is_error() && reply != Value::Int(0),
            "too slow: {command:?} {reply:?}"
        );
    }
    wait_until("the first times end", Duration::from_secs(30), || {
        now_ms() > ended
    });
    mover.wait_following().await.unwrap();
    let report = mover.verify(VerifyOptions::default()).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    let mut target = in_db(&world.servers[1], DBS[1]);
    for (key, value) in [
        (&count, "42"),
        (&text, "41"),
        (&forever, "41"),
        (&fresh, "2"),
    ] {
        assert_eq!(target.call(&["GET", key]), Value::bulk(value), "{key}");
        let key = key.as_bytes();
        assert_eq!(contents(&mut target, key), contents(&mut source, key));
    }
    assert_eq!(target.call(&["EXISTS", &gone]), Value::Int(0));
    mover.stop().await.unwrap();
}
