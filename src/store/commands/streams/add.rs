//! Adding entries, and letting go of old ones.

use crate::rdb::StreamId;
use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::commands::settings::EventClass;
use crate::store::format::object::StreamValue;
use crate::store::format::packed::Packed;
use crate::store::kinds::stream::{self, Measure, Trim};

use super::ids::{self, Written};
use super::{Held, changing, lookup, put, put_quietly, tell_id, told};

/// Entries that go at once where `stream-node-max-entries` says nothing.
const NODE_ENTRIES: u64 = 100;
/// So many nodes go at once, if no other limit is given ..
const NODES_AT_ONCE: u64 = 100;
/// .. and no more entries than these.
const LIMIT_MAX: u64 = 1_000_000;
/// Names and values of one entry.
const ENTRY_BYTES_MAX: usize = 1 << 30;

#[derive(Clone, Copy)]
struct Trimming {
    trim: Trim,
    measure: Measure,
    /// Where its threshold was written.
    at: usize,
}

impl Trimming {
    fn is_about(self) -> bool {
        self.measure != Measure::Exact
    }
}

struct Options {
    id: Option<Written>,
    /// Where the id is, or the end.
    at: usize,
    may_make: bool,
    trimming: Option<Trimming>,
}

impl Options {
    fn parse(context: &Context<'_>, args: Args<'_>, adds: bool) -> Result<Self, Failure> {
        let mut options = Self {
            id: None,
            at: 2,
            may_make: true,
            trimming: None,
        };
        let mut limit = None;
        while options.at < args.len() {
            let at = options.at;
            let behind = args.len() - at - 1;
            if adds && args.at(at) == b"*" {
                break;
            }
            let is_length = args.is(at, "MAXLEN");
            if (is_length || args.is(at, "MINID")) && behind >= 1 {
                if options.trimming.is_some() {
                    return Err(Failure::words(
                        "ERR syntax error, MAXLEN and MINID options at the same time are not \
                         compatible",
                    ));
                }
                let trimming = Self::trimming(args, at, is_length)?;
                options.at = trimming.at + 1;
                options.trimming = Some(trimming);
            } else if args.is(at, "LIMIT") && behind >= 1 {
                let given = u64::try_from(args.integer(at + 1)?);
                let words = "ERR The LIMIT argument must be >= 0.";
                limit = Some(given.map_err(|_| Failure::words(words))?);
                options.at += 2;
            } else if adds && args.is(at, "NOMKSTREAM") {
                options.may_make = false;
                options.at += 1;
            } else if adds {
                options.id = Some(ids::to_add(args.at(at))?);
                break;
            } else {
                return Err(Failure::SYNTAX);
            }
        }
        options.check(context, adds, limit)?;
        Ok(options)
    }

    fn trimming(args: Args<'_>, at: usize, is_length: bool) -> Result<Trimming, Failure> {
        let has_two = args.len() - at > 2;
        let is_about = has_two && args.at(at + 1) == b"~";
        let at = at + 1 + usize::from(is_about || (has_two && args.at(at + 1) == b"="));
        let trim = match is_length {
            true => {
                let len = u64::try_from(args.integer(at)?);
                let words = "ERR The MAXLEN argument must be >= 0.";
                Trim::Length(len.map_err(|_| Failure::words(words))?)
            }
            false => Trim::Before(ids::strict(args.at(at), 0)?),
        };
        let measure = match is_about {
            true => Measure::About { by: 1, limit: 0 },
            false => Measure::Exact,
        };
        Ok(Trimming { trim, measure, at })
    }

    fn check(
        &mut self,
        context: &Context<'_>,
        adds: bool,
        limit: Option<u64>,
    ) -> Result<(), Failure> {
        if limit.is_some_and(|limit| limit > 0) && self.trimming.is_none() {
            return Err(Failure::words(
                "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
            ));
        }
        if !adds && self.trimming.is_none() {
            return Err(Failure::words(
                "ERR syntax error, XTRIM must be called with a trimming strategy",
            ));
        }
        // What a master says was cut to what it did, and still names its limit.
        let is_about = self.trimming.is_some_and(Trimming::is_about);
        if limit.is_some() && !is_about && !context.obeys() {
            return Err(Failure::words(
                "ERR syntax error, LIMIT cannot be used without the special ~ option",
            ));
        }
        if let Some(trimming) = &mut self.trimming
            && is_about
        {
            let by = match context.settings.stream_node_max_entries {
                0 => NODE_ENTRIES,
                entries => entries,
            };
            let limit = match limit {
                _ if context.obeys() => u64::MAX,
                None => by.saturating_mul(NODES_AT_ONCE).min(LIMIT_MAX),
                Some(0) => u64::MAX,
                Some(limit) => limit,
            };
            trimming.measure = Measure::About { by, limit };
        }
        Ok(())
    }
}

