//! BITFIELD: integers of any width inside of a string.

use std::cmp::Ordering;

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::commands::strings::read_string;
use crate::store::format::numbers::parse_integer;
use crate::store::format::object::StringValue;
use crate::store::kinds::string;

use super::{Changing, bit_offset, tell_setbit};

/// A field of 64 bits that begins inside a byte.
const FIELD_BYTES_MAX: usize = 9;

/// What becomes of a number that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Get,
    Set(i64),
    Add(i64),
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    act: Act,
    overflow: Overflow,
    is_signed: bool,
    bits: u32,
    offset: u64,
}

impl Step {
    /// Smallest and largest number of its width.
    fn limits(&self) -> (i128, i128) {
        match self.is_signed {
            true => (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1),
            false => (0, (1 << self.bits) - 1),
        }
    }

    /// A number's lowest bits, as a number of its width.
    fn wrapped(&self, value: i128) -> i128 {
        let low = value & ((1 << self.bits) - 1);
        match self.is_signed && low >> (self.bits - 1) != 0 {
            true => low - (1 << self.bits),
            false => low,
        }
    }

    /// The number that is written for a sum. `None` if it may not be.
    fn fitted(&self, value: i128, addend: i64) -> Option<i128> {
        let (least, most) = self.limits();
        let sum = value + i128::from(addend);
        let side = match self.is_signed && self.bits < 64 {
            true => self.side_of_signed(value as i64, addend),
            false => sum.cmp(&sum.clamp(least, most)),
        };
        match (self.overflow, side) {
            (_, Ordering::Equal) => Some(sum),
            (Overflow::Wrap, _) => Some(self.wrapped(sum)),
            (Overflow::Saturate, Ordering::Less) => Some(least),
            (Overflow::Saturate, Ordering::Greater) => Some(most),
            (Overflow::Fail, _) => None,
        }
    }

    /// On which side a sum is of what fits, as Redis finds out in 64 bits: far below the
    /// least number it is taken for a large one.
    fn side_of_signed(&self, value: i64, addend: i64) -> Ordering {
        let (least, most) = self.limits();
        let (least, most) = (least as i64, most as i64);
        if value > most || addend > most.wrapping_sub(value) {
            Ordering::Greater
        } else if value < least || addend < least.wrapping_sub(value) {
            Ordering::Less
        } else {
            Ordering::Equal
        }
    }

    /// Where its first byte is, and how far its last bit is from the end of nine bytes.
    fn place(&self) -> (u64, u32) {
        let inside = (self.offset & 7) as u32;
        (
            self.offset >> 3,
            8 * FIELD_BYTES_MAX as u32 - inside - self.bits,
        )
    }

    fn read(&self, context: &mut Context<'_>, from: &StringValue) -> Result<(u128, i128), Failure> {
        let (at, shift) = self.place();
        let end = at + FIELD_BYTES_MAX as u64;
        let found = string::read(context.keyspace.rows(), from, at, end)?;
        let padded = found.iter().copied().chain(std::iter::repeat(0));
        let around = padded
            .take(FIELD_BYTES_MAX)
            .fold(0, |all, byte| all << 8 | u128::from(byte));
        Ok((around, self.wrapped((around >> shift) as i128)))
    }

    fn write(
        &self,
        context: &mut Context<'_>,
        changing: &mut Changing,
        around: u128,
        value: i128,
    ) -> Outcome {
        let (at, shift) = self.place();
        let mask = ((1_u128 << self.bits) - 1) << shift;
        let new = around & !mask | (value as u128) << shift & mask;
        let bytes = new.to_be_bytes();
        let touched = ((self.offset & 7) as usize + self.bits as usize).div_ceil(8);
        let start = bytes.len() - FIELD_BYTES_MAX;
        let bytes = bytes.get(start..start + touched).unwrap_or(&[]);
        changing.write(context, at, bytes)
    }
}

pub(super) fn bitfield(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let steps = parse(context, args)?;
    let ends = steps.iter().filter(|step| step.act != Act::Get);
    match ends.map(|step| step.offset + u64::from(step.bits)).max() {
        None => get_all(context, args.at(1), &steps),
        Some(end) => change(context, args.at(1), &steps, end.div_ceil(8)),
    }
}

