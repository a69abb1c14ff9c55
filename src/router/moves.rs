//! The difference of two layouts: which keys change their server.
//!
//! A server is its address. A shard that is only renamed, or listed under two
//! names, does not move by itself; keys move when the ring sends them to
//! another address.
//!
//! Invariant: both layouts are deterministic.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::address::ShardAddress;
use super::layout::{Layout, ShardIndex};
use step::Step;

mod step;

/// What becomes of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// It keeps its server.
    Stays {
        /// Index in the old layout.
        at: ShardIndex,
    },
    /// It changes its server.
    Moves {
        /// Index in the old layout.
        from: ShardIndex,
        /// Index in the new layout.
        to: ShardIndex,
    },
}

/// Two layouts and who is who in them.
#[derive(Debug)]
pub struct Moves {
    from: Arc<Layout>,
    to: Arc<Layout>,
    /// Hash and tag are the same in both, and nothing else counts: one hash
    /// serves both lookups.
    same_hash: bool,
    /// A number for each address, by index of the old layout.
    from_servers: Box<[u16]>,
    /// The same numbers, by index of the new layout.
    to_servers: Box<[u16]>,
    /// Between two layouts of one way: who can give and take at all.
    step: Option<Step>,
}

/// Keys of a layout that places them anew at each request cannot be moved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MovesError {
    /// The old layout is `random`.
    #[error(
        "the current layout has distribution \"random\": no key has an owner, so none can be moved"
    )]
    RandomSource,
    /// The new layout is `random`.
    #[error(
        "the new layout has distribution \"random\": no key would have an owner; choose another distribution"
    )]
    RandomTarget,
}

/// What part of the key space moves, by sampling.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// How many keys were tried.
    pub samples: u32,
    /// Percent of all keys that move, 0.0..=100.0.
    pub moving_percent: f64,
    /// The pairs of shards between which keys move, in order of indices.
    pub pairs: Vec<MovingPair>,
    /// Prefixes of rules whose keys move. How many those are only the shards
    /// know: they are in no percentage.
    pub prefixes: Vec<MovingPrefix>,
}

/// Keys that move because of a prefix rule, or because one ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovingPrefix {
    /// What the keys begin with.
    pub prefix: Box<[u8]>,
    /// Where they all are, if a rule of the old layout says so.
    pub from: Option<ShardIndex>,
    /// Where they all will be, if a rule of the new layout says so.
    pub to: Option<ShardIndex>,
}

/// One pair of shards in an `Estimate`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MovingPair {
    /// Index in the old layout.
    pub from: ShardIndex,
    /// Index in the new layout.
    pub to: ShardIndex,
    /// Percent of ALL keys that take this way, 0.0..=100.0.
    pub percent: f64,
}

impl MovingPrefix {
    /// For people.
    pub fn in_words(&self, from: &Layout, to: &Layout) -> String {
        let place = |layout: &Layout, shard: Option<ShardIndex>| {
            shard.map_or_else(
                || "the shards of their hashes".to_owned(),
                |shard| layout.shard(shard).address.to_string(),
            )
        };
        format!(
            "keys with prefix \"{}\": {} -> {}",
            self.prefix.escape_ascii(),
            place(from, self.from),
            place(to, self.to)
        )
    }
}

/// Enough samples for a plan: the error is about a fifth of a percent at most.
pub const ESTIMATE_SAMPLES: u32 = 200_000;

impl Moves {
    /// Compares two layouts.
    ///
    /// # Errors
    /// If one of them places keys at random.
    pub fn between(from: Arc<Layout>, to: Arc<Layout>) -> Result<Self, MovesError> {
        if !from.is_deterministic() {
            return Err(MovesError::RandomSource);
        }
        if !to.is_deterministic() {
            return Err(MovesError::RandomTarget);
        }
        let mut numbers = HashMap::new();
        let from_servers = number_servers(&from, &mut numbers);
        let to_servers = number_servers(&to, &mut numbers);
        let same_hash = from.goes_by_hash()
            && to.goes_by_hash()
            && (from.spec().hash, from.spec().hash_tag) == (to.spec().hash, to.spec().hash_tag);
        Ok(Self {
            same_hash,
            from_servers,
            to_servers,
            step: Step::between(&from, &to),
            from,
            to,
        })
    }

