//! Large requests: passed on while they arrive, each on a pipe of its own.
//!
//! ```text
//!                                                128 KiB unwritten, or
//!   owed something          no pipe is free      ahead of the pace (`pace.rs`)
//!      Pause::Lane           Pause::Private       .-- Pause::Window <-.
//!           |                      |              v                   |
//!  begins --'----------------------'---------> passing ---------------'
//!                                                 | its end
//!                    shard lost                   v
//!  passing ---------------------> swallowed    Pause::Lane until answered
//!             (error reply)
//! ```
//!
//! Only requests of commands with one key at a fixed place pass like this, once
//! their key is here; any other is kept until it is whole, up to
//! `limits.max_request`.
//!
//! Invariants
//! - A client that has a request passing is owed its reply and nothing else.
//! - Of a request that never got its end the shard saw no end either: its pipe
//!   is closed, so nothing of it is executed.

use tracing::info;

use crate::metrics::pool::ErrorKind;
use crate::resp::{Fed, ProtocolError, RequestTail};
use crate::router::epoch::Route;

use super::client::{Client, Ending, Pause, Unread};
use super::config::Protocol;
use super::core::{PoolCore, Ticket};
use super::dispatch::Verdict;
use super::memcached::write_failure;
use super::private_pipes::Role;
use super::reader::{Reader, Simple};

/// Bytes of one large request, or of one large reply, that wait to be written
/// before no more of it is read.
pub const WINDOW_BYTES: usize = 128 * 1024;

/// While others wait for a pipe, one whose request did not go on for so long is
/// taken from it.
pub const UPLOAD_STALL_MS_MAX: u64 = 10_000;

/// A request that passes on as it arrives.
#[derive(Debug)]
pub struct Upload {
    pub(super) tail: UploadTail,
    /// Where it goes; nowhere after its shard was lost.
    pub(super) pipe: Option<u32>,
    /// Bytes of it that passed.
    pub(super) passed_bytes: u64,
    /// Its client wants no reply.
    pub(super) quiet: bool,
}

/// How the end of an upload is found.
#[derive(Debug)]
pub(super) enum UploadTail {
    /// That of a request in RESP.
    Resp(RequestTail),
    /// After so many bytes.
    Data(u64),
}

impl UploadTail {
    fn feed(&mut self, bytes: &[u8]) -> Result<Fed, ProtocolError> {
        match self {
            Self::Resp(tail) => tail.feed(bytes),
            Self::Data(missing) => {
                let consumed = usize::try_from(*missing)
                    .map_or(bytes.len(), |missing| missing.min(bytes.len()));
                *missing -= consumed as u64;
                Ok(Fed {
                    consumed,
                    done: *missing == 0,
                })
            }
        }
    }
}

impl Upload {
    /// One of which nothing goes on.
    pub(super) fn nowhere(tail: UploadTail) -> Self {
        Self {
            tail,
            pipe: None,
            passed_bytes: 0,
            quiet: false,
        }
    }
}

/// What becomes of a request whose beginning is here.
pub(super) enum Start {
    /// It is kept until it is whole.
    Keep,
    /// The same, and no more is read until the reason is gone.
    Wait(Pause),
    /// The rest of it passes on.
    Pass(Upload),
    /// Answered, and the client's connection ends.
    End,
}

impl PoolCore {
    /// Keeps the beginning of a request, or passes it on if it is large.
    pub(super) fn begin(&mut self, key: u32, bytes: Vec<u8>, mut reader: Box<Reader>) {
        let (upload, pause) = match self.start(key, &bytes, &mut reader) {
            Start::Keep => (None, None),
            Start::Wait(pause) => (None, Some(pause)),
            Start::Pass(upload) => (Some(upload), None),
            Start::End => return self.forget(reader),
        };
        let bytes = if upload.is_some() { Vec::new() } else { bytes };
        if let Some(client) = self.clients.get_mut(key as usize) {
            client.unread = Some(Box::new(Unread {
                bytes,
                reader,
                upload,
            }));
            self.pause(key, pause);
        }
    }

