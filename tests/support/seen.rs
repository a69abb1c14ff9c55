//! What a server tells of its keys by ordinary reads, whatever its version: to
//! compare a source with a target that stores the same value in another way.
//!
//! A key is its type, its moment of expiry and lines of text, in an order of
//! ours where the server's own means nothing (sets, hashes). Scores are compared
//! as numbers, -0 as 0: a listpack forgets that sign, a skiplist keeps it.

use std::collections::{BTreeMap, BTreeSet};

use super::client::{Client, Value};
use super::contents::{Args, all_keys, args};

/// Keys read in one pipeline.
const BATCH: usize = 200;

/// Reads of a moment that is told relative to now. The server's idea of now may
/// be one millisecond older than its TIME, seldom: the earliest of these is right.
const MOMENT_READS: usize = 4;

/// How often a read that fell on the turn of a millisecond is done again.
const TURN_TRIES: usize = 200;

/// Fields asked for at once.
const FIELDS_BATCH: usize = 1000;

/// Entries of XPENDING asked for at once; tests keep fewer.
const PENDING_MAX: &[u8] = b"100000";

/// What both servers of a comparison know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// HPEXPIRETIME.
    pub field_ttls: bool,
    /// entries-added, max-deleted-entry-id, entries-read.
    pub stream_counts: bool,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// As TYPE tells.
    pub kind: String,
    /// Unix time in ms, if it has a TTL.
    pub expires_at_ms: Option<i64>,
    /// Everything it holds.
    pub lines: Vec<String>,
}

impl Seen {
    /// The first thing in which `other` differs from this.
    pub fn difference(&self, other: &Seen) -> Option<String> {
        if self.kind != other.kind {
            return Some(format!("is a {} instead of a {}", other.kind, self.kind));
        }
        if self.expires_at_ms != other.expires_at_ms {
            let (wanted, found) = (self.expires_at_ms, other.expires_at_ms);
            return Some(format!("expires {found:?} instead of {wanted:?}"));
        }
        let (wanted, found) = (&self.lines, &other.lines);
        let count = wanted.len().max(found.len());
        let at = (0..count).find(|at| wanted.get(*at) != found.get(*at))?;
        Some(format!(
            "line {at} of {} (wanted {}): {:?} instead of {:?}",
            found.len(),
            wanted.len(),
            found.get(at).map(|line| short(line)),
            wanted.get(at).map(|line| short(line)),
        ))
    }
}

fn short(line: &str) -> String {
    line.chars().take(200).collect()
}

/// The first of `limit` differences between two sets of keys.
pub fn differences(wanted: &Keys, found: &Keys, limit: usize) -> Vec<String> {
    let names: BTreeSet<_> = wanted.keys().chain(found.keys()).collect();
    let told = names.into_iter().filter_map(|key| {
        let what = match (wanted.get(key), found.get(key)) {
            (Some(wanted), Some(found)) => wanted.difference(found)?,
            (Some(wanted), None) => format!("a {} is missing", wanted.kind),
            (None, _) => "does not belong there".to_owned(),
        };
        Some(format!("{} {what}", key.escape_ascii()))
    });
    told.take(limit).collect()
}

/// Keys of one database.
pub type Keys = BTreeMap<Vec<u8>, Seen>;

/// Reads every key of the database that `client` has selected.
pub fn read_all(client: &mut Client, known: Known) -> Keys {
    let keys: Vec<_> = all_keys(client).into_iter().collect();
    let mut out = Keys::new();
    for batch in keys.chunks(BATCH) {
        read_batch(client, batch, known, &mut out);
    }
    out
}

