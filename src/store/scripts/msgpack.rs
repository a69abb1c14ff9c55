//! `cmsgpack` 0.4.0: Lua values as MessagePack, and back.

use mlua::{Lua, LuaString, MultiValue, Table, Value};

use super::MADE_BYTES_MAX;
use super::answers::entries;
use super::arguments::{Arguments, fail};
use super::raised::Raised;

/// Tables inside tables; deeper ones are told as nil.
const NESTING_MAX: usize = 16;
/// Arrays and maps inside each other that are read.
const DECODED_NESTING_MAX: usize = 200;

const TOO_MUCH: &[u8] = b"Too much for MessagePack pack.";
const MISSING: &str = "Missing bytes in input.";
const BAD: &str = "Bad data format in input.";

/// The library.
pub(super) fn table(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("pack", lua.create_function(pack)?)?;
    table.raw_set(
        "unpack",
        lua.create_function(|lua, values: MultiValue| {
            let given = Arguments::new(lua, values);
            unpack(&given, 0, 0)
        })?,
    )?;
    table.raw_set(
        "unpack_one",
        lua.create_function(|lua, values: MultiValue| {
            let given = Arguments::new(lua, values);
            let offset = given.integer_or(2, 0)?;
            unpack(&given, 1, offset)
        })?,
    )?;
    table.raw_set(
        "unpack_limit",
        lua.create_function(|lua, values: MultiValue| {
            let given = Arguments::new(lua, values);
            let limit = given.integer(2)?;
            let offset = given.integer_or(3, 0)?;
            unpack(&given, limit, offset)
        })?,
    )?;
    table.raw_set("_NAME", "cmsgpack")?;
    table.raw_set("_VERSION", "lua-cmsgpack 0.4.0")?;
    table.raw_set("_COPYRIGHT", "Copyright (C) 2012, Salvatore Sanfilippo")?;
    table.raw_set("_DESCRIPTION", "MessagePack C implementation for Lua")?;
    Ok(table)
}

fn pack(lua: &Lua, values: MultiValue) -> mlua::Result<LuaString> {
    if values.is_empty() {
        let given = Arguments::new(lua, values);
        return Err(given.wrong(0, "MessagePack pack needs input."));
    }
    let mut out = Vec::new();
    for value in &values {
        push(&mut out, value, 0)?;
    }
    lua.create_string(out)
}

fn push(out: &mut Vec<u8>, value: &Value, level: usize) -> mlua::Result<()> {
    if out.len() > MADE_BYTES_MAX {
        return Err(Raised::Text(TOO_MUCH.to_vec()).into_error());
    }
    match value {
        Value::String(text) => push_string(out, &text.as_bytes()),
        Value::Boolean(value) => out.push(if *value { 0xc3 } else { 0xc2 }),
        Value::Integer(number) => push_number(out, *number as f64),
        Value::Number(number) => push_number(out, *number),
        Value::Table(table) if level < NESTING_MAX => {
            let all = entries(table)?;
            if is_array(&all) {
                let len = table.raw_len();
                push_head(out, len, (0x90, 15), (0xdc, 0xdd));
                for number in 1..=len {
                    push(out, &table.get(number)?, level + 1)?;
                }
            } else {
                push_head(out, all.len(), (0x80, 15), (0xde, 0xdf));
                for (key, value) in &all {
                    push(out, key, level + 1)?;
                    push(out, value, level + 1)?;
                }
            }
        }
        _ => out.push(0xc0),
    }
    Ok(())
}

fn is_array(all: &[(Value, Value)]) -> bool {
    let mut max = 0;
    for (key, _) in all {
        let Value::Integer(number @ 1..) = key else {
            return false;
        };
        // C's `int`.
        let Ok(number) = i32::try_from(*number) else {
            return false;
        };
        max = max.max(number);
    }
    usize::try_from(max) == Ok(all.len())
}

fn push_head(out: &mut Vec<u8>, len: usize, (fixed, max): (u8, usize), (two, four): (u8, u8)) {
    if len <= max {
        out.push(fixed | len as u8);
    } else if let Ok(len) = u16::try_from(len) {
        out.push(two);
        out.extend_from_slice(&len.to_be_bytes());
    } else {
        out.push(four);
        out.extend_from_slice(&(len as u32).to_be_bytes());
    }
}

fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    match text.len() {
        len @ 32..=0xff => out.extend_from_slice(&[0xd9, len as u8]),
        len => push_head(out, len, (0xa0, 31), (0xda, 0xdb)),
    }
    out.extend_from_slice(text);
}

