//! Commands on lists.
//!
//! ```text
//! mod     the ends, and items by their index
//! search  items by what they are: LPOS, LREM, LINSERT
//! moves   from one list to another, from the first of several, and waiting for it
//! ```

mod moves;
mod search;
#[cfg(test)]
mod tests;

use crate::store::format::object::{ListValue, Object, Value};
use crate::store::kinds::list::{self, End};

use super::args::Args;
use super::context::{Context, Outcome};
use super::failure::Failure;
use super::settings::EventClass;
use super::table::{Command, Keys, Run};

/// The family.
pub const COMMANDS: &[Command] = &[
    list("lpush", -3, "write denyoom fast", Keys::FIRST, lpush),
    list("rpush", -3, "write denyoom fast", Keys::FIRST, rpush),
    list("lpushx", -3, "write denyoom fast", Keys::FIRST, lpushx),
    list("rpushx", -3, "write denyoom fast", Keys::FIRST, rpushx),
    list("lpop", -2, "write fast", Keys::FIRST, lpop),
    list("rpop", -2, "write fast", Keys::FIRST, rpop),
    list("llen", 2, "readonly fast", Keys::FIRST, llen),
    list("lindex", 3, "readonly", Keys::FIRST, lindex),
    list("lrange", 4, "readonly", Keys::FIRST, lrange),
    list("lset", 4, "write denyoom", Keys::FIRST, lset),
    list("ltrim", 4, "write", Keys::FIRST, ltrim),
    list("lrem", 4, "write", Keys::FIRST, search::lrem),
    list("linsert", 5, "write denyoom", Keys::FIRST, search::linsert),
    list("lpos", -3, "readonly", Keys::FIRST, search::lpos),
    list("lmove", 5, "write denyoom", Keys::FIRST_TWO, moves::lmove),
    list(
        "rpoplpush",
        3,
        "write denyoom",
        Keys::FIRST_TWO,
        moves::rpoplpush,
    ),
    list(
        "lmpop",
        -4,
        "write movablekeys",
        Keys::Counted {
            number: 1,
            store: 0,
        },
        moves::lmpop,
    ),
    waiting(
        "blpop",
        -3,
        "write noscript blocking",
        Keys::ALL_BUT_LAST,
        moves::blpop,
    ),
    waiting(
        "brpop",
        -3,
        "write noscript blocking",
        Keys::ALL_BUT_LAST,
        moves::brpop,
    ),
    waiting(
        "blmove",
        6,
        "write denyoom noscript blocking",
        Keys::FIRST_TWO,
        moves::blmove,
    ),
    waiting(
        "brpoplpush",
        4,
        "write denyoom noscript blocking",
        Keys::FIRST_TWO,
        moves::brpoplpush,
    ),
    waiting(
        "blmpop",
        -5,
        "write blocking movablekeys",
        Keys::Counted {
            number: 2,
            store: 0,
        },
        moves::blmpop,
    ),
];

const fn list(
    name: &'static str,
    arity: i8,
    flags: &'static str,
    keys: Keys,
    run: fn(&mut Context<'_>, Args<'_>) -> Outcome,
) -> Command {
    let (categories, run) = ("list", Run::Data(run));
    Command {
        name,
        arity,
        flags,
        keys,
        categories,
        run,
    }
}

const fn waiting(
    name: &'static str,
    arity: i8,
    flags: &'static str,
    keys: Keys,
    run: fn(&mut Context<'_>, Args<'_>) -> Outcome,
) -> Command {
    let (categories, run) = ("list blocking", Run::Data(run));
    Command {
        name,
        arity,
        flags,
        keys,
        categories,
        run,
    }
}

/// A list, and when its key ends.
struct Held {
    list: ListValue,
    expires_at_ms: Option<u64>,
}

impl Held {
    fn new() -> Self {
        Self {
            list: list::empty(),
            expires_at_ms: None,
        }
    }

    fn of(object: Option<Object>) -> Result<Option<Self>, Failure> {
        match object {
            None => Ok(None),
            Some(Object {
                expires_at_ms,
                value: Value::List(list),
            }) => Ok(Some(Self {
                list,
                expires_at_ms,
            })),
            Some(_) => Err(Failure::WRONG_TYPE),
        }
    }

    fn len(&self) -> u64 {
        list::len(&self.list)
    }

    /// The place of an index that may be counted from the end; nothing if there is none.
    fn place(&self, index: i64) -> Option<u64> {
        let len = self.len();
        let place = match u64::try_from(index) {
            Ok(index) => index,
            Err(_) => len.checked_sub(index.unsigned_abs())?,
        };
        (place < len).then_some(place)
    }

    /// Places `from..to` of an inclusive range of indexes.
    fn places(&self, first: i64, last: i64) -> std::ops::Range<u64> {
        let len = self.len();
        let from = match u64::try_from(first) {
            Ok(first) => first,
            Err(_) => len.saturating_sub(first.unsigned_abs()),
        };
        let to = match u64::try_from(last) {
            Ok(last) => last.saturating_add(1).min(len),
            Err(_) => (len + 1).saturating_sub(last.unsigned_abs()),
        };
        if from < to { from..to } else { 0..0 }
    }
}

fn read(context: &mut Context<'_>, key: &[u8]) -> Result<Option<Held>, Failure> {
    Held::of(context.read(key)?)
}

