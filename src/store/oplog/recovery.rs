//! Finding the end of a log that was left somehow.
//!
//! ```text
//! segment k          frame frame frame | torn or missing | frames that may be whole
//! segment k+1 ..                       D                   (their blocks came first)
//! ```
//! The log ends at `D`, where the first frame is that is not whole: what was not synced
//! may be lost in any order. But each header says up to where the log was durable when it
//! was written, and so do marks and the manifest of a clean stop: if any of them says that
//! more than `D` was, then the frame at `D` was on the disk and has changed since. That is
//! damage, and refused.
//!
//! Segments before the last ones, of which a later header says that they were durable, are
//! not read here: readers check every frame again.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::LogError;
use super::layout::{
    FRAME_ALIGNMENT, FRAME_HEADER_BYTES, FRAME_MAGIC, FRAMES_AT, FrameHeader, Mark, Seed,
    SegmentHeader,
};
use super::manifest::Manifest;
use super::segment::{Place, Segment, WINDOW_BYTES, Window};
use super::spares::{segment_name, segment_number};
use crate::store::disk::{Files, read_full_at};

/// What was cut off the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostTail {
    /// The segment's file.
    pub file: PathBuf,
    /// Byte of the file from which on nothing was kept.
    pub at: u64,
    /// Offset in the stream at which the log ends now.
    pub offset: u64,
}

/// What the directory holds.
pub(super) struct Recovered {
    /// Oldest first; all but the last are sealed.
    pub(super) segments: VecDeque<Arc<Segment>>,
    /// Where the next frame goes, in the last segment.
    pub(super) end: Place,
    pub(super) db: u16,
    pub(super) lost_tail: Option<LostTail>,
    /// Segments behind the end.
    pub(super) dropped: Vec<Arc<Segment>>,
    /// Where the frames begin of which nothing says that they were synced.
    pub(super) durable: u64,
}

/// A segment's file before it is known to belong to the log.
struct Candidate {
    sequence: u64,
    header: Option<SegmentHeader>,
    mark: Option<Mark>,
    segment: Arc<Segment>,
}

/// How far the frames go that follow each other.
struct Chain {
    segment: usize,
    end: Place,
    db: u16,
    incarnation: u32,
    /// What its frames say was durable.
    durable: u64,
}

/// Finds the end of the log that `manifest` describes.
pub(super) fn recover(
    files: &dyn Files,
    dir: &Path,
    names: &[String],
    manifest: &Manifest,
) -> Result<Recovered, LogError> {
    let seed = manifest.seed();
    let candidates = candidates(files, dir, names, manifest)?;
    let mut durable = manifest.clean_end.unwrap_or(0);
    for candidate in &candidates {
        let told = candidate.header.map_or(0, |header| header.durable);
        let marked = candidate.mark.map_or(0, |mark| mark.durable);
        durable = durable.max(told).max(marked);
    }
    let first = first_to_read(dir, &candidates, manifest, durable)?;
    let chain = follow(&candidates, first, manifest, seed)?;
    let Some(last) = candidates.get(chain.segment) else {
        return Err(missing(dir, manifest));
    };
    let mut beyond = Beyond::default();
    if manifest.clean_end.is_none() {
        beyond.look(&last.segment, chain.end, &chain, seed)?;
        for later in candidates.iter().skip(chain.segment + 1) {
            beyond.look(&later.segment, later.segment.first(), &chain, seed)?;
        }
    }
    if durable.max(beyond.durable) > chain.end.offset {
        let what = "a frame that was synced is not whole";
        return Err(last.segment.damaged(chain.end, what));
    }
    let lost_tail = beyond.found_any.then(|| LostTail {
        file: last.segment.path.clone(),
        at: chain.end.at,
        offset: chain.end.offset,
    });
    let mut segments: VecDeque<_> = candidates.into_iter().map(|c| c.segment).collect();
    let dropped = segments.split_off(chain.segment + 1);
    for (segment, next) in segments.iter().zip(segments.iter().skip(1)) {
        let _ = segment.sealed.set(next.base);
    }
    Ok(Recovered {
        durable: durable.max(chain.durable),
        segments,
        end: chain.end,
        db: chain.db,
        lost_tail,
        dropped: dropped.into(),
    })
}

/// The files that can belong to the log, by their sequence.
fn candidates(
    files: &dyn Files,
    dir: &Path,
    names: &[String],
    manifest: &Manifest,
) -> Result<Vec<Candidate>, LogError> {
    let seed = manifest.seed();
    let numbers = names.iter().filter_map(|name| segment_number(name));
    let mut numbers: Vec<_> = numbers.filter(|number| manifest.knows(*number)).collect();
    numbers.sort_unstable();
    let mut candidates = Vec::with_capacity(numbers.len());
    for (sequence, incarnation) in numbers {
        let path = dir.join(segment_name(sequence, incarnation));
        let failed = |doing| {
            let file = path.clone();
            move |source| LogError::Io {
                file,
                doing,
                source,
            }
        };
        let file = files.open(&path).map_err(failed("opened"))?;
        let capacity = file.length().map_err(failed("measured"))?;
        let mut block = [0; FRAMES_AT as usize];
        let length = read_full_at(&*file, &mut block, 0).map_err(failed("read"))?;
        let block = block.get(..length).unwrap_or_default();
        let header = SegmentHeader::decode(block, seed);
        // Another number: the file's header from before, in place of one that was lost.
        let header = header
            .filter(|header| (header.sequence, header.incarnation) == (sequence, incarnation));
        let mark = Mark::decode(block, seed);
        let base = header.map_or(0, |header| header.base);
        candidates.push(Candidate {
            sequence,
            header,
            mark: mark.filter(|mark| header.is_some() && mark.sequence == sequence),
            segment: Arc::new(Segment::new(sequence, base, path, file, capacity)),
        });
    }
    Ok(candidates)
}

