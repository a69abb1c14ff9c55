//! Clients that read very large values: what they ask next rides on a
//! connection of its own.
//!
//! ```text
//!             a very large reply ended          nothing such for 10 s
//!   (usual) --------------------------> reader ----------------------> (usual)
//! ```
//!
//! Nobody knows how large a reply is before it comes; but who got a very large
//! one is likely to ask for another. On the shared connection others would wait
//! behind it, so that it could not keep the pace (`pace.rs`).
//!
//! Invariant: while a request rides alone, its client's next one waits for the
//! reply, so that nothing is overtaken. Pipelines stay on the shared connection:
//! one by one they would take longer.

use crate::router::epoch::Route;

use super::client::Client;
use super::core::PoolCore;
use super::dispatch::{Seat, Verdict};
use super::pace::FREE_BYTES;
use super::private_pipes::Role;
use super::reader::{Meant, Read};
use super::session::Session;

/// How long a client is taken for a reader of very large values after one.
const READER_MS: u64 = 10_000;

/// What is known of a client that reads very large values.
#[derive(Debug, Clone, Copy)]
pub struct LargeReader {
    until_ms: u64,
    /// Its last request is on a connection of its own.
    rides_alone: bool,
}

impl Client {
    /// Whether its requests are looked at one by one.
    #[inline]
    pub(super) fn is_looked_at(&self) -> bool {
        self.session.is_some() || self.large_reader.is_some()
    }

    /// Whether its next request waits until it is owed nothing.
    pub(super) fn goes_one_by_one(&self) -> bool {
        let rides_alone = self.large_reader.is_some_and(|reader| reader.rides_alone);
        rides_alone || self.session.as_deref().is_some_and(Session::settles)
    }

    /// A reply of so many bytes ended.
    pub(super) fn got_large(&mut self, bytes: u64, now_ms: u64) {
        if bytes > FREE_BYTES {
            let rides_alone = self.large_reader.is_some_and(|reader| reader.rides_alone);
            self.large_reader = Some(LargeReader {
                until_ms: now_ms + READER_MS,
                rides_alone,
            });
        }
    }

    /// It is owed nothing that rides alone.
    pub(super) fn has_arrived(&mut self, now_ms: u64) {
        self.large_reader
            .take_if(|reader| now_ms >= reader.until_ms);
        if let Some(reader) = &mut self.large_reader {
            reader.rides_alone = false;
        }
    }
}

impl PoolCore {
    /// Sends the request of a client that reads very large values on a connection
    /// of its own, if it is the last that the client sent. `None`: it goes the
    /// way of others.
    pub(super) fn send_beside(
        &mut self,
        seat: &mut Seat,
        read: &Read<'_>,
        is_last: bool,
    ) -> Option<Verdict> {
        let client = self.clients.get(seat.key as usize)?;
        let Ok(Meant::Simple(simple)) = read.meant else {
            return None;
        };
        if client.large_reader.is_none() || client.owed() > 0 || !is_last {
            return None;
        }
        let Route::To(shard) = self.routing.route(read.request.arg(simple.key)) else {
            return None;
        };
        let shared = self.pipe_for(seat, shard)?;
        if !self.open_pipe(shared) {
            return None;
        }
        let pipe = self.take_private(shared)?;
        self.open_pipe(pipe);
        if let Some(place) = self.pipes.get_mut(pipe as usize) {
            place.role = Role::Private {
                client: seat.key,
                arriving: false,
            };
        }
        if let Some(client) = self.clients.get_mut(seat.key as usize)
            && let Some(reader) = &mut client.large_reader
        {
            reader.rides_alone = true;
        }
        self.send_alone(seat, pipe, simple.class, read.request.bytes);
        Some(Verdict::Taken)
    }
}
