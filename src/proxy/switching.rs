//! One proxy's part of a switch, as a machine: no I/O, no clock.
//!
//! ```text
//!          stage         hold          arm          commit
//!  Calm --------> Staged -----> Held -------> Armed --------> Calm (new epoch)
//!                  ^  ^          | |            |  \
//!                  |  '- lease --' |            |   lease
//!                  |               |            |     v
//!   abort: Calm <--'---------------'------------'-- Fenced --commit--> Calm (new epoch)
//! ```
//!
//! From the point of view of a moving key:
//!
//! | state | its requests |
//! |---|---|
//! | Calm, Staged | go out on the old route |
//! | Held, Armed | wait |
//! | Fenced | are refused with `-TRYAGAIN` |
//!
//! A *fenced* commit is taken in every state, from Calm too if it brings the
//! layout; so is a route record: the sources have refused this epoch's logins
//! since the cut, so nothing that this proxy sent on the old route was executed.
//!
//! Invariants
//! - `Staged` is on disk before `hold` can come, so a restart between here and
//!   the decision finds it and starts `Fenced`: it can't serve the old route
//!   after others serve the new one.
//! - Only `Held` goes back to the old route by itself. Once armed, the job decides.
//! - An older incarnation of the job is refused.

use crate::router::epoch::Epoch;
use crate::router::route_record::RouteRecord;

use super::control::{
    GateStatus, PendingState, PendingSwitch, RefusalReason, SwitchAbort, SwitchArm, SwitchCommit,
    SwitchHold, SwitchRefusal, SwitchStage,
};
use super::epochs::StagedSwitch;

/// Where the pool stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Switching {
    /// No switch is pending.
    Calm,
    /// Written down.
    Staged(StagedSwitch),
    /// Moving keys wait; `turn` tells this hold from an earlier one.
    Held {
        /// The switch.
        switch: StagedSwitch,
        /// Number of the lease.
        turn: u64,
    },
    /// Moving keys wait, and no old route comes back by itself.
    Armed {
        /// The switch.
        switch: StagedSwitch,
        /// Number of the lease.
        turn: u64,
    },
    /// Moving keys are refused.
    Fenced(StagedSwitch),
}

/// The last job that spoke of a switch, and its highest incarnation: what an
/// earlier start of it said comes too late, whenever it arrives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    job: String,
    incarnation: u64,
    aborted: bool,
}

impl Heard {
    /// Checks a message of `job`. A job that was not heard of yet takes the place
    /// of the one before.
    ///
    /// # Errors
    /// If a later incarnation of the same job has spoken.
    pub fn hear(&mut self, job: &str, incarnation: u64) -> Result<(), SwitchRefusal> {
        if self.job != job {
            *self = Self {
                job: job.to_owned(),
                incarnation,
                aborted: false,
            };
        } else if incarnation < self.incarnation {
            return Err(stale(self.incarnation));
        } else if incarnation > self.incarnation {
            (self.incarnation, self.aborted) = (incarnation, false);
        }
        Ok(())
    }

    /// Checks a stage: one that was sent before its own abort may arrive after it.
    ///
    /// # Errors
    /// As [`Heard::hear`], and if this incarnation has aborted.
    pub fn hear_stage(&mut self, job: &str, incarnation: u64) -> Result<(), SwitchRefusal> {
        self.hear(job, incarnation)?;
        if self.aborted {
            return Err(stale(self.incarnation));
        }
        Ok(())
    }

    /// The message was an abort.
    pub fn aborted(&mut self) {
        self.aborted = true;
    }
}

/// What a commit has to do.
#[derive(Debug, PartialEq)]
pub enum CommitStep {
    /// Route by the new layout.
    Switch(StagedSwitch),
    /// This epoch is in use already.
    AlreadyDone,
}

/// What the end of a lease means.
#[derive(Debug, PartialEq, Eq)]
pub enum LeaseEnd {
    /// The lease was replaced or decided meanwhile.
    Nothing,
    /// Open the gate on the old route.
    Release,
    /// Refuse moving keys.
    Fence,
}

