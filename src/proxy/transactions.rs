//! MULTI .. EXEC, and WATCH.
//!
//! ```text
//!   client            proxy                                shard
//!   MULTI      <- OK
//!   SET a 1    <- QUEUED     kept
//!   INCR b     <- QUEUED     kept
//!   EXEC       ------------> MULTI | SET a 1 | INCR b | EXEC   in one piece
//!              <------------ the last reply; the others are dropped
//! ```
//!
//! A transaction belongs to the shard of its first key. It needs no connection
//! of its own: nothing can come between its requests on a shared one. WATCH
//! does, because a shard watches for a connection.
//!
//! Invariants
//! - Keys are routed again at EXEC: a transaction sees one layout.
//! - A transaction that watched goes to the connection that watches, or is
//!   answered by null, as if a watched key had changed: when that connection is
//!   gone, and when the layout changed since.

use std::sync::Arc;

use crate::metrics::latency::CommandClass;
use crate::resp::{Request, Span};
use crate::router::commands::{Command, Handling, KeyArg, LocalCommand, Refusal, SessionCommand};
use crate::router::errors::ErrorReply;
use crate::router::layout::{Layout, ShardIndex};

use super::client::Pause;
use super::core::{PartOf, PoolCore, Ticket};
use super::describe;
use super::dispatch::{Seat, Verdict};
use super::intake::is_http;
use super::merge::MergeKind;
use super::private_pipes::Role;
use super::reader::{Meant, Read};
use super::script_store::Sha;
use super::session::Session;

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

/// PUBLISH's, routed as if it were a key.
const CHANNEL: KeyArg = KeyArg {
    index: 1,
    writes: false,
    reads: false,
};

/// Requests since MULTI.
#[derive(Debug, Default)]
pub struct Transaction {
    /// One after the other.
    bytes: Vec<u8>,
    count: u32,
    /// Their keys, as spans of `bytes`.
    keys: Vec<Span>,
    /// Scripts that it calls by their names.
    scripts: Vec<Sha>,
    /// One of them was refused.
    failed: bool,
}

/// A connection that watches keys.
#[derive(Debug)]
pub struct Watch {
    /// `None`: it was lost.
    pub pipe: Option<u32>,
    shard: ShardIndex,
    key: Box<[u8]>,
    /// The layout that named the shard: another one, be it only by an ejection,
    /// may name another shard.
    layout: Arc<Layout>,
}

impl Transaction {
    /// Requests so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.iter().map(|key| key.of(&self.bytes))
    }

    fn add(&mut self, request: &Request<'_>, keys: impl Iterator<Item = usize>) {
        let shift = self.bytes.len() as u32;
        self.bytes.extend_from_slice(request.bytes);
        self.count += 1;
        let spans = keys.filter_map(|index| request.args.get(index));
        self.keys.extend(spans.map(|span| Span {
            start: span.start + shift,
            end: span.end + shift,
        }));
    }
}

/// What is kept in a transaction, and how its keys are found.
enum Kept {
    ByKeys,
    /// A channel is found as a key is.
    ByChannel,
    WithoutKeys,
    No(ErrorReply),
}

fn kept(command: &Command, handling: Handling) -> Kept {
    match handling {
        Handling::Forward | Handling::Split(_) | Handling::Session(SessionCommand::Block) => {
            Kept::ByKeys
        }
        Handling::Local(LocalCommand::Ping | LocalCommand::Echo | LocalCommand::Time) => {
            Kept::WithoutKeys
        }
        Handling::Session(SessionCommand::Publish) => Kept::ByChannel,
        Handling::Session(SessionCommand::Unwatch) => Kept::WithoutKeys,
        Handling::Unsupported(why) => Kept::No(ErrorReply::unsupported(command, why)),
        Handling::Everywhere(_) => Kept::No(ErrorReply::new(format!(
            "ERR command '{}' is not supported inside a transaction through this proxy: it asks \
             every shard",
            command.name.replace('|', " ")
        ))),
        Handling::Local(_) | Handling::Session(_) => Kept::No(ErrorReply::new(format!(
            "ERR command '{}' is not supported inside a transaction through this proxy: \
             it concerns the client's connection, not its shard's",
            command.name.replace('|', " ")
        ))),
    }
}

