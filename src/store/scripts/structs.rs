//! `struct` 0.2: numbers and texts as bytes, by a format.

use mlua::{Lua, LuaString, MultiValue, Table, Value};

use super::arguments::{Arguments, fail};
use super::text::truncated;

/// Widest integer, in bytes.
const INTEGER_BYTES_MAX: usize = 32;
/// `!` alone.
const ALIGN_DEFAULT: usize = 8;

/// The library.
pub(super) fn table(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("pack", lua.create_function(pack)?)?;
    table.raw_set("unpack", lua.create_function(unpack)?)?;
    table.raw_set("size", lua.create_function(size)?)?;
    Ok(table)
}

/// A format that is read from its beginning.
struct Format<'a> {
    lua: &'a Lua,
    rest: &'a [u8],
    is_big: bool,
    align: usize,
}

impl<'a> Format<'a> {
    fn new(lua: &'a Lua, text: &'a [u8]) -> Self {
        Self {
            lua,
            rest: crate::store::commands::failure::up_to_zero(text),
            is_big: false,
            align: 1,
        }
    }

    /// The next option, and how many bytes it takes.
    fn next(&mut self) -> mlua::Result<Option<(u8, usize)>> {
        let Some((option, rest)) = self.rest.split_first() else {
            return Ok(None);
        };
        self.rest = rest;
        let size = match option {
            b'B' | b'b' | b'x' => 1,
            b'H' | b'h' => 2,
            b'L' | b'l' | b'T' | b'd' => 8,
            b'f' => 4,
            b'c' => self.number(1)?,
            b'i' | b'I' => {
                let size = self.number(4)?;
                if size > INTEGER_BYTES_MAX {
                    let words =
                        format!("integral size {size} is larger than limit of {INTEGER_BYTES_MAX}");
                    return Err(fail(self.lua, &words));
                }
                size
            }
            _ => 0,
        };
        Ok(Some((*option, size)))
    }

    fn number(&mut self, default: usize) -> mlua::Result<usize> {
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit());
        let count = digits.count();
        if count == 0 {
            return Ok(default);
        }
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        let text = std::str::from_utf8(digits).unwrap_or("");
        match text.parse::<i32>().map(usize::try_from) {
            Ok(Ok(number)) => Ok(number),
            _ => Err(fail(self.lua, "integral size overflow")),
        }
    }

    /// Bytes to the next place where so many bytes may stand.
    fn padding(&self, at: usize, option: u8, size: usize) -> usize {
        if size == 0 || option == b'c' {
            return 0;
        }
        let size = size.min(self.align);
        size.wrapping_sub(at & (size - 1)) & (size - 1)
    }

    /// An option that stands for no value.
    fn control(&mut self, given: &Arguments<'_>, option: u8) -> mlua::Result<()> {
        match option {
            b' ' => {}
            b'>' => self.is_big = true,
            b'<' => self.is_big = false,
            b'!' => {
                let align = self.number(ALIGN_DEFAULT)?;
                if !align.is_power_of_two() {
                    let words = format!("alignment {align} is not a power of 2");
                    return Err(fail(self.lua, &words));
                }
                self.align = align;
            }
            other => {
                let why = [b"invalid format option '", &[other][..], b"'"].concat();
                return Err(given.wrong(1, why));
            }
        }
        Ok(())
    }

    fn ordered<const N: usize>(&self, mut little: [u8; N]) -> [u8; N] {
        if self.is_big {
            little.reverse();
        }
        little
    }
}

fn pack(lua: &Lua, mut values: MultiValue) -> mlua::Result<LuaString> {
    // What the library marks the end of its arguments with: one too few is nil, not missing.
    values.push_back(Value::Nil);
    let given = Arguments::new(lua, values);
    let text = given.string(1)?;
    let text = text.as_bytes();
    let mut format = Format::new(lua, &text);
    let mut out: Vec<u8> = Vec::new();
    let mut next = 2;
    while let Some((option, size)) = format.next()? {
        let padding = format.padding(out.len(), option, size);
        out.resize(out.len() + padding, 0);
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let value = integer(given.number(next)?);
                next += 1;
                let mut bytes = [0; INTEGER_BYTES_MAX];
                bytes[..8].copy_from_slice(&value.to_le_bytes());
                let bytes = &mut bytes[..size];
                if format.is_big {
                    bytes.reverse();
                }
                out.extend_from_slice(bytes);
            }
            b'x' => out.push(0),
            b'f' => {
                let value = given.number(next)? as f32;
                next += 1;
                out.extend_from_slice(&format.ordered(value.to_le_bytes()));
            }
            b'd' => {
                let value = given.number(next)?;
                next += 1;
                out.extend_from_slice(&format.ordered(value.to_le_bytes()));
            }
            b'c' | b's' => {
                let string = given.string(next)?;
                next += 1;
                let string = string.as_bytes();
                let len = if size == 0 { string.len() } else { size };
                let Some(kept) = string.get(..len) else {
                    return Err(given.wrong(next, "string too short"));
                };
                out.extend_from_slice(kept);
                if option == b's' {
                    out.push(0);
                }
            }
            other => format.control(&given, other)?,
        }
    }
    lua.create_string(out)
}

