//! Properties of layouts and of the moves between two of them.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof};
use proptest::sample::select;

use crate::router::hash::HashKind;
use crate::router::layout::Layout;
use crate::router::moves::{ESTIMATE_SAMPLES, Move, Moves, MovesError};
use crate::router::spec::{DistributionKind, LayoutSpec, ShardSpec};

/// Up to six shards out of eight addresses, some under another name, maybe a tag.
fn any_layout() -> impl Strategy<Value = LayoutSpec> {
    let shard = (0..8u16, 1..4u32, any::<bool>());
    let twelve: Vec<HashKind> = HashKind::ALL
        .into_iter()
        .filter(|hash| hash.is_twemproxy())
        .collect();
    let placed = (
        select(twelve),
        select(vec![DistributionKind::Ketama, DistributionKind::Modula]),
    );
    let slotted = (
        select(vec![HashKind::Crc16Slot, HashKind::Crc32Slot]),
        select(vec![DistributionKind::Modula]),
    );
    (
        prop_oneof![3 => placed, 1 => slotted],
        any::<bool>(),
        vec(shard, 1..6),
    )
        .prop_map(|(kinds, tagged, mut shards)| {
            shards.sort_unstable();
            shards.dedup_by_key(|&mut (port, ..)| port);
            let shard = |(port, weight, renamed): (u16, u32, bool)| ShardSpec {
                name: renamed.then(|| format!("other-{port}")),
                addr: format!("10.9.0.1:{}", 7000 + port),
                weight,
                slots: None,
            };
            LayoutSpec {
                hash: kinds.0,
                distribution: kinds.1,
                hash_tag: tagged.then(|| "{}".parse().unwrap()),
                route: Vec::new(),
                shards: shards.into_iter().map(shard).collect(),
                earlier: None,
            }
        })
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..40),
        vec(select(b"{}ab".to_vec()), 0..12)
    ]
}

proptest::proptest! {
    #[test]
    fn moves_agree_with_both_owners(a in any_layout(), b in any_layout(), keys in vec(any_key(), 1..100)) {
        let (from, to) = (Arc::new(Layout::new(a).unwrap()), Arc::new(Layout::new(b).unwrap()));
        let moves = Moves::between(Arc::clone(&from), Arc::clone(&to)).unwrap();
        for key in &keys {
            let (old, new) = (from.owner(key), to.owner(key));
            let same = from.shard(old).address == to.shard(new).address;
            let expected = if same { Move::Stays { at: old } } else { Move::Moves { from: old, to: new } };
            prop_assert_eq!(moves.of(key), expected);
        }
    }

    #[test]
    fn a_written_layout_reads_back_as_the_same(spec in any_layout(), keys in vec(any_key(), 1..50)) {
        let back: LayoutSpec = toml::from_str(&toml::to_string(&spec).unwrap()).unwrap();
        let (one, two) = (Layout::new(spec).unwrap(), Layout::new(back).unwrap());
        prop_assert_eq!(one.spec(), two.spec());
        prop_assert_eq!(one.fingerprint(), two.fingerprint());
        for key in &keys {
            prop_assert_eq!(one.owner(key), two.owner(key));
            prop_assert!(one.owner(key).as_usize() < one.shards().len());
        }
    }

    #[test]
    fn keys_of_one_tag_share_a_shard(spec in any_layout(), tag in vec(select(b"abc".to_vec()), 1..5), a in vec(select(b"xyz}".to_vec()), 0..5), b in any_key()) {
        let layout = Layout::new(LayoutSpec { hash_tag: Some("{}".parse().unwrap()), ..spec }).unwrap();
        let key = [a.as_slice(), b"{", &tag, b"}", &b].concat();
        prop_assert_eq!(layout.owner(&key), layout.owner(&tag));
    }
}

fn even(ports: std::ops::Range<u16>, distribution: DistributionKind) -> Arc<Layout> {
    let shards = ports
        .map(|port| ShardSpec::at(&format!("h:{port}").parse().unwrap()))
        .collect();
    Arc::new(
        Layout::new(LayoutSpec {
            distribution,
            shards,
            ..LayoutSpec::default()
        })
        .unwrap(),
    )
}

#[test]
fn an_estimate_is_close_and_the_same_in_every_run() {
    // h % 2 == h % 3 for two of six remainders: four sixths move.
    let moves = Moves::between(
        even(1..3, DistributionKind::Modula),
        even(1..4, DistributionKind::Modula),
    )
    .unwrap();
    let estimate = moves.estimate(ESTIMATE_SAMPLES);
    assert_eq!(estimate, moves.estimate(ESTIMATE_SAMPLES));
    assert!(
        (estimate.moving_percent - 66.67).abs() < 0.5,
        "{estimate:?}"
    );
    assert_eq!(estimate.pairs.len(), 4);
    for pair in &estimate.pairs {
        assert!((pair.percent - 16.67).abs() < 0.5, "{estimate:?}");
    }
    // A third shard on a ring takes its share from the others and nothing else moves.
    let moves = Moves::between(
        even(1..3, DistributionKind::Ketama),
        even(1..4, DistributionKind::Ketama),
    )
    .unwrap();
    assert!(
        moves
            .estimate(10_000)
            .pairs
            .iter()
            .all(|pair| pair.to.0 == 2)
    );
}

#[test]
fn equal_layouts_move_nothing() {
    let layout = even(1..4, DistributionKind::Ketama);
    let moves = Moves::between(Arc::clone(&layout), layout).unwrap();
    assert_eq!(moves.estimate(1000).moving_percent, 0.0);
}

#[test]
fn random_layouts_have_no_moves() {
    let (fixed, random) = (
        even(1..3, DistributionKind::Ketama),
        even(1..3, DistributionKind::Random),
    );
    let error = Moves::between(Arc::clone(&random), Arc::clone(&fixed)).unwrap_err();
    assert_eq!(error, MovesError::RandomSource);
    assert_eq!(
        Moves::between(fixed, random).unwrap_err(),
        MovesError::RandomTarget
    );
}
