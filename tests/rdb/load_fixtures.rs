//! `keyferry rdb load` against the servers' own load: every fixture that a
//! server can load by itself, loaded into an empty server of the same kind,
//! gives the same dataset, by pass-through and by commands.
//!
//! What a server refuses is skipped by name: newer versions, modules, damage.
//! What it leaves out (empty containers, expired keys) must be left out alike.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::seen::{Keys, Known, differences, read_all};
use crate::support::servers::Skipped;
use crate::support::{RedisServer, ServerKind, Value, keyferry_command, wait_until};

/// Databases of a server with default settings.
const DATABASES: u32 = 16;

/// Deep checks of what clients send: a payload that is only nearly right fails.
const SETTINGS: [&str; 2] = ["--sanitize-dump-payload", "yes"];

/// Fixtures that each kind must be able to load, at least.
const LOADED_MIN: usize = 40;

const LOAD_LIMIT: Duration = Duration::from_secs(60);

/// How many differences of a database are shown.
const SHOWN: usize = 3;

/// A stream whose length in these files is not that of its entries; a server
/// that adds them one by one counts right.
const WRONG_LENGTH_KEY: &[u8] = b"trim";
const WRONG_LENGTH_IN: [&str; 2] = [
    "hdt3213__stream_listpacks_1.rdb",
    "replicator__listpack-bug.rdb",
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    PassThrough,
    Commands,
}

/// All keys of a server by database, and its functions in an order of ours.
struct Dataset {
    keys: BTreeMap<u32, Keys>,
    functions: Vec<String>,
}

impl Dataset {
    fn of(server: &RedisServer, kind: ServerKind) -> Dataset {
        let known = Known {
            field_ttls: kind.has_field_ttls(),
            stream_counts: true,
        };
        let mut client = server.client();
        let keys = (0..DATABASES).map(|db| {
            assert_eq!(client.call(&["SELECT", &db.to_string()]), Value::ok());
            (db, read_all(&mut client, known))
        });
        let keys = keys.collect();
        let listed = client.call(&["FUNCTION", "LIST", "WITHCODE"]);
        let listed = listed.items().iter();
        let mut functions: Vec<_> = listed.map(|library| format!("{library:?}")).collect();
        functions.sort();
        Dataset { keys, functions }
    }

    fn count(&self) -> usize {
        self.keys.values().map(Keys::len).sum()
    }

    /// What `ours` has in another way.
    fn differences(&self, ours: &Dataset) -> Vec<String> {
        let mut told = Vec::new();
        for (db, wanted) in &self.keys {
            let found = differences(wanted, &ours.keys[db], SHOWN);
            told.extend(found.into_iter().map(|what| format!("db {db}: {what}")));
        }
        if self.functions != ours.functions {
            let (wanted, found) = (&self.functions, &ours.functions);
            told.push(format!("functions {found:?} instead of {wanted:?}"));
        }
        told
    }

    /// See [`WRONG_LENGTH_KEY`]: then that is no difference.
    fn forgive_length(&mut self, fixture: &str) {
        let keys = self.keys.values_mut();
        let streams = keys.filter_map(|keys| keys.get_mut(WRONG_LENGTH_KEY));
        for stream in streams.filter(|_| WRONG_LENGTH_IN.contains(&fixture)) {
            // Files of that age have no count of their own: it is the length.
            stream
                .lines
                .retain(|line| !line.starts_with("length ") && !line.starts_with("entries-added "));
        }
    }
}

/// A file of the lists.
struct Fixture {
    name: String,
    path: PathBuf,
    /// Made to be refused, at least in part.
    is_negative: bool,
}