fn refusal(reason: RefusalReason, error: impl Into<String>) -> SwitchRefusal {
    SwitchRefusal {
        reason,
        error: error.into(),
    }
}

impl Switching {
    /// The pending switch, if there is one.
    pub fn pending(&self) -> Option<&StagedSwitch> {
        match self {
            Self::Calm => None,
            Self::Staged(switch)
            | Self::Held { switch, .. }
            | Self::Armed { switch, .. }
            | Self::Fenced(switch) => Some(switch),
        }
    }

    /// What becomes of requests for moving keys.
    pub fn gate(&self) -> GateStatus {
        match self {
            Self::Calm | Self::Staged(_) => GateStatus::Open,
            Self::Held { .. } => GateStatus::Held,
            Self::Armed { .. } => GateStatus::Armed,
            Self::Fenced(_) => GateStatus::Fenced,
        }
    }

    /// As the admin API shows it.
    pub fn status(&self) -> Option<PendingSwitch> {
        let state = match self {
            Self::Calm => return None,
            Self::Staged(_) => PendingState::Staged,
            Self::Held { .. } => PendingState::Held,
            Self::Armed { .. } => PendingState::Armed,
            Self::Fenced(_) => PendingState::Fenced,
        };
        let switch = self.pending()?;
        Some(PendingSwitch {
            job: switch.job.clone(),
            epoch: switch.epoch,
            state,
        })
    }

    /// Checks a stage against the layout in use; the switch to write to disk.
    ///
    /// A switch of another job that is only staged gives way: it has not begun,
    /// and its hold will be refused.
    ///
    /// # Errors
    /// See [`RefusalReason`]; nothing changes then.
    pub fn check_stage(
        &self,
        ask: &SwitchStage,
        epoch: Epoch,
        fingerprint: u64,
    ) -> Result<StagedSwitch, SwitchRefusal> {
        if let Some(pending) = self.pending()
            && pending.job == ask.job
            && ask.incarnation < pending.incarnation
        {
            return Err(stale(pending.incarnation));
        }
        if !matches!(self, Self::Calm | Self::Staged(_)) {
            return Err(refusal(
                RefusalReason::OtherJob,
                "a switch is under way and not decided; commit or abort it first",
            ));
        }
        if ask.epoch != epoch.0 + 1 {
            let error = format!(
                "this proxy is at epoch {epoch}, so the next one is {}, not {}",
                epoch.0 + 1,
                ask.epoch
            );
            return Err(refusal(RefusalReason::WrongEpoch, error));
        }
        if ask.from_fingerprint != fingerprint {
            return Err(refusal(
                RefusalReason::LayoutDiffers,
                "this proxy has another layout in use than the job believes; plan again",
            ));
        }
        Ok(StagedSwitch {
            job: ask.job.clone(),
            incarnation: ask.incarnation,
            epoch: ask.epoch,
            to: ask.to.clone(),
            logins: ask.logins.clone(),
        })
    }

    /// The switch is on disk.
    pub fn staged(&mut self, switch: StagedSwitch) {
        *self = Self::Staged(switch);
    }

    /// Begins to hold.
    ///
    /// # Errors
    /// If this switch is not staged.
    pub fn hold(&mut self, ask: &SwitchHold, turn: u64) -> Result<StagedSwitch, SwitchRefusal> {
        let switch = self.same(&ask.job, ask.epoch, ask.incarnation)?.clone();
        match self {
            Self::Staged(_) => {
                *self = Self::Held {
                    switch: switch.clone(),
                    turn,
                };
                Ok(switch)
            }
            Self::Held { .. } | Self::Armed { .. } | Self::Fenced(_) | Self::Calm => Err(refusal(
                RefusalReason::NotHeld,
                "this switch is held already",
            )),
        }
    }

    /// From now on only the job decides.
    ///
    /// # Errors
    /// If the hold is over.
    pub fn arm(&mut self, ask: &SwitchArm, turn: u64) -> Result<(), SwitchRefusal> {
        let switch = self.same(&ask.job, ask.epoch, ask.incarnation)?.clone();
        match self {
            Self::Held { .. } | Self::Armed { .. } => {
                *self = Self::Armed { switch, turn };
                Ok(())
            }
            Self::Calm | Self::Staged(_) | Self::Fenced(_) => Err(not_held()),
        }
    }

