//! Strings as bits and as packed integers.

use super::{Group, Recipe};
use crate::dice::Dice;
use crate::dice::Kind::{Bits, Text};
use crate::line::{Line, line};

pub const GROUP: Group = Group {
    name: "bits",
    recipes: &[
        Recipe::new("SETBIT", 20, |d| {
            line("SETBIT")
                .word(d.key(Bits))
                .word(bit(d))
                .word(on_or_off(d))
        }),
        Recipe::new("GETBIT", 8, |d| {
            line("GETBIT").word(d.key(Bits)).word(bit(d))
        }),
        Recipe::new("BITCOUNT", 4, |d| line("BITCOUNT").word(d.key(Bits))),
        Recipe::new("BITCOUNT", 10, |d| {
            let range = line("BITCOUNT")
                .word(d.key(Bits))
                .word(d.index())
                .word(d.index());
            with_unit(d, range)
        }),
        Recipe::new("BITPOS", 3, |d| {
            line("BITPOS").word(d.key(Bits)).word(on_or_off(d))
        }),
        Recipe::new("BITPOS", 3, |d| {
            line("BITPOS")
                .word(d.key(Bits))
                .word(on_or_off(d))
                .word(d.index())
        }),
        Recipe::new("BITPOS", 10, |d| {
            let from = line("BITPOS").word(d.key(Bits)).word(on_or_off(d));
            let range = from.word(d.index()).word(d.index());
            with_unit(d, range)
        }),
        Recipe::new("BITOP", 12, |d| {
            let operation = d.pick(&["AND", "OR", "XOR", "NOT", "and", "NAND"]);
            let sources = d.keys(Bits, 3);
            line("BITOP")
                .word(operation)
                .word(d.key(Bits))
                .words(sources)
        }),
        Recipe::new("BITOP", 3, |d| {
            line("BITOP NOT").word(d.key(Bits)).word(d.key(Text))
        }),
        Recipe::new("BITFIELD", 25, bitfield),
        Recipe::new("BITFIELD_RO", 8, |d| {
            let mut made = line("BITFIELD_RO").word(d.key(Bits));
            for _ in 0..d.between(0, 3) {
                made = made.word("GET").word(field(d)).word(place(d));
            }
            if d.one_in(10) {
                made = made.words(["SET", "u8", "0", "1"]);
            }
            made
        }),
    ],
};

fn on_or_off(d: &mut Dice) -> &'static str {
    if d.one_in(30) {
        return d.pick(&["2", "-1", "abc", ""]);
    }
    d.pick(&["0", "1"])
}

fn bit(d: &mut Dice) -> Vec<u8> {
    match d.between(0, 25) {
        0 => d
            .pick(&[
                "4294967296",
                "-1",
                "abc",
                "9223372036854775807",
                "18446744073709551616",
            ])
            .into(),
        1..3 => d.between(0, 6_000).to_string().into(),
        _ => d.between(0, 130).to_string().into(),
    }
}

fn with_unit(d: &mut Dice, range: Line) -> Line {
    match d.between(0, 8) {
        0..3 => range.word("BIT"),
        3..5 => range.word("BYTE"),
        5 => range.word(d.pick(&["bit", "BITS", "", "byte"])),
        _ => range,
    }
}

/// A type of a packed integer.
fn field(d: &mut Dice) -> Vec<u8> {
    if d.one_in(20) {
        return d
            .pick(&[
                "u64", "i65", "u0", "i0", "f8", "u", "8", "", "i-1", "u08", "U8",
            ])
            .into();
    }
    let (sign, most) = if d.one_in(2) { ("u", 63) } else { ("i", 64) };
    let width = match d.between(0, 3) {
        0 => d.between(1, most),
        1 => most,
        _ => *[2, 4, 8, 16]
            .get(usize::try_from(d.between(0, 3)).unwrap_or(0))
            .unwrap_or(&8),
    };
    format!("{sign}{width}").into()
}

fn place(d: &mut Dice) -> Vec<u8> {
    match d.between(0, 25) {
        0 => d
            .pick(&[
                "-1",
                "abc",
                "",
                "#",
                "#-1",
                "#abc",
                "4294967296",
                "#9223372036854775807",
            ])
            .into(),
        1..10 => format!("#{}", d.between(0, 12)).into(),
        _ => d.between(0, 200).to_string().into(),
    }
}

fn bitfield(d: &mut Dice) -> Line {
    let mut made = line("BITFIELD").word(d.key(Bits));
    for _ in 0..d.between(0, 5) {
        made = match d.between(0, 6) {
            0 | 1 => made.word("GET").word(field(d)).word(place(d)),
            2 | 3 => made
                .word("SET")
                .word(field(d))
                .word(place(d))
                .word(d.integer()),
            4 | 5 => made
                .word("INCRBY")
                .word(field(d))
                .word(place(d))
                .word(d.integer()),
            _ => made
                .word("OVERFLOW")
                .word(d.pick(&["WRAP", "SAT", "FAIL", "wrap", "NONE"])),
        };
    }
    made
}
