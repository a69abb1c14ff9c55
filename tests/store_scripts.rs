//! Scripts and functions of the built-in shard beyond one connection: what they write reaches
//! replicas and the disk whole, libraries stay, and a script that does not end is ended.
//!
//! ```text
//!   EVAL, FCALL ──> keyferry store ──(effects)──> redis-server
//!   EVAL, FCALL ──> redis-server ──(effects)──> keyferry store ──kill -9──> the same again
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use support::{Client, RedisServer, StoreServer, Value, seeded, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

/// Two keys that are only changed together, something of each kind, and something random.
const SCRIPT: &str = "
    local n = redis.call('INCR', KEYS[1])
    redis.call('SET', KEYS[2], n)
    redis.call('RPUSH', 'list:' .. n % 7, ARGV[1], n)
    redis.call('HINCRBYFLOAT', 'hash:' .. n % 5, ARGV[1], '0.5')
    redis.call('SADD', 'set:' .. n % 3, n, n + 1, n + 2)
    redis.call('SPOP', 'set:' .. n % 3)
    redis.call('ZADD', 'zset', n % 100, 'm' .. n % 50)
    if n % 11 == 0 then redis.call('DEL', 'list:' .. n % 7) end
    if n % 13 == 0 then redis.call('SET', 'ttl:' .. n % 4, n, 'EX', 1000) end
    redis.call('SELECT', n % 3)
    redis.call('SET', 'elsewhere', n)
    if n % 17 == 0 then error('after all') end
    return n";

fn library(name: &str, number: usize) -> String {
    format!(
        "#!lua name={name}\nredis.register_function('{name}_add', function(keys, args)
           redis.call('INCRBY', keys[1], {number})
           return redis.call('APPEND', keys[2], args[1])
         end)"
    )
}

fn info(client: &mut Client, section: &str, field: &str) -> String {
    let text = client.call(&["INFO", section]).text();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().to_owned()
}

/// Texts of all libraries, in one order.
fn libraries(client: &mut Client) -> Vec<String> {
    let Value::Array(list) = client.call(&["FUNCTION", "LIST", "WITHCODE"]) else {
        panic!("a list of libraries");
    };
    let mut texts: Vec<String> = list.iter().map(|library| format!("{library:?}")).collect();
    texts.sort();
    texts
}

fn digest(client: &mut Client) -> String {
    client.call(&["DEBUG", "DIGEST"]).text()
}

/// Runs scripts and changes libraries.
fn write(client: &mut Client, rng: &mut fastrand::Rng, times: usize) {
    for _ in 0..times {
        let number = rng.usize(..100);
        let member = format!("member{}", rng.u32(..20));
        match rng.u32(..20) {
            0 => {
                let text = library(&format!("lib{}", number % 4), number);
                client.call(&["FUNCTION", "LOAD", "REPLACE", &text]);
            }
            1 if number < 30 => {
                client.call(&["FUNCTION", "DELETE", &format!("lib{}", number % 4)]);
            }
            2 if number < 5 => {
                client.call(&["FUNCTION", "FLUSH"]);
            }
            3..6 => {
                let name = format!("lib{}_add", number % 4);
                client.call(&["FCALL", &name, "2", "counted", "text", "x"]);
            }
            6 => {
                client.call(&["MULTI"]);
                client.call(&["EVAL", SCRIPT, "2", "a", "b", &member]);
                client.call(&["INCR", "in multi"]);
                client.call(&["EXEC"]);
            }
            _ => {
                client.call(&["EVAL", SCRIPT, "2", "a", "b", &member]);
            }
        }
    }
}

/// Waits until the replica has all, and holds the same.
fn assert_same(master: &mut Client, replica: &mut Client) {
    wait_until("the replica has the whole stream", LIMIT, || {
        info(replica, "replication", "master_link_status") == "up"
            && info(replica, "replication", "slave_repl_offset")
                == info(master, "replication", "master_repl_offset")
    });
    assert_eq!(digest(master), digest(replica));
    assert_eq!(libraries(master), libraries(replica));
}

#[test]
fn a_redis_server_that_follows_has_the_effects_and_the_functions() {
    let mut rng = fastrand::Rng::with_seed(seeded("scripts, followed").u64(..));
    let store = StoreServer::start(&[]);
    let mut master = store.client();
    write(&mut master, &mut rng, 300);
    master.call(&["FUNCTION", "LOAD", "REPLACE", &library("kept", 1)]);
    let port = store.port().to_string();
    let replica = RedisServer::start(&[
        "--replicaof",
        "127.0.0.1",
        &port,
        "--enable-debug-command",
        "yes",
    ]);
    let mut follower = replica.client();
    assert_same(&mut master, &mut follower);
    write(&mut master, &mut rng, 2_000);
    assert_same(&mut master, &mut follower);
    assert_eq!(follower.call(&["GET", "a"]), follower.call(&["GET", "b"]));
}

