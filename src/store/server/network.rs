//! The sockets of a shard: what turns and a script that runs for long both serve.
//!
//! Turns lock it for each thing they do with it, and never while they run requests: a script
//! among these serves the network itself, once it is slow ([`Beside`]).

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Interest, Poll, Token};

use crate::store::session::{Beside, Shard};

use super::sockets::{Connection, Listener};

pub(super) const WAKER: Token = Token(usize::MAX);
/// Listeners have the numbers below, clients those from 0 on.
pub(super) const LISTENERS_FROM: usize = usize::MAX - 1 - LISTENERS_MAX;
/// Places where one shard listens.
pub(super) const LISTENERS_MAX: usize = 16;
/// Read of one client at once.
const READ_BYTES: usize = 64 * 1024;
/// Events that are served at once while a script runs.
const BESIDE_EVENTS_MAX: usize = 64;

/// One client's connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) connection: Connection,
    /// It takes no more bytes now.
    is_full: bool,
    /// There may be more to read than was read.
    is_readable: bool,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Network {
    poll: Poll,
    listeners: Vec<Listener>,
    /// By the client's key.
    connections: Vec<Option<Peer>>,
    /// What is read goes through it.
    buffer: Box<[u8]>,
    /// Clients that turns have to look at again: a script that ran for long took their
    /// events.
    left: Vec<usize>,
}

/// What an event asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Nothing,
    Readable(usize),
    Writable(usize),
    Both(usize),
}

