//! `cjson` 2.1.0: options, and what encodes and decodes.
//!
//! Options are those of one `cjson` table, and outlive scripts as they do in Redis.

mod decode;
mod encode;

use std::sync::{Arc, Mutex, PoisonError};

use mlua::{Lua, MultiValue, Table, Value};

use super::arguments::Arguments;
use super::text::type_name;

const INT_MAX: i64 = i32::MAX as i64;

/// What NaN and infinity are encoded as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Invalid {
    Refused,
    Told,
    Null,
}

#[derive(Clone, Copy, Debug)]
struct Options {
    converts_sparse: bool,
    sparse_ratio: i64,
    sparse_safe: i64,
    encode_depth_max: i64,
    decode_depth_max: i64,
    precision: i64,
    keeps_buffer: bool,
    encodes_invalid: Invalid,
    decodes_invalid: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            converts_sparse: false,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_depth_max: 1000,
            decode_depth_max: 1000,
            precision: 14,
            keeps_buffer: true,
            encodes_invalid: Invalid::Refused,
            decodes_invalid: true,
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Options>>);

impl Shared {
    fn now(&self) -> Options {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, options: Options) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = options;
    }
}

/// The library.
pub(super) fn table(lua: &Lua) -> mlua::Result<Table> {
    let options = Shared::default();
    let table = lua.create_table()?;
    for (name, number, of) in NUMBERS {
        let options = options.clone();
        let function = lua.create_function(move |lua, values: MultiValue| {
            let given = checked(lua, values, 1)?;
            let mut now = options.now();
            let value = integer(&given, 1, number, of(&mut now))?;
            options.set(now);
            Ok(value)
        })?;
        table.raw_set(*name, function)?;
    }
    install_switches(lua, &table, &options)?;
    let of = options.clone();
    let encode = lua.create_function(move |lua, values: MultiValue| {
        encode::encode(lua, of.now(), &one(lua, values)?)
    })?;
    table.raw_set("encode", encode)?;
    let of = options;
    let decode = lua.create_function(move |lua, values: MultiValue| {
        let given = one(lua, values)?;
        decode::decode(lua, of.now(), &given.string(1)?.as_bytes())
    })?;
    table.raw_set("decode", decode)?;
    table.raw_set(
        "new",
        lua.create_function(|lua, _: MultiValue| self::table(lua))?,
    )?;
    table.raw_set("null", Value::NULL)?;
    table.raw_set("_NAME", "cjson")?;
    table.raw_set("_VERSION", "2.1.0")?;
    Ok(table)
}

type Number = (&'static str, (i64, i64), fn(&mut Options) -> &mut i64);

const NUMBERS: &[Number] = &[
    ("encode_max_depth", (1, INT_MAX), |of| {
        &mut of.encode_depth_max
    }),
    ("decode_max_depth", (1, INT_MAX), |of| {
        &mut of.decode_depth_max
    }),
    ("encode_number_precision", (1, 14), |of| &mut of.precision),
];

fn install_switches(lua: &Lua, table: &Table, options: &Shared) -> mlua::Result<()> {
    let of = options.clone();
    let sparse = lua.create_function(move |lua, values: MultiValue| {
        let given = checked(lua, values, 3)?;
        let mut now = of.now();
        let converts = switch(&given, &["off", "on"], usize::from(now.converts_sparse))?;
        now.converts_sparse = converts == 1;
        let ratio = integer(&given, 2, &(0, INT_MAX), &mut now.sparse_ratio)?;
        let safe = integer(&given, 3, &(0, INT_MAX), &mut now.sparse_safe)?;
        of.set(now);
        Ok((now.converts_sparse, ratio, safe))
    })?;
    table.raw_set("encode_sparse_array", sparse)?;
    let of = options.clone();
    let keeps = lua.create_function(move |lua, values: MultiValue| {
        let given = checked(lua, values, 1)?;
        let mut now = of.now();
        now.keeps_buffer = switch(&given, &["off", "on"], usize::from(now.keeps_buffer))? == 1;
        of.set(now);
        Ok(now.keeps_buffer)
    })?;
    table.raw_set("encode_keep_buffer", keeps)?;
    let of = options.clone();
    let decodes = lua.create_function(move |lua, values: MultiValue| {
        let given = checked(lua, values, 1)?;
        let mut now = of.now();
        let chosen = switch(&given, &["off", "on"], usize::from(now.decodes_invalid))?;
        now.decodes_invalid = chosen == 1;
        of.set(now);
        Ok(now.decodes_invalid)
    })?;
    table.raw_set("decode_invalid_numbers", decodes)?;
    let of = options.clone();
    let encodes = lua.create_function(move |lua, values: MultiValue| {
        let given = checked(lua, values, 1)?;
        let mut now = of.now();
        let chosen = switch(&given, &["off", "on", "null"], now.encodes_invalid as usize)?;
        now.encodes_invalid = match chosen {
            0 => Invalid::Refused,
            1 => Invalid::Told,
            _ => Invalid::Null,
        };
        of.set(now);
        match now.encodes_invalid {
            Invalid::Null => lua.create_string("null").map(Value::String),
            other => Ok(Value::Boolean(other == Invalid::Told)),
        }
    })?;
    table.raw_set("encode_invalid_numbers", encodes)
}

fn one(lua: &Lua, values: MultiValue) -> mlua::Result<Arguments<'_>> {
    let given = Arguments::new(lua, values);
    match given.len() {
        1 => Ok(given),
        _ => Err(given.wrong(1, "expected 1 argument")),
    }
}

fn checked(lua: &Lua, values: MultiValue, max: usize) -> mlua::Result<Arguments<'_>> {
    let given = Arguments::new(lua, values);
    match given.len() > max {
        true => Err(given.wrong(max + 1, "found too many arguments")),
        false => Ok(given),
    }
}

fn integer(
    given: &Arguments<'_>,
    number: usize,
    (min, max): &(i64, i64),
    setting: &mut i64,
) -> mlua::Result<i64> {
    if !given.is_none(number) {
        let value = i64::from(given.integer(number)? as i32);
        if !(*min..=*max).contains(&value) {
            let why = format!("expected integer between {min} and {max}");
            return Err(given.wrong(1, &why));
        }
        *setting = value;
    }
    Ok(*setting)
}

/// The first argument as one of some words, or as a truth.
fn switch(given: &Arguments<'_>, words: &[&str], now: usize) -> mlua::Result<usize> {
    match given.get(1) {
        None | Some(Value::Nil) => Ok(now),
        Some(Value::Boolean(is_on)) => Ok(usize::from(*is_on)),
        Some(other) => {
            let text = match other {
                Value::String(_) | Value::Integer(_) | Value::Number(_) => given.string(1)?,
                other => {
                    let why = format!("string expected, got {}", type_name(other));
                    return Err(given.wrong(1, &why));
                }
            };
            let text = text.to_string_lossy();
            let found = words.iter().position(|word| *word == text);
            found.ok_or_else(|| given.wrong(1, format!("invalid option '{text}'")))
        }
    }
}
