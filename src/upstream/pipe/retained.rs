//! What was sent and is not answered yet, kept for the time in which a shard may
//! refuse it all with `-NOPERM`, which says that it was not executed.
//!
//! ```text
//!   in_flight:   [ a | b | AUTH | c | d | e ]
//!   batches:               [ - | 12 | 7 | 9 ]   lengths, and their bytes one after the other
//! ```
//! Invariants
//! - `batches` belong to the last entries of `in_flight`; what stands before them
//!   was sent as somebody else, and so is not kept.
//! - A password is never kept.
//! - While nothing is to be kept there is no `Retained`, and replies are taken as
//!   many at once as come.
//! - What a script says is never taken for the server's own refusal of the script,
//!   unless it says that word by word: it may have written before.

use std::collections::VecDeque;
use std::mem;

use crate::planted::{self, Planted};

use super::super::config::Credentials;
use super::batch::Sent;
use super::{Pipe, PipeError, Replies, State};
use crate::resp::write_command;

/// Bytes kept for one connection. A request beyond them is answered by an error
/// if the shard refuses it.
pub const RETAINED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes kept of one request that came in pieces.
pub const RETAINED_LARGE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes that were answered and stand before those that are kept.
const COMPACT_BYTES_MIN: usize = 64 * 1024;
/// What a shard says that did not execute a request because of who asked.
const NOPERM: &[u8] = b"-NOPERM";
/// Commands that run others, of which one may be refused after another was executed.
const RUNNING_OTHERS: [&[u8]; 6] = [
    b"eval",
    b"evalsha",
    b"eval_ro",
    b"evalsha_ro",
    b"fcall",
    b"fcall_ro",
];

/// Whose bytes there are of a batch in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// So many.
    Bytes(usize),
    /// It was too much, or is not whole.
    No,
    /// It was not sent as a user of an epoch.
    NotOurs,
}

/// See the head of this file.
pub(super) struct Retained<T> {
    batches: VecDeque<Kept>,
    bytes: Vec<u8>,
    /// Bytes of answered batches at the front of `bytes`.
    start: usize,
    /// Whether what is sent now is kept.
    keeps: bool,
    /// Batches that are not somebody else's.
    kept: usize,
    /// Where in the output the request begins that is being built.
    begins_at: Option<usize>,
    refused: Vec<Refused<T>>,
    /// Numbers of requests whose refusal is passed on.
    passed_on: VecDeque<u64>,
}

/// A request that the shard did not execute because of who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused<T> {
    /// Of its batch.
    pub ticket: T,
    /// Which request of the batch it is.
    pub index: u32,
    /// How many were queued on the pipe up to it, since the pipe was made.
    pub number: u64,
    /// Its bytes, if they were kept.
    pub request: Option<Vec<u8>>,
    /// The shard's words; empty if it was never sent.
    pub reply: Vec<u8>,
}

impl<T: Copy> Retained<T> {
    fn new() -> Self {
        Self {
            batches: VecDeque::new(),
            bytes: Vec::new(),
            start: 0,
            keeps: true,
            kept: 0,
            begins_at: None,
            refused: Vec::new(),
            passed_on: VecDeque::new(),
        }
    }

    /// A request is about to be written behind what `out` holds.
    pub(super) fn begin(&mut self, out: &[u8]) {
        self.begins_at.get_or_insert(out.len());
    }

    /// It is written.
    pub(super) fn keep_last(&mut self, out: &[u8]) {
        let begins_at = self.begins_at.take().unwrap_or(out.len());
        let bytes = out.get(begins_at..).unwrap_or_default();
        let kept = if !self.keeps {
            Kept::NotOurs
        } else if self.bytes.len() - self.start + bytes.len() > RETAINED_BYTES_MAX {
            Kept::No
        } else {
            self.bytes.extend_from_slice(bytes);
            Kept::Bytes(bytes.len())
        };
        self.kept += usize::from(kept != Kept::NotOurs);
        self.batches.push_back(kept);
    }

    /// More of the last request came.
    pub(super) fn keep_more(&mut self, bytes: &[u8]) {
        let has_room = self.bytes.len() - self.start + bytes.len() <= RETAINED_BYTES_MAX;
        if let Some(last) = self.batches.back_mut()
            && let Kept::Bytes(len) = *last
        {
            let whole = len + bytes.len();
            if has_room && whole <= RETAINED_LARGE_BYTES_MAX {
                self.bytes.extend_from_slice(bytes);
                *last = Kept::Bytes(whole);
            } else {
                self.bytes.truncate(self.bytes.len() - len);
                *last = Kept::No;
            }
        }
    }

    /// The front one of `in_flight` batches is answered.
    pub(super) fn forget_front(&mut self, in_flight: usize) {
        if in_flight != self.batches.len() {
            return; // it was sent before anything was kept
        }
        let front = self.batches.pop_front().unwrap_or(Kept::NotOurs);
        self.kept -= usize::from(front != Kept::NotOurs);
        if let Kept::Bytes(len) = front {
            self.start += len;
        }
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        } else if self.start > COMPACT_BYTES_MIN && self.start * 2 > self.bytes.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    fn front(&self, in_flight: usize) -> Kept {
        if in_flight != self.batches.len() {
            return Kept::NotOurs;
        }
        self.batches.front().copied().unwrap_or(Kept::NotOurs)
    }

