use super::*;
use crate::reshard::fence::FenceLevel;
use crate::reshard::record::{Copied, Direction, PlannedJob};
use crate::router::spec::LayoutSpec;

fn planned() -> Record {
    Record::Planned {
        at_ms: 0,
        job: PlannedJob {
            job: "job-1".to_owned(),
            pool: "cache".to_owned(),
            from: LayoutSpec::default(),
            to: LayoutSpec::default(),
            epoch: 2,
            proxies: Vec::new(),
        },
    }
}

fn intent(direction: Direction) -> Record {
    Record::SwitchIntended {
        settings: Vec::new(),
        at_ms: 8,
        incarnation: 2,
        direction,
        fence: FenceLevel::ProxiesOnly,
    }
}

fn every_record() -> Vec<Record> {
    let why = || "why".to_owned();
    vec![
        planned(),
        Record::Started {
            incarnation: 1,
            at_ms: 1,
        },
        Record::CopyingBegan {
            at_ms: 2,
            beside_others: false,
        },
        Record::FollowingBegan {
            at_ms: 3,
            copied: Copied::default(),
        },
        Record::Verified {
            at_ms: 4,
            keys: 9,
            proof: Vec::new(),
        },
        Record::VerifyDiffered {
            at_ms: 5,
            differing: 1,
        },
        Record::Paused { at_ms: 6 },
        Record::Resumed { at_ms: 7 },
        intent(Direction::Forward),
        Record::SwitchDecided {
            at_ms: 9,
            positions: Vec::new(),
        },
        Record::SwitchAborted {
            at_ms: 10,
            why: why(),
        },
        Record::SwitchCommitted {
            at_ms: 11,
            proxies: Vec::new(),
            late: Vec::new(),
            bypass: Vec::new(),
        },
        Record::Completed {
            at_ms: 12,
            purged_keys: None,
        },
        Record::Failed {
            at_ms: 13,
            why: why(),
        },
        intent(Direction::Back),
        Record::RolledBack { at_ms: 14 },
        Record::Cancelled {
            at_ms: 15,
            why: why(),
        },
    ]
}

fn after(names: &[&str]) -> JobState {
    let mut state = JobState::first(&planned()).unwrap();
    for name in names {
        let record = every_record()
            .into_iter()
            .find(|record| record.name() == *name)
            .unwrap_or_else(|| panic!("no record {name}"));
        state = state.step(&record).unwrap();
    }
    state
}

const TO_VERIFIED: [&str; 4] = [
    "the start",
    "the start of the copy",
    "the end of the copy",
    "the clean verify",
];

#[test]
fn the_whole_way_to_completed() {
    let mut names = TO_VERIFIED.to_vec();
    assert_eq!(after(&names).name(), "verified");
    names.extend(["the switch's intent", "the switch's decision"]);
    assert_eq!(after(&names).name(), "switching");
    names.push("the switch");
    let switched = |back| JobState::Switched { at_ms: 11, back };
    assert_eq!(after(&names), switched(Back::Unbegun));
    names.push("the completion");
    assert!(after(&names).is_over());
}

/// A job that switched at 11 and whose way back is verified.
fn ready_to_go_back() -> JobState {
    let mut names = TO_VERIFIED.to_vec();
    names.extend(["the switch's intent", "the switch's decision", "the switch"]);
    names.extend(&TO_VERIFIED[1..]);
    after(&names)
}

fn stepped(state: JobState, records: &[Record]) -> JobState {
    records
        .iter()
        .fold(state, |state, record| state.step(record).unwrap())
}

#[test]
fn the_whole_way_back_ends_rolled_back() {
    let decided = Record::SwitchDecided {
        at_ms: 20,
        positions: Vec::new(),
    };
    let committed = Record::SwitchCommitted {
        at_ms: 21,
        proxies: Vec::new(),
        late: Vec::new(),
        bypass: Vec::new(),
    };
    let back = [intent(Direction::Back), decided, committed];
    assert_eq!(stepped(ready_to_go_back(), &back), JobState::RolledBack);
}