    /// Checks a commit; the caller routes, then calls [`Switching::settle`].
    ///
    /// # Errors
    /// If the pool may have served the old route meanwhile, or never knew.
    pub fn check_commit(
        &self,
        ask: &SwitchCommit,
        epoch: Epoch,
        decided_by: Option<&str>,
    ) -> Result<CommitStep, SwitchRefusal> {
        if epoch.0 == ask.epoch && decided_by == Some(&ask.job) {
            return Ok(CommitStep::AlreadyDone);
        }
        if ask.fenced {
            return self.check_fenced_commit(ask, epoch).map(CommitStep::Switch);
        }
        let switch = self.same(&ask.job, ask.epoch, ask.incarnation)?;
        match self {
            Self::Armed { .. } | Self::Fenced(_) => Ok(CommitStep::Switch(switch.clone())),
            Self::Calm | Self::Staged(_) | Self::Held { .. } => Err(not_held()),
        }
    }

    /// A commit of which the sources' fence says that nothing was executed on the
    /// old route since the cut. What it brings replaces what was staged.
    fn check_fenced_commit(
        &self,
        ask: &SwitchCommit,
        epoch: Epoch,
    ) -> Result<StagedSwitch, SwitchRefusal> {
        let known = match (self.same(&ask.job, ask.epoch, ask.incarnation), self) {
            (Ok(pending), _) => Some(pending),
            // What was only staged has not begun, and gives way.
            (Err(_), Self::Calm | Self::Staged(_)) if epoch.0 + 1 == ask.epoch => None,
            (Err(_), Self::Calm) => {
                let error = format!("this proxy is at epoch {epoch}");
                return Err(refusal(RefusalReason::WrongEpoch, error));
            }
            (Err(refused), _) => return Err(refused),
        };
        let Some(to) = ask.to.as_ref().or(known.map(|pending| &pending.to)) else {
            let error = "this switch was not staged here, and the commit brings no layout";
            return Err(refusal(RefusalReason::NotHeld, error));
        };
        let logins = match known {
            Some(pending) if ask.logins.is_empty() => &pending.logins,
            _ => &ask.logins,
        };
        Ok(StagedSwitch {
            job: ask.job.clone(),
            incarnation: ask.incarnation,
            epoch: ask.epoch,
            to: to.clone(),
            logins: logins.clone(),
        })
    }

    /// A decision that was found on a server: the switch to it, if it is later
    /// than the epoch in use. The logins are those of the stage, if it was staged
    /// here.
    pub fn check_record(&self, found: &RouteRecord, epoch: Epoch) -> Option<StagedSwitch> {
        if found.epoch <= epoch.0 {
            return None;
        }
        let known = self
            .pending()
            .filter(|pending| pending.job == found.job && pending.epoch == found.epoch);
        Some(StagedSwitch {
            job: found.job.clone(),
            incarnation: known.map_or(0, |pending| pending.incarnation),
            epoch: found.epoch,
            to: found.to.clone(),
            logins: known.map_or_else(Vec::new, |pending| pending.logins.clone()),
        })
    }

    /// Whether a record says that the pending switch was taken back: its job left the
    /// route that stayed in force, for proxies that it could not tell. One that this
    /// job's own decision left looks alike where the pending switch is its way back, and
    /// says nothing.
    pub fn is_taken_back(
        &self,
        found: &RouteRecord,
        epoch: Epoch,
        decided_by: Option<&str>,
    ) -> bool {
        let pending = match self {
            Self::Staged(switch) | Self::Held { switch, .. } | Self::Fenced(switch) => switch,
            Self::Calm | Self::Armed { .. } => return false,
        };
        found.epoch == epoch.0 && found.job == pending.job && decided_by != Some(&found.job)
    }

