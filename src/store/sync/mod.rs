//! Replicas of this shard: a snapshot where they need one, then the log as their stream.
//! How this shard follows a master itself is in `replica/`.
//!
//! ```text
//! PSYNC <id> <offset>   the log has it --> +CONTINUE, stream from there
//!                       else ------------> Pending --> snapshot at the log's end
//!
//! executor: Replicas --- begins, looks, ends ---> one thread each: Feed over a Link
//!     log grows, wakes who sleeps                 reads the log by itself
//! ```
//! A thread has its own socket, poll and reader: a slow replica costs nobody else anything
//! but room for the log, which is bounded ([`HELD_LOG_BYTES_MAX`]).
//!
//! Invariants
//! - A snapshot holds exactly what the log says up to the offset that is told with it: it
//!   is taken between two turns, when all effects are in the log.
//! - Nothing but the log's own bytes is in a stream.
//! - Every thread is joined: when its replica goes, or by [`Replicas::stop`].

mod feed;
mod link;
pub mod replica;
mod resolving;
mod shared;
mod snapshot;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use feed::{Awaited, Feed, Full, Start};
use link::Link;
pub use link::Socket;
pub use resolving::resolve;
use shared::{Common, Phase, Shared};
use snapshot::Contents;
pub(in crate::store) use snapshot::{SETTINGS_FIELD, USERS_FIELD};

use crate::store::oplog::{Identity, Log, LogReader};
use crate::store::rows::{StoreError, Wake};
use crate::store::session::{ClientId, FollowRequest, Health, ReplicaFacts, Shard, Wish};

/// Most replicas at once: each is a thread.
pub const REPLICAS_MAX: usize = 128;
/// How much of the log is kept for replicas that are behind; beyond it they have to begin
/// anew. Files, not memory.
pub const HELD_LOG_BYTES_MAX: u64 = 16 << 30;

/// A client that is one no more: its socket, and what went with it.
#[derive(Debug)]
pub struct Newcomer {
    /// Taken out of the executor's poll.
    pub socket: Box<dyn Socket>,
    /// What it is owed from before.
    pub owed: Vec<u8>,
    /// What it sent after its request.
    pub input: Vec<u8>,
    /// What it asked for.
    pub request: FollowRequest,
}

/// All replicas. Owned by the executor.
#[derive(Debug)]
pub struct Replicas {
    common: Arc<Common>,
    all: Vec<Replica>,
    /// They wait for a turn at whose end a snapshot can be taken; since when.
    pending: Vec<(Newcomer, Instant)>,
    begun: u64,
}

#[derive(Debug)]
struct Replica {
    shared: Arc<Shared>,
    request: FollowRequest,
    /// Nothing once it was joined.
    thread: Option<JoinHandle<()>>,
}

impl Replicas {
    /// None yet. Snapshots that need a file have it in `dir`; `wake` brings the executor
    /// round to [`Replicas::look`].
    pub fn new(dir: PathBuf, wake: Wake, timeout: Duration) -> Self {
        let common = Common {
            dir,
            wake,
            has_news: AtomicBool::new(false),
            timeout_ms: AtomicU64::new(0),
        };
        common.set_timeout(timeout);
        Self {
            common: Arc::new(common),
            all: Vec::new(),
            pending: Vec::new(),
            begun: 0,
        }
    }

