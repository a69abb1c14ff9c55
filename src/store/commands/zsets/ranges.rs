//! By rank, by score, by name: ZRANGE and its kin.

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::kinds::zset::{self, Builder, Direction, Entry, LexRange, Range, ScoreRange};

use super::{Held, bounds, elements, lookup, put_taken, read, store, told};

/// What the bounds of a range are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Name,
}

/// Bounds as they were written; ranks count from the end that the walk begins at.
enum Bounds<'a> {
    Ranks(i64, i64),
    Scores(ScoreRange),
    Names(LexRange<'a>),
}

/// What a range command asks for.
struct Query<'a> {
    bounds: Bounds<'a>,
    direction: Direction,
    has_scores: bool,
    skipped: i64,
    /// Negative for all.
    wanted: i64,
}

/// What a command's name says already.
#[derive(Clone, Copy)]
struct Named {
    /// Where the key is; bounds and options are behind it.
    key: usize,
    stores: bool,
    by: Option<By>,
    direction: Option<Direction>,
}

impl<'a> Query<'a> {
    fn parse(args: Args<'a>, named: Named) -> Result<Self, Failure> {
        let Named {
            key,
            stores,
            mut by,
            mut direction,
        } = named;
        let (mut has_scores, mut skipped, mut wanted) = (false, 0, -1);
        let mut at = key + 3;
        while at < args.len() {
            if !stores && args.is(at, "WITHSCORES") {
                has_scores = true;
            } else if args.is(at, "LIMIT") && at + 2 < args.len() {
                (skipped, wanted) = (args.integer(at + 1)?, args.integer(at + 2)?);
                at += 2;
            } else if direction.is_none() && args.is(at, "REV") {
                direction = Some(Direction::Backward);
            } else if by.is_none() && args.is(at, "BYLEX") {
                by = Some(By::Name);
            } else if by.is_none() && args.is(at, "BYSCORE") {
                by = Some(By::Score);
            } else {
                return Err(Failure::SYNTAX);
            }
            at += 1;
        }
        let by = by.unwrap_or(By::Rank);
        let direction = direction.unwrap_or(Direction::Forward);
        if wanted != -1 && by == By::Rank {
            return Err(Failure::words(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE \
                 or BYLEX",
            ));
        }
        if has_scores && by == By::Name {
            return Err(Failure::words(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        let (min, max) = match direction {
            Direction::Forward => (key + 1, key + 2),
            Direction::Backward => (key + 2, key + 1),
        };
        let bounds = match by {
            By::Rank => Bounds::Ranks(args.integer(key + 1)?, args.integer(key + 2)?),
            By::Score => Bounds::Scores(bounds::scores(args, min, max)?),
            By::Name => Bounds::Names(bounds::names(args, min, max)?),
        };
        Ok(Self {
            bounds,
            direction,
            has_scores,
            skipped,
            wanted,
        })
    }

    fn range(&self, len: u64) -> Range<'a> {
        match &self.bounds {
            Bounds::Ranks(first, last) => {
                let ranks = bounds::ranks(*first, *last, len);
                Range::Rank(match self.direction {
                    Direction::Forward => ranks,
                    Direction::Backward => len - ranks.end..len - ranks.start,
                })
            }
            Bounds::Scores(range) => Range::Score(*range),
            Bounds::Names(range) => Range::Lex(*range),
        }
    }

    /// Gives each element that is asked for.
    fn walk(
        &self,
        context: &Context<'_>,
        held: &Held,
    ) -> Result<impl Iterator<Item = Result<Entry, Failure>>, Failure> {
        // A negative one passes over all, as Redis counts it down; among ranks it says
        // nothing, and among names the walk passes over them.
        let negative_is_all = |count: i64| usize::try_from(count).unwrap_or(usize::MAX);
        let mut range = self.range(held.len());
        let mut skipped = match range {
            Range::Rank(_) => 0,
            _ => negative_is_all(self.skipped),
        };
        if let Range::Lex(range) = &mut range {
            range.skipped = std::mem::take(&mut skipped);
        }
        let wanted = negative_is_all(self.wanted);
        let entries = zset::walk(context.keyspace, &held.zset, &range, self.direction)?;
        Ok(entries.skip(skipped).take(wanted).map(|entry| Ok(entry?)))
    }
}

fn answer(context: &mut Context<'_>, args: Args<'_>, named: Named) -> Outcome {
    let query = Query::parse(args, named)?;
    let Some(held) = read(context, args.at(1))? else {
        context.reply.array(0);
        return Ok(());
    };
    let entries: Vec<Entry> = query.walk(context, &held)?.collect::<Result<_, _>>()?;
    elements(context.reply, &entries, query.has_scores);
    Ok(())
}

const FREE: Named = Named {
    key: 1,
    stores: false,
    by: None,
    direction: None,
};

const fn fixed(by: By, direction: Direction) -> Named {
    Named {
        key: 1,
        stores: false,
        by: Some(by),
        direction: Some(direction),
    }
}

pub(super) fn zrange(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    answer(context, args, FREE)
}

pub(super) fn zrevrange(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    answer(context, args, fixed(By::Rank, Direction::Backward))
}

pub(super) fn zrangebyscore(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    answer(context, args, fixed(By::Score, Direction::Forward))
}

pub(super) fn zrevrangebyscore(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    answer(context, args, fixed(By::Score, Direction::Backward))
}

pub(super) fn zrangebylex(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    answer(context, args, fixed(By::Name, Direction::Forward))
}

pub(super) fn zrevrangebylex(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    answer(context, args, fixed(By::Name, Direction::Backward))
}

pub(super) fn zrangestore(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let named = Named {
        key: 2,
        stores: true,
        ..FREE
    };
    let query = Query::parse(args, named)?;
    let target = args.at(1);
    let mut made = Builder::default();
    if let Some(held) = read(context, args.at(2))? {
        let entries: Vec<Entry> = query.walk(context, &held)?.collect::<Result<_, _>>()?;
        context.lookup(target)?;
        for entry in &entries {
            made.push_new(context.keyspace, &entry.member, entry.score);
        }
    } else {
        context.lookup(target)?;
    }
    store(context, target, made, "zrangestore")
}

pub(super) fn zcount(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let range = Range::Score(bounds::scores(args, 2, 3)?);
    count(context, args, &range)
}

pub(super) fn zlexcount(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let range = Range::Lex(bounds::names(args, 2, 3)?);
    count(context, args, &range)
}

fn count(context: &mut Context<'_>, args: Args<'_>, range: &Range<'_>) -> Outcome {
    let mut found = 0;
    if let Some(held) = read(context, args.at(1))? {
        for entry in zset::walk(context.keyspace, &held.zset, range, Direction::Forward)? {
            entry?;
            found += 1;
        }
    }
    context.reply.integer(told(found));
    Ok(())
}

pub(super) fn zremrangebyrank(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let (first, last) = (args.integer(2)?, args.integer(3)?);
    let range = |len| Range::Rank(bounds::ranks(first, last, len));
    remove(context, args, range, "zremrangebyrank")
}

pub(super) fn zremrangebyscore(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let range = Range::Score(bounds::scores(args, 2, 3)?);
    remove(context, args, |_| range.clone(), "zremrangebyscore")
}

pub(super) fn zremrangebylex(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let range = Range::Lex(bounds::names(args, 2, 3)?);
    remove(context, args, |_| range.clone(), "zremrangebylex")
}

fn remove<'r>(
    context: &mut Context<'_>,
    args: Args<'_>,
    range: impl Fn(u64) -> Range<'r>,
    event: &'static str,
) -> Outcome {
    let key = args.at(1);
    let Some(mut held) = lookup(context, key)? else {
        context.reply.integer(0);
        return Ok(());
    };
    let range = range(held.len());
    let found = zset::walk(context.keyspace, &held.zset, &range, Direction::Forward)?;
    let found: Vec<Entry> = found.collect::<Result<_, _>>()?;
    if !found.is_empty() {
        zset::remove(context.keyspace.rows(), &mut held.zset, &found);
        put_taken(context, key, held, event)?;
    }
    context.reply.count(found.len());
    Ok(())
}
