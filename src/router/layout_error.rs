//! What can be wrong with a layout, where, and what to write instead.

use std::fmt;

use super::address::AddressError;
use super::hash::HashKind;
use super::layout::SHARDS_MAX;
use super::spec::DistributionKind;

/// A spec that is no layout. Whose fault: the one who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct LayoutError {
    /// Where, so that a config can point to its line.
    pub place: Place,
    /// What.
    pub fault: LayoutFault,
}

/// Which field of a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A field of the layout itself.
    Layout {
        /// Its config key.
        field: &'static str,
    },
    /// One of the prefix rules.
    Route {
        /// Position in `LayoutSpec::route`, from 0.
        position: usize,
    },
    /// A field of one shard.
    Shard {
        /// Position in `LayoutSpec::shards`, from 0.
        position: usize,
        /// Its name, or its address as typed.
        label: String,
        /// Its config key.
        field: &'static str,
    },
}

/// What is wrong there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutFault {
    /// No `[[shard]]` at all.
    #[error("a layout needs at least one shard")]
    NoShards,
    /// More shards than `SHARDS_MAX`.
    #[error("{given} shards are too many; at most {SHARDS_MAX}")]
    TooManyShards {
        /// How many there are.
        given: usize,
    },
    /// `distribution = "slots"` without a slot hash.
    #[error("distribution \"slots\" needs hash \"crc16_slot\" or \"crc32_slot\", not \"{hash}\"")]
    HashHasNoSlots {
        /// The hash written.
        hash: HashKind,
    },
    /// A slot hash on a ring.
    #[error(
        "hash \"{hash}\" gives small numbers, so \"ketama\" would send every key to one shard; use distribution \"slots\" or \"modula\""
    )]
    SlotsOnRing {
        /// The hash written.
        hash: HashKind,
    },
    /// A rule for every key.
    #[error(
        "a prefix has at least one character; to give all keys to a shard, leave the others out"
    )]
    EmptyPrefix,
    /// Two rules for the same keys.
    #[error("there is a rule for prefix \"{prefix}\" already; a prefix has one shard")]
    SamePrefix {
        /// The prefix.
        prefix: String,
    },
    /// A rule for a shard that is not there.
    #[error("no shard is named \"{shard}\"; name one of this layout's shards")]
    PrefixShard {
        /// The name.
        shard: String,
    },
    /// An earlier layout that has one before itself, or places keys at random.
    #[error("an earlier layout places every key by itself, always on the same shard")]
    EarlierOfEarlier,
    /// A shard whose keys have moved that the earlier layout does not have.
    #[error("the earlier layout has no shard named \"{shard}\"; name its own")]
    MovedShard {
        /// The name.
        shard: String,
    },
    /// The address is not one.
    #[error(transparent)]
    Address(AddressError),
    /// A control character in a name.
    #[error("a name holds no control characters")]
    NameControl,
    /// Two shards with one ring identity.
    #[error("shard {} has the same name; each name is one place on the ring", other + 1)]
    SameName {
        /// Position of the other one in the spec, from 0.
        other: usize,
    },
    /// Weight 0.
    #[error("a weight is at least 1; leave the shard out to give it no keys")]
    ZeroWeight,
    /// The weights do not fit 32 bits.
    #[error("the weights add up to more than 4294967295; use smaller ones in the same proportion")]
    WeightSum,
    /// A weight beside slots.
    #[error(
        "with distribution \"slots\" the slots alone say a shard's share; leave the weight out"
    )]
    WeightWithSlots,
    /// `slots` is missing where it decides.
    #[error(
        "distribution \"slots\" needs the slots of each shard, such as \"0-8191,9000\"; \"\" for none"
    )]
    SlotsMissing,
    /// `slots` is given where it means nothing.
    #[error(
        "slots mean nothing with distribution \"{distribution}\"; leave them out or use \"slots\""
    )]
    SlotsUnused {
        /// The distribution written.
        distribution: DistributionKind,
    },
    /// A part of `slots` is no range.
    #[error("\"{part}\" is no range of slots from 0 to {last}, such as \"0-{last}\" or \"7\"")]
    SlotRange {
        /// The part between commas.
        part: String,
        /// The highest slot.
        last: u32,
    },
    /// A slot claimed twice.
    #[error("slot {slot} is owned by both `{owner}` and `{again}`; give it to one of them")]
    SlotTwice {
        /// Which slot.
        slot: u32,
        /// Who has it.
        owner: String,
        /// Who claims it too.
        again: String,
    },
    /// Slots nobody owns.
    #[error("{} owned by no shard; each slot needs exactly one", Range(*first, *last))]
    SlotGap {
        /// The first slot of the first gap.
        first: u32,
        /// Its last slot.
        last: u32,
    },
}

struct Range(u32, u32);

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == self.1 {
            write!(f, "slot {} is", self.0)
        } else {
            write!(f, "slots {}-{} are", self.0, self.1)
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layout { field } => write!(f, "{field}"),
            Self::Route { position } => write!(f, "route {}", position + 1),
            Self::Shard {
                position,
                label,
                field,
            } => write!(f, "shard {} (`{label}`), {field}", position + 1),
        }
    }
}
