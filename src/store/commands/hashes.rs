//! Commands on hashes.

use bytes::Bytes;

use crate::store::format::long_double;
use crate::store::format::numbers::parse_integer;
use crate::store::format::object::{Collection, Object, Value};
use crate::store::kinds::hash::{self, HashLimits};
use crate::store::kinds::{Drawn, Element};

use super::args::Args;
use super::context::{Context, Outcome};
use super::drawing::Count;
use super::failure::Failure;
use super::reply::Reply;
use super::scanning::{self, ScanOptions};
use super::settings::{EventClass, Settings};
use super::table::{Command, Keys, Run};

type Handler = fn(&mut Context<'_>, Args<'_>) -> Outcome;

const fn command(name: &'static str, arity: i8, flags: &'static str, run: Handler) -> Command {
    Command {
        name,
        arity,
        flags,
        keys: Keys::FIRST,
        categories: "hash",
        run: Run::Data(run),
    }
}

/// The family.
pub const COMMANDS: &[Command] = &[
    command("hdel", -3, "write fast", hdel),
    command("hexists", 3, "readonly fast", hexists),
    command("hget", 3, "readonly fast", hget),
    command("hgetall", 2, "readonly", hgetall),
    command("hincrby", 4, "write denyoom fast", hincrby),
    command("hincrbyfloat", 4, "write denyoom fast", hincrbyfloat),
    command("hkeys", 2, "readonly", hkeys),
    command("hlen", 2, "readonly fast", hlen),
    command("hmget", -3, "readonly fast", hmget),
    command("hmset", -4, "write denyoom fast", hmset),
    command("hrandfield", -2, "readonly", hrandfield),
    command("hscan", -3, "readonly", hscan),
    command("hset", -4, "write denyoom fast", hset),
    command("hsetnx", 4, "write denyoom fast", hsetnx),
    command("hstrlen", 3, "readonly fast", hstrlen),
    command("hvals", 2, "readonly", hvals),
];

fn limits(settings: &Settings) -> HashLimits {
    HashLimits {
        entries_max: settings.hash_max_listpack_entries,
        bytes_max: settings.hash_max_listpack_value,
    }
}

fn hash_of(object: Object) -> Result<Collection, Failure> {
    match object.value {
        Value::Hash(hash) => Ok(hash),
        _ => Err(Failure::WRONG_TYPE),
    }
}

fn read(context: &mut Context<'_>, key: &[u8]) -> Result<Option<Collection>, Failure> {
    context.read(key)?.map(hash_of).transpose()
}

/// A hash that is being changed.
struct Edit<'k> {
    key: &'k [u8],
    expires_at_ms: Option<u64>,
    /// As it was; `None` of a key that was not there.
    before: Option<Collection>,
    hash: Collection,
    has_changed: bool,
}

impl<'k> Edit<'k> {
    /// The hash of a key, an empty one if there is none.
    fn open(context: &mut Context<'_>, key: &'k [u8]) -> Result<Self, Failure> {
        let found = context.lookup(key)?;
        let expires_at_ms = found.as_ref().and_then(|object| object.expires_at_ms);
        let before = found.map(hash_of).transpose()?;
        Ok(Self {
            key,
            expires_at_ms,
            hash: before.clone().unwrap_or_else(hash::empty),
            before,
            has_changed: false,
        })
    }

    fn get(&self, context: &mut Context<'_>, field: &[u8]) -> Result<Option<Bytes>, Failure> {
        Ok(hash::get(context.keyspace.rows(), &self.hash, field)?)
    }

    /// True if the field is new.
    fn set(
        &mut self,
        context: &mut Context<'_>,
        field: &[u8],
        value: &[u8],
    ) -> Result<bool, Failure> {
        let limits = limits(context.settings);
        let outcome = hash::set(context.keyspace, &mut self.hash, field, value, limits);
        let is_new = self.noted(context, outcome)?;
        self.has_changed = true;
        Ok(is_new)
    }

    fn remove(&mut self, context: &mut Context<'_>, field: &[u8]) -> Result<bool, Failure> {
        let outcome = hash::remove(context.keyspace, &mut self.hash, field);
        let was_there = self.noted(context, outcome)?;
        self.has_changed |= was_there;
        Ok(was_there)
    }

