//! OBJECT: how a value is kept, in Redis' words.

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::format::object::{Object, Value};
use crate::store::kinds::{encoding, string};

/// Integers that Redis keeps once for all keys.
const SHARED_INTEGERS: std::ops::Range<i64> = 0..10_000;

const HELP: &[&str] = &[
    "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "ENCODING <key>",
    "    Return the kind of internal representation used in order to store the value",
    "    associated with a <key>.",
    "FREQ <key>",
    "    Return the access frequency index of the <key>. The returned integer is",
    "    proportional to the logarithm of the recent access frequency of the key.",
    "IDLETIME <key>",
    "    Return the idle time of the <key>, that is the approximated number of",
    "    seconds elapsed since the last access to the key.",
    "REFCOUNT <key>",
    "    Return the number of references of the value associated with the specified",
    "    <key>.",
    "HELP",
    "    Prints this help.",
];

/// Answers for a key and its object.
type Tell = fn(&mut Context<'_>, &[u8], &Object) -> Outcome;

pub(super) fn object(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let name = args.at(1).to_ascii_lowercase();
    let (wanted, tell): (usize, Tell) = match &name[..] {
        b"help" => (2, |_, _, _| Ok(())),
        b"encoding" => (3, tell_encoding),
        b"refcount" => (3, tell_refcount),
        b"idletime" => (3, tell_idletime),
        b"freq" => (3, tell_freq),
        _ => {
            return Err(Failure::quoting(
                "ERR unknown subcommand '",
                args.at(1),
                "'. Try OBJECT HELP.",
            ));
        }
    };
    if args.len() != wanted {
        let name = String::from_utf8_lossy(&name).into_owned();
        return Err(Failure::arity(&format!("object|{name}")));
    }
    if wanted == 2 {
        context.reply.array(HELP.len());
        for line in HELP {
            context.reply.status(line);
        }
        return Ok(());
    }
    match context.keyspace.peek(context.db, args.at(2))? {
        None => context.reply.null(),
        Some(object) => tell(context, args.at(2), &object)?,
    }
    Ok(())
}

fn tell_encoding(context: &mut Context<'_>, _: &[u8], object: &Object) -> Outcome {
    context.reply.bulk(encoding(&object.value).as_bytes());
    Ok(())
}

fn tell_refcount(context: &mut Context<'_>, _: &[u8], object: &Object) -> Outcome {
    let int = match &object.value {
        Value::String(value) => string::as_int(value),
        _ => None,
    };
    let is_shared = int.is_some_and(|int| SHARED_INTEGERS.contains(&int));
    context
        .reply
        .integer(if is_shared { i32::MAX.into() } else { 1 });
    Ok(())
}

fn tell_idletime(context: &mut Context<'_>, key: &[u8], _: &Object) -> Outcome {
    if context.settings.is_lfu {
        return Err(Failure::words(
            "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that \
             when switching between policies at runtime LRU and LFU data will take some time to \
             adjust.",
        ));
    }
    let idle = context.keyspace.idle_seconds(context.db, key);
    context
        .reply
        .integer(i64::try_from(idle).unwrap_or(i64::MAX));
    Ok(())
}

fn tell_freq(context: &mut Context<'_>, key: &[u8], _: &Object) -> Outcome {
    if !context.settings.is_lfu {
        return Err(Failure::words(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please \
             note that when switching between policies at runtime LRU and LFU data will take \
             some time to adjust.",
        ));
    }
    let frequency = context.keyspace.frequency(context.db, key);
    context.reply.integer(frequency.into());
    Ok(())
}
