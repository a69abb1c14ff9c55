//! A lane: one connection that carries everything one source has for one target.
//!
//! ```text
//!  source task --Batch--> queue (bytes, batches) --> window (bytes, ops) --> target
//!                                                       ^--- replies ----------'
//! ```
//!
//! Order is the point: operations reach the target in the order the source task
//! pushed them, so the operations of one key never overtake each other. The
//! window is what was taken from the queue and not answered. Replies are read
//! while requests are written, so that two full socket buffers cannot wait for
//! each other. The first error reply ends the lane and with it the job. A lane
//! with nothing to carry sends PINGs, so that its target does not close it as
//! idle, and so that a dead one is noticed before the switch.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use crate::planted::{self, Planted};
use crate::resp::{ReplyScanner, Value, parse_value};
use crate::restore::{Reply, Verdict};
use crate::router::address::ShardAddress;

use super::config::{IDLE_PING_MS, MoverLimits, TARGET_SILENCE_MS_MAX};
use super::error::{KeyAt, MoveError, is_passing};
use super::shortfall::{Short, Shortfall, ShortfallLog};

/// Read buffer growth step; a reply larger than this grows it as needed.
const READ_BYTES: usize = 64 * 1024;
/// How often silence is looked at, and broken where nothing is under way.
const LOOK_EVERY: Duration = Duration::from_millis(IDLE_PING_MS);
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// What was asked, in the order of the replies.
#[derive(Debug)]
pub(super) enum Op {
    /// SELECT of this database.
    Select(u32),
    /// One of the requests that recreate a key.
    Key {
        /// Database number.
        db: u32,
        /// The key.
        key: Bytes,
        /// How its reply is judged.
        reply: Reply,
        /// Whether it is the key's last one.
        last: bool,
    },
    /// A command of the live stream, or our part of one.
    Command {
        /// Database number.
        db: u32,
        /// The command's name.
        name: Bytes,
        /// Its first key that moves.
        key: Bytes,
    },
    /// FUNCTION ...: several sources say the same, so "already gone" is no error.
    Library(Bytes),
    /// Told when everything before it was answered; has no reply of its own.
    Barrier(mpsc::Sender<()>),
    /// PING of an idle lane; whatever is answered will do.
    Ping,
    /// Replies to hand back; an error reply among them is a value.
    Reads(Reads),
}

/// A run of reads whose replies somebody waits for.
#[derive(Debug)]
pub(super) struct Reads {
    /// Replies still to come.
    pub(super) left: usize,
    /// Those that came.
    pub(super) replies: Vec<Value>,
    /// Who waits for them.
    pub(super) done: oneshot::Sender<Vec<Value>>,
}

/// Encoded requests and what their replies mean.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) ops: Vec<Op>,
    /// Stream offset that is applied once all of it is answered.
    pub(super) offset: u64,
    /// Its share of the queue, given back when the lane takes it.
    pub(super) share: Option<OwnedSemaphorePermit>,
}

/// What a lane has confirmed, readable from outside.
#[derive(Debug, Default)]
pub(super) struct LaneMeter {
    batches_sent: AtomicU64,
    batches_done: AtomicU64,
    offset: AtomicU64,
    keys_acked: AtomicU64,
}

impl LaneMeter {
    /// One more batch is on its way to the lane.
    pub(super) fn sent(&self) {
        self.batches_sent.fetch_add(1, Ordering::AcqRel);
    }

    fn done(&self, offset: u64) {
        self.offset.store(offset, Ordering::Release);
        self.batches_done.fetch_add(1, Ordering::AcqRel);
    }

    /// The source begins anew: nothing of its old history counts.
    pub(super) fn restart(&self) {
        self.offset.store(0, Ordering::Release);
        self.keys_acked.store(0, Ordering::Relaxed);
    }

    pub(super) fn keys_acked(&self) -> u64 {
        self.keys_acked.load(Ordering::Relaxed)
    }

