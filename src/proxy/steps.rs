//! The steps of a switch in one proxy: what `switching.rs` decides is done here,
//! in the workers and on disk.
//!
//! Invariants
//! - What a step changes, it changes under the lock of the pool's state, and it
//!   is never dropped half-way (see `to_its_end` in `pool.rs`).
//! - An answer that says "done" is given only when the disk agrees.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::{error, info};

use crate::planted::{self, Planted};
use crate::router::epoch::{Epoch, Gate, Routing};

use super::control::{
    CommitReport, RefusalReason, SwitchAbort, SwitchArm, SwitchCommit, SwitchHold, SwitchRefusal,
    SwitchStage,
};
use super::epochs::{EpochFileError, EpochRecord, StagedSwitch};
use super::orders::Order;
use super::pool::{PoolCoreState, PoolHandle};
use super::shard_logins::Logins;
use super::switching::CommitStep;

impl From<EpochFileError> for SwitchRefusal {
    fn from(error: EpochFileError) -> Self {
        Self {
            reason: RefusalReason::StateNotWritten,
            error: error.to_string(),
        }
    }
}

impl PoolHandle {
    pub(super) async fn take_stage(&self, ask: SwitchStage) -> Result<(), SwitchRefusal> {
        let mut state = self.shared.state.lock().await;
        state.heard.hear_stage(&ask.job, ask.incarnation)?;
        let routing = self.routing();
        let ejections = &state.ejections;
        ejections.check_none(&self.shared.name, &routing.layout)?;
        let fingerprint = routing.layout.fingerprint();
        let switch = state
            .switching
            .check_stage(&ask, routing.epoch, fingerprint)?;
        let moves = self.moves_to(&switch)?;
        let coming_logins = self.check_logins(&state, &switch.logins).await?;
        let before = state.record.pending.replace(switch.clone());
        if let Err(error) = self.save(&mut state).await {
            state.record.pending = before;
            return Err(error.into());
        }
        state.switching.staged(switch);
        let now = Logins::read(&state.record.logins)?;
        let logins = self.use_logins(now.with_new(&coming_logins, &routing.layout));
        let coming = Arc::new(Routing::open(routing.epoch.next(), Arc::clone(moves.to())));
        for worker in self.shared.workers.iter() {
            let routing = Arc::clone(&coming);
            worker.send(Order::Prepare {
                pool: self.shared.place,
                routing,
                logins: Arc::clone(&logins),
            });
        }
        Ok(())
    }

    pub(super) async fn take_hold(&self, ask: SwitchHold) -> Result<(), SwitchRefusal> {
        let mut state = self.shared.state.lock().await;
        state.heard.hear(&ask.job, ask.incarnation)?;
        state.turn += 1;
        let turn = state.turn;
        let switch = state.switching.hold(&ask, turn)?;
        state.hold_begins();
        let routing = self.routing();
        let gate = Gate::Held(self.moves_to(&switch)?);
        let held = Arc::new(Routing {
            gate,
            ..Routing::clone(&routing)
        });
        self.shared.routing.store(Arc::clone(&held));
        let now = Logins::read(&state.record.logins)?;
        let logins = self.use_logins(now.with(&Logins::read(&switch.logins)?));
        let mut answers = Vec::with_capacity(self.shared.workers.len());
        for worker in self.shared.workers.iter() {
            let (done, answer) = oneshot::channel();
            let routing = Arc::clone(&held);
            worker.send(Order::Hold {
                pool: self.shared.place,
                routing,
                logins: Arc::clone(&logins),
                done,
            });
            answers.push(answer);
        }
        self.start_lease(&mut state, ask.lease_ms);
        drop(state); // an abort must not wait for replies
        let drained = self.drained(&held, ask.lease_ms, answers).await;
        if planted::is_on(Planted::HoldReleasedEarly) {
            self.publish(Routing::open(held.epoch, Arc::clone(&held.layout)))
                .await;
        }
        drained
    }

