//! Commands on strings.

use bytes::Bytes;

use crate::store::format::object::{Object, StringStored, Value};

use super::args::Args;
use super::context::{Context, Outcome};
use super::failure::Failure;
use super::settings::EventClass;
use super::table::{Command, Keys, Run};

/// The family.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "get",
        arity: 2,
        flags: "readonly fast",
        keys: Keys::FIRST,
        categories: "string",
        run: Run::Data(get),
    },
    Command {
        name: "set",
        arity: -3,
        flags: "write denyoom",
        keys: Keys::FIRST,
        categories: "string",
        run: Run::Data(set),
    },
];

fn get(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    match context.read(args.at(1))? {
        None => context.reply.null(),
        Some(Object {
            value: Value::String(string),
            ..
        }) => match &string.stored {
            StringStored::Whole(bytes) => context.reply.bulk(bytes),
            StringStored::Chunks { .. } => return Err(Failure::WRONG_TYPE),
        },
        Some(_) => return Err(Failure::WRONG_TYPE),
    }
    Ok(())
}

fn set(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let key = args.at(1);
    context.lookup(key)?;
    let value = Value::string(Bytes::copy_from_slice(args.at(2)));
    context.put(key, Object::lasting(value))?;
    context.event(EventClass::String, "set", key);
    context.reply.ok();
    Ok(())
}