    /// An error behind a change leaves rows that the meta row does not know: that is told
    /// as a change, so that nothing more is written.
    fn noted<T, E: Into<Failure>>(
        &self,
        context: &mut Context<'_>,
        outcome: Result<T, E>,
    ) -> Result<T, Failure> {
        if outcome.is_err() && self.has_changed {
            context.keyspace.touch(context.db, self.key);
        }
        outcome.map_err(Into::into)
    }

    /// Puts the meta row if it is another one.
    fn keep(self, context: &mut Context<'_>) -> Outcome {
        if self.before.as_ref() == Some(&self.hash) {
            context.keyspace.touch(context.db, self.key);
            return Ok(());
        }
        let object = Object {
            expires_at_ms: self.expires_at_ms,
            value: Value::Hash(self.hash),
        };
        context.put(self.key, object)
    }
}

fn hset(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let created = set_pairs(context, args, "hset")?;
    context.reply.integer(created);
    Ok(())
}

fn hmset(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    set_pairs(context, args, "hmset")?;
    context.reply.ok();
    Ok(())
}

/// How many fields are new.
fn set_pairs(context: &mut Context<'_>, args: Args<'_>, name: &str) -> Result<i64, Failure> {
    if args.len() % 2 == 1 {
        return Err(Failure::arity(name));
    }
    let key = args.at(1);
    let mut edit = Edit::open(context, key)?;
    let mut created = 0;
    for at in (2..args.len()).step_by(2) {
        created += i64::from(edit.set(context, args.at(at), args.at(at + 1))?);
    }
    edit.keep(context)?;
    context.event(EventClass::Hash, "hset", key);
    Ok(created)
}

fn hsetnx(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let (key, field) = (args.at(1), args.at(2));
    let mut edit = Edit::open(context, key)?;
    if edit.get(context, field)?.is_some() {
        context.reply.integer(0);
        return Ok(());
    }
    edit.set(context, field, args.at(3))?;
    edit.keep(context)?;
    context.event(EventClass::Hash, "hset", key);
    context.reply.integer(1);
    Ok(())
}

fn hincrby(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let (key, field) = (args.at(1), args.at(2));
    let by = args.integer(3)?;
    let mut edit = Edit::open(context, key)?;
    let old = match edit.get(context, field)? {
        None => 0,
        Some(text) => {
            parse_integer(&text).ok_or(Failure::words("ERR hash value is not an integer"))?
        }
    };
    let sum = old.checked_add(by).ok_or(Failure::OVERFLOW)?;
    edit.set(context, field, sum.to_string().as_bytes())?;
    edit.keep(context)?;
    context.event(EventClass::Hash, "hincrby", key);
    context.reply.integer(sum);
    Ok(())
}

fn hincrbyfloat(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let (key, field) = (args.at(1), args.at(2));
    let by = long_double::parse(args.at(3)).ok_or(Failure::NOT_FLOAT)?;
    if by.is_infinite() {
        return Err(Failure::words("ERR value is NaN or Infinity"));
    }
    let mut edit = Edit::open(context, key)?;
    let sum = match edit.get(context, field)? {
        None => by,
        Some(text) => {
            let old = long_double::parse(&text);
            let old = old.ok_or(Failure::words("ERR hash value is not a float"))?;
            let sum = old.plus(by);
            sum.ok_or(Failure::words(
                "ERR increment would produce NaN or Infinity",
            ))?
        }
    };
    let text = sum.text();
    edit.set(context, field, text.as_bytes())?;
    edit.keep(context)?;
    context.event(EventClass::Hash, "hincrbyfloat", key);
    context.reply.bulk(text.as_bytes());
    // Others may add in another precision.
    context.propagate(&[b"HSET", key, field, text.as_bytes()]);
    Ok(())
}

fn hdel(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let key = args.at(1);
    let mut edit = Edit::open(context, key)?;
    if edit.before.is_none() {
        context.reply.integer(0);
        return Ok(());
    }
    let mut removed = 0;
    for field in args.from(2) {
        removed += i64::from(edit.remove(context, field)?);
        if hash::len(&edit.hash) == 0 {
            break;
        }
    }
    if removed > 0 {
        context.event(EventClass::Hash, "hdel", key);
        match hash::len(&edit.hash) {
            0 => {
                context.remove(key)?;
            }
            _ => edit.keep(context)?,
        }
    }
    context.reply.integer(removed);
    Ok(())
}

