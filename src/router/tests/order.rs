//! Names, the order of shards, single shards, empty keys, tags, fingerprints.

use super::{at, named, names, owner_name};
use crate::router::hash::HashKind;
use crate::router::layout::{Layout, ShardIndex};
use crate::router::spec::{DistributionKind, LayoutSpec, ShardSpec};

#[test]
fn a_shard_without_a_name_is_called_as_twemproxy_does() {
    let spec = at(&[
        "h:06379",
        "g:11211",
        "h:011211",
        "unix:/run/r.sock",
        "::1:7000",
        "h:6379",
    ]);
    let layout = Layout::new(spec).unwrap();
    assert_eq!(
        names(&layout),
        ["g", "h", "h:6379", "h:06379", "::1:7000", "/run/r.sock:"]
    );
}

#[test]
fn shorter_names_come_first_then_bytes() {
    let spec = at(&["10.0.0.10:1", "10.0.0.9:1", "10.0.0.1:1"]);
    assert_eq!(
        names(&Layout::new(spec).unwrap()),
        ["10.0.0.1:1", "10.0.0.9:1", "10.0.0.10:1"]
    );
    let spec = named(&[("a9", 1), ("é", 1), ("b", 1), ("zz", 1), ("B", 1)]);
    assert_eq!(
        names(&Layout::new(spec).unwrap()),
        ["B", "b", "a9", "zz", "é"]
    );
}

#[test]
fn the_order_in_the_file_means_nothing() {
    for distribution in [DistributionKind::Ketama, DistributionKind::Modula] {
        let spec = LayoutSpec {
            distribution,
            ..named(&[("a", 1), ("b", 2), ("ccc", 3), ("dd", 1)])
        };
        let mut turned = spec.clone();
        turned.shards.reverse();
        let (one, two) = (Layout::new(spec).unwrap(), Layout::new(turned).unwrap());
        assert_eq!(one.fingerprint(), two.fingerprint());
        for key in (0..500u32).map(u32::to_be_bytes) {
            assert_eq!(one.owner(&key), two.owner(&key));
        }
    }
}

#[test]
fn a_single_shard_owns_everything_unhashed() {
    for distribution in [
        DistributionKind::Ketama,
        DistributionKind::Modula,
        DistributionKind::Random,
    ] {
        let layout = Layout::new(LayoutSpec {
            distribution,
            ..named(&[("a", 7)])
        })
        .unwrap();
        assert_eq!(layout.owner(b"x"), ShardIndex(0));
        assert!(layout.is_deterministic());
    }
}

#[test]
fn an_empty_key_hashes_to_0_whatever_the_function() {
    for hash in HashKind::ALL.into_iter().filter(|hash| hash.is_twemproxy()) {
        let layout = Layout::new(LayoutSpec {
            hash,
            ..named(&[("a", 1), ("b", 1), ("c", 1)])
        })
        .unwrap();
        assert_eq!(layout.hash_of(b""), 0, "{hash}");
        assert_eq!(layout.owner(b"").0, layout.ring()[0].1, "{hash}");
    }
}

#[test]
fn random_uses_every_shard_and_moves_nothing() {
    let layout = Layout::new(LayoutSpec {
        distribution: DistributionKind::Random,
        ..named(&[("a", 1), ("b", 9)])
    })
    .unwrap();
    assert!(!layout.is_deterministic());
    let to_b = (0..1000).filter(|_| layout.owner(b"k").0 == 1).count();
    assert!(
        (300..700).contains(&to_b),
        "weights are ignored, yet b got {to_b} of 1000"
    );
}

fn slots(hash: HashKind, ranges: [&str; 2]) -> Layout {
    let shard = |(name, ranges): (&str, &str)| ShardSpec {
        slots: Some(ranges.to_owned()),
        ..ShardSpec::named(name, &format!("{name}:1").parse().unwrap())
    };
    Layout::new(LayoutSpec {
        hash,
        distribution: DistributionKind::Slots,
        hash_tag: Some("{}".parse().unwrap()),
        route: Vec::new(),
        shards: [("s0", ranges[0]), ("s1", ranges[1])]
            .into_iter()
            .map(shard)
            .collect(),
        earlier: None,
    })
    .unwrap()
}

#[test]
fn cluster_slots_and_tags_as_redis_counts_them() {
    // CLUSTER KEYSLOT foo = 12182, bar = 5061.
    let layout = slots(
        HashKind::Crc16Slot,
        ["0-5060,5062-12181", "5061,12182-16383"],
    );
    for key in ["foo", "bar", "x{foo}y", "{bar}"] {
        assert_eq!(owner_name(&layout, key.as_bytes()), "s1", "{key}");
    }
    // Redis ignores an empty tag: the whole of foo{}{bar} counts, slot 8363 (Cluster specification).
    assert_eq!(layout.hash_of(b"foo{}{bar}"), 8363);
    assert_eq!(layout.hash_of(b"foo{{bar}}zap"), layout.hash_of(b"{bar"));
}

#[test]
fn codis_slots_count_an_empty_tag() {
    let layout = slots(HashKind::Crc32Slot, ["0", "1-1023"]);
    for (key, slot) in [
        ("a", 579),
        ("{a}x", 579),
        ("x{}y", 0),
        ("{}{a}", 0),
        ("user:{1000}:x", 791),
        ("", 0),
    ] {
        assert_eq!(layout.hash_of(key.as_bytes()), slot, "{key}");
    }
    assert_eq!(owner_name(&layout, b"x{}y"), "s0");
}

#[test]
fn fingerprints_are_stable_and_tell_placements_apart() {
    let base = named(&[("a", 1), ("b", 1)]);
    let print = |spec: LayoutSpec| Layout::new(spec).unwrap().fingerprint();
    // Written down so that a state file of an older build is still recognised.
    assert_eq!(print(base.clone()), 14_302_346_752_585_650_726);
    assert_eq!(
        print(base.clone()),
        print(serde_json::from_str(&serde_json::to_string(&base).unwrap()).unwrap())
    );
    let mut changed = vec![
        LayoutSpec {
            hash: HashKind::Md5,
            ..base.clone()
        },
        LayoutSpec {
            distribution: DistributionKind::Modula,
            ..base.clone()
        },
        LayoutSpec {
            hash_tag: Some("{}".parse().unwrap()),
            ..base.clone()
        },
        named(&[("a", 1), ("b", 2)]),
        named(&[("a", 1), ("c", 1)]),
        named(&[("a", 1)]),
    ];
    let mut moved = base.clone();
    moved.shards[0].addr = "10.9.0.2:1".to_owned();
    changed.push(moved);
    for spec in changed {
        assert_ne!(print(spec.clone()), print(base.clone()), "{spec:?}");
    }
    let split = slots(HashKind::Crc32Slot, ["0-9, 11,10", "12-1023"]).fingerprint();
    assert_eq!(
        split,
        slots(HashKind::Crc32Slot, ["0-11", "12-1023"]).fingerprint()
    );
    assert_ne!(
        split,
        slots(HashKind::Crc32Slot, ["0-10", "11-1023"]).fingerprint()
    );
}
