//! From an end: of one sorted set, or of the first of several that has something; and the
//! commands that wait until there is something, which the log is told as what was done.

use crate::store::commands::any_of::{PopOfAny, wait_for_any};
use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::format::object::Kind;
use crate::store::kinds::zset::{self, Direction, Entry};

use super::{Held, element, elements_head, lookup, put_taken};

fn end_of(args: Args<'_>, number: usize) -> Result<Direction, Failure> {
    match () {
        () if args.is(number, "MIN") => Ok(Direction::Forward),
        () if args.is(number, "MAX") => Ok(Direction::Backward),
        () => Err(Failure::SYNTAX),
    }
}

fn pop_event(from: Direction) -> &'static str {
    match from {
        Direction::Forward => "zpopmin",
        Direction::Backward => "zpopmax",
    }
}

fn awaited(context: &mut Context<'_>, key: &[u8]) -> Result<Option<Held>, Failure> {
    Held::of(context.lookup_awaited(key, Kind::Zset)?)
}

/// The command that takes members from an end.
fn pop_word(from: Direction) -> &'static [u8] {
    match from {
        Direction::Forward => b"ZPOPMIN",
        Direction::Backward => b"ZPOPMAX",
    }
}

fn take(
    context: &mut Context<'_>,
    key: &[u8],
    mut held: Held,
    from: Direction,
    count: u64,
) -> Result<Vec<Entry>, Failure> {
    let taken = zset::pop(context.keyspace, &mut held.zset, from, count)?;
    put_taken(context, key, held, pop_event(from))?;
    Ok(taken)
}

pub(super) fn zpopmin(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    pop(context, args, Direction::Forward)
}

pub(super) fn zpopmax(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    pop(context, args, Direction::Backward)
}

fn pop(context: &mut Context<'_>, args: Args<'_>, from: Direction) -> Outcome {
    let count = match args.len() {
        ..=2 => None,
        3 => {
            let count = args
                .integer(2)
                .ok()
                .and_then(|count| u64::try_from(count).ok());
            Some(count.ok_or(Failure::NOT_POSITIVE)?)
        }
        _ => return Err(Failure::SYNTAX),
    };
    let key = args.at(1);
    let taken = match lookup(context, key)? {
        Some(held) if count != Some(0) => take(context, key, held, from, count.unwrap_or(1))?,
        _ => {
            context.reply.array(0);
            return Ok(());
        }
    };
    if count.is_some() {
        elements_head(context.reply, taken.len(), true);
        taken
            .iter()
            .for_each(|entry| element(context.reply, entry, true));
        return Ok(());
    }
    context.reply.array(2 * taken.len());
    for entry in &taken {
        context.reply.bulk(&entry.member);
        context.reply.double(entry.score);
    }
    Ok(())
}

pub(super) fn bzpopmin(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    pop_or_wait(context, args, Direction::Forward)
}

pub(super) fn bzpopmax(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    pop_or_wait(context, args, Direction::Backward)
}

fn pop_or_wait(context: &mut Context<'_>, args: Args<'_>, from: Direction) -> Outcome {
    let last = args.len() - 1;
    let until_ms = context.wait_until(args, last)?;
    for number in 1..last {
        let key = args.at(number);
        let Some(held) = awaited(context, key)? else {
            continue;
        };
        let taken = take(context, key, held, from, 1)?;
        context.propagate(&[pop_word(from), key]);
        context.reply.array(1 + 2 * taken.len());
        context.reply.bulk(key);
        for entry in &taken {
            context.reply.bulk(&entry.member);
            context.reply.double(entry.score);
        }
        return Ok(());
    }
    wait_for_any(context, args, 1..last, until_ms);
    Ok(())
}

pub(super) fn zmpop(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let wanted = PopOfAny::parse(args, 1, end_of)?;
    if !pop_of_any(context, args, &wanted)? {
        context.reply.null_array();
    }
    Ok(())
}

pub(super) fn bzmpop(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let wanted = PopOfAny::parse(args, 2, end_of)?;
    let until_ms = context.wait_until(args, 1)?;
    if !pop_of_any(context, args, &wanted)? {
        wait_for_any(context, args, wanted.keys, until_ms);
    }
    Ok(())
}

/// False if none of the sets is there.
fn pop_of_any(
    context: &mut Context<'_>,
    args: Args<'_>,
    wanted: &PopOfAny<Direction>,
) -> Result<bool, Failure> {
    for number in wanted.keys.clone() {
        let key = args.at(number);
        let Some(held) = awaited(context, key)? else {
            continue;
        };
        let taken = take(context, key, held, wanted.end, wanted.count)?;
        let count = taken.len().to_string();
        context.propagate(&[pop_word(wanted.end), key, count.as_bytes()]);
        context.reply.array(2);
        context.reply.bulk(key);
        context.reply.array(taken.len());
        for entry in &taken {
            context.reply.array(2);
            context.reply.bulk(&entry.member);
            context.reply.double(entry.score);
        }
        return Ok(true);
    }
    Ok(false)
}
