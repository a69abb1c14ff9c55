//! EVALSHA on a shard that does not know the script, though the proxy does.
//!
//! ```text
//!   client                    one connection to the shard
//!   EVALSHA f .. 1 k   --->   SCRIPT LOAD text | EVALSHA f .. 1 k
//!                             (answer dropped)   (answer passed back)
//!   EVALSHA f .. 1 k   --->   EVALSHA f .. 1 k
//! ```
//!
//! The first EVALSHA of a script on a connection has the script's text sent
//! before it, on the same connection: nothing waits, nothing is sent twice, and
//! the order of requests is that of the pipeline. A shard that was restarted, or
//! is new in the layout, has new connections, on which nothing is loaded.
//!
//! The text is known ([`ScriptStore`]) when a client of the pool sent it by
//! SCRIPT LOAD or EVAL since the proxy started. When it is not, and when a shard
//! forgot its scripts behind the proxy's back, the client gets the shard's
//! NOSCRIPT. It will send the text then: an EVAL of a script that should be
//! loaded already says that it is not.
//!
//! Invariant: of one connection at most [`LOADED_MAX`] scripts are remembered.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::metrics::latency::CommandClass;
use crate::resp::{Request, write_command};
use crate::router::commands::Command;

use super::core::{PoolCore, Ticket};
use super::dispatch::{Seat, Verdict};
use super::script_store::{FlushUnderWay, SCRIPT_BYTES_MAX, ScriptStore, Sha};

/// Scripts that are remembered as loaded over one connection.
pub const LOADED_MAX: usize = 4096;
/// Texts that a worker need not look up in the store.
const LATEST_MAX: usize = 16;
/// Names without a text that a worker need not look up again.
const UNKNOWN_MAX: usize = 1024;
/// The client of a ticket that nobody waits for.
pub(super) const NOBODY: u32 = u32::MAX;

/// Scripts that were loaded over one connection.
#[derive(Debug, Default)]
pub struct Loaded {
    scripts: HashSet<Sha>,
    /// Of the store, when they were.
    flushes: u64,
}

impl Loaded {
    /// The connection is gone, or its shard did not load what it should.
    pub fn clear(&mut self) {
        self.scripts.clear();
    }

    fn has(&mut self, sha: &Sha, flushes: u64) -> bool {
        if self.flushes != flushes {
            self.flushes = flushes;
            self.scripts.clear();
        }
        self.scripts.contains(sha)
    }

    fn add(&mut self, sha: Sha) {
        if self.scripts.len() >= LOADED_MAX {
            self.scripts.clear();
        }
        self.scripts.insert(sha);
    }
}

/// What a worker knows of the scripts of a pool.
#[derive(Debug, Default)]
pub struct Scripts {
    store: Arc<ScriptStore>,
    /// Texts that are in the store.
    latest: VecDeque<(Sha, Arc<[u8]>)>,
    /// Losses of the store when they were.
    losses: u64,
    /// Names that are not in the store.
    unknown: HashSet<Sha>,
    /// Additions to the store when they were not.
    additions: u64,
}

impl Scripts {
    /// With what all workers share.
    pub fn of(store: Arc<ScriptStore>) -> Self {
        Self {
            store,
            ..Self::default()
        }
    }

    /// A client evaluates a text; its name, unless it is too long to be kept.
    fn evaluate(&mut self, text: &[u8]) -> Option<Sha> {
        let losses = self.store.losses();
        if self.losses != losses {
            self.losses = losses;
            self.latest.clear();
        }
        let known = self.latest.iter().find(|(_, known)| **known == *text);
        if let Some((sha, _)) = known {
            return Some(*sha);
        }
        if text.len() > SCRIPT_BYTES_MAX {
            return None;
        }
        let (sha, text) = (Sha::of(text), Arc::from(text));
        self.store.evaluate(sha, &text);
        self.latest.truncate(LATEST_MAX - 1);
        self.latest.push_front((sha, text));
        Some(sha)
    }

    fn load(&self, text: &[u8]) {
        if text.len() <= SCRIPT_BYTES_MAX {
            self.store.load(Sha::of(text), &Arc::from(text));
        }
    }

    fn text(&mut self, sha: &Sha) -> Option<Arc<[u8]>> {
        let additions = self.store.additions();
        if self.additions != additions {
            self.additions = additions;
            self.unknown.clear();
        }
        if self.unknown.contains(sha) {
            return None;
        }
        let text = self.store.text(sha);
        if text.is_none() && self.unknown.len() < UNKNOWN_MAX {
            self.unknown.insert(*sha);
        }
        text
    }
}

