//! What was given to consumers and is not acknowledged: XACK, XPENDING.

use crate::rdb::StreamId;
use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::format::object::StreamValue;
use crate::store::kinds::stream::{self, Group, Membership, Pending};
use crate::store::rows::{Rows, StoreError};

use super::{changing, group_of, ids, no_group, now_ms, read, tell_id, told};

pub(super) fn xack(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let held = read(context, args.at(1))?;
    let Some((held, group)) = group_of(context, held, args.at(2))? else {
        context.reply.integer(0);
        return Ok(());
    };
    let ids = ids::all_from(args, 3)?;
    let acknowledged = take(context, &held.stream, group, &ids);
    let acknowledged = changing(context, acknowledged)?;
    context.reply.integer(acknowledged);
    Ok(())
}

/// How many of these were pending, and are not any more.
fn take(
    context: &mut Context<'_>,
    stream: &StreamValue,
    group: Group,
    ids: &[StreamId],
) -> Result<i64, Failure> {
    let mut open = Membership::open(group);
    let rows = context.keyspace.rows();
    let mut taken = 0;
    for id in ids {
        if let Some(pending) = open.pending(rows, stream, *id)? {
            open.take(rows, stream, &pending)?;
            taken += 1;
        }
    }
    if taken > 0 {
        open.put(rows, stream);
        context.keyspace.note_change();
    }
    Ok(taken)
}

/// What is asked for, in the long form.
struct Wanted {
    from: StreamId,
    to: StreamId,
    count: usize,
    idle_ms: i64,
    /// Number of the argument that names a consumer.
    consumer: Option<usize>,
}

impl Wanted {
    fn parse(args: Args<'_>) -> Result<Self, Failure> {
        let (mut at, mut idle_ms) = (3, 0);
        if args.is(3, "IDLE") {
            idle_ms = args.integer(4)?;
            if args.len() < 8 {
                return Err(Failure::SYNTAX);
            }
            at = 5;
        }
        let count = usize::try_from(args.integer(at + 2)?).unwrap_or(0);
        let from = ids::from(args.at(at))?;
        let to = ids::to(args.at(at + 1))?;
        Ok(Self {
            from,
            to,
            count,
            idle_ms,
            consumer: (at + 3 < args.len()).then_some(at + 3),
        })
    }
}

pub(super) fn xpending(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let wanted = match args.len() {
        3 => None,
        6..=9 => Some(Wanted::parse(args)?),
        _ => return Err(Failure::SYNTAX),
    };
    let held = read(context, args.at(1))?;
    let found = group_of(context, held, args.at(2))?;
    let (held, group) = found.ok_or_else(|| no_group(args.at(1), args.at(2)))?;
    match wanted {
        None => summary(context, &held.stream, &group),
        Some(wanted) => list(context, args, &held.stream, &group, &wanted),
    }
}

fn summary(context: &mut Context<'_>, stream: &StreamValue, group: &Group) -> Outcome {
    let reply = &mut *context.reply;
    reply.array(4);
    reply.integer(told(group.pending));
    if group.pending == 0 {
        reply.null();
        reply.null();
        reply.null_array();
        return Ok(());
    }
    let rows = context.keyspace.rows_read();
    let all = || stream::pending_between(rows, stream, group, StreamId::MIN, StreamId::MAX);
    let (first, last) = (all()?.next().transpose()?, all()?.next_back().transpose()?);
    for end in [first, last] {
        match end {
            Some(pending) => tell_id(reply, pending.id),
            None => reply.null(),
        }
    }
    let mut consumers = stream::consumers(rows, stream, group)?;
    consumers.retain(|consumer| consumer.pending > 0);
    reply.array(consumers.len());
    for consumer in &consumers {
        reply.array(2);
        reply.bulk(&consumer.name);
        reply.bulk(consumer.pending.to_string().as_bytes());
    }
    Ok(())
}

fn list(
    context: &mut Context<'_>,
    args: Args<'_>,
    stream: &StreamValue,
    group: &Group,
    wanted: &Wanted,
) -> Outcome {
    let now_ms = now_ms(context);
    let rows = context.keyspace.rows_read();
    let (from, to) = (wanted.from, wanted.to);
    let fits = |pending: &Result<Pending, StoreError>| {
        let Ok(pending) = pending else {
            return true;
        };
        wanted.idle_ms == 0 || now_ms.saturating_sub(pending.delivered_ms) >= wanted.idle_ms
    };
    let found: Result<Vec<_>, _> = match wanted.consumer {
        None => stream::pending_between(rows, stream, group, from, to)?
            .filter(fits)
            .take(wanted.count)
            .collect(),
        Some(number) => {
            let Some(consumer) = stream::consumer(rows, stream, group, args.at(number))? else {
                context.reply.array(0);
                return Ok(());
            };
            stream::owned_between(rows, stream, group, &consumer, from, to)?
                .filter_map(|id| pending_of(rows, stream, group, id).transpose())
                .filter(fits)
                .take(wanted.count)
                .collect()
        }
    };
    let found = found?;
    context.reply.array(found.len());
    for pending in &found {
        let reply = &mut *context.reply;
        reply.array(4);
        tell_id(reply, pending.id);
        reply.bulk(&pending.consumer);
        reply.integer(now_ms.saturating_sub(pending.delivered_ms).max(0));
        reply.integer(told(pending.times));
    }
    Ok(())
}

fn pending_of(
    rows: &Rows,
    stream: &StreamValue,
    group: &Group,
    id: Result<StreamId, StoreError>,
) -> Result<Option<Pending>, StoreError> {
    stream::pending(rows, stream, group, id?)
}
