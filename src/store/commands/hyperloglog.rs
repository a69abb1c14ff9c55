//! PFADD, PFCOUNT, PFMERGE, PFDEBUG.

use crate::store::format::object::{Object, StringValue, Value, Written};
use crate::store::kinds::hll::{self, Corrupted, Encoding, HyperLogLog, REGISTERS};
use crate::store::kinds::string;

use super::args::Args;
use super::context::{Context, Outcome};
use super::failure::Failure;
use super::settings::EventClass;
use super::strings::string_of;
use super::table::{Command, Keys, Run};

/// The family.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "pfadd",
        arity: -2,
        flags: "write denyoom fast",
        keys: Keys::FIRST,
        categories: "hyperloglog",
        run: Run::Data(pfadd),
    },
    Command {
        name: "pfcount",
        arity: -2,
        flags: "readonly",
        keys: Keys::ALL,
        categories: "hyperloglog",
        run: Run::Data(pfcount),
    },
    Command {
        name: "pfmerge",
        arity: -2,
        flags: "write denyoom",
        keys: Keys::ALL,
        categories: "hyperloglog",
        run: Run::Data(pfmerge),
    },
    Command {
        name: "pfdebug",
        arity: 3,
        flags: "write denyoom admin",
        keys: Keys::Range {
            first: 2,
            last: 2,
            step: 1,
        },
        categories: "hyperloglog admin dangerous",
        run: Run::Data(pfdebug),
    },
];

impl From<Corrupted> for Failure {
    fn from(_: Corrupted) -> Self {
        Failure::words("INVALIDOBJ Corrupted HLL object detected")
    }
}

/// One of a key.
struct Found {
    expires_at_ms: Option<u64>,
    written: Written,
    hll: HyperLogLog,
}

fn hll_of(context: &mut Context<'_>, object: Object) -> Result<Found, Failure> {
    let (expires_at_ms, value) = string_of(object)?;
    let bytes = string::read_all(context.keyspace.rows(), &value)?;
    let hll = HyperLogLog::from_bytes(&bytes).ok_or(Failure::words(
        "WRONGTYPE Key is not a valid HyperLogLog string value.",
    ))?;
    Ok(Found {
        expires_at_ms,
        written: value.written,
        hll,
    })
}

fn read(context: &mut Context<'_>, key: &[u8]) -> Result<Option<Found>, Failure> {
    let object = context.read(key)?;
    object.map(|object| hll_of(context, object)).transpose()
}

fn object_of(context: &mut Context<'_>, found: &Found) -> Object {
    let bytes = found.hll.as_bytes();
    let value: StringValue = string::store(context.keyspace, bytes, Written::Pieces);
    Object {
        expires_at_ms: found.expires_at_ms,
        value: Value::String(value),
    }
}

fn put(context: &mut Context<'_>, key: &[u8], found: &Found) -> Outcome {
    let object = object_of(context, found);
    context.put(key, object)
}

fn pfadd(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let key = args.at(1);
    let object = context.lookup(key)?;
    let mut is_changed = object.is_none();
    let found = object.map(|object| hll_of(context, object)).transpose()?;
    let mut found = found.unwrap_or_else(Found::new);
    for element in args.from(2) {
        match found
            .hll
            .add(element, context.settings.hll_sparse_max_bytes)
        {
            Ok(is_grown) => is_changed |= is_grown,
            Err(corrupted) => {
                // What was counted before stays, as in Redis.
                if is_changed {
                    put(context, key, &found)?;
                }
                return Err(corrupted.into());
            }
        }
    }
    if is_changed {
        found.hll.forget_count();
        put(context, key, &found)?;
        context.event(EventClass::String, "pfadd", key);
    } else {
        unshare(context, key, &found)?;
    }
    context.reply.flag(is_changed);
    Ok(())
}

impl Found {
    fn new() -> Self {
        Self {
            expires_at_ms: None,
            written: Written::Pieces,
            hll: HyperLogLog::new(),
        }
    }
}

