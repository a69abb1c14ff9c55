//! Pools that behave as twemproxy 0.5.0 towards their clients
//! (`compat = "twemproxy"`): what is asked here is where the two differ.
//!
//! ```text
//! what                     redis                    twemproxy
//! a wrong request          -ERR .., goes on         close, what is owed is lost
//! QUIT                     +OK, close               close after what is owed
//! not logged in            -NOAUTH ..required.      -NOAUTH ..required (also PING)
//! a wrong password         -WRONGPASS, stays in     -ERR invalid password, is out
//! a shard is down          -ERR shard s1 (..): ..   -ERR Connection refused ..
//! -OOM, -BUSY, -LOADING    as they are              -ERR Invalid argument
//! a fan-out's error        the first one            -ERR Invalid argument
//! a fan-out, shard down    the first one            -ERR Connection refused ..; MGET closes
//! SELECT at a shard        after AUTH, checked      before it, unchecked; no unix socket
//! ```
//!
//! Which requests are wrong, and where the others go, is in
//! `router::commands::original`. What is not followed, and why, is in
//! `docs/twemproxy.md`.

use crate::metrics::pool::ErrorKind;
use crate::resp::{ReplyScanner, Request};
use crate::router::address::ShardAddress;
use crate::router::commands::original::{Accepted, PLACEHOLDER};
use crate::router::commands::{Command, SplitKind};
use crate::router::epoch::Route;
use crate::upstream::pipe::{Greeting, Manner, PipeError, Replies, is_failure};

use super::client::Ending;
use super::config::Compat;
use super::core::{PoolCore, Ticket};
use super::delivery::Delivery;
use super::dispatch::{Seat, Verdict};
use super::reader::class_of;

const PONG: &[u8] = b"+PONG\r\n";
const NOT_LOGGED_IN: &[u8] = b"-NOAUTH Authentication required\r\n";
const NO_PASSWORD_IS_SET: &[u8] = b"-ERR Client sent AUTH, but no password is set\r\n";
const WRONG_PASSWORD: &[u8] = b"-ERR invalid password\r\n";
const INVALID_ARGUMENT: &[u8] = b"-ERR Invalid argument\r\n";

impl PoolCore {
    /// Takes a request that is not simply forwarded by its key.
    #[cold]
    pub(super) fn dispatch_as_original(
        &mut self,
        seat: &mut Seat,
        accepted: Accepted,
        request: &Request<'_>,
    ) -> Verdict {
        match accepted {
            Accepted::Key(command, index) => {
                self.forward_by_name(seat, command, request.arg(index), request)
            }
            Accepted::Placeholder(command) => {
                self.forward_by_name(seat, command, PLACEHOLDER, request)
            }
            Accepted::Split(command, kind) => self.split(seat, kind, command, request),
            Accepted::Ping => self.answer(seat.key, PONG),
            Accepted::Auth => self.auth_as_original(seat.key, request.arg(1)),
            Accepted::Quit => self.quit_as_original(seat.key),
            Accepted::Unanswered | Accepted::Close => {
                self.counters.errors.of(ErrorKind::Refused).inc();
                self.close_client(seat.key);
                Verdict::End
            }
        }
    }

    fn forward_by_name(
        &mut self,
        seat: &mut Seat,
        command: &Command,
        name: &[u8],
        request: &Request<'_>,
    ) -> Verdict {
        let shard = match self.routing.route(name) {
            Route::To(shard) => shard,
            other => return self.stop_at_gate(seat.key, other),
        };
        match self.pipe_for(seat, shard) {
            Some(pipe) => self.forward_alone(seat, pipe, class_of(command), request.bytes),
            None => Verdict::End,
        }
    }

    fn auth_as_original(&mut self, key: u32, password: &[u8]) -> Verdict {
        if self.config.auth.is_none() {
            return self.answer(key, NO_PASSWORD_IS_SET);
        }
        if self.try_login(key, None, password) {
            return self.answer(key, b"+OK\r\n");
        }
        if let Some(client) = self.clients.get_mut(key as usize) {
            client.log_out();
        }
        self.answer(key, WRONG_PASSWORD)
    }

    pub(super) fn refuse_login_as_original(&mut self, key: u32) -> Verdict {
        self.counters.errors.of(ErrorKind::Refused).inc();
        self.answer(key, NOT_LOGGED_IN)
    }

    fn quit_as_original(&mut self, key: u32) -> Verdict {
        if let Some(client) = self.clients.get_mut(key as usize) {
            client.ending = Ending::Finishing;
            self.mark_client(key);
        }
        Verdict::End
    }