    /// How long a replica may say or take nothing.
    pub fn set_timeout(&self, timeout: Duration) {
        self.common.set_timeout(timeout);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// A client becomes a replica. All effects are in the log.
    pub fn join(&mut self, newcomer: Newcomer, log: &Log, shard: &mut Shard) {
        if self.all.len() + self.pending.len() >= REPLICAS_MAX {
            tracing::warn!(
                max = REPLICAS_MAX,
                "a replica is turned away: there are too many"
            );
            return;
        }
        if let Wish::Psync { replid, offset } = &newcomer.request.wish {
            if let Some(reader) = continued(log, replid, *offset) {
                shard.facts().syncs.1 += 1;
                let replid = text(&log.identity().replid);
                tracing::info!(
                    from = %newcomer.request.address,
                    offset = reader.offset(),
                    "a replica goes on with the stream"
                );
                return self.begin(newcomer, Start::Continue { replid }, reader);
            }
            if **replid != *b"?" {
                shard.facts().syncs.2 += 1;
            }
        }
        shard.facts().syncs.0 += 1;
        self.pending.push((newcomer, Instant::now()));
        self.begin_full_syncs(log, shard);
    }

    /// At the end of each turn: gives a snapshot to those who wait for one, if the log says
    /// all that is in the keyspace.
    pub fn begin_full_syncs(&mut self, log: &Log, shard: &mut Shard) {
        if self.pending.is_empty() {
            return;
        }
        let is_kept = shard.effects().bytes().is_empty() && log.is_poisoned().is_none();
        if !is_kept || *shard.health() != Health::Good {
            return;
        }
        for (newcomer, since) in std::mem::take(&mut self.pending) {
            self.begin_full_sync(newcomer, since, log, shard);
        }
    }

    fn begin_full_sync(
        &mut self,
        newcomer: Newcomer,
        since: Instant,
        log: &Log,
        shard: &mut Shard,
    ) {
        let offset = log.end();
        let contents = match newcomer.request.announced.is_without_keys {
            true => Ok(Contents::default()),
            false => Contents::of(shard.keyspace()),
        };
        let contents = match contents {
            Ok(contents) if newcomer.request.announced.takes_kept_texts => {
                contents.with_kept(shard.kept_texts())
            }
            Ok(contents) => contents,
            Err(error) => {
                tracing::error!(%error, "no snapshot for a replica: it is turned away");
                return;
            }
        };
        let snapshot = if newcomer.request.announced.is_without_keys {
            Awaited::Nothing
        } else {
            let mut ticket = shard.keyspace().snapshot_at(offset);
            match ticket.poll() {
                Ok(None) => Awaited::Ticket(ticket),
                Ok(Some(taken)) => Awaited::Taken(taken),
                // The applier has to come along first.
                Err(StoreError::Behind { .. }) => return self.pending.push((newcomer, since)),
                Err(error) => {
                    tracing::error!(%error, "no snapshot for a replica: it is turned away");
                    return;
                }
            }
        };
        let reader = match log.reader(offset) {
            Ok(reader) => reader,
            Err(error) => {
                tracing::error!(%error, "the log cannot be read for a replica");
                return;
            }
        };
        // A replica begins in the database that the snapshot names; those that know no such
        // field begin in the first one.
        shard.effects().forget_selected();
        tracing::info!(
            from = %newcomer.request.address,
            offset,
            "a replica begins with a snapshot"
        );
        let start = Start::Full(Box::new(Full {
            snapshot,
            contents,
            replid: text(&log.identity().replid),
            offset,
            selected_db: log.selected_db(),
            now_ms: shard.keyspace().now_ms(),
        }));
        self.begin(newcomer, start, reader);
    }

    fn begin(&mut self, newcomer: Newcomer, start: Start, reader: LogReader) {
        self.begun += 1;
        let Newcomer {
            socket,
            owed,
            input,
            request,
        } = newcomer;
        let acked = match start {
            Start::Continue { .. } => reader.offset(),
            Start::Full(_) => 0,
        };
        let is_only_snapshot = request.announced.is_rdb_only && matches!(start, Start::Full(_));
        let link = match Link::new(socket, input, acked, reader.offset(), &self.common) {
            Ok(link) => link,
            Err(error) => {
                tracing::error!(%error, "a replica's socket cannot be polled");
                return;
            }
        };
        let shared = link.shared();
        if is_only_snapshot {
            // The log behind it may go meanwhile.
            shared.set_needs_from(u64::MAX);
        }
        let feed = Feed {
            link,
            owed,
            request: request.clone(),
            start,
            reader,
        };
        let thread = std::thread::Builder::new()
            .name(format!("replica {}", self.begun))
            .spawn(move || feed.run());
        match thread {
            Ok(thread) => self.all.push(Replica {
                shared,
                request,
                thread: Some(thread),
            }),
            Err(error) => tracing::error!(%error, "no thread for a replica: it is turned away"),
        }
    }

    /// After each append: who waits for more is woken.
    pub fn log_grew(&self) {
        if self.all.is_empty() {
            return;
        }
        // A thread says that it sleeps, and then looks at the log's end once more; so it is
        // seen here, or it sees the end that was set before.
        fence(Ordering::SeqCst);
        for replica in &self.all {
            replica.shared.wake_if_asleep();
        }
    }

    /// The log from here on must stay for replicas that are behind; nothing to stay if the
    /// disk is needed more.
    pub fn needs_from(&self, log: &Log) -> Option<u64> {
        if log.needs_room() {
            return None;
        }
        let slowest = self.all.iter().map(|replica| replica.shared.needs_from());
        let oldest = log.end().saturating_sub(HELD_LOG_BYTES_MAX);
        slowest.min().map(|offset| offset.max(oldest))
    }

    /// Whether something was acknowledged, or somebody went, since this was last asked.
    pub fn has_news(&self) -> bool {
        self.common.has_news.swap(false, Ordering::AcqRel)
    }

    /// Joins threads that ended, and tells the shard of the others.
    pub fn look(&mut self, shard: &mut Shard) {
        for replica in &mut self.all {
            if replica.shared.has_ended() {
                replica.join();
            }
        }
        self.all.retain(|replica| replica.thread.is_some());
        // They have given up by then, and come back.
        let timeout = self.common.timeout();
        self.pending.retain(|(_, since)| since.elapsed() < timeout);
        let facts = self.all.iter().map(Replica::facts);
        let waiting = self.pending.iter().map(|(newcomer, _)| {
            facts_of(
                &newcomer.request,
                Phase::WaitsForSnapshot,
                0,
                Duration::ZERO,
            )
        });
        shard.facts().replicas = facts.chain(waiting).collect();
    }

    /// The history has another name from here on: all are cut off, so that they ask anew and
    /// learn it. Who follows the stream gets nothing more when this returns.
    pub fn cut_off(&mut self) {
        for replica in &self.all {
            replica.shared.cut();
        }
        for replica in &mut self.all {
            if replica.shared.progress().0 == Phase::Online {
                replica.join();
            }
        }
    }

    /// These are cut off: they ask anew.
    pub fn cut(&mut self, ids: &[ClientId]) {
        let is_meant = |request: &FollowRequest| ids.contains(&request.id);
        for replica in self.all.iter().filter(|of| is_meant(&of.request)) {
            replica.shared.cut();
        }
        self.pending
            .retain(|(newcomer, _)| !is_meant(&newcomer.request));
    }

    /// Ends all: those that follow get what the log has, for a while.
    pub fn stop(mut self) {
        self.pending.clear();
        for replica in &self.all {
            replica.shared.stop();
        }
        for replica in &mut self.all {
            replica.join();
        }
    }
}

impl Replica {
    fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(from = %self.request.address, "the thread of a replica panicked");
        }
    }

    fn facts(&self) -> ReplicaFacts {
        let (phase, acked, silence) = self.shared.progress();
        facts_of(&self.request, phase, acked, silence)
    }
}

