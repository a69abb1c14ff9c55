//! From a client's bytes to its requests: scanning, pausing, going on.
//!
//! Requests are scanned in the driver's read buffer; a client has memory of
//! its own (`unread`) only for a partial request or while it is paused.

use std::mem;

use crate::metrics::pool::ErrorKind;
use crate::resp::{RequestScanner, write_error};

use super::client::{Ending, Pause, Unread};
use super::core::PoolCore;
use super::dispatch::Verdict;
use super::lanes::PIPE_UNWRITTEN_BYTES_MAX;

/// Replies a client may be owed before its requests wait.
pub const OWED_REPLIES_MAX: usize = 1024;
/// Unread replies of a client, in bytes, before its requests wait.
pub const UNWRITTEN_BYTES_SOFT_MAX: usize = 1024 * 1024;
/// Bytes of waiting requests of all clients held at a switch; over it a
/// request is refused with `-TRYAGAIN`.
pub const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How far a run over a client's input came.
struct Run {
    consumed: usize,
    pause: Option<Pause>,
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
            unread.bytes.extend_from_slice(bytes);
            if client.pause.is_none() {
                self.go_on(key);
            }
            return;
        }
        let mut scanner = self.take_scanner();
        let run = self.take_requests(key, bytes, &mut scanner);
        let rest = bytes.get(run.consumed..).unwrap_or_default();
        self.leave(key, rest, scanner, run.pause);
    }

    /// Handles what a client sent before it was paused, or the whole of a
    /// request that came in pieces.
    pub(super) fn go_on(&mut self, key: u32) {
        let Some(client) = self.clients.get_mut(key as usize) else {
            return;
        };
        client.pause = None;
        let Some(unread) = client.unread.take() else {
            return;
        };
        let Unread {
            mut bytes,
            mut scanner,
        } = *unread;
        let run = self.take_requests(key, &bytes, &mut scanner);
        bytes.drain(..run.consumed);
        let Some(client) = self.clients.get_mut(key as usize) else {
            return;
        };
        if bytes.is_empty() || client.ending != Ending::Open {
            self.keep_scanner(scanner);
            self.end_if_eof(key);
        } else {
            client.unread = Some(Box::new(Unread { bytes, scanner }));
            self.pause(key, run.pause);
            if run.pause.is_none() {
                self.end_if_eof(key);
            }
        }
    }

    /// Keeps what is left of a run.
    fn leave(&mut self, key: u32, rest: &[u8], scanner: RequestScanner, pause: Option<Pause>) {
        let Some(client) = self.clients.get_mut(key as usize) else {
            return;
        };
        if rest.is_empty() || client.ending != Ending::Open {
            self.keep_scanner(scanner);
        } else {
            client.unread = Some(Box::new(Unread {
                bytes: rest.to_vec(),
                scanner,
            }));
            self.pause(key, pause);
        }
    }

    /// A client whose side is closed gets no more requests after its last bytes.
    fn end_if_eof(&mut self, key: u32) {
        if let Some(client) = self.clients.get_mut(key as usize)
            && client.eof
        {
            client.ending = Ending::Finishing;
            self.mark_client(key);
        }
    }

    fn pause(&mut self, key: u32, pause: Option<Pause>) {
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
            Some(Pause::Owed | Pause::Lane | Pause::Shard { .. }) => self.paused.push(key),
        }
    }

    fn take_requests(&mut self, key: u32, input: &[u8], scanner: &mut RequestScanner) -> Run {
        let mut consumed = 0;
        let mut requests = 0;
        let mut pause = None;
        while let Some(rest) = input.get(consumed..).filter(|rest| !rest.is_empty()) {
            if self.owes_too_much(key) {
                pause = Some(Pause::Owed);
                break;
            }
            match scanner.scan(rest) {
                Ok(None) => break,
                Ok(Some(request)) => {
                    if !request.args.is_empty() {
                        match self.dispatch(key, &request) {
                            Verdict::Taken => requests += 1,
                            Verdict::Wait(reason) => {
                                pause = Some(reason);
                                break;
                            }
                            Verdict::End => {
                                consumed = input.len();
                                break;
                            }
                        }
                    }
                    consumed += request.consumed;
                }
                Err(error) => {
                    self.counters.errors.of(ErrorKind::Protocol).inc();
                    let mut reply = Vec::new();
                    write_error(&mut reply, &format!("ERR Protocol error: {error}"));
                    self.answer_and_end(key, &reply);
                    consumed = input.len();
                    break;
                }
            }
        }
        if pause.is_some() {
            scanner.reset(); // the request is scanned again when the client goes on
        }
        self.counters.requests_total.add(requests);
        Run { consumed, pause }
    }

    /// The last reply a client gets: what it sends after is not read.
    pub(super) fn answer_and_end(&mut self, key: u32, reply: &[u8]) {
        if let Some(client) = self.clients.get_mut(key as usize) {
            client.answer(reply);
            client.ending = Ending::Finishing;
            self.mark_client(key);
        }
    }

    #[inline]
    fn owes_too_much(&self, key: u32) -> bool {
        self.clients.get(key as usize).is_some_and(|client| {
            client.owed() >= OWED_REPLIES_MAX
                || client.unwritten() + client.parked() >= UNWRITTEN_BYTES_SOFT_MAX
        })
    }

    /// Clients that waited for their replies or for a shard go on when half of
    /// what they waited for is gone.
    pub(super) fn resume_paused(&mut self) {
        if self.paused.is_empty() {
            return;
        }
        for key in mem::take(&mut self.paused) {
            let Some(client) = self.clients.get(key as usize) else {
                continue;
            };
            let may_go_on = match client.pause {
                Some(Pause::Owed) => {
                    client.owed() <= OWED_REPLIES_MAX / 2
                        && client.unwritten() + client.parked() <= UNWRITTEN_BYTES_SOFT_MAX / 2
                }
                Some(Pause::Shard { pipe }) => self
                    .pipes
                    .get(pipe as usize)
                    .is_none_or(|place| place.pipe.unwritten() <= PIPE_UNWRITTEN_BYTES_MAX / 2),
                Some(Pause::Lane) => client.owed() == 0,
                Some(Pause::Held { .. }) | None => continue,
            };
            if may_go_on {
                self.go_on(key);
                if self.may_read(key) {
                    self.chores.read_clients.push(key);
                }
            } else {
                self.paused.push(key);
            }
        }
    }
}
