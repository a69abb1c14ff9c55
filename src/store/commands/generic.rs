//! Commands on keys of any kind.

use super::args::Args;
use super::context::{Context, Outcome};
use super::table::{Command, Keys, Run};

/// The family.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "del",
        arity: -2,
        flags: "write",
        keys: Keys::ALL,
        categories: "keyspace",
        run: Run::Data(del),
    },
    Command {
        name: "exists",
        arity: -2,
        flags: "readonly fast",
        keys: Keys::ALL,
        categories: "keyspace",
        run: Run::Data(exists),
    },
    Command {
        name: "type",
        arity: 2,
        flags: "readonly fast",
        keys: Keys::FIRST,
        categories: "keyspace",
        run: Run::Data(kind),
    },
    Command {
        name: "dbsize",
        arity: 1,
        flags: "readonly fast",
        keys: Keys::None,
        categories: "keyspace",
        run: Run::Data(dbsize),
    },
];

fn del(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let mut removed = 0;
    for key in args.from(1) {
        // One that is over is gone already, and does not count.
        if context.lookup(key)?.is_some() && context.remove(key)? {
            removed += 1;
        }
    }
    context.reply.integer(removed);
    Ok(())
}

fn exists(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let mut found = 0;
    for key in args.from(1) {
        found += i64::from(context.read(key)?.is_some());
    }
    context.reply.integer(found);
    Ok(())
}

fn kind(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let found = context.keyspace.lookup(context.db, args.at(1))?;
    context
        .reply
        .status(found.map_or("none", |object| object.value.kind().name()));
    Ok(())
}

fn dbsize(context: &mut Context<'_>, _: Args<'_>) -> Outcome {
    let keys = context.keyspace.key_count(context.db);
    context
        .reply
        .integer(i64::try_from(keys).unwrap_or(i64::MAX));
    Ok(())
}
