//! Random members: SPOP and SRANDMEMBER.
//!
//! The log is not told of chance: SPOP goes into it as the SREM or DEL that it came to.

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::drawing::Count;
use crate::store::commands::failure::Failure;
use crate::store::commands::settings::EventClass;
use crate::store::kinds::set::{self, SetBuilder};
use crate::store::kinds::{Drawn, Element};

use super::{Edit, limits, read, tell_all};

/// Members of one SREM that the log is told.
const TOLD_MEMBERS_MAX: usize = 1024;
/// Redis moves what is left into a new set if so many times as much is taken: a set that
/// was none may be an intset then.
const REBUILT_IF_LEFT_TIMES: u64 = 5;

pub(super) fn spop(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    match args.len() {
        2 => pop_one(context, args.at(1)),
        3 => pop_many(context, args),
        _ => Err(Failure::SYNTAX),
    }
}

fn pop_one(context: &mut Context<'_>, key: &[u8]) -> Outcome {
    let mut edit = Edit::open(context, key)?;
    let drawn = set::draw(context.keyspace.rows(), &edit.set, 1, Drawn::Repeated)?.pop();
    let Some(Element { member, .. }) = drawn else {
        context.reply.null();
        return Ok(());
    };
    edit.remove(context, &member)?;
    context.event(EventClass::Set, "spop", key);
    edit.keep_or_remove(context)?;
    context.propagate(&[b"SREM", key, &member]);
    context.reply.bulk(&member);
    Ok(())
}

fn pop_many(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let key = args.at(1);
    let count = args.integer(2).map_err(|_| Failure::NOT_POSITIVE)?;
    let count = u64::try_from(count).map_err(|_| Failure::NOT_POSITIVE)?;
    let mut edit = Edit::open(context, key)?;
    let len = set::len(&edit.set);
    if len == 0 || count == 0 {
        context.reply.set(0);
        return Ok(());
    }
    if count >= len {
        tell_all(context, Some(&edit.set))?;
        context.event(EventClass::Set, "spop", key);
        context.remove(key)?;
        context.propagate(&[b"DEL", key]);
        return Ok(());
    }
    let wanted = usize::try_from(count).unwrap_or(usize::MAX);
    let drawn = set::draw(context.keyspace.rows(), &edit.set, wanted, Drawn::Distinct)?;
    context.reply.set(drawn.len());
    for element in &drawn {
        context.reply.bulk(&element.member);
        edit.remove(context, &element.member)?;
    }
    context.event(EventClass::Set, "spop", key);
    if (len - count).saturating_mul(REBUILT_IF_LEFT_TIMES) <= count {
        rebuild(context, &mut edit)?;
    }
    edit.keep(context)?;
    for part in drawn.chunks(TOLD_MEMBERS_MAX) {
        let mut words: Vec<&[u8]> = vec![b"SREM", key];
        words.extend(part.iter().map(|element| &*element.member));
        context.propagate(&words);
    }
    Ok(())
}

/// Puts the few that are left into a set of their own.
fn rebuild(context: &mut Context<'_>, edit: &mut Edit<'_>) -> Outcome {
    let left = set::iter(context.keyspace.rows(), &edit.set);
    let left = left.and_then(|left| left.collect::<Result<Vec<Element>, _>>());
    let left = match left {
        Ok(left) => left,
        Err(error) => return edit.noted(context, Err(error.into())).map(drop),
    };
    let mut builder = SetBuilder::new(limits(context.settings));
    for element in &left {
        let pushed = builder.push(context.keyspace, &element.member);
        edit.noted(context, pushed.map_err(Failure::from))?;
    }
    edit.set = builder.finish();
    Ok(())
}

pub(super) fn srandmember(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    match args.len() {
        2 => {
            let drawn = match read(context, args.at(1))? {
                None => None,
                Some(set) => set::draw(context.keyspace.rows(), &set, 1, Drawn::Repeated)?.pop(),
            };
            let member = drawn.as_ref().map(|element| &*element.member);
            context.reply.bulk_or_null(member);
            Ok(())
        }
        3 => draw_many(context, args),
        _ => Err(Failure::SYNTAX),
    }
}

fn draw_many(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let count = Count::parse(args, 2)?;
    let Some(set) = read(context, args.at(1))? else {
        context.reply.array(0);
        return Ok(());
    };
    let drawn = count.of(set::len(&set))?;
    context.reply.array(drawn);
    for batch in count.batches(drawn) {
        for element in set::draw(context.keyspace.rows(), &set, batch, count.drawn)? {
            context.reply.bulk(&element.member);
        }
    }
    Ok(())
}
