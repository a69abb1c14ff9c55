//! The switch in a simulated world: the product's own machines of the proxies and
//! of the job, everything else a model; messages are late or lost, processes die,
//! all from a seed. A seed is a run: `KEYFERRY_TEST_SEED=n` runs that one again, and
//! tells what happens in it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

#[path = "simulation/check.rs"]
mod check;
#[path = "simulation/event.rs"]
mod event;
#[path = "simulation/job.rs"]
mod job;
#[path = "simulation/mover.rs"]
mod mover;
#[path = "simulation/post.rs"]
mod post;
#[path = "simulation/proxy.rs"]
mod proxy;
#[path = "simulation/server.rs"]
mod server;
#[path = "simulation/switch.rs"]
mod switch;
#[path = "simulation/world.rs"]
mod world;

use world::{Mistake, World};

/// How many seeds a run of the suite tries; `KEYFERRY_TEST_SEEDS` says another number.
const SEEDS: u64 = 10_000;

/// Seeds that a mistake has to show itself.
const MISTAKE_SEEDS_MAX: u64 = 20_000;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a decimal number"))
}

#[test]
fn no_seed_breaks_an_invariant() {
    if let Some(seed) = setting("KEYFERRY_TEST_SEED") {
        println!("KEYFERRY_TEST_SEED={seed}");
        let mut world = World::new(seed, Mistake::None);
        world.is_told = true;
        let epoch = world.run();
        return println!("it came to epoch {}", epoch.unwrap());
    }
    let seeds = setting("KEYFERRY_TEST_SEEDS").unwrap_or(SEEDS);
    let mut ends = [0; 4];
    for seed in 0..seeds {
        match World::new(seed, Mistake::None).run() {
            Ok(epoch) => ends[epoch as usize] += 1,
            Err(why) => panic!("KEYFERRY_TEST_SEED={seed}: {why}"),
        }
    }
    let [_, stayed, switched, back] = ends;
    println!("{seeds} seeds: {stayed} stayed, {switched} switched, {back} switched and went back");
    assert!(
        stayed < seeds / 10 && back > seeds / 8,
        "most find their way through"
    );
}

#[test]
fn a_seed_is_a_run() {
    for seed in 0..50 {
        let mistake = Mistake::HoldIgnored;
        let (one, two) = (
            World::new(seed, mistake).run(),
            World::new(seed, mistake).run(),
        );
        assert_eq!(one, two, "seed {seed}");
    }
}

#[test]
fn each_mistake_of_the_model_is_seen() {
    for mistake in [
        Mistake::BatchAppliedTwice,
        Mistake::CheckpointOutsideMulti,
        Mistake::LanesReordered,
        Mistake::MarkerIgnored,
        Mistake::HoldIgnored,
        Mistake::DecisionNotRecorded,
        Mistake::FenceSkipped,
        Mistake::UnfencedEarly,
        Mistake::FenceLeftUp,
        Mistake::FenceNotWatched,
        Mistake::OldPostsLinger,
        Mistake::EpochUnchecked,
        Mistake::IncarnationUnchecked,
        Mistake::NoEpochUsers,
        Mistake::ReverseStartsLate,
    ] {
        let caught = (0..MISTAKE_SEEDS_MAX)
            .find_map(|seed| World::new(seed, mistake).run().err().map(|why| (seed, why)));
        let (seed, why) = caught.unwrap_or_else(|| panic!("nobody saw {mistake:?}"));
        println!("{mistake:?} at seed {seed}: {why}");
    }
}
