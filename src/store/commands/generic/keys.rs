//! Whether keys are there, and that they are not any more.

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};

/// DEL and UNLINK: nothing is freed here that would take time.
pub(super) fn delete(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let mut removed = 0;
    for key in args.from(1) {
        // One that is over is gone already, and does not count.
        if context.keyspace.lookup(context.db, key)?.is_some() && context.remove(key)? {
            removed += 1;
        }
    }
    context.reply.integer(removed);
    Ok(())
}

pub(super) fn exists(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let mut found = 0;
    for key in args.from(1) {
        found += i64::from(context.peek(key)?.is_some());
    }
    context.reply.integer(found);
    Ok(())
}

/// As EXISTS, but a use of the keys.
pub(super) fn touch(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let mut found = 0;
    for key in args.from(1) {
        found += i64::from(context.read(key)?.is_some());
    }
    context.reply.integer(found);
    Ok(())
}

pub(super) fn kind(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let found = context.peek(args.at(1))?;
    let name = found.map_or("none", |object| object.value.kind().name());
    context.reply.status(name);
    Ok(())
}
