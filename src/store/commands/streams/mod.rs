//! Commands on streams.
//!
//! ```text
//! ids      what is written for an id or a range of them
//! add      XADD, XTRIM
//! entries  XRANGE, XREVRANGE, XDEL, XLEN, XSETID
//! query    what XREAD and XREADGROUP are told
//! read     XREAD, XREADGROUP, and waiting for more
//! groups   XGROUP
//! pending  XACK, XPENDING
//! claim    XCLAIM, XAUTOCLAIM
//! info     XINFO
//! effects  what the log is told of groups
//! ```
//! As in Redis, who watches a key is told of entries that come and go, and not of what its
//! groups do; who waits is woken by entries that come, and by groups that go.

mod add;
mod claim;
mod effects;
mod entries;
mod groups;
mod ids;
mod info;
mod pending;
mod query;
mod read;

#[cfg(test)]
mod tests;

use crate::rdb::StreamId;
use crate::store::format::object::{Object, StreamValue, Value};
use crate::store::keyspace::Tells;
use crate::store::kinds::stream::{self, Entry, Group, Membership};

use super::args::Args;
use super::context::{Context, Outcome};
use super::failure::{Failure, up_to_zero};
use super::reply::Reply;
use super::settings::EventClass;
use super::table::{Command, Keys, Run};

/// The family.
pub const COMMANDS: &[Command] = &[
    stream("xack", -4, "write fast", pending::xack),
    stream("xadd", -5, "write denyoom fast", add::xadd),
    stream("xautoclaim", -6, "write fast", claim::xautoclaim),
    stream("xclaim", -6, "write fast", claim::xclaim),
    stream("xdel", -3, "write fast", entries::xdel),
    of_keys("xgroup", -2, "", Keys::None, "", groups::xgroup),
    of_keys("xinfo", -2, "", Keys::None, "", info::xinfo),
    stream("xlen", 2, "readonly fast", entries::xlen),
    stream("xpending", -3, "readonly", pending::xpending),
    stream("xrange", -4, "readonly", entries::xrange),
    of_keys(
        "xread",
        -4,
        "readonly blocking movablekeys",
        Keys::AfterStreams,
        "stream blocking",
        read::xread,
    ),
    of_keys(
        "xreadgroup",
        -7,
        "write blocking movablekeys",
        Keys::AfterStreams,
        "stream blocking",
        read::xreadgroup,
    ),
    stream("xrevrange", -4, "readonly", entries::xrevrange),
    stream("xsetid", -3, "write denyoom fast", entries::xsetid),
    stream("xtrim", -4, "write", add::xtrim),
];

const fn stream(
    name: &'static str,
    arity: i8,
    flags: &'static str,
    run: fn(&mut Context<'_>, Args<'_>) -> Outcome,
) -> Command {
    of_keys(name, arity, flags, Keys::FIRST, "stream", run)
}

const fn of_keys(
    name: &'static str,
    arity: i8,
    flags: &'static str,
    keys: Keys,
    categories: &'static str,
    run: fn(&mut Context<'_>, Args<'_>) -> Outcome,
) -> Command {
    let run = Run::Data(run);
    Command {
        name,
        arity,
        flags,
        keys,
        categories,
        run,
    }
}

/// A stream, and when its key ends.
struct Held {
    stream: StreamValue,
    expires_at_ms: Option<u64>,
}

impl Held {
    fn of(object: Option<Object>) -> Result<Option<Self>, Failure> {
        match object {
            None => Ok(None),
            Some(Object {
                expires_at_ms,
                value: Value::Stream(stream),
            }) => Ok(Some(Self {
                stream: *stream,
                expires_at_ms,
            })),
            Some(_) => Err(Failure::WRONG_TYPE),
        }
    }

    fn new(context: &mut Context<'_>) -> Self {
        Self {
            stream: stream::empty(context.keyspace),
            expires_at_ms: None,
        }
    }

