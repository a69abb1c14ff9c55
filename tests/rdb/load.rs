//! `keyferry rdb load` into real servers: what arrives is what the server's own
//! load of the same file gives, by RESTORE and by commands; conflicts, what a
//! target cannot hold, and targets that refuse.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::support::{Client, RedisServer};

const DEBUG: [&str; 2] = ["--enable-debug-command", "yes"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/rdb")
        .join(name)
}

/// Exit code, stdout, stderr of `keyferry rdb load --json`.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn report(&self) -> Json {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{}", self.stderr))
    }
}

fn load(file: &Path, to: &str, extra: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyferry"));
    let output = command
        .args(["rdb", "load", "--json", "--to", to])
        .args(extra)
        .arg(file)
        .output()
        .expect("it ran");
    Ran {
        code: output.status.code().expect("an exit code"),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

fn url(server: &RedisServer) -> String {
    format!("redis://{}", server.address())
}

fn digest(client: &mut Client) -> String {
    client.call(&["DEBUG", "DIGEST"]).text()
}

/// What the installed Redis 7.0 loads: the format up to 10, no modules, nothing
/// damaged or of another vendor.
fn loadable() -> Vec<String> {
    let table = fs::read_to_string(fixture("fixtures.tsv")).unwrap();
    let names = table.lines().skip(1).filter_map(|line| {
        let columns: Vec<_> = line.split('\t').collect();
        let version: u32 = columns[6].strip_prefix("REDIS")?.parse().ok()?;
        let notes = columns[8];
        let ops = notes.split(';').next()?.trim_start_matches("ops:");
        let known = [
            "AUX",
            "SELECTDB",
            "RESIZEDB",
            "EXPIRETIME",
            "EXPIRETIME_MS",
            "FREQ",
            "IDLE",
            "FUNCTION2",
            "EOF",
        ];
        let sound = !notes.contains("BAD") && ops.split('+').all(|op| known.contains(&op));
        let module = columns[7].split(',').any(|part| part.starts_with("7:"));
        // Redis 7.0 itself finds the first one's zipmap unsound and lacks the second
        // one's module; of the third it skips packed values without elements, which
        // RESTORE refuses.
        let refused = [
            "hdt3213__zipmap_big_len.rdb",
            "replicator__module.rdb",
            "redis__corrupt_empty_keys.rdb",
        ];
        let refused = refused.contains(&columns[0]);
        (version <= 10 && sound && !module && !refused).then(|| columns[0].to_owned())
    });
    names.collect()
}

/// In any order: the server's is that of its hash table.
fn libraries(client: &mut Client) -> BTreeSet<String> {
    let list = client.call(&["FUNCTION", "LIST", "WITHCODE"]);
    list.items()
        .iter()
        .map(|item| format!("{item:?}"))
        .collect()
}

#[test]
fn a_load_gives_what_the_servers_own_load_gives() {
    let target = RedisServer::start(&DEBUG);
    let mut client = target.client();
    let names = loadable();
    assert!(names.len() > 40, "{names:?}");
    let mut keys = 0;
    for name in names {
        let directory = TempDir::with_prefix("keyferry-load-").unwrap();
        fs::copy(fixture(&name), directory.path().join("dump.rdb")).unwrap();
        let own = directory.path().to_str().unwrap();
        let server =
            RedisServer::start(&[&DEBUG[..], &["--dir", own, "--dbfilename", "dump.rdb"]].concat());
        let wanted = digest(&mut server.client());
        for extra in [&["--yes"][..], &["--yes", "--commands"]] {
            client.call(&["FLUSHALL"]);
            client.call(&["FUNCTION", "FLUSH"]);
            let ran = load(&fixture(&name), &url(&target), extra);
            assert_eq!(
                ran.code, 0,
                "{name} {extra:?}: {}{}",
                ran.stdout, ran.stderr
            );
            // ZADD of -0 to a packed set stores 0, which is the same score.
            let minus_zero = name == "librdb__zset_zl_v6.rdb" && extra.contains(&"--commands");
            if !minus_zero {
                assert_eq!(
                    digest(&mut client),
                    wanted,
                    "{name} {extra:?}: {}",
                    ran.stdout
                );
            }
            keys += ran.report()["loaded"].as_u64().unwrap();
        }
        assert_eq!(
            libraries(&mut client),
            libraries(&mut server.client()),
            "{name}"
        );
    }
    assert!(keys > 800, "{keys}");
}

/// A server with keys of every type in two databases, and the file it saves.
fn source() -> (RedisServer, PathBuf) {
    let server = RedisServer::start(&DEBUG);
    let mut client = server.client();
    for db in ["0", "3"] {
        client.call(&["SELECT", db]);
        for n in 0..600 {
            let n = n.to_string();
            client.call(&["SET", &format!("s:{n}"), &n.repeat(9)]);
            client.call(&["RPUSH", &format!("l:{n}"), "a", &n]);
            client.call(&["HSET", &format!("h:{n}"), "f", &n, "g", db]);
            client.call(&["ZADD", &format!("z:{n}"), "1.5", &n, "inf", "top"]);
            client.call(&["SADD", &format!("i:{n}"), &n, "7"]);
            client.call(&["PEXPIREAT", &format!("i:{n}"), "4102444800123"]);
        }
        // Hardly to be compressed, and more than a target takes in one RESTORE.
        for n in 0..20_000_u64 {
            let mixed = |by: u64| (n + by).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ by << 32);
            let item = [1, 2, 3, 4]
                .map(|by| format!("{:016x}", mixed(by)))
                .concat();
            client.call(&["RPUSH", "large", &item]);
        }
        client.call(&["XADD", "x", "5-1", "f", "v"]);
        client.call(&["XGROUP", "CREATE", "x", "g", "0"]);
        client.call(&["XREADGROUP", "GROUP", "g", "c", "STREAMS", "x", ">"]);
    }
    client.call(&["SAVE"]);
    let directory = client.call(&["CONFIG", "GET", "dir"]).items()[1].text();
    let name = client.call(&["CONFIG", "GET", "dbfilename"]).items()[1].text();
    (server, Path::new(&directory).join(name))
}

/// Of each key: the digest of its value, and when it expires.
fn held(server: &RedisServer, db: &str) -> BTreeMap<String, (String, i64)> {
    let mut client = server.client();
    client.call(&["SELECT", db]);
    let keys = client.call(&["KEYS", "*"]);
    let of = |client: &mut Client, key: &str| {
        let digest = client.call(&["DEBUG", "DIGEST-VALUE", key]).items()[0].text();
        (digest, client.call(&["PEXPIRETIME", key]).int())
    };
    let names = keys.items().iter().map(|key| key.text());
    names
        .map(|key| (key.clone(), of(&mut client, &key)))
        .collect()
}

fn layout(directory: &TempDir, servers: &[RedisServer]) -> String {
    let mut text = "hash = \"fnv1a_64\"\ndistribution = \"ketama\"\n".to_owned();
    for (at, server) in servers.iter().enumerate() {
        text.push_str(&format!(
            "[[shard]]\nname = \"s{at}\"\naddr = \"{}\"\n",
            server.address()
        ));
    }
    let path = directory.path().join("layout.toml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Which server `keyferry route` gives each key to.
fn routed(directory: &TempDir, layout: &str, keys: &[String]) -> Vec<String> {
    let text = fs::read_to_string(layout)
        .unwrap()
        .replace("[[shard]]", "[[pool.p.shard]]");
    let config = directory.path().join("config.toml");
    fs::write(
        &config,
        format!("[pool.p]\nlisten = [\"127.0.0.1:0\"]\n{text}"),
    )
    .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyferry"));
    let output = command
        .args(["route", "-c", config.to_str().unwrap(), "-"])
        .write_stdin(keys.join("\n"))
        .output();
    let stdout = String::from_utf8(output.unwrap().stdout).unwrap();
    stdout
        .lines()
        .map(|line| line.rsplit_once('\t').unwrap().1.to_owned())
        .collect()
}

#[test]
fn the_keys_of_all_databases_go_to_their_owners_in_a_layout() {
    let (source, file) = source();
    let directory = TempDir::with_prefix("keyferry-load-").unwrap();
    let targets = RedisServer::start_many(3, &DEBUG);
    let to = layout(&directory, &targets);
    let rated = load(&file, &to, &["--yes", "--rate", "64MB/s"]);
    assert_eq!(rated.code, 0, "{}", rated.stderr);
    for db in ["0", "3"] {
        let wanted = held(&source, db);
        assert_eq!(wanted.len(), 3002);
        let mut found = BTreeMap::new();
        for target in &targets {
            let here = held(target, db);
            assert!(here.len() > 300, "{}", here.len());
            let names: Vec<String> = here.keys().cloned().collect();
            let owners = routed(&directory, &to, &names);
            assert!(owners.iter().all(|owner| *owner == target.address()));
            found.extend(here);
        }
        assert_eq!(found, wanted);
    }
    let report = rated.report();
    assert_eq!(
        (&report["loaded"], &report["keys_read"]),
        (&6004.into(), &6004.into())
    );
    let pending = |server: &RedisServer| server.client().call(&["XPENDING", "x", "g"]);
    let with_stream = targets
        .iter()
        .find(|target| !pending(target).is_error())
        .unwrap();
    assert_eq!(pending(with_stream).items()[0].int(), 1);
    for target in &targets {
        let left = target.client().call(&["KEYS", "__keyferry*"]);
        assert!(left.items().is_empty(), "{left:?}");
    }
}

#[test]
fn filters_and_one_database() {
    let (source, file) = source();
    let target = RedisServer::start(&DEBUG);
    let to = format!("{}/5", url(&target));
    let two = load(&file, &to, &["--yes"]);
    assert_eq!(two.code, 1);
    assert!(two.stderr.contains("databases 0 and 3"), "{}", two.stderr);
    target.client().call(&["FLUSHALL"]);
    let some = load(
        &file,
        &to,
        &["--yes", "--db", "3", "--prefix", "h:1", "--type", "hash"],
    );
    assert_eq!(some.code, 0, "{}", some.stderr);
    let mut wanted = held(&source, "3");
    wanted.retain(|key, _| key.starts_with("h:1"));
    assert_eq!(held(&target, "5"), wanted);
    assert_eq!(target.client().call(&["DBSIZE"]).int(), 0);
    assert_eq!(some.report()["unwanted"], 6004 - wanted.len());
}

#[test]
fn a_key_that_is_there_ends_the_load_or_is_replaced_or_stays() {
    let (source, file) = source();
    let wanted = held(&source, "0");
    let target = RedisServer::start(&DEBUG);
    let mut client = target.client();
    for by in [&[][..], &["--commands"]] {
        client.call(&["FLUSHALL"]);
        client.call(&["SET", "l:7", "mine"]);
        let with = |policy: &'static str| {
            [&["--yes", "--db", "0", "--on-conflict", policy][..], by].concat()
        };
        let failed = load(&file, &url(&target), &with("fail"));
        assert_eq!(failed.code, 1);
        assert!(
            failed.stderr.contains("has the key `l:7` (db 0) already"),
            "{}",
            failed.stderr
        );
        let skipped = load(&file, &url(&target), &with("skip"));
        assert_eq!(skipped.code, 0, "{}", skipped.stderr);
        assert!(skipped.report()["existing"].as_u64().unwrap() >= 1);
        assert_eq!(client.call(&["GET", "l:7"]).text(), "mine");
        assert_eq!(held(&target, "0").len(), wanted.len());
        let replaced = load(&file, &url(&target), &with("replace"));
        assert_eq!(
            (replaced.code, &replaced.report()["loaded"]),
            (0, &3002.into())
        );
        assert_eq!(
            held(&target, "0"),
            wanted,
            "{by:?}: nothing else is left behind"
        );
    }
}

#[test]
fn what_a_target_cannot_hold_is_told_by_key_and_the_rest_is_loaded() {
    let target = RedisServer::start(&DEBUG);
    let ran = load(
        &fixture("own/redis-8.0.2-packed.rdb"),
        &url(&target),
        &["--yes"],
    );
    let report = ran.report();
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    let not_loaded = report["not_loaded"].as_array().unwrap();
    assert!(!not_loaded.is_empty());
    let keys = held(&target, "0");
    assert_eq!(keys.len() + not_loaded.len(), 11);
    for entry in not_loaded {
        assert!(!keys.contains_key(entry["name"].as_str().unwrap()));
        assert_eq!((&entry["what"], &entry["db"]), (&"key".into(), &0.into()));
        assert!(entry["why"].as_str().unwrap().contains("expir"), "{entry}");
    }
    assert!(ran.stderr.contains("were not loaded"), "{}", ran.stderr);
}

#[test]
fn functions_and_scripts_go_to_every_target_and_expired_keys_to_none() {
    let directory = TempDir::with_prefix("keyferry-load-").unwrap();
    let targets = RedisServer::start_many(2, &DEBUG);
    let to = layout(&directory, &targets);
    let ran = load(&fixture("hdt3213__function.rdb"), &to, &["--yes"]);
    assert_eq!(
        (ran.code, &ran.report()["libraries"]),
        (0, &2.into()),
        "{}",
        ran.stderr
    );
    let again = load(&fixture("hdt3213__function.rdb"), &to, &["--yes"]);
    assert_eq!(again.code, 0, "REPLACE: {}", again.stderr);
    let scripts = load(&fixture("librdb__script.rdb"), &to, &["--yes"]);
    let loaded = scripts.report()["scripts"].as_u64().unwrap();
    assert!(
        scripts.code == 0 && loaded >= 2 && loaded.is_multiple_of(2),
        "{}",
        scripts.stdout
    );
    for target in &targets {
        let list = target.client().call(&["FUNCTION", "LIST"]);
        assert_eq!(list.items().len(), 1);
        let cached = target.info_field("memory", "number_of_cached_scripts");
        assert_eq!(cached, Some((loaded / 2).to_string()));
    }
    let expired = load(&fixture("rdbtools__keys_with_expiry.rdb"), &to, &["--yes"]);
    let report = expired.report();
    assert_eq!(
        (&report["expired"], &report["loaded"]),
        (&1.into(), &0.into())
    );
}

#[test]
fn a_damaged_file_is_loaded_as_far_as_it_goes() {
    let target = RedisServer::start(&DEBUG);
    let directory = TempDir::with_prefix("keyferry-load-").unwrap();
    let whole = fs::read(fixture("rdbtools__parser_filters.rdb")).unwrap();
    let cut = directory.path().join("cut.rdb");
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let ran = load(&cut, &url(&target), &["--yes"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("RDB byte 576 "), "{}", ran.stderr);
    let loaded = ran.report()["loaded"].as_u64().unwrap();
    assert!(loaded > 5);
    assert_eq!(held(&target, "0").len() as u64, loaded);
    assert!(
        ran.report()["error"]
            .as_str()
            .unwrap()
            .contains("RDB byte 576")
    );
}

#[test]
fn nothing_is_written_without_consent_or_to_what_is_unfit() {
    let master = RedisServer::start(&DEBUG);
    let file = fixture("rdbtools__parser_filters.rdb");
    let asked = load(&file, &url(&master), &[]);
    assert_eq!(asked.code, 2);
    assert!(asked.stderr.contains("add --yes"), "{}", asked.stderr);
    let port = master.port().to_string();
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &port]);
    let ran = load(&file, &url(&replica), &["--yes"]);
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(ran.stderr.contains("it is a replica"), "{}", ran.stderr);
    let member = RedisServer::start(&["--cluster-enabled", "yes"]);
    let ran = load(&file, &url(&member), &["--yes"]);
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(ran.stderr.contains("member of a cluster"), "{}", ran.stderr);
    assert_eq!(master.client().call(&["DBSIZE"]).int(), 0);
    assert_eq!(load(&file, "redis://127.0.0.1", &["--yes"]).code, 2);
    assert_eq!(load(&file, "/nowhere/layout.toml", &["--yes"]).code, 2);
}

#[test]
fn a_target_that_takes_no_more_ends_the_load_with_its_words() {
    let (_source, file) = source();
    let few = RedisServer::start(&["--databases", "2"]);
    let ran = load(&file, &url(&few), &["--yes"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("has no database 3"), "{}", ran.stderr);
    assert_eq!(few.client().call(&["DBSIZE"]).int(), 3002);

    let full = RedisServer::start(&["--maxmemory", "1mb"]);
    let ran = load(&file, &url(&full), &["--yes"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("takes no more") && ran.stderr.contains("OOM"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_password_is_taken_from_the_url_or_a_file() {
    let server = RedisServer::start(&DEBUG);
    server
        .client()
        .call(&["CONFIG", "SET", "requirepass", "p@ss word"]);
    let file = fixture("rdbtools__parser_filters.rdb");
    let without = load(&file, &url(&server), &["--yes"]);
    assert!(
        without.code != 0 && without.stderr.contains("NOAUTH"),
        "{}",
        without.stderr
    );
    let to = format!("redis://:p%40ss%20word@{}", server.address());
    assert_eq!(load(&file, &to, &["--yes"]).code, 0);
    let directory = TempDir::with_prefix("keyferry-load-").unwrap();
    let secret = directory.path().join("secret");
    fs::write(&secret, "p@ss word\n").unwrap();
    let filed = [
        "--yes",
        "--on-conflict",
        "replace",
        "--password-file",
        secret.to_str().unwrap(),
    ];
    let ran = load(&file, &url(&server), &filed);
    assert_eq!(
        (ran.code, &ran.report()["loaded"]),
        (0, &43.into()),
        "{}",
        ran.stderr
    );
}
