//! The scenarios without a mistake: nobody finds anything.

use crate::proof::disturbed;
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

#[test]
fn lanes_that_break_apply_each_batch_once() {
    let name = "lanes_that_break_apply_each_batch_once";
    is_clean(name, disturbed::lanes_break_while_followed);
}

#[test]
fn keys_that_are_renewed_while_the_target_sleeps_live_on() {
    let name = "keys_that_are_renewed_while_the_target_sleeps_live_on";
    is_clean(name, disturbed::target_sleeps_longer_than_keys_live);
}

#[test]
fn commands_whose_keys_part_are_followed() {
    let name = "commands_whose_keys_part_are_followed";
    is_clean(name, disturbed::spanning_commands);
}

#[test]
fn connections_that_a_shard_closes_run_nothing_twice() {
    let name = "connections_that_a_shard_closes_run_nothing_twice";
    is_clean(name, disturbed::shard_closes_connections);
}

#[test]
fn a_proxy_that_is_stopped_over_the_switch_serves_no_old_route() {
    let name = "a_proxy_that_is_stopped_over_the_switch_serves_no_old_route";
    is_clean(name, disturbed::proxy_stopped_over_the_switch);
}

#[test]
fn a_proxy_that_is_cut_off_over_the_switch_serves_no_old_route() {
    let name = "a_proxy_that_is_cut_off_over_the_switch_serves_no_old_route";
    is_clean(name, disturbed::proxy_cut_off_over_the_switch);
}

#[test]
fn there_and_back_keeps_what_was_written_meanwhile() {
    let name = "there_and_back_keeps_what_was_written_meanwhile";
    is_clean(name, disturbed::there_and_back);
}

#[test]
fn old_servers_that_sleep_at_the_rollback_cost_time_only() {
    let name = "old_servers_that_sleep_at_the_rollback_cost_time_only";
    is_clean(name, disturbed::old_servers_asleep_at_the_rollback);
}

#[test]
fn a_proxy_that_only_the_servers_tell_of_the_route_takes_it() {
    let name = "a_proxy_that_only_the_servers_tell_of_the_route_takes_it";
    is_clean(name, disturbed::proxy_cut_off_until_the_job_is_dead);
}

#[test]
fn an_idle_proxy_that_was_cut_off_is_told_of_the_route() {
    let name = "an_idle_proxy_that_was_cut_off_is_told_of_the_route";
    is_clean(name, disturbed::idle_proxy_cut_off_over_the_switch);
}

#[test]
fn a_proxy_that_is_cut_off_over_the_rollback_serves_no_new_route() {
    let name = "a_proxy_that_is_cut_off_over_the_rollback_serves_no_new_route";
    is_clean(name, disturbed::proxy_cut_off_over_the_rollback);
}
