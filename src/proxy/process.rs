//! The proxy as a whole: worker threads and pools; start, reload, drain.
//!
//! Invariants: every worker has the same pools at the same places; a place is
//! never used for another pool while the process lives.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::{Poll, Waker};
use tracing::{info, warn};

use crate::metrics::pool::WorkerCalls;
use crate::metrics::registry::Registry;
use crate::reuseport::address::ListenAddress;
use crate::reuseport::listener::{BindError, bind};
use crate::router::epoch::{Epoch, Gate, Routing};
use crate::router::layout::Layout;
use crate::router::layout_error::LayoutError;
use crate::router::moves::{Moves, MovesError};

use super::balance::{Balance, ProcessClients};
use super::config::PoolConfig;
use super::control::SwitchRefusal;
use super::ejecting::{FAILING_MAX, ShardWatch};
use super::epochs::{EpochFile, EpochFileError, EpochRecord};
use super::orders::{NamedListener, Order, SharedByWorkers};
use super::place::WAKE;
use super::pool::{PoolHandle, WorkerPort};
use super::resolver::Resolver;
use super::route_watch::{REFUSING_MAX, RouteWatch};
use super::shard_logins::Logins;
use super::worker::Worker;

/// How often a drain looks whether the workers have ended.
const DRAIN_LOOK_MS: u64 = 5;

/// What the proxy needs besides its pools.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// Worker threads, at least 1.
    pub workers: usize,
    /// Where epochs are kept.
    pub state_dir: PathBuf,
    /// Most clients of all pools together.
    pub clients_max: usize,
    /// Where counters go.
    pub registry: Arc<Registry>,
}

/// Why the proxy, or one pool, could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system gave no poll or thread.
    #[error("can't start a worker: {0}")]
    Worker(#[source] io::Error),
    /// An address is taken or not ours.
    #[error("pool {pool}: {source}")]
    Bind {
        /// The pool.
        pool: String,
        /// What was wrong.
        source: BindError,
    },
    /// The layout is none.
    #[error("pool {pool}: {source}")]
    Layout {
        /// The pool.
        pool: String,
        /// What was wrong.
        source: LayoutError,
    },
    /// The state file can't be read.
    #[error("pool {pool}: {source}")]
    State {
        /// The pool.
        pool: String,
        /// What was wrong.
        source: EpochFileError,
    },
    /// The logins make no sense.
    #[error("pool {pool}: its state file: {source}")]
    Logins {
        /// The pool.
        pool: String,
        /// What was wrong.
        source: SwitchRefusal,
    },
    /// A staged switch makes no sense.
    #[error("pool {pool}: the switch staged in its state file: {source}")]
    Staged {
        /// The pool.
        pool: String,
        /// What was wrong.
        source: MovesError,
    },
}

/// A running proxy.
pub struct Proxy {
    pub(super) settings: ProxySettings,
    clients: Arc<ProcessClients>,
    ports: Arc<[WorkerPort]>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    pub(super) pools: Mutex<BTreeMap<String, PoolEntry>>,
    next_place: AtomicUsize,
}

/// Sockets that are bound and not given to the workers yet.
pub(super) struct Sockets {
    /// Where, with the ports that the system chose; in the order asked for.
    pub(super) bound: Vec<ListenAddress>,
    /// For each worker.
    pub(super) of_workers: Vec<Vec<NamedListener>>,
}

/// A pool and where it really listens.
pub(super) struct PoolEntry {
    pub(super) handle: PoolHandle,
    /// Ejects its shards and lets them in again.
    _shards: ShardWatch,
    /// Asks the servers for a route that nobody told.
    _route: RouteWatch,
    /// (as configured, as bound)
    pub(super) listen: Vec<(ListenAddress, ListenAddress)>,
}

impl Proxy {
    /// Starts the workers and opens every pool. Needs a running tokio runtime.
    ///
    /// # Errors
    /// Names the pool; nothing listens then.
    pub fn start(settings: ProxySettings, pools: Vec<PoolConfig>) -> Result<Self, StartError> {
        let mut ports = Vec::new();
        let mut threads = Vec::new();
        for index in 0..settings.workers {
            let calls = settings.registry.worker_calls(index as u64);
            let (port, thread) =
                start_worker(index, settings.workers, calls).map_err(StartError::Worker)?;
            ports.push(port);
            threads.push(thread);
        }
        settings
            .registry
            .process()
            .workers
            .set(settings.workers as u64);
        let clients = ProcessClients::new(settings.workers, settings.clients_max);
        let proxy = Self {
            settings,
            clients,
            ports: ports.into(),
            threads: Mutex::new(threads),
            pools: Mutex::new(BTreeMap::new()),
            next_place: AtomicUsize::new(0),
        };
        for config in pools {
            let opened = proxy
                .bind(&config, &config.listen, &[])
                .and_then(|sockets| proxy.open_pool(config, sockets));
            if let Err(error) = opened {
                proxy.abandon();
                return Err(error);
            }
        }
        Ok(proxy)
    }

