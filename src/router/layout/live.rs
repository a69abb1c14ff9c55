//! A layout of which some shards are out (ejected): the same shards with the
//! same numbers, and keys placed on those that are left.
//!
//! ```text
//! ketama   a ring of the live shards alone: their number, the sum of their weights
//! modula   the list of the live shards alone
//! random   one of the live shards
//! slots    as ever: a slot is given to one shard, and nobody stands in for it
//! ```
//! This is twemproxy's rule for a ring without its dead servers (0.5.0,
//! `ketama_update`, `modula_update`). A key that a prefix rule pins stays with its
//! shard, too. Whoever asks for a key whose owner is out gets an error.
//!
//! Invariant: the owner of a key that is not pinned is out only if all shards
//! are, or its distribution is slots.

use super::{Layout, Modula, Placement, Ring, Shard, ShardIndex};
use crate::router::address::ShardAddress;
use crate::router::spec::DistributionKind;

impl Layout {
    /// The same layout with these shards out, and only these, whichever are out now.
    #[must_use]
    pub fn without(&self, out: impl IntoIterator<Item = ShardIndex>) -> Self {
        let is_ours = |shard: &ShardIndex| shard.as_usize() < self.shards.len();
        let mut out: Vec<ShardIndex> = out.into_iter().filter(is_ours).collect();
        out.sort_unstable();
        out.dedup();
        let placement = match &self.placement {
            Placement::Slots(table) => Placement::Slots(table.clone()),
            _ => place(self.spec.distribution, &self.shards, &out),
        };
        Self {
            spec: self.spec.clone(),
            shards: self.shards.clone(),
            placement,
            prefixes: self.prefixes.clone(),
            earlier: self.earlier.clone(),
            has_exceptions: self.has_exceptions,
            empty_tag: self.empty_tag,
            fingerprint: self.fingerprint,
            out,
        }
    }

    /// The shards that are out, ascending.
    pub fn out(&self) -> &[ShardIndex] {
        &self.out
    }

    /// Whether a shard at this address is out.
    pub fn is_out_at(&self, address: &ShardAddress) -> bool {
        let mut out = self.out.iter();
        out.any(|&shard| self.shard(shard).address == *address)
    }

    /// Every shard at an address; two names may share one.
    pub fn all_at<'a>(&'a self, address: &'a ShardAddress) -> impl Iterator<Item = ShardIndex> {
        let shards = (0..).zip(&self.shards);
        shards
            .filter(move |(_, shard)| shard.address == *address)
            .map(|(index, _)| ShardIndex(index))
    }
}