fn fixtures() -> Vec<Fixture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rdb");
    let mut found = Vec::new();
    for (list, below) in [
        ("fixtures.tsv", ""),
        ("synthetic/synthetic.tsv", "synthetic"),
    ] {
        let text = fs::read_to_string(folder.join(list)).expect("the list of fixtures");
        for line in text.lines().skip(1) {
            let name = line.split('\t').next().expect("a first column");
            found.push(Fixture {
                name: name.to_owned(),
                path: folder.join(below).join(name),
                is_negative: line.contains("NEGATIVE TEST"),
            });
        }
    }
    assert!(found.len() > 80, "both lists are there");
    found
}

/// What the server makes of the file by itself; or why it does not.
fn own_load(kind: ServerKind, file: &Path) -> Result<Dataset, String> {
    let dir = tempfile::TempDir::with_prefix("keyferry-own-load-").expect("a directory");
    fs::copy(file, dir.path().join("dump.rdb")).expect("a copy");
    let server = RedisServer::start_with_files(kind, dir.path(), &SETTINGS)?;
    wait_until("it has loaded", LOAD_LIMIT, || {
        server.info_field("persistence", "loading").as_deref() == Some("0")
    });
    Ok(Dataset::of(&server, kind))
}

/// What `rdb load` makes of it, in a server that holds nothing.
fn our_load(
    server: &RedisServer,
    kind: ServerKind,
    fixture: &Fixture,
    way: Way,
) -> Result<Dataset, String> {
    let mut client = server.client();
    client.call(&["FLUSHALL"]);
    client.call(&["FUNCTION", "FLUSH"]);
    let to = format!("redis://{}", server.address());
    let file = fixture.path.display().to_string();
    let mut words = vec!["rdb", "load", &file, "--to", &to, "--yes"];
    if way == Way::Commands {
        words.push("--commands");
    }
    let output = keyferry_command(&words);
    // Exit code 1: keys were left out, and named. That must be so of no other file.
    let left_out = fixture.is_negative && output.status.code() == Some(1);
    if !output.status.success() && !left_out {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{}: {}", output.status, error.trim()));
    }
    Ok(Dataset::of(server, kind))
}

/// Differences of one fixture; `None` when the server cannot load it.
fn faults_of(empty: &RedisServer, kind: ServerKind, fixture: &Fixture) -> Option<Vec<String>> {
    let name = &fixture.name;
    let Ok(mut own) = own_load(kind, &fixture.path) else {
        println!("{name}: {kind} cannot load it");
        return None;
    };
    println!("{name}: {kind} loads {} keys", own.count());
    own.forgive_length(name);
    let mut faults = Vec::new();
    for way in [Way::PassThrough, Way::Commands] {
        let told = match our_load(empty, kind, fixture, way) {
            Ok(mut ours) => {
                ours.forgive_length(name);
                own.differences(&ours)
            }
            Err(error) => vec![error],
        };
        let told = told.into_iter();
        faults.extend(told.map(|fault| format!("{name}, {way:?}: {fault}")));
    }
    Some(faults)
}

fn as_the_server_itself(kind: ServerKind) {
    let mut skipped = Skipped::default();
    if !skipped.unless_here(&format!("rdb load into {kind}"), &[kind]) {
        return skipped.finish();
    }
    let empty = RedisServer::start_kind(kind, &SETTINGS);
    let fixtures = fixtures();
    let loaded: Vec<_> = fixtures
        .iter()
        .filter_map(|fixture| faults_of(&empty, kind, fixture))
        .collect();
    let count = loaded.len();
    assert!(count >= LOADED_MIN, "{kind} loads {count} fixtures");
    let faults = loaded.concat();
    println!("{kind}: {count} fixtures, {} faults", faults.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn fixtures_load_as_redis_7_0_loads_them() {
    as_the_server_itself(ServerKind::Redis70);
}

#[test]
fn fixtures_load_as_redis_8_0_loads_them() {
    as_the_server_itself(ServerKind::Redis80);
}

#[test]
fn fixtures_load_as_valkey_9_1_loads_them() {
    as_the_server_itself(ServerKind::Valkey91);
}