impl PoolCore {
    fn session_of(&mut self, key: u32) -> Option<&mut Session> {
        self.clients.get_mut(key as usize)?.session.as_deref_mut()
    }

    fn transaction_of(&mut self, key: u32) -> Option<&mut Transaction> {
        self.session_of(key)?.transaction.as_mut()
    }

    pub(super) fn multi(&mut self, seat: &mut Seat) -> Verdict {
        if let Some(client) = self.clients.get_mut(seat.key as usize) {
            client.session().transaction = Some(Transaction::default());
        }
        seat.stale = true;
        self.answer(seat.key, b"+OK\r\n")
    }

    /// Takes a request between MULTI and EXEC.
    pub(super) fn dispatch_in_transaction(&mut self, seat: &mut Seat, read: &Read<'_>) -> Verdict {
        let request = &read.request;
        let (command, handling) = match read.meant {
            Ok(Meant::Simple(simple)) => (simple.command, Handling::Forward),
            Ok(Meant::Other(command, handling)) => (command, handling),
            Ok(Meant::Original(accepted)) => {
                return self.dispatch_as_original(seat, accepted, request);
            }
            Err(_) if is_http(request.arg(0)) => return self.hang_up(seat.key),
            Err(refusal) => {
                let error = ErrorReply::refused(refusal, request);
                if matches!(refusal, Refusal::Arity(command) if command.name == "exec") {
                    self.end_transaction(seat.key);
                    return self.answer_error(seat.key, &error);
                }
                return self.fail_transaction(seat.key, &error);
            }
        };
        match handling {
            Handling::Session(SessionCommand::Exec) => self.exec(seat),
            Handling::Session(SessionCommand::Discard) => {
                self.end_transaction(seat.key);
                self.answer(seat.key, b"+OK\r\n")
            }
            // These two are refused, but do not spoil the transaction.
            Handling::Session(SessionCommand::Watch) => {
                let error = ErrorReply::new("ERR WATCH inside MULTI is not allowed");
                self.answer_error(seat.key, &error)
            }
            Handling::Session(SessionCommand::Multi) => {
                let error = ErrorReply::new("ERR MULTI calls can not be nested");
                self.answer_error(seat.key, &error)
            }
            Handling::Local(local @ (LocalCommand::Quit | LocalCommand::Reset)) => {
                self.answer_locally(seat.key, local, command, request)
            }
            handling => self.keep(seat.key, command, handling, request),
        }
    }

    /// Keeps a request until EXEC.
    fn keep(
        &mut self,
        key: u32,
        command: &Command,
        handling: Handling,
        request: &Request<'_>,
    ) -> Verdict {
        self.key_args.clear();
        match kept(command, handling) {
            Kept::ByKeys => {
                if let Err(error) = command.keys(request, &mut self.key_args) {
                    let error = ErrorReply::keys_of(command, request, error);
                    return self.fail_transaction(key, &error);
                }
            }
            Kept::ByChannel => self.key_args.push(CHANNEL),
            Kept::WithoutKeys => {}
            Kept::No(error) => return self.fail_transaction(key, &error),
        }
        let bytes_max = self.config.limits.request_bytes_max;
        let script = self.script_in_transaction(command, request);
        let key_args = std::mem::take(&mut self.key_args);
        let indices = key_args.iter().map(|arg| arg.index as usize);
        let is_too_large = self.transaction_of(key).is_some_and(|transaction| {
            if transaction.bytes.len() + request.bytes.len() > bytes_max {
                return true;
            }
            if !transaction.failed {
                transaction.add(request, indices);
                transaction.scripts.extend(script);
            }
            false
        });
        self.key_args = key_args;
        if is_too_large {
            let error = ErrorReply::new("ERR the transaction is larger than limits.max_request");
            return self.fail_transaction(key, &error);
        }
        self.answer(key, b"+QUEUED\r\n")
    }

