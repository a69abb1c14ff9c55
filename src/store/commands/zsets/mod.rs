//! Commands on sorted sets.
//!
//! ```text
//! mod       members: ZREM, ZSCORE, ZRANK ..
//! adding    ZADD, ZINCRBY
//! bounds    what is written for a range of scores or of names
//! ranges    by rank, by score, by name: ZRANGE and its kin
//! pops      from an end, and waiting for it
//! combined  of several sets one: ZUNION, ZINTER, ZDIFF
//! drawn     at random, and scanned
//! ```

mod adding;
mod bounds;
mod combined;
mod drawn;
mod pops;
mod ranges;
#[cfg(test)]
mod tests;

use crate::store::format::object::{Collection, Object, Value};
use crate::store::kinds::zset::{self, Entry, Limits};

use super::args::Args;
use super::context::{Context, Outcome};
use super::failure::Failure;
use super::reply::Reply;
use super::settings::{EventClass, Settings};
use super::table::{Command, Keys, Run};

/// The family.
pub const COMMANDS: &[Command] = &[
    zset("zadd", -4, "write denyoom fast", Keys::FIRST, adding::zadd),
    zset(
        "zincrby",
        4,
        "write denyoom fast",
        Keys::FIRST,
        adding::zincrby,
    ),
    zset("zrem", -3, "write fast", Keys::FIRST, zrem),
    zset("zcard", 2, "readonly fast", Keys::FIRST, zcard),
    zset("zscore", 3, "readonly fast", Keys::FIRST, zscore),
    zset("zmscore", -3, "readonly fast", Keys::FIRST, zmscore),
    zset("zrank", 3, "readonly fast", Keys::FIRST, zrank),
    zset("zrevrank", 3, "readonly fast", Keys::FIRST, zrevrank),
    zset("zcount", 4, "readonly fast", Keys::FIRST, ranges::zcount),
    zset(
        "zlexcount",
        4,
        "readonly fast",
        Keys::FIRST,
        ranges::zlexcount,
    ),
    zset("zrange", -4, "readonly", Keys::FIRST, ranges::zrange),
    zset(
        "zrangestore",
        -5,
        "write denyoom",
        Keys::FIRST_TWO,
        ranges::zrangestore,
    ),
    zset("zrevrange", -4, "readonly", Keys::FIRST, ranges::zrevrange),
    zset(
        "zrangebyscore",
        -4,
        "readonly",
        Keys::FIRST,
        ranges::zrangebyscore,
    ),
    zset(
        "zrevrangebyscore",
        -4,
        "readonly",
        Keys::FIRST,
        ranges::zrevrangebyscore,
    ),
    zset(
        "zrangebylex",
        -4,
        "readonly",
        Keys::FIRST,
        ranges::zrangebylex,
    ),
    zset(
        "zrevrangebylex",
        -4,
        "readonly",
        Keys::FIRST,
        ranges::zrevrangebylex,
    ),
    zset(
        "zremrangebyrank",
        4,
        "write",
        Keys::FIRST,
        ranges::zremrangebyrank,
    ),
    zset(
        "zremrangebyscore",
        4,
        "write",
        Keys::FIRST,
        ranges::zremrangebyscore,
    ),
    zset(
        "zremrangebylex",
        4,
        "write",
        Keys::FIRST,
        ranges::zremrangebylex,
    ),
    zset("zpopmin", -2, "write fast", Keys::FIRST, pops::zpopmin),
    zset("zpopmax", -2, "write fast", Keys::FIRST, pops::zpopmax),
    zset(
        "zmpop",
        -4,
        "write movablekeys",
        Keys::Counted {
            number: 1,
            store: 0,
        },
        pops::zmpop,
    ),
    waiting(
        "bzpopmin",
        -3,
        "write noscript blocking fast",
        Keys::ALL_BUT_LAST,
        pops::bzpopmin,
    ),
    waiting(
        "bzpopmax",
        -3,
        "write noscript blocking fast",
        Keys::ALL_BUT_LAST,
        pops::bzpopmax,
    ),
    waiting(
        "bzmpop",
        -5,
        "write blocking movablekeys",
        Keys::Counted {
            number: 2,
            store: 0,
        },
        pops::bzmpop,
    ),
    zset(
        "zunion",
        -3,
        "readonly movablekeys",
        Keys::Counted {
            number: 1,
            store: 0,
        },
        combined::zunion,
    ),
    zset(
        "zinter",
        -3,
        "readonly movablekeys",
        Keys::Counted {
            number: 1,
            store: 0,
        },
        combined::zinter,
    ),
    zset(
        "zdiff",
        -3,
        "readonly movablekeys",
        Keys::Counted {
            number: 1,
            store: 0,
        },
        combined::zdiff,
    ),
    zset(
        "zunionstore",
        -4,
        "write denyoom movablekeys",
        Keys::Counted {
            number: 2,
            store: 1,
        },
        combined::zunionstore,
    ),
    zset(
        "zinterstore",
        -4,
        "write denyoom movablekeys",
        Keys::Counted {
            number: 2,
            store: 1,
        },
        combined::zinterstore,
    ),
    zset(
        "zdiffstore",
        -4,
        "write denyoom movablekeys",
        Keys::Counted {
            number: 2,
            store: 1,
        },
        combined::zdiffstore,
    ),
    zset(
        "zintercard",
        -3,
        "readonly movablekeys",
        Keys::Counted {
            number: 1,
            store: 0,
        },
        combined::zintercard,
    ),
    zset(
        "zrandmember",
        -2,
        "readonly",
        Keys::FIRST,
        drawn::zrandmember,
    ),
    zset("zscan", -3, "readonly", Keys::FIRST, drawn::zscan),
];

