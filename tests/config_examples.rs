//! Every file in `configs/` is loaded: an example that does not load is worse
//! than none.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

use std::path::{Path, PathBuf};

use keyferry::config;
use keyferry::router::hash::HashKind;
use keyferry::router::layout::Layout;
use keyferry::router::spec::DistributionKind;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs")
}

#[test]
fn every_example_loads() {
    let mut loaded = 0;
    for entry in std::fs::read_dir(examples()).expect("configs/") {
        let file = entry.expect("an entry").path();
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let result = if name == "store.toml" {
            config::load_store(&file).map(|_| ())
        } else if name.ends_with(".layout.toml") {
            config::load_layout(&file).map(|_| ())
        } else {
            config::load(&file).map(|_| ())
        };
        result.unwrap_or_else(|error| panic!("{error}"));
        loaded += 1;
    }
    assert!(loaded >= 3, "only {loaded} examples");
}

#[test]
fn what_is_commented_out_in_the_small_example_is_the_default() {
    let text = std::fs::read_to_string(examples().join("small.toml")).expect("small.toml");
    let explicit: Vec<&str> = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest)
                if rest.contains(" = ")
                    && !rest.contains("password")
                    && !rest.contains("token") =>
            {
                rest
            }
            _ => line,
        })
        .collect();
    let file = Path::new("small.toml");
    let written = config::parse(file, &text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
    let explicit = config::parse(file, &explicit.join("\n"), &|_| None)
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(written.server, explicit.server);
    assert_eq!(written.log, explicit.log);
    assert_eq!(written.admin, explicit.admin);
    let ([written], [explicit]) = (written.pools.as_slice(), explicit.pools.as_slice()) else {
        panic!("one pool each");
    };
    assert_eq!(written.timeouts, explicit.timeouts);
    assert_eq!(written.upstream, explicit.upstream);
    assert_eq!(written.limits, explicit.limits);
    assert_eq!(written.eject, explicit.eject);
    let layout = |spec| Layout::new(spec).expect("a layout").fingerprint();
    assert_eq!(
        layout(written.layout.clone()),
        layout(explicit.layout.clone())
    );
}

#[test]
fn the_layout_example_adds_a_shard_to_the_small_one() {
    let small = config::load(&examples().join("small.toml")).expect("small.toml");
    let layout =
        config::load_layout(&examples().join("three-shards.layout.toml")).expect("a layout");
    let [pool] = small.pools.as_slice() else {
        panic!("one pool")
    };
    assert_eq!(
        pool.layout.shards.as_slice(),
        layout.shards.get(..2).expect("two shards")
    );
    assert_eq!(
        (pool.layout.hash, pool.layout.hash_tag),
        (layout.hash, layout.hash_tag)
    );
}

#[test]
fn the_slots_example_has_slots() {
    let config = config::load(&examples().join("slots.toml")).expect("slots.toml");
    let [pool] = config.pools.as_slice() else {
        panic!("one pool")
    };
    assert_eq!(pool.layout.hash, HashKind::Crc16Slot);
    assert_eq!(pool.layout.distribution, DistributionKind::Slots);
}
