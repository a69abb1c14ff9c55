use std::sync::Arc;

use super::*;
use crate::router::spec::{DistributionKind, PrefixSpec, ShardSpec};

fn spec(distribution: DistributionKind, shards: &[(&str, u16)]) -> LayoutSpec {
    let shards = shards.iter().map(|(name, port)| {
        let address = format!("h:{port}").parse().unwrap();
        ShardSpec::named(name, &address)
    });
    LayoutSpec {
        distribution,
        shards: shards.collect(),
        ..LayoutSpec::default()
    }
}

fn layout(spec: LayoutSpec) -> Arc<Layout> {
    Arc::new(Layout::new(spec).unwrap())
}

fn old() -> LayoutSpec {
    spec(
        DistributionKind::Ketama,
        &[("zeta", 3), ("alpha", 1), ("beta", 2)],
    )
}

fn new() -> LayoutSpec {
    let shards = [("alpha", 1), ("beta", 2), ("zeta", 3), ("d", 4), ("e", 5)];
    spec(DistributionKind::Ketama, &shards)
}

fn between(from: LayoutSpec, to: LayoutSpec) -> Result<Way, StepsError> {
    let moves = Moves::between(layout(from), layout(to)).unwrap();
    Way::of("cache", &moves, &moves.estimate(20_000))
}

pub(super) fn way() -> Way {
    between(old(), new()).unwrap()
}

fn shards(way: &Way) -> Vec<&str> {
    way.steps.iter().map(|step| step.shard.as_str()).collect()
}

#[test]
fn the_order_is_that_in_which_the_old_layout_was_written() {
    let way = way();
    assert_eq!(shards(&way), ["zeta", "alpha", "beta"]);
    let text = way.to_string();
    assert!(text.contains("1 of 3  zeta h:3: "), "{text}");
    assert!(text.contains(" -> h:4 "), "{text}");
}

#[test]
fn each_step_moves_what_leaves_its_shard_and_the_last_ends_at_the_new_layout() {
    let way = way();
    for (at, step) in way.steps.iter().enumerate() {
        let (from, to) = (layout(way.layout_before(at)), layout(way.layout(at)));
        let moves = Moves::between(from, to).unwrap();
        let estimate = moves.estimate(20_000);
        assert!((estimate.moving_percent - step.percent).abs() < 1e-9);
        for pair in &estimate.pairs {
            assert_eq!(moves.from().shard(pair.from).address.to_string(), step.addr);
        }
        assert_eq!(way.is_last(at), at == 2);
    }
    assert_eq!(way.layout(2), new());
}

#[test]
fn shards_without_moving_keys_have_no_step_unless_a_prefix_may_name_them() {
    let slots = |shards: &[(&str, u16, &str)]| {
        let shards = shards.iter().map(|(name, port, slots)| ShardSpec {
            slots: Some((*slots).to_owned()),
            ..ShardSpec::named(name, &format!("h:{port}").parse().unwrap())
        });
        LayoutSpec {
            hash: crate::router::hash::HashKind::Crc16Slot,
            distribution: DistributionKind::Slots,
            shards: shards.collect(),
            ..LayoutSpec::default()
        }
    };
    let old = slots(&[
        ("a", 1, "0-4999"),
        ("b", 2, "5000-9999"),
        ("c", 3, "10000-16383"),
    ]);
    let new = slots(&[
        ("a", 1, "0-4999"),
        ("b", 2, "5000-5999"),
        ("c", 3, "10000-16383"),
        ("d", 4, "6000-9999"),
    ]);
    let way = between(old.clone(), new.clone()).unwrap();
    assert_eq!(shards(&way), ["b"]);
    assert_eq!(way.layout(0), new);

    let rule = |prefix: &str, shard: &str| PrefixSpec {
        prefix: prefix.to_owned(),
        shard: shard.to_owned(),
    };
    let pinned = LayoutSpec {
        route: vec![rule("queue:", "c")],
        ..old.clone()
    };
    let named = LayoutSpec {
        route: vec![rule("queue:", "d")],
        ..new.clone()
    };
    assert_eq!(shards(&between(pinned, named.clone()).unwrap()), ["b", "c"]);
    // Whoever has keys of the prefix gives them.
    assert_eq!(shards(&between(old, named).unwrap()), ["a", "b", "c"]);
}

#[test]
fn a_way_goes_on_from_a_layout_of_it_and_from_no_other() {
    let way = way();
    let rest = between(way.layout(0), new()).unwrap();
    assert_eq!(shards(&rest), ["alpha", "beta"]);
    assert_eq!(rest.layout(0), way.layout(1));
    assert_eq!(rest.earlier, old());

    let elsewhere = spec(DistributionKind::Modula, &[("x", 9)]);
    let refused = between(way.layout(0), elsewhere).unwrap_err();
    assert!(matches!(refused, StepsError::OtherWay), "{refused}");
    assert_eq!(refused.ending(), Ending::Guard);
    let refused = between(old(), way.layout(0)).unwrap_err();
    assert_eq!(refused.ending(), Ending::Usage);
}

#[test]
fn layouts_that_differ_in_names_only_are_one_step_that_moves_nothing() {
    let from = spec(DistributionKind::Ketama, &[("a", 1)]);
    let to = spec(DistributionKind::Ketama, &[("b", 1)]);
    let way = between(from, to.clone()).unwrap();
    assert_eq!((shards(&way), way.layout(0)), (vec!["a"], to));
}
