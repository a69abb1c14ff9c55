//! What a lane has applied, kept on its target beside the data.
//!
//! ```text
//! db 0   __keyferry:cp:<job>:<source index>
//! v1     "v1 <run> <history> <sequence> copying"
//!        "v1 <run> <history> <sequence> at <offset> <database> <replid>"
//! ```
//!
//! The run is a random number, in hex, that a copy begins with; the history
//! grows when its source begins anew. `at` says that the batch of that sequence
//! number ends the snapshot and the source's stream up to this byte, for this
//! target, but for keys that are noted there as pending (`source/noting`), and that
//! nothing after it was sent.
//!
//! Invariant: a checkpoint becomes visible together with what it tells of, or
//! after it.

use std::fmt;
use std::sync::Arc;

use crate::replication::ResumePoint;
use crate::router::RESERVED_PREFIX;

/// A place in a source's stream where a batch may end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StreamAt {
    pub(super) replid: Arc<str>,
    /// The last byte before it.
    pub(super) offset: u64,
    /// The database selected there.
    pub(super) db: u32,
}

impl StreamAt {
    pub(super) fn of(point: &ResumePoint) -> StreamAt {
        StreamAt {
            replid: point.replid.as_str().into(),
            offset: point.offset,
            db: point.db,
        }
    }
}

/// Which copy of a source, and which of its histories, a checkpoint is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lineage {
    pub(super) run: u64,
    pub(super) history: u64,
}

/// See the head of this file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) lineage: Lineage,
    /// Number of the newest batch that is applied; 0 before the first.
    pub(super) sequence: u64,
    /// Where the stream can be gone on with; `None` while that is not known.
    pub(super) at: Option<StreamAt>,
}

impl Lineage {
    /// A copy that begins now.
    pub(super) fn new() -> Lineage {
        Lineage {
            run: fastrand::u64(..),
            history: 0,
        }
    }
}

impl Checkpoint {
    /// That of a target which has nothing of the copy yet, or all before `point`.
    pub(super) fn first(lineage: Lineage, point: Option<&ResumePoint>) -> Checkpoint {
        Checkpoint {
            lineage,
            sequence: 0,
            at: point.map(StreamAt::of),
        }
    }

    /// The text that `parse` reads.
    pub(super) fn text(&self) -> String {
        self.to_string()
    }

    /// `None` for a text that is not one of ours.
    pub(super) fn parse(text: &[u8]) -> Option<Checkpoint> {
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        if words.next()? != "v1" {
            return None;
        }
        let lineage = Lineage {
            run: u64::from_str_radix(words.next()?, 16).ok()?,
            history: words.next()?.parse().ok()?,
        };
        let sequence = words.next()?.parse().ok()?;
        let at = match words.next()? {
            "copying" => None,
            "at" => Some(StreamAt {
                offset: words.next()?.parse().ok()?,
                db: words.next()?.parse().ok()?,
                replid: words.next()?.into(),
            }),
            _ => return None,
        };
        let checkpoint = Checkpoint {
            lineage,
            sequence,
            at,
        };
        words.next().is_none().then_some(checkpoint)
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lineage { run, history } = self.lineage;
        write!(f, "v1 {run:016x} {history} {} ", self.sequence)?;
        match &self.at {
            None => f.write_str("copying"),
            Some(at) => write!(f, "at {} {} {}", at.offset, at.db, at.replid),
        }
    }
}

/// Where the stream of a source goes on whose lanes left these: after the lowest,
/// if all are of one copy and history.
pub(super) fn common_point(found: &[Option<Checkpoint>]) -> Option<(Lineage, ResumePoint)> {
    let first = found.first()?.as_ref()?.lineage;
    let mut lowest: Option<&StreamAt> = None;
    for checkpoint in found {
        let checkpoint = checkpoint.as_ref()?;
        let at = checkpoint.at.as_ref()?;
        if checkpoint.lineage != first {
            return None;
        }
        if lowest.is_none_or(|lowest| at.offset < lowest.offset) {
            lowest = Some(at);
        }
    }
    let lowest = lowest?;
    let point = ResumePoint {
        replid: lowest.replid.to_string(),
        offset: lowest.offset,
        db: lowest.db,
    };
    Some((first, point))
}

/// The key of the lanes from source number `source`.
pub(super) fn checkpoint_key(job: &str, source: usize) -> Vec<u8> {
    let mut key = RESERVED_PREFIX.to_vec();
    key.extend_from_slice(format!("cp:{job}:{source}").as_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(history: u64, at: Option<(u64, u32)>) -> Checkpoint {
        Checkpoint {
            lineage: Lineage { run: 0xab, history },
            sequence: 7,
            at: at.map(|(offset, db)| StreamAt {
                replid: "f00".into(),
                offset,
                db,
            }),
        }
    }

    #[test]
    fn the_text_of_version_1_is_fixed() {
        let copying = checkpoint(2, None);
        assert_eq!(copying.text(), "v1 00000000000000ab 2 7 copying");
        let at = checkpoint(0, Some((1234, 3)));
        assert_eq!(at.text(), "v1 00000000000000ab 0 7 at 1234 3 f00");
        for checkpoint in [copying, at] {
            let text = checkpoint.text();
            assert_eq!(Checkpoint::parse(text.as_bytes()), Some(checkpoint));
        }
    }

    #[test]
    fn what_is_cut_or_altered_is_no_checkpoint() {
        let text = checkpoint(0, Some((1234, 3))).text();
        let ends = text.rfind(' ').unwrap() + 1;
        for cut in 0..ends {
            assert_eq!(Checkpoint::parse(&text.as_bytes()[..cut]), None, "{cut}");
        }
        for foreign in [
            "v2 ab 0 7 copying",
            "v1 ab 0 7 copying x",
            "v1 ab 0 7 gone",
            "\u{ff}",
        ] {
            assert_eq!(Checkpoint::parse(foreign.as_bytes()), None, "{foreign}");
        }
    }

    #[test]
    fn lanes_of_one_history_go_on_after_the_lowest() {
        let low = Some(checkpoint(1, Some((10, 3))));
        let high = Some(checkpoint(1, Some((90, 0))));
        let (lineage, point) = common_point(&[high.clone(), low.clone()]).unwrap();
        assert_eq!((lineage.history, point.offset, point.db), (1, 10, 3));
        for other in [
            None,
            Some(checkpoint(1, None)),
            Some(checkpoint(2, Some((10, 3)))),
        ] {
            assert_eq!(common_point(&[low.clone(), other]), None);
        }
        assert_eq!(common_point(&[]), None);
    }
}
