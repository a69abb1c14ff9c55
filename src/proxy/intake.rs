//! From a client's bytes to its requests: scanning, pausing, going on.
//!
//! Requests are scanned in the driver's read buffer; a client has memory of
//! its own (`unread`) only for a partial request or while it is paused.

use crate::metrics::pool::ErrorKind;
use crate::resp::ProtocolError;
use crate::router::errors::ErrorReply;

use super::client::{Client, Ending, Pause, Unread};
use super::config::{Compat, Protocol};
use super::core::PoolCore;
use super::dispatch::{Seat, Verdict};
use super::lanes::PIPE_UNWRITTEN_BYTES_MAX;
use super::reader::Reader;

/// Replies a client may be owed before its requests wait.
pub const OWED_REPLIES_MAX: usize = 1024;
/// Unread replies of a client, in bytes, before its requests wait.
pub const UNWRITTEN_BYTES_SOFT_MAX: usize = 1024 * 1024;
/// Unhandled bytes give memory back when they fill less than this part of it.
const SHRINK_UNREAD_BELOW: usize = 4;
/// Bytes of waiting requests of all clients held at a switch; over it a
/// request is refused with `-TRYAGAIN`.
pub const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Waiting requests of all clients held at a switch, likewise.
pub const HELD_REQUESTS_MAX: usize = 50_000;

/// How far a run over a client's input came.
pub(super) struct Run {
    pub(super) consumed: usize,
    pub(super) pause: Option<Pause>,
}

impl PoolCore {
    /// A client sent bytes.
    pub fn client_bytes(&mut self, key: u32, bytes: &[u8]) {
        self.counters.client_bytes_in.add(bytes.len() as u64);
        let now_ms = self.now_ms();
        let Some(client) = self.clients.get_mut(key as usize) else {
            return;
        };
        client.active_ms = now_ms;
        if client.ending != Ending::Open {
            return;
        }
        if let Some(unread) = &mut client.unread {
            if unread.upload.is_some() {
                return self.upload_bytes(key, bytes);
            }
            unread.bytes.extend_from_slice(bytes);
            if client.pause.is_none() {
                self.go_on(key);
            }
            return;
        }
        self.requests_of(key, bytes);
    }

    /// Takes the requests in `bytes` of a client that has nothing unhandled.
    #[inline]
    pub(super) fn requests_of(&mut self, key: u32, bytes: &[u8]) {
        let mut reader = self.take_reader();
        let run = self.take_requests(key, bytes, &mut reader);
        let rest = bytes.get(run.consumed..).unwrap_or_default();
        if rest.is_empty() {
            self.keep_reader(reader);
        } else {
            self.leave(key, rest, reader, run.pause);
        }
    }

    /// Handles what a client sent before it was paused, or the whole of a
    /// request that came in pieces.
    pub(super) fn go_on(&mut self, key: u32) {
        let Some(client) = self.clients.get_mut(key as usize) else {
            return;
        };
        client.pause = None;
        if client.settles {
            client.settles = false;
            if client.settle_first() {
                self.paused.push_back(key);
                return;
            }
        }
        if client.is_uploading() {
            return self.end_if_eof(key);
        }
        let Some(unread) = client.unread.take() else {
            return;
        };
        let Unread {
            mut bytes,
            mut reader,
            ..
        } = *unread;
        let run = self.take_requests(key, &bytes, &mut reader);
        bytes.drain(..run.consumed);
        if bytes.len() < bytes.capacity() / SHRINK_UNREAD_BELOW {
            bytes.shrink_to_fit(); // the rest of its request may come late
        }
        let Some(client) = self.clients.get_mut(key as usize) else {
            return;
        };
        if bytes.is_empty() || client.ending != Ending::Open {
            self.forget(reader);
            self.end_if_eof(key);
        } else if run.pause.is_none() {
            self.begin(key, bytes, reader);
            self.end_if_eof(key);
        } else {
            client.unread = Some(Box::new(Unread {
                bytes,
                reader,
                upload: None,
            }));
            self.pause(key, run.pause);
        }
    }

