//! SET and its kin: a string as a whole, and when it ends.

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::commands::settings::EventClass;
use crate::store::format::numbers::parse_integer;
use crate::store::format::object::{Object, Value, Written};
use crate::store::kinds::string;

use super::reading::get_value;
use super::{read_string, reading};

/// A time to live as it was written.
#[derive(Clone, Copy, Debug)]
struct Expire<'a> {
    text: &'a [u8],
    is_seconds: bool,
    is_absolute: bool,
}

/// Whether the key must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Only {
    Always,
    IfMissing,
    IfThere,
}

/// What is done with a key's time to live.
#[derive(Clone, Copy, Debug)]
enum Ttl<'a> {
    Unsaid,
    Keep,
    Persist,
    Set(Expire<'a>),
}

struct Options<'a> {
    only: Only,
    gets: bool,
    ttl: Ttl<'a>,
}

/// Options of SET and GETEX stand behind its value and its key.
fn options(args: Args<'_>, is_set: bool) -> Result<Options<'_>, Failure> {
    let mut options = Options {
        only: Only::Always,
        gets: false,
        ttl: Ttl::Unsaid,
    };
    let mut number = if is_set { 3 } else { 2 };
    while number < args.len() {
        let expire = [
            ("EX", true, false),
            ("PX", false, false),
            ("EXAT", true, true),
            ("PXAT", false, true),
        ]
        .into_iter()
        .find(|(word, ..)| args.is(number, word));
        if is_set && args.is(number, "NX") && options.only != Only::IfThere {
            options.only = Only::IfMissing;
        } else if is_set && args.is(number, "XX") && options.only != Only::IfMissing {
            options.only = Only::IfThere;
        } else if is_set && args.is(number, "GET") {
            options.gets = true;
        } else if is_set && args.is(number, "KEEPTTL") {
            match options.ttl {
                Ttl::Unsaid | Ttl::Keep => options.ttl = Ttl::Keep,
                _ => return Err(Failure::SYNTAX),
            }
        } else if !is_set && args.is(number, "PERSIST") {
            match options.ttl {
                Ttl::Unsaid | Ttl::Persist => options.ttl = Ttl::Persist,
                _ => return Err(Failure::SYNTAX),
            }
        } else if let Some((_, is_seconds, is_absolute)) = expire
            && let Some(text) = args.get(number + 1)
        {
            let said = Expire {
                text,
                is_seconds,
                is_absolute,
            };
            match options.ttl {
                Ttl::Unsaid => {}
                // The same word again: the last one counts.
                Ttl::Set(before)
                    if (before.is_seconds, before.is_absolute) == (is_seconds, is_absolute) => {}
                _ => return Err(Failure::SYNTAX),
            }
            options.ttl = Ttl::Set(said);
            number += 1;
        } else {
            return Err(Failure::SYNTAX);
        }
        number += 1;
    }
    Ok(options)
}

/// When a key ends, Unix ms.
fn expires_at(context: &Context<'_>, expire: Expire<'_>, command: &str) -> Result<u64, Failure> {
    let value = parse_integer(expire.text).ok_or(Failure::NOT_INTEGER)?;
    let refused = || Failure::expire_time(command);
    let value = u64::try_from(value)
        .ok()
        .filter(|value| *value > 0)
        .ok_or_else(refused)?;
    let factor = if expire.is_seconds { 1000 } else { 1 };
    let base = if expire.is_absolute {
        0
    } else {
        context.now_ms()
    };
    value
        .checked_mul(factor)
        .filter(|ms| i64::try_from(*ms).is_ok())
        .and_then(|ms| ms.checked_add(base))
        .filter(|ms| i64::try_from(*ms).is_ok())
        .ok_or_else(refused)
}

pub(super) fn set(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let (key, value) = (args.at(1), args.at(2));
    if args.len() == 3 {
        context.put_text(key, value)?;
        context.event(EventClass::String, "set", key);
        context.reply.ok();
        return Ok(());
    }
    let options = options(args, true)?;
    let at = match options.ttl {
        Ttl::Set(expire) => Some(expires_at(context, expire, "set")?),
        _ => None,
    };
    if options.gets {
        get_value(context, key)?;
    }
    let found = context.lookup(key)?;
    let is_wanted = match options.only {
        Only::Always => true,
        Only::IfMissing => found.is_none(),
        Only::IfThere => found.is_some(),
    };
    if !is_wanted {
        if !options.gets {
            context.reply.null();
        }
        return Ok(());
    }
    let expires_at_ms = match options.ttl {
        Ttl::Keep => found.and_then(|found| found.expires_at_ms),
        _ => at,
    };
    put_text(context, key, value, expires_at_ms)?;
    if let Some(at) = at {
        tell_set_until(context, key, value, at);
    } else if options.gets {
        let others = args
            .from(3)
            .filter(|word| !word.eq_ignore_ascii_case(b"GET"));
        let words: Vec<&[u8]> = [b"SET", key, value].into_iter().chain(others).collect();
        context.propagate(&words);
    }
    if !options.gets {
        context.reply.ok();
    }
    Ok(())
}

/// Puts a string as a whole and tells of it.
fn put_text(
    context: &mut Context<'_>,
    key: &[u8],
    value: &[u8],
    expires_at_ms: Option<u64>,
) -> Outcome {
    let value = string::store(context.keyspace, value, Written::Whole);
    let value = Value::String(value);
    context.put(
        key,
        Object {
            expires_at_ms,
            value,
        },
    )?;
    context.event(EventClass::String, "set", key);
    Ok(())
}

fn tell_set_until(context: &mut Context<'_>, key: &[u8], value: &[u8], at: u64) {
    context.event(EventClass::Generic, "expire", key);
    let at = at.to_string();
    context.propagate(&[b"SET", key, value, b"PXAT", at.as_bytes()]);
}

pub(super) fn setnx(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let key = args.at(1);
    let is_new = context.lookup(key)?.is_none();
    if is_new {
        put_text(context, key, args.at(2), None)?;
    }
    context.reply.flag(is_new);
    Ok(())
}

pub(super) fn setex(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    set_until(context, args, "setex")
}

pub(super) fn psetex(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    set_until(context, args, "psetex")
}

fn set_until(context: &mut Context<'_>, args: Args<'_>, command: &str) -> Outcome {
    let expire = Expire {
        text: args.at(2),
        is_seconds: command == "setex",
        is_absolute: false,
    };
    let (key, value) = (args.at(1), args.at(3));
    let at = expires_at(context, expire, command)?;
    context.lookup(key)?;
    put_text(context, key, value, Some(at))?;
    tell_set_until(context, key, value, at);
    context.reply.ok();
    Ok(())
}

pub(super) fn getset(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let (key, value) = (args.at(1), args.at(2));
    get_value(context, key)?;
    context.lookup(key)?;
    put_text(context, key, value, None)?;
    context.propagate(&[b"SET", key, value]);
    Ok(())
}

pub(super) fn getdel(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let key = args.at(1);
    if get_value(context, key)?.is_some() && context.remove(key)? {
        context.propagate(&[b"DEL", key]);
    }
    Ok(())
}

pub(super) fn getex(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let key = args.at(1);
    let options = options(args, false)?;
    let Some(value) = read_string(context, key)? else {
        context.reply.null();
        return Ok(());
    };
    let set = match options.ttl {
        Ttl::Set(expire) => Some((expires_at(context, expire, "getex")?, expire.is_absolute)),
        _ => None,
    };
    reading::reply(context, &value)?;
    match (set, options.ttl) {
        (Some((at, true)), _) if at <= context.now_ms() && context.is_master() => {
            context.remove(key)?;
            context.propagate(&[context.word_of_end(), key]);
        }
        (Some((at, _)), _) => {
            context.keyspace.set_expiry_of(context.db, key, Some(at))?;
            context.event(EventClass::Generic, "expire", key);
            context.propagate(&[b"PEXPIREAT", key, at.to_string().as_bytes()]);
        }
        (None, Ttl::Persist) => {
            let found = context.lookup(key)?;
            if found.is_some_and(|found| found.expires_at_ms.is_some()) {
                context.keyspace.set_expiry_of(context.db, key, None)?;
                context.event(EventClass::Generic, "persist", key);
                context.propagate(&[b"PERSIST", key]);
            }
        }
        _ => {}
    }
    Ok(())
}

pub(super) fn mset(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    set_all(context, args)?;
    context.reply.ok();
    Ok(())
}

pub(super) fn msetnx(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    if args.len().is_multiple_of(2) {
        return Err(Failure::arity("msetnx"));
    }
    for key in args.from(1).step_by(2) {
        if context.lookup(key)?.is_some() {
            context.reply.flag(false);
            return Ok(());
        }
    }
    set_all(context, args)?;
    context.reply.flag(true);
    Ok(())
}

fn set_all(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    if args.len().is_multiple_of(2) {
        return Err(Failure::arity("mset"));
    }
    for key in args.from(1).step_by(2) {
        context.lookup(key)?;
    }
    for (key, value) in args.from(1).step_by(2).zip(args.from(2).step_by(2)) {
        context.put_text(key, value)?;
        context.event(EventClass::String, "set", key);
    }
    Ok(())
}
