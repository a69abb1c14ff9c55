//! Commands whose keys have one old owner and several new ones: the source is the
//! model, and targets must be equal to it at a cut.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use fastrand::Rng;
use keyferry::reshard::mover::{Mover, VerifyOptions};

use crate::support::{Client, RedisServer, ServerKind, Value, seeded};
use crate::world::{DBS, World, all_keys, contents, in_db, start};

/// Keys of one type that writers mix, for each new owner.
const KEYS_EACH: usize = 4;
/// Commands sent at once.
const PIPELINE: usize = 16;

fn words(text: &str) -> Vec<Vec<u8>> {
    text.split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect()
}

/// By the letter of their type.
type Names = HashMap<&'static str, Vec<String>>;

fn names(world: &World) -> Names {
    let mut names = Names::new();
    for kind in ["s", "l", "c", "z", "p"] {
        let of_kind = names.entry(kind).or_default();
        for owner in 0..3 {
            let found = (0..).map(|n: u32| format!("{kind}:{n}"));
            let found = found.filter(|name| world.new_at(name.as_bytes()) == owner);
            of_kind.extend(found.take(KEYS_EACH));
        }
    }
    names
}

/// A command that any Redis since 6.0 takes, with keys of one type each.
fn command(rng: &mut Rng, names: &Names, since_6_2: bool, big: usize) -> Vec<Vec<Vec<u8>>> {
    let mut key = |kind: &str| rng.choice(&names[kind]).unwrap().clone();
    let s = [key("s"), key("s"), key("s")];
    let l = [key("l"), key("l")];
    let c = [key("c"), key("c"), key("c")];
    let z = [key("z"), key("z"), key("z")];
    let p = [key("p"), key("p"), key("p")];
    let (n, m) = (rng.u32(..1000), rng.u32(..40));
    let [a, b, d] = &s;
    let one = match rng.u32(..if since_6_2 { 34 } else { 29 }) {
        0 => format!("SET {a} v{n}"),
        1 => format!("APPEND {a} x{n}"),
        2 => format!("RENAME {a} {b}"),
        3 => format!("RENAMENX {a} {b}"),
        4 => format!("BITOP OR {a} {b} {d}"),
        5 => format!("MSET {a} 1 {b} 2 {d} 3"),
        6 => format!("DEL {a} {b}"),
        7 => format!("SETRANGE {a} {m} yy"),
        8 => format!("RPUSH {} e{n} f{n}", l[0]),
        9 => format!("RPOPLPUSH {} {}", l[0], l[1]),
        10 => format!("LPOP {}", l[0]),
        11 => format!("SORT {} ALPHA STORE {}", l[0], l[1]),
        12 => format!("SADD {} {m} m{n}", c[0]),
        13 => format!("SMOVE {} {} {m}", c[0], c[1]),
        14 => format!("SUNIONSTORE {} {} {}", c[0], c[1], c[2]),
        15 => format!("SDIFFSTORE {} {} {}", c[0], c[1], c[2]),
        16 => format!("SPOP {} 2", c[0]),
        17 => format!("ZADD {} {n} m{m}", z[0]),
        18 => format!("ZUNIONSTORE {} 2 {} {}", z[0], z[1], z[2]),
        19 => format!("ZINCRBY {} 3 m{m}", z[0]),
        20 => format!("PFADD {} e{n} f{m}", p[0]),
        21 => format!("PFMERGE {} {} {}", p[0], p[1], p[2]),
        22 => format!("MOVE {a} 3"),
        23 => {
            return [
                "MULTI",
                &format!("APPEND {a} m"),
                &format!("RENAME {b} {d}"),
                &format!("SMOVE {} {} {m}", c[0], c[1]),
                "EXEC",
            ]
            .map(words)
            .into();
        }
        24 => {
            let script = "redis.call('SET',KEYS[1],ARGV[1]) redis.call('APPEND',KEYS[2],ARGV[1])";
            let eval: [&[u8]; 6] = [
                b"EVAL",
                script.as_bytes(),
                b"2",
                a.as_bytes(),
                b.as_bytes(),
                b"ev",
            ];
            return vec![eval.map(<[u8]>::to_vec).into()];
        }
        25 => format!("SET {a} {}", "L".repeat(big)),
        26 => format!("UNLINK {} {}", l[0], l[1]),
        27 => format!("GEORADIUS nowhere 1 1 5 km STORE {}", z[0]),
        28 => format!("SET {a} {n} EX 1000"),
        29 => format!("LMOVE {} {} LEFT LEFT", l[0], l[1]),
        30 => format!("COPY {a} {b} REPLACE"),
        31 => format!("COPY {a} {b} DB 3 REPLACE"),
        32 => format!("ZRANGESTORE {} {} 0 5", z[0], z[1]),
        _ => format!("COPY {} {} REPLACE", c[0], c[1]),
    };
    vec![words(&one)]
}