    fn start(&mut self, key: u32, bytes: &[u8], reader: &mut Reader) -> Start {
        if self.config.protocol == Protocol::Memcached {
            return self.start_text(key, bytes, reader);
        }
        if self.refuses_beginning(key, bytes, reader) {
            return Start::End;
        }
        let Some((simple, name)) = reader.large(bytes) else {
            return Start::Keep;
        };
        let Some(client) = self.clients.get(key as usize) else {
            return Start::End;
        };
        if client.eof || client.session.is_some() {
            return Start::Keep;
        }
        if client.owed() > 0 {
            return Start::Wait(Pause::Lane);
        }
        let refusal = match self.routing.route(name) {
            Route::To(shard) => {
                let shared = self.seat(key).and_then(|seat| self.pipe_for(&seat, shard));
                let Some(shared) = shared else {
                    return Start::End;
                };
                if self.open_pipe(shared) {
                    let Some(pipe) = self.take_private(shared) else {
                        let freed = self.freed_pipes;
                        return Start::Wait(Pause::Private { freed });
                    };
                    return self.pass(key, pipe, simple, bytes, reader);
                }
                self.answer_with(key, |core, out| core.write_refusal(shared, out))
            }
            other => self.stop_at_gate(key, other),
        };
        match (refusal, reader.take_tail(bytes)) {
            (Verdict::Wait(pause), _) => Start::Wait(pause),
            (_, Ok(Some(tail))) => Start::Pass(Upload::nowhere(UploadTail::Resp(tail))),
            (_, Ok(None)) => Start::Keep,
            (_, Err(error)) => self.end_by(key, error),
        }
    }

    /// Sends the beginning of a request.
    fn pass(
        &mut self,
        key: u32,
        pipe: u32,
        simple: Simple,
        bytes: &[u8],
        reader: &mut Reader,
    ) -> Start {
        let tail = match reader.take_tail(bytes) {
            Ok(Some(tail)) => tail,
            Ok(None) => return Start::Keep,
            Err(error) => return self.end_by(key, error),
        };
        self.open_pipe(pipe);
        let (Some(client), Some(place)) = (
            self.clients.get_mut(key as usize),
            self.pipes.get_mut(pipe as usize),
        ) else {
            return Start::End;
        };
        let ticket = Ticket {
            client: key,
            generation: client.generation,
            sequence: client.next_sequence(),
            class: simple.class,
            part: None,
        };
        client.expect(1);
        place.role = Role::Private {
            client: key,
            arriving: true,
        };
        place.pipe.send(bytes, ticket, 1, self.now_us);
        self.counters.requests_total.inc();
        self.counters.large_requests_total.inc();
        self.mark_pipe(pipe);
        Start::Pass(Upload {
            tail: UploadTail::Resp(tail),
            pipe: Some(pipe),
            passed_bytes: bytes.len() as u64,
            quiet: false,
        })
    }

    fn end_by(&mut self, key: u32, error: ProtocolError) -> Start {
        self.refuse_protocol(key, error);
        Start::End
    }

    /// Whether a client's request passes on as it arrives.
    pub fn is_uploading(&self, key: u32) -> bool {
        let client = self.clients.get(key as usize);
        client.is_some_and(Client::is_uploading)
    }

    /// Bytes of a client whose request passes on.
    pub(super) fn upload_bytes(&mut self, key: u32, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(key as usize) else {
            return;
        };
        let Some(upload) = client.upload() else {
            return;
        };
        let (fed, pipe) = (upload.tail.feed(bytes), upload.pipe);
        let before = upload.passed_bytes;
        upload.passed_bytes += bytes.len() as u64;
        let passed = upload.passed_bytes;
        let fed = match fed {
            Ok(fed) => fed,
            Err(error) => {
                self.cut_upload(key);
                return self.refuse_protocol(key, error);
            }
        };
        if let Some(pipe) = pipe
            && let Some(place) = self.pipes.get_mut(pipe as usize)
        {
            let piece = bytes.get(..fed.consumed).unwrap_or_default();
            place.pipe.send_more(piece, self.now_us);
            let is_full = place.pipe.unwritten() >= WINDOW_BYTES;
            self.mark_pipe(pipe);
            self.look_at_pace();
            self.pace.spend(before, piece.len() as u64);
            let is_early = !self.pace.lets_pass(passed);
            if is_early {
                self.chores.clock = true; // no event tells when it may go on
            }
            if (is_full || is_early) && !fed.done {
                self.pause(key, Some(Pause::Window));
            }
        }
        if fed.done {
            self.end_upload(key, bytes.get(fed.consumed..).unwrap_or_default());
        }
    }

    /// The request is whole: what follows waits for its reply, which comes on
    /// another pipe than those of the next requests.
    fn end_upload(&mut self, key: u32, rest: &[u8]) {
        let Some(client) = self.clients.get_mut(key as usize) else {
            return;
        };
        let Some(mut unread) = client.unread.take() else {
            return;
        };
        let pipe = unread.upload.take().and_then(|upload| upload.pipe);
        if let Some(place) = pipe.and_then(|pipe| self.pipes.get_mut(pipe as usize)) {
            place.role = Role::Private {
                client: key,
                arriving: false,
            };
        }
        if pipe.is_none() {
            self.keep_reader(unread.reader);
            return self.requests_of(key, rest);
        }
        if rest.is_empty() {
            self.keep_reader(unread.reader);
        } else {
            unread.bytes.extend_from_slice(rest);
            client.unread = Some(unread);
        }
        self.pause(key, Some(Pause::Lane));
    }