/// Checks the segments that are known to be durable by their headers alone; answers the
/// first one whose frames must be read.
fn first_to_read(
    dir: &Path,
    candidates: &[Candidate],
    manifest: &Manifest,
    durable: u64,
) -> Result<usize, LogError> {
    let Some(oldest) = candidates.first() else {
        return Err(missing(dir, manifest));
    };
    let is_right = oldest.header.is_some_and(|header| {
        oldest.sequence != manifest.first_sequence || header.base == manifest.base
    });
    if !is_right {
        let what = "the header of the oldest segment";
        return Err(oldest.segment.damaged(oldest.segment.first(), what));
    }
    let mut first = 0;
    for (at, (one, next)) in candidates.iter().zip(candidates.iter().skip(1)).enumerate() {
        let (Some(header), Some(behind)) = (one.header, next.header) else {
            break;
        };
        let follows = next.sequence == one.sequence + 1 && behind.base >= header.base;
        if !follows || behind.base > durable || at != first {
            break;
        }
        first = at + 1;
    }
    Ok(first)
}

/// Reads frames from segment `first` on, as far as they follow each other.
fn follow(
    candidates: &[Candidate],
    first: usize,
    manifest: &Manifest,
    seed: Seed,
) -> Result<Chain, LogError> {
    let mut chain = Chain {
        segment: first,
        end: Place {
            offset: 0,
            at: FRAMES_AT,
        },
        db: 0,
        incarnation: 0,
        durable: 0,
    };
    for (at, candidate) in candidates.iter().enumerate().skip(first) {
        let Some(header) = candidate.header else {
            break;
        };
        let follows = at == first
            || (header.base == chain.end.offset
                && header.incarnation >= chain.incarnation
                && Some(candidate.sequence) == candidates.get(at - 1).map(|c| c.sequence + 1));
        if !follows {
            break;
        }
        let segment = &candidate.segment;
        chain = Chain {
            segment: at,
            end: segment.first(),
            db: header.db,
            incarnation: header.incarnation,
            durable: chain.durable,
        };
        let mut window = Window::default();
        // A clean log ends where it was closed, whatever stands behind that.
        while manifest.clean_end != Some(chain.end.offset) {
            let bytes = window.bytes(segment, chain.end.at, FRAME_HEADER_BYTES)?;
            let frame = FrameHeader::decode(bytes, seed);
            let frame = frame.filter(|frame| {
                frame.start == chain.end.offset && frame.incarnation >= chain.incarnation
            });
            let Some(frame) = frame else { break };
            if !window.payload_is_whole(segment, chain.end, &frame, seed)? {
                break;
            }
            segment.note(chain.end);
            chain.end = chain.end.after(&frame);
            chain.db = frame.db_after;
            chain.incarnation = frame.incarnation;
            chain.durable = chain.durable.max(frame.durable);
        }
    }
    Ok(chain)
}

/// What stands behind the end.
#[derive(Default)]
struct Beyond {
    /// A frame of this history.
    found_any: bool,
    /// The most that any of them says was durable.
    durable: u64,
}

impl Beyond {
    /// Looks for headers of frames that were written after those of `chain`.
    fn look(
        &mut self,
        segment: &Segment,
        from: Place,
        chain: &Chain,
        seed: Seed,
    ) -> Result<(), LogError> {
        let mut window = Window::default();
        let mut at = from.at;
        loop {
            // Windows overlap by one header, so that none is cut in two.
            let bytes = window.bytes(segment, at, WINDOW_BYTES)?;
            if bytes.len() < FRAME_HEADER_BYTES {
                return Ok(());
            }
            let steps = (bytes.len() - FRAME_HEADER_BYTES) / FRAME_ALIGNMENT as usize + 1;
            for (step, word) in bytes
                .chunks(FRAME_ALIGNMENT as usize)
                .take(steps)
                .enumerate()
            {
                if !word.starts_with(&FRAME_MAGIC) {
                    continue;
                }
                let header = bytes.get(step * FRAME_ALIGNMENT as usize..);
                let frame = header.and_then(|bytes| FrameHeader::decode(bytes, seed));
                let frame = frame.filter(|frame| {
                    frame.start >= chain.end.offset && frame.incarnation >= chain.incarnation
                });
                if let Some(frame) = frame {
                    self.found_any = true;
                    self.durable = self.durable.max(frame.durable);
                }
            }
            at += steps as u64 * FRAME_ALIGNMENT;
        }
    }
}

fn missing(dir: &Path, manifest: &Manifest) -> LogError {
    LogError::Damaged {
        file: dir.to_path_buf(),
        at: 0,
        offset: manifest.base,
        what: "no segment of the log is there",
    }
}
