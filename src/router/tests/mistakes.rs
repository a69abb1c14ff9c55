//! Specs that are no layouts: each error names the shard, the field and the way out.

use super::{at, named};
use crate::router::hash::HashKind;
use crate::router::layout::Layout;
use crate::router::spec::{DistributionKind, LayoutSpec, ShardSpec};

fn error(spec: LayoutSpec) -> String {
    Layout::new(spec).unwrap_err().to_string()
}

fn slots(ranges: [Option<&str>; 2]) -> LayoutSpec {
    let mut spec = named(&[("a", 1), ("b", 1)]);
    for (shard, ranges) in spec.shards.iter_mut().zip(ranges) {
        shard.slots = ranges.map(str::to_owned);
    }
    LayoutSpec {
        hash: HashKind::Crc16Slot,
        distribution: DistributionKind::Slots,
        ..spec
    }
}

#[test]
fn shards_must_be_there_and_distinct() {
    assert_eq!(
        error(LayoutSpec::default()),
        "shard: a layout needs at least one shard"
    );
    assert_eq!(
        error(named(&[("a", 1), ("b", 1), ("a", 1)])),
        "shard 3 (`a`), name: shard 1 has the same name; each name is one place on the ring"
    );
    let one = ShardSpec::at(&"h:1".parse().unwrap());
    let many = LayoutSpec {
        shards: vec![one; 16_385],
        ..LayoutSpec::default()
    };
    assert_eq!(
        error(many),
        "shard: 16385 shards are too many; at most 16384"
    );
    // twemproxy allows one address under two names, and so do we.
    let mut twice = named(&[("a", 1), ("b", 1)]);
    twice.shards[1].addr = twice.shards[0].addr.clone();
    assert!(Layout::new(twice).is_ok());
}

#[test]
fn addresses_names_and_weights() {
    assert!(
        error(at(&["h:1", "h"]))
            .starts_with("shard 2 (`h`), addr: \"h\" is not an address; write host:port")
    );
    assert!(error(at(&["store:d"])).contains("no absolute path"));
    assert!(
        error(named(&[("a", 1), ("b", 0)]))
            .starts_with("shard 2 (`b`), weight: a weight is at least 1")
    );
    assert!(
        error(named(&[("a", u32::MAX), ("b", 1)]))
            .starts_with("shard 2 (`b`), weight: the weights add up")
    );
    assert!(error(named(&[("a\n", 1)])).ends_with("name: a name holds no control characters"));
}

#[test]
fn every_slot_has_exactly_one_owner() {
    assert_eq!(
        error(slots([Some("0-8921"), Some("8900-16383")])),
        "shard 2 (`b`), slots: slot 8900 is owned by both `a` and `b`; give it to one of them"
    );
    assert_eq!(
        error(slots([Some("0-99"), Some("102-16383")])),
        "shard: slots 100-101 are owned by no shard; each slot needs exactly one"
    );
    assert_eq!(
        error(slots([Some("0-16382"), Some("")])),
        "shard: slot 16383 is owned by no shard; each slot needs exactly one"
    );
    assert!(
        error(slots([Some("0-99"), Some("x-16383")]))
            .starts_with("shard 2 (`b`), slots: \"x-16383\" is no range")
    );
    assert!(
        error(slots([Some("0-16383"), None]))
            .starts_with("shard 2 (`b`), slots: distribution \"slots\" needs")
    );
    let single = LayoutSpec {
        shards: slots([Some("0-9"), None]).shards[..1].to_vec(),
        ..slots([None, None])
    };
    assert!(error(single).contains("slots 10-16383 are owned by no shard"));
    let mut heavy = slots([Some("0-16383"), Some("")]);
    heavy.shards[1].weight = 2;
    assert!(error(heavy).starts_with("shard 2 (`b`), weight: with distribution \"slots\""));
}

#[test]
fn hash_and_distribution_must_fit() {
    let slotted = slots([Some("0-16383"), Some("")]);
    assert_eq!(
        error(LayoutSpec {
            hash: HashKind::Md5,
            ..slotted.clone()
        }),
        "hash: distribution \"slots\" needs hash \"crc16_slot\" or \"crc32_slot\", not \"md5\""
    );
    let modula = LayoutSpec {
        distribution: DistributionKind::Modula,
        ..slotted
    };
    assert!(
        error(modula)
            .starts_with("shard 1 (`a`), slots: slots mean nothing with distribution \"modula\"")
    );
    let ring = LayoutSpec {
        hash: HashKind::Crc32Slot,
        ..named(&[("a", 1), ("b", 1)])
    };
    assert!(error(ring).starts_with("distribution: hash \"crc32_slot\" gives small numbers"));
}
