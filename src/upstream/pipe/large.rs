//! Requests and replies that are too large to keep: they pass piece by piece.
//!
//! ```text
//!   shard:   | whole replies | $536870912 xxxx..  ..xxxx..  ..xx CR LF | whole replies
//!   receive     at once        kept: Pipe::large   |  each piece when    at once
//!                              tells of it         |  it comes
//!   pass_on                                     ---^  the owner wants it now
//! ```
//!
//! Invariant: from `pass_on` to its last piece a reply is the front one, and
//! no more of it is kept than one unfinished line.

use std::mem;

use super::dialect::Tail;
use super::{Pipe, PipeError, Replies, State};

/// A request or a reply of more bytes than this is large.
pub const LARGE_BYTES_MIN: usize = 64 * 1024;

/// A large reply that is arriving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LargeReply<T> {
    /// Of the batch it belongs to.
    pub ticket: T,
    /// Which request of the batch it answers.
    pub index: u32,
    /// Whether its bytes are handed over as they come.
    pub passing: bool,
    /// Bytes of it that are kept here.
    pub held_bytes: usize,
    /// It has at least this many bytes; 0 while it passes.
    pub bytes_min: usize,
    /// Bytes of it that were handed over.
    pub passed_bytes: u64,
}

/// A large reply that is handed over as it arrives.
pub(super) struct Passing {
    tail: Tail,
    /// Bytes handed over.
    bytes: u64,
}

impl<T: Copy> Pipe<T> {
    /// Whether [`Pipe::large`] would tell of a reply. (It may still turn out
    /// to be an out-of-band push, which is not told of.)
    #[inline]
    pub fn may_be_large(&self) -> bool {
        self.scanner.bytes_min() > LARGE_BYTES_MIN || self.passing.is_some()
    }

    /// The large reply that is arriving, if there is one.
    pub fn large(&self) -> Option<LargeReply<T>> {
        let sent = self.in_flight.front()?;
        let passing = self.passing.is_some();
        if !passing {
            let is_ready = matches!(self.state, State::Ready);
            let has_started = self.scanner.has_started_reply(&self.partial);
            if !is_ready || !self.may_be_large() || !has_started {
                return None;
            }
        }
        Some(LargeReply {
            ticket: sent.ticket,
            index: sent.answered,
            passing,
            held_bytes: self.partial.len(),
            bytes_min: if passing { 0 } else { self.scanner.bytes_min() },
            passed_bytes: self.passing.as_ref().map_or(0, |passing| passing.bytes),
        })
    }

    /// From now on the large reply is handed over as it arrives, beginning with
    /// what is kept of it.
    ///
    /// # Errors
    /// As [`Pipe::receive`].
    pub fn pass_on(
        &mut self,
        now_us: u64,
        mut deliver: impl FnMut(Replies<'_, T>),
    ) -> Result<(), PipeError> {
        if self.passing.is_some() || self.large().is_none() {
            return Ok(());
        }
        let tail = self.scanner.take_tail();
        self.passing = Some(Box::new(Passing { tail, bytes: 0 }));
        self.receive_large(&[], now_us, &mut deliver)
    }

    /// Takes bytes of a large reply, and of what follows it.
    #[cold]
    pub(super) fn receive_large(
        &mut self,
        bytes: &[u8],
        now_us: u64,
        deliver: &mut impl FnMut(Replies<'_, T>),
    ) -> Result<(), PipeError> {
        if self.partial.is_empty() {
            return self.pass_pieces(bytes, now_us, deliver);
        }
        let mut held = mem::take(&mut self.partial);
        held.extend_from_slice(bytes);
        self.pass_pieces(&held, now_us, deliver)
    }

    fn pass_pieces(
        &mut self,
        input: &[u8],
        now_us: u64,
        deliver: &mut impl FnMut(Replies<'_, T>),
    ) -> Result<(), PipeError> {
        let (Some(passing), Some(sent)) = (&mut self.passing, self.in_flight.front_mut()) else {
            return Err(PipeError::Unasked);
        };
        let (bytes, done) = passing.tail.pass(input)?;
        let (piece, rest) = input.split_at_checked(bytes).unwrap_or((input, &[]));
        passing.bytes += piece.len() as u64;
        self.progress_us = now_us;
        self.answered += u64::from(done);
        deliver(Replies {
            ticket: sent.ticket,
            first: sent.answered,
            count: u32::from(done),
            sent_us: sent.at_us,
            bytes: piece,
        });
        if !done {
            self.partial.extend_from_slice(rest);
            return Ok(());
        }
        sent.answered += 1;
        if sent.answered == sent.count {
            self.pop_front();
        }
        self.passing = None;
        self.receive_whole(rest, now_us, deliver)
    }

    /// Whether the front reply is handed over already in part.
    pub fn is_passing(&self) -> bool {
        self.passing.is_some()
    }

    /// Queues more bytes of the last request, which came without its end.
    pub fn send_more(&mut self, bytes: &[u8], now_us: u64) {
        if let Some(retained) = &mut self.retained {
            retained.keep_more(bytes);
        }
        self.out.extend_from_slice(bytes);
        self.progress_us = now_us;
    }

    /// The shard is not to blame for the time until now: the request's other
    /// end, or its reply's, keeps it waiting.
    pub fn excuse(&mut self, now_us: u64) {
        self.progress_us = now_us;
    }

    /// The tickets of all batches in flight, oldest first.
    pub fn tickets(&self) -> impl Iterator<Item = T> {
        self.in_flight.iter().map(|sent| sent.ticket)
    }
}

#[cfg(test)]
mod tests;
