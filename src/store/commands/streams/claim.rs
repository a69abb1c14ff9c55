//! What is pending goes to another consumer: XCLAIM, XAUTOCLAIM.

use bytes::Bytes;

use crate::rdb::StreamId;
use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::{Failure, up_to_zero};
use crate::store::commands::reply::Reply;
use crate::store::kinds::stream::{self, Membership, Pending};

use super::{
    Held, changing, effects, group_of, ids, join, no_group, now_ms, put_untold, read, tell_entry,
    tell_id,
};

/// What XAUTOCLAIM gives at once, if nothing is said.
const COUNT_DEFAULT: u64 = 100;
/// So many are looked at for each that is wanted.
const LOOKED_AT: u64 = 10;
/// Largest number of `COUNT`.
const COUNT_MAX: i64 = i64::MAX / 16;
/// For more, Redis finds no memory anywhere: 16 bytes each.
const COUNT_HELD_MAX: u64 = 1 << 43;
/// Pending entries that are read at once.
const PAGE: usize = 128;

/// How what is pending becomes the consumer's.
#[derive(Clone, Copy, Debug)]
struct Claim {
    min_idle_ms: i64,
    delivered_ms: i64,
    retries: Option<u64>,
    is_forced: bool,
    only_ids: bool,
    last: StreamId,
}

/// Claiming for one consumer.
struct Claimer<'a> {
    key: &'a [u8],
    consumer: &'a [u8],
    claim: Claim,
    held: Held,
    open: Membership,
    has_joined: bool,
    /// The consumer is new, and the stream's meta row with that.
    is_new: bool,
    claimed: usize,
    told: Reply,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Became {
    Claimed,
    /// It was pending, and is not there any more.
    Gone,
    /// Nothing.
    Left,
}

impl Claimer<'_> {
    fn try_claim(
        &mut self,
        context: &mut Context<'_>,
        id: StreamId,
        was: Option<&Pending>,
    ) -> Result<Became, Failure> {
        let now_ms = now_ms(context);
        let stream = &self.held.stream;
        let Some(entry) = stream::get(context.keyspace.rows_read(), stream, id)? else {
            let Some(was) = was else {
                return Ok(Became::Left);
            };
            self.open.take(context.keyspace.rows(), stream, was)?;
            effects::claimed(context, self.key, &self.open.group, was);
            return Ok(Became::Gone);
        };
        let idle_ms = was.map(|was| now_ms.saturating_sub(was.delivered_ms));
        let is_young = idle_ms.is_some_and(|idle| idle < self.claim.min_idle_ms);
        if (was.is_none() && !self.claim.is_forced) || (self.claim.min_idle_ms > 0 && is_young) {
            return Ok(Became::Left);
        }
        if !self.has_joined {
            let (held, open) = (&mut self.held, &mut self.open);
            self.is_new = join(context, self.key, held, open, self.consumer)?;
            self.has_joined = true;
        }
        // Made by FORCE, it counts as given once before.
        let times = was.map_or(1, |was| was.times);
        let pending = Pending {
            id,
            delivered_ms: self.claim.delivered_ms,
            times: match self.claim.retries {
                Some(retries) => retries,
                None if self.claim.only_ids => times,
                None => times.wrapping_add(1),
            },
            consumer: Bytes::copy_from_slice(self.consumer),
        };
        let (rows, stream) = (context.keyspace.rows(), &self.held.stream);
        self.open.give(rows, stream, &pending, was)?;
        match self.claim.only_ids {
            true => tell_id(&mut self.told, id),
            false => tell_entry(&mut self.told, &entry),
        }
        self.claimed += 1;
        effects::claimed(context, self.key, &self.open.group, &pending);
        Ok(Became::Claimed)
    }

    fn put(self, context: &mut Context<'_>) -> Outcome {
        self.open.put(context.keyspace.rows(), &self.held.stream);
        match self.is_new {
            true => put_untold(context, self.key, self.held),
            false => Ok(()),
        }
    }
}

