//! Do all proxies of a pool route alike, and is the pool free for a job?

use super::{Fleet, PoolView, ProxyError, ProxyUrl};
use crate::router::layout::Layout;

/// Why a job cannot start with the proxies as they are.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Disagreement {
    /// Some proxies did not answer.
    #[error("{}", join(.0))]
    Unanswered(Vec<ProxyError>),
    /// Two proxies route differently.
    #[error("proxy {first} is at epoch {first_epoch} and proxy {second} at epoch {second_epoch}{}: reload the one that is behind, then try again", if *.layouts_differ { ", with different layouts" } else { "" })]
    Differ {
        /// The first of the list.
        first: ProxyUrl,
        /// Its epoch.
        first_epoch: u64,
        /// One that differs.
        second: ProxyUrl,
        /// Its epoch.
        second_epoch: u64,
        /// Whether the layouts differ too.
        layouts_differ: bool,
    },
    /// A proxy knows of another job that works on the pool.
    #[error("{0}: end that job first, or wait until its announcement runs out")]
    Taken(ProxyError),
    /// A proxy knows of another job than the one that asks.
    #[error(
        "proxy {proxy}: job {job} works on the pool: end that job first, or wait until its announcement runs out"
    )]
    Working {
        /// Which proxy.
        proxy: ProxyUrl,
        /// Whose.
        job: String,
    },
    /// A proxy is in the middle of a switch.
    #[error(
        "proxy {proxy} has a switch of job {job} pending ({state}): end that job first (`keyferry reshard status` in its --state directory), or run it again"
    )]
    Busy {
        /// Which proxy.
        proxy: ProxyUrl,
        /// Whose switch.
        job: String,
        /// How far it is.
        state: String,
    },
    /// A proxy has a shard out of its ring, and what was written to its keys since
    /// then is on other shards.
    #[error(
        "proxy {proxy}: {} ejected, and what was written to its keys since then is on other shards: wait until a probe lets it in again (`/api/v1/pools` says why not), or set eject.enabled = false and reload",
        one_or_more(.shards)
    )]
    Ejected {
        /// Which proxy.
        proxy: ProxyUrl,
        /// Names of the shards.
        shards: Vec<String>,
    },
    /// A proxy did not take the announcement of the job for that reason.
    #[error("{0}")]
    Refused(ProxyError),
    /// A proxy reports a layout that this program cannot read.
    #[error("proxy {proxy} reports a layout that cannot be used: {what}")]
    Layout {
        /// Which proxy.
        proxy: ProxyUrl,
        /// What is wrong.
        what: String,
    },
}

fn one_or_more(shards: &[String]) -> String {
    match shards {
        [one] => format!("shard {one} is"),
        more => format!("shards {} are", more.join(", ")),
    }
}

fn join(errors: &[ProxyError]) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    texts.join("\n")
}

impl Disagreement {
    /// Whether the same command may go through a little later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unanswered(errors) => errors.iter().all(ProxyError::is_temporary),
            Self::Differ { .. }
            | Self::Taken(_)
            | Self::Working { .. }
            | Self::Busy { .. }
            | Self::Ejected { .. }
            | Self::Refused(_)
            | Self::Layout { .. } => false,
        }
    }
}

/// What all proxies agree on.
#[derive(Debug)]
pub struct Agreed {
    /// Their epoch.
    pub epoch: u64,
    /// Their layout.
    pub layout: Layout,
    /// Proxies that have shards out of their ring, and which.
    ejected: Vec<(ProxyUrl, Vec<String>)>,
}

impl Agreed {
    /// Whether every proxy has all shards in its ring: no job may begin before.
    ///
    /// # Errors
    /// [`Disagreement::Ejected`].
    pub fn with_all_shards(self) -> Result<Self, Disagreement> {
        match self.ejected.into_iter().next() {
            Some((proxy, shards)) => Err(Disagreement::Ejected { proxy, shards }),
            None => Ok(Self {
                ejected: Vec::new(),
                ..self
            }),
        }
    }
}

impl Fleet {
    /// Asks every proxy and checks that all route alike and none is in a switch
    /// of another job than `own_job`; of a job, also that no other works there.
    ///
    /// # Errors
    /// [`Disagreement`], naming the proxies.
    pub async fn agree(&mut self, own_job: Option<&str>) -> Result<Agreed, Disagreement> {
        let mut views = Vec::new();
        let mut errors = Vec::new();
        for view in self.views().await {
            match view {
                Ok(view) => views.push(view),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(Disagreement::Unanswered(errors));
        }
        let urls: Vec<ProxyUrl> = self.seats.iter().map(|seat| seat.url.clone()).collect();
        agree(&urls, &views, own_job)
    }

    /// The same of a job that has switched to `epoch`: a proxy that does not answer, or
    /// is still at the epoch before, is late, and not needed.
    ///
    /// # Errors
    /// [`Disagreement`]; none answers, too.
    pub async fn agree_but_late(
        &mut self,
        own_job: &str,
        epoch: u64,
    ) -> Result<Agreed, Disagreement> {
        let urls: Vec<ProxyUrl> = self.seats.iter().map(|seat| seat.url.clone()).collect();
        let (mut on_time, mut views, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for (url, view) in urls.into_iter().zip(self.views().await) {
            match view {
                Ok(view) if view.epoch + 1 == epoch => {}
                Ok(view) => {
                    on_time.push(url);
                    views.push(view);
                }
                Err(error) => errors.push(error),
            }
        }
        if views.is_empty() {
            return Err(Disagreement::Unanswered(errors));
        }
        agree(&on_time, &views, Some(own_job))
    }
}

fn agree(
    urls: &[ProxyUrl],
    views: &[PoolView],
    own_job: Option<&str>,
) -> Result<Agreed, Disagreement> {
    let mut agreed: Option<(Agreed, &ProxyUrl)> = None;
    for (url, view) in urls.iter().zip(views) {
        if let Some(pending) = &view.pending
            && own_job != Some(pending.job.as_str())
        {
            return Err(Disagreement::Busy {
                proxy: url.clone(),
                job: pending.job.clone(),
                state: pending.state.clone(),
            });
        }
        if let (Some(own), Some(job)) = (own_job, view.job.as_deref())
            && own != job
        {
            return Err(Disagreement::Working {
                proxy: url.clone(),
                job: job.to_owned(),
            });
        }
        let layout = Layout::new(view.layout.clone()).map_err(|error| Disagreement::Layout {
            proxy: url.clone(),
            what: error.to_string(),
        })?;
        match &agreed {
            None => {
                let epoch = view.epoch;
                let ejected = Vec::new();
                let first = Agreed {
                    epoch,
                    layout,
                    ejected,
                };
                agreed = Some((first, url));
            }
            Some((first, first_url)) => {
                let layouts_differ = first.layout.fingerprint() != layout.fingerprint();
                if first.epoch != view.epoch || layouts_differ {
                    return Err(Disagreement::Differ {
                        first: (*first_url).clone(),
                        first_epoch: first.epoch,
                        second: url.clone(),
                        second_epoch: view.epoch,
                        layouts_differ,
                    });
                }
            }
        }
    }
    let ejected = urls.iter().zip(views).filter_map(|(url, view)| {
        let names: Vec<String> = view.ejected.iter().map(|out| out.shard.clone()).collect();
        (!names.is_empty()).then(|| (url.clone(), names))
    });
    let ejected: Vec<_> = ejected.collect();
    agreed
        .map(|(agreed, _)| Agreed { ejected, ..agreed })
        .ok_or(Disagreement::Unanswered(Vec::new()))
}
