//! Ejecting on the control side: workers say which shard fails, the machine of
//! `ejection.rs` decides, all workers get the new routing, a probe lets in again.
//!
//! ```text
//! workers --Failing--> watch_shards --Order::Route--> workers
//!                        |      ^
//!                        '-> probe (one for each shard that is out)
//! ```
//!
//! Invariants
//! - A shard is out for all workers or for none, but for the moment in which they
//!   take the order.
//! - Everything is decided under the lock of the pool's state, as the steps of a
//!   switch are: a job that was announced, or a switch that was staged, finds no
//!   shard out and keeps all in.
//! - An ejection is no epoch: the layout stays what it is, on disk, too. After a
//!   restart all shards are in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::Receiver;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::router::address::ShardAddress;
use crate::router::epoch::Routing;
use crate::router::layout::{Layout, ShardIndex};

use super::control::{EjectedShard, RefusalReason, SwitchRefusal};
use super::ejection::{Action, Event, Standing};
use super::failures::Failing;
use super::pool::{PoolCoreState, PoolHandle};
use super::probe::{NotWell, probe};

/// Reports of workers that wait to be read; further ones are dropped, and come
/// again with the shard's next failure.
pub const FAILING_MAX: usize = 256;

/// The task that watches the shards of a pool; ends when this is dropped.
pub(super) struct ShardWatch(JoinHandle<()>);

impl ShardWatch {
    pub(super) fn start(pool: PoolHandle, failing: Receiver<Failing>) -> Self {
        Self(tokio::spawn(watch_shards(pool, failing)))
    }
}

impl Drop for ShardWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The shards of one pool that are not simply in.
#[derive(Default)]
pub(super) struct Ejections {
    shards: BTreeMap<ShardAddress, Watched>,
    /// Number of the last probe.
    turn: u64,
}

struct Watched {
    standing: Standing,
    /// When the wait for its probe began.
    since: Instant,
    /// When it was ejected, in microseconds since 1970.
    at_us: u64,
    /// The failure that ejected it, or that of its last probe.
    why: String,
}

struct Probed {
    address: ShardAddress,
    turn: u64,
    outcome: Result<(), NotWell>,
}

impl Ejections {
    fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    fn out(&self) -> impl Iterator<Item = (&ShardAddress, &Watched)> {
        let shards = self.shards.iter();
        shards.filter(|(_, watched)| watched.standing.is_out())
    }

    /// Those of `layout` that are out, for [`Layout::without`].
    fn out_of(&self, layout: &Layout) -> Vec<ShardIndex> {
        let at = |(address, _)| layout.all_at(address);
        self.out().flat_map(at).collect()
    }

    /// As the admin API shows them, in the layout's order.
    pub(super) fn status(&self, layout: &Layout) -> Vec<EjectedShard> {
        let shards = layout.shards().iter();
        let out = shards.filter_map(|shard| {
            let watched = self.shards.get(&shard.address)?;
            watched.standing.is_out().then(|| EjectedShard {
                shard: shard.name.clone(),
                addr: shard.address.to_string(),
                at_us: watched.at_us,
                why: watched.why.clone(),
            })
        });
        out.collect()
    }

    /// Refuses a job while keys are elsewhere than the layout says.
    pub(super) fn check_none(&self, pool: &str, layout: &Layout) -> Result<(), SwitchRefusal> {
        let out = self.status(layout);
        if out.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = out.iter().map(|shard| shard.shard.as_str()).collect();
        Err(SwitchRefusal {
            reason: RefusalReason::ShardEjected,
            error: format!(
                "pool {pool}: {} ejected, and what was written to its keys since then is on \
                 other shards; wait until a probe lets it in again, or set eject.enabled = false",
                match names.as_slice() {
                    [one] => format!("shard {one} is"),
                    more => format!("shards {} are", more.join(", ")),
                }
            ),
        })
    }
}

