//! Shapes: what follows each opcode and each value type, as programs of
//! primitives that [`super::skip`] walks.
//!
//! ```text
//! hash        Repeat Str Str End            n, then n times field value
//! zset_2      Repeat Str Bytes(8) End       n, then n times member score
//! array       Hold Either(..)               n, flag, [cursor], n times index item
//! ```
//!
//! A new type or opcode is a new program here, under the (magic, version) that
//! has it. Sources: `rdb.h` and `rdb.c` of Redis 8 and Valkey 9.

use super::value_type::ValueType;
use super::version::{FileVersion, Magic};

/// One primitive of a record's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// A length or number.
    Len,
    /// A string in any form.
    Str,
    /// That many bytes as they are.
    Bytes(u8),
    /// A score as text: a byte of length, or 253, 254, 255 alone (nan, inf, -inf).
    Score,
    /// A count, then that many times what stands up to the matching `End`.
    Repeat,
    End,
    /// Items of a module until their end opcode.
    ModuleItems,
    /// A count for later [`Op::RepeatHeld`]s.
    Hold,
    /// A string with a listpack; the number of its elements is the count for
    /// later [`Op::RepeatHeld`]s.
    HoldNames,
    /// As `Repeat`, with the count that was held.
    RepeatHeld,
    /// A length of 0 or 1, which says by which program the walk goes on.
    Either(&'static [&'static [Op]; 2]),
    /// An item of an array: a length that says how it is written, then itself.
    ArrayItem,
}

pub(super) mod opcode {
    //! Bytes that stand where a value type could stand. Source: `rdb.h` of
    //! Redis 8 and Valkey 9; 107 and 121 are Redis Enterprise's.

    pub(in crate::rdb) const ENTERPRISE_RAM_LRU: u8 = 107;
    pub(in crate::rdb) const ENTERPRISE_SLOT: u8 = 121;
    pub(in crate::rdb) const HASH_TEMPLATE: u8 = 242;
    pub(in crate::rdb) const KEY_META: u8 = 243;
    pub(in crate::rdb) const VALKEY_SLOT_IMPORT: u8 = 243;
    pub(in crate::rdb) const SLOT_INFO: u8 = 244;
    pub(in crate::rdb) const FUNCTION2: u8 = 245;
    pub(in crate::rdb) const FUNCTION_PRE_GA: u8 = 246;
    pub(in crate::rdb) const MODULE_AUX: u8 = 247;
    pub(in crate::rdb) const IDLE: u8 = 248;
    pub(in crate::rdb) const FREQ: u8 = 249;
    pub(in crate::rdb) const AUX: u8 = 250;
    pub(in crate::rdb) const RESIZE_DB: u8 = 251;
    pub(in crate::rdb) const EXPIRE_TIME_MS: u8 = 252;
    pub(in crate::rdb) const EXPIRE_TIME: u8 = 253;
    pub(in crate::rdb) const SELECT_DB: u8 = 254;
    pub(in crate::rdb) const EOF: u8 = 255;
}

/// Shape of what follows an opcode; `None` if it is unknown in this version.
pub(super) fn record_program(version: FileVersion, byte: u8) -> Option<&'static [Op]> {
    use Op::{Bytes, End, Len, ModuleItems, Repeat, Str};
    let redis = |number| version.magic() == Magic::Redis && version.number() >= number;
    Some(match byte {
        opcode::SELECT_DB | opcode::IDLE => &[Len],
        opcode::ENTERPRISE_RAM_LRU | opcode::ENTERPRISE_SLOT if redis(1) => &[Len],
        opcode::EXPIRE_TIME => &[Bytes(4)],
        opcode::EXPIRE_TIME_MS => &[Bytes(8)],
        opcode::FREQ => &[Bytes(1)],
        opcode::RESIZE_DB => &[Len, Len],
        opcode::AUX => &[Str, Str],
        opcode::MODULE_AUX => &[Len, Len, Len, ModuleItems],
        opcode::FUNCTION2 => &[Str],
        // Name, engine, whether a description follows, code.
        opcode::FUNCTION_PRE_GA if version.magic() == Magic::Redis => {
            &[Str, Str, Repeat, Str, End, Str]
        }
        opcode::SLOT_INFO => &[Len, Len, Len],
        opcode::VALKEY_SLOT_IMPORT if version.magic() == Magic::Valkey => {
            &[Str, Repeat, Len, Len, End]
        }
        opcode::KEY_META if redis(13) => KEY_META_PROGRAM,
        opcode::HASH_TEMPLATE if redis(15) => &[Len, Repeat, Str, End],
        _ => return None,
    })
}

