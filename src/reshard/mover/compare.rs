//! Whether a key is the same at its source and at its target. Pure.
//!
//! Both sides were read at the same marker (see `reads`), so a difference is
//! one. The exception is expiry: a key that only one side still has is the same
//! key if the SOURCE's clock ends it within `EXPIRY_SLACK_MS` of the moment the
//! target was read. The target's own word about the time counts for nothing: a
//! target whose clock is ahead ends keys too early, and that is a loss.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::rdb::value_type::ValueKind;
use crate::rdb::{ContentDigest, content_digest, split_dump_payload};
use crate::router::address::ShardAddress;

use super::guard::GUARD_MS;
use super::key_text::KeyText;

/// How far expiry times may be apart, and how early a key may have ended.
pub const EXPIRY_SLACK_MS: i64 = 1_000;

/// One key as one server showed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// The server's clock, Unix time in ms.
    pub(super) now_ms: i64,
    pub(super) state: State,
}

/// Whether it was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    Missing,
    Here {
        /// Unix time in ms by the server's clock.
        expires_at_ms: Option<i64>,
        /// The DUMP payload, when the content was asked for.
        payload: Option<Vec<u8>>,
    },
}

/// One key that is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Database number.
    pub db: u32,
    /// The key, binary.
    pub key: Vec<u8>,
    /// Its old owner.
    pub source: ShardAddress,
    /// Its new owner.
    pub target: ShardAddress,
    /// What is not the same.
    pub what: DifferenceKind,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference {
            db,
            key,
            source,
            target,
            what,
        } = self;
        write!(
            f,
            "`{}` (db {db}) on {source} and {target}: {what}",
            KeyText(key)
        )
    }
}

/// What is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DifferenceKind {
    /// The source has the key, the target has not.
    MissingAtTarget,
    /// The target has the key, the source has not.
    ExtraAtTarget,
    /// Values of different types.
    Kind {
        /// At the source.
        source: ValueKind,
        /// At the target.
        target: ValueKind,
    },
    /// Values of different lengths: elements, or bytes of a string.
    Length {
        /// At the source.
        source: u64,
        /// At the target.
        target: u64,
    },
    /// Same type and length, other content.
    Content,
    /// Expiry times more than a second apart; `None`: never expires.
    Expiry {
        /// At the source, Unix time in ms.
        source_ms: Option<i64>,
        /// At the target, Unix time in ms.
        target_ms: Option<i64>,
    },
    /// It was written by commands that span servers whenever it was looked at:
    /// its target is about to get it anew.
    BeingRefreshed,
    /// A value that could not be read.
    Unreadable(String),
}

impl fmt::Display for DifferenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |at: &Option<i64>| at.map_or("never".to_owned(), |at| format!("{at} ms"));
        match self {
            DifferenceKind::MissingAtTarget => f.write_str("missing at the target"),
            DifferenceKind::ExtraAtTarget => f.write_str("only at the target"),
            DifferenceKind::Kind { source, target } => {
                write!(f, "type {source:?} at the source, {target:?} at the target")
            }
            DifferenceKind::Length { source, target } => {
                write!(f, "length {source} at the source, {target} at the target")
            }
            DifferenceKind::Content => f.write_str("content differs"),
            DifferenceKind::Expiry {
                source_ms,
                target_ms,
            } => {
                write!(
                    f,
                    "expires at {} at the source, {} at the target",
                    time(source_ms),
                    time(target_ms)
                )
            }
            DifferenceKind::BeingRefreshed => {
                f.write_str("being read again, at each look: commands that span servers write it")
            }
            DifferenceKind::Unreadable(why) => write!(f, "cannot be read: {why}"),
        }
    }
}

/// What a comparison came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Neither side has it, or its end is so near that one may have it no more.
    Gone,
    /// Both have it, and it is the same: the digest of its content, if it was read
    /// and has one.
    Same(Option<ContentDigest>),
    /// It is not.
    Differs(DifferenceKind),
}

/// What both sides say of one key. The target was read at most `lag` after the
/// source.
pub(super) fn compare(source: &Seen, target: &Seen, lag: Duration) -> Verdict {
    let lag_ms = i64::try_from(lag.as_millis()).unwrap_or(i64::MAX);
    // The source's clock when the target was read.
    let now_ms = source.now_ms.saturating_add(lag_ms);
    let ending =
        |at: Option<i64>| at.is_some_and(|at| at <= now_ms.saturating_add(EXPIRY_SLACK_MS));
    match (&source.state, &target.state) {
        (State::Missing, State::Missing) => Verdict::Gone,
        (State::Here { expires_at_ms, .. }, State::Missing) if ending(*expires_at_ms) => {
            Verdict::Gone
        }
        (State::Here { .. }, State::Missing) => Verdict::Differs(DifferenceKind::MissingAtTarget),
        (State::Missing, State::Here { expires_at_ms, .. }) if ending(*expires_at_ms) => {
            Verdict::Gone
        }
        (State::Missing, State::Here { .. }) => Verdict::Differs(DifferenceKind::ExtraAtTarget),
        (
            State::Here {
                expires_at_ms: source_ms,
                payload: ours,
            },
            State::Here {
                expires_at_ms: target_ms,
                payload: theirs,
            },
        ) => {
            let content = match (ours, theirs) {
                (Some(ours), Some(theirs)) => compare_content(ours, theirs),
                _ => Ok(None),
            };
            match (content, compare_expiry(*source_ms, *target_ms)) {
                (Err(kind), _) | (Ok(_), Some(kind)) => Verdict::Differs(kind),
                (Ok(digest), None) => Verdict::Same(digest),
            }
        }
    }
}

