//! What came behind an id, for anybody or for a group, and waiting for more.
//!
//! ```text
//! XREAD       id .. --> entries behind it
//! XREADGROUP  >     --> entries that the group was not given yet; pending then
//!             id    --> what is pending for the consumer, behind it
//! ```
//! Who finds nothing may wait. Woken, they are answered if the stream's last id is behind
//! the one they wait at, even if the entry is gone again, as Redis has it.

use bytes::Bytes;

use crate::rdb::StreamId;
use crate::store::commands::args::{Args, OwnedRequest};
use crate::store::commands::context::{Context, OnTimeout, Outcome, Wait, Waits};
use crate::store::commands::failure::Failure;
use crate::store::commands::reply::Reply;
use crate::store::format::object::Kind;
use crate::store::kinds::stream::{self, Entry, Group, Membership, Pending};

use super::query::{Query, Reader};
use super::{
    Held, changing, effects, group_of, ids, join, now_ms, put_untold, quoting, read, tell_entry,
    tell_id,
};

/// Entries that who waited without a count is given at most.
const WOKEN_COUNT: usize = 1000;

pub(super) fn xread(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    run(context, args, &Query::parse(args, false, context.waits)?)
}

pub(super) fn xreadgroup(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    // What became of it is named, if anything did.
    context.unit.name_nothing();
    run(context, args, &Query::parse(args, true, context.waits)?)
}

/// Where to read on in one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    /// An id: of entries, or of what is pending.
    Id(StreamId),
    /// `>`: what the group was given last.
    Group,
}

fn run(context: &mut Context<'_>, args: Args<'_>, query: &Query<'_>) -> Outcome {
    if let Waits::Woken { by } = context.waits {
        return serve_woken(context, args, query, by);
    }
    let mut behind = Vec::with_capacity(query.keys.len());
    for number in query.keys.clone() {
        behind.push(begin(context, args, query, number)?);
    }
    let mut answers = Answers::new(context);
    for (number, behind) in query.keys.clone().zip(&behind) {
        let key = args.at(number);
        // Looked for a second time, as in Redis: that is two hits, or misses.
        let Some(held) = read(context, key)? else {
            continue;
        };
        match (query.reader, behind) {
            (None, Behind::Id(id)) => read_behind(context, query, key, &held, *id, &mut answers)?,
            (None, Behind::Group) => {}
            (Some(reader), behind) => {
                read_for(context, query, reader, key, held, *behind, &mut answers)?;
            }
        }
    }
    if answers.count == 0 {
        return wait(context, args, query, &behind);
    }
    answers.tell(context);
    Ok(())
}

/// What is written for one stream, as an id.
fn begin(
    context: &mut Context<'_>,
    args: Args<'_>,
    query: &Query<'_>,
    number: usize,
) -> Result<Behind, Failure> {
    let key = args.at(number);
    let held = read(context, key)?;
    let last = held.as_ref().map_or(StreamId::MIN, |held| held.stream.last);
    let is_for_group = query.reader.is_some();
    if let Some(reader) = query.reader
        && group_of(context, held, reader.group)?.is_none()
    {
        let parts = [
            "NOGROUP No such key '",
            "' or consumer group '",
            "' in XREADGROUP with GROUP option",
        ];
        return Err(quoting(parts, [key, reader.group]));
    }
    match args.at(query.id_of(number)) {
        b"$" if is_for_group => Err(Failure::words(
            "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the \
             history of this consumer by specifying a proper ID, or use the > ID to get new \
             messages. The $ ID would just return an empty result set.",
        )),
        b"$" => Ok(Behind::Id(last)),
        b">" if is_for_group => Ok(Behind::Group),
        b">" => Err(Failure::words(
            "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> \
             <consumer> option.",
        )),
        text => Ok(match ids::strict(text, 0)? {
            // Redis takes it for the same.
            StreamId::MAX if is_for_group => Behind::Group,
            id => Behind::Id(id),
        }),
    }
}

/// What is told of the streams that have something.
struct Answers {
    count: usize,
    reply: Reply,
}

impl Answers {
    fn new(context: &Context<'_>) -> Self {
        Self {
            count: 0,
            reply: Reply::new(context.reply.is_resp3()),
        }
    }