    /// Keeps what is left of a run.
    fn leave(&mut self, key: u32, rest: &[u8], reader: Box<Reader>, pause: Option<Pause>) {
        let Some(client) = self.clients.get_mut(key as usize) else {
            return;
        };
        if client.ending != Ending::Open {
            self.forget(reader);
        } else if pause.is_none() {
            self.begin(key, rest.to_vec(), reader);
        } else {
            client.unread = Some(Box::new(Unread {
                bytes: rest.to_vec(),
                reader,
                upload: None,
            }));
            self.pause(key, pause);
        }
    }

    /// Keeps a reader that may stand inside a request nobody wants any more.
    pub(super) fn forget(&mut self, mut reader: Box<Reader>) {
        reader.reset();
        self.keep_reader(reader);
    }

    /// A client whose side is closed gets no more requests after its last bytes.
    fn end_if_eof(&mut self, key: u32) {
        if let Some(client) = self.clients.get_mut(key as usize)
            && client.eof
            && client.pause.is_none()
        {
            client.ending = Ending::Finishing;
            self.cut_upload(key);
            self.mark_client(key);
        }
    }

    pub(super) fn pause(&mut self, key: u32, pause: Option<Pause>) {
        let Some(client) = self.clients.get_mut(key as usize) else {
            return;
        };
        client.pause = pause;
        match pause {
            None => {}
            Some(Pause::Held { .. }) => {
                self.held_requests += 1;
                self.held_bytes += client
                    .unread
                    .as_ref()
                    .map_or(0, |unread| unread.bytes.len());
            }
            Some(Pause::Private { .. }) => {
                self.paused.push_back(key);
                self.chores.clock = true;
            }
            Some(Pause::Owed | Pause::Lane | Pause::Shard { .. } | Pause::Window) => {
                self.paused.push_back(key);
            }
        }
    }

    fn take_requests(&mut self, key: u32, input: &[u8], reader: &mut Reader) -> Run {
        if self.config.protocol == Protocol::Memcached {
            return self.take_texts(key, input, reader);
        }
        let mut run = Run {
            consumed: 0,
            pause: None,
        };
        let Some(mut seat) = self.seat(key) else {
            return run;
        };
        let mut requests = 0;
        while let Some(rest) = input.get(run.consumed..).filter(|rest| !rest.is_empty()) {
            if seat.stale || seat.budget == 0 {
                if !self.renew(&mut seat, input) {
                    run.pause = Some(Pause::Owed);
                    break;
                }
                if seat.in_session
                    && let Some(stop) = self.wait_in_session(&mut seat)
                {
                    run.pause = Some(stop);
                    break;
                }
            }
            let repeated = match seat.in_session {
                true => None,
                false => reader.read_repeated(rest),
            };
            let (verdict, consumed) = match repeated {
                Some((simple, request)) => (
                    self.forward_simple(&mut seat, simple, &request, input, run.consumed),
                    request.consumed,
                ),
                None => match self.take_unlike(&mut seat, reader, input, run.consumed) {
                    Some(taken) => taken,
                    None => break,
                },
            };
            match verdict {
                Verdict::Taken => requests += 1,
                Verdict::Empty => {}
                Verdict::Wait(reason) => {
                    run.pause = Some(reason);
                    break;
                }
                Verdict::End => {
                    run.consumed = input.len();
                    break;
                }
            }
            run.consumed += consumed;
        }
        self.flush(&mut seat, input);
        if run.pause.is_some() {
            reader.reset(); // the request is read again when the client goes on
        }
        self.counters.requests_total.add(requests);
        run
    }

    /// Takes a request that is unlike the one before it, at `at` of `input`:
    /// what became of it, and its length. `None`: its end is not here.
    fn take_unlike(
        &mut self,
        seat: &mut Seat,
        reader: &mut Reader,
        input: &[u8],
        at: usize,
    ) -> Option<(Verdict, usize)> {
        match reader.read(input.get(at..)?) {
            Ok(None) => None,
            Ok(Some(read)) if read.request.args.is_empty() => {
                Some((self.take_empty(seat, input), read.request.consumed))
            }
            Ok(Some(read)) => {
                let verdict = match seat.in_session {
                    true => self.dispatch_in_session(seat, &read, input, at),
                    false => self.dispatch(seat, &read, input, at),
                };
                Some((verdict, read.request.consumed))
            }
            Err(error) => {
                self.flush(seat, input);
                self.refuse_protocol(seat.key, error);
                Some((Verdict::End, 0))
            }
        }
    }

