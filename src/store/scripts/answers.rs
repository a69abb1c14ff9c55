//! Replies of commands as Lua values, and Lua values as replies.
//!
//! ```text
//! :7 -> 7    $x -> "x"    +OK -> {ok="OK"}    -ERR -> {err="ERR"}    *2 -> {.., ..}
//! null of RESP2 -> false, of RESP3 -> nil    ,1.5 -> {double=1.5}    %1 -> {map={..}}
//! ~2 -> {set={..}}   #t -> true   (1 -> {big_number="1"}   = -> {verbatim_string={..}}
//! ```
//! The other way round numbers lose their fraction, and nil ends an array.

use mlua::{Lua, Table, Value};

use super::MADE_BYTES_MAX;
use super::raised::{error_table, error_text};
use super::text::{general, truncated};
use crate::store::commands::Reply;

/// Tables inside tables that are told.
const DEPTH_MAX: usize = 500;

/// Of a double, as Redis writes it.
const DOUBLE_DIGITS: usize = 17;

/// A reply that a command wrote.
pub(super) struct Replied<'a> {
    bytes: &'a [u8],
}

impl<'a> Replied<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    fn line(&mut self) -> (u8, &'a [u8]) {
        let bytes = self.bytes;
        let end = bytes.windows(2).position(|two| two == b"\r\n");
        let end = end.unwrap_or(bytes.len());
        self.bytes = bytes.get(end + 2..).unwrap_or(&[]);
        match bytes.get(..end) {
            Some([kind, rest @ ..]) => (*kind, rest),
            _ => (0, &[]),
        }
    }

    fn taken(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(len.min(self.bytes.len()));
        self.bytes = rest.get(2..).unwrap_or(&[]);
        taken
    }

    /// The value of what comes next.
    pub(super) fn value(&mut self, lua: &Lua) -> mlua::Result<Value> {
        let (kind, rest) = self.line();
        let number = || std::str::from_utf8(rest).ok()?.parse::<i64>().ok();
        let count = || number().and_then(|number| usize::try_from(number).ok());
        let value = match kind {
            b':' => Value::Number(number().unwrap_or(0) as f64),
            b'$' => match count() {
                Some(len) => Value::String(lua.create_string(self.taken(len))?),
                None => Value::Boolean(false),
            },
            b'+' => one(lua, "ok", Value::String(lua.create_string(rest)?))?,
            b'-' => error_table(lua, &error_text(&[b"-", rest].concat()), true)?,
            b'*' | b'>' => match count() {
                Some(len) => Value::Table(self.array(lua, len)?),
                None => Value::Boolean(false),
            },
            b'%' => {
                let map = self.pairs(lua, count().unwrap_or(0))?;
                one(lua, "map", Value::Table(map))?
            }
            b'~' => {
                let set = lua.create_table()?;
                for _ in 0..count().unwrap_or(0) {
                    set.raw_set(self.value(lua)?, true)?;
                }
                one(lua, "set", Value::Table(set))?
            }
            b',' => {
                let text = std::str::from_utf8(rest).unwrap_or("");
                one(lua, "double", Value::Number(text.parse().unwrap_or(0.0)))?
            }
            b'#' => Value::Boolean(rest == b"t"),
            b'(' => one(lua, "big_number", Value::String(lua.create_string(rest)?))?,
            b'=' => {
                let text = self.taken(count().unwrap_or(0));
                let (format, string) = text.split_at(text.len().min(4));
                let inner = lua.create_table()?;
                inner.raw_set("string", lua.create_string(string)?)?;
                let format = format.get(..3).unwrap_or(format);
                inner.raw_set("format", lua.create_string(format)?)?;
                one(lua, "verbatim_string", Value::Table(inner))?
            }
            _ => Value::Nil,
        };
        Ok(value)
    }

    fn array(&mut self, lua: &Lua, len: usize) -> mlua::Result<Table> {
        let table = lua.create_table()?;
        for number in 1..=len {
            table.raw_set(number, self.value(lua)?)?;
        }
        Ok(table)
    }

    fn pairs(&mut self, lua: &Lua, len: usize) -> mlua::Result<Table> {
        let table = lua.create_table()?;
        for _ in 0..len {
            let key = self.value(lua)?;
            table.raw_set(key, self.value(lua)?)?;
        }
        Ok(table)
    }
}

fn one(lua: &Lua, name: &str, value: Value) -> mlua::Result<Value> {
    let table = lua.create_table()?;
    table.raw_set(name, value)?;
    Ok(Value::Table(table))
}

/// Writes what a script returned. `has_resp3` is the script's protocol, not the client's.
pub(super) fn write(value: &Value, reply: &mut Reply, has_resp3: bool) -> mlua::Result<()> {
    Writing { reply, has_resp3 }.value(value, 0)
}

struct Writing<'a> {
    reply: &'a mut Reply,
    has_resp3: bool,
}

