//! Commands on keys of any kind, and on databases.
//!
//! ```text
//! keys    DEL EXISTS TYPE TOUCH      names      RENAME COPY MOVE
//! expiry  EXPIRE TTL PERSIST ..      walking    KEYS SCAN RANDOMKEY
//! object  OBJECT                     databases  DBSIZE FLUSHDB SWAPDB ..
//! debug   DEBUG DIGEST ..            payload    DUMP RESTORE
//! ```

mod databases;
mod debug;
mod expiry;
mod keys;
mod names;
mod object;
mod payload;
mod protocol;
#[cfg(test)]
mod tests;
mod walking;

pub use payload::payload_of;

use super::table::{Command, Keys, Run};

/// The family.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "del",
        arity: -2,
        flags: "write",
        keys: Keys::ALL,
        categories: "keyspace",
        run: Run::Data(keys::delete),
    },
    Command {
        name: "unlink",
        arity: -2,
        flags: "write fast",
        keys: Keys::ALL,
        categories: "keyspace",
        run: Run::Data(keys::delete),
    },
    Command {
        name: "exists",
        arity: -2,
        flags: "readonly fast",
        keys: Keys::ALL,
        categories: "keyspace",
        run: Run::Data(keys::exists),
    },
    Command {
        name: "type",
        arity: 2,
        flags: "readonly fast",
        keys: Keys::FIRST,
        categories: "keyspace",
        run: Run::Data(keys::kind),
    },
    Command {
        name: "touch",
        arity: -2,
        flags: "readonly fast",
        keys: Keys::ALL,
        categories: "keyspace",
        run: Run::Data(keys::touch),
    },
    Command {
        name: "expire",
        arity: -3,
        flags: "write fast",
        keys: Keys::FIRST,
        categories: "keyspace",
        run: Run::Data(expiry::expire),
    },
    Command {
        name: "pexpire",
        arity: -3,
        flags: "write fast",
        keys: Keys::FIRST,
        categories: "keyspace",
        run: Run::Data(expiry::pexpire),
    },
    Command {
        name: "expireat",
        arity: -3,
        flags: "write fast",
        keys: Keys::FIRST,
        categories: "keyspace",
        run: Run::Data(expiry::expireat),
    },
    Command {
        name: "pexpireat",
        arity: -3,
        flags: "write fast",
        keys: Keys::FIRST,
        categories: "keyspace",
        run: Run::Data(expiry::pexpireat),
    },
    Command {
        name: "ttl",
        arity: 2,
        flags: "readonly fast",
        keys: Keys::FIRST,
        categories: "keyspace",
        run: Run::Data(expiry::ttl),
    },
    Command {
        name: "pttl",
        arity: 2,
        flags: "readonly fast",
        keys: Keys::FIRST,
        categories: "keyspace",
        run: Run::Data(expiry::pttl),
    },
    Command {
        name: "expiretime",
        arity: 2,
        flags: "readonly fast",
        keys: Keys::FIRST,
        categories: "keyspace",
        run: Run::Data(expiry::expiretime),
    },
    Command {
        name: "pexpiretime",
        arity: 2,
        flags: "readonly fast",
        keys: Keys::FIRST,
        categories: "keyspace",
        run: Run::Data(expiry::pexpiretime),
    },
    Command {
        name: "persist",
        arity: 2,
        flags: "write fast",
        keys: Keys::FIRST,
        categories: "keyspace",
        run: Run::Data(expiry::persist),
    },
    Command {
        name: "rename",
        arity: 3,
        flags: "write",
        keys: Keys::FIRST_TWO,
        categories: "keyspace",
        run: Run::Data(names::rename),
    },
    Command {
        name: "renamenx",
        arity: 3,
        flags: "write fast",
        keys: Keys::FIRST_TWO,
        categories: "keyspace",
        run: Run::Data(names::renamenx),
    },
    Command {
        name: "copy",
        arity: -3,
        flags: "write denyoom",
        keys: Keys::FIRST_TWO,
        categories: "keyspace",
        run: Run::Data(names::copy),
    },
    Command {
        name: "move",
        arity: 3,
        flags: "write fast",
        keys: Keys::FIRST,
        categories: "keyspace",
        run: Run::Data(names::move_key),
    },
    Command {
        name: "randomkey",
        arity: 1,
        flags: "readonly",
        keys: Keys::None,
        categories: "keyspace",
        run: Run::Data(walking::randomkey),
    },
    Command {
        name: "keys",
        arity: 2,
        flags: "readonly",
        keys: Keys::None,
        categories: "keyspace dangerous",
        run: Run::Data(walking::keys),
    },
    Command {
        name: "scan",
        arity: -2,
        flags: "readonly",
        keys: Keys::None,
        categories: "keyspace",
        run: Run::Data(walking::scan),
    },
    Command {
        name: "dbsize",
        arity: 1,
        flags: "readonly fast",
        keys: Keys::None,
        categories: "keyspace",
        run: Run::Data(databases::dbsize),
    },
    Command {
        name: "flushdb",
        arity: -1,
        flags: "write",
        keys: Keys::None,
        categories: "keyspace dangerous",
        run: Run::Data(databases::flushdb),
    },
    Command {
        name: "flushall",
        arity: -1,
        flags: "write",
        keys: Keys::None,
        categories: "keyspace dangerous",
        run: Run::Data(databases::flushall),
    },
    Command {
        name: "swapdb",
        arity: 3,
        flags: "write fast",
        keys: Keys::None,
        categories: "keyspace dangerous",
        run: Run::Data(databases::swapdb),
    },
    Command {
        name: "object",
        arity: -2,
        flags: "",
        keys: Keys::None,
        categories: "",
        run: Run::Data(object::object),
    },
    Command {
        name: "debug",
        arity: -2,
        flags: "admin noscript loading stale",
        keys: Keys::None,
        categories: "admin dangerous",
        run: Run::Data(debug::debug),
    },
    Command {
        name: "dump",
        arity: 2,
        flags: "readonly",
        keys: Keys::FIRST,
        categories: "keyspace",
        run: Run::Data(payload::dump),
    },
    Command {
        name: "restore",
        arity: -4,
        flags: "write denyoom",
        keys: Keys::FIRST,
        categories: "keyspace dangerous",
        run: Run::Data(payload::restore),
    },
    Command {
        name: "restore-asking",
        arity: -4,
        flags: "write denyoom asking",
        keys: Keys::FIRST,
        categories: "keyspace dangerous",
        run: Run::Data(payload::restore),
    },
];