fn read_batch(client: &mut Client, keys: &[Vec<u8>], known: Known, out: &mut Keys) {
    let heads = keys.iter().flat_map(|key| {
        [
            args(&[b"TYPE", key.as_slice()]),
            args(&[b"PTTL", key.as_slice()]),
        ]
    });
    let heads = client.pipeline(&heads.collect::<Vec<_>>());
    let kinds: Vec<String> = heads.chunks(2).map(|head| head[0].text()).collect();
    let reads = keys
        .iter()
        .zip(&kinds)
        .filter_map(|(key, kind)| read_of(key, kind));
    let mut bodies = client.pipeline(&reads.collect::<Vec<_>>()).into_iter();
    for ((key, kind), head) in keys.iter().zip(kinds).zip(heads.chunks(2)) {
        if kind == "none" {
            continue; // It expired after it was listed.
        }
        let body = bodies.next().expect("one reply each");
        let lines = lines_of(client, key, &kind, &body, known);
        let expires_at_ms = (head[1].int() >= 0).then(|| expiry(client, key));
        let seen = Seen {
            kind,
            expires_at_ms,
            lines,
        };
        out.insert(key.clone(), seen);
    }
}

fn read_of(key: &[u8], kind: &str) -> Option<Args> {
    let words: Vec<&[u8]> = match kind {
        "none" => return None,
        "string" => vec![b"GET", key],
        "list" => vec![b"LRANGE", key, b"0", b"-1"],
        "set" => vec![b"SMEMBERS", key],
        "hash" => vec![b"HGETALL", key],
        "zset" => vec![b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"],
        "stream" => vec![b"XRANGE", key, b"-", b"+"],
        other => panic!("a key of type {other}"),
    };
    Some(args(&words))
}

fn lines_of(
    client: &mut Client,
    key: &[u8],
    kind: &str,
    body: &Value,
    known: Known,
) -> Vec<String> {
    let mut lines: Vec<String> = match kind {
        "string" => vec![escaped(body)],
        "list" => body.items().iter().map(escaped).collect(),
        "set" => body.items().iter().map(escaped).collect(),
        "hash" => pairs(body)
            .map(|(field, value)| format!("{} = {}", escaped(field), escaped(value)))
            .collect(),
        "zset" => pairs(body)
            .map(|(member, score)| format!("{} {}", score_of(score), escaped(member)))
            .collect(),
        _ => body.items().iter().map(escaped).collect(),
    };
    match kind {
        "set" => lines.sort(),
        "hash" => {
            lines.sort();
            if known.field_ttls {
                lines.extend(field_ttls(client, key, body));
            }
        }
        // The order among members of one score is by bytes everywhere.
        "zset" => {}
        "stream" => lines.extend(stream(client, key, known)),
        _ => {}
    }
    lines
}

fn escaped(value: &Value) -> String {
    match value {
        Value::Bulk(bytes) => bytes.escape_ascii().to_string(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(escaped).collect();
            format!("[{}]", items.join(", "))
        }
        other => format!("{other:?}"),
    }
}

fn pairs(value: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    value.items().chunks(2).map(|pair| (&pair[0], &pair[1]))
}

fn score_of(value: &Value) -> f64 {
    let score: f64 = value.text().parse().expect("a score is a number");
    if score == 0.0 { 0.0 } else { score }
}

/// Fields with a time to live, and when it ends.
fn field_ttls(client: &mut Client, key: &[u8], body: &Value) -> Vec<String> {
    let mut fields: Vec<&[u8]> = pairs(body).map(|(field, _)| field.bytes()).collect();
    fields.sort_unstable();
    let mut lines = Vec::new();
    for batch in fields.chunks(FIELDS_BATCH) {
        let count = batch.len().to_string();
        let mut words: Vec<&[u8]> = vec![b"HPEXPIRETIME", key, b"FIELDS", count.as_bytes()];
        words.extend(batch);
        let times = client.call(&words);
        for (field, at) in batch.iter().zip(times.items()) {
            if at.int() != -1 {
                lines.push(format!("{} ends at {}", field.escape_ascii(), at.int()));
            }
        }
    }
    lines
}

fn stream(client: &mut Client, key: &[u8], known: Known) -> Vec<String> {
    let info = client.call(&[b"XINFO", b"STREAM".as_slice(), key]);
    let mut names = vec!["length", "last-generated-id", "groups"];
    if known.stream_counts {
        names.extend(["entries-added", "max-deleted-entry-id"]);
    }
    let mut lines: Vec<_> = names.iter().map(|name| told(&info, name)).collect();
    let groups = client.call(&[b"XINFO", b"GROUPS".as_slice(), key]);
    let mut groups: Vec<&Value> = groups.items().iter().collect();
    groups.sort_by_key(|group| field(group, "name").bytes().to_vec());
    for group in groups {
        let mut names = vec!["name", "last-delivered-id"];
        if known.stream_counts {
            names.push("entries-read");
        }
        lines.extend(names.iter().map(|name| told(group, name)));
        let name = field(group, "name").bytes();
        let words: [&[u8]; 4] = [b"XINFO", b"CONSUMERS", key, name];
        let consumers = client.call(&words);
        let consumers = consumers.items().iter();
        let mut consumers: Vec<_> = consumers.map(|found| told(found, "name")).collect();
        consumers.sort();
        lines.extend(consumers);
        lines.extend(pending(client, key, name));
    }
    lines
}

/// One field of a flat name-value reply such as XINFO's.
fn field<'v>(value: &'v Value, name: &str) -> &'v Value {
    let mut found = pairs(value).filter(|(field, _)| field.bytes() == name.as_bytes());
    let first = found.next();
    first.unwrap_or_else(|| panic!("no {name} in {value:?}")).1
}

