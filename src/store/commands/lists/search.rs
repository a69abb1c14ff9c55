//! Items by what they are.

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::commands::settings::EventClass;
use crate::store::keyspace::Keyspace;
use crate::store::kinds::list;
use crate::store::rows::StoreError;

use super::{Held, length, lookup, put, put_taken, read};

/// Which items are looked for, and from which end.
#[derive(Clone, Copy)]
struct Search<'a> {
    item: &'a [u8],
    is_backward: bool,
    /// So many of them are passed over first.
    skipped: u64,
    /// So many are wanted; 0 for all.
    wanted: u64,
    /// So many items are looked at; 0 for all.
    compared_max: u64,
}

impl Search<'_> {
    /// Places, in the order in which they are found.
    fn places(&self, keyspace: &Keyspace, held: &Held) -> Result<Vec<u64>, StoreError> {
        let len = held.len();
        let compared = match self.compared_max {
            0 => len,
            max => max.min(len),
        };
        let (from, to) = match self.is_backward {
            true => (len - compared, len),
            false => (0, compared),
        };
        let mut items = list::items(keyspace.rows_read(), &held.list, from, to)?;
        let (mut places, mut passed) = (Vec::new(), 0);
        for number in 0..compared {
            let next = match self.is_backward {
                true => items.next_back(),
                false => items.next(),
            };
            let Some(item) = next.transpose()? else { break };
            if *item != *self.item {
                continue;
            }
            passed += 1;
            if passed > self.skipped {
                places.push(if self.is_backward {
                    len - 1 - number
                } else {
                    number
                });
                if places.len() as u64 == self.wanted {
                    break;
                }
            }
        }
        Ok(places)
    }
}

pub(super) fn lpos(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let (mut rank, mut count, mut compared_max) = (1_i64, None, 0);
    let mut at = 3;
    while at < args.len() {
        let has_value = at + 1 < args.len();
        if args.is(at, "RANK") && has_value {
            rank = args.integer(at + 1)?;
            if rank == 0 {
                return Err(Failure::words(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the \
                     second ... or use negative to start from the end of the list",
                ));
            }
        } else if args.is(at, "COUNT") && has_value {
            count = Some(not_negative(args, at + 1, "ERR COUNT can't be negative")?);
        } else if args.is(at, "MAXLEN") && has_value {
            compared_max = not_negative(args, at + 1, "ERR MAXLEN can't be negative")?;
        } else {
            return Err(Failure::SYNTAX);
        }
        at += 2;
    }
    let found = match read(context, args.at(1))? {
        None => Vec::new(),
        Some(held) => {
            let search = Search {
                item: args.at(2),
                is_backward: rank < 0,
                // The least number has no opposite, and Redis then takes the first.
                skipped: rank.checked_abs().map_or(0, |rank| rank.unsigned_abs() - 1),
                wanted: count.unwrap_or(1),
                compared_max,
            };
            search.places(context.keyspace, &held)?
        }
    };
    let told = |place: u64| i64::try_from(place).unwrap_or(i64::MAX);
    match (count, found.first()) {
        (Some(_), _) => {
            context.reply.array(found.len());
            found
                .iter()
                .for_each(|place| context.reply.integer(told(*place)));
        }
        (None, Some(place)) => context.reply.integer(told(*place)),
        (None, None) => context.reply.null(),
    }
    Ok(())
}

fn not_negative(args: Args<'_>, number: usize, words: &'static str) -> Result<u64, Failure> {
    let value = args
        .integer(number)
        .ok()
        .and_then(|value| u64::try_from(value).ok());
    value.ok_or(Failure::words(words))
}

pub(super) fn lrem(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let count = args.integer(2)?;
    let key = args.at(1);
    let Some(mut held) = lookup(context, key)? else {
        context.reply.integer(0);
        return Ok(());
    };
    let search = Search {
        item: args.at(3),
        is_backward: count < 0,
        skipped: 0,
        wanted: count.unsigned_abs(),
        compared_max: 0,
    };
    let mut places = search.places(context.keyspace, &held)?;
    if !places.is_empty() {
        if search.is_backward {
            places.reverse();
        }
        list::remove(context.keyspace.rows(), &mut held.list, &places)?;
        put_taken(context, key, held, "lrem")?;
    }
    context.reply.count(places.len());
    Ok(())
}

pub(super) fn linsert(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let is_after = args.is(2, "AFTER");
    if !is_after && !args.is(2, "BEFORE") {
        return Err(Failure::SYNTAX);
    }
    let key = args.at(1);
    let Some(mut held) = lookup(context, key)? else {
        context.reply.integer(0);
        return Ok(());
    };
    let search = Search {
        item: args.at(3),
        is_backward: false,
        skipped: 0,
        wanted: 1,
        compared_max: 0,
    };
    let Some(pivot) = search.places(context.keyspace, &held)?.first().copied() else {
        context.reply.integer(-1);
        return Ok(());
    };
    let at = pivot + u64::from(is_after);
    list::insert(context.keyspace, &mut held.list, at, args.at(4))?;
    let length = length(&held);
    put(context, key, held)?;
    context.event(EventClass::List, "linsert", key);
    context.reply.integer(length);
    Ok(())
}
