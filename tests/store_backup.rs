//! `keyferry store backup`, `restore` and `stats`: with real processes, under writes, killed
//! at any time, and with what real servers write and read.
//!
//! ```text
//!   writers ──> shard ──backup──> FILE ──restore──> another shard ──> redis-server
//!                 '──stream from the backup's offset──> redis-server that loaded FILE
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

#[allow(dead_code, reason = "each test uses its own part of it")]
#[path = "store_replication/writes.rs"]
mod writes;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value as Json;
use support::servers::Skipped;
use support::{Client, RedisServer, ServerKind, StoreServer, Value, seeded, wait_until};
use tempfile::TempDir;
use writes::{Writers, prepare};

const LIMIT: Duration = Duration::from_secs(60);
/// Backups and restores that are killed.
const KILLS: usize = 8;

fn keyferry(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyferry"));
    command.arg("store").args(words).stdin(Stdio::null());
    command
}

fn run(words: &[&str]) -> Output {
    keyferry(words).output().expect("keyferry runs")
}

/// What it prints with `--json`, if it ends with 0.
fn json(words: &[&str]) -> Json {
    let output = run(&[words, &["--json"]].concat());
    assert!(output.status.success(), "{words:?}: {}", told(&output));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Ends with this code, and says what to do.
fn refused(words: &[&str], code: i32) -> String {
    let output = run(words);
    let text = told(&output);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {text}");
    assert!(text.contains("help: "), "{text}");
    text
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of ours is text")
}

fn digest(client: &mut Client) -> String {
    client.call(&["DEBUG", "DIGEST"]).text()
}

fn info(client: &mut Client, section: &str, field: &str) -> String {
    let text = client.call(&["INFO", section]).text();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().to_owned()
}

/// A shard made of a file.
fn restored(file: &Path, flags: &[&str]) -> (StoreServer, Json) {
    let mut said = Json::Null;
    let store = StoreServer::start_in(flags, |dir| {
        said = json(&["restore", path(file), path(dir)]);
    });
    (store, said)
}

/// Waits until it has all that its master has.
fn wait_followed(master: &mut Client, replica: &mut Client) {
    wait_until("the replica has the whole stream", LIMIT, || {
        info(replica, "replication", "master_link_status") == "up"
            && info(replica, "replication", "slave_repl_offset")
                == info(master, "replication", "master_repl_offset")
    });
}

/// A stream with somebody who has not acknowledged; digests do not look at that.
fn add_streams(client: &mut Client) {
    for number in 1..600 {
        let id = format!("{number}-1");
        client.call(&["XADD", "stream", &id, "field", "value", "number", &id]);
    }
    client.call(&["XGROUP", "CREATE", "stream", "readers", "0"]);
    client.call(&[
        "XREADGROUP",
        "GROUP",
        "readers",
        "one",
        "COUNT",
        "5",
        "STREAMS",
        "stream",
        ">",
    ]);
    let acknowledged = client.call(&["XACK", "stream", "readers", "2-1"]);
    assert_eq!(acknowledged, Value::Int(1));
}

fn pending(client: &mut Client) -> Value {
    client.call(&["XPENDING", "stream", "readers"])
}

/// A redis-server that loads the backup goes on with the shard's stream where the backup
/// stands, and holds the same in the end: so it is the shard at exactly that offset.
#[test]
fn a_backup_under_writes_is_the_shard_at_its_offset() {
    let store = StoreServer::start(&[]);
    prepare(&store);
    let writers = Writers::start(&store, "a_backup_under_writes_is_the_shard_at_its_offset");
    writers.go_on_for(500);
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("dump.rdb");
    let said = json(&["backup", &store.address(), path(&file)]);
    writers.go_on_for(500);
    writers.stop();
    let mut master = store.client();
    assert_eq!(said["v"], 1);
    assert_eq!(
        said["replid"],
        info(&mut master, "replication", "master_replid")
    );
    let syncs = info(&mut master, "stats", "sync_full");
    let port = store.port().to_string();
    let debug = [
        "--replicaof",
        "127.0.0.1",
        &port,
        "--enable-debug-command",
        "yes",
    ];
    let redis = RedisServer::start_with_files(ServerKind::Redis70, dir.path(), &debug)
        .expect("it loads the backup");
    let mut replica = redis.client();
    wait_followed(&mut master, &mut replica);
    assert_eq!(
        info(&mut master, "stats", "sync_full"),
        syncs,
        "{}",
        redis.log()
    );
    wait_until("both hold the same", LIMIT, || {
        // Keys that expired meanwhile are told by then.
        master.call(&["INCR", "tries"]);
        master.call(&["WAIT", "1", "0"]);
        digest(&mut master) == digest(&mut replica)
    });

    // A shard of it has a history of its own: the replica begins anew there.
    let (copy, said_of_copy) = restored(&file, &[]);
    assert_eq!(said_of_copy["digest"], said["digest"]);
    assert_eq!(said_of_copy["keys"], said["keys"]);
    let mut of_copy = copy.client();
    assert_ne!(
        said["replid"],
        info(&mut of_copy, "replication", "master_replid")
    );
    replica.call(&["REPLICAOF", "127.0.0.1", &copy.port().to_string()]);
    wait_followed(&mut of_copy, &mut replica);
    assert_eq!(info(&mut of_copy, "stats", "sync_full"), "1");
    assert_eq!(info(&mut of_copy, "stats", "sync_partial_ok"), "0");
    wait_until("both hold the same", LIMIT, || {
        of_copy.call(&["INCR", "tries"]);
        of_copy.call(&["WAIT", "1", "0"]);
        digest(&mut of_copy) == digest(&mut replica)
    });
}

#[test]
fn what_is_restored_has_the_digest_of_what_was_backed_up_also_after_a_kill() {
    let store = StoreServer::start(&["--durability", "always"]);
    prepare(&store);
    add_streams(&mut store.client());
    let library = "#!lua name=mine\nredis.register_function('answer', function() return 42 end)";
    let loaded = store.client().call(&["FUNCTION", "LOAD", library]);
    assert_eq!(loaded.text(), "mine");
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("a.rdb");
    // By the directory, as well as by the address.
    let said = json(&["backup", path(&store.files()), path(&file)]);
    let wanted = digest(&mut store.client());
    assert_eq!(said["digest"], wanted.as_str());
    let (mut copy, _) = restored(&file, &[]);
    for _ in 0..2 {
        assert_eq!(digest(&mut copy.client()), wanted);
        assert_eq!(pending(&mut copy.client()), pending(&mut store.client()));
        assert_eq!(
            copy.client().call(&["FCALL", "answer", "0"]),
            Value::Int(42)
        );
        copy.kill();
        copy.start_again();
    }
    assert_eq!(copy.client().call(&["SET", "after", "1"]).text(), "OK");
    // Never over anything.
    refused(&["backup", &store.address(), path(&file)], 4);
    refused(&["restore", path(&file), path(&copy.files())], 4);
    assert_eq!(copy.client().call(&["GET", "after"]).text(), "1");
    refused(&["restore", path(&dir.path().join("none")), "x"], 2);
    refused(&["backup", "127.0.0.1:1", path(&dir.path().join("b"))], 1);
    assert_eq!(names(dir.path()), ["a.rdb"]);
}

/// What CONFIG REWRITE would have kept at that moment, though nobody said it.
#[test]
fn settings_and_users_are_backed_up_with_the_data() {
    let store = StoreServer::start(&[]);
    let mut client = store.client();
    client.call(&["SET", "app:k", "v"]);
    for line in [
        "ACL SETUSER app on >pw ~app:* +get",
        "ACL SETUSER backup on >b resetchannels +psync +replconf +info",
        "CONFIG SET hash-max-listpack-entries 7 requirepass secret",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(client.call(&words).text(), "OK");
    }
    let list = client.call(&["ACL", "LIST"]);
    let dir = TempDir::new().unwrap();
    let login = |name: &str, text: &str| {
        let file = dir.path().join(name);
        fs::write(&file, text).unwrap();
        path(&file).to_owned()
    };
    let (all, few) = (login("all", "secret\n"), login("few", "b\n"));
    let (file, without) = (dir.path().join("a.rdb"), dir.path().join("b.rdb"));
    let said = json(&[
        "backup",
        &store.address(),
        path(&file),
        "--password-file",
        &all,
    ]);
    assert_eq!((&said["settings"], &said["users"]), (&2.into(), &2.into()));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o077, 0);
    let bytes = fs::read(&file).unwrap();
    let is_in = |bytes: &[u8], word: &[u8]| bytes.windows(word.len()).any(|at| at == word);
    assert!(is_in(&bytes, b"secret"));

    let (mut copy, said) = restored(&file, &[]);
    assert_eq!((&said["settings"], &said["users"]), (&2.into(), &2.into()));
    for _ in 0..2 {
        let mut client = copy.client();
        assert!(client.call(&["GET", "app:k"]).is_error(), "who is it?");
        assert_eq!(client.call(&["AUTH", "app", "pw"]).text(), "OK");
        assert_eq!(client.call(&["GET", "app:k"]).text(), "v");
        assert_eq!(client.call(&["AUTH", "secret"]).text(), "OK");
        assert_eq!(
            format!("{:?}", client.call(&["ACL", "LIST"])),
            format!("{list:?}")
        );
        let entries = client.call(&["CONFIG", "GET", "hash-max-listpack-entries"]);
        assert!(format!("{entries:?}").contains('7'), "{entries:?}");
        copy.kill();
        copy.start_again();
    }

    // A user who may not read them gets a backup without.
    let flags = ["--user", "backup", "--password-file", &few];
    let address = store.address();
    let words = [&["backup", &address, path(&without)], &flags[..]].concat();
    let output = run(&words);
    assert!(output.status.success(), "{}", told(&output));
    assert!(told(&output).contains("note: settings and users are not in it"));
    assert!(!is_in(&fs::read(&without).unwrap(), b"secret"));
    // And no replica gets them.
    let redis = RedisServer::start(&["--masterauth", "secret"]);
    let mut replica = redis.client();
    replica.call(&["REPLICAOF", "127.0.0.1", &store.port().to_string()]);
    wait_followed(&mut client, &mut replica);
    assert_eq!(replica.call(&["SAVE"]).text(), "OK");
    assert!(!redis.log().contains("keyferry-"), "{}", redis.log());
}

