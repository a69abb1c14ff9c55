//! Of several sorted sets one: unions, intersections, differences. Sets count as sorted
//! sets whose scores are 1.

use std::collections::HashMap;

use bytes::Bytes;
use foldhash::fast::RandomState;

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::format::object::{Collection, Object, Value};
use crate::store::keyspace::Keyspace;
use crate::store::kinds::set;
use crate::store::kinds::zset::{self, Builder, Entry};
use crate::store::rows::StoreError;

use super::{elements, store, told};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Union,
    Intersection,
    Difference,
}

/// How scores of one member become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn of(self, one: f64, other: f64) -> f64 {
        match self {
            // Infinities that cancel out are 0.
            Aggregate::Sum => not_nan(one + other),
            Aggregate::Min if other < one => other,
            Aggregate::Max if other > one => other,
            Aggregate::Min | Aggregate::Max => one,
        }
    }
}

fn not_nan(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

enum Members {
    None,
    Set(Collection),
    Zset(Collection),
}

/// One of the sets that are combined.
struct Input<'a> {
    key: &'a [u8],
    members: Members,
    weight: f64,
}

impl Input<'_> {
    fn len(&self) -> u64 {
        match &self.members {
            Members::None => 0,
            Members::Set(of) => set::len(of),
            Members::Zset(of) => zset::len(of),
        }
    }

    fn score(&self, keyspace: &Keyspace, member: &[u8]) -> Result<Option<f64>, StoreError> {
        let rows = keyspace.rows_read();
        match &self.members {
            Members::None => Ok(None),
            Members::Set(of) => Ok(set::contains(rows, of, member)?.then_some(1.0)),
            Members::Zset(of) => zset::score(rows, of, member),
        }
    }

    fn each<'k>(
        &self,
        keyspace: &'k Keyspace,
    ) -> Result<Box<dyn Iterator<Item = Result<Entry, StoreError>> + 'k>, StoreError> {
        let rows = keyspace.rows_read();
        Ok(match &self.members {
            Members::None => Box::new(std::iter::empty()),
            Members::Set(of) => Box::new(set::iter(rows, of)?.map(|element| {
                let member = element?.member;
                Ok(Entry { member, score: 1.0 })
            })),
            Members::Zset(of) => Box::new(zset::walk_all(rows, of)?),
        })
    }
}

/// What a command asks for.
struct Combining<'a> {
    how: How,
    inputs: Vec<Input<'a>>,
    aggregate: Aggregate,
    has_scores: bool,
    /// So many of an intersection are counted.
    limit: Option<u64>,
}

/// What a command's name says.
#[derive(Clone, Copy)]
struct Named {
    name: &'static str,
    how: How,
    /// Where the number of keys is.
    number: usize,
    stores: bool,
    counts: bool,
}

impl<'a> Combining<'a> {
    fn parse(context: &mut Context<'_>, args: Args<'a>, named: Named) -> Result<Self, Failure> {
        let count = args.integer(named.number)?;
        if count < 1 {
            return Err(Failure::text(format!(
                "ERR at least 1 input key is needed for '{}' command",
                named.name
            )));
        }
        let first = named.number + 1;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > args.len() - first {
            return Err(Failure::SYNTAX);
        }
        let mut made = Self {
            how: named.how,
            inputs: Vec::with_capacity(count),
            aggregate: Aggregate::Sum,
            has_scores: false,
            limit: None,
        };
        for number in first..first + count {
            let key = args.at(number);
            let members = match context.read(key)? {
                None => Members::None,
                Some(Object {
                    value: Value::Set(of),
                    ..
                }) => Members::Set(of),
                Some(Object {
                    value: Value::Zset(of),
                    ..
                }) => Members::Zset(of),
                Some(_) => return Err(Failure::WRONG_TYPE),
            };
            made.inputs.push(Input {
                key,
                members,
                weight: 1.0,
            });
        }
        made.parse_options(args, first + count, named)?;
        Ok(made)
    }

    fn parse_options(
        &mut self,
        args: Args<'_>,
        mut at: usize,
        named: Named,
    ) -> Result<(), Failure> {
        let combines_scores = named.how != How::Difference && !named.counts;
        while at < args.len() {
            let behind = args.len() - at - 1;
            if combines_scores && behind >= self.inputs.len() && args.is(at, "WEIGHTS") {
                for input in &mut self.inputs {
                    at += 1;
                    let words = "ERR weight value is not a float";
                    input.weight = args.float(at).map_err(|_| Failure::words(words))?;
                }
            } else if combines_scores && behind >= 1 && args.is(at, "AGGREGATE") {
                at += 1;
                self.aggregate = match () {
                    () if args.is(at, "SUM") => Aggregate::Sum,
                    () if args.is(at, "MIN") => Aggregate::Min,
                    () if args.is(at, "MAX") => Aggregate::Max,
                    () => return Err(Failure::SYNTAX),
                };
            } else if !named.stores && !named.counts && args.is(at, "WITHSCORES") {
                self.has_scores = true;
            } else if named.counts && behind >= 1 && args.is(at, "LIMIT") {
                at += 1;
                let limit = args
                    .integer(at)
                    .ok()
                    .and_then(|limit| u64::try_from(limit).ok());
                let limit = limit.ok_or(Failure::words("ERR LIMIT can't be negative"))?;
                self.limit = (limit > 0).then_some(limit);
            } else {
                return Err(Failure::SYNTAX);
            }
            at += 1;
        }
        Ok(())
    }

