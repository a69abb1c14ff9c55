//! One source: reads its tap and puts what concerns others into their lanes.
//!
//! ```text
//! Connecting --FullResync--> Snapshot --SnapshotEnd--> Draining --settled--> Following
//! ```
//!
//! Draining ends when all lanes have answered for the snapshot, the stream is
//! followed closely, and guarded expiry times are right (`guard`, `settle`).
//!
//! Batches go out when they are full, or when the tap has nothing more to say
//! at this moment. The stream that follows the snapshot queues behind it in
//! the same lanes; when a lane's queue is full the tap is not read on, and the
//! source keeps what it has for us in its output buffer.
//!
//! Invariants: for each key, what is in the lanes is in the order of the
//! source's history; an offset is acknowledged only after every lane was
//! answered for everything before it.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, Interval};

use crate::replication::{SnapshotRecord, StreamCommand, Tap, TapConfig, TapError, TapEvent};
use crate::resp::write_command;
use crate::router::address::ShardAddress;
use crate::router::commands::KeyArg;
use crate::upstream::config::UpstreamConfig;

use super::config::BULK_BYTES_MAX;
use super::error::{MoveError, Unfollowable};
use super::guard::Guard;
use super::lane::{LaneMeter, Op, Reads};
use super::marker::{Board, Expected, MARKER_CHANNEL};
use super::pace::Pace;
use super::placement::{Place, Placement, SourceIndex, TargetIndex};
use super::progress::{Phase, SourceRow, applied_offset};
use super::queue::LaneQueue;
use super::route::{Args, Part, Route, name_and_keys, route};
use super::snapshot::{Overwrite, Unsendable, write_restore};

/// How often offsets are acknowledged while nothing happens.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a source task is made of.
pub(super) struct SourceParts {
    pub(super) index: SourceIndex,
    pub(super) address: ShardAddress,
    pub(super) placement: Arc<Placement>,
    pub(super) queues: Vec<LaneQueue>,
    pub(super) meters: Vec<Arc<LaneMeter>>,
    pub(super) board: Board,
    /// The cut in force: what comes behind its marker has to wait.
    pub(super) cut: watch::Receiver<Option<u64>>,
    pub(super) row: Arc<SourceRow>,
    pub(super) pace: Arc<Pace>,
    pub(super) overwrite: Overwrite,
}

/// The task's state.
struct Source {
    parts: SourceParts,
    tap: Tap,
    look: Interval,
    phase: Phase,
    offset: u64,
    scanned: u64,
    sent: u64,
    commands: u64,
    bytes: u64,
    /// Barriers of the snapshot's end that are still to pass.
    draining: Option<(mpsc::Receiver<()>, usize)>,
    /// Told when they have.
    drained: Option<oneshot::Sender<()>>,
    guard: Guard,
    scratch: Vec<KeyArg>,
}

/// Taps the source until told to stop, then detaches.
pub(super) async fn follow(
    parts: SourceParts,
    upstream: UpstreamConfig,
    drained: oneshot::Sender<()>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), MoveError> {
    let attaching = Tap::attach(TapConfig::new(parts.address.clone(), upstream), None);
    let tap = tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
        tap = attaching => tap.map_err(|cause| tap_error(&parts.address, cause))?,
    };
    let mut source = Source {
        parts,
        tap,
        look: tokio::time::interval(LOOK_EVERY),
        phase: Phase::Connecting,
        offset: 0,
        scanned: 0,
        sent: 0,
        commands: 0,
        bytes: 0,
        draining: None,
        drained: Some(drained),
        guard: Guard::new(),
        scratch: Vec::new(),
    };
    let done = tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => Ok(()),
        done = source.follow() => done,
    };
    source.tap.close().await;
    done
}

fn tap_error(address: &ShardAddress, cause: TapError) -> MoveError {
    MoveError::Tap {
        source_server: address.clone(),
        cause: Arc::new(cause),
    }
}

impl Source {
    async fn follow(&mut self) -> Result<(), MoveError> {
        loop {
            let event = self.next_event().await?;
            self.on_event(event).await?;
        }
    }