/// Writes until told to stop, and at least so many commands.
fn writer(
    server: &RedisServer,
    db: u32,
    (mut rng, names): (Rng, Arc<Names>),
    (since_6_2, big): (bool, usize),
    stop: &Arc<AtomicBool>,
) -> JoinHandle<()> {
    let mut client = in_db(server, db);
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let mut sent = 0;
        while sent < 3_000 || !stop.load(Ordering::Relaxed) {
            let batch: Vec<_> = (0..PIPELINE)
                .flat_map(|_| command(&mut rng, &names, since_6_2, big))
                .collect();
            sent += batch.len();
            for (reply, command) in client.pipeline(&batch).iter().zip(&batch) {
                let is_expected = match reply {
                    Value::Error(text) => text.contains("no such key") || text.contains("the same"),
                    _ => false,
                };
                assert!(
                    !reply.is_error() || is_expected,
                    "{reply:?} {:?}",
                    String::from_utf8_lossy(&command.join(&b' '))
                );
            }
        }
    })
}

/// Every key of the one old server is at its new owner as it is, and nothing else.
fn assert_equal(world: &World, db: u32) -> usize {
    let mut source = in_db(&world.servers[0], db);
    let mut targets = world.clients(db);
    let mut compared = 0;
    let keys = all_keys(&mut source);
    for key in keys.iter().filter(|key| world.moves(key)) {
        let target = &mut targets[world.new_at(key)];
        let shown = String::from_utf8_lossy(key);
        assert_eq!(seen(target, key), seen(&mut source, key), "{shown} in {db}");
        compared += 1;
    }
    for target in targets.iter_mut().skip(1) {
        for key in all_keys(target) {
            assert!(
                keys.contains(&key),
                "{} is only at the target",
                key.escape_ascii()
            );
        }
    }
    compared
}

/// As `contents`, with a time that servers before 7.0 know, too.
fn seen(client: &mut Client, key: &[u8]) -> (String, Vec<Value>, bool) {
    let (kind, mut items) = contents(client, key);
    items.pop();
    let expires = client.call(&[b"TTL", key]).int() >= 0;
    (kind, items, expires)
}

fn counts(mover: &Mover) -> (u64, Vec<&'static str>) {
    let progress = mover.progress_now();
    let row = &progress.sources[0];
    let names = row.spanning_commands.keys().copied().collect();
    (row.keys_refreshed, names)
}