/// Each says what it was, and what to do instead.
#[test]
fn who_names_a_wrong_thing_is_told_what_to_do() {
    let (store, redis) = (StoreServer::start(&[]), RedisServer::start(&[]));
    let dir = TempDir::new().unwrap();
    let at = |name: &str| path(&dir.path().join(name)).to_owned();
    let (file, good) = (at("file"), at("good.rdb"));
    fs::write(&file, "pw\n").unwrap();
    fs::create_dir_all(at("half/log")).unwrap();
    fs::write(at("half/restoring"), "").unwrap();
    let address = store.address();
    let (address, other) = (address.as_str(), redis.address());
    json(&["backup", address, &good]);
    for (words, code, told) in [
        (&["stats", &file][..], 2, "is no directory"),
        (&["stats", &at("none")], 2, "there is no directory"),
        (&["stats", path(dir.path())], 2, "holds no built-in shard"),
        (&["stats", &at("half")], 4, "did not come to its end"),
        (&["stats", "127.0.0.1:1"], 1, "cannot be reached"),
        (
            &["stats", &other],
            1,
            &format!("{other}: it is no built-in shard"),
        ),
        (
            &["stats", address, "--password-file", &file],
            1,
            "leave out --password-file",
        ),
        (
            &["stats", address, "--password-file", &at("none")],
            2,
            "cannot read",
        ),
        (
            &["backup", address, &at("none/x")],
            2,
            "a directory that is there",
        ),
        (&["backup", address, &file], 4, "is there already"),
        (
            &["backup", &at("half"), &at("x")],
            4,
            "did not come to its end",
        ),
        (&["restore", &file, &at("x")], 4, "is no whole backup"),
        (
            &["restore", path(dir.path()), &at("x")],
            2,
            "cannot be read",
        ),
        (&["restore", &good, &file], 2, "name a directory"),
        (&["restore", &good, &at("file/x")], 2, "name a directory"),
        (&["restore", &good, path(&store.files())], 4, "is not empty"),
    ] {
        let text = refused(words, code);
        assert!(text.contains(told), "{words:?}: {text}");
    }
    assert_eq!(names(dir.path()), ["file", "good.rdb", "half"]);
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn dumps_of_all_servers_are_restored() {
    let mut skipped = Skipped::default();
    for kind in ServerKind::ALL {
        if !skipped.unless_here(kind.name(), &[kind]) {
            continue;
        }
        let debug: &[&str] = match kind.is_seven_or_later() {
            true => &["--enable-debug-command", "yes"],
            false => &[],
        };
        let redis = RedisServer::start_kind(kind, debug);
        prepare(&redis);
        let mut client = redis.client();
        add_streams(&mut client);
        assert_eq!(client.call(&["SAVE"]).text(), "OK");
        let (copy, said) = restored(&redis.dir().join("dump.rdb"), &[]);
        assert_eq!(said["digest"], digest(&mut client).as_str(), "{kind}");
        assert_eq!(digest(&mut copy.client()), digest(&mut client), "{kind}");
        assert_eq!(pending(&mut copy.client()), pending(&mut client), "{kind}");
        // Its snapshots are backups, too.
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("by.rdb");
        let said = json(&["backup", &redis.address(), path(&file)]);
        assert_eq!(said["digest"], digest(&mut client).as_str(), "{kind}");
    }
    skipped.finish();
}

/// A shard with some megabytes, so that there is a middle to be killed in.
fn large() -> StoreServer {
    let store = StoreServer::start(&[]);
    prepare(&store);
    let mut client = store.client();
    let value = "0123456789abcdef".repeat(64);
    for number in 0..8_000 {
        client.send(&["SET", &format!("large:{number}"), &value]);
    }
    for _ in 0..8_000 {
        assert!(!client.read().is_error());
    }
    store
}

#[test]
fn a_killed_backup_leaves_no_half_file() {
    let mut rng = seeded("a_killed_backup_leaves_no_half_file");
    let store = large();
    let wanted = digest(&mut store.client());
    let dir = TempDir::new().unwrap();
    let mut whole = 0;
    for round in 0..KILLS {
        let file = dir.path().join(format!("{round}.rdb"));
        let part = dir.path().join(format!("{round}.rdb.part"));
        let mut child = keyferry(&["backup", &store.address(), path(&file)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The moment of the kill is what is varied here, not waited for.
        std::thread::sleep(Duration::from_millis(rng.u64(..400)));
        child.kill().unwrap();
        child.wait().unwrap();
        let shard = dir.path().join(format!("shard-{round}"));
        if file.exists() {
            whole += 1;
            assert!(!part.exists());
            let said = json(&["restore", path(&file), path(&shard)]);
            assert_eq!(said["digest"], wanted.as_str());
            continue;
        }
        if part.exists() {
            let output = run(&["restore", path(&part), path(&shard), "--json"]);
            match output.status.code() {
                // All was written, and the name was missing.
                Some(0) => assert!(String::from_utf8_lossy(&output.stdout).contains(&wanted)),
                code => assert_eq!(code, Some(4), "{}", told(&output)),
            }
        }
        // The next one takes over what is there.
        let said = json(&["backup", &store.address(), path(&file)]);
        assert_eq!(said["digest"], wanted.as_str());
        assert!(!part.exists());
    }
    println!("{whole} of {KILLS} were done before they were killed");
}

#[test]
fn a_killed_restore_is_no_shard_until_it_is_begun_anew() {
    let mut rng = seeded("a_killed_restore_is_no_shard_until_it_is_begun_anew");
    let store = large();
    let wanted = digest(&mut store.client());
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("a.rdb");
    json(&["backup", &store.address(), path(&file)]);
    let mut half = 0;
    for round in 0..KILLS {
        let shard = dir.path().join(format!("shard-{round}"));
        let mut child = keyferry(&["restore", path(&file), path(&shard)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(rng.u64(..2_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        if shard.join("restoring").exists() {
            half += 1;
            let started = run(&["--dir", path(&shard), "--listen", "127.0.0.1:1"]);
            assert!(!started.status.success());
            assert!(told(&started).contains("restore"), "{}", told(&started));
            refused(&["stats", path(&shard)], 1);
        }
        if !shard.exists() || shard.join("restoring").exists() || names(&shard).is_empty() {
            let said = json(&["restore", path(&file), path(&shard)]);
            assert_eq!(said["digest"], wanted.as_str());
        }
        // Whole, however it came to be.
        assert_eq!(names(&shard), ["log", "rows"]);
        let said = json(&["stats", path(&shard)]);
        let keys = said["stats"]["databases"].as_array().unwrap().iter();
        let keys: u64 = keys.map(|of| of["keys"].as_u64().unwrap()).sum();
        assert!(keys > 8_000, "{said}");
        fs::remove_dir_all(&shard).unwrap();
    }
    println!("{half} of {KILLS} were half done when they were killed");
}

#[test]
fn an_interrupted_backup_says_so_and_leaves_nothing() {
    let mut rng = seeded("an_interrupted_backup_says_so_and_leaves_nothing");
    let store = large();
    let dir = TempDir::new().unwrap();
    for round in 0..6 {
        let file = dir.path().join(format!("{round}.rdb"));
        let child = keyferry(&["backup", &store.address(), path(&file)])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(100 + rng.u64(..200)));
        let kill = format!("kill -TERM {}", child.id());
        // It may have ended by then.
        let _ = Command::new("sh").args(["-c", &kill]).output();
        let output = child.wait_with_output().unwrap();
        match output.status.code() {
            Some(0) => assert!(file.exists()),
            // Before anything was begun, the signal ends it by itself.
            None => assert!(!file.exists()),
            code => {
                assert_eq!(code, Some(75), "{}", told(&output));
                assert!(!file.exists());
            }
        }
        let left = names(dir.path());
        assert!(
            !left.iter().any(|name| name == &format!("{round}.rdb.part"))
                || output.status.code().is_none()
        );
    }
}

#[test]
fn bits_that_flip_in_a_backup_are_seen() {
    let mut rng = seeded("bits_that_flip_in_a_backup_are_seen");
    let store = StoreServer::start(&[]);
    prepare(&store);
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("a.rdb");
    json(&["backup", &store.address(), path(&file)]);
    let whole = fs::read(&file).unwrap();
    let damaged = dir.path().join("damaged.rdb");
    let shard = dir.path().join("shard");
    for _ in 0..20 {
        let mut bytes = whole.clone();
        match rng.u8(..4) {
            0 => bytes.truncate(rng.usize(..whole.len())),
            _ => bytes[rng.usize(..whole.len())] ^= 1 << rng.u32(..8),
        }
        fs::write(&damaged, bytes).unwrap();
        refused(&["restore", path(&damaged), path(&shard)], 4);
        assert!(!shard.exists());
    }
}

#[test]
fn stats_tell_of_a_shard_that_runs_and_of_one_that_rests() {
    let mut store = StoreServer::start(&[]);
    prepare(&store);
    let mut client = store.client();
    let keys = client.call(&["DBSIZE"]).int();
    let end = info(&mut client, "replication", "master_repl_offset");
    client.call(&["CONFIG", "SET", "requirepass", "secret"]);
    refused(&["stats", &store.address()], 1);
    let secret = store.files().parent().unwrap().join("password");
    fs::write(&secret, "secret\n").unwrap();
    let with = ["--password-file", path(&secret)];
    let said = json(&[&["stats", &store.address()], &with[..]].concat());
    assert_eq!(said["v"], 1);
    assert_eq!(said["runs"], true);
    let stats = &said["stats"];
    assert_eq!(stats["databases"][0]["db"], 0);
    assert_eq!(stats["databases"][0]["keys"], keys);
    assert_eq!(stats["databases"][0]["expires"], 2);
    assert_eq!(stats["log"]["end_offset"].to_string(), end);
    assert_eq!(stats["health"], "good");
    assert!(stats["disk"]["free_bytes"].as_u64().unwrap() > 0);
    let text = run(&[&["stats", path(&store.files())], &with[..]].concat());
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains(&format!("{keys} keys, 2 expire")), "{text}");

    store.stop();
    let said = json(&["stats", path(&store.files())]);
    assert_eq!(said["runs"], false);
    let stats = &said["stats"];
    assert_eq!(stats["databases"][0]["keys"], keys);
    for (part, name) in [
        ("log", "end_offset"),
        ("log", "durable_offset"),
        ("engine", "applied_offset"),
        ("engine", "durable_offset"),
    ] {
        assert_eq!(stats[part][name].to_string(), end, "{part} {name}");
    }
    assert!(stats["disk"]["table_bytes"].as_u64().unwrap() > 0);
    refused(&["backup", path(&store.files()), "/nowhere"], 1);
    refused(&["stats", "/nowhere/at-all"], 2);
    let redis = RedisServer::start(&[]);
    if std::env::var("KEYFERRY_TEST_SHARDS").is_err() {
        let text = refused(&["stats", &redis.address()], 1);
        assert!(text.contains("no built-in shard"), "{text}");
    }
    let elsewhere: PathBuf = store.files().join("log");
    refused(&["stats", path(&elsewhere)], 2);
}