    /// Refuses a request: EXEC will do nothing.
    fn fail_transaction(&mut self, key: u32, error: &ErrorReply) -> Verdict {
        if let Some(transaction) = self.transaction_of(key) {
            *transaction = Transaction {
                failed: true,
                ..Transaction::default()
            };
        }
        self.answer_error(key, error)
    }

    /// Forgets a transaction and what was watched for it.
    fn end_transaction(&mut self, key: u32) {
        if let Some(session) = self.session_of(key) {
            session.transaction = None;
        }
        self.end_watch(key);
    }

    fn exec(&mut self, seat: &mut Seat) -> Verdict {
        let key = seat.key;
        let layout = Arc::clone(&self.routing.layout);
        let Some(session) = self.session_of(key) else {
            return Verdict::End;
        };
        let Some(transaction) = session.transaction.take() else {
            return Verdict::End;
        };
        if transaction.failed {
            self.end_transaction(key);
            let text = "EXECABORT Transaction discarded because of previous errors.";
            return self.answer_error(key, &ErrorReply::new(text));
        }
        let watch = session
            .watch
            .as_ref()
            .map(|watch| (watch.pipe, Arc::ptr_eq(&watch.layout, &layout)));
        if let Some((pipe, is_same_layout)) = watch
            && (pipe.is_none() || !is_same_layout)
        {
            self.end_transaction(key);
            return self.answer_null(key);
        }
        match self.send_transaction(seat, &transaction) {
            Verdict::Wait(pause) => {
                // It is done again when the reason is gone.
                if let Some(client) = self.clients.get_mut(key as usize) {
                    client.session().transaction = Some(transaction);
                }
                Verdict::Wait(pause)
            }
            verdict => {
                self.end_transaction(key);
                verdict
            }
        }
    }

    fn answer_null(&mut self, key: u32) -> Verdict {
        let protocol = self.clients.get(key as usize).map_or(2, |c| c.protocol);
        self.answer_with(key, |_, out| describe::null_array(protocol, out))
    }

    fn send_transaction(&mut self, seat: &mut Seat, transaction: &Transaction) -> Verdict {
        let key = seat.key;
        let watch = self
            .clients
            .get(key as usize)
            .and_then(|client| client.session.as_ref()?.watch.as_ref());
        let watched = watch.map(|watch| (watch.shard, watch.pipe));
        let names = watch
            .iter()
            .map(|watch| &*watch.key)
            .chain(transaction.names());
        let shard = match self.one_shard(names) {
            Ok(shard) => shard,
            Err(apart) => return self.answer_apart(key, apart),
        };
        if transaction.count == 0 && watched.is_none() {
            return self.answer(key, b"*0\r\n");
        }
        let Some(pipe) = (match watched {
            Some((_, pipe)) => pipe,
            None => self.pipe_for(seat, shard.unwrap_or(ShardIndex(0))),
        }) else {
            return Verdict::End;
        };
        if let Some(stop) = self.not_now(key, pipe) {
            return stop;
        }
        self.send_in_one_piece(seat, pipe, transaction);
        if watched.is_some() {
            self.let_go_of_watch(key);
        }
        Verdict::Taken
    }

    fn send_in_one_piece(&mut self, seat: &Seat, pipe: u32, transaction: &Transaction) {
        for &script in &transaction.scripts {
            self.load_before(pipe, script);
        }
        let parts = transaction.count + 2;
        let owner = (seat.key, seat.generation);
        let merge = self
            .merges
            .begin(owner, MergeKind::Last, parts as usize, [].into_iter());
        let (Some(client), Some(place)) = (
            self.clients.get_mut(seat.key as usize),
            self.pipes.get_mut(pipe as usize),
        ) else {
            return;
        };
        let sequence = client.next_sequence();
        client.expect(1);
        let out = place.pipe.out_mut();
        for bytes in [MULTI, &transaction.bytes, EXEC] {
            out.extend_from_slice(bytes);
        }
        for part in 0..parts {
            let ticket = Ticket {
                client: seat.key,
                generation: seat.generation,
                sequence,
                class: CommandClass::Transaction,
                part: Some(PartOf { merge, part }),
            };
            place.pipe.expect(ticket, 1, self.now_us);
        }
        self.mark_pipe(pipe);
    }