    /// The next event; what was gathered goes out before we wait for it.
    async fn next_event(&mut self) -> Result<TapEvent, MoveError> {
        let mut next = ready_now(self.tap.next()).await;
        let event = loop {
            if let Some(event) = next {
                break event;
            }
            self.flush_all().await?;
            next = tokio::select! {
                event = self.tap.next() => Some(event),
                _ = self.look.tick() => None,
            };
        };
        event.map_err(|cause| tap_error(&self.parts.address, cause))
    }

    async fn on_event(&mut self, event: TapEvent) -> Result<(), MoveError> {
        match event {
            TapEvent::FullResync { offset, .. } => {
                self.offset = offset;
                self.phase = Phase::Snapshot;
            }
            TapEvent::Snapshot(record) => self.on_record(&record).await?,
            TapEvent::Function(code) => self.on_library(&code),
            TapEvent::SnapshotEnd => self.on_snapshot_end().await?,
            TapEvent::Command(command) => self.on_command(&command).await?,
            TapEvent::TransactionEnd { offset_end, .. } => self.offset = offset_end,
            TapEvent::Idle { offset, .. } => self.offset = offset,
            TapEvent::LargeKey(_) | TapEvent::Part { .. } => {
                return Err(MoveError::TaskLost {
                    task: format!("source {}", self.parts.address),
                    how: "a value came in parts, which was not asked for".to_owned(),
                });
            }
            // We never ask to continue, and carry no module data outside keys.
            TapEvent::Continue { .. }
            | TapEvent::TransactionBegin { .. }
            | TapEvent::Aux { .. }
            | TapEvent::ModuleAux(_) => {}
        }
        Ok(())
    }

    async fn on_record(&mut self, record: &SnapshotRecord) -> Result<(), MoveError> {
        self.scanned += 1;
        let place = self
            .parts
            .placement
            .place(self.parts.index, record.db, &record.key);
        let Place::Moves(target) = place else {
            return Ok(());
        };
        let overwrite = self.parts.overwrite;
        let ends = record.expires_at_ms.map(|at| {
            let guard = &mut self.guard;
            guard.snapshot_time(record.db, &record.key, target, at, unix_ms())
        });
        let queue = self.queue(target)?;
        queue.select(record.db);
        let encode = |out: &mut Vec<u8>| {
            write_restore(out, &record.key, ends, &record.raw_value(), overwrite)
        };
        let op = Op::Key {
            db: record.db,
            key: record.key.clone(),
        };
        let pushed = queue.push_with(encode, op);
        pushed.map_err(|why| self.unsendable(record, why))?;
        self.sent += 1;
        self.flush_if_full(target).await
    }

    async fn flush_if_full(&mut self, target: TargetIndex) -> Result<(), MoveError> {
        let (offset, snapshot) = (self.offset, self.phase == Phase::Snapshot);
        let queue = self.queue(target)?;
        if !queue.is_full() {
            return Ok(());
        }
        let bytes = queue.pending_bytes();
        if snapshot && let Some(start) = self.parts.pace.reserve(bytes, Instant::now()) {
            tokio::time::sleep_until(start).await;
        }
        self.bytes += bytes as u64;
        self.queue(target)?.flush(offset).await?;
        self.show();
        Ok(())
    }

    /// Libraries belong to no key: servers that are new get them all.
    fn on_library(&mut self, code: &[u8]) {
        let mut request = Vec::new();
        write_command(&mut request, &[b"FUNCTION", b"LOAD", b"REPLACE", code]);
        let name = Bytes::copy_from_slice(code.split(|byte| *byte == b'\n').next().unwrap_or(b""));
        self.push_to_new_servers(&request, &name);
    }

    fn push_to_new_servers(&mut self, request: &[u8], name: &Bytes) {
        let placement = &self.parts.placement;
        for queue in self
            .parts
            .queues
            .iter_mut()
            .filter(|queue| placement.is_new(queue.target))
        {
            queue.push(request, Op::Library(name.clone()));
        }
    }