fn lookup(context: &mut Context<'_>, key: &[u8]) -> Result<Option<Held>, Failure> {
    Held::of(context.lookup(key)?)
}

/// Puts a list that has items.
fn put(context: &mut Context<'_>, key: &[u8], held: Held) -> Outcome {
    let Held {
        list,
        expires_at_ms,
    } = held;
    let value = Value::List(list);
    context.put(
        key,
        Object {
            expires_at_ms,
            value,
        },
    )
}

/// Puts a list that items were taken out of, and tells of that; without items it goes.
fn put_taken(context: &mut Context<'_>, key: &[u8], held: Held, event: &'static str) -> Outcome {
    let is_empty = held.len() == 0;
    if !is_empty {
        put(context, key, held)?;
    }
    context.event(EventClass::List, event, key);
    if is_empty {
        context.remove(key)?;
    }
    Ok(())
}

fn pop_event(end: End) -> &'static str {
    match end {
        End::Head => "lpop",
        End::Tail => "rpop",
    }
}

fn push_event(end: End) -> &'static str {
    match end {
        End::Head => "lpush",
        End::Tail => "rpush",
    }
}

fn length(held: &Held) -> i64 {
    i64::try_from(held.len()).unwrap_or(i64::MAX)
}

fn lpush(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    push(context, args, End::Head, true)
}

fn rpush(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    push(context, args, End::Tail, true)
}

fn lpushx(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    push(context, args, End::Head, false)
}

fn rpushx(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    push(context, args, End::Tail, false)
}

fn push(context: &mut Context<'_>, args: Args<'_>, end: End, makes_list: bool) -> Outcome {
    let key = args.at(1);
    let mut held = match lookup(context, key)? {
        Some(held) => held,
        None if makes_list => Held::new(),
        None => {
            context.reply.integer(0);
            return Ok(());
        }
    };
    let items: Vec<&[u8]> = args.from(2).collect();
    list::push(context.keyspace, &mut held.list, end, &items);
    let length = length(&held);
    put(context, key, held)?;
    context.event(EventClass::List, push_event(end), key);
    context.reply.integer(length);
    Ok(())
}

fn lpop(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    pop(context, args, "lpop", End::Head)
}

fn rpop(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    pop(context, args, "rpop", End::Tail)
}

fn pop(context: &mut Context<'_>, args: Args<'_>, name: &str, end: End) -> Outcome {
    if args.len() > 3 {
        return Err(Failure::arity(name));
    }
    let count = match args.len() {
        3 => Some(positive(args, 2)?),
        _ => None,
    };
    let key = args.at(1);
    let Some(mut held) = lookup(context, key)? else {
        match count {
            Some(_) => context.reply.null_array(),
            None => context.reply.null(),
        }
        return Ok(());
    };
    if count == Some(0) {
        context.reply.array(0);
        return Ok(());
    }
    let popped = list::pop(
        context.keyspace.rows(),
        &mut held.list,
        end,
        count.unwrap_or(1),
    )?;
    put_taken(context, key, held, pop_event(end))?;
    if count.is_some() {
        context.reply.array(popped.len());
    }
    popped.iter().for_each(|item| context.reply.bulk(item));
    Ok(())
}

/// A count that is not negative.
fn positive(args: Args<'_>, number: usize) -> Result<u64, Failure> {
    let count = args
        .integer(number)
        .ok()
        .and_then(|count| u64::try_from(count).ok());
    count.ok_or(Failure::NOT_POSITIVE)
}

fn llen(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let length = read(context, args.at(1))?.map_or(0, |held| length(&held));
    context.reply.integer(length);
    Ok(())
}

fn lindex(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let Some(held) = read(context, args.at(1))? else {
        context.reply.null();
        return Ok(());
    };
    let item = match held.place(args.integer(2)?) {
        Some(at) => list::get(context.keyspace.rows_read(), &held.list, at)?,
        None => None,
    };
    context.reply.bulk_or_null(item.as_deref());
    Ok(())
}

fn lrange(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let (first, last) = (args.integer(2)?, args.integer(3)?);
    let Some(held) = read(context, args.at(1))? else {
        context.reply.array(0);
        return Ok(());
    };
    let places = held.places(first, last);
    let rows = context.keyspace.rows_read();
    context
        .reply
        .array(usize::try_from(places.end - places.start).unwrap_or(usize::MAX));
    for item in list::items(rows, &held.list, places.start, places.end)? {
        context.reply.bulk(&item?);
    }
    Ok(())
}

fn lset(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let key = args.at(1);
    let mut held = lookup(context, key)?.ok_or(Failure::NO_SUCH_KEY)?;
    let at = held.place(args.integer(2)?).ok_or(Failure::INDEX)?;
    list::set(context.keyspace, &mut held.list, at, args.at(3));
    put(context, key, held)?;
    context.event(EventClass::List, "lset", key);
    context.reply.ok();
    Ok(())
}

fn ltrim(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let (first, last) = (args.integer(2)?, args.integer(3)?);
    let key = args.at(1);
    let Some(mut held) = lookup(context, key)? else {
        context.reply.ok();
        return Ok(());
    };
    let (places, len) = (held.places(first, last), held.len());
    list::trim(context.keyspace, &mut held.list, places.start, places.end)?;
    if held.len() == len {
        context.event(EventClass::List, "ltrim", key);
    } else {
        put_taken(context, key, held, "ltrim")?;
    }
    context.reply.ok();
    Ok(())
}
