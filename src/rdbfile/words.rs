//! Words for value types: what TYPE answers, and the format's own names.

use crate::rdb::{ValueKind, ValueType};

/// Every kind of value.
pub const KINDS: [ValueKind; 9] = [
    ValueKind::String,
    ValueKind::List,
    ValueKind::Set,
    ValueKind::SortedSet,
    ValueKind::Hash,
    ValueKind::Stream,
    ValueKind::Module,
    ValueKind::Array,
    ValueKind::RateLimiter,
];

/// The kind as TYPE names it; `module` for all modules.
pub fn kind_word(kind: ValueKind) -> &'static str {
    match kind {
        ValueKind::String => "string",
        ValueKind::List => "list",
        ValueKind::Set => "set",
        ValueKind::SortedSet => "zset",
        ValueKind::Hash => "hash",
        ValueKind::Stream => "stream",
        ValueKind::Module => "module",
        ValueKind::Array => "array",
        ValueKind::RateLimiter => "gcra",
    }
}

/// The layout's name in `rdb.h`, in lower case and without `RDB_TYPE_`.
pub fn encoding_word(value_type: ValueType) -> &'static str {
    match value_type {
        ValueType::String => "string",
        ValueType::List => "list",
        ValueType::Set => "set",
        ValueType::Zset => "zset",
        ValueType::Hash => "hash",
        ValueType::Zset2 => "zset_2",
        ValueType::Module2 => "module_2",
        ValueType::HashZipmap => "hash_zipmap",
        ValueType::ListZiplist => "list_ziplist",
        ValueType::SetIntset => "set_intset",
        ValueType::ZsetZiplist => "zset_ziplist",
        ValueType::HashZiplist => "hash_ziplist",
        ValueType::ListQuicklist => "list_quicklist",
        ValueType::StreamListpacks => "stream_listpacks",
        ValueType::HashListpack => "hash_listpack",
        ValueType::ZsetListpack => "zset_listpack",
        ValueType::ListQuicklist2 => "list_quicklist_2",
        ValueType::StreamListpacks2 => "stream_listpacks_2",
        ValueType::SetListpack => "set_listpack",
        ValueType::StreamListpacks3 => "stream_listpacks_3",
        ValueType::HashMetadataPreGa => "hash_metadata_pre_ga",
        ValueType::HashListpackExPreGa => "hash_listpack_ex_pre_ga",
        ValueType::HashMetadata => "hash_metadata",
        ValueType::HashListpackEx => "hash_listpack_ex",
        ValueType::HashValkey2 => "hash_2",
        ValueType::StreamListpacks4 => "stream_listpacks_4",
        ValueType::StreamListpacks5 => "stream_listpacks_5",
        ValueType::Array => "array",
        ValueType::HashTemplateListpack => "hash_template_listpack",
        ValueType::HashTemplateArray => "hash_template_array",
        ValueType::Gcra => "gcra",
    }
}
