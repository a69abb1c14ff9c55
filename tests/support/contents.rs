//! What a key holds, free of encodings: to write it, to read it back from a
//! server, to compare.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use keyferry::router::RESERVED_PREFIX;

use super::client::{Client, Value};

/// How far the expiry of an [`Expiry::AboutMs`] may be off: the time a request
/// may have been on its way.
const EXPIRY_TOLERANCE_MS: i64 = 10_000;

/// How many keys are read in one pipeline.
const READ_BATCH: usize = 200;

/// Pending entries asked for at once; tests keep fewer.
const PENDING_MAX: &str = "100000";

/// One command.
pub type Args = Vec<Vec<u8>>;

/// A command of these words.
pub fn args<A: AsRef<[u8]>>(words: &[A]) -> Args {
    words.iter().map(|word| word.as_ref().to_vec()).collect()
}

/// A stream entry's id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64, pub u64);

impl fmt::Display for StreamId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.0, self.1)
    }
}

impl StreamId {
    fn parse(text: &[u8]) -> StreamId {
        let text = std::str::from_utf8(text).expect("an id is text");
        let (ms, seq) = text.split_once('-').expect("an id has a dash");
        StreamId(
            ms.parse().expect("a number"),
            seq.parse().expect("a number"),
        )
    }
}

/// A delivered entry that nobody has acknowledged.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    /// Who has it.
    pub consumer: Vec<u8>,
    /// How often it was delivered.
    pub deliveries: i64,
}

/// A consumer group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// The last entry that went to any consumer.
    pub last_delivered: StreamId,
    /// Every consumer, those without pending entries too.
    pub consumers: BTreeSet<Vec<u8>>,
    /// Delivered, not acknowledged.
    pub pending: BTreeMap<StreamId, Pending>,
}

/// A stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stream {
    /// Entries: field, value, field, value...
    pub entries: BTreeMap<StreamId, Vec<Vec<u8>>>,
    /// The highest id ever added.
    pub last_id: StreamId,
    /// Groups by name.
    pub groups: BTreeMap<Vec<u8>, Group>,
}

/// A value of any type.
#[derive(Clone, Debug, PartialEq)]
pub enum Contents {
    /// string
    Text(Vec<u8>),
    /// list
    List(Vec<Vec<u8>>),
    /// set
    Set(BTreeSet<Vec<u8>>),
    /// zset
    Sorted(BTreeMap<Vec<u8>, f64>),
    /// hash
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    /// stream
    Stream(Stream),
}

/// When a key goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expiry {
    /// No TTL.
    Never,
    /// At this Unix time, exactly.
    AtMs(i64),
    /// At about this Unix time: it was given in seconds from when the server got
    /// it.
    AboutMs(i64),
}

/// One key's value and expiry.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its value.
    pub contents: Contents,
    /// Its expiry.
    pub expiry: Expiry,
}

impl Entry {
    /// An entry without TTL.
    pub fn of(contents: Contents) -> Entry {
        Entry {
            contents,
            expiry: Expiry::Never,
        }
    }

    /// What differs between this, the expected entry, and `found`.
    pub fn difference(&self, found: Option<&Entry>) -> Option<String> {
        let Some(found) = found else {
            return Some("is missing".into());
        };
        if self.contents != found.contents {
            return Some(format!(
                "holds {} instead of {}",
                shorten(&found.contents),
                shorten(&self.contents)
            ));
        }
        let same = match (self.expiry, found.expiry) {
            (Expiry::AboutMs(wanted), Expiry::AtMs(at)) => {
                (wanted - at).abs() <= EXPIRY_TOLERANCE_MS
            }
            (wanted, at) => wanted == at,
        };
        (!same).then(|| format!("expires {:?} instead of {:?}", found.expiry, self.expiry))
    }

    /// The commands that make this entry out of nothing.
    pub fn commands(&self, key: &[u8]) -> Vec<Args> {
        let mut out = self.contents.commands(key);
        if let Expiry::AtMs(at) | Expiry::AboutMs(at) = self.expiry {
            out.push(args(&[b"PEXPIREAT", key, at.to_string().as_bytes()]));
        }
        out
    }
}