/// Places keys on the shards that are not out; on all of them if none is left,
/// so that an error can name one.
pub(super) fn place(
    distribution: DistributionKind,
    shards: &[Shard],
    out: &[ShardIndex],
) -> Placement {
    let mut is_live = vec![true; shards.len()];
    if out.len() < shards.len() {
        for shard in out {
            if let Some(is_live) = is_live.get_mut(shard.as_usize()) {
                *is_live = false;
            }
        }
    }
    let numbered = || (0..).map(ShardIndex).zip(shards).zip(&is_live);
    let live: Vec<ShardIndex> = numbered()
        .filter(|(_, is_live)| **is_live)
        .map(|((index, _), _)| index)
        .collect();
    if shards.len() == 1 {
        return Placement::Single(ShardIndex(0));
    }
    match (distribution, live.as_slice()) {
        (DistributionKind::Random, _) => Placement::Random(live),
        (_, &[only]) => Placement::Single(only),
        (DistributionKind::Modula, _) => {
            let weight = |((_, shard), is_live): ((_, &Shard), &bool)| {
                if *is_live { shard.weight } else { 0 }
            };
            Placement::Modula(Modula::new(numbered().map(weight)))
        }
        (DistributionKind::Ketama | DistributionKind::Slots, _) => {
            let servers: Vec<(&str, u32)> = numbered()
                .filter(|(_, is_live)| **is_live)
                .map(|((_, shard), _)| (shard.name.as_str(), shard.weight))
                .collect();
            Placement::Ketama(Ring::new(&servers).renumbered(&live))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::spec::{LayoutSpec, PrefixSpec, ShardSpec};

    const SHARDS: [(&str, u32); 4] = [("a", 1), ("b", 3), ("cc", 2), ("dd", 1)];

    fn spec(distribution: DistributionKind, names: &[&str]) -> LayoutSpec {
        let shards = SHARDS.iter().filter(|(name, _)| names.contains(name));
        LayoutSpec {
            distribution,
            shards: shards
                .map(|(name, weight)| ShardSpec {
                    weight: *weight,
                    ..ShardSpec::named(name, &format!("{name}:1").parse().unwrap())
                })
                .collect(),
            ..LayoutSpec::default()
        }
    }

    fn owner_name<'l>(layout: &'l Layout, key: &[u8]) -> &'l str {
        &layout.shard(layout.owner(key)).name
    }

    fn keys() -> impl Iterator<Item = [u8; 4]> {
        (0..5_000u32).map(u32::to_le_bytes)
    }

    #[test]
    fn a_layout_without_shards_places_as_one_that_never_had_them() {
        for distribution in [DistributionKind::Ketama, DistributionKind::Modula] {
            let whole = Layout::new(spec(distribution, &["a", "b", "cc", "dd"])).unwrap();
            for (out, left) in [
                (vec![0], vec!["b", "cc", "dd"]),
                (vec![3, 1], vec!["a", "cc"]),
                (vec![0, 2, 3], vec!["b"]),
            ] {
                let live = whole.without(out.iter().copied().map(ShardIndex));
                let other = Layout::new(spec(distribution, &left)).unwrap();
                for key in keys() {
                    assert_eq!(owner_name(&live, &key), owner_name(&other, &key));
                }
                assert_eq!(live.fingerprint(), whole.fingerprint());
                assert_eq!(live.out().len(), out.len());
                let back = live.without([]);
                assert!(back.out().is_empty());
                assert!(keys().all(|key| back.owner(&key) == whole.owner(&key)));
            }
        }
    }

    #[test]
    fn with_nobody_left_a_key_still_names_a_shard() {
        for distribution in [
            DistributionKind::Ketama,
            DistributionKind::Modula,
            DistributionKind::Random,
        ] {
            let whole = Layout::new(spec(distribution, &["a", "b"])).unwrap();
            let none = whole.without([ShardIndex(0), ShardIndex(1), ShardIndex(9)]);
            assert_eq!(none.out(), [ShardIndex(0), ShardIndex(1)]);
            assert!(keys().all(|key| none.owner(&key).as_usize() < 2));
            assert!(none.is_out_at(&"b:1".parse().unwrap()));
        }
    }

    #[test]
    fn random_draws_from_the_live_ones_and_stays_random() {
        let whole = Layout::new(spec(DistributionKind::Random, &["a", "b", "cc"])).unwrap();
        let live = whole.without([ShardIndex(1)]);
        let drawn: Vec<u16> = keys().map(|key| live.owner(&key).0).collect();
        assert!(drawn.contains(&0) && drawn.contains(&2) && !drawn.contains(&1));
        let one = whole.without([ShardIndex(0), ShardIndex(1)]);
        assert!(keys().all(|key| one.owner(&key) == ShardIndex(2)));
        assert!(!one.is_deterministic());
    }

    #[test]
    fn pinned_keys_and_slots_have_nobody_to_stand_in() {
        let pinned = Layout::new(LayoutSpec {
            route: vec![PrefixSpec {
                prefix: "p:".into(),
                shard: "b".into(),
            }],
            ..spec(DistributionKind::Ketama, &["a", "b", "cc"])
        })
        .unwrap()
        .without([ShardIndex(1)]);
        assert_eq!(owner_name(&pinned, b"p:1"), "b");
        assert!(keys().all(|key| owner_name(&pinned, &key) != "b"));

        let mut slots = spec(DistributionKind::Slots, &["a", "dd"]);
        slots.hash = "crc16_slot".parse().unwrap();
        for (shard, ranges) in slots.shards.iter_mut().zip(["0-8191", "8192-16383"]) {
            (shard.weight, shard.slots) = (1, Some(ranges.into()));
        }
        let whole = Layout::new(slots).unwrap();
        let live = whole.without([ShardIndex(0)]);
        assert!(keys().all(|key| live.owner(&key) == whole.owner(&key)));
    }
}