/// Options of XCLAIM, from the first argument on that is no id.
fn options(
    context: &Context<'_>,
    args: Args<'_>,
    first: usize,
    min_idle_ms: i64,
) -> Result<Claim, Failure> {
    let now_ms = now_ms(context);
    let mut claim = Claim {
        min_idle_ms,
        delivered_ms: -1,
        retries: None,
        is_forced: false,
        only_ids: false,
        last: StreamId::MIN,
    };
    let number =
        |at: usize, words: &'static str| args.integer(at).map_err(|_| Failure::words(words));
    let mut at = first;
    while at < args.len() {
        let has_value = at + 1 < args.len();
        let mut width = 2;
        if args.is(at, "FORCE") {
            claim.is_forced = true;
            width = 1;
        } else if args.is(at, "JUSTID") {
            claim.only_ids = true;
            width = 1;
        } else if args.is(at, "IDLE") && has_value {
            let idle = number(at + 1, "ERR Invalid IDLE option argument for XCLAIM")?;
            claim.delivered_ms = now_ms.wrapping_sub(idle);
        } else if args.is(at, "TIME") && has_value {
            claim.delivered_ms = number(at + 1, "ERR Invalid TIME option argument for XCLAIM")?;
        } else if args.is(at, "RETRYCOUNT") && has_value {
            let retries = number(at + 1, "ERR Invalid RETRYCOUNT option argument for XCLAIM")?;
            claim.retries = u64::try_from(retries).ok();
        } else if args.is(at, "LASTID") && has_value {
            claim.last = ids::strict(args.at(at + 1), 0)?;
        } else {
            let told = up_to_zero(args.at(at));
            return Err(Failure::quoting(
                "ERR Unrecognized XCLAIM option '",
                told,
                "'",
            ));
        }
        at += width;
    }
    // A time that cannot be is now. A master's clock is believed.
    let latest_ms = if context.obeys() { i64::MAX } else { now_ms };
    if !(0..=latest_ms).contains(&claim.delivered_ms) {
        claim.delivered_ms = now_ms;
    }
    Ok(claim)
}

pub(super) fn xclaim(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    context.unit.name_nothing();
    let key = args.at(1);
    let held = read(context, key)?;
    let found = group_of(context, held, args.at(2))?;
    let (held, group) = found.ok_or_else(|| no_group(key, args.at(2)))?;
    let min_idle_ms = args
        .integer(4)
        .map_err(|_| Failure::words("ERR Invalid min-idle-time argument for XCLAIM"))?;
    let ids = args.from(5).map_while(|text| ids::strict(text, 0).ok());
    let ids: Vec<StreamId> = ids.collect();
    let claim = options(context, args, 5 + ids.len(), min_idle_ms.max(0))?;
    let before = group.last;
    let mut claimer = Claimer {
        key,
        consumer: args.at(3),
        claim,
        held,
        open: Membership::open(group),
        has_joined: false,
        is_new: false,
        claimed: 0,
        told: Reply::new(context.reply.is_resp3()),
    };
    let group = &mut claimer.open.group;
    group.last = group.last.max(claim.last);
    let mut is_told = false;
    for id in ids {
        let rows = context.keyspace.rows_read();
        let was = claimer.open.pending(rows, &claimer.held.stream, id)?;
        let became = claimer.try_claim(context, id, was.as_ref());
        is_told |= changing(context, became)? != Became::Left;
    }
    if !is_told {
        effects::moved(context, key, &claimer.open.group, before);
    }
    context.reply.array(claimer.claimed);
    context.reply.raw().extend_from_slice(claimer.told.bytes());
    claimer.put(context)
}

/// What XAUTOCLAIM is told behind the id to begin with.
struct Limits {
    count: u64,
    only_ids: bool,
}

