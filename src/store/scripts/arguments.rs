//! What a script gave one of our functions, checked as Lua's own functions check it.

use mlua::{Lua, LuaString, MultiValue, Value};

use super::raised::Raised;
use super::text::{truncated, type_name};

/// Arguments of one call, counted from 1.
pub(super) struct Arguments<'a> {
    pub(super) lua: &'a Lua,
    values: MultiValue,
}

impl<'a> Arguments<'a> {
    pub(super) fn new(lua: &'a Lua, values: MultiValue) -> Self {
        Self { lua, values }
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn get(&self, number: usize) -> Option<&Value> {
        self.values.get(number.checked_sub(1)?)
    }

    /// One that is nil or not given.
    pub(super) fn is_none(&self, number: usize) -> bool {
        matches!(self.get(number), None | Some(Value::Nil))
    }

    /// A number, or a text that is one.
    pub(super) fn number(&self, number: usize) -> mlua::Result<f64> {
        match self.get(number) {
            Some(Value::Integer(value)) => return Ok(*value as f64),
            Some(Value::Number(value)) => return Ok(*value),
            Some(text @ Value::String(_)) => {
                if let Some(value) = self.lua.coerce_number(text.clone())? {
                    return Ok(value);
                }
            }
            _ => {}
        }
        Err(self.wrong_type(number, "number"))
    }

    pub(super) fn integer(&self, number: usize) -> mlua::Result<i64> {
        self.number(number).map(truncated)
    }

    pub(super) fn integer_or(&self, number: usize, default: i64) -> mlua::Result<i64> {
        match self.is_none(number) {
            true => Ok(default),
            false => self.integer(number),
        }
    }

    /// A text, or a number as one.
    pub(super) fn string(&self, number: usize) -> mlua::Result<LuaString> {
        let value = self.get(number).cloned().unwrap_or(Value::Nil);
        if let Value::String(text) = value {
            return Ok(text);
        }
        let is_number = matches!(value, Value::Integer(_) | Value::Number(_));
        match is_number
            .then(|| self.lua.coerce_string(value))
            .transpose()?
        {
            Some(Some(text)) => Ok(text),
            _ => Err(self.wrong_type(number, "string")),
        }
    }

    fn wrong_type(&self, number: usize, wanted: &str) -> mlua::Error {
        let got = self.get(number).map_or("no value", type_name);
        self.wrong(number, format!("{wanted} expected, got {got}"))
    }

    /// `bad argument #1 to 'name' (why)`.
    pub(super) fn wrong(&self, number: usize, why: impl AsRef<[u8]>) -> mlua::Error {
        let name = self.lua.inspect_stack(0, |frame| {
            // As the script names it.
            let name = frame.names().name;
            name.map(std::borrow::Cow::into_owned)
        });
        let name = name.flatten();
        let name = name.as_deref().unwrap_or("?");
        let before = format!("bad argument #{number} to '{name}' (");
        fail(self.lua, [before.as_bytes(), why.as_ref(), b")"].concat())
    }
}

/// Raises a text, with the place of the script that called before it.
pub(super) fn fail(lua: &Lua, words: impl AsRef<[u8]>) -> mlua::Error {
    let place = lua.inspect_stack(1, |frame| {
        let line = frame.current_line()?;
        Some(format!("{}:{line}: ", frame.source().short_src?))
    });
    let place = place.flatten().unwrap_or_default();
    Raised::Text([place.as_bytes(), words.as_ref()].concat()).into_error()
}
