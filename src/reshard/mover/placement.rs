//! Which keys of a source move, and where to.
//!
//! A server is its address. Of the keys that a source holds,
//!
//! ```text
//!   stray   old(k) != source: left behind by an earlier layout, or written here
//!           because this server is also a target; never copied from here
//!   stays   old(k) == source == new(k)
//!   moves   old(k) == source != new(k): goes to the lane of new(k)
//! ```

use std::collections::HashSet;
use std::sync::Arc;

use crate::router::RESERVED_PREFIX;
use crate::router::address::ShardAddress;
use crate::router::layout::{Layout, ShardIndex};
use crate::router::moves::{Move, Moves};

/// An old shard, by its position in `Placement::sources`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SourceIndex(pub(super) usize);

/// A new shard, by its position in `Placement::targets`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct TargetIndex(pub(super) usize);

/// What a key found on a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Not this source's key.
    Stray,
    /// This source's key before and after.
    Stays,
    /// This source's key, to be owned by the target.
    Moves(TargetIndex),
}

/// The two layouts, seen as servers.
#[derive(Debug)]
pub(super) struct Placement {
    moves: Arc<Moves>,
    sources: Vec<ShardAddress>,
    targets: Vec<ShardAddress>,
    /// All servers of the old layout, those that give nothing included.
    old: Vec<ShardAddress>,
    /// None for those that give nothing.
    source_of_shard: Vec<Option<SourceIndex>>,
    /// None for those that take nothing.
    target_of_shard: Vec<Option<TargetIndex>>,
    /// (db, key) pairs that the conflict policy leaves alone.
    skipped: HashSet<(u32, Vec<u8>)>,
}

impl Placement {
    pub(super) fn new(moves: &Arc<Moves>) -> Placement {
        let (sources, source_of_shard) = servers(moves.from(), |at| moves.may_give(at));
        let (targets, target_of_shard) = servers(moves.to(), |at| moves.may_take(at));
        let (old, _) = servers(moves.from(), |_| true);
        Placement {
            moves: Arc::clone(moves),
            sources,
            targets,
            old,
            source_of_shard: (source_of_shard.into_iter())
                .map(|at| at.map(SourceIndex))
                .collect(),
            target_of_shard: (target_of_shard.into_iter())
                .map(|at| at.map(TargetIndex))
                .collect(),
            skipped: HashSet::new(),
        }
    }

    /// Leaves these keys alone from now on.
    pub(super) fn skipping(mut self, keys: HashSet<(u32, Vec<u8>)>) -> Placement {
        self.skipped = keys;
        self
    }

    pub(super) fn skipped(&self) -> usize {
        self.skipped.len()
    }

    /// The old servers that may give keys, each once.
    pub(super) fn sources(&self) -> &[ShardAddress] {
        &self.sources
    }

    /// The new servers that may take keys, each once.
    pub(super) fn targets(&self) -> &[ShardAddress] {
        &self.targets
    }

    /// Where the source's keys can go: every new server but itself.
    pub(super) fn targets_of(&self, source: SourceIndex) -> impl Iterator<Item = TargetIndex> {
        let own = self.sources.get(source.0);
        self.targets
            .iter()
            .enumerate()
            .filter(move |(_, address)| Some(*address) != own)
            .map(|(index, _)| TargetIndex(index))
    }

    /// True for a new server that is in no old layout.
    pub(super) fn is_new(&self, target: TargetIndex) -> bool {
        self.targets
            .get(target.0)
            .is_some_and(|address| !self.old.contains(address))
    }

    /// What `key` in database `db` is to `source`.
    pub(super) fn place(&self, source: SourceIndex, db: u32, key: &[u8]) -> Place {
        if key.starts_with(RESERVED_PREFIX) {
            return Place::Stray;
        }
        let place = match self.moves.of(key) {
            Move::Stays { at } if self.source_at(at) == Some(source) => Place::Stays,
            Move::Moves { from, to } if self.source_at(from) == Some(source) => {
                self.target_at(to).map_or(Place::Stray, Place::Moves)
            }
            _ => Place::Stray,
        };
        match place {
            Place::Moves(_) if !self.skipped.is_empty() && self.is_skipped(db, key) => Place::Stray,
            place => place,
        }
    }

