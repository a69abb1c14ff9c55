//! A lane: carries everything one source has for one target, each batch once.
//!
//! ```text
//!  source task --Batch--> queue (bytes, batches) --> window (bytes, ops) --> target
//!                                                       ^--- replies ----------'
//!
//!  Up --link lost--> Down: dial with patience, read the checkpoint (`dial`)
//!   ^                  |   batches up to it are done, those behind it are sent again
//!   '------------------'   it is older than what was confirmed: the target lost data
//! ```
//!
//! Order is the point: operations reach the target in the order the source task
//! pushed them, so the operations of one key never overtake each other. The
//! window is what was taken from the queue and not answered; it is kept, to be
//! sent again. Replies are read while requests are written, so that two full
//! socket buffers cannot wait for each other. The first error reply ends the lane
//! and with it the job. A lane with nothing to carry sends PINGs, so that its
//! target does not close it as idle, and so that a dead one is noticed before the
//! switch.

mod batch;
mod dial;
mod flight;
mod judge;
mod meter;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use crate::planted::{self, Planted};
use crate::resp::ReplyScanner;
use crate::router::address::ShardAddress;
use crate::upstream::socket::{ReadHalf, WriteHalf};

use super::checkpoint::Checkpoint;
use super::config::{IDLE_PING_MS, MoverLimits, TARGET_SILENCE_MS_MAX};
use super::error::MoveError;
use super::link::Link;
use super::shortfall::ShortfallLog;

pub(super) use batch::{Batch, Carriage, Op, Reads};
pub(super) use dial::Dialer;
use flight::{Fault, Flight};
use judge::Judge;
pub(super) use meter::LaneMeter;

/// Read buffer growth step; a reply larger than this grows it as needed.
const READ_BYTES: usize = 64 * 1024;
/// How often silence is looked at, and broken where nothing is under way.
const LOOK_EVERY: Duration = Duration::from_millis(IDLE_PING_MS);
/// Connections that may break, one after the other, before one of them confirms a
/// batch: a batch that breaks each would be sent for ever.
const FRUITLESS_LINKS_MAX: u32 = 100;
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// Whose lane it is.
#[derive(Debug, Clone)]
pub(super) struct LaneNames {
    pub(super) source: ShardAddress,
    pub(super) target: ShardAddress,
}

/// Which batches a target can have applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    /// Of which copy.
    run: u64,
    /// The newest whose checkpoint was confirmed.
    confirmed: u64,
    /// The newest that was sent.
    sent: u64,
}

/// The connection and what is under way on it.
pub(super) struct Lane {
    dialer: Dialer,
    reader: ReadHalf,
    writer: WriteHalf,
    limits: MoverLimits,
    judge: Judge,
    scanner: ReplyScanner,
    inbox: BytesMut,
    outbox: VecDeque<Bytes>,
    flights: VecDeque<Flight>,
    window: Window,
    window_bytes: usize,
    window_ops: usize,
    /// Connections that broke, one after the other, before they confirmed a batch.
    fruitless: u32,
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

/// Why the lane does not go on as it is.
enum Trouble {
    /// The connection broke.
    Lost(String),
    /// The job is over.
    Job(MoveError),
}

impl From<MoveError> for Trouble {
    fn from(error: MoveError) -> Trouble {
        Trouble::Job(error)
    }
}

impl Lane {
    /// A lane over `link`, which owes no reply, to a target that has applied
    /// what `applied` says.
    pub(super) fn new(
        (names, dialer): (LaneNames, Dialer),
        link: Link,
        applied: &Checkpoint,
        limits: MoverLimits,
        (meter, shortfalls): (std::sync::Arc<LaneMeter>, ShortfallLog),
    ) -> Lane {
        let (reader, writer) = halves(link);
        Lane {
            dialer,
            reader,
            writer,
            limits,
            judge: Judge {
                names,
                meter,
                shortfalls,
            },
            scanner: ReplyScanner::new(),
            inbox: BytesMut::with_capacity(READ_BYTES),
            outbox: VecDeque::new(),
            flights: VecDeque::new(),
            window: Window {
                run: applied.lineage.run,
                confirmed: applied.sequence,
                sent: applied.sequence,
            },
            window_bytes: 0,
            window_ops: 0,
            fruitless: 0,
            heard: Instant::now(),
        }
    }

