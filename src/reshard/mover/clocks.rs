//! How far the clocks of servers are apart, as far as can be told from outside.
//!
//! ```text
//! ours     sent |--------------------| received
//! theirs             stated (TIME), at some moment between the two
//! ahead         stated - received  ..  stated - sent
//! ```
//!
//! Two servers are apart by no less than the gap between their ranges. Slow
//! answers widen the ranges, so they hide a difference but never make one up.

use std::time::Instant;

use crate::resp::Value;
use crate::router::address::ShardAddress;

use super::config::CLOCKS_APART_MS_MAX;
use super::error::MoveError;
use super::link::Link;
use super::reads::clock_us;

const TIME: &str = "read the clock (TIME)";
/// Of so many answers the quickest one counts.
const SAMPLES: usize = 3;

/// How far a server's clock is ahead of a moment that all samples share: at
/// least and at most, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClockRange {
    least_us: i64,
    most_us: i64,
}

impl ClockRange {
    /// A clock that said `stated_us` between two moments of ours.
    fn of(stated_us: i64, sent_us: i64, received_us: i64) -> ClockRange {
        ClockRange {
            least_us: stated_us.saturating_sub(received_us),
            most_us: stated_us.saturating_sub(sent_us),
        }
    }

    fn width_us(self) -> i64 {
        self.most_us.saturating_sub(self.least_us)
    }

    /// No less are these two apart, in milliseconds.
    fn apart_ms(self, other: ClockRange) -> u64 {
        let gap_us = self
            .least_us
            .saturating_sub(other.most_us)
            .max(other.least_us.saturating_sub(self.most_us));
        u64::try_from(gap_us / 1000).unwrap_or(0)
    }
}

/// Asks a server for its time. All samples that are compared share `start`.
pub(super) async fn sample(link: &mut Link, start: Instant) -> Result<ClockRange, MoveError> {
    let elapsed_us = || i64::try_from(start.elapsed().as_micros()).unwrap_or(i64::MAX);
    let mut best: Option<ClockRange> = None;
    for _ in 0..SAMPLES {
        let sent_us = elapsed_us();
        let reply = link.ask(TIME, &[b"TIME"]).await?;
        let received_us = elapsed_us();
        if let Value::Error(text) = &reply {
            let text = String::from_utf8_lossy(text);
            let why = format!("{text} (verification needs the time: allow it for our user)");
            return Err(link.refuse(TIME, why));
        }
        let stated_us = clock_us(&reply).ok_or_else(|| link.odd(TIME))?;
        let range = ClockRange::of(stated_us, sent_us, received_us);
        if best.is_none_or(|best| range.width_us() < best.width_us()) {
            best = Some(range);
        }
    }
    best.ok_or_else(|| link.odd(TIME))
}

/// Refuses servers whose clocks are too far apart, naming the worst two. Pure.
pub(super) fn check_clocks(clocks: &[(ShardAddress, ClockRange)]) -> Result<(), MoveError> {
    let pairs = clocks.iter().enumerate().flat_map(|(at, first)| {
        let others = clocks.iter().skip(at + 1);
        others.map(move |second| (first, second, first.1.apart_ms(second.1)))
    });
    match pairs.max_by_key(|(_, _, apart_ms)| *apart_ms) {
        Some((first, second, apart_ms)) if apart_ms > CLOCKS_APART_MS_MAX => {
            Err(MoveError::ClocksDiffer {
                first: first.0.clone(),
                second: second.0.clone(),
                apart_ms,
                max_ms: CLOCKS_APART_MS_MAX,
            })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(
        name: &str,
        stated_ms: i64,
        (sent_ms, received_ms): (i64, i64),
    ) -> (ShardAddress, ClockRange) {
        let range = ClockRange::of(stated_ms * 1000, sent_ms * 1000, received_ms * 1000);
        (name.parse().unwrap(), range)
    }

    #[test]
    fn two_clocks_are_apart_by_what_no_delay_explains() {
        let (_, a) = clock("a:1", 5_000, (0, 10));
        // Stated 100 ms later, asked 100 ms later: the same clock.
        let (_, b) = clock("b:1", 5_100, (100, 110));
        assert_eq!(a.apart_ms(b), 0);
        let (_, c) = clock("c:1", 5_300, (100, 110));
        assert_eq!((a.apart_ms(c), c.apart_ms(a)), (190, 190));
        // The answer took as long as the clocks seem to differ.
        let (_, slow) = clock("s:1", 5_300, (100, 400));
        assert_eq!(a.apart_ms(slow), 0);
    }

    #[test]
    fn the_worst_two_are_named_and_a_small_difference_is_borne() {
        let near = [clock("a:1", 5_000, (0, 2)), clock("b:1", 5_100, (0, 2))];
        assert!(check_clocks(&near).is_ok());
        assert!(check_clocks(&[]).is_ok());
        let far = [
            clock("a:1", 5_000, (0, 2)),
            clock("b:1", 5_200, (0, 2)),
            clock("c:1", 4_000, (0, 2)),
        ];
        let error = check_clocks(&far).unwrap_err();
        assert!(error.is_refusal());
        let text = error.to_string();
        assert!(
            text.contains("b:1 and c:1") && text.contains("1198 ms"),
            "{text}"
        );
    }
}
