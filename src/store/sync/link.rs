//! The connection to one replica, in its own thread: what is sent to it, and what it says.
//!
//! ```text
//! us       +FULLRESYNC, snapshot, the stream
//! replica  REPLCONF ACK <offset> [FACK <offset>], once a second; bare newlines while it loads
//! ```
//! All waits are on one poll: for the socket, and for the executor that has something to say.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::{Events, Interest, Poll, Token, Waker};

use super::shared::{Common, Phase, Shared};
use crate::resp::{RequestLimits, RequestScanner};
use crate::store::format::numbers;
use crate::store::oplog::{LogError, LogReader};
use crate::store::rows::StoreError;

const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);
/// Longest sleep: timeouts are looked at then.
pub(super) const TICK: Duration = Duration::from_millis(500);
/// How long a replica that follows may take what the log has when the shard stops.
const DRAIN: Duration = Duration::from_secs(1);
/// Under load, what a replica says is heard this often at least.
const HEAR_EVERY: Duration = Duration::from_millis(5);
const READ_BYTES: usize = 16 * 1024;

/// A replica says little.
const LIMITS: RequestLimits = RequestLimits {
    request_bytes_max: 64 * 1024,
    args_max: 16,
    inline_bytes_max: 1024,
    bulk_bytes_max: 16 * 1024,
    takes_inline: true,
};

/// What a replica is connected by.
pub trait Socket: Source + Read + Write + Send + std::fmt::Debug {}

impl<S: Source + Read + Write + Send + std::fmt::Debug> Socket for S {}

/// Why a replica is served no more.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkEnd {
    #[error("it closed the connection")]
    Closed,
    #[error("its connection failed: {0}")]
    Socket(io::Error),
    #[error("it sent what no replica sends: {0}")]
    Protocol(String),
    #[error("it took nothing for {0:?} (repl-timeout)")]
    Stuck(Duration),
    #[error("it said nothing for {0:?} (repl-timeout)")]
    Silent(Duration),
    #[error("the shard stops")]
    Stopped,
    #[error("the snapshot cannot be read: {0}")]
    Store(#[from] StoreError),
    #[error("the log cannot be read for it: {0}")]
    Log(#[from] LogError),
    #[error(
        "a snapshot cannot be kept in a file: {0}; make room, or let the replica take it diskless"
    )]
    Spool(io::Error),
}

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Link {
    socket: Box<dyn Socket>,
    poll: Poll,
    events: Events,
    is_readable: bool,
    is_writable: bool,
    input: Vec<u8>,
    scanner: RequestScanner,
    shared: Arc<Shared>,
    common: Arc<Common>,
    phase: Phase,
    /// It cannot have more than it was sent.
    sent_to: u64,
    has_acked: bool,
    heard_at: Instant,
    polled_at: Instant,
    stop_seen_at: Option<Instant>,
}

impl Link {
    /// Over a socket that nobody else polls, after which `input` came already.
    pub(super) fn new(
        mut socket: Box<dyn Socket>,
        input: Vec<u8>,
        acked: u64,
        needs_from: u64,
        common: &Arc<Common>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let on = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut *socket, SOCKET, on)?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        Ok(Self {
            socket,
            poll,
            events: Events::with_capacity(8),
            is_readable: true,
            is_writable: true,
            input,
            scanner: RequestScanner::new(LIMITS),
            shared: Arc::new(Shared::new(waker, acked, needs_from)),
            common: Arc::clone(common),
            phase: Phase::WaitsForSnapshot,
            sent_to: needs_from,
            has_acked: false,
            heard_at: Instant::now(),
            polled_at: Instant::now(),
            stop_seen_at: None,
        })
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    pub(super) fn common(&self) -> &Common {
        &self.common
    }

    /// What it acknowledged so far was something else.
    pub(super) fn forget_acks(&mut self) {
        self.has_acked = false;
    }

    /// Whether an acknowledgement came since.
    pub(super) fn has_acked(&self) -> bool {
        self.has_acked
    }

    pub(super) fn set_phase(&mut self, phase: Phase) {
        self.phase = phase;
        self.heard_at = Instant::now();
        self.shared.set_phase(phase);
        self.common.tell();
    }

    /// Sends all of it, and hears meanwhile what the replica says.
    pub(super) fn send(&mut self, mut bytes: &[u8]) -> Result<(), LinkEnd> {
        let mut moved_at = Instant::now();
        while !bytes.is_empty() {
            self.look_at_stop()?;
            if !self.is_writable {
                self.wait(TICK)?;
                let timeout = self.common.timeout();
                if moved_at.elapsed() > timeout {
                    return Err(LinkEnd::Stuck(timeout));
                }
                continue;
            }
            match self.socket.write(bytes) {
                Ok(0) => return Err(LinkEnd::Closed),
                Ok(written) => {
                    bytes = bytes.get(written..).unwrap_or(&[]);
                    moved_at = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_writable = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LinkEnd::Socket(error)),
            }
        }
        Ok(())
    }

