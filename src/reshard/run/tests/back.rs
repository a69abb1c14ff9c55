//! The way back: after the switch until rollback or complete.

use super::*;
use crate::reshard::mover::{Begin, Position};
use crate::reshard::prepare::AfterSwitch;

async fn staying() -> World {
    let mut world = World::new(SwitchMode::Manual).await;
    world.options.after = AfterSwitch::FollowBack;
    world
}

/// Switched, and ready to go back.
async fn switched(world: &World) -> Running {
    let mut job = world.spawn().await;
    job.until("verified", "ready").await;
    let answer = job.ask(Verb::Switch).await;
    assert_eq!(answer.ending, Ending::Done, "{}", answer.message);
    job.until("switched", "rollback").await;
    job
}

fn begun(world: &World) -> Vec<(Begin, u64, u64)> {
    world.data.seen().begun.lock().unwrap().clone()
}

fn position() -> StreamPosition {
    StreamPosition {
        source: "127.0.0.1:7002".to_owned(),
        replid: "abc".to_owned(),
        offset: 42,
        db: 0,
    }
}

#[tokio::test]
async fn a_rollback_brings_the_old_layout_at_the_next_epoch() {
    let world = staying().await;
    let job = switched(&world).await;
    world.assert_all_at(5);
    let status = job.ask(Verb::Status).await.status.unwrap();
    assert_eq!(status.way_back.as_deref(), Some("following back"));
    let answer = job.ask(Verb::Rollback).await;
    assert_eq!(answer.ending, Ending::Done, "{}", answer.message);
    let error = job.ended.await.unwrap().unwrap_err();
    assert_eq!(error.ending(), Ending::Undone, "{error}");
    world.assert_all_at(6);
    assert_eq!(world.state(), "rolled_back");
    for proxy in &world.proxies {
        let state = proxy.state();
        assert_eq!(&state.layout, layout(2).spec());
        assert_eq!(state.job, None, "the job is over");
    }
    let (old, new) = (layout(2).fingerprint(), layout(3).fingerprint());
    let ways: Vec<_> = begun(&world).iter().map(|way| (way.1, way.2)).collect();
    assert_eq!(ways, [(old, new), (new, old)]);
    assert_eq!(world.data.seen().stops.load(SeqCst), 2);
}

#[tokio::test]
async fn a_rollback_past_its_deadline_leaves_the_job_switched() {
    let mut world = staying().await;
    world.options.hold = Duration::from_millis(50);
    let mut job = switched(&world).await;
    world.data.seen().marker_is_lost.store(true, SeqCst);
    let answer = job.ask(Verb::Rollback).await;
    assert_eq!(answer.ending, Ending::Temporary, "{}", answer.message);
    assert!(answer.message.contains("new route"), "{}", answer.message);
    world.assert_all_at(5);
    job.until("switched", "rollback").await;
    assert!(!world.data.seen().is_cut.load(SeqCst), "it follows on");
    world.data.seen().marker_is_lost.store(false, SeqCst);
    assert_eq!(job.ask(Verb::Rollback).await.ending, Ending::Done);
    world.assert_all_at(6);
}

#[tokio::test]
async fn what_has_no_sense_after_the_switch_is_refused() {
    let world = staying().await;
    let job = switched(&world).await;
    for verb in [Verb::Switch, Verb::Cancel, Verb::Pause, Verb::Resume] {
        assert_eq!(job.ask(verb).await.ending, Ending::Guard, "{verb:?}");
    }
    assert_eq!(job.ask(Verb::Verify).await.ending, Ending::Done);
    world.assert_all_at(5);
}

#[tokio::test]
async fn complete_ends_the_process_and_leaves_the_job_switched() {
    let world = staying().await;
    let job = switched(&world).await;
    assert_eq!(job.ask(Verb::Complete).await.ending, Ending::Done);
    job.ended.await.unwrap().unwrap();
    assert_eq!(world.state(), "switched");
    assert_eq!(world.data.seen().stops.load(SeqCst), 2, "nothing follows");
    assert_eq!(world.proxies[0].state().job, None);
    assert!(world.state_dir().lock().is_ok());
}

#[tokio::test]
async fn complete_before_the_switch_is_refused() {
    let world = staying().await;
    let mut job = world.spawn().await;
    job.until("verified", "ready").await;
    assert_eq!(job.ask(Verb::Complete).await.ending, Ending::Guard);
    world.assert_all_at(4);
}

#[tokio::test]
async fn positions_are_used_once_then_checkpoints() {
    let world = staying().await;
    world.died_switched(vec![position()]);
    for expected in [
        Begin::Follow(vec![Position {
            source: "127.0.0.1:7002".parse().unwrap(),
            replid: "abc".to_owned(),
            offset: 42,
            db: 0,
        }]),
        Begin::Resume,
    ] {
        let mut job = world.spawn().await;
        job.until("switched", "rollback").await;
        assert_eq!(begun(&world).pop().unwrap().0, expected);
        job.source.request();
        let error = job.ended.await.unwrap().unwrap_err();
        assert_eq!(error.ending(), Ending::Temporary, "{error}");
        assert_eq!(world.state(), "switched");
    }
}

