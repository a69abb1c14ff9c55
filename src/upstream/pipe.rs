//! One pipelined connection to a shard, without its socket.
//!
//! ```text
//!            dial                connected           handshake answered
//!   Idle ----------> Connecting ----------> Greeting ------------------> Ready
//!    ^                   |                      |                          |
//!    |  retry time       | refused, timeout     | error reply              | EOF, reset,
//!    |  passed           v                      v                          v timeout
//!    '---------------- Waiting <---------------------------------------- (failed)
//! ```
//! A pipe to an ejected shard is Waiting without a retry time ([`Pipe::shut_out`]).
//!
//! A driver owns the socket: it moves bytes between it and [`Pipe::output`],
//! [`Pipe::receive`], and tells what happened to the connection.
//!
//! Invariants
//! - Replies come in the order of requests: the front ticket owns the next reply.
//! - Requests that follow each other share one ticket (a batch), and so do
//!   their replies as far as they arrive together.
//! - A large reply is kept no longer than its owner wants (`large.rs`).
//! - No request leaves before the handshake is answered, so that none can run
//!   unauthenticated or in another database (unless `Manner::Original` is asked for).
//! - A request whose bytes may have left is never sent again: a failed pipe
//!   gives all its tickets back, answered by an error.

use std::collections::VecDeque;
use std::mem;

mod batch;
mod dialect;
mod error;
mod greeting;
mod large;
mod retained;
mod unasked;

use batch::Sent;
pub use batch::{Replies, Unanswered};
use dialect::Scanner;
pub use dialect::{Dialect, Unreadable};
pub use error::PipeError;
pub use greeting::{Greeting, Manner, is_failure};
use large::Passing;
pub use large::{LARGE_BYTES_MIN, LargeReply};
use retained::Retained;
pub use retained::{RETAINED_BYTES_MAX, Refused};

/// Shortest and longest wait before a failed connection is tried again.
pub const RETRY_MS_MIN: u64 = 50;
/// See [`RETRY_MS_MIN`].
pub const RETRY_MS_MAX: u64 = 1_000;
/// A buffer that grew past this is given back when it empties. What 50 clients
/// write in a turn by pipelines of 64 must fit, or it would grow anew each time.
const KEEP_BUFFER_BYTES_MAX: usize = 512 * 1024;

#[derive(Debug)]
enum State {
    Idle,
    Connecting { since_ms: u64 },
    Greeting { since_ms: u64, unanswered: usize },
    Ready,
    Waiting { until_ms: u64, error: PipeError },
}

/// See the head of this file. `T` names a request to the owner of the pipe.
pub struct Pipe<T> {
    state: State,
    greeting: Greeting,
    greeting_out: Vec<u8>,
    out: Vec<u8>,
    out_start: usize,
    in_flight: VecDeque<Sent<T>>,
    scanner: Scanner,
    partial: Vec<u8>,
    /// Of a large reply that is handed over as it arrives.
    passing: Option<Box<Passing>>,
    /// While the shard may refuse what was sent as a user of an epoch.
    retained: Option<Box<Retained<T>>>,
    /// When bytes of a large request or reply last passed.
    progress_us: u64,
    retry_ms: u64,
    sent: u64,
    answered: u64,
}

impl<T: Copy> Pipe<T> {
    /// A pipe that is not connected yet.
    pub fn new(greeting: Greeting) -> Self {
        Self {
            state: State::Idle,
            scanner: Scanner::of(greeting.dialect),
            greeting,
            greeting_out: Vec::new(),
            out: Vec::new(),
            out_start: 0,
            in_flight: VecDeque::new(),
            partial: Vec::new(),
            passing: None,
            retained: None,
            progress_us: 0,
            retry_ms: RETRY_MS_MIN,
            sent: 0,
            answered: 0,
        }
    }

    /// Whether the owner must dial now.
    pub fn wants_dial(&self, now_ms: u64) -> bool {
        match self.state {
            State::Idle => true,
            State::Waiting { until_ms, .. } => now_ms >= until_ms,
            _ => false,
        }
    }