const fn zset(
    name: &'static str,
    arity: i8,
    flags: &'static str,
    keys: Keys,
    run: fn(&mut Context<'_>, Args<'_>) -> Outcome,
) -> Command {
    let (categories, run) = ("sortedset", Run::Data(run));
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
    let (categories, run) = ("sortedset blocking", Run::Data(run));
    Command {
        name,
        arity,
        flags,
        keys,
        categories,
        run,
    }
}

pub(super) use adding::{Adding, add_all};

/// A sorted set, and when its key ends.
pub(super) struct Held {
    pub(super) zset: Collection,
    pub(super) expires_at_ms: Option<u64>,
}

impl Held {
    fn of(object: Option<Object>) -> Result<Option<Self>, Failure> {
        match object {
            None => Ok(None),
            Some(Object {
                expires_at_ms,
                value: Value::Zset(zset),
            }) => Ok(Some(Self {
                zset,
                expires_at_ms,
            })),
            Some(_) => Err(Failure::WRONG_TYPE),
        }
    }

    fn len(&self) -> u64 {
        zset::len(&self.zset)
    }
}

pub(super) fn read(context: &mut Context<'_>, key: &[u8]) -> Result<Option<Held>, Failure> {
    Held::of(context.read(key)?)
}

fn lookup(context: &mut Context<'_>, key: &[u8]) -> Result<Option<Held>, Failure> {
    Held::of(context.lookup(key)?)
}

fn put(context: &mut Context<'_>, key: &[u8], held: Held) -> Outcome {
    let Held {
        zset,
        expires_at_ms,
    } = held;
    let value = Value::Zset(zset);
    context.put(
        key,
        Object {
            expires_at_ms,
            value,
        },
    )
}

/// Puts a set that members were taken out of, and tells of that; without members it goes.
fn put_taken(context: &mut Context<'_>, key: &[u8], held: Held, event: &'static str) -> Outcome {
    let is_empty = held.len() == 0;
    if !is_empty {
        put(context, key, held)?;
    }
    context.event(EventClass::Zset, event, key);
    if is_empty {
        context.remove(key)?;
    }
    Ok(())
}