impl Limits {
    fn parse(args: Args<'_>) -> Result<Self, Failure> {
        let mut limits = Self {
            count: COUNT_DEFAULT,
            only_ids: false,
        };
        let mut at = 6;
        while at < args.len() {
            if args.is(at, "COUNT") && at + 1 < args.len() {
                let count = args.integer(at + 1).ok();
                let count = count.filter(|count| (1..=COUNT_MAX).contains(count));
                let count = count.and_then(|count| u64::try_from(count).ok());
                limits.count = count.ok_or(Failure::words("ERR COUNT must be > 0"))?;
                at += 2;
            } else if args.is(at, "JUSTID") {
                limits.only_ids = true;
                at += 1;
            } else {
                return Err(Failure::SYNTAX);
            }
        }
        Ok(limits)
    }
}

pub(super) fn xautoclaim(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    context.unit.name_nothing();
    let min_idle_ms = args
        .integer(4)
        .map_err(|_| Failure::words("ERR Invalid min-idle-time argument for XAUTOCLAIM"))?;
    let from = ids::from(args.at(5))?;
    let limits = Limits::parse(args)?;
    let key = args.at(1);
    let held = read(context, key)?;
    let found = group_of(context, held, args.at(2))?;
    let (held, group) = found.ok_or_else(|| no_group(key, args.at(2)))?;
    if limits.count > COUNT_HELD_MAX {
        return Err(Failure::words(
            "ERR Insufficient memory, failed allocating transient memory, COUNT too high.",
        ));
    }
    let mut claimer = Claimer {
        key,
        consumer: args.at(3),
        claim: Claim {
            min_idle_ms: min_idle_ms.max(0),
            delivered_ms: now_ms(context),
            retries: None,
            is_forced: false,
            only_ids: limits.only_ids,
            last: StreamId::MIN,
        },
        held,
        open: Membership::open(group),
        has_joined: false,
        is_new: false,
        claimed: 0,
        told: Reply::new(context.reply.is_resp3()),
    };
    let claimed = claim_from(context, &mut claimer, from, limits.count);
    let (next, gone) = changing(context, claimed)?;
    context.reply.array(3);
    tell_id(context.reply, next);
    context.reply.array(claimer.claimed);
    context.reply.raw().extend_from_slice(claimer.told.bytes());
    context.reply.array(gone.len());
    gone.iter().for_each(|id| tell_id(context.reply, *id));
    claimer.put(context)
}

/// Where the next call is to begin (0-0 at the end), and which entries were gone.
fn claim_from(
    context: &mut Context<'_>,
    claimer: &mut Claimer<'_>,
    from: StreamId,
    mut count: u64,
) -> Result<(StreamId, Vec<StreamId>), Failure> {
    let mut attempts = count.saturating_mul(LOOKED_AT);
    let mut gone = Vec::new();
    let mut from = from;
    loop {
        let rows = context.keyspace.rows_read();
        let (stream, group) = (&claimer.held.stream, &claimer.open.group);
        let found = stream::pending_between(rows, stream, group, from, StreamId::MAX)?;
        let page = found.take(PAGE).collect::<Result<Vec<_>, _>>()?;
        // Nobody has to walk over what was acknowledged before it again.
        let group = &mut claimer.open.group;
        if let Some(first) = page.first().filter(|_| from <= group.first_pending) {
            group.first_pending = first.id;
        }
        for pending in &page {
            if attempts == 0 || count == 0 {
                return Ok((pending.id, gone));
            }
            attempts -= 1;
            match claimer.try_claim(context, pending.id, Some(pending))? {
                Became::Claimed => count -= 1,
                Became::Gone => {
                    gone.push(pending.id);
                    count -= 1;
                }
                Became::Left => {}
            }
        }
        match page.last().and_then(|last| last.id.next()) {
            Some(next) if page.len() == PAGE => from = next,
            _ => return Ok((StreamId::MIN, gone)),
        }
    }
}
