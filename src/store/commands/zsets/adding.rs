//! Adding members: ZADD, ZINCRBY, and what GEOADD makes of places.

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::commands::settings::EventClass;
use crate::store::kinds::zset;

use super::{Held, limits, lookup, put};

/// Options of ZADD.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::store::commands) struct Adding {
    pub(in crate::store::commands) only_new: bool,
    pub(in crate::store::commands) only_old: bool,
    only_greater: bool,
    only_less: bool,
    pub(in crate::store::commands) counts_changed: bool,
    increments: bool,
}

/// What became of one element.
enum Added {
    New(f64),
    Changed(f64),
    Same(f64),
    Refused,
}

pub(super) fn zadd(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    add(context, args, Adding::default())
}

pub(super) fn zincrby(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
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
pub(in crate::store::commands) fn add_all(
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