/// Shape of what modules attach to a key: classes of 4 bytes with their items.
pub(super) const KEY_META_PROGRAM: &[Op] = &[Op::Repeat, Op::Bytes(4), Op::ModuleItems, Op::End];

/// How the bytes behind a type's byte and a key become a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// As they are.
    Plain(ValueType),
    /// Values of a hash whose names the file gave before: a listpack that
    /// begins with the template's id.
    TemplateListpack,
    /// The same as the id and strings.
    TemplateArray,
}

impl Stored {
    /// What `byte` says in a file of this version; `None` if it is no value type.
    pub(super) fn known(version: FileVersion, byte: u8) -> Option<Self> {
        let templates = version.magic() == Magic::Redis && version.number() >= 15;
        match byte {
            30 if templates => Some(Self::TemplateListpack),
            32 if templates => Some(Self::TemplateArray),
            _ => ValueType::known(version, byte).map(Self::Plain),
        }
    }
}

/// The values of [`Stored::TemplateArray`] behind the id; their count is held.
pub(super) const TEMPLATE_VALUES_PROGRAM: &[Op] = &[Op::RepeatHeld, Op::Str, Op::End];

/// Shape of a value.
pub(super) fn value_program(value_type: ValueType) -> &'static [Op] {
    use Op::{
        ArrayItem, Bytes, Either, End, Hold, HoldNames, Len, ModuleItems, Repeat, RepeatHeld,
        Score, Str,
    };
    match value_type {
        ValueType::String
        | ValueType::HashZipmap
        | ValueType::ListZiplist
        | ValueType::SetIntset
        | ValueType::ZsetZiplist
        | ValueType::HashZiplist
        | ValueType::HashListpack
        | ValueType::ZsetListpack
        | ValueType::SetListpack
        | ValueType::HashListpackExPreGa => &[Str],
        ValueType::List | ValueType::Set | ValueType::ListQuicklist => &[Repeat, Str, End],
        ValueType::Hash => &[Repeat, Str, Str, End],
        ValueType::Zset => &[Repeat, Str, Score, End],
        ValueType::Zset2 => &[Repeat, Str, Bytes(8), End],
        ValueType::ListQuicklist2 => &[Repeat, Len, Str, End],
        ValueType::HashMetadataPreGa => &[Repeat, Len, Str, Str, End],
        ValueType::HashValkey2 => &[Repeat, Str, Str, Bytes(8), End],
        ValueType::HashMetadata => &[Bytes(8), Repeat, Len, Str, Str, End],
        ValueType::HashListpackEx => &[Bytes(8), Str],
        ValueType::Module2 => &[Len, ModuleItems],
        ValueType::StreamListpacks => STREAM,
        ValueType::StreamListpacks2 => STREAM_2,
        ValueType::StreamListpacks3 => STREAM_3,
        ValueType::StreamListpacks4 => STREAM_4,
        ValueType::StreamListpacks5 => STREAM_5,
        ValueType::Array => &[
            Hold,
            Either(&[
                &[RepeatHeld, Len, ArrayItem, End],
                &[Len, RepeatHeld, Len, ArrayItem, End],
            ]),
        ],
        ValueType::HashTemplateListpack => &[Either(&[&[Str, Str], &[Repeat, Str, End, Str]])],
        ValueType::HashTemplateArray => &[Either(&[
            &[HoldNames, RepeatHeld, Str, End],
            &[Hold, RepeatHeld, Str, End, RepeatHeld, Str, End],
        ])],
        ValueType::Gcra => &[Len],
    }
}

