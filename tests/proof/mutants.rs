//! Each mistake of `src/planted.rs` is made in a scenario that shows it, and some
//! checker must see it: the harness tested by the bugs it is for.
//!
//! The load is random, so a mistake may do no harm once: it is made again with the
//! next seed, [`SEEDS_MAX`] times. One that is never caught fails. Lines that begin
//! with `caught: ` are the table of `docs/proof.md` (`scripts/proof --table`).

use crate::proof::disturbed;
use crate::proof::scenarios::{self, Scenario, alone};
use crate::proof::world::Where;
use crate::support::seeded;

/// Seeds that a mistake has to show itself.
const SEEDS_MAX: u32 = 32;

fn is_caught(mistake: &'static str, place: Where, name: &str, scenario: Scenario) {
    let _alone = alone();
    let mut rng = seeded(mistake);
    for tries in 1..=SEEDS_MAX {
        let seed = rng.u64(..);
        let mut once = fastrand::Rng::with_seed(seed);
        let world = scenario(&mut once, Some((mistake, place)));
        let caught_by = world.proven_by();
        if !caught_by.is_empty() {
            let by = caught_by.join(", ");
            let place = format!("{place:?}").to_lowercase();
            println!("caught: | `{mistake}` | {place} | {name} | {by} | {tries} |");
            return;
        }
    }
    panic!("{mistake} was planted {SEEDS_MAX} times, and nobody saw it");
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn hold_ignored() {
    let scenario = scenarios::cutover_under_load;
    is_caught(
        "HoldIgnored",
        Where::Proxies,
        "cutover under load",
        scenario,
    );
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn hold_released_early() {
    let scenario = scenarios::cutover_under_load;
    is_caught(
        "HoldReleasedEarly",
        Where::Proxies,
        "cutover under load",
        scenario,
    );
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn commit_before_marker() {
    let scenario = scenarios::target_asleep_at_the_switch;
    is_caught(
        "CommitBeforeMarker",
        Where::Job,
        "target asleep at the switch",
        scenario,
    );
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn marker_ignored() {
    let scenario = scenarios::target_asleep_at_the_switch;
    is_caught(
        "MarkerIgnored",
        Where::Job,
        "target asleep at the switch",
        scenario,
    );
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn lanes_reordered() {
    let scenario = scenarios::target_naps_while_followed;
    is_caught(
        "LanesReordered",
        Where::Job,
        "target naps while followed",
        scenario,
    );
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn stale_read_served() {
    let scenario = scenarios::one_commit_is_late;
    is_caught(
        "StaleReadServed",
        Where::Proxies,
        "one commit is late",
        scenario,
    );
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn decision_not_recorded() {
    let scenario = scenarios::job_killed_with_commits_under_way;
    let name = "job killed with its commits under way";
    is_caught("DecisionNotRecorded", Where::Job, name, scenario);
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn journal_torn_accepted() {
    let scenario = scenarios::journal_is_damaged;
    is_caught(
        "JournalTornAccepted",
        Where::Everywhere,
        "journal is damaged",
        scenario,
    );
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn batch_applied_twice() {
    let scenario = disturbed::lanes_break_while_followed;
    is_caught(
        "BatchAppliedTwice",
        Where::Job,
        "lanes break while followed",
        scenario,
    );
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn checkpoint_outside_multi() {
    let scenario = disturbed::lanes_break_while_followed;
    is_caught(
        "CheckpointOutsideMulti",
        Where::Job,
        "lanes break while followed",
        scenario,
    );
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn retry_of_maybe_executed() {
    let scenario = disturbed::shard_closes_connections;
    is_caught(
        "RetryOfMaybeExecuted",
        Where::Proxies,
        "shard closes connections",
        scenario,
    );
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn guard_skipped() {
    let scenario = disturbed::target_sleeps_longer_than_keys_live;
    is_caught(
        "GuardSkipped",
        Where::Job,
        "target sleeps longer than keys live",
        scenario,
    );
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn refresh_dropped() {
    let scenario = disturbed::spanning_commands;
    is_caught(
        "RefreshDropped",
        Where::Job,
        "commands whose keys part",
        scenario,
    );
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn spanning_command_forwarded() {
    let scenario = disturbed::spanning_commands;
    is_caught(
        "SpanningCommandForwarded",
        Where::Job,
        "commands whose keys part",
        scenario,
    );
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn reverse_starts_late() {
    let scenario = disturbed::there_and_back;
    is_caught("ReverseStartsLate", Where::Job, "there and back", scenario);
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn rollback_without_marker() {
    let scenario = disturbed::old_servers_asleep_at_the_rollback;
    is_caught(
        "RollbackWithoutMarker",
        Where::Job,
        "old servers asleep at the rollback",
        scenario,
    );
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn fence_skipped() {
    let scenario = disturbed::proxy_cut_off_over_the_switch;
    is_caught(
        "FenceSkipped",
        Where::Job,
        "proxy cut off over the switch",
        scenario,
    );
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn fence_skipped_on_the_way_back() {
    let scenario = disturbed::proxy_cut_off_over_the_rollback;
    is_caught(
        "FenceSkipped",
        Where::Job,
        "proxy cut off over the rollback",
        scenario,
    );
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn login_kept_old() {
    let scenario = disturbed::proxy_cut_off_over_the_switch;
    is_caught(
        "LoginKeptOld",
        Where::Proxies,
        "proxy cut off over the switch",
        scenario,
    );
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn unfenced_early() {
    let scenario = disturbed::proxy_cut_off_over_the_switch;
    is_caught(
        "UnfencedEarly",
        Where::Job,
        "proxy cut off over the switch",
        scenario,
    );
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn route_record_skipped() {
    let scenario = disturbed::proxy_cut_off_until_the_job_is_dead;
    let name = "proxy cut off until the job is dead";
    is_caught("RouteRecordSkipped", Where::Job, name, scenario);
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn late_proxy_forgotten() {
    let scenario = disturbed::idle_proxy_cut_off_over_the_switch;
    let name = "idle proxy cut off over the switch";
    is_caught("LateProxyForgotten", Where::Job, name, scenario);
}

/// A mistake without a test here is one that nobody is known to see.
#[test]
fn every_mistake_has_its_test() {
    let tests = include_str!("mutants.rs");
    for mistake in keyferry::planted::Planted::ALL {
        let quoted = format!("\"{}\"", mistake.name());
        assert!(tests.contains(&quoted), "{mistake:?}");
    }
}
