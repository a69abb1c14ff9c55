//! After the switch: old shards are kept as the new ones are, until the job is
//! rolled back or completed.
//!
//! ```text
//! switched -> turn round -> wake -> begin -> copying, following, verified -> switch back -> rolled_back
//!                            ^                       | lost
//!                            `------- pause <--------'   rollback is refused meanwhile, with the reason
//! ```
//! It begins after the positions that were taken in the switch, goes on at the
//! checkpoints of an earlier process, or copies everything backwards.
//!
//! *Wake*: what clients of late proxies still wait for on old shards ends, or what
//! the way back pushes there would be handed to them.
//!
//! Invariants: what is lost here costs the way back, never the switch: clients
//! are on the new layout and stay there. What an earlier process applied is not
//! applied again: positions are used once.

use std::sync::Arc;
use std::time::Duration;

use super::Runner;
use crate::planted::{self, Planted};
use crate::reshard::job_error::JobError;
use crate::reshard::mover::{
    Attach, Begin, KeeperConfig, MoveError, MoverConfig, OnConflict, Tapping, remove_notes,
};
use crate::reshard::moving::DataPath;
use crate::reshard::prepare::AfterSwitch;
use crate::reshard::record::{Direction, StreamPosition};
use crate::reshard::serve::Stage;
use crate::reshard::state::{Back, JobState};
use crate::router::moves::Moves;

/// Longest pause before the way back is tried again.
const PAUSE_MAX: Duration = Duration::from_secs(60);

impl KeeperConfig {
    /// On every server that keys move to.
    pub(in crate::reshard) fn of(config: &MoverConfig) -> Self {
        let mut shards = Vec::new();
        for shard in config.moves.to().shards() {
            if config.moves.may_take(&shard.address) && !shards.contains(&shard.address) {
                shards.push(shard.address.clone());
            }
        }
        Self {
            shards,
            upstream: config.upstream.clone(),
            job: config.job.clone(),
        }
    }
}

impl Runner {
    /// From here on keys and routes go the other way.
    pub(super) fn turn_round(&mut self) -> Result<(), JobError> {
        if self.direction == Direction::Back {
            return Ok(());
        }
        let (from, to) = (Arc::clone(self.moves.to()), Arc::clone(self.moves.from()));
        self.moves = Arc::new(Moves::between(from, to)?);
        self.direction = Direction::Back;
        self.clean = None;
        self.restarts_recorded = 0;
        Ok(())
    }

    /// Keeps the old shards exact until the job is rolled back; every other end
    /// is an error.
    pub(super) async fn follow_back<D: DataPath>(
        &mut self,
        data: &D,
        config: MoverConfig,
    ) -> Result<(), JobError> {
        self.turn_round()?;
        let mut pause = self.options.back_off;
        let mut begin = self.begin_back(config.on_conflict);
        if planted::is_on(Planted::ReverseStartsLate)
            && let Some(keepers) = &self.keepers
        {
            begin = Begin::Follow(keepers.positions().await);
        }
        loop {
            let back = self.back_config(&config, begin);
            let error = match self.move_back(data, back).await {
                Ok(()) => return Ok(()),
                Err(error) if costs_the_way(&error) => error,
                Err(error) => return Err(error),
            };
            tracing::warn!(%error, "old shards are not kept exact any more; trying again");
            self.no_way_back = Some(error.to_string());
            self.keepers = None;
            self.clean = None;
            self.say("the way back is lost; it begins again in a moment");
            self.within(Stage::NoWayBack, tokio::time::sleep(pause))
                .await?;
            pause = (pause * 2).min(PAUSE_MAX);
            begin = match error {
                // What is there cannot be trusted.
                JobError::Differences { .. } | JobError::Unheld { .. } => Begin::Copy,
                // A later batch may have been taken with its checkpoint.
                JobError::Move(MoveError::TargetRefused { .. }) => Begin::Copy,
                _ => self.begin_back(config.on_conflict),
            };
        }
    }

    async fn move_back<D: DataPath>(
        &mut self,
        data: &D,
        config: MoverConfig,
    ) -> Result<(), JobError> {
        self.say("ending what clients of late proxies wait for on the old shards");
        let woken = self.fences.wake();
        self.within(Stage::NoWayBack, woken).await??;
        if config.begin == Begin::Copy {
            self.preflight(data, &config).await?;
        }
        self.move_and_switch(data, config).await
    }

    /// Where the way back can begin.
    fn begin_back(&self, on_conflict: OnConflict) -> Begin {
        match self.log.state() {
            JobState::Switched {
                back: Back::Following | Back::Verified { .. },
                ..
            } => Begin::Resume,
            // Keys that were skipped on the way there differ; so would what is
            // added to them.
            _ if on_conflict == OnConflict::Skip => Begin::Copy,
            _ => {
                let positions = self.log.history().positions().iter();
                let positions: Option<Vec<_>> = positions.map(StreamPosition::position).collect();
                match positions {
                    Some(positions) if !positions.is_empty() => Begin::Follow(positions),
                    _ => Begin::Copy,
                }
            }
        }
    }

    /// What old shards hold of moving keys is the job's own: copies that the
    /// switch left behind.
    fn back_config(&self, config: &MoverConfig, begin: Begin) -> MoverConfig {
        let [_, job] = mover_names(&config.job);
        MoverConfig {
            moves: Arc::clone(&self.moves),
            on_conflict: OnConflict::Fail,
            resumed: true,
            begin,
            tapping: Tapping {
                // Those named are replicas of old shards.
                replicas: Default::default(),
                ..config.tapping.clone()
            },
            job,
            ..config.clone()
        }
    }

    /// Makes sure that places in the new shards' streams can be told at the
    /// switch, if the process stays. Without them everything is copied backwards.
    pub(super) async fn attach_keepers<D: DataPath>(&mut self, data: &D) -> Result<(), JobError> {
        let wanted = self.direction.is_forward()
            && self.options.after == AfterSwitch::FollowBack
            && self.options.tapping.attach == Attach::Psync;
        if !wanted || self.keepers.is_some() {
            return Ok(());
        }
        self.say("attaching to the new shards, for the way back");
        let keeping = self.keeping.clone();
        match self.within(Stage::Verifying, data.keep(&keeping)).await? {
            Ok(keepers) => self.keepers = Some(keepers),
            Err(error) => tracing::warn!(
                %error,
                "after the switch everything will be copied backwards before it can be rolled back"
            ),
        }
        Ok(())
    }

    /// What the movers noted on servers is of no use any more.
    pub(super) async fn remove_notes(&self) {
        let names = mover_names(&self.keeping.job);
        let names = names.each_ref().map(String::as_str);
        let removed = remove_notes(&self.moves, &self.keeping.upstream, &names).await;
        if let Err(error) = removed {
            tracing::warn!(%error, "keys with the prefix __keyferry: stay on servers");
        }
    }

    /// Why a rollback is refused while the way back does not stand.
    pub(in crate::reshard) fn no_rollback(&self) -> String {
        match &self.no_way_back {
            Some(why) => format!("rollback is not available now: {why}"),
            None => format!(
                "rollback is not available yet: {}; ask again when status says that it is",
                self.doing
            ),
        }
    }
}

/// The names that a job's movers go by, there and back.
pub fn mover_names(job: &str) -> [String; 2] {
    [job.to_owned(), format!("{job}-back")]
}

/// Whether `error` only means that old shards are not kept exact.
fn costs_the_way(error: &JobError) -> bool {
    matches!(
        error,
        JobError::Move(_)
            | JobError::Waits(_)
            | JobError::Differences { .. }
            | JobError::Unheld { .. }
    )
}