    /// The request at `index` of the front batch.
    fn request(&self, len: usize, count: u32, index: u32) -> Option<Vec<u8>> {
        let mut bytes = self.bytes.get(self.start..self.start + len)?;
        if count > 1 {
            for _ in 0..index {
                bytes = bytes.get(request_len(bytes)?..)?;
            }
            bytes = bytes.get(..request_len(bytes)?)?;
        }
        (!bytes.is_empty()).then(|| bytes.to_vec())
    }
}

/// The length of the request (an array of bulk strings) that `bytes` begin with.
fn request_len(bytes: &[u8]) -> Option<usize> {
    let (mut args, mut at) = header(bytes, b'*')?;
    while args > 0 {
        let (len, header) = header(bytes.get(at..)?, b'$')?;
        at += header + len + 2;
        args -= 1;
    }
    Some(at)
}

/// The number of a header, and the header's own length.
fn header(bytes: &[u8], kind: u8) -> Option<(usize, usize)> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let digits = bytes.get(1..end.checked_sub(1)?)?;
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (bytes.first() == Some(&kind)).then_some((number, end + 1))
}

/// Whether the server itself refused to begin a request. What a script answers may
/// look alike: `redis.error_reply`, or the error of a command that it ran.
fn is_servers_own(reply: &[u8], request: Option<&[u8]>) -> bool {
    let name = request.and_then(command_name);
    match name {
        Some(name) if !is_running_others(name) => true,
        name => refused_command(reply)
            .is_some_and(|refused| name.is_none_or(|name| name.eq_ignore_ascii_case(refused))),
    }
}

fn is_running_others(name: &[u8]) -> bool {
    let mut all = RUNNING_OTHERS.iter();
    all.any(|other| other.eq_ignore_ascii_case(name))
}

/// The first argument of a request, or of its beginning.
fn command_name(request: &[u8]) -> Option<&[u8]> {
    let (_, at) = header(request, b'*')?;
    let rest = request.get(at..)?;
    let (len, header) = header(rest, b'$')?;
    rest.get(header..header + len)
}

/// Which command the server says that it refuses to the user, in the words of
/// Redis 6 and 7.0 (`this user`), and of later ones and Valkey (`User NAME`).
fn refused_command(reply: &[u8]) -> Option<&[u8]> {
    let text = std::str::from_utf8(reply).ok()?;
    let text = text.strip_prefix("-NOPERM ")?.strip_suffix("\r\n")?;
    let (who, rest) = text.split_once(" has no permissions to run the '")?;
    let is_user = who == "this user"
        || who
            .strip_prefix("User ")
            .is_some_and(|name| !name.is_empty() && !name.contains(' '));
    let (name, tail) = rest.split_once('\'')?;
    let is_whole = matches!(tail, " command" | " command or its subcommand");
    (is_user && is_whole).then_some(name.as_bytes())
}

impl<T: Copy> Pipe<T> {
    /// Whether what is sent from now on is kept until it is answered.
    pub fn retain(&mut self, keeps: bool) {
        match (&mut self.retained, keeps) {
            (Some(retained), _) => retained.keeps = keeps,
            (None, true) => self.retained = Some(Box::new(Retained::new())),
            (None, false) => {}
        }
        self.let_go_if_useless();
    }

    /// As [`Pipe::send`] does it, and keeps it.
    #[cold]
    #[inline(never)]
    pub(super) fn send_retained(&mut self, bytes: &[u8], ticket: T, count: u32, now_us: u64) {
        self.out_mut().extend_from_slice(bytes);
        self.expect(ticket, count, now_us);
    }

    /// Logs in as somebody else between two requests; the reply belongs to
    /// `ticket`. False: there is no connection that has said its greeting, so
    /// the greeting must say it.
    pub fn log_in(&mut self, as_whom: &Credentials, ticket: T, now_us: u64) -> bool {
        if !matches!(self.state, State::Ready | State::Greeting { .. }) {
            return false;
        }
        let user = as_whom.username.as_deref().unwrap_or("default");
        let password = as_whom.password.reveal().as_bytes();
        match &as_whom.username {
            None => write_command(&mut self.out, &[b"AUTH", password]),
            Some(_) => write_command(&mut self.out, &[b"AUTH", user.as_bytes(), password]),
        }
        let retained = self.retained.take();
        self.expect(ticket, 1, now_us);
        self.retained = retained;
        if let Some(retained) = &mut self.retained {
            retained.batches.push_back(Kept::NotOurs);
        }
        true
    }

    /// Requests that the shard refused since this was asked last, in order.
    pub fn take_refused(&mut self) -> Vec<Refused<T>> {
        let retained = self.retained.as_mut();
        let refused = retained.map(|retained| mem::take(&mut retained.refused));
        self.let_go_if_useless();
        refused.unwrap_or_default()
    }

