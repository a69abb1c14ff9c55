//! One interpreter.
//!
//! ```text
//! Vm::new --> compile --> run: keys and arguments in, reply out
//!                          |-- each INSTRUCTIONS: patience over? the host looks around
//!                          '-- redis.call .. --> door --> Host
//! ```
//! Invariants: the door is open only inside [`Vm::run`]. What ends a script from outside
//! cannot be caught by it.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use mlua::{Function, HookTriggers, Lua, LuaOptions, MultiValue, StdLib, Table, Value, VmState};

use super::dice::Dice;
use super::raised::{Raised, error_text, settle};
use super::text::value_text;
use super::{answers, api, bits, json, msgpack, structs};
use crate::store::commands::{Args, Reply};

/// A script may hold so much, with all others that were compiled.
pub const LUA_BYTES_MAX: usize = 256 << 20;
/// So many instructions are run before it is looked at the time.
const INSTRUCTIONS: u32 = 100_000;
/// When a script is to end it is told at every step, so that no handler keeps it alive.
const INSTRUCTIONS_AT_END: u32 = 1;
/// Name of the chunk that makes the globals.
const SANDBOX: &str = "=sandbox";
/// Frames that are looked at to find a script's line.
const FRAMES_MAX: usize = 16;

/// Who runs commands for a script.
pub trait Host {
    /// Runs a command. Its reply, in the protocol asked for.
    ///
    /// # Errors
    /// Words of a refusal, with `-` and a code or without.
    fn call(&mut self, args: Args<'_>, is_resp3: bool) -> Result<Vec<u8>, Vec<u8>>;
    /// Whether the user may run a command; nothing for one that there is not.
    fn may_call(&mut self, args: Args<'_>) -> Option<bool>;
    /// The script has run for longer than its patience. True ends it.
    fn look_around(&mut self) -> bool;
}

/// Why there is no interpreter.
#[derive(Debug, thiserror::Error)]
#[error("the Lua interpreter cannot be set up: {0}")]
pub struct VmError(#[from] mlua::Error);

/// How a script failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Code and words.
    pub words: Vec<u8>,
    /// Where: chunk and line.
    pub place: Option<(String, String)>,
    /// A command's failure that statistics know of.
    pub is_counted: bool,
}

/// How a script ended: its reply is written, or it failed.
pub type Ran = Result<(), Failed>;

/// What a script is run with.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// KEYS.
    pub keys: &'a [&'a [u8]],
    /// ARGV.
    pub arguments: &'a [&'a [u8]],
    /// They are globals, as EVAL has them; functions take them as arguments.
    pub are_global: bool,
    /// So long it runs before the host looks around; none: it never does.
    pub patience: Option<Duration>,
}

/// What runs now.
struct Running {
    door: Option<Function>,
    since: Instant,
    patience: Option<Duration>,
    is_resp3: bool,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Vm {
    lua: Lua,
    /// Their shield is what scripts see.
    shield: Table,
    globals: Table,
    library: Function,
    bound: Function,
    xpcall: Function,
    handler: Function,
    compile: Function,
}

/// Whether a script runs, so that it may call commands.
pub(super) fn is_running(lua: &Lua) -> bool {
    let running = lua.app_data_ref::<Running>();
    running.is_some_and(|running| running.door.is_some())
}

/// The way to the host, if a script runs.
pub(super) fn door(lua: &Lua) -> Option<Function> {
    lua.app_data_ref::<Running>()?.door.clone()
}

pub(super) fn set_resp3(lua: &Lua, is_resp3: bool) {
    if let Some(mut running) = lua.app_data_mut::<Running>() {
        running.is_resp3 = is_resp3;
    }
}

pub(super) fn is_resp3(lua: &Lua) -> bool {
    lua.app_data_ref::<Running>()
        .is_some_and(|running| running.is_resp3)
}

impl Vm {
    /// With the globals of EVAL (`is_eval`) or those of functions.
    ///
    /// # Errors
    /// [`VmError`].
    pub fn new(dice: &Dice, is_eval: bool) -> Result<Self, VmError> {
        let libs = StdLib::TABLE | StdLib::STRING | StdLib::MATH;
        let lua = Lua::new_with(libs, LuaOptions::default())?;
        let real = lua.globals();
        dice.install(&lua, &real.raw_get::<Table>("math")?)?;
        real.raw_set("redis", api::table(&lua, is_eval)?)?;
        real.raw_set("cjson", json::table(&lua)?)?;
        real.raw_set("cmsgpack", msgpack::table(&lua)?)?;
        real.raw_set("struct", structs::table(&lua)?)?;
        real.raw_set("bit", bits::table(&lua)?)?;
        let raw_compile: Function = real.raw_get("loadstring")?;
        let compile = lua.create_function(move |lua, given: (mlua::LuaString, Value)| {
            compiled(lua, &raw_compile, given)
        })?;
        let settles = lua.create_function(|lua, (raised, is_flat): (Value, bool)| {
            settle(lua, raised, is_flat)
        })?;
        let handler = lua.create_function(|lua, raised: Value| placed(lua, raised))?;
        let error_handler = is_eval.then(|| handler.clone());
        let sandbox = lua.load(include_str!("sandbox.lua")).set_name(SANDBOX);
        let (shield, globals, library, bound): (Table, Table, Function, Function) =
            sandbox.call((real.clone(), settles, compile.clone(), error_handler))?;
        let xpcall: Function = real.raw_get("xpcall")?;
        lua.set_globals(shield.clone())?;
        lua.set_memory_limit(LUA_BYTES_MAX)?;
        let vm = Self {
            lua,
            shield,
            globals,
            library,
            bound,
            xpcall,
            handler,
            compile,
        };
        vm.set_hook(INSTRUCTIONS)?;
        Ok(vm)
    }

