//! Entries by their ids.

use crate::rdb::StreamId;
use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::commands::settings::EventClass;
use crate::store::kinds::stream;

use super::{Held, ids, lookup, put_quietly, put_untold, read, tell_entry, told};

pub(super) fn xlen(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let entries = read(context, args.at(1))?.map_or(0, |held| held.stream.entries);
    context.reply.integer(told(entries));
    Ok(())
}

pub(super) fn xrange(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let (from, to) = (ids::from(args.at(2))?, ids::to(args.at(3))?);
    answer(context, args, from, to, false)
}

pub(super) fn xrevrange(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let (from, to) = (ids::from(args.at(3))?, ids::to(args.at(2))?);
    answer(context, args, from, to, true)
}

fn answer(
    context: &mut Context<'_>,
    args: Args<'_>,
    from: StreamId,
    to: StreamId,
    is_backward: bool,
) -> Outcome {
    let mut count = -1;
    let mut at = 4;
    while at < args.len() {
        if !args.is(at, "COUNT") || at + 1 >= args.len() {
            return Err(Failure::SYNTAX);
        }
        count = args.integer(at + 1)?.max(0);
        at += 2;
    }
    let Some(Held { stream, .. }) = read(context, args.at(1))? else {
        context.reply.array(0);
        return Ok(());
    };
    if count == 0 {
        context.reply.null_array();
        return Ok(());
    }
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let entries = stream::range(context.keyspace.rows_read(), &stream, from, to)?;
    let entries: Vec<_> = match is_backward {
        true => entries.rev().take(count).collect::<Result<_, _>>()?,
        false => entries.take(count).collect::<Result<_, _>>()?,
    };
    context.reply.array(entries.len());
    for entry in &entries {
        tell_entry(context.reply, entry);
    }
    Ok(())
}

pub(super) fn xdel(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let key = args.at(1);
    let Some(mut held) = lookup(context, key)? else {
        context.reply.integer(0);
        return Ok(());
    };
    let mut deleted = 0;
    for id in ids::all_from(args, 2)? {
        let outcome = stream::delete(context.keyspace.rows(), &mut held.stream, id);
        if deleted > 0 && outcome.is_err() {
            context.keyspace.note_change();
        }
        deleted += i64::from(outcome?);
    }
    if deleted > 0 {
        put_quietly(context, key, held)?;
        context.event(EventClass::Stream, "xdel", key);
    }
    context.reply.integer(deleted);
    Ok(())
}

pub(super) fn xsetid(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let id = ids::strict(args.at(2), 0)?;
    let (mut added, mut max_deleted) = (None, StreamId::MIN);
    let mut at = 3;
    while at < args.len() {
        let has_value = at + 1 < args.len();
        if args.is(at, "ENTRIESADDED") && has_value {
            let words = "ERR entries_added must be positive";
            let given = u64::try_from(args.integer(at + 1)?);
            added = Some(given.map_err(|_| Failure::words(words))?);
        } else if args.is(at, "MAXDELETEDID") && has_value {
            max_deleted = ids::strict(args.at(at + 1), 0)?;
            if id < max_deleted {
                return Err(Failure::words(
                    "ERR The ID specified in XSETID is smaller than the provided \
                     max_deleted_entry_id",
                ));
            }
        } else {
            return Err(Failure::SYNTAX);
        }
        at += 2;
    }
    let key = args.at(1);
    let mut held = lookup(context, key)?.ok_or(Failure::NO_SUCH_KEY)?;
    let stream = &mut held.stream;
    if stream.entries > 0 {
        let last = stream::last_entry(context.keyspace.rows_read(), stream)?;
        if last.is_some_and(|last| id < last.id) {
            return Err(Failure::words(
                "ERR The ID specified in XSETID is smaller than the target stream top item",
            ));
        }
        if added.is_some_and(|added| added < stream.entries) {
            return Err(Failure::words(
                "ERR The entries_added specified in XSETID is smaller than the target stream \
                 length",
            ));
        }
    }
    stream.last = id;
    stream.added = added.unwrap_or(stream.added);
    // 0-0 is as if it was not given.
    if max_deleted != StreamId::MIN {
        stream.max_deleted = max_deleted;
    }
    put_untold(context, key, held)?;
    context.event(EventClass::Stream, "xsetid", key);
    context.reply.ok();
    Ok(())
}