    /// Gives a pool to every worker.
    pub(super) fn open_pool(
        &self,
        config: PoolConfig,
        sockets: Sockets,
    ) -> Result<PoolHandle, StartError> {
        let name = config.name.clone();
        let file = EpochFile::new(&self.settings.state_dir, &name);
        let (record, routing) = starting_point(&config, &file)?;
        let config_listen = config.listen.clone();
        let config = Arc::new(config);
        let place = self.next_place.fetch_add(1, Ordering::Relaxed);
        let registry = &self.settings.registry;
        let shared = Arc::new(routing.clone());
        let workers_share = SharedByWorkers::default();
        let balance = Balance::new(Arc::clone(&self.clients), Arc::clone(&self.ports));
        let logins = logins_of(&record).map_err(|refused| StartError::Logins {
            pool: name.clone(),
            source: refused,
        })?;
        let logins = Arc::new(logins);
        let (failing, reports) = tokio::sync::mpsc::channel(FAILING_MAX);
        let (refusing, refusals) = tokio::sync::mpsc::channel(REFUSING_MAX);
        for (worker, listeners) in self.ports.iter().zip(sockets.of_workers) {
            worker.send(Order::AddPool {
                pool: place,
                config: Arc::clone(&config),
                routing: Arc::clone(&shared),
                registry: Arc::clone(registry),
                balance: Arc::clone(&balance),
                failing: failing.clone(),
                refusing: refusing.clone(),
                shared: workers_share.clone(),
                logins: Arc::clone(&logins),
                listeners,
            });
        }
        balance.open();
        for address in &sockets.bound {
            info!(pool = name, %address, epoch = %routing.epoch, "listening");
        }
        let ports = Arc::clone(&self.ports);
        let handle = PoolHandle::new(
            place,
            ports,
            config,
            (file, record),
            (routing, logins),
            Arc::clone(registry),
        );
        let listen = config_listen.into_iter().zip(sockets.bound).collect();
        let entry = PoolEntry {
            handle: handle.clone(),
            _shards: ShardWatch::start(handle.clone(), reports),
            _route: RouteWatch::start(handle.clone(), refusals),
            listen,
        };
        self.lock_pools().insert(name, entry);
        Ok(handle)
    }

    /// Every worker's sockets for a list of addresses, each with the address
    /// as the config has it; and the addresses that were really bound. `own`
    /// are those that this process listens on already.
    pub(super) fn bind(
        &self,
        pool: &PoolConfig,
        addresses: &[ListenAddress],
        own: &[ListenAddress],
    ) -> Result<Sockets, StartError> {
        let mut sockets: Vec<Vec<NamedListener>> = self.ports.iter().map(|_| Vec::new()).collect();
        let mut bound = Vec::new();
        for address in addresses {
            let ours = own.iter().any(|known| known.clashes_with(address));
            let (at, listeners) =
                bind(address, self.ports.len(), pool.backlog, ours).map_err(|source| {
                    StartError::Bind {
                        pool: pool.name.clone(),
                        source,
                    }
                })?;
            bound.push(at);
            for (worker, listener) in sockets.iter_mut().zip(listeners) {
                worker.push((address.clone(), listener));
            }
        }
        Ok(Sockets {
            bound,
            of_workers: sockets,
        })
    }