async fn spans(servers: Vec<RedisServer>, since_6_2: bool, big: usize) {
    let from = keyferry::router::spec::DistributionKind::Ketama;
    let world = World::between(servers, 1, 3, from);
    let mut rng = seeded("spanning");
    let stop = Arc::new(AtomicBool::new(false));
    let how = (since_6_2, big);
    let names = Arc::new(names(&world));
    let writers = [DBS[0], DBS[0], DBS[1]].map(|db| {
        writer(
            &world.servers[0],
            db,
            (rng.fork(), Arc::clone(&names)),
            how,
            &stop,
        )
    });
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    let report = mover.verify(VerifyOptions::default()).await.unwrap();
    println!("under load: {report:?}");
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
    let cut = tokio::time::timeout(Duration::from_secs(60), mover.cut("end", 0));
    cut.await.unwrap().unwrap();
    let compared: usize = DBS.iter().map(|db| assert_equal(&world, *db)).sum();
    assert!(compared > 10, "{compared} keys");
    mover.uncut();
    let (refreshed, counted) = counts(&mover);
    println!("{refreshed} keys refreshed, {counted:?}");
    assert!(refreshed > 0);
    for name in [
        "rename",
        "smove",
        "sunionstore",
        "pfmerge",
        "rpoplpush",
        "bitop",
    ] {
        assert!(counted.contains(&name), "{name}: {counted:?}");
    }
    let report = mover.verify(VerifyOptions::default()).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_across_new_servers_are_followed_under_load() {
    spans(RedisServer::start_many(3, &[]), true, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_are_read_again_too() {
    spans(RedisServer::start_many(3, &[]), true, 700_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_sources_are_followed_across_new_servers() {
    let mut skipped = crate::support::servers::Skipped::default();
    for (kind, since_6_2) in [(ServerKind::Redis60, false), (ServerKind::Redis62, true)] {
        if skipped.unless_here(&format!("spanning from {kind}"), &[kind]) {
            let servers = (0..3).map(|_| RedisServer::start_kind(kind, &[]));
            spans(servers.collect(), since_6_2, 20).await;
        }
    }
    skipped.finish();
}

/// Keys of one old server, which go to two others, and one that stays.
fn cast(world: &World) -> (String, String, String) {
    let moving = |to: usize| world.find("k", |key| world.moves(key) && world.new_at(key) == to);
    let stays = world.find("s", |key| !world.moves(key));
    (moving(1), moving(2), stays)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_waits_for_what_is_read_again() {
    let world = World::ketama(1, 3);
    let (one, two, stays) = cast(&world);
    let mut source = world.servers[0].client();
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    for round in 0..50 {
        let value = format!("v{round}");
        source.call(&["SET", &stays, &value]);
        source.call(&["RENAME", &stays, &one]);
        source.call(&["APPEND", &one, "+"]);
        source.call(&["COPY", &one, &two, "REPLACE"]);
        source.call(&["APPEND", &two, "!"]);
        mover.cut("now", 0).await.unwrap();
        for (server, key, value) in [
            (1, &one, format!("{value}+")),
            (2, &two, format!("{value}+!")),
        ] {
            let found = world.servers[server].client().call(&["GET", key]);
            assert_eq!(found, Value::bulk(value), "round {round}");
        }
        mover.uncut();
    }
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn flushed_and_swapped_databases_are_followed() {
    let world = World::ketama(1, 3);
    let mut rng = seeded("flushing");
    world.fill(&mut rng, 300);
    let (one, two, _) = cast(&world);
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    let [first, second] = DBS;
    let mut source = in_db(&world.servers[0], second);
    let same = |what: &str| {
        for db in DBS {
            assert_equal(&world, db);
        }
        println!("{what}: equal");
    };
    // Only that database goes.
    source.call(&["FLUSHDB"]);
    source.call(&["SET", &one, "after"]);
    mover.cut("flushed", 0).await.unwrap();
    same("flushdb");
    assert_eq!(
        in_db(&world.servers[1], second).call(&["DBSIZE"]),
        Value::Int(1)
    );
    assert!(in_db(&world.servers[1], first).call(&["DBSIZE"]).int() > 10);
    mover.uncut();

    source.call(&["SWAPDB", &first.to_string(), &second.to_string()]);
    source.call(&["APPEND", &two, "swapped"]);
    mover.cut("swapped", 0).await.unwrap();
    same("swapdb");
    mover.uncut();
    let report = mover.verify(VerifyOptions::default()).await.unwrap();
    assert!(report.is_clean(), "{report:?}");

    source.call(&["MULTI"]);
    source.call(&["FLUSHALL"]);
    source.call(&["SET", &two, "last"]);
    source.call(&["EXEC"]);
    mover.cut("all", 0).await.unwrap();
    same("flushall");
    assert_eq!(
        in_db(&world.servers[2], second).call(&["GET", &two]),
        Value::bulk("last")
    );
    mover.uncut();
    assert_eq!(mover.progress_now().sources[0].flushes, 3);
    assert_eq!(mover.progress_now().restarts(), 0);
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_swapped_under_load_are_followed() {
    let world = World::ketama(1, 3);
    let mut rng = seeded("swapping");
    let stop = Arc::new(AtomicBool::new(false));
    let names = Arc::new(names(&world));
    world.fill(&mut rng, 2_000);
    let writers = DBS.map(|db| {
        let parts = (rng.fork(), Arc::clone(&names));
        writer(&world.servers[0], db, parts, (true, 20), &stop)
    });
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    let [first, second] = DBS.map(|db| db.to_string());
    let mut source = world.servers[0].client();
    for _ in 0..5 {
        assert_eq!(source.call(&["SWAPDB", &first, &second]), Value::ok());
        mover.marker("swapped").await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
    let cut = tokio::time::timeout(Duration::from_secs(60), mover.cut("end", 0));
    cut.await.unwrap().unwrap();
    for db in DBS {
        assert!(assert_equal(&world, db) > 10);
    }
    assert_eq!(mover.progress_now().restarts(), 0);
    mover.stop().await.unwrap();
}