/// Runs as long as a worker has the pool.
async fn watch_shards(pool: PoolHandle, mut failing: Receiver<Failing>) {
    let mut probes = JoinSet::new();
    loop {
        let due = pool.next_due().await;
        tokio::select! {
            told = failing.recv() => match told {
                Some(told) => pool.take_failing(told).await,
                None => return,
            },
            () = until(due) => pool.probe_due(&mut probes).await,
            Some(done) = probes.join_next() => match done {
                Ok(probed) => pool.take_probed(probed).await,
                Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
                Err(_) => return, // the runtime ends
            },
            () = pool.shared.eject_changed.notified() => {}
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// What speaks against ejecting a shard now.
fn hindrance(state: &PoolCoreState) -> Option<String> {
    if let Some(job) = state.job() {
        return Some(format!("job {job} works on the pool"));
    }
    let pending = state.switching.pending()?;
    Some(format!("a switch of job {} is not decided", pending.job))
}

fn now_us() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.map_or(0, |since| since.as_micros() as u64)
}

impl PoolHandle {
    async fn next_due(&self) -> Option<Instant> {
        let state = self.shared.state.lock().await;
        let waiting = |(_, watched): &(&ShardAddress, &Watched)| {
            matches!(watched.standing, Standing::Out { .. })
        };
        let since = state.ejections.out().filter(waiting);
        let since = since.map(|(_, watched)| watched.since).min()?;
        since.checked_add(state.config.eject.retry_after)
    }

    async fn take_failing(&self, told: Failing) {
        let mut state = self.shared.state.lock().await;
        let layout = Arc::clone(&self.routing().layout);
        if !state.config.eject.enabled || layout.at_address(&told.address).is_none() {
            return; // it was true when the worker said it
        }
        let hindered_by = hindrance(&state);
        let hindrance = hindered_by.clone().unwrap_or_default();
        let turn = state.ejections.next_turn();
        let event = Event::Failing { hindered_by, turn };
        let address = &told.address;
        match state.step(address, event) {
            Some(Action::Eject) => {
                if let Some(watched) = state.ejections.shards.get_mut(address) {
                    watched.since = Instant::now();
                    (watched.at_us, watched.why) = (now_us(), told.why.clone());
                }
                for shard in layout.all_at(address) {
                    let name = &layout.shard(shard).name;
                    self.shared.gauge.ejections.out(name, now_us());
                    warn!(
                        pool = self.shared.name,
                        shard = name,
                        %address,
                        failures = told.failures,
                        why = told.why,
                        "ejected a shard: its keys go to the others until a probe finds it well"
                    );
                }
                self.reroute(&state).await;
            }
            Some(Action::Warn) => warn!(
                pool = self.shared.name,
                %address,
                failures = told.failures,
                why = told.why,
                hindrance,
                "a shard that would be ejected stays"
            ),
            Some(Action::Probe { .. } | Action::WaitAgain | Action::Readmit) | None => {}
        }
    }

    async fn probe_due(&self, probes: &mut JoinSet<Probed>) {
        let mut state = self.shared.state.lock().await;
        let (now, wait) = (Instant::now(), state.config.eject.retry_after);
        let is_due = |watched: &Watched| {
            matches!(watched.standing, Standing::Out { .. })
                && now.duration_since(watched.since) >= wait
        };
        let due = state.ejections.out().filter(|(_, watched)| is_due(watched));
        let due: Vec<ShardAddress> = due.map(|(address, _)| address.clone()).collect();
        for address in due {
            if let Some(Action::Probe { turn }) = state.step(&address, Event::Due) {
                let config = Arc::clone(&state.config);
                probes.spawn(async move {
                    let outcome = probe(&address, &config).await;
                    Probed {
                        address,
                        turn,
                        outcome,
                    }
                });
            }
        }
    }

    async fn take_probed(&self, probed: Probed) {
        let Probed {
            address,
            turn,
            outcome,
        } = probed;
        let mut state = self.shared.state.lock().await;
        let next = state.ejections.next_turn();
        match outcome {
            Ok(()) => {
                let step = state.step(&address, Event::Well { turn });
                if step == Some(Action::Readmit) {
                    self.readmit(&mut state, &address);
                    self.reroute(&state).await;
                }
            }
            Err(why) => {
                let step = state.step(&address, Event::NotWell { turn, next });
                if step == Some(Action::WaitAgain)
                    && let Some(watched) = state.ejections.shards.get_mut(&address)
                {
                    watched.since = Instant::now();
                    watched.why = why.to_string();
                    let pool = &self.shared.name;
                    warn!(pool, %address, why = watched.why, "a shard stays ejected");
                }
            }
        }
    }

    /// Forgets an ejection; the caller routes.
    fn readmit(&self, state: &mut PoolCoreState, address: &ShardAddress) {
        state.ejections.shards.remove(address);
        let layout = &self.routing().layout;
        for shard in layout.all_at(address) {
            let name = &layout.shard(shard).name;
            self.shared.gauge.ejections.back(name);
            info!(pool = self.shared.name, shard = name, %address, "let a shard in again");
        }
    }

    /// The routing of now, without the shards that are out.
    async fn reroute(&self, state: &PoolCoreState) {
        let routing = self.routing();
        let out = state.ejections.out_of(&routing.layout);
        let layout = Arc::new(routing.layout.without(out));
        self.publish(Routing {
            layout,
            ..Routing::clone(&routing)
        })
        .await;
    }

    /// Settings changed: waits are other ones, or nothing is ejected any more.
    pub(super) async fn follow_eject_config(&self) {
        let mut state = self.shared.state.lock().await;
        if !state.config.eject.enabled {
            let known: Vec<ShardAddress> = state.ejections.shards.keys().cloned().collect();
            let mut any = false;
            for address in known {
                if state.step(&address, Event::Excused) == Some(Action::Readmit) {
                    self.readmit(&mut state, &address);
                    any = true;
                }
            }
            if any {
                self.reroute(&state).await;
            }
        }
        self.shared.eject_changed.notify_one();
    }

    /// A new layout without the shards that were out before it and are there still.
    pub(super) fn carry_ejections(&self, state: &mut PoolCoreState, layout: &Layout) -> Layout {
        let before = self.routing();
        let gauges = &self.shared.gauge.ejections;
        for &shard in before.layout.out() {
            gauges.back(&before.layout.shard(shard).name);
        }
        let shards = &mut state.ejections.shards;
        shards.retain(|address, _| layout.at_address(address).is_some());
        let out = state.ejections.out_of(layout);
        for ejected in state.ejections.status(layout) {
            gauges.still_out(&ejected.shard, ejected.at_us);
        }
        layout.without(out)
    }
}

impl PoolCoreState {
    fn step(&mut self, address: &ShardAddress, event: Event) -> Option<Action> {
        let shards = &mut self.ejections.shards;
        let watched = match shards.get_mut(address) {
            Some(watched) => watched,
            // What is said of a shard that is in, or gone, begins with a failure.
            None if !matches!(event, Event::Failing { .. }) => return None,
            None => shards.entry(address.clone()).or_insert(Watched {
                standing: Standing::In,
                since: Instant::now(),
                at_us: 0,
                why: String::new(),
            }),
        };
        match std::mem::take(&mut watched.standing).step(event) {
            Ok((standing, action)) => {
                watched.standing = standing;
                action
            }
            Err(misstep) => {
                // Its standing is In now, which is also where a mistake of ours is safe.
                error!(%address, %misstep, "a shard's ejection went astray");
                None
            }
        }
    }
}
