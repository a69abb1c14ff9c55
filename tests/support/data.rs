//! Keys of all types and encodings, with the exact contents they are to have.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::client::Client;
use super::contents::{Args, Contents, Entry, Expiry, Group, Pending, Stream, StreamId, unix_ms};

/// Expected entries by key.
pub type Entries = BTreeMap<Vec<u8>, Entry>;

/// Commands sent before the replies are read.
const LOAD_BATCH: usize = 500;

/// `count` keys whose names start with `prefix`; one in five has a TTL of more
/// than an hour.
pub fn make_entries(rng: &mut Rng, prefix: &str, count: usize) -> Entries {
    let now = unix_ms();
    let mut entries = Entries::new();
    while entries.len() < count {
        let mut key = format!("{prefix}{}", entries.len()).into_bytes();
        if rng.u32(..8) == 0 {
            // Names are bytes, not text.
            key.extend((0..rng.usize(1..12)).map(|_| rng.u8(..)));
        }
        let mut entry = Entry::of(make_contents(rng));
        if rng.u32(..5) == 0 {
            entry.expiry = Expiry::AtMs(now + rng.i64(3_600_000..360_000_000));
        }
        entries.insert(key, entry);
    }
    entries
}

fn make_contents(rng: &mut Rng) -> Contents {
    // Mostly small values, as in life; one in a hundred leaves the compact
    // encodings (listpack, intset) of a server's defaults.
    let size = match rng.u32(..100) {
        0 => rng.usize(130..700),
        1..10 => rng.usize(10..40),
        _ => rng.usize(1..6),
    };
    match rng.u32(..10) {
        0..4 => Contents::Text(text(rng)),
        4 => Contents::List((0..size).map(|_| text(rng)).collect()),
        5 => {
            let numbers = rng.bool();
            Contents::Set((0..size).map(|_| member(rng, numbers)).collect())
        }
        6 => Contents::Sorted(
            (0..size)
                .map(|_| (member(rng, false), score(rng)))
                .collect(),
        ),
        7..9 => Contents::Hash((0..size).map(|_| (member(rng, false), text(rng))).collect()),
        _ => Contents::Stream(stream(rng, size)),
    }
}

/// A string of one of the kinds that servers store in different ways.
fn text(rng: &mut Rng) -> Vec<u8> {
    match rng.u32(..12) {
        0 => Vec::new(),
        1 => rng.i8(..).to_string().into_bytes(),
        2 => rng.i32(..).to_string().into_bytes(),
        3 => rng.i64(..).to_string().into_bytes(),
        4 => (0..rng.usize(1..60)).map(|_| rng.u8(..)).collect(),
        5 => b"abc".repeat(rng.usize(10..100)),
        6 if rng.u32(..50) == 0 => (0..rng.usize(16_000..70_000)).map(|_| rng.u8(..)).collect(),
        _ => (0..rng.usize(1..30))
            .map(|_| rng.alphanumeric() as u8)
            .collect(),
    }
}

fn member(rng: &mut Rng, number: bool) -> Vec<u8> {
    if number {
        return (rng.i64(..) >> rng.u32(..60)).to_string().into_bytes();
    }
    // Longer than a listpack takes, now and then.
    let length = if rng.u32(..200) == 0 { 90 } else { 6 };
    (0..length).map(|_| rng.alphanumeric() as u8).collect()
}

fn score(rng: &mut Rng) -> f64 {
    match rng.u32(..10) {
        0 => f64::INFINITY,
        1 => f64::NEG_INFINITY,
        2..5 => f64::from(rng.i32(..)),
        _ => rng.f64() * 1e6 - 5e5,
    }
}

fn stream(rng: &mut Rng, size: usize) -> Stream {
    let mut stream = Stream::default();
    let mut id = StreamId(rng.u64(1..1 << 40), 0);
    for _ in 0..size {
        id = if rng.bool() {
            StreamId(id.0, id.1 + 1)
        } else {
            StreamId(id.0 + rng.u64(1..1000), rng.u64(..3))
        };
        let fields = (0..rng.usize(1..4)).flat_map(|n| [format!("f{n}").into_bytes(), text(rng)]);
        let fields = fields.collect();
        stream.entries.insert(id, fields);
    }
    stream.last_id = id;
    for n in 0..rng.u32(..3) {
        let name = format!("group{n}").into_bytes();
        stream.groups.insert(name, group(rng, &stream));
    }
    stream
}

fn group(rng: &mut Rng, stream: &Stream) -> Group {
    let mut group = Group::default();
    for n in 0..rng.u32(1..4) {
        group.consumers.insert(format!("consumer{n}").into_bytes());
    }
    let consumers: Vec<_> = group.consumers.iter().cloned().collect();
    let delivered = rng.usize(..=stream.entries.len());
    for id in stream.entries.keys().take(delivered) {
        group.last_delivered = *id;
        if rng.bool() {
            let pending = Pending {
                consumer: consumers[rng.usize(..consumers.len())].clone(),
                deliveries: rng.i64(1..5),
            };
            group.pending.insert(*id, pending);
        }
    }
    group
}

/// Writes `entries` through `client`; panics on the first error reply.
pub fn write_entries<'e>(
    client: &mut Client,
    entries: impl IntoIterator<Item = (&'e Vec<u8>, &'e Entry)>,
) {
    let mut batch: Vec<Args> = Vec::new();
    for (key, entry) in entries {
        batch.extend(entry.commands(key));
        if batch.len() >= LOAD_BATCH {
            flush(client, &mut batch);
        }
    }
    flush(client, &mut batch);
}

fn flush(client: &mut Client, batch: &mut Vec<Args>) {
    for (reply, command) in client.pipeline(batch).iter().zip(batch.iter()) {
        assert!(
            !reply.is_error(),
            "{reply:?} to {}",
            command.join(&b' ').escape_ascii()
        );
    }
    batch.clear();
}
