//! Prefix rules: keys that have a shard whatever their hash.
//!
//! Applications that use several keys at once without hash tags (queues, locks)
//! work behind a static layout when all their keys begin alike and are pinned
//! to one shard.
//!
//! Invariant: longer prefixes stand before shorter ones, so the first that fits
//! is the longest.

use super::layout::{Shard, ShardIndex};
use super::layout_error::{LayoutError, LayoutFault, Place};
use super::spec::PrefixSpec;

/// The rules of a layout.
#[derive(Debug, Clone, Default)]
pub struct Prefixes {
    rules: Vec<(Box<[u8]>, ShardIndex)>,
}

impl Prefixes {
    /// Finds the shards that the rules name.
    ///
    /// # Errors
    /// An empty prefix, one that is there twice, a shard that is not there.
    pub(super) fn new(rules: &[PrefixSpec], shards: &[Shard]) -> Result<Self, LayoutError> {
        let mut found: Vec<(Box<[u8]>, ShardIndex)> = Vec::with_capacity(rules.len());
        for (position, rule) in rules.iter().enumerate() {
            let fault = |fault| LayoutError {
                place: Place::Route { position },
                fault,
            };
            if rule.prefix.is_empty() {
                return Err(fault(LayoutFault::EmptyPrefix));
            }
            let prefix: Box<[u8]> = rule.prefix.as_bytes().into();
            if found.iter().any(|(known, _)| *known == prefix) {
                let prefix = rule.prefix.clone();
                return Err(fault(LayoutFault::SamePrefix { prefix }));
            }
            let Some(shard) = shards.iter().position(|shard| shard.name == rule.shard) else {
                let shard = rule.shard.clone();
                return Err(fault(LayoutFault::PrefixShard { shard }));
            };
            found.push((prefix, ShardIndex(shard as u16)));
        }
        found.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        Ok(Self { rules: found })
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The shard that a rule gives to a key, if one does.
    pub fn owner(&self, key: &[u8]) -> Option<ShardIndex> {
        let fits = |(prefix, _): &&(Box<[u8]>, ShardIndex)| key.starts_with(prefix);
        self.rules.iter().find(fits).map(|(_, shard)| *shard)
    }

    /// Every rule, longer prefixes first.
    pub fn rules(&self) -> impl Iterator<Item = (&[u8], ShardIndex)> {
        self.rules.iter().map(|(prefix, shard)| (&**prefix, *shard))
    }
}
