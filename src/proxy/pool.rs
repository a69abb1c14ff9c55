//! A pool as the control side sees it: its routing, its workers, its state
//! file, and the switch under way.
//!
//! Invariant: `routing` is what every worker routes by, or will as soon as it
//! takes the order that is in its inbox; only the holder of `core` changes it.

use std::sync::Arc;
use std::sync::mpsc::{SendError, Sender};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use mio::Waker;
use tokio::sync::{Mutex, Notify, oneshot};
use tokio::task::JoinHandle;
use tracing::{error, warn};

use crate::metrics::registry::{PoolState, Registry};
use crate::router::epoch::{Gate, Routing};
use crate::router::layout::Layout;
use crate::router::moves::Moves;

use super::announcing::Announced;
use super::config::PoolConfig;
use super::control::{
    CommitReport, GateStatus, HOLD_SOFT_MS, HoldLimit, HoldStatus, JobAnnounce, PoolStatus,
    RefusalReason, SwitchAbort, SwitchArm, SwitchCommit, SwitchHold, SwitchRefusal, SwitchStage,
    SwitchTarget,
};
use super::ejecting::Ejections;
use super::epochs::{EpochFile, EpochFileError, EpochRecord, StagedSwitch};
use super::gate::HoldReport;
use super::intake::{HELD_BYTES_MAX, HELD_REQUESTS_MAX};
use super::orders::Order;
use super::shard_logins::Logins;
use super::switching::{Heard, LeaseEnd, Switching};

/// Where a worker takes its orders.
#[derive(Clone)]
pub struct WorkerPort {
    /// Its inbox.
    pub inbox: Sender<Order>,
    /// Tells it to look.
    pub waker: Arc<Waker>,
}

impl WorkerPort {
    /// Gives an order. A worker that has ended takes none; its pools are gone.
    pub fn send(&self, order: Order) {
        let _ = self.offer(order);
    }

    /// Gives an order.
    ///
    /// # Errors
    /// The order, when the worker has ended.
    pub fn offer(&self, order: Order) -> Result<(), SendError<Order>> {
        self.inbox.send(order)?;
        if let Err(error) = self.waker.wake() {
            error!(%error, "can't wake a worker");
        }
        Ok(())
    }
}

/// Changed by one caller at a time.
pub(super) struct PoolCoreState {
    pub(super) config: Arc<PoolConfig>,
    pub(super) record: EpochRecord,
    pub(super) switching: Switching,
    pub(super) heard: Heard,
    pub(super) ejections: Ejections,
    /// What is on disk may differ from `record`.
    pub(super) unsaved: bool,
    pub(super) announced: Option<Announced>,
    lease: Option<JoinHandle<()>>,
    pub(super) turn: u64,
    /// Since when requests are held.
    held_since: Option<Instant>,
}

impl PoolCoreState {
    /// From now on requests are held.
    pub(super) fn hold_begins(&mut self) {
        self.held_since = Some(Instant::now());
    }
}

pub(super) struct PoolShared {
    pub(super) name: String,
    pub(super) place: usize,
    pub(super) workers: Arc<[WorkerPort]>,
    pub(super) routing: ArcSwap<Routing>,
    /// As whom the workers log in; changed as `routing` is.
    pub(super) logins: ArcSwap<Logins>,
    pub(super) state: Mutex<PoolCoreState>,
    /// Tells the task that watches the shards to look at the settings again.
    pub(super) eject_changed: Notify,
    /// Tells the task that asks the servers for the route of another one.
    pub(super) rerouted: Notify,
    file: EpochFile,
    pub(super) gauge: Arc<PoolState>,
    registry: Arc<Registry>,
}

/// One pool; cheap to clone.
#[derive(Clone)]
pub struct PoolHandle {
    pub(super) shared: Arc<PoolShared>,
}

