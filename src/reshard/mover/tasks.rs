//! The mover's tasks: each has a name, is told to stop, and is joined.
//!
//! One supervisor owns them all. The first that fails decides why the mover
//! failed; the others are told to stop then, since a job with one source or
//! target missing cannot reach its end.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};

use super::config::JOIN_MS_MAX;
use super::error::MoveError;

/// Why the mover failed, once it has.
#[derive(Debug, Clone)]
pub(super) struct Failure(Arc<watch::Sender<Option<MoveError>>>);

impl Failure {
    pub(super) fn new() -> Failure {
        Failure(Arc::new(watch::Sender::new(None)))
    }

    /// Keeps the first failure.
    pub(super) fn record(&self, error: MoveError) {
        self.0.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                *slot = Some(error);
            }
            first
        });
    }

    /// Resolves when there is a failure.
    pub(super) async fn wait(&self) -> MoveError {
        let mut seen = self.0.subscribe();
        match seen.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or(MoveError::Stopped),
            Err(_) => MoveError::Stopped,
        }
    }

    /// Runs `work` unless the mover fails first.
    pub(super) async fn or<T>(
        &self,
        work: impl Future<Output = Result<T, MoveError>>,
    ) -> Result<T, MoveError> {
        tokio::select! {
            biased;
            error = self.wait() => Err(error),
            done = work => done,
        }
    }
}

/// Tasks that are being collected before they are handed to the supervisor.
pub(super) struct TaskSet {
    set: JoinSet<Result<(), MoveError>>,
    names: HashMap<Id, String>,
    stop: watch::Sender<bool>,
    failure: Failure,
}

/// The running tasks.
pub(super) struct Tasks {
    supervisor: JoinHandle<Vec<String>>,
    stop: watch::Sender<bool>,
}

impl TaskSet {
    pub(super) fn new(failure: Failure) -> TaskSet {
        TaskSet {
            set: JoinSet::new(),
            names: HashMap::new(),
            stop: watch::Sender::new(false),
            failure,
        }
    }

    pub(super) fn stop_signal(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Starts a task; its error becomes the mover's.
    pub(super) fn spawn<F>(&mut self, name: String, work: F)
    where
        F: Future<Output = Result<(), MoveError>> + Send + 'static,
    {
        let failure = self.failure.clone();
        let stopping = self.stop.subscribe();
        let handle = self.set.spawn(async move {
            // Recorded before the task's channels close, so that its neighbours'
            // complaints about those come second.
            let mut work = Box::pin(work);
            let done = work.as_mut().await;
            // Told to stop, it may trip over a neighbour that stopped before it.
            if let Err(error) = &done
                && !*stopping.borrow()
            {
                failure.record(error.clone());
            }
            drop(work);
            done
        });
        self.names.insert(handle.id(), name);
    }

    /// From now on the supervisor watches over them.
    pub(super) fn supervise(self) -> Tasks {
        let stop = self.stop.clone();
        Tasks {
            supervisor: tokio::spawn(supervise(self)),
            stop,
        }
    }
}

impl Tasks {
    /// Tells all tasks to stop; [`Tasks::stop`] joins them.
    pub(super) fn tell(&self) {
        self.stop.send_replace(true);
    }

    /// Resolves when the tasks were told to stop.
    pub(super) async fn told(&self) {
        // The sender is ours, so this ends by the value only.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }

    /// Tells all tasks to stop and joins them; the error names who did not finish.
    pub(super) async fn stop(mut self) -> Result<(), MoveError> {
        self.stop.send_replace(true);
        let grace = Duration::from_millis(JOIN_MS_MAX * 2);
        match tokio::time::timeout(grace, &mut self.supervisor).await {
            Ok(Ok(late)) if late.is_empty() => Ok(()),
            Ok(Ok(late)) => Err(MoveError::TaskLost {
                task: late.join(", "),
                how: format!("it did not stop within {JOIN_MS_MAX} ms"),
            }),
            Ok(Err(error)) => Err(lost("supervisor", &error)),
            Err(_) => Err(MoveError::TaskLost {
                task: "supervisor".to_owned(),
                how: "it did not stop".to_owned(),
            }),
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        // A mover that is dropped without `stop` still ends its tasks.
        self.stop.send_replace(true);
    }
}

/// Joins all tasks; returns the names of those that had to be aborted.
async fn supervise(mut tasks: TaskSet) -> Vec<String> {
    let mut stop = tasks.stop.subscribe();
    loop {
        tokio::select! {
            joined = tasks.set.join_next_with_id() => match joined {
                None => return Vec::new(),
                Some(joined) => tasks.on_joined(joined),
            },
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    let grace = tokio::time::sleep(Duration::from_millis(JOIN_MS_MAX));
    tokio::pin!(grace);
    loop {
        tokio::select! {
            joined = tasks.set.join_next_with_id() => match joined {
                None => return Vec::new(),
                Some(joined) => tasks.on_joined(joined),
            },
            () = &mut grace => break,
        }
    }
    let late = tasks.names.values().cloned().collect();
    tasks.set.shutdown().await;
    late
}

impl TaskSet {
    fn on_joined(&mut self, joined: Result<(Id, Result<(), MoveError>), JoinError>) {
        match joined {
            Ok((id, done)) => {
                self.names.remove(&id);
                if done.is_err() {
                    self.stop.send_replace(true);
                }
            }
            Err(error) => {
                let name = self.names.remove(&error.id()).unwrap_or_default();
                self.failure.record(lost(&name, &error));
                self.stop.send_replace(true);
            }
        }
    }
}

fn lost(task: &str, error: &JoinError) -> MoveError {
    MoveError::TaskLost {
        task: task.to_owned(),
        how: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_failure_is_kept_and_stops_the_others() {
        let failure = Failure::new();
        let mut set = TaskSet::new(failure.clone());
        let mut stop = set.stop_signal();
        set.spawn("patient".to_owned(), async move {
            let _ = stop.wait_for(|stop| *stop).await;
            Ok(())
        });
        set.spawn("failing".to_owned(), async {
            Err(MoveError::NotDeterministic { which: "old" })
        });
        let tasks = set.supervise();
        assert!(matches!(
            failure.wait().await,
            MoveError::NotDeterministic { .. }
        ));
        tasks.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_named() {
        let failure = Failure::new();
        let mut set = TaskSet::new(failure.clone());
        set.spawn("clumsy".to_owned(), async { panic!("dropped it") });
        let tasks = set.supervise();
        assert!(failure.wait().await.to_string().contains("clumsy"));
        tasks.stop().await.unwrap();
    }
}
