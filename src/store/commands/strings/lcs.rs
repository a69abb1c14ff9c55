//! LCS: the longest common subsequence of two strings, by the table of all beginnings.

use bytes::Bytes;

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::format::object::Value;
use crate::store::kinds::string;

/// What is asked of the subsequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Text,
    Length,
    Ranges { least: u64, with_length: bool },
}

/// Where a run of common bytes is, first and last of each string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: (usize, usize),
    last: (usize, usize),
}

pub(super) fn lcs(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let one = text_of(context, args.at(1))?;
    let other = text_of(context, args.at(2))?;
    let (Some(one), Some(other)) = (one, other) else {
        return Err(Failure::words(
            "ERR The specified keys must contain string values",
        ));
    };
    let asked = asked(args)?;
    let table_bytes = 4 * (one.len() as u64 + 1) * (other.len() as u64 + 1);
    if table_bytes > context.settings.proto_max_bulk_len {
        return Err(Failure::words(
            "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
        ));
    }
    let table = Table::new(&one, &other);
    match asked {
        Asked::Length => context
            .reply
            .count(table.len(one.len(), other.len()) as usize),
        Asked::Text => {
            let (text, _) = table.walk(&one, &other);
            context.reply.bulk(&text);
        }
        Asked::Ranges { least, with_length } => {
            let (_, mut runs) = table.walk(&one, &other);
            let len_of = |run: &Run| run.last.0 - run.first.0 + 1;
            runs.retain(|run| len_of(run) as u64 >= least);
            let reply = &mut *context.reply;
            reply.map(2);
            reply.bulk(b"matches");
            reply.array(runs.len());
            for run in &runs {
                reply.array(2 + usize::from(with_length));
                for (first, last) in [(run.first.0, run.last.0), (run.first.1, run.last.1)] {
                    reply.array(2);
                    reply.count(first);
                    reply.count(last);
                }
                if with_length {
                    reply.count(len_of(run));
                }
            }
            reply.bulk(b"len");
            reply.count(table.len(one.len(), other.len()) as usize);
        }
    }
    Ok(())
}

/// Nothing for another kind of value; a key that is not there is empty.
fn text_of(context: &mut Context<'_>, key: &[u8]) -> Result<Option<Bytes>, Failure> {
    match context.read(key)?.map(|object| object.value) {
        None => Ok(Some(Bytes::new())),
        Some(Value::String(value)) => Ok(Some(string::read_all(context.keyspace.rows(), &value)?)),
        Some(_) => Ok(None),
    }
}

fn asked(args: Args<'_>) -> Result<Asked, Failure> {
    let (mut has_idx, mut has_len, mut with_length, mut least) = (false, false, false, 0);
    let mut number = 3;
    while number < args.len() {
        if args.is(number, "IDX") {
            has_idx = true;
        } else if args.is(number, "LEN") {
            has_len = true;
        } else if args.is(number, "WITHMATCHLEN") {
            with_length = true;
        } else if args.is(number, "MINMATCHLEN") && number + 1 < args.len() {
            number += 1;
            least = args.integer(number)?.max(0).unsigned_abs();
        } else {
            return Err(Failure::SYNTAX);
        }
        number += 1;
    }
    match (has_idx, has_len) {
        (true, true) => Err(Failure::words(
            "ERR If you want both the length and indexes, please just use IDX.",
        )),
        (true, false) => Ok(Asked::Ranges { least, with_length }),
        (false, true) => Ok(Asked::Length),
        (false, false) => Ok(Asked::Text),
    }
}

/// Lengths of the longest common subsequences of all beginnings of two strings.
struct Table {
    lens: Vec<u32>,
    width: usize,
}

impl Table {
    fn new(one: &[u8], other: &[u8]) -> Self {
        let width = other.len() + 1;
        let mut lens = vec![0; (one.len() + 1) * width];
        for (byte, at) in one.iter().zip((width..).step_by(width)) {
            let (before, row) = lens.split_at_mut(at);
            let before = before.get(at - width..).unwrap_or(&[]);
            let mut left = 0;
            let cells = row
                .iter_mut()
                .skip(1)
                .zip(before.iter().zip(before.iter().skip(1)));
            for ((cell, (diagonal, above)), other) in cells.zip(other) {
                left = if byte == other {
                    diagonal + 1
                } else {
                    left.max(*above)
                };
                *cell = left;
            }
        }
        Self { lens, width }
    }

    fn len(&self, one: usize, other: usize) -> u32 {
        let len = self.lens.get(one * self.width + other);
        len.copied().unwrap_or(0)
    }

    /// The subsequence, and its runs from the last one on.
    fn walk(&self, one: &[u8], other: &[u8]) -> (Vec<u8>, Vec<Run>) {
        let (mut text, mut runs) = (Vec::new(), Vec::new());
        let (mut i, mut j) = (one.len(), other.len());
        let mut run: Option<Run> = None;
        while i > 0 && j > 0 {
            let byte = one.get(i - 1);
            let mut is_over = false;
            if byte == other.get(j - 1) {
                text.extend(byte);
                let here = (i - 1, j - 1);
                match &mut run {
                    None => {
                        run = Some(Run {
                            first: here,
                            last: here,
                        })
                    }
                    Some(run) if run.first == (i, j) => run.first = here,
                    Some(_) => is_over = true,
                }
                is_over |= run.is_some_and(|run| run.first.0 == 0 || run.first.1 == 0);
                i -= 1;
                j -= 1;
            } else {
                match self.len(i - 1, j) > self.len(i, j - 1) {
                    true => i -= 1,
                    false => j -= 1,
                }
                is_over = run.is_some();
            }
            if is_over {
                runs.extend(run.take());
            }
        }
        text.reverse();
        (text, runs)
    }
}
