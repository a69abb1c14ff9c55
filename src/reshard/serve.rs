//! What a running job does with questions while it waits for something else.
//!
//! Every wait of the job goes through [`Runner::serve`], so that `cancel`, a
//! pause and a stop are heard at any time before the switch.

use std::future::Future;

use super::clock::now_ms;
use super::control::{Reply, Request, Verb};
use super::ending::Ending;
use super::job_error::JobError;
use super::mover::ThrottleChange;
use super::record::Record;
use super::run::Runner;
use super::state::JobState;

/// What the job is at while it serves questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Looking at servers, opening connections.
    Starting,
    /// Copying snapshots.
    Copying,
    /// Comparing keys.
    Verifying,
    /// Following, with nothing else to do.
    Ready,
    /// Between two tries of a switch.
    BackingOff,
    /// Between two tries to keep the old shards of a switched job exact.
    NoWayBack,
}

/// What ends a wait early.
#[derive(Debug)]
pub(super) enum Wish {
    /// A signal.
    Stop,
    /// Give the job up.
    Undo(Undo),
    /// Switch now.
    Switch(Reply),
    /// Compare now.
    Verify(Reply),
    /// A pause ended.
    Unpaused,
    /// Let go of a switched job: another process completes it.
    LetGo(Reply),
}

/// A cancel or a rollback that waits for the mover to end.
#[derive(Debug)]
pub(super) struct Undo {
    rollback: bool,
    reply: Reply,
}

impl Undo {
    /// Whether it was asked for as a rollback.
    pub(super) fn is_rollback(&self) -> bool {
        self.rollback
    }

    /// Tells whoever asked.
    pub(super) fn done(self) {
        let how = self.in_words();
        self.reply
            .send(Ending::Done, JobError::Undone { how }.to_string());
    }

    fn in_words(&self) -> &'static str {
        if self.rollback {
            "rolled back"
        } else {
            "cancelled"
        }
    }
}

impl Runner {
    /// Waits for `work`; a wish that cannot be served meanwhile ends the job.
    pub(super) async fn within<T>(
        &mut self,
        stage: Stage,
        work: impl Future<Output = T>,
    ) -> Result<T, JobError> {
        match self.serve(stage, work).await? {
            Ok(done) => Ok(done),
            Err(wish) => Err(self.unwind(wish)),
        }
    }

    /// Waits for `work` and answers questions; a wish ends the wait.
    pub(super) async fn serve<T>(
        &mut self,
        stage: Stage,
        work: impl Future<Output = T>,
    ) -> Result<Result<T, Wish>, JobError> {
        let mut work = Box::pin(work);
        loop {
            tokio::select! {
                biased;
                () = self.stop.requested() => return Ok(Err(Wish::Stop)),
                done = &mut work => return Ok(Ok(done)),
                Some(request) = self.questions.recv() => {
                    if let Some(wish) = self.answer(stage, request)? {
                        return Ok(Err(wish));
                    }
                }
                () = changed(&mut self.progress) => self.publish(),
                () = self.lookout.looked() => {
                    self.note_bypass()?;
                    self.publish();
                }
            }
        }
    }

    /// The error that a wish turns into where only the end of the job serves it.
    pub(super) fn unwind(&mut self, wish: Wish) -> JobError {
        match wish {
            Wish::Undo(undo) => {
                let how = undo.in_words();
                self.undo = Some(undo);
                JobError::Undone { how }
            }
            Wish::LetGo(reply) => {
                self.let_go = Some(reply);
                JobError::LetGo
            }
            _ if !self.direction.is_forward() => JobError::StoppedSwitched,
            Wish::Stop | Wish::Switch(_) | Wish::Verify(_) | Wish::Unpaused => JobError::Stopped,
        }
    }

