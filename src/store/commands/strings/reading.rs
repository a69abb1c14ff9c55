//! GET, MGET, STRLEN, GETRANGE.

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::commands::settings::EventClass;
use crate::store::format::object::{StringStored, StringValue, Value};
use crate::store::kinds::string;

use super::read_string;

/// GET. What it found.
pub(super) fn get_value(
    context: &mut Context<'_>,
    key: &[u8],
) -> Result<Option<StringValue>, Failure> {
    let found = read_string(context, key)?;
    match &found {
        None => context.reply.null(),
        Some(string) => reply(context, string)?,
    }
    Ok(found)
}

/// A string as a reply.
pub(super) fn reply(context: &mut Context<'_>, value: &StringValue) -> Outcome {
    match &value.stored {
        StringStored::Whole(bytes) => context.reply.bulk(bytes),
        StringStored::Chunks { .. } => {
            let bytes = string::read_all(context.keyspace.rows(), value)?;
            context.reply.bulk(&bytes);
        }
    }
    Ok(())
}

pub(super) fn get(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let key = args.at(1);
    let Some(object) = context.keyspace.read_here(context.db, key)? else {
        context.event(EventClass::Miss, "keymiss", key);
        context.reply.null();
        return Ok(());
    };
    match &object.value {
        Value::String(string) => match &string.stored {
            StringStored::Whole(bytes) => context.reply.bulk(bytes),
            StringStored::Chunks { .. } => {
                let string = string.clone();
                reply(context, &string)?;
            }
        },
        _ => return Err(Failure::WRONG_TYPE),
    }
    Ok(())
}

pub(super) fn mget(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    context.reply.array(args.len() - 1);
    for key in args.from(1) {
        match context.read(key)?.map(|object| object.value) {
            Some(Value::String(string)) => reply(context, &string)?,
            _ => context.reply.null(),
        }
    }
    Ok(())
}

pub(super) fn strlen(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let len = read_string(context, args.at(1))?.map_or(0, |string| string.len());
    context
        .reply
        .integer(i64::try_from(len).unwrap_or(i64::MAX));
    Ok(())
}

pub(super) fn getrange(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let (first, last) = (args.integer(2)?, args.integer(3)?);
    let Some(value) = read_string(context, args.at(1))? else {
        context.reply.bulk(b"");
        return Ok(());
    };
    let (from, to) = range_of(first, last, value.len());
    let bytes = string::read(context.keyspace.rows(), &value, from, to)?;
    context.reply.bulk(&bytes);
    Ok(())
}

/// Indexes of a first and a last byte, negative ones from the end, as `from..to`.
fn range_of(first: i64, last: i64, len: u64) -> (u64, u64) {
    if first < 0 && last < 0 && first > last {
        return (0, 0);
    }
    let placed = |index: i64| match u64::try_from(index) {
        Ok(index) => index,
        Err(_) => len.saturating_sub(index.unsigned_abs()),
    };
    let (from, last) = (placed(first), placed(last).min(len.saturating_sub(1)));
    match from > last || len == 0 {
        true => (0, 0),
        false => (from, last + 1),
    }
}
