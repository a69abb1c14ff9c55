//! What the control side, or another worker, tells a worker, and how it obeys.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry as PollRegistry, Token};
use socket2::SockRef;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::metrics::registry::Registry;
use crate::reuseport::address::ListenAddress;
use crate::reuseport::listener::Listener as BoundListener;
use crate::router::address::ShardAddress;
use crate::router::epoch::Routing;
use crate::upstream::pipe::PipeError;

use super::audience::Audience;
use super::balance::{Balance, Newcomer, Seat};
use super::config::PoolConfig;
use super::core::{PoolCore, Ticket};
use super::failures::Failing;
use super::gate::{Drained, HoldReport};
use super::place::Place;
use super::roll_call::RollAsked;
use super::script_store::ScriptStore;
use super::shard_logins::{Logins, LoginsConfirmed};
use super::stream::Stream;
use super::worker::Worker;

/// A bound socket with its address as the config has it.
pub type NamedListener = (ListenAddress, BoundListener);

/// What the workers of one pool know together.
#[derive(Debug, Clone, Default)]
pub struct SharedByWorkers {
    /// Texts of scripts.
    pub scripts: Arc<ScriptStore>,
    /// Who listens to channels.
    pub audience: Arc<Audience>,
}

/// One order; those with an answer are answered in the turn that takes them,
/// except `Hold`, which is answered when the worker is drained.
pub enum Order {
    /// A new pool at place `pool`, with this worker's listeners.
    AddPool {
        /// Its place, the same in every worker.
        pool: usize,
        /// Its settings.
        config: Arc<PoolConfig>,
        /// Its layout and gate.
        routing: Arc<Routing>,
        /// Where the counters go.
        registry: Arc<Registry>,
        /// Who serves how many of its clients.
        balance: Arc<Balance>,
        /// Where to say which shards fail.
        failing: mpsc::Sender<Failing>,
        /// Where to say which servers refuse its epoch's user.
        refusing: mpsc::Sender<ShardAddress>,
        /// What else its workers share.
        shared: SharedByWorkers,
        /// As whom to log in.
        logins: Arc<Logins>,
        /// This worker's sockets.
        listeners: Vec<NamedListener>,
    },
    /// Other settings than the layout changed.
    Configure {
        /// Which pool.
        pool: usize,
        /// Its settings from now on.
        config: Arc<PoolConfig>,
        /// This worker's sockets of addresses that are new.
        listen: Vec<NamedListener>,
        /// Addresses to leave.
        leave: Vec<ListenAddress>,
    },
    /// The pool left the config: its clients get what they are owed, then close.
    RemovePool {
        /// Which pool.
        pool: usize,
    },
    /// Connect to the shards of a layout that may come.
    Prepare {
        /// Which pool.
        pool: usize,
        /// The layout, as it will be.
        routing: Arc<Routing>,
        /// As whom to log in from now on, also at its new servers.
        logins: Arc<Logins>,
    },
    /// Shut the gate.
    Hold {
        /// Which pool.
        pool: usize,
        /// The same layout with the gate held.
        routing: Arc<Routing>,
        /// As whom to log in from now on.
        logins: Arc<Logins>,
        /// Told when everything sent before is answered.
        done: Drained,
    },
    /// Route by this from now on.
    Route {
        /// Which pool.
        pool: usize,
        /// The routing.
        routing: Arc<Routing>,
        /// As whom to log in from now on.
        logins: Arc<Logins>,
        /// What was held until now.
        done: oneshot::Sender<HoldReport>,
    },
    /// Log in as these from now on.
    LogIn {
        /// Which pool.
        pool: usize,
        /// By server.
        logins: Arc<Logins>,
        /// Told when every connection has.
        done: LoginsConfirmed,
    },
    /// A server does not refuse the pool's epoch, and knows no later route.
    NotFenced {
        /// Which pool.
        pool: usize,
        /// The server.
        address: ShardAddress,
    },
    /// A name was looked up.
    Resolved {
        /// Which pool.
        pool: usize,
        /// The pipe that waits for it.
        key: u32,
        /// What was looked up.
        asked: (String, u16),
        /// An address, or why there is none.
        found: Result<SocketAddr, String>,
    },
    /// Serve a client that another worker accepted.
    Adopt {
        /// Which pool.
        pool: usize,
        /// The client.
        newcomer: Newcomer,
    },
    /// A client of another worker asks for, or ends, clients of this one.
    RollCall {
        /// Which pool.
        pool: usize,
        /// What is asked, and by whom.
        asked: Box<RollAsked>,
    },
    /// What another worker says to that.
    RollAnswer {
        /// Which pool.
        pool: usize,
        /// The request it answers a part of.
        ticket: Ticket,
        /// The part.
        part: Vec<u8>,
    },
    /// Accept nobody, answer what is owed, close, end.
    Stop,
    /// End now.
    Abandon,
}

