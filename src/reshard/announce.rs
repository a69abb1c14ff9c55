//! While a job works on a pool, its proxies know: they refuse another job, and
//! a reload that would change the layout under it.
//!
//! The announcement is a lease in the proxies' memory that is renewed from a
//! task of its own. Nothing that matters rests on it: a proxy that missed it
//! still checks layout and epoch when the switch is staged.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::proxies::{Connection, Disagreement, Fleet, ProxyError};

/// How long a proxy believes in a job that it hears nothing of.
pub const LEASE: Duration = Duration::from_secs(20);

/// How often the lease is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// A job that its proxies know of.
#[derive(Debug)]
pub(super) struct Announced {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Who speaks to whom.
struct Speaker {
    pool: String,
    connections: Vec<Connection>,
    job: String,
    incarnation: u64,
    /// How many, from the first on, took the first announcement.
    told: usize,
}

/// What becomes of a proxy that does not answer the first announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// The job does not begin without it.
    Refused,
    /// It is told again and again: the job has switched, and it is late.
    Late,
}

impl Announced {
    /// Tells every proxy, and goes on telling until [`Announced::end`] or a drop.
    ///
    /// # Errors
    /// A proxy that another job has, or that does not answer; those that were
    /// told before it are told that nothing comes of it.
    pub(super) async fn begin(
        fleet: &Fleet,
        job: &str,
        incarnation: u64,
        absent: Absent,
    ) -> Result<Self, Disagreement> {
        let (pool, connections) = fleet.connections();
        let job = job.to_owned();
        let mut speaker = Speaker {
            pool,
            connections,
            job,
            incarnation,
            told: 0,
        };
        if let Err(refused) = speaker.first(absent).await {
            speaker.connections.truncate(speaker.told);
            speaker.say(Duration::ZERO).await;
            return Err(refused);
        }
        let (stop, mut stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            // An error means that its sender is gone, which also ends us.
            while tokio::time::timeout(RENEW_EVERY, stopped.wait_for(|stop| *stop))
                .await
                .is_err()
            {
                speaker.say(LEASE).await;
            }
            speaker.say(Duration::ZERO).await;
        });
        Ok(Self { stop, task })
    }

    /// Tells every proxy that the job is over, as far as they answer.
    pub(super) async fn end(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            warn!(%error, "announcing the job ended badly");
        }
    }
}

impl Speaker {
    async fn first(&mut self, absent: Absent) -> Result<(), Disagreement> {
        for connection in &mut self.connections {
            let said = connection
                .announce(&self.pool, (&self.job, self.incarnation), LEASE, None)
                .await;
            match said {
                Ok(()) => {}
                Err(error) if error.is_for_ejected_shard() => {
                    return Err(Disagreement::Refused(error));
                }
                Err(error @ ProxyError::Refused { .. }) if !error.is_unknown_path() => {
                    return Err(Disagreement::Taken(error));
                }
                // An older proxy knows nothing of announcements.
                Err(ProxyError::Refused { .. }) => {}
                Err(error) if absent == Absent::Late && error.is_temporary() => {
                    warn!(%error, "a late proxy does not know that the job is at work");
                }
                Err(error) => return Err(Disagreement::Unanswered(vec![error])),
            }
            self.told += 1;
        }
        Ok(())
    }

    async fn say(&mut self, lease: Duration) {
        for connection in &mut self.connections {
            let said = connection
                .announce(&self.pool, (&self.job, self.incarnation), lease, None)
                .await;
            if let Err(error) = said {
                debug!(%error, "a proxy did not take the announcement");
            }
        }
    }
}
