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
//!
//! A driver owns the socket: it moves bytes between it and [`Pipe::output`],
//! [`Pipe::receive`], and tells what happened to the connection.
//!
//! Invariants
//! - Replies come in the order of requests: the front ticket owns the next reply.
//! - No request leaves before the handshake is answered, so that none can run
//!   unauthenticated or in another database.
//! - A request whose bytes may have left is never sent again: a failed pipe
//!   gives all its tickets back, answered by an error.

use std::collections::VecDeque;
use std::mem;

use crate::resp::{ReplyError, ReplyScanner, write_command};

use super::config::Credentials;

/// Shortest and longest wait before a failed connection is tried again.
pub const RETRY_MS_MIN: u64 = 50;
/// See [`RETRY_MS_MIN`].
pub const RETRY_MS_MAX: u64 = 1_000;
/// A buffer that grew past this is given back when it empties.
const KEEP_BUFFER_BYTES_MAX: usize = 256 * 1024;

/// Why a pipe's requests could not be answered by the shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PipeError {
    /// The connection could not be made or broke; the text is the system's.
    #[error("{0}")]
    Link(String),
    /// The shard closed the connection.
    #[error("connection closed by the shard")]
    Closed,
    /// No connection within `timeout.connect`.
    #[error("connecting timed out")]
    ConnectTimeout,
    /// No reply within `timeout.request`.
    #[error("request timed out")]
    RequestTimeout,
    /// The shard refused AUTH, HELLO or SELECT; the text is the shard's.
    #[error("handshake refused: {0}")]
    Refused(String),
    /// The shard sent bytes that are no reply.
    #[error("unreadable reply: {0}")]
    Garbled(ReplyError),
    /// The shard sent a reply that nobody asked for.
    #[error("a reply without a request")]
    Unasked,
    /// The layout no longer has the shard.
    #[error("the shard left the layout")]
    Retired,
}

/// What a connection must be told before its first request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// RESP version, 2 or 3.
    pub protocol: u8,
    /// Database, 0 needs no SELECT.
    pub database: u16,
    /// AUTH, if the shard wants it.
    pub credentials: Option<Credentials>,
}

impl Greeting {
    /// Appends the commands to `out`; returns how many replies they bring.
    fn write(&self, out: &mut Vec<u8>) -> usize {
        let mut replies = 0;
        if let Some(credentials) = &self.credentials {
            match &credentials.username {
                Some(user) => write_command(
                    out,
                    &[
                        b"AUTH",
                        user.as_bytes(),
                        credentials.password.reveal().as_bytes(),
                    ],
                ),
                None => write_command(out, &[b"AUTH", credentials.password.reveal().as_bytes()]),
            }
            replies += 1;
        }
        if self.protocol == 3 {
            write_command(out, &[b"HELLO", b"3"]);
            replies += 1;
        }
        if self.database != 0 {
            write_command(out, &[b"SELECT", self.database.to_string().as_bytes()]);
            replies += 1;
        }
        replies
    }
}

#[derive(Debug)]
enum State {
    Idle,
    Connecting { since_ms: u64 },
    Greeting { since_ms: u64, unanswered: usize },
    Ready,
    Waiting { until_ms: u64, error: PipeError },
}

struct Sent<T> {
    ticket: T,
    at_ms: u64,
}

/// See the head of this file. `T` names a request to the owner of the pipe.
pub struct Pipe<T> {
    state: State,
    greeting: Greeting,
    greeting_out: Vec<u8>,
    out: Vec<u8>,
    out_start: usize,
    in_flight: VecDeque<Sent<T>>,
    scanner: ReplyScanner,
    partial: Vec<u8>,
    retry_ms: u64,
    sent: u64,
    answered: u64,
}