/// One pool in one worker.
pub struct PoolRun {
    /// Its settings.
    pub config: Arc<PoolConfig>,
    /// Its protocol core.
    pub core: PoolCore,
    /// Sockets of clients, by place in the core's table.
    pub clients: Vec<Option<Stream>>,
    /// What the clients count for, by the same places.
    pub seats: Vec<Option<Seat>>,
    /// Who serves how many clients of the pool.
    pub balance: Arc<Balance>,
    /// Where to say which shards fail.
    pub failing: mpsc::Sender<Failing>,
    /// Where to say which servers refuse the epoch's user.
    pub refusing: mpsc::Sender<ShardAddress>,
    /// Sockets of pipes, by place in the core's table.
    pub pipes: Vec<Option<Stream>>,
    /// Its listening sockets, with their addresses as the config has them; a
    /// place that was left is `None`.
    pub listeners: Vec<Option<(ListenAddress, Listener)>>,
    /// It left the config; it ends with its last client.
    pub removed: bool,
}

impl PoolRun {
    /// The socket goes at once: later events of the same turn must not find it
    /// in the place of the next connection.
    pub fn pipe_failed(&mut self, key: u32, error: PipeError) {
        if let Some(place) = self.pipes.get_mut(key as usize) {
            *place = None;
        }
        self.core.pipe_failed(key, error);
    }

    /// Closes the sockets of pipes that the core gave up: bytes that came on them
    /// meanwhile must not be taken for replies.
    fn close_failed_pipes(&mut self) {
        for &key in &self.core.chores.close_pipes {
            if let Some(place) = self.pipes.get_mut(key as usize) {
                *place = None;
            }
        }
    }

    /// Tells the control side which shards fail. What finds no room there is told
    /// again at the shard's next failure.
    pub fn tell_failing(&mut self, failing: &mut Vec<Failing>) {
        for shard in failing.drain(..) {
            let _ = self.failing.try_send(shard);
        }
    }

    /// The same of servers that refuse requests.
    pub fn tell_refusing(&mut self, refusing: &mut Vec<ShardAddress>) {
        for server in refusing.drain(..) {
            let _ = self.refusing.try_send(server);
        }
    }

    /// Closes a client's socket, then gives its seat back.
    pub fn close_client(&mut self, key: u32) {
        if let Some(place) = self.clients.get_mut(key as usize) {
            *place = None;
        }
        if let Some(place) = self.seats.get_mut(key as usize) {
            *place = None;
        }
    }
}

/// A listening socket registered with the worker's poll.
pub enum Listener {
    /// `IP:PORT`.
    Tcp(TcpListener),
    /// `unix:/path`.
    Unix(UnixListener),
}

impl Listener {
    fn register(bound: BoundListener, registry: &PollRegistry, token: Token) -> io::Result<Self> {
        match bound {
            BoundListener::Tcp(socket) => {
                let mut listener = TcpListener::from_std(socket);
                listener.register(registry, token, Interest::READABLE)?;
                Ok(Self::Tcp(listener))
            }
            BoundListener::Unix(socket) => {
                let mut listener = UnixListener::from_std(socket);
                listener.register(registry, token, Interest::READABLE)?;
                Ok(Self::Unix(listener))
            }
        }
    }

    /// One waiting client, with its address as text.
    pub fn accept(&self) -> io::Result<(Stream, Box<str>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                stream.set_nodelay(true)?;
                // A peer that vanished is found out in time, not never.
                SockRef::from(&stream).set_keepalive(true)?;
                Ok((stream.into(), peer.to_string().into()))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                Ok((stream.into(), "unix".into()))
            }
        }
    }
}

