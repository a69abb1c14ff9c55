use crate::store::session::CloseReason;
use crate::store::session::world::World;

fn closing(world: &mut World, client: usize) -> Option<CloseReason> {
    world
        .shard
        .output_of(client)
        .and_then(|(_, closing)| closing)
}

#[test]
fn rights_are_looked_at_when_a_request_comes_and_by_exec() {
    let mut world = World::new();
    let (root, client) = (world.client(), world.client());
    world.say(
        root,
        "ACL SETUSER m on >p ~k* +multi +exec +get +set +discard",
    );
    assert!(world.say(client, "AUTH m wrong").contains("-WRONGPASS"));
    assert_eq!(world.say(client, "AUTH m p"), "OK");
    let no_right = "-NOPERM this user has no permissions to";
    assert_eq!(
        world.say(client, "DEL k"),
        format!("{no_right} run the 'del' command")
    );
    let no_key = format!("{no_right} access one of the keys used as arguments");
    assert_eq!(world.say(client, "GET x"), no_key);
    assert_eq!(
        world.say(client, "CLIENT LIST"),
        format!("{no_right} run the 'client|list' command")
    );
    world.say(client, "MULTI");
    assert_eq!(world.say(client, "GET k"), "QUEUED");
    assert_eq!(world.say(client, "GET x"), no_key);
    assert!(world.say(client, "EXEC").contains("EXECABORT"));
    world.say(client, "MULTI");
    world.say(client, "GET k");
    world.say(client, "SET k 1");
    world.say(root, "ACL SETUSER m -set");
    assert_eq!(
        world.say(client, "EXEC"),
        "[nil -NOPERM ACLs rules changed between the moment the transaction was accumulated \
         and the EXEC call. This command is no longer allowed for the following reason: no \
         permission to execute the command or subcommand]"
    );
    world.say(client, "MULTI");
    world.say(client, "GET k");
    world.say(root, "ACL SETUSER m -@all");
    assert_eq!(
        world.say(client, "EXEC"),
        "-EXECABORT Transaction discarded because of: NOPERM this user has no permissions to \
         run the 'exec' command"
    );
    assert!(world.say(client, "PING").contains("NOPERM"));
    assert!(world.say(root, "ACL LOG").contains("context multi"));
}

/// What a reshard does under its fence, in one transaction.
#[test]
fn a_fence_refuses_all_that_comes_behind_it() {
    let mut world = World::new();
    let (root, client) = (world.client(), world.client());
    let open = "ACL SETUSER e1 reset on >pw ~* &* +@all (~__keyferry:* +get)";
    assert_eq!(world.say(root, open), "OK");
    assert_eq!(world.say(client, "AUTH e1 pw"), "OK");
    assert_eq!(world.say(client, "SUBSCRIBE c"), "[subscribe c :1]");
    world.say(client, "UNSUBSCRIBE c");
    world.say(client, "MULTI");
    world.say(client, "INCR n");
    world.say(root, "WATCH __keyferry:fence");
    world.say(root, "MULTI");
    for line in [
        "ACL SETUSER e1 on >pw -@all resetkeys clearselectors ~__keyferry:* +get +multi +ping \
         +echo +auth +hello +select +client +discard +unwatch +subscribe +unsubscribe \
         +psubscribe +punsubscribe +time",
        "SET __keyferry:fence e1",
        "PUBLISH __keyferry m",
    ] {
        assert_eq!(world.say(root, line), "QUEUED");
    }
    assert_eq!(world.say(root, "EXEC"), "[OK OK :0]");
    assert!(world.say(client, "EXEC").contains("EXECABORT"));
    assert!(world.say(client, "INCR n").contains("NOPERM"));
    assert_eq!(world.say(client, "GET __keyferry:fence"), "e1");
    assert!(world.say(client, "GET n").contains("NOPERM"));
    assert_eq!(world.say(client, "SUBSCRIBE c"), "[subscribe c :1]");
    assert!(world.say(root, "ACL GETUSER e1").starts_with("[flags [on"));
    assert_eq!(world.say(root, "ACL GETUSER e2"), "nil");
    assert_eq!(world.say(root, "GET n"), "nil");
    let told = world.say(root, "ACL DELUSER e1 e2");
    assert_eq!(told, ":1");
    assert_eq!(closing(&mut world, client), Some(CloseReason::Killed));
}