impl PoolHandle {
    pub(super) fn new(
        place: usize,
        workers: Arc<[WorkerPort]>,
        config: Arc<PoolConfig>,
        (file, record): (EpochFile, EpochRecord),
        (routing, logins): (Routing, Arc<Logins>),
        registry: Arc<Registry>,
    ) -> Self {
        let gauge = registry.pool_state(&config.name);
        gauge.epoch.set(routing.epoch.0);
        gauge.ejections.all_back();
        let switching = match (&routing.gate, &record.pending) {
            (Gate::Fenced(_), Some(switch)) => Switching::Fenced(switch.clone()),
            _ => Switching::Calm,
        };
        Self {
            shared: Arc::new(PoolShared {
                name: config.name.clone(),
                place,
                workers,
                routing: ArcSwap::from_pointee(routing),
                logins: ArcSwap::new(logins),
                state: Mutex::new(PoolCoreState {
                    config,
                    record,
                    switching,
                    heard: Heard::default(),
                    ejections: Ejections::default(),
                    unsaved: false,
                    announced: None,
                    lease: None,
                    turn: 0,
                    held_since: None,
                }),
                eject_changed: Notify::new(),
                rerouted: Notify::new(),
                file,
                gauge,
                registry,
            }),
        }
    }

    /// The layout in use and its gate.
    pub fn routing(&self) -> Arc<Routing> {
        self.shared.routing.load_full()
    }

    /// Gives every worker a routing; what they held comes back.
    pub(super) async fn publish(&self, routing: Routing) -> HoldReport {
        let shared = &self.shared;
        let routing = Arc::new(routing);
        shared.gauge.epoch.set(routing.epoch.0);
        shared.routing.store(Arc::clone(&routing));
        let mut answers = Vec::with_capacity(shared.workers.len());
        for worker in shared.workers.iter() {
            let (done, answer) = oneshot::channel();
            let routing = Arc::clone(&routing);
            worker.send(Order::Route {
                pool: shared.place,
                routing,
                logins: shared.logins.load_full(),
                done,
            });
            answers.push(answer);
        }
        let mut whole = HoldReport::default();
        for answer in answers {
            // A worker that ended has no clients left to route.
            let report = answer.await.unwrap_or_default();
            whole.held_requests += report.held_requests;
            whole.held_us_max = whole.held_us_max.max(report.held_us_max);
        }
        shared.rerouted.notify_one();
        whole
    }

