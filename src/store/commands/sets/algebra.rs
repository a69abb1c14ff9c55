//! SINTER, SUNION, SDIFF, what stores their results, and SINTERCARD.
//!
//! The results are found member by member; those of the smallest or the first set are
//! walked and looked up in the others. What is stored is built in rows as it comes; what
//! is answered is in memory anyway.

use std::collections::HashSet;

use bytes::Bytes;
use foldhash::fast::RandomState;

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::commands::settings::EventClass;
use crate::store::format::object::{Collection, Object, Value};
use crate::store::keyspace::Keyspace;
use crate::store::kinds::set::{self, Lookup, SetBuilder};
use crate::store::rows::StoreError;

use super::{limits, read};

/// Members that are found in rows before they are put into others: rows cannot be
/// changed while they are walked.
const BATCH: usize = 1024;

/// Takes members of a result; it may change rows.
type Take<'a> = dyn FnMut(&mut Keyspace, &[Bytes]) -> Result<(), StoreError> + 'a;

/// Whether a member is of the result.
type IsWanted<'a> = dyn Fn(&mut Keyspace, &[u8]) -> Result<bool, StoreError> + 'a;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Intersect,
    Unite,
    Subtract,
}

impl Operation {
    fn event(self) -> &'static str {
        match self {
            Operation::Intersect => "sinterstore",
            Operation::Unite => "sunionstore",
            Operation::Subtract => "sdiffstore",
        }
    }
}

pub(super) fn sinter(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    answer(context, args, Operation::Intersect)
}

pub(super) fn sunion(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    answer(context, args, Operation::Unite)
}

pub(super) fn sdiff(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    answer(context, args, Operation::Subtract)
}

pub(super) fn sinterstore(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    store(context, args, Operation::Intersect)
}

pub(super) fn sunionstore(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    store(context, args, Operation::Unite)
}

pub(super) fn sdiffstore(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    store(context, args, Operation::Subtract)
}

pub(super) fn sintercard(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let not_counted = Failure::words("ERR numkeys should be greater than 0");
    let keys = args
        .integer(1)
        .ok()
        .filter(|keys| *keys > 0)
        .ok_or(not_counted)?;
    let keys = usize::try_from(keys).unwrap_or(usize::MAX);
    if keys > args.len() - 2 {
        return Err(Failure::words(
            "ERR Number of keys can't be greater than number of args",
        ));
    }
    let mut limit = 0;
    let mut at = 2 + keys;
    while at < args.len() {
        if !args.is(at, "LIMIT") || at + 1 == args.len() {
            return Err(Failure::SYNTAX);
        }
        let given = args
            .integer(at + 1)
            .ok()
            .and_then(|given| usize::try_from(given).ok());
        limit = given.ok_or(Failure::words("ERR LIMIT can't be negative"))?;
        at += 2;
    }
    let limit = if limit == 0 { usize::MAX } else { limit };
    let sets = read_all(context, args.from(2).take(keys))?;
    let Walk { walked, others } = Walk::of(&sets, Operation::Intersect);
    let mut count = 0;
    if let Some(walked) = walked {
        let rows = context.keyspace.rows();
        for element in set::iter(rows, walked)? {
            if is_in_all(rows, &others, &element?.member)? {
                count += 1;
                if count == limit {
                    break;
                }
            }
        }
    }
    context.reply.count(count);
    Ok(())
}

/// The sets of keys; those that are not there are empty.
fn read_all<'a>(
    context: &mut Context<'_>,
    keys: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Option<Collection>>, Failure> {
    keys.map(|key| read(context, key)).collect()
}

/// What is walked, and what is looked up.
struct Walk<'a> {
    walked: Option<&'a Collection>,
    others: Vec<Lookup<'a>>,
}

impl<'a> Walk<'a> {
    /// Of an intersection or a difference.
    fn of(sets: &'a [Option<Collection>], operation: Operation) -> Self {
        let nothing = Self {
            walked: None,
            others: Vec::new(),
        };
        let mut present: Vec<&Collection> = sets.iter().flatten().collect();
        match operation {
            Operation::Intersect if present.len() < sets.len() => return nothing,
            Operation::Intersect => present.sort_by_cached_key(|set| set::len(set)),
            _ if sets.first().is_none_or(Option::is_none) => return nothing,
            _ => {}
        }
        let Some((walked, others)) = present.split_first() else {
            return nothing;
        };
        Self {
            walked: Some(walked),
            others: others.iter().map(|set| Lookup::new(set)).collect(),
        }
    }
}

