use super::*;
use crate::resp::{RequestLimits, RequestScanner, write_command};

const NOW: i64 = 1_000_000_000_000;
const TARGET: TargetIndex = TargetIndex(1);

fn guard() -> Guard {
    Guard::new(Stance::default())
}

fn told(guard: &mut Guard, given: Given, text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let words: Vec<&[u8]> = text.split(' ').map(str::as_bytes).collect();
    write_command(&mut bytes, &words);
    let mut scanner = RequestScanner::new(RequestLimits::default());
    let request = scanner.scan(&bytes).unwrap().unwrap();
    let args = Args {
        bytes: request.bytes,
        spans: request.args,
    };
    let args = guard.rewrite(0, TARGET, args, given, || NOW)?;
    Some(String::from_utf8(args.join(&b' ')).unwrap())
}

fn rewrite(guard: &mut Guard, text: &str) -> Option<String> {
    told(guard, Given::Now, text)
}

fn names(guard: &Guard) -> Vec<(u32, String)> {
    let name =
        |(db, key, _): (u32, Bytes, TargetIndex)| (db, String::from_utf8(key.to_vec()).unwrap());
    let mut names: Vec<_> = guard.guarded().into_iter().map(name).collect();
    names.sort();
    names
}

fn is_ending(guard: &Guard, key: &str, now_ms: i64) -> bool {
    guard.is_ending(0, key.as_bytes(), || now_ms)
}

fn here(expires_at_ms: i64) -> State {
    State::Here {
        expires_at_ms: Some(expires_at_ms),
        payload: None,
    }
}

#[test]
fn near_times_are_sent_later_and_their_keys_remembered() {
    let mut guard = guard();
    let soon = NOW + 5000;
    let later = soon + GUARD_MS;
    for (text, expected) in [
        (
            format!("SET a v PXAT {soon}"),
            format!("SET a v PXAT {later}"),
        ),
        (
            format!("PEXPIREAT b {soon} GT"),
            format!("PEXPIREAT b {later}"),
        ),
        ("setex c 5 v".to_owned(), format!("SET c v PXAT {later}")),
        (
            format!("RESTORE d {soon} x ABSTTL"),
            format!("RESTORE d {later} x ABSTTL"),
        ),
    ] {
        assert_eq!(rewrite(&mut guard, &text), Some(expected));
    }
    for copies in ["RENAME a e", "COPY b f REPLACE DB 3", "MOVE c 4"] {
        assert_eq!(rewrite(&mut guard, copies), None);
    }
    let expected = [(0, "b"), (0, "d"), (0, "e"), (3, "f"), (4, "c")];
    assert_eq!(
        names(&guard),
        expected.map(|(db, key)| (db, key.to_owned()))
    );
    for ends in ["DEL b nothing", "PERSIST d", "SET e v"] {
        assert_eq!(rewrite(&mut guard, ends), None);
    }
    assert_eq!(guard.count(), 2);
    rewrite(&mut guard, &format!("SET a v PXAT {soon}"));
    rewrite(&mut guard, "SET a w KEEPTTL");
    assert!(guard.guards(0, b"a"));
}

#[test]
fn far_times_go_as_they_are_and_are_known() {
    let mut guard = guard();
    let far = NOW + COPYING_MS;
    assert_eq!(rewrite(&mut guard, &format!("PEXPIREAT k {far}")), None);
    assert_eq!(
        rewrite(&mut guard, &format!("PEXPIREAT l {far} GT")),
        Some(format!("PEXPIREAT l {far}")),
        "the target compares with another time"
    );
    assert_eq!(
        rewrite(&mut guard, "EXPIRE m 3600"),
        Some(format!("PEXPIREAT m {far}")),
        "its count began at the source"
    );
    assert_eq!(rewrite(&mut guard, "RENAME m n"), None);
    assert_eq!(guard.count(), 0);
    for (key, known) in [("k", true), ("l", true), ("m", false), ("n", true)] {
        assert!(!is_ending(&guard, key, NOW), "{key}");
        assert_eq!(is_ending(&guard, key, NOW + 1), known, "{key}");
    }
    rewrite(&mut guard, "SET k v");
    rewrite(&mut guard, "DEL n");
    assert!(!is_ending(&guard, "k", far) && !is_ending(&guard, "n", far));
}