fn facts_of(request: &FollowRequest, phase: Phase, acked: u64, silence: Duration) -> ReplicaFacts {
    let peer = request.address.rsplit_once(':').map_or("", |(ip, _)| ip);
    ReplicaFacts {
        id: request.id,
        address: request.address.clone(),
        local_address: request.local_address.clone(),
        connected_at_ms: request.connected_at_ms,
        user: request.user.clone(),
        ip: request
            .announced
            .ip
            .clone()
            .unwrap_or_else(|| peer.to_owned()),
        port: request.announced.port,
        state: phase.name(),
        offset: acked,
        lag_s: match phase {
            Phase::Online => silence.as_secs(),
            _ => 0,
        },
    }
}

/// A reader for who has the stream up to where `next_offset` (counted from 1) comes, if that
/// is our stream and we have the rest of it.
fn continued(log: &Log, replid: &[u8], next_offset: i64) -> Option<LogReader> {
    let offset = u64::try_from(next_offset.checked_sub(1)?).ok()?;
    let Identity {
        replid: own,
        replid2,
    } = log.identity();
    let is_former = replid2.is_some_and(|(id, end)| id == *replid && offset <= end);
    if own != *replid && !is_former {
        return None;
    }
    match log.reader(offset) {
        Ok(reader) => Some(reader),
        Err(error) => {
            tracing::info!(%error, "a replica cannot go on where it was");
            None
        }
    }
}

fn text(id: &[u8]) -> String {
    String::from_utf8_lossy(id).into_owned()
}
