//! The scenarios without a mistake: nobody finds anything.

use crate::proof::scenarios::{self, Scenario, alone};
use crate::support::seeded;

fn is_clean(name: &str, scenario: Scenario) {
    let _alone = alone();
    let mut rng = seeded(name);
    let seed = rng.get_seed();
    scenario(&mut rng, None).assert_clean(seed);
}

#[test]
fn a_cutover_under_load_loses_doubles_and_reorders_nothing() {
    let name = "a_cutover_under_load_loses_doubles_and_reorders_nothing";
    is_clean(name, scenarios::cutover_under_load);
}

#[test]
fn a_target_that_sleeps_at_the_switch_costs_time_only() {
    let name = "a_target_that_sleeps_at_the_switch_costs_time_only";
    is_clean(name, scenarios::target_asleep_at_the_switch);
}

#[test]
fn a_target_that_naps_while_it_is_followed_costs_nothing() {
    let name = "a_target_that_naps_while_it_is_followed_costs_nothing";
    is_clean(name, scenarios::target_naps_while_followed);
}

#[test]
fn a_commit_that_comes_late_makes_its_clients_wait_only() {
    let name = "a_commit_that_comes_late_makes_its_clients_wait_only";
    is_clean(name, scenarios::one_commit_is_late);
}

#[test]
fn a_job_killed_with_its_commits_under_way_goes_on_forward() {
    let name = "a_job_killed_with_its_commits_under_way_goes_on_forward";
    is_clean(name, scenarios::job_killed_with_commits_under_way);
}

#[test]
fn a_damaged_record_of_the_journal_is_not_believed() {
    let name = "a_damaged_record_of_the_journal_is_not_believed";
    is_clean(name, scenarios::journal_is_damaged);
}