#[test]
fn who_waits_is_served_as_in_redis() {
    let mut world = World::new();
    let (root, client) = (world.client(), world.client());
    world.say(root, "ACL SETUSER b on nopass ~q +blpop");
    world.say(client, "AUTH b x");
    assert_eq!(world.say(client, "BLPOP q 0"), "");
    world.say(root, "ACL SETUSER b -@all");
    world.say(root, "RPUSH q v");
    assert_eq!(world.owed(client), "[q v]");
    assert!(world.say(client, "BLPOP q 0").contains("NOPERM"));
}

#[test]
fn clients_of_a_deleted_user_go() {
    let mut world = World::new();
    let (root, mine, waiting) = (world.client(), world.client(), world.client());
    world.say(root, "ACL SETUSER u on nopass ~* &* +@all");
    world.say(mine, "AUTH u x");
    world.say(waiting, "AUTH u x");
    world.say(waiting, "BLPOP q 0");
    assert!(world.say(root, "CLIENT LIST").contains("user=u"));
    assert_eq!(world.say(mine, "ACL DELUSER u"), ":1");
    assert_eq!(closing(&mut world, mine), Some(CloseReason::Killed));
    assert_eq!(closing(&mut world, waiting), Some(CloseReason::Killed));
    assert_eq!(closing(&mut world, root), None);
    assert!(world.say(root, "AUTH u x").contains("WRONGPASS"));
    let told = world.say(root, "ACL DELUSER default");
    assert_eq!(told, "-ERR The 'default' user cannot be removed");
    world.say(root, "RPUSH q v");
    assert_eq!(world.say(root, "LLEN q"), ":1", "who is gone takes nothing");
}

#[test]
fn clients_are_killed_by_user() {
    let mut world = World::new();
    let (root, client) = (world.client(), world.client());
    world.say(root, "ACL SETUSER u on nopass +@all");
    world.say(client, "AUTH u x");
    let told = world.say(root, "CLIENT KILL USER nosuch");
    assert_eq!(told, "-ERR No such user 'nosuch'");
    assert_eq!(world.say(root, "CLIENT KILL USER u"), ":1");
    assert_eq!(closing(&mut world, client), Some(CloseReason::Killed));
}

#[test]
fn who_listens_to_what_it_may_not_any_more_goes() {
    let mut world = World::new();
    let clients: Vec<usize> = (0..4).map(|_| world.client()).collect();
    let [root, channel, pattern, other] = clients[..] else {
        unreachable!("four");
    };
    world.say(root, "ACL SETUSER ps on nopass +@all &ch* &x");
    for client in [channel, pattern, other] {
        world.say(client, "AUTH ps x");
    }
    world.say(channel, "SUBSCRIBE ch1");
    world.say(pattern, "PSUBSCRIBE ch*");
    world.say(other, "SUBSCRIBE x");
    world.say(root, "ACL SETUSER ps &more");
    world.say(root, "ACL SETUSER ps resetchannels &ch* &x");
    assert_eq!(closing(&mut world, channel), None);
    assert_eq!(closing(&mut world, pattern), None);
    world.say(root, "ACL SETUSER ps resetchannels &x");
    assert_eq!(closing(&mut world, channel), Some(CloseReason::Killed));
    assert_eq!(closing(&mut world, pattern), Some(CloseReason::Killed));
    assert_eq!(closing(&mut world, other), None);
    assert_eq!(world.say(root, "PUBLISH ch1 m"), ":0");
}

#[test]
fn the_default_user_opens_and_closes_the_door() {
    let mut world = World::new();
    let root = world.client();
    world.say(root, "ACL SETUSER u on nopass ~* &* +@all");
    world.say(root, "ACL SETUSER default off");
    assert_eq!(world.say(root, "PING"), "PONG", "it is in");
    let client = world.client();
    assert!(world.say(client, "PING").starts_with("-NOAUTH"));
    assert_eq!(
        world.say(client, "HELLO 2 AUTH u x").get(..8),
        Some("[server ")
    );
    assert_eq!(world.say(client, "ACL WHOAMI"), "u");
    assert_eq!(world.say(client, "RESET"), "RESET");
    assert!(world.say(client, "PING").starts_with("-NOAUTH"));
    world.say(root, "ACL SETUSER default on >secret");
    assert!(world.say(client, "AUTH wrong").starts_with("-WRONGPASS"));
    assert_eq!(world.say(client, "AUTH secret"), "OK");
    assert_eq!(world.say(client, "ACL WHOAMI"), "default");
    assert_eq!(world.say(client, "CONFIG SET requirepass other"), "OK");
    assert_eq!(world.say(client, "AUTH default other"), "OK");
    assert_eq!(
        world.say(client, "CONFIG SET requirepass").get(..4),
        Some("-ERR")
    );
}

