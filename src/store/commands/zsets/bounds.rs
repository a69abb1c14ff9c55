//! What is written for a range of scores, of names or of ranks.

use crate::store::commands::args::Args;
use crate::store::commands::failure::Failure;
use crate::store::format::numbers::parse_float;
use crate::store::kinds::zset::{LexBound, LexRange, ScoreRange};

const NO_SCORES: Failure = Failure::words("ERR min or max is not a float");
const NO_NAMES: Failure = Failure::words("ERR min or max not valid string range item");

/// Scores between the arguments at `min` and at `max`.
pub(super) fn scores(args: Args<'_>, min: usize, max: usize) -> Result<ScoreRange, Failure> {
    let (min, excludes_min) = score(args.at(min)).ok_or(NO_SCORES)?;
    let (max, excludes_max) = score(args.at(max)).ok_or(NO_SCORES)?;
    Ok(ScoreRange {
        min,
        excludes_min,
        max,
        excludes_max,
    })
}

fn score(text: &[u8]) -> Option<(f64, bool)> {
    let (text, is_excluded) = match text {
        [b'(', rest @ ..] => (rest, true),
        all => (all, false),
    };
    Some((loose_float(text)?, is_excluded))
}

/// As C's `strtod` reads all of a string that ends at a zero byte: blanks before the
/// number, none at all, and what is out of range are taken, too.
fn loose_float(text: &[u8]) -> Option<f64> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or(text);
    if text.is_empty() {
        return Some(0.0);
    }
    let is_blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    let begin = text.iter().position(|byte| !is_blank(byte))?;
    let text = text.get(begin..)?;
    if let Some(value) = parse_float(text) {
        return Some(value);
    }
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (!value.is_nan()).then_some(value)
}

/// Names between the arguments at `min` and at `max`.
pub(super) fn names<'a>(args: Args<'a>, min: usize, max: usize) -> Result<LexRange<'a>, Failure> {
    let (min, max) = (name(args.at(min)), name(args.at(max)));
    match (min, max) {
        (Some(min), Some(max)) => Ok(LexRange {
            min,
            max,
            skipped: 0,
        }),
        _ => Err(NO_NAMES),
    }
}

fn name(text: &[u8]) -> Option<LexBound<'_>> {
    match text {
        b"-" => Some(LexBound::Least),
        b"+" => Some(LexBound::Greatest),
        [b'[', name @ ..] => Some(LexBound::Included(name)),
        [b'(', name @ ..] => Some(LexBound::Excluded(name)),
        _ => None,
    }
}

/// Places of an inclusive range of indexes, which may be counted from the end.
pub(super) fn ranks(first: i64, last: i64, len: u64) -> std::ops::Range<u64> {
    let from = match u64::try_from(first) {
        Ok(first) => first,
        Err(_) => len.saturating_sub(first.unsigned_abs()),
    };
    let to = match u64::try_from(last) {
        Ok(last) => last.saturating_add(1).min(len),
        Err(_) => (len + 1).saturating_sub(last.unsigned_abs()),
    };
    if from < to { from..to } else { 0..0 }
}
