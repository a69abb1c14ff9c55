//! `bit`: operations on 32 bits, as LuaBitOp 1.0.2 has them.

use mlua::{Lua, MultiValue, Table};

use super::arguments::Arguments;

/// Added to a number, it leaves the low 32 bits of its integer at the bottom: 2^52 + 2^51.
const ALIGNS: f64 = 6_755_399_441_055_744.0;

fn bits(given: &Arguments<'_>, number: usize) -> mlua::Result<u32> {
    let value = given.number(number)?;
    Ok((value + ALIGNS).to_bits() as u32)
}

fn told(bits: u32) -> f64 {
    f64::from(bits.cast_signed())
}

type Fold = fn(u32, u32) -> u32;

const FOLDS: &[(&str, Fold)] = &[
    ("tobit", |bits, _| bits),
    ("band", |bits, other| bits & other),
    ("bor", |bits, other| bits | other),
    ("bxor", |bits, other| bits ^ other),
];

const SHIFTS: &[(&str, Fold)] = &[
    ("lshift", |bits, by| bits << by),
    ("rshift", |bits, by| bits >> by),
    ("arshift", |bits, by| {
        (bits.cast_signed() >> by).cast_unsigned()
    }),
    ("rol", u32::rotate_left),
    ("ror", u32::rotate_right),
];

/// The library.
pub(super) fn table(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    for (name, fold) in FOLDS {
        let function = lua.create_function(move |lua, values: MultiValue| {
            let given = Arguments::new(lua, values);
            let mut value = bits(&given, 1)?;
            if *name != "tobit" {
                for number in (2..=given.len()).rev() {
                    value = fold(value, bits(&given, number)?);
                }
            }
            Ok(told(value))
        })?;
        table.raw_set(*name, function)?;
    }
    for (name, shift) in SHIFTS {
        let function = lua.create_function(move |lua, values: MultiValue| {
            let given = Arguments::new(lua, values);
            let value = bits(&given, 1)?;
            Ok(told(shift(value, bits(&given, 2)? & 31)))
        })?;
        table.raw_set(*name, function)?;
    }
    let one = |of: fn(u32) -> u32| {
        lua.create_function(move |lua, values: MultiValue| {
            Ok(told(of(bits(&Arguments::new(lua, values), 1)?)))
        })
    };
    table.raw_set("bnot", one(|bits| !bits)?)?;
    table.raw_set("bswap", one(u32::swap_bytes)?)?;
    table.raw_set("tohex", lua.create_function(to_hex)?)?;
    Ok(table)
}

fn to_hex(lua: &Lua, values: MultiValue) -> mlua::Result<mlua::LuaString> {
    let given = Arguments::new(lua, values);
    let value = bits(&given, 1)?;
    let digits = match given.len() {
        1 => 8,
        _ => bits(&given, 2)?.cast_signed(),
    };
    let text = match digits < 0 {
        true => format!("{value:08X}"),
        false => format!("{value:08x}"),
    };
    let kept = usize::try_from(digits.unsigned_abs()).map_or(8, |kept| kept.min(8));
    lua.create_string(text.get(8 - kept..).unwrap_or(&text))
}