/// What a guarded key's target stands for (see `guard`): its time was sent later
/// than it is, by at least the guard.
pub(super) fn off_guard<'t>(source: &Seen, target: &'t Seen) -> Cow<'t, Seen> {
    match (&source.state, &target.state) {
        (
            State::Here {
                expires_at_ms: Some(meant),
                ..
            },
            State::Here {
                expires_at_ms: Some(at),
                payload,
            },
        ) if *at >= meant + GUARD_MS - EXPIRY_SLACK_MS => Cow::Owned(Seen {
            now_ms: target.now_ms,
            state: State::Here {
                expires_at_ms: Some(*meant),
                payload: payload.clone(),
            },
        }),
        _ => Cow::Borrowed(target),
    }
}

fn compare_expiry(source_ms: Option<i64>, target_ms: Option<i64>) -> Option<DifferenceKind> {
    let agrees = match (source_ms, target_ms) {
        (None, None) => true,
        (Some(source), Some(target)) => source.abs_diff(target) <= EXPIRY_SLACK_MS.unsigned_abs(),
        _ => false,
    };
    (!agrees).then_some(DifferenceKind::Expiry {
        source_ms,
        target_ms,
    })
}

/// The digest that both have, or what is not the same. The same bytes are the
/// same, be they of a kind that has no digest.
fn compare_content(source: &[u8], target: &[u8]) -> Result<Option<ContentDigest>, DifferenceKind> {
    let unreadable = |side, why| DifferenceKind::Unreadable(format!("{side}: {why}"));
    let ours = digest(source);
    if source == target {
        return Ok(ours.ok());
    }
    let ours = ours.map_err(|why| unreadable("source", why))?;
    let theirs = digest(target).map_err(|why| unreadable("target", why))?;
    if ours.kind != theirs.kind {
        return Err(DifferenceKind::Kind {
            source: ours.kind,
            target: theirs.kind,
        });
    }
    if ours.length != theirs.length {
        return Err(DifferenceKind::Length {
            source: ours.length,
            target: theirs.length,
        });
    }
    if ours.digest == theirs.digest {
        Ok(Some(ours))
    } else {
        Err(DifferenceKind::Content)
    }
}

fn digest(payload: &[u8]) -> Result<ContentDigest, String> {
    let (value, _version) = split_dump_payload(payload).map_err(|error| error.to_string())?;
    content_digest(&value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(expires_at_ms: Option<i64>) -> Seen {
        Seen {
            now_ms: 100_000,
            state: State::Here {
                expires_at_ms,
                payload: None,
            },
        }
    }

    fn missing() -> Seen {
        Seen {
            now_ms: 100_000,
            state: State::Missing,
        }
    }

    fn differs(source: &Seen, target: &Seen, lag: Duration) -> Option<DifferenceKind> {
        match compare(source, target, lag) {
            Verdict::Differs(kind) => Some(kind),
            Verdict::Gone | Verdict::Same(_) => None,
        }
    }

    fn at_once(source: &Seen, target: &Seen) -> Option<DifferenceKind> {
        differs(source, target, Duration::ZERO)
    }

    #[test]
    fn a_key_that_just_ends_may_be_gone_on_one_side() {
        assert_eq!(at_once(&here(Some(100_900)), &missing()), None);
        assert_eq!(at_once(&missing(), &here(Some(100_900))), None);
        let far = here(Some(102_000));
        assert_eq!(
            at_once(&far, &missing()),
            Some(DifferenceKind::MissingAtTarget)
        );
        assert_eq!(
            at_once(&missing(), &far),
            Some(DifferenceKind::ExtraAtTarget)
        );
        assert_eq!(
            at_once(&here(None), &missing()),
            Some(DifferenceKind::MissingAtTarget)
        );
    }

    #[test]
    fn expiry_times_agree_within_a_second() {
        assert_eq!(at_once(&here(Some(200_000)), &here(Some(200_999))), None);
        assert!(at_once(&here(Some(200_000)), &here(Some(205_000))).is_some());
        assert!(at_once(&here(Some(200_000)), &here(None)).is_some());
        assert_eq!(at_once(&here(None), &here(None)), None);
    }

    #[test]
    fn a_target_read_late_may_have_ended_what_the_source_still_had() {
        let lag = Duration::from_secs(30);
        assert_eq!(differs(&here(Some(130_900)), &missing(), lag), None);
        assert_eq!(
            differs(&here(Some(131_100)), &missing(), lag),
            Some(DifferenceKind::MissingAtTarget)
        );
    }

    #[test]
    fn a_target_whose_clock_is_ahead_has_lost_what_it_ended() {
        let ahead = Seen {
            now_ms: 100_000 + 180_000,
            state: State::Missing,
        };
        let missing = Some(DifferenceKind::MissingAtTarget);
        assert_eq!(at_once(&here(Some(160_000)), &ahead), missing);
        assert_eq!(at_once(&here(Some(100_900)), &ahead), None);
    }
}
