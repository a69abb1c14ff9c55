//! What is answered here: requests that are not done, and ends.

use crate::memcached::{Refusal, write_server_error};
use crate::metrics::pool::ErrorKind;
use crate::router::epoch::Route;

use super::super::client::{Ending, Pause};
use super::super::config::Compat;
use super::super::core::PoolCore;
use super::super::dispatch::{Seat, Verdict};
use super::super::intake::HELD_BYTES_MAX;

/// What a client gets for a moving key while the gate is fenced.
const TRY_AGAIN: &str =
    "the key is moving to another shard and the switch is not decided yet, try again";

impl PoolCore {
    /// Whether what twemproxy closes its clients for closes them here, too.
    pub(super) fn is_strict(&self) -> bool {
        self.config.compat == Compat::Twemproxy
    }

    /// The client gets what it is owed, and no more is read of it.
    pub(super) fn end_client(&mut self, key: u32) -> Verdict {
        if let Some(client) = self.clients.get_mut(key as usize) {
            client.ending = Ending::Finishing;
            self.mark_client(key);
        }
        Verdict::End
    }

    /// Answers what is not done; memcached's words, or twemproxy's silence.
    pub(super) fn refuse_text(&mut self, seat: &Seat, refusal: Refusal, quiet: bool) -> Verdict {
        let kind = match refusal.ends() {
            true => ErrorKind::Protocol,
            false => ErrorKind::Refused,
        };
        self.counters.errors.of(kind).inc();
        if self.is_strict() {
            return self.end_client(seat.key);
        }
        if !quiet {
            self.answer_with(seat.key, |_, out| refusal.write(out));
        }
        match refusal.ends() {
            true => self.end_client(seat.key),
            false => Verdict::Taken,
        }
    }

    /// A request whose shard is down.
    pub(super) fn refuse_for(&mut self, key: u32, pipe: u32, quiet: bool) -> Verdict {
        if quiet {
            self.counters.errors.of(ErrorKind::ShardDown).inc();
            return Verdict::Taken;
        }
        self.answer_with(key, |core, out| core.write_refusal(pipe, out))
    }

    /// A request for a key that moves.
    pub(super) fn stop_text(&mut self, key: u32, route: Route, quiet: bool) -> Verdict {
        let kind = match route {
            Route::Wait if self.held_bytes < HELD_BYTES_MAX => {
                return Verdict::Wait(Pause::Held {
                    since_us: self.now_us,
                });
            }
            Route::Wait => ErrorKind::HeldOverflow,
            Route::TryAgain | Route::Reserved | Route::To(_) => ErrorKind::Fenced,
        };
        self.counters.errors.of(kind).inc();
        match quiet {
            true => Verdict::Taken,
            false => self.answer_with(key, |_, out| write_server_error(out, TRY_AGAIN)),
        }
    }
}
