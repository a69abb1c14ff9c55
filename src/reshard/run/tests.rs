mod back;

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::*;
use crate::reshard::control::{Answer, Verb, ask_job};
use crate::reshard::ending::Ending;
use crate::reshard::fakes::{FakeData, FakeProxy, Fault};
use crate::reshard::fence::{FenceChoice, FenceLevel};
use crate::reshard::job::Job;
use crate::reshard::mover::Begin;
use crate::reshard::prepare::{AUTO_TRIES_MAX, Prepared, StartRequest, SwitchMode, prepare};
use crate::reshard::proxies::GateView;
use crate::reshard::record::{Copied, PlannedJob, StreamPosition};
use crate::reshard::report::Report;
use crate::reshard::state_dir::StateDir;
use crate::reshard::stop::{StopSource, stop_channel};
use crate::router::address::ShardAddress;
use crate::router::layout::Layout;
use crate::router::spec::{LayoutSpec, ShardSpec};
use crate::upstream::config::UpstreamConfig;

fn layout(shards: u16) -> Arc<Layout> {
    let shards = (0..shards).map(|at| {
        let address: ShardAddress = format!("127.0.0.1:{}", 1 + at).parse().unwrap();
        ShardSpec::named(&format!("s{at}"), &address)
    });
    let spec = LayoutSpec {
        shards: shards.collect(),
        ..LayoutSpec::default()
    };
    Arc::new(Layout::new(spec).unwrap())
}

/// Two proxies at epoch 4 with two shards; jobs go to three.
struct World {
    dir: tempfile::TempDir,
    proxies: Vec<FakeProxy>,
    data: FakeData,
    options: JobOptions,
}

impl World {
    async fn new(switch: SwitchMode) -> Self {
        let mut proxies = Vec::new();
        for _ in 0..2 {
            proxies.push(FakeProxy::start(4, layout(2).spec()).await);
        }
        Self {
            dir: tempfile::tempdir().unwrap(),
            proxies,
            data: FakeData::default(),
            options: JobOptions {
                switch,
                back_off: Duration::from_millis(1),
                fence: FenceChoice::Proxies,
                ..JobOptions::default()
            },
        }
    }

    fn state_dir(&self) -> StateDir {
        StateDir::at(self.dir.path())
    }

    fn request(&self) -> StartRequest {
        StartRequest {
            from: None,
            pool: "cache".to_owned(),
            config_layout: layout(2),
            to: layout(3),
            proxies: self.proxies.iter().map(|proxy| proxy.url.clone()).collect(),
            proxy_token: None,
            upstream: UpstreamConfig::default(),
            options: self.options.clone(),
        }
    }

    async fn prepared(&self) -> Box<Job> {
        match prepare(self.state_dir(), self.request()).await.unwrap() {
            Prepared::Ready(job) => job,
            other => panic!("{other:?}"),
        }
    }

    async fn run(&self) -> Result<Report, JobError> {
        let (_source, stop) = stop_channel();
        self.prepared().await.run(&self.data, stop).await
    }

    /// Runs a job beside the test, which talks to it.
    async fn spawn(&self) -> Running {
        let job = self.prepared().await;
        let (source, stop) = stop_channel();
        let data = self.data.clone();
        Running {
            dir: self.state_dir(),
            status: job.status(),
            source,
            ended: tokio::spawn(async move { job.run(&data, stop).await }),
        }
    }