impl Worker {
    pub(super) fn obey(&mut self, order: Order) {
        match order {
            Order::AddPool {
                pool,
                config,
                routing,
                registry,
                balance,
                failing,
                refusing,
                shared,
                logins,
                listeners,
            } => {
                let mut core = PoolCore::new(
                    Arc::clone(&config),
                    routing,
                    registry,
                    self.index as u64,
                    self.workers as u64,
                );
                core.share(&shared);
                core.use_logins(&logins);
                if self.pools.len() <= pool {
                    self.pools.resize_with(pool + 1, || None);
                }
                let run = PoolRun {
                    config,
                    core,
                    clients: Vec::new(),
                    seats: Vec::new(),
                    balance,
                    failing,
                    refusing,
                    pipes: Vec::new(),
                    listeners: Vec::new(),
                    removed: false,
                };
                if let Some(place) = self.pools.get_mut(pool) {
                    *place = Some(run);
                }
                self.listen(pool, listeners);
            }
            Order::Configure {
                pool,
                config,
                listen,
                leave,
            } => {
                if let Some(run) = self.pool(pool) {
                    run.core.set_config(Arc::clone(&config));
                    run.config = config;
                    for place in &mut run.listeners {
                        if place
                            .as_ref()
                            .is_some_and(|(address, _)| leave.contains(address))
                        {
                            *place = None;
                        }
                    }
                }
                self.listen(pool, listen);
            }
            Order::RemovePool { pool } => {
                let own = self.index;
                if let Some(run) = self.pool(pool) {
                    run.balance.leave(own);
                    run.listeners.clear();
                    run.core.stop();
                    run.removed = true;
                }
            }
            Order::Prepare {
                pool,
                routing,
                logins,
            } => {
                if let Some(run) = self.pool(pool) {
                    run.core.use_logins(&logins);
                    run.core.prepare(&routing);
                }
            }
            Order::Hold {
                pool,
                routing,
                logins,
                done,
            } => {
                if let Some(run) = self.pool(pool) {
                    run.core.use_logins(&logins);
                    run.core.hold(routing, done);
                }
            }
            Order::Route {
                pool,
                routing,
                logins,
                done,
            } => {
                if let Some(run) = self.pool(pool) {
                    run.core.use_logins(&logins);
                    let report = run.core.route(routing);
                    run.close_failed_pipes();
                    // Who asked may have stopped waiting; the routing stands.
                    let _ = done.send(report);
                }
            }
            Order::LogIn { pool, logins, done } => {
                if let Some(run) = self.pool(pool) {
                    run.core.use_logins_and_tell(&logins, done);
                }
            }
            Order::NotFenced { pool, address } => {
                if let Some(run) = self.pool(pool) {
                    run.core.not_fenced(&address);
                }
            }
            Order::Resolved {
                pool,
                key,
                asked,
                found,
            } => self.resolved(pool, key, asked, found),
            Order::Adopt { pool, newcomer } => self.adopt.push((pool, newcomer)),
            Order::RollCall { pool, asked } => self.answer_roll(pool, &asked),
            Order::RollAnswer { pool, ticket, part } => {
                if let Some(run) = self.pool(pool) {
                    run.core.take_roll_answer(ticket, &part);
                }
            }
            Order::Stop => self.stop(),
            Order::Abandon => {}
        }
        self.drop_removed();
    }

    fn listen(&mut self, pool: usize, bound: Vec<NamedListener>) {
        for (address, socket) in bound {
            let Some(run) = self.pool(pool) else { return };
            let index = run.listeners.len() as u32;
            let token = Place::Listener { pool, index }.token();
            match Listener::register(socket, self.poll.registry(), token) {
                Ok(listener) => {
                    if let Some(run) = self.pool(pool) {
                        run.listeners.push(Some((address, listener)));
                    }
                }
                Err(error) => {
                    warn!(worker = self.index, %address, %error, "registering a listener failed");
                }
            }
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        for pool in self.pools.iter_mut().flatten() {
            pool.balance.leave(self.index);
            pool.listeners.clear();
            pool.core.stop();
        }
    }

    /// Forgets pools that left the config and have no clients any more.
    pub(super) fn drop_removed(&mut self) {
        for place in &mut self.pools {
            if place
                .as_ref()
                .is_some_and(|run| run.removed && run.core.client_count() == 0)
            {
                if let Some(run) = place {
                    info!(pool = run.config.name, worker = self.index, "pool closed");
                }
                *place = None;
            }
        }
    }
}
