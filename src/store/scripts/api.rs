//! The table `redis`, and the door through which its functions reach the host.

#![expect(
    clippy::needless_pass_by_value,
    reason = "mlua gives functions their arguments by value"
)]

use mlua::{Lua, MultiValue, Table, Value};

use super::answers::Replied;
use super::libraries;
use super::raised::{Raised, settle};
use super::text::{general, truncated};
use super::vm::{self, Host};
use crate::resp::Span;
use crate::store::commands::Args;

/// What goes through the door: a command, a question about one, a look around.
pub(super) const CALL: u8 = 0;
pub(super) const MAY_CALL: u8 = 1;
pub(super) const LOOK: u8 = 2;

const VERSION: &str = "7.0.15";
const VERSION_NUMBER: u32 = 0x0007_000f;

const NUMBERS: &[(&str, u8)] = &[
    ("LOG_DEBUG", 0),
    ("LOG_VERBOSE", 1),
    ("LOG_NOTICE", 2),
    ("LOG_WARNING", 3),
];
const REPLICATION: &[(&str, u8)] = &[
    ("REPL_NONE", 0),
    ("REPL_AOF", 1),
    ("REPL_SLAVE", 2),
    ("REPL_REPLICA", 2),
    ("REPL_ALL", 3),
];
/// Bits of all of them.
const REPLICATION_BITS: i64 = 3;

/// What `redis` is to scripts and functions that run.
pub(super) fn table(lua: &Lua, is_eval: bool) -> mlua::Result<Table> {
    let table = told(lua)?;
    for (name, value) in REPLICATION {
        table.raw_set(*name, *value)?;
    }
    table.raw_set("call", lua.create_function(call)?)?;
    table.raw_set(
        "pcall",
        lua.create_function(|lua, values| match call(lua, values) {
            Err(error) if vm::is_running(lua) => settle(lua, Value::Error(Box::new(error)), false),
            called => called,
        })?,
    )?;
    table.raw_set("error_reply", lua.create_function(error_reply)?)?;
    table.raw_set("status_reply", lua.create_function(status_reply)?)?;
    table.raw_set("sha1hex", lua.create_function(sha1hex)?)?;
    table.raw_set("setresp", lua.create_function(set_resp)?)?;
    table.raw_set("set_repl", lua.create_function(set_repl)?)?;
    table.raw_set("acl_check_cmd", lua.create_function(acl_check_cmd)?)?;
    if is_eval {
        let no = lua.create_function(|_, ()| Ok(false))?;
        table.raw_set("breakpoint", no)?;
        table.raw_set("debug", lua.create_function(|_, _: MultiValue| Ok(()))?)?;
        let yes = lua.create_function(|_, ()| Ok(true))?;
        table.raw_set("replicate_commands", yes)?;
    }
    Ok(table)
}

/// What it is while a library is loaded.
pub(super) fn library_table(lua: &Lua) -> mlua::Result<Table> {
    let table = told(lua)?;
    table.raw_set(
        "register_function",
        lua.create_function(libraries::register)?,
    )?;
    Ok(table)
}

fn told(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    for (name, value) in NUMBERS {
        table.raw_set(*name, *value)?;
    }
    table.raw_set("REDIS_VERSION", VERSION)?;
    table.raw_set("REDIS_VERSION_NUM", VERSION_NUMBER)?;
    table.raw_set("log", lua.create_function(log)?)?;
    Ok(table)
}

/// Does what a function of `redis` wishes.
pub(super) fn through_door(
    lua: &Lua,
    host: &mut dyn Host,
    wish: u8,
    values: &MultiValue,
) -> mlua::Result<Value> {
    if wish == LOOK {
        return Ok(Value::Boolean(host.look_around()));
    }
    let request = Request::of(values).map_err(Raised::into_error)?;
    if wish == MAY_CALL {
        return match host.may_call(request.args()) {
            Some(may) => Ok(Value::Boolean(may)),
            None => {
                let words = b"Invalid command passed to redis.acl_check_cmd()";
                Err(Raised::words(words).into_error())
            }
        };
    }
    match host.call(request.args(), vm::is_resp3(lua)) {
        Err(words) => Err(Raised::of_command(&words).into_error()),
        Ok(reply) => match reply.first() {
            Some(b'-') => {
                let line = reply.strip_suffix(b"\r\n").unwrap_or(&reply);
                Err(Raised::of_command(line).into_error())
            }
            _ => Replied::new(&reply).value(lua),
        },
    }
}

/// A request as a client would have sent it.
struct Request {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

impl Request {
    fn of(values: &MultiValue) -> Result<Self, Raised> {
        if values.is_empty() {
            let words = b"Please specify at least one argument for this redis lib call";
            return Err(Raised::words(words));
        }
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(format!("*{}\r\n", values.len()).as_bytes());
        let mut request = Self {
            bytes,
            spans: Vec::with_capacity(values.len()),
        };
        for value in values {
            let pushed = match value {
                Value::String(text) => request.push(&text.as_bytes()),
                Value::Integer(number) => request.push(general(*number as f64, 17).as_bytes()),
                Value::Number(number) => request.push(general(*number, 17).as_bytes()),
                _ => None,
            };
            pushed.ok_or_else(|| {
                let words = b"Lua redis lib command arguments must be strings or integers";
                Raised::words(words)
            })?;
        }
        Ok(request)
    }

