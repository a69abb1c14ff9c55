//! BITOP.

use bytes::Bytes;

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::commands::settings::EventClass;
use crate::store::commands::strings::read_string;
use crate::store::format::object::{Object, Value, Written};
use crate::store::kinds::string;

pub(super) fn bitop(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let combine: fn(&mut u8, u8) = match args.at(1).to_ascii_uppercase().as_slice() {
        b"AND" => |byte, other| *byte &= other,
        b"OR" => |byte, other| *byte |= other,
        b"XOR" => |byte, other| *byte ^= other,
        b"NOT" if args.len() != 4 => {
            return Err(Failure::words(
                "ERR BITOP NOT must be called with a single source key.",
            ));
        }
        b"NOT" => |_, _| {},
        _ => return Err(Failure::SYNTAX),
    };
    let target = args.at(2);
    let mut sources = Vec::with_capacity(args.len() - 3);
    for key in args.from(3) {
        sources.push(match read_string(context, key)? {
            None => Bytes::new(),
            Some(value) => string::read_all(context.keyspace.rows(), &value)?,
        });
    }
    let len = sources.iter().map(Bytes::len).max().unwrap_or(0);
    context.lookup(target)?;
    if len == 0 {
        context.remove(target)?;
    } else {
        let mut result = vec![0; len];
        let (first, others) = sources.split_first().unwrap_or((&EMPTY, &[]));
        if let Some(start) = result.get_mut(..first.len()) {
            start.copy_from_slice(first);
        }
        for other in others {
            let padded = other.iter().copied().chain(std::iter::repeat(0));
            for (byte, other) in result.iter_mut().zip(padded) {
                combine(byte, other);
            }
        }
        if args.is(1, "NOT") {
            for byte in &mut result {
                *byte = !*byte;
            }
        }
        let result = string::store(context.keyspace, &result, Written::Pieces);
        context.put(target, Object::lasting(Value::String(result)))?;
        context.event(EventClass::String, "set", target);
    }
    context.reply.count(len);
    Ok(())
}

static EMPTY: Bytes = Bytes::new();