    pub(super) fn watch(
        &mut self,
        seat: &mut Seat,
        command: &Command,
        request: &Request<'_>,
    ) -> Verdict {
        let key = seat.key;
        let shard = match self.shard_of(key, command, request) {
            Ok(shard) => shard,
            Err(verdict) => return verdict,
        };
        if self.is_owed(key) {
            return Verdict::Wait(Pause::Lane);
        }
        let layout = Arc::clone(&self.routing.layout);
        let known = self
            .session_of(key)
            .and_then(|session| session.watch.as_ref())
            .map(|watch| {
                let is_same_layout = Arc::ptr_eq(&watch.layout, &layout);
                (watch.pipe, watch.shard, is_same_layout, watch.key.clone())
            });
        let pipe = match known {
            // EXEC will be answered by null, whatever else is watched.
            Some((pipe, _, is_same_layout, _)) if pipe.is_none() || !is_same_layout => {
                return self.answer(key, b"+OK\r\n");
            }
            Some((Some(pipe), watched, _, _)) if watched == shard => pipe,
            Some((_, watched, _, name)) => {
                let layout = &self.routing.layout;
                let error = ErrorReply::cross_shard(
                    (&name, &layout.shard(watched).name),
                    (request.arg(1), &layout.shard(shard).name),
                );
                return self.answer_error(key, &error);
            }
            None => {
                let Some(shared) = self.pipe_for(seat, shard) else {
                    return Verdict::End;
                };
                let pipe = match self.session_pipe(key, shared) {
                    Ok(pipe) => pipe,
                    Err(verdict) => return verdict,
                };
                if let Some(place) = self.pipes.get_mut(pipe as usize) {
                    place.role = Role::Watching { client: key };
                }
                if let Some(client) = self.clients.get_mut(key as usize) {
                    client.session().watch = Some(Watch {
                        pipe: Some(pipe),
                        shard,
                        key: request.arg(1).into(),
                        layout,
                    });
                }
                pipe
            }
        };
        self.send_alone(seat, pipe, CommandClass::Transaction, request.bytes);
        Verdict::Taken
    }

    /// What the connection watches is over when it has answered: then others
    /// may use it.
    fn let_go_of_watch(&mut self, key: u32) {
        let Some(watch) = self
            .session_of(key)
            .and_then(|session| session.watch.take())
        else {
            return;
        };
        if let Some(place) = watch
            .pipe
            .and_then(|pipe| self.pipes.get_mut(pipe as usize))
        {
            place.role = Role::Private {
                client: key,
                arriving: false,
            };
        }
    }

    /// A WATCH watches nothing: EXEC will be answered by null.
    pub(super) fn lose_watch(&mut self, ticket: Ticket, pipe: u32) {
        let client = self.clients.get_mut(ticket.client as usize);
        let watch = client
            .filter(|client| client.generation == ticket.generation)
            .and_then(|client| client.session.as_mut()?.watch.as_mut());
        if let Some(watch) = watch
            && watch.pipe == Some(pipe)
        {
            watch.pipe = None; // else it was lost already, and the number is another's
            self.abandon(pipe);
        }
    }

    /// Stops watching: the connection is closed, which is the shortest way to say so.
    pub(super) fn end_watch(&mut self, key: u32) {
        let watch = self
            .session_of(key)
            .and_then(|session| session.watch.take());
        if let Some(pipe) = watch.and_then(|watch| watch.pipe) {
            self.abandon(pipe);
        }
    }
}
