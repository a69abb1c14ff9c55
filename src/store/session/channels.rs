//! Channels: SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE, PUBLISH, SPUBLISH, PUBSUB, and keyspace events.

use std::collections::BTreeMap;

use crate::store::commands::{Args, Failure, Unit};
use crate::store::format::glob;

use super::shard::Shard;

/// So much may wait for one who listens: Redis' `client-output-buffer-limit pubsub`.
const PUSHED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Who listens to what.
#[derive(Debug, Default)]
pub(super) struct Channels {
    by_name: BTreeMap<Box<[u8]>, Vec<usize>>,
    by_pattern: BTreeMap<Box<[u8]>, Vec<usize>>,
    by_shard_name: BTreeMap<Box<[u8]>, Vec<usize>>,
}

/// What is listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Channel,
    Pattern,
    ShardChannel,
}

impl Kind {
    fn word(self, is_begun: bool) -> &'static [u8] {
        match (self, is_begun) {
            (Kind::Channel, true) => b"subscribe",
            (Kind::Channel, false) => b"unsubscribe",
            (Kind::Pattern, true) => b"psubscribe",
            (Kind::Pattern, false) => b"punsubscribe",
            (Kind::ShardChannel, true) => b"ssubscribe",
            (Kind::ShardChannel, false) => b"sunsubscribe",
        }
    }
}

impl Channels {
    fn of(&mut self, kind: Kind) -> &mut BTreeMap<Box<[u8]>, Vec<usize>> {
        match kind {
            Kind::Channel => &mut self.by_name,
            Kind::Pattern => &mut self.by_pattern,
            Kind::ShardChannel => &mut self.by_shard_name,
        }
    }
}

impl Channels {
    /// Channels, patterns and shard channels that somebody listens to.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        (
            self.by_name.len(),
            self.by_pattern.len(),
            self.by_shard_name.len(),
        )
    }
}

impl Shard {
    pub(super) fn subscribe(&mut self, key: usize, kind: Kind, args: Args<'_>) {
        for name in args.from(1) {
            let client = &mut self.clients[key];
            let set = match kind {
                Kind::Channel => &mut client.channels,
                Kind::Pattern => &mut client.patterns,
                Kind::ShardChannel => &mut client.shard_channels,
            };
            if set.insert(Box::from(name)) {
                let listeners = self.channels.of(kind).entry(Box::from(name));
                listeners.or_default().push(key);
            }
            self.tell_subscription(key, kind, Some(name), kind.word(true));
        }
    }

    pub(super) fn unsubscribe(&mut self, key: usize, kind: Kind, args: Args<'_>) {
        let names: Vec<Box<[u8]>> = match args.len() {
            ..=1 => self.names_of(key, kind),
            _ => args.from(1).map(Box::from).collect(),
        };
        if names.is_empty() {
            return self.tell_subscription(key, kind, None, kind.word(false));
        }
        for name in names {
            self.leave(key, kind, &name);
            self.tell_subscription(key, kind, Some(&name), kind.word(false));
        }
    }

    fn names_of(&self, key: usize, kind: Kind) -> Vec<Box<[u8]>> {
        let Some(client) = self.clients.get(key) else {
            return Vec::new();
        };
        let set = match kind {
            Kind::Channel => &client.channels,
            Kind::Pattern => &client.patterns,
            Kind::ShardChannel => &client.shard_channels,
        };
        set.iter().cloned().collect()
    }

    fn tell_subscription(&mut self, key: usize, kind: Kind, name: Option<&[u8]>, word: &[u8]) {
        let client = &mut self.clients[key];
        let count = match kind {
            Kind::ShardChannel => client.shard_channels.len(),
            _ => client.subscriptions(),
        };
        client.reply.push(3);
        client.reply.bulk(word);
        client.reply.bulk_or_null(name);
        client.reply.count(count);
    }

    fn leave(&mut self, key: usize, kind: Kind, name: &[u8]) {
        let client = &mut self.clients[key];
        let was_in = match kind {
            Kind::Channel => client.channels.remove(name),
            Kind::Pattern => client.patterns.remove(name),
            Kind::ShardChannel => client.shard_channels.remove(name),
        };
        if !was_in {
            return;
        }
        let of_kind = self.channels.of(kind);
        if let Some(listeners) = of_kind.get_mut(name) {
            listeners.retain(|of| *of != key);
            if listeners.is_empty() {
                of_kind.remove(name);
            }
        }
    }

    /// A client listens to nothing any more.
    pub(super) fn leave_channels(&mut self, key: usize) {
        for kind in [Kind::Channel, Kind::Pattern, Kind::ShardChannel] {
            for name in self.names_of(key, kind) {
                self.leave(key, kind, &name);
            }
        }
    }

