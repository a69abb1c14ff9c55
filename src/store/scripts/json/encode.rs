//! Lua values as JSON.

use mlua::{Lua, LuaString, Table, Value};

use super::{Invalid, Options};
use crate::store::scripts::answers::entries;
use crate::store::scripts::arguments::{Arguments, fail};
use crate::store::scripts::text::{general, type_name};

/// Tables inside tables, whatever the option says: each takes some of the thread's stack.
const DEPTH_MAX: i64 = 1000;

/// The JSON of the first argument.
pub(super) fn encode(
    lua: &Lua,
    options: Options,
    given: &Arguments<'_>,
) -> mlua::Result<LuaString> {
    let mut encoding = Encoding {
        lua,
        options,
        out: Vec::new(),
    };
    encoding.value(given.get(1).unwrap_or(&Value::Nil), 0)?;
    lua.create_string(&encoding.out)
}

struct Encoding<'a> {
    lua: &'a Lua,
    options: Options,
    out: Vec<u8>,
}

impl Encoding<'_> {
    fn value(&mut self, value: &Value, depth: i64) -> mlua::Result<()> {
        match value {
            Value::String(text) => self.string(&text.as_bytes()),
            Value::Integer(number) => return self.number(*number as f64),
            Value::Number(number) => return self.number(*number),
            Value::Boolean(true) => self.out.extend_from_slice(b"true"),
            Value::Boolean(false) => self.out.extend_from_slice(b"false"),
            Value::Nil => self.out.extend_from_slice(b"null"),
            Value::LightUserData(pointer) if pointer.0.is_null() => {
                self.out.extend_from_slice(b"null");
            }
            Value::Table(table) => return self.table(table, depth + 1),
            other => return Err(self.refuse(other, "type not supported")),
        }
        Ok(())
    }

    fn refuse(&self, value: &Value, reason: &str) -> mlua::Error {
        let words = format!("Cannot serialise {}: {reason}", type_name(value));
        fail(self.lua, &words)
    }

    fn table(&mut self, table: &Table, depth: i64) -> mlua::Result<()> {
        if depth > self.options.encode_depth_max.min(DEPTH_MAX) {
            let words = format!("Cannot serialise, excessive nesting ({depth})");
            return Err(fail(self.lua, &words));
        }
        let all = entries(table)?;
        match self.array_len(table, &all)? {
            Some(len @ 1..) => self.array(table, len, depth),
            _ => self.object(&all, depth),
        }
    }

    /// How long an array it is; nothing if it is none.
    fn array_len(&self, table: &Table, all: &[(Value, Value)]) -> mlua::Result<Option<i64>> {
        let mut max = 0_i64;
        for (key, _) in all {
            let number = match key {
                Value::Integer(number) => *number as f64,
                Value::Number(number) => *number,
                _ => return Ok(None),
            };
            if number.floor() != number || number < 1.0 {
                return Ok(None);
            }
            // C's `int`.
            if number > max as f64 {
                max = i64::from(int_of(number));
            }
        }
        let items = i64::try_from(all.len()).unwrap_or(i64::MAX);
        let Options {
            sparse_ratio,
            sparse_safe,
            ..
        } = self.options;
        let is_sparse = sparse_ratio > 0
            && max > items.wrapping_mul(sparse_ratio)
            && max > sparse_safe;
        match (is_sparse, self.options.converts_sparse) {
            (false, _) => Ok(Some(max)),
            (true, true) => Ok(None),
            (true, false) => Err(self.refuse(
                &Value::Table(table.clone()),
                "excessively sparse array",
            )),
        }
    }

    fn array(&mut self, table: &Table, len: i64, depth: i64) -> mlua::Result<()> {
        self.out.push(b'[');
        for number in 1..=len {
            if number > 1 {
                self.out.push(b',');
            }
            self.value(&table.raw_get(number)?, depth)?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn object(&mut self, all: &[(Value, Value)], depth: i64) -> mlua::Result<()> {
        self.out.push(b'{');
        for (at, (key, value)) in all.iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            match key {
                Value::Integer(_) | Value::Number(_) => {
                    self.out.push(b'"');
                    self.value(key, depth)?;
                    self.out.push(b'"');
                }
                Value::String(text) => self.string(&text.as_bytes()),
                other => {
                    return Err(self.refuse(other, "table key must be a number or string"));
                }
            }
            self.out.push(b':');
            self.value(value, depth)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn number(&mut self, number: f64) -> mlua::Result<()> {
        if !number.is_finite() {
            match self.options.encodes_invalid {
                Invalid::Refused => {
                    let value = Value::Number(number);
                    return Err(self.refuse(&value, "must not be NaN or Inf"));
                }
                Invalid::Null => self.out.extend_from_slice(b"null"),
                Invalid::Told if number.is_nan() => self.out.extend_from_slice(b"nan"),
                Invalid::Told => self.out.extend_from_slice(general(number, 14).as_bytes()),
            }
            return Ok(());
        }
        let precision = usize::try_from(self.options.precision).unwrap_or(14);
        self.out
            .extend_from_slice(general(number, precision).as_bytes());
        Ok(())
    }

    fn string(&mut self, text: &[u8]) {
        self.out.push(b'"');
        for byte in text {
            let escaped: &[u8] = match byte {
                b'"' => b"\\\"",
                b'\\' => b"\\\\",
                b'/' => b"\\/",
                8 => b"\\b",
                9 => b"\\t",
                10 => b"\\n",
                12 => b"\\f",
                13 => b"\\r",
                0..32 | 127 => {
                    self.out
                        .extend_from_slice(format!("\\u{byte:04x}").as_bytes());
                    continue;
                }
                _ => std::slice::from_ref(byte),
            };
            self.out.extend_from_slice(escaped);
        }
        self.out.push(b'"');
    }
}

fn int_of(number: f64) -> i32 {
    match number <= f64::from(i32::MAX) {
        true => number as i32,
        false => i32::MIN,
    }
}
