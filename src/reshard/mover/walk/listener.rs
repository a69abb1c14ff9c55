//! The connection that hears what a source publishes: our markers, and which
//! keys changed.
//!
//! ```text
//! connect -> SUBSCRIBE __keyferry, PSUBSCRIBE __key...@*__:* -> confirmed -> listening -> lost
//!                                                                              |
//!                                           message -> board -> inbox <- key --'
//! ```
//!
//! The server puts all of it into one output buffer, so a marker comes after
//! every change that was before it. Invariants: it reads whatever the others
//! do, since a subscriber that does not is cut off by its server; what it may
//! have missed is told as lost.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::resp::Value;
use crate::router::address::ShardAddress;
use crate::upstream::config::UpstreamConfig;
use crate::upstream::{SessionError, SessionReader, SessionWriter};

use super::super::error::{MoveError, Role};
use super::super::link::Link;
use super::super::marker::{Board, MARKER_CHANNEL};
use super::super::placement::{Place, Placement, SourceIndex};
use super::inbox::Inbox;
use super::notices::Form;

const STEP: &str = "listen for changes (SUBSCRIBE, PSUBSCRIBE)";
/// How often a silent server is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(5);

/// Who hears what for whom.
#[derive(Clone)]
pub(super) struct Hearing {
    pub(super) index: SourceIndex,
    pub(super) placement: Arc<Placement>,
    pub(super) board: Board,
    pub(super) inbox: Arc<Inbox>,
}

/// A connection that is subscribed.
pub(super) struct Listener {
    reader: SessionReader,
    writer: SessionWriter,
    hearing: Hearing,
}

/// One thing that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard<'v> {
    Marker(&'v [u8]),
    Changed { db: u32, key: &'v [u8] },
    Confirmed,
    Other,
}

impl Listener {
    /// Subscribed when it returns: what is done from then on is heard.
    pub(super) async fn subscribe(
        server: &ShardAddress,
        upstream: &UpstreamConfig,
        form: Option<Form>,
        hearing: Hearing,
    ) -> Result<Listener, MoveError> {
        let mut link = Link::connect(Role::Source, server, upstream).await?;
        link.queue(&[b"SUBSCRIBE", MARKER_CHANNEL]);
        let mut unconfirmed = 1;
        if let Some(form) = form {
            link.queue(&[b"PSUBSCRIBE", form.pattern()]);
            unconfirmed += 1;
        }
        link.flush(STEP).await?;
        while unconfirmed > 0 {
            let value = link.read_ok(STEP).await?;
            match heard(&value) {
                Heard::Confirmed => unconfirmed -= 1,
                other => hearing.take(other),
            }
        }
        let (reader, writer) = link.into_halves();
        Ok(Listener {
            reader,
            writer,
            hearing,
        })
    }

    /// Listens until the connection ends, then says so in the inbox.
    pub(super) async fn run(mut self) {
        let inbox = Arc::clone(&self.hearing.inbox);
        if let Err(error) = self.listen().await {
            inbox.lose(format!("the listening connection ended: {error}"));
        }
    }

    async fn listen(&mut self) -> Result<(), SessionError> {
        let mut ping = tokio::time::interval(PING_EVERY);
        loop {
            tokio::select! {
                value = self.reader.read_reply() => self.hearing.take(heard(&value?)),
                _ = ping.tick() => {
                    self.writer.queue(&[b"PING"]);
                    self.writer.flush().await?;
                }
            }
        }
    }
}

impl Hearing {
    fn take(&self, heard: Heard<'_>) {
        match heard {
            Heard::Marker(message) => {
                if let Some(expected) = self.board.take(message) {
                    self.inbox.marked(expected);
                }
            }
            Heard::Changed { db, key } => {
                if let Place::Moves(_) = self.placement.place(self.index, db, key) {
                    self.inbox.changed((db, Bytes::copy_from_slice(key)));
                }
            }
            Heard::Confirmed | Heard::Other => {}
        }
    }
}

fn heard(value: &Value) -> Heard<'_> {
    let Value::Array(items) = value else {
        return Heard::Other;
    };
    let item = |at: usize| items.get(at).and_then(Value::as_bytes).unwrap_or_default();
    match item(0) {
        b"subscribe" | b"psubscribe" => Heard::Confirmed,
        b"message" if item(1) == MARKER_CHANNEL => Heard::Marker(item(2)),
        b"pmessage" => changed(item(2), item(3)).unwrap_or(Heard::Other),
        _ => Heard::Other,
    }
}

/// `__keyevent@0__:set` with the key as its message, or `__keyspace@0__:key`.
fn changed<'v>(channel: &'v [u8], message: &'v [u8]) -> Option<Heard<'v>> {
    let (rest, is_event) = match channel.strip_prefix(b"__keyevent@") {
        Some(rest) => (rest, true),
        None => (channel.strip_prefix(b"__keyspace@")?, false),
    };
    let end = rest.windows(3).position(|window| window == b"__:")?;
    let (number, name) = rest.split_at_checked(end)?;
    let db = std::str::from_utf8(number).ok()?.parse().ok()?;
    let key = if is_event { message } else { name.get(3..)? };
    Some(Heard::Changed { db, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(items: &[&[u8]]) -> Value {
        Value::Array(
            items
                .iter()
                .map(|item| Value::Bulk(item.to_vec()))
                .collect(),
        )
    }

    #[test]
    fn what_is_published_is_told_apart() {
        let set: &[u8] = b"__keyevent@12__:set";
        let space: &[u8] = b"__keyspace@0__:a__:b";
        for (words, expected) in [
            (vec![&b"pmessage"[..], b"p", set, b"k\xff"], {
                let key = &b"k\xff"[..];
                Heard::Changed { db: 12, key }
            }),
            (vec![b"pmessage", b"p", space, b"del"], {
                let key = &b"a__:b"[..];
                Heard::Changed { db: 0, key }
            }),
            (vec![b"message", MARKER_CHANNEL, b"m"], Heard::Marker(b"m")),
            (vec![b"message", b"other", b"m"], Heard::Other),
            (vec![b"psubscribe", b"p"], Heard::Confirmed),
            (vec![b"pong", b""], Heard::Other),
            (
                vec![b"pmessage", b"p", b"__keyevent@x__:set", b"k"],
                Heard::Other,
            ),
        ] {
            assert_eq!(heard(&array(&words)), expected, "{words:?}");
        }
    }
}