fn told(value: &Value, name: &str) -> String {
    format!("{name} {}", escaped(field(value, name)))
}

/// Each pending entry with its consumer, deliveries and time of delivery.
fn pending(client: &mut Client, key: &[u8], group: &[u8]) -> Vec<String> {
    let words: [&[u8]; 6] = [b"XPENDING", key, group, b"-", b"+", PENDING_MAX];
    let mut earliest: BTreeMap<(String, String, i64), i64> = BTreeMap::new();
    for _ in 0..MOMENT_READS {
        let (now, list) = at_one_moment(client, &words);
        for entry in list.items() {
            let entry = entry.items();
            let name = (escaped(&entry[0]), escaped(&entry[1]), entry[3].int());
            let at = now - entry[2].int();
            let known = earliest.entry(name).or_insert(at);
            *known = at.min(*known);
        }
    }
    let lines = earliest.iter().map(|((id, consumer, deliveries), at)| {
        format!("{id} has {consumer}, {deliveries} times, at {at}")
    });
    lines.collect()
}

/// The moment when a key that has a TTL goes; PEXPIRETIME is of 7.0.
fn expiry(client: &mut Client, key: &[u8]) -> i64 {
    let asked = client.call(&[b"PEXPIRETIME".as_slice(), key]);
    if !asked.is_error() {
        return asked.int();
    }
    let reads = (0..MOMENT_READS).map(|_| {
        let (now, ttl) = at_one_moment(client, &[b"PTTL", key]);
        now + ttl.int()
    });
    reads.min().expect("at least one")
}

/// A reply and the server's time in ms, which was the same before and after.
fn at_one_moment(client: &mut Client, words: &[&[u8]]) -> (i64, Value) {
    let ask = [
        args(&["MULTI"]),
        args(&["TIME"]),
        args(words),
        args(&["TIME"]),
        args(&["EXEC"]),
    ];
    for _ in 0..TURN_TRIES {
        let replies = client.pipeline(&ask);
        let done = replies[4].items();
        let (before, after) = (ms_of(&done[0]), ms_of(&done[2]));
        if before == after {
            return (before, done[1].clone());
        }
    }
    panic!("no read of {words:?} within one millisecond in {TURN_TRIES} tries");
}

fn ms_of(time: &Value) -> i64 {
    let parts: Vec<i64> = time
        .items()
        .iter()
        .map(|part| part.text().parse().expect("TIME gives numbers"))
        .collect();
    parts[0] * 1000 + parts[1] / 1000
}
