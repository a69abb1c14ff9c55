//! Deleting keys where they are not any more, as long as they are not: on old shards
//! what a completed job moved, on new ones what a job that was taken back had copied.
//! Work that goes on only while every proxy routes by the layout that the job left in
//! force and knows of no other job.
//!
//! A later job, or an operator's reload, may make such a shard the owner of
//! these keys again; what it writes there must not be deleted. So the job
//! announces itself, which keeps both out, and looks again every
//! [`CHECK_EVERY`], which notices a proxy that forgot it.
//!
//! Invariant: the work does not go on while a look is under way.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::announce::{Absent, Announced};
use super::history::History;
use super::job_error::JobError;
use super::mover::remove_copies;
use super::proxies::Fleet;
use crate::router::layout::Layout;
use crate::router::moves::Moves;
use crate::upstream::config::UpstreamConfig;

/// Time between two looks at every proxy; shorter than the announcement's lease.
pub const CHECK_EVERY: Duration = Duration::from_secs(2);
const _: () = assert!(CHECK_EVERY.as_millis() < super::announce::LEASE.as_millis());

/// Keys deleted a second when nobody said how many.
pub const KEYS_PER_S_DEFAULT: u64 = 20_000;

/// Does `work` while every proxy is where the job of `history` left it.
///
/// # Errors
/// [`JobError::NotInForce`] and [`JobError::Proxies`]: `work` was not begun.
/// [`JobError::PurgeStopped`]: it was, and was dropped.
pub async fn while_in_force<T>(
    fleet: &mut Fleet,
    history: &History,
    check_every: Duration,
    work: impl Future<Output = T>,
) -> Result<T, JobError> {
    let planned = &history.planned;
    let (job, incarnation) = (&planned.job, history.incarnation);
    let announced = Announced::begin(fleet, job, incarnation, Absent::Refused).await?;
    let done = async {
        check(fleet, history).await?;
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = sleep(check_every) => {}
            }
            let checked = check(fleet, history).await;
            checked.map_err(|why| JobError::PurgeStopped(Box::new(why)))?;
        }
    }
    .await;
    announced.end().await;
    done
}

async fn check(fleet: &mut Fleet, history: &History) -> Result<(), JobError> {
    let planned = &history.planned;
    let (epoch, layout) = history.in_force();
    let layout = Layout::new(layout.clone())?;
    let agreed = fleet.agree(Some(&planned.job)).await?;
    let layout_differs = agreed.layout.fingerprint() != layout.fingerprint();
    if agreed.epoch == epoch && !layout_differs {
        return Ok(());
    }
    Err(JobError::NotInForce {
        job: planned.job.clone(),
        epoch: agreed.epoch,
        wanted: epoch,
        layout_differs,
    })
}