    /// The offset applied here, when everything up to `read` was handed to the lane.
    pub(super) fn applied_offset(&self, read: u64) -> u64 {
        let done = self.batches_done.load(Ordering::Acquire);
        if done == self.batches_sent.load(Ordering::Acquire) {
            return read;
        }
        self.offset.load(Ordering::Acquire).min(read)
    }
}

/// Whose lane it is.
#[derive(Debug, Clone)]
pub(super) struct LaneNames {
    pub(super) source: ShardAddress,
    pub(super) target: ShardAddress,
}

/// A batch that was taken and is not fully answered.
struct Flight {
    ops: std::vec::IntoIter<Op>,
    head: Option<Op>,
    bytes: usize,
    /// `None`: nobody sent it, so the meter does not count it.
    offset: Option<u64>,
}

/// The connection's two halves and what is under way on them.
pub(super) struct Lane<R, W> {
    names: LaneNames,
    reader: R,
    writer: W,
    limits: MoverLimits,
    meter: Arc<LaneMeter>,
    shortfalls: ShortfallLog,
    scanner: ReplyScanner,
    inbox: BytesMut,
    outbox: VecDeque<Bytes>,
    flights: VecDeque<Flight>,
    window_bytes: usize,
    window_ops: usize,
    heard: Instant,
}