    /// Says that what is sent from now on brings it up to `offset`.
    pub(super) fn note_stream(&mut self, offset: u64) {
        self.sent_to = offset;
        self.shared.set_needs_from(offset);
    }

    /// Waits for something to happen, and hears what the replica said.
    pub(super) fn wait(&mut self, longest: Duration) -> Result<(), LinkEnd> {
        let timeout = if self.is_readable {
            Duration::ZERO
        } else {
            longest
        };
        if let Err(error) = self.poll.poll(&mut self.events, Some(timeout))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(LinkEnd::Socket(error));
        }
        self.polled_at = Instant::now();
        for event in &self.events {
            if event.token() == SOCKET {
                self.is_writable |= event.is_writable() || event.is_write_closed();
                self.is_readable |=
                    event.is_readable() || event.is_read_closed() || event.is_error();
            }
        }
        if self.is_readable {
            self.hear()?;
        }
        self.look_at_stop()
    }

    /// As [`Link::wait`] without waiting, if that was not done a moment ago.
    pub(super) fn glance(&mut self) -> Result<(), LinkEnd> {
        match self.polled_at.elapsed() < HEAR_EVERY {
            true => Ok(()),
            false => self.wait(Duration::ZERO),
        }
    }

    /// Waits until the log has more than was read of it.
    pub(super) fn sleep(&mut self, reader: &LogReader) -> Result<(), LinkEnd> {
        self.shared.set_asleep(true);
        fence(Ordering::SeqCst);
        let slept = match reader.behind_bytes() {
            0 => self.wait(TICK),
            _ => Ok(()),
        };
        self.shared.set_asleep(false);
        slept
    }

    /// # Errors
    /// [`LinkEnd::Silent`] if nothing was acknowledged for too long.
    pub(super) fn check_silence(&self) -> Result<(), LinkEnd> {
        let timeout = self.common.timeout();
        match self.heard_at.elapsed() > timeout {
            true => Err(LinkEnd::Silent(timeout)),
            false => Ok(()),
        }
    }

    /// Whether the shard stops, and this link should when the log's end is sent.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop_seen_at.is_some()
    }

    fn look_at_stop(&mut self) -> Result<(), LinkEnd> {
        if !self.shared.is_to_stop() {
            return Ok(());
        }
        let since = *self.stop_seen_at.get_or_insert_with(Instant::now);
        let may_drain = self.phase == Phase::Online && !self.shared.is_cut();
        match may_drain && since.elapsed() < DRAIN {
            true => Ok(()),
            false => Err(LinkEnd::Stopped),
        }
    }

    fn hear(&mut self) -> Result<(), LinkEnd> {
        let mut bytes = [0; READ_BYTES];
        while self.is_readable {
            match self.socket.read(&mut bytes) {
                Ok(0) => return Err(LinkEnd::Closed),
                Ok(read) => self
                    .input
                    .extend_from_slice(bytes.get(..read).unwrap_or(&[])),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_readable = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LinkEnd::Socket(error)),
            }
            self.take_requests()?;
        }
        Ok(())
    }

    fn take_requests(&mut self) -> Result<(), LinkEnd> {
        let mut taken = 0;
        let mut acked = None;
        loop {
            let rest = self.input.get(taken..).unwrap_or(&[]);
            let scanned = self.scanner.scan(rest);
            let request = scanned.map_err(|error| LinkEnd::Protocol(error.to_string()))?;
            let Some(request) = request else { break };
            taken += request.consumed;
            let is = |at: usize, word: &[u8]| {
                request.len() > at && request.arg(at).eq_ignore_ascii_case(word)
            };
            if is(0, b"replconf") && is(1, b"ack") && request.len() > 2 {
                acked = numbers::parse_integer(request.arg(2)).or(acked);
                self.has_acked = true;
            }
        }
        if taken > 0 {
            self.input.drain(..taken);
            self.heard_at = Instant::now();
        }
        if let Some(offset) = acked {
            let offset = u64::try_from(offset).unwrap_or(0).min(self.sent_to);
            self.shared.acknowledge(offset);
            self.common.tell();
        }
        Ok(())
    }
}

/// Whatever ends the thread, the executor learns of it.
impl Drop for Link {
    fn drop(&mut self) {
        self.shared.end();
        self.common.tell();
    }
}