fn is_in_all(
    rows: &crate::store::rows::Rows,
    others: &[Lookup<'_>],
    member: &[u8],
) -> Result<bool, StoreError> {
    for other in others {
        if !other.contains(rows, member)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_in_none(
    rows: &crate::store::rows::Rows,
    others: &[Lookup<'_>],
    member: &[u8],
) -> Result<bool, StoreError> {
    for other in others {
        if other.contains(rows, member)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Hands out the members of a result, in batches; of a union some more than once.
fn each_batch(
    keyspace: &mut Keyspace,
    sets: &[Option<Collection>],
    operation: Operation,
    take: &mut Take<'_>,
) -> Result<(), StoreError> {
    if operation == Operation::Unite {
        for set in sets.iter().flatten() {
            batches_of(keyspace, set, &|_, _| Ok(true), take)?;
        }
        return Ok(());
    }
    let Walk { walked, others } = Walk::of(sets, operation);
    let Some(walked) = walked else {
        return Ok(());
    };
    let is_wanted = match operation {
        Operation::Intersect => is_in_all,
        _ => is_in_none,
    };
    let wanted =
        |keyspace: &mut Keyspace, member: &[u8]| is_wanted(keyspace.rows(), &others, member);
    batches_of(keyspace, walked, &wanted, take)
}

/// Walks a set in parts, so that rows may be changed in between.
fn batches_of(
    keyspace: &mut Keyspace,
    set: &Collection,
    is_wanted: &IsWanted<'_>,
    take: &mut Take<'_>,
) -> Result<(), StoreError> {
    let mut cursor = 0;
    loop {
        let part = set::scan(keyspace.rows(), set, cursor, BATCH)?;
        let mut batch = Vec::with_capacity(part.elements.len());
        for element in part.elements {
            if is_wanted(keyspace, &element.member)? {
                batch.push(element.member);
            }
        }
        take(keyspace, &batch)?;
        cursor = part.next;
        if cursor == 0 {
            return Ok(());
        }
    }
}

fn answer(context: &mut Context<'_>, args: Args<'_>, operation: Operation) -> Outcome {
    let sets = read_all(context, args.from(1))?;
    let mut found: Vec<Bytes> = Vec::new();
    let mut seen: HashSet<Bytes, RandomState> = HashSet::default();
    each_batch(context.keyspace, &sets, operation, &mut |_, batch| {
        match operation {
            Operation::Unite => {
                let fresh = batch
                    .iter()
                    .filter(|member| seen.insert(Bytes::clone(member)));
                found.extend(fresh.cloned());
            }
            Operation::Intersect | Operation::Subtract => found.extend_from_slice(batch),
        }
        Ok(())
    })?;
    context.reply.set(found.len());
    for member in &found {
        context.reply.bulk(member);
    }
    Ok(())
}

fn store(context: &mut Context<'_>, args: Args<'_>, operation: Operation) -> Outcome {
    let target = args.at(1);
    if target.len() > crate::store::format::row::KEY_BYTES_MAX {
        return Err(Failure::LONG_KEY);
    }
    let sets = read_all(context, args.from(2))?;
    let mut builder = SetBuilder::new(limits(context.settings));
    let built = each_batch(
        context.keyspace,
        &sets,
        operation,
        &mut |keyspace, batch| {
            for member in batch {
                builder.push(keyspace, member)?;
            }
            Ok(())
        },
    );
    if let Err(error) = built {
        builder.abandon(context.keyspace);
        return Err(error.into());
    }
    let len = builder.len();
    if len == 0 {
        context.remove(target)?;
    } else {
        let set = Value::Set(builder.finish());
        context.put(target, Object::lasting(set))?;
        context.event(EventClass::Set, operation.event(), target);
    }
    context
        .reply
        .integer(i64::try_from(len).unwrap_or(i64::MAX));
    Ok(())
}
