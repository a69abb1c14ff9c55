//! Strings that are changed in place: APPEND, SETRANGE, counters.

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::commands::settings::EventClass;
use crate::store::format::long_double::{self, LongDouble};
use crate::store::format::numbers::parse_integer;
use crate::store::format::object::{Object, StringStored, StringValue, Value, Written};
use crate::store::kinds::string;

use super::{check_len, lookup_string};

/// Puts a string that keeps its time to live, and tells of it.
fn put(
    context: &mut Context<'_>,
    key: &[u8],
    expires_at_ms: Option<u64>,
    string: StringValue,
    event: &'static str,
) -> Outcome {
    let value = Value::String(string);
    context.put(
        key,
        Object {
            expires_at_ms,
            value,
        },
    )?;
    context.event(EventClass::String, event, key);
    Ok(())
}

fn reply_len(context: &mut Context<'_>, len: u64) {
    context
        .reply
        .integer(i64::try_from(len).unwrap_or(i64::MAX));
}

pub(super) fn append(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let (key, more) = (args.at(1), args.at(2));
    let (expires_at_ms, new) = match lookup_string(context, key)? {
        None => (None, string::store(context.keyspace, more, Written::Whole)),
        Some((expires_at_ms, old)) => {
            check_len(context, old.len(), more.len() as u64)?;
            let new = string::write(context.keyspace, &old, old.len(), more)?;
            (expires_at_ms, new)
        }
    };
    let len = new.len();
    put(context, key, expires_at_ms, new, "append")?;
    reply_len(context, len);
    Ok(())
}

pub(super) fn setrange(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let (key, bytes) = (args.at(1), args.at(3));
    let at = u64::try_from(args.integer(2)?)
        .map_err(|_| Failure::words("ERR offset is out of range"))?;
    let (expires_at_ms, old) =
        lookup_string(context, key)?.unwrap_or_else(|| (None, StringValue::empty()));
    if bytes.is_empty() {
        reply_len(context, old.len());
        return Ok(());
    }
    check_len(context, at, bytes.len() as u64)?;
    let new = string::write(context.keyspace, &old, at, bytes)?;
    let len = new.len();
    put(context, key, expires_at_ms, new, "setrange")?;
    reply_len(context, len);
    Ok(())
}

pub(super) fn incr(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    add(context, args.at(1), 1)
}

pub(super) fn decr(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    add(context, args.at(1), -1)
}

pub(super) fn incrby(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let addend = args.integer(2)?;
    add(context, args.at(1), addend)
}

pub(super) fn decrby(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let addend = args.integer(2)?.checked_neg();
    let addend = addend.ok_or(Failure::words("ERR decrement would overflow"))?;
    add(context, args.at(1), addend)
}

fn add(context: &mut Context<'_>, key: &[u8], addend: i64) -> Outcome {
    let (expires_at_ms, old) = match lookup_string(context, key)? {
        None => (None, 0),
        Some((expires_at_ms, old)) => {
            let value = whole(&old).and_then(parse_integer);
            (expires_at_ms, value.ok_or(Failure::NOT_INTEGER)?)
        }
    };
    let sum = old.checked_add(addend).ok_or(Failure::OVERFLOW)?;
    let new = StringValue::whole(sum.to_string().into());
    put(context, key, expires_at_ms, new, "incrby")?;
    context.reply.integer(sum);
    Ok(())
}

/// The bytes of a string that is short enough to be a number.
fn whole(string: &StringValue) -> Option<&[u8]> {
    match &string.stored {
        StringStored::Whole(bytes) => Some(bytes),
        StringStored::Chunks { .. } => None,
    }
}

pub(super) fn incrbyfloat(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let key = args.at(1);
    let (expires_at_ms, old) = match lookup_string(context, key)? {
        None => (None, Some(LongDouble::ZERO)),
        Some((expires_at_ms, old)) => (expires_at_ms, whole(&old).and_then(long_double::parse)),
    };
    let old = old.ok_or(Failure::NOT_FLOAT)?;
    let addend = long_double::parse(args.at(2)).ok_or(Failure::NOT_FLOAT)?;
    let sum = old.plus(addend).ok_or(Failure::words(
        "ERR increment would produce NaN or Infinity",
    ))?;
    let text = sum.text();
    let new = string::store(context.keyspace, text.as_bytes(), Written::Text);
    put(context, key, expires_at_ms, new, "incrbyfloat")?;
    context.reply.bulk(text.as_bytes());
    context.propagate(&[b"SET", key, text.as_bytes(), b"KEEPTTL"]);
    Ok(())
}