    fn state(&self) -> &'static str {
        self.state_dir().history().unwrap().unwrap().state.name()
    }

    fn assert_all_at(&self, epoch: u64) {
        for proxy in &self.proxies {
            proxy.assert_open(epoch);
        }
    }

    /// The journal of a process that died while it switched.
    fn died_switching(&self, decided: bool) {
        let dir = self.state_dir();
        let lock = dir.lock().unwrap();
        let (_, journal) = dir.open(&lock).unwrap();
        let planned = PlannedJob {
            job: "job-dead".to_owned(),
            pool: "cache".to_owned(),
            from: layout(2).spec().clone(),
            to: layout(3).spec().clone(),
            epoch: 5,
            proxies: self
                .proxies
                .iter()
                .map(|proxy| proxy.url.to_string())
                .collect(),
        };
        let mut log = JobLog::begin(journal, planned, 1).unwrap();
        let mut records = vec![
            Record::Started {
                incarnation: 1,
                at_ms: 2,
            },
            Record::CopyingBegan {
                at_ms: 3,
                beside_others: false,
            },
            Record::FollowingBegan {
                at_ms: 4,
                copied: Copied::default(),
            },
            Record::Verified {
                at_ms: 5,
                keys: 7,
                proof: Vec::new(),
            },
            Record::SwitchIntended {
                settings: Vec::new(),
                direction: Direction::Forward,
                at_ms: 6,
                incarnation: 2,
                fence: FenceLevel::ProxiesOnly,
            },
        ];
        if decided {
            records.push(Record::SwitchDecided {
                at_ms: 7,
                positions: Vec::new(),
            });
        }
        for record in records {
            log.record(record, Safety::Synced).unwrap();
        }
    }

    /// A job whose process died after it had switched.
    fn died_switched(&self, positions: Vec<StreamPosition>) {
        self.died_switching(false);
        self.append(vec![
            Record::SwitchDecided {
                at_ms: 7,
                positions,
            },
            Record::SwitchCommitted {
                at_ms: 8,
                proxies: Vec::new(),
                late: Vec::new(),
                bypass: Vec::new(),
            },
        ]);
        for proxy in &self.proxies {
            let mut state = proxy.state();
            state.epoch = 5;
            state.layout = layout(3).spec().clone();
            state.decided_by = Some("job-dead".to_owned());
        }
    }

    /// More records of a job that no process runs.
    fn append(&self, records: Vec<Record>) {
        let dir = self.state_dir();
        let lock = dir.lock().unwrap();
        let (history, journal) = dir.open(&lock).unwrap();
        let mut log = JobLog::new(history.unwrap(), journal);
        for record in records {
            log.record(record, Safety::Synced).unwrap();
        }
    }

    fn pend(&self, proxy: usize, gate: GateView) {
        self.proxies[proxy].pend("job-dead", 5, layout(3).spec(), gate);
    }
}

struct Running {
    dir: StateDir,
    status: watch::Receiver<JobStatus>,
    source: StopSource,
    ended: tokio::task::JoinHandle<Result<Report, JobError>>,
}

impl Running {
    async fn until(&mut self, state: &str, doing: &str) {
        self.status
            .wait_for(|status| status.state == state && status.doing.contains(doing))
            .await
            .unwrap();
    }