#[test]
fn what_counts_from_an_unknown_moment_is_remembered_however_far_it_is() {
    let mut guard = guard();
    let sent = NOW + 7_200_000 + GUARD_MS;
    assert_eq!(
        told(&mut guard, Given::Before, "EXPIRE k 7200"),
        Some(format!("PEXPIREAT k {sent}"))
    );
    assert!(guard.guards(0, b"k"));
    let meant = NOW + 7_199_000;
    guard.shrink(Shrink::Following);
    assert_eq!(guard.settle((0, b"k"), &here(meant), NOW), Exact::At(meant));
    assert!(!guard.guards(0, b"k") && is_ending(&guard, "k", meant));
}

#[test]
fn the_horizon_shrinks_and_times_become_exact() {
    let stance = Stance::default();
    let mut guard = Guard::new(stance.clone());
    let times = [("a", 1_000), ("b", 60_000), ("c", FOLLOWING_MS + 1)];
    for (key, left_ms) in times {
        rewrite(&mut guard, &format!("SET {key} v PXAT {}", NOW + left_ms));
    }
    let settle = |guard: &mut Guard, to: Option<Shrink>| {
        let keys = match to {
            None => guard.guarded(),
            Some(to) => guard.shrink(to),
        };
        assert_eq!(keys.len(), guard.count());
        for (key, left_ms) in times {
            if guard.guards(0, key.as_bytes()) {
                guard.settle((0, key.as_bytes()), &here(NOW + left_ms), NOW);
            }
        }
        names(guard)
            .into_iter()
            .map(|(_, key)| key)
            .collect::<String>()
    };
    assert_eq!(settle(&mut guard, Some(Shrink::Following)), "ab");
    assert!(is_ending(&guard, "c", NOW + 2));
    let number = stance.prepare();
    assert_eq!(settle(&mut guard, Some(Shrink::Prepared(number))), "a");
    assert!(!is_ending(&guard, "b", NOW));
    assert!(is_ending(&guard, "b", NOW + 58_001));
    guard.set_cut(true);
    assert_eq!(settle(&mut guard, None), "");
    assert_eq!(
        rewrite(&mut guard, &format!("PEXPIREAT d {}", NOW + 1)),
        None,
        "exact while a cut is met"
    );
}

#[test]
fn a_preparation_taken_back_has_its_keys_read_again() {
    let stance = Stance::default();
    let mut guard = Guard::new(stance.clone());
    let late = Shrink::Prepared(stance.prepare());
    stance.relax();
    assert!(guard.shrink(late).is_empty() && !guard.is_prepared());
    let number = stance.prepare();
    guard.shrink(Shrink::Prepared(number));
    for (key, left_ms) in [("near", 3_000), ("far", COPYING_MS), ("untouched", 3_000)] {
        rewrite(&mut guard, &format!("SET {key} v PXAT {}", NOW + left_ms));
    }
    rewrite(&mut guard, "INCR near");
    rewrite(&mut guard, "INCR far");
    assert!(guard.relaxed().is_empty());
    stance.relax();
    assert_eq!(guard.relaxed(), [(0, Bytes::from_static(b"near"))]);
    assert!(guard.relaxed().is_empty() && !guard.is_prepared());
    assert!(is_ending(&guard, "near", NOW), "the horizon is wide again");
}

