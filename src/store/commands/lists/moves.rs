//! From one list to another, or out of the first of several that has something; and the
//! commands that wait until there is something.
//!
//! What waits is told to the log as what was done in the end: LPOP, LMOVE, RPOPLPUSH.

use bytes::Bytes;

use crate::store::commands::any_of::{PopOfAny, wait_for_any};
use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, OnTimeout, Outcome, Wait};
use crate::store::commands::failure::Failure;
use crate::store::commands::settings::EventClass;
use crate::store::format::object::Kind;
use crate::store::kinds::list::{self, End};

use super::{Held, lookup, pop_event, push_event, put, put_taken};

fn end_of(args: Args<'_>, number: usize) -> Result<End, Failure> {
    match () {
        () if args.is(number, "LEFT") => Ok(End::Head),
        () if args.is(number, "RIGHT") => Ok(End::Tail),
        () => Err(Failure::SYNTAX),
    }
}

fn awaited(context: &mut Context<'_>, key: &[u8]) -> Result<Option<Held>, Failure> {
    Held::of(context.lookup_awaited(key, Kind::List)?)
}

/// The command that takes items from an end.
fn pop_word(end: End) -> &'static [u8] {
    match end {
        End::Head => b"LPOP",
        End::Tail => b"RPOP",
    }
}

pub(super) fn lmove(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let ends = (end_of(args, 3)?, end_of(args, 4)?);
    if !move_item(context, args, ends)? {
        context.reply.null();
    }
    Ok(())
}

pub(super) fn rpoplpush(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    if !move_item(context, args, (End::Tail, End::Head))? {
        context.reply.null();
    }
    Ok(())
}

pub(super) fn blmove(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let ends = (end_of(args, 3)?, end_of(args, 4)?);
    let until_ms = context.wait_until(args, 5)?;
    if move_item(context, args, ends)? {
        context.propagate(&[b"LMOVE", args.at(1), args.at(2), args.at(3), args.at(4)]);
    } else {
        wait_for_source(context, args, until_ms);
    }
    Ok(())
}

pub(super) fn brpoplpush(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let until_ms = context.wait_until(args, 3)?;
    if move_item(context, args, (End::Tail, End::Head))? {
        context.propagate(&[b"RPOPLPUSH", args.at(1), args.at(2)]);
    } else {
        wait_for_source(context, args, until_ms);
    }
    Ok(())
}

fn wait_for_source(context: &mut Context<'_>, args: Args<'_>, until_ms: Option<u64>) {
    if !context.may_wait() {
        return context.reply.null();
    }
    context.wait = Some(Wait {
        keys: vec![Bytes::copy_from_slice(args.at(1))],
        until_ms,
        on_timeout: OnTimeout::NullArray,
        again_as: None,
        ends_with_key: false,
    });
}

/// Moves an item from the list at 1 to the one at 2; false if there is none.
fn move_item(
    context: &mut Context<'_>,
    args: Args<'_>,
    (from, to): (End, End),
) -> Result<bool, Failure> {
    let (source, target) = (args.at(1), args.at(2));
    let Some(mut held) = awaited(context, source)? else {
        return Ok(false);
    };
    let other = match source == target {
        true => None,
        false => Some(lookup(context, target)?.unwrap_or_else(Held::new)),
    };
    let popped = list::pop(context.keyspace.rows(), &mut held.list, from, 1)?;
    let Some(item) = popped.first() else {
        return Ok(false);
    };
    match other {
        None => {
            list::push(context.keyspace, &mut held.list, to, &[item]);
            put(context, source, held)?;
            context.event(EventClass::List, push_event(to), target);
            context.event(EventClass::List, pop_event(from), source);
        }
        Some(mut other) => {
            list::push(context.keyspace, &mut other.list, to, &[item]);
            put(context, target, other)?;
            context.event(EventClass::List, push_event(to), target);
            put_taken(context, source, held, pop_event(from))?;
        }
    }
    context.reply.bulk(item);
    Ok(true)
}

pub(super) fn blpop(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    pop_or_wait(context, args, End::Head)
}

pub(super) fn brpop(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    pop_or_wait(context, args, End::Tail)
}

fn pop_or_wait(context: &mut Context<'_>, args: Args<'_>, end: End) -> Outcome {
    let last = args.len() - 1;
    let until_ms = context.wait_until(args, last)?;
    for number in 1..last {
        let key = args.at(number);
        let Some(mut held) = awaited(context, key)? else {
            continue;
        };
        let popped = list::pop(context.keyspace.rows(), &mut held.list, end, 1)?;
        put_taken(context, key, held, pop_event(end))?;
        context.propagate(&[pop_word(end), key]);
        context.reply.array(2);
        context.reply.bulk(key);
        popped.iter().for_each(|item| context.reply.bulk(item));
        return Ok(());
    }
    wait_for_any(context, args, 1..last, until_ms);
    Ok(())
}

pub(super) fn lmpop(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let wanted = PopOfAny::parse(args, 1, end_of)?;
    if !pop_of_any(context, args, &wanted)? {
        context.reply.null_array();
    }
    Ok(())
}

pub(super) fn blmpop(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let wanted = PopOfAny::parse(args, 2, end_of)?;
    let until_ms = context.wait_until(args, 1)?;
    if !pop_of_any(context, args, &wanted)? {
        wait_for_any(context, args, wanted.keys, until_ms);
    }
    Ok(())
}

/// False if none of the lists is there.
fn pop_of_any(
    context: &mut Context<'_>,
    args: Args<'_>,
    wanted: &PopOfAny<End>,
) -> Result<bool, Failure> {
    for number in wanted.keys.clone() {
        let key = args.at(number);
        let Some(mut held) = awaited(context, key)? else {
            continue;
        };
        let rows = context.keyspace.rows();
        let popped = list::pop(rows, &mut held.list, wanted.end, wanted.count)?;
        put_taken(context, key, held, pop_event(wanted.end))?;
        let count = popped.len().to_string();
        context.propagate(&[pop_word(wanted.end), key, count.as_bytes()]);
        context.reply.array(2);
        context.reply.bulk(key);
        context.reply.array(popped.len());
        popped.iter().for_each(|item| context.reply.bulk(item));
        return Ok(true);
    }
    Ok(false)
}
