//! A worker's new sockets: connections dialled to shards, clients accepted
//! here or handed over by another worker.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

use tracing::{debug, warn};

use crate::router::address::ShardAddress;
use crate::upstream::pipe::PipeError;

use super::balance::Newcomer;
use super::config::Protocol;
use super::memcached::write_failure;
use super::place::Place;
use super::stream::{Stream, link_error};
use super::worker::Worker;

/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 256;

impl Worker {
    pub(super) fn dial(&mut self, pool_index: usize, key: u32) {
        self.needs_clock = true;
        let Some(pool) = self.pool(pool_index) else {
            return;
        };
        let keepalive = pool.config.upstream.tcp_keepalive;
        match pool.core.pipe_address(key).cloned() {
            None => {}
            Some(address @ (ShardAddress::Unix(_) | ShardAddress::Store(_))) => {
                let path = address.socket_path().unwrap_or_default();
                self.dialled(pool_index, key, Stream::dial_unix(&path));
            }
            Some(ShardAddress::Tcp { host, port }) => match host.parse::<IpAddr>() {
                Ok(ip) => {
                    let address = SocketAddr::new(ip, port);
                    self.dialled(pool_index, key, Stream::dial_tcp(address, keepalive));
                }
                Err(_) => self.resolver.resolve(pool_index, key, host, port),
            },
        }
    }

    /// The shards learn that nothing more comes on these; they may still answer.
    pub(super) fn shut_pipes(&mut self, pool_index: usize, keys: &[u32]) {
        for &key in keys {
            let Some(pool) = self.pool(pool_index) else {
                return;
            };
            if let Some(Some(stream)) = pool.pipes.get(key as usize)
                && let Err(error) = stream.shut()
            {
                pool.pipe_failed(key, link_error(&error));
            }
        }
    }

    /// A name was looked up for a pipe that is being dialled.
    pub(super) fn resolved(
        &mut self,
        pool_index: usize,
        key: u32,
        (host, port): (String, u16),
        found: Result<SocketAddr, String>,
    ) {
        let Some(pool) = self.pool(pool_index) else {
            return;
        };
        let asked = ShardAddress::Tcp { host, port };
        let is_awaited = pool.core.pipe_address(key) == Some(&asked)
            && pool.core.pipe_is_connecting(key)
            && pool.pipes.get(key as usize).is_none_or(Option::is_none);
        if !is_awaited {
            return; // it timed out, or the place has another pipe by now
        }
        let keepalive = pool.config.upstream.tcp_keepalive;
        match found {
            Ok(address) => self.dialled(pool_index, key, Stream::dial_tcp(address, keepalive)),
            Err(text) => pool.pipe_failed(key, PipeError::Unresolved(text)),
        }
    }

    fn dialled(&mut self, pool_index: usize, key: u32, stream: io::Result<Stream>) {
        let token = Place::Pipe {
            pool: pool_index,
            key,
        }
        .token();
        let registered = stream.and_then(|mut stream| {
            stream.register(self.poll.registry(), token)?;
            Ok(stream)
        });
        let Some(pool) = self.pool(pool_index) else {
            return;
        };
        match registered {
            Ok(stream) => put(&mut pool.pipes, key, stream),
            Err(error) => pool.pipe_failed(key, link_error(&error)),
        }
    }

    pub(super) fn accept_waiting(&mut self) {
        for (pool_index, index) in std::mem::take(&mut self.accept) {
            for accepted in 0.. {
                if accepted == ACCEPTS_PER_TURN {
                    self.accept.push((pool_index, index));
                    break;
                }
                let Some(pool) = self.pool(pool_index) else {
                    break;
                };
                let Some(Some((_, listener))) = pool.listeners.get(index as usize) else {
                    break;
                };
                let found = listener.accept();
                self.calls.accepts.inc();
                match found {
                    Ok((stream, peer)) => self.admit(pool_index, stream, peer),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        warn!(worker = self.index, %error, "accepting a client failed");
                        self.accept_later.push((pool_index, index));
                        self.needs_clock = true;
                        break;
                    }
                }
            }
        }
    }

    /// Finds the worker that shall serve a client.
    fn admit(&mut self, pool_index: usize, mut stream: Stream, peer: Box<str>) {
        let own = self.index;
        let Some(pool) = self.pool(pool_index) else {
            return;
        };
        let Some(seat) = pool.balance.take_seat(own) else {
            debug!(%peer, "refused: max_clients reached");
            return refuse_full(pool.config.protocol, &mut stream);
        };
        // The seat is counted already.
        let is_full = |max| pool.balance.clients() > max;
        if pool.config.limits.clients_max.is_some_and(is_full) {
            debug!(%peer, "refused: the pool's max_clients reached");
            return refuse_full(pool.config.protocol, &mut stream);
        }
        let is_own = seat.worker() == own;
        let newcomer = Newcomer { stream, peer, seat };
        if is_own {
            self.settle_in(pool_index, newcomer);
        } else if let Some(newcomer) = newcomer.hand_over(pool_index, own) {
            self.settle_in(pool_index, newcomer);
        } else if let Some(pool) = self.pool(pool_index) {
            pool.core.counters.clients_handed_over.inc();
        }
    }

    /// Serves those that other workers accepted. Where the pool ends they are
    /// closed, as every quiet client is.
    pub(super) fn adopt_waiting(&mut self) {
        for (pool_index, newcomer) in std::mem::take(&mut self.adopt) {
            let is_open = self.pool(pool_index).is_some_and(|pool| !pool.removed);
            if is_open && !self.stopping {
                self.settle_in(pool_index, newcomer);
            }
        }
    }

    fn settle_in(&mut self, pool_index: usize, newcomer: Newcomer) {
        let Newcomer {
            mut stream,
            peer,
            seat,
        } = newcomer;
        let Some(Some(pool)) = self.pools.get_mut(pool_index) else {
            return;
        };
        let key = pool.core.accept(Some(peer));
        let token = Place::Client {
            pool: pool_index,
            key,
        }
        .token();
        match stream.register(self.poll.registry(), token) {
            Ok(()) => {
                put(&mut pool.clients, key, stream);
                put(&mut pool.seats, key, seat);
            }
            Err(error) => {
                warn!(worker = self.index, %error, "registering a client failed");
                pool.core.client_gone(key);
            }
        }
    }
}

fn refuse_full(protocol: Protocol, stream: &mut Stream) {
    let mut reply = Vec::new();
    write_failure(protocol, &mut reply, "ERR max number of clients reached");
    // A fresh socket takes these few bytes; if not, closing says enough.
    let _ = stream.write(&reply);
}

fn put<T>(table: &mut Vec<Option<T>>, key: u32, value: T) {
    let index = key as usize;
    if table.len() <= index {
        table.resize_with(index + 1, || None);
    }
    if let Some(place) = table.get_mut(index) {
        *place = Some(value);
    }
}
