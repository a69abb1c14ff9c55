//! Libraries of functions: what FUNCTION LOAD has loaded.
//!
//! ```text
//! text --header--> name, code --compiled, run--> functions registered --> Library
//! ```
//! Names of functions are unique over all libraries. All libraries share one interpreter;
//! it is begun anew when they are all deleted.

use std::collections::BTreeMap;
use std::time::Duration;

use mlua::{Function, Lua, MultiValue, Table, Value};

use super::dice::Dice;
use super::header::{Flags, LibraryHeader};
use super::raised::Raised;
use super::text::{type_name, value_text};
use super::vm::Vm;
use crate::store::commands::failure::up_to_zero;

/// A library of a client has so long to register its functions.
pub const LOAD_MAX: Duration = Duration::from_millis(500);
/// Functions of one library.
const FUNCTIONS_MAX: usize = 100_000;

const NAMES: &str = "Library names can only contain letters, numbers, or underscores(_) and must \
                     be at least one character long";

/// A function that can be called.
#[derive(Clone, Debug)]
pub struct Registered {
    /// What it is called.
    pub name: Vec<u8>,
    /// For people.
    pub description: Option<Vec<u8>>,
    /// What it says of itself.
    pub flags: Flags,
    function: Function,
}

/// What one FUNCTION LOAD brought.
#[derive(Clone, Debug)]
pub struct Library {
    /// Its whole text.
    pub text: Vec<u8>,
    /// By name.
    pub functions: BTreeMap<Vec<u8>, Registered>,
}

/// Functions that a library registers while it is run.
#[derive(Default)]
struct Registering(BTreeMap<Vec<u8>, Registered>);

/// All of them, by name.
#[derive(Debug, Default)]
pub struct Libraries {
    vm: Option<Vm>,
    dice: Dice,
    libraries: BTreeMap<Vec<u8>, Library>,
}

impl Libraries {
    /// None yet.
    pub fn new(dice: Dice) -> Self {
        Self {
            dice,
            ..Self::default()
        }
    }

