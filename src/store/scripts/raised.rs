//! Errors that our functions raise in a script.
//!
//! mlua raises them as values of its own; they become what Redis raises (a table with `err`,
//! or a text) where a script catches them: `pcall`, `xpcall`, `coroutine.resume`, and the
//! end of the script.

use mlua::{Lua, Table, Value};

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Raised {
    /// A table with this in `err`, code and words.
    #[error("{}", String::from_utf8_lossy(err))]
    Table {
        err: Vec<u8>,
        /// Statistics know of it already.
        is_counted: bool,
    },
    /// A text, with its place before it.
    #[error("{}", String::from_utf8_lossy(.0))]
    Text(Vec<u8>),
    /// The script is to end, whatever it catches.
    #[error("{}", String::from_utf8_lossy(.0))]
    Final(Vec<u8>),
}

impl Raised {
    /// A table of `-CODE words`, or of words that get the code ERR.
    pub(super) fn words(words: &[u8]) -> Self {
        Raised::Table {
            err: error_text(words),
            is_counted: false,
        }
    }

    /// The same, of a command that failed.
    pub(super) fn of_command(words: &[u8]) -> Self {
        Raised::Table {
            err: error_text(words),
            is_counted: true,
        }
    }

    pub(super) fn into_error(self) -> mlua::Error {
        mlua::Error::external(self)
    }

    /// As a script sees it.
    pub(super) fn into_value(self, lua: &Lua) -> mlua::Result<Value> {
        match self {
            Raised::Text(text) => lua.create_string(text).map(Value::String),
            Raised::Table { err, is_counted } => error_table(lua, &err, is_counted),
            Raised::Final(err) => error_table(lua, &err, false),
        }
    }
}

/// What was raised, as the script that catches it sees it. `is_flat` is Redis' own pcall: of
/// a table with `err`, that.
pub(super) fn settle(lua: &Lua, raised: Value, is_flat: bool) -> mlua::Result<Value> {
    let value = match raised {
        Value::Error(error) => match error.downcast_ref::<Raised>() {
            Some(last @ Raised::Final(_)) => return Err(last.clone().into_error()),
            Some(raised) => raised.clone().into_value(lua)?,
            None => Value::String(lua.create_string(plain(&error))?),
        },
        other => other,
    };
    if is_flat && let Value::Table(table) = &value {
        let err: Value = table.get("err")?;
        if matches!(err, Value::String(_) | Value::Integer(_) | Value::Number(_)) {
            return Ok(err);
        }
    }
    Ok(value)
}

/// The words of an error that is mlua's own.
fn plain(error: &mlua::Error) -> String {
    match error {
        mlua::Error::CallbackError { cause, .. } => plain(cause),
        mlua::Error::MemoryError(_) => "not enough memory".to_owned(),
        mlua::Error::RuntimeError(words) => match words.split_once("\nstack traceback:") {
            Some((words, _)) => words.to_owned(),
            None => words.clone(),
        },
        other => other.to_string(),
    }
}

pub(super) fn error_table(lua: &Lua, err: &[u8], is_counted: bool) -> mlua::Result<Value> {
    let table: Table = lua.create_table()?;
    table.raw_set("err", lua.create_string(err)?)?;
    if is_counted {
        table.raw_set("ignore_error_stats_update", true)?;
    }
    Ok(Value::Table(table))
}

/// Code and words, of `-CODE words` or of words alone.
pub(super) fn error_text(words: &[u8]) -> Vec<u8> {
    let (code, rest) = match words.strip_prefix(b"-") {
        None => (&b"ERR"[..], words),
        Some(told) => match told.iter().position(|byte| *byte == b' ') {
            None => (&b"ERR"[..], told),
            Some(at) => (&told[..at], &told[at + 1..]),
        },
    };
    [code, b" ", trimmed(rest)].concat()
}

fn trimmed(words: &[u8]) -> &[u8] {
    let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let from = words.iter().take_while(|byte| is_end(byte)).count();
    let words = &words[from..];
    let behind = words.iter().rev().take_while(|byte| is_end(byte)).count();
    &words[..words.len() - behind]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_a_code() {
        for (words, text) in [
            (&b"-WRONGTYPE no\r\n"[..], &b"WRONGTYPE no"[..]),
            (b"no such thing", b"ERR no such thing"),
            (b"-ALONE", b"ERR ALONE"),
            (b"", b"ERR "),
        ] {
            assert_eq!(error_text(words), text);
        }
    }
}
