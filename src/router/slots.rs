//! Slot tables: which shard owns each slot of a slot hash.
//!
//! Ranges are written `"0-8191,9000"`: decimal, both ends included.
//! Invariant: every slot is owned by exactly one shard.

use std::fmt::Write;

use super::layout::ShardIndex;

/// Owner of each slot.
#[derive(Debug, Clone)]
pub(super) struct SlotTable {
    owners: Box<[u16]>,
}

/// Why slots are not owned exactly once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SlotFault {
    /// Shard `shard`'s text is no list of ranges below the number of slots.
    Ranges { shard: usize, part: String },
    /// Shard `shard` claims a slot that shard `owner` (maybe itself) already has.
    Twice {
        shard: usize,
        owner: usize,
        slot: u32,
    },
    /// Nobody owns the slots first..=last.
    Gap { first: u32, last: u32 },
}

impl SlotTable {
    /// `ranges` are the shards' texts in the order of shards.
    pub(super) fn new<'s>(
        slots: u32,
        ranges: impl Iterator<Item = &'s str>,
    ) -> Result<Self, SlotFault> {
        let mut owners: Vec<Option<u16>> = vec![None; slots as usize];
        for (shard, text) in (0u16..).zip(ranges) {
            for part in text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
            {
                claim(&mut owners, shard, part)?;
            }
        }
        if let Some(first) = owners.iter().position(Option::is_none) {
            let length = owners[first..]
                .iter()
                .take_while(|owner| owner.is_none())
                .count();
            return Err(SlotFault::Gap {
                first: first as u32,
                last: (first + length - 1) as u32,
            });
        }
        Ok(Self {
            owners: owners.into_iter().flatten().collect(),
        })
    }

    /// The owner of a hash, which is the slot itself.
    #[inline]
    pub(super) fn owner(&self, hash: u32) -> ShardIndex {
        ShardIndex(self.owners.get(hash as usize).copied().unwrap_or(0))
    }

    /// The ranges of one shard in their shortest form.
    pub(super) fn ranges(&self, shard: ShardIndex) -> String {
        let mut text = String::new();
        let mut first = 0;
        for run in self.owners.chunk_by(|a, b| a == b) {
            let last = first + run.len() - 1;
            if run.first() == Some(&shard.0) {
                let comma = if text.is_empty() { "" } else { "," };
                // Writing to a String cannot fail.
                let _ = if first == last {
                    write!(text, "{comma}{first}")
                } else {
                    write!(text, "{comma}{first}-{last}")
                };
            }
            first = last + 1;
        }
        text
    }
}

fn claim(owners: &mut [Option<u16>], shard: u16, part: &str) -> Result<(), SlotFault> {
    let invalid = || SlotFault::Ranges {
        shard: usize::from(shard),
        part: part.to_owned(),
    };
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let number = |text: &str| text.trim().parse::<usize>().ok();
    let (first, last) = number(first).zip(number(last)).ok_or_else(invalid)?;
    if first > last {
        return Err(invalid());
    }
    for (slot, owner) in (first..=last).zip(owners.get_mut(first..=last).ok_or_else(invalid)?) {
        if let Some(owner) = *owner {
            return Err(SlotFault::Twice {
                shard: usize::from(shard),
                owner: usize::from(owner),
                slot: slot as u32,
            });
        }
        *owner = Some(shard);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_round_trip_in_short_form() {
        let table = SlotTable::new(1024, ["0-9, 11,12", "10, 13-1023", ""].into_iter()).unwrap();
        assert_eq!(table.ranges(ShardIndex(0)), "0-9,11-12");
        assert_eq!(table.ranges(ShardIndex(1)), "10,13-1023");
        assert_eq!(table.ranges(ShardIndex(2)), "");
        assert_eq!(table.owner(10), ShardIndex(1));
    }

    #[test]
    fn every_slot_exactly_once() {
        let fault =
            |ranges: [&'static str; 2]| SlotTable::new(1024, ranges.into_iter()).unwrap_err();
        assert_eq!(
            fault(["0-600", "600-1023"]),
            SlotFault::Twice {
                shard: 1,
                owner: 0,
                slot: 600
            }
        );
        assert_eq!(
            fault(["0-600,5", "601-1023"]),
            SlotFault::Twice {
                shard: 0,
                owner: 0,
                slot: 5
            }
        );
        assert_eq!(
            fault(["0-600", "603-1023"]),
            SlotFault::Gap {
                first: 601,
                last: 602
            }
        );
        assert_eq!(
            fault(["0-600", "601-1022"]),
            SlotFault::Gap {
                first: 1023,
                last: 1023
            }
        );
        for part in [
            "0-1024",
            "x",
            "5-1",
            "-3",
            "1-",
            "99999999999999999999999",
            "1-2-3",
        ] {
            assert_eq!(
                fault(["0-600", part]),
                SlotFault::Ranges {
                    shard: 1,
                    part: part.to_owned()
                }
            );
        }
    }
}