    fn begin(&mut self, key: &[u8]) {
        self.count += 1;
        if !self.reply.is_resp3() {
            self.reply.array(2);
        }
        self.reply.bulk(key);
    }

    fn entries(&mut self, key: &[u8], entries: &[Entry]) {
        self.begin(key);
        self.reply.array(entries.len());
        for entry in entries {
            tell_entry(&mut self.reply, entry);
        }
    }

    fn tell(self, context: &mut Context<'_>) {
        match self.reply.is_resp3() {
            true => context.reply.map(self.count),
            false => context.reply.array(self.count),
        }
        context.reply.raw().extend_from_slice(self.reply.bytes());
    }
}

fn entries_behind(
    context: &Context<'_>,
    held: &Held,
    id: StreamId,
    count: Option<usize>,
) -> Result<Vec<Entry>, Failure> {
    let Some(from) = id.next() else {
        return Ok(Vec::new());
    };
    let rows = context.keyspace.rows_read();
    let entries = stream::range(rows, &held.stream, from, StreamId::MAX)?;
    Ok(entries
        .take(count.unwrap_or(usize::MAX))
        .collect::<Result<_, _>>()?)
}

fn read_behind(
    context: &mut Context<'_>,
    query: &Query<'_>,
    key: &[u8],
    held: &Held,
    id: StreamId,
    answers: &mut Answers,
) -> Outcome {
    let entries = entries_behind(context, held, id, query.count)?;
    if !entries.is_empty() {
        answers.entries(key, &entries);
    }
    Ok(())
}

/// For a consumer: new entries, if there are any, or what is pending for it, even if that
/// is nothing.
fn read_for(
    context: &mut Context<'_>,
    query: &Query<'_>,
    reader: Reader<'_>,
    key: &[u8],
    held: Held,
    behind: Behind,
    answers: &mut Answers,
) -> Outcome {
    let Some((held, group)) = group_of(context, Some(held), reader.group)? else {
        return Ok(());
    };
    match behind {
        Behind::Group => {
            let entries = entries_behind(context, &held, group.last, query.count)?;
            if entries.is_empty() {
                return Ok(());
            }
            let delivered = deliver(context, reader, key, held, group, &entries);
            changing(context, delivered)?;
            answers.entries(key, &entries);
            Ok(())
        }
        Behind::Id(id) => {
            let told = tell_history(context, query, reader, key, (held, group), id, answers);
            changing(context, told)
        }
    }
}

/// Entries are given to a consumer, which is made if there is none.
fn deliver(
    context: &mut Context<'_>,
    reader: Reader<'_>,
    key: &[u8],
    mut held: Held,
    group: Group,
    entries: &[Entry],
) -> Outcome {
    let before = group.last;
    let mut open = Membership::open(group);
    let is_new = join(context, key, &mut held, &mut open, reader.consumer)?;
    if is_new && (reader.acknowledges || entries.is_empty()) {
        effects::joined(context, key, &open.group, reader.consumer);
    }
    let delivered_ms = now_ms(context);
    for Entry { id, .. } in entries {
        if *id > open.group.last {
            stream::count_read(&held.stream, &mut open.group, *id);
        }
        if reader.acknowledges {
            continue;
        }
        let pending = Pending {
            id: *id,
            delivered_ms,
            times: 1,
            consumer: Bytes::copy_from_slice(reader.consumer),
        };
        let rows = context.keyspace.rows();
        // There before if the group's last id was set back.
        let was = open.pending(rows, &held.stream, *id)?;
        open.give(rows, &held.stream, &pending, was.as_ref())?;
        effects::claimed(context, key, &open.group, &pending);
    }
    effects::moved(context, key, &open.group, before);
    open.put(context.keyspace.rows(), &held.stream);
    match is_new {
        true => put_untold(context, key, held),
        false => Ok(()),
    }
}

