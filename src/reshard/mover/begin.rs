//! Where a mover begins, and what that means for each of its sources.
//!
//! ```text
//! Copy    every source: snapshot, then its stream
//! Resume  sources whose targets all hold a checkpoint: their stream, after the
//!         lowest of them; the others: as anew
//! Follow  the stream after the positions that are given; without one: as anew
//! ```
//!
//! As anew: what targets hold of the source is removed, then it is copied.

use crate::replication::ResumePoint;
use crate::router::address::ShardAddress;

use super::config::Attach;

/// What a mover does first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Begin {
    /// Copies a snapshot of every source.
    #[default]
    Copy,
    /// Goes on where an earlier run of the same job left its checkpoints, source
    /// by source; a source without them is copied anew.
    Resume,
    /// Applies what comes after these positions, one a source, to targets that
    /// hold everything before them.
    Follow(Vec<Position>),
}

/// A place in the stream of a source, between two commands or transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The source.
    pub source: ShardAddress,
    /// Replication id of the history that `offset` counts in.
    pub replid: String,
    /// The last byte before the place.
    pub offset: u64,
    /// The database that is selected there.
    pub db: u32,
}

/// How one source begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SourceBegin {
    /// With a snapshot; its targets hold nothing of it.
    Clean,
    /// With a snapshot, once what its targets hold of it is removed.
    Anew,
    /// With its stream. A full resync that is answered instead makes it `Anew`.
    After(ResumePoint),
    /// The same, after the lowest checkpoint of an earlier run.
    GoOn(ResumePoint),
}

impl SourceBegin {
    /// How `source` begins where positions were given.
    pub(super) fn following(
        positions: &[Position],
        source: &ShardAddress,
        attach: Attach,
    ) -> SourceBegin {
        let given = positions.iter().find(|given| given.source == *source);
        match (given, attach) {
            (Some(given), Attach::Psync) => SourceBegin::After(ResumePoint {
                replid: given.replid.clone(),
                offset: given.offset,
                db: given.db,
            }),
            // A walk has no stream that could be taken up.
            (None, _) | (_, Attach::Scan) => SourceBegin::Anew,
        }
    }

    /// Where its stream goes on.
    pub(super) fn point(&self) -> Option<&ResumePoint> {
        match self {
            SourceBegin::After(point) | SourceBegin::GoOn(point) => Some(point),
            SourceBegin::Clean | SourceBegin::Anew => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tap_with_a_position_follows() {
        let source: ShardAddress = "s:1".parse().unwrap();
        let positions = [Position {
            source: source.clone(),
            replid: "abc".to_owned(),
            offset: 7,
            db: 3,
        }];
        let begin = SourceBegin::following(&positions, &source, Attach::Psync);
        let point = begin.point().unwrap();
        assert_eq!((point.offset, point.db), (7, 3));
        for (positions, attach) in [
            (&positions[..0], Attach::Psync),
            (&positions[..], Attach::Scan),
        ] {
            let begin = SourceBegin::following(positions, &source, attach);
            assert_eq!(begin, SourceBegin::Anew);
        }
    }
}