    fn set_hook(&self, instructions: u32) -> mlua::Result<()> {
        let triggers = HookTriggers::new().every_nth_instruction(instructions);
        self.lua.set_global_hook(triggers, |lua, _| watch(lua))
    }

    /// Bytes that it takes.
    pub fn used_bytes(&self) -> usize {
        self.lua.used_memory()
    }

    pub(super) fn lua(&self) -> &Lua {
        &self.lua
    }

    /// Compiles a text; `chunk` is what errors call it.
    ///
    /// # Errors
    /// Lua's words.
    pub fn compile(&self, text: &[u8], chunk: &str) -> Result<Function, Vec<u8>> {
        let made = self
            .lua
            .create_string(text)
            .and_then(|text| self.compile.call::<(Value, Value)>((text, chunk)));
        match made {
            Ok((Value::Function(function), _)) => Ok(function),
            Ok((_, words)) => Err(value_text(&words)),
            Err(error) => Err(error.to_string().into_bytes()),
        }
    }

    /// Runs a script; its reply is written in the protocol of `reply`.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn run(
        &mut self,
        host: &mut dyn Host,
        script: &Function,
        given: Given<'_>,
        reply: &mut Reply,
    ) -> Ran {
        let host = RefCell::new(host);
        let lua = &self.lua;
        let ran = lua.scope(|scope| {
            let door = scope.create_function(|lua, (wish, values): (u8, MultiValue)| {
                let mut host = host
                    .try_borrow_mut()
                    .map_err(|_| mlua::Error::RecursiveMutCallback)?;
                api::through_door(lua, &mut **host, wish, &values)
            })?;
            let called = self.bind(script, given)?;
            lua.set_app_data(Running {
                door: Some(door),
                since: Instant::now(),
                patience: given.patience,
                is_resp3: false,
            });
            let ended = self.xpcall.call::<MultiValue>((called, &self.handler));
            Ok(self.end(ended?, reply))
        });
        lua.remove_app_data::<Running>();
        // A script may have stopped it.
        lua.gc_restart();
        ran.unwrap_or_else(|error| Err(self.broken(&error.to_string())))
    }

    fn bind(&self, script: &Function, given: Given<'_>) -> mlua::Result<Function> {
        let list = |values: &[&[u8]]| {
            let table = self.lua.create_table()?;
            for (number, value) in values.iter().enumerate() {
                table.raw_set(number + 1, self.lua.create_string(value)?)?;
            }
            Ok::<_, mlua::Error>(table)
        };
        let (keys, arguments) = (list(given.keys)?, list(given.arguments)?);
        if given.are_global {
            self.globals.raw_set("KEYS", keys)?;
            self.globals.raw_set("ARGV", arguments)?;
            return Ok(script.clone());
        }
        self.bound.call((script, keys, arguments))
    }

    fn end(&self, ended: MultiValue, reply: &mut Reply) -> Ran {
        let mut ended = ended.into_iter();
        let is_good = ended.next() == Some(Value::Boolean(true));
        let value = ended.next().unwrap_or(Value::Nil);
        if is_good {
            let before = reply.len();
            return answers::write(&value, reply, is_resp3(&self.lua)).map_err(|error| {
                reply.truncate(before);
                self.broken(&error.to_string())
            });
        }
        self.restore();
        Err(failure(&value))
    }

    fn broken(&self, words: &str) -> Failed {
        self.restore();
        Failed {
            words: error_text(words.as_bytes()),
            place: None,
            is_counted: false,
        }
    }

    /// A script that was ended by force left the hook at every step.
    fn restore(&self) {
        if let Err(error) = self.set_hook(INSTRUCTIONS) {
            tracing::error!(%error, "scripts are not watched any more");
        }
    }

    /// Runs a library's text, which registers its functions; `patience` bounds it.
    ///
    /// # Errors
    /// Words.
    pub(super) fn run_library(
        &self,
        code: &Function,
        patience: Option<Duration>,
    ) -> Result<(), Vec<u8>> {
        let loading = api::library_table(&self.lua)
            .and_then(|table| self.library.call::<Table>(table))
            .map_err(|error| error.to_string().into_bytes())?;
        self.look_in(&loading);
        self.lua.set_app_data(Running {
            door: None,
            since: Instant::now(),
            patience,
            is_resp3: false,
        });
        let ended = self.xpcall.call::<MultiValue>((code, &self.handler));
        self.lua.remove_app_data::<Running>();
        self.look_in(&self.globals);
        let mut ended = ended
            .map_err(|error| error.to_string().into_bytes())?
            .into_iter();
        if ended.next() == Some(Value::Boolean(true)) {
            return Ok(());
        }
        self.restore();
        Err(failure(&ended.next().unwrap_or(Value::Nil)).words)
    }