    /// A request of no arguments: `*0`, `*-1`, or an empty line.
    #[cold]
    pub(super) fn take_empty(&mut self, seat: &mut Seat, input: &[u8]) -> Verdict {
        match self.config.compat {
            Compat::Redis => Verdict::Empty,
            Compat::Twemproxy => {
                self.flush(seat, input);
                self.counters.errors.of(ErrorKind::Protocol).inc();
                self.close_client(seat.key);
                Verdict::End
            }
        }
    }

    /// A fan-out of a pool that follows the original begins.
    pub(super) fn follow_original(&mut self, merge: u32, kind: SplitKind) {
        if kind == SplitKind::Mget
            && let Some(merge) = self.merges.get_mut(merge)
        {
            merge.end_client_on_failure();
        }
    }
}

impl Delivery<'_> {
    /// As [`Delivery::many`], except for errors that the original does not hand on.
    pub fn many_as_original(&mut self, replies: Replies<'_, Ticket>) {
        if let Some(part) = replies.ticket.part {
            if !replies.bytes.starts_with(b"-") {
                return self.many(replies);
            }
            if is_failure(replies.bytes) {
                self.fail_part(part);
            }
            return self.many(Replies {
                bytes: INVALID_ARGUMENT,
                ..replies
            });
        }
        match without_failures(replies.bytes) {
            Some(bytes) if replies.count > 0 => self.many(Replies {
                bytes: &bytes,
                ..replies
            }),
            _ => self.many(replies),
        }
    }
}

/// Whole replies with other words for those the original takes for a failure of
/// the server. `None`: there are none of these.
fn without_failures(replies: &[u8]) -> Option<Vec<u8>> {
    let mut lines = replies.split(|&byte| byte == b'\n');
    if !lines.any(is_failure) {
        return None; // nor is there a value that looks like one
    }
    let (mut scanner, mut out, mut rest) = (ReplyScanner::new(), Vec::new(), replies);
    while let Ok(Some(reply)) = scanner.scan(rest) {
        let (bytes, after) = rest.split_at_checked(reply.len)?;
        out.extend_from_slice(match is_failure(bytes) {
            true => INVALID_ARGUMENT,
            false => bytes,
        });
        rest = after;
    }
    rest.is_empty().then_some(out)
}

/// The words a client gets when a shard can't answer: what the C library says to
/// the cause.
pub(super) fn refusal_text(error: &PipeError) -> String {
    let cause = match error {
        PipeError::Link(text) | PipeError::NoSocket(text) => {
            let mut letters = text.chars();
            let first = letters.next().map(|letter| letter.to_ascii_uppercase());
            return format!("ERR {}{}", first.unwrap_or_default(), letters.as_str());
        }
        PipeError::Ejected => "Connection refused",
        PipeError::Unresolved(_) => "Host is down",
        PipeError::Closed => "unknown", // no error, as it sees it
        PipeError::ConnectTimeout | PipeError::RequestTimeout => "Connection timed out",
        PipeError::Refused(_) | PipeError::Garbled(_) | PipeError::Unasked => "Invalid argument",
        // It never lets go of a server, nor has it commands that wait.
        PipeError::Retired | PipeError::Misplaced => "Connection reset by peer",
    };
    format!("ERR {cause}")
}

/// What a connection says first.
pub(super) fn greeting(greeting: Greeting, address: &ShardAddress) -> Greeting {
    let is_selected = !matches!(address, ShardAddress::Unix(_));
    Greeting {
        manner: Manner::Original,
        database: if is_selected { greeting.database } else { 0 },
        ..greeting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_get_other_words_wherever_they_stand() {
        let replies =
            b"+OK\r\n-OOM command not allowed\r\n$6\r\na\n-OOM\r\n-BUSYKEY x\r\n-LOADING\r\n";
        let expected = b"+OK\r\n-ERR Invalid argument\r\n$6\r\na\n-OOM\r\n-BUSYKEY x\r\n-ERR Invalid argument\r\n";
        assert_eq!(without_failures(replies).as_deref(), Some(&expected[..]));
        assert_eq!(
            without_failures(b"+OK\r\n$4\r\n-OOM\r\n").as_deref(),
            Some(&b"+OK\r\n$4\r\n-OOM\r\n"[..])
        );
        assert_eq!(without_failures(b"-ERR x\r\n:1\r\n"), None);
    }

    #[test]
    fn causes_are_told_as_the_c_library_tells_them() {
        for (error, text) in [
            (
                PipeError::Link("connection refused".into()),
                "ERR Connection refused",
            ),
            (
                PipeError::Link("no route to host".into()),
                "ERR No route to host",
            ),
            (
                PipeError::Unresolved("can't look up `x`".into()),
                "ERR Host is down",
            ),
            (PipeError::Closed, "ERR unknown"),
            (PipeError::RequestTimeout, "ERR Connection timed out"),
            (PipeError::Unasked, "ERR Invalid argument"),
        ] {
            assert_eq!(refusal_text(&error), text);
        }
    }
}
