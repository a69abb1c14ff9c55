//! XINFO.

use crate::rdb::StreamId;
use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::commands::reply::Reply;
use crate::store::format::object::StreamValue;
use crate::store::kinds::stream::{self, Consumer, Group, lag};
use crate::store::rows::Rows;

use super::groups::wrong;
use super::{Held, no_group_of, now_ms, read, tell_entry, tell_id, told};

/// Entries and pending ones that FULL tells, if nothing is said.
const COUNT_DEFAULT: i64 = 10;

pub(super) fn xinfo(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    if args.len() < 3 {
        return Err(wrong("XINFO", args));
    }
    let Some(Held { stream, .. }) = read(context, args.at(2))? else {
        return Err(Failure::NO_SUCH_KEY);
    };
    if args.is(1, "CONSUMERS") && args.len() == 4 {
        consumers(context, args, &stream)
    } else if args.is(1, "GROUPS") && args.len() == 3 {
        groups(context, &stream)
    } else if args.is(1, "STREAM") {
        match full_count(args)? {
            None => short(context, &stream),
            Some(count) => full(context, &stream, count),
        }
    } else {
        Err(wrong("XINFO", args))
    }
}

/// How much FULL tells. Nothing if the short form is asked for.
fn full_count(args: Args<'_>) -> Result<Option<usize>, Failure> {
    let count = match args.len() {
        3 => return Ok(None),
        4 if args.is(3, "FULL") => COUNT_DEFAULT,
        6 if args.is(3, "FULL") && args.is(4, "COUNT") => args.integer(5)?,
        _ => return Err(wrong("XINFO", args)),
    };
    let count = if count < 0 { COUNT_DEFAULT } else { count };
    Ok(Some(match usize::try_from(count) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(count) => count,
    }))
}

fn named(reply: &mut Reply, name: &str, number: u64) {
    reply.bulk(name.as_bytes());
    reply.integer(told(number));
}

fn named_id(reply: &mut Reply, name: &str, id: StreamId) {
    reply.bulk(name.as_bytes());
    tell_id(reply, id);
}

fn number_or_null(reply: &mut Reply, name: &str, number: Option<i64>) {
    reply.bulk(name.as_bytes());
    match number {
        Some(number) => reply.integer(number),
        None => reply.null(),
    }
}

/// What both forms tell. There is no tree: its keys are as many as nodes would be.
fn head(context: &mut Context<'_>, stream: &StreamValue) {
    let nodes = context.settings.stream_node_max_entries.max(1);
    let nodes = stream.entries.div_ceil(nodes);
    let reply = &mut *context.reply;
    named(reply, "length", stream.entries);
    named(reply, "radix-tree-keys", nodes);
    named(reply, "radix-tree-nodes", nodes + 1);
    named_id(reply, "last-generated-id", stream.last);
    named_id(reply, "max-deleted-entry-id", stream.max_deleted);
    named(reply, "entries-added", stream.added);
    named_id(reply, "recorded-first-entry-id", stream.first);
}

fn short(context: &mut Context<'_>, stream: &StreamValue) -> Outcome {
    context.reply.map(10);
    head(context, stream);
    let rows = context.keyspace.rows_read();
    let first = stream::range(rows, stream, StreamId::MIN, StreamId::MAX)?.next();
    let (first, last) = (first.transpose()?, stream::last_entry(rows, stream)?);
    named(context.reply, "groups", stream.groups);
    for (name, entry) in [("first-entry", first), ("last-entry", last)] {
        context.reply.bulk(name.as_bytes());
        match &entry {
            Some(entry) => tell_entry(context.reply, entry),
            None => context.reply.null(),
        }
    }
    Ok(())
}