    /// Whether a client whose window was full may send more.
    pub(super) fn window_is_open(&self, unread: Option<&Unread>) -> bool {
        let upload = unread.and_then(|unread| unread.upload.as_ref());
        let place = upload.and_then(|upload| self.pipes.get(upload.pipe? as usize));
        let (Some(upload), Some(place)) = (upload, place) else {
            return true;
        };
        place.pipe.unwritten() <= WINDOW_BYTES / 2 && self.pace.lets_pass(upload.passed_bytes)
    }

    /// Brings the pace of large values up to now.
    pub(super) fn look_at_pace(&mut self) {
        let limit = self.config.limits.large_bytes_per_second;
        let requests = self.counters.requests_total.value();
        self.pace
            .look(self.now_us, requests, limit.unwrap_or(u64::MAX));
    }

    /// Whether a client's large request waits to go on.
    pub(super) fn has_waiting_uploads(&self) -> bool {
        let pause_of = |key: &u32| self.clients.get(*key as usize)?.pause;
        let mut paused = self.paused.iter();
        paused.any(|key| matches!(pause_of(key), Some(Pause::Window)))
    }

    /// The request will never get its end: its pipe is closed with it, and it
    /// has no reply.
    pub(super) fn cut_upload(&mut self, key: u32) {
        let Some(client) = self.clients.get_mut(key as usize) else {
            return;
        };
        let unread = client.unread.take_if(|unread| unread.upload.is_some());
        let Some(unread) = unread else { return };
        if let Some(pipe) = unread.upload.and_then(|upload| upload.pipe) {
            client.forget_last();
            self.abandon(pipe);
        }
        self.keep_reader(unread.reader);
    }

    /// The pipe of a client's request is gone: the rest of it goes nowhere.
    pub(super) fn upload_lost(&mut self, client: u32, pipe: u32) {
        if let Some(client) = self.clients.get_mut(client as usize)
            && let Some(upload) = client.upload()
            && upload.pipe == Some(pipe)
        {
            upload.pipe = None;
        }
    }

    /// Uploads that do not go on lose their pipes when others wait for one.
    /// Pipes of those that do wait for their clients, so their time does not run.
    pub(super) fn look_at_uploads(&mut self) {
        let (now_ms, now_us) = (self.now_ms(), self.now_us);
        let mut stalled: Vec<u32> = Vec::new();
        for (key, place) in &mut self.pipes {
            if matches!(place.role, Role::Waiting { .. }) {
                place.pipe.excuse(now_us); // it waits for others, as it was asked to
            }
            let Role::Private {
                client,
                arriving: true,
            } = place.role
            else {
                continue;
            };
            if place.pipe.unwritten() == 0 {
                place.pipe.excuse(now_us);
            }
            let sender = self.clients.get(client as usize);
            if sender.is_some_and(|sender| {
                now_ms.saturating_sub(sender.active_ms) >= UPLOAD_STALL_MS_MAX
            }) {
                stalled.push(key as u32);
            }
        }
        if !stalled.is_empty() && self.has_waiters_for_private() {
            for pipe in stalled {
                self.take_from_upload(pipe);
            }
        }
    }

    pub(super) fn has_waiters_for_private(&self) -> bool {
        let pause_of = |key: &u32| self.clients.get(*key as usize)?.pause;
        self.paused
            .iter()
            .any(|key| matches!(pause_of(key), Some(Pause::Private { .. })))
    }

    fn take_from_upload(&mut self, pipe: u32) {
        let Some(place) = self.pipes.get(pipe as usize) else {
            return;
        };
        let Role::Private { client: key, .. } = place.role else {
            return;
        };
        let text = format!(
            "ERR the rest of this request did not come for {} s while others waited for its \
             connection to shard {}",
            UPLOAD_STALL_MS_MAX / 1_000,
            place.shard
        );
        info!(pool = %self.config.name, shard = place.shard, "a large request stalled; its connection is given to another");
        self.upload_lost(key, pipe);
        self.abandon(pipe);
        self.counters.errors.of(ErrorKind::Timeout).inc();
        let mut reply = Vec::new();
        write_failure(self.config.protocol, &mut reply, &text);
        if let Some(client) = self.clients.get_mut(key as usize)
            && client.ending != Ending::Closed
        {
            if client.upload().is_some_and(|upload| upload.quiet) {
                reply.clear();
            }
            client.forget_last();
            client.answer(&reply);
            self.mark_client(key);
        }
    }
}
