//! Which servers can give and take keys between two layouts of one way.
//!
//! ```text
//! earlier layout -> on the way, a moved -> on the way, a and b moved -> new layout
//!                          (layout/earlier.rs)
//! ```
//! Between any two of these only keys of the earlier layout's shards in which they
//! differ move: from there to the new layout's shards, or back from those to there.
//!
//! Invariant: a server that is not named neither gives nor takes a key. One that is
//! may still give none.

use crate::router::address::ShardAddress;
use crate::router::layout::{Layout, OnTheWay, Shard};

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) giving: Vec<ShardAddress>,
    pub(super) taking: Vec<ShardAddress>,
}

impl Step {
    /// `None` unless both are of one way.
    pub(super) fn between(from: &Layout, to: &Layout) -> Option<Self> {
        let way = from.on_the_way().or_else(|| to.on_the_way())?;
        let (before, after) = (moved(from, way)?, moved(to, way)?);
        let mut step = Self {
            giving: Vec::new(),
            taking: Vec::new(),
        };
        let shards = way.earlier.shards();
        for ((shard, before), after) in shards.iter().zip(before).zip(after) {
            let (earlier, later) = (std::slice::from_ref(shard), way.later_shards);
            match (before, after) {
                (false, true) => step.add(earlier, later),
                (true, false) => step.add(later, earlier),
                (false, false) | (true, true) => {}
            }
        }
        Some(step)
    }

    fn add(&mut self, giving: &[Shard], taking: &[Shard]) {
        add(&mut self.giving, giving);
        add(&mut self.taking, taking);
    }
}

fn add(known: &mut Vec<ShardAddress>, shards: &[Shard]) {
    for shard in shards {
        if !known.contains(&shard.address) {
            known.push(shard.address.clone());
        }
    }
}

/// For each shard of the way's earlier layout, whether its keys are where the new
/// one has them; `None` for a layout that is not of this way.
fn moved(layout: &Layout, way: OnTheWay<'_>) -> Option<Vec<bool>> {
    let shards = way.earlier.shards().iter();
    let fingerprint = layout.fingerprint();
    match layout.on_the_way() {
        Some(own) => {
            let is_of_it = own.earlier.fingerprint() == way.earlier.fingerprint()
                && own.later_fingerprint == way.later_fingerprint;
            is_of_it.then(|| {
                shards
                    .map(|shard| own.moved.contains(&shard.name))
                    .collect()
            })
        }
        None if fingerprint == way.earlier.fingerprint() => Some(shards.map(|_| false).collect()),
        None if fingerprint == way.later_fingerprint => Some(shards.map(|_| true).collect()),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::router::moves::{Move, Moves};
    use crate::router::spec::{DistributionKind, EarlierSpec, LayoutSpec, ShardSpec};

    fn plain(distribution: DistributionKind, ports: &[u16]) -> LayoutSpec {
        let shards = ports.iter().map(|port| {
            let address = format!("h:{port}").parse().unwrap();
            ShardSpec::named(&format!("s{port}"), &address)
        });
        LayoutSpec {
            distribution,
            shards: shards.collect(),
            ..LayoutSpec::default()
        }
    }

    /// h:1, h:2, h:3 become h:2, h:4, h:5, with another distribution.
    fn stations() -> Vec<Arc<Layout>> {
        let old = plain(DistributionKind::Modula, &[1, 2, 3]);
        let new = plain(DistributionKind::Ketama, &[2, 4, 5]);
        let on_the_way = |moved: &[&str]| LayoutSpec {
            earlier: Some(Box::new(EarlierSpec {
                layout: old.clone(),
                moved: moved.iter().map(|name| (*name).to_owned()).collect(),
            })),
            ..new.clone()
        };
        let specs = [
            old.clone(),
            on_the_way(&["s1"]),
            on_the_way(&["s1", "s2"]),
            new.clone(),
        ];
        let layout = |spec| Arc::new(Layout::new(spec).unwrap());
        specs.map(layout).to_vec()
    }

    #[test]
    fn who_is_not_named_gives_and_takes_nothing() {
        let stations = stations();
        for from in &stations {
            for to in &stations {
                let moves = Moves::between(Arc::clone(from), Arc::clone(to)).unwrap();
                for at in 0..3_000 {
                    if let Move::Moves { from, to } = moves.of(format!("key:{at}").as_bytes()) {
                        assert!(moves.may_give(&moves.from().shard(from).address));
                        assert!(moves.may_take(&moves.to().shard(to).address));
                    }
                }
            }
        }
    }

    #[test]
    fn a_step_there_reads_one_old_shard_and_one_back_writes_it() {
        let stations = stations();
        let named = |from: usize, to: usize| {
            let step = Step::between(&stations[from], &stations[to])?;
            let text = |addresses: &[ShardAddress]| {
                let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                texts.join(" ")
            };
            Some((text(&step.giving), text(&step.taking)))
        };
        let pair = |giving: &str, taking: &str| Some((giving.to_owned(), taking.to_owned()));
        assert_eq!(named(0, 1), pair("h:1", "h:2 h:4 h:5"));
        assert_eq!(named(1, 2), pair("h:2", "h:2 h:4 h:5"));
        assert_eq!(named(2, 3), pair("h:3", "h:2 h:4 h:5"));
        assert_eq!(named(2, 1), pair("h:2 h:4 h:5", "h:2"));
        assert_eq!(named(2, 0), pair("h:2 h:4 h:5", "h:1 h:2"));
        assert_eq!(named(1, 1), pair("", ""));
        assert_eq!(
            named(0, 3),
            None,
            "these alone do not say that they are of one way"
        );
    }

    #[test]
    fn layouts_of_two_ways_name_everybody() {
        let stations = stations();
        let other = Layout::new(plain(DistributionKind::Ketama, &[7])).unwrap();
        assert!(Step::between(&stations[1], &other).is_none());
        assert!(Step::between(&other, &stations[1]).is_none());
    }
}