    pub(super) fn lock_pools(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, PoolEntry>> {
        // Only whole entries are put in and taken out.
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pools, by name.
    pub fn pools(&self) -> Vec<PoolHandle> {
        self.lock_pools()
            .values()
            .map(|entry| entry.handle.clone())
            .collect()
    }

    /// Where each pool listens, with the ports that the system chose.
    pub fn addresses(&self) -> Vec<(String, ListenAddress)> {
        self.lock_pools()
            .iter()
            .flat_map(|(name, entry)| {
                entry
                    .listen
                    .iter()
                    .map(|(_, at)| (name.clone(), at.clone()))
            })
            .collect()
    }

    /// Accepts nobody any more, answers what is owed and closes; true when
    /// every worker ended within `patience`.
    pub async fn drain(&self, patience: Duration) -> bool {
        for port in self.ports.iter() {
            port.send(Order::Stop);
        }
        let ended = async {
            let mut look = tokio::time::interval(Duration::from_millis(DRAIN_LOOK_MS));
            while !self.lock_threads().iter().all(JoinHandle::is_finished) {
                look.tick().await;
            }
        };
        let in_time = tokio::time::timeout(patience, ended).await.is_ok();
        self.abandon();
        in_time
    }

    /// Ends every worker now and waits for the threads.
    pub fn abandon(&self) {
        for port in self.ports.iter() {
            port.send(Order::Abandon);
        }
        for thread in self.lock_threads().drain(..) {
            if thread.join().is_err() {
                warn!("a worker panicked");
            }
        }
    }

    fn lock_threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start_worker(
    index: usize,
    workers: usize,
    calls: Arc<WorkerCalls>,
) -> io::Result<(WorkerPort, JoinHandle<()>)> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
    let (inbox, orders) = mpsc::channel();
    let runtime = tokio::runtime::Handle::current();
    let resolver = Resolver::new(runtime, inbox.clone(), Arc::clone(&waker));
    let worker = Worker::new((index, workers), poll, orders, resolver, calls);
    let thread = std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || worker.run())?;
    Ok((WorkerPort { inbox, waker }, thread))
}

/// The record and routing a pool starts with: the state file wins as long as
/// the config is what it was when the file was written.
fn starting_point(
    config: &PoolConfig,
    file: &EpochFile,
) -> Result<(EpochRecord, Routing), StartError> {
    let pool = || config.name.clone();
    let layout = |spec| {
        Layout::new(spec).map_err(|source| StartError::Layout {
            pool: pool(),
            source,
        })
    };
    let configured = layout(config.layout.clone())?;
    let fingerprint = configured.fingerprint();
    let saved = file.load().map_err(|source| StartError::State {
        pool: pool(),
        source,
    })?;
    let Some(mut record) = saved else {
        let record = EpochRecord::first(&config.name, config.layout.clone(), fingerprint);
        return Ok((record, Routing::open(Epoch(1), Arc::new(configured))));
    };
    let in_use = layout(record.layout.clone())?;
    if let Some(switch) = &record.pending {
        // Whatever the config says by now: the job decides between two layouts,
        // and this proxy must not use either before it did.
        let to = Arc::new(layout(switch.to.clone())?);
        return fenced(&config.name, record, Arc::new(in_use), to);
    }
    if in_use.fingerprint() == fingerprint {
        if record.configured != fingerprint {
            record.configured = fingerprint; // the operator has followed the switch
            file.save(&record).map_err(|source| StartError::State {
                pool: pool(),
                source,
            })?;
        }
    } else if record.configured == fingerprint {
        warn!(
            pool = config.name,
            epoch = record.epoch,
            "the layout in use is a later one than the config's; write it into the config"
        );
    } else if in_use.on_the_way().is_some() {
        warn!(
            pool = config.name,
            epoch = record.epoch,
            "the config has another layout than before, but the pool's keys are on the way from \
             one layout to another: the one in use stays; go on with `keyferry reshard start \
             --step shard`"
        );
    } else {
        warn!(
            pool = config.name,
            epoch = record.epoch + 1,
            "the config has another layout than the one last in use: it is used as a new epoch, \
             and keys are not moved by this"
        );
        record = EpochRecord {
            epoch: record.epoch + 1,
            layout: config.layout.clone(),
            configured: fingerprint,
            decided_by: None,
            pending: None,
            ..record
        };
        file.save(&record).map_err(|source| StartError::State {
            pool: pool(),
            source,
        })?;
        let routing = Routing::open(Epoch(record.epoch), Arc::new(configured));
        return Ok((record, routing));
    }
    Ok((
        record.clone(),
        Routing::open(Epoch(record.epoch), Arc::new(in_use)),
    ))
}

/// As whom a pool logs in at the start: an undecided switch may have been decided,
/// so its logins come first, as they do while it is held.
fn logins_of(record: &EpochRecord) -> Result<Logins, SwitchRefusal> {
    let logins = Logins::read(&record.logins)?;
    match &record.pending {
        Some(switch) => Ok(logins.with(&Logins::read(&switch.logins)?)),
        None => Ok(logins),
    }
}

/// A pool whose switch was staged and is not decided starts fenced.
fn fenced(
    pool: &str,
    record: EpochRecord,
    in_use: Arc<Layout>,
    to: Arc<Layout>,
) -> Result<(EpochRecord, Routing), StartError> {
    let moves = Moves::between(Arc::clone(&in_use), to).map_err(|source| StartError::Staged {
        pool: pool.to_owned(),
        source,
    })?;
    warn!(
        pool,
        job = record.pending.as_ref().map(|switch| switch.job.as_str()),
        "a switch was staged and is not decided: requests for moving keys get -TRYAGAIN \
         until the job commits or aborts it"
    );
    let mut routing = Routing::open(Epoch(record.epoch), in_use);
    routing.gate = Gate::Fenced(Arc::new(moves));
    Ok((record, routing))
}
