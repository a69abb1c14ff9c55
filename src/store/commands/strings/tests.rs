//! Strings by hand: what the log is told, and what a random test against Redis seldom meets.

use crate::store::session::world::World;

#[test]
fn the_log_is_told_times_and_sums_as_they_were_here() {
    let mut world = World::new();
    let a = world.client();
    for (said, told) in [
        ("SET k v", "SELECT 0 SET k v"),
        ("SET k v EX 10", "SET k v PXAT 1700000010000"),
        ("SET k w XX GET", "SET k w XX"),
        ("SET k w NX", ""),
        ("SETEX k 5 v", "SET k v PXAT 1700000005000"),
        ("PSETEX k 5 v", "SET k v PXAT 1700000000005"),
        ("GETEX k", ""),
        ("GETEX k PX 7", "PEXPIREAT k 1700000000007"),
        ("GETEX k PERSIST", "PERSIST k"),
        ("GETEX k PERSIST", ""),
        ("GETEX k EXAT 1", "DEL k"),
        ("GETSET k 1", "SET k 1"),
        ("INCRBYFLOAT k 0.5", "SET k 1.5 KEEPTTL"),
        ("GETDEL k", "DEL k"),
        ("GETDEL k", ""),
        ("SETNX k 1", "SETNX k 1"),
        ("SETNX k 1", ""),
        ("MSETNX k 1 l 1", ""),
        ("SETRANGE none 3 ", ""),
        ("INCR k", "INCR k"),
    ] {
        world.say(a, said);
        assert_eq!(world.effects(), told, "{said}");
    }
}

#[test]
fn a_time_that_cannot_be_is_refused_before_anything_is_done() {
    let mut world = World::new();
    let a = world.client();
    for said in [
        "SET k v EX 0",
        "SET k v PX -1",
        "SET k v EX 9223372036854775807",
        "SET k v PX 9223372036854775807",
        "SET k v GET EXAT 9223372036854776",
    ] {
        let told = world.say(a, said);
        assert!(
            told.starts_with("-ERR invalid expire time in 'set'"),
            "{said}: {told}"
        );
    }
    assert_eq!(
        world.say(a, "SET k v EX x"),
        "-ERR value is not an integer or out of range"
    );
    for said in [
        "SET k v EX 1 PX 1",
        "SET k v NX XX",
        "SET k v KEEPTTL EX 1",
        "SET k v PERSIST",
        "GETEX k KEEPTTL",
    ] {
        assert_eq!(world.say(a, said), "-ERR syntax error", "{said}");
    }
    assert_eq!(world.say(a, "EXISTS k"), ":0");
}

#[test]
fn a_common_subsequence_is_told_as_text_length_and_ranges() {
    let mut world = World::new();
    let a = world.client();
    world.say(a, "MSET one ohmytext other mynewtext number 12345");
    assert_eq!(world.say(a, "LCS one other"), "mytext");
    assert_eq!(world.say(a, "LCS one other LEN"), ":6");
    assert_eq!(
        world.say(a, "LCS one other IDX MINMATCHLEN 4 WITHMATCHLEN"),
        "[matches [[[:4 :7] [:5 :8] :4]] len :6]"
    );
    assert_eq!(world.say(a, "LCS one none"), "");
    world.say(a, "SADD set m");
    assert_eq!(
        world.say(a, "LCS one set"),
        "-ERR The specified keys must contain string values"
    );
}

#[test]
fn a_long_string_is_kept_through_all_its_commands() {
    let mut world = World::new();
    let a = world.client();
    let long = "abcdefgh".repeat(20_000);
    assert_eq!(world.say(a, &format!("SET k {long}")), "OK");
    assert_eq!(world.say(a, "STRLEN k"), ":160000");
    assert_eq!(world.say(a, "GETRANGE k 159998 -1"), "gh");
    assert_eq!(world.say(a, "APPEND k XY"), ":160002");
    assert_eq!(world.say(a, "SETRANGE k 16383 __"), ":160002");
    assert_eq!(world.say(a, "GETRANGE k 16382 16386"), "g__bc");
    world.say(a, "COPY k l");
    world.say(a, "SETRANGE k 0 0");
    assert_eq!(
        world.say(a, "GETRANGE l 0 1"),
        "ab",
        "a copy has rows of its own"
    );
    world.say(a, "RENAME l m");
    assert_eq!(world.say(a, "GETRANGE m -2 -1"), "XY");
    assert_eq!(world.say(a, "GETSET k short").len(), 160_002);
    assert_eq!(
        world.say(a, "INCR m"),
        "-ERR value is not an integer or out of range"
    );
}