/// Puts what a command made in place of a key, and answers how many members it has; the
/// key goes if there are none.
pub(super) fn store(
    context: &mut Context<'_>,
    key: &[u8],
    made: zset::Builder,
    event: &'static str,
) -> Outcome {
    let len = made.len();
    if made.is_empty() {
        context.remove(key)?;
    } else {
        let zset = made.finish(context.keyspace, limits(context.settings));
        let value = Value::Zset(zset);
        context.put_over(key, Object::lasting(value))?;
        context.event(EventClass::Zset, event, key);
    }
    context.reply.integer(told(len));
    Ok(())
}

pub(super) fn limits(settings: &Settings) -> Limits {
    Limits {
        members: settings.zset_max_listpack_entries,
        member_bytes: settings.zset_max_listpack_value,
    }
}

pub(super) fn told(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The head of so many elements, flat in RESP2, in pairs in RESP3 if there are scores.
fn elements_head(reply: &mut Reply, len: usize, has_scores: bool) {
    let is_flat = has_scores && !reply.is_resp3();
    reply.array(if is_flat { 2 * len } else { len });
}

fn element(reply: &mut Reply, entry: &Entry, has_scores: bool) {
    if has_scores && reply.is_resp3() {
        reply.array(2);
    }
    reply.bulk(&entry.member);
    if has_scores {
        reply.double(entry.score);
    }
}

fn elements(reply: &mut Reply, entries: &[Entry], has_scores: bool) {
    elements_head(reply, entries.len(), has_scores);
    entries
        .iter()
        .for_each(|entry| element(reply, entry, has_scores));
}

fn zrem(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let key = args.at(1);
    let Some(mut held) = lookup(context, key)? else {
        context.reply.integer(0);
        return Ok(());
    };
    let mut removed: Vec<Entry> = Vec::new();
    for member in args.from(2) {
        let score = zset::score(context.keyspace.rows_read(), &held.zset, member)?;
        let is_known = removed.iter().any(|entry| *entry.member == *member);
        if let (Some(score), false) = (score, is_known) {
            let member = bytes::Bytes::copy_from_slice(member);
            removed.push(Entry { member, score });
        }
    }
    if !removed.is_empty() {
        zset::remove(context.keyspace.rows(), &mut held.zset, &removed);
        put_taken(context, key, held, "zrem")?;
    }
    context.reply.count(removed.len());
    Ok(())
}

fn zcard(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let len = read(context, args.at(1))?.map_or(0, |held| held.len());
    context.reply.integer(told(len));
    Ok(())
}

fn zscore(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let found = match read(context, args.at(1))? {
        Some(held) => zset::score(context.keyspace.rows_read(), &held.zset, args.at(2))?,
        None => None,
    };
    tell_score(context.reply, found);
    Ok(())
}

fn tell_score(reply: &mut Reply, score: Option<f64>) {
    match score {
        Some(score) => reply.double(score),
        None => reply.null(),
    }
}

fn zmscore(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let held = read(context, args.at(1))?;
    context.reply.array(args.len() - 2);
    for member in args.from(2) {
        let score = match &held {
            Some(held) => zset::score(context.keyspace.rows_read(), &held.zset, member)?,
            None => None,
        };
        tell_score(context.reply, score);
    }
    Ok(())
}

fn zrank(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let found = match read(context, args.at(1))? {
        Some(held) => zset::rank(context.keyspace, &held.zset, args.at(2))?,
        None => None,
    };
    match found {
        Some(rank) => context.reply.integer(told(rank)),
        None => context.reply.null(),
    }
    Ok(())
}

fn zrevrank(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let found = match read(context, args.at(1))? {
        Some(held) => zset::rank(context.keyspace, &held.zset, args.at(2))?
            .map(|rank| (held.len() - 1).saturating_sub(rank)),
        None => None,
    };
    match found {
        Some(rank) => context.reply.integer(told(rank)),
        None => context.reply.null(),
    }
    Ok(())
}
