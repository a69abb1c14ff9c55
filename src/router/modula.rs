//! twemproxy's modulo distribution: each server stands in a list `weight` times,
//! in the order of servers; the key's hash modulo its length chooses.
//! The list is kept as running sums, so that a huge weight costs no memory.
//!
//! Invariant: `ends` is ascending and its last value is `total` > 0.

use super::layout::ShardIndex;

/// The list of servers, each repeated by its weight.
#[derive(Debug)]
pub(super) struct Modula {
    total: u32,
    /// Every weight is 1: the remainder itself is the server.
    even: bool,
    /// Where each server's part of the list ends, exclusive.
    ends: Vec<u32>,
}

impl Modula {
    /// Weights in the order of servers, their sum from 1 to `u32::MAX`. A server
    /// of weight 0 has no place in the list.
    pub(super) fn new(weights: impl Iterator<Item = u32>) -> Self {
        let (mut total, mut even) = (0u32, true);
        let ends: Vec<u32> = weights
            .map(|weight| {
                even &= weight == 1;
                total = total.saturating_add(weight);
                total
            })
            .collect();
        Self {
            total: total.max(1),
            even,
            ends,
        }
    }

    /// The owner of a hash.
    #[inline]
    pub(super) fn owner(&self, hash: u32) -> ShardIndex {
        let place = hash % self.total;
        if self.even {
            return ShardIndex(place as u16);
        }
        ShardIndex(self.ends.partition_point(|&end| end <= place) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_repeat_by_weight_in_order() {
        let modula = Modula::new([2, 1, 3].into_iter());
        let owners: Vec<u16> = (0..7).map(|hash| modula.owner(hash).0).collect();
        assert_eq!(owners, [0, 0, 1, 2, 2, 2, 0]);
        let even = Modula::new([1, 1, 1].into_iter());
        assert_eq!(
            (0..4).map(|hash| even.owner(hash).0).collect::<Vec<_>>(),
            [0, 1, 2, 0]
        );
        let without = Modula::new([2, 0, 1, 0].into_iter());
        assert_eq!(
            (0..4).map(|hash| without.owner(hash).0).collect::<Vec<_>>(),
            [0, 0, 2, 0]
        );
        let one_of_two = Modula::new([2, 0].into_iter());
        assert_eq!((one_of_two.owner(0).0, one_of_two.owner(1).0), (0, 0));
    }
}