    /// By name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Vec<u8>, &Library)> {
        self.libraries.iter()
    }

    /// How many functions there are.
    pub fn function_count(&self) -> usize {
        let counts = self.libraries.values().map(|of| of.functions.len());
        counts.sum()
    }

    /// Bytes that their interpreter takes.
    pub fn used_bytes(&self) -> usize {
        self.vm.as_ref().map_or(0, Vm::used_bytes)
    }

    /// The function of a name.
    pub fn find(&self, name: &[u8]) -> Option<&Registered> {
        self.libraries
            .values()
            .find_map(|of| of.functions.get(name))
    }

    /// Compiles and runs a library, and takes it in; its name. With `replaces`, in place of
    /// the one of that name.
    ///
    /// # Errors
    /// Redis' words, without a code; everything is as before.
    pub fn load(
        &mut self,
        text: &[u8],
        replaces: bool,
        patience: Option<Duration>,
    ) -> Result<Vec<u8>, Vec<u8>> {
        let (name, library) = self.made(text, replaces, patience)?;
        for function in library.functions.keys() {
            let is_there = |(of, other): (&Vec<u8>, &Library)| {
                *of != name && other.functions.contains_key(function)
            };
            if self.libraries.iter().any(is_there) {
                return Err(quoting(b"Function ", function, b" already exists"));
            }
        }
        self.libraries.insert(name.clone(), library);
        Ok(name)
    }

    fn made(
        &mut self,
        text: &[u8],
        replaces: bool,
        patience: Option<Duration>,
    ) -> Result<(Vec<u8>, Library), Vec<u8>> {
        let header = LibraryHeader::of(text).map_err(|error| error.0.into_owned())?;
        if !is_name(&header.name) {
            return Err(NAMES.as_bytes().to_vec());
        }
        if !header.engine.eq_ignore_ascii_case(b"lua") {
            return Err(quoting(b"Engine '", &header.engine, b"' not found"));
        }
        if !replaces && self.libraries.contains_key(&header.name) {
            return Err(quoting(b"Library '", &header.name, b"' already exists"));
        }
        let vm = match &mut self.vm {
            Some(vm) => vm,
            none => {
                let made = Vm::new(&self.dice, false);
                none.insert(made.map_err(|error| error.to_string().into_bytes())?)
            }
        };
        let code = vm
            .compile(header.code, "@user_function")
            .map_err(|words| quoting(b"Error compiling function: ", &words, b""))?;
        vm.lua().set_app_data(Registering::default());
        let ran = vm.run_library(&code, patience);
        let registered = vm.lua().remove_app_data::<Registering>();
        ran.map_err(|words| quoting(b"Error registering functions: ", &words, b""))?;
        let functions = registered.unwrap_or_default().0;
        if functions.is_empty() {
            return Err(b"No functions registered".to_vec());
        }
        let text = text.to_vec();
        Ok((header.name, Library { text, functions }))
    }

    /// Forgets a library. False if there is none.
    pub fn delete(&mut self, name: &[u8]) -> bool {
        self.libraries.remove(name).is_some()
    }

    /// Forgets all, and what their interpreter held.
    pub fn clear(&mut self) {
        self.libraries.clear();
        self.vm = None;
    }

    /// Takes in what others were restored into, as FUNCTION RESTORE does.
    ///
    /// # Errors
    /// Redis' words; everything is as before.
    pub fn join(&mut self, texts: &[Vec<u8>], policy: Policy) -> Result<(), Vec<u8>> {
        let mut fresh = Libraries::new(self.dice.clone());
        for text in texts {
            fresh.load(text, false, None)?;
        }
        if policy == Policy::Flush {
            *self = fresh;
            return Ok(());
        }
        for (name, _) in fresh.iter() {
            if policy == Policy::Append && self.libraries.contains_key(name) {
                return Err(quoting(b"Library ", name, b" already exists"));
            }
        }
        for (_, library) in fresh.iter() {
            for function in library.functions.keys() {
                let is_there = |(of, other): (&Vec<u8>, &Library)| {
                    !fresh.libraries.contains_key(of) && other.functions.contains_key(function)
                };
                if self.libraries.iter().any(is_there) {
                    return Err(quoting(b"Function ", function, b" already exists"));
                }
            }
        }
        // Those that are replaced go first, or a function that moves between them would
        // be there twice.
        let before: Vec<_> = fresh
            .iter()
            .filter_map(|(name, _)| self.libraries.remove_entry(name))
            .collect();
        for text in texts {
            if let Err(words) = self.load(text, false, None) {
                for (name, _) in fresh.iter() {
                    self.libraries.remove(name);
                }
                self.libraries.extend(before);
                return Err(words);
            }
        }
        Ok(())
    }

    /// What runs a function, taken out until it is given back. Nothing if there is none of
    /// that name.
    pub fn lend(&mut self, name: &[u8]) -> Option<(Vm, Function)> {
        let function = self.find(name)?.function.clone();
        Some((self.vm.take()?, function))
    }

    /// See [`Libraries::lend`].
    pub fn give_back(&mut self, vm: Vm) {
        self.vm = Some(vm);
    }
}

/// What FUNCTION RESTORE does with libraries that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// They stay; one of the same name is an error.
    Append,
    /// Those of the same name go.
    Replace,
    /// They go.
    Flush,
}

fn quoting(before: &[u8], told: &[u8], after: &[u8]) -> Vec<u8> {
    [before, up_to_zero(told), after].concat()
}

fn is_name(name: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    !name.is_empty() && name.iter().all(is_letter)
}

fn refused(words: &str) -> mlua::Error {
    Raised::words(words.as_bytes()).into_error()
}