// Lines are: nodes of master id and listpack; length, last id; [first id, max
// deleted id, entries added]; groups of name, last id, [entries read]; pending
// id and time, count; consumers of name, seen time, [active time]; pending ids;
// [ids given back]. [What is kept of producers: duration, entries; producers of
// name, requests of name and id; two counters.]

#[rustfmt::skip]
const STREAM: &[Op] = &[
    Op::Repeat, Op::Str, Op::Str, Op::End,
    Op::Len, Op::Len, Op::Len,
    Op::Repeat, Op::Str, Op::Len, Op::Len,
        Op::Repeat, Op::Bytes(24), Op::Len, Op::End,
        Op::Repeat, Op::Str, Op::Bytes(8),
            Op::Repeat, Op::Bytes(16), Op::End,
        Op::End,
    Op::End,
];

#[rustfmt::skip]
const STREAM_2: &[Op] = &[
    Op::Repeat, Op::Str, Op::Str, Op::End,
    Op::Len, Op::Len, Op::Len,
    Op::Len, Op::Len, Op::Len, Op::Len, Op::Len,
    Op::Repeat, Op::Str, Op::Len, Op::Len, Op::Len,
        Op::Repeat, Op::Bytes(24), Op::Len, Op::End,
        Op::Repeat, Op::Str, Op::Bytes(8),
            Op::Repeat, Op::Bytes(16), Op::End,
        Op::End,
    Op::End,
];

#[rustfmt::skip]
const STREAM_3: &[Op] = &[
    Op::Repeat, Op::Str, Op::Str, Op::End,
    Op::Len, Op::Len, Op::Len,
    Op::Len, Op::Len, Op::Len, Op::Len, Op::Len,
    Op::Repeat, Op::Str, Op::Len, Op::Len, Op::Len,
        Op::Repeat, Op::Bytes(24), Op::Len, Op::End,
        Op::Repeat, Op::Str, Op::Bytes(16),
            Op::Repeat, Op::Bytes(16), Op::End,
        Op::End,
    Op::End,
];

#[rustfmt::skip]
const STREAM_4: &[Op] = &[
    Op::Repeat, Op::Str, Op::Str, Op::End,
    Op::Len, Op::Len, Op::Len,
    Op::Len, Op::Len, Op::Len, Op::Len, Op::Len,
    Op::Repeat, Op::Str, Op::Len, Op::Len, Op::Len,
        Op::Repeat, Op::Bytes(24), Op::Len, Op::End,
        Op::Repeat, Op::Str, Op::Bytes(16),
            Op::Repeat, Op::Bytes(16), Op::End,
        Op::End,
    Op::End,
    Op::Len, Op::Len,
    Op::Repeat, Op::Str,
        Op::Repeat, Op::Str, Op::Len, Op::Len, Op::End,
    Op::End,
    Op::Len, Op::Len,
];

#[rustfmt::skip]
const STREAM_5: &[Op] = &[
    Op::Repeat, Op::Str, Op::Str, Op::End,
    Op::Len, Op::Len, Op::Len,
    Op::Len, Op::Len, Op::Len, Op::Len, Op::Len,
    Op::Repeat, Op::Str, Op::Len, Op::Len, Op::Len,
        Op::Repeat, Op::Bytes(24), Op::Len, Op::End,
        Op::Repeat, Op::Str, Op::Bytes(16),
            Op::Repeat, Op::Bytes(16), Op::End,
        Op::End,
        Op::Repeat, Op::Bytes(16), Op::End,
    Op::End,
    Op::Len, Op::Len,
    Op::Repeat, Op::Str,
        Op::Repeat, Op::Str, Op::Len, Op::Len, Op::End,
    Op::End,
    Op::Len, Op::Len,
];