/// What woke the lane.
enum Wake {
    Read(std::io::Result<usize>),
    Wrote(std::io::Result<usize>),
    Batch(Option<Batch>),
    Tick,
    Stop,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Lane<R, W> {
    pub(super) fn new(
        names: LaneNames,
        (reader, writer): (R, W),
        limits: MoverLimits,
        (meter, shortfalls): (Arc<LaneMeter>, ShortfallLog),
    ) -> Lane<R, W> {
        Lane {
            names,
            reader,
            writer,
            limits,
            meter,
            shortfalls,
            scanner: ReplyScanner::new(),
            inbox: BytesMut::with_capacity(READ_BYTES),
            outbox: VecDeque::new(),
            flights: VecDeque::new(),
            window_bytes: 0,
            window_ops: 0,
            heard: Instant::now(),
        }
    }

    /// Carries batches until told to stop or the source task is gone and all is answered.
    pub(super) async fn run(
        mut self,
        queue: &mut mpsc::Receiver<Batch>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), MoveError> {
        let mut tick =
            tokio::time::interval_at(tokio::time::Instant::now() + LOOK_EVERY, LOOK_EVERY);
        let mut open = true;
        while open || !self.flights.is_empty() {
            let takes = open && self.has_window();
            let wake = {
                let Lane {
                    reader,
                    writer,
                    inbox,
                    outbox,
                    ..
                } = &mut self;
                let out = outbox.front().map_or(&[][..], |bytes| &bytes[..]);
                inbox.reserve(READ_BYTES);
                tokio::select! {
                    read = reader.read_buf(inbox) => Wake::Read(read),
                    wrote = writer.write(out), if !out.is_empty() => Wake::Wrote(wrote),
                    batch = queue.recv(), if takes => Wake::Batch(batch),
                    _ = tick.tick() => Wake::Tick,
                    _ = stop.wait_for(|stop| *stop) => Wake::Stop,
                }
            };
            match wake {
                Wake::Read(read) => self.on_read(read)?,
                Wake::Wrote(wrote) => self.on_wrote(wrote)?,
                Wake::Batch(Some(batch)) => {
                    if planted::is_on(Planted::LanesReordered)
                        && let Ok(later) = queue.try_recv()
                    {
                        self.take(later);
                    }
                    self.take(batch);
                }
                Wake::Batch(None) => open = false,
                Wake::Tick if self.flights.is_empty() && open => self.ping(),
                Wake::Tick => self.check_silence()?,
                Wake::Stop => return Ok(()),
            }
        }
        Ok(())
    }

    fn ping(&mut self) {
        self.heard = Instant::now();
        self.window_ops += 1;
        self.outbox.push_back(Bytes::from_static(PING));
        self.flights.push_back(Flight {
            ops: vec![Op::Ping].into_iter(),
            head: None,
            bytes: 0,
            offset: None,
        });
    }

    fn has_window(&self) -> bool {
        self.window_bytes < self.limits.window_bytes && self.window_ops < self.limits.window_ops
    }

    fn take(&mut self, batch: Batch) {
        if self.flights.is_empty() {
            self.heard = Instant::now();
        }
        self.window_bytes += batch.bytes.len();
        self.window_ops += batch.ops.len();
        self.flights.push_back(Flight {
            bytes: batch.bytes.len(),
            offset: Some(batch.offset),
            ops: batch.ops.into_iter(),
            head: None,
        });
        if !batch.bytes.is_empty() {
            self.outbox.push_back(batch.bytes.into());
        }
        drop(batch.share);
        self.settle();
    }

    fn on_wrote(&mut self, wrote: std::io::Result<usize>) -> Result<(), MoveError> {
        let wrote = wrote.map_err(|error| self.lost(error.to_string()))?;
        if wrote == 0 {
            return Err(self.lost("it takes no more bytes".to_owned()));
        }
        if let Some(front) = self.outbox.front_mut() {
            front.advance(wrote.min(front.len()));
            if front.is_empty() {
                self.outbox.pop_front();
            }
        }
        Ok(())
    }

    fn on_read(&mut self, read: std::io::Result<usize>) -> Result<(), MoveError> {
        let read = read.map_err(|error| self.lost(error.to_string()))?;
        if read == 0 {
            return Err(self.lost("the target closed it".to_owned()));
        }
        self.heard = Instant::now();
        loop {
            let scanned = self.scanner.scan(&self.inbox);
            let reply = scanned.map_err(|error| self.lost(format!("not a reply: {error}")))?;
            let Some(reply) = reply else { return Ok(()) };
            let bytes = self.inbox.split_to(reply.len);
            self.on_reply(reply.kind, &bytes)?;
        }
    }

    /// One whole reply: it answers the oldest operation.
    fn on_reply(&mut self, kind: u8, bytes: &[u8]) -> Result<(), MoveError> {
        let Some(op) = self.next_op() else {
            return Err(self.lost("a reply that nothing asked for".to_owned()));
        };
        match op {
            Op::Reads(mut reads) => {
                let value = parse_value(bytes);
                reads
                    .replies
                    .push(value.map_err(|error| self.lost(error.to_string()))?);
                reads.left = reads.left.saturating_sub(1);
                if reads.left > 0 {
                    self.put_back(Op::Reads(reads));
                    return Ok(());
                }
                // Whoever asked may have given up: nothing is lost by that.
                let _ = reads.done.send(reads.replies);
            }
            Op::Key {
                db,
                key,
                reply,
                last,
            } => self.on_key_reply(db, &key, (reply, last), bytes)?,
            op if kind == b'-' || kind == b'!' => self.refused(&op, bytes)?,
            Op::Select(_) | Op::Command { .. } | Op::Library(_) | Op::Ping | Op::Barrier(_) => {}
        }
        self.window_ops -= 1;
        self.settle();
        Ok(())
    }

    fn on_key_reply(
        &mut self,
        db: u32,
        key: &Bytes,
        (reply, last): (Reply, bool),
        bytes: &[u8],
    ) -> Result<(), MoveError> {
        let short = match reply.judge(bytes) {
            Verdict::Done => None,
            Verdict::DoneBut(loss) => Some((Short::Loses, loss.to_string())),
            Verdict::Refused if is_beyond(bytes) => Some((Short::CannotHold, error_text(bytes))),
            Verdict::Exists => return Err(self.refusal(db, "RESTORE", key, BUSY_KEY.to_owned())),
            Verdict::Refused => {
                return Err(self.refusal(db, "RESTORE", key, error_text(bytes)));
            }
        };
        if let Some((short, what)) = short {
            self.fall_short(short, db, key, what);
        }
        if last {
            self.meter.keys_acked.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn fall_short(&self, short: Short, db: u32, key: &[u8], what: String) {
        self.shortfalls.add(Shortfall {
            short,
            source: self.names.source.clone(),
            target: self.names.target.clone(),
            db,
            key: key.to_vec(),
            what,
        });
    }

    fn next_op(&mut self) -> Option<Op> {
        let flight = self.flights.front_mut()?;
        flight.head.take().or_else(|| flight.ops.next())
    }

    fn put_back(&mut self, op: Op) {
        if let Some(flight) = self.flights.front_mut() {
            flight.head = Some(op);
        }
    }

    /// Passes barriers whose turn it is and retires batches that are answered.
    fn settle(&mut self) {
        let mut passed = Vec::new();
        while let Some(flight) = self.flights.front_mut() {
            let head = flight.head.take().or_else(|| flight.ops.next());
            match head {
                Some(Op::Barrier(barrier)) => {
                    self.window_ops -= 1;
                    passed.push(barrier);
                }
                Some(op) => {
                    flight.head = Some(op);
                    break;
                }
                None => {
                    self.window_bytes -= flight.bytes;
                    if let Some(offset) = flight.offset {
                        self.meter.done(offset);
                    }
                    self.flights.pop_front();
                }
            }
        }
        // Last, so that who is told finds the meter up to date.
        for barrier in passed {
            // Its channel has room for every lane; a waiter that left needs no word.
            let _ = barrier.try_send(());
        }
    }

    fn refused(&self, op: &Op, bytes: &[u8]) -> Result<(), MoveError> {
        let reply = error_text(bytes);
        let (db, command, key) = match op {
            Op::Library(_) if is_repeated(&reply) => return Ok(()),
            Op::Library(name) if !is_passing(&reply) => {
                self.fall_short(Short::CannotHold, 0, name, reply);
                return Ok(());
            }
            Op::Library(name) => (0, String::from("FUNCTION"), name.to_vec()),
            // It was sent before the key was known to be missing there.
            Op::Command { db, key, .. } if self.shortfalls.is_unheld(*db, key) => return Ok(()),
            Op::Select(db) => (*db, String::from("SELECT"), Vec::new()),
            Op::Command { db, name, key } => (
                *db,
                String::from_utf8_lossy(name).to_ascii_uppercase(),
                key.to_vec(),
            ),
            Op::Ping | Op::Barrier(_) | Op::Reads(_) | Op::Key { .. } => return Ok(()),
        };
        Err(self.refusal(db, &command, &key, reply))
    }

    fn refusal(&self, db: u32, command: &str, key: &[u8], reply: String) -> MoveError {
        let (key, server) = (key.to_vec(), self.names.target.clone());
        MoveError::TargetRefused {
            at: Box::new(KeyAt { db, key, server }),
            source_server: self.names.source.clone(),
            command: command.to_owned(),
            reply,
        }
    }

    fn check_silence(&self) -> Result<(), MoveError> {
        let silent = self.heard.elapsed();
        if self.flights.is_empty() || silent.as_millis() < u128::from(TARGET_SILENCE_MS_MAX) {
            return Ok(());
        }
        Err(self.lost(format!("no reply for {} s", silent.as_secs())))
    }

    fn lost(&self, what: String) -> MoveError {
        MoveError::LaneLost {
            target: self.names.target.clone(),
            source_server: self.names.source.clone(),
            what,
        }
    }
}

/// RESTORE's word for a key that exists; RENAMENX only says 0.
const BUSY_KEY: &str = "BUSYKEY Target key name already exists.";

/// What servers say to a value that they do not know how to read.
fn is_beyond(reply: &[u8]) -> bool {
    reply.starts_with(b"-ERR Bad data format")
        || reply.starts_with(b"-ERR DUMP payload version or checksum are wrong")
}

/// The words of an error reply.
fn error_text(bytes: &[u8]) -> String {
    let text = bytes.strip_prefix(b"-").unwrap_or(bytes);
    String::from_utf8_lossy(text.strip_suffix(b"\r\n").unwrap_or(text)).into_owned()
}

/// Function libraries are the same on all sources: the second to tell finds it done.
fn is_repeated(reply: &str) -> bool {
    reply.contains("Library not found") || reply.contains("already exists")
}

#[cfg(test)]
mod tests;
