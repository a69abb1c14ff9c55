//! What a worker is subscribed to on behalf of its clients.
//!
//! ```text
//!   client a --.                        .-- shard of channel x
//!   client b --+-- topics: x, y, pat* --+-- shard of channel y
//!   client c --'                        '-- (pat*: every shard)
//! ```
//!
//! Each worker has at most one connection to a shard for all its subscribers,
//! and gives a message to each of them. A channel belongs to the shard that a
//! key of its name belongs to, so a message is published once.
//!
//! Invariant: a client is told that it is subscribed after its shards said so,
//! and gets no message before.

use std::collections::HashMap;
use std::sync::Arc;

use crate::resp::{ReplyScanner, array_body, write_bulk, write_integer};
use crate::router::commands::TopicKind;

use super::audience::Audience;
use super::core::Ticket;

/// A channel or a pattern.
pub type Topic = (TopicKind, Box<[u8]>);

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Hub {
    topics: HashMap<Topic, Listeners>,
    /// Of all workers.
    audience: Arc<Audience>,
}

/// Who listens to a topic.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Place and generation of each client that was told so.
    pub clients: Vec<(u32, u32)>,
    /// Clients that were not told yet: what they wait for, and how many
    /// subscriptions they will have.
    pub waiting: Vec<(Ticket, usize)>,
    /// Where it is subscribed.
    pub pipes: Vec<u32>,
    /// Confirmations that the shards still owe.
    pub unconfirmed: usize,
}

impl Listeners {
    fn is_forgotten(&self) -> bool {
        self.clients.is_empty() && self.waiting.is_empty()
    }

    /// Whether it had been told that it listens.
    fn remove(&mut self, client: (u32, u32)) -> bool {
        let before = self.clients.len();
        self.clients.retain(|listener| *listener != client);
        self.waiting
            .retain(|(ticket, _)| (ticket.client, ticket.generation) != client);
        self.clients.len() < before
    }
}

impl Hub {
    /// With what all workers share.
    pub fn of(audience: Arc<Audience>) -> Self {
        Self {
            audience,
            ..Self::default()
        }
    }

    /// Who listens through all workers.
    pub fn audience(&self) -> &Audience {
        &self.audience
    }

    /// Those who waited for a topic listen to it, if its shards said so: what
    /// each is told, and how many subscriptions it has then.
    pub fn confirm(&mut self, topic: &Topic) -> Vec<(Ticket, usize)> {
        let Some(listeners) = self.topics.get_mut(topic) else {
            return Vec::new();
        };
        if listeners.unconfirmed > 0 {
            return Vec::new();
        }
        let waiting = std::mem::take(&mut listeners.waiting);
        for (ticket, _) in &waiting {
            let client = (ticket.client, ticket.generation);
            if !listeners.clients.contains(&client) {
                self.audience.joined(topic, listeners.clients.is_empty());
                listeners.clients.push(client);
            }
        }
        self.drop_if_over(topic);
        waiting
    }

    /// The listeners of a topic; nobody at first.
    pub fn listeners(&mut self, topic: &Topic) -> &mut Listeners {
        if !self.topics.contains_key(topic) {
            self.topics.insert(topic.clone(), Listeners::default());
        }
        self.topics.entry(topic.clone()).or_default()
    }

    /// The listeners of a topic that somebody subscribed to.
    pub fn get_mut(&mut self, topic: &Topic) -> Option<&mut Listeners> {
        self.topics.get_mut(topic)
    }

    /// A client does not listen any more. The pipes to unsubscribe it from, if
    /// it was the last one.
    pub fn leave(&mut self, topic: &Topic, client: (u32, u32)) -> Vec<u32> {
        let Some(listeners) = self.topics.get_mut(topic) else {
            return Vec::new();
        };
        if listeners.remove(client) {
            self.audience.left(topic, 1, listeners.clients.is_empty());
        }
        if !listeners.is_forgotten() {
            return Vec::new();
        }
        let pipes = std::mem::take(&mut listeners.pipes);
        self.drop_if_over(topic);
        pipes
    }

    /// Forgets a topic that nobody listens to and no shard will speak of.
    pub fn drop_if_over(&mut self, topic: &Topic) {
        if self
            .topics
            .get(topic)
            .is_some_and(|listeners| listeners.is_forgotten() && listeners.unconfirmed == 0)
        {
            self.topics.remove(topic);
        }
    }

    /// Forgets all topics of a pipe that is gone, and names who listened.
    pub fn lose(&mut self, pipe: u32) -> Vec<(u32, u32)> {
        let mut clients = Vec::new();
        self.topics.retain(|topic, listeners| {
            let lost = listeners.pipes.contains(&pipe);
            if lost {
                if !listeners.clients.is_empty() {
                    self.audience.left(topic, listeners.clients.len(), true);
                }
                clients.append(&mut listeners.clients);
                let waiting = listeners.waiting.drain(..);
                clients.extend(waiting.map(|(ticket, _)| (ticket.client, ticket.generation)));
            }
            !lost
        });
        clients
    }