    /// Hands a message to all who listen; how many they are.
    pub(super) fn publish(&mut self, channel: &[u8], message: &[u8]) -> usize {
        let mut told = 0;
        let listeners = self.channels.by_name.get(channel).cloned();
        for key in listeners.unwrap_or_default() {
            self.tell_message(key, &[b"message", channel, message]);
            told += 1;
        }
        let patterns = self.channels.by_pattern.iter();
        let matching: Vec<(Box<[u8]>, Vec<usize>)> = patterns
            .filter(|(pattern, _)| glob::matches(pattern, channel))
            .map(|(pattern, listeners)| (pattern.clone(), listeners.clone()))
            .collect();
        for (pattern, listeners) in matching {
            for key in listeners {
                self.tell_message(key, &[b"pmessage", &pattern, channel, message]);
                told += 1;
            }
        }
        told
    }

    pub(super) fn publish_to_shard(&mut self, channel: &[u8], message: &[u8]) -> usize {
        let listeners = self.channels.by_shard_name.get(channel).cloned();
        let listeners = listeners.unwrap_or_default();
        for key in &listeners {
            self.tell_message(*key, &[b"smessage", channel, message]);
        }
        listeners.len()
    }

    fn tell_message(&mut self, key: usize, words: &[&[u8]]) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        client.reply.push(words.len());
        for word in words {
            client.reply.bulk(word);
        }
        self.mark(key);
        self.bound_pushed(key);
    }

    /// Who does not take what it is told is told no more: its connection ends.
    pub(super) fn bound_pushed(&mut self, key: usize) {
        let owed = self.clients.get(key).map_or(0, |client| client.reply.len());
        if owed > PUSHED_BYTES_MAX {
            self.kill(key);
        }
    }

    /// PUBLISH and SPUBLISH: replicas are told too.
    pub(super) fn publish_command(
        &mut self,
        key: usize,
        args: Args<'_>,
        is_sharded: bool,
        unit: &mut Unit,
    ) {
        let told = match is_sharded {
            false => self.publish(args.at(1), args.at(2)),
            true => self.publish_to_shard(args.at(1), args.at(2)),
        };
        let client = &mut self.clients[key];
        unit.add_request(client.db, args.request().to_vec());
        client.reply.count(told);
    }

    pub(super) fn pubsub(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        let named = |of: &BTreeMap<Box<[u8]>, Vec<usize>>| -> Vec<Box<[u8]>> {
            let is_wanted = |name: &[u8]| args.get(2).is_none_or(|p| glob::matches(p, name));
            of.keys().filter(|name| is_wanted(name)).cloned().collect()
        };
        let counted = |of: &BTreeMap<Box<[u8]>, Vec<usize>>| -> Vec<(Box<[u8]>, usize)> {
            let count = |name: &[u8]| of.get(name).map_or(0, Vec::len);
            args.from(2)
                .map(|name| (Box::from(name), count(name)))
                .collect()
        };
        let names = if args.is(1, "CHANNELS") && args.len() <= 3 {
            named(&self.channels.by_name)
        } else if args.is(1, "SHARDCHANNELS") && args.len() <= 3 {
            named(&self.channels.by_shard_name)
        } else {
            let counts = if args.is(1, "NUMSUB") {
                counted(&self.channels.by_name)
            } else if args.is(1, "SHARDNUMSUB") {
                counted(&self.channels.by_shard_name)
            } else if args.is(1, "NUMPAT") && args.len() == 2 {
                let patterns = self.channels.by_pattern.len();
                self.clients[key].reply.count(patterns);
                return Ok(());
            } else {
                return Err(super::connection::wrong_count("PUBSUB", args));
            };
            let reply = &mut self.clients[key].reply;
            reply.array(2 * counts.len());
            for (name, count) in counts {
                reply.bulk(&name);
                reply.count(count);
            }
            return Ok(());
        };
        let reply = &mut self.clients[key].reply;
        reply.array(names.len());
        for name in names {
            reply.bulk(&name);
        }
        Ok(())
    }

    /// Keyspace events that commands told of.
    pub(super) fn publish_events(&mut self) {
        for event in std::mem::take(&mut self.events) {
            let db = event.db;
            if self.settings.notify.is_keyspace() {
                let channel = [format!("__keyspace@{db}__:").as_bytes(), &event.key].concat();
                self.publish(&channel, event.name.as_bytes());
            }
            if self.settings.notify.is_keyevent() {
                let channel = format!("__keyevent@{db}__:{}", event.name);
                self.publish(channel.as_bytes(), &event.key);
            }
        }
    }
}
