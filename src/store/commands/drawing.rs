//! Random elements: the counts of HRANDFIELD and SRANDMEMBER.

use super::args::Args;
use super::failure::Failure;
use crate::store::kinds::Drawn;

/// Most elements that may be drawn with repetition: the reply is held in memory.
const REPEATED_MAX: u64 = 1 << 24;
/// So many are drawn and answered at once.
const BATCH: usize = 1000;

/// How many random elements, and of what kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    /// How many are asked for.
    pub(super) wanted: u64,
    /// Negative counts are of elements that may come again.
    pub(super) drawn: Drawn,
}

impl Count {
    /// Reads one.
    pub(super) fn parse(args: Args<'_>, number: usize) -> Result<Self, Failure> {
        let count = args.integer(number)?;
        if count == i64::MIN {
            return Err(Failure::text(format!(
                "ERR value is out of range, value must between {} and {}",
                -i64::MAX,
                i64::MAX
            )));
        }
        Ok(Self {
            wanted: count.unsigned_abs(),
            drawn: if count < 0 {
                Drawn::Repeated
            } else {
                Drawn::Distinct
            },
        })
    }

    /// How many elements come out of so many.
    pub(super) fn of(self, len: u64) -> Result<usize, Failure> {
        let count = match self.drawn {
            Drawn::Distinct => self.wanted.min(len),
            Drawn::Repeated if self.wanted > REPEATED_MAX => {
                return Err(Failure::text(format!(
                    "ERR value is out of range, at most {REPEATED_MAX} elements are drawn at once"
                )));
            }
            Drawn::Repeated => self.wanted,
        };
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// How many are drawn at once: distinct ones must be.
    pub(super) fn batches(self, count: usize) -> impl Iterator<Item = usize> {
        let size = match self.drawn {
            Drawn::Distinct => count,
            Drawn::Repeated => BATCH,
        };
        let mut left = count;
        std::iter::from_fn(move || {
            let next = size.min(left);
            left -= next;
            (next > 0).then_some(next)
        })
    }
}
