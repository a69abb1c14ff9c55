//! What of a sorted set is walked: ranges by rank, by score, by name.

use super::walk::{Direction, Entry};

/// Scores from one to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreRange {
    /// The lowest.
    pub min: f64,
    /// Without the lowest itself.
    pub excludes_min: bool,
    /// The highest.
    pub max: f64,
    /// Without the highest itself.
    pub excludes_max: bool,
}

/// One end of a range of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LexBound<'a> {
    /// Before all.
    Least,
    /// This one.
    Included(&'a [u8]),
    /// Up to this one.
    Excluded(&'a [u8]),
    /// Behind all.
    Greatest,
}

/// Names from one to another, among members of one score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LexRange<'a> {
    /// The lower end.
    pub min: LexBound<'a>,
    /// The upper end.
    pub max: LexBound<'a>,
    /// So many from the first one on are passed over, whatever they are.
    pub skipped: usize,
}

/// What is walked.
#[derive(Clone, Debug, PartialEq)]
pub enum Range<'a> {
    /// Counted from the lowest score; the end is not included.
    Rank(std::ops::Range<u64>),
    /// By score.
    Score(ScoreRange),
    /// By name.
    Lex(LexRange<'a>),
}

impl ScoreRange {
    pub(super) fn has(&self, score: f64) -> bool {
        let is_behind_min = score > self.min || (score == self.min && !self.excludes_min);
        is_behind_min && (score < self.max || (score == self.max && !self.excludes_max))
    }

    pub(super) fn is_empty(&self) -> bool {
        let excludes = self.excludes_min || self.excludes_max;
        self.min > self.max || (self.min == self.max && excludes)
    }
}

impl LexRange<'_> {
    fn reaches_min(&self, member: &[u8]) -> bool {
        match self.min {
            LexBound::Least => true,
            LexBound::Included(min) => member >= min,
            LexBound::Excluded(min) => member > min,
            LexBound::Greatest => false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match (self.min, self.max) {
            (LexBound::Greatest, _) | (_, LexBound::Least) => true,
            (LexBound::Least, _) | (_, LexBound::Greatest) => false,
            (LexBound::Included(min), LexBound::Included(max)) => min > max,
            (
                LexBound::Included(min) | LexBound::Excluded(min),
                LexBound::Included(max) | LexBound::Excluded(max),
            ) => min >= max,
        }
    }

    /// Of all elements those of the range, as Redis walks a listpack; that matters if
    /// their scores are not all the same.
    pub(super) fn named(&self, entries: Vec<Entry>, direction: Direction) -> Vec<Entry> {
        let reaches_min = |entry: &Entry| self.reaches_min(&entry.member);
        let is_within_max = |entry: &Entry| self.is_within_max(&entry.member);
        let can_have = !self.is_empty()
            && entries.last().is_some_and(reaches_min)
            && entries.first().is_some_and(is_within_max);
        let entries = entries.into_iter();
        match direction {
            _ if !can_have => Vec::new(),
            Direction::Forward => {
                let found = entries.skip_while(|entry| !reaches_min(entry));
                found.skip(self.skipped).take_while(is_within_max).collect()
            }
            Direction::Backward => {
                let found = entries.rev().skip_while(|entry| !is_within_max(entry));
                found.skip(self.skipped).take_while(reaches_min).collect()
            }
        }
    }

    fn is_within_max(&self, member: &[u8]) -> bool {
        match self.max {
            LexBound::Least => false,
            LexBound::Included(max) => member <= max,
            LexBound::Excluded(max) => member < max,
            LexBound::Greatest => true,
        }
    }
}
