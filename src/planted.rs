//! Mistakes on purpose: the proof harness turns one on and must catch it.
//!
//! A harness that never fails proves nothing. So the worst mistakes that this
//! program could make are planted in it, each where it would be made, behind
//!
//! ```ignore
//! if planted::is_on(Planted::FenceSkipped) { .. }
//! ```
//!
//! and `tests/proof.rs` shows for each of them which checker sees it
//! (`docs/proof.md`).
//!
//! Invariants
//! - a release build has none of them: [`is_on`] is `false` at compile time;
//! - a debug build has none on unless [`plant`] was called, which the command
//!   line does once, before anything else runs;
//! - the workers and the job only read the setting.

#[cfg(debug_assertions)]
use std::sync::OnceLock;

/// One mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// The sources are not fenced at the cut, though the job believes so.
    FenceSkipped,
    /// Proxies are committed before the sources' markers were applied.
    CommitBeforeMarker,
    /// Commits go out though the journal does not hold the decision.
    DecisionNotRecorded,
    /// The fence is taken off as soon as it is up, with proxies late.
    UnfencedEarly,
    /// A proxy that missed the hold is never told of the commit.
    LateProxyForgotten,
    /// The route record is not written to the servers.
    RouteRecordSkipped,
    /// The gate opens on the old route while the switch is under way.
    HoldReleasedEarly,
    /// The gate does not shut: the proxy says that it holds, and forwards.
    HoldIgnored,
    /// A request whose connection broke is sent once more.
    RetryOfMaybeExecuted,
    /// After the switch reads still go to the old owner.
    StaleReadServed,
    /// Connections stay logged in as the old epoch's user.
    LoginKeptOld,
    /// After a reconnect a batch is sent though the checkpoint covers it.
    BatchAppliedTwice,
    /// The checkpoint is written beside the batch's transaction.
    CheckpointOutsideMulti,
    /// Two batches of a lane change places.
    LanesReordered,
    /// A marker counts as applied as soon as it was published.
    MarkerIgnored,
    /// A key that was marked for a refresh is never read again.
    RefreshDropped,
    /// Keys that expire soon are written with their exact time while the job lags.
    GuardSkipped,
    /// A command whose keys span servers is forwarded as it is.
    SpanningCommandForwarded,
    /// The reverse direction begins behind the first writes of the new layout.
    ReverseStartsLate,
    /// The way back is committed without a marker.
    RollbackWithoutMarker,
    /// A journal record is taken without looking at its checksum.
    JournalTornAccepted,
}

impl Planted {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::FenceSkipped,
        Self::CommitBeforeMarker,
        Self::DecisionNotRecorded,
        Self::UnfencedEarly,
        Self::LateProxyForgotten,
        Self::RouteRecordSkipped,
        Self::HoldReleasedEarly,
        Self::HoldIgnored,
        Self::RetryOfMaybeExecuted,
        Self::StaleReadServed,
        Self::LoginKeptOld,
        Self::BatchAppliedTwice,
        Self::CheckpointOutsideMulti,
        Self::LanesReordered,
        Self::MarkerIgnored,
        Self::RefreshDropped,
        Self::GuardSkipped,
        Self::SpanningCommandForwarded,
        Self::ReverseStartsLate,
        Self::RollbackWithoutMarker,
        Self::JournalTornAccepted,
    ];

    /// As the setting names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::FenceSkipped => "FenceSkipped",
            Self::CommitBeforeMarker => "CommitBeforeMarker",
            Self::DecisionNotRecorded => "DecisionNotRecorded",
            Self::UnfencedEarly => "UnfencedEarly",
            Self::LateProxyForgotten => "LateProxyForgotten",
            Self::RouteRecordSkipped => "RouteRecordSkipped",
            Self::HoldReleasedEarly => "HoldReleasedEarly",
            Self::HoldIgnored => "HoldIgnored",
            Self::RetryOfMaybeExecuted => "RetryOfMaybeExecuted",
            Self::StaleReadServed => "StaleReadServed",
            Self::LoginKeptOld => "LoginKeptOld",
            Self::BatchAppliedTwice => "BatchAppliedTwice",
            Self::CheckpointOutsideMulti => "CheckpointOutsideMulti",
            Self::LanesReordered => "LanesReordered",
            Self::MarkerIgnored => "MarkerIgnored",
            Self::RefreshDropped => "RefreshDropped",
            Self::GuardSkipped => "GuardSkipped",
            Self::SpanningCommandForwarded => "SpanningCommandForwarded",
            Self::ReverseStartsLate => "ReverseStartsLate",
            Self::RollbackWithoutMarker => "RollbackWithoutMarker",
            Self::JournalTornAccepted => "JournalTornAccepted",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|one| one.name() == name)
    }
}

#[cfg(debug_assertions)]
static PLANTED: OnceLock<Planted> = OnceLock::new();

/// Makes this process make `mistake`; only the first call counts.
#[cfg(debug_assertions)]
pub fn plant(mistake: Planted) {
    // A second one would make a third behaviour that nobody asked for.
    let _ = PLANTED.set(mistake);
}

/// Whether this process makes `mistake`.
#[cfg(debug_assertions)]
#[inline]
pub fn is_on(mistake: Planted) -> bool {
    PLANTED.get() == Some(&mistake)
}

/// Never, in a release build.
#[cfg(not(debug_assertions))]
#[inline]
pub const fn is_on(_mistake: Planted) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_planted_by_itself() {
        for mistake in Planted::ALL {
            assert!(!is_on(*mistake), "{mistake:?}");
        }
    }

    #[test]
    fn names_are_the_variants_and_find_them() {
        for mistake in Planted::ALL {
            assert_eq!(mistake.name(), format!("{mistake:?}"));
            assert_eq!(Planted::named(mistake.name()), Some(*mistake));
        }
        assert_eq!(Planted::named("fenceskipped"), None);
        assert_eq!(Planted::named(""), None);
    }
}
