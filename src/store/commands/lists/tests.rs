//! What lists tell the log, and who waits for them. Replies are the differential test's.

use crate::store::session::world::World;

#[test]
fn those_who_wait_are_served_in_their_order_and_told_as_what_was_done() {
    let mut world = World::new();
    let (a, b, c) = (world.client(), world.client(), world.client());
    assert_eq!(world.say(a, "BLPOP x y 0"), "");
    assert_eq!(world.say(b, "BRPOP y 0"), "");
    assert_eq!(world.say(c, "RPUSH y 1 2 3"), ":3");
    assert_eq!(
        (world.owed(a), world.owed(b)),
        ("[y 1]".into(), "[y 3]".into())
    );
    assert_eq!(world.effects(), "SELECT 0 RPUSH y 1 2 3 LPOP y RPOP y");
    assert_eq!(world.say(a, "BLMOVE x z LEFT RIGHT 0"), "");
    assert_eq!(world.say(b, "BLMPOP 0 2 w z RIGHT COUNT 5"), "");
    assert_eq!(world.say(c, "LPUSH x m"), ":1");
    assert_eq!(
        (world.owed(a), world.owed(b)),
        ("m".into(), "[z [m]]".into())
    );
    assert_eq!(world.effects(), "LPUSH x m LMOVE x z LEFT RIGHT RPOP z 1");
}

#[test]
fn nobody_waits_in_a_transaction() {
    let mut world = World::new();
    let a = world.client();
    world.say(a, "MULTI");
    world.say(a, "BLPOP x 0");
    world.say(a, "BRPOPLPUSH x y 0");
    assert_eq!(world.say(a, "EXEC"), "[nil nil]");
    assert_eq!(world.effects(), "");
}

#[test]
fn what_changes_nothing_is_not_told() {
    let mut world = World::new();
    let a = world.client();
    world.say(a, "RPUSH l 1 2 3");
    world.effects();
    for line in [
        "LPUSHX m 1",
        "LREM l 0 9",
        "LTRIM l 0 -1",
        "LINSERT l BEFORE 9 8",
        "LPOP m",
    ] {
        world.say(a, line);
        assert_eq!(world.effects(), "", "{line}");
    }
    world.say(a, "LPOP l 3");
    assert_eq!(world.say(a, "EXISTS l"), ":0");
}

#[test]
fn who_waits_is_woken_by_what_it_waits_for_and_nothing_else() {
    let mut world = World::new();
    let (a, b) = (world.client(), world.client());
    assert_eq!(world.say(a, "BLPOP x y 0"), "");
    world.say(b, "SET x text");
    world.say(b, "MULTI");
    for line in ["RPUSH y 1", "DEL x", "RPUSH x 2", "EXEC"] {
        world.say(b, line);
    }
    assert_eq!(world.owed(a), "[y 1]", "the first that was ready");
    world.say(b, "DEL x");
    world.say(b, "SET text t");
    assert_eq!(world.say(a, "BLMOVE x text LEFT LEFT 0"), "");
    world.say(b, "RPUSH x 3");
    assert!(
        world.owed(a).starts_with("-WRONGTYPE"),
        "it was woken, and cannot put it"
    );
    assert_eq!(world.say(b, "LRANGE x 0 -1"), "[3]");
}