impl<T> Pipe<T> {
    /// A pipe that is not connected yet.
    pub fn new(greeting: Greeting) -> Self {
        Self {
            state: State::Idle,
            greeting,
            greeting_out: Vec::new(),
            out: Vec::new(),
            out_start: 0,
            in_flight: VecDeque::new(),
            scanner: ReplyScanner::new(),
            partial: Vec::new(),
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

    /// A connection attempt begins.
    pub fn dialing(&mut self, now_ms: u64) {
        self.state = State::Connecting { since_ms: now_ms };
    }

    /// The connection stands: the handshake, if there is one, goes first.
    pub fn connected(&mut self, now_ms: u64) {
        self.greeting_out.clear();
        let unanswered = self.greeting.write(&mut self.greeting_out);
        if unanswered == 0 {
            self.become_ready(now_ms);
        } else {
            self.state = State::Greeting {
                since_ms: now_ms,
                unanswered,
            };
        }
    }

    fn become_ready(&mut self, now_ms: u64) {
        self.state = State::Ready;
        self.retry_ms = RETRY_MS_MIN;
        // A request's time runs from here: it waited for the connection until now.
        for sent in &mut self.in_flight {
            sent.at_ms = now_ms;
        }
    }

    /// Queues one request.
    #[inline]
    pub fn send(&mut self, bytes: &[u8], ticket: T, now_ms: u64) {
        self.out.extend_from_slice(bytes);
        self.expect(ticket, now_ms);
    }

    /// Lets the caller build a request in place; follow with [`Pipe::expect`].
    pub fn out_mut(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Registers the ticket of a request written through [`Pipe::out_mut`].
    #[inline]
    pub fn expect(&mut self, ticket: T, now_ms: u64) {
        self.sent += 1;
        self.in_flight.push_back(Sent {
            ticket,
            at_ms: now_ms,
        });
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
        self.in_flight.len()
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

    /// Takes bytes from the socket; `deliver` gets each whole reply with the
    /// ticket it answers, in order.
    ///
    /// # Errors
    /// The pipe must then be failed with the error returned.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        now_ms: u64,
        mut deliver: impl FnMut(T, &[u8]),
    ) -> Result<(), PipeError> {
        if self.partial.is_empty() {
            let taken = self.take_replies(bytes, now_ms, &mut deliver)?;
            self.partial
                .extend_from_slice(bytes.get(taken..).unwrap_or_default());
        } else {
            let mut held = mem::take(&mut self.partial);
            held.extend_from_slice(bytes);
            let taken = self.take_replies(&held, now_ms, &mut deliver)?;
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
        now_ms: u64,
        deliver: &mut impl FnMut(T, &[u8]),
    ) -> Result<usize, PipeError> {
        let mut taken = 0;
        while let Some(rest) = input.get(taken..).filter(|rest| !rest.is_empty()) {
            let Some(reply) = self.scanner.scan(rest).map_err(PipeError::Garbled)? else {
                break;
            };
            let bytes = rest.get(..reply.len).unwrap_or_default();
            taken += reply.len;
            if reply.kind == b'>' {
                continue; // an out-of-band push: nobody subscribed on a shared pipe
            }
            if let State::Greeting { unanswered, .. } = &mut self.state {
                if reply.kind == b'-' {
                    return Err(PipeError::Refused(error_text(bytes)));
                }
                *unanswered -= 1;
                if *unanswered == 0 {
                    self.become_ready(now_ms);
                }
                continue;
            }
            let sent = self.in_flight.pop_front().ok_or(PipeError::Unasked)?;
            self.answered += 1;
            deliver(sent.ticket, bytes);
        }
        Ok(taken)
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
                let oldest = self.in_flight.front()?;
                (now_ms.saturating_sub(oldest.at_ms) >= request_ms?)
                    .then_some(PipeError::RequestTimeout)
            }
            _ => None,
        }
    }

    /// Whether some deadline may pass without any event on the socket.
    pub fn needs_clock(&self, has_request_timeout: bool) -> bool {
        match self.state {
            State::Idle => false,
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
    }

    /// Whether the shard may close the connection now without a request being
    /// hurt: nothing is owed, and no byte of a request is left that the next
    /// connection would begin with.
    pub fn is_at_rest(&self) -> bool {
        self.is_ready() && self.in_flight.is_empty() && self.unwritten() == 0
    }

    /// What the next connection says in AUTH.
    pub fn set_credentials(&mut self, credentials: Option<Credentials>) {
        self.greeting.credentials = credentials;
    }

    /// The connection is gone: gives back every unanswered ticket, oldest first.
    pub fn fail(&mut self, error: PipeError, now_ms: u64) -> Vec<T> {
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
        self.answered += self.in_flight.len() as u64;
        self.in_flight.drain(..).map(|sent| sent.ticket).collect()
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
            protocol,
            database,
            credentials: None,
        }
    }

    fn replies(pipe: &mut Pipe<u32>, bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut got = Vec::new();
        pipe.receive(bytes, 0, |ticket, reply| got.push((ticket, reply.to_vec())))
            .unwrap();
        got
    }

    #[test]
    fn requests_wait_for_the_handshake_and_replies_come_in_order() {
        let mut pipe: Pipe<u32> = Pipe::new(greeting(2, 3));
        pipe.dialing(0);
        pipe.send(b"*1\r\n$4\r\nPING\r\n", 7, 0);
        assert!(pipe.output().is_empty());
        pipe.connected(0);
        assert_eq!(pipe.output(), b"*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n");
        pipe.written(pipe.output().len());
        assert!(pipe.output().is_empty());
        assert!(replies(&mut pipe, b"+OK\r\n").is_empty());
        assert_eq!(pipe.output(), b"*1\r\n$4\r\nPING\r\n");
        pipe.send(b"x", 8, 0);
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
        pipe.send(b"*1\r\n$4\r\nPING\r\n", 1, 0);
        let error = pipe
            .receive(b"-ERR DB index is out of range\r\n", 0, |_, _| {})
            .unwrap_err();
        assert_eq!(
            error,
            PipeError::Refused("ERR DB index is out of range".into())
        );
        assert_eq!(pipe.fail(error, 10), vec![1]);
        assert!(pipe.output().is_empty());
        assert!(!pipe.wants_dial(10));
        assert!(pipe.wants_dial(10 + RETRY_MS_MIN));
    }

    #[test]
    fn a_reply_without_a_request_is_an_error() {
        let mut pipe: Pipe<u32> = Pipe::new(greeting(2, 0));
        pipe.dialing(0);
        pipe.connected(0);
        assert_eq!(
            pipe.receive(b":1\r\n", 0, |_, _| {}),
            Err(PipeError::Unasked)
        );
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
        pipe.connected(1_100);
        pipe.send(b"x", 1, 1_200);
        assert_eq!(pipe.overdue(9_999, 1_000, None), None);
        assert_eq!(
            pipe.overdue(1_300, 1_000, Some(100)),
            Some(PipeError::RequestTimeout)
        );
    }
}