#[test]
fn a_shard_that_follows_a_redis_server_has_them_too_and_keeps_them() {
    let mut rng = fastrand::Rng::with_seed(seeded("scripts, following").u64(..));
    let redis = RedisServer::start(&["--enable-debug-command", "yes"]);
    let mut master = redis.client();
    write(&mut master, &mut rng, 300);
    master.call(&["FUNCTION", "LOAD", "REPLACE", &library("kept", 1)]);
    let mut store = StoreServer::start(&[]);
    let mut follower = store.client();
    // What it had is gone with the snapshot.
    follower.call(&["FUNCTION", "LOAD", &library("own", 1)]);
    let port = redis.port().to_string();
    follower.call(&["REPLICAOF", "127.0.0.1", &port]);
    assert_same(&mut master, &mut follower);
    for _ in 0..3 {
        write(&mut master, &mut rng, 500);
        assert_same(&mut master, &mut follower);
        store.kill();
        write(&mut master, &mut rng, 50);
        store.start_again();
        follower = store.client();
        assert_same(&mut master, &mut follower);
    }
    assert_eq!(
        info(&mut master, "stats", "sync_full"),
        "1",
        "libraries did not need another snapshot"
    );
    master.call(&["FUNCTION", "LOAD", "REPLACE", &library("kept", 1)]);
    assert_same(&mut master, &mut follower);
    let refused = follower.call(&["FCALL", "kept_add", "2", "x", "y", "z"]);
    assert!(told(&refused).starts_with("READONLY"), "{refused:?}");
    follower.call(&["REPLICAOF", "NO", "ONE"]);
    let called = follower.call(&["FCALL", "kept_add", "2", "new", "text of it", "z"]);
    assert_eq!(called, Value::Int(1));
}

#[test]
fn a_kill_leaves_functions_and_whole_scripts() {
    let seed = seeded("scripts, killed").u64(..);
    let mut store = StoreServer::start(&[]);
    let mut loaded = 0;
    let mut at_least = 0;
    for round in 0..12_u64 {
        let mut client = store.client();
        let name = format!("lib{round}");
        client.call(&["FUNCTION", "LOAD", &library(&name, 1)]);
        loaded += 1;
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..3_u64)
            .map(|number| {
                let (address, stop) = (store.address(), Arc::clone(&stop));
                let mut rng = fastrand::Rng::with_seed(seed ^ (round << 8) ^ number);
                thread::spawn(move || {
                    let mut last = 0;
                    // It may be killed before this comes.
                    let Ok(mut client) = Client::try_connect(&address) else {
                        return last;
                    };
                    while !stop.load(Ordering::Relaxed) {
                        let member = format!("member{}", rng.u32(..20));
                        match client.try_call(&["EVAL", SCRIPT, "2", "a", "b", &member]) {
                            Ok(Value::Int(number)) => last = number,
                            Ok(_) => {}
                            Err(_) => break,
                        }
                    }
                    last
                })
            })
            .collect();
        let mut rng = fastrand::Rng::with_seed(seed ^ round);
        let enough = at_least + 1 + rng.i64(..200);
        wait_until("scripts ran", LIMIT, || match client.call(&["GET", "a"]) {
            Value::Bulk(text) => String::from_utf8_lossy(&text).parse().unwrap_or(0) > enough,
            _ => false,
        });
        store.kill();
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            at_least = at_least.max(writer.join().expect("a writer"));
        }
        store.start_again();
        let mut client = store.client();
        let counted = client.call(&["GET", "a"]);
        assert_eq!(
            counted,
            client.call(&["GET", "b"]),
            "half a script is there"
        );
        let counted: i64 = counted.text().parse().expect("a number");
        assert!(counted >= at_least, "{counted} of {at_least} acknowledged");
        assert_eq!(libraries(&mut client).len(), loaded);
        let called = client.call(&["FCALL", &format!("{name}_add"), "2", "c", "t", "x"]);
        assert!(matches!(called, Value::Int(_)), "{called:?}");
    }
}

/// An error's words, or a text.
fn told(reply: &Value) -> String {
    match reply {
        Value::Error(words) => words.clone(),
        other => format!("{other:?}"),
    }
}

/// Until somebody is told that a script is busy.
fn await_busy(client: &mut Client) -> String {
    let mut words = String::new();
    wait_until("others are told that a script runs", LIMIT, || {
        words = told(&client.call(&["GET", "anything"]));
        words.starts_with("BUSY")
    });
    words
}

