//! Lua values as JSON.

use mlua::{Lua, LuaString, Table, Value};

use super::{Invalid, Options};
use crate::store::scripts::MADE_BYTES_MAX;
use crate::store::scripts::answers::entries;
use crate::store::scripts::arguments::{Arguments, fail};
use crate::store::scripts::text::{general, type_name};

/// Tables inside tables, whatever the option says.
const DEPTH_MAX: usize = 1_000_000;

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
    encoding.all(given.get(1).unwrap_or(&Value::Nil))?;
    lua.create_string(&encoding.out)
}

struct Encoding<'a> {
    lua: &'a Lua,
    options: Options,
    out: Vec<u8>,
}

/// A table that is being told: how deep it must not be is the option's business, so they
/// are not on the thread's stack.
enum Open {
    Array {
        table: Table,
        len: i64,
        told: i64,
    },
    Object {
        rest: std::vec::IntoIter<(Value, Value)>,
        is_first: bool,
    },
}

impl Encoding<'_> {
    fn all(&mut self, value: &Value) -> mlua::Result<()> {
        let mut open = Vec::new();
        self.begin(value, &mut open)?;
        while let Some(innermost) = open.last_mut() {
            let next = match innermost {
                Open::Array { table, len, told } if *told < *len => {
                    *told += 1;
                    if *told > 1 {
                        self.out.push(b',');
                    }
                    table.raw_get(*told)?
                }
                Open::Array { .. } => {
                    self.out.push(b']');
                    open.pop();
                    continue;
                }
                Open::Object { rest, is_first } => {
                    let Some((key, value)) = rest.next() else {
                        self.out.push(b'}');
                        open.pop();
                        continue;
                    };
                    if !std::mem::take(is_first) {
                        self.out.push(b',');
                    }
                    self.key(&key)?;
                    value
                }
            };
            self.begin(&next, &mut open)?;
        }
        Ok(())
    }

    /// A value; of a table, its beginning.
    fn begin(&mut self, value: &Value, open: &mut Vec<Open>) -> mlua::Result<()> {
        if self.out.len() > MADE_BYTES_MAX {
            return Err(fail(self.lua, "Cannot serialise, too much"));
        }
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
            Value::Table(table) => {
                let opened = self.opened(table, open.len() + 1)?;
                open.push(opened);
            }
            other => return Err(self.refuse(other, "type not supported")),
        }
        Ok(())
    }

    fn refuse(&self, value: &Value, reason: &str) -> mlua::Error {
        let words = format!("Cannot serialise {}: {reason}", type_name(value));
        fail(self.lua, &words)
    }

    fn opened(&mut self, table: &Table, depth: usize) -> mlua::Result<Open> {
        if usize::try_from(self.options.encode_depth_max).is_ok_and(|max| depth > max)
            || depth > DEPTH_MAX
        {
            let words = format!("Cannot serialise, excessive nesting ({depth})");
            return Err(fail(self.lua, &words));
        }
        let all = entries(table)?;
        let array_len = self.array_len(table, &all)?;
        self.out.push(if array_len > Some(0) { b'[' } else { b'{' });
        Ok(match array_len {
            Some(len @ 1..) => Open::Array {
                table: table.clone(),
                len,
                told: 0,
            },
            _ => Open::Object {
                rest: all.into_iter(),
                is_first: true,
            },
        })
    }

    fn key(&mut self, key: &Value) -> mlua::Result<()> {
        match key {
            Value::Integer(number) => self.quoted(*number as f64)?,
            Value::Number(number) => self.quoted(*number)?,
            Value::String(text) => self.string(&text.as_bytes()),
            other => {
                return Err(self.refuse(other, "table key must be a number or string"));
            }
        }
        self.out.push(b':');
        Ok(())
    }

    fn quoted(&mut self, number: f64) -> mlua::Result<()> {
        self.out.push(b'"');
        self.number(number)?;
        self.out.push(b'"');
        Ok(())
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
        let is_sparse =
            sparse_ratio > 0 && max > items.wrapping_mul(sparse_ratio) && max > sparse_safe;
        match (is_sparse, self.options.converts_sparse) {
            (false, _) => Ok(Some(max)),
            (true, true) => Ok(None),
            (true, false) => {
                Err(self.refuse(&Value::Table(table.clone()), "excessively sparse array"))
            }
        }
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