    fn into_object(self) -> Object {
        Object {
            expires_at_ms: self.expires_at_ms,
            value: Value::Stream(Box::new(self.stream)),
        }
    }
}

fn read(context: &mut Context<'_>, key: &[u8]) -> Result<Option<Held>, Failure> {
    Held::of(context.read(key)?)
}

fn lookup(context: &mut Context<'_>, key: &[u8]) -> Result<Option<Held>, Failure> {
    Held::of(context.lookup(key)?)
}

/// A stream that has new entries, or is new itself.
fn put(context: &mut Context<'_>, key: &[u8], held: Held) -> Outcome {
    context.put(key, held.into_object())
}

/// A stream that is there has changed, and nobody is to be woken by that.
fn put_quietly(context: &mut Context<'_>, key: &[u8], held: Held) -> Outcome {
    let db = context.db;
    context.keyspace.put_untold(db, key, held.into_object())?;
    context.keyspace.tell(db, key, Tells::Watchers);
    Ok(())
}

/// What its groups or last id are has changed: that is not told to who watches.
fn put_untold(context: &mut Context<'_>, key: &[u8], held: Held) -> Outcome {
    let db = context.db;
    context.keyspace.put_untold(db, key, held.into_object())?;
    context.keyspace.note_change();
    Ok(())
}

/// What came of changing rows. A store that failed in that has changed something all the
/// same: the shard is told so, and writes no more.
fn changing<T>(context: &mut Context<'_>, outcome: Result<T, Failure>) -> Result<T, Failure> {
    if matches!(outcome, Err(Failure::Store(_))) {
        context.keyspace.note_change();
    }
    outcome
}

/// The group of a stream, if both are there.
fn group_of(
    context: &Context<'_>,
    held: Option<Held>,
    name: &[u8],
) -> Result<Option<(Held, Group)>, Failure> {
    let Some(held) = held else {
        return Ok(None);
    };
    let group = stream::group(context.keyspace.rows_read(), &held.stream, name)?;
    Ok(group.map(|group| (held, group)))
}

/// The consumer is there, and was seen now. True if it was made for that.
fn join(
    context: &mut Context<'_>,
    key: &[u8],
    held: &mut Held,
    open: &mut Membership,
    name: &[u8],
) -> Result<bool, Failure> {
    let now_ms = now_ms(context);
    let rows = context.keyspace.rows_read();
    if let Some(consumer) = open.consumer(rows, &held.stream, name)? {
        consumer.seen_ms = now_ms;
        return Ok(false);
    }
    open.join(&mut held.stream, name, now_ms);
    context.event(EventClass::Stream, "xgroup-createconsumer", key);
    Ok(true)
}

fn now_ms(context: &Context<'_>) -> i64 {
    i64::try_from(context.now_ms()).unwrap_or(i64::MAX)
}

/// Words around two things that a client sent.
fn quoting(parts: [&str; 3], told: [&[u8]; 2]) -> Failure {
    let [before, between, after] = parts.map(str::as_bytes);
    let [one, other] = told.map(up_to_zero);
    Failure::Reply([before, one, between, other, after].concat().into())
}

/// A key or a group that is not there.
fn no_group(key: &[u8], group: &[u8]) -> Failure {
    let parts = ["NOGROUP No such key '", "' or consumer group '", "'"];
    quoting(parts, [key, group])
}

/// A group that a stream does not have.
fn no_group_of(key: &[u8], group: &[u8]) -> Failure {
    let parts = ["NOGROUP No such consumer group '", "' for key name '", "'"];
    quoting(parts, [group, key])
}

fn tell_id(reply: &mut Reply, id: StreamId) {
    reply.bulk(id.to_string().as_bytes());
}

fn tell_entry(reply: &mut Reply, entry: &Entry) {
    reply.array(2);
    tell_id(reply, entry.id);
    reply.array(entry.fields.count());
    entry.fields.iter().for_each(|word| reply.bulk(word));
}

fn told(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
