//! Walking over a record to find its end, from bytes that arrive in pieces.
//!
//! A record's shape is a short program; loops keep a counter each. The walk
//! stops between two primitives and is taken up there again: a primitive cut
//! off by the end of the input is read anew from its first byte, which costs
//! at most its header, so all calls together are O(bytes).
//!
//! ```text
//! hash        Repeat Str Str End            n, then n times field value
//! zset_2      Repeat Str Bytes(8) End       n, then n times member score
//! ```
//!
//! Invariant: the state is a position in the program and the counters of the
//! loops around it; nothing is ever allocated for a count.

use super::reader::{Malformed, plain_length, string_extent};
use super::value_type::ValueType;
use super::version::{FileVersion, Magic};

/// One primitive of a record's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// A length or number.
    Len,
    /// A string in any form.
    Str,
    /// That many bytes as they are.
    Bytes(u8),
    /// A score as text: a byte of length, or 253, 254, 255 alone (nan, inf, -inf).
    Score,
    /// A count, then that many times what stands up to the matching `End`.
    Repeat,
    End,
    /// Items of a module until their end opcode.
    ModuleItems,
}

/// Loops around loops: groups of a stream around consumers around pending ids.
const LOOP_DEPTH_MAX: usize = 3;

/// The end of a walk for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walk {
    Done,
    /// At least this many bytes of input are needed to go on.
    Needs(usize),
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
}

impl Skip {
    pub(super) fn new(program: &'static [Op]) -> Self {
        Self {
            program,
            next: 0,
            loops: [Loop::default(); LOOP_DEPTH_MAX],
            depth: 0,
        }
    }

    /// Walks on from `input[*at..]`; moves `at` over every primitive that is whole.
    pub(super) fn run(&mut self, input: &[u8], at: &mut usize) -> Result<Walk, Malformed> {
        while let Some(&op) = self.program.get(self.next) {
            let rest = input.get(*at..).unwrap_or(&[]);
            match op {
                Op::End => {
                    self.end_of_body();
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
                Op::ModuleItems => match module_item(rest)? {
                    None => return Ok(Walk::Needs(input.len() + 1)),
                    Some((_, extent)) if extent > rest.len() => {
                        return Ok(Walk::Needs(at.saturating_add(extent)));
                    }
                    Some((more, extent)) => {
                        *at += extent;
                        self.next += usize::from(!more);
                    }
                },
                Op::Len | Op::Str | Op::Bytes(_) | Op::Score => match extent(op, rest)? {
                    None => return Ok(Walk::Needs(input.len() + 1)),
                    Some(extent) if extent > rest.len() => {
                        return Ok(Walk::Needs(at.saturating_add(extent)));
                    }
                    Some(extent) => {
                        *at += extent;
                        self.next += 1;
                    }
                },
            }
        }
        Ok(Walk::Done)
    }

    fn begin(&mut self, count: u64) -> Result<(), Malformed> {
        self.next += 1;
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

    fn end_of_body(&mut self) {
        let frame = self
            .depth
            .checked_sub(1)
            .and_then(|top| self.loops.get_mut(top));
        match frame {
            Some(frame) if frame.left > 1 => {
                frame.left -= 1;
                self.next = frame.body;
            }
            _ => {
                self.depth = self.depth.saturating_sub(1);
                self.next += 1;
            }
        }
    }

    /// Moves behind the `End` of a body that is not entered.
    fn leave_body(&mut self) {
        let mut open = 1u32;
        while let Some(op) = self.program.get(self.next) {
            self.next += 1;
            match op {
                Op::Repeat => open += 1,
                Op::End => open -= 1,
                _ => {}
            }
            if open == 0 {
                return;
            }
        }
    }
}

/// Size of a primitive, which may reach past the end of `rest`; `None` while
/// its header is cut off.
fn extent(op: Op, rest: &[u8]) -> Result<Option<usize>, Malformed> {
    match op {
        Op::Str => string_extent(rest),
        Op::Bytes(count) => Ok(Some(usize::from(count))),
        Op::Score => Ok(rest.first().map(|&len| match len {
            253..=255 => 1,
            len => 1 + usize::from(len),
        })),
        Op::Len | Op::Repeat | Op::End | Op::ModuleItems => {
            Ok(plain_length(rest)?.map(|(_, size)| size))
        }
    }
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
        1 | 2 => extent(Op::Len, body)?,
        3 => Some(4),
        4 => Some(8),
        5 => string_extent(body)?,
        unknown => return Err(Malformed::ModuleItem(unknown)),
    };
    Ok(body_size.map(|body_size| (true, size.saturating_add(body_size))))
}

pub(super) mod opcode {
    //! Bytes that stand where a value type could stand. Source: `rdb.h` of
    //! Redis 8 and Valkey 9; 107 and 121 are Redis Enterprise's.

