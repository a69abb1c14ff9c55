//! RDB files and DUMP payloads: skipped, split, decoded, digested. No sockets.
//!
//! Levels, lowest first; each uses only those above it:
//!
//! ```text
//! crc64  version  value_type   numbers and names of the format
//! lzf  text  reader  module_id lengths, strings, names inside complete bytes
//! listpack listpack_writer ziplist intset zipmap stream
//! shape  skip                  programs of records; walking them, resumable
//! limits  record  attributes  templates  parts  scanner  scan_error  payload
//!                              records of a file; one value as RESTORE takes it
//! element  steps  decode  digest  convert  stream_node
//!                              logical elements of a value; its content digest;
//!                              its other layouts
//! ```
//!
//! Invariants: no byte of input makes this folder panic, loop or allocate by a
//! declared length alone; a type or opcode that is not known by the file's
//! (magic, version) stops the scan with its offset, it is never guessed.

mod attributes;
pub mod convert;
mod crc64;
pub mod decode;
pub mod digest;
pub mod element;
mod intset;
mod limits;
mod listpack;
mod listpack_writer;
mod lzf;
mod module_id;
mod parts;
pub mod payload;
mod reader;
pub mod record;
pub mod scan_error;
pub mod scanner;
mod shape;
mod skip;
mod steps;
pub mod stream;
mod stream_node;
mod templates;
mod text;
pub mod value_type;
pub mod version;
mod ziplist;
mod zipmap;

pub use convert::{
    ConvertError, Loss, Lost, convert, declared_elements, stand_ins, write_length, write_string,
};
pub use crc64::crc64;
pub use decode::{DecodeError, PartDecoder, decode};
pub use digest::{ContentDigest, content_digest, key_digest};
pub use element::Element;
pub use limits::ScannerLimits;
pub use module_id::ModuleId;
pub use payload::{
    NotRestorable, PayloadError, split_dump_payload, split_dump_payload_with_metadata,
    split_string, write_dump_payload, write_dump_payload_with_metadata,
};
pub use reader::Malformed;
pub use record::{Checksum, Event, KeyRecord, LargeKey, Record, SlotRange, ValuePart};
pub use scan_error::{ScanError, ScanErrorKind};
pub use scanner::Scanner;
pub use stream::{StreamCounters, StreamId};
pub use stream_node::{NodeFill, NodeWriter};
pub use text::Text;
pub use value_type::{RawValue, ValueKind, ValueType};
pub use version::{FileVersion, Magic};