/// `redis.register_function`.
#[expect(
    clippy::needless_pass_by_value,
    reason = "mlua gives functions their arguments by value"
)]
pub(super) fn register(lua: &Lua, values: MultiValue) -> mlua::Result<()> {
    if lua.app_data_ref::<Registering>().is_none() {
        return Err(refused(
            "redis.register_function can only be called on FUNCTION LOAD command",
        ));
    }
    let registered = match values.len() {
        1 => by_name(&values)?,
        2 => by_place(&values)?,
        _ => {
            return Err(refused(
                "wrong number of arguments to redis.register_function",
            ));
        }
    };
    if !is_name(&registered.name) {
        return Err(refused(NAMES));
    }
    let Some(mut registering) = lua.app_data_mut::<Registering>() else {
        return Ok(());
    };
    let all = &mut registering.0;
    if all.contains_key(&registered.name) {
        return Err(refused("Function already exists in the library"));
    }
    if all.len() >= FUNCTIONS_MAX {
        return Err(refused("Too many functions in the library"));
    }
    all.insert(registered.name.clone(), registered);
    Ok(())
}

fn string(value: &Value) -> Option<Vec<u8>> {
    let is_string = matches!(
        value,
        Value::String(_) | Value::Integer(_) | Value::Number(_)
    );
    is_string.then(|| value_text(value))
}

fn by_place(values: &MultiValue) -> mlua::Result<Registered> {
    let name = values
        .front()
        .and_then(string)
        .ok_or_else(|| refused("first argument to redis.register_function must be a string"))?;
    match values.get(1) {
        Some(Value::Function(function)) => Ok(Registered {
            name,
            description: None,
            flags: Flags::default(),
            function: function.clone(),
        }),
        _ => Err(refused(
            "second argument to redis.register_function must be a function",
        )),
    }
}

fn by_name(values: &MultiValue) -> mlua::Result<Registered> {
    let Some(Value::Table(given)) = values.front() else {
        return Err(refused(
            "calling redis.register_function with a single argument is only applicable to Lua \
             table (representing named arguments).",
        ));
    };
    let (mut name, mut description, mut function) = (None, None, None);
    let mut flags = Flags::default();
    for entry in given.pairs::<Value, Value>() {
        let (key, value) = entry?;
        let key = string(&key).ok_or_else(|| {
            refused("named argument key given to redis.register_function is not a string")
        })?;
        let text = |what: &str| {
            string(&value).ok_or_else(|| {
                refused(&format!(
                    "{what} argument given to redis.register_function must be a string"
                ))
            })
        };
        match &*key.to_ascii_lowercase() {
            b"function_name" => name = Some(text("function_name")?),
            b"description" => description = Some(text("description")?),
            b"callback" => match &value {
                Value::Function(of) => function = Some(of.clone()),
                _ => {
                    return Err(refused(
                        "callback argument given to redis.register_function must be a function",
                    ));
                }
            },
            b"flags" => match &value {
                Value::Table(names) => flags = flags_of(names)?,
                _ => {
                    return Err(refused(
                        "flags argument to redis.register_function must be a table representing \
                         function flags",
                    ));
                }
            },
            _ => {
                return Err(refused("unknown argument given to redis.register_function"));
            }
        }
    }
    let name =
        name.ok_or_else(|| refused("redis.register_function must get a function name argument"))?;
    let function =
        function.ok_or_else(|| refused("redis.register_function must get a callback argument"))?;
    Ok(Registered {
        name,
        description,
        flags,
        function,
    })
}

fn flags_of(names: &Table) -> mlua::Result<Flags> {
    let mut flags = Flags::default();
    for number in 1.. {
        let value: Value = names.get(number)?;
        if type_name(&value) == "nil" {
            break;
        }
        let flag = string(&value).and_then(|name| Flags::of(&name, false));
        flags = flags.with(flag.ok_or_else(|| refused("unknown flag given"))?);
    }
    Ok(flags)
}