    /// Nothing if it is longer than any request may be.
    fn push(&mut self, word: &[u8]) -> Option<()> {
        self.bytes
            .extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        let start = u32::try_from(self.bytes.len()).ok()?;
        self.bytes.extend_from_slice(word);
        let end = u32::try_from(self.bytes.len()).ok()?;
        self.bytes.extend_from_slice(b"\r\n");
        self.spans.push(Span { start, end });
        Some(())
    }

    fn args(&self) -> Args<'_> {
        Args::new(&self.bytes, &self.spans)
    }
}

fn call(lua: &Lua, values: MultiValue) -> mlua::Result<Value> {
    match vm::door(lua) {
        Some(door) => door.call((CALL, values)),
        None => {
            let words = b"redis.call/pcall can only be called inside a script invocation";
            Err(Raised::words(words).into_error())
        }
    }
}

fn outside(name: &str) -> mlua::Error {
    let words = format!("redis.{name} can only be called inside a script invocation");
    Raised::words(words.as_bytes()).into_error()
}

fn refused(words: &str) -> mlua::Error {
    Raised::words(words.as_bytes()).into_error()
}

fn acl_check_cmd(lua: &Lua, values: MultiValue) -> mlua::Result<Value> {
    let door = vm::door(lua).ok_or_else(|| outside("acl_check_cmd"))?;
    door.call((MAY_CALL, values))
}

fn only_string(values: &MultiValue) -> Option<&mlua::LuaString> {
    match values.iter().collect::<Vec<_>>()[..] {
        [Value::String(text)] => Some(text),
        _ => None,
    }
}

/// What is given to those that want one text, and is none.
fn wrong_arguments(lua: &Lua) -> mlua::Result<Value> {
    Raised::words(b"wrong number or type of arguments").into_value(lua)
}

fn error_reply(lua: &Lua, values: MultiValue) -> mlua::Result<Value> {
    let Some(text) = only_string(&values) else {
        return wrong_arguments(lua);
    };
    let text = text.as_bytes();
    let words = match text.first() {
        Some(b'-') => text.to_vec(),
        _ => [b"-".as_slice(), &text].concat(),
    };
    Raised::words(&words).into_value(lua)
}

fn status_reply(lua: &Lua, values: MultiValue) -> mlua::Result<Value> {
    let Some(text) = only_string(&values) else {
        return wrong_arguments(lua);
    };
    let table = lua.create_table()?;
    table.raw_set("ok", text)?;
    Ok(Value::Table(table))
}

fn sha1hex(lua: &Lua, values: MultiValue) -> mlua::Result<String> {
    if values.len() != 1 {
        return Err(refused("wrong number of arguments"));
    }
    let text = lua.coerce_string(values.into_iter().next().unwrap_or(Value::Nil))?;
    let bytes = text.map(|text| text.as_bytes().to_vec());
    Ok(super::sha1_hex(&bytes.unwrap_or_default()))
}

/// A number as Lua takes one where it wants one: 0 for what is none.
fn number(lua: &Lua, value: Option<&Value>) -> mlua::Result<Option<f64>> {
    value.map_or(Ok(None), |value| lua.coerce_number(value.clone()))
}

fn log(lua: &Lua, values: MultiValue) -> mlua::Result<()> {
    if values.len() < 2 {
        return Err(refused("redis.log() requires two arguments or more."));
    }
    let Some(level) = number(lua, values.front())? else {
        return Err(refused("First argument must be a number (log level)."));
    };
    let level = truncated(level);
    if !(0..=3).contains(&level) {
        return Err(refused("Invalid debug level."));
    }
    let mut words: Vec<String> = Vec::new();
    for value in values.iter().skip(1) {
        if let Some(text) = lua.coerce_string(value.clone())? {
            words.push(text.to_string_lossy());
        }
    }
    let line = words.join(" ");
    match level {
        0 => tracing::trace!(script = line),
        1 => tracing::debug!(script = line),
        2 => tracing::info!(script = line),
        _ => tracing::warn!(script = line),
    }
    Ok(())
}

fn set_resp(lua: &Lua, values: MultiValue) -> mlua::Result<()> {
    if !vm::is_running(lua) {
        return Err(outside("setresp"));
    }
    if values.len() != 1 {
        return Err(refused("redis.setresp() requires one argument."));
    }
    match truncated(number(lua, values.front())?.unwrap_or(0.0)) {
        2 => vm::set_resp3(lua, false),
        3 => vm::set_resp3(lua, true),
        _ => return Err(refused("RESP version must be 2 or 3.")),
    }
    Ok(())
}

/// Taken, and without effect: what is not in the log would be gone with the process.
fn set_repl(lua: &Lua, values: MultiValue) -> mlua::Result<()> {
    if !vm::is_running(lua) {
        return Err(outside("set_repl"));
    }
    if values.len() != 1 {
        return Err(refused("redis.set_repl() requires two arguments."));
    }
    let flags = truncated(number(lua, values.front())?.unwrap_or(0.0));
    match flags & !REPLICATION_BITS {
        0 => Ok(()),
        _ => Err(refused(
            "Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.",
        )),
    }
}
