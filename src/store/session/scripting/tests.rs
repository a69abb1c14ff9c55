use crate::store::session::world::World;

fn eval(world: &mut World, client: usize, script: &str) -> String {
    world.send(client, &[b"EVAL", script.as_bytes(), b"0"])
}

#[test]
fn what_a_script_did_is_told_as_one() {
    let mut world = World::new();
    let client = world.client();
    eval(&mut world, client, "return redis.call('SET', 'a', 1)");
    assert_eq!(world.effects(), "SELECT 0 SET a 1");
    let script = "redis.call('INCR', 'a') redis.call('SELECT', 3) redis.call('SET', 'b', 2) \
                  redis.call('GET', 'b') return redis.call('INCRBYFLOAT', 'b', '0.5')";
    assert_eq!(eval(&mut world, client, script), "2.5");
    assert_eq!(
        world.effects(),
        "MULTI INCR a SELECT 3 SET b 2 SET b 2.5 KEEPTTL EXEC"
    );
    assert_eq!(world.say(client, "GET a"), "2", "its database is its own");
    let failing = "redis.call('SET', 'c', 1) redis.call('LPUSH', 'c', 1)";
    let told = eval(&mut world, client, failing);
    assert!(told.starts_with("-WRONGTYPE"), "{told}");
    assert_eq!(world.effects(), "SELECT 0 SET c 1");
    assert!(eval(&mut world, client, "return redis.call('GET', 'c')") == "1");
    assert_eq!(world.effects(), "");
}

#[test]
fn a_script_in_a_transaction_is_a_part_of_it() {
    let mut world = World::new();
    let client = world.client();
    world.say(client, "MULTI");
    eval(
        &mut world,
        client,
        "redis.call('SET', 'a', 1) return redis.call('INCR', 'a')",
    );
    world.say(client, "INCR a");
    assert_eq!(world.say(client, "EXEC"), "[:2 :3]");
    assert_eq!(world.effects(), "SELECT 0 MULTI SET a 1 INCR a INCR a EXEC");
    let other = world.client();
    world.say(client, "WATCH a");
    eval(&mut world, other, "redis.call('SET', 'a', 9)");
    world.say(client, "MULTI");
    world.say(client, "GET a");
    assert_eq!(world.say(client, "EXEC"), "nil");
}

#[test]
fn who_waits_is_served_when_the_script_has_ended() {
    let mut world = World::new();
    let (waits, runs) = (world.client(), world.client());
    world.say(waits, "BLPOP l 0");
    let script = "redis.call('RPUSH', 'l', 'x') return redis.call('LLEN', 'l')";
    assert_eq!(eval(&mut world, runs, script), ":1");
    assert_eq!(world.owed(waits), "[l x]");
    assert_eq!(world.effects(), "SELECT 0 RPUSH l x LPOP l");
}

#[test]
fn functions_are_told_and_applied_as_they_came() {
    let mut world = World::new();
    let client = world.client();
    let library = b"#!lua name=l\nredis.register_function('f',function() return 7 end)";
    assert_eq!(world.send(client, &[b"FUNCTION", b"LOAD", library]), "l");
    let told = world.shard.effects().bytes().to_vec();
    assert_eq!(world.say(client, "FCALL f 0"), ":7");
    let mut other = World::new();
    other.shard.apply(&told, 0).expect("applied");
    let client = other.client();
    assert_eq!(other.say(client, "FCALL f 0"), ":7");
    other.shard.load_libraries().expect("loaded from rows");
    assert_eq!(other.say(client, "FCALL f 0"), ":7");
    other.say(client, "FUNCTION DELETE l");
    other.shard.load_libraries().expect("loaded from rows");
    assert_eq!(other.say(client, "FCALL f 0"), "-ERR Function not found");
}

#[test]
fn a_script_may_do_what_its_user_may() {
    let mut world = World::new();
    let client = world.client();
    world.say(client, "ACL SETUSER u on nopass +@all -set ~a*");
    world.say(client, "AUTH u x");
    for (script, words) in [
        (
            "return redis.call('SET', 'a', 1)",
            "can't run this command or subcommand",
        ),
        (
            "return redis.call('GET', 'b')",
            "can't access at least one of the keys mentioned in the command arguments",
        ),
    ] {
        let told = eval(&mut world, client, script);
        let wanted = format!("-ERR The user executing the script {words} script: ");
        assert!(told.starts_with(&wanted), "{told}");
    }
    let asked = "return {redis.acl_check_cmd('SET', 'a', 1), redis.acl_check_cmd('GET', 'a')}";
    assert_eq!(eval(&mut world, client, asked), "[nil :1]");
}

#[test]
fn nothing_that_a_script_does_to_its_globals_outlives_it() {
    let mut world = World::new();
    let client = world.client();
    for script in [
        "rawset(_G, 'left', 1)",
        "setmetatable(_G, {})",
        "getmetatable(_G).__index = nil",
        "getmetatable('').__index = nil",
        "redis.call = nil",
        "string.rep = nil",
        "_G._G = nil",
        "left = 1",
    ] {
        let told = eval(&mut world, client, script);
        assert!(
            told.contains("Attempt to modify a readonly table"),
            "{script}: {told}"
        );
    }
    eval(&mut world, client, "KEYS.left = 1 ARGV.left = 1");
    let told = eval(
        &mut world,
        client,
        "return {type(KEYS.left), type(ARGV.left), type(rawget(_G, 'left'))}",
    );
    assert_eq!(told, "[nil nil nil]");
    assert_eq!(eval(&mut world, client, "return ('x'):rep(2)"), "xx");
}

#[test]
fn who_monitors_is_told_of_a_script_and_then_of_its_commands() {
    let mut world = World::new();
    let (monitor, client) = (world.client(), world.client());
    world.say(monitor, "MONITOR");
    eval(&mut world, client, "return redis.call('SET','a',1)");
    let told = world.owed(monitor);
    let (script, command) = told.split_once("\"0\" ").expect("two lines");
    assert!(
        script.contains("] \"EVAL\" ") && !script.contains("lua]"),
        "{told}"
    );
    assert!(command.contains(" [0 lua] \"SET\" \"a\" \"1\""), "{told}");
}
