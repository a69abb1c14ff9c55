//! Which protocol a pipe's shard speaks, and how its replies are found.
//!
//! What differs is looked at once for a batch of replies, not for each of them.

use crate::memcached;
use crate::resp::{Reply, ReplyError, ReplyScanner, ReplyTail};

use super::batch::{Batch, Sent, take_batch};

/// The protocol of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// RESP, with a handshake where one is needed.
    #[default]
    Resp,
    /// memcached's text protocol, which has no handshake.
    Memcached,
}

/// Bytes of a shard that are no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// No RESP.
    #[error(transparent)]
    Resp(#[from] ReplyError),
    /// None of memcached's.
    #[error(transparent)]
    Memcached(#[from] memcached::ReplyError),
}

/// Finds replies of either protocol.
pub(super) enum Scanner {
    Resp(ReplyScanner),
    Memcached(memcached::ReplyScanner),
}

/// A large reply of either protocol.
pub(super) enum Tail {
    Resp(ReplyTail),
    Memcached(memcached::ReplyTail),
}

/// What is common to both scanners.
pub(super) trait FindReply {
    /// Finds the reply `input` starts with; `None` if its end has not arrived.
    fn find(&mut self, input: &[u8]) -> Result<Option<Reply>, Unreadable>;
}

impl FindReply for ReplyScanner {
    #[inline(always)]
    fn find(&mut self, input: &[u8]) -> Result<Option<Reply>, Unreadable> {
        Ok(self.scan(input)?)
    }
}

impl FindReply for memcached::ReplyScanner {
    #[inline]
    fn find(&mut self, input: &[u8]) -> Result<Option<Reply>, Unreadable> {
        // Of the kinds only RESP's push is looked at; no word begins like it.
        let kind = input.first().copied().unwrap_or_default();
        Ok(self.scan(input)?.map(|len| Reply { len, kind }))
    }
}

impl Scanner {
    pub(super) fn of(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Resp => Self::Resp(ReplyScanner::new()),
            Dialect::Memcached => Self::Memcached(memcached::ReplyScanner::new()),
        }
    }

    /// See [`take_batch`].
    #[inline]
    pub(super) fn take_batch<T>(&mut self, sent: &Sent<T>, input: &[u8], start: usize) -> Batch {
        match self {
            Self::Resp(scanner) => take_batch(scanner, sent, input, start),
            Self::Memcached(scanner) => take_batch(scanner, sent, input, start),
        }
    }

    /// One reply.
    pub(super) fn scan(&mut self, input: &[u8]) -> Result<Option<Reply>, Unreadable> {
        match self {
            Self::Resp(scanner) => scanner.find(input),
            Self::Memcached(scanner) => scanner.find(input),
        }
    }

    pub(super) fn reset(&mut self) {
        match self {
            Self::Resp(scanner) => scanner.reset(),
            Self::Memcached(scanner) => scanner.reset(),
        }
    }

    /// The reply whose end the last scan did not find has at least this many bytes.
    #[inline]
    pub(super) fn bytes_min(&self) -> usize {
        match self {
            Self::Resp(scanner) => scanner.bytes_min(),
            Self::Memcached(scanner) => scanner.bytes_min(),
        }
    }

    /// Whether the last scan stopped in a reply that is no push.
    pub(super) fn has_started_reply(&self, input: &[u8]) -> bool {
        match self {
            Self::Resp(scanner) => scanner.started_kind(input).is_some_and(|kind| kind != b'>'),
            Self::Memcached(scanner) => scanner.has_started(),
        }
    }

    pub(super) fn take_tail(&mut self) -> Tail {
        match self {
            Self::Resp(scanner) => Tail::Resp(scanner.take_tail()),
            Self::Memcached(scanner) => Tail::Memcached(scanner.take_tail()),
        }
    }
}

