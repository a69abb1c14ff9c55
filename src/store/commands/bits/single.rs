//! SETBIT, GETBIT.

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::commands::strings::read_string;
use crate::store::format::object::StringValue;
use crate::store::kinds::string;

use super::{Changing, bit_offset, tell_setbit};

pub(super) fn setbit(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let key = args.at(1);
    let offset = bit_offset(context, args.at(2), None)?;
    let is_on = match args.integer(3) {
        Ok(0) => false,
        Ok(1) => true,
        _ => return Err(Failure::words("ERR bit is not an integer or out of range")),
    };
    let (at, mask) = (offset >> 3, 0x80 >> (offset & 7));
    let mut changing = Changing::begin(context, key, at + 1)?;
    let byte = byte_at(context, &changing.string, at)?;
    let was_on = byte & mask != 0;
    if was_on != is_on {
        changing.write(context, at, &[byte ^ mask])?;
    }
    let is_changed = changing.is_grown || was_on != is_on;
    changing.finish(context, key, is_changed)?;
    if is_changed {
        tell_setbit(context, key);
    }
    context.reply.flag(was_on);
    Ok(())
}

fn byte_at(context: &mut Context<'_>, value: &StringValue, at: u64) -> Result<u8, Failure> {
    let found = string::read(context.keyspace.rows(), value, at, at + 1)?;
    Ok(found.first().copied().unwrap_or(0))
}

pub(super) fn getbit(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let offset = bit_offset(context, args.at(2), None)?;
    let byte = match read_string(context, args.at(1))? {
        None => 0,
        Some(value) => byte_at(context, &value, offset >> 3)?,
    };
    context.reply.flag(byte & (0x80 >> (offset & 7)) != 0);
    Ok(())
}
