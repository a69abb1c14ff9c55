//! Commands on strings.
//!
//! ```text
//! reading   GET MGET STRLEN GETRANGE        writing   SET and its kin, GETEX, GETDEL
//! lcs       LCS                             changing  APPEND SETRANGE INCR ..
//! ```

mod changing;
mod lcs;
mod reading;
#[cfg(test)]
mod tests;
mod writing;

use crate::store::format::object::{Object, StringValue, Value};

use super::context::Context;
use super::failure::Failure;
use super::table::{Command, Keys, Run};

/// The family.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "get",
        arity: 2,
        flags: "readonly fast",
        keys: Keys::FIRST,
        categories: "string",
        run: Run::Data(reading::get),
    },
    Command {
        name: "set",
        arity: -3,
        flags: "write denyoom",
        keys: Keys::FIRST,
        categories: "string",
        run: Run::Data(writing::set),
    },
    Command {
        name: "setnx",
        arity: 3,
        flags: "write denyoom fast",
        keys: Keys::FIRST,
        categories: "string",
        run: Run::Data(writing::setnx),
    },
    Command {
        name: "setex",
        arity: 4,
        flags: "write denyoom",
        keys: Keys::FIRST,
        categories: "string",
        run: Run::Data(writing::setex),
    },
    Command {
        name: "psetex",
        arity: 4,
        flags: "write denyoom",
        keys: Keys::FIRST,
        categories: "string",
        run: Run::Data(writing::psetex),
    },
    Command {
        name: "getset",
        arity: 3,
        flags: "write denyoom fast",
        keys: Keys::FIRST,
        categories: "string",
        run: Run::Data(writing::getset),
    },
    Command {
        name: "getdel",
        arity: 2,
        flags: "write fast",
        keys: Keys::FIRST,
        categories: "string",
        run: Run::Data(writing::getdel),
    },
    Command {
        name: "getex",
        arity: -2,
        flags: "write fast",
        keys: Keys::FIRST,
        categories: "string",
        run: Run::Data(writing::getex),
    },
    Command {
        name: "append",
        arity: 3,
        flags: "write denyoom fast",
        keys: Keys::FIRST,
        categories: "string",
        run: Run::Data(changing::append),
    },
    Command {
        name: "strlen",
        arity: 2,
        flags: "readonly fast",
        keys: Keys::FIRST,
        categories: "string",
        run: Run::Data(reading::strlen),
    },
    Command {
        name: "setrange",
        arity: 4,
        flags: "write denyoom",
        keys: Keys::FIRST,
        categories: "string",
        run: Run::Data(changing::setrange),
    },
    Command {
        name: "getrange",
        arity: 4,
        flags: "readonly",
        keys: Keys::FIRST,
        categories: "string",
        run: Run::Data(reading::getrange),
    },
    Command {
        name: "substr",
        arity: 4,
        flags: "readonly",
        keys: Keys::FIRST,
        categories: "string",
        run: Run::Data(reading::getrange),
    },
    Command {
        name: "incr",
        arity: 2,
        flags: "write denyoom fast",
        keys: Keys::FIRST,
        categories: "string",
        run: Run::Data(changing::incr),
    },
    Command {
        name: "decr",
        arity: 2,
        flags: "write denyoom fast",
        keys: Keys::FIRST,
        categories: "string",
        run: Run::Data(changing::decr),
    },
    Command {
        name: "incrby",
        arity: 3,
        flags: "write denyoom fast",
        keys: Keys::FIRST,
        categories: "string",
        run: Run::Data(changing::incrby),
    },
    Command {
        name: "decrby",
        arity: 3,
        flags: "write denyoom fast",
        keys: Keys::FIRST,
        categories: "string",
        run: Run::Data(changing::decrby),
    },
    Command {
        name: "incrbyfloat",
        arity: 3,
        flags: "write denyoom fast",
        keys: Keys::FIRST,
        categories: "string",
        run: Run::Data(changing::incrbyfloat),
    },
    Command {
        name: "mget",
        arity: -2,
        flags: "readonly fast",
        keys: Keys::ALL,
        categories: "string",
        run: Run::Data(reading::mget),
    },
    Command {
        name: "mset",
        arity: -3,
        flags: "write denyoom",
        keys: Keys::Range {
            first: 1,
            last: -1,
            step: 2,
        },
        categories: "string",
        run: Run::Data(writing::mset),
    },
    Command {
        name: "msetnx",
        arity: -3,
        flags: "write denyoom",
        keys: Keys::Range {
            first: 1,
            last: -1,
            step: 2,
        },
        categories: "string",
        run: Run::Data(writing::msetnx),
    },
    Command {
        name: "lcs",
        arity: -3,
        flags: "readonly",
        keys: Keys::FIRST_TWO,
        categories: "string",
        run: Run::Data(lcs::lcs),
    },
];

/// The string of an object, if it is one.
pub(super) fn string_of(object: Object) -> Result<(Option<u64>, StringValue), Failure> {
    match object.value {
        Value::String(string) => Ok((object.expires_at_ms, string)),
        _ => Err(Failure::WRONG_TYPE),
    }
}

/// The string of a key that is read.
pub(super) fn read_string(
    context: &mut Context<'_>,
    key: &[u8],
) -> Result<Option<StringValue>, Failure> {
    match context.read(key)? {
        None => Ok(None),
        Some(object) => string_of(object).map(|(_, string)| Some(string)),
    }
}

/// The string of a key that is about to be changed, and when it ends.
pub(super) fn lookup_string(
    context: &mut Context<'_>,
    key: &[u8],
) -> Result<Option<(Option<u64>, StringValue)>, Failure> {
    context.lookup(key)?.map(string_of).transpose()
}

/// Whether a string may become so long: what a master says is not asked.
pub(super) fn check_len(context: &Context<'_>, len: u64, more: u64) -> Result<(), Failure> {
    let total = len.checked_add(more);
    let fits = total.is_some_and(|total| total <= context.settings.proto_max_bulk_len);
    match fits || context.obeys() {
        true => Ok(()),
        false => Err(Failure::TOO_LONG),
    }
}