/// What is pending for a consumer, again. That it was given again is not told to the log.
fn tell_history(
    context: &mut Context<'_>,
    query: &Query<'_>,
    reader: Reader<'_>,
    key: &[u8],
    (mut held, group): (Held, Group),
    id: StreamId,
    answers: &mut Answers,
) -> Outcome {
    let mut open = Membership::open(group);
    let is_new = join(context, key, &mut held, &mut open, reader.consumer)?;
    if is_new {
        effects::joined(context, key, &open.group, reader.consumer);
    }
    let stream = &held.stream;
    let rows = context.keyspace.rows();
    let mut owned = Vec::new();
    if let Some(consumer) = open.consumer(rows, stream, reader.consumer)?.cloned()
        && let Some(from) = id.next()
    {
        let found =
            stream::owned_between(rows, stream, &open.group, &consumer, from, StreamId::MAX)?;
        let count = query.count.unwrap_or(usize::MAX);
        owned = found.take(count).collect::<Result<_, _>>()?;
    }
    let delivered_ms = now_ms(context);
    let rows = context.keyspace.rows();
    answers.begin(key);
    answers.reply.array(owned.len());
    for id in owned {
        let Some(entry) = stream::get(rows, stream, id)? else {
            answers.reply.array(2);
            tell_id(&mut answers.reply, id);
            answers.reply.null_array();
            continue;
        };
        tell_entry(&mut answers.reply, &entry);
        if let Some(was) = open.pending(rows, stream, id)? {
            let pending = Pending {
                delivered_ms,
                times: was.times.wrapping_add(1),
                ..was.clone()
            };
            open.give(rows, stream, &pending, Some(&was))?;
        }
    }
    open.put(rows, stream);
    match is_new {
        true => put_untold(context, key, held),
        false => Ok(()),
    }
}

fn wait(
    context: &mut Context<'_>,
    args: Args<'_>,
    query: &Query<'_>,
    behind: &[Behind],
) -> Outcome {
    let Some(block_ms) = query.block_ms.filter(|_| context.may_wait()) else {
        context.reply.null_array();
        return Ok(());
    };
    // What `$` was when the wait began.
    let ids = behind.iter().map(|behind| match behind {
        Behind::Id(id) => id.to_string(),
        Behind::Group => ">".to_owned(),
    });
    let ids: Vec<String> = ids.collect();
    let head = args.from(0).take(query.keys.end);
    let words: Vec<&[u8]> = head.chain(ids.iter().map(String::as_bytes)).collect();
    let keys = query.keys.clone();
    context.wait = Some(Wait {
        keys: keys
            .map(|key| Bytes::copy_from_slice(args.at(key)))
            .collect(),
        until_ms: (block_ms > 0).then(|| context.now_ms().saturating_add(block_ms)),
        on_timeout: OnTimeout::NullArray,
        again_as: OwnedRequest::from_words(&words),
        ends_with_key: query.reader.is_some(),
    });
    Ok(())
}

/// Of who waited, when something happened to a key: told of that key alone, or they wait on.
fn serve_woken(context: &mut Context<'_>, args: Args<'_>, query: &Query<'_>, by: &[u8]) -> Outcome {
    let held = Held::of(context.lookup_awaited(by, Kind::Stream)?)?;
    let Some(held) = held else {
        return match query.reader {
            Some(_) => Err(Failure::words("UNBLOCKED the stream key no longer exists")),
            None => wait_on(context),
        };
    };
    let mut numbers = query.keys.clone();
    let Some(number) = numbers.find(|number| args.at(*number) == by) else {
        return wait_on(context);
    };
    let count = Some(query.count.unwrap_or(WOKEN_COUNT));
    let mut answers = Answers::new(context);
    match query.reader {
        None => {
            let id = ids::strict(args.at(query.id_of(number)), 0)?;
            if held.stream.last <= id {
                return wait_on(context);
            }
            let entries = entries_behind(context, &held, id, count)?;
            answers.entries(by, &entries);
        }
        Some(reader) => {
            let Some((held, group)) = group_of(context, Some(held), reader.group)? else {
                return Err(Failure::words(
                    "NOGROUP the consumer group this client was blocked on no longer exists",
                ));
            };
            if held.stream.last <= group.last {
                return wait_on(context);
            }
            let entries = entries_behind(context, &held, group.last, count)?;
            let delivered = deliver(context, reader, by, held, group, &entries);
            changing(context, delivered)?;
            answers.entries(by, &entries);
        }
    }
    answers.tell(context);
    Ok(())
}

/// As before: for what and until when was settled then.
fn wait_on(context: &mut Context<'_>) -> Outcome {
    context.wait = Some(Wait {
        keys: Vec::new(),
        until_ms: None,
        on_timeout: OnTimeout::NullArray,
        again_as: None,
        ends_with_key: false,
    });
    Ok(())
}