    /// The old layout.
    pub fn from(&self) -> &Arc<Layout> {
        &self.from
    }

    /// The new layout.
    pub fn to(&self) -> &Arc<Layout> {
        &self.to
    }

    /// Whether keys may leave the server at `address`: those of most servers stay
    /// when a pool moves one shard after another.
    pub fn may_give(&self, address: &ShardAddress) -> bool {
        (self.step.as_ref()).is_none_or(|step| step.giving.contains(address))
    }

    /// Whether keys may arrive at the server at `address`.
    pub fn may_take(&self, address: &ShardAddress) -> bool {
        (self.step.as_ref()).is_none_or(|step| step.taking.contains(address))
    }

    /// What becomes of a key.
    #[inline]
    pub fn of(&self, key: &[u8]) -> Move {
        let (from, to) = if self.same_hash {
            let hash = self.from.hash_of(key);
            (self.from.owner_of_hash(hash), self.to.owner_of_hash(hash))
        } else {
            (self.from.owner(key), self.to.owner(key))
        };
        if self.from_servers[from.as_usize()] == self.to_servers[to.as_usize()] {
            Move::Stays { at: from }
        } else {
            Move::Moves { from, to }
        }
    }

    /// Prefixes of either layout's rules whose keys move, or may move.
    fn moving_prefixes(&self) -> Vec<MovingPrefix> {
        let (old, new) = (self.from.prefixes(), self.to.prefixes());
        let mut prefixes: Vec<&[u8]> = old.rules().chain(new.rules()).map(|rule| rule.0).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        let moving = prefixes.into_iter().filter_map(|prefix| {
            let (from, to) = (old.owner(prefix), new.owner(prefix));
            let stays = matches!((from, to), (Some(from), Some(to))
                if self.from_servers[from.as_usize()] == self.to_servers[to.as_usize()]);
            (!stays).then(|| MovingPrefix {
                prefix: prefix.into(),
                from,
                to,
            })
        });
        moving.collect()
    }

    /// Tries `samples` pseudo-random keys, the same in every run.
    pub fn estimate(&self, samples: u32) -> Estimate {
        let mut counts: BTreeMap<(ShardIndex, ShardIndex), u32> = BTreeMap::new();
        let mut keys = SampleKeys(SAMPLE_SEED);
        for _ in 0..samples {
            if let Move::Moves { from, to } = self.of(&keys.next_key()) {
                *counts.entry((from, to)).or_default() += 1;
            }
        }
        let percent = |count: u32| 100.0 * f64::from(count) / f64::from(samples.max(1));
        Estimate {
            samples,
            moving_percent: percent(counts.values().sum()),
            pairs: counts
                .into_iter()
                .map(|((from, to), count)| MovingPair {
                    from,
                    to,
                    percent: percent(count),
                })
                .collect(),
            prefixes: self.moving_prefixes(),
        }
    }
}

/// Gives each address of a layout its number, the same in both layouts.
fn number_servers(layout: &Layout, numbers: &mut HashMap<ShardAddress, u16>) -> Box<[u16]> {
    // At most twice SHARDS_MAX numbers, which fit.
    let number = |address: &ShardAddress| {
        let next = numbers.len() as u16;
        *numbers.entry(address.clone()).or_insert(next)
    };
    layout
        .shards()
        .iter()
        .map(|shard| &shard.address)
        .map(number)
        .collect()
}

/// Keys of 24 letters and digits from SplitMix64, so that no hash tag splits them.
struct SampleKeys(u64);

impl SampleKeys {
    fn next_key(&mut self) -> [u8; 24] {
        let mut key = [0; 24];
        for part in key.as_chunks_mut::<8>().0 {
            let mut word = self.next_word();
            for byte in part {
                *byte = ALPHABET[(word % 32) as usize];
                word >>= 5;
            }
        }
        key
    }

    fn next_word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

const SAMPLE_SEED: u64 = 0x6b65_7966_6572_7279;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz012345";