    /// Whether requests can be answered now.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready)
    }

    /// Whether there is a connection, or one being made.
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Idle | State::Waiting { .. })
    }

    /// Whether the connection is being made.
    pub fn is_connecting(&self) -> bool {
        matches!(self.state, State::Connecting { .. })
    }

    /// Why requests are refused at once just now, if they are.
    pub fn refusal(&self) -> Option<&PipeError> {
        match &self.state {
            State::Waiting { error, .. } => Some(error),
            _ => None,
        }
    }

    /// The shard is ejected: requests are refused at once, and nothing is dialled
    /// until [`Pipe::rest`]. Nothing may be in flight.
    pub fn shut_out(&mut self) {
        self.rest();
        self.state = State::Waiting {
            until_ms: u64::MAX,
            error: PipeError::Ejected,
        };
    }

    /// Whether it is shut out.
    pub fn is_shut_out(&self) -> bool {
        matches!(self.refusal(), Some(PipeError::Ejected))
    }

    /// A connection attempt begins.
    pub fn dialing(&mut self, now_ms: u64) {
        self.state = State::Connecting { since_ms: now_ms };
    }

    /// The connection stands: the handshake, if there is one, goes first.
    pub fn connected(&mut self, now_us: u64) {
        self.greeting_out.clear();
        let unanswered = self.greeting.write(&mut self.greeting_out);
        if unanswered == 0 {
            self.become_ready(now_us);
        } else {
            self.state = State::Greeting {
                since_ms: now_us / 1_000,
                unanswered,
            };
        }
    }

    fn become_ready(&mut self, now_us: u64) {
        self.state = State::Ready;
        self.retry_ms = RETRY_MS_MIN;
        // A request's time runs from here: it waited for the connection until now.
        for sent in &mut self.in_flight {
            sent.at_us = now_us;
        }
    }

    /// Queues a batch of `count` requests.
    #[inline]
    pub fn send(&mut self, bytes: &[u8], ticket: T, count: u32, now_us: u64) {
        if self.retained.is_some() {
            return self.send_retained(bytes, ticket, count, now_us);
        }
        self.out.extend_from_slice(bytes);
        self.note_sent(ticket, count, now_us);
    }

    #[inline]
    fn note_sent(&mut self, ticket: T, count: u32, now_us: u64) {
        self.sent += u64::from(count);
        self.in_flight.push_back(Sent {
            ticket,
            at_us: now_us,
            count,
            answered: 0,
        });
    }

    /// Lets the caller build requests in place; follow with [`Pipe::expect`].
    #[inline]
    pub fn out_mut(&mut self) -> &mut Vec<u8> {
        if let Some(retained) = &mut self.retained {
            retained.begin(&self.out);
        }
        &mut self.out
    }

    /// Registers the batch of requests written through [`Pipe::out_mut`].
    #[inline]
    pub fn expect(&mut self, ticket: T, count: u32, now_us: u64) {
        self.note_sent(ticket, count, now_us);
        if let Some(retained) = &mut self.retained {
            retained.keep_last(&self.out);
        }
    }

    /// Requests queued since the pipe was made.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Requests answered, by the shard or by an error, since the pipe was made.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// Requests that still wait for their reply.
    pub fn in_flight(&self) -> usize {
        (self.sent - self.answered) as usize
    }

    /// Bytes that wait to be written.
    pub fn unwritten(&self) -> usize {
        self.greeting_out.len() + self.out.len() - self.out_start
    }

    /// What may be written to the socket now; empty while connecting.
    pub fn output(&self) -> &[u8] {
        match self.state {
            State::Greeting { .. } => &self.greeting_out,
            State::Ready => self.out.get(self.out_start..).unwrap_or_default(),
            _ => &[],
        }
    }

    /// `n` bytes of [`Pipe::output`] were taken by the socket.
    pub fn written(&mut self, n: usize) {
        if matches!(self.state, State::Greeting { .. }) {
            self.greeting_out.drain(..n.min(self.greeting_out.len()));
            return;
        }
        self.out_start += n;
        if self.out_start >= self.out.len() {
            self.out_start = 0;
            if self.out.capacity() > KEEP_BUFFER_BYTES_MAX {
                self.out = Vec::new();
            } else {
                self.out.clear();
            }
        } else if self.out_start > KEEP_BUFFER_BYTES_MAX && self.out_start * 2 > self.out.len() {
            self.out.drain(..self.out_start);
            self.out_start = 0;
        }
    }

    /// Takes bytes from the socket; `deliver` gets whole replies with the
    /// ticket they answer, in order, as many at once as belong to one batch.
    ///
    /// # Errors
    /// The pipe must then be failed with the error returned.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        now_us: u64,
        mut deliver: impl FnMut(Replies<'_, T>),
    ) -> Result<(), PipeError> {
        if self.passing.is_some() {
            return self.receive_large(bytes, now_us, &mut deliver);
        }
        self.receive_whole(bytes, now_us, &mut deliver)
    }

    #[inline]
    fn receive_whole(
        &mut self,
        bytes: &[u8],
        now_us: u64,
        deliver: &mut impl FnMut(Replies<'_, T>),
    ) -> Result<(), PipeError> {
        if self.partial.is_empty() {
            let taken = self.take_replies(bytes, now_us, deliver)?;
            self.partial
                .extend_from_slice(bytes.get(taken..).unwrap_or_default());
        } else {
            let mut held = mem::take(&mut self.partial);
            held.extend_from_slice(bytes);
            let taken = self.take_replies(&held, now_us, deliver)?;
            held.drain(..taken);
            if held.is_empty() && held.capacity() > KEEP_BUFFER_BYTES_MAX {
                held = Vec::new();
            }
            self.partial = held;
        }
        Ok(())
    }

    fn take_replies(
        &mut self,
        input: &[u8],
        now_us: u64,
        deliver: &mut impl FnMut(Replies<'_, T>),
    ) -> Result<usize, PipeError> {
        if self.retained.is_some() {
            return self.take_replies_retained(input, now_us, deliver);
        }
        let mut taken = self.take_greeting(input, now_us)?;
        while taken < input.len() {
            let before = taken;
            match self.in_flight.front_mut() {
                Some(sent) => {
                    let batch = self.scanner.take_batch(sent, input, taken);
                    taken = batch.end;
                    if batch.replies > 0 {
                        self.answered += u64::from(batch.replies);
                        deliver(Replies {
                            ticket: sent.ticket,
                            first: sent.answered,
                            count: batch.replies,
                            sent_us: sent.at_us,
                            bytes: input.get(before..taken).unwrap_or_default(),
                        });
                        sent.answered += batch.replies;
                        if sent.answered == sent.count {
                            self.in_flight.pop_front();
                        }
                    }
                    taken += batch.push_bytes;
                    if let Some(error) = batch.error {
                        return Err(PipeError::Garbled(error));
                    }
                }
                None => taken += self.take_unasked(input.get(taken..).unwrap_or_default())?,
            }
            if taken == before {
                break; // the rest is part of a reply
            }
        }
        Ok(taken)
    }

    /// The answers to AUTH, HELLO and SELECT, before anything else.
    fn take_greeting(&mut self, input: &[u8], now_us: u64) -> Result<usize, PipeError> {
        let mut taken = 0;
        while let State::Greeting { unanswered, .. } = &mut self.state {
            let rest = input.get(taken..).unwrap_or_default();
            let Some(reply) = self.scanner.scan(rest)? else {
                break;
            };
            taken += reply.len;
            match reply.kind {
                b'>' => continue,
                b'-' => {
                    let text = rest.get(..reply.len).unwrap_or_default();
                    if self.greeting.is_refused_by(text) {
                        return Err(PipeError::Refused(error_text(text)));
                    }
                    *unanswered -= 1;
                }
                _ => *unanswered -= 1,
            }
            if *unanswered == 0 {
                self.become_ready(now_us);
            }
        }
        Ok(taken)
    }

    /// With nothing in flight only an out-of-band push may come: nobody
    /// subscribed on a shared pipe.
    fn take_unasked(&mut self, rest: &[u8]) -> Result<usize, PipeError> {
        match self.scanner.scan(rest)? {
            None => Ok(0),
            Some(reply) if reply.kind == b'>' => Ok(reply.len),
            Some(_) => Err(PipeError::Unasked),
        }
    }

    /// The deadline that passed, if one did. `request_ms`: `None` waits for ever.
    pub fn overdue(
        &self,
        now_ms: u64,
        connect_ms: u64,
        request_ms: Option<u64>,
    ) -> Option<PipeError> {
        match self.state {
            State::Connecting { since_ms } | State::Greeting { since_ms, .. }
                if now_ms.saturating_sub(since_ms) >= connect_ms =>
            {
                Some(PipeError::ConnectTimeout)
            }
            State::Ready => {
                let since_us = self.in_flight.front()?.at_us.max(self.progress_us);
                (now_ms.saturating_sub(since_us / 1_000) >= request_ms?)
                    .then_some(PipeError::RequestTimeout)
            }
            _ => None,
        }
    }

    /// Whether some deadline may pass without any event on the socket.
    pub fn needs_clock(&self, has_request_timeout: bool) -> bool {
        match self.state {
            State::Idle => false,
            State::Waiting {
                until_ms: u64::MAX, ..
            } => false,
            State::Ready => has_request_timeout && !self.in_flight.is_empty(),
            _ => true,
        }
    }

    /// The shard closed a connection that nothing waited on: no fault, and the
    /// next request dials again.
    pub fn rest(&mut self) {
        self.state = State::Idle;
        self.greeting_out.clear();
        self.out.clear();
        self.out_start = 0;
        self.partial.clear();
        self.scanner.reset();
        self.passing = None;
        self.forget_retained();
    }

    /// Whether the shard may close the connection now without a request being
    /// hurt: nothing is owed, and no byte of a request is left that the next
    /// connection would begin with.
    pub fn is_at_rest(&self) -> bool {
        self.is_ready() && self.in_flight.is_empty() && self.unwritten() == 0
    }

    /// What the next connection says first.
    pub fn set_greeting(&mut self, greeting: Greeting) {
        self.greeting = greeting;
    }

    /// The connection is gone: gives back everything unanswered, oldest first.
    pub fn fail(&mut self, error: PipeError, now_ms: u64) -> Vec<Unanswered<T>> {
        self.state = State::Waiting {
            until_ms: now_ms + self.retry_ms,
            error,
        };
        self.retry_ms = (self.retry_ms * 2).min(RETRY_MS_MAX);
        self.greeting_out.clear();
        self.out.clear();
        self.out_start = 0;
        self.partial.clear();
        self.scanner.reset();
        self.passing = None;
        self.answered = self.sent;
        let unanswered = |sent: Sent<T>| Unanswered {
            ticket: sent.ticket,
            first: sent.answered,
            count: sent.count - sent.answered,
        };
        let all = self.in_flight.drain(..).map(unanswered).collect();
        self.forget_retained();
        all
    }
}

/// The text of an error reply, without `-` and line end.
fn error_text(reply: &[u8]) -> String {
    let text = reply.strip_prefix(b"-").unwrap_or(reply);
    String::from_utf8_lossy(text).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(protocol: u8, database: u16) -> Greeting {
        Greeting {
            dialect: Dialect::Resp,
            protocol,
            database,
            credentials: None,
            manner: Manner::Checked,
        }
    }

    fn replies(pipe: &mut Pipe<u32>, bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut got = Vec::new();
        pipe.receive(bytes, 0, |replies| {
            got.push((replies.ticket, replies.bytes.to_vec()));
        })
        .unwrap();
        got
    }

    #[test]
    fn requests_wait_for_the_handshake_and_replies_come_in_order() {
        let mut pipe: Pipe<u32> = Pipe::new(greeting(2, 3));
        pipe.dialing(0);
        pipe.send(b"*1\r\n$4\r\nPING\r\n", 7, 1, 0);
        assert!(pipe.output().is_empty());
        pipe.connected(0);
        assert_eq!(pipe.output(), b"*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n");
        pipe.written(pipe.output().len());
        assert!(pipe.output().is_empty());
        assert!(replies(&mut pipe, b"+OK\r\n").is_empty());
        assert_eq!(pipe.output(), b"*1\r\n$4\r\nPING\r\n");
        pipe.send(b"x", 8, 1, 0);
        assert_eq!(replies(&mut pipe, b"+PO"), vec![]);
        let got = replies(&mut pipe, b"NG\r\n$1\r\na\r\n");
        assert_eq!(
            got,
            vec![(7, b"+PONG\r\n".to_vec()), (8, b"$1\r\na\r\n".to_vec())]
        );
        assert_eq!((pipe.sent(), pipe.answered(), pipe.in_flight()), (2, 2, 0));
    }

    #[test]
    fn a_refused_select_never_lets_a_request_out() {
        let mut pipe: Pipe<u32> = Pipe::new(greeting(2, 99));
        pipe.dialing(0);
        pipe.connected(0);
        pipe.send(b"*1\r\n$4\r\nPING\r\n", 1, 1, 0);
        let error = pipe
            .receive(b"-ERR DB index is out of range\r\n", 0, |_| {})
            .unwrap_err();
        assert_eq!(
            error,
            PipeError::Refused("ERR DB index is out of range".into())
        );
        let unanswered = Unanswered {
            ticket: 1,
            first: 0,
            count: 1,
        };
        assert_eq!(pipe.fail(error, 10), vec![unanswered]);
        assert!(pipe.output().is_empty());
        assert!(!pipe.wants_dial(10));
        assert!(pipe.wants_dial(10 + RETRY_MS_MIN));
    }

    #[test]
    fn a_pipe_that_is_shut_out_dials_only_when_it_is_let_in() {
        let mut pipe: Pipe<u32> = Pipe::new(greeting(2, 0));
        pipe.dialing(0);
        pipe.connected(0);
        assert_eq!(pipe.fail(PipeError::Ejected, 0), vec![]);
        pipe.shut_out();
        assert!(pipe.is_shut_out() && !pipe.is_open());
        assert_eq!(pipe.refusal(), Some(&PipeError::Ejected));
        assert!(!pipe.wants_dial(u64::MAX - 1) && !pipe.needs_clock(true));
        pipe.rest();
        assert!(pipe.wants_dial(0) && !pipe.is_shut_out());
    }

    #[test]
    fn a_reply_without_a_request_is_an_error() {
        let mut pipe: Pipe<u32> = Pipe::new(greeting(2, 0));
        pipe.dialing(0);
        pipe.connected(0);
        assert_eq!(pipe.receive(b":1\r\n", 0, |_| {}), Err(PipeError::Unasked));
    }

    #[test]
    fn deadlines_name_what_was_late() {
        let mut pipe: Pipe<u32> = Pipe::new(greeting(2, 0));
        pipe.dialing(100);
        assert_eq!(pipe.overdue(1_099, 1_000, None), None);
        assert_eq!(
            pipe.overdue(1_100, 1_000, None),
            Some(PipeError::ConnectTimeout)
        );
        pipe.connected(1_100_000);
        pipe.send(b"x", 1, 1, 1_200_000);
        assert_eq!(pipe.overdue(9_999, 1_000, None), None);
        assert_eq!(
            pipe.overdue(1_300, 1_000, Some(100)),
            Some(PipeError::RequestTimeout)
        );
    }

    #[test]
    fn a_batch_is_answered_in_as_many_pieces_as_its_replies_come_in() {
        let mut pipe: Pipe<u32> = Pipe::new(greeting(3, 0));
        pipe.dialing(0);
        pipe.connected(0);
        assert!(replies(&mut pipe, b"%1\r\n+server\r\n+redis\r\n").is_empty());
        pipe.send(b"abc", 7, 3, 0);
        pipe.send(b"d", 8, 1, 0);
        let mut got = Vec::new();
        for bytes in [
            &b":1\r\n:2\r\n>2\r\n+invalidate\r\n_\r\n:"[..],
            b"3\r\n:4\r\n",
        ] {
            pipe.receive(bytes, 0, |part| {
                got.push((part.ticket, part.first, part.count, part.bytes.to_vec()));
            })
            .unwrap();
        }
        assert_eq!(
            got,
            [
                (7, 0, 2, b":1\r\n:2\r\n".to_vec()),
                (7, 2, 1, b":3\r\n".to_vec()),
                (8, 0, 1, b":4\r\n".to_vec()),
            ]
        );
    }

    #[test]
    fn replies_before_garbage_still_count_and_the_rest_of_the_batch_fails() {
        let mut pipe: Pipe<u32> = Pipe::new(greeting(2, 0));
        pipe.dialing(0);
        pipe.connected(0);
        pipe.send(b"abc", 7, 3, 0);
        let mut got = 0;
        let error = pipe
            .receive(b":1\r\n?\r\n", 0, |replies| got += replies.count)
            .unwrap_err();
        let unanswered = Unanswered {
            ticket: 7,
            first: 1,
            count: 2,
        };
        assert_eq!((got, pipe.fail(error, 0)), (1, vec![unanswered]));
        assert_eq!((pipe.answered(), pipe.in_flight()), (3, 0));
    }
}