fn push_number(out: &mut Vec<u8>, number: f64) {
    let whole = super::text::truncated(number);
    if whole as f64 == number {
        return push_integer(out, whole);
    }
    let single = number as f32;
    if f64::from(single) == number {
        out.push(0xca);
        out.extend_from_slice(&single.to_be_bytes());
    } else {
        out.push(0xcb);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn push_integer(out: &mut Vec<u8>, number: i64) {
    let bytes = number.to_be_bytes();
    let (head, len) = match number {
        0..=127 => (None, 1),
        128..=0xff => (Some(0xcc), 1),
        0x100..=0xffff => (Some(0xcd), 2),
        0x1_0000..=0xffff_ffff => (Some(0xce), 4),
        0x1_0000_0000.. => (Some(0xcf), 8),
        -32..=-1 => (None, 1),
        -128..=-33 => (Some(0xd0), 1),
        -32_768..=-129 => (Some(0xd1), 2),
        -2_147_483_648..=-32_769 => (Some(0xd2), 4),
        _ => (Some(0xd3), 8),
    };
    out.extend(head);
    out.extend_from_slice(&bytes[8 - len..]);
}

fn unpack(given: &Arguments<'_>, limit: i64, offset: i64) -> mlua::Result<MultiValue> {
    let lua = given.lua;
    let text = given.string(1)?;
    let text = text.as_bytes();
    if offset < 0 || limit < 0 {
        let words = format!(
            "Invalid request to unpack with offset of {} and limit of {}.",
            offset as i32,
            text.len()
        );
        return Err(fail(lua, &words));
    }
    let Some(rest) = usize::try_from(offset).ok().and_then(|at| text.get(at..)) else {
        let words = format!(
            "Start offset {} greater than input length {}.",
            offset as i32,
            text.len()
        );
        return Err(fail(lua, &words));
    };
    let is_all = limit == 0 && offset == 0;
    let limit = if is_all { i64::from(i32::MAX) } else { limit };
    let mut cursor = Cursor {
        lua,
        rest,
        depth: 0,
    };
    let mut values = MultiValue::new();
    while !cursor.rest.is_empty() && (values.len() as i64) < limit {
        let value = cursor.value()?;
        values.push_back(value);
    }
    if !is_all {
        let next = match cursor.rest.len() {
            0 => -1,
            left => (text.len() - left) as i64,
        };
        values.push_front(Value::Integer(next));
    }
    Ok(values)
}

struct Cursor<'a> {
    lua: &'a Lua,
    rest: &'a [u8],
    depth: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> mlua::Result<&'a [u8]> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(fail(self.lua, MISSING));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> mlua::Result<[u8; N]> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| fail(self.lua, MISSING))
    }

    fn len<const N: usize>(&mut self) -> mlua::Result<usize> {
        let bytes = self.fixed::<N>()?;
        Ok(bytes
            .iter()
            .fold(0, |len, byte| len << 8 | usize::from(*byte)))
    }

    fn string(&mut self, len: usize) -> mlua::Result<Value> {
        let text = self.take(len)?;
        self.lua.create_string(text).map(Value::String)
    }

    fn value(&mut self) -> mlua::Result<Value> {
        let [head] = self.fixed()?;
        let value = match head {
            0x00..=0x7f => f64::from(head),
            0xe0..=0xff => f64::from(head.cast_signed()),
            0xcc => f64::from(u8::from_be_bytes(self.fixed()?)),
            0xcd => f64::from(u16::from_be_bytes(self.fixed()?)),
            0xce => f64::from(u32::from_be_bytes(self.fixed()?)),
            // As Lua 5.1 pushes what is unsigned: by way of a signed integer.
            0xcf => u64::from_be_bytes(self.fixed()?).cast_signed() as f64,
            0xd0 => f64::from(i8::from_be_bytes(self.fixed()?)),
            0xd1 => f64::from(i16::from_be_bytes(self.fixed()?)),
            0xd2 => f64::from(i32::from_be_bytes(self.fixed()?)),
            0xd3 => i64::from_be_bytes(self.fixed()?) as f64,
            0xca => f64::from(f32::from_be_bytes(self.fixed()?)),
            0xcb => f64::from_be_bytes(self.fixed()?),
            other => return self.other(other),
        };
        Ok(Value::Number(value))
    }

    fn other(&mut self, head: u8) -> mlua::Result<Value> {
        match head {
            0xc0 => Ok(Value::Nil),
            0xc2 => Ok(Value::Boolean(false)),
            0xc3 => Ok(Value::Boolean(true)),
            0xa0..=0xbf => self.string(usize::from(head & 0x1f)),
            0xd9 => {
                let len = self.len::<1>()?;
                self.string(len)
            }
            0xda => {
                let len = self.len::<2>()?;
                self.string(len)
            }
            0xdb => {
                let len = self.len::<4>()?;
                self.string(len)
            }
            _ => self.collection(head),
        }
    }

    fn collection(&mut self, head: u8) -> mlua::Result<Value> {
        let (is_map, len) = match head {
            0x90..=0x9f => (false, usize::from(head & 0xf)),
            0x80..=0x8f => (true, usize::from(head & 0xf)),
            0xdc => (false, self.len::<2>()?),
            0xdd => (false, self.len::<4>()?),
            0xde => (true, self.len::<2>()?),
            0xdf => (true, self.len::<4>()?),
            _ => return Err(fail(self.lua, BAD)),
        };
        if self.depth >= DECODED_NESTING_MAX {
            return Err(fail(self.lua, BAD));
        }
        self.depth += 1;
        let table = self.lua.create_table()?;
        for number in 1..=len {
            match is_map {
                true => {
                    let key = self.value()?;
                    table.raw_set(key, self.value()?)?;
                }
                false => table.raw_set(number, self.value()?)?,
            }
        }
        self.depth -= 1;
        Ok(Value::Table(table))
    }
}