    /// The elements, in no order. The order of the inputs is that of Redis, since it tells
    /// how sums are rounded.
    fn entries(&mut self, keyspace: &Keyspace) -> Result<Vec<Entry>, StoreError> {
        if self.how != How::Difference {
            self.inputs.sort_by_key(Input::len);
        }
        match self.how {
            How::Union => self.union(keyspace),
            How::Intersection => self.intersection(keyspace),
            How::Difference => self.difference(keyspace),
        }
    }

    fn union(&self, keyspace: &Keyspace) -> Result<Vec<Entry>, StoreError> {
        let mut scores: HashMap<Bytes, f64, RandomState> = HashMap::default();
        for input in &self.inputs {
            for entry in input.each(keyspace)? {
                let Entry { member, score } = entry?;
                let score = not_nan(input.weight * score);
                scores
                    .entry(member)
                    .and_modify(|known| *known = self.aggregate.of(*known, score))
                    .or_insert(score);
            }
        }
        let entries = scores.into_iter();
        Ok(entries
            .map(|(member, score)| Entry { member, score })
            .collect())
    }

    fn intersection(&self, keyspace: &Keyspace) -> Result<Vec<Entry>, StoreError> {
        let Some((first, others)) = self.inputs.split_first() else {
            return Ok(Vec::new());
        };
        let mut entries = Vec::new();
        'elements: for entry in first.each(keyspace)? {
            let Entry {
                member,
                score: of_first,
            } = entry?;
            let mut score = not_nan(first.weight * of_first);
            for other in others {
                let found = match other.key == first.key {
                    true => Some(of_first),
                    false => other.score(keyspace, &member)?,
                };
                let Some(found) = found else {
                    continue 'elements;
                };
                score = self.aggregate.of(score, other.weight * found);
            }
            entries.push(Entry { member, score });
            if self
                .limit
                .is_some_and(|limit| entries.len() as u64 >= limit)
            {
                break;
            }
        }
        Ok(entries)
    }

    fn difference(&self, keyspace: &Keyspace) -> Result<Vec<Entry>, StoreError> {
        let Some((first, others)) = self.inputs.split_first() else {
            return Ok(Vec::new());
        };
        let mut entries = Vec::new();
        'elements: for entry in first.each(keyspace)? {
            let entry = entry?;
            for other in others {
                if other.score(keyspace, &entry.member)?.is_some() {
                    continue 'elements;
                }
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

fn combine(context: &mut Context<'_>, args: Args<'_>, named: Named) -> Outcome {
    let mut combining = Combining::parse(context, args, named)?;
    let mut entries = combining.entries(context.keyspace)?;
    if named.counts {
        context.reply.integer(told(entries.len() as u64));
        return Ok(());
    }
    if named.stores {
        let target = args.at(1);
        context.lookup(target)?;
        let mut made = Builder::default();
        for entry in &entries {
            made.push_new(context.keyspace, &entry.member, entry.score);
        }
        return store(context, target, made, named.name);
    }
    zset::sort(&mut entries);
    elements(context.reply, &entries, combining.has_scores);
    Ok(())
}

const fn answered(name: &'static str, how: How) -> Named {
    let (stores, counts) = (false, false);
    Named {
        name,
        how,
        number: 1,
        stores,
        counts,
    }
}

const fn stored(name: &'static str, how: How) -> Named {
    let (stores, counts) = (true, false);
    Named {
        name,
        how,
        number: 2,
        stores,
        counts,
    }
}

pub(super) fn zunion(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    combine(context, args, answered("zunion", How::Union))
}

pub(super) fn zinter(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    combine(context, args, answered("zinter", How::Intersection))
}

pub(super) fn zdiff(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    combine(context, args, answered("zdiff", How::Difference))
}

pub(super) fn zunionstore(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    combine(context, args, stored("zunionstore", How::Union))
}

pub(super) fn zinterstore(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    combine(context, args, stored("zinterstore", How::Intersection))
}

pub(super) fn zdiffstore(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    combine(context, args, stored("zdiffstore", How::Difference))
}

pub(super) fn zintercard(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let counts = true;
    combine(
        context,
        args,
        Named {
            counts,
            ..answered("zintercard", How::Intersection)
        },
    )
}
