//! Walking over a record to find its end, from bytes that arrive in pieces.
//!
//! A record's shape is a short program; loops keep a counter each. The walk
//! stops between two primitives and is taken up there again: a primitive cut
//! off by the end of the input is read anew from its first byte, which costs
//! at most its header, so all calls together are O(bytes).
//!
//! Invariant: the state is a position in the program and the counters of the
//! loops around it; nothing is ever allocated for a count.

use super::listpack::Listpack;
use super::reader::{Malformed, Reader, plain_length, string_extent};
use super::shape::Op;

/// Names of a hash's fields, unpacked: a server keeps hashes above 64 KiB
/// otherwise unless it was told not to.
const NAMES_BYTES_MAX: usize = 16 << 20;

/// Loops around loops: groups of a stream around consumers around pending ids.
const LOOP_DEPTH_MAX: usize = 3;

/// The end of a walk for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walk {
    Done,
    /// At least this many bytes of input are needed to go on.
    Needs(usize),
    /// An outermost element ended and another follows; only from [`Skip::run_to`].
    Boundary,
}

#[derive(Clone, Copy, Debug, Default)]
struct Loop {
    body: usize,
    left: u64,
}

/// Where a walk stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Skip {
    program: &'static [Op],
    next: usize,
    loops: [Loop; LOOP_DEPTH_MAX],
    depth: usize,
    /// For [`Op::RepeatHeld`].
    held: u64,
    /// The largest count of an outermost loop so far.
    outermost: u64,
}

impl Skip {
    pub(super) fn new(program: &'static [Op]) -> Self {
        Self::holding(program, 0)
    }

    /// A walk whose [`Op::RepeatHeld`]s run `held` times until another count is held.
    pub(super) fn holding(program: &'static [Op], held: u64) -> Self {
        Self {
            program,
            next: 0,
            loops: [Loop::default(); LOOP_DEPTH_MAX],
            depth: 0,
            held,
            outermost: 0,
        }
    }

    /// The largest count of elements declared so far.
    pub(super) fn elements(&self) -> u64 {
        self.outermost
    }

    /// Walks on from `input[*at..]`; moves `at` over every primitive that is whole.
    pub(super) fn run(&mut self, input: &[u8], at: &mut usize) -> Result<Walk, Malformed> {
        self.run_to(input, at, usize::MAX)
    }

    /// The same, but stops behind the first outermost element that ends at
    /// `boundary` of the input or later and is not the last.
    pub(super) fn run_to(
        &mut self,
        input: &[u8],
        at: &mut usize,
        boundary: usize,
    ) -> Result<Walk, Malformed> {
        while let Some(&op) = self.program.get(self.next) {
            let rest = input.get(*at..).unwrap_or(&[]);
            let (extent, next) = match op {
                Op::End => {
                    let goes_on = self.end_of_body();
                    if goes_on && self.depth == 1 && *at >= boundary {
                        return Ok(Walk::Boundary);
                    }
                    continue;
                }
                Op::Repeat => {
                    let Some((count, size)) = plain_length(rest)? else {
                        return Ok(Walk::Needs(input.len() + 1));
                    };
                    *at += size;
                    self.begin(count)?;
                    continue;
                }
                Op::RepeatHeld => {
                    self.begin(self.held)?;
                    continue;
                }
                Op::Str => (string_extent(rest)?, self.next + 1),
                Op::Len => (plain_length(rest)?.map(|(_, size)| size), self.next + 1),
                Op::Bytes(count) => (Some(usize::from(count)), self.next + 1),
                rare => self.rare(rare, rest)?,
            };
            match extent {
                None => return Ok(Walk::Needs(input.len() + 1)),
                Some(extent) if extent > rest.len() => {
                    return Ok(Walk::Needs(at.saturating_add(extent)));
                }
                Some(extent) => {
                    *at += extent;
                    self.next = next;
                }
            }
        }
        Ok(Walk::Done)
    }

    /// What is not in every hash and list: its size, which may reach past the
    /// end of `rest` (`None` while it is cut off before that is known), and
    /// where the program goes on behind it.
    fn rare(&mut self, op: Op, rest: &[u8]) -> Result<(Option<usize>, usize), Malformed> {
        let behind = self.next + 1;
        Ok(match op {
            Op::Score => (score(rest), behind),
            Op::ArrayItem => (array_item(rest)?, behind),
            Op::Hold => match plain_length(rest)? {
                None => (None, behind),
                Some((count, size)) => {
                    self.held = count;
                    (Some(size), behind)
                }
            },
            Op::HoldNames => {
                let extent = string_extent(rest)?;
                if extent.is_some_and(|extent| extent <= rest.len()) {
                    self.held = names(rest)?;
                }
                (extent, behind)
            }
            Op::Either(programs) => match plain_length(rest)? {
                None => (None, behind),
                Some((choice, size)) => {
                    self.program = usize::try_from(choice)
                        .ok()
                        .and_then(|choice| programs.get(choice))
                        .ok_or(Malformed::Range("a flag"))?;
                    (Some(size), 0)
                }
            },
            Op::ModuleItems => match module_item(rest)? {
                None => (None, behind),
                Some((more, extent)) => (Some(extent), self.next + usize::from(!more)),
            },
            // The walk itself takes those.
            Op::Len | Op::Str | Op::Bytes(_) | Op::Repeat | Op::RepeatHeld | Op::End => {
                (Some(0), behind)
            }
        })
    }

