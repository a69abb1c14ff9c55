//! Deleting moved keys, as long as they are moved: work that goes on only while
//! every proxy routes by the job's layout and knows of no other job.
//!
//! A later job, or an operator's reload, may make an old shard the owner of
//! these keys again; what it writes there must not be deleted. So the job
//! announces itself, which keeps both out, and looks again every
//! [`CHECK_EVERY`], which notices a proxy that forgot it.
//!
//! Invariant: the work does not go on while a look is under way.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::sleep;

use super::announce::{Absent, Announced};
use super::history::History;
use super::job_error::JobError;
use super::proxies::Fleet;
use crate::router::layout::Layout;

/// Time between two looks at every proxy; shorter than the announcement's lease.
pub const CHECK_EVERY: Duration = Duration::from_secs(2);
const _: () = assert!(CHECK_EVERY.as_millis() < super::announce::LEASE.as_millis());

/// Does `work` while every proxy is where the switched job of `history` brought it.
///
/// # Errors
/// [`JobError::NotInForce`] and [`JobError::Proxies`]: `work` was not begun.
/// [`JobError::PurgeStopped`]: it was, and was dropped.
pub async fn while_in_force<T>(
    mut fleet: Fleet,
    history: &History,
    check_every: Duration,
    work: impl Future<Output = T>,
) -> Result<T, JobError> {
    let planned = &history.planned;
    let to = Layout::new(planned.to.clone())?;
    let announced =
        Announced::begin(&fleet, &planned.job, history.incarnation, Absent::Refused).await?;
    let done = async {
        check(&mut fleet, history, &to).await?;
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = sleep(check_every) => {}
            }
            let checked = check(&mut fleet, history, &to).await;
            checked.map_err(|why| JobError::PurgeStopped(Box::new(why)))?;
        }
    }
    .await;
    announced.end().await;
    done
}

async fn check(fleet: &mut Fleet, history: &History, to: &Layout) -> Result<(), JobError> {
    let planned = &history.planned;
    let agreed = fleet.agree(Some(&planned.job)).await?;
    let layout_differs = agreed.layout.fingerprint() != to.fingerprint();
    if agreed.epoch == planned.epoch && !layout_differs {
        return Ok(());
    }
    Err(JobError::NotInForce {
        job: planned.job.clone(),
        epoch: agreed.epoch,
        wanted: planned.epoch,
        layout_differs,
    })
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::reshard::ending::Ending;
    use crate::reshard::fakes::FakeProxy;
    use crate::reshard::record::PlannedJob;
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
        (proxy, fleet, History::of_plan(planned, 1))
    }

    #[tokio::test]
    async fn proxies_know_of_the_job_as_long_as_it_deletes() {
        let (proxy, fleet, history) = switched().await;
        let seen = async { proxy.state().job.clone() };
        let seen = while_in_force(fleet, &history, OFTEN, seen).await.unwrap();
        assert_eq!(seen.as_deref(), Some("job-ours"));
        assert_eq!(proxy.state().job, None);
    }

    #[tokio::test]
    async fn nothing_is_begun_at_another_epoch_or_under_another_job() {
        let (proxy, fleet, history) = switched().await;
        proxy.state().epoch = 6;
        let unwanted = async { panic!("begun") };
        let ended: Result<(), _> = while_in_force(fleet, &history, OFTEN, unwanted).await;
        assert_eq!(ended.unwrap_err().ending(), Ending::Guard);

        let (proxy, fleet, history) = switched().await;
        proxy.state().job = Some("job-other".to_owned());
        let unwanted = async { panic!("begun") };
        let ended: Result<(), _> = while_in_force(fleet, &history, OFTEN, unwanted).await;
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
            let (proxy, fleet, history) = switched().await;
            let endless = async {
                change(&proxy);
                pending::<()>().await;
            };
            let ended = while_in_force(fleet, &history, OFTEN, endless).await;
            let error = ended.unwrap_err();
            assert!(matches!(error, JobError::PurgeStopped(_)), "{error}");
            assert_eq!(error.ending(), Ending::Failed);
        }
    }
}
