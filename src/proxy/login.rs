//! Clients that must say a password first.
//!
//! ```text
//!   connected, RESET                  AUTH, HELLO .. AUTH
//!  ------------------> must log in -----------------------> as any other client
//!                        | all else: NOAUTH
//! ```
//!
//! One that must log in has a session (`session.rs`), so it is looked at request
//! by request; the others pay nothing. It may make us keep no more than Redis
//! lets it: few and short arguments.
//!
//! Invariants
//! - Nothing that a client sent before it logged in reaches a shard.
//! - A password that changes (reload) is for those who come: who is in, stays.

use crate::resp::{ProtocolError, Request};
use crate::router::commands::original::Accepted;
use crate::router::commands::{Handling, LocalCommand, SessionCommand};
use crate::router::errors::{EXEC_NOAUTH, HELLO_NOAUTH, NOAUTH, SYNTAX, WRONGPASS};
use crate::upstream::config::Credentials;

use super::client::Client;
use super::config::Compat;
use super::core::PoolCore;
use super::dispatch::{Seat, Verdict};
use super::reader::{Meant, Read, Reader};

/// Arguments of one request before AUTH; Redis has the same bound.
const ARGS_MAX: usize = 10;
/// Bytes of one such argument; likewise.
const ARG_BYTES_MAX: usize = 16 * 1024;

/// Bytes of one request before AUTH that are kept where twemproxy, which has no
/// bound, is followed.
const ORIGINAL_BYTES_MAX: usize = 64 * 1024;

/// The user that every client is, whatever name it gave.
const DEFAULT_USER: &[u8] = b"default";

impl Client {
    /// From here on it must log in.
    pub(super) fn log_out(&mut self) {
        self.session().must_log_in = true;
    }

    fn log_in(&mut self) {
        if let Some(session) = &mut self.session {
            session.must_log_in = false;
        }
        self.end_session();
    }

    pub(super) fn must_log_in(&self) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|session| session.must_log_in)
    }
}

/// Whether these words open a pool.
fn opens(wanted: &Credentials, name: Option<&[u8]>, password: &[u8]) -> bool {
    let own = wanted.username.as_ref().map(String::as_bytes);
    let is_known = name.is_none_or(|name| name == DEFAULT_USER || Some(name) == own);
    let is_right = wanted.password.is(password);
    is_known && is_right
}

impl PoolCore {
    /// What becomes of a request of a client that must log in; `None`: it is
    /// looked at as any other.
    #[cold]
    pub(super) fn before_login(&mut self, seat: &Seat, read: &Read<'_>) -> Option<Verdict> {
        if self.config.auth.is_none() {
            self.log_in(seat.key); // a reload took the password away
            return None;
        }
        if let Some(error) = too_much(&read.request)
            && self.config.compat == Compat::Redis
        {
            self.refuse_protocol(seat.key, error);
            return Some(Verdict::End);
        }
        match read.meant {
            Err(_) => None, // unknown, as it is to Redis before it asks who sent it
            Ok(Meant::Other(_, Handling::Local(local))) if is_open(local) => None,
            Ok(Meant::Original(Accepted::Auth | Accepted::Quit | Accepted::Close)) => None,
            Ok(Meant::Other(_, Handling::Session(SessionCommand::Exec))) => {
                Some(self.answer_error(seat.key, &EXEC_NOAUTH))
            }
            Ok(Meant::Simple(_) | Meant::Other(..) | Meant::Original(_)) => {
                Some(self.refuse_login(seat.key))
            }
        }
    }

    fn refuse_login(&mut self, key: u32) -> Verdict {
        match self.config.compat {
            Compat::Redis => self.answer_error(key, &NOAUTH),
            Compat::Twemproxy => self.refuse_login_as_original(key),
        }
    }

    /// The same for a request that is not whole.
    pub(super) fn refuses_beginning(&mut self, key: u32, bytes: &[u8], reader: &Reader) -> bool {
        let Some(beginning) = reader.beginning(bytes) else {
            return false;
        };
        let client = self.clients.get(key as usize);
        let is_stranger = client.is_some_and(Client::must_log_in) && self.config.auth.is_some();
        let is_too_much = match self.config.compat {
            Compat::Redis if !is_stranger => None,
            Compat::Redis if beginning.args_total() > ARGS_MAX => {
                Some(ProtocolError::UnauthenticatedMultibulk)
            }
            Compat::Redis => beginning
                .has_arg_over(ARG_BYTES_MAX)
                .then_some(ProtocolError::UnauthenticatedBulk),
            Compat::Twemproxy => {
                let is_long = is_stranger && bytes.len() > ORIGINAL_BYTES_MAX;
                (is_long || beginning.is_closed_on()).then_some(ProtocolError::NotAnArray)
            }
        };
        if let Some(error) = is_too_much {
            self.refuse_protocol(key, error);
        }
        is_too_much.is_some()
    }

    fn log_in(&mut self, key: u32) {
        if let Some(client) = self.clients.get_mut(key as usize) {
            client.log_in();
        }
    }

    /// Whether these words are right; then the client is in. If they are not, it
    /// stays what it was.
    pub(super) fn try_login(&mut self, key: u32, name: Option<&[u8]>, password: &[u8]) -> bool {
        let is_let_in = match &self.config.auth {
            Some(wanted) => opens(wanted, name, password),
            // The default user needs none.
            None => name == Some(DEFAULT_USER),
        };
        if is_let_in {
            self.log_in(key);
        }
        is_let_in
    }

    /// AUTH where a password is set.
    pub(super) fn auth_by_password(&mut self, key: u32, args: &Request<'_>) -> Verdict {
        let is_let_in = match args.len() {
            2 => self.try_login(key, None, args.arg(1)),
            3 => self.try_login(key, Some(args.arg(1)), args.arg(2)),
            _ => return self.answer_error(key, &SYNTAX),
        };
        match is_let_in {
            true => self.answer(key, b"+OK\r\n"),
            false => self.answer_error(key, &WRONGPASS),
        }
    }

    /// The answer to HELLO without AUTH, before it.
    pub(super) fn hello_before_login(&mut self, key: u32) -> Option<Verdict> {
        let client = self.clients.get(key as usize)?;
        (client.must_log_in()).then(|| self.answer_error(key, &HELLO_NOAUTH))
    }
}

fn is_open(local: LocalCommand) -> bool {
    matches!(
        local,
        LocalCommand::Auth | LocalCommand::Hello | LocalCommand::Quit | LocalCommand::Reset
    )
}

fn too_much(request: &Request<'_>) -> Option<ProtocolError> {
    if request.inline {
        None // a line is short
    } else if request.args.len() > ARGS_MAX {
        Some(ProtocolError::UnauthenticatedMultibulk)
    } else {
        let is_long = |index| request.arg(index).len() > ARG_BYTES_MAX;
        (0..request.args.len())
            .any(is_long)
            .then_some(ProtocolError::UnauthenticatedBulk)
    }
}