    /// Checks an abort: `false` if there is nothing to abort.
    ///
    /// # Errors
    /// If the epoch is already in use, or another job's switch is pending.
    pub fn check_abort(
        &self,
        ask: &SwitchAbort,
        epoch: Epoch,
        decided_by: Option<&str>,
    ) -> Result<bool, SwitchRefusal> {
        if epoch.0 >= ask.epoch && decided_by == Some(&ask.job) {
            let error = format!("epoch {} is in use already", ask.epoch);
            return Err(refusal(RefusalReason::WrongEpoch, error));
        }
        if matches!(self, Self::Calm) {
            return Ok(false);
        }
        self.same(&ask.job, ask.epoch, ask.incarnation)?;
        Ok(true)
    }

    /// The switch is decided.
    pub fn settle(&mut self) {
        *self = Self::Calm;
    }

    /// The lease of `turn` is over.
    pub fn lease_ended(&mut self, ended: u64) -> LeaseEnd {
        match self {
            Self::Held { switch, turn } if *turn == ended => {
                *self = Self::Staged(switch.clone());
                LeaseEnd::Release
            }
            Self::Armed { switch, turn } if *turn == ended => {
                *self = Self::Fenced(switch.clone());
                LeaseEnd::Fence
            }
            _ => LeaseEnd::Nothing,
        }
    }

    /// The pending switch, if it is this one. A later incarnation of the job
    /// takes the switch over.
    fn same(
        &self,
        job: &str,
        epoch: u64,
        incarnation: u64,
    ) -> Result<&StagedSwitch, SwitchRefusal> {
        let Some(pending) = self.pending() else {
            return Err(refusal(RefusalReason::NotHeld, "no switch is staged here"));
        };
        if pending.job != job {
            let error = format!("a switch of job {} is pending here", pending.job);
            return Err(refusal(RefusalReason::OtherJob, error));
        }
        if pending.epoch != epoch {
            let error = format!("the switch pending here is to epoch {}", pending.epoch);
            return Err(refusal(RefusalReason::WrongEpoch, error));
        }
        if incarnation < pending.incarnation {
            return Err(stale(pending.incarnation));
        }
        Ok(pending)
    }
}

fn stale(known: u64) -> SwitchRefusal {
    let error = format!("a later start of this job (incarnation {known}) has spoken already");
    refusal(RefusalReason::StaleIncarnation, error)
}