    /// Saves the record without stopping the runtime's thread.
    pub(super) async fn save(&self, state: &mut PoolCoreState) -> Result<(), EpochFileError> {
        state.unsaved = true;
        let (file, record) = (self.shared.file.clone(), state.record.clone());
        match tokio::task::spawn_blocking(move || file.save(&record)).await {
            Ok(saved) => saved?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
        state.unsaved = false;
        Ok(())
    }

    pub(super) fn moves_to(&self, switch: &StagedSwitch) -> Result<Arc<Moves>, SwitchRefusal> {
        let bad = |error: String| SwitchRefusal {
            reason: RefusalReason::BadLayout,
            error,
        };
        let to = Layout::new(switch.to.clone()).map_err(|error| bad(error.to_string()))?;
        let from = Arc::clone(&self.routing().layout);
        let moves = Moves::between(from, Arc::new(to)).map_err(|error| bad(error.to_string()))?;
        Ok(Arc::new(moves))
    }

    fn hold_status(&self, state: &PoolCoreState) -> Option<HoldStatus> {
        let is_held = matches!(state.switching.gate(), GateStatus::Held | GateStatus::Armed);
        let since = state.held_since.filter(|_| is_held)?;
        let ms = since.elapsed().as_millis() as u64;
        let held = self.shared.registry.pool_held(&self.shared.name);
        let reaches = |share: u64| {
            held.worker_requests_max >= HELD_REQUESTS_MAX as u64 / share
                || held.worker_bytes_max >= HELD_BYTES_MAX as u64 / share
        };
        let limit = if ms >= state.config.limits.held_max.as_millis() as u64 || reaches(1) {
            HoldLimit::Hard
        } else if ms >= HOLD_SOFT_MS || reaches(2) {
            HoldLimit::Soft
        } else {
            HoldLimit::Below
        };
        Some(HoldStatus {
            ms,
            requests: held.requests,
            bytes: held.bytes,
            limit,
        })
    }

    /// Starts the clock of a lease; the one before stops.
    pub(super) fn start_lease(&self, state: &mut PoolCoreState, lease_ms: u64) {
        let (pool, turn) = (self.clone(), state.turn);
        let lease = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(lease_ms)).await;
            pool.end_lease(turn).await;
        });
        if let Some(before) = state.lease.replace(lease) {
            before.abort();
        }
    }

    async fn end_lease(&self, turn: u64) {
        let mut state = self.shared.state.lock().await;
        let routing = self.routing();
        match state.switching.lease_ended(turn) {
            LeaseEnd::Nothing => {}
            LeaseEnd::Release => {
                warn!(
                    pool = self.shared.name,
                    "the hold was not decided in time: released on the old route"
                );
                let open = Routing::open(routing.epoch, Arc::clone(&routing.layout));
                self.log_in_as(&state.record.logins);
                self.publish(open).await;
            }
            LeaseEnd::Fence => {
                error!(
                    pool = self.shared.name,
                    "an armed switch was not decided in time: requests for moving keys get \
                     -TRYAGAIN until the job commits or aborts it"
                );
                if let Some(moves) = routing.gate.moves() {
                    let gate = Gate::Fenced(Arc::clone(moves));
                    let fenced = Routing {
                        gate,
                        ..Routing::clone(&routing)
                    };
                    self.publish(fenced).await;
                }
            }
        }
    }
}

/// A step that was begun is done to its end, also when the caller hangs up and
/// its request is dropped half-way.
async fn to_its_end<T: Send + 'static>(step: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(step).await {
        Ok(done) => done,
        Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
        // Only the end of the runtime cancels it, and that ends us, too.
        Err(_) => std::future::pending().await,
    }
}

impl SwitchTarget for PoolHandle {
    fn name(&self) -> &str {
        &self.shared.name
    }

    async fn status(&self) -> PoolStatus {
        let state = self.shared.state.lock().await;
        let routing = self.routing();
        PoolStatus {
            name: self.shared.name.clone(),
            epoch: routing.epoch.0,
            layout: routing.layout.spec().clone(),
            gate: state.switching.gate(),
            pending: state.switching.status(),
            decided_by: state.record.decided_by.clone(),
            job: state.job().map(str::to_owned),
            workers: self.shared.workers.len(),
            ejected: state.ejections.status(&routing.layout),
            hold: self.hold_status(&state),
        }
    }

    async fn announce(&self, ask: JobAnnounce) -> Result<(), SwitchRefusal> {
        let pool = self.clone();
        to_its_end(async move { pool.take_announce(ask).await }).await
    }

    async fn stage(&self, ask: SwitchStage) -> Result<(), SwitchRefusal> {
        let pool = self.clone();
        to_its_end(async move { pool.take_stage(ask).await }).await
    }

    async fn hold(&self, ask: SwitchHold) -> Result<(), SwitchRefusal> {
        let pool = self.clone();
        to_its_end(async move { pool.take_hold(ask).await }).await
    }

    async fn arm(&self, ask: SwitchArm) -> Result<(), SwitchRefusal> {
        let pool = self.clone();
        to_its_end(async move { pool.take_arm(ask).await }).await
    }

    async fn commit(&self, ask: SwitchCommit) -> Result<CommitReport, SwitchRefusal> {
        let pool = self.clone();
        to_its_end(async move { pool.take_commit(ask).await }).await
    }

    async fn abort(&self, ask: SwitchAbort) -> Result<(), SwitchRefusal> {
        let pool = self.clone();
        to_its_end(async move { pool.take_abort(ask).await }).await
    }
}