fn full(context: &mut Context<'_>, stream: &StreamValue, count: usize) -> Outcome {
    context.reply.map(9);
    head(context, stream);
    let rows = context.keyspace.rows_read();
    let entries = stream::range(rows, stream, StreamId::MIN, StreamId::MAX)?;
    let entries = entries.take(count).collect::<Result<Vec<_>, _>>()?;
    let reply = &mut *context.reply;
    reply.bulk(b"entries");
    reply.array(entries.len());
    for entry in &entries {
        tell_entry(reply, entry);
    }
    let groups = stream::groups(rows, stream)?;
    reply.bulk(b"groups");
    reply.array(groups.len());
    for group in &groups {
        reply.map(7);
        reply.bulk(b"name");
        reply.bulk(&group.name);
        progress(reply, stream, group);
        full_pending(reply, rows, stream, group, count)?;
        let consumers = stream::consumers(rows, stream, group)?;
        reply.bulk(b"consumers");
        reply.array(consumers.len());
        for consumer in &consumers {
            full_consumer(reply, rows, stream, (group, consumer), count)?;
        }
    }
    Ok(())
}

fn progress(reply: &mut Reply, stream: &StreamValue, group: &Group) {
    named_id(reply, "last-delivered-id", group.last);
    let read = group.entries_read.map(|read| read as i64);
    number_or_null(reply, "entries-read", read);
    number_or_null(reply, "lag", lag(stream, group));
}

fn full_pending(
    reply: &mut Reply,
    rows: &Rows,
    stream: &StreamValue,
    group: &Group,
    count: usize,
) -> Outcome {
    named(reply, "pel-count", group.pending);
    let (from, to) = (StreamId::MIN, StreamId::MAX);
    let pending = stream::pending_between(rows, stream, group, from, to)?.take(count);
    let pending = pending.collect::<Result<Vec<_>, _>>()?;
    reply.bulk(b"pending");
    reply.array(pending.len());
    for pending in &pending {
        reply.array(4);
        tell_id(reply, pending.id);
        reply.bulk(&pending.consumer);
        reply.integer(pending.delivered_ms);
        reply.integer(told(pending.times));
    }
    Ok(())
}

fn full_consumer(
    reply: &mut Reply,
    rows: &Rows,
    stream: &StreamValue,
    (group, consumer): (&Group, &Consumer),
    count: usize,
) -> Outcome {
    reply.map(4);
    reply.bulk(b"name");
    reply.bulk(&consumer.name);
    reply.bulk(b"seen-time");
    reply.integer(consumer.seen_ms);
    named(reply, "pel-count", consumer.pending);
    let (from, to) = (StreamId::MIN, StreamId::MAX);
    let owned = stream::owned_between(rows, stream, group, consumer, from, to)?.take(count);
    let mut pending = Vec::new();
    for id in owned {
        pending.extend(stream::pending(rows, stream, group, id?)?);
    }
    reply.bulk(b"pending");
    reply.array(pending.len());
    for pending in &pending {
        reply.array(3);
        tell_id(reply, pending.id);
        reply.integer(pending.delivered_ms);
        reply.integer(told(pending.times));
    }
    Ok(())
}

fn groups(context: &mut Context<'_>, stream: &StreamValue) -> Outcome {
    let groups = stream::groups(context.keyspace.rows_read(), stream)?;
    let reply = &mut *context.reply;
    reply.array(groups.len());
    for group in &groups {
        reply.map(6);
        reply.bulk(b"name");
        reply.bulk(&group.name);
        named(reply, "consumers", group.consumers);
        named(reply, "pending", group.pending);
        progress(reply, stream, group);
    }
    Ok(())
}

fn consumers(context: &mut Context<'_>, args: Args<'_>, stream: &StreamValue) -> Outcome {
    let rows = context.keyspace.rows_read();
    let group = stream::group(rows, stream, args.at(3))?;
    let group = group.ok_or_else(|| no_group_of(args.at(2), args.at(3)))?;
    let consumers = stream::consumers(rows, stream, &group)?;
    let now_ms = now_ms(context);
    let reply = &mut *context.reply;
    reply.array(consumers.len());
    for consumer in &consumers {
        reply.map(3);
        reply.bulk(b"name");
        reply.bulk(&consumer.name);
        named(reply, "pending", consumer.pending);
        reply.bulk(b"idle");
        reply.integer(now_ms.saturating_sub(consumer.seen_ms).max(0));
    }
    Ok(())
}
