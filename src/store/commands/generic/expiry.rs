//! When keys end: EXPIRE and its kin, TTL, PERSIST.

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::commands::settings::EventClass;

/// How a time is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Seconds,
    Milliseconds,
}

/// Where times are counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    Now,
    Epoch,
}

/// NX, XX, GT, LT.
#[derive(Clone, Copy, Debug, Default)]
struct Conditions {
    is_new: bool,
    is_there: bool,
    is_later: bool,
    is_sooner: bool,
}

impl Conditions {
    fn parse(args: Args<'_>) -> Result<Self, Failure> {
        let mut conditions = Self::default();
        for number in 3..args.len() {
            let flag = match args.at(number).to_ascii_uppercase().as_slice() {
                b"NX" => &mut conditions.is_new,
                b"XX" => &mut conditions.is_there,
                b"GT" => &mut conditions.is_later,
                b"LT" => &mut conditions.is_sooner,
                _ => {
                    let word = args.at(number);
                    return Err(Failure::quoting("ERR Unsupported option ", word, ""));
                }
            };
            *flag = true;
        }
        let Self {
            is_new,
            is_there,
            is_later,
            is_sooner,
        } = conditions;
        if is_new && (is_there || is_later || is_sooner) {
            return Err(Failure::words(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if is_later && is_sooner {
            return Err(Failure::words(
                "ERR GT and LT options at the same time are not compatible",
            ));
        }
        Ok(conditions)
    }

    fn allow(self, current: Option<u64>, when: i64) -> bool {
        let current = current.map(|at| i64::try_from(at).unwrap_or(i64::MAX));
        let is_refused = [
            self.is_new && current.is_some(),
            self.is_there && current.is_none(),
            self.is_later && current.is_none_or(|at| when <= at),
            self.is_sooner && current.is_some_and(|at| when >= at),
        ];
        !is_refused.contains(&true)
    }
}

pub(super) fn expire(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    set(context, args, "expire", Unit::Seconds, Since::Now)
}

pub(super) fn pexpire(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    set(context, args, "pexpire", Unit::Milliseconds, Since::Now)
}

pub(super) fn expireat(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    set(context, args, "expireat", Unit::Seconds, Since::Epoch)
}

pub(super) fn pexpireat(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    set(context, args, "pexpireat", Unit::Milliseconds, Since::Epoch)
}

fn set(
    context: &mut Context<'_>,
    args: Args<'_>,
    command: &str,
    unit: Unit,
    since: Since,
) -> Outcome {
    let key = args.at(1);
    let conditions = Conditions::parse(args)?;
    let factor = if unit == Unit::Seconds { 1000 } else { 1 };
    let base = match since {
        Since::Now => i64::try_from(context.now_ms()).unwrap_or(i64::MAX),
        Since::Epoch => 0,
    };
    let when = args.integer(2)?.checked_mul(factor);
    let when = when
        .and_then(|when| when.checked_add(base))
        .ok_or_else(|| Failure::expire_time(command))?;
    let found = context.lookup(key)?;
    let Some(object) = found.filter(|of| conditions.allow(of.expires_at_ms, when)) else {
        context.reply.flag(false);
        return Ok(());
    };
    // What ends at once is removed; on a replica only the master says so.
    let now_ms = i64::try_from(context.now_ms()).unwrap_or(i64::MAX);
    if when <= now_ms && context.is_master() {
        context.remove(key)?;
        context.propagate(&[context.word_of_end(), key]);
    } else {
        let at = u64::try_from(when).unwrap_or(0);
        let (db, value) = (context.db, object.value);
        context.keyspace.put_value(db, key, Some(at), value)?;
        context.propagate(&[b"PEXPIREAT", key, when.to_string().as_bytes()]);
        context.event(EventClass::Generic, "expire", key);
    }
    context.reply.flag(true);
    Ok(())
}

pub(super) fn ttl(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    tell(context, args, Unit::Seconds, Since::Now)
}

pub(super) fn pttl(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    tell(context, args, Unit::Milliseconds, Since::Now)
}

pub(super) fn expiretime(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    tell(context, args, Unit::Seconds, Since::Epoch)
}

pub(super) fn pexpiretime(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    tell(context, args, Unit::Milliseconds, Since::Epoch)
}

fn tell(context: &mut Context<'_>, args: Args<'_>, unit: Unit, since: Since) -> Outcome {
    let told = match context.peek(args.at(1))? {
        None => -2,
        Some(object) => match object.expires_at_ms {
            None => -1,
            Some(at) => {
                let ms = match since {
                    Since::Now => at.saturating_sub(context.now_ms()),
                    Since::Epoch => at,
                };
                let rounded = match unit {
                    Unit::Milliseconds => ms,
                    Unit::Seconds => ms.saturating_add(500) / 1000,
                };
                i64::try_from(rounded).unwrap_or(i64::MAX)
            }
        },
    };
    context.reply.integer(told);
    Ok(())
}

pub(super) fn persist(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let key = args.at(1);
    let found = context
        .lookup(key)?
        .filter(|object| object.expires_at_ms.is_some());
    let is_changed = found.is_some();
    if let Some(object) = found {
        context
            .keyspace
            .put_value(context.db, key, None, object.value)?;
        context.event(EventClass::Generic, "persist", key);
    }
    context.reply.flag(is_changed);
    Ok(())
}
