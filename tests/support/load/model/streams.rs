//! Requests on streams and their consumer groups. Keys with an even number have
//! no groups and are trimmed; the others have one group and are never trimmed,
//! so that no pending entry loses its message.

use super::super::super::client::Value;
use super::super::super::contents::{Contents, Entry, Group, Pending, Stream, StreamId, args};
use super::{Model, Step, number, step};

/// Streams that grew past this are deleted.
const ENTRIES_MAX: usize = 60;

const GROUP: &[u8] = b"workers";

const CONSUMERS: [&[u8]; 2] = [b"ada", b"bob"];

impl Model {
    pub(super) fn stream(&mut self, key: &[u8]) -> Step {
        let stream = self.entries.get(key).map(|entry| match &entry.contents {
            Contents::Stream(stream) => stream,
            other => panic!("a stream key holds {other:?}"),
        });
        let length = stream.map_or(0, |stream| stream.entries.len());
        if length > ENTRIES_MAX {
            return self.delete(key);
        }
        let even = key
            .last()
            .is_some_and(|digit| digit.is_ascii_digit() && digit % 2 == 0);
        match self.rng.u32(..10) {
            5 => step(args(&[b"XLEN", key]), Value::Int(length as i64)),
            6..10 if stream.is_some() && even => self.shorten_stream(key),
            6..10 if self.groups && !even => self.group(key),
            _ => self.add_to_stream(key),
        }
    }

    fn stream_mut(&mut self, key: &[u8]) -> &mut Stream {
        let entry = self.entries.entry(key.to_vec());
        let entry = entry.or_insert_with(|| Entry::of(Contents::Stream(Stream::default())));
        match &mut entry.contents {
            Contents::Stream(stream) => stream,
            other => panic!("a stream key holds {other:?}"),
        }
    }

    fn add_to_stream(&mut self, key: &[u8]) -> Step {
        let fields = vec![b"field".to_vec(), self.word(), self.word(), self.word()];
        let ahead = self.rng.u64(..3);
        let stream = self.stream_mut(key);
        let StreamId(ms, seq) = stream.last_id;
        let id = if ahead == 0 {
            StreamId(ms, seq + 1)
        } else {
            StreamId(ms + ahead, 0)
        };
        stream.last_id = id;
        stream.entries.insert(id, fields.clone());
        let id = id.to_string().into_bytes();
        let mut command = args(&[b"XADD", key, &id]);
        command.extend(fields);
        step(command, Value::Bulk(id))
    }

    /// XDEL of the first entry, or XTRIM.
    fn shorten_stream(&mut self, key: &[u8]) -> Step {
        let (del, keep) = (self.rng.bool(), self.rng.usize(..10));
        let stream = self.stream_mut(key);
        if del && let Some((id, _)) = stream.entries.pop_first() {
            let id = id.to_string();
            return step(args(&[b"XDEL", key, id.as_bytes()]), Value::Int(1));
        }
        let mut gone = 0;
        while stream.entries.len() > keep {
            stream.entries.pop_first();
            gone += 1;
        }
        let command = args(&[b"XTRIM", key, b"MAXLEN", &number(keep as i64)]);
        step(command, Value::Int(gone))
    }

    fn group(&mut self, key: &[u8]) -> Step {
        let consumer = CONSUMERS[self.rng.usize(..CONSUMERS.len())];
        let (claims, count) = (self.rng.u32(..4) == 0, self.rng.usize(1..5));
        let stream = self.stream_mut(key);
        let Some(group) = stream.groups.get_mut(GROUP) else {
            stream.groups.insert(GROUP.to_vec(), Group::default());
            let command = args(&[b"XGROUP", b"CREATE", key, GROUP, b"0", b"MKSTREAM"]);
            return step(command, Value::ok());
        };
        let mut news = stream.entries.iter();
        let news: Vec<_> = news
            .by_ref()
            .filter(|(id, _)| **id > group.last_delivered)
            .take(count)
            .collect();
        if let (Some((last, _)), false) = (news.last(), claims) {
            group.last_delivered = **last;
            group.consumers.insert(consumer.to_vec());
            for (id, _) in &news {
                let pending = Pending {
                    consumer: consumer.to_vec(),
                    deliveries: 1,
                };
                group.pending.insert(**id, pending);
            }
            let news = news.into_iter().map(|(id, fields)| {
                let fields = fields.iter().map(Value::bulk).collect();
                Value::Array(vec![Value::bulk(id.to_string()), Value::Array(fields)])
            });
            let reply = Value::Array(vec![Value::bulk(key), Value::Array(news.collect())]);
            let count = number(count as i64);
            let words: [&[u8]; 9] = [
                b"XREADGROUP",
                b"GROUP",
                GROUP,
                consumer,
                b"COUNT",
                &count,
                b"STREAMS",
                key,
                b">",
            ];
            return step(args(&words), Value::Array(vec![reply]));
        }
        if let Some((id, pending)) = group.pending.iter_mut().next()
            && claims
            && group.consumers.contains(consumer)
        {
            pending.consumer = consumer.to_vec();
            let id = id.to_string();
            let command = args(&[
                b"XCLAIM",
                key,
                GROUP,
                consumer,
                b"0",
                id.as_bytes(),
                b"JUSTID",
            ]);
            return step(command, Value::Array(vec![Value::bulk(id)]));
        }
        let acked: Vec<_> = group.pending.keys().take(count).copied().collect();
        group.pending.retain(|id, _| !acked.contains(id));
        let mut command = args(&[b"XACK", key, GROUP, b"999999999-0"]);
        command.extend(acked.iter().map(|id| id.to_string().into_bytes()));
        step(command, Value::Int(acked.len() as i64))
    }
}
