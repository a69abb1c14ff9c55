//! Rewrites a value into a layout that an older or another server knows,
//! byte by byte, without a command per element.
//!
//! ```text
//! stream   27 -> 26 -> 21 -> 19 -> 15       any step down         stream.rs
//! list     10 14 18              -> 1       plain strings         plain.rs
//! set      11 20                 -> 2
//! zset     12 17                 -> 5       5 -> 3 for servers before 4.0
//! hash     9 13 16               -> 4
//! hash     22R 23 24 25 <-> 22V             fields that expire
//!          any of them           -> 4       if no field expires
//!          29 31                 -> 4       templates
//! ```
//!
//! Servers read every older layout, so only the ways above are ever needed.
//! Loaders pack plain values again by their own settings.
//!
//! Invariants: what comes out holds the same content as what went in, except
//! what [`Lost`] names; a value whose visible content cannot be kept is an
//! error, and then nothing is appended.

mod lost;
mod plain;
mod stream;
mod write;

use super::decode::DecodeError;
use super::reader::{Malformed, plain_length};
use super::value_type::{RawValue, ValueType};

pub use lost::{Loss, Lost};
pub use write::{length as write_length, string as write_string};

/// Why a value cannot be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// The value breaks its format.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// No rewrite leads from one layout to the other.
    #[error("a value of type {from:?} cannot be written as {to:?}")]
    NoWay {
        /// What it is.
        from: ValueType,
        /// What was asked for.
        to: ValueType,
    },
    /// Fields of the hash expire, which the layout asked for cannot say.
    #[error("{0} fields of the hash expire, which this layout cannot say")]
    FieldsExpire(u64),
    /// The rewritten value would be longer than was allowed.
    #[error("the value is longer than {0} bytes when it is written plainly")]
    TooLong(usize),
}

/// Layouts that may stand for `type_id`, itself first, then by how little is
/// lost and how well the server is served by them.
pub fn stand_ins(type_id: ValueType) -> &'static [ValueType] {
    use ValueType as T;
    match type_id {
        T::String => &[T::String],
        T::Module2 => &[T::Module2],
        T::List => &[T::List],
        T::ListZiplist => &[T::ListZiplist, T::List],
        T::ListQuicklist => &[T::ListQuicklist, T::List],
        T::ListQuicklist2 => &[T::ListQuicklist2, T::List],
        T::Set => &[T::Set],
        T::SetIntset => &[T::SetIntset, T::Set],
        T::SetListpack => &[T::SetListpack, T::Set],
        T::Zset => &[T::Zset],
        T::Zset2 => &[T::Zset2, T::Zset],
        T::ZsetZiplist => &[T::ZsetZiplist, T::Zset2, T::Zset],
        T::ZsetListpack => &[T::ZsetListpack, T::Zset2, T::Zset],
        T::Hash => &[T::Hash],
        T::HashZipmap => &[T::HashZipmap, T::Hash],
        T::HashZiplist => &[T::HashZiplist, T::Hash],
        T::HashListpack => &[T::HashListpack, T::Hash],
        T::HashMetadataPreGa => {
            // The release kept the release candidates' layouts readable.
            &[
                T::HashMetadataPreGa,
                T::HashMetadata,
                T::HashValkey2,
                T::Hash,
            ]
        }
        T::HashListpackExPreGa => &[
            T::HashListpackExPreGa,
            T::HashMetadata,
            T::HashValkey2,
            T::Hash,
        ],
        T::HashMetadata => &[T::HashMetadata, T::HashValkey2, T::Hash],
        T::HashListpackEx => &[T::HashListpackEx, T::HashValkey2, T::Hash],
        T::HashValkey2 => &[T::HashValkey2, T::HashMetadata, T::Hash],
        T::StreamListpacks => &STREAMS[4..],
        T::StreamListpacks2 => &STREAMS[3..],
        T::StreamListpacks3 => &STREAMS[2..],
        T::StreamListpacks4 => &STREAMS[1..],
        T::StreamListpacks5 => &STREAMS,
        T::HashTemplateListpack => &[T::HashTemplateListpack, T::Hash],
        T::HashTemplateArray => &[T::HashTemplateArray, T::Hash],
        T::Array => &[T::Array],
        T::Gcra => &[T::Gcra],
    }
}

/// Newest first; each holds all that the next one does.
const STREAMS: [ValueType; 5] = [
    ValueType::StreamListpacks5,
    ValueType::StreamListpacks4,
    ValueType::StreamListpacks3,
    ValueType::StreamListpacks2,
    ValueType::StreamListpacks,
];

/// Appends the bytes of `value` in the layout `to`, without type byte and
/// footer; at most `bytes_max` of them. Says what was left out.
///
/// `to` should be one of [`stand_ins`]`(value.type_id)`; the same layout is
/// a copy.
///
/// # Errors
/// [`ConvertError`]; nothing is appended then.
pub fn convert(
    out: &mut Vec<u8>,
    value: &RawValue<'_>,
    to: ValueType,
    bytes_max: usize,
) -> Result<Lost, ConvertError> {
    let start = out.len();
    let converted = rewrite(out, value, to, bytes_max).and_then(|lost| {
        if out.len() - start > bytes_max {
            return Err(ConvertError::TooLong(bytes_max));
        }
        Ok(lost)
    });
    if converted.is_err() {
        out.truncate(start);
    }
    converted
}

fn rewrite(
    out: &mut Vec<u8>,
    value: &RawValue<'_>,
    to: ValueType,
    bytes_max: usize,
) -> Result<Lost, ConvertError> {
    let from = value.type_id;
    if !stand_ins(from).contains(&to) {
        return Err(ConvertError::NoWay { from, to });
    }
    if from == to {
        out.extend_from_slice(value.bytes);
        return Ok(Lost::default());
    }
    if stream::is_stream(to) {
        return stream::rewrite(out, value, to);
    }
    plain::rewrite(out, value, to, bytes_max)?;
    Ok(Lost::default())
}

/// How many times the outermost loop of a value turns: its elements, nodes or
/// pairs. `None` for layouts of one string, and where the bytes are cut off.
pub fn declared_elements(value: &RawValue<'_>) -> Option<u64> {
    let skipped = match value.type_id {
        ValueType::HashMetadata => 8,
        ValueType::List
        | ValueType::Set
        | ValueType::Zset
        | ValueType::Zset2
        | ValueType::Hash
        | ValueType::ListQuicklist
        | ValueType::ListQuicklist2
        | ValueType::HashMetadataPreGa
        | ValueType::HashValkey2
        | ValueType::Array => 0,
        _ => return None,
    };
    let count: Result<_, Malformed> = plain_length(value.bytes.get(skipped..)?);
    count.ok().flatten().map(|(count, _)| count)
}

#[cfg(test)]
mod tests;