#[test]
fn sort_reads_foreign_keys_only_with_all_of_them() {
    let mut world = World::new();
    let (root, client) = (world.client(), world.client());
    world.say(root, "ACL SETUSER s on nopass +@all ~q");
    world.say(client, "AUTH s x");
    assert_eq!(world.say(client, "SORT q BY nosort"), "[]");
    assert_eq!(
        world.say(client, "SORT q BY w_*"),
        "-ERR BY option of SORT denied due to insufficient ACL permissions."
    );
    world.say(root, "ACL SETUSER s resetkeys %R~*");
    assert_eq!(world.say(client, "SORT q BY w_* GET #"), "[]");
}

#[test]
fn rules_that_are_wrong_are_told_as_redis_tells_them() {
    let mut world = World::new();
    let root = world.client();
    for (line, told) in [
        (
            "ACL SETUSER b (+get ~x on",
            "-ERR Unmatched parenthesis in acl selector starting at '(+get'.",
        ),
        (
            "ACL SETUSER b +nosuch",
            "-ERR Error in ACL SETUSER modifier '+nosuch': Unknown command or category name in \
             ACL",
        ),
        ("ACL DRYRUN b get x", "-ERR User 'b' not found"),
        (
            "ACL DRYRUN default nosuch x",
            "-ERR Command 'nosuch' not found",
        ),
        (
            "ACL DRYRUN default config nosuch",
            "-ERR Command 'config' not found",
        ),
        (
            "ACL DRYRUN default client id x",
            "-ERR wrong number of arguments for 'client|id' command",
        ),
        (
            "ACL GENPASS 1 2",
            "-ERR unknown subcommand or wrong number of arguments for 'GENPASS'. Try ACL HELP.",
        ),
        ("ACL CAT nosuch", "-ERR Unknown category 'nosuch'"),
        ("ACL DRYRUN default get k", "OK"),
    ] {
        assert_eq!(world.say(root, line), told);
    }
    assert_eq!(world.say(root, "ACL GENPASS").len(), 64);
    assert_eq!(world.say(root, "ACL GENPASS 5").len(), 2);
    world.say(root, "ACL SETUSER r on ~k +get");
    let told = world.say(root, "ACL DRYRUN r get x");
    assert_eq!(told, "This user has no permissions to access the 'x' key");
}

#[test]
fn a_script_may_do_what_its_client_may() {
    let mut world = World::new();
    let (root, client) = (world.client(), world.client());
    world.say(root, "ACL SETUSER s on nopass ~k* %R~r +eval +get +set &c");
    world.say(client, "AUTH s x");
    let eval =
        |world: &mut World, script: &str| world.send(client, &[b"EVAL", script.as_bytes(), b"0"]);
    assert_eq!(
        eval(&mut world, "return redis.call('set', 'k1', '1')"),
        "OK"
    );
    let told = eval(&mut world, "return redis.call('get', 'x')");
    let no_key = "can't access at least one of the keys mentioned in the command arguments";
    assert!(told.contains(no_key), "{told}");
    let told = eval(&mut world, "return redis.call('del', 'k1')");
    assert!(
        told.contains("can't run this command or subcommand"),
        "{told}"
    );
    let may =
        |world: &mut World, what: &str| eval(world, &format!("return redis.acl_check_cmd({what})"));
    assert_eq!(may(&mut world, "'get', 'r'"), ":1");
    assert_eq!(may(&mut world, "'set', 'r', '1'"), "nil");
    assert!(world.say(root, "ACL LOG").contains("context lua"));
    assert_eq!(world.say(root, "GET k1"), "1");
}