impl Writing<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> mlua::Result<()> {
        if self.reply.len() > MADE_BYTES_MAX {
            let words = format!("the script's reply has more than {MADE_BYTES_MAX} bytes");
            return Err(mlua::Error::RuntimeError(words));
        }
        match value {
            Value::String(text) => self.reply.bulk(&text.as_bytes()),
            Value::Boolean(value) => match (self.has_resp3, value) {
                (true, value) => self.reply.boolean(*value),
                (false, true) => self.reply.integer(1),
                (false, false) => self.reply.null(),
            },
            Value::Integer(number) => self.reply.integer(*number),
            Value::Number(number) => self.reply.integer(truncated(*number)),
            Value::Table(_) if depth >= DEPTH_MAX => {
                self.reply.error("ERR reached lua stack limit");
            }
            Value::Table(table) => return self.table(table, depth),
            _ => self.reply.null(),
        }
        Ok(())
    }

    fn table(&mut self, table: &Table, depth: usize) -> mlua::Result<()> {
        if let Value::String(err) = table.raw_get("err")? {
            let words = told(&err.as_bytes());
            self.reply.error_bytes(&words);
            return Ok(());
        }
        if let Value::String(ok) = table.raw_get("ok")? {
            self.line(b'+', &up_to_zero(&ok.as_bytes()));
            return Ok(());
        }
        if let Some(double) = number(&table.raw_get("double")?) {
            self.double(double);
            return Ok(());
        }
        if let Value::String(digits) = table.raw_get("big_number")? {
            match self.reply.is_resp3() {
                true => self.line(b'(', &digits.as_bytes()),
                false => {
                    let digits = one_line(&digits.as_bytes());
                    self.reply.bulk(&digits);
                }
            }
            return Ok(());
        }
        if let Value::Table(inner) = table.raw_get("verbatim_string")?
            && let Value::String(format) = inner.raw_get("format")?
            && let Value::String(text) = inner.raw_get("string")?
        {
            self.verbatim(&format.as_bytes(), &text.as_bytes());
            return Ok(());
        }
        if let Value::Table(map) = table.raw_get("map")? {
            let pairs = entries(&map)?;
            self.reply.map(pairs.len());
            for (key, value) in &pairs {
                self.value(key, depth + 1)?;
                self.value(value, depth + 1)?;
            }
            return Ok(());
        }
        if let Value::Table(set) = table.raw_get("set")? {
            let members = entries(&set)?;
            self.reply.set(members.len());
            for (member, _) in &members {
                self.value(member, depth + 1)?;
            }
            return Ok(());
        }
        let mut len = 0_usize;
        while !table.raw_get::<Value>(len + 1)?.is_nil() {
            len += 1;
        }
        self.reply.array(len);
        for number in 1..=len {
            self.value(&table.raw_get(number)?, depth + 1)?;
        }
        Ok(())
    }

    fn double(&mut self, number: f64) {
        if !number.is_nan() {
            return self.reply.double(number);
        }
        // Commands never tell of one; scripts may.
        let text = general(number, DOUBLE_DIGITS);
        match self.reply.is_resp3() {
            true => self.line(b',', text.as_bytes()),
            false => self.reply.bulk(text.as_bytes()),
        }
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        let out = self.reply.raw();
        out.push(kind);
        out.extend(one_line(text));
        out.extend_from_slice(b"\r\n");
    }

    fn verbatim(&mut self, format: &[u8], text: &[u8]) {
        if !self.reply.is_resp3() {
            return self.reply.bulk(text);
        }
        let mut three = *b"   ";
        for (to, from) in three.iter_mut().zip(up_to_zero(format)) {
            *to = from;
        }
        let out = self.reply.raw();
        out.extend_from_slice(format!("={}\r\n", text.len() + 4).as_bytes());
        out.extend_from_slice(&three);
        out.push(b':');
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Number(number) => Some(*number),
        _ => None,
    }
}

/// All of a table, in the order of `next`.
pub(super) fn entries(table: &Table) -> mlua::Result<Vec<(Value, Value)>> {
    table.pairs::<Value, Value>().collect()
}

fn up_to_zero(text: &[u8]) -> Vec<u8> {
    crate::store::commands::failure::up_to_zero(text).to_vec()
}

fn one_line(text: &[u8]) -> Vec<u8> {
    let shown = text.iter().map(|byte| match byte {
        b'\r' | b'\n' => b' ',
        byte => *byte,
    });
    shown.collect()
}

/// Words of an error as they are sent: without ends of lines around them.
pub(super) fn told(err: &[u8]) -> Vec<u8> {
    let words = up_to_zero(err);
    let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let from = words.iter().take_while(|byte| is_end(byte)).count();
    let words = words.get(from..).unwrap_or(&[]);
    let behind = words.iter().rev().take_while(|byte| is_end(byte)).count();
    words.get(..words.len() - behind).unwrap_or(&[]).to_vec()
}