/// C's casts: what is negative by way of a signed integer.
fn integer(number: f64) -> u64 {
    const SIGNED_MAX: f64 = 9_223_372_036_854_775_808.0;
    match number >= SIGNED_MAX {
        false => truncated(number).cast_unsigned(),
        true => (truncated(number - SIGNED_MAX).cast_unsigned()) ^ (1 << 63),
    }
}

fn unpack(lua: &Lua, values: MultiValue) -> mlua::Result<MultiValue> {
    let given = Arguments::new(lua, values);
    let (text, data) = (given.string(1)?, given.string(2)?);
    let (text, data) = (text.as_bytes(), data.as_bytes());
    let at = given.integer_or(3, 1)?;
    // An unsigned number in C: a negative one is a large one.
    let mut at = match at {
        0 => return Err(given.wrong(3, "offset must be 1 or greater")),
        at => usize::try_from(at.cast_unsigned() - 1).unwrap_or(usize::MAX),
    };
    let mut format = Format::new(lua, &text);
    let mut found: Vec<Value> = Vec::new();
    let short = || given.wrong(2, "data string too short");
    while let Some((option, size)) = format.next()? {
        at = at.wrapping_add(format.padding(at, option, size));
        let bytes = at.checked_add(size).and_then(|end| data.get(at..end));
        let bytes = bytes.ok_or_else(short)?;
        let mut taken = size;
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let value = read(bytes, format.is_big, option.is_ascii_lowercase());
                found.push(Value::Number(value));
            }
            b'x' => {}
            b'f' => {
                let bytes: [u8; 4] = bytes.try_into().map_err(|_| short())?;
                let value = f32::from_le_bytes(format.ordered(bytes));
                found.push(Value::Number(value.into()));
            }
            b'd' => {
                let bytes: [u8; 8] = bytes.try_into().map_err(|_| short())?;
                found.push(Value::Number(f64::from_le_bytes(format.ordered(bytes))));
            }
            b'c' => {
                if size == 0 {
                    let Some(Value::Number(len)) = found.pop() else {
                        return Err(fail(lua, "format 'c0' needs a previous size"));
                    };
                    taken = usize::try_from(truncated(len)).map_err(|_| short())?;
                }
                let end = at.checked_add(taken);
                let bytes = end.and_then(|end| data.get(at..end)).ok_or_else(short)?;
                found.push(Value::String(lua.create_string(bytes)?));
            }
            b's' => {
                let rest = data.get(at..).unwrap_or(&[]);
                let Some(len) = rest.iter().position(|byte| *byte == 0) else {
                    return Err(fail(lua, "unfinished string in data"));
                };
                found.push(Value::String(lua.create_string(&rest[..len])?));
                taken = len + 1;
            }
            other => format.control(&given, other)?,
        }
        at = at.wrapping_add(taken);
    }
    found.push(Value::Number(at.wrapping_add(1) as f64));
    Ok(found.into_iter().collect())
}

fn read(bytes: &[u8], is_big: bool, is_signed: bool) -> f64 {
    let join = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    let value = match is_big {
        true => bytes.iter().fold(0, join),
        false => bytes.iter().rev().fold(0, join),
    };
    if !is_signed {
        return value as f64;
    }
    // Processors shift by the count modulo the width.
    let bits = u32::try_from(bytes.len())
        .unwrap_or(u32::MAX)
        .wrapping_mul(8);
    let mask = u64::MAX.wrapping_shl(bits.wrapping_sub(1));
    let value = match value & mask {
        0 => value,
        _ => value | mask,
    };
    value.cast_signed() as f64
}

fn size(lua: &Lua, values: MultiValue) -> mlua::Result<f64> {
    let given = Arguments::new(lua, values);
    let text = given.string(1)?;
    let text = text.as_bytes();
    let mut format = Format::new(lua, &text);
    let mut at = 0;
    while let Some((option, size)) = format.next()? {
        at += format.padding(at, option, size);
        match (option, size) {
            (b's', _) => return Err(given.wrong(1, "option 's' has no fixed size")),
            (b'c', 0) => return Err(given.wrong(1, "option 'c0' has no fixed size")),
            (option, _) if !option.is_ascii_alphanumeric() => format.control(&given, option)?,
            _ => {}
        }
        at += size;
    }
    Ok(at as f64)
}