    async fn on_snapshot_end(&mut self) -> Result<(), MoveError> {
        self.phase = Phase::Draining;
        let lanes = self.parts.queues.len();
        let (passed, draining) = mpsc::channel(lanes.max(1));
        self.barrier(&passed);
        self.draining = Some((draining, lanes));
        self.flush_all().await
    }

    fn barrier(&mut self, passed: &mpsc::Sender<()>) {
        for queue in &mut self.parts.queues {
            queue.push(&[], Op::Barrier(passed.clone()));
        }
    }

    async fn on_command(&mut self, command: &StreamCommand) -> Result<(), MoveError> {
        if command.name().eq_ignore_ascii_case(b"publish") && command.arg(1) == MARKER_CHANNEL {
            self.offset = command.offset_end;
            return self.on_marker(command.arg(2)).await;
        }
        let args = Args {
            bytes: &command.bytes,
            spans: &command.args,
        };
        let parts = &self.parts;
        let routed = route(
            &parts.placement,
            parts.index,
            command.db,
            args,
            &mut self.scratch,
        );
        match routed.map_err(|why| self.unfollowable(command, why))? {
            Route::Nowhere => {}
            Route::To { target, key } => {
                let op = command_op(command, key);
                let guarded = self.guard.rewrite(command.db, target, args, unix_ms);
                let queue = self.queue(target)?;
                queue.select(command.db);
                match guarded {
                    Some(args) => {
                        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                        queue.push_args(&args, op);
                    }
                    None => queue.push(&command.bytes, op),
                }
                self.commands += 1;
                self.flush_if_full(target).await?;
            }
            Route::Parts { name, parts } => {
                for part in &parts {
                    self.push_part(command, name, part).await?;
                }
                self.commands += 1;
            }
            Route::NewServers => self.on_library_command(command),
        }
        self.offset = command.offset_end;
        Ok(())
    }

    async fn push_part(
        &mut self,
        command: &StreamCommand,
        name: &'static [u8],
        part: &Part,
    ) -> Result<(), MoveError> {
        let mut args: Vec<&[u8]> = vec![name];
        args.extend(part.args.iter().map(|index| command.arg(*index)));
        let op = command_op(command, part.args.first().copied().unwrap_or_default());
        let queue = self.queue(part.target)?;
        queue.select(command.db);
        queue.push_args(&args, op);
        self.flush_if_full(part.target).await
    }

    /// Each source says the same: the second LOAD must not fail on the first.
    fn on_library_command(&mut self, command: &StreamCommand) {
        let mut args: Vec<&[u8]> = command.args().collect();
        let loads = args
            .get(1)
            .is_some_and(|word| word.eq_ignore_ascii_case(b"load"));
        if loads && args.len() == 3 {
            args.insert(2, b"REPLACE");
        }
        let mut request = Vec::new();
        write_command(&mut request, &args);
        let name = command.bytes.slice_ref(command.arg(1));
        self.push_to_new_servers(&request, &name);
    }

    async fn on_marker(&mut self, message: &[u8]) -> Result<(), MoveError> {
        let Some(expected) = self.parts.board.take(message) else {
            return Ok(());
        };
        match expected {
            Expected::Barrier(passed) => {
                self.barrier(&passed);
                // Our own word: a source without lanes has shown the marker, too.
                let _ = passed.try_send(());
            }
            Expected::Cut { number, passed } => {
                self.barrier(&passed);
                let _ = passed.try_send(());
                self.flush_all().await?;
                let mut cut = self.parts.cut.clone();
                // Ended by `uncut`, by the next cut, or with the mover.
                let _ = cut.wait_for(|cut| *cut != Some(number)).await;
            }
            Expected::Reads { db, reads } => {
                for read in reads {
                    let queue = self.queue(read.target)?;
                    queue.select(db);
                    let replies = Vec::with_capacity(read.count);
                    let reads = Reads {
                        left: read.count,
                        replies,
                        done: read.done,
                    };
                    queue.push(&read.bytes, Op::Reads(reads));
                }
            }
            Expected::Lift(lifted) => {
                let unguarded = self.guard.unguarded();
                if unguarded > 0 {
                    let source = &self.parts.address;
                    tracing::warn!(%source, unguarded, "keys that expire soon were too many to guard: those renewed while the copy lagged may be missing, which verify will tell");
                }
                // A settler that ended has its own reason.
                let _ = lifted.send(self.guard.lift());
            }
            Expected::Fixes { db, fixes } => {
                for fix in fixes.await.unwrap_or_default() {
                    let queue = self.queue(fix.target)?;
                    queue.select(db);
                    let (name, key) = (Bytes::from_static(fix.name), fix.key);
                    queue.push(&fix.request, Op::Command { db, name, key });
                }
            }
            Expected::Settled => self.phase = Phase::Following,
        }
        self.flush_all().await
    }