fn not_held() -> SwitchRefusal {
    refusal(
        RefusalReason::NotHeld,
        "the hold is over: requests for moving keys go out on the old route",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::spec::{LayoutSpec, ShardSpec};

    const JOB: &str = "j1";

    fn stage(incarnation: u64) -> SwitchStage {
        SwitchStage {
            job: JOB.into(),
            epoch: 2,
            incarnation,
            from_fingerprint: 9,
            to: LayoutSpec::default(),
            logins: Vec::new(),
        }
    }

    fn staged() -> Switching {
        let mut state = Switching::Calm;
        let switch = state.check_stage(&stage(1), Epoch(1), 9).unwrap();
        state.staged(switch);
        state
    }

    fn hold(incarnation: u64) -> SwitchHold {
        SwitchHold {
            job: JOB.into(),
            epoch: 2,
            incarnation,
            lease_ms: 1,
        }
    }

    fn arm() -> SwitchArm {
        SwitchArm {
            job: JOB.into(),
            epoch: 2,
            incarnation: 1,
            lease_ms: 1,
        }
    }

    fn commit() -> SwitchCommit {
        SwitchCommit {
            job: JOB.into(),
            epoch: 2,
            incarnation: 1,
            fenced: false,
            to: None,
            logins: Vec::new(),
        }
    }

    fn fenced_commit(to: Option<LayoutSpec>) -> SwitchCommit {
        SwitchCommit {
            fenced: true,
            to,
            ..commit()
        }
    }

    fn switched(step: Result<CommitStep, SwitchRefusal>) -> StagedSwitch {
        match step {
            Ok(CommitStep::Switch(switch)) => switch,
            other => panic!("{other:?}"),
        }
    }

    fn other_layout() -> LayoutSpec {
        LayoutSpec {
            shards: vec![ShardSpec::at(&"h:1".parse().unwrap())],
            ..LayoutSpec::default()
        }
    }

    #[test]
    fn a_fenced_commit_is_taken_in_every_pending_state() {
        let mut state = staged();
        let check =
            |state: &Switching| switched(state.check_commit(&fenced_commit(None), Epoch(1), None));
        assert_eq!(check(&state).to, LayoutSpec::default());
        state.hold(&hold(1), 5).unwrap();
        check(&state);
        assert_eq!(state.lease_ended(5), LeaseEnd::Release);
        check(&state);
        state.hold(&hold(1), 6).unwrap();
        state.arm(&arm(), 7).unwrap();
        check(&state);
        state.lease_ended(7);
        check(&state);
        let replaced =
            switched(state.check_commit(&fenced_commit(Some(other_layout())), Epoch(1), None));
        assert_eq!(replaced.to, other_layout());
    }

    #[test]
    fn a_fenced_commit_to_one_that_was_away_must_bring_the_layout() {
        let reason = |state: &Switching, ask: &SwitchCommit, epoch| {
            let checked = state.check_commit(ask, Epoch(epoch), None);
            checked.unwrap_err().reason
        };
        let calm = Switching::Calm;
        assert_eq!(
            reason(&calm, &fenced_commit(None), 1),
            RefusalReason::NotHeld
        );
        let whole = fenced_commit(Some(other_layout()));
        assert_eq!(
            switched(calm.check_commit(&whole, Epoch(1), None)).to,
            other_layout()
        );
        assert_eq!(reason(&calm, &whole, 2), RefusalReason::WrongEpoch);
        assert_eq!(reason(&calm, &whole, 0), RefusalReason::WrongEpoch);
        let not_fenced = SwitchCommit {
            fenced: false,
            ..whole.clone()
        };
        assert_eq!(reason(&calm, &not_fenced, 1), RefusalReason::NotHeld);
        let of_another = SwitchCommit {
            job: "j2".into(),
            ..whole
        };
        let mut state = staged();
        switched(state.check_commit(&of_another, Epoch(1), None));
        state.hold(&hold(1), 5).unwrap();
        assert_eq!(reason(&state, &of_another, 1), RefusalReason::OtherJob);
    }

    #[test]
    fn a_record_that_is_found_is_taken_if_it_is_later() {
        let mut found = RouteRecord::new("p", JOB, 2, other_layout());
        assert!(staged().check_record(&found, Epoch(2)).is_none());
        let switch = staged().check_record(&found, Epoch(1)).unwrap();
        assert_eq!((switch.epoch, switch.incarnation), (2, 1));
        found.epoch = 7;
        let switch = Switching::Calm.check_record(&found, Epoch(1)).unwrap();
        assert_eq!((switch.epoch, switch.to), (7, other_layout()));
    }

    fn abort() -> SwitchAbort {
        SwitchAbort {
            job: JOB.into(),
            epoch: 2,
            incarnation: 1,
        }
    }

    #[test]
    fn the_whole_way() {
        let mut state = staged();
        state.hold(&hold(1), 5).unwrap();
        assert_eq!(
            state
                .check_commit(&commit(), Epoch(1), None)
                .unwrap_err()
                .reason,
            RefusalReason::NotHeld
        );
        state.arm(&arm(), 6).unwrap();
        assert_eq!(
            state.lease_ended(5),
            LeaseEnd::Nothing,
            "the hold's lease is replaced"
        );
        assert!(matches!(
            state.check_commit(&commit(), Epoch(1), None),
            Ok(CommitStep::Switch(_))
        ));
        state.settle();
        assert_eq!(
            state.check_commit(&commit(), Epoch(2), Some(JOB)),
            Ok(CommitStep::AlreadyDone)
        );
        assert_eq!(
            state
                .check_abort(&abort(), Epoch(2), Some(JOB))
                .unwrap_err()
                .reason,
            RefusalReason::WrongEpoch
        );
    }

    #[test]
    fn a_hold_that_ran_out_can_be_neither_armed_nor_committed() {
        let mut state = staged();
        state.hold(&hold(1), 5).unwrap();
        assert_eq!(state.lease_ended(5), LeaseEnd::Release);
        assert_eq!(
            state.arm(&arm(), 6).unwrap_err().reason,
            RefusalReason::NotHeld
        );
        assert_eq!(
            state
                .check_commit(&commit(), Epoch(1), None)
                .unwrap_err()
                .reason,
            RefusalReason::NotHeld
        );
        state.hold(&hold(1), 7).unwrap();
    }

    #[test]
    fn an_armed_switch_that_nobody_decides_is_fenced_and_can_be_decided_both_ways() {
        let mut state = staged();
        state.hold(&hold(1), 5).unwrap();
        state.arm(&arm(), 6).unwrap();
        assert_eq!(state.lease_ended(6), LeaseEnd::Fence);
        assert_eq!(state.gate(), GateStatus::Fenced);
        assert!(state.check_commit(&commit(), Epoch(1), None).is_ok());
        assert_eq!(state.check_abort(&abort(), Epoch(1), None), Ok(true));
    }

    #[test]
    fn strangers_and_ghosts_are_refused() {
        let state = staged();
        let reason = |result: Result<StagedSwitch, SwitchRefusal>| result.unwrap_err().reason;
        let wrong_epoch = SwitchStage {
            epoch: 3,
            ..stage(1)
        };
        assert_eq!(
            reason(state.check_stage(&wrong_epoch, Epoch(1), 9)),
            RefusalReason::WrongEpoch
        );
        assert_eq!(
            reason(state.check_stage(&stage(1), Epoch(1), 8)),
            RefusalReason::LayoutDiffers
        );
        assert_eq!(
            reason(state.check_stage(&stage(0), Epoch(1), 9)),
            RefusalReason::StaleIncarnation
        );
        let mut other = staged();
        let foreign = SwitchHold {
            job: "j2".into(),
            ..hold(1)
        };
        assert_eq!(reason(other.hold(&foreign, 1)), RefusalReason::OtherJob);
        assert_eq!(
            reason(other.hold(&hold(0), 1)),
            RefusalReason::StaleIncarnation
        );
        assert!(
            other.hold(&hold(2), 1).is_ok(),
            "a later start of the job takes over"
        );
    }

    #[test]
    fn what_an_earlier_start_said_comes_too_late() {
        let mut heard = Heard::default();
        heard.hear_stage(JOB, 1).unwrap();
        heard.hear(JOB, 2).unwrap();
        let late = heard.hear(JOB, 1).unwrap_err();
        assert_eq!(late.reason, RefusalReason::StaleIncarnation);
        heard.aborted();
        heard.hear(JOB, 2).unwrap();
        let after_its_abort = heard.hear_stage(JOB, 2).unwrap_err();
        assert_eq!(after_its_abort.reason, RefusalReason::StaleIncarnation);
        heard.hear_stage(JOB, 3).unwrap();
        heard.hear_stage("j2", 1).unwrap();
    }

    #[test]
    fn a_record_of_the_route_that_stayed_takes_a_switch_of_its_job_back() {
        let record = |job, epoch| RouteRecord::new("p", job, epoch, LayoutSpec::default());
        let mut state = staged();
        for (job, epoch, decided_by, is_taken_back) in [
            (JOB, 1, None, true),
            (JOB, 1, Some("earlier"), true),
            (JOB, 1, Some(JOB), false),
            (JOB, 0, None, false),
            ("j2", 1, None, false),
        ] {
            let found = record(job, epoch);
            assert_eq!(
                state.is_taken_back(&found, Epoch(1), decided_by),
                is_taken_back,
                "{found:?} {decided_by:?}"
            );
        }
        state.hold(&hold(1), 5).unwrap();
        assert!(state.is_taken_back(&record(JOB, 1), Epoch(1), None));
        state.arm(&arm(), 6).unwrap();
        assert!(!state.is_taken_back(&record(JOB, 1), Epoch(1), None));
        assert!(!Switching::Calm.is_taken_back(&record(JOB, 1), Epoch(1), None));
    }

    #[test]
    fn aborting_nothing_is_no_error() {
        assert_eq!(
            Switching::Calm.check_abort(&abort(), Epoch(1), None),
            Ok(false)
        );
    }
}