    /// The key's old and new server when it is to arrive at `target`.
    pub(super) fn arrives_at(&self, target: TargetIndex, key: &[u8]) -> Option<SourceIndex> {
        if key.starts_with(RESERVED_PREFIX) {
            return None;
        }
        match self.moves.of(key) {
            Move::Moves { from, to } if self.target_at(to) == Some(target) => self.source_at(from),
            _ => None,
        }
    }

    pub(super) fn is_skipped(&self, db: u32, key: &[u8]) -> bool {
        self.skipped.contains(&(db, key.to_vec()))
    }

    fn source_at(&self, shard: ShardIndex) -> Option<SourceIndex> {
        self.source_of_shard
            .get(usize::from(shard.0))
            .copied()
            .flatten()
    }

    fn target_at(&self, shard: ShardIndex) -> Option<TargetIndex> {
        self.target_of_shard
            .get(usize::from(shard.0))
            .copied()
            .flatten()
    }
}

/// The distinct servers of a layout that are wanted, and the server of each of its
/// shards.
fn servers(
    layout: &Layout,
    is_wanted: impl Fn(&ShardAddress) -> bool,
) -> (Vec<ShardAddress>, Vec<Option<usize>>) {
    let mut addresses: Vec<ShardAddress> = Vec::new();
    let mut of_shard = Vec::new();
    for shard in layout.shards() {
        let known = addresses
            .iter()
            .position(|address| *address == shard.address);
        of_shard.push(known.or_else(|| {
            is_wanted(&shard.address).then(|| {
                addresses.push(shard.address.clone());
                addresses.len() - 1
            })
        }));
    }
    (addresses, of_shard)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::router::spec::{DistributionKind, LayoutSpec, ShardSpec};

    fn layout(ports: &[u16]) -> Arc<Layout> {
        let shards = ports.iter().map(|port| {
            let address: ShardAddress = format!("h:{port}").parse().unwrap();
            ShardSpec::at(&address)
        });
        let spec = LayoutSpec {
            distribution: DistributionKind::Ketama,
            shards: shards.collect(),
            ..LayoutSpec::default()
        };
        Arc::new(Layout::new(spec).unwrap())
    }

    /// Two servers become four; one of the two leaves.
    pub(in crate::reshard::mover) fn placement() -> Placement {
        let moves = Moves::between(layout(&[1, 2]), layout(&[2, 3, 4])).unwrap();
        Placement::new(&Arc::new(moves))
    }

    pub(in crate::reshard::mover) fn keys() -> impl Iterator<Item = Vec<u8>> {
        (0..20_000).map(|n: u32| format!("key:{n}").into_bytes())
    }

    #[test]
    fn every_key_has_one_source_and_arrives_where_it_moves() {
        let placement = placement();
        for key in keys().take(2000) {
            let places: Vec<Place> = (0..2)
                .map(|at| placement.place(SourceIndex(at), 0, &key))
                .collect();
            let strays = places
                .iter()
                .filter(|place| **place == Place::Stray)
                .count();
            assert_eq!(strays, 1, "{places:?}");
            for (at, place) in places.iter().enumerate() {
                let arriving = (0..3).find(|to| {
                    placement.arrives_at(TargetIndex(*to), &key) == Some(SourceIndex(at))
                });
                match place {
                    Place::Moves(target) => assert_eq!(arriving, Some(target.0)),
                    Place::Stays | Place::Stray => assert_eq!(arriving, None),
                }
            }
        }
    }

    #[test]
    fn a_source_has_no_lane_to_itself_and_newcomers_are_known() {
        let placement = placement();
        let leaving = placement.targets_of(SourceIndex(0)).count();
        let staying = placement.targets_of(SourceIndex(1)).count();
        assert_eq!((leaving, staying), (3, 2));
        let new: Vec<bool> = (0..3).map(|at| placement.is_new(TargetIndex(at))).collect();
        assert_eq!(new, [false, true, true]);
    }

    #[test]
    fn skipped_keys_are_strays_in_their_database_only() {
        let moving = |placement: &Placement, key: &Vec<u8>| {
            matches!(placement.place(SourceIndex(0), 1, key), Place::Moves(_))
        };
        let key = keys().find(|key| moving(&placement(), key)).unwrap();
        let placement = placement().skipping(HashSet::from([(1, key.clone())]));
        assert_eq!(placement.place(SourceIndex(0), 1, &key), Place::Stray);
        assert!(matches!(
            placement.place(SourceIndex(0), 0, &key),
            Place::Moves(_)
        ));
    }
}