    /// Carries batches until told to stop or the source task is gone and all is answered.
    pub(super) async fn run(
        mut self,
        queue: &mut mpsc::Receiver<Batch>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), MoveError> {
        loop {
            let why = match self.carry(queue, &mut stop).await {
                Ok(()) => return Ok(()),
                Err(Trouble::Lost(why)) => why,
                Err(Trouble::Job(error)) => {
                    let is_last = tokio::select! {
                        biased;
                        _ = stop.wait_for(|stop| *stop) => false,
                        is_last = self.is_last(&error) => is_last,
                    };
                    return Err(if is_last { error } else { self.ahead(&error) });
                }
            };
            tracing::warn!(
                source = %self.judge.names.source, target = %self.judge.names.target, why,
                "the connection of a lane broke: dialing again"
            );
            let lost = self.lost(why);
            self.fruitless += 1;
            if self.fruitless > FRUITLESS_LINKS_MAX {
                return Err(lost);
            }
            let dialed = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                dialed = self.dialer.again(lost) => dialed?,
            };
            self.go_on(dialed)?;
        }
    }

    /// Carries batches over one connection.
    async fn carry(
        &mut self,
        queue: &mut mpsc::Receiver<Batch>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), Trouble> {
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
                } = &mut *self;
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

    /// Goes on over a new connection: what the target has applied is done, what it
    /// has not is sent again, in the same order.
    fn go_on(&mut self, (link, found): (Link, Option<Checkpoint>)) -> Result<(), MoveError> {
        let applied = self
            .window
            .applied(found.as_ref())
            .map_err(|why| self.forgot(why))?;
        let applied = match planted::is_on(Planted::BatchAppliedTwice) {
            true => self.window.confirmed,
            false => applied,
        };
        (self.reader, self.writer) = halves(link);
        self.scanner = ReplyScanner::new();
        self.inbox.clear();
        self.outbox.clear();
        self.heard = Instant::now();
        let mut again = 0;
        for flight in &mut self.flights {
            if let Some(bytes) = flight.renew(applied) {
                again += 1;
                self.outbox.push_back(bytes);
            }
        }
        tracing::info!(
            source = %self.judge.names.source, target = %self.judge.names.target, again,
            "a lane goes on over a new connection"
        );
        self.settle();
        Ok(())
    }

    /// Whether the target has applied nothing of what was sent behind a batch that it
    /// refused for now, whose checkpoint would tell of the refused one, too.
    async fn is_last(&self, error: &MoveError) -> bool {
        let mut unanswered = self.flights.iter();
        let refused = unanswered.find_map(|flight| flight.carriage.sequence());
        let (MoveError::TargetRefused { .. }, true, Some(refused)) =
            (error, error.keeps_checkpoints(), refused)
        else {
            return true;
        };
        let lost = self.lost("a request was refused".to_owned());
        match self.dialer.again(lost).await {
            Ok((_, Some(found))) => found.at.is_none() || found.sequence < refused,
            Ok((_, None)) | Err(_) => false,
        }
    }

    fn ping(&mut self) {
        self.heard = Instant::now();
        self.launch(Flight::ping(Bytes::from_static(PING)));
    }

    fn has_window(&self) -> bool {
        self.window_bytes < self.limits.window_bytes && self.window_ops < self.limits.window_ops
    }

    fn take(&mut self, batch: Batch) {
        if self.flights.is_empty() {
            self.heard = Instant::now();
        }
        if let Some(sequence) = batch.carriage.sequence() {
            self.window.sent = self.window.sent.max(sequence);
        }
        drop(batch.share);
        self.launch(Flight::new(Batch {
            share: None,
            ..batch
        }));
        self.settle();
    }

    fn launch(&mut self, flight: Flight) {
        self.window_bytes += flight.bytes.len();
        self.window_ops += flight.ops();
        if !flight.bytes.is_empty() {
            self.outbox.push_back(flight.bytes.clone());
        }
        self.flights.push_back(flight);
    }

    fn on_wrote(&mut self, wrote: std::io::Result<usize>) -> Result<(), Trouble> {
        let wrote = wrote.map_err(|error| Trouble::Lost(error.to_string()))?;
        if wrote == 0 {
            return Err(Trouble::Lost("it takes no more bytes".to_owned()));
        }
        if let Some(front) = self.outbox.front_mut() {
            front.advance(wrote.min(front.len()));
            if front.is_empty() {
                self.outbox.pop_front();
            }
        }
        Ok(())
    }