/// Removes what a job that was taken back had copied; how many keys. Dropped, it
/// leaves the rest, and the same again goes on.
///
/// # Errors
/// As [`while_in_force`], or a server's.
pub async fn purge_copies(
    fleet: &mut Fleet,
    history: &History,
    upstream: &UpstreamConfig,
    keys_per_s: u64,
) -> Result<u64, JobError> {
    let planned = &history.planned;
    let from = Arc::new(Layout::new(planned.from.clone())?);
    let to = Arc::new(Layout::new(planned.to.clone())?);
    let moves = Arc::new(Moves::between(from, to)?);
    let removing = remove_copies(&moves, upstream, &planned.job, keys_per_s);
    let report = while_in_force(fleet, history, CHECK_EVERY, removing).await??;
    Ok(report.keys())
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::reshard::ending::Ending;
    use crate::reshard::fakes::FakeProxy;
    use crate::reshard::fence::FenceLevel;
    use crate::reshard::record::{Copied, Direction, PlannedJob, Record};
    use crate::router::address::ShardAddress;
    use crate::router::spec::{LayoutSpec, ShardSpec};

    const OFTEN: Duration = Duration::from_millis(5);

    fn spec(port: u16) -> LayoutSpec {
        let address: ShardAddress = format!("127.0.0.1:{port}").parse().unwrap();
        LayoutSpec {
            shards: vec![ShardSpec::at(&address)],
            ..LayoutSpec::default()
        }
    }

    async fn switched() -> (FakeProxy, Fleet, History) {
        let proxy = FakeProxy::start(5, &spec(7001)).await;
        let fleet = Fleet::new("cache", vec![proxy.url.clone()], None);
        let planned = PlannedJob {
            job: "job-ours".to_owned(),
            pool: "cache".to_owned(),
            from: spec(7000),
            to: spec(7001),
            epoch: 5,
            proxies: vec![proxy.url.to_string()],
        };
        let records = [
            Record::Started {
                incarnation: 1,
                at_ms: 1,
            },
            Record::CopyingBegan {
                at_ms: 1,
                beside_others: false,
            },
            Record::FollowingBegan {
                at_ms: 1,
                copied: Copied::default(),
            },
            Record::Verified {
                at_ms: 1,
                keys: 1,
                proof: Vec::new(),
            },
            Record::SwitchIntended {
                at_ms: 1,
                incarnation: 2,
                fence: FenceLevel::ProxiesOnly,
                direction: Direction::Forward,
                settings: Vec::new(),
            },
            Record::SwitchDecided {
                at_ms: 1,
                positions: Vec::new(),
            },
            Record::SwitchCommitted {
                at_ms: 1,
                proxies: Vec::new(),
                late: Vec::new(),
                bypass: Vec::new(),
            },
        ];
        let first = History::of_plan(planned, 1).records;
        let records = first.into_iter().chain(records).collect();
        let history = History::replay(records).unwrap().unwrap();
        (proxy, fleet, history)
    }

    #[tokio::test]
    async fn proxies_know_of_the_job_as_long_as_it_deletes() {
        let (proxy, mut fleet, history) = switched().await;
        let seen = async { proxy.state().job.clone() };
        let seen = while_in_force(&mut fleet, &history, OFTEN, seen)
            .await
            .unwrap();
        assert_eq!(seen.as_deref(), Some("job-ours"));
        assert_eq!(proxy.state().job, None);
    }

    #[tokio::test]
    async fn nothing_is_begun_at_another_epoch_or_under_another_job() {
        let (proxy, mut fleet, history) = switched().await;
        proxy.state().epoch = 6;
        let unwanted = async { panic!("begun") };
        let ended: Result<(), _> = while_in_force(&mut fleet, &history, OFTEN, unwanted).await;
        assert_eq!(ended.unwrap_err().ending(), Ending::Guard);

        let (proxy, mut fleet, history) = switched().await;
        proxy.state().job = Some("job-other".to_owned());
        let unwanted = async { panic!("begun") };
        let ended: Result<(), _> = while_in_force(&mut fleet, &history, OFTEN, unwanted).await;
        assert_eq!(ended.unwrap_err().ending(), Ending::Guard);
    }

    #[tokio::test]
    async fn a_change_meanwhile_stops_it() {
        type Change = fn(&FakeProxy);
        let changes: [Change; 3] = [
            |proxy| proxy.state().epoch = 6,
            |proxy| proxy.state().layout = spec(7000),
            |proxy| proxy.state().job = Some("job-other".to_owned()),
        ];
        for change in changes {
            let (proxy, mut fleet, history) = switched().await;
            let endless = async {
                change(&proxy);
                pending::<()>().await;
            };
            let ended = while_in_force(&mut fleet, &history, OFTEN, endless).await;
            let error = ended.unwrap_err();
            assert!(matches!(error, JobError::PurgeStopped(_)), "{error}");
            assert_eq!(error.ending(), Ending::Failed);
        }
    }

    #[tokio::test]
    async fn what_is_to_be_in_force_depends_on_how_the_job_ended() {
        let (_, _, switched) = switched().await;
        assert_eq!(switched.in_force().0, 5);
        assert!(!switched.leaves_copies());
        let unswitched = switched.records.iter().take(4).cloned();
        let cancelled = Record::Cancelled {
            at_ms: 2,
            why: String::new(),
        };
        let records: Vec<_> = unswitched.chain([cancelled]).collect();
        let cancelled = History::replay(records.clone()).unwrap().unwrap();
        assert_eq!(cancelled.in_force(), (4, &spec(7000)));
        assert!(cancelled.leaves_copies());
        let removed = Record::CopiesRemoved { at_ms: 3, keys: 7 };
        let records: Vec<_> = records.into_iter().chain([removed]).collect();
        assert!(!History::replay(records).unwrap().unwrap().leaves_copies());
    }
}
