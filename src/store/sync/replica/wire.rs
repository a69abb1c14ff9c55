//! The socket to a master, waited for with the link's orders.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};

use super::link::Shared;
use crate::store::format::lines::take_line;

const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);
/// Longest line that is waited for whole.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// Read at once.
const READ_BYTES: usize = 64 * 1024;

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// The link is not wanted any more.
    #[error("the link was ended")]
    Stopped,
    /// The executor will have no more of it.
    #[error("{0}")]
    Refused(String),
    #[error("cannot connect to {at}: {cause}")]
    Dial { at: String, cause: io::Error },
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the master closed the connection")]
    Closed,
    #[error("the master said nothing for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the master refused {step}: {words}")]
    Answer { step: &'static str, words: String },
}

/// What wakes a link's thread.
pub(super) fn poll() -> io::Result<(Poll, Waker)> {
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), WAKER)?;
    Ok((poll, waker))
}

pub(super) struct Wire<'a> {
    poll: &'a mut Poll,
    events: Events,
    stream: TcpStream,
    shared: &'a Shared,
    /// Read, and not taken.
    input: Vec<u8>,
    output: Vec<u8>,
    /// A read may find something.
    is_readable: bool,
    is_writable: bool,
    pub(super) read_at: Instant,
    timeout: Duration,
    buffer: Box<[u8]>,
}

impl<'a> Wire<'a> {
    pub(super) fn dial(
        poll: &'a mut Poll,
        shared: &'a Shared,
        address: SocketAddr,
        dial_timeout: Duration,
        timeout: Duration,
    ) -> Result<Self, Ended> {
        let failed = |cause| Ended::Dial {
            at: address.to_string(),
            cause,
        };
        let mut stream = TcpStream::connect(address).map_err(failed)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, SOCKET, both)?;
        let mut wire = Self {
            poll,
            events: Events::with_capacity(16),
            stream,
            shared,
            input: Vec::new(),
            output: Vec::new(),
            is_readable: false,
            is_writable: false,
            read_at: Instant::now(),
            timeout,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
        };
        let until = Instant::now() + dial_timeout;
        loop {
            if let Some(cause) = wire.stream.take_error()? {
                return Err(failed(cause));
            }
            match wire.stream.peer_addr() {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                Err(cause) => return Err(failed(cause)),
            }
            if Instant::now() >= until {
                return Err(failed(io::ErrorKind::TimedOut.into()));
            }
            wire.wait(until)?;
        }
        // A master that is asked and does not answer at once is none the worse for it.
        let _ = wire.stream.set_nodelay(true);
        wire.is_writable = true;
        Ok(wire)
    }

    /// Waits until something may be done, or the time has come.
    pub(super) fn wait(&mut self, until: Instant) -> Result<(), Ended> {
        self.shared.check()?;
        let wait = until.saturating_duration_since(Instant::now());
        if let Err(error) = self.poll.poll(&mut self.events, Some(wait))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        for event in &self.events {
            if event.token() == SOCKET {
                self.is_readable |= event.is_readable() || event.is_read_closed();
                self.is_writable |= event.is_writable();
                if event.is_error() {
                    (self.is_readable, self.is_writable) = (true, true);
                }
            }
        }
        self.shared.check()
    }

    /// Sends, as far as the socket takes it; the rest with the next [`Wire::flush`].
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        self.output.extend_from_slice(bytes);
        self.flush()
    }

    pub(super) fn flush(&mut self) -> Result<(), Ended> {
        while self.is_writable && !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return Err(Ended::Closed),
                Ok(written) => drop(self.output.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_writable = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// What came, at most so many bytes as one read gives; nothing if nothing did.
    pub(super) fn read(&mut self) -> Result<Option<Vec<u8>>, Ended> {
        if !self.input.is_empty() {
            return Ok(Some(std::mem::take(&mut self.input)));
        }
        while self.is_readable {
            match self.stream.read(&mut self.buffer) {
                Ok(0) => return Err(Ended::Closed),
                Ok(read) => {
                    self.read_at = Instant::now();
                    return Ok(Some(self.buffer.get(..read).unwrap_or(&[]).to_vec()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_readable = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// A line that is not empty, without its end.
    pub(super) fn line(&mut self) -> Result<String, Ended> {
        loop {
            if let Some(line) = take_line(&mut self.input) {
                return Ok(line);
            }
            if self.input.len() > LINE_BYTES_MAX {
                return Err(Ended::Answer {
                    step: "the handshake",
                    words: "it answered with an endless line".to_owned(),
                });
            }
            let kept = std::mem::take(&mut self.input);
            let more = self.read()?;
            self.input = kept;
            match more {
                Some(more) => self.input.extend_from_slice(&more),
                None => self.wait_for_more()?,
            }
        }
    }

    fn wait_for_more(&mut self) -> Result<(), Ended> {
        let until = self.read_at + self.timeout;
        if Instant::now() >= until {
            return Err(Ended::Silent(self.timeout));
        }
        self.flush()?;
        self.wait(until)
    }
}
