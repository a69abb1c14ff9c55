//! Sessions, by hand.

use super::world::World;

#[test]
fn a_transaction_is_whole_or_not_at_all() {
    let mut world = World::new();
    let (a, b) = (world.client(), world.client());
    assert_eq!(world.say(a, "MULTI"), "OK");
    assert_eq!(world.say(a, "SET x 1"), "QUEUED");
    assert_eq!(world.say(b, "GET x"), "nil");
    assert_eq!(world.say(a, "SET y 2"), "QUEUED");
    assert_eq!(world.say(a, "EXEC"), "[OK OK]");
    assert_eq!(world.effects(), "SELECT 0 MULTI SET x 1 SET y 2 EXEC");
    world.say(a, "MULTI");
    assert!(world.say(a, "NOSUCH").starts_with("-ERR unknown command"));
    assert!(world.say(a, "EXEC").starts_with("-EXECABORT"));
    assert_eq!(world.say(a, "EXEC"), "-ERR EXEC without MULTI");
}

#[test]
fn a_watched_key_that_changes_makes_exec_null() {
    let mut world = World::new();
    let (a, b) = (world.client(), world.client());
    world.say(a, "WATCH x");
    world.say(b, "SET x 1");
    world.say(a, "MULTI");
    world.say(a, "SET x 2");
    assert_eq!(world.say(a, "EXEC"), "nil");
    world.say(a, "MULTI");
    world.say(a, "SET x 2");
    assert_eq!(world.say(a, "EXEC"), "[OK]", "EXEC ends all watches");
}

#[test]
fn channels_and_patterns_get_what_is_published() {
    let mut world = World::new();
    let (a, b) = (world.client(), world.client());
    assert_eq!(world.say(a, "SUBSCRIBE c"), "[subscribe c :1]");
    assert_eq!(world.say(a, "PSUBSCRIBE c*"), "[psubscribe c* :2]");
    assert_eq!(world.say(b, "PUBLISH c hello"), ":2");
    assert_eq!(world.owed(a), "[message c hello] [pmessage c* c hello]");
    assert!(
        world
            .say(a, "GET x")
            .starts_with("-ERR Can't execute 'get'")
    );
    world.shard.client_gone(a);
    assert_eq!(world.say(b, "PUBLISH c hello"), ":0");
}

#[test]
fn what_is_no_request_is_told_so_and_ends_the_connection() {
    let mut world = World::new();
    let a = world.client();
    world
        .shard
        .input_of(a)
        .expect("a client")
        .extend(b"*1\r\n$x\r\n");
    world.shard.run_requests(a);
    assert_eq!(world.owed(a), "-ERR Protocol error: invalid bulk length");
    assert!(!world.shard.may_read(a));
}