impl Ticket {
    /// Of a SCRIPT LOAD that no client sent.
    fn of_load(pipe: u32) -> Self {
        Self {
            client: NOBODY,
            generation: pipe,
            sequence: 0,
            class: CommandClass::Part,
            part: None,
        }
    }

    /// Whether no client waits for it: it is of a request of ours.
    pub(super) fn is_of_nobody(self) -> bool {
        self.client == NOBODY
    }

    /// The pipe on which a SCRIPT LOAD of ours may work another time: this is
    /// its answer, and it says that the shard could not do it now. (What is
    /// forbidden or wrong stays so.)
    #[cold]
    pub(super) fn failed_load(self, reply: &[u8]) -> Option<u32> {
        let is_lasting = |start: &&[u8]| reply.starts_with(start);
        let may_work_later =
            reply.first() == Some(&b'-') && ![&b"-ERR "[..], b"-NOPERM "].iter().any(is_lasting);
        (self.is_of_nobody() && self.sequence == 0 && may_work_later).then_some(self.generation)
    }
}

impl PoolCore {
    /// Sends a script or a function to the shard of its keys.
    pub(super) fn forward_script(
        &mut self,
        seat: &mut Seat,
        pipe: u32,
        command: &Command,
        request: &Request<'_>,
    ) -> Verdict {
        seat.stale = true;
        if let Some(stop) = self.not_now(seat.key, pipe) {
            return stop;
        }
        self.load_script_of(pipe, command, request);
        self.send(seat, pipe, CommandClass::Script, request.bytes, 1);
        Verdict::Taken
    }

    /// Sees to the script that a request calls, if it does, before it is sent.
    pub(super) fn load_script_of(&mut self, pipe: u32, command: &Command, request: &Request<'_>) {
        match command.name {
            "eval" | "eval_ro" => {
                let sha = self.scripts.evaluate(request.arg(1));
                if let (Some(sha), Some(place)) = (sha, self.pipes.get_mut(pipe as usize)) {
                    place.loaded.scripts.remove(&sha);
                }
            }
            "evalsha" | "evalsha_ro" => {
                if let Some(sha) = Sha::parse(request.arg(1)) {
                    self.load_before(pipe, sha);
                }
            }
            _ => {} // functions are loaded on all shards
        }
    }

    /// What a request of a transaction says about scripts: the one it calls.
    pub(super) fn script_in_transaction(
        &mut self,
        command: &Command,
        request: &Request<'_>,
    ) -> Option<Sha> {
        match command.name {
            "eval" | "eval_ro" => {
                self.scripts.evaluate(request.arg(1));
                None
            }
            "evalsha" | "evalsha_ro" => Sha::parse(request.arg(1)),
            _ => None,
        }
    }

    /// Sees to it that the shard knows a script when it reads what is sent next.
    pub(super) fn load_before(&mut self, pipe: u32, sha: Sha) {
        let flushes = self.scripts.store.flushes();
        let Some(place) = self.pipes.get_mut(pipe as usize) else {
            return;
        };
        if place.loaded.has(&sha, flushes) {
            return;
        }
        let Some(text) = self.scripts.text(&sha) else {
            return;
        };
        write_command(place.pipe.out_mut(), &[b"SCRIPT", b"LOAD", &text]);
        place.pipe.expect(Ticket::of_load(pipe), 1, self.now_us);
        place.loaded.add(sha);
        self.mark_pipe(pipe);
    }

    /// Connections on which a script could not be loaded begin anew.
    pub(super) fn forget_failed_loads(&mut self) {
        while let Some(pipe) = self.chores.failed_loads.pop() {
            if let Some(place) = self.pipes.get_mut(pipe as usize) {
                place.loaded.clear();
            }
        }
    }

    /// Takes note of a SCRIPT LOAD or SCRIPT FLUSH that goes to every shard.
    pub(super) fn note_script(&mut self, request: &Request<'_>) -> Option<FlushUnderWay> {
        let verb = request.arg(1);
        if verb.eq_ignore_ascii_case(b"LOAD") && request.len() == 3 {
            self.scripts.load(request.arg(2));
        }
        let how = request.arg(2);
        let is_flush = verb.eq_ignore_ascii_case(b"FLUSH")
            && (request.len() == 2
                || how.eq_ignore_ascii_case(b"SYNC")
                || how.eq_ignore_ascii_case(b"ASYNC"));
        is_flush.then(|| FlushUnderWay::begin(&self.scripts.store))
    }
}
