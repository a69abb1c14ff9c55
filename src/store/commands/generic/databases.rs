//! Databases as a whole: DBSIZE, FLUSHDB, FLUSHALL, SWAPDB.

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::keyspace::DATABASES;

pub(super) fn dbsize(context: &mut Context<'_>, _: Args<'_>) -> Outcome {
    let keys = context.keyspace.key_count(context.db);
    context
        .reply
        .integer(i64::try_from(keys).unwrap_or(i64::MAX));
    Ok(())
}

/// ASYNC or SYNC makes no difference: a database is emptied at once, and swept behind.
fn check_flush(args: Args<'_>) -> Outcome {
    match args.len() {
        1 => Ok(()),
        2 if args.is(1, "ASYNC") || args.is(1, "SYNC") => Ok(()),
        _ => Err(Failure::SYNTAX),
    }
}

pub(super) fn flushdb(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    check_flush(args)?;
    context.keyspace.flush(context.db)?;
    context.reply.ok();
    Ok(())
}

pub(super) fn flushall(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    check_flush(args)?;
    for db in 0..DATABASES {
        context.keyspace.flush(db)?;
    }
    context.reply.ok();
    Ok(())
}

pub(super) fn swapdb(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let index = |number, words| match args.integer(number) {
        Ok(index) if i32::try_from(index).is_ok() => Ok(index),
        _ => Err(Failure::words(words)),
    };
    let one = index(1, "ERR invalid first DB index")?;
    let other = index(2, "ERR invalid second DB index")?;
    let database = |index| usize::try_from(index).ok().filter(|db| *db < DATABASES);
    match (database(one), database(other)) {
        (Some(one), Some(other)) => context.keyspace.swap(one, other)?,
        _ => return Err(Failure::DATABASE),
    }
    context.reply.ok();
    Ok(())
}