    pub(in crate::rdb) const ENTERPRISE_RAM_LRU: u8 = 107;
    pub(in crate::rdb) const ENTERPRISE_SLOT: u8 = 121;
    pub(in crate::rdb) const VALKEY_SLOT_IMPORT: u8 = 243;
    pub(in crate::rdb) const SLOT_INFO: u8 = 244;
    pub(in crate::rdb) const FUNCTION2: u8 = 245;
    pub(in crate::rdb) const FUNCTION_PRE_GA: u8 = 246;
    pub(in crate::rdb) const MODULE_AUX: u8 = 247;
    pub(in crate::rdb) const IDLE: u8 = 248;
    pub(in crate::rdb) const FREQ: u8 = 249;
    pub(in crate::rdb) const AUX: u8 = 250;
    pub(in crate::rdb) const RESIZE_DB: u8 = 251;
    pub(in crate::rdb) const EXPIRE_TIME_MS: u8 = 252;
    pub(in crate::rdb) const EXPIRE_TIME: u8 = 253;
    pub(in crate::rdb) const SELECT_DB: u8 = 254;
    pub(in crate::rdb) const EOF: u8 = 255;
}

/// Shape of what follows an opcode; `None` if it is unknown in this version.
pub(super) fn record_program(version: FileVersion, byte: u8) -> Option<&'static [Op]> {
    use Op::{Bytes, End, Len, ModuleItems, Repeat, Str};
    Some(match byte {
        opcode::SELECT_DB | opcode::IDLE => &[Len],
        opcode::ENTERPRISE_RAM_LRU | opcode::ENTERPRISE_SLOT if version.magic() == Magic::Redis => {
            &[Len]
        }
        opcode::EXPIRE_TIME => &[Bytes(4)],
        opcode::EXPIRE_TIME_MS => &[Bytes(8)],
        opcode::FREQ => &[Bytes(1)],
        opcode::RESIZE_DB => &[Len, Len],
        opcode::AUX => &[Str, Str],
        opcode::MODULE_AUX => &[Len, Len, Len, ModuleItems],
        opcode::FUNCTION2 => &[Str],
        opcode::SLOT_INFO => &[Len, Len, Len],
        opcode::VALKEY_SLOT_IMPORT if version.magic() == Magic::Valkey => {
            &[Str, Repeat, Len, Len, End]
        }
        _ => return None,
    })
}

/// Shape of a key: one string.
pub(super) const KEY_PROGRAM: &[Op] = &[Op::Str];

/// Shape of a value.
pub(super) fn value_program(value_type: ValueType) -> &'static [Op] {
    use Op::{Bytes, End, Len, ModuleItems, Repeat, Score, Str};
    match value_type {
        ValueType::String
        | ValueType::HashZipmap
        | ValueType::ListZiplist
        | ValueType::SetIntset
        | ValueType::ZsetZiplist
        | ValueType::HashZiplist
        | ValueType::HashListpack
        | ValueType::ZsetListpack
        | ValueType::SetListpack
        | ValueType::HashListpackExPreGa => &[Str],
        ValueType::List | ValueType::Set | ValueType::ListQuicklist => &[Repeat, Str, End],
        ValueType::Hash => &[Repeat, Str, Str, End],
        ValueType::Zset => &[Repeat, Str, Score, End],
        ValueType::Zset2 => &[Repeat, Str, Bytes(8), End],
        ValueType::ListQuicklist2 => &[Repeat, Len, Str, End],
        ValueType::HashMetadataPreGa => &[Repeat, Len, Str, Str, End],
        ValueType::HashValkey2 => &[Repeat, Str, Str, Bytes(8), End],
        ValueType::HashMetadata => &[Bytes(8), Repeat, Len, Str, Str, End],
        ValueType::HashListpackEx => &[Bytes(8), Str],
        ValueType::Module2 => &[Len, ModuleItems],
        ValueType::StreamListpacks => &[
            Repeat,
            Str,
            Str,
            End, // nodes: master id, listpack
            Len,
            Len,
            Len, // length, last id
            Repeat,
            Str,
            Len,
            Len, // groups: name, last id
            Repeat,
            Bytes(24),
            Len,
            End, // pending: id, delivery time, count
            Repeat,
            Str,
            Bytes(8), // consumers: name, seen time
            Repeat,
            Bytes(16),
            End, // pending ids
            End,
            End,
        ],
        ValueType::StreamListpacks2 => &[
            Repeat,
            Str,
            Str,
            End,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len, // first id, max deleted id, entries added
            Repeat,
            Str,
            Len,
            Len,
            Len, // and entries read
            Repeat,
            Bytes(24),
            Len,
            End,
            Repeat,
            Str,
            Bytes(8),
            Repeat,
            Bytes(16),
            End,
            End,
            End,
        ],
        ValueType::StreamListpacks3 => &[
            Repeat,
            Str,
            Str,
            End,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Repeat,
            Str,
            Len,
            Len,
            Len,
            Repeat,
            Bytes(24),
            Len,
            End,
            Repeat,
            Str,
            Bytes(16), // seen time and active time
            Repeat,
            Bytes(16),
            End,
            End,
            End,
        ],
    }
}
