//! BITCOUNT, BITPOS.

use std::ops::ControlFlow;

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::commands::strings::read_string;
use crate::store::format::object::StringValue;
use crate::store::kinds::string;

/// Bits `from..to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bits {
    from: u64,
    to: u64,
}

impl Bits {
    fn all(value: &StringValue) -> Self {
        Self {
            from: 0,
            to: 8 * value.len(),
        }
    }

    /// A first and a last one, bytes or bits, negative ones from the end.
    fn between(first: i64, last: i64, value: &StringValue, is_bit: bool) -> Self {
        let total = if is_bit { 8 * value.len() } else { value.len() };
        let placed = |index: i64| match u64::try_from(index) {
            Ok(index) => index,
            Err(_) => total.saturating_sub(index.unsigned_abs()),
        };
        let (from, last) = (placed(first), placed(last).min(total.saturating_sub(1)));
        if from > last || total == 0 {
            return Self { from: 0, to: 0 };
        }
        let factor = if is_bit { 1 } else { 8 };
        Self {
            from: from * factor,
            to: (last + 1) * factor,
        }
    }

    fn is_empty(self) -> bool {
        self.from >= self.to
    }
}

/// BIT or BYTE.
fn is_bit(args: Args<'_>, number: usize) -> Result<bool, Failure> {
    match (args.is(number, "BIT"), args.is(number, "BYTE")) {
        (true, _) => Ok(true),
        (_, true) => Ok(false),
        _ => Err(Failure::SYNTAX),
    }
}

/// Hands over the bytes that have these bits, those outside of them as `outside` says,
/// with the number of the first byte's first bit.
fn visit(
    context: &mut Context<'_>,
    value: &StringValue,
    bits: Bits,
    outside: bool,
    each: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
) -> Outcome {
    let (first, end) = (bits.from >> 3, bits.to.div_ceil(8));
    let mut at = first;
    let mut edge = Vec::new();
    let mask = |byte: u8, at: u64| {
        let before = bits.from.saturating_sub(8 * at).min(8) as u32;
        let behind = (8 * (at + 1)).saturating_sub(bits.to).min(8) as u32;
        let inside = 0xff_u8.checked_shr(before).unwrap_or(0);
        let inside = inside & 0xff_u8.checked_shl(behind).unwrap_or(0);
        if outside {
            byte | !inside
        } else {
            byte & inside
        }
    };
    string::visit(context.keyspace.rows(), value, first, end, &mut |piece| {
        let last = at + piece.len() as u64 - 1;
        let has_edge = 8 * at < bits.from || 8 * (last + 1) > bits.to;
        let piece = match has_edge {
            false => piece,
            true => {
                edge.clear();
                edge.extend_from_slice(piece);
                if let Some(byte) = edge.first_mut() {
                    *byte = mask(*byte, at);
                }
                if let Some(byte) = edge.last_mut() {
                    *byte = mask(*byte, last);
                }
                &edge
            }
        };
        let flow = each(8 * at, piece);
        at = last + 1;
        flow
    })?;
    Ok(())
}

pub(super) fn bitcount(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let Some(value) = read_string(context, args.at(1))? else {
        context.reply.integer(0);
        return Ok(());
    };
    let bits = match args.len() {
        2 => Bits::all(&value),
        4 | 5 => {
            let (first, last) = (args.integer(2)?, args.integer(3)?);
            if first < 0 && last < 0 && first > last {
                context.reply.integer(0);
                return Ok(());
            }
            let is_bit = args.len() == 5 && is_bit(args, 4)?;
            Bits::between(first, last, &value, is_bit)
        }
        _ => return Err(Failure::SYNTAX),
    };
    let mut count = 0_u64;
    if !bits.is_empty() {
        visit(context, &value, bits, false, &mut |_, piece| {
            count += ones(piece);
            ControlFlow::Continue(())
        })?;
    }
    context
        .reply
        .integer(i64::try_from(count).unwrap_or(i64::MAX));
    Ok(())
}

fn ones(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let of_words = words
        .iter()
        .map(|word| u64::from(u64::from_ne_bytes(*word).count_ones()));
    of_words.sum::<u64>()
        + rest
            .iter()
            .map(|byte| u64::from(byte.count_ones()))
            .sum::<u64>()
}

pub(super) fn bitpos(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let wanted = match args.integer(2)? {
        0 => false,
        1 => true,
        _ => return Err(Failure::words("ERR The bit argument must be 1 or 0.")),
    };
    let Some(value) = read_string(context, args.at(1))? else {
        context.reply.integer(if wanted { -1 } else { 0 });
        return Ok(());
    };
    let mut has_end = false;
    let bits = match args.len() {
        3 => Bits::all(&value),
        4..=6 => {
            let first = args.integer(3)?;
            let is_bit = args.len() == 6 && is_bit(args, 5)?;
            let last = match args.len() {
                4 => i64::try_from(value.len()).unwrap_or(i64::MAX) - 1,
                _ => args.integer(4)?,
            };
            has_end = args.len() > 4;
            Bits::between(first, last, &value, is_bit)
        }
        _ => return Err(Failure::SYNTAX),
    };
    let mut found = None;
    if !bits.is_empty() {
        visit(context, &value, bits, !wanted, &mut |at, piece| {
            let skipped = if wanted { 0 } else { 0xff };
            match piece.iter().position(|byte| *byte != skipped) {
                None => ControlFlow::Continue(()),
                Some(byte) => {
                    let bits = (piece.get(byte).copied().unwrap_or(0)) ^ skipped;
                    found = Some(at + 8 * byte as u64 + u64::from(bits.leading_zeros()));
                    ControlFlow::Break(())
                }
            }
        })?;
    }
    // Behind a string are zeros, unless an end was named.
    let behind = !wanted && !has_end && !bits.is_empty();
    let found = found.or(behind.then_some(bits.to));
    let found = found.map_or(-1, |at| i64::try_from(at).unwrap_or(i64::MAX));
    context.reply.integer(found);
    Ok(())
}
