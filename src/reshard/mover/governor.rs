//! How fast to go when servers show strain. Pure.
//!
//! ```text
//! free --strain--> at 70 % of what was sent --calm--> 10 % faster each step --RELEASED--> free
//!                    ^---------- strain ------------------'
//! ```
//!
//! Invariant: the limit is never below [`FLOOR_BYTES_PER_S`], so that a copy
//! beside a server that is always slow still ends.

/// The slowest that strain makes us.
pub(super) const FLOOR_BYTES_PER_S: u64 = 1024 * 1024;
/// Beyond this no limit is needed any more.
const RELEASED_BYTES_PER_S: u64 = 4 * 1024 * 1024 * 1024;

/// One step's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Bytes a second that were sent since the last step.
    pub(super) sent_bytes_per_s: u64,
    /// Whether a server was beyond its bound.
    pub(super) strained: bool,
}

/// Remembers the limit between steps.
#[derive(Debug, Default)]
pub(super) struct Governor {
    limit: Option<u64>,
}

impl Governor {
    /// The limit until the next step; `None`: none.
    pub(super) fn step(&mut self, seen: Seen) -> Option<u64> {
        self.limit = match (self.limit, seen.strained) {
            (limit, true) => {
                let was = limit.unwrap_or(u64::MAX).min(seen.sent_bytes_per_s);
                Some((was / 10 * 7).max(FLOOR_BYTES_PER_S))
            }
            (Some(limit), false) => {
                let next = limit + limit / 10;
                (next < RELEASED_BYTES_PER_S).then_some(next)
            }
            (None, false) => None,
        };
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(sent_bytes_per_s: u64, strained: bool) -> Seen {
        Seen {
            sent_bytes_per_s,
            strained,
        }
    }

    #[test]
    fn strain_slows_down_and_calm_speeds_up_again() {
        const MB: u64 = 1 << 20;
        let mut governor = Governor::default();
        assert_eq!(governor.step(seen(100 * MB, false)), None);
        let slower = governor.step(seen(100 * MB, true)).unwrap();
        assert!((69 * MB..=70 * MB).contains(&slower));
        assert!(governor.step(seen(slower, true)).unwrap() < slower);
        let low = governor.step(seen(0, true));
        assert_eq!(low, Some(FLOOR_BYTES_PER_S));
        let mut limit = low;
        let steps = std::iter::from_fn(|| {
            limit = governor.step(seen(limit?, false));
            limit
        });
        assert!(steps.count() > 50, "it comes back slowly");
        assert_eq!(governor.step(seen(0, false)), None);
    }
}
