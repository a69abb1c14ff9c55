//! Keys that get another name or another database: RENAME, COPY, MOVE.

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::commands::settings::EventClass;
use crate::store::kinds::copy;

const SAME_OBJECT: Failure = Failure::words("ERR source and destination objects are the same");

pub(super) fn rename(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    rename_key(context, args.at(1), args.at(2))?;
    context.reply.ok();
    Ok(())
}

pub(super) fn renamenx(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let (from, to) = (args.at(1), args.at(2));
    if context.lookup(from)?.is_none() {
        return Err(Failure::NO_SUCH_KEY);
    }
    let is_free = from != to && context.lookup(to)?.is_none();
    if is_free {
        rename_key(context, from, to)?;
    }
    context.reply.flag(is_free);
    Ok(())
}

fn rename_key(context: &mut Context<'_>, from: &[u8], to: &[u8]) -> Outcome {
    if context.lookup(from)?.is_none() {
        return Err(Failure::NO_SUCH_KEY);
    }
    if from == to {
        return Ok(());
    }
    context.lookup(to)?;
    let db = context.db;
    context.keyspace.remove(db, to)?;
    if let Some(object) = context.keyspace.take(db, from)? {
        context.put(to, object)?;
    }
    context.event(EventClass::Generic, "rename_from", from);
    context.event(EventClass::Generic, "rename_to", to);
    Ok(())
}

pub(super) fn move_key(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let key = args.at(1);
    let to = args.database(2)?;
    if to == context.db {
        return Err(SAME_OBJECT);
    }
    let is_free = context.lookup(key)?.is_some() && context.lookup_in(to, key)?.is_none();
    if is_free && let Some(object) = context.keyspace.take(context.db, key)? {
        context.put_in(to, key, object)?;
        context.event(EventClass::Generic, "move_from", key);
        context.event_in(to, EventClass::Generic, "move_to", key);
    }
    context.reply.flag(is_free);
    Ok(())
}

pub(super) fn copy(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let (from, to) = (args.at(1), args.at(2));
    let (mut db, mut replaces) = (context.db, false);
    let mut number = 3;
    while number < args.len() {
        if args.is(number, "REPLACE") {
            replaces = true;
        } else if args.is(number, "DB") && number + 1 < args.len() {
            number += 1;
            db = args.database(number)?;
        } else {
            return Err(Failure::SYNTAX);
        }
        number += 1;
    }
    if db == context.db && from == to {
        return Err(SAME_OBJECT);
    }
    let Some(object) = context.read(from)? else {
        context.reply.flag(false);
        return Ok(());
    };
    let is_taken = context.lookup_in(db, to)?.is_some();
    if is_taken && !replaces {
        context.reply.flag(false);
        return Ok(());
    }
    let object = copy::object(context.keyspace, &object)?;
    context.keyspace.remove(db, to)?;
    context.put_in(db, to, object)?;
    context.event_in(db, EventClass::Generic, "copy_to", to);
    context.reply.flag(true);
    Ok(())
}
