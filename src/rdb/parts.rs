//! Values too large to be held whole: which can be cut, and where.
//!
//! ```text
//! container  |head, element .. element|element .. element|element .., tail|
//! string     |length, bytes ..........|bytes ............|bytes ..........|
//! ```
//!
//! A part ends at the first end of an outermost element that is not before the
//! size aimed at, so parts do not depend on how the input arrives. What is one
//! blob (listpack, ziplist, intset, packed string), what only a module can read,
//! and hashes with their names apart are never cut.
//!
//! Invariant: parts are never empty, and together they are the value's bytes.

use super::reader::{Malformed, string_extent};
use super::shape::value_program;
use super::skip::{Skip, Walk};
use super::value_type::ValueType;

/// Parts aimed at are no smaller than this: the length of a string fits into one.
pub(super) const PART_BYTES_MIN: usize = 64;
/// Parts aimed at are no larger than this, however large whole values may be.
pub const PART_BYTES_MAX: usize = 4 << 20;

/// Where the next part of a value begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum Parts {
    /// Bytes of a string that are left, its length included.
    String(usize),
    Elements(Skip),
}

/// A look for the end of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartEnd {
    /// At least this many bytes of input are needed.
    Needs(usize),
    Here {
        last: bool,
    },
}

impl Parts {
    /// The first part of the value at the start of `value`; `None` if values
    /// like this are never cut.
    pub(super) fn begin(value_type: ValueType, value: &[u8]) -> Result<Option<Self>, Malformed> {
        match value_type {
            ValueType::String => {
                let is_packed = value.first().is_some_and(|byte| byte >> 6 == 3);
                let extent = string_extent(value)?.filter(|_| !is_packed);
                Ok(extent.map(Self::String))
            }
            ValueType::List
            | ValueType::ListQuicklist
            | ValueType::ListQuicklist2
            | ValueType::Set
            | ValueType::Zset
            | ValueType::Zset2
            | ValueType::Hash
            | ValueType::HashMetadata
            | ValueType::HashMetadataPreGa
            | ValueType::HashValkey2
            | ValueType::StreamListpacks
            | ValueType::StreamListpacks2
            | ValueType::StreamListpacks3
            | ValueType::StreamListpacks4
            | ValueType::StreamListpacks5
            | ValueType::Array => Ok(Some(Self::Elements(Skip::new(value_program(value_type))))),
            ValueType::Module2
            | ValueType::HashZipmap
            | ValueType::ListZiplist
            | ValueType::SetIntset
            | ValueType::ZsetZiplist
            | ValueType::HashZiplist
            | ValueType::HashListpack
            | ValueType::ZsetListpack
            | ValueType::SetListpack
            | ValueType::HashListpackExPreGa
            | ValueType::HashListpackEx
            | ValueType::HashTemplateListpack
            | ValueType::HashTemplateArray
            | ValueType::Gcra => Ok(None),
        }
    }

    /// Walks on from `input[*at..]` to the end of the part, which began at the
    /// start of `input` and has about `bytes`.
    pub(super) fn walk(
        &mut self,
        input: &[u8],
        at: &mut usize,
        bytes: usize,
    ) -> Result<PartEnd, Malformed> {
        match self {
            Self::String(left) => {
                let part = bytes.min(*left);
                *at = part.min(input.len());
                if *at < part {
                    return Ok(PartEnd::Needs(part));
                }
                *left -= part;
                Ok(PartEnd::Here { last: *left == 0 })
            }
            Self::Elements(skip) => Ok(match skip.run_to(input, at, bytes)? {
                Walk::Needs(bytes) => PartEnd::Needs(bytes),
                Walk::Boundary => PartEnd::Here { last: false },
                Walk::Done => PartEnd::Here { last: true },
            }),
        }
    }
}
