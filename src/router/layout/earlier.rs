//! A layout on the way: keys of some shards of an earlier layout are where the new
//! one has them, the others are still where the earlier one has them.
//!
//! ```text
//! owner(key) = new(key)       if the shard earlier(key) is among those that moved
//!              earlier(key)   otherwise
//! ```
//!
//! So a pool moves to any other layout, with any hash, one shard after another. The
//! earlier shards that are not in the new layout, by address, come behind its own; one
//! whose name is taken by another server gets `@` and its address added.
//!
//! Invariant: an earlier layout has none before itself and places no key at random.

use super::{Layout, LayoutError, LayoutFault, Place, Shard, ShardIndex};
use crate::router::spec::EarlierSpec;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Earlier {
    layout: Layout,
    /// Names of its shards whose keys moved.
    moved: Vec<String>,
    /// How many shards are the new layout's own; the others were added.
    later_shards: usize,
    /// Fingerprint of the new layout alone.
    later: u64,
    /// By its own index: where its keys are, or `None` if they moved.
    unmoved: Vec<Option<ShardIndex>>,
}

impl Earlier {
    /// Adds what shards are needed for it to those of the new layout.
    /// `later` is the fingerprint of the new one alone.
    pub(super) fn new(
        spec: &EarlierSpec,
        later: u64,
        shards: &mut Vec<Shard>,
    ) -> Result<Self, LayoutError> {
        let fault = |fault| LayoutError {
            place: Place::Layout { field: "earlier" },
            fault,
        };
        let layout = Layout::new(spec.layout.clone())?;
        if layout.earlier.is_some() || !layout.is_deterministic() {
            return Err(fault(LayoutFault::EarlierOfEarlier));
        }
        let known = |name: &String| layout.shards().iter().any(|shard| shard.name == *name);
        if let Some(shard) = spec.moved.iter().find(|name| !known(name)) {
            let shard = shard.clone();
            return Err(fault(LayoutFault::MovedShard { shard }));
        }
        let later_shards = shards.len();
        let mut unmoved = Vec::with_capacity(layout.shards().len());
        for shard in layout.shards() {
            let is_moved = spec.moved.contains(&shard.name);
            unmoved.push((!is_moved).then(|| place(shard, shards)));
        }
        Ok(Self {
            layout,
            moved: spec.moved.clone(),
            later_shards,
            later,
            unmoved,
        })
    }

    /// The owner of a key that has not moved.
    pub(super) fn owner(&self, key: &[u8]) -> Option<ShardIndex> {
        let earlier = self.layout.owner(key);
        self.unmoved.get(earlier.as_usize()).copied().flatten()
    }

    /// The fingerprint of both.
    pub(super) fn fingerprint(&self) -> u64 {
        let later = self.later;
        let unmoved: Vec<Option<u16>> = (self.unmoved.iter())
            .map(|at| at.map(|shard| shard.0))
            .collect();
        let earlier = self.layout.fingerprint();
        let text = format!("earlier v1 {later:016x} {earlier:016x} {unmoved:?}");
        let [a, b, c, d, e, f, g, h, ..] = md5::compute(text).0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

/// What a layout on the way leads from and to.
#[derive(Debug, Clone, Copy)]
pub struct OnTheWay<'a> {
    /// The earlier layout.
    pub earlier: &'a Layout,
    /// Names of its shards whose keys moved.
    pub moved: &'a [String],
    /// The shards of the new layout.
    pub later_shards: &'a [Shard],
    /// The fingerprint of the new layout alone.
    pub later_fingerprint: u64,
}

impl Layout {
    /// Where it leads from and to, if it is a layout on the way.
    pub fn on_the_way(&self) -> Option<OnTheWay<'_>> {
        let earlier = self.earlier.as_ref()?;
        Some(OnTheWay {
            earlier: &earlier.layout,
            moved: &earlier.moved,
            later_shards: self.shards().get(..earlier.later_shards)?,
            later_fingerprint: earlier.later,
        })
    }
}