    /// The last request was refused before: if it is again, that is its reply.
    pub fn pass_on_refusal_of_last(&mut self) {
        if let Some(retained) = &mut self.retained {
            retained.passed_on.push_back(self.sent);
        }
    }

    /// Whether what is sent is kept, or was.
    #[inline]
    pub fn is_retaining(&self) -> bool {
        self.retained.is_some()
    }

    /// While the handshake lasts nothing has left: gives back all that waits, as
    /// if the shard had refused it.
    pub fn take_unsent(&mut self) -> Vec<Refused<T>> {
        let mut unsent = Vec::new();
        let may_have_left = !matches!(self.state, State::Greeting { .. });
        if may_have_left && !planted::is_on(Planted::RetryOfMaybeExecuted) {
            return unsent;
        }
        while let Some(sent) = self.in_flight.front() {
            let (ticket, count) = (sent.ticket, sent.count);
            let in_flight = self.in_flight.len();
            let retained = self.retained.as_ref();
            let kept = retained.map_or(Kept::NotOurs, |retained| retained.front(in_flight));
            for index in 0..count {
                let request = match (kept, retained) {
                    (Kept::Bytes(len), Some(retained)) => retained.request(len, count, index),
                    _ => None,
                };
                unsent.push(Refused {
                    ticket,
                    index,
                    number: self.answered + u64::from(index) + 1,
                    request,
                    reply: Vec::new(),
                });
            }
            self.answered += u64::from(count);
            self.pop_front();
        }
        unsent
    }

    /// As [`Pipe::receive`] does it, but one reply at a time, and without those
    /// that say that the request was refused.
    #[cold]
    pub(super) fn take_replies_retained(
        &mut self,
        input: &[u8],
        now_us: u64,
        deliver: &mut impl FnMut(Replies<'_, T>),
    ) -> Result<usize, PipeError> {
        let mut taken = self.take_greeting(input, now_us)?;
        while taken < input.len() {
            let Some(sent) = self.in_flight.front_mut() else {
                let unasked = self.take_unasked(input.get(taken..).unwrap_or_default())?;
                if unasked == 0 {
                    break;
                }
                taken += unasked;
                continue;
            };
            let (ticket, index, count) = (sent.ticket, sent.answered, sent.count);
            let next = Sent {
                ticket,
                at_us: sent.at_us,
                count: index + 1,
                answered: index,
            };
            let batch = self.scanner.take_batch(&next, input, taken);
            let reply = input.get(taken..batch.end).unwrap_or_default();
            if batch.replies > 0 {
                self.answered += 1;
                sent.answered += 1;
                if !self.refuses(reply, ticket, index, count) {
                    deliver(Replies {
                        ticket,
                        first: index,
                        count: 1,
                        sent_us: next.at_us,
                        bytes: reply,
                    });
                }
                if index + 1 == count {
                    self.pop_front();
                }
            }
            if let Some(error) = batch.error {
                return Err(PipeError::Garbled(error));
            }
            if batch.replies == 0 && batch.push_bytes == 0 {
                break; // the rest is part of a reply
            }
            taken = batch.end + batch.push_bytes;
        }
        self.let_go_if_useless();
        Ok(taken)
    }

    /// Whether a reply says that the front batch's request was not executed; it
    /// is noted then.
    fn refuses(&mut self, reply: &[u8], ticket: T, index: u32, count: u32) -> bool {
        let in_flight = self.in_flight.len();
        let Some(retained) = self.retained.as_mut() else {
            return false;
        };
        while retained
            .passed_on
            .front()
            .is_some_and(|&number| number < self.answered)
        {
            retained.passed_on.pop_front();
        }
        if !reply.starts_with(NOPERM) || retained.passed_on.front() == Some(&self.answered) {
            return false;
        }
        let request = match retained.front(in_flight) {
            Kept::Bytes(len) => retained.request(len, count, index),
            Kept::No => None,
            Kept::NotOurs => return false,
        };
        if !is_servers_own(reply, request.as_deref()) {
            return false;
        }
        retained.refused.push(Refused {
            ticket,
            index,
            number: self.answered,
            request,
            reply: reply.to_vec(),
        });
        true
    }

    pub(super) fn pop_front(&mut self) {
        let in_flight = self.in_flight.len();
        if let Some(retained) = &mut self.retained {
            retained.forget_front(in_flight);
        }
        self.in_flight.pop_front();
    }

    /// Forgets what was kept of a connection that is gone.
    pub(super) fn forget_retained(&mut self) {
        if let Some(retained) = &mut self.retained {
            retained.batches.clear();
            retained.bytes.clear();
            retained.passed_on.clear();
            (retained.start, retained.kept, retained.begins_at) = (0, 0, None);
        }
        self.let_go_if_useless();
    }

    /// What is in flight as somebody else does not need it.
    fn let_go_if_useless(&mut self) {
        self.retained.take_if(|retained| {
            !retained.keeps && retained.kept == 0 && retained.refused.is_empty()
        });
    }
}

#[cfg(test)]
mod tests;
