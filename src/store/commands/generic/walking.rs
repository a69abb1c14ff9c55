//! Walks over a database: KEYS, SCAN, RANDOMKEY.

use bytes::Bytes;

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::commands::scanning;
use crate::store::format::glob;
use crate::store::format::object::Object;
use crate::store::keyspace::CURSOR_BITS;

/// Keys that are looked at in one go.
const KEYS_AT_ONCE: usize = 1024;
/// Keys of one call of SCAN when nothing is said.
const COUNT_DEFAULT: usize = 10;

pub(super) fn keys(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let pattern = args.at(1);
    let (mut found, mut cursor) = (Vec::new(), 0);
    loop {
        let scanned = context.keyspace.scan(context.db, cursor, KEYS_AT_ONCE)?;
        let keys = scanned.keys.into_iter().map(|(key, _)| key);
        found.extend(keys.filter(|key| pattern == b"*" || glob::matches(pattern, key)));
        cursor = scanned.next;
        if cursor == 0 {
            break;
        }
    }
    context.reply.array(found.len());
    for key in &found {
        context.reply.bulk(key);
    }
    Ok(())
}

pub(super) fn scan(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let cursor = scanning::cursor(args.at(1))?;
    let (mut count, mut pattern, mut kind) = (COUNT_DEFAULT, None, None);
    let mut number = 2;
    while number < args.len() {
        let has_value = number + 1 < args.len();
        if args.is(number, "COUNT") && has_value {
            count = match usize::try_from(args.integer(number + 1)?) {
                Ok(count @ 1..) => count,
                _ => return Err(Failure::SYNTAX),
            };
        } else if args.is(number, "MATCH") && has_value {
            pattern = Some(args.at(number + 1)).filter(|pattern| *pattern != b"*");
        } else if args.is(number, "TYPE") && has_value {
            kind = Some(args.at(number + 1));
        } else {
            return Err(Failure::SYNTAX);
        }
        number += 2;
    }
    let wants = |(key, object): &(Bytes, Object)| {
        let name = object.value.kind().name().as_bytes();
        kind.is_none_or(|kind| kind.eq_ignore_ascii_case(name))
            && pattern.is_none_or(|pattern| glob::matches(pattern, key))
    };
    let (mut found, mut cursor, mut left) = (Vec::new(), cursor, count);
    while left > 0 {
        let part = left.min(KEYS_AT_ONCE);
        let scanned = context.keyspace.scan(context.db, cursor, part)?;
        let wanted = scanned.keys.into_iter().filter(wants);
        found.extend(wanted.map(|(key, _)| key));
        cursor = scanned.next;
        left = if cursor == 0 { 0 } else { left - part };
    }
    scanning::reply_part(context.reply, cursor, found.len());
    for key in &found {
        context.reply.bulk(key);
    }
    Ok(())
}

pub(super) fn randomkey(context: &mut Context<'_>, _: Args<'_>) -> Outcome {
    let place = fastrand::u64(..1 << CURSOR_BITS);
    let key = context.keyspace.key_near(context.db, place)?;
    context.reply.bulk_or_null(key.as_deref());
    Ok(())
}