pub(super) fn bitfield_ro(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let steps = parse(context, args)?;
    if steps.iter().any(|step| step.act != Act::Get) {
        return Err(Failure::words(
            "ERR BITFIELD_RO only supports the GET subcommand",
        ));
    }
    get_all(context, args.at(1), &steps)
}

fn parse(context: &Context<'_>, args: Args<'_>) -> Result<Vec<Step>, Failure> {
    let (mut steps, mut overflow) = (Vec::new(), Overflow::Wrap);
    let mut number = 2;
    while number < args.len() {
        let others = args.len() - number - 1;
        let words = match args.at(number).to_ascii_uppercase().as_slice() {
            b"GET" if others >= 2 => 3,
            b"SET" | b"INCRBY" if others >= 3 => 4,
            b"OVERFLOW" if others >= 1 => {
                overflow = match args.at(number + 1).to_ascii_uppercase().as_slice() {
                    b"WRAP" => Overflow::Wrap,
                    b"SAT" => Overflow::Saturate,
                    b"FAIL" => Overflow::Fail,
                    _ => return Err(Failure::words("ERR Invalid OVERFLOW type specified")),
                };
                number += 2;
                continue;
            }
            _ => return Err(Failure::SYNTAX),
        };
        let (is_signed, bits) = field_type(args.at(number + 1))?;
        let offset = bit_offset(context, args.at(number + 2), Some(bits))?;
        let act = match (words, args.is(number, "SET")) {
            (3, _) => Act::Get,
            (_, true) => Act::Set(args.integer(number + 3)?),
            (_, false) => Act::Add(args.integer(number + 3)?),
        };
        steps.push(Step {
            act,
            overflow,
            is_signed,
            bits,
            offset,
        });
        number += words;
    }
    Ok(steps)
}

/// `i16`, `u8` ..
fn field_type(text: &[u8]) -> Result<(bool, u32), Failure> {
    let (is_signed, bits, most) = match text {
        [b'i', bits @ ..] => (true, bits, 64),
        [b'u', bits @ ..] => (false, bits, 63),
        _ => (false, &[][..], 0),
    };
    match parse_integer(bits).and_then(|bits| u32::try_from(bits).ok()) {
        Some(bits) if (1..=most).contains(&bits) => Ok((is_signed, bits)),
        _ => Err(Failure::words(
            "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not \
             supported but i64 is.",
        )),
    }
}

fn get_all(context: &mut Context<'_>, key: &[u8], steps: &[Step]) -> Outcome {
    let value = read_string(context, key)?.unwrap_or_else(StringValue::empty);
    context.reply.array(steps.len());
    for step in steps {
        let (_, found) = step.read(context, &value)?;
        context.reply.integer(found as i64);
    }
    Ok(())
}

fn change(context: &mut Context<'_>, key: &[u8], steps: &[Step], len: u64) -> Outcome {
    let mut changing = Changing::begin(context, key, len)?;
    let mut is_changed = false;
    context.reply.array(steps.len());
    for step in steps {
        let (around, old) = step.read(context, &changing.string)?;
        let (value, addend) = match step.act {
            Act::Get => {
                context.reply.integer(old as i64);
                continue;
            }
            Act::Set(value) if step.is_signed => (i128::from(value), 0),
            Act::Set(value) => (i128::from(value as u64), 0),
            Act::Add(addend) => (old, addend),
        };
        let Some(new) = step.fitted(value, addend) else {
            context.reply.null();
            continue;
        };
        let told = if matches!(step.act, Act::Set(_)) {
            old
        } else {
            new
        };
        context.reply.integer(told as i64);
        if new != old {
            step.write(context, &mut changing, around, new)?;
        }
        is_changed |= changing.is_grown || new != old;
    }
    // A string that only grew is told to the log as well, unlike Redis.
    let is_put = is_changed || changing.is_grown;
    changing.finish(context, key, is_put)?;
    if is_changed {
        tell_setbit(context, key);
    }
    Ok(())
}