    /// Where the shield looks for what scripts name.
    fn look_in(&self, globals: &Table) {
        if let Some(metatable) = self.shield.metatable()
            && let Err(error) = metatable.raw_set("__index", globals)
        {
            tracing::error!(%error, "the globals of functions cannot be set");
        }
    }
}

/// Called each so many instructions.
fn watch(lua: &Lua) -> mlua::Result<VmState> {
    let door = {
        let Some(running) = lua.app_data_ref::<Running>() else {
            return Ok(VmState::Continue);
        };
        let is_over = |patience| running.since.elapsed() >= patience;
        if !running.patience.is_some_and(is_over) {
            return Ok(VmState::Continue);
        }
        running.door.clone()
    };
    let words: &[u8] = match door {
        None => b"ERR FUNCTION LOAD timeout",
        Some(door) => match door.call::<bool>((api::LOOK, Value::Nil))? {
            false => return Ok(VmState::Continue),
            true => b"ERR Script killed by user with SCRIPT KILL...",
        },
    };
    if let Some(mut running) = lua.app_data_mut::<Running>() {
        running.patience = Some(Duration::ZERO);
    }
    let triggers = HookTriggers::new().every_nth_instruction(INSTRUCTIONS_AT_END);
    let words = words.to_vec();
    let last = words.clone();
    lua.set_global_hook(triggers, move |_, _| {
        Err(Raised::Final(last.clone()).into_error())
    })?;
    Err(Raised::Final(words).into_error())
}

fn compiled(
    lua: &Lua,
    compile: &Function,
    (text, name): (mlua::LuaString, Value),
) -> mlua::Result<(Value, Value)> {
    // What string.dump writes is refused as if it were text, as Redis does: another byte
    // that begins no text stands for its first one.
    if text.as_bytes().first() != Some(&0x1b) {
        return compile.call((text, name));
    }
    let name = match name {
        Value::Nil => Value::String(text.clone()),
        name => name,
    };
    let mut bytes = text.as_bytes().to_vec();
    bytes[0] = 1;
    let (_, words) = compile.call::<(Value, Value)>((lua.create_string(bytes)?, name))?;
    let words = value_text(&words);
    let words = match words.strip_suffix(b"'char(1)'") {
        Some(before) => [before, b"'char(27)'"].concat(),
        None => words,
    };
    Ok((Value::Nil, Value::String(lua.create_string(words)?)))
}

/// What a script is told of that failed: `err`, and where it was raised.
fn placed(lua: &Lua, raised: Value) -> mlua::Result<Value> {
    let raised = match &raised {
        // It cannot be caught any more: this is its end.
        Value::Error(error) => match error.downcast_ref::<Raised>() {
            Some(known) => known.clone().into_value(lua)?,
            None => settle(lua, raised, false)?,
        },
        _ => raised,
    };
    let table = match raised {
        Value::Table(table) => table,
        other => {
            let table = lua.create_table()?;
            let err = [b"ERR ".as_slice(), &value_text(&other)].concat();
            table.raw_set("err", lua.create_string(err)?)?;
            table
        }
    };
    if let Some((source, line)) = place(lua) {
        table.set("source", source)?;
        table.set("line", line)?;
    }
    Ok(Value::Table(table))
}

/// The function that raised; its caller if that is one of ours or of Lua's own.
fn place(lua: &Lua) -> Option<(String, i64)> {
    let mut is_first = true;
    for level in 1..FRAMES_MAX {
        let (what, source, line) = lua.inspect_stack(level, |frame| {
            let source = frame.source();
            let text = source
                .source
                .map_or_else(String::new, |text| text.into_owned());
            let line = frame
                .current_line()
                .and_then(|line| i64::try_from(line).ok());
            (source.what, text, line.unwrap_or(-1))
        })?;
        let is_ours = source == SANDBOX || (is_first && what == "C");
        if !is_ours {
            return Some((source, line));
        }
        is_first = false;
    }
    None
}

fn failure(raised: &Value) -> Failed {
    let Value::Table(table) = raised else {
        // Out of memory, or a failure inside the handler.
        let why = String::from_utf8_lossy(&value_text(raised)).into_owned();
        let words =
            format!("ERR Error running script, {why}: scripts may take {LUA_BYTES_MAX} bytes");
        return Failed {
            words: words.into_bytes(),
            place: None,
            is_counted: false,
        };
    };
    let text = |name: &str| match table.get::<Value>(name) {
        Ok(value @ (Value::String(_) | Value::Integer(_) | Value::Number(_))) => {
            Some(value_text(&value))
        }
        _ => None,
    };
    let lossy = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let counted = table.get::<Value>("ignore_error_stats_update");
    Failed {
        words: text("err").unwrap_or_default(),
        place: text("source").map(lossy).zip(text("line").map(lossy)),
        is_counted: matches!(counted, Ok(Value::Boolean(true))),
    }
}
