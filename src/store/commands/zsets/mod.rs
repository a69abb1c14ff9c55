//! Commands on sorted sets.
//!
//! ```text
//! mod       members: ZADD, ZREM, ZSCORE, ZRANK ..
//! bounds    what is written for a range of scores or of names
//! ranges    by rank, by score, by name: ZRANGE and its kin
//! pops      from an end, and waiting for it
//! combined  of several sets one: ZUNION, ZINTER, ZDIFF
//! drawn     at random, and scanned
//! ```

mod bounds;
mod combined;
mod drawn;
mod pops;
mod ranges;
#[cfg(test)]
mod tests;

use crate::store::format::object::{Collection, Object, Value};
use crate::store::types::zset::{self, Entry, Limits};

use super::args::Args;
use super::context::{Context, Outcome};
use super::failure::Failure;
use super::reply::Reply;
use super::settings::{EventClass, Settings};
use super::table::{Command, Keys, Run};

/// The family.
pub const COMMANDS: &[Command] = &[
    zset("zadd", -4, "write denyoom fast", Keys::FIRST, zadd),
    zset("zincrby", 4, "write denyoom fast", Keys::FIRST, zincrby),
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
        context.put(key, Object::lasting(value))?;
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

/// Options of ZADD.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Adding {
    pub(super) only_new: bool,
    pub(super) only_old: bool,
    only_greater: bool,
    only_less: bool,
    pub(super) counts_changed: bool,
    increments: bool,
}

/// What became of one element.
enum Added {
    New(f64),
    Changed(f64),
    Same(f64),
    Refused,
}

fn zadd(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    add(context, args, Adding::default())
}

fn zincrby(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let increments = true;
    add(
        context,
        args,
        Adding {
            increments,
            ..Adding::default()
        },
    )
}

fn add(context: &mut Context<'_>, args: Args<'_>, mut adding: Adding) -> Outcome {
    let mut at = 2;
    while at < args.len() {
        match () {
            () if args.is(at, "NX") => adding.only_new = true,
            () if args.is(at, "XX") => adding.only_old = true,
            () if args.is(at, "CH") => adding.counts_changed = true,
            () if args.is(at, "INCR") => adding.increments = true,
            () if args.is(at, "GT") => adding.only_greater = true,
            () if args.is(at, "LT") => adding.only_less = true,
            () => break,
        }
        at += 1;
    }
    let words = args.len() - at;
    if words == 0 || !words.is_multiple_of(2) {
        return Err(Failure::SYNTAX);
    }
    adding.check(words / 2)?;
    let elements: Vec<(f64, &[u8])> = (at..args.len())
        .step_by(2)
        .map(|at| Ok((args.float(at)?, args.at(at + 1))))
        .collect::<Result<_, Failure>>()?;
    add_all(context, args.at(1), adding, &elements)
}

/// Adds elements and answers as ZADD does.
pub(super) fn add_all(
    context: &mut Context<'_>,
    key: &[u8],
    adding: Adding,
    elements: &[(f64, &[u8])],
) -> Outcome {
    let found = lookup(context, key)?;
    let mut held = match found {
        None if adding.only_old => {
            match adding.increments {
                true => context.reply.null(),
                false => context.reply.integer(0),
            }
            return Ok(());
        }
        None => Held {
            zset: zset::empty(),
            expires_at_ms: None,
        },
        Some(held) => held,
    };
    let (mut new, mut changed, mut last) = (0, 0, None);
    for (score, member) in elements {
        match adding.add(context, &mut held, *score, member)? {
            Added::New(score) => (new, last) = (new + 1, Some(score)),
            Added::Changed(score) => (changed, last) = (changed + 1, Some(score)),
            Added::Same(score) => last = Some(score),
            Added::Refused => {}
        }
    }
    if new + changed > 0 {
        put(context, key, held)?;
        let event = if adding.increments { "zincr" } else { "zadd" };
        context.event(EventClass::Zset, event, key);
    }
    match (adding.increments, last) {
        (true, Some(score)) => context.reply.double(score),
        (true, None) => context.reply.null(),
        (false, _) if adding.counts_changed => context.reply.integer(new + changed),
        (false, _) => context.reply.integer(new),
    }
    Ok(())
}

impl Adding {
    fn check(self, elements: usize) -> Result<(), Failure> {
        if self.only_new && self.only_old {
            return Err(Failure::words(
                "ERR XX and NX options at the same time are not compatible",
            ));
        }
        let compares = self.only_greater || self.only_less;
        if (compares && self.only_new) || (self.only_greater && self.only_less) {
            return Err(Failure::words(
                "ERR GT, LT, and/or NX options at the same time are not compatible",
            ));
        }
        if self.increments && elements > 1 {
            return Err(Failure::words(
                "ERR INCR option supports a single increment-element pair",
            ));
        }
        Ok(())
    }

    fn add(
        self,
        context: &mut Context<'_>,
        held: &mut Held,
        score: f64,
        member: &[u8],
    ) -> Result<Added, Failure> {
        let limits = limits(context.settings);
        let old = zset::score(context.keyspace.rows_read(), &held.zset, member)?;
        let Some(old) = old else {
            if self.only_old {
                return Ok(Added::Refused);
            }
            zset::put(
                context.keyspace,
                &mut held.zset,
                member,
                score,
                None,
                limits,
            )?;
            return Ok(Added::New(score));
        };
        if self.only_new {
            return Ok(Added::Refused);
        }
        let score = if self.increments { old + score } else { score };
        if score.is_nan() {
            return Err(Failure::words("ERR resulting score is not a number (NaN)"));
        }
        if (self.only_less && score >= old) || (self.only_greater && score <= old) {
            return Ok(Added::Refused);
        }
        if score == old {
            return Ok(Added::Same(score));
        }
        zset::put(
            context.keyspace,
            &mut held.zset,
            member,
            score,
            Some(old),
            limits,
        )?;
        Ok(Added::Changed(score))
    }
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