fn shorten(contents: &Contents) -> String {
    let text = match contents {
        Contents::Text(bytes) => format!("\"{}\"", bytes.escape_ascii()),
        other => format!("{other:?}"),
    };
    text.chars().take(400).collect()
}

impl Contents {
    fn commands(&self, key: &[u8]) -> Vec<Args> {
        let whole = |verb: &str, items: Vec<Vec<u8>>| {
            let mut command = args(&[verb.as_bytes(), key]);
            command.extend(items);
            vec![command]
        };
        match self {
            Contents::Text(value) => whole("SET", vec![value.clone()]),
            Contents::List(items) => whole("RPUSH", items.clone()),
            Contents::Set(items) => whole("SADD", items.iter().cloned().collect()),
            Contents::Sorted(items) => {
                let pairs = items.iter();
                whole(
                    "ZADD",
                    pairs
                        .flat_map(|(member, score)| {
                            [score.to_string().into_bytes(), member.clone()]
                        })
                        .collect(),
                )
            }
            Contents::Hash(items) => {
                let pairs = items.iter();
                whole(
                    "HSET",
                    pairs
                        .flat_map(|(field, value)| [field.clone(), value.clone()])
                        .collect(),
                )
            }
            Contents::Stream(stream) => stream.commands(key),
        }
    }
}

impl Stream {
    fn commands(&self, key: &[u8]) -> Vec<Args> {
        let mut out = Vec::new();
        for (id, fields) in &self.entries {
            let mut command = args(&[b"XADD", key, id.to_string().as_bytes()]);
            command.extend(fields.iter().cloned());
            out.push(command);
        }
        for (name, group) in &self.groups {
            let last = group.last_delivered.to_string();
            let words: [&[u8]; 6] = [
                b"XGROUP",
                b"CREATE",
                key,
                name,
                last.as_bytes(),
                b"MKSTREAM",
            ];
            out.push(args(&words));
            for consumer in &group.consumers {
                let words: [&[u8]; 5] = [b"XGROUP", b"CREATECONSUMER", key, name, consumer];
                out.push(args(&words));
            }
            for (id, pending) in &group.pending {
                let (id, deliveries) = (id.to_string(), pending.deliveries.to_string());
                let words: [&[u8]; 10] = [
                    b"XCLAIM",
                    key,
                    name,
                    &pending.consumer,
                    b"0",
                    id.as_bytes(),
                    b"RETRYCOUNT",
                    deliveries.as_bytes(),
                    b"FORCE",
                    b"JUSTID",
                ];
                out.push(args(&words));
            }
        }
        out
    }
}

/// Reads `keys` from the database that `client` has selected.
pub fn read_entries(client: &mut Client, keys: &[Vec<u8>]) -> Vec<Option<Entry>> {
    let mut out = Vec::with_capacity(keys.len());
    for batch in keys.chunks(READ_BATCH) {
        read_batch(client, batch, &mut out);
    }
    out
}

fn read_batch(client: &mut Client, keys: &[Vec<u8>], out: &mut Vec<Option<Entry>>) {
    let mut asks = Vec::new();
    for key in keys {
        asks.push(args(&[b"TYPE", key.as_slice()]));
        asks.push(args(&[b"PEXPIRETIME", key.as_slice()]));
    }
    let heads = client.pipeline(&asks);
    let mut reads = Vec::new();
    for (key, head) in keys.iter().zip(heads.chunks(2)) {
        reads.extend(read_command(key, &head[0].text()));
    }
    let mut bodies = client.pipeline(&reads).into_iter();
    for (key, head) in keys.iter().zip(heads.chunks(2)) {
        let kind = head[0].text();
        if kind == "none" {
            out.push(None);
            continue;
        }
        let body = bodies.next().expect("one reply each");
        let contents = match kind.as_str() {
            "string" => Contents::Text(body.bytes().to_vec()),
            "list" => Contents::List(bulk_list(&body)),
            "set" => Contents::Set(bulk_list(&body).into_iter().collect()),
            "hash" => Contents::Hash(pairs(&body).into_iter().collect()),
            "zset" => Contents::Sorted(
                pairs(&body)
                    .into_iter()
                    .map(|(member, score)| (member, parse_score(&score)))
                    .collect(),
            ),
            "stream" => Contents::Stream(read_stream(client, key, &body)),
            other => panic!("a key of type {other}"),
        };
        let expiry = match head[1].int() {
            -1 => Expiry::Never,
            at => Expiry::AtMs(at),
        };
        out.push(Some(Entry { contents, expiry }));
    }
}