impl Tail {
    /// How many bytes of `input` may go, and whether they end the reply.
    pub(super) fn pass(&mut self, input: &[u8]) -> Result<(usize, bool), Unreadable> {
        match self {
            Self::Resp(tail) => {
                let passed = tail.pass(input)?;
                Ok((passed.bytes, passed.done))
            }
            Self::Memcached(tail) => {
                let passed = tail.pass(input)?;
                Ok((passed.bytes, passed.done))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Greeting, Manner, Pipe, PipeError};
    use super::*;

    fn pipe() -> Pipe<u32> {
        let mut pipe = Pipe::new(Greeting {
            dialect: Dialect::Memcached,
            protocol: 2,
            database: 0,
            credentials: None,
            manner: Manner::default(),
        });
        pipe.dialing(0);
        pipe.connected(0);
        pipe
    }

    #[test]
    fn a_memcached_is_ready_at_once_and_its_replies_come_by_batches() {
        let mut pipe = pipe();
        assert!(pipe.is_ready() && pipe.output().is_empty());
        pipe.send(b"get a\r\nget b\r\n", 7, 2, 0);
        pipe.send(b"set c 0 0 1\r\nx\r\n", 8, 1, 0);
        let replies = b"VALUE a 0 1\r\nx\r\nEND\r\nEND\r\nSTORED\r\n";
        for cut in 0..replies.len() {
            let mut got: Vec<(u32, u32, Vec<u8>)> = Vec::new();
            for piece in [&replies[..cut], &replies[cut..]] {
                pipe.receive(piece, 0, |replies| {
                    got.push((replies.ticket, replies.count, replies.bytes.to_vec()));
                })
                .unwrap();
            }
            let all: Vec<u8> = got.iter().flat_map(|(.., bytes)| bytes.clone()).collect();
            assert_eq!(all, replies);
            let counts = |of| -> u32 {
                let own = got.iter().filter(|(ticket, ..)| *ticket == of);
                own.map(|(_, count, _)| count).sum()
            };
            assert_eq!((counts(7), counts(8)), (2, 1));
            assert_eq!(pipe.in_flight(), 0);
            pipe.send(b"get a\r\nget b\r\n", 7, 2, 0);
            pipe.send(b"set c 0 0 1\r\nx\r\n", 8, 1, 0);
        }
    }

    #[test]
    fn what_is_no_reply_or_was_not_asked_for_fails_the_pipe() {
        let mut pipe = pipe();
        let error = pipe.receive(b"STORED\r\n", 0, |_| {}).unwrap_err();
        assert_eq!(error, PipeError::Unasked);
        pipe.fail(error, 0);
        pipe.dialing(0);
        pipe.connected(0);
        pipe.send(b"get a\r\n", 7, 1, 0);
        let error = pipe.receive(b"+OK\r\n", 0, |_| {}).unwrap_err();
        let unknown = memcached::ReplyError::UnknownWord;
        assert_eq!(error, PipeError::Garbled(Unreadable::Memcached(unknown)));
    }

    #[test]
    fn a_large_value_is_handed_over_as_it_comes() {
        let mut pipe = pipe();
        pipe.send(b"get a\r\nget b\r\n", 7, 2, 0);
        let value = vec![b'x'; 100_000];
        let whole = [b"VALUE a 0 100000\r\n", &value[..], b"\r\nEND\r\n"].concat();
        pipe.receive(&whole[..10], 0, |_| {}).unwrap();
        assert!(!pipe.may_be_large());
        pipe.receive(&whole[10..1000], 0, |_| {}).unwrap();
        let large = pipe.large().expect("its header tells");
        assert_eq!((large.ticket, large.held_bytes), (7, 1000));
        assert!(large.bytes_min > 100_000 && !large.passing);
        let mut got = Vec::new();
        let mut counts = Vec::new();
        pipe.pass_on(0, |piece| got.extend_from_slice(piece.bytes))
            .unwrap();
        assert_eq!(got.len(), 1000);
        let rest = [&whole[1000..], b"END\r\n"].concat();
        for piece in rest.chunks(33_333) {
            pipe.receive(piece, 0, |piece| {
                counts.push(piece.count);
                got.extend_from_slice(piece.bytes);
            })
            .unwrap();
        }
        assert_eq!(got, [&whole[..], b"END\r\n"].concat());
        assert_eq!(counts.iter().sum::<u32>(), 2);
        assert_eq!((pipe.in_flight(), pipe.may_be_large()), (0, false));
    }
}
