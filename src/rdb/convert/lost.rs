//! What a rewrite leaves out that no client reads as the value's content.

use std::fmt;

/// One thing that a target cannot be told about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Loss {
    /// A stream's record of which producers sent what (XADD IDMP): a producer
    /// that repeats a send may then add an entry twice.
    StreamProducers,
    /// Pending entries of a stream that no consumer owns, such as those given
    /// back by XNACK: the group has read them and nobody has them.
    StreamUnowned,
    /// Pending entries whose stream entry was deleted.
    StreamPendingDeleted,
    /// When consumers of a stream were last seen or active.
    StreamConsumerTimes,
    /// Consumers of a stream that have nothing pending.
    StreamIdleConsumers,
    /// Counters that only serve to estimate how far a group lags.
    StreamCounters,
    /// Data that a module attached to the key (KEY_META).
    Metadata,
    /// How long ago, or how often, the key was used.
    Usage,
}

impl Loss {
    /// All of them, in the order of their numbers.
    pub const ALL: [Loss; 8] = [
        Loss::StreamProducers,
        Loss::StreamUnowned,
        Loss::StreamPendingDeleted,
        Loss::StreamConsumerTimes,
        Loss::StreamIdleConsumers,
        Loss::StreamCounters,
        Loss::Metadata,
        Loss::Usage,
    ];

    fn bit(self) -> u16 {
        1 << self as u8
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Loss::StreamProducers => "idempotence records of stream producers",
            Loss::StreamUnowned => "pending stream entries that no consumer owns",
            Loss::StreamPendingDeleted => "pending stream entries that were deleted",
            Loss::StreamConsumerTimes => "seen and active times of stream consumers",
            Loss::StreamIdleConsumers => "stream consumers with nothing pending",
            Loss::StreamCounters => "lag counters of streams",
            Loss::Metadata => "metadata that modules attached to keys",
            Loss::Usage => "idle time or frequency of use",
        })
    }
}

/// A set of [`Loss`]; empty for nearly every key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost(u16);

impl Lost {
    /// Nothing.
    pub const EMPTY: Lost = Lost(0);

    /// The set of one.
    pub fn only(loss: Loss) -> Lost {
        Lost(loss.bit())
    }

    /// Adds one.
    pub fn add(&mut self, loss: Loss) {
        self.0 |= loss.bit();
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: Lost) {
        self.0 |= other.0;
    }

    /// Nothing was lost.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it has this one.
    pub fn has(self, loss: Loss) -> bool {
        self.0 & loss.bit() != 0
    }

    /// What is in it.
    pub fn iter(self) -> impl Iterator<Item = Loss> {
        Loss::ALL.into_iter().filter(move |loss| self.has(*loss))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_added() {
        let mut lost = Lost::only(Loss::Metadata);
        lost.add(Loss::StreamCounters);
        lost.merge(Lost::only(Loss::Usage));
        let all: Vec<Loss> = lost.iter().collect();
        assert_eq!(all, [Loss::StreamCounters, Loss::Metadata, Loss::Usage]);
        assert!(Lost::default().is_empty() && !lost.is_empty());
    }

    #[test]
    fn each_has_a_bit_and_words_of_its_own() {
        for (at, loss) in Loss::ALL.into_iter().enumerate() {
            assert_eq!(loss.bit(), 1 << at);
        }
        let words: std::collections::BTreeSet<_> = Loss::ALL.iter().map(Loss::to_string).collect();
        assert_eq!(words.len(), Loss::ALL.len());
    }
}
