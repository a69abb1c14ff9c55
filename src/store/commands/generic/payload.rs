//! DUMP, and RESTORE of what any server dumped.

use crate::rdb::{RawValue, decode, split_dump_payload, write_dump_payload};
use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::commands::settings::{EventClass, Settings};
use crate::store::format::object::{Object, Value};
use crate::store::keyspace::Keyspace;
use crate::store::kinds::build::{BuildError, BuildLimits, Building};
use crate::store::kinds::hash::HashLimits;
use crate::store::kinds::set::SetLimits;
use crate::store::kinds::{plain, zset};
use crate::store::rows::{Rows, StoreError};

const BAD_FORMAT: Failure = Failure::words("ERR Bad data format");

pub(super) fn dump(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let Some(object) = context.read(args.at(1))? else {
        context.reply.null();
        return Ok(());
    };
    let payload = payload_of(context.keyspace.rows_read(), &object.value)?;
    context.reply.bulk(&payload);
    Ok(())
}

/// A value as DUMP tells it.
///
/// # Errors
/// [`Failure`] of the store.
pub fn payload_of(rows: &Rows, value: &Value) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    // It is one reply: nothing can be handed on before all of it is there.
    let keep = &mut |_: &mut Vec<u8>| Ok::<(), StoreError>(());
    plain::write(rows, value, &mut bytes, keep)?;
    let raw = RawValue {
        type_id: plain::type_of(rows, value)?,
        bytes: &bytes,
    };
    let mut payload = Vec::new();
    write_dump_payload(&mut payload, &raw).map_err(|_| BAD_FORMAT)?;
    Ok(payload)
}

struct Options {
    replaces: bool,
    is_absolute: bool,
    idle_seconds: Option<i64>,
    frequency: Option<u8>,
}

impl Options {
    fn parse(args: Args<'_>) -> Result<Self, Failure> {
        let mut options = Self {
            replaces: false,
            is_absolute: false,
            idle_seconds: None,
            frequency: None,
        };
        let mut number = 4;
        while number < args.len() {
            let has_value = number + 1 < args.len();
            if args.is(number, "REPLACE") {
                options.replaces = true;
            } else if args.is(number, "ABSTTL") {
                options.is_absolute = true;
            } else if args.is(number, "IDLETIME") && has_value && options.frequency.is_none() {
                number += 1;
                let idle = args.integer(number)?;
                if idle < 0 {
                    return Err(Failure::words("ERR Invalid IDLETIME value, must be >= 0"));
                }
                options.idle_seconds = Some(idle);
            } else if args.is(number, "FREQ") && has_value && options.idle_seconds.is_none() {
                number += 1;
                let frequency = u8::try_from(args.integer(number)?);
                options.frequency = Some(frequency.map_err(|_| {
                    Failure::words("ERR Invalid FREQ value, must be >= 0 and <= 255")
                })?);
            } else {
                return Err(Failure::SYNTAX);
            }
            number += 1;
        }
        Ok(options)
    }
}

pub(super) fn restore(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let key = args.at(1);
    let options = Options::parse(args)?;
    let was_there = context.lookup(key)?.is_some();
    if was_there && !options.replaces {
        return Err(Failure::words("BUSYKEY Target key name already exists."));
    }
    let ttl = u64::try_from(args.integer(2)?)
        .map_err(|_| Failure::words("ERR Invalid TTL value, must be >= 0"))?;
    let (raw, _) = split_dump_payload(args.at(3))
        .map_err(|_| Failure::words("ERR DUMP payload version or checksum are wrong"))?;
    let value = load(context.keyspace, context.settings, &raw)?;
    let now_ms = context.now_ms();
    let expires_at_ms = match (ttl, options.is_absolute) {
        (0, _) => None,
        (at, true) => Some(at),
        // Beyond the end of time Redis' sum is below 0, which is over.
        (ttl, false) => Some(ttl + now_ms)
            .filter(|at| i64::try_from(*at).is_ok())
            .or(Some(0)),
    };
    context.keyspace.remove(context.db, key)?;
    if expires_at_ms.is_some_and(|at| at <= now_ms) && context.is_master() {
        if was_there {
            context.event(EventClass::Generic, "del", key);
            context.propagate(&[b"DEL", key]);
        }
        context.keyspace.bury(&value);
        context.reply.ok();
        return Ok(());
    }
    let object = Object {
        expires_at_ms,
        value,
    };
    context.put(key, object)?;
    if let Some(idle) = options.idle_seconds {
        let db = context.db;
        context.keyspace.set_idle_seconds(db, key, idle);
    }
    if let Some(frequency) = options.frequency {
        let db = context.db;
        context.keyspace.set_frequency(db, key, frequency);
    }
    if let Some(at) = expires_at_ms
        && !options.is_absolute
    {
        let at = at.to_string();
        let mut words: Vec<&[u8]> = args.from(0).collect();
        if let Some(ttl) = words.get_mut(2) {
            *ttl = at.as_bytes();
        }
        words.push(b"ABSTTL");
        context.propagate(&words);
    }
    context.event(EventClass::Generic, "restore", key);
    context.reply.ok();
    Ok(())
}

fn limits(settings: &Settings) -> BuildLimits {
    BuildLimits {
        hash: HashLimits {
            entries_max: settings.hash_max_listpack_entries,
            bytes_max: settings.hash_max_listpack_value,
        },
        set: SetLimits {
            intset_entries_max: settings.set_max_intset_entries,
        },
        zset: zset::Limits {
            members: settings.zset_max_listpack_entries,
            member_bytes: settings.zset_max_listpack_value,
        },
    }
}

fn load(
    keyspace: &mut Keyspace,
    settings: &Settings,
    raw: &RawValue<'_>,
) -> Result<Value, Failure> {
    let mut building = Building::new(raw.type_id.kind(), limits(settings)).map_err(failure)?;
    let mut refused = None;
    let decoded = decode(raw, &mut |element| {
        if refused.is_none() {
            refused = building.push(keyspace, &element).err();
        }
    });
    match (decoded, refused) {
        (Ok(()), None) => building.finish(keyspace).ok_or(BAD_FORMAT),
        (_, refused) => {
            building.abandon(keyspace);
            Err(refused.map_or(BAD_FORMAT, failure))
        }
    }
}

fn failure(error: BuildError) -> Failure {
    match error {
        BuildError::Store(error) => Failure::Store(error),
        BuildError::Elements => BAD_FORMAT,
        other => Failure::text(format!("ERR Bad data format: {other}")),
    }
}