#[test]
fn an_endless_script_is_ended_and_others_are_told_meanwhile() {
    let store = StoreServer::start(&[]);
    let mut runs = store.client();
    let mut other = store.client();
    runs.call(&["CONFIG", "SET", "busy-reply-threshold", "20"]);
    for script in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "local co = coroutine.wrap(function() while true do end end) while true do pcall(co) end",
        "while true do redis.call('GET', 'x') end",
    ] {
        runs.send(&["EVAL", script, "0"]);
        let words = await_busy(&mut other);
        assert!(words.contains("SCRIPT KILL or SHUTDOWN NOSAVE"), "{words}");
        // Who comes now is told so, too.
        let mut newcomer = store.client();
        assert!(told(&newcomer.call(&["PING"])).starts_with("BUSY"));
        assert!(told(&other.call(&["FUNCTION", "KILL"])).starts_with("BUSY"));
        assert!(told(&other.call(&["SHUTDOWN"])).starts_with("BUSY"));
        assert_eq!(other.call(&["SCRIPT", "KILL"]), Value::ok());
        let ended = told(&runs.read());
        assert!(ended.starts_with("ERR Script killed by user"), "{ended}");
        assert_eq!(newcomer.call(&["PING"]).text(), "PONG");
        assert_eq!(runs.call(&["PING"]).text(), "PONG");
    }
    let none = told(&other.call(&["SCRIPT", "KILL"]));
    assert!(none.starts_with("NOTBUSY"), "{none}");
    let endless =
        "#!lua name=endless\nredis.register_function('endless', function() while true do end end)";
    runs.call(&["FUNCTION", "LOAD", endless]);
    runs.send(&["FCALL", "endless", "0"]);
    await_busy(&mut other);
    assert!(told(&other.call(&["SCRIPT", "KILL"])).starts_with("BUSY"));
    let Value::Array(stats) = other.call(&["FUNCTION", "STATS"]) else {
        panic!("statistics");
    };
    assert!(told(&stats[1]).contains("endless"), "{stats:?}");
    assert_eq!(other.call(&["FUNCTION", "KILL"]), Value::ok());
    assert!(runs.read().is_error());
    let slow = runs.call(&["FUNCTION", "LOAD", "#!lua name=slow\nwhile true do end"]);
    assert!(told(&slow).contains("FUNCTION LOAD timeout"), "{slow:?}");
}

#[test]
fn a_script_that_wrote_ends_with_the_process_and_leaves_nothing() {
    let mut store = StoreServer::start(&[]);
    let mut runs = store.client();
    let mut other = store.client();
    runs.call(&["SET", "before", "1"]);
    runs.call(&["CONFIG", "SET", "busy-reply-threshold", "20"]);
    let script = "redis.call('SET', 'half', 1) redis.call('DEL', 'before') while true do end";
    runs.send(&["EVAL", script, "0"]);
    await_busy(&mut other);
    let words = told(&other.call(&["SCRIPT", "KILL"]));
    assert!(words.starts_with("UNKILLABLE"), "{words}");
    other.send(&["SHUTDOWN", "NOSAVE"]);
    store.process().wait(LIMIT);
    store.start_again();
    let mut client = store.client();
    assert_eq!(client.call(&["EXISTS", "half"]), Value::Int(0));
    assert_eq!(client.call(&["GET", "before"]).text(), "1");
}

#[test]
fn a_shard_that_is_to_end_does_not_wait_for_an_endless_script() {
    let mut store = StoreServer::start(&[]);
    let mut runs = store.client();
    runs.call(&["SET", "before", "1"]);
    runs.call(&["CONFIG", "SET", "busy-reply-threshold", "20"]);
    runs.send(&["EVAL", "redis.call('DEL', 'before') while true do end", "0"]);
    await_busy(&mut store.client());
    store.stop();
    store.start_again();
    assert_eq!(store.client().call(&["GET", "before"]).text(), "1");
}

#[test]
fn a_reply_is_told_up_to_a_bound() {
    let store = StoreServer::start(&[]);
    let mut client = store.client();
    let script = "local t = {string.rep('x', 100000)} for i = 1, 40 do t = {t, t, t} end return t";
    let words = told(&client.call(&["EVAL", script, "0"]));
    assert!(words.contains("more than"), "{words}");
    assert_eq!(client.call(&["EVAL", "return 7", "0"]), Value::Int(7));
}

#[test]
fn a_script_that_takes_too_much_memory_is_told_so() {
    let store = StoreServer::start(&[]);
    let mut client = store.client();
    let script = "local t = {} while true do t[#t + 1] = string.rep('x', 1000000) .. #t end";
    for _ in 0..2 {
        let words = told(&client.call(&["EVAL", script, "0"]));
        assert!(words.contains("not enough memory"), "{words}");
    }
    assert_eq!(client.call(&["EVAL", "return 7", "0"]), Value::Int(7));
}

