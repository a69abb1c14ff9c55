//! What a guard is told of targets whose stream is taken up where it was left.

use super::super::config::CLOCKS_APART_MS_MAX;
use super::super::placement::TargetIndex;
use super::super::present::Present;
use super::{COPYING_MS, GUARD_MS, Guard};

/// How a source tells replicas of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Spoken {
    /// As moments, since Redis 7.0.
    Moments,
    /// From now on, too.
    Spans,
}

/// Whether a key that ends after `left_ms` on its target may have been guarded by
/// an earlier run, days ago: near times were within the copy's horizon.
fn may_be_guarded(left_ms: i64, spoken: Spoken) -> bool {
    let longest_ms = match spoken {
        Spoken::Moments => GUARD_MS + COPYING_MS + CLOCKS_APART_MS_MAX as i64,
        // Those that came late are guarded however far they are.
        Spoken::Spans => i64::MAX,
    };
    (GUARD_MS / 2..=longest_ms).contains(&left_ms)
}

impl Guard {
    /// A stream that was left is taken up: targets have what is recalled, no more.
    pub(in super::super) fn begin_recall(&mut self) {
        self.present = Some(Present::default());
    }

    /// A key that its target has, which ends there after `left_ms`, if ever.
    pub(in super::super) fn recall(
        &mut self,
        (db, key): (u32, &[u8]),
        target: TargetIndex,
        (left_ms, now_ms): (Option<i64>, i64),
        spoken: Spoken,
    ) {
        self.arrives(db, key);
        match left_ms {
            None => {}
            Some(left_ms) if may_be_guarded(left_ms, spoken) => {
                self.remember(db, key, target);
            }
            Some(left_ms) => self.know(db, key, now_ms.saturating_add(left_ms)),
        }
    }
}