#[test]
fn what_finds_no_room_is_sent_as_it_is_and_counted() {
    let mut guard = guard();
    guard.keys_max = 1;
    let soon = NOW + 5000;
    assert!(rewrite(&mut guard, &format!("PEXPIREAT a {soon}")).is_some());
    assert!(rewrite(&mut guard, &format!("PEXPIREAT a {soon}")).is_some());
    assert_eq!(guard.unguarded(), 0);
    assert_eq!(rewrite(&mut guard, &format!("PEXPIREAT b {soon}")), None);
    assert_eq!(guard.time_of((0, b"c"), TARGET, Some(NOW), NOW), Some(NOW));
    assert_eq!(guard.unguarded(), 2);
    guard.turn_off();
    assert_eq!(rewrite(&mut guard, &format!("PEXPIREAT d {soon}")), None);
    assert_eq!(guard.unguarded(), 0);
}

#[test]
fn a_key_that_is_brought_whole_is_known_by_its_new_time_alone() {
    let mut guard = guard();
    let time = |guard: &mut Guard, at| guard.time_of((0, b"k"), TARGET, at, NOW);
    assert_eq!(time(&mut guard, Some(NOW - 50)), Some(NOW - 50 + GUARD_MS));
    assert!(guard.guards(0, b"k"));
    assert_eq!(
        time(&mut guard, Some(NOW + COPYING_MS)),
        Some(NOW + COPYING_MS)
    );
    assert!(!guard.guards(0, b"k") && is_ending(&guard, "k", NOW + 1));
    assert_eq!(time(&mut guard, None), None);
    assert!(!is_ending(&guard, "k", NOW + COPYING_MS));
}

#[test]
fn hashes_end_when_their_first_field_does() {
    let mut guard = guard();
    let (soon, later) = (NOW + 5_000, NOW + COPYING_MS + 5_000);
    rewrite(&mut guard, &format!("HPEXPIREAT h {later} FIELDS 1 f"));
    assert!(!is_ending(&guard, "h", NOW));
    rewrite(&mut guard, &format!("HPEXPIREAT h {soon} FIELDS 1 g"));
    rewrite(&mut guard, &format!("HPEXPIREAT h {later} FIELDS 1 f"));
    assert!(is_ending(&guard, "h", NOW));
}

#[test]
fn of_keys_that_are_recalled_only_those_within_the_guard_may_be_guarded() {
    let mut guard = guard();
    guard.begin_recall();
    let day = 24 * 3_600_000;
    for (key, left_ms) in [
        ("endless", None),
        ("soon", Some(day)),
        ("guarded", Some(7 * day)),
        ("far", Some(30 * day)),
    ] {
        guard.recall((0, key.as_bytes()), TARGET, (left_ms, NOW), Spoken::Moments);
    }
    assert_eq!(names(&guard), [(0, "guarded".to_owned())]);
    assert!(is_ending(&guard, "far", NOW + 30 * day - 1000));
    let far = (0, &b"far"[..]);
    guard.recall(far, TARGET, (Some(30 * day), NOW), Spoken::Spans);
    assert!(
        guard.guards(0, b"far"),
        "such a source may have said it late"
    );
}

#[test]
fn what_is_not_on_targets_when_a_stream_is_taken_up_may_have_ended() {
    let mut guard = guard();
    assert!(!is_ending(&guard, "k", NOW), "a copy brings every key");
    guard.begin_recall();
    let recalled = (0, &b"there"[..]);
    guard.recall(recalled, TARGET, (None, NOW), Spoken::Moments);
    assert!(is_ending(&guard, "k", NOW) && !is_ending(&guard, "there", NOW));
    guard.time_of((0, b"k"), TARGET, None, NOW);
    rewrite(&mut guard, "SET l v");
    assert!(!is_ending(&guard, "k", NOW) && !is_ending(&guard, "l", NOW));
    assert!(is_ending(&guard, "m", NOW));
    guard.shrink(Shrink::Following);
    assert!(!is_ending(&guard, "m", NOW));
}