/// A string that was looked into is raw from then on.
fn unshare(context: &mut Context<'_>, key: &[u8], found: &Found) -> Outcome {
    if found.written != Written::Pieces {
        let object = object_of(context, found);
        context.keyspace.put_untold(context.db, key, object)?;
    }
    Ok(())
}

fn pfcount(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    if args.len() > 2 {
        let mut all = Box::new([0; REGISTERS]);
        for key in args.from(1) {
            if let Some(found) = read(context, key)? {
                found.hll.merge_into(&mut all)?;
            }
        }
        reply_count(context, hll::count(&all));
        return Ok(());
    }
    let key = args.at(1);
    let Some(mut found) = read(context, key)? else {
        context.reply.integer(0);
        return Ok(());
    };
    // What a replica's own clients ask changes nothing there.
    let may_keep = context.is_master() || context.obeys();
    let count = match found.hll.known_count() {
        Some(count) => {
            if may_keep {
                unshare(context, key, &found)?;
            }
            count
        }
        None => {
            let count = found.hll.count()?;
            if may_keep {
                found.hll.keep_count(count);
                put(context, key, &found)?;
            }
            count
        }
    };
    reply_count(context, count);
    Ok(())
}

fn reply_count(context: &mut Context<'_>, count: u64) {
    context.reply.integer(count as i64);
}

fn pfmerge(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let key = args.at(1);
    let mut all = Box::new([0; REGISTERS]);
    let mut is_dense = false;
    for source in args.from(1) {
        if let Some(found) = read(context, source)? {
            is_dense |= found.hll.encoding() == Encoding::Dense;
            found.hll.merge_into(&mut all)?;
        }
    }
    let object = context.lookup(key)?;
    let found = object.map(|object| hll_of(context, object)).transpose()?;
    let mut found = found.unwrap_or_else(Found::new);
    if is_dense {
        found.hll.make_dense()?;
    }
    for (index, value) in all.iter().enumerate().filter(|(_, value)| **value > 0) {
        let sparse_bytes_max = context.settings.hll_sparse_max_bytes;
        found.hll.raise(index, *value, sparse_bytes_max)?;
    }
    found.hll.forget_count();
    put(context, key, &found)?;
    context.event(EventClass::String, "pfadd", key);
    context.reply.ok();
    Ok(())
}

fn pfdebug(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let key = args.at(2);
    let object = context.lookup(key)?;
    let object = object.ok_or(Failure::words("ERR The specified key does not exist"))?;
    let mut found = hll_of(context, object)?;
    let is_sparse = found.hll.encoding() == Encoding::Sparse;
    let name = args.at(1).to_ascii_lowercase();
    let is_known = matches!(&name[..], b"getreg" | b"decode" | b"encoding" | b"todense");
    if is_known && args.len() != 3 {
        return Err(Failure::quoting(
            "ERR Wrong number of arguments for the '",
            args.at(1),
            "' subcommand",
        ));
    }
    match &name[..] {
        b"getreg" | b"todense" => {
            if is_sparse {
                found.hll.make_dense()?;
                put(context, key, &found)?;
            }
            if name == b"todense" {
                context.reply.flag(is_sparse);
                return Ok(());
            }
            let registers = found.hll.registers()?;
            context.reply.array(registers.len());
            for register in registers.iter() {
                context.reply.integer(i64::from(*register));
            }
        }
        b"decode" if !is_sparse => {
            return Err(Failure::words("ERR HLL encoding is not sparse"));
        }
        b"decode" => context.reply.bulk(found.hll.runs_text().as_bytes()),
        b"encoding" => context
            .reply
            .status(if is_sparse { "sparse" } else { "dense" }),
        _ => {
            let word = args.at(1);
            return Err(Failure::quoting(
                "ERR Unknown PFDEBUG subcommand '",
                word,
                "'",
            ));
        }
    }
    Ok(())
}