fn hget(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let value = match read(context, args.at(1))? {
        None => None,
        Some(hash) => hash::get(context.keyspace.rows(), &hash, args.at(2))?,
    };
    context.reply.bulk_or_null(value.as_deref());
    Ok(())
}

fn hmget(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let hash = read(context, args.at(1))?;
    context.reply.array(args.len() - 2);
    for field in args.from(2) {
        let value = match &hash {
            None => None,
            Some(hash) => hash::get(context.keyspace.rows(), hash, field)?,
        };
        context.reply.bulk_or_null(value.as_deref());
    }
    Ok(())
}

fn hexists(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let is_there = match read(context, args.at(1))? {
        None => false,
        Some(hash) => hash::get(context.keyspace.rows(), &hash, args.at(2))?.is_some(),
    };
    context.reply.flag(is_there);
    Ok(())
}

fn hstrlen(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let value = match read(context, args.at(1))? {
        None => None,
        Some(hash) => hash::get(context.keyspace.rows(), &hash, args.at(2))?,
    };
    context.reply.count(value.map_or(0, |value| value.len()));
    Ok(())
}

fn hlen(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let hash = read(context, args.at(1))?;
    let len = hash.as_ref().map_or(0, hash::len);
    context
        .reply
        .integer(i64::try_from(len).unwrap_or(i64::MAX));
    Ok(())
}

/// What of an element is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Field,
    Value,
    Both,
}

fn hgetall(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    tell_all(context, args, Told::Both)
}

fn hkeys(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    tell_all(context, args, Told::Field)
}

fn hvals(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    tell_all(context, args, Told::Value)
}

fn tell_all(context: &mut Context<'_>, args: Args<'_>, told: Told) -> Outcome {
    let hash = read(context, args.at(1))?;
    let len = hash.as_ref().map_or(0, hash::len);
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    match told {
        Told::Both => context.reply.map(len),
        Told::Field | Told::Value => context.reply.array(len),
    }
    let Some(hash) = hash else {
        return Ok(());
    };
    for element in hash::iter(context.keyspace.rows(), &hash)? {
        tell(context.reply, &element?, told);
    }
    Ok(())
}

fn tell(reply: &mut Reply, element: &Element, told: Told) {
    if told != Told::Value {
        reply.bulk(&element.member);
    }
    if told != Told::Field {
        reply.bulk(&element.value);
    }
}

fn hrandfield(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    if args.len() == 2 {
        let found = match read(context, args.at(1))? {
            None => None,
            Some(hash) => {
                let rows = context.keyspace.rows();
                hash::draw(rows, &hash, 1, Drawn::Repeated)?.pop()
            }
        };
        let field = found.as_ref().map(|element| &*element.member);
        context.reply.bulk_or_null(field);
        return Ok(());
    }
    let count = Count::parse(args, 2)?;
    let told = match args.len() {
        3 => Told::Field,
        4 if args.is(3, "WITHVALUES") => Told::Both,
        _ => return Err(Failure::SYNTAX),
    };
    if told == Told::Both && count.wanted > i64::MAX as u64 / 2 {
        return Err(Failure::words("ERR value is out of range"));
    }
    let Some(hash) = read(context, args.at(1))? else {
        context.reply.array(0);
        return Ok(());
    };
    let drawn = count.of(hash::len(&hash))?;
    let is_nested = told == Told::Both && context.reply.is_resp3();
    let is_flat = told == Told::Both && !is_nested;
    context.reply.array(if is_flat { 2 * drawn } else { drawn });
    for batch in count.batches(drawn) {
        let rows = context.keyspace.rows();
        for element in hash::draw(rows, &hash, batch, count.drawn)? {
            if is_nested {
                context.reply.array(2);
            }
            tell(context.reply, &element, told);
        }
    }
    Ok(())
}

fn hscan(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let cursor = scanning::cursor(args.at(2))?;
    let Some(hash) = read(context, args.at(1))? else {
        scanning::reply_part(context.reply, 0, 0);
        return Ok(());
    };
    let options = ScanOptions::parse(args, 3)?;
    let part = hash::scan(context.keyspace.rows(), &hash, cursor, options.count)?;
    let wanted = |element: &&Element| options.wants(&element.member);
    let count = part.elements.iter().filter(wanted).count();
    scanning::reply_part(context.reply, part.next, 2 * count);
    for element in part.elements.iter().filter(wanted) {
        tell(context.reply, element, Told::Both);
    }
    Ok(())
}