fn read_command(key: &[u8], kind: &str) -> Option<Args> {
    let words: Vec<&[u8]> = match kind {
        "string" => vec![b"GET", key],
        "list" => vec![b"LRANGE", key, b"0", b"-1"],
        "set" => vec![b"SMEMBERS", key],
        "hash" => vec![b"HGETALL", key],
        "zset" => vec![b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"],
        "stream" => vec![b"XRANGE", key, b"-", b"+"],
        _ => return None,
    };
    Some(args(&words))
}

fn bulk_list(value: &Value) -> Vec<Vec<u8>> {
    let items = value.items().iter();
    items.map(|item| item.bytes().to_vec()).collect()
}

fn pairs(value: &Value) -> Vec<(Vec<u8>, Vec<u8>)> {
    let flat = bulk_list(value);
    flat.chunks(2)
        .map(|pair| (pair[0].clone(), pair[1].clone()))
        .collect()
}

fn parse_score(text: &[u8]) -> f64 {
    let text = std::str::from_utf8(text).expect("a score is text");
    text.parse().expect("a score is a number")
}

/// One field of a flat name-value reply such as XINFO's.
fn field<'v>(value: &'v Value, name: &str) -> &'v Value {
    let items = value.items();
    let at = items
        .chunks(2)
        .position(|pair| pair[0].bytes() == name.as_bytes())
        .unwrap_or_else(|| panic!("no field {name} in {value:?}"));
    &items[at * 2 + 1]
}

fn read_stream(client: &mut Client, key: &[u8], range: &Value) -> Stream {
    let entries = range.items().iter().map(|entry| {
        let entry = entry.items();
        (StreamId::parse(entry[0].bytes()), bulk_list(&entry[1]))
    });
    let entries = entries.collect();
    let info = client.call(&[b"XINFO".as_slice(), b"STREAM", key]);
    let mut groups = BTreeMap::new();
    let listed = client.call(&[b"XINFO".as_slice(), b"GROUPS", key]);
    for group in listed.items() {
        let name = field(group, "name").bytes().to_vec();
        groups.insert(name.clone(), read_group(client, key, &name, group));
    }
    Stream {
        entries,
        last_id: StreamId::parse(field(&info, "last-generated-id").bytes()),
        groups,
    }
}

fn read_group(client: &mut Client, key: &[u8], name: &[u8], group: &Value) -> Group {
    let words: [&[u8]; 4] = [b"XINFO", b"CONSUMERS", key, name];
    let consumers = client.call(&words);
    let words: [&[u8]; 6] = [b"XPENDING", key, name, b"-", b"+", PENDING_MAX.as_bytes()];
    let pending = client.call(&words);
    let pending = pending.items().iter().map(|line| {
        let line = line.items();
        let pending = Pending {
            consumer: line[1].bytes().to_vec(),
            deliveries: line[3].int(),
        };
        (StreamId::parse(line[0].bytes()), pending)
    });
    Group {
        last_delivered: StreamId::parse(field(group, "last-delivered-id").bytes()),
        consumers: consumers
            .items()
            .iter()
            .map(|consumer| field(consumer, "name").bytes().to_vec())
            .collect(),
        pending: pending.collect(),
    }
}

/// Every key of the database that `client` has selected.
pub fn all_keys(client: &mut Client) -> BTreeSet<Vec<u8>> {
    let mut keys = BTreeSet::new();
    let mut cursor = "0".to_owned();
    loop {
        let page = client.call(&["SCAN", &cursor, "COUNT", "2000"]);
        let ours = |key: &Vec<u8>| key.starts_with(RESERVED_PREFIX);
        keys.extend(
            bulk_list(&page.items()[1])
                .into_iter()
                .filter(|key| !ours(key)),
        );
        cursor = page.items()[0].text();
        if cursor == "0" {
            return keys;
        }
    }
}

/// Milliseconds since 1970.
pub fn unix_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(now.expect("the clock is past 1970").as_millis()).expect("a date in our time")
}