fn trim(context: &mut Context<'_>, stream: &mut StreamValue, by: Trimming) -> Result<u64, Failure> {
    let rows = context.keyspace.rows();
    Ok(stream::trim(rows, stream, by.trim, by.measure)?)
}

/// Names the effect of a command whose id or threshold was found by us.
fn propagate(
    context: &mut Context<'_>,
    args: Args<'_>,
    options: &Options,
    stream: &StreamValue,
    id: Option<StreamId>,
) {
    let id = id.map(|id| id.to_string());
    let about = options.trimming.filter(|trimming| trimming.is_about());
    let threshold = about.map(|trimming| match trimming.trim {
        Trim::Length(_) => stream.entries.to_string(),
        // Nothing is behind all ids.
        Trim::Before(_) if stream.entries == 0 => StreamId::MAX.to_string(),
        Trim::Before(_) => stream.first.to_string(),
    });
    let mut words: Vec<&[u8]> = args.from(0).collect();
    if let (Some(id), Some(word)) = (&id, words.get_mut(options.at)) {
        *word = id.as_bytes();
    }
    if let (Some(text), Some(trimming)) = (&threshold, about) {
        words[trimming.at] = text.as_bytes();
        words[trimming.at - 1] = b"=";
        // Exact ones have no limit.
        let is_limit = |at: &usize| args.is(*at, "LIMIT") && *at != trimming.at;
        if let Some(at) = (2..options.at).find(is_limit) {
            words.drain(at..at + 2);
        }
    }
    context.propagate(&words);
}

pub(super) fn xadd(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let options = Options::parse(context, args, true)?;
    let first = options.at + 1;
    let words = args.len().saturating_sub(first);
    if words < 2 || !words.is_multiple_of(2) {
        return Err(Failure::arity("xadd"));
    }
    let zero = Written {
        id: StreamId::MIN,
        wants_seq: false,
    };
    if options.id == Some(zero) {
        return Err(Failure::words(
            "ERR The ID specified in XADD must be greater than 0-0",
        ));
    }
    let key = args.at(1);
    let mut held = match lookup(context, key)? {
        Some(held) => held,
        None if options.may_make => Held::new(context),
        None => {
            context.reply.null();
            return Ok(());
        }
    };
    let id = next_id(&held.stream, options.id, context.now_ms())?;
    if args.from(first).map(<[u8]>::len).sum::<usize>() > ENTRY_BYTES_MAX {
        return Err(Failure::words("ERR Elements are too large to be stored"));
    }
    let fields: Packed = args.from(first).collect();
    stream::append(context.keyspace.rows(), &mut held.stream, id, &fields);
    let trimmed = match options.trimming {
        Some(trimming) => {
            let trimmed = trim(context, &mut held.stream, trimming);
            changing(context, trimmed)?
        }
        None => 0,
    };
    let stream = held.stream;
    put(context, key, held)?;
    tell_id(context.reply, id);
    context.event(EventClass::Stream, "xadd", key);
    if trimmed > 0 {
        context.event(EventClass::Stream, "xtrim", key);
    }
    let is_found = options.id.is_none_or(|id| id.wants_seq);
    if is_found || options.trimming.is_some_and(Trimming::is_about) {
        propagate(context, args, &options, &stream, is_found.then_some(id));
    }
    Ok(())
}

fn next_id(
    stream: &StreamValue,
    written: Option<Written>,
    now_ms: u64,
) -> Result<StreamId, Failure> {
    const TOO_SMALL: Failure = Failure::words(
        "ERR The ID specified in XADD is equal or smaller than the target stream top item",
    );
    const EXHAUSTED: Failure = Failure::words(
        "ERR The stream has exhausted the last possible ID, unable to add more items",
    );
    let last = stream.last;
    if last == StreamId::MAX {
        return Err(EXHAUSTED);
    }
    let id = match written {
        None if now_ms > last.ms => StreamId { ms: now_ms, seq: 0 },
        None => last.next().ok_or(EXHAUSTED)?,
        Some(Written {
            id,
            wants_seq: true,
        }) if id.ms == last.ms => {
            let seq = last.seq.checked_add(1).ok_or(TOO_SMALL)?;
            StreamId { seq, ..last }
        }
        Some(written) => written.id,
    };
    if id > last { Ok(id) } else { Err(TOO_SMALL) }
}

pub(super) fn xtrim(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let options = Options::parse(context, args, false)?;
    let key = args.at(1);
    let (Some(mut held), Some(trimming)) = (lookup(context, key)?, options.trimming) else {
        context.reply.integer(0);
        return Ok(());
    };
    let trimmed = trim(context, &mut held.stream, trimming)?;
    if trimmed > 0 {
        let stream = held.stream;
        put_quietly(context, key, held)?;
        context.event(EventClass::Stream, "xtrim", key);
        if trimming.is_about() {
            propagate(context, args, &options, &stream, None);
        }
    }
    context.reply.integer(told(trimmed));
    Ok(())
}