    /// Waits until every worker has had its replies.
    async fn drained(
        &self,
        routing: &Arc<Routing>,
        lease_ms: u64,
        answers: Vec<oneshot::Receiver<Result<(), String>>>,
    ) -> Result<(), SwitchRefusal> {
        let all = async {
            let mut all = Ok(());
            for answer in answers {
                all = all.and(answer.await?);
            }
            Ok::<_, oneshot::error::RecvError>(all)
        };
        match tokio::time::timeout(Duration::from_millis(lease_ms), all).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(words))) => Err(SwitchRefusal {
                reason: RefusalReason::LoginRefused,
                error: format!("pool {}: {words}", self.shared.name),
            }),
            Ok(Err(_)) => Err(SwitchRefusal {
                reason: RefusalReason::NotHeld,
                error: "the hold ended while requests were still in flight".into(),
            }),
            Err(_) => Err(SwitchRefusal {
                reason: RefusalReason::NotDrained,
                error: format!(
                    "pool {} at epoch {}: requests sent before the hold were not answered \
                     within {lease_ms} ms",
                    self.shared.name, routing.epoch
                ),
            }),
        }
    }

    pub(super) async fn take_arm(&self, ask: SwitchArm) -> Result<(), SwitchRefusal> {
        let mut state = self.shared.state.lock().await;
        state.heard.hear(&ask.job, ask.incarnation)?;
        state.turn += 1;
        let turn = state.turn;
        state.switching.arm(&ask, turn)?;
        self.start_lease(&mut state, ask.lease_ms);
        Ok(())
    }

    pub(super) async fn take_commit(
        &self,
        ask: SwitchCommit,
    ) -> Result<CommitReport, SwitchRefusal> {
        let mut state = self.shared.state.lock().await;
        state.heard.hear(&ask.job, ask.incarnation)?;
        let epoch = self.routing().epoch;
        let decided_by = state.record.decided_by.clone();
        match state
            .switching
            .check_commit(&ask, epoch, decided_by.as_deref())?
        {
            CommitStep::AlreadyDone => {
                self.save(&mut state).await?;
                // Found on a server, the route came without its logins.
                if !ask.logins.is_empty() && ask.logins != state.record.logins {
                    self.change_logins(&mut state, &ask.logins).await?;
                }
                Ok(CommitReport::default())
            }
            CommitStep::Switch(switch) => self.decide(&mut state, switch).await,
        }
    }

    pub(super) async fn decide(
        &self,
        state: &mut PoolCoreState,
        switch: StagedSwitch,
    ) -> Result<CommitReport, SwitchRefusal> {
        let moves = self.moves_to(&switch)?;
        let layout = Arc::clone(moves.to());
        let epoch = Epoch(switch.epoch);
        state.switching.settle();
        self.log_in_as(&switch.logins);
        state.record = EpochRecord {
            epoch: switch.epoch,
            layout: switch.to,
            decided_by: Some(switch.job),
            pending: None,
            logins: switch.logins,
            ..state.record.clone()
        };
        state.unsaved = true;
        let held = self.publish(Routing::open(epoch, layout)).await;
        if let Err(error) = self.save(state).await {
            // The new route is in use and stays; a restart would find the
            // staged switch and be fenced until the job commits again.
            error!(pool = self.shared.name, %error, "the new epoch is in use but not on disk");
            return Err(error.into());
        }
        info!(
            pool = self.shared.name,
            %epoch,
            held_requests = held.held_requests,
            held_us_max = held.held_us_max,
            "switched to the new layout"
        );
        Ok(CommitReport {
            held_requests: held.held_requests,
            held_us_max: held.held_us_max,
        })
    }

    pub(super) async fn take_abort(&self, ask: SwitchAbort) -> Result<(), SwitchRefusal> {
        let mut state = self.shared.state.lock().await;
        state.heard.hear(&ask.job, ask.incarnation)?;
        let routing = self.routing();
        let decided_by = state.record.decided_by.clone();
        let pending = state
            .switching
            .check_abort(&ask, routing.epoch, decided_by.as_deref())?;
        state.heard.aborted();
        if pending {
            self.take_back(&mut state).await;
        }
        // Also when nothing is pending here: a stage or an abort before this one
        // may have failed on the disk and left the switch there.
        if state.unsaved {
            self.save(&mut state).await?;
        }
        Ok(())
    }

    /// The pending switch does not come; the caller saves.
    pub(super) async fn take_back(&self, state: &mut PoolCoreState) {
        let routing = self.routing();
        state.switching.settle();
        state.record.pending = None;
        state.unsaved = true;
        self.log_in_as(&state.record.logins);
        let open = Routing::open(routing.epoch, Arc::clone(&routing.layout));
        let held = self.publish(open).await;
        info!(
            pool = self.shared.name,
            held_requests = held.held_requests,
            held_us_max = held.held_us_max,
            "switch aborted: the old layout stays"
        );
    }
}