    async fn ask(&self, verb: Verb) -> Answer {
        let mut asked = ask_job(&self.dir.socket_path(), verb)
            .await
            .unwrap()
            .unwrap();
        asked.next().await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn it_switches_every_proxy_and_reports() {
    let world = World::new(SwitchMode::Auto).await;
    let report = world.run().await.unwrap();
    world.assert_all_at(5);
    assert_eq!(world.state(), "switched");
    assert_eq!((report.held_requests(), report.held_us_max()), (6, 1500));
    assert_eq!(report.verified_keys, 7);
    assert!(world.state_dir().report_path().exists());
    assert!(!world.state_dir().socket_path().exists());
    let calls = world.proxies[0].state().calls.clone();
    assert_eq!(calls, ["stage", "hold", "arm", "commit"]);
    let moves = world.data.seen();
    assert!(
        moves.is_cut.load(SeqCst),
        "nothing is applied after the switch"
    );
    assert_eq!(moves.stops.load(SeqCst), 1);
    assert!(matches!(
        prepare(world.state_dir(), world.request()).await.unwrap(),
        Prepared::AlreadySwitched(_)
    ));
}

#[tokio::test]
async fn a_try_that_a_proxy_refuses_is_taken_back_and_repeated() {
    for call in ["stage", "hold", "arm"] {
        let world = World::new(SwitchMode::Auto).await;
        world.proxies[1].fail(call, Fault::Refuse);
        let report = world.run().await.unwrap();
        world.assert_all_at(5);
        assert_eq!(report.aborted_switches, 1, "{call}");
        assert!(world.proxies[0].state().calls.contains(&"abort".to_owned()));
    }
}

#[tokio::test]
async fn a_proxy_that_fails_is_quoted() {
    let world = World::new(SwitchMode::Auto).await;
    for _ in 0..AUTO_TRIES_MAX {
        world.proxies[1].fail("stage", Fault::Fail);
    }
    let said = world.run().await.unwrap_err().to_string();
    let url = world.proxies[1].url.to_string();
    for part in [url.as_str(), "the disk is full", "state_not_written"] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    world.assert_all_at(4);
}

#[tokio::test]
async fn a_hold_that_never_answers_ends_at_the_deadline() {
    let mut world = World::new(SwitchMode::Auto).await;
    world.options.hold = Duration::from_millis(400);
    for fault in [Fault::Silent, Fault::DoneButSilent] {
        world.proxies[0].fail("hold", fault);
    }
    let report = world.run().await.unwrap();
    assert_eq!(report.aborted_switches, 2);
    world.assert_all_at(5);
}

#[tokio::test]
async fn a_marker_that_never_comes_leaves_everything_on_the_old_route() {
    let mut world = World::new(SwitchMode::Auto).await;
    world.options.hold = Duration::from_millis(20);
    world.data.seen().marker_is_lost.store(true, SeqCst);
    let error = world.run().await.unwrap_err();
    assert!(
        matches!(error, JobError::SwitchAborted { tries: 3, .. }),
        "{error}"
    );
    assert_eq!(error.ending(), Ending::Temporary);
    world.assert_all_at(4);
    assert_eq!(world.state(), "following");
    assert!(!world.data.seen().is_cut.load(SeqCst), "following goes on");
}

#[tokio::test]
async fn a_target_that_dies_after_the_marker_leaves_everything_on_the_old_route() {
    let world = World::new(SwitchMode::Auto).await;
    world.data.seen().fails_after_cut.store(true, SeqCst);
    let error = world.run().await.unwrap_err();
    assert!(matches!(error, JobError::Move(_)), "{error}");
    world.assert_all_at(4);
    // It passes: the next run goes on where this one was.
    assert_eq!(world.state(), "following");
    let calls = world.proxies[0].state().calls.clone();
    assert!(!calls.contains(&"commit".to_owned()), "{calls:?}");
    world.data.seen().fails_after_cut.store(false, SeqCst);
    world.run().await.unwrap();
    world.assert_all_at(5);
    let begun = world.data.seen().begun.lock().unwrap().clone();
    let begun: Vec<Begin> = begun.into_iter().map(|(begin, ..)| begin).collect();
    assert_eq!(begun, [Begin::Copy, Begin::Resume]);
}

#[tokio::test]
async fn what_was_read_again_is_in_the_report_of_a_job_that_is_over() {
    let world = World::new(SwitchMode::Auto).await;
    world.data.seen().refreshes.store(3, SeqCst);
    let report = world.run().await.unwrap();
    let [of_source] = report.refreshes.as_slice() else {
        panic!("{report}")
    };
    assert_eq!((of_source.keys, of_source.spanning["rename"]), (3, 3));
}

#[tokio::test]
async fn an_error_that_leaves_nothing_to_be_trusted_makes_the_next_run_copy_anew() {
    let world = World::new(SwitchMode::Auto).await;
    world.data.seen().fails_after_cut.store(true, SeqCst);
    world.data.seen().forgets.store(true, SeqCst);
    let error = world.run().await.unwrap_err();
    assert_eq!(error.ending(), Ending::Temporary);
    assert_eq!(world.state(), "failed");
    world.data.seen().fails_after_cut.store(false, SeqCst);
    world.run().await.unwrap();
    let begun = world.data.seen().begun.lock().unwrap().clone();
    let begun: Vec<Begin> = begun.into_iter().map(|(begin, ..)| begin).collect();
    assert_eq!(begun, [Begin::Copy, Begin::Copy]);
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_repeated_until_confirmed() {
    let world = World::new(SwitchMode::Auto).await;
    world.proxies[0].fail("commit", Fault::DoneButSilent);
    world.proxies[1].fail("commit", Fault::Silent);
    world.run().await.unwrap();
    world.assert_all_at(5);
    for proxy in &world.proxies {
        let calls = proxy.state().calls.clone();
        assert_eq!(calls.iter().filter(|call| *call == "commit").count(), 2);
        assert!(!calls.contains(&"abort".to_owned()));
    }
}

#[tokio::test]
async fn differences_end_an_automatic_job_before_it_switches() {
    let world = World::new(SwitchMode::Auto).await;
    world.data.seen().differences.store(2, SeqCst);
    let error = world.run().await.unwrap_err();
    assert_eq!(error.ending(), Ending::Differences);
    world.assert_all_at(4);
    assert!(world.proxies[0].state().calls.is_empty());
    assert_eq!(world.data.seen().stops.load(SeqCst), 1);
}

#[tokio::test]
async fn it_holds_at_ready_and_heeds_pause_verify_and_switch() {
    let world = World::new(SwitchMode::Manual).await;
    let mut job = world.spawn().await;
    job.until("verified", "ready").await;
    assert_eq!(
        job.ask(Verb::Status).await.status.unwrap().state,
        "verified"
    );
    assert_eq!(job.ask(Verb::Pause).await.ending, Ending::Done);
    assert_eq!(job.ask(Verb::Switch).await.ending, Ending::Guard);
    assert_eq!(job.ask(Verb::Resume).await.ending, Ending::Done);
    job.until("verified", "ready").await;

    world.data.seen().differences.store(1, SeqCst);
    assert_eq!(job.ask(Verb::Verify).await.ending, Ending::Differences);
    job.until("following", "waiting").await;
    // The next switch verifies again by itself, since the last one was not clean.
    world.data.seen().differences.store(1, SeqCst);
    assert_eq!(job.ask(Verb::Switch).await.ending, Ending::Guard);
    job.until("following", "waiting").await;
    world.assert_all_at(4);

    let answer = job.ask(Verb::Switch).await;
    assert_eq!(answer.ending, Ending::Done, "{}", answer.message);
    job.ended.await.unwrap().unwrap();
    world.assert_all_at(5);
}

#[tokio::test]
async fn cancel_gives_the_job_up_and_frees_the_directory() {
    let world = World::new(SwitchMode::Manual).await;
    let mut job = world.spawn().await;
    job.until("verified", "ready").await;
    assert_eq!(job.ask(Verb::Cancel).await.ending, Ending::Done);
    let error = job.ended.await.unwrap().unwrap_err();
    assert_eq!(error.ending(), Ending::Undone);
    assert_eq!(world.state(), "cancelled");
    world.assert_all_at(4);
    assert_eq!(world.prepared().await.resumed_from(), None);
}

#[tokio::test]
async fn a_stopped_job_is_resumed_by_the_same_command() {
    let mut world = World::new(SwitchMode::Manual).await;
    let mut job = world.spawn().await;
    job.until("verified", "ready").await;
    job.source.request();
    let error = job.ended.await.unwrap().unwrap_err();
    assert_eq!(error.ending(), Ending::Temporary);
    world.options.switch = SwitchMode::Auto;
    let report = world.run().await.unwrap();
    assert_eq!(report.starts, 2);
    assert!(
        world.data.seen().resumed.load(SeqCst),
        "targets hold our keys"
    );
    world.assert_all_at(5);
}

#[tokio::test]
async fn only_one_process_runs_a_job() {
    let world = World::new(SwitchMode::Manual).await;
    let mut job = world.spawn().await;
    job.until("verified", "ready").await;
    let error = prepare(world.state_dir(), world.request())
        .await
        .unwrap_err();
    assert_eq!(error.ending(), Ending::AlreadyRuns);
    job.ask(Verb::Cancel).await;
    job.ended.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn another_job_in_the_directory_is_refused() {
    let world = World::new(SwitchMode::Manual).await;
    let mut job = world.spawn().await;
    job.until("verified", "ready").await;
    job.source.request();
    job.ended.await.unwrap().unwrap_err();
    let other = StartRequest {
        to: layout(4),
        ..world.request()
    };
    let error = prepare(world.state_dir(), other).await.unwrap_err();
    assert!(matches!(error, JobError::OtherJob(_)), "{error}");
    assert_eq!(error.ending(), Ending::Guard);
}

#[tokio::test]
async fn a_conflict_leaves_nothing_to_resume() {
    let world = World::new(SwitchMode::Auto).await;
    world.data.seen().conflict.store(true, SeqCst);
    let error = world.run().await.unwrap_err();
    assert_eq!(error.ending(), Ending::Guard);
    assert_eq!(world.state(), "cancelled");
    world.data.seen().conflict.store(false, SeqCst);
    world.run().await.unwrap();
    assert!(!world.data.seen().resumed.load(SeqCst));
    world.assert_all_at(5);
}

#[tokio::test]
async fn a_job_that_is_not_let_in_leaves_nothing() {
    let world = World::new(SwitchMode::Auto).await;
    let job = world.prepared().await;
    world.proxies[1].state().job = Some("job-other".to_owned());
    let (_source, stop) = stop_channel();
    let error = job.run(&world.data, stop).await.unwrap_err();
    assert_eq!(error.ending(), Ending::Guard, "{error}");
    assert_eq!(world.state_dir().history().unwrap(), None);
    assert_eq!(world.proxies[0].state().job, None, "taken back");
    assert_eq!(world.data.seen().starts.load(SeqCst), 0);
}

#[tokio::test]
async fn while_it_runs_proxies_know_of_it_and_then_no_more() {
    let world = World::new(SwitchMode::Manual).await;
    let mut job = world.spawn().await;
    job.until("verified", "ready").await;
    let name = job.status.borrow().job.clone();
    for proxy in &world.proxies {
        assert_eq!(proxy.state().job.as_ref(), Some(&name));
    }
    job.source.request();
    job.ended.await.unwrap().unwrap_err();
    for proxy in &world.proxies {
        assert_eq!(proxy.state().job, None);
    }
}

#[tokio::test]
async fn a_job_that_only_was_planned_looks_at_every_server_again() {
    let world = World::new(SwitchMode::Auto).await;
    world.data.seen().check_hangs.store(true, SeqCst);
    let mut job = world.spawn().await;
    job.until("planned", "keys in the targets").await;
    job.source.request();
    job.ended.await.unwrap().unwrap_err();
    world.data.seen().check_hangs.store(false, SeqCst);
    assert_eq!(world.data.seen().preflights.load(SeqCst), 1);
    world.run().await.unwrap();
    assert_eq!(world.data.seen().preflights.load(SeqCst), 2);
}

#[tokio::test]
async fn stopped_while_it_looks_at_targets_it_takes_no_key_for_its_own() {
    let world = World::new(SwitchMode::Auto).await;
    world.data.seen().check_hangs.store(true, SeqCst);
    let mut job = world.spawn().await;
    job.until("planned", "keys in the targets").await;
    job.source.request();
    job.ended.await.unwrap().unwrap_err();
    assert_eq!(world.state(), "planned");
    world.data.seen().check_hangs.store(false, SeqCst);
    world.run().await.unwrap();
    assert!(!world.data.seen().resumed.load(SeqCst));
    world.assert_all_at(5);
}

#[tokio::test]
async fn sources_are_let_go_while_a_commit_is_repeated() {
    let world = World::new(SwitchMode::Auto).await;
    world.proxies[1].fail("commit", Fault::Silent);
    let mut job = world.spawn().await;
    job.until("switching", "committing").await;
    job.until("switching", &world.proxies[1].url.to_string())
        .await;
    assert!(world.data.seen().is_detached.load(SeqCst));
    job.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn proxies_that_disagree_or_are_dead_are_named() {
    let world = World::new(SwitchMode::Auto).await;
    world.proxies[1].state().epoch = 9;
    let error = prepare(world.state_dir(), world.request())
        .await
        .unwrap_err();
    assert_eq!(error.ending(), Ending::Guard);
    assert!(
        error
            .to_string()
            .contains(&world.proxies[1].url.to_string())
    );

    let mut request = world.request();
    request.proxies[1] = "http://127.0.0.1:1".parse().unwrap();
    let error = prepare(world.state_dir(), request).await.unwrap_err();
    assert_eq!(error.ending(), Ending::Temporary);
    assert!(error.to_string().contains("http://127.0.0.1:1"));
    assert_eq!(world.state_dir().history().unwrap(), None);
}

#[tokio::test]
async fn a_proxy_that_wants_a_token_gets_it() {
    let world = World::new(SwitchMode::Auto).await;
    world.proxies[0].state().token = Some("0123456789abcdef".to_owned());
    let error = prepare(world.state_dir(), world.request())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("--proxy-token-file"), "{error}");
    let token = crate::upstream::config::Secret::new("0123456789abcdef");
    let request = StartRequest {
        proxy_token: Some(token),
        ..world.request()
    };
    assert!(matches!(
        prepare(world.state_dir(), request).await,
        Ok(Prepared::Ready(_))
    ));
}

#[tokio::test]
async fn nothing_to_do_when_the_proxies_have_the_layout() {
    let world = World::new(SwitchMode::Auto).await;
    let request = StartRequest {
        to: layout(2),
        ..world.request()
    };
    assert!(matches!(
        prepare(world.state_dir(), request).await.unwrap(),
        Prepared::NothingToDo(_)
    ));
}

#[tokio::test]
async fn died_after_a_commit_goes_forward() {
    let world = World::new(SwitchMode::Auto).await;
    world.died_switching(true);
    {
        let mut first = world.proxies[0].state();
        first.epoch = 5;
        first.layout = layout(3).spec().clone();
        first.decided_by = Some("job-dead".to_owned());
    }
    world.pend(1, GateView::Fenced);
    world.run().await.unwrap();
    world.assert_all_at(5);
    assert_eq!(world.state(), "switched");
    assert_eq!(
        world.data.seen().starts.load(SeqCst),
        0,
        "nothing is copied any more"
    );
}

#[tokio::test]
async fn a_layout_that_another_brought_is_no_commit_of_ours() {
    for decided_by in [None, Some("job-other".to_owned())] {
        let world = World::new(SwitchMode::Auto).await;
        world.died_switching(true);
        {
            let mut first = world.proxies[0].state();
            first.epoch = 5;
            first.layout = layout(3).spec().clone();
            first.decided_by = decided_by;
        }
        world.pend(1, GateView::Fenced);
        let error = world.run().await.unwrap_err();
        assert_eq!(error.ending(), Ending::Guard, "{error}");
        let url = world.proxies[0].url.to_string();
        assert!(error.to_string().contains(&url), "{error}");
        for proxy in &world.proxies {
            assert!(proxy.state().calls.is_empty(), "nothing was decided");
        }
        assert_eq!(world.state(), "switching");
    }
}

#[tokio::test]
async fn died_after_its_decision_goes_forward() {
    let world = World::new(SwitchMode::Auto).await;
    world.died_switching(true);
    world.pend(0, GateView::Armed);
    world.pend(1, GateView::Fenced);
    world.run().await.unwrap();
    world.assert_all_at(5);
    assert_eq!(world.data.seen().starts.load(SeqCst), 0);
}

#[tokio::test]
async fn died_before_its_decision_goes_back_and_copies_again() {
    let world = World::new(SwitchMode::Auto).await;
    world.died_switching(false);
    world.pend(0, GateView::Fenced);
    world.pend(1, GateView::Open);
    let report = world.run().await.unwrap();
    world.assert_all_at(5);
    assert_eq!((report.aborted_switches, report.starts), (1, 2));
    assert!(world.data.seen().resumed.load(SeqCst));
    let calls = world.proxies[0].state().calls.clone();
    assert_eq!(calls, ["abort", "stage", "hold", "arm", "commit"]);
}

/// A proxy that was not told of an abort is told when the job is given up.
#[tokio::test]
async fn a_stage_that_is_left_is_aborted_when_the_job_is_given_up() {
    let mut world = World::new(SwitchMode::Manual).await;
    world.options.hold = Duration::from_millis(100);
    let mut job = world.spawn().await;
    job.until("verified", "ready").await;
    world.data.seen().marker_is_lost.store(true, SeqCst);
    assert_eq!(job.ask(Verb::Switch).await.ending, Ending::Temporary);
    job.until("verified", "ready").await;
    let name = world.state_dir().history().unwrap().unwrap().planned.job;
    world.proxies[1].pend(&name, 5, layout(3).spec(), GateView::Fenced);
    assert_eq!(job.ask(Verb::Cancel).await.ending, Ending::Done);
    job.ended.await.unwrap().unwrap_err();
    world.assert_all_at(4);
}

/// Half of `--hold` is the most that a hold takes while nothing is fenced.
#[tokio::test]
async fn a_hold_that_drags_on_is_taken_back_before_the_deadline() {
    let mut world = World::new(SwitchMode::Manual).await;
    world.options.hold = Duration::from_secs(2);
    let mut job = world.spawn().await;
    job.until("verified", "ready").await;
    world.proxies[0].fail("hold", Fault::Silent);
    let answer = job.ask(Verb::Switch).await;
    assert_eq!(answer.ending, Ending::Temporary);
    assert!(
        answer.message.contains("half of --hold"),
        "{}",
        answer.message
    );
    world.assert_all_at(4);
    job.ask(Verb::Cancel).await;
    job.ended.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn an_interrupted_switch_waits_for_every_proxy() {
    let mut world = World::new(SwitchMode::Auto).await;
    let dead: crate::reshard::proxies::ProxyUrl = "http://127.0.0.1:1".parse().unwrap();
    let alive = std::mem::replace(&mut world.proxies[1].url, dead);
    world.died_switching(true);
    world.pend(0, GateView::Armed);
    let error = world.run().await.unwrap_err();
    assert_eq!(error.ending(), Ending::Temporary, "{error}");
    assert!(error.to_string().contains("http://127.0.0.1:1"), "{error}");
    assert!(
        world.proxies[0].state().calls.is_empty(),
        "nothing was decided"
    );
    assert_eq!(world.state(), "switching");
    world.proxies[1].url = alive;
}
