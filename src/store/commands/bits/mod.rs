//! Commands on the bits of strings. Bit 0 is the highest of the first byte.
//!
//! ```text
//! single  SETBIT GETBIT          combining  BITOP
//! fields  BITFIELD               counting   BITCOUNT BITPOS
//! ```

mod combining;
mod counting;
mod fields;
mod single;
#[cfg(test)]
mod tests;

use crate::store::format::numbers::parse_integer;
use crate::store::format::object::{Object, StringValue, Value, Written};
use crate::store::kinds::string;

use super::context::{Context, Outcome};
use super::failure::Failure;
use super::settings::EventClass;
use super::table::{Command, Keys, Run};

/// The family.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "setbit",
        arity: 4,
        flags: "write denyoom",
        keys: Keys::FIRST,
        categories: "bitmap",
        run: Run::Data(single::setbit),
    },
    Command {
        name: "getbit",
        arity: 3,
        flags: "readonly fast",
        keys: Keys::FIRST,
        categories: "bitmap",
        run: Run::Data(single::getbit),
    },
    Command {
        name: "bitcount",
        arity: -2,
        flags: "readonly",
        keys: Keys::FIRST,
        categories: "bitmap",
        run: Run::Data(counting::bitcount),
    },
    Command {
        name: "bitpos",
        arity: -3,
        flags: "readonly",
        keys: Keys::FIRST,
        categories: "bitmap",
        run: Run::Data(counting::bitpos),
    },
    Command {
        name: "bitop",
        arity: -4,
        flags: "write denyoom",
        keys: Keys::Range {
            first: 2,
            last: -1,
            step: 1,
        },
        categories: "bitmap",
        run: Run::Data(combining::bitop),
    },
    Command {
        name: "bitfield",
        arity: -2,
        flags: "write denyoom",
        keys: Keys::FIRST,
        categories: "bitmap",
        run: Run::Data(fields::bitfield),
    },
    Command {
        name: "bitfield_ro",
        arity: -2,
        flags: "readonly fast",
        keys: Keys::FIRST,
        categories: "bitmap",
        run: Run::Data(fields::bitfield_ro),
    },
];

/// Number of a bit; with `#`, counted in fields of so many bits.
fn bit_offset(context: &Context<'_>, text: &[u8], field_bits: Option<u32>) -> Result<u64, Failure> {
    let refused = Failure::words("ERR bit offset is not an integer or out of range");
    let (text, factor) = match (text, field_bits) {
        ([b'#', rest @ ..], Some(bits)) => (rest, i64::from(bits)),
        _ => (text, 1),
    };
    let offset = parse_integer(text).map(|offset| offset.wrapping_mul(factor));
    match offset.and_then(|offset| u64::try_from(offset).ok()) {
        Some(offset) if context.obeys() || offset >> 3 < context.settings.proto_max_bulk_len => {
            Ok(offset)
        }
        _ => Err(refused),
    }
}

/// A string that is about to be changed, grown to `len` bytes at least.
struct Changing {
    expires_at_ms: Option<u64>,
    string: StringValue,
    was: Written,
    /// It was not there, or shorter.
    is_grown: bool,
}

impl Changing {
    fn begin(context: &mut Context<'_>, key: &[u8], len: u64) -> Result<Self, Failure> {
        let found = super::strings::lookup_string(context, key)?;
        let is_new = found.is_none();
        let (expires_at_ms, string) = found.unwrap_or_else(|| (None, StringValue::empty()));
        let mut changing = Self {
            expires_at_ms,
            was: string.written,
            is_grown: is_new || string.len() < len,
            string,
        };
        if changing.string.len() < len {
            changing.write(context, len - 1, &[0])?;
        }
        Ok(changing)
    }

    fn write(&mut self, context: &mut Context<'_>, at: u64, bytes: &[u8]) -> Outcome {
        self.string = string::write(context.keyspace, &self.string, at, bytes)?;
        Ok(())
    }

    /// Puts it. If no bit changed, nobody is told, though its encoding is raw now.
    fn finish(self, context: &mut Context<'_>, key: &[u8], is_changed: bool) -> Outcome {
        let object = Object {
            expires_at_ms: self.expires_at_ms,
            value: Value::String(StringValue {
                written: Written::Pieces,
                ..self.string
            }),
        };
        if is_changed {
            context.put(key, object)?;
        } else if self.was != Written::Pieces {
            context.keyspace.put_untold(context.db, key, object)?;
        }
        Ok(())
    }
}

fn tell_setbit(context: &mut Context<'_>, key: &[u8]) {
    context.event(EventClass::String, "setbit", key);
}