#[test]
fn a_switch_back_that_is_aborted_leaves_the_job_switched() {
    let aborted = Record::SwitchAborted {
        at_ms: 20,
        why: "late".to_owned(),
    };
    let started = Record::Started {
        incarnation: 9,
        at_ms: 19,
    };
    let switched = JobState::Switched {
        at_ms: 11,
        back: Back::Following,
    };
    let live = [intent(Direction::Back), aborted.clone()];
    assert_eq!(stepped(ready_to_go_back(), &live), switched);
    let died = [intent(Direction::Back), started, aborted];
    assert_eq!(stepped(ready_to_go_back(), &died), switched);
}

#[test]
fn only_the_switch_of_its_direction_can_be_intended() {
    assert!(after(&TO_VERIFIED).step(&intent(Direction::Back)).is_err());
    assert!(
        ready_to_go_back()
            .step(&intent(Direction::Forward))
            .is_err()
    );
}

#[test]
fn an_abort_goes_back_to_following_and_counts() {
    let mut names = TO_VERIFIED.to_vec();
    names.extend(["the switch's intent", "the switch's abort"]);
    assert_eq!(
        after(&names),
        JobState::Following {
            aborted_switches: 1
        }
    );
}

#[test]
fn a_restart_copies_again_but_never_forgets_an_open_switch() {
    let copied = JobState::Planned {
        copied_before: true,
    };
    assert_eq!(
        after(&["the start", "the start of the copy", "the start"]),
        copied
    );
    let mut names = TO_VERIFIED.to_vec();
    names.extend(["the switch's intent", "the start"]);
    let open = after(&names);
    assert!(
        matches!(open, JobState::Switching(open) if !open.live && !open.decided),
        "{open:?}"
    );
    names.push("the switch's abort");
    assert_eq!(after(&names), copied);
}

#[test]
fn a_running_process_commits_only_what_it_decided() {
    let mut names = TO_VERIFIED.to_vec();
    names.push("the switch's intent");
    let committed = Record::SwitchCommitted {
        at_ms: 1,
        proxies: Vec::new(),
        late: Vec::new(),
        bypass: Vec::new(),
    };
    assert!(after(&names).step(&committed).is_err());
    names.push("the start");
    assert!(after(&names).step(&committed).is_ok());
}

/// Every state that records can reach: no pair panics, and the drawing's
/// invariants hold for each step.
#[test]
fn every_pair_of_state_and_record_is_legal_or_refused() {
    let mut seen = vec![JobState::first(&planned()).unwrap()];
    let mut at = 0;
    while at < seen.len() {
        let state = seen[at].clone();
        at += 1;
        for record in every_record() {
            let Ok(next) = state.clone().step(&record) else {
                continue;
            };
            check_step(&state, &record, &next);
            let tries = match &next {
                JobState::Following { aborted_switches }
                | JobState::Verified {
                    aborted_switches, ..
                } => *aborted_switches,
                _ => 0,
            };
            if tries < 3 && !seen.contains(&next) {
                seen.push(next);
            }
        }
    }
    let names: std::collections::BTreeSet<&str> = seen.iter().map(JobState::name).collect();
    assert_eq!(names.len(), 11, "every state is reached: {names:?}");
}

fn check_step(state: &JobState, record: &Record, next: &JobState) {
    assert!(!state.is_over(), "{state:?} left by {}", record.name());
    if let Record::SwitchIntended { direction, .. } = record {
        let verified = match state {
            JobState::Verified { .. } => *direction == Direction::Forward,
            JobState::Switched {
                back: Back::Verified { .. },
                ..
            } => *direction == Direction::Back,
            _ => false,
        };
        assert!(verified, "{state:?}");
    }
    if matches!(state, JobState::Switched { .. }) {
        let back =
            matches!(next, JobState::Switching(open) if open.way.direction() == Direction::Back);
        let stays = matches!(next, JobState::Switched { .. });
        assert!(back || stays || *next == JobState::Completed, "{next:?}");
    }
    if let JobState::Switching(_) = state {
        let stays = matches!(next, JobState::Switching(_));
        let settled = matches!(
            record,
            Record::SwitchAborted { .. } | Record::SwitchCommitted { .. }
        );
        assert!(stays || settled, "{state:?} left by {}", record.name());
    }
    if state.copied_before() {
        assert!(next.copied_before(), "{state:?} -> {next:?}");
    }
}