/// A command as COMMAND tells it, and its subcommands.
fn described(entry: &Value, found: &mut Vec<(Vec<String>, usize, bool)>) {
    let items = entry.items();
    let words = items[0].text().split('|').map(str::to_owned).collect();
    let is_of_interest = items[2].items().iter().any(|flag| {
        let flag = flag.text();
        flag == "noscript" || flag == "blocking"
    });
    let words_min = usize::try_from(items[1].int().unsigned_abs()).expect("few words");
    found.push((words, words_min, is_of_interest));
    for subcommand in items[9].items() {
        described(subcommand, found);
    }
}

/// All that the real server refuses to scripts, and all that would wait: with too few words,
/// enough and more; and those that wait with all they can find.
#[test]
fn what_waits_and_what_is_for_no_script_does_as_in_redis() {
    let (store, redis) = (StoreServer::start(&[]), RedisServer::start(&[]));
    let mut sides = [store.client(), redis.client()];
    let mut commands = Vec::new();
    let told = sides[1].call(&["COMMAND"]);
    told.items()
        .iter()
        .for_each(|entry| described(entry, &mut commands));
    let mut requests: Vec<Vec<String>> = Vec::new();
    for (words, words_min, is_of_interest) in commands {
        if is_of_interest {
            for (more, filler) in [(0, "x"), (1, "1"), (2, "0")] {
                let mut request = words.clone();
                request.resize(words.len().max(words_min + more), filler.to_owned());
                requests.push(request);
            }
            requests.push(words);
        }
    }
    assert!(requests.len() > 300, "{}", requests.len());
    let waiting = "BLPOP l 0;BRPOP none l 0;BLPOP none 0;BLPOP none 0.1;BLPOP s 0;BLPOP l -1;BLPOP l x;\
        BLMOVE l l LEFT RIGHT 0;BLMOVE none l LEFT LEFT 0;BLMOVE l s LEFT LEFT 0;BRPOPLPUSH l l2 1;\
        BRPOPLPUSH none l 0;BLMPOP 0 1 l LEFT COUNT 2;BLMPOP 0 1 none LEFT;BLMPOP -1 1 l LEFT;\
        BZPOPMIN z 0;BZPOPMAX none z 0;BZPOPMIN none 0;BZPOPMIN s 0;BZMPOP 0 1 z MIN;\
        BZMPOP 0 2 none n2 MAX COUNT 3;XREAD BLOCK 0 STREAMS x 0;xread count 2 block 0 streams x $;\
        XREAD BLOCK x STREAMS x 0;XREAD BLOCK 0 STREAMS s 0;XREAD NOACK BLOCK 0 STREAMS x 0;\
        XREAD BLOCK;XREAD BLOCK 0;XREAD STREAMS x $;XREAD COUNT x BLOCK 0 STREAMS x 0;\
        XREADGROUP GROUP g c BLOCK 0 STREAMS x >;XREADGROUP GROUP none c BLOCK 0 STREAMS x >;\
        XREADGROUP GROUP g c STREAMS x >;XREADGROUP BLOCK 0 GROUP g c STREAMS x 0;WAIT 0 0;\
        WAIT 1 x;SAVE;BGSAVE;MODULE|LOAD x;acl|cat;LATENCY RESET;CLIENT PAUSE 1;CLUSTER RESET;MODULE UNLOAD x;NOSUCH x";
    requests.extend(
        waiting
            .split(';')
            .map(|line| line.split_whitespace().map(str::to_owned).collect()),
    );
    for client in &mut sides {
        for line in
            "RPUSH l a b c d e f;ZADD z 1 a 2 b 3 c 4 d;SET s text;XADD x 1-1 f v;XADD x 2-1 f v;\
            XGROUP CREATE x g 0"
                .split(';')
        {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert!(!client.call(&words).is_error(), "{line}");
        }
    }
    let scripts = [
        ("EVAL", "return redis.pcall(unpack(ARGV))"),
        ("EVAL", "return redis.call(unpack(ARGV))"),
        ("EVAL_RO", "return redis.call(unpack(ARGV))"),
    ];
    for request in &requests {
        for (eval, script) in scripts {
            let mut words = vec![eval, script, "0"];
            words.extend(request.iter().map(String::as_str));
            let [ours, theirs] = sides.each_mut().map(|client| client.call(&words));
            assert_eq!(ours, theirs, "{words:?}");
        }
    }
    let left = ["LRANGE", "l", "0", "-1"];
    let [ours, theirs] = sides.each_mut().map(|client| client.call(&left));
    assert_eq!(ours, theirs);
}