    /// Answers what is no request.
    #[cold]
    pub(super) fn refuse_protocol(&mut self, key: u32, error: ProtocolError) {
        self.counters.errors.of(ErrorKind::Protocol).inc();
        if self.config.compat == Compat::Twemproxy {
            return self.close_client(key);
        }
        let mut reply = Vec::new();
        let words = [&b"ERR Protocol error: "[..], &error.words()].concat();
        ErrorReply::new(words).write(&mut reply);
        self.answer_and_end(key, &reply);
    }

    /// Closes a client that speaks HTTP, without a word to it, as Redis does: what
    /// follows was made by others than those who use this proxy.
    #[cold]
    pub(super) fn hang_up(&mut self, key: u32) -> Verdict {
        self.counters.errors.of(ErrorKind::Protocol).inc();
        if let Some(client) = self.clients.get_mut(key as usize) {
            client.ending = Ending::Finishing;
            self.mark_client(key);
        }
        Verdict::End
    }

    #[inline]
    pub(super) fn seat(&self, key: u32) -> Option<Seat> {
        let client = self.clients.get(key as usize)?;
        let budget = self.budget(client);
        Some(Seat::new(key, client, budget))
    }

    /// Brings a seat up to date; false if the client is owed too much.
    pub(super) fn renew(&mut self, seat: &mut Seat, input: &[u8]) -> bool {
        self.flush(seat, input);
        if let Some(client) = self.clients.get(seat.key as usize) {
            (seat.lane, seat.budget) = (client.lane, self.budget(client));
            seat.in_session = client.is_looked_at();
        }
        seat.stale = seat.in_session;
        seat.budget > 0
    }

    /// Replies that a client may be owed beyond those of now.
    #[inline]
    fn budget(&self, client: &Client) -> u32 {
        if client.kept() >= UNWRITTEN_BYTES_SOFT_MAX {
            return 0;
        }
        if client.is_next_silenced() {
            return 1;
        }
        OWED_REPLIES_MAX.saturating_sub(client.owed()) as u32
    }

    /// The last reply a client gets: what it sends after is not read.
    pub(super) fn answer_and_end(&mut self, key: u32, reply: &[u8]) {
        if let Some(client) = self.clients.get_mut(key as usize) {
            client.answer(reply);
            client.ending = Ending::Finishing;
            self.mark_client(key);
        }
    }

    /// Clients that waited for their replies or for a shard go on when half of
    /// what they waited for is gone.
    pub(super) fn resume_paused(&mut self) {
        if !self.paused.is_empty() {
            self.look_at_pace();
        }
        // Those that are paused again stand behind those that are looked at now.
        for _ in 0..self.paused.len() {
            let Some(key) = self.paused.pop_front() else {
                return;
            };
            let Some(client) = self.clients.get(key as usize) else {
                continue;
            };
            let may_go_on = match client.pause {
                Some(Pause::Owed) => {
                    client.owed() <= OWED_REPLIES_MAX / 2
                        && client.kept() <= UNWRITTEN_BYTES_SOFT_MAX / 2
                }
                Some(Pause::Shard { pipe }) => self
                    .pipes
                    .get(pipe as usize)
                    .is_none_or(|place| place.pipe.unwritten() <= PIPE_UNWRITTEN_BYTES_MAX / 2),
                Some(Pause::Lane) => client.owed() == 0,
                Some(Pause::Private { freed }) => self.freed_pipes != freed,
                Some(Pause::Window) => self.window_is_open(client.unread.as_deref()),
                Some(Pause::Held { .. }) | None => continue,
            };
            if may_go_on {
                self.go_on(key);
                if self.may_read(key) {
                    self.chores.read_clients.push(key);
                }
            } else {
                self.paused.push_back(key);
            }
        }
    }
}

/// Whether this command is the beginning of a line of HTTP. A page in a browser
/// can make it send such lines, and commands after them.
pub(super) fn is_http(command: &[u8]) -> bool {
    command.eq_ignore_ascii_case(b"post") || command.eq_ignore_ascii_case(b"host:")
}