#[tokio::test]
async fn without_positions_everything_is_copied_backwards() {
    let world = staying().await;
    world.died_switched(Vec::new());
    let mut job = world.spawn().await;
    job.until("switched", "rollback").await;
    assert_eq!(begun(&world).pop().unwrap().0, Begin::Copy);
    assert!(world.data.seen().resumed.load(SeqCst), "its own are there");
    assert_eq!(job.ask(Verb::Rollback).await.ending, Ending::Done);
    world.assert_all_at(6);
}

#[tokio::test]
async fn a_lost_way_back_is_said_and_begun_again() {
    let mut world = staying().await;
    world.options.back_off = Duration::from_millis(200);
    let mut job = switched(&world).await;
    world.data.seen().start_fails.store(true, SeqCst);
    world.data.seen().losses.send_modify(|losses| *losses += 1);
    job.until("switched", "is lost").await;
    let answer = job.ask(Verb::Rollback).await;
    assert_eq!(answer.ending, Ending::Guard);
    assert!(
        answer.message.contains("not available"),
        "{}",
        answer.message
    );
    let status = answer.status.unwrap();
    let way = status.way_back.unwrap();
    assert!(way.starts_with("rollback unavailable because"), "{way}");
    world.assert_all_at(5);
    job.until("switched", "rollback").await;
    let begins: Vec<_> = begun(&world).into_iter().map(|way| way.0).collect();
    // The mover that could not start had begun to copy, as far as anybody knows.
    let after = [Begin::Copy, Begin::Copy, Begin::Resume, Begin::Copy];
    assert_eq!(begins, after);
    assert_eq!(job.ask(Verb::Rollback).await.ending, Ending::Done);
    world.assert_all_at(6);
}

#[tokio::test]
async fn differences_on_the_way_back_are_copied_again() {
    let world = staying().await;
    let mut job = switched(&world).await;
    world.data.seen().differences.store(2, SeqCst);
    assert_eq!(job.ask(Verb::Verify).await.ending, Ending::Differences);
    job.until("switched", "rollback").await;
    assert_eq!(begun(&world).pop().unwrap().0, Begin::Copy);
    assert_eq!(world.state(), "switched");
}

#[tokio::test]
async fn keepers_that_cannot_attach_cost_no_switch() {
    let world = staying().await;
    world.data.seen().keepers_fail.store(true, SeqCst);
    let _job = switched(&world).await;
    world.assert_all_at(5);
}

/// As after a crash in the middle of a rollback.
fn died_going_back(world: &World, decided: bool) {
    world.died_switched(Vec::new());
    let mut records = vec![
        Record::CopyingBegan {
            at_ms: 9,
            beside_others: false,
        },
        Record::FollowingBegan {
            at_ms: 10,
            copied: Copied::default(),
        },
        Record::Verified {
            at_ms: 11,
            keys: 7,
            proof: Vec::new(),
        },
        Record::SwitchIntended {
            settings: Vec::new(),
            at_ms: 12,
            incarnation: 3,
            direction: Direction::Back,
            fence: FenceLevel::ProxiesOnly,
        },
    ];
    if decided {
        records.push(Record::SwitchDecided {
            at_ms: 13,
            positions: Vec::new(),
        });
    }
    world.append(records);
    for proxy in &world.proxies {
        proxy.pend("job-dead", 6, layout(2).spec(), GateView::Armed);
    }
}

#[tokio::test]
async fn died_after_the_decision_to_go_back_it_goes_back() {
    let world = staying().await;
    died_going_back(&world, true);
    let error = world.run().await.unwrap_err();
    assert_eq!(error.ending(), Ending::Undone, "{error}");
    world.assert_all_at(6);
    assert_eq!(world.state(), "rolled_back");
    assert_eq!(world.data.seen().starts.load(SeqCst), 0);
}

#[tokio::test]
async fn died_before_the_decision_to_go_back_it_stays_switched() {
    let world = staying().await;
    died_going_back(&world, false);
    let mut job = world.spawn().await;
    job.until("switched", "rollback").await;
    world.assert_all_at(5);
    assert_eq!(begun(&world).pop().unwrap().0, Begin::Resume);
    assert_eq!(job.ask(Verb::Rollback).await.ending, Ending::Done);
    world.assert_all_at(6);
}

#[tokio::test]
async fn proxies_that_moved_on_leave_no_way_back() {
    let world = staying().await;
    world.died_switched(Vec::new());
    for proxy in &world.proxies {
        proxy.state().epoch = 8;
    }
    let error = prepare(world.state_dir(), world.request())
        .await
        .unwrap_err();
    assert_eq!(error.ending(), Ending::Guard, "{error}");
    assert!(error.to_string().contains("complete"), "{error}");
}

/// A switched job has nothing to fear of a proxy that is away.
#[tokio::test]
async fn a_dead_proxy_does_not_keep_the_way_back_from_being_taken_up() {
    let mut world = staying().await;
    let dead: crate::reshard::proxies::ProxyUrl = "http://127.0.0.1:1".parse().unwrap();
    let alive = std::mem::replace(&mut world.proxies[1].url, dead);
    world.died_switched(vec![position()]);
    let mut job = world.spawn().await;
    job.until("switched", "rollback").await;
    // But without a fence it is needed for the rollback itself.
    let answer = job.ask(Verb::Rollback).await;
    assert_eq!(answer.ending, Ending::Temporary, "{}", answer.message);
    job.source.request();
    job.ended.await.unwrap().unwrap_err();
    assert_eq!(world.state(), "switched");
    world.proxies[1].url = alive;
}