/// Nobody panics while it is locked but who ends the shard by it.
pub(super) fn lock(network: &Mutex<Network>) -> MutexGuard<'_, Network> {
    network.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Network {
    pub(super) fn new(poll: Poll, listeners: Vec<Listener>) -> Self {
        Self {
            poll,
            listeners,
            connections: Vec::new(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            left: Vec::new(),
        }
    }

    /// Takes the clients that are to be looked at again.
    pub(super) fn take_left(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.left)
    }

    pub(super) fn poll(&mut self, events: &mut Events, wait: Option<Duration>) -> io::Result<()> {
        self.poll.poll(events, wait)
    }

    /// Takes an event in: who came is let in, of the others it is noted what they can do.
    pub(super) fn hear(&mut self, event: &Event, shard: &mut Shard) -> Heard {
        let key = match event.token() {
            WAKER => return Heard::Nothing,
            Token(number @ LISTENERS_FROM..) => {
                self.accept(number - LISTENERS_FROM, shard);
                return Heard::Nothing;
            }
            Token(key) => key,
        };
        let Some(Some(peer)) = self.connections.get_mut(key) else {
            return Heard::Nothing;
        };
        let is_readable = event.is_readable() || event.is_read_closed() || event.is_error();
        if event.is_writable() {
            peer.is_full = false;
        }
        peer.is_readable |= is_readable;
        match (is_readable, event.is_writable()) {
            (true, true) => Heard::Both(key),
            (true, false) => Heard::Readable(key),
            (false, true) => Heard::Writable(key),
            (false, false) => Heard::Nothing,
        }
    }

    fn accept(&mut self, listener: usize, shard: &mut Shard) {
        while let Some(listener) = self.listeners.get(listener) {
            match listener.accept() {
                Ok((mut connection, from, to)) => {
                    let key = shard.client_came(from, to);
                    let on = Interest::READABLE | Interest::WRITABLE;
                    let registry = self.poll.registry();
                    if let Err(error) = registry.register(&mut connection, Token(key), on) {
                        tracing::warn!(%error, "a client's socket cannot be polled");
                        shard.client_gone(key);
                        continue;
                    }
                    if self.connections.len() <= key {
                        self.connections.resize_with(key + 1, || None);
                    }
                    self.connections[key] = Some(Peer {
                        connection,
                        is_full: false,
                        is_readable: false,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client");
                    return;
                }
            }
        }
    }

    /// Reads what came into the client's input. False if it is gone.
    pub(super) fn read(&mut self, key: usize, shard: &mut Shard) -> bool {
        let Some(Some(peer)) = self.connections.get_mut(key) else {
            return false;
        };
        if !peer.is_readable || !shard.may_read(key) {
            return true;
        }
        let Some(input) = shard.input_of(key) else {
            return false;
        };
        match peer.connection.read(&mut self.buffer) {
            Ok(0) => {
                self.close(key, shard);
                return false;
            }
            Ok(read) => {
                input.extend_from_slice(self.buffer.get(..read).unwrap_or(&[]));
                shard.note_traffic(read, 0);
                peer.is_readable = read == READ_BYTES;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => peer.is_readable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => {
                self.close(key, shard);
                return false;
            }
        }
        true
    }

    /// Whether there may be more of a client to be read.
    pub(super) fn has_more(&self, key: usize) -> bool {
        let peer = self.connections.get(key).and_then(Option::as_ref);
        peer.is_some_and(|peer| peer.is_readable)
    }

    /// Sends what a client is owed. True if it may have been stopped because it was owed too
    /// much, and is not now.
    pub(super) fn write(&mut self, key: usize, shard: &mut Shard) -> bool {
        let Some(Some(peer)) = self.connections.get_mut(key) else {
            return false;
        };
        let Some((output, closing)) = shard.output_of(key) else {
            return false;
        };
        let was_owed = !output.is_empty();
        let mut written = 0;
        while !peer.is_full && written < output.len() {
            match peer.connection.write(&output[written..]) {
                Ok(0) => {
                    self.close(key, shard);
                    return false;
                }
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => peer.is_full = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.close(key, shard);
                    return false;
                }
            }
        }
        output.drain(..written);
        let is_empty = output.is_empty();
        let is_readable = peer.is_readable;
        shard.note_traffic(0, written);
        if is_empty && closing.is_some() {
            self.close(key, shard);
            return false;
        }
        was_owed && is_empty && (is_readable || shard.has_input(key))
    }

    fn close(&mut self, key: usize, shard: &mut Shard) {
        drop(self.take(key));
        shard.client_gone(key);
    }

    /// Takes a client's connection out, polled no more.
    pub(super) fn take(&mut self, key: usize) -> Option<Connection> {
        let mut peer = self.connections.get_mut(key)?.take()?;
        // A socket that cannot be deregistered is closed by being dropped.
        let _ = self.poll.registry().deregister(&mut peer.connection);
        Some(peer.connection)
    }
}

/// The network as a script that runs for long serves it.
#[derive(Debug)]
pub(super) struct Aside {
    network: Arc<Mutex<Network>>,
    /// The shard is to end.
    stop: Arc<AtomicBool>,
    events: Events,
}

impl Aside {
    pub(super) fn new(network: Arc<Mutex<Network>>, stop: Arc<AtomicBool>) -> Self {
        Self {
            network,
            stop,
            events: Events::with_capacity(BESIDE_EVENTS_MAX),
        }
    }
}

impl Beside for Aside {
    fn look(&mut self, shard: &mut Shard) {
        if self.stop.load(Ordering::Acquire) {
            return shard.end_script();
        }
        let mut network = lock(&self.network);
        if let Err(error) = network.poll(&mut self.events, Some(Duration::ZERO)) {
            if error.kind() != io::ErrorKind::Interrupted {
                tracing::error!(%error, "the network cannot be served while a script runs");
            }
            return;
        }
        for event in &self.events {
            let heard = network.hear(event, shard);
            // What waits for the end of this turn is sent then.
            if let Heard::Writable(key) | Heard::Both(key) = heard
                && !shard.is_marked(key)
                && network.write(key, shard)
            {
                network.left.push(key);
            }
        }
        for key in 0..network.connections.len() {
            // Whose script runs is read when it has ended; it may be gone then.
            if network.has_more(key)
                && !shard.runs_script(key)
                && network.read(key, shard)
                && shard.answer_beside(key)
                && network.write(key, shard)
            {
                network.left.push(key);
            }
            if network.has_more(key) {
                network.left.push(key);
            }
        }
        network.left.sort_unstable();
        network.left.dedup();
    }
}