    fn on_read(&mut self, read: std::io::Result<usize>) -> Result<(), Trouble> {
        let read = read.map_err(|error| Trouble::Lost(error.to_string()))?;
        if read == 0 {
            return Err(Trouble::Lost("the target closed it".to_owned()));
        }
        self.heard = Instant::now();
        loop {
            let scanned = self.scanner.scan(&self.inbox);
            let reply = scanned.map_err(|error| self.lost(format!("not a reply: {error}")))?;
            let Some(reply) = reply else { return Ok(()) };
            let bytes = self.inbox.split_to(reply.len);
            self.on_reply(&bytes)?;
        }
    }

    /// One whole reply: it belongs to the oldest batch.
    fn on_reply(&mut self, bytes: &[u8]) -> Result<(), MoveError> {
        let Some(flight) = self.flights.front_mut() else {
            return Err(self.lost("a reply that nothing asked for".to_owned()));
        };
        match flight.on_reply(bytes, &self.judge) {
            Ok(()) => {}
            Err(Fault::Job(error)) => return Err(error),
            Err(Fault::Noise(error)) => return Err(self.lost(format!("not a reply: {error}"))),
            Err(Fault::Odd(what)) => return Err(self.lost(what.to_owned())),
        }
        self.settle();
        Ok(())
    }

    /// Passes barriers whose turn it is and retires batches that are answered.
    fn settle(&mut self) {
        let mut passed = Vec::new();
        while let Some(flight) = self.flights.front_mut() {
            if !flight.pass(&self.judge, &mut passed) {
                break;
            }
            self.window_bytes -= flight.bytes.len();
            self.window_ops -= flight.ops();
            if let Some(sequence) = flight.carriage.sequence() {
                self.window.confirmed = sequence;
                self.fruitless = 0;
            }
            if let Some(offset) = flight.offset {
                self.judge.meter.done(offset);
            }
            self.flights.pop_front();
        }
        // Last, so that who is told finds the meter up to date.
        for barrier in passed {
            // Its channel has room for every lane; a waiter that left needs no word.
            let _ = barrier.try_send(());
        }
    }

    fn check_silence(&self) -> Result<(), Trouble> {
        let silent = self.heard.elapsed();
        if self.flights.is_empty() || silent.as_millis() < u128::from(TARGET_SILENCE_MS_MAX) {
            return Ok(());
        }
        Err(Trouble::Lost(format!(
            "no reply for {} s",
            silent.as_secs()
        )))
    }

    fn lost(&self, what: String) -> MoveError {
        MoveError::LaneLost {
            target: self.judge.names.target.clone(),
            source_server: self.judge.names.source.clone(),
            what,
        }
    }

    fn ahead(&self, error: &MoveError) -> MoveError {
        MoveError::TargetAhead {
            target: self.judge.names.target.clone(),
            source_server: self.judge.names.source.clone(),
            why: error.to_string(),
        }
    }

    fn forgot(&self, what: String) -> MoveError {
        MoveError::TargetForgot {
            target: self.judge.names.target.clone(),
            source_server: self.judge.names.source.clone(),
            what,
        }
    }
}

impl Window {
    /// The newest batch that a target has applied which holds `found`.
    fn applied(&self, found: Option<&Checkpoint>) -> Result<u64, String> {
        let Some(found) = found else {
            return Err("its checkpoint is gone".to_owned());
        };
        if found.lineage.run != self.run {
            return Err("its checkpoint is that of another copy".to_owned());
        }
        let sequence = found.sequence;
        if sequence < self.confirmed {
            return Err(format!(
                "its checkpoint is at batch {sequence}, and batch {} was confirmed",
                self.confirmed
            ));
        }
        if sequence > self.sent {
            return Err(format!(
                "its checkpoint is at batch {sequence}, and no more than {} were sent",
                self.sent
            ));
        }
        Ok(sequence)
    }
}

/// The directions of a link that was asked some things and has answered them.
fn halves(link: Link) -> (ReadHalf, WriteHalf) {
    let (reader, writer) = link.into_halves();
    (reader.into_raw().0, writer.into_raw())
}

#[cfg(test)]
mod tests;