    /// Whether some topic needs a pipe.
    pub fn uses(&self, pipe: u32) -> bool {
        self.topics
            .values()
            .any(|listeners| listeners.pipes.contains(&pipe))
    }

    /// Every topic that somebody listens to.
    pub fn topics(&self) -> Vec<Topic> {
        let live = self.topics.iter().filter(|(_, l)| !l.is_forgotten());
        live.map(|(topic, _)| topic.clone()).collect()
    }
}

/// What a shard says on a connection that subscribed.
#[derive(Debug, PartialEq, Eq)]
pub enum Word {
    /// A message for those who listen to this.
    Message(Topic),
    /// It is subscribed.
    Subscribed(Topic),
    /// It is not any more, or something else that concerns nobody.
    Other,
}

/// Reads one whole reply (RESP2); `None` for what no shard says.
pub fn word_of(reply: &[u8]) -> Option<Word> {
    let (count, mut at) = array_body(reply).ok()?;
    let mut scanner = ReplyScanner::new();
    let mut words: [&[u8]; 2] = [&[]; 2];
    for word in &mut words {
        let rest = reply.get(at..)?;
        let len = scanner.scan(rest).ok()??.len;
        *word = bulk(rest.get(..len)?)?;
        at += len;
    }
    let [word, name] = words;
    let topic = |kind| (kind, Box::from(name));
    Some(match (word, count) {
        (b"message", 3) => Word::Message(topic(TopicKind::Channel)),
        (b"pmessage", 4) => Word::Message(topic(TopicKind::Pattern)),
        (b"smessage", 3) => Word::Message(topic(TopicKind::ShardChannel)),
        (b"subscribe", 3) => Word::Subscribed(topic(TopicKind::Channel)),
        (b"psubscribe", 3) => Word::Subscribed(topic(TopicKind::Pattern)),
        (b"ssubscribe", 3) => Word::Subscribed(topic(TopicKind::ShardChannel)),
        _ => Word::Other,
    })
}

/// The text of a bulk string; empty for a null.
fn bulk(reply: &[u8]) -> Option<&[u8]> {
    if reply == b"$-1\r\n" {
        return Some(&[]);
    }
    let header = reply.iter().position(|&byte| byte == b'\n')? + 1;
    let text = reply.get(header..)?.strip_suffix(b"\r\n")?;
    (reply.first() == Some(&b'$')).then_some(text)
}

/// The command that subscribes to a kind of topic, and its opposite.
pub fn verbs(kind: TopicKind) -> (&'static str, &'static str) {
    match kind {
        TopicKind::Channel => ("subscribe", "unsubscribe"),
        TopicKind::Pattern => ("psubscribe", "punsubscribe"),
        TopicKind::ShardChannel => ("ssubscribe", "sunsubscribe"),
    }
}

/// What a client is told when a subscription begins or ends.
pub fn write_confirmation(
    protocol: u8,
    verb: &str,
    name: Option<&[u8]>,
    count: usize,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(if protocol == 3 { b">3\r\n" } else { b"*3\r\n" });
    write_bulk(out, verb.as_bytes());
    match name {
        Some(name) => write_bulk(out, name),
        None => super::describe::null(protocol, out),
    }
    write_integer(out, count as i64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shards_say_is_told_apart() {
        let topic = |kind, name: &[u8]| (kind, Box::from(name));
        let message = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\n\r\n\r\n";
        assert_eq!(
            word_of(message),
            Some(Word::Message(topic(TopicKind::Channel, b"c")))
        );
        let pattern = b"*4\r\n$8\r\npmessage\r\n$2\r\nc*\r\n$1\r\nc\r\n$1\r\nm\r\n";
        assert_eq!(
            word_of(pattern),
            Some(Word::Message(topic(TopicKind::Pattern, b"c*")))
        );
        let begun = b"*3\r\n$10\r\nssubscribe\r\n$1\r\nc\r\n:1\r\n";
        assert_eq!(
            word_of(begun),
            Some(Word::Subscribed(topic(TopicKind::ShardChannel, b"c")))
        );
        let ended = b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n";
        assert_eq!(word_of(ended), Some(Word::Other));
        for odd in [
            &b"-NOPERM\r\n"[..],
            b":1\r\n",
            b"*1\r\n$1\r\nx\r\n",
            b"+OK\r\n",
        ] {
            assert_eq!(word_of(odd), None);
        }
    }

    #[test]
    fn the_last_to_leave_ends_it_when_the_shard_has_spoken() {
        let mut hub = Hub::default();
        let topic = (TopicKind::Channel, Box::from(&b"c"[..]));
        let listeners = hub.listeners(&topic);
        listeners.clients = vec![(1, 1), (2, 1)];
        (listeners.pipes, listeners.unconfirmed) = (vec![7], 1);
        assert_eq!(hub.leave(&topic, (1, 1)), Vec::<u32>::new());
        assert_eq!(hub.leave(&topic, (2, 1)), vec![7]);
        assert!(hub.topics().is_empty() && hub.get_mut(&topic).is_some());
        hub.listeners(&topic).unconfirmed = 0;
        hub.drop_if_over(&topic);
        assert!(hub.get_mut(&topic).is_none());
    }
}