    /// Hands over everything, then says how far all lanes are.
    async fn flush_all(&mut self) -> Result<(), MoveError> {
        for queue in &mut self.parts.queues {
            self.bytes += queue.pending_bytes() as u64;
            queue.flush(self.offset).await?;
        }
        if let Some((passed, left)) = &mut self.draining {
            while *left > 0 && passed.try_recv().is_ok() {
                *left -= 1;
            }
            if *left == 0 {
                self.draining = None;
                // A settler that ended has its own reason.
                let _ = self.drained.take().map(|drained| drained.send(()));
            }
        }
        if self.phase >= Phase::Draining {
            self.tap
                .acknowledge(applied_offset(&self.parts.meters, self.offset));
        }
        self.show();
        Ok(())
    }

    fn show(&mut self) {
        let snapshot = self.tap.snapshot_progress();
        self.parts.row.update(|row| {
            row.phase = self.phase;
            row.keys_scanned = self.scanned;
            row.keys_sent = self.sent;
            row.bytes_sent = self.bytes;
            if let Some(snapshot) = snapshot {
                row.snapshot_bytes = snapshot.read_bytes;
                row.snapshot_bytes_total = snapshot.total_bytes;
            }
            row.commands_sent = self.commands;
            row.times_unguarded = self.guard.unguarded();
            row.offset_read = self.offset;
        });
    }

    fn queue(&mut self, target: TargetIndex) -> Result<&mut LaneQueue, MoveError> {
        let found = self
            .parts
            .queues
            .iter_mut()
            .find(|queue| queue.target == target);
        found.ok_or_else(|| MoveError::TaskLost {
            task: format!("source {}", self.parts.address),
            how: format!("it has no lane to target number {}", target.0),
        })
    }

    fn unsendable(&self, record: &SnapshotRecord, why: Unsendable) -> MoveError {
        let (source_server, db, key) = (self.parts.address.clone(), record.db, record.key.to_vec());
        match why {
            Unsendable::TooLarge(bytes) => MoveError::ValueTooLarge {
                source_server,
                db,
                key,
                bytes,
                max: BULK_BYTES_MAX,
            },
            Unsendable::NotRestorable(cause) => MoveError::NotRestorable {
                source_server,
                db,
                key,
                cause,
            },
        }
    }

    fn unfollowable(&self, command: &StreamCommand, why: Unfollowable) -> MoveError {
        let args = Args {
            bytes: &command.bytes,
            spans: &command.args,
        };
        MoveError::Unfollowable {
            source_server: self.parts.address.clone(),
            command: name_and_keys(args),
            offset: command.offset_end,
            why,
        }
    }
}

fn command_op(command: &StreamCommand, key: usize) -> Op {
    Op::Command {
        db: command.db,
        name: command.bytes.slice_ref(command.name()),
        key: command.bytes.slice_ref(command.arg(key)),
    }
}

/// The clock, for the guard of expiry times.
fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// The output of `work` if it is there without waiting. `work` is dropped
/// otherwise, so it must be cancel safe.
async fn ready_now<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    std::future::poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