    fn answer(&mut self, stage: Stage, request: Request) -> Result<Option<Wish>, JobError> {
        if !self.direction.is_forward() {
            return Ok(self.answer_switched(stage, request));
        }
        let Request { verb, reply } = request;
        let paused = matches!(self.log.state(), JobState::Paused(_));
        match verb {
            // Answered by the socket itself.
            Verb::Status | Verb::Watch => reply.send(Ending::Done, ""),
            Verb::Cancel | Verb::Rollback => {
                let rollback = verb == Verb::Rollback;
                return Ok(Some(Wish::Undo(Undo { rollback, reply })));
            }
            Verb::Switch if paused => {
                reply.send(
                    Ending::Guard,
                    "the job is paused: `keyferry reshard resume` first",
                );
            }
            Verb::Switch if stage == Stage::Ready => return Ok(Some(Wish::Switch(reply))),
            Verb::Verify if stage == Stage::Ready => return Ok(Some(Wish::Verify(reply))),
            Verb::Switch | Verb::Verify => reply.send(Ending::Guard, not_now(stage)),
            Verb::Pause => self.pause(paused, reply)?,
            Verb::Resume if paused => {
                self.record(Record::Resumed { at_ms: now_ms() })?;
                reply.send(Ending::Done, "resumed");
                if stage == Stage::Ready {
                    return Ok(Some(Wish::Unpaused));
                }
            }
            Verb::Resume => reply.send(Ending::Done, "the job was not paused"),
            Verb::Complete => reply.send(
                Ending::Guard,
                "the job has not switched: `keyferry reshard switch` first, or `cancel`",
            ),
            Verb::Set(change) => self.set(change, reply),
        }
        Ok(None)
    }

    /// The same once the job has switched.
    fn answer_switched(&mut self, stage: Stage, request: Request) -> Option<Wish> {
        let Request { verb, reply } = request;
        match verb {
            Verb::Status | Verb::Watch => reply.send(Ending::Done, ""),
            Verb::Complete => return Some(Wish::LetGo(reply)),
            Verb::Rollback if stage == Stage::Ready => return Some(Wish::Switch(reply)),
            Verb::Verify if stage == Stage::Ready => return Some(Wish::Verify(reply)),
            Verb::Rollback => reply.send(Ending::Guard, self.no_rollback()),
            Verb::Verify => reply.send(Ending::Guard, not_now(stage)),
            Verb::Set(change) => self.set(change, reply),
            Verb::Switch => reply.send(Ending::Guard, "the job has switched already"),
            Verb::Pause | Verb::Resume => reply.send(
                Ending::Guard,
                "the job has switched: there is nothing that a pause would keep from happening",
            ),
            Verb::Cancel => reply.send(
                Ending::Guard,
                "the job has switched: `keyferry reshard rollback` goes back, `complete` ends it",
            ),
        }
        None
    }

    fn set(&mut self, change: ThrottleChange, reply: Reply) {
        let throttle = self.throttle.turn(change);
        tracing::info!(%throttle, "throttle set");
        let text = format!("in force until the job ends: {throttle}");
        reply.send(Ending::Done, text);
    }

    fn pause(&mut self, paused: bool, reply: Reply) -> Result<(), JobError> {
        if paused {
            reply.send(Ending::Done, "the job was paused already");
            return Ok(());
        }
        let record = Record::Paused { at_ms: now_ms() };
        if self.log.state().clone().step(&record).is_err() {
            reply.send(
                Ending::Guard,
                "a job can be paused while it copies or follows",
            );
            return Ok(());
        }
        self.record(record)?;
        self.say("paused: no switch until `keyferry reshard resume`");
        reply.send(
            Ending::Done,
            "paused: no switch until `keyferry reshard resume`; copying and following go on (this build does not pause them)",
        );
        Ok(())
    }
}

fn not_now(stage: Stage) -> &'static str {
    match stage {
        Stage::Starting => "the job is starting; ask again when its state is following or verified",
        Stage::Copying => {
            "the job is still copying; ask again when its state is following or verified"
        }
        Stage::Verifying => "a verify is running; ask again when it has ended",
        Stage::Ready => "the job is busy; ask again",
        Stage::NoWayBack => {
            "the old shards are not kept exact now; `keyferry reshard status` says why"
        }
        Stage::BackingOff => "the job tries the switch again by itself in a moment",
    }
}

/// The next change; never when there is nothing to watch any more.
async fn changed<T>(progress: &mut Option<tokio::sync::watch::Receiver<T>>) {
    if let Some(seen) = progress
        && seen.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
