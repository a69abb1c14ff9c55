//! What sorted sets tell the log, and who waits for them. Replies are the differential
//! test's.

use crate::store::session::world::World;

#[test]
fn those_who_wait_are_told_as_what_was_done() {
    let mut world = World::new();
    let (a, b, c) = (world.client(), world.client(), world.client());
    assert_eq!(world.say(a, "BZPOPMAX x y 0"), "");
    assert_eq!(world.say(b, "BZMPOP 0 2 x y MIN COUNT 10"), "");
    assert_eq!(world.say(c, "ZADD y 1 one 2 two 3 three"), ":3");
    assert_eq!(world.owed(a), "[y three 3]");
    assert_eq!(world.owed(b), "[y [[one 1] [two 2]]]");
    assert_eq!(
        world.effects(),
        "SELECT 0 ZADD y 1 one 2 two 3 three ZPOPMAX y ZPOPMIN y 2"
    );
    assert_eq!(world.say(c, "EXISTS y"), ":0");
}

#[test]
fn what_changes_nothing_is_not_told() {
    let mut world = World::new();
    let a = world.client();
    world.say(a, "ZADD z 1 a 2 b");
    world.effects();
    for line in [
        "ZADD z 1 a",
        "ZADD z GT 1 b",
        "ZINCRBY z 0 a",
        "ZREM z c",
        "ZREMRANGEBYSCORE z 5 9",
        "ZPOPMIN z 0",
        "ZUNIONSTORE d 1 nothing",
        "ZRANGESTORE d z 5 9",
    ] {
        world.say(a, line);
        assert_eq!(world.effects(), "", "{line}");
    }
    world.say(a, "ZMPOP 1 z MAX");
    assert_eq!(world.effects(), "ZPOPMAX z 1");
}

#[test]
fn what_is_made_in_place_of_another_kind_wakes_nobody() {
    let mut world = World::new();
    let (a, b) = (world.client(), world.client());
    assert_eq!(world.say(a, "BZPOPMIN d 0"), "");
    world.say(b, "SET d text");
    world.say(b, "ZADD z 1 one");
    assert_eq!(world.say(b, "ZUNIONSTORE d 1 z"), ":1");
    assert_eq!(world.owed(a), "");
    world.say(b, "DEL d");
    assert_eq!(world.say(b, "ZUNIONSTORE d 1 z"), ":1");
    assert_eq!(world.owed(a), "[d one 1]");
}
