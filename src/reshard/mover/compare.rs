//! Whether a key is the same at its source and at its target. Pure.
//!
//! Both sides were read at the same marker (see `reads`), so a difference is
//! one. The exception is expiry: each server ends a key by its own clock, so a
//! key that one side still has for less than `EXPIRY_SLACK_MS` and the other
//! has no more is the same key.

use std::fmt;

use crate::rdb::value_type::ValueKind;
use crate::rdb::{ContentDigest, content_digest, split_dump_payload};
use crate::router::address::ShardAddress;

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
            DifferenceKind::Unreadable(why) => write!(f, "cannot be read: {why}"),
        }
    }
}

/// `None` when both sides agree.
pub(super) fn compare(source: &Seen, target: &Seen) -> Option<DifferenceKind> {
    // The later of the two clocks: the other side may have ended the key by it.
    let now_ms = source.now_ms.max(target.now_ms);
    let ending = |at: Option<i64>| at.is_some_and(|at| at <= now_ms + EXPIRY_SLACK_MS);
    match (&source.state, &target.state) {
        (State::Missing, State::Missing) => None,
        (State::Here { expires_at_ms, .. }, State::Missing) => {
            (!ending(*expires_at_ms)).then_some(DifferenceKind::MissingAtTarget)
        }
        (State::Missing, State::Here { expires_at_ms, .. }) => {
            (!ending(*expires_at_ms)).then_some(DifferenceKind::ExtraAtTarget)
        }
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
                _ => None,
            };
            content.or_else(|| compare_expiry(*source_ms, *target_ms))
        }
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

fn compare_content(source: &[u8], target: &[u8]) -> Option<DifferenceKind> {
    if source == target {
        return None;
    }
    let (source, target) = match (digest(source), digest(target)) {
        (Ok(source), Ok(target)) => (source, target),
        (Err(why), _) => return Some(DifferenceKind::Unreadable(format!("source: {why}"))),
        (_, Err(why)) => return Some(DifferenceKind::Unreadable(format!("target: {why}"))),
    };
    if source.kind != target.kind {
        return Some(DifferenceKind::Kind {
            source: source.kind,
            target: target.kind,
        });
    }
    if source.length != target.length {
        return Some(DifferenceKind::Length {
            source: source.length,
            target: target.length,
        });
    }
    (source.digest != target.digest).then_some(DifferenceKind::Content)
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

    #[test]
    fn a_key_that_just_ends_may_be_gone_on_one_side() {
        assert_eq!(compare(&here(Some(100_900)), &missing()), None);
        assert_eq!(compare(&missing(), &here(Some(100_900))), None);
        let far = here(Some(102_000));
        assert_eq!(
            compare(&far, &missing()),
            Some(DifferenceKind::MissingAtTarget)
        );
        assert_eq!(
            compare(&missing(), &far),
            Some(DifferenceKind::ExtraAtTarget)
        );
        assert_eq!(
            compare(&here(None), &missing()),
            Some(DifferenceKind::MissingAtTarget)
        );
    }

    #[test]
    fn expiry_times_agree_within_a_second() {
        assert_eq!(compare(&here(Some(200_000)), &here(Some(200_999))), None);
        assert!(compare(&here(Some(200_000)), &here(Some(205_000))).is_some());
        assert!(compare(&here(Some(200_000)), &here(None)).is_some());
        assert_eq!(compare(&here(None), &here(None)), None);
    }

    #[test]
    fn a_late_target_may_have_ended_what_the_source_still_had() {
        let late = Seen {
            now_ms: 130_000,
            state: State::Missing,
        };
        assert_eq!(compare(&here(Some(129_000)), &late), None);
    }
}