    fn begin(&mut self, count: u64) -> Result<(), Malformed> {
        self.next += 1;
        if self.depth == 0 {
            self.outermost = self.outermost.max(count);
        }
        if count == 0 {
            self.leave_body();
            return Ok(());
        }
        let frame = self.loops.get_mut(self.depth).ok_or(Malformed::Structure(
            "its shape nests deeper than any known",
        ))?;
        *frame = Loop {
            body: self.next,
            left: count,
        };
        self.depth += 1;
        Ok(())
    }

    /// Goes back to the loop's start, or leaves it; whether it goes on.
    fn end_of_body(&mut self) -> bool {
        let frame = self
            .depth
            .checked_sub(1)
            .and_then(|top| self.loops.get_mut(top));
        match frame {
            Some(frame) if frame.left > 1 => {
                frame.left -= 1;
                self.next = frame.body;
                true
            }
            _ => {
                self.depth = self.depth.saturating_sub(1);
                self.next += 1;
                false
            }
        }
    }

    /// Moves behind the `End` of a body that is not entered.
    fn leave_body(&mut self) {
        let mut open = 1u32;
        while let Some(op) = self.program.get(self.next) {
            self.next += 1;
            match op {
                Op::Repeat | Op::RepeatHeld => open += 1,
                Op::End => open -= 1,
                _ => {}
            }
            if open == 0 {
                return;
            }
        }
    }
}

/// Size of a score as text; `None` while nothing of it is there.
fn score(rest: &[u8]) -> Option<usize> {
    rest.first().map(|&len| match len {
        253..=255 => 1,
        len => 1 + usize::from(len),
    })
}

/// Size of an item of an array.
///
/// ```text
/// 0 string | 1 integer: 8 | 2 double: 8 | 3 string
/// ```
fn array_item(rest: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some((tag, size)) = plain_length(rest)? else {
        return Ok(None);
    };
    let body = match tag {
        0 | 3 => string_extent(rest.get(size..).unwrap_or(&[]))?,
        1 | 2 => Some(8),
        _ => return Err(Malformed::Range("the tag of an array's item")),
    };
    Ok(body.map(|body| size.saturating_add(body)))
}

/// How many names a listpack has, which is a string at the start of `rest`.
fn names(rest: &[u8]) -> Result<u64, Malformed> {
    let blob = Reader::new(rest).string_within(NAMES_BYTES_MAX)?;
    let mut listpack = Listpack::new(&blob)?;
    let mut count = 0;
    while listpack.next()?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// One item of a module value: whether more follow, and its size.
///
/// ```text
/// 0 end | 1 signed, 2 unsigned: length | 3 float: 4 | 4 double: 8 | 5 string
/// ```
fn module_item(rest: &[u8]) -> Result<Option<(bool, usize)>, Malformed> {
    let Some((opcode, size)) = plain_length(rest)? else {
        return Ok(None);
    };
    let body = rest.get(size..).unwrap_or(&[]);
    let body_size = match opcode {
        0 => return Ok(Some((false, size))),
        1 | 2 => plain_length(body)?.map(|(_, size)| size),
        3 => Some(4),
        4 => Some(8),
        5 => string_extent(body)?,
        unknown => return Err(Malformed::ModuleItem(unknown)),
    };
    Ok(body_size.map(|body_size| (true, size.saturating_add(body_size))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks `input` as it grows byte by byte; where the walk ended.
    fn walk(program: &'static [Op], input: &[u8]) -> Result<Option<usize>, Malformed> {
        let (mut skip, mut at) = (Skip::new(program), 0);
        for end in 0..=input.len() {
            match skip.run(&input[..end], &mut at)? {
                Walk::Done => return Ok(Some(at)),
                Walk::Needs(bytes) => assert!(bytes > end && at <= end),
                Walk::Boundary => panic!("none was asked for"),
            }
        }
        Ok(None)
    }

    #[test]
    fn loops_of_zero_and_more_in_loops() {
        use Op::{Bytes, End, Len, Repeat};
        const NESTED: &[Op] = &[
            Repeat,
            Len,
            Repeat,
            Bytes(2),
            Repeat,
            Len,
            End,
            End,
            Len,
            End,
            Len,
        ];
        assert_eq!(walk(NESTED, &[0, 7]), Ok(Some(2)));
        assert_eq!(walk(NESTED, &[1, 5, 0, 6, 7, 99]), Ok(Some(5)));
        let two = [2, 5, 2, 1, 1, 0, 2, 2, 2, 8, 9, 6, 5, 1, 3, 3, 1, 4, 6, 7];
        assert_eq!(walk(NESTED, &two), Ok(Some(two.len())));
        assert_eq!(walk(NESTED, &two[..two.len() - 1]), Ok(None));
    }

    #[test]
    fn module_items_of_every_kind() {
        let items = [
            &b"\x01\x81\0\0\0\0\0\0\0\x05\x02\x07"[..],
            b"\x03....\x04........\x05\x03abc\x05\xc0\x01\x00",
        ]
        .concat();
        assert_eq!(walk(&[Op::ModuleItems], &items), Ok(Some(items.len())));
        assert_eq!(
            walk(&[Op::ModuleItems], &[6]),
            Err(Malformed::ModuleItem(6))
        );
    }

    #[test]
    fn scores_are_a_length_and_text_or_one_byte() {
        const SCORES: &[Op] = &[Op::Repeat, Op::Score, Op::End];
        assert_eq!(walk(SCORES, b"\x04\xfd\xfe\xff\x031.5"), Ok(Some(8)));
    }

    #[test]
    fn a_count_beyond_any_input_only_waits() {
        const SET: &[Op] = &[Op::Repeat, Op::Str, Op::End];
        let input = [&[0x81][..], &[255; 8], &[0; 1000]].concat();
        assert_eq!(walk(SET, &input), Ok(None));
    }
}