/// The index of a shard at the same address, which is added if there is none.
fn place(shard: &Shard, shards: &mut Vec<Shard>) -> ShardIndex {
    let at = shards.iter().position(|one| one.address == shard.address);
    let at = at.unwrap_or_else(|| {
        let is_taken = shards.iter().any(|one| one.name == shard.name);
        let mut added = shard.clone();
        if is_taken {
            added.name = format!("{}@{}", shard.name, shard.address);
        }
        shards.push(added);
        shards.len() - 1
    });
    ShardIndex(at as u16)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::router::hash::HashKind;
    use crate::router::moves::{Move, Moves};
    use crate::router::spec::{DistributionKind, LayoutSpec, PrefixSpec, ShardSpec};

    fn spec(distribution: DistributionKind, hash: HashKind, shards: &[(&str, u16)]) -> LayoutSpec {
        let shards = shards.iter().map(|(name, port)| {
            let address = format!("h:{port}").parse().unwrap();
            ShardSpec::named(name, &address)
        });
        LayoutSpec {
            hash,
            distribution,
            shards: shards.collect(),
            ..LayoutSpec::default()
        }
    }

    fn before() -> LayoutSpec {
        let shards = [("a", 1), ("b", 2), ("c", 3)];
        LayoutSpec {
            route: vec![PrefixSpec {
                prefix: "pinned:".to_owned(),
                shard: "b".to_owned(),
            }],
            ..spec(DistributionKind::Modula, HashKind::Murmur, &shards)
        }
    }

    /// Another hash, a server that stays, one that leaves, a name for another server.
    fn after() -> LayoutSpec {
        let shards = [("a", 1), ("b", 4), ("d", 5)];
        spec(DistributionKind::Ketama, HashKind::Fnv1a64, &shards)
    }

    fn on_the_way(moved: &[&str]) -> LayoutSpec {
        let moved = moved.iter().map(|name| (*name).to_owned()).collect();
        LayoutSpec {
            earlier: Some(Box::new(EarlierSpec {
                layout: before(),
                moved,
            })),
            ..after()
        }
    }

    fn keys() -> impl Iterator<Item = Vec<u8>> {
        let plain = (0..2000).map(|n| format!("key:{n}").into_bytes());
        plain.chain((0..50).map(|n| format!("pinned:{n}").into_bytes()))
    }

    #[test]
    fn each_step_moves_the_keys_of_one_shard_and_no_others() {
        let old = Layout::new(before()).unwrap();
        let names = ["a", "b", "c"];
        let mut steps = vec![Arc::new(Layout::new(before()).unwrap())];
        for count in 1..names.len() {
            steps.push(Arc::new(Layout::new(on_the_way(&names[..count])).unwrap()));
        }
        steps.push(Arc::new(Layout::new(after()).unwrap()));
        for (count, pair) in steps.windows(2).enumerate() {
            let moves = Moves::between(Arc::clone(&pair[0]), Arc::clone(&pair[1])).unwrap();
            let mut moved = 0;
            for key in keys() {
                if let Move::Moves { from, .. } = moves.of(&key) {
                    moved += 1;
                    let owner = &old.shard(old.owner(&key)).name;
                    assert_eq!(owner, names[count]);
                    assert_eq!(
                        moves.from().shard(from).address.to_string(),
                        format!("h:{}", count + 1)
                    );
                }
            }
            assert!(moved > 100, "step {count} moves keys");
        }
    }

    #[test]
    fn what_all_moved_is_placed_as_by_the_new_layout() {
        let whole = Layout::new(on_the_way(&["a", "b", "c"])).unwrap();
        let new = Layout::new(after()).unwrap();
        for key in keys() {
            assert_eq!(whole.owner(&key), new.owner(&key));
        }
    }

    #[test]
    fn servers_are_told_apart_by_address_and_names_stay_unique() {
        let layout = Layout::new(on_the_way(&["a"])).unwrap();
        let mut names: Vec<&str> = layout
            .shards()
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        assert_eq!(names, ["a", "b", "d", "b@h:2", "c"]);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 5);
    }

    #[test]
    fn every_step_has_a_fingerprint_of_its_own_and_survives_being_written() {
        let specs = [
            before(),
            on_the_way(&[]),
            on_the_way(&["a"]),
            on_the_way(&["b"]),
            after(),
        ];
        let mut fingerprints: Vec<u64> = Vec::new();
        for spec in specs {
            let layout = Layout::new(spec.clone()).unwrap();
            let written = serde_json::to_string(&spec).unwrap();
            let read: LayoutSpec = serde_json::from_str(&written).unwrap();
            assert_eq!(read, spec);
            fingerprints.push(layout.fingerprint());
        }
        fingerprints.sort_unstable();
        fingerprints.dedup();
        assert_eq!(fingerprints.len(), 5);
    }

    #[test]
    fn mistakes_are_named() {
        let fault = |spec: LayoutSpec| Layout::new(spec).unwrap_err().fault;
        let shard = "z".to_owned();
        assert_eq!(fault(on_the_way(&["z"])), LayoutFault::MovedShard { shard });
        let nested = LayoutSpec {
            earlier: Some(Box::new(EarlierSpec {
                layout: on_the_way(&["a"]),
                moved: Vec::new(),
            })),
            ..after()
        };
        assert_eq!(fault(nested), LayoutFault::EarlierOfEarlier);
        let random = spec(
            DistributionKind::Random,
            HashKind::Murmur,
            &[("a", 1), ("b", 2)],
        );
        let random = LayoutSpec {
            earlier: Some(Box::new(EarlierSpec {
                layout: random,
                moved: Vec::new(),
            })),
            ..after()
        };
        assert_eq!(fault(random), LayoutFault::EarlierOfEarlier);
    }
}
