//! Sparse registers: runs of equal ones, changed in place as Redis changes them.

use std::ops::{ControlFlow, Range};

use super::{Corrupted, HEAD_BYTES};

/// Most registers of a run.
const VALUE_LEN_MAX: usize = 4;
const ZEROS_LEN_MAX: usize = 64;
/// Highest value of a run.
const VALUE_MAX: u8 = 32;
/// Runs that are looked at for equal neighbours after a change.
const MERGED_RUNS: usize = 5;

/// Equal registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) value: u8,
    pub(super) len: usize,
}

/// What became of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Raised {
    No,
    Yes,
    /// It does not fit: nothing is changed.
    MustBeDense,
}

/// The run at the beginning, and how many bytes it takes.
fn run_of(bytes: &[u8]) -> Option<(Run, usize)> {
    let first = *bytes.first()?;
    let (value, len, taken) = match first >> 6 {
        0 => (0, usize::from(first) + 1, 1),
        1 => {
            let low = bytes.get(1).copied().unwrap_or(0);
            (
                0,
                (usize::from(first & 0x3f) << 8 | usize::from(low)) + 1,
                2,
            )
        }
        _ => ((first >> 2 & 0x1f) + 1, usize::from(first & 3) + 1, 1),
    };
    Some((Run { value, len }, taken))
}

pub(super) fn each_run(mut bytes: &[u8], each: &mut dyn FnMut(Run) -> ControlFlow<()>) {
    while let Some((run, taken)) = run_of(bytes) {
        if each(run).is_break() {
            return;
        }
        bytes = bytes.get(taken..).unwrap_or(&[]);
    }
}

pub(super) fn push_zeros(out: &mut Vec<u8>, len: usize) {
    let last = (len - 1) as u16;
    match len <= ZEROS_LEN_MAX {
        true => out.push(last as u8),
        false => out.extend_from_slice(&(0x4000 | last).to_be_bytes()),
    }
}

fn value_run(value: u8, len: usize) -> u8 {
    0x80 | (value - 1) << 2 | (len - 1) as u8
}

/// The run that a register is in.
struct Found {
    run: Run,
    /// Its bytes.
    place: Range<usize>,
    /// Its first register.
    first: usize,
    /// Where the run before it begins.
    before: Option<usize>,
}

fn find(bytes: &[u8], index: usize) -> Result<Found, Corrupted> {
    let (mut at, mut first, mut before) = (HEAD_BYTES, 0, None);
    loop {
        let (run, taken) = run_of(bytes.get(at..).unwrap_or(&[])).ok_or(Corrupted)?;
        if index < first + run.len {
            return Ok(Found {
                run,
                place: at..(at + taken).min(bytes.len()),
                first,
                before,
            });
        }
        before = Some(at);
        at += taken;
        first += run.len;
    }
}

pub(super) fn raise(
    bytes: &mut Vec<u8>,
    index: usize,
    value: u8,
    bytes_max: u64,
) -> Result<Raised, Corrupted> {
    if value > VALUE_MAX {
        return Ok(Raised::MustBeDense);
    }
    let found = find(bytes, index)?;
    let run = found.run;
    if run.value >= value {
        return Ok(Raised::No);
    }
    let (left, right) = (index - found.first, found.first + run.len - 1 - index);
    let mut runs = Vec::with_capacity(5);
    let push = |runs: &mut Vec<u8>, len: usize| match (len, run.value) {
        (0, _) => {}
        (_, 0) => push_zeros(runs, len),
        (_, old) => runs.push(value_run(old, len)),
    };
    push(&mut runs, left);
    runs.push(value_run(value, 1));
    push(&mut runs, right);
    let len = bytes.len() + runs.len() - found.place.len();
    if len > bytes.len() && len as u64 > bytes_max {
        return Ok(Raised::MustBeDense);
    }
    bytes.splice(found.place, runs);
    merge(bytes, found.before.unwrap_or(HEAD_BYTES));
    Ok(Raised::Yes)
}

/// Equal neighbours become one run, as far as one may be long.
fn merge(bytes: &mut Vec<u8>, from: usize) {
    let mut at = from;
    for _ in 0..MERGED_RUNS {
        let Some((run, taken)) = run_of(bytes.get(at..).unwrap_or(&[])) else {
            return;
        };
        let next = run_of(bytes.get(at + taken..).unwrap_or(&[]));
        let len = run.len + next.map_or(0, |(next, _)| next.len);
        let is_equal = next.is_some_and(|(next, _)| next.value == run.value);
        if run.value > 0 && is_equal && len <= VALUE_LEN_MAX {
            bytes.splice(at..at + 2, [value_run(run.value, len)]);
        } else {
            at += taken;
        }
    }
}

/// `z:1 Z:16383 v:3,1`.
pub(super) fn text(bytes: &[u8]) -> String {
    let (mut words, mut rest) = (Vec::new(), bytes);
    while let Some((run, taken)) = run_of(rest) {
        words.push(match (run.value, taken) {
            (0, 1) => format!("z:{}", run.len),
            (0, _) => format!("Z:{}", run.len),
            (value, _) => format!("v:{value},{}", run.len),
        });
        rest = rest.get(taken..).unwrap_or(&[]);
    }
    words.join(" ")
}
