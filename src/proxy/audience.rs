//! How many clients of a pool listen to what, over all its workers.
//!
//! ```text
//!   worker 0   news: a, b         news   3 clients of 2 workers
//!   worker 1   news: c      ->    p*     1 client  of 1 worker
//!              p*:   d
//!   PUBLISH news: the shard counts 2 connections, and 1 client is beyond these
//! ```
//!
//! Written when a client begins or ceases to listen, read by PUBLISH while there
//! are clients beyond the connections that subscribed for them, and by PUBSUB.
//!
//! Invariant: a client is counted before it is told that it is subscribed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::resp::{Request, write_array_header, write_bulk, write_integer};
use crate::router::commands::TopicKind;
use crate::router::errors::ErrorReply;

use super::glob::{self, Case};
use super::hub::Topic;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Audience {
    topics: RwLock<Topics>,
    /// Clients beyond connections, of all topics together.
    beyond: AtomicU64,
}

#[derive(Debug, Default)]
struct Topics {
    channels: HashMap<Box<[u8]>, Count>,
    patterns: HashMap<Box<[u8]>, Count>,
    shard_channels: HashMap<Box<[u8]>, Count>,
}

/// Who listens to one topic.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    clients: u64,
    /// Each has a connection to the topic's shard, at least one client, and so
    /// there are never more of them than clients.
    workers: u64,
}

impl Count {
    fn beyond(self) -> u64 {
        self.clients.saturating_sub(self.workers)
    }
}

impl Topics {
    fn of(&self, kind: TopicKind) -> &HashMap<Box<[u8]>, Count> {
        match kind {
            TopicKind::Channel => &self.channels,
            TopicKind::Pattern => &self.patterns,
            TopicKind::ShardChannel => &self.shard_channels,
        }
    }

    fn of_mut(&mut self, kind: TopicKind) -> &mut HashMap<Box<[u8]>, Count> {
        match kind {
            TopicKind::Channel => &mut self.channels,
            TopicKind::Pattern => &mut self.patterns,
            TopicKind::ShardChannel => &mut self.shard_channels,
        }
    }
}

impl Audience {
    fn read(&self) -> RwLockReadGuard<'_, Topics> {
        // Counts are changed one at a time.
        self.topics.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Topics> {
        self.topics.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client listens; `is_first` of its worker.
    pub fn joined(&self, topic: &Topic, is_first: bool) {
        let mut topics = self.write();
        let counts = topics.of_mut(topic.0);
        let mut count = counts.get(&topic.1).copied().unwrap_or_default();
        count.clients += 1;
        count.workers += u64::from(is_first);
        counts.insert(topic.1.clone(), count);
        self.beyond
            .fetch_add(u64::from(!is_first), Ordering::Release);
    }

    /// So many clients of one worker do not listen any more; `is_last`: nobody
    /// of that worker does.
    pub fn left(&self, topic: &Topic, clients: usize, is_last: bool) {
        let mut topics = self.write();
        let counts = topics.of_mut(topic.0);
        let Some(count) = counts.get_mut(&topic.1) else {
            return;
        };
        let before = count.beyond();
        count.clients = count.clients.saturating_sub(clients as u64);
        count.workers = count.workers.saturating_sub(u64::from(is_last));
        let fewer = before - count.beyond().min(before);
        if count.clients == 0 {
            counts.remove(&topic.1);
        }
        self.beyond.fetch_sub(fewer, Ordering::Release);
    }

    /// Clients that a message of this channel reaches beyond the connections
    /// that its shard counts.
    pub fn beyond(&self, kind: TopicKind, channel: &[u8]) -> u64 {
        if self.beyond.load(Ordering::Acquire) == 0 {
            return 0;
        }
        let topics = self.read();
        let own = topics.of(kind).get(channel);
        let own = own.copied().map_or(0, Count::beyond);
        if kind != TopicKind::Channel {
            return own;
        }
        let matching = topics
            .patterns
            .iter()
            .filter(|(pattern, _)| glob::fits(pattern, channel, Case::Same));
        own + matching.map(|(_, count)| count.beyond()).sum::<u64>()
    }

    /// Answers PUBSUB.
    ///
    /// # Errors
    /// It has too many arguments.
    pub fn answer(
        &self,
        name: &str,
        args: &Request<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), ErrorReply> {
        let topics = self.read();
        match name {
            "pubsub|numpat" => write_integer(out, topics.patterns.len() as i64),
            "pubsub|channels" => channels(&topics.channels, args, out)?,
            "pubsub|shardchannels" => channels(&topics.shard_channels, args, out)?,
            "pubsub|shardnumsub" => listeners(&topics.shard_channels, args, out),
            _ => listeners(&topics.channels, args, out),
        }
        Ok(())
    }
}

/// `PUBSUB CHANNELS [pattern]`
fn channels(
    counts: &HashMap<Box<[u8]>, Count>,
    args: &Request<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ErrorReply> {
    if args.len() > 3 {
        return Err(ErrorReply::subcommand_syntax(args));
    }
    let is_wanted = |name: &&[u8]| args.len() == 2 || glob::fits(args.arg(2), name, Case::Same);
    let names = counts.keys().map(|name| &**name);
    let names: Vec<&[u8]> = names.filter(is_wanted).collect();
    write_array_header(out, names.len());
    names.iter().for_each(|name| write_bulk(out, name));
    Ok(())
}

/// `PUBSUB NUMSUB [channel ...]`
fn listeners(counts: &HashMap<Box<[u8]>, Count>, args: &Request<'_>, out: &mut Vec<u8>) {
    write_array_header(out, (args.len() - 2) * 2);
    for name in (2..args.len()).map(|index| args.arg(index)) {
        write_bulk(out, name);
        let count = counts.get(name).copied().unwrap_or_default();
        write_integer(out, count.clients as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(kind: TopicKind, name: &str) -> Topic {
        (kind, name.as_bytes().into())
    }

    #[test]
    fn those_beyond_are_counted_for_channels_and_patterns() {
        let audience = Audience::default();
        let beyond = |name: &str| audience.beyond(TopicKind::Channel, name.as_bytes());
        let news = topic(TopicKind::Channel, "news");
        let pattern = topic(TopicKind::Pattern, "n*");
        let sharded = topic(TopicKind::ShardChannel, "news");
        audience.joined(&news, true);
        audience.joined(&news, true);
        assert_eq!(beyond("news"), 0);
        audience.joined(&news, false);
        audience.joined(&pattern, true);
        audience.joined(&pattern, false);
        audience.joined(&sharded, true);
        assert_eq!((beyond("news"), beyond("n"), beyond("x")), (2, 1, 0));
        assert_eq!(audience.beyond(TopicKind::ShardChannel, b"news"), 0);
        audience.left(&pattern, 2, true);
        audience.left(&news, 1, false);
        assert_eq!((beyond("news"), beyond("n")), (0, 0));
        assert_eq!(audience.beyond.load(Ordering::Relaxed), 0);
        audience.left(&news, 1, true);
        audience.left(&news, 1, true);
        audience.left(&news, 1, true);
        assert!(audience.read().channels.is_empty());
        assert_eq!(audience.beyond.load(Ordering::Relaxed), 0);
    }
}
