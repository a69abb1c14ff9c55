//! SORT: the elements of a list, a set or a sorted set in another order, and what other
//! keys say of them.
//!
//! ```text
//! options   what is asked
//! patterns  `weight_*->field`: values that an element names
//! ```
//! What has nothing to tell it apart keeps the order in which it was found.

mod options;
mod patterns;

use std::cmp::Ordering;

use bytes::Bytes;

use crate::store::format::numbers::parse_float;
use crate::store::format::object::{Kind, Object, Value};
use crate::store::kinds::{list, set, zset};

use super::args::Args;
use super::context::{Context, Outcome};
use super::failure::Failure;
use super::settings::EventClass;
use super::table::{Command, Keys, Run};
use options::Options;

/// The family.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "sort",
        arity: -2,
        flags: "write denyoom movablekeys",
        keys: Keys::FirstAndStore,
        categories: "set sortedset list dangerous",
        run: Run::Data(sort),
    },
    Command {
        name: "sort_ro",
        arity: -2,
        flags: "readonly movablekeys",
        keys: Keys::FIRST,
        categories: "set sortedset list dangerous",
        run: Run::Data(sort_ro),
    },
];

/// An element, and what it is compared by.
struct Sorted {
    element: Bytes,
    score: f64,
    text: Option<Bytes>,
}

fn sort(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let options = Options::parse(args, true)?;
    sort_by(context, args.at(1), options)
}

fn sort_ro(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let options = Options::parse(args, false)?;
    sort_by(context, args.at(1), options)
}

fn sort_by(context: &mut Context<'_>, key: &[u8], mut options: Options<'_>) -> Outcome {
    let found = context.read(key)?;
    let kind = found.as_ref().map(|object| object.value.kind());
    if kind.is_some_and(|kind| !matches!(kind, Kind::List | Kind::Set | Kind::Zset)) {
        return Err(Failure::WRONG_TYPE);
    }
    // What is stored must not depend on the order of a hash table.
    if options.is_unsorted() && kind == Some(Kind::Set) && options.store.is_some() {
        options.by = None;
        options.is_alpha = true;
    }
    if let Some(object) = &found {
        make_skiplist(context, key, object)?;
    }
    let elements = match &found {
        None => Vec::new(),
        Some(object) => elements_of(context, &object.value)?,
    };
    let range = options.range(elements.len());
    let elements = match options.is_unsorted() {
        true if options.is_descending && kind != Some(Kind::Set) => {
            elements.into_iter().rev().collect()
        }
        true => elements,
        false => sorted(context, elements, &options)?,
    };
    let chosen = elements.get(range).unwrap_or(&[]);
    match options.store {
        None => reply(context, chosen, &options),
        Some(to) => store(context, to, chosen, &options),
    }
}

/// Redis gives a sorted set that is sorted its large encoding, for good.
fn make_skiplist(context: &mut Context<'_>, key: &[u8], object: &Object) -> Outcome {
    let mut object = object.clone();
    if let Value::Zset(zset) = &mut object.value
        && zset.is_compact
        && (context.is_master() || context.obeys())
    {
        zset.is_compact = false;
        context.keyspace.put_untold(context.db, key, object)?;
    }
    Ok(())
}

fn elements_of(context: &mut Context<'_>, value: &Value) -> Result<Vec<Bytes>, Failure> {
    let rows = context.keyspace.rows_read();
    Ok(match value {
        Value::List(of) => list::items(rows, of, 0, list::len(of))?.collect::<Result<_, _>>()?,
        Value::Set(of) => {
            let members = set::iter(rows, of)?.map(|element| Ok(element?.member));
            members.collect::<Result<_, Failure>>()?
        }
        Value::Zset(of) => {
            let members = zset::walk_all(rows, of)?.map(|entry| Ok(entry?.member));
            members.collect::<Result<_, Failure>>()?
        }
        Value::String(_) | Value::Hash(_) | Value::Stream(_) => Vec::new(),
    })
}

fn sorted(
    context: &mut Context<'_>,
    elements: Vec<Bytes>,
    options: &Options<'_>,
) -> Result<Vec<Bytes>, Failure> {
    let mut all = Vec::with_capacity(elements.len());
    let mut is_number = true;
    for element in elements {
        let by = match options.by {
            None => Some(element.clone()),
            Some(pattern) => patterns::value_of(context, pattern, &element)?,
        };
        let mut score = 0.0;
        if !options.is_alpha
            && let Some(text) = &by
        {
            match score_of(text) {
                Some(number) => score = number,
                None => is_number = false,
            }
        }
        all.push(Sorted {
            element,
            score,
            text: by,
        });
    }
    if !is_number {
        return Err(Failure::words(
            "ERR One or more scores can't be converted into double",
        ));
    }
    let order = |one: &Sorted, other: &Sorted| {
        let order = compare(one, other, options);
        if options.is_descending {
            order.reverse()
        } else {
            order
        }
    };
    all.sort_by(order);
    Ok(all.into_iter().map(|sorted| sorted.element).collect())
}

/// As `strtod` reads it, blanks before it included, up to a zero byte; nothing at all is 0.
fn score_of(text: &[u8]) -> Option<f64> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or(text);
    let blanks = text
        .iter()
        .take_while(|byte| byte.is_ascii_whitespace() || **byte == 0x0b);
    match text.get(blanks.count()..) {
        Some([]) if text.is_empty() => Some(0.0),
        Some(number) => parse_float(number),
        None => None,
    }
}

fn compare(one: &Sorted, other: &Sorted, options: &Options<'_>) -> Ordering {
    if !options.is_alpha {
        let by_score = one
            .score
            .partial_cmp(&other.score)
            .unwrap_or(Ordering::Equal);
        return by_score.then_with(|| one.element.cmp(&other.element));
    }
    match options.store {
        Some(_) => one.text.cmp(&other.text),
        // As `strcoll` does: up to the first zero byte.
        None => {
            let shown = |text: &Option<Bytes>| {
                let end = |bytes: &Bytes| bytes.iter().position(|byte| *byte == 0);
                text.as_ref()
                    .map(|bytes| bytes.slice(..end(bytes).unwrap_or(bytes.len())))
            };
            shown(&one.text).cmp(&shown(&other.text))
        }
    }
}

fn reply(context: &mut Context<'_>, chosen: &[Bytes], options: &Options<'_>) -> Outcome {
    context
        .reply
        .array(chosen.len() * options.gets.len().max(1));
    for element in chosen {
        if options.gets.is_empty() {
            context.reply.bulk(element);
        }
        for pattern in &options.gets {
            let value = patterns::value_of(context, pattern, element)?;
            context.reply.bulk_or_null(value.as_deref());
        }
    }
    Ok(())
}

fn store(context: &mut Context<'_>, to: &[u8], chosen: &[Bytes], options: &Options<'_>) -> Outcome {
    let mut made = list::Builder::default();
    let mut len = 0;
    for element in chosen {
        if options.gets.is_empty() {
            made.push(context.keyspace, element);
            len += 1;
        }
        for pattern in &options.gets {
            let value = patterns::value_of(context, pattern, element)?.unwrap_or_default();
            made.push(context.keyspace, &value);
            len += 1;
        }
    }
    context.lookup(to)?;
    if len > 0 {
        let value = Value::List(made.finish());
        context.put_over(to, Object::lasting(value))?;
        context.event(EventClass::List, "sortstore", to);
    } else {
        context.remove(to)?;
    }
    context.reply.count(len);
    Ok(())
}
